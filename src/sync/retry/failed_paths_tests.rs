//! The times at which failed paths are retried, and what removes them.

use super::*;

const SECOND: Time = 1_000_000;

fn modified(path: &str) -> [(Vec<u8>, Etype); 1] {
    [(path.into(), Etype::Modify)]
}

#[test]
fn delays_grow_until_the_path_succeeds() {
    let mut failed = FailedPaths::new(None);
    assert_eq!(failed.due(), None);
    failed.add(modified("/a"), 10 * SECOND);
    assert_eq!(failed.due(), Some(11 * SECOND));
    assert!(failed.take(11 * SECOND - 1).paths.is_empty());
    assert_eq!(failed.take(11 * SECOND).paths.len(), 1);
    failed.add(modified("/a"), 20 * SECOND);
    let second = failed.due().unwrap_or_default() - 20 * SECOND;
    assert!(second > SECOND && second <= 2 * SECOND);
    failed.take(22 * SECOND);
    // The success of another path changes nothing for this one.
    failed.succeeded(b"/b", Etype::Modify);
    failed.add(modified("/a"), 30 * SECOND);
    let third = failed.due().unwrap_or_default() - 30 * SECOND;
    assert!(third > 2 * SECOND && third <= 4 * SECOND, "{third}");
    failed.take(40 * SECOND);
    failed.succeeded(b"/a", Etype::Modify);
    failed.add(modified("/a"), 50 * SECOND);
    assert_eq!(failed.due(), Some(51 * SECOND));
}

#[test]
fn the_time_behind_begins_with_the_first_failure_and_ends_with_the_last_success() {
    let mut failed = FailedPaths::new(None);
    for time in [5, 20] {
        failed.miss(time);
        failed.add(modified("/a"), time + 1);
        failed.miss(time + 2);
        failed.add(modified("/b"), time + 2);
        assert_eq!(failed.since(), Some(time));
        failed.take(100 * SECOND);
        failed.succeeded(b"/a", Etype::Modify);
        assert_eq!(failed.since(), Some(time));
        failed.succeeded(b"/b", Etype::Modify);
        assert_eq!(failed.since(), None);
    }
    failed.miss(30);
    failed.add_everything(31);
    failed.take(100 * SECOND);
    assert_eq!(failed.since(), Some(30));
    failed.compared();
    assert_eq!(failed.since(), None);
}

#[test]
fn a_retry_that_runs_is_no_recovery() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/a"), 0);
    failed.take(SECOND);
    assert!(failed.is_failing() && failed.is_empty());
    assert_eq!(failed.missing(), 1);
    assert_eq!(failed.missing_names(9).collect::<Vec<_>>(), [b"/a"]);
    failed.succeeded(b"/a", Etype::Modify);
    assert!(!failed.is_failing() && failed.missing() == 0);

    failed.add_everything(0);
    assert_eq!(failed.next_comparison(), Some((SECOND, 1)));
    failed.take(SECOND);
    assert_eq!(failed.next_comparison(), Some((0, 1)));
    assert!(failed.is_failing());
    failed.compared();
    assert_eq!(failed.next_comparison(), None);
    assert!(!failed.is_failing());
}

#[test]
fn a_path_that_always_fails_does_not_delay_others() {
    let mut failed = FailedPaths::new(None);
    let mut now = 0;
    for _ in 0..10 {
        failed.add(modified("/bad"), now);
        now = failed.due().unwrap();
        failed.take(now);
    }
    failed.add(modified("/bad"), now);
    assert!(failed.due().unwrap() > now + 200 * SECOND);
    failed.add(modified("/good"), now);
    failed.add(modified("/bad"), now + SECOND / 2);
    assert_eq!(failed.due(), Some(now + SECOND));
    assert_eq!(failed.take(now + SECOND).paths, modified("/good"));
    // A path that changes and fails again and again is still retried.
    let due = failed.due().unwrap();
    for n in 1..5 {
        failed.add(modified("/bad"), now + n * 40 * SECOND);
    }
    assert_eq!(failed.due(), Some(due));
}

