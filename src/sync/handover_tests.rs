//! Nothing that is pending is lost when a sync is replaced, or when syncs share a journal.

use std::cell::RefCell;
use std::sync::Arc;

use super::retry::FailedEntries;
use super::tests::sync_with;
use super::*;
use crate::process::ExitStatus;
use crate::queue::{Etype, Take};
use crate::watch::Event;

const SECOND: Time = 1_000_000;

/// Returns a sync that takes no Moves, so that it can share a journal.
fn reader() -> Sync {
    let mut sync = sync_with(Policy::Coalesce);
    sync.config.moves = false;
    sync.journal_group = Some(b"group".to_vec());
    sync
}

fn modify(sync: &mut Sync, path: &str) {
    let path = path.as_bytes();
    sync.ingest(Event::Modify { path }, 0);
}

/// Returns the queued paths. Special events have the names of their types.
pub fn queued(sync: &Sync) -> Vec<String> {
    let name = |(path, etype): (Vec<u8>, Etype)| {
        if etype.is_special() {
            etype.name().to_owned()
        } else {
            String::from_utf8(path).unwrap()
        }
    };
    let delays = sync.queue.iter();
    let mut all: Vec<_> = delays
        .map(|delay| name((delay.paths().0, delay.etype())))
        .collect();
    all.sort();
    all
}

/// Lets the sync begin what is due, and returns what is queued.
fn due(sync: &mut Sync, now: Time) -> Vec<String> {
    sync.next(now);
    queued(sync)
}

fn succeed(sync: &mut Sync) {
    let ids = sync.queue.take(|_| Take::Take);
    sync.queue.activate(&ids);
    sync.finish(&ids);
}

#[test]
fn a_new_sync_takes_over_what_the_old_one_has_not_sent() {
    let mut old = sync_with(Policy::Coalesce);
    for path in ["/src/queued", "/src/failed"] {
        modify(&mut old, path);
    }
    let failed = [(b"/failed".to_vec(), Etype::Modify)].into();
    let failed = FailedEntries::Paths(failed, Default::default());
    let ids = old.queue.take(|_| Take::Take);
    old.queue.activate(&ids);
    old.partly_failed(&ids, failed, 0);
    modify(&mut old, "/src/queued");
    let mut middle = sync_with(Policy::Coalesce);
    middle.adopt(&old);
    // It is replaced before it has started.
    let mut new = sync_with(Policy::Coalesce);
    new.adopt(&middle);
    new.config.init = false;
    new.start(0);
    assert_eq!(queued(&new), ["/failed", "/queued"]);
    assert!(!new.owes_comparison);
}

#[test]
fn a_pause_and_the_counters_outlive_a_reload() {
    let mut old = sync_with(Policy::Coalesce);
    old.lifecycle.set_paused(true);
    old.counters.overflows = 7;
    let mut new = sync_with(Policy::Coalesce);
    assert!(!new.is_paused());
    new.adopt(&old);
    assert!(new.is_paused());
    assert_eq!(new.counters.overflows, 7);
}

/// What the old sync has not compared, the new one compares: at its startup if it has one.
#[test]
fn a_comparison_that_is_owed_is_owed_by_the_new_sync() {
    type Change = fn(&mut Sync);
    let owing: [(&str, Change); 6] = [
        ("lost events", |sync| sync.owes_comparison = true),
        ("a lost source", |sync| {
            sync.lifecycle.lose_source("gone");
        }),
        ("an end", |sync| sync.lifecycle.end(ExitStatus::Exit(5))),
        ("a failed comparison", |sync| {
            let ids = sync.queue.take(|_| Take::Take);
            sync.partly_failed(&ids, FailedEntries::Everything, 0);
        }),
        ("a queued comparison", |sync| {
            sync.queue.push(Etype::Full, b"/", None, 0);
        }),
        ("an unfinished search", |sync| sync.verify.suspect()),
    ];
    for (what, change) in owing {
        let mut old = sync_with(Policy::Coalesce);
        old.has_full = true;
        change(&mut old);
        let mut new = sync_with(Policy::Coalesce);
        new.has_full = true;
        new.config.init = false;
        new.adopt(&old);
        assert!(new.owes_comparison, "{what}");
        new.start(0);
        assert_eq!(due(&mut new, SECOND), ["Full"], "{what}");
        let mut new = sync_with(Policy::Coalesce);
        new.adopt(&old);
        assert!(!new.owes_comparison, "{what}");
        assert!(!new.verify.is_done(), "{what}");
        new.start(0);
        assert_eq!(queued(&new), ["Init"], "{what}");
    }
    let mut new = sync_with(Policy::Coalesce);
    new.config.init = false;
    new.adopt(&sync_with(Policy::Coalesce));
    assert!(!new.owes_comparison);
}

