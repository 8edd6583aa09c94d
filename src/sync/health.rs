//! Problems of a sync: a lost or violated source, its end, and lines for the status file.

use super::Sync;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::{DelayId, Time};

impl Sync {
    /// Handles the loss of the watched source. Nothing is sent until [`Sync::resume`], so that its
    /// disappearance is not mirrored. Returns true if the sync was not halted before.
    pub fn source_lost(&mut self, reason: &str) -> bool {
        self.outdate_transfers();
        self.lifecycle.lose_source(reason)
    }

    /// Handles the return of the watched source. The sync stays halted.
    pub fn source_found(&mut self) {
        self.lifecycle.find_source();
        self.forget_watched_source();
    }

    /// Returns true if the source is not watched any more.
    pub fn is_lost(&self) -> bool {
        self.lifecycle.is_lost()
    }

    /// Halts the sync. Returns true if it was not halted for this reason before.
    pub fn halt(&mut self, reason: String) -> bool {
        self.lifecycle.halt(reason)
    }

    /// Returns the reason of a halt, if the sync is halted.
    pub fn halted(&self) -> Option<&str> {
        self.lifecycle.reason()
    }

    /// Ends a halt and queues a full comparison for `now`; `None` if the startup is still to come.
    pub fn resume(&mut self, now: Option<Time>) {
        if let (true, Some(now)) = (self.lifecycle.resume(), now) {
            self.resync_once(now);
        }
    }

    /// Waits for a probe of rsync, or ends the wait.
    pub fn set_probing(&mut self, probing: bool) {
        self.lifecycle.set_probing(probing);
    }

    /// Ends the sync because of this exit status. Its entries stay queued, so that a reload can
    /// take them over.
    pub fn end(&mut self, ids: &[DelayId], status: ExitStatus, now: Time) {
        self.requeue(ids, now);
        self.lifecycle.end(status);
        self.leave_journal();
    }

    /// Returns true if an exit code has ended this sync.
    pub fn has_ended(&self) -> bool {
        self.ended().is_some()
    }

    /// Returns the exit status that ended the sync, if it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.lifecycle.ended()
    }

    /// Returns true if the sync needs attention: something failed, is held back, or has ended it.
    pub fn is_troubled(&self) -> bool {
        self.has_ended()
            || self.is_lost()
            || self.halted().is_some()
            || self.delete_guard().excess().is_some()
            || self.is_failing()
            || self.failed_paths().is_failing()
    }

    /// Returns the problems of the sync, one line each, for the status file.
    pub fn problems(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(status) = self.ended() {
            lines.push(format!("Ended by exit code {}.", status.code()));
        }
        for mount in self.missing_mounts() {
            lines.push(format!(
                "{} is not mounted, its files on the target are kept.",
                log::escape(mount)
            ));
        }
        match self.failures() {
            0 => {}
            1 => lines.push("Failed once, trying again.".to_owned()),
            count => lines.push(format!("Failed {count} times in a row, trying again.")),
        }
        match self.failed_paths().len() {
            0 => {}
            1 => lines.push("1 path could not be sent, trying again.".to_owned()),
            count => lines.push(format!("{count} paths could not be sent, trying again.")),
        }
        if self.failed_paths().retries_everything() {
            lines.push("A full comparison was not complete, trying again.".to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Etype, Policy};
    use crate::sync::tests::sync_with;
    use crate::sync::{FailedEntries, Next, RetryEntries};

    /// Returns a sync after this change.
    fn changed(change: impl Fn(&mut Sync)) -> Sync {
        let mut sync = sync_with(Policy::Coalesce);
        change(&mut sync);
        sync
    }

    fn fail_paths(sync: &mut Sync, paths: &[&str]) {
        let failed = paths.iter().map(|path| path.as_bytes().to_vec());
        let failed: RetryEntries = failed.map(|path| (path, Etype::Modify)).collect();
        sync.partly_failed(&[], FailedEntries::Paths(failed, Default::default()), 0);
    }

    #[test]
    fn each_problem_alone_needs_attention() {
        type Change = fn(&mut Sync);
        let changes: [(&str, Change); 6] = [
            ("an end", |sync| sync.end(&[], ExitStatus::Exit(5), 0)),
            ("a lost source", |sync| {
                sync.source_lost("gone");
                sync.resume(None);
            }),
            ("a halt", |sync| {
                sync.halt("empty".into());
            }),
            ("too many deletions", |sync| {
                sync.delete_guard_mut().exceeded("3 deletions".into());
            }),
            ("a failure", |sync| {
                sync.failed(&[], 0);
            }),
            ("a failed path", |sync| fail_paths(sync, &["/a"])),
        ];
        assert!(!changed(|_| {}).is_troubled());
        for (what, change) in changes {
            assert!(changed(change).is_troubled(), "{what}");
        }
    }

    #[test]
    fn the_problems_are_listed_with_their_numbers() {
        type Change = fn(&mut Sync);
        let cases: [(&[&str], Change); 8] = [
            (&[], |_| {}),
            (&["Ended by exit code 5."], |sync| {
                sync.end(&[], ExitStatus::Exit(5), 0);
            }),
            (&["Failed once, trying again."], |sync| {
                sync.failed(&[], 0);
            }),
            (&["Failed 2 times in a row, trying again."], |sync| {
                sync.failed(&[], 0);
                sync.failed(&[], 0);
            }),
            (&["1 path could not be sent, trying again."], |sync| {
                fail_paths(sync, &["/a"]);
            }),
            (&["2 paths could not be sent, trying again."], |sync| {
                fail_paths(sync, &["/a", "/b"]);
            }),
            (
                &["A full comparison was not complete, trying again."],
                |sync| {
                    sync.partly_failed(&[], FailedEntries::Everything, 0);
                },
            ),
            (
                &["/src/in is not mounted, its files on the target are kept."],
                |sync| {
                    sync.remember_nested_mounts([b"/src/in".to_vec()].into_iter());
                    sync.update_nested_mounts(&Default::default());
                },
            ),
        ];
        for (lines, change) in cases {
            assert_eq!(changed(change).problems(), lines);
        }
    }

    /// The call of a transfer depends on what the probe finds.
    #[test]
    fn nothing_is_sent_during_a_probe_of_rsync() {
        let mut sync = changed(|sync| {
            sync.queue.push(Etype::Modify, b"/a", None, 0);
        });
        sync.set_probing(true);
        assert_eq!(sync.next(0), Next::Nothing);
        sync.set_probing(false);
        assert!(matches!(sync.next(0), Next::Act(_)));
    }
}
