//! Retries of a sync: failed entries are repeated after growing delays, during which it waits.
//!
//! * `partial`: the retry rule for partial transfers;
//! * `backoff`: the delays;
//! * `failed_paths`: the paths that are retried, and when;
//! * `blame`: the entries that rsync's error lines are about;
//! * `message_paths`: the paths in these lines;
//! * `whole_tree`: the paths of full comparisons among them;
//! * `size_bound`: full comparisons without files that are too large for the target;
//! * `move_fallback`: Moves that fail on the target;
//! * `blame_tests`, `failed_paths_tests`, `partial_tests`: tests.

mod backoff;
mod blame;
mod failed_paths;
mod message_paths;
mod move_fallback;
mod partial;
mod size_bound;
mod whole_tree;

pub use backoff::Backoff;
pub use blame::{Blame, FailedEntries, LineKind};
pub use failed_paths::FailedPaths;
pub use move_fallback::{OtherNames, RemoteShell};
pub use partial::{Deferred, RetryPlan};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::failed_paths::DueRetries;
use self::size_bound::SizeBound;
use super::Sync;
use crate::queue::{DelayId, Etype, Time, micros};

/// The maximum number of recorded harmless lines.
const MAX_HARMLESS_LINES: usize = 64;

/// Paths, each with the event type for its retry.
pub type RetryEntries = BTreeMap<Vec<u8>, Etype>;

/// The retries of a sync and their times.
pub(super) struct RetryState {
    backoff: Backoff,
    /// Nothing is sent before this time.
    resume_at: Option<Time>,
    failed_paths: FailedPaths,
    /// Up to which size files are sent by full comparisons.
    size_bound: SizeBound,
    /// Error lines that successful transfers have written as well.
    harmless_lines: BTreeSet<Vec<u8>>,
    remote_shell: RemoteShell,
}

impl RetryState {
    /// Returns the state without failures. The retry delays begin with the sync's delay.
    pub fn new(delay: Option<Duration>) -> RetryState {
        RetryState {
            backoff: Backoff::new(delay),
            resume_at: None,
            failed_paths: FailedPaths::new(delay),
            size_bound: SizeBound::default(),
            harmless_lines: BTreeSet::new(),
            remote_shell: RemoteShell::default(),
        }
    }

    /// Returns the time before which nothing is sent, unless it has passed.
    pub fn wait(&mut self, now: Time) -> Option<Time> {
        self.resume_at = self.resume_at.filter(|resume_at| *resume_at > now);
        self.resume_at
    }
}

impl Sync {
    /// Returns the failed paths.
    pub fn failed_paths(&self) -> &FailedPaths {
        &self.retry.failed_paths
    }

    /// Returns the number of failures since the last success.
    pub fn failures(&self) -> u32 {
        self.retry.backoff.failures()
    }

    /// Returns true if the last work must be repeated.
    pub fn is_failing(&self) -> bool {
        self.failures() > 0
    }

    /// Returns the time of the next retry after a failure, and the number of failures in a row. A
    /// time in the past means that a retry is running.
    pub fn next_retry(&self) -> Option<(Time, u32)> {
        match self.failures() {
            0 => self.retry.failed_paths.next_comparison(),
            failures => Some((self.retry.resume_at.unwrap_or_default(), failures)),
        }
    }

    /// Makes failed entries due now. The number of failures in a row is kept, so the next delay is
    /// longer if they fail again.
    pub fn retry_now(&mut self, now: Time) {
        self.retry.resume_at = None;
        self.retry.failed_paths.hasten(now);
        self.flush();
    }

    /// Defers this sync, because its action changed nothing.
    pub fn defer(&mut self, until: Time) {
        self.retry.resume_at = Some(until);
    }

    /// Removes entries that succeeded, and resets the retry delay.
    pub fn succeeded(&mut self, ids: &[DelayId]) {
        self.retry.backoff.reset();
        self.clear_retries(ids);
        self.finish(ids);
    }