#[test]
fn the_scope_is_shared_by_syncs_that_watch_the_same_only() {
    let old = sync_with(Policy::Coalesce);
    let mut same = sync_with(Policy::Coalesce);
    same.adopt(&old);
    assert!(Arc::ptr_eq(&same.filter, &old.filter));
    type Change = fn(&mut Sync);
    let changes: [Change; 4] = [
        |sync| sync.config.source = b"/other/".to_vec(),
        |sync| sync.config.subdirs = false,
        |sync| sync.config.guard.on = !sync.config.guard.on,
        |sync| {
            sync.filter.write().unwrap().add_exclude(b"*.o");
        },
    ];
    for change in changes {
        let mut other = sync_with(Policy::Coalesce);
        change(&mut other);
        other.adopt(&old);
        assert!(!Arc::ptr_eq(&other.filter, &old.filter));
    }
}

#[test]
fn the_guard_of_the_old_sync_is_taken_over() {
    let mut old = sync_with(Policy::Coalesce);
    old.delete_guard_mut().set_target_entries(Some(70));
    old.remember_target_mount(b"/mnt".to_vec());
    let mount = b"/src/inner".to_vec();
    old.remember_nested_mounts([mount.clone()].into_iter());
    old.update_nested_mounts(&Default::default());
    assert!(old.misses_mounts());
    let mut new = sync_with(Policy::Coalesce);
    assert!(!new.misses_mounts());
    new.adopt(&old);
    assert_eq!(new.delete_guard().target_entries(), Some(70));
    assert_eq!(new.target_mount(), Some(b"/mnt".as_slice()));
    assert_eq!(new.missing_mounts().collect::<Vec<_>>(), [&mount]);
    // What is below a missing mount point is not deleted on the target.
    assert!(new.is_below_missing_mount(Etype::Delete, b"/inner/f"));
    assert!(!new.is_below_missing_mount(Etype::Delete, b"/other"));
}

#[test]
fn each_sync_of_a_journal_gets_every_change_once() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    assert!(Arc::ptr_eq(&first.filter, &second.filter));
    assert!(first.takes_events() && !second.takes_events());
    modify(&mut first, "/src/a");
    modify(&mut second, "/src/a");
    assert_eq!((first.pending(), second.pending()), (1, 1));
    assert_eq!(first.backlog(9), [(Etype::Modify, b"/a".to_vec())]);
    assert_eq!(first.backlog(0), []);
    for sync in [&mut first, &mut second] {
        assert_eq!(due(sync, SECOND), [""; 0]);
        assert_eq!(due(sync, 10 * SECOND), ["/a"]);
        assert_eq!(sync.counters.events, 1);
        assert_eq!(sync.oldest_change(), Some(0));
        succeed(sync);
        assert_eq!(due(sync, 20 * SECOND), [""; 0]);
        assert_eq!(sync.oldest_change(), None);
    }
}

#[test]
fn syncs_that_take_moves_or_call_user_code_share_no_journal() {
    type Change = fn(&mut Sync);
    let changes: [Change; 2] = [
        |sync| sync.config.moves = true,
        |sync| sync.queue = Queue::new(Policy::PerEvent),
    ];
    for change in changes {
        for is_first in [true, false] {
            let (mut first, mut second) = (reader(), reader());
            change(if is_first { &mut first } else { &mut second });
            share(&mut first, &mut second);
            assert!(second.journal_reader.is_none() && second.takes_events());
        }
    }
}

/// A slow target loses its changes, not its consistency.
#[test]
fn a_reader_that_was_overrun_compares_everything() {
    let (mut first, mut second) = (reader(), reader());
    second.config.max_pending = 2;
    second.config.init = false;
    second.has_full = true;
    share(&mut first, &mut second);
    for path in ["/src/a", "/src/b", "/src/c"] {
        modify(&mut first, path);
        assert_eq!(second.has_gap(), path == "/src/c");
    }
    let mut mark = second.mark();
    assert!(!second.reached(&mut mark));
    let mut heir = sync_with(Policy::Coalesce);
    heir.config.init = false;
    heir.adopt(&second);
    assert!(heir.owes_comparison);
    assert_eq!(due(&mut second, 10 * SECOND), ["Full"]);
    assert!(!second.has_gap());
    assert_eq!(due(&mut first, 10 * SECOND), ["/a", "/b", "/c"]);
}

/// At the end of the daemon they are stored for each target that lacks them.
#[test]
fn changes_in_the_journal_are_pending_for_the_readers_that_lack_them() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    modify(&mut first, "/src/a");
    assert_eq!(due(&mut first, 10 * SECOND), ["/a"]);
    succeed(&mut first);
    assert_eq!(first.pending_events().0, []);
    let pending = (Etype::Modify, b"/a".to_vec(), None);
    assert_eq!(second.pending_events().0, [pending]);
}

