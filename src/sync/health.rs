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
