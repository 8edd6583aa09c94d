//! What is wrong with a sync, and its end.

use super::Sync;
use crate::log;
use crate::queue::{DelayId, Time};

/// The maximum number of known noise lines.
const MAX_NOISE: usize = 64;

impl Sync {
    /// Ends the sync because of this exit code. Its entries stay queued, so that a reload can take
    /// them over.
    pub fn end(&mut self, ids: &[DelayId], code: i32, now: Time) {
        self.redo(ids, now);
        self.ended = Some(code);
        self.leave_journal();
    }

    /// Returns true if this sync has come to its end.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Returns the exit code that ended the sync, if it has ended.
    pub fn ended(&self) -> Option<i32> {
        self.ended
    }

    /// Returns the number of failures since the last success.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Returns true if transfers that did all they should wrote this line to their error output, too.
    pub fn is_noise(&self, line: &[u8]) -> bool {
        self.noise.contains(line)
    }

    /// Records error lines of a successful transfer as noise.
    pub fn note_noise(&mut self, lines: Vec<Vec<u8>>) {
        for line in lines {
            if self.noise.len() < MAX_NOISE {
                self.noise.insert(line);
            }
        }
    }

    /// Returns the problems of the sync, one line each, for the status file.
    pub fn troubles(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(code) = self.ended {
            lines.push(format!("Ended by exit code {code}."));
        }
        for mount in self.away() {
            lines.push(format!(
                "{} is not mounted, the target keeps what it has of it.",
                log::escape(mount)
            ));
        }
        match self.failures() {
            0 => {}
            1 => lines.push("Failed once, trying again.".to_owned()),
            count => lines.push(format!("Failed {count} times in a row, trying again.")),
        }
        match self.failed_paths.len() {
            0 => {}
            1 => lines.push("1 path could not be sent, trying again.".to_owned()),
            count => lines.push(format!("{count} paths could not be sent, trying again.")),
        }
        if self.failed_paths.retries_everything() {
            lines.push("A comparison of everything was not complete, trying again.".to_owned());
        }
        lines
    }
}