#[test]
fn a_flush_makes_the_changes_before_it_due() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    modify(&mut first, "/src/a");
    second.flush();
    modify(&mut first, "/src/b");
    let end = second.journal_end();
    assert!(!second.has_read_journal(end));
    assert!(due(&mut second, 1).contains(&"/a".to_owned()));
    assert_eq!(due(&mut first, 1), [""; 0]);
}

#[test]
fn the_heirs_of_readers_read_the_same_journal() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    modify(&mut first, "/src/a");
    // The second target is not reachable.
    assert_eq!(due(&mut first, 10 * SECOND), ["/a"]);
    succeed(&mut first);
    let (mut heir, mut other) = (reader(), reader());
    share(&mut heir, &mut other);
    heir.config.init = false;
    other.config.init = false;
    heir.adopt(&first);
    other.adopt(&second);
    heir.start(0);
    other.start(0);
    assert_eq!((heir.pending(), other.pending()), (0, 1));
    // It is not copied.
    assert_eq!(queued(&other), [""; 0]);
    assert_eq!(due(&mut other, 10 * SECOND), ["/a"]);
    // A sync of another group gets copies.
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    modify(&mut first, "/src/a");
    for group in [None, Some(b"another".to_vec())] {
        let (mut heir, mut other) = (reader(), reader());
        heir.journal_group = group;
        share(&mut heir, &mut other);
        heir.config.init = false;
        heir.adopt(&second);
        heir.start(0);
        assert_eq!(queued(&heir), ["/a"]);
    }
}

/// What is known of it is needed by the next transfers: the new sync has missed nothing itself.
#[test]
fn the_unverified_changes_of_the_old_sync_are_taken_over() {
    let mut old = sync_with(Policy::Coalesce);
    let synced = SystemTime::UNIX_EPOCH;
    old.verify.suspect_since(synced);
    old.verify.add(b"/a");
    let mut new = sync_with(Policy::Coalesce);
    new.warm_start = Some(WarmStart::default());
    new.adopt(&old);
    assert_eq!(new.verify.synced(), synced);
    assert!(new.verify.is_by_content(b"/a") && !new.verify.is_done());
    assert!(new.startup_distrust().is_some());
    let mut new = sync_with(Policy::Coalesce);
    new.warm_start = Some(WarmStart::default());
    new.adopt(&sync_with(Policy::Coalesce));
    assert_eq!(new.startup_distrust(), None);
}

/// They would be sent or deleted on the target in spite of the new configuration, or of a file
/// system that is not mounted.
#[test]
fn inherited_events_of_protected_paths_are_dropped() {
    let mut old = sync_with(Policy::Coalesce);
    for path in [&b"/a.tmp"[..], b"/inner/f", b"/kept"] {
        old.queue.push(Etype::Delete, path, None, 0);
    }
    let mut new = sync_with(Policy::Coalesce);
    new.filter.write().unwrap().add_exclude(b"*.tmp");
    new.config.init = false;
    new.adopt(&old);
    new.remember_nested_mounts([b"/src/inner".to_vec()].into_iter());
    new.update_nested_mounts(&Default::default());
    new.start(0);
    assert_eq!(queued(&new), ["/kept"]);
}

/// Without one, the changes of the source reach none of the targets.
#[test]
fn the_next_sync_of_a_journal_leads_when_the_leading_one_is_removed() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    let (first, second) = (Rc::new(first.into()), Rc::new(RefCell::new(second)));
    choose_leaders([&first, &second].into_iter());
    assert!(first.borrow().takes_events() && !second.borrow().takes_events());
    drop(first);
    choose_leaders([&second].into_iter());
    assert!(second.borrow().takes_events());
}

/// The event is taken in by the leading sync, while another one reads the disk.
#[test]
fn a_directory_that_appears_during_a_comparison_of_another_target_is_compared() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    second.start(0);
    let ids = second.queue.take(|_| Take::Take);
    second.begin(&ids);
    second.child_started();
    second.note_transfers();
    let path = b"/src/d/";
    first.ingest(Event::Create { path }, 0);
    assert_eq!(first.backlog(9), [(Etype::Delete, b"/d/".to_vec())]);
}

