//! Unit tests of a sync: which events it takes in, and when it acts.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config::Delete;
use crate::queue::{Etype, Status};
use crate::watch::{Event, Follow, InotifyMode, WatchChoice, Watcher};

const SECOND: Time = 1_000_000;

/// Returns a sync of this source that is active.
pub(crate) fn sync_of(source: &[u8]) -> Sync {
    let mut config = sync(true).config;
    config.source = source.to_vec();
    config.named_source = source.to_vec();
    Sync::new(config, Filter::default(), Policy::Coalesce, false)
}

/// Returns a sync that takes Moves, with a queue of this policy.
pub(crate) fn sync_with(policy: Policy) -> Sync {
    let sync = sync(true);
    Sync::new(sync.config, Filter::default(), policy, false)
}

/// Returns a waker, and the loop that it wakes.
pub(crate) fn waker() -> (mio::Poll, Arc<mio::Waker>) {
    let poll = mio::Poll::new().unwrap();
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
    (poll, Arc::new(waker))
}

/// Returns a watcher without directories.
pub(crate) fn idle_watcher() -> Watcher {
    let mode = InotifyMode::CloseWrite;
    Watcher::new(WatchChoice::Inotify, mode, None, waker().1).unwrap()
}

fn sync(moves: bool) -> Sync {
    let config = SyncConfig {
        priority: Default::default(),
        name: "Sync1".into(),
        source: b"/src/".to_vec(),
        named_source: b"/src/".to_vec(),
        target: None,
        delay: Some(Duration::from_secs(5)),
        max_delays: 3,
        max_pending: 1000,
        max_processes: 1,
        bandwidth: None,
        backup: None,
        delete: Delete::Always,
        moves,
        subdirs: true,
        guard: Default::default(),
        check: None,
        crontab: Vec::new(),
        batch_size_limit: None,
        mode: None,
        init: true,
        warm_start: None,
        verify: None,
        on_synced: None,
        on_failed: None,
        on_recovered: None,
    };
    let mut filter = Filter::default();
    filter.add_exclude(b"*.tmp");
    Sync::new(config, filter, Policy::Coalesce, false)
}

fn pending(sync: &Sync) -> Vec<String> {
    sync.queue
        .iter()
        .map(|delay| {
            let (path, to) = delay.paths();
            let to = to.map(|to| format!(">{}", String::from_utf8_lossy(&to)));
            let path = String::from_utf8_lossy(&path).into_owned();
            format!("{} {path}{}", delay.etype().name(), to.unwrap_or_default())
        })
        .collect()
}

fn moved(sync: &mut Sync, from: &str, to: &str) -> Follow {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    sync.ingest(Event::Move { from, to }, 0)
}

#[test]
fn only_events_below_the_source_that_are_not_excluded_are_ingested() {
    let mut sync = sync(false);
    for path in [
        &b"/src/a"[..],
        b"/srcs/b",
        b"/other",
        b"/src/c.tmp",
        b"/src/d/",
    ] {
        sync.ingest(Event::Create { path }, 0);
    }
    assert_eq!(pending(&sync), ["Create /a", "Create /d/"]);
}

#[test]
fn a_move_becomes_events_of_the_paths_below_the_source() {
    let mut s = sync(true);
    moved(&mut s, "/src/a", "/src/b");
    assert_eq!(pending(&s), ["Move /a>/b"]);
    assert_eq!(moved(&mut s, "/src/c/", "/src/d/"), Follow::Moved);

    let mut s = sync(false);
    assert_eq!(moved(&mut s, "/src/a/", "/src/b/"), Follow::Contents);
    assert_eq!(pending(&s), ["Delete /a/", "Create /b/"]);

    let mut s = sync(true);
    assert_eq!(moved(&mut s, "/src/a/", "/else/a/"), Follow::Nothing);
    assert_eq!(moved(&mut s, "/else/c/", "/src/c/"), Follow::Contents);
    assert_eq!(moved(&mut s, "/src/d", "/src/d.tmp"), Follow::Nothing);
    moved(&mut s, "/src/e.tmp", "/src/e");
    moved(&mut s, "/src/f.tmp", "/src/g.tmp");
    assert_eq!(
        pending(&s),
        ["Delete /a/", "Create /c/", "Delete /d", "Create /e"]
    );
}

