//! The search for changes that rsync cannot detect, and the time up to which all is on the target.

use super::*;
use crate::queue::{Policy, Take};
use crate::sync::tests::{idle_watcher, sync_with, waker};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a sync of this directory that compares everything, because events were lost.
fn comparing(dir: &std::path::Path) -> Sync {
    let mut sync = sync_with(Policy::Coalesce);
    sync.config.source = [dir.as_os_str().as_encoded_bytes(), b"/"].concat();
    sync.verify.suspect_since(SystemTime::now() - HOUR);
    sync.verify.compares_all(true);
    sync
}

/// Advances the search until all files that it finds are queued.
fn search(sync: &mut Sync) {
    let (mut poll, waker) = waker();
    while sync.verify.is_searching() {
        sync.verify_recent(&waker, 0).unwrap();
        if sync.verify.search.is_some() {
            let mut events = mio::Events::with_capacity(4);
            poll.poll(&mut events, None).unwrap();
        }
    }
}

fn send_all(sync: &mut Sync) {
    let ids = sync.queue.take(|_| Take::Take);
    sync.queue.activate(&ids);
    sync.succeeded(&ids);
    sync.transferred();
}

#[test]
fn changes_that_may_be_missed_are_searched_for_when_everything_is_compared() {
    let mut verify = Verify::default();
    assert!(verify.is_done());
    verify.compares_all(true);
    assert!(verify.is_done());
    verify.suspect();
    assert!(!verify.is_done() && !verify.is_searching());
    verify.compares_all(true);
    assert!(verify.is_searching());
    // A user program that decides by itself needs no search.
    verify.compares_all(false);
    assert!(verify.is_done());
}

/// A change just before the start may have the timestamp of the last tick.
#[test]
fn a_new_sync_is_in_sync_since_the_tick_before_it() {
    let verify = Verify::default();
    assert!(verify.synced() + CLOCK_TICK <= SystemTime::now());
}

#[test]
fn what_a_search_finds_is_sent_by_content_before_everything_is_in_sync() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    for name in ["f", "d/g", "excluded.tmp"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let mut sync = comparing(dir.path());
    sync.filter.write().unwrap().add_exclude(b"*.tmp");
    let before = sync.verify.synced();
    search(&mut sync);
    assert!(sync.verify.is_done() && sync.is_verifying());
    let queued = sync
        .queue
        .iter()
        .map(|delay| (delay.etype(), delay.paths().0));
    let files = [b"/d/g".to_vec(), b"/f".to_vec()];
    let expected = files.clone().map(|path| (Etype::Modify, path));
    assert_eq!(queued.collect::<Vec<_>>(), expected);
    assert!(files.iter().all(|path| sync.verify.is_by_content(path)));
    let watcher = idle_watcher();
    assert!(!sync.advance_synced(&watcher, true));
    assert_eq!(sync.verify.synced(), before);
    send_all(&mut sync);
    // The search has read directories that are not watched, too.
    assert!(sync.advance_synced(&watcher, false));
    assert!(sync.verify.synced() > before && !sync.is_verifying());
    assert!(!sync.verify.is_by_content(b"/f"));
}

#[test]
fn everything_is_in_sync_again_after_a_transfer_of_what_was_queued() {
    let watcher = idle_watcher();
    let mut sync = sync_with(Policy::Coalesce);
    sync.verify.synced = SystemTime::now() - HOUR;
    let before = sync.verify.synced();
    sync.queue.push(Etype::Modify, b"/a", None, 0);
    assert!(!sync.advance_synced(&watcher, true));
    sync.transferred();
    // A change is not sent yet.
    assert!(!sync.advance_synced(&watcher, true));
    send_all(&mut sync);
    // Changes of other directories are not known.
    assert!(!sync.advance_synced(&watcher, false));
    assert_eq!(sync.verify.synced(), before);
    sync.transferred();
    assert!(sync.advance_synced(&watcher, true));
    assert!(sync.verify.synced() > before && sync.verify.synced() < SystemTime::now());
    let before = sync.verify.synced();
    assert!(!sync.advance_synced(&watcher, true));
    // Lost events are searched for by the next comparison.
    sync.transferred();
    sync.verify.suspect();
    assert!(!sync.advance_synced(&watcher, true));
    assert_eq!(sync.verify.synced(), before);
}

