//! What is sent again after a transfer of which a part failed, and when.

use super::*;
use crate::config::Delete;
use crate::queue::{Delay, Take};
use crate::sync::tests::sync_with;
use crate::sync::{Next, WarmStart};
use crate::watch::Event;

const SECOND: Time = 1_000_000;

fn names(list: &[(&str, Etype)]) -> RetryEntries {
    let owned = list
        .iter()
        .map(|(path, etype)| (path.as_bytes().to_vec(), *etype));
    owned.collect()
}

fn failure(path: &str) -> FailedEntries {
    FailedEntries::Paths(names(&[(path, Etype::Modify)]), BTreeSet::new())
}

fn modify(sync: &mut Sync, paths: &[&str]) {
    for path in paths {
        let path = [b"/src", path.as_bytes()].concat();
        sync.ingest(Event::Modify { path: &path }, 0);
    }
}

/// Begins the transfer of all that is queued.
fn begin(sync: &mut Sync) -> Vec<DelayId> {
    let ids = sync.queue.take(|_| Take::Take);
    sync.queue.activate(&ids);
    ids
}

fn begin_startup(sync: &mut Sync) -> Vec<DelayId> {
    sync.start(0);
    begin(sync)
}

fn failed_names(sync: &Sync) -> Vec<String> {
    let names = sync.failed_paths().names(9);
    names
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .collect()
}

#[test]
fn what_arrived_is_done_and_what_failed_is_retried() {
    let mut sync = sync_with(Policy::Coalesce);
    modify(&mut sync, &["/a", "/b", "/c"]);
    let ids = begin(&mut sync);
    let all = [("/a", Etype::Modify), ("/b", Etype::Modify)];
    let both = FailedEntries::Paths(names(&all), BTreeSet::new());
    let plan = sync.partly_failed(&ids, both, 0);
    assert!(matches!(plan, RetryPlan::Paths(2, _)));
    assert!(sync.queue.is_empty());
    // The retries, of which one succeeds.
    let later = 100 * SECOND;
    assert!(matches!(sync.next(later), Next::Act(_)));
    let ids = begin(&mut sync);
    assert_eq!(sync.entries(&ids), names(&all));
    sync.partly_failed(&ids, failure("/b"), later);
    assert_eq!(failed_names(&sync), ["/b"]);
    assert_eq!(sync.failed_paths().since(), Some(0));
    sync.next(2 * later);
    let ids = begin(&mut sync);
    sync.partly_failed(&ids, FailedEntries::Nothing, 2 * later);
    assert!(sync.failed_paths().is_idle());
    assert_eq!(sync.failed_paths().since(), None);
}

/// The transfer took place, so others do not wait.
#[test]
fn a_partial_transfer_ends_the_wait_of_the_sync() {
    let mut sync = sync_with(Policy::Coalesce);
    modify(&mut sync, &["/a", "/b"]);
    let ids = begin(&mut sync);
    sync.failed(&ids, 0);
    assert_eq!(sync.failures(), 1);
    sync.next(100 * SECOND);
    let ids = begin(&mut sync);
    sync.partly_failed(&ids, failure("/a"), 100 * SECOND);
    assert_eq!(sync.failures(), 0);
}

#[test]
fn a_batch_of_which_nothing_is_known_is_retried_whole() {
    let mut sync = sync_with(Policy::Coalesce);
    modify(&mut sync, &["/a", "/b"]);
    let ids = begin(&mut sync);
    let plan = sync.partly_failed(&ids, FailedEntries::Everything, 0);
    assert!(matches!(plan, RetryPlan::Paths(2, _)));
    assert_eq!(failed_names(&sync), ["/a", "/b"]);
}

#[test]
fn both_paths_of_a_failed_move_are_sent_as_they_are_now() {
    let mut sync = sync_with(Policy::Coalesce);
    let (from, to) = (b"/src/old".as_slice(), b"/src/new".as_slice());
    sync.ingest(Event::Move { from, to }, 0);
    let ids = begin(&mut sync);
    let expected = [("/new", Etype::Create), ("/old", Etype::Delete)];
    assert_eq!(sync.entries(&ids), names(&expected));
}

