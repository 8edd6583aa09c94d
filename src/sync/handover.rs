//! What a sync has not done yet, to be handed over: to the sync of a configuration read anew, or
//! to the next daemon.

use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Sync;
use super::verify::CLOCK_TICK;
use crate::queue::{Etype, Placed, Policy, Pushed, Time};

/// One event: its type, its path, and where a Move went.
pub type PendingEvent = (Etype, Vec<u8>, Option<Vec<u8>>);

/// Why a sync does not begin yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotStarted {
    /// Its directories are being read for the first time.
    pub unwatched: bool,
    /// Children of the sync in whose place it is.
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
    /// All that is to be done in its order, what is being acted upon first of all included, and
    /// whether a comparison of everything is owed besides the startup.
    pub fn pending_events(&self) -> (Vec<PendingEvent>, bool) {
        let (mut events, everything) = self.own_pending_events();
        let backlog = self.backlog(usize::MAX).into_iter();
        events.extend(backlog.map(|(etype, path)| (etype, path, None)));
        (events, everything)
    }

    /// The same without what it has to take over from a journal.
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

    /// Takes over what was pending when the configuration was read anew. The time of waiting
    /// is not lost: what was pending is due at once, when this sync starts.
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
        // The startup compares everything, if there is one.
        let everything = everything || !old.verify.is_done() || old.has_ended();
        if everything && self.config.init {
            self.verify.suspect();
        }
        self.overrun |= everything && !self.config.init;
    }

    /// Queues what was taken over, behind the startup.
    pub(super) fn queue_inherited(&mut self, now: Time) {
        for (etype, path, to) in std::mem::take(&mut self.inherited) {
            self.hand_on(etype, &path, to.as_deref(), now);
        }
        self.drop_held();
    }

    /// If the same directories are wanted as before, says so in a way the watcher knows; then
    /// it need not look at them again.
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

    /// Takes over one event that the daemon before this one left. What it was about may have
    /// changed since, so a Move is not done blindly where the disk can be asked.
    pub fn restore(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>, now: Time) {
        match (etype, to) {
            (Etype::Full, _) => self.resync(now),
            (Etype::Create | Etype::Modify, None) if self.queue.policy() == Policy::Coalesce => {
                // The startup sends what differs, but for what has the same size and second.
                self.verify.add(path);
                self.hand_on(etype, path, None, now);
            }
            (_, Some(to)) if self.queue.policy() == Policy::Coalesce => {
                self.send_moved(path, to, now);
            }
            _ => self.hand_on(etype, path, to, now),
        }
    }

    /// Queues an event, as far as the filter, which may be another one now, lets it pass.
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
