//! Due delays, the delays of a batch, and the removal of delays from the queue.

use super::Queue;
use super::combine::{Combination, Relation, combine};
use super::delay::Delay;
use super::etype::{Etype, Policy, Status, Time};
use super::nodes::Slot;
use super::path_index::TOP;
use super::records::{DelayId, DelayTable};

/// The result of [`Queue::first_ready`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// This delay is the first that can run.
    Now(DelayId),
    /// No delay can run before this time.
    At(Time),
    /// No delay waits.
    Nothing,
}

/// The caller's answer to [`Queue::take`] about one delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Add it to the batch.
    Take,
    /// Skip it and all that it blocks.
    Skip,
    /// The batch is complete.
    Stop,
}

impl Queue {
    /// Returns the first waiting delay if it is due or at least `max_delays` are queued (active
    /// ones count); else the first Init, Blanket or Full that is due. Other delays behind one that
    /// is not due are not searched: a queue runs in order. Amortised O(1).
    pub fn first_ready(&mut self, now: Time, max_delays: usize) -> Ready {
        while let Some(slot) = self.waiting_from {
            let entry = &self.entries[slot];
            if entry.status != Status::Wait {
                self.waiting_from = entry.after;
                continue;
            }
            return if entry.due <= now || self.len() >= max_delays {
                Ready::Now(self.entries.id(slot))
            } else {
                self.special_ready(now, entry.due)
            };
        }
        Ready::Nothing
    }

    /// Returns the state of the special delays when the first delay is due only at `first`.
    fn special_ready(&self, now: Time, first: Time) -> Ready {
        let waiting = || {
            self.specials()
                .filter(|delay| delay.status() == Status::Wait)
        };
        match waiting().find(|delay| delay.due() <= now) {
            Some(delay) => Ready::Now(delay.id()),
            None => Ready::At(waiting().map(|delay| delay.due()).fold(first, Time::min)),
        }
    }

    /// Returns delays for one batch in queue order, due or not. `test` is called for each delay
    /// that waits and for each blocked one whose blocker was taken; active delays, and all that
    /// active or skipped ones block, are left out. The queue is not changed: see
    /// [`Queue::activate`]. The batch must have the effect of its delays carried out in order.
    pub fn take(&self, mut test: impl FnMut(Delay<'_>) -> Take) -> Vec<DelayId> {
        let mut taken = Vec::new();
        let mut marks = Marks::new(self.entries.slots());
        // Blocked delays before the first waiting one depend on an active one.
        let mut next = self.waiting_from;
        while let Some(slot) = next {
            let entry = &self.entries[slot];
            next = entry.after;
            let open = match entry.status {
                Status::Wait => true,
                Status::Active => false,
                Status::Block => entry
                    .blocker
                    .into_iter()
                    .chain(entry.older())
                    .all(|slot| marks.contains(slot)),
            };
            if !open {
                continue;
            }
            match test(self.delay(slot)) {
                Take::Take => {
                    marks.insert(slot);
                    taken.push(self.entries.id(slot));
                }
                Take::Skip => {}
                Take::Stop => break,
            }
        }
        taken
    }

    /// Makes these delays active. Stale ids are ignored.
    pub fn activate(&mut self, ids: &[DelayId]) {
        for id in ids {
            if let Some(slot) = self.entries.find(*id) {
                self.entries[slot].status = Status::Active;
            }
        }
    }

    /// Removes an active delay that is done and unblocks its successors. Returns false if it has
    /// left the queue or is not active.
    pub fn finish(&mut self, id: DelayId) -> bool {
        self.leave(id, Status::Active)
    }

    /// Removes a waiting delay without an action and unblocks its successors. Returns false if it
    /// has left the queue or is not waiting.
    pub fn discard(&mut self, id: DelayId) -> bool {
        self.leave(id, Status::Wait)
    }

    /// Makes an active delay that failed run again from `due` on. It is blocked, not waiting, if
    /// its blocker is still queued: when a Move fails, later delays of its batch must fail too. A
    /// newer delay of the same path that it can absorb, or be replaced by, is removed: repeated
    /// failure does not let the queue grow. Returns false if the delay has left the queue or is not
    /// active.
    pub fn retry(&mut self, id: DelayId, due: Time) -> bool {
        let Some(slot) = self.entries.find(id) else {
            return false;
        };
        if self.entries[slot].status != Status::Active {
            return false;
        }
        self.entries[slot].due = due;
        self.update_status(slot);
        let moved = self.entries[slot].etype == Etype::Move;
        if moved && self.policy == Policy::Coalesce && self.index.nodes[TOP].own.is_some() {
            self.split_pending_move(slot, due);
        }
        self.fold_newer(slot);
        if let Some(older) = self.entries[slot].ends[0].older {
            self.fold_newer(older);
        }
        true
    }

    pub(super) fn leave(&mut self, id: DelayId, status: Status) -> bool {
        match self.entries.find(id) {
            Some(slot) if self.entries[slot].status == status => {
                self.remove(slot);
                true
            }
            _ => false,
        }
    }

    /// Blocks a delay without a blocker on an older one of the same path, if there is one.
    pub(super) fn block_on_path(&mut self, slot: Slot) {
        let entry = &self.entries[slot];
        if entry.blocker.is_some() || entry.etype.is_special() {
            return;
        }
        let older = entry.older().max_by_key(|slot| self.entries[*slot].serial);
        if let Some(older) = older {
            self.entries.block_on(slot, older);
        }
    }

    /// Sets the status of a delay that is not active to waiting or blocked.
    pub(super) fn update_status(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot];
        if entry.blocker.is_some() {
            entry.status = Status::Block;
            return;
        }
        entry.status = Status::Wait;
        note_waiting(&mut self.waiting_from, &self.entries, slot);
    }

