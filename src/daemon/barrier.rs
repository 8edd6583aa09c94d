//! Who waits until everything that happened before the request is at the target.
//!
//! Two things have to come true, one after the other. First, the kernel's events of before the
//! request have been told ([`Watcher::has_told`]). Then what is in the queues at that moment is
//! done ([`Sync::reached`](crate::sync::Sync::reached)). docs/control.md says why that is
//! enough.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connections::ConnectionId;
use crate::script::SyncHandle;
use crate::sync::Mark;
use crate::watch::{EventMark, Watcher};

/// The reader's thread does not wake the loop to say that it found nothing, so it is asked
/// again; less often when it takes longer.
const MIN_DELAY: Duration = Duration::from_millis(2);
const MAX_DELAY: Duration = Duration::from_millis(100);

/// One who waits.
pub struct Barrier {
    /// Who.
    pub connection: ConnectionId,
    /// For the syncs of this name, or all.
    pub sync: Option<String>,
    stage: BarrierStage,
}

enum BarrierStage {
    /// For the events of before this moment.
    Waiting {
        moment: EventMark,
        again: Instant,
        pause: Duration,
    },
    /// For the entries of before these marks.
    Done(Vec<(Rc<SyncHandle>, Mark)>),
    /// It has not begun, or begins anew: the configuration was read again, and what was noticed
    /// went over to other syncs.
    Anew,
}

impl Barrier {
    /// From now on.
    pub fn new(connection: ConnectionId, sync: Option<String>) -> Barrier {
        Barrier {
            connection,
            sync,
            stage: BarrierStage::Anew,
        }
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            BarrierStage::Waiting { again, .. } => Some(*again),
            BarrierStage::Done(_) | BarrierStage::Anew => None,
        }
    }

    /// Begins, or begins anew if the syncs are others now. To be called right after the
    /// watcher's turn, as the other two.
    pub fn begin(&mut self, watcher: &Watcher, syncs: &[Rc<SyncHandle>], now: Instant) {
        if let BarrierStage::Done(marks) = &self.stage
            && !self.is_about(marks, syncs)
        {
            self.stage = BarrierStage::Anew;
        }
        if let BarrierStage::Anew = self.stage {
            self.stage = BarrierStage::Waiting {
                moment: watcher.moment(),
                again: now,
                pause: MIN_DELAY,
            };
        }
    }

    /// Returns true if all that happened before has been told, and is about to be marked: what was
    /// written to files that are open has to be in the queues then.
    pub fn is_to_mark(&self, watcher: &Watcher, started: bool) -> bool {
        matches!(self.stage, BarrierStage::Waiting { moment, .. } if started && watcher.has_told(moment))
    }

    /// Returns true if it is over. `started` says that startup transfers are queued.
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
            if !started || !watcher.has_told(*moment) {
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

    /// Returns true if the marks are those of the syncs there are.
    fn is_about(&self, marks: &[(Rc<SyncHandle>, Mark)], syncs: &[Rc<SyncHandle>]) -> bool {
        let mut marked = marks.iter().map(|(handle, _)| handle);
        let mut meant = self.meant(syncs);
        let same = meant.all(|handle| marked.next().is_some_and(|other| Rc::ptr_eq(handle, other)));
        same && marked.next().is_none()
    }
}

/// Returns true if the sync has this name, or any will do.
pub fn is_meant(name: Option<&str>, handle: &SyncHandle) -> bool {
    name.is_none_or(|name| handle.sync.borrow().config.name == name)
}