/// The transfer of the present entry was started without the path.
#[test]
fn a_held_path_is_not_done_by_the_transfer_that_it_is_left_out_of() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/a"), 0);
    failed.set_held(b"/a", true);
    failed.succeeded(b"/a", Etype::Modify);
    assert_eq!(failed.take(SECOND).paths, modified("/a"));
    failed.succeeded(b"/a", Etype::Modify);
    assert!(failed.is_idle());
    failed.add(modified("/a"), 0);
    failed.set_held(b"/a", true);
    failed.set_held(b"/a", false);
    failed.succeeded(b"/a", Etype::Modify);
    assert!(failed.is_idle());
}

/// The number of transfers is bounded by the steps of the delays, however many paths fail.
#[test]
fn paths_with_equal_delays_are_retried_together() {
    let mut failed = FailedPaths::new(None);
    let (mut calls, mut now) = (0, 0);
    let mut fail = |failed: &mut FailedPaths, now: Time| {
        let retry = failed.take(now);
        calls += usize::from(!retry.paths.is_empty());
        failed.add(retry.paths, now);
    };
    for n in 0..600 {
        failed.add(modified(&format!("/f{n}")), now);
        now += SECOND / 10;
        fail(&mut failed, now);
    }
    assert_eq!(failed.len(), 600);
    let silent = now;
    while now < silent + 3600 * SECOND {
        now = failed.due().unwrap();
        fail(&mut failed, now);
    }
    assert_eq!(failed.len(), 600);
    // 60 s at two calls a second, nine steps twice, an hour at one call in five minutes.
    assert!(calls <= 120 + 18 + 14, "{calls}");
}

#[test]
fn a_path_that_succeeds_is_removed() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/a"), 0);
    failed.add([(b"/d/".to_vec(), Etype::Delete)], 0);
    // The attributes of a directory do not stand for its contents.
    failed.succeeded(b"/d/", Etype::Attrib);
    failed.succeeded(b"/a", Etype::Modify);
    assert_eq!(failed.len(), 1);
    assert!(failed.due().is_some());
    failed.succeeded(b"/d/", Etype::Delete);
    assert!(failed.is_empty() && failed.is_idle());
    assert_eq!(failed.due(), None);
}

#[test]
fn delays_of_full_comparisons_grow() {
    let mut failed = FailedPaths::new(None);
    let mut now = 0;
    for least in [1, 1, 3, 7, 14, 28, 57, 115, 230, 270, 270] {
        let wait = failed.add_everything(now);
        assert!(wait.as_secs() >= least, "{wait:?}");
        // More failures meanwhile do not count.
        assert!(failed.add_everything(now + 1) < wait);
        now = failed.due().unwrap();
        assert!(failed.take(now).everything);
        assert_eq!(failed.due(), None);
    }
    failed.compared();
    assert_eq!(failed.add_everything(0), Duration::from_secs(1));
}

#[test]
fn the_soonest_of_the_retries_is_told() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/old"), 0);
    failed.take(SECOND);
    let both = [&modified("/old")[..], &modified("/new")[..]].concat();
    assert_eq!(failed.add(both.clone(), SECOND), Duration::from_secs(1));
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/old"), 0);
    failed.take(SECOND);
    let reversed: Vec<_> = both.into_iter().rev().collect();
    assert_eq!(failed.add(reversed, SECOND), Duration::from_secs(1));
    assert_eq!(failed.add([], 5), Duration::ZERO);
}

#[test]
fn a_failed_directory_keeps_standing_for_its_contents() {
    let mut failed = FailedPaths::new(None);
    let directory = b"/d/".as_slice();
    failed.add([(directory.to_vec(), Etype::Create)], 0);
    failed.add([(directory.to_vec(), Etype::Attrib)], 0);
    assert_eq!(failed.etype_of(directory), Some(Etype::Create));
    failed.succeeded(directory, Etype::Attrib);
    assert_eq!(failed.len(), 1);
    failed.add([(directory.to_vec(), Etype::Delete)], 0);
    assert_eq!(failed.etype_of(directory), Some(Etype::Delete));
    // A file has no contents of its own: the last event decides.
    failed.add([(b"/f".to_vec(), Etype::Create)], 0);
    failed.add([(b"/f".to_vec(), Etype::Attrib)], 0);
    assert_eq!(failed.etype_of(b"/f"), Some(Etype::Attrib));
    failed.succeeded(b"/f", Etype::Modify);
    assert_eq!(failed.etype_of(b"/f"), None);
}