    /// Removes entries from the queue without an effect on their failed paths.
    pub fn finish(&mut self, ids: &[DelayId]) {
        for &id in ids {
            self.queue.finish(id);
        }
        if self.queue.is_empty() {
            self.retry.failed_paths.none_tried();
        }
    }

    /// Repeats failed entries after the retry delay, during which the whole sync waits. Returns the
    /// delay.
    pub fn failed(&mut self, ids: &[DelayId], now: Time) -> Duration {
        let wait = self.retry.backoff.fail();
        let due = now + micros(wait);
        self.requeue(ids, due);
        self.retry.resume_at = Some(due);
        wait
    }

    /// Repeats entries from `due` on, without counting a failure.
    pub fn requeue(&mut self, ids: &[DelayId], due: Time) {
        for &id in ids {
            self.queue.retry(id, due);
        }
    }

    /// Handles the success of a full comparison: it clears the failures, so that the next
    /// incomplete one counts as the first.
    pub fn compared(&mut self, ids: &[DelayId]) {
        let mut delays = ids.iter().filter_map(|&id| self.queue.get(id));
        if delays.any(|delay| delay.etype().is_special()) {
            self.retry.failed_paths.compared();
            self.left_out.all_sent();
        }
    }

    /// Returns true if successful transfers wrote this line to their error output, too.
    pub fn is_harmless(&self, line: &[u8]) -> bool {
        self.retry.harmless_lines.contains(line)
    }

    /// Records the error lines of a successful transfer as harmless.
    pub fn add_harmless_lines(&mut self, lines: Vec<Vec<u8>>) {
        let known = &mut self.retry.harmless_lines;
        for line in lines {
            if known.len() < MAX_HARMLESS_LINES {
                known.insert(line);
            }
        }
    }

    /// Removes entries that succeeded from the failed paths.
    fn clear_retries(&mut self, ids: &[DelayId]) {
        if !self.retry.failed_paths.is_idle() || self.left_out.may_be_sent() {
            for (path, etype) in self.entries(ids) {
                self.retry.failed_paths.succeeded(&path, etype);
                self.left_out.sent(&path);
            }
        }
    }

    /// Retries paths that the check gate leaves out of the next transfer. The success of this
    /// transfer does not concern them, even if they pass the checks of another sync in the
    /// meantime.
    pub fn retry_held_paths(&mut self, paths: Vec<(Vec<u8>, Etype)>, now: Time) -> RetryPlan {
        let plan = self.retry_paths(paths.iter().cloned(), now);
        for (path, _) in &paths {
            self.retry.failed_paths.set_held(path, true);
        }
        plan
    }

    /// Handles the end of the checks of a path, which the next transfer takes into account.
    pub fn checked(&mut self, path: &[u8]) {
        self.retry.failed_paths.set_held(path, false);
    }

    /// Retries failed paths that a rename moves under their new names, too.
    pub(super) fn rename_failed_paths(&mut self, from: &[u8], to: &[u8], now: Time) {
        self.retry.failed_paths.renamed(from, to, now);
    }

