//! Handover of a sync's pending events, to the sync of a new configuration or to the next daemon.

use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Sync;
use super::verify::CLOCK_TICK;
use crate::queue::{Etype, Placed, Policy, Pushed, Time};

/// A pending event: type, path, and destination of a Move.
pub type PendingEvent = (Etype, Vec<u8>, Option<Vec<u8>>);

/// The reasons why a sync has not started yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotStarted {
    /// The initial crawl of its directories is not complete.
    pub unwatched: bool,
    /// The number of running children of the sync it replaces.
    pub children: usize,
    /// Its rsync is being probed.
    pub probing: bool,
}

impl NotStarted {
    /// Returns true if there is a reason.
    pub fn any(self) -> bool {
        self.unwatched || self.children > 0 || self.probing
    }
}

impl Sync {
    /// Returns the pending events in order, active ones first, and true if a full comparison is
    /// pending besides the startup.
    pub fn pending_events(&self) -> (Vec<PendingEvent>, bool) {
        let (mut events, everything) = self.own_pending_events();
        let backlog = self.backlog(usize::MAX).into_iter();
        events.extend(backlog.map(|(etype, path)| (etype, path, None)));
        (events, everything)
    }

    /// Returns the pending events without those still in the shared journal.
    fn own_pending_events(&self) -> (Vec<PendingEvent>, bool) {
        let mut everything =
            self.overrun || self.has_gap() || self.lost || self.failed_paths.retries_everything();
        let mut events: Vec<PendingEvent> = self.failed_paths.paths().collect();
        events.extend(self.inherited.iter().cloned());
        for delay in self.queue.iter() {
            match delay.etype() {
                Etype::Full => everything = true,
                etype if !etype.is_special() => {
                    let (path, to) = delay.paths();
                    events.push((etype, path, to));
                }
                _ => {}
            }
        }
        (events, everything)
    }

    /// Returns true if what changes from now on may have the size and second of what was sent, so that
    /// only an exact comparison finds it.
    pub fn has_just_sent(&self, now: SystemTime) -> bool {
        let second = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_secs()
        };
        second(now - CLOCK_TICK) <= second(self.last_transfer)
    }

    /// Takes over the pending events of the sync of the previous configuration. They are due at
    /// once when this sync starts.
    pub fn adopt(&mut self, old: &Sync) {
        self.share_scope(old);
        self.inherit_source_state(old);
        self.counters = old.counters.clone();
        self.paused = old.paused;
        let (events, everything) = if self.take_place(old) {
            old.own_pending_events()
        } else {
            old.pending_events()
        };
        self.inherited.extend(events);
        self.verify.take_over(&old.verify);
        // The startup event, if there is one, compares everything anyway.
        let everything = everything || !old.verify.is_done() || old.has_ended();
        if everything && self.config.init {
            self.verify.suspect();
        }
        self.overrun |= everything && !self.config.init;
    }

    /// Queues the inherited events behind the startup event.
    pub(super) fn queue_inherited(&mut self, now: Time) {
        for (etype, path, to) in std::mem::take(&mut self.inherited) {
            self.hand_on(etype, &path, to.as_deref(), now);
        }
        self.drop_held();
    }

    /// Shares the scope of the old sync if both watch the same directories, so that the watcher
    /// does not crawl again.
    pub(super) fn share_scope(&mut self, old: &Sync) {
        let lines = |sync: &Sync| {
            let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
            let excludes: Vec<_> = filter.excludes().map(<[u8]>::to_vec).collect();
            (filter.rules().collect::<Vec<_>>(), excludes)
        };
        let same = self.config.source == old.config.source
            && self.config.subdirs == old.config.subdirs
            && self.config.guard.on == old.config.guard.on
            && lines(self) == lines(old);
        if same {
            self.filter = Arc::clone(&old.filter);
            self.scope = old.scope.clone();
        }
    }

    /// Restores one saved event of the previous daemon. The paths may have changed since, so a Move
    /// is split where the disk can be examined.
    pub fn restore(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>, now: Time) {
        match (etype, to) {
            (Etype::Full, _) => self.resync(now),
            (Etype::Create | Etype::Modify, None) if self.queue.policy() == Policy::Coalesce => {
                // The startup transfer sends all differences but those of the same size and time.
                self.verify.add(path);
                self.hand_on(etype, path, None, now);
            }
            (_, Some(to)) if self.queue.policy() == Policy::Coalesce => {
                self.send_moved(path, to, now);
            }
            _ => self.hand_on(etype, path, to, now),
        }
    }

    /// Queues an event if the current filter accepts it.
    fn hand_on(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>, now: Time) {
        let moved = to.filter(|to| self.config.moves && !self.excluded(path) && !self.excluded(to));
        let pushed = match (moved, to) {
            (None, Some(to)) => return self.send_moved(path, to, now),
            (None, None) if self.excluded(path) => return,
            (to, _) => self.queue.push(etype, path, to, now),
        };
        if pushed == Pushed::Placed(Placed::Refused) {
            self.overrun = true;
        }
    }
}