#[test]
fn a_comparison_is_repeated_if_what_failed_cannot_be_sent_by_itself() {
    let table = [
        ("/a", Etype::Modify, Delete::Always, false),
        ("/a", Etype::Delete, Delete::Always, false),
        ("/a", Etype::Delete, Delete::Never, true),
        ("/a.tmp", Etype::Modify, Delete::Always, true),
        ("/", Etype::Modify, Delete::Always, true),
        // The comparison of an existing directory would delete in it.
        ("/d/", Etype::Delete, Delete::Running, true),
        ("/d/", Etype::Delete, Delete::Always, false),
        ("/gone/", Etype::Delete, Delete::Running, false),
        ("/d/", Etype::Create, Delete::Running, false),
    ];
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    for (path, etype, delete, everything) in table {
        let new = || {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
            sync.config.delete = delete;
            sync.filter.write().unwrap().add_exclude(b"*.tmp");
            sync
        };
        let failed = FailedEntries::Paths(names(&[(path, etype)]), BTreeSet::new());
        let mut sync = new();
        let ids = begin_startup(&mut sync);
        let plan = sync.partly_failed(&ids, failed, 0);
        let is_everything = matches!(plan, RetryPlan::Everything(_));
        assert_eq!(is_everything, everything, "{path} {etype:?}");
        assert_eq!(sync.failed_paths().retries_everything(), everything);
        // In a batch the path was sent by itself already.
        let mut sync = new();
        sync.queue.push(Etype::Modify, b"/a", None, 0);
        let ids = begin(&mut sync);
        let failed = FailedEntries::Paths(names(&[(path, etype)]), BTreeSet::new());
        let plan = sync.partly_failed(&ids, failed, 0);
        assert!(matches!(plan, RetryPlan::Paths(1, _)), "{path} {etype:?}");
    }
}

#[test]
fn more_failed_paths_than_the_limit_are_one_comparison() {
    for (count, init, everything) in [(2, true, false), (3, true, true), (3, false, false)] {
        let mut config = sync_with(Policy::Coalesce).config;
        config.max_pending = 2;
        config.init = init;
        let mut sync = Sync::new(config, Default::default(), Policy::Coalesce, false);
        let paths = &["/a", "/b", "/c"][..count];
        let paths: Vec<_> = paths.iter().map(|path| (*path, Etype::Modify)).collect();
        let plan = sync.retry_paths(names(&paths), 0);
        assert_eq!(matches!(plan, RetryPlan::Everything(_)), everything);
        assert_eq!(sync.failed_paths().is_empty(), everything);
        assert_eq!(sync.failed_paths().retries_everything(), everything);
    }
}

#[test]
fn a_link_that_leads_nowhere_is_left_out_where_links_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("none", dir.path().join("a")).unwrap();
    for follows in [false, true] {
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
        sync.follows_links = follows;
        sync.warm_start = Some(WarmStart::default());
        sync.queue.push(Etype::Modify, b"/a", None, 0);
        let ids = begin(&mut sync);
        sync.partly_failed(&ids, failure("/a"), 0);
        assert_eq!(sync.failed_paths().is_empty(), follows);
        // The index must not say that it is on the target.
        let generation = sync.warm_start().unwrap().generation();
        assert_eq!(generation > 0, follows);
    }
}

/// Returns a sync whose source has files of these sizes, and the running transfer of all.
fn sized(dir: &Path, sizes: &[(&str, usize)]) -> (Sync, Vec<DelayId>) {
    let mut sync = sync_with(Policy::Coalesce);
    sync.config.source = [dir.as_os_str().as_encoded_bytes(), b"/"].concat();
    for (name, size) in sizes {
        fs::write(dir.join(name), vec![0; *size]).unwrap();
        let path = [b"/", name.as_bytes()].concat();
        sync.queue.push(Etype::Modify, &path, None, 0);
    }
    let ids = begin(&mut sync);
    (sync, ids)
}

#[test]
fn what_stopped_a_transfer_waits_and_the_others_are_sent_at_once() {
    let sizes = [("a", 5), ("b", 10), ("c", 10), ("d", 20)];
    let named = names(&[("/b", Etype::Modify)]);
    for (too_large, waiting) in [(false, 1), (true, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut sync, ids) = sized(dir.path(), &sizes);
        let deferred = sync.defer_failed(&ids, &named, too_large, 0).unwrap();
        assert_eq!((deferred.paths, deferred.others), (waiting, 4 - waiting));
        assert_eq!(sync.failed_paths().len(), waiting);
        assert!(matches!(sync.next(0), Next::Act(_)));
        assert_eq!(begin(&mut sync).len(), 4 - waiting);
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut sync, ids) = sized(dir.path(), &sizes);
    let other = names(&[("/other", Etype::Modify)]);
    assert!(sync.defer_failed(&ids, &other, false, 0).is_none());
    assert!(sync.failed_paths().is_empty());
}

