//! Whether a transfer may have seen a directory before the watcher did.
//!
//! A transfer that compares a directory, because another was deleted under its name or at
//! startup, takes it as it is at the moment. A new one may not be watched yet: what the transfer
//! finds in it, and what is gone again before there is a watch, is never told of, and the target
//! would keep it. So the Create of a directory that may have come during a transfer stands for
//! all that is in it.

use std::cell::Cell;
use std::rc::Rc;

use super::Sync;
use crate::queue::{Etype, Policy, Time};
use crate::watch::{Moment, Watcher};

/// How far transfers may be ahead of what has been told. Syncs that share a journal share this.
#[derive(Clone, Default)]
pub struct Ahead(Rc<Cell<State>>);

#[derive(Clone, Copy)]
enum State {
    /// Not at all since this time.
    Not(Time),
    /// Transfers run.
    Running,
    /// They have ended; until all of before this moment has been told.
    Until(Moment),
}

impl Default for State {
    fn default() -> State {
        State::Not(0)
    }
}

impl Sync {
    /// To be called before events are told: transfers that run look at the disk.
    pub fn note_transfers(&self) {
        if self.running > 0 {
            self.ahead.0.set(State::Running);
        }
    }

    /// To be called when events have been told and transfers that ended been evaluated.
    pub fn forget_transfers(&self, watcher: &Watcher, now: Time) {
        let until = match self.ahead.0.get() {
            State::Running if self.running == 0 => watcher.moment(),
            State::Until(moment) => moment,
            _ => return,
        };
        self.ahead.0.set(match watcher.has_told(until) {
            true => State::Not(now),
            false => State::Until(until),
        });
    }

    /// When everything of before the last transfer's end had been told; nothing while one runs
    /// or something may still come.
    pub fn all_told(&self) -> Option<Time> {
        match self.ahead.0.get() {
            State::Not(since) if self.running == 0 => Some(since),
            _ => None,
        }
    }

    /// What an event comes to. The Delete of a directory that exists is the comparison of all
    /// that is in it.
    pub(super) fn as_seen(&self, etype: Etype, path: &[u8]) -> Etype {
        let is_ahead = !matches!(self.ahead.0.get(), State::Not(_));
        let deletes = self.config.delete.in_batches() || self.feed.is_some();
        match etype {
            Etype::Create
                if is_ahead
                    && deletes
                    && path.ends_with(b"/")
                    && self.queue.policy() == Policy::Settle =>
            {
                Etype::Delete
            }
            other => other,
        }
    }

    /// From now on the two are ahead together.
    pub(super) fn share_ahead(&mut self, other: &Sync) {
        self.ahead = other.ahead.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sync_with;
    use super::*;
    use crate::watch::Event;

    fn told(policy: Policy, path: &str, running: usize) -> Vec<Etype> {
        let mut sync = sync_with(policy);
        sync.running = running;
        sync.note_transfers();
        sync.running = 0;
        assert_eq!(sync.all_told(), (running == 0).then_some(0));
        let path = path.as_bytes();
        sync.notice(Event::Create { path }, 0);
        sync.queue.iter().map(|delay| delay.etype()).collect()
    }

    #[test]
    fn a_directory_that_comes_during_a_transfer_is_compared() {
        use Policy::{Deliver, Settle};
        assert_eq!(told(Settle, "/src/d/", 1), [Etype::Delete]);
        assert_eq!(told(Settle, "/src/d/", 0), [Etype::Create]);
        assert_eq!(told(Settle, "/src/f", 1), [Etype::Create]);
        assert_eq!(told(Deliver, "/src/d/", 1), [Etype::Create]);
    }
}