#[test]
fn the_last_64_renames_are_recorded() {
    let mut s = sync(true);
    (1..=64).for_each(|number| s.record_rename(number));
    assert!((1..=64).all(|number| s.has_recorded_rename(number)) && !s.has_recorded_rename(65));
    s.record_rename(65);
    assert!(s.has_recorded_rename(65) && s.has_recorded_rename(2) && !s.has_recorded_rename(1));
}

#[test]
fn without_subdirs_only_the_top_directory_is_watched() {
    let sync = sync(false);
    let mut config = sync.config.clone();
    config.subdirs = false;
    let mut sync = Sync::new(config, Filter::default(), Policy::Coalesce, false);
    for path in [&b"/src/a"[..], b"/src/d/", b"/src/d/e", b"/src/d/f/"] {
        sync.ingest(Event::Create { path }, 0);
    }
    assert_eq!(pending(&sync), ["Create /a", "Create /d/"]);
    assert!(!(sync.scope().wants)(b"/d/"));
}

#[test]
fn a_full_queue_is_due_at_once() {
    let mut sync = sync(false);
    sync.ingest(Event::Create { path: b"/src/a" }, 0);
    assert_eq!(sync.next(0), Next::At(5 * SECOND));
    for path in [&b"/src/b"[..], b"/src/c"] {
        sync.ingest(Event::Create { path }, 0);
    }
    assert!(matches!(sync.next(0), Next::Act(_)));
    sync.running = 1;
    assert_eq!(sync.next(0), Next::Nothing);
}

#[test]
fn after_a_failure_a_full_queue_waits_for_the_retry_delay() {
    let mut sync = sync(false);
    sync.ingest(Event::Create { path: b"/src/a" }, 0);
    let ids = sync.queue.take(|_| crate::queue::Take::Take);
    sync.queue.activate(&ids);
    let wait = sync.failed(&ids, 10 * SECOND);
    assert_eq!(wait, Duration::from_secs(5));
    for name in 0..10 {
        let path = format!("/src/{name}");
        sync.ingest(
            Event::Create {
                path: path.as_bytes(),
            },
            11 * SECOND,
        );
    }
    assert_eq!(sync.next(14 * SECOND), Next::At(15 * SECOND));
    assert!(matches!(sync.next(15 * SECOND), Next::Act(_)));
    assert_eq!(
        sync.queue.iter().next().map(|d| d.status()),
        Some(Status::Wait)
    );
}

#[test]
fn a_lost_source_halts_the_sync_until_it_is_back() {
    let mut sync = sync(false);
    sync.ingest(Event::Delete { path: b"/src/a" }, 0);
    sync.source_lost("gone");
    assert_eq!(sync.next(100 * SECOND), Next::Nothing);
    sync.source_found();
    sync.resume(Some(100 * SECOND));
    assert_eq!(pending(&sync), ["Delete /a", "Init "]);
}

#[test]
fn the_next_configuration_inherits_pending_events() {
    let mut old = sync(false);
    old.start(0);
    old.ingest(Event::Modify { path: b"/src/a" }, 0);
    let mut new = sync(false);
    new.adopt(&old);
    assert_eq!(new.pending_events(), old.pending_events());
    new.start(0);
    assert_eq!(pending(&new), ["Init ", "Modify /a"]);
}

