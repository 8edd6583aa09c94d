//! Barrier: a client that waits until everything that happened before its request is at the target.
//!
//! A barrier passes in two steps. First, the watcher has delivered all kernel events from before
//! the request ([`Watcher::has_reported`]). Then all entries that are in the queues at that moment are
//! done ([`Sync::reached`](crate::sync::Sync::reached)). docs/control.md explains why this is
//! sufficient.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connections::ConnectionId;
use crate::script::SyncHandle;
use crate::sync::Mark;
use crate::watch::{EventMark, Watcher};

/// Limits of the delay between two polls of the watcher. The reader's thread does not wake the loop
/// when it finds nothing, so the loop polls; the delay grows up to the maximum.
const MIN_DELAY: Duration = Duration::from_millis(2);
const MAX_DELAY: Duration = Duration::from_millis(100);

/// One waiting client.
pub struct Barrier {
    /// The client's connection.
    pub connection: ConnectionId,
    /// The name of the syncs to wait for; `None` for all syncs.
    pub sync: Option<String>,
    stage: BarrierStage,
}

enum BarrierStage {
    /// Waits until the watcher has delivered the events from before `moment`.
    Waiting {
        moment: EventMark,
        again: Instant,
        pause: Duration,
    },
    /// Waits until each sync has reached its mark.
    Done(Vec<(Rc<SyncHandle>, Mark)>),
    /// Not begun, or to begin again because a reload has moved pending events to other syncs.
    Anew,
}

impl Barrier {
    /// Returns a barrier that has not begun.
    pub fn new(connection: ConnectionId, sync: Option<String>) -> Barrier {
        Barrier {
            connection,
            sync,
            stage: BarrierStage::Anew,
        }
    }

    /// Returns the time of the next poll of the watcher, if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            BarrierStage::Waiting { again, .. } => Some(*again),
            BarrierStage::Done(_) | BarrierStage::Anew => None,
        }
    }

    /// Begins, or begins again if a reload has replaced the syncs. This, [`Self::is_to_mark`] and
    /// [`Self::is_over`] must be called right after the watcher's turn.
    pub fn begin(&mut self, watcher: &Watcher, syncs: &[Rc<SyncHandle>], now: Instant) {
        if let BarrierStage::Done(marks) = &self.stage
            && !self.is_about(marks, syncs)
        {
            self.stage = BarrierStage::Anew;
        }
        if let BarrierStage::Anew = self.stage {
            self.stage = BarrierStage::Waiting {
                moment: watcher.event_mark(),
                again: now,
                pause: MIN_DELAY,
            };
        }
    }

    /// Returns true if all events from before the request are delivered and the marks are about to
    /// be set. Changes to files that are still open have to be queued by then.
    pub fn is_to_mark(&self, watcher: &Watcher, started: bool) -> bool {
        matches!(self.stage, BarrierStage::Waiting { moment, .. } if started && watcher.has_reported(moment))
    }

    /// Returns true if the barrier has passed. `started` says that the startup transfers are
    /// queued.
    pub fn is_over(
        &mut self,
        watcher: &Watcher,
        syncs: &[Rc<SyncHandle>],
        started: bool,
        now: Instant,
    ) -> bool {
        if let BarrierStage::Waiting {
            moment,
            again,
            pause,
        } = &mut self.stage
        {
            if !started || !watcher.has_reported(*moment) {
                if *again <= now {
                    *again = now + *pause;
                    *pause = (*pause * 2).min(MAX_DELAY);
                }
                return false;
            }
            let marks = self
                .meant(syncs)
                .map(|handle| (Rc::clone(handle), handle.sync.borrow().mark()));
            self.stage = BarrierStage::Done(marks.collect());
        }
        match &mut self.stage {
            BarrierStage::Done(marks) => marks
                .iter_mut()
                .all(|(handle, mark)| handle.sync.borrow().reached(mark)),
            _ => false,
        }
    }

    fn meant<'a>(&self, syncs: &'a [Rc<SyncHandle>]) -> impl Iterator<Item = &'a Rc<SyncHandle>> {
        let name = self.sync.clone();
        let meant = move |handle: &&Rc<SyncHandle>| is_meant(name.as_deref(), handle);
        syncs.iter().filter(meant)
    }

    /// Returns true if the marks belong to the current syncs.
    fn is_about(&self, marks: &[(Rc<SyncHandle>, Mark)], syncs: &[Rc<SyncHandle>]) -> bool {
        let mut marked = marks.iter().map(|(handle, _)| handle);
        let mut meant = self.meant(syncs);
        let same = meant.all(|handle| marked.next().is_some_and(|other| Rc::ptr_eq(handle, other)));
        same && marked.next().is_none()
    }
}

/// Returns true if the sync has this name, or if no name is given.
pub fn is_meant(name: Option<&str>, handle: &SyncHandle) -> bool {
    name.is_none_or(|name| handle.sync.borrow().config.name == name)
}
