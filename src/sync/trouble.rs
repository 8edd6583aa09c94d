//! What is wrong with a sync, and its end.

use super::Sync;
use crate::queue::{DelayId, Time};
use crate::report;

impl Sync {
    /// The sync does nothing from now on, because of this exit code. What it has queued stays
    /// queued: a configuration read anew takes it over.
    pub fn end(&mut self, ids: &[DelayId], code: i32, now: Time) {
        self.redo(ids, now);
        self.ended = Some(code);
        self.leave_journal();
    }

    /// Whether this sync has come to its end.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The exit code after which it does nothing any more.
    pub fn ended(&self) -> Option<i32> {
        self.ended
    }

    /// How often its children failed since the last success.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// All that is wrong, a line each, for the status file.
    pub fn troubles(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(code) = self.ended {
            lines.push(format!("Ended by exit code {code}."));
        }
        for mount in self.away() {
            lines.push(format!(
                "{} is not mounted, the target keeps what it has of it.",
                report::escape(mount)
            ));
        }
        match self.failures() {
            0 => {}
            1 => lines.push("Failed once, trying again.".to_owned()),
            count => lines.push(format!("Failed {count} times in a row, trying again.")),
        }
        match self.undone.len() {
            0 => {}
            1 => lines.push("1 path could not be sent, trying again.".to_owned()),
            count => lines.push(format!("{count} paths could not be sent, trying again.")),
        }
        lines
    }
}