/// Whatever splits a Move: an excluded name is neither deleted on the target nor sent.
#[test]
fn an_excluded_name_of_a_split_move_is_left_alone() {
    let cases: [(&[u8], &[u8], &[&str]); 5] = [
        (b"/a.tmp", b"/b", &["Create /b"]),
        (b"/a", b"/b.tmp", &["Delete /a"]),
        (b"/a.tmp", b"/b.tmp", &[]),
        (b"/d.tmp/", b"/d/", &["Create /d/"]),
        (b"/a", b"/b", &["Delete /a", "Create /b"]),
    ];
    for (from, to, expected) in cases {
        let mut failed = sync(true);
        failed.push(Etype::Move, from, Some(to), 0);
        let id = failed.queue.iter().next().unwrap().id();
        failed.split_move(id, 0);
        assert_eq!(pending(&failed), expected);

        let mut restored = sync(true);
        restored.restore(Etype::Move, from, Some(to), 0);
        assert_eq!(pending(&restored), expected);

        // The filter of the previous configuration excluded nothing.
        let mut old = Sync::new(
            sync(true).config,
            Filter::default(),
            Policy::Coalesce,
            false,
        );
        old.push(Etype::Move, from, Some(to), 0);
        let mut new = sync(false);
        new.adopt(&old);
        new.queue_inherited(0);
        assert_eq!(pending(&new), expected);
        let mut new = sync(true);
        new.adopt(&old);
        new.queue_inherited(0);
        let expected: &[&str] = match expected.len() {
            2 => &["Move /a>/b"],
            _ => expected,
        };
        assert_eq!(pending(&new), expected);
    }
}

#[test]
fn the_waiting_files_are_those_with_an_entry() {
    let mut sync = sync(true);
    for path in [&b"/src/a"[..], b"/src/active", b"/src/d/"] {
        sync.ingest(Event::Create { path }, 0);
    }
    let active = sync.queue.open_at(b"/active").unwrap();
    sync.queue.activate(&[active]);
    moved(&mut sync, "/src/m", "/src/n");
    sync.resync(0);
    let blocked = b"/src/d/blocked";
    sync.ingest(Event::Modify { path: blocked }, 0);
    let files = sync.waiting_files(sync.queue.len()).unwrap();
    assert!(files.contains(&b"/src/a".to_vec()) && files.contains(&blocked.to_vec()));
    for path in [
        &b"/src/a"[..],
        b"/src/active",
        b"/src/m",
        b"/src/n",
        blocked,
    ] {
        let listed = files.iter().any(|file| file == path);
        assert_eq!(sync.waiting(path).is_some(), listed);
    }
    assert!(files.iter().all(|path| sync.waiting(path).is_some()));
    assert_eq!(sync.waiting_files(sync.queue.len() - 1), None);
}

/// Returns a sync with three pending paths, its limit.
fn sync_at_its_limit() -> Sync {
    let mut config = sync(true).config;
    config.max_pending = 3;
    let mut sync = Sync::new(config, Filter::default(), Policy::Coalesce, true);
    for path in [&b"/src/a"[..], b"/src/b", b"/src/c"] {
        sync.ingest(Event::Create { path }, 0);
    }
    sync
}

#[test]
fn beyond_the_limit_directories_stand_for_their_contents() {
    let mut sync = sync_at_its_limit();
    for path in [&b"/src/d/1"[..], b"/src/d/2", b"/src/d/e/3", b"/src/d/e/"] {
        sync.ingest(Event::Create { path }, 0);
    }
    moved(&mut sync, "/src/d/2", "/src/d/4");
    assert_eq!(
        pending(&sync),
        ["Create /a", "Create /b", "Create /c", "Delete /d/"]
    );
    // An active Init does not cover later changes.
    let ids = sync.queue.take(|_| crate::queue::Take::Take);
    sync.queue.activate(&ids);
    let path = b"/src/d/1";
    sync.ingest(Event::Create { path }, 0);
    assert_eq!(pending(&sync).last().unwrap(), "Delete /d/");
    assert_eq!(sync.queue.len(), 5);
}