#[test]
fn transfers_that_stop_at_ever_new_paths_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sync, ids) = sized(dir.path(), &[("a", 1), ("b", 1), ("c", 1)]);
    let name = |path| names(&[(path, Etype::Modify)]);
    assert!(sync.defer_failed(&ids, &name("/a"), false, 0).is_some());
    assert!(matches!(sync.next(0), Next::Act(_)));
    let ids = begin(&mut sync);
    assert_eq!(sync.failures(), 1);
    assert!(sync.defer_failed(&ids, &name("/b"), false, 0).is_some());
    assert!(matches!(sync.next(0), Next::At(time) if time > 0));
    assert_eq!(sync.failures(), 2);
    // A path that is being retried is not new.
    let later = 1000 * SECOND;
    assert!(matches!(sync.next(later), Next::Act(_)));
    let ids = begin(&mut sync);
    assert_eq!(ids.len(), 3);
    assert!(sync.defer_failed(&ids, &name("/a"), false, later).is_some());
    assert!(matches!(sync.next(later), Next::Act(_)));
    assert_eq!(sync.failures(), 2);
}

/// What is known by its paths is no reason to compare everything again, nor is it missing when these
/// have arrived.
#[test]
fn a_comparison_that_names_what_failed_ends_the_failures_of_others() {
    let mut sync = sync_with(Policy::Coalesce);
    let ids = begin_startup(&mut sync);
    let plan = sync.partly_failed(&ids, FailedEntries::Everything, 0);
    assert!(matches!(plan, RetryPlan::Everything(_)));
    let later = 100 * SECOND;
    assert!(matches!(sync.next(later), Next::Act(_)));
    let ids = begin(&mut sync);
    sync.partly_failed(&ids, failure("/a"), later);
    assert_eq!(sync.failed_paths().since(), Some(0));
    sync.next(2 * later);
    let ids = begin(&mut sync);
    sync.succeeded(&ids);
    assert_eq!(sync.failed_paths().since(), None);
}

/// With a list of files rsync does not read them, so it reports no failure.
#[test]
fn the_contents_of_new_directories_that_cannot_be_read_are_missing() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        return crate::test_skip::skip("root can read each directory");
    }
    let dir = tempfile::tempdir().unwrap();
    let closed = fs::Permissions::from_mode(0o000);
    for (name, is_closed) in [("new", true), ("known", true), ("open", false)] {
        fs::create_dir(dir.path().join(name)).unwrap();
        if is_closed {
            fs::set_permissions(dir.path().join(name), closed.clone()).unwrap();
        }
    }
    fs::write(dir.path().join("file"), "").unwrap();
    fs::set_permissions(dir.path().join("file"), closed).unwrap();
    for policy in [Policy::Coalesce, Policy::PerEvent] {
        let mut sync = sync_with(policy);
        sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
        for (etype, path) in [
            (Etype::Create, &b"/new/"[..]),
            (Etype::Attrib, b"/known/"),
            (Etype::Create, b"/open/"),
            (Etype::Create, b"/file"),
        ] {
            sync.queue.push(etype, path, None, 0);
        }
        let ids = begin(&mut sync);
        let expected: &[_] = match policy {
            Policy::Coalesce => &[("/new/", Etype::Delete)],
            Policy::PerEvent => &[],
        };
        assert_eq!(sync.unreadable_directories(&ids), names(expected));
    }
}

/// What is protected until a scanner has approved it may be deleted later.
#[test]
fn an_obstructed_path_is_left_out_unless_it_is_protected_for_a_while() {
    for protects in [false, true] {
        let mut sync = sync_with(Policy::Coalesce);
        sync.protects = protects;
        modify(&mut sync, &["/d"]);
        for failures in 0..2 * MAX_OBSTRUCTED_WITHOUT_RULES {
            let now = Time::from(failures) * 1000 * SECOND;
            sync.next(now);
            let ids = begin(&mut sync);
            let obstructed = BTreeSet::from([b"/d".to_vec()]);
            let failed = FailedEntries::Paths(names(&[("/d", Etype::Modify)]), obstructed);
            sync.partly_failed(&ids, failed, now);
            // A program may fill the directory on the target again and again.
            assert!(failures > 0 || failed_names(&sync) == ["/d"]);
        }
        let left_out = sync.left_out.contains(LeftOutReason::Obstructed, b"/d");
        assert_eq!(left_out, !protects);
    }
}

