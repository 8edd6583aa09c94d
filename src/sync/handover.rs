//! Handover of a sync's pending events, to the sync of a new configuration or to the next daemon.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Sync;
use super::verify::CLOCK_TICK;
use crate::queue::{Delay, DelayId, Etype, Placed, Policy, Pushed, Time};

/// A pending event: type, path, and destination of a Move.
pub type PendingEvent = (Etype, Vec<u8>, Option<Vec<u8>>);

fn event_of(delay: Delay<'_>) -> PendingEvent {
    let (path, to) = delay.paths();
    (delay.etype(), path, to)
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
        let mut everything = self.owes_comparison
            || self.has_gap()
            || self.is_lost()
            || self.has_ended()
            || self.failed_paths().retries_everything();
        let mut events: Vec<PendingEvent> = self.failed_paths().paths().collect();
        events.extend(self.inherited.iter().cloned());
        let again = self.overlaps.paths();
        events.extend(again.map(|(etype, path)| (etype, path, None)));
        for delay in self.queue.iter() {
            match delay.etype() {
                Etype::Full => everything = true,
                etype if !etype.is_special() => events.push(event_of(delay)),
                _ => {}
            }
        }
        (events, everything)
    }

    /// Returns true if a file that changes now may have the modification second of one that was
    /// sent, so that rsync's quick check may not detect the change.
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
        self.inherit_guard(old);
        self.counters = old.counters.clone();
        self.lifecycle.set_paused(old.is_paused());
        let (events, everything) = if self.inherit_journal(old) {
            old.own_pending_events()
        } else {
            old.pending_events()
        };
        self.inherited.extend(events);
        self.verify.take_over(&old.verify);
        // The startup event, if there is one, compares everything anyway.
        let everything = everything || !old.verify.is_done();
        if everything && self.config.init {
            self.verify.suspect();
            self.owe_startup_comparison();
        }
        self.owes_comparison |= everything && !self.config.init;
    }

    /// Waits for one more child of the sync that this one replaces. The child processes these
    /// events, which are inherited as well.
    pub fn add_predecessor_job(&mut self, events: Vec<PendingEvent>) {
        self.lifecycle.add_predecessor_job();
        if self.queue.policy() == Policy::PerEvent {
            self.run_by_predecessor.extend(events);
        }
    }

    /// Drops the inherited events that a child of the replaced sync has processed, so that user
    /// code is not called again for them. What the built-in kinds send again is compared, or is
    /// split as a Move.
    pub fn predecessor_succeeded(&mut self, events: Vec<PendingEvent>) {
        let events = events.into_iter();
        let mut done: HashSet<_> = events
            .filter(|it| self.run_by_predecessor.remove(it))
            .collect();
        self.inherited.retain(|event| !done.remove(event));
        let mut queued: Vec<_> = self.queue.iter().collect();
        queued.retain(|&delay| done.remove(&event_of(delay)));
        let ids: Vec<_> = queued.iter().map(|delay| delay.id()).collect();
        for id in ids {
            self.queue.withdraw(id);
        }
    }

    /// Handles an event that is queued now. The queue may keep an equal inherited event in its
    /// place, which is not dropped then.
    pub(super) fn keep_equal_inherited(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>) {
        if !self.run_by_predecessor.is_empty() {
            let event = (etype, path.to_vec(), to.map(<[u8]>::to_vec));
            self.run_by_predecessor.remove(&event);
        }
    }

    /// Returns the events of these queue entries.
    pub fn events_of(&self, ids: &[DelayId]) -> Vec<PendingEvent> {
        let delays = ids.iter().filter_map(|&id| self.queue.get(id));
        delays.map(event_of).collect()
    }

    /// Handles the end of a child of the sync that this one replaces.
    pub fn predecessor_job_ended(&mut self) {
        self.lifecycle.predecessor_job_ended();
    }

    /// Queues the inherited events behind the startup event, and before those that user code gets
    /// later.
    pub(super) fn queue_inherited(&mut self, now: Time) {
        let inherited = std::mem::take(&mut self.inherited);
        let later = match self.queue.policy() {
            Policy::PerEvent if !inherited.is_empty() => self.withdraw_events(),
            _ => Vec::new(),
        };
        for (etype, path, to) in inherited {
            self.push_pending(etype, &path, to.as_deref(), now);
        }
        for ((etype, path, to), due) in later {
            let pushed = self.queue.push(etype, &path, to.as_deref(), due);
            self.owes_comparison |= pushed == Pushed::Placed(Placed::Refused);
        }
    }

    /// Removes the queued events of paths. Returns them in order, each with the time from which it
    /// may run.
    fn withdraw_events(&mut self) -> Vec<(PendingEvent, Time)> {
        let delays = self.queue.iter();
        let delays = delays.filter(|delay| !delay.etype().is_special());
        let (ids, events): (Vec<_>, Vec<_>) = delays
            .map(|delay| (delay.id(), (event_of(delay), delay.due())))
            .unzip();
        for id in ids {
            self.queue.withdraw(id);
        }
        events
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
                self.push_pending(etype, path, None, now);
            }
            (_, Some(to)) if self.queue.policy() == Policy::Coalesce => {
                self.send_moved(path, to, now);
            }
            _ => self.push_pending(etype, path, to, now),
        }
    }

    /// Queues an event if the current filter accepts it.
    fn push_pending(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>, now: Time) {
        let moved = to.filter(|to| self.config.moves && !self.excluded(path) && !self.excluded(to));
        let pushed = match (moved, to) {
            (None, Some(to)) => return self.send_moved(path, to, now),
            (None, None) if self.excluded(path) => return,
            (to, _) => self.queue.push(etype, path, to, now),
        };
        if pushed == Pushed::Placed(Placed::Refused) {
            self.owes_comparison = true;
        }
    }
}
