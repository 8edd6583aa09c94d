//! What people ask of a sync while it runs: pause, flush, retry, compare, and whether it has
//! caught up with what happened before a moment.

use super::Sync;
use crate::queue::{DelayId, Etype, Ready, Time};

/// A moment in a sync's life: what was noticed before it is the entries up to a serial number,
/// and what these turn into.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    serial: u64,
    carried: u64,
}

impl Sync {
    /// Nothing starts while it is paused; it goes on watching and queueing, and what runs ends.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether it was paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The source is gone.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Something was left undone that no one names and that is not tried again by itself.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Until when it waits after a failure, and how often it has failed in a row. A time that
    /// has passed: it is being tried again.
    pub fn retry(&self) -> Option<(Time, u32)> {
        match self.backoff.failures() {
            0 => None,
            failures => Some((self.hold.unwrap_or_default(), failures)),
        }
    }

    /// Nothing that waits now waits for its delay any longer.
    pub fn flush(&mut self) {
        self.flushed = self.queue.last_serial();
    }

    /// What of the queue may go, as far as delays go.
    pub fn ready(&mut self, now: Time) -> Ready {
        match self.queue.first_ready(now, 0) {
            Ready::Now(id) if id.serial() <= self.flushed => Ready::Now(id),
            _ => self.queue.first_ready(now, self.config.max_delays),
        }
    }

    /// What failed is tried again now. The row of failures goes on: if it fails again, the
    /// next wait is longer.
    pub fn retry_now(&mut self, now: Time) {
        self.hold = None;
        self.undone.hasten(now);
        self.flush();
    }

    /// Queues what is at a path of the source (`/a/b`), a directory with all below it.
    pub fn resync_path(&mut self, path: &[u8], now: Time) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if path.is_empty() {
            return self.resync(now);
        }
        let directory = [path, b"/"].concat();
        if self.is_directory(path) {
            self.push_contents(&directory, now);
        } else if self.is_at_source(path) {
            self.note(Etype::Create, path, now);
        } else {
            self.note(Etype::Delete, path, now);
        }
    }

    /// All that these entries stand for arrived. After a comparison of everything nothing is left
    /// undone.
    pub fn compared(&mut self, ids: &[DelayId]) {
        let mut delays = ids.iter().filter_map(|&id| self.queue.get(id));
        if delays.any(|delay| delay.etype().is_special()) {
            self.incomplete = false;
        }
    }

    /// This moment, to be [`reached`](Sync::reached).
    pub fn mark(&self) -> Mark {
        Mark {
            serial: self.queue.last_serial(),
            carried: self.carried,
        }
    }

    /// Whether all that was noticed before the mark is done, so that the target has it.
    ///
    /// Work does not always stay in its entry: a Move that fails becomes a Delete and a Create, what a
    /// transfer left undone is queued anew. Each such turn counts up `carried`, and the mark
    /// is set anew then: later than needed, never too early.
    pub fn reached(&self, mark: &mut Mark) -> bool {
        if self.carried != mark.carried {
            *mark = self.mark();
        }
        let owes = self.lost || self.missed || self.incomplete || self.undone.due().is_some();
        !owes
            && self
                .queue
                .oldest()
                .is_none_or(|oldest| oldest.id().serial() > mark.serial)
    }
}