    /// Lets a delay absorb, or be replaced by, the next newer ones of its path as if they arrived
    /// now.
    pub(super) fn fold_newer(&mut self, slot: Slot) {
        while let Some((newer, etype)) = self.foldable(slot) {
            self.entries[slot].etype = etype;
            while let Some(blocked) = self.entries[newer].first_blocked {
                self.entries.unblock(blocked);
                self.entries.block_on(blocked, slot);
            }
            self.remove(newer);
        }
    }

    /// Returns the next newer delay of the path if it can be folded in, and the resulting kind.
    fn foldable(&self, slot: Slot) -> Option<(Slot, Etype)> {
        let entry = &self.entries[slot];
        let newer = entry.ends[0].newer?;
        let other = &self.entries[newer];
        let next = self.policy == Policy::Coalesce || other.blocker == Some(slot);
        if !next || other.status == Status::Active {
            return None;
        }
        let older = (entry.etype, entry.status);
        let newest = (other.etype, self.is_dir(slot));
        match combine(self.policy, older, newest, Relation::Same) {
            Combination::Absorb => Some((newer, entry.etype)),
            Combination::Replace => Some((newer, other.etype)),
            _ => None,
        }
    }

    fn is_dir(&self, slot: Slot) -> bool {
        let node = self.entries[slot].ends[0].node;
        node.is_some_and(|node| self.index.is_dir(node))
    }
}

/// Maintains the invariant of [`Queue::waiting_from`] when `slot` begins to wait.
pub(super) fn note_waiting(waiting_from: &mut Option<Slot>, entries: &DelayTable, slot: Slot) {
    let serial = entries[slot].serial;
    if waiting_from.is_none_or(|first| serial < entries[first].serial) {
        *waiting_from = Some(slot);
    }
}

/// A set of slots.
struct Marks(Vec<u64>);

impl Marks {
    fn new(places: usize) -> Self {
        Marks(vec![0; places.div_ceil(64)])
    }

    fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] >> (slot.index() % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pending = Vec<(Etype, &'static [u8])>;

    /// Returns what is queued after a Move and, with `is_compared`, an Init behind it. With `fails`
    /// the Move is running meanwhile and fails.
    fn pending(policy: Policy, is_compared: bool, fails: bool) -> Vec<(Etype, Vec<u8>)> {
        let mut queue = Queue::new(policy);
        queue.push(Etype::Move, b"/a", Some(b"/b"), 0);
        let ids = queue.take(|_| Take::Take);
        if fails {
            queue.activate(&ids);
        }
        if is_compared {
            queue.push(Etype::Init, b"", None, 0);
        }
        assert_eq!(queue.retry(ids[0], 0), fails);
        let delays = queue.iter();
        delays
            .map(|delay| (delay.etype(), delay.paths().0))
            .collect()
    }

    /// The Init makes the target like the source. A Move behind it would put a file that was
    /// created at the old name since in place of the one that was moved.
    #[test]
    fn a_move_is_not_carried_out_behind_a_comparison() {
        use Etype::{Create, Delete, Init, Move};
        for fails in [false, true] {
            let split: Pending = if fails {
                vec![(Delete, b"/a"), (Init, b""), (Create, b"/b")]
            } else {
                vec![(Delete, b"/a"), (Create, b"/b"), (Init, b"")]
            };
            for (policy, is_compared, expected) in [
                (Policy::Coalesce, true, split),
                (Policy::Coalesce, false, vec![(Move, &b"/a"[..])]),
                (Policy::PerEvent, true, vec![(Move, b"/a"), (Init, b"")]),
            ] {
                let found = pending(policy, is_compared, fails);
                let expected = expected.iter();
                let expected = expected.map(|(etype, path)| (*etype, path.to_vec()));
                let expected: Vec<_> = expected.collect();
                assert_eq!(found, expected, "{policy:?} {fails}");
            }
        }
    }
}
