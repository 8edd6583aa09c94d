//! Whether a transfer may have seen a directory before the watcher did.
//!
//! A transfer that compares a directory, because another was deleted under its name or at
//! startup, takes it as it is at the moment. A new one may not be watched yet: what the transfer
//! finds in it, and what is gone again before there is a watch, is never told of, and the target
//! would keep it. So the Create of a directory that may have come during such a transfer stands
//! for all that is in it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::Sync;
use crate::queue::{DelayId, Etype, Policy, Time};
use crate::watch::{EventMark, Watcher};

/// With more directories all of the source counts as compared.
const MAX_PATHS: usize = 10_000;

/// How far transfers may be ahead of what has been told. Syncs that share a journal share this.
#[derive(Clone, Default)]
pub struct InFlight(Rc<RefCell<InFlightScan>>);

#[derive(Default)]
struct InFlightScan {
    state: InFlightState,
    /// One of those that share this has transfers that run.
    busy: bool,
    /// What is compared, directories with all below them.
    trees: BTreeSet<Vec<u8>>,
    everywhere: bool,
}

#[derive(Clone, Copy)]
enum InFlightState {
    /// Not at all since this time.
    Not(Time),
    /// Transfers run.
    Running,
    /// They have ended; until all of before this moment has been told.
    Until(EventMark),
}

impl Default for InFlightState {
    fn default() -> InFlightState {
        InFlightState::Not(0)
    }
}

impl InFlightScan {
    fn add(&mut self, path: Vec<u8>) {
        if self.trees.len() < MAX_PATHS {
            self.trees.insert(path);
        } else {
            self.everywhere = true
        }
    }

    /// Returns true if this directory is compared, or one around it.
    fn include(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        self.everywhere
            || slashes
                .skip(1)
                .any(|(slash, _)| self.trees.contains(&path[..=slash]))
    }
}

impl Sync {
    /// A transfer begins that does these and compares what they say.
    pub fn begin(&mut self, ids: &[DelayId]) {
        self.queue.activate(ids);
        if self.queue.policy() == Policy::PerEvent {
            return;
        }
        let mut scan = self.in_flight.0.borrow_mut();
        for delay in ids.iter().filter_map(|id| self.queue.get(*id)) {
            let etype = delay.etype();
            if etype.is_special() {
                scan.everywhere = true;
            } else if matches!(etype, Etype::Delete | Etype::Move) {
                let (path, to) = delay.paths();
                [Some(path), to].into_iter().flatten().for_each(|mut path| {
                    if !path.ends_with(b"/") {
                        path.push(b'/');
                    }
                    scan.add(path);
                });
            }
        }
    }

    /// The same where directories may be compared that no event names.
    pub fn begin_anywhere(&mut self, ids: &[DelayId]) {
        self.queue.activate(ids);
        self.in_flight.0.borrow_mut().everywhere = true;
    }

    /// To be called before events are told: transfers that run look at the disk.
    pub fn note_transfers(&self) {
        if self.running > 0 {
            let mut scan = self.in_flight.0.borrow_mut();
            scan.state = InFlightState::Running;
            scan.busy = true;
        }
    }

    /// Takes back [`Sync::note_transfers`], so that only what runs now counts.
    pub fn count_transfers_anew(&self) {
        self.in_flight.0.borrow_mut().busy = false;
    }

    /// Returns true if it shares this with no other.
    pub fn is_ahead_alone(&self) -> bool {
        Rc::strong_count(&self.in_flight.0) == 1
    }

    /// To be called when events have been told and the end of transfers been noticed.
    pub fn forget_transfers(&self, watcher: &Watcher, now: Time) {
        let mut scan = self.in_flight.0.borrow_mut();
        let until = match scan.state {
            InFlightState::Running if !scan.busy => watcher.moment(),
            InFlightState::Until(moment) => moment,
            _ => return,
        };
        if watcher.has_told(until) {
            *scan = InFlightScan {
                state: InFlightState::Not(now),
                ..InFlightScan::default()
            };
        } else {
            scan.state = InFlightState::Until(until);
        }
    }

    /// When everything of before the last transfer's end had been told; nothing while one runs
    /// or something may still come.
    pub fn all_told(&self) -> Option<Time> {
        match self.in_flight.0.borrow().state {
            InFlightState::Not(since) if self.running == 0 => Some(since),
            _ => None,
        }
    }

    /// What an event comes to. The Delete of a directory that exists is the comparison of all
    /// that is in it.
    pub(super) fn as_seen(&self, etype: Etype, path: &[u8]) -> Etype {
        let scan = self.in_flight.0.borrow();
        let deletes = self.config.delete.in_batches() || self.journal_reader.is_some();
        match etype {
            Etype::Create
                if deletes
                    && path.ends_with(b"/")
                    && !matches!(scan.state, InFlightState::Not(_))
                    && scan.include(path)
                    && self.queue.policy() == Policy::Coalesce =>
            {
                Etype::Delete
            }
            other => other,
        }
    }

    /// From now on the two are ahead together.
    pub(super) fn share_ahead(&mut self, other: &Sync) {
        self.in_flight = other.in_flight.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sync_with;
    use super::*;
    use crate::watch::Event;

    /// What the Create of `path` comes to while a transfer does what `etype` of `done` says.
    fn told(policy: Policy, etype: Etype, done: &[u8], path: &[u8]) -> Etype {
        let mut sync = sync_with(policy);
        sync.queue.push(etype, done, None, 0);
        let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        sync.begin(&ids);
        sync.running = 1;
        sync.note_transfers();
        sync.running = 0;
        sync.count_transfers_anew();
        assert_eq!(sync.all_told(), None);
        sync.ingest(Event::Create { path }, 0);
        sync.queue.iter().last().unwrap().etype()
    }

    #[test]
    fn a_directory_that_comes_while_it_is_compared_is_compared() {
        use Etype::{Create, Delete, Init};
        use Policy::{Coalesce, PerEvent};
        for done in [b"/d/".as_slice(), b"/d", b"/d/e/"] {
            assert_eq!(told(Coalesce, Delete, done, b"/src/d/e/"), Delete);
        }
        assert_eq!(told(Coalesce, Init, b"", b"/src/d/"), Delete);
        assert_eq!(told(Coalesce, Create, b"/d/", b"/src/d/e/"), Create);
        assert_eq!(told(Coalesce, Delete, b"/d/", b"/src/dd/"), Create);
        assert_eq!(told(Coalesce, Delete, b"/d/e/", b"/src/d/"), Create);
        assert_eq!(told(Coalesce, Delete, b"/d/", b"/src/d/f"), Create);
        assert_eq!(told(PerEvent, Delete, b"/d/", b"/src/d/"), Create);
    }

    #[test]
    fn without_a_transfer_it_is_as_told() {
        let mut sync = sync_with(Policy::Coalesce);
        assert_eq!(sync.all_told(), Some(0));
        sync.ingest(Event::Create { path: b"/src/d/" }, 0);
        assert_eq!(sync.queue.iter().last().unwrap().etype(), Etype::Create);
    }
}
