//! Barrier: waits until everything that happened before a request is on the target.
//!
//! A barrier passes in two steps. First, the watcher has delivered all kernel events from before
//! the request ([`DaemonView::has_reported`]). Then all entries that are in the queues at that
//! moment are done ([`DaemonView::reached`]). docs/control.md explains why this is sufficient.

use std::time::{Duration, Instant};

use super::view::DaemonView;
use crate::id::SyncId;
use crate::sync::Mark;
use crate::watch::EventMark;

/// Limits of the delay between two polls of the watcher. The reader's thread does not wake the loop
/// when it finds nothing, so the loop polls; the delay grows up to the maximum.
const MIN_DELAY: Duration = Duration::from_millis(2);
const MAX_DELAY: Duration = Duration::from_millis(100);

/// One wait.
pub struct Barrier {
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
    Marked(Vec<(SyncId, Mark)>),
    /// Not begun, or restarted because a reload has moved pending events to other syncs.
    Anew,
}

impl Barrier {
    /// Returns a barrier that has not begun.
    pub fn new(sync: Option<String>) -> Barrier {
        Barrier {
            sync,
            stage: BarrierStage::Anew,
        }
    }

    /// Returns the time of the next poll of the watcher, if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            BarrierStage::Waiting { again, .. } => Some(*again),
            BarrierStage::Marked(_) | BarrierStage::Anew => None,
        }
    }

    /// Begins, or begins again if a reload has replaced the syncs. This, [`Self::is_to_mark`] and
    /// [`Self::is_over`] must be called right after the watcher's turn.
    pub fn begin(&mut self, view: &impl DaemonView, now: Instant) {
        if let BarrierStage::Marked(marks) = &self.stage
            && !marks.iter().map(|(id, _)| *id).eq(self.meant(view))
        {
            self.stage = BarrierStage::Anew;
        }
        if let BarrierStage::Anew = self.stage {
            self.stage = BarrierStage::Waiting {
                moment: view.event_mark(),
                again: now,
                pause: MIN_DELAY,
            };
        }
    }

    /// Returns true if all events from before the request are delivered and the marks are about to
    /// be set. Changes to files that are still open have to be queued by then.
    pub fn is_to_mark(&self, view: &impl DaemonView) -> bool {
        matches!(self.stage, BarrierStage::Waiting { moment, .. } if view.has_reported(moment))
    }

    /// Returns true if the barrier has passed.
    pub fn is_over(&mut self, view: &impl DaemonView, now: Instant) -> bool {
        if let BarrierStage::Waiting {
            moment,
            again,
            pause,
        } = &mut self.stage
        {
            if !view.has_reported(*moment) {
                if *again <= now {
                    *again = now + *pause;
                    *pause = (*pause * 2).min(MAX_DELAY);
                }
                return false;
            }
            let marks = self.meant(view).filter_map(|id| Some((id, view.mark(id)?)));
            self.stage = BarrierStage::Marked(marks.collect());
        }
        match &mut self.stage {
            BarrierStage::Marked(marks) => {
                marks.iter_mut().all(|(id, mark)| view.reached(*id, mark))
            }
            _ => false,
        }
    }

    /// Returns the syncs of the request.
    fn meant(&self, view: &impl DaemonView) -> impl Iterator<Item = SyncId> {
        let syncs = view.syncs(self.sync.as_deref()).into_iter();
        syncs.map(|sync| sync.id)
    }
}