/// A full comparison takes files of equal size and second for equal.
#[test]
fn beyond_the_limit_changes_that_rsync_may_take_for_none_are_searched_for() {
    let mut sync = sync_with(Policy::Coalesce);
    sync.queue_limit = crate::sync::QueueLimit::new(2);
    sync.has_full = true;
    modify(&mut sync, &["/a", "/b", "/c"]);
    sync.verify_mut().add(b"/b");
    let ids = begin(&mut sync);
    let all = ["/a", "/b"].map(|path| (path, Etype::Modify));
    let plan = sync.partly_failed(&ids, FailedEntries::Paths(names(&all), BTreeSet::new()), 0);
    assert!(matches!(plan, RetryPlan::Paths(2, _)));
    assert!(sync.verify().is_done());
    modify(&mut sync, &["/c"]);
    assert!(sync.failed_paths().retries_everything());
    assert!(!sync.verify().is_done());
    // The search does not find what somebody else has changed on the target.
    assert_eq!(failed_names(&sync), ["/b"]);
}

/// Every half second, new files change of which some always fail, for ten minutes. Returns the
/// number of full comparisons.
fn comparisons_at_a_limit(limit: usize, changes: usize, fail: impl Fn(usize) -> bool) -> usize {
    let mut sync = sync_with(Policy::Coalesce);
    sync.has_full = true;
    sync.queue_limit = crate::sync::QueueLimit::new(limit);
    let (mut failing, mut comparisons) = (RetryEntries::new(), 0);
    for n in 0..1200 * changes {
        let now = (n / changes) as Time * SECOND / 2;
        let path = format!("/d{}/f{n}", n % 7);
        if fail(n) {
            failing.insert(path.clone().into_bytes(), Etype::Modify);
        }
        let path = format!("/src{path}").into_bytes();
        sync.ingest(Event::Modify { path: &path }, now);
        while let Next::Act(id) = sync.next(now) {
            let is_whole = sync.is_whole(id);
            let ids = if is_whole {
                comparisons += 1;
                vec![id]
            } else {
                let kind = |delay: Delay<'_>| match delay.etype().is_special() {
                    true => Take::Skip,
                    false => Take::Take,
                };
                sync.queue.take(kind)
            };
            sync.queue.activate(&ids);
            let mut failed = failing.clone();
            if !is_whole {
                let sent = sync.entries(&ids);
                failed.retain(|path, _| sent.contains_key(path));
            }
            sync.partly_failed(&ids, FailedEntries::Paths(failed, BTreeSet::new()), now);
        }
    }
    assert!(sync.failed_paths().is_failing());
    comparisons
}

/// The waits grow from the delay of 5 s to 5 minutes, whatever else changes.
#[test]
fn comparisons_in_place_of_failed_paths_are_bounded_by_their_waits() {
    for limit in [50, 51, 100] {
        let growing = comparisons_at_a_limit(limit, 2, |_| true);
        assert!((1..=9).contains(&growing), "{limit}: {growing}");
        for failing in [limit / 2, limit / 2 + 1, limit - 1, limit, limit + 1] {
            let constant = comparisons_at_a_limit(limit, 2, |n| n < failing);
            assert!(constant <= 9, "{limit}, {failing}: {constant}");
        }
    }
    assert_eq!(comparisons_at_a_limit(100, 2, |n| n < 20), 0);
}

/// The retry of its path would delete a directory on the target, unless a full comparison may not.
#[test]
fn a_path_that_obstructs_a_comparison_is_left_out_if_a_retry_cannot_help() {
    for (delete, was_left_out, is_left_out) in [
        (Delete::Always, false, false),
        (Delete::Always, true, true),
        (Delete::Never, false, true),
        (Delete::Running, false, true),
    ] {
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.delete = delete;
        if was_left_out {
            sync.left_out.add(LeftOutReason::Obstructed, b"/d");
        }
        let ids = begin_startup(&mut sync);
        let obstructed = BTreeSet::from([b"/d".to_vec()]);
        let failed = FailedEntries::Paths(names(&[("/d", Etype::Modify)]), obstructed);
        sync.partly_failed(&ids, failed, 0);
        assert_eq!(sync.failed_paths().is_empty(), is_left_out, "{delete:?}");
        let left_out = sync.left_out.contains(LeftOutReason::Obstructed, b"/d");
        assert_eq!(left_out, is_left_out, "{delete:?}");
    }
}