#[test]
fn further_changes_of_a_pending_path_are_within_the_limit() {
    let mut sync = sync_at_its_limit();
    let path = b"/src/a";
    sync.ingest(Event::Modify { path }, 0);
    sync.ingest(Event::Delete { path }, 0);
    assert_eq!(pending(&sync), ["Delete /a", "Create /b", "Create /c"]);
    let ids = sync.queue.take(|_| crate::queue::Take::Take);
    sync.queue.activate(&ids);
    sync.succeeded(&ids);
    assert_eq!(pending(&sync), [""; 0]);
    assert!(matches!(sync.next(0), Next::Nothing));
}

#[test]
fn both_ends_of_a_move_are_queued_beyond_the_limit() {
    let mut sync = sync_at_its_limit();
    let path = b"/src/d/1";
    sync.ingest(Event::Create { path }, 0);
    moved(&mut sync, "/src/d/1", "/src/x/1");
    assert_eq!(pending(&sync)[3..], ["Delete /d/", "Delete /x/"]);
}

/// The source itself has no entry that stands for its contents.
#[test]
fn names_in_the_source_itself_beyond_the_limit_become_a_full_comparison() {
    for (from, to) in [
        ("/src/d/", "/src/e/"),
        ("/src/d/1", "/src/1"),
        ("/src/1", "/src/d/1"),
    ] {
        let mut sync = sync_at_its_limit();
        moved(&mut sync, from, to);
        let ids = sync.queue.take(|_| crate::queue::Take::Take);
        sync.queue.activate(&ids);
        sync.succeeded(&ids);
        assert!(matches!(sync.next(0), Next::At(_) | Next::Act(_)));
        assert_eq!(pending(&sync), ["Full /"], "{from} {to}");
    }
}

#[test]
fn too_many_directories_become_one_full_comparison() {
    let mut sync = sync_at_its_limit();
    for n in 0..20 {
        let path = format!("/src/{n}/f");
        let path = path.as_bytes();
        sync.ingest(Event::Create { path }, 0);
    }
    assert_eq!(sync.queue.len(), 6);
    let ids = sync.queue.take(|_| crate::queue::Take::Take);
    sync.queue.activate(&ids);
    sync.succeeded(&ids);
    assert!(matches!(sync.next(0), Next::At(_) | Next::Act(_)));
    assert_eq!(pending(&sync), ["Full /"]);
}

/// A batch sends the attributes of the source itself, not its contents.
#[test]
fn past_the_bound_the_source_itself_becomes_a_comparison() {
    for (etype, path) in [
        (Etype::Delete, &b"/src/x"[..]),
        (Etype::Create, b"/src/d/"),
        (Etype::Attrib, b"/src/"),
    ] {
        let mut sync = sync_at_its_limit();
        sync.ingest_path(etype, &path[4..], 0);
        assert_eq!(pending(&sync).len(), 3, "{etype:?}");
        let ids = sync.queue.take(|_| crate::queue::Take::Take);
        sync.queue.activate(&ids);
        sync.succeeded(&ids);
        assert!(matches!(sync.next(0), Next::At(_) | Next::Act(_)));
        assert_eq!(pending(&sync), ["Full /"], "{etype:?}");
    }
}

#[test]
fn a_crontab_queues_one_full_at_a_time() {
    let mut sync = sync(false);
    sync.crontab.add("* * * * * *").unwrap();
    let fulls = |sync: &Sync| {
        let fulls = sync
            .queue
            .iter()
            .filter(|delay| delay.etype() == Etype::Full);
        fulls.count()
    };
    sync.on_cron(1000, 0);
    assert_eq!(fulls(&sync), 0);
    sync.on_cron(1001, 0);
    sync.on_cron(1002, 0);
    assert_eq!(fulls(&sync), 1);
    let Next::Act(id) = sync.next(0) else {
        panic!("the Full is not due");
    };
    sync.queue.activate(&[id]);
    sync.on_cron(1003, 0);
    assert_eq!(fulls(&sync), 2);
}