    /// Queues the due retries.
    pub(super) fn push_retries(&mut self, now: Time) {
        let retry = self.retry.failed_paths.take(now);
        if retry == DueRetries::default() {
            return;
        }
        self.requeues += 1;
        for (path, etype) in retry.paths {
            if !self.is_below_missing_mount(etype, &path) {
                self.queue.push(etype, &path, None, now);
            }
        }
        if retry.everything {
            self.compare_again(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Policy, Take};
    use crate::sync::tests::sync_with;
    use crate::sync::{LeftOutReason, Next};
    use crate::watch::Event;

    const SECOND: Time = 1_000_000;

    /// Returns a sync, with a delay of 5 s, whose only change has failed `failures` times in a row,
    /// and the time of the last failure.
    fn failed(failures: u32) -> (Sync, Time) {
        let mut sync = sync_with(Policy::Coalesce);
        sync.ingest(Event::Create { path: b"/src/a" }, 0);
        let mut now = 5 * SECOND;
        for failure in 0..failures {
            let ids = sync.queue.take(|_| Take::Take);
            sync.queue.activate(&ids);
            if failure > 0 {
                now = sync.next_retry().map_or(0, |(due, _)| due);
            }
            sync.failed(&ids, now);
        }
        (sync, now)
    }

    #[test]
    fn the_next_retry_is_the_end_of_the_wait_with_the_number_of_failures() {
        let (sync, _) = failed(0);
        assert_eq!(sync.next_retry(), None);
        let (sync, now) = failed(1);
        assert_eq!(sync.next_retry(), Some((now + 5 * SECOND, 1)));
        let (sync, now) = failed(3);
        let (due, failures) = sync.next_retry().unwrap();
        assert_eq!(failures, 3);
        assert!(due > now + 15 * SECOND && due <= now + 20 * SECOND, "{due}");
    }

    #[test]
    fn the_next_retry_of_a_full_comparison_counts_as_well() {
        let (mut sync, now) = failed(0);
        sync.retry.failed_paths.add_everything(now);
        assert_eq!(sync.next_retry(), Some((now + 5 * SECOND, 1)));
        // Single paths have their own waits, in which other changes are sent.
        let (mut sync, now) = failed(0);
        sync.retry
            .failed_paths
            .add([(b"/b".to_vec(), Etype::Modify)], now);
        assert_eq!(sync.next_retry(), None);
    }

    #[test]
    fn a_retry_that_runs_is_in_the_past() {
        let (mut sync, now) = failed(1);
        let due = now + 5 * SECOND;
        assert!(matches!(sync.next(due), Next::Act(_)));
        assert_eq!(sync.next_retry(), Some((0, 1)));
    }

    #[test]
    fn a_retry_on_request_does_not_wait_and_keeps_the_number_of_failures() {
        let (mut sync, now) = failed(2);
        assert!(matches!(sync.next(now), Next::At(due) if due > now + SECOND));
        sync.retry_now(now);
        assert!(matches!(sync.next(now), Next::Act(_)));
        assert_eq!(sync.failures(), 2);
        let ids = sync.queue.take(|_| Take::Take);
        sync.queue.activate(&ids);
        let wait = sync.failed(&ids, now);
        assert!(wait > Duration::from_secs(15), "{wait:?}");
    }

    #[test]
    fn a_retry_on_request_includes_failed_paths_and_comparisons() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.retry
            .failed_paths
            .add([(b"/b".to_vec(), Etype::Modify)], 0);
        assert_eq!(sync.next(0), Next::At(5 * SECOND));
        sync.retry_now(1);
        assert!(matches!(sync.next(1), Next::Act(_)));
        let mut sync = sync_with(Policy::Coalesce);
        sync.retry.failed_paths.add_everything(0);
        assert_eq!(sync.next_retry(), Some((5 * SECOND, 1)));
        sync.retry_now(1);
        assert_eq!(sync.next_retry(), Some((1, 1)));
    }

    /// The mv on the target changes their times.
    #[test]
    fn the_times_of_both_directories_are_sent_after_a_move() {
        for (policy, expected) in [(Policy::Coalesce, 2), (Policy::PerEvent, 0)] {
            let mut sync = sync_with(policy);
            let (from, to) = (&b"/src/a/x"[..], &b"/src/b/y"[..]);
            sync.ingest(Event::Move { from, to }, 0);
            let ids = sync.queue.take(|_| Take::Take);
            sync.queue.activate(&ids);
            let directories = sync.directories_of_moves(&ids);
            assert_eq!(directories.len(), expected);
            sync.succeeded(&ids);
            sync.send_times(directories, SECOND);
            let paths = sync.queue.iter().map(|delay| delay.paths().0.to_vec());
            let paths: Vec<_> = paths.collect();
            assert_eq!(paths, [&b"/a/"[..], b"/b/"][..expected]);
        }
    }

    #[test]
    fn a_deferred_sync_does_nothing_until_its_time() {
        let (mut sync, now) = failed(0);
        assert!(matches!(sync.next(now), Next::Act(_)));
        sync.defer(now + SECOND);
        assert_eq!(sync.next(now + SECOND - 1), Next::At(now + SECOND));
        // It is not a failure.
        assert_eq!((sync.next_retry(), sync.failures()), (None, 0));
        assert!(matches!(sync.next(now + SECOND), Next::Act(_)));
    }

    /// No events name the files in it.
    #[test]
    fn a_directory_of_a_move_that_failed_is_sent_with_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        for (to, etype) in [("/d/", Etype::Delete), ("/f", Etype::Create)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
            let from = [to.trim_end_matches('/'), "-old/"].concat();
            let from = &from.as_bytes()[..from.len() - usize::from(!to.ends_with('/'))];
            sync.queue.push(Etype::Move, from, Some(to.as_bytes()), 0);
            let id = sync.queue.iter().next().unwrap().id();
            sync.split_move(id, 0);
            let queued = sync
                .queue
                .iter()
                .map(|delay| (delay.etype(), delay.paths().0));
            let queued: Vec<_> = queued.collect();
            let sent = (etype, to.as_bytes().to_vec());
            assert_eq!(queued, [(Etype::Delete, from.to_vec()), sent]);
        }
    }