/// They would be sent into the directory that is mounted over.
#[test]
fn found_files_below_a_missing_mount_are_not_sent() {
    let mut sync = sync_with(Policy::Coalesce);
    sync.remember_nested_mounts([b"/src/inner".to_vec()].into_iter());
    sync.update_nested_mounts(&Default::default());
    let (then, now) = (SystemTime::now() - HOUR, SystemTime::now());
    let files = vec![b"/inner/f".to_vec(), b"/g".to_vec()];
    sync.verify.found_elsewhere(then, now, files);
    assert_eq!(sync.verify.synced(), then);
    let mut mark = sync.mark();
    sync.verify_recent(&waker().1, 0).unwrap();
    assert!(!sync.reached(&mut mark));
    let queued = sync.queue.iter().map(|delay| delay.paths().0);
    assert_eq!(queued.collect::<Vec<_>>(), [b"/g"]);
}

/// The files that are open now may be written to later, with an earlier time of change.
#[test]
fn changes_of_open_files_are_not_in_sync_since_they_were_opened() {
    let now = SystemTime::UNIX_EPOCH + HOUR;
    let second = Duration::from_secs(1);
    for (age, expected) in [
        (None, now - second),
        (Some(Duration::ZERO), now - MAX_LAG),
        (Some(HOUR / 2), now - HOUR / 2 - MAX_LAG),
    ] {
        assert_eq!(before_open(now - second, now, age), expected);
    }
    assert_eq!(before_open(now - HOUR, now, Some(second)), now - HOUR);
}

#[test]
fn a_search_that_nobody_needs_is_cancelled() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (_sender, result) = sync_channel(1);
    drop(Running {
        begun: SystemTime::now(),
        result,
        cancelled: Arc::clone(&cancelled),
    });
    assert!(cancelled.load(Ordering::Relaxed));
}

/// Changes that happen while it runs may have the timestamp of the last tick.
#[test]
fn a_search_is_complete_up_to_the_tick_before_it() {
    let watcher = idle_watcher();
    let mut sync = sync_with(Policy::Coalesce);
    let begun = SystemTime::now() - HOUR;
    sync.verify.found_elsewhere(begun - HOUR, begun, Vec::new());
    sync.verify_recent(&waker().1, 0).unwrap();
    assert!(sync.advance_synced(&watcher, true));
    assert_eq!(sync.verify.synced(), begun - CLOCK_TICK);
    let dir = tempfile::tempdir().unwrap();
    let sync = comparing(dir.path());
    let search = sync.search(&waker().1).unwrap();
    assert!(search.begun + CLOCK_TICK <= SystemTime::now());
}

/// With other names, rsync would have to link them.
#[test]
fn all_names_of_a_file_are_known_that_was_found_after_its_last_change() {
    let searched = SystemTime::now();
    let mut verify = Verify::default();
    verify.add(b"/a");
    verify.searched = searched;
    let tick = CLOCK_TICK;
    for (path, changed, known) in [
        (&b"/a"[..], searched - tick, true),
        (b"/a", searched, false),
        (b"/a", searched + tick, false),
        (b"/b", searched - tick, false),
    ] {
        assert_eq!(verify.knows_names(path, changed), known);
    }
}

#[test]
fn a_search_that_the_old_sync_has_not_completed_is_left_to_the_new_one() {
    let mut old = Verify::default();
    let mut new = Verify::default();
    new.take_over(&old);
    assert!(new.is_done());
    old.suspect();
    new.take_over(&old);
    assert!(!new.is_done());
    new.take_over(&Verify::default());
    assert!(!new.is_done());
}

#[test]
fn a_search_begins_with_a_comparison_after_lost_events() {
    for (is_needed, compares, searches) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (true, true, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
        sync.verify.needed = is_needed;
        sync.verify.wanted = compares;
        sync.verify_recent(&waker().1, 0).unwrap();
        let has_searched = sync.verify.search.is_some() || sync.verify.queued.is_some();
        assert_eq!(has_searched, searches, "{is_needed} {compares}");
    }
}

/// The comparison may send them, and they would be sent twice.
#[test]
fn found_files_wait_for_a_running_comparison() {
    let mut sync = sync_with(Policy::Coalesce);
    let now = SystemTime::now();
    sync.queue.push(Etype::Init, b"", None, 0);
    let ids = sync.queue.take(|_| Take::Take);
    sync.queue.activate(&ids);
    sync.verify.found_elsewhere(now, now, vec![b"/f".to_vec()]);
    sync.verify_recent(&waker().1, 0).unwrap();
    assert_eq!(sync.queue.len(), 1);
    sync.succeeded(&ids);
    // One that waits does not hold them.
    sync.queue.push(Etype::Init, b"", None, 0);
    sync.verify_recent(&waker().1, 0).unwrap();
    assert_eq!(sync.queue.len(), 2);
}