#[test]
fn changes_in_the_second_of_a_transfer_need_verification() {
    let mut sync = sync_with(Policy::Coalesce);
    let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
    sync.last_transfer = at(10_000);
    assert!(sync.has_just_sent(at(10_000)) && sync.has_just_sent(at(11_009)));
    assert!(!sync.has_just_sent(at(11_010)));
    assert!(!sync.has_just_sent(SystemTime::now()));
    sync.transferred();
    assert!(sync.has_just_sent(sync.last_transfer()));
    assert!(sync.last_transfer() > at(11_010));
}

/// If one transfer after the other is aborted at a new path, the sync waits. A retried path does
/// not delay it.
#[test]
fn transfers_aborted_at_new_paths_are_delayed() {
    let mut sync = sync_with(Policy::Coalesce);
    let stop_at = |sync: &mut Sync, name: &str, now: Time| {
        let path = format!("/src/{name}").into_bytes();
        sync.queue.push(Etype::Modify, &path[4..], None, now);
        sync.queue.push(Etype::Modify, b"/other", None, now);
        let ids = sync.queue.take(|_| crate::queue::Take::Take);
        sync.queue.activate(&ids);
        let named = RetryEntries::from([(path[4..].to_vec(), Etype::Modify)]);
        let deferred = sync.defer_failed(&ids, &named, false, now).unwrap();
        assert_eq!((deferred.paths, deferred.others), (1, 1));
    };
    stop_at(&mut sync, "a", 0);
    assert!(matches!(sync.next(0), Next::Act(_)));
    stop_at(&mut sync, "b", 0);
    assert!(matches!(sync.next(0), Next::At(due) if due >= SECOND));
    assert_eq!(sync.failed_paths().len(), 2);
}

/// What a transfer did not send is missing below the new name, too. Before the end of the transfer
/// the rename is a Delete and a Create.
#[test]
fn failed_paths_are_retried_under_the_name_they_are_moved_to() {
    let mut sync = sync(true);
    for path in [&b"/src/d/f"[..], b"/src/dd"] {
        sync.ingest(Event::Modify { path }, 0);
    }
    let ids = sync.queue.take(|_| crate::queue::Take::Take);
    sync.queue.activate(&ids);
    let failed = sync.entries(&ids);
    sync.partly_failed(&ids, FailedEntries::Paths(failed, Default::default()), 0);
    moved(&mut sync, "/src/d/", "/src/e/");
    moved(&mut sync, "/src/e/f", "/src/g");
    let names: Vec<_> = sync.failed_paths().names(9).collect();
    let expected: [&[u8]; 4] = [b"/d/f", b"/dd", b"/e/f", b"/g"];
    assert_eq!(names, expected);
}

#[test]
fn what_is_set_for_the_transfers_of_a_sync_is_returned() {
    let mut sync = sync(false);
    let environment = vec![("RSYNC_RSH".into(), "ssh".into())];
    sync.set_environment(environment.clone());
    assert_eq!(sync.environment(), environment);
    let (directories, entries) = (3, 7);
    let size = TreeSize {
        directories,
        entries,
    };
    sync.set_tree_size(size);
    assert_eq!(sync.tree_size(), size);
    // What an rsync does not support is known to the next transfers.
    let kind = crate::batch::TransferKind::FilesFrom { missing: true };
    let unsupported = |sync: &mut Sync| sync.list_strategy().failed(kind, 4, [""]).is_some();
    assert!(unsupported(&mut sync) && !unsupported(&mut sync));
    for (asks, group) in [(true, Some(&b"group"[..])), (false, None)] {
        sync.set_asks_progress(asks);
        assert_eq!(sync.asks_progress(), asks);
        sync.set_journal_group(group.map(<[u8]>::to_vec));
        assert_eq!(sync.journal_group(), group);
        sync.has_full = asks;
        assert_eq!(sync.has_full(), asks);
    }
    sync.config.init = false;
    sync.set_has_on_full(true);
    sync.resync(0);
    assert_eq!(pending(&sync), ["Full /"]);
}