#[test]
fn a_path_is_being_retried_until_its_transfer_has_ended() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/a"), 0);
    failed.add(modified("/b"), 0);
    assert!(!failed.is_tried(b"/a") && !failed.is_empty());
    failed.take(SECOND);
    assert!(failed.is_tried(b"/a") && failed.is_tried(b"/b"));
    assert!(failed.is_empty() && !failed.is_idle());
    assert_eq!(failed.failures_of(b"/a"), 1);
    failed.succeeded(b"/a", Etype::Modify);
    assert!(!failed.is_tried(b"/a"));
    assert_eq!(failed.failures_of(b"/a"), 0);
    failed.none_tried();
    assert!(failed.is_idle());
    // The next failure is the first again.
    failed.add(modified("/b"), 2 * SECOND);
    assert_eq!(failed.due(), Some(3 * SECOND));
}

#[test]
fn a_request_makes_everything_due_now_and_nothing_later() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/a"), 0);
    failed.add_everything(0);
    assert!(failed.retries_everything());
    failed.hasten(SECOND / 2);
    let due = failed.take(SECOND / 2);
    assert_eq!(due.paths, modified("/a"));
    assert!(due.everything && !failed.retries_everything());
    failed.add(modified("/b"), 0);
    failed.hasten(10 * SECOND);
    assert_eq!(failed.due(), Some(SECOND));
}

/// The second delay is one to two seconds.
#[test]
fn what_is_due_within_a_quarter_of_its_delay_is_retried_too() {
    let due_with = |earlier: Time| {
        let mut failed = FailedPaths::new(None);
        failed.add(modified("/a"), 0);
        failed.take(SECOND);
        failed.add(modified("/a"), SECOND);
        let second = failed.due().unwrap();
        // The first retry of another path is due so much earlier.
        failed.add(modified("/b"), second - SECOND - earlier);
        let due = failed.due().unwrap();
        failed.take(due).paths.len()
    };
    assert_eq!(due_with(SECOND / 5), 2);
    assert_eq!(due_with(SECOND * 3 / 5), 1);
}

/// A deletion may have to make way for what is sent.
#[test]
fn deletions_are_retried_first() {
    let mut failed = FailedPaths::new(None);
    failed.add(modified("/a"), 0);
    failed.add([(b"/b".to_vec(), Etype::Delete)], 0);
    let paths = failed.take(SECOND).paths;
    assert_eq!(paths[0], (b"/b".to_vec(), Etype::Delete));
    assert_eq!(paths[1..], modified("/a"));
}

#[test]
fn only_existing_and_new_directories_stand_for_contents() {
    let table = [
        (Etype::Create, "/d/", true),
        (Etype::Delete, "/d/", true),
        (Etype::Attrib, "/d/", false),
        (Etype::Modify, "/d/", false),
        (Etype::Create, "/d", false),
        (Etype::Delete, "/d", false),
    ];
    for (etype, path, expected) in table {
        assert_eq!(stands_for_contents(etype, path.as_bytes()), expected);
    }
}

/// A retry that is due for no path would keep `-wait` waiting for ever.
#[test]
fn the_paths_that_a_comparison_does_not_replace_keep_their_retry() {
    let mut failed = FailedPaths::new(None);
    for path in ["/stays", "/a", "/b"] {
        failed.add(modified(path), 0);
    }
    let due = failed.due();
    failed.retain_names(|path| path == b"/stays");
    assert_eq!((failed.len(), failed.due()), (1, due));
    failed.succeeded(b"/stays", Etype::Modify);
    assert_eq!(failed.due(), None);
    failed.add(modified("/a"), 0);
    failed.retain_names(|_| false);
    assert_eq!(failed.due(), None);
}