/// Its contents of before would stay on the target.
#[test]
fn a_directory_of_a_journal_that_is_created_while_it_is_deleted_is_compared() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    let path = b"/src/d/";
    first.ingest(Event::Delete { path }, 0);
    second.next(10 * SECOND);
    let running = second.queue.take(|_| Take::Take);
    second.queue.activate(&running);
    second.next(11 * SECOND);
    first.ingest(Event::Create { path }, 11 * SECOND);
    assert_eq!(second.backlog(9), [(Etype::Delete, b"/d/".to_vec())]);
    // When the deletion has ended, it is an ordinary new directory.
    second.succeeded(&running);
    second.next(30 * SECOND);
    succeed(&mut second);
    first.ingest(Event::Delete { path }, 30 * SECOND);
    second.next(40 * SECOND);
    succeed(&mut second);
    second.next(50 * SECOND);
    first.ingest(Event::Create { path }, 50 * SECOND);
    assert_eq!(second.backlog(9), [(Etype::Create, b"/d/".to_vec())]);
}

/// Two transfers would write to one target at the same time.
#[test]
fn a_new_sync_waits_for_the_children_of_the_old_one() {
    let mut sync = sync_with(Policy::Coalesce);
    sync.queue.push(Etype::Modify, b"/a", None, 0);
    sync.add_predecessor_job(Vec::new());
    assert_eq!(sync.next(0), Next::Nothing);
    sync.predecessor_job_ended();
    assert!(matches!(sync.next(0), Next::Act(_)));
}

/// User functions get a Move, and decide by themselves what they send.
/// A target that a new configuration adds has no journal to inherit.
#[test]
fn a_new_target_reads_the_journal_that_the_first_one_has_inherited() {
    let (mut old, mut other) = (reader(), reader());
    share(&mut old, &mut other);
    let group = Some(b"group".to_vec());
    let another = Some(b"another".to_vec());
    for (groups, is_shared) in [
        ([&group, &group], true),
        ([&group, &another], false),
        ([&None, &None], false),
    ] {
        let (mut first, mut second) = (reader(), reader());
        share(&mut first, &mut second);
        first.adopt(&old);
        (first.journal_group, second.journal_group) = (groups[0].clone(), groups[1].clone());
        assert_eq!(share_inherited(&first, &mut second), is_shared);
        modify(&mut first, "/src/a");
        assert_eq!(first.pending(), 1);
        assert_eq!(second.pending(), usize::from(is_shared));
    }
}

#[test]
fn more_is_read_from_the_journal_when_nothing_waits() {
    let (mut first, mut second) = (reader(), reader());
    share(&mut first, &mut second);
    modify(&mut first, "/src/a");
    assert_eq!(due(&mut second, 10 * SECOND), ["/a"]);
    modify(&mut first, "/src/b");
    assert_eq!(due(&mut second, 20 * SECOND), ["/a"]);
    succeed(&mut second);
    assert_eq!(due(&mut second, 20 * SECOND), ["/b"]);
}

/// Otherwise its memory grows with each changed path.
#[test]
fn nothing_is_kept_in_the_journal_for_a_sync_that_has_ended_or_is_gone() {
    let end: fn(Sync) -> Option<Sync> = |mut sync| {
        sync.end(&[], ExitStatus::Exit(5), 0);
        Some(sync)
    };
    for leave in [end, |_| None] {
        let (mut first, mut second) = (reader(), reader());
        share(&mut first, &mut second);
        modify(&mut first, "/src/a");
        let left = leave(second);
        modify(&mut first, "/src/b");
        assert!(left.is_none_or(|left| left.pending() == 0));
        due(&mut first, 10 * SECOND);
        let reader = first.journal_reader.as_ref().unwrap();
        assert_eq!(reader.kept(), 0);
    }
}

#[test]
fn the_oldest_change_is_older_than_its_due_time_by_the_delay() {
    let now = 100 * SECOND;
    // Due times are recorded in units of about a second.
    let is_at =
        |found: Option<Time>, time: Time| found.is_some_and(|it| it.abs_diff(time) < 2 * SECOND);
    let mut sync = sync_with(Policy::Coalesce);
    assert_eq!((sync.oldest_change(), sync.behind_since()), (None, None));
    sync.ingest(Event::Modify { path: b"/src/a" }, now);
    assert!(is_at(sync.oldest_change(), now) && is_at(sync.behind_since(), now));
    // Retries and comparisons are queued without a delay.
    let ids = sync.queue.take(|_| Take::Take);
    sync.queue.activate(&ids);
    let failed = [(b"/a".to_vec(), Etype::Modify)].into();
    sync.partly_failed(&ids, FailedEntries::Paths(failed, Default::default()), now);
    sync.next(now + 10 * SECOND);
    assert!(is_at(sync.oldest_change(), now + 10 * SECOND));
    assert!(is_at(sync.behind_since(), now));
    let mut sync = sync_with(Policy::Coalesce);
    sync.resync(now);
    assert!(is_at(sync.oldest_change(), now));
}