    fn failed_path(path: &str) -> FailedEntries {
        let failed = RetryEntries::from([(path.as_bytes().to_vec(), Etype::Modify)]);
        FailedEntries::Paths(failed, Default::default())
    }

    /// Returns the entries of a transfer that has begun.
    fn begin(sync: &mut Sync, etype: Etype, path: &str) -> Vec<DelayId> {
        sync.queue.push(etype, path.as_bytes(), None, 0);
        let ids = sync.queue.take(|_| Take::Take);
        sync.queue.activate(&ids);
        ids
    }

    /// The sync would be behind for ever, and send the path again.
    #[test]
    fn a_failed_path_that_another_transfer_sends_is_not_retried() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.partly_failed(&[], failed_path("/a"), 0);
        let ids = begin(&mut sync, Etype::Modify, "/b");
        sync.succeeded(&ids);
        assert_eq!(sync.failed_paths().len(), 1);
        let ids = begin(&mut sync, Etype::Modify, "/a");
        sync.succeeded(&ids);
        assert!(sync.failed_paths().is_empty());
    }

    #[test]
    fn a_path_that_is_sent_is_left_out_no_more() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.left_out.add(LeftOutReason::Obstructed, b"/a");
        let ids = begin(&mut sync, Etype::Modify, "/a");
        sync.succeeded(&ids);
        assert!(!sync.left_out.contains(LeftOutReason::Obstructed, b"/a"));
    }

    /// The target has an older version than the one that the checks will pass.
    #[test]
    fn a_path_is_held_until_its_checks_have_ended() {
        for (is_checked, left) in [(false, 1), (true, 0)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.retry_held_paths(vec![(b"/a".to_vec(), Etype::Modify)], 0);
            if is_checked {
                sync.checked(b"/a");
            }
            let ids = begin(&mut sync, Etype::Modify, "/a");
            sync.succeeded(&ids);
            assert_eq!(sync.failed_paths().len(), left);
        }
    }

    #[test]
    fn only_a_full_comparison_ends_the_failures_of_one() {
        for (etype, path, count) in [(Etype::Modify, "/a", 1), (Etype::Init, "", 0)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.retry.failed_paths.add_everything(0);
            sync.retry.failed_paths.take(100 * SECOND);
            sync.left_out.add(LeftOutReason::DanglingLink, b"/l");
            let ids = begin(&mut sync, etype, path);
            sync.compared(&ids);
            assert_eq!(sync.next_retry().map_or(0, |(_, count)| count), count);
            assert_eq!(sync.left_out.may_be_sent(), count == 1);
        }
    }
}
