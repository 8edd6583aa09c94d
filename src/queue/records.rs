//! The records of a queue and the two lists they form: the order of the queue, and for each delay
//! the delays it blocks.

use std::ops::{Index, IndexMut};

use super::delay::{DelayId, Etype, Status, Time};
use super::path_index::NodeId;
use super::slab::{Slab, SlabKey};

/// The key of a delay's record.
pub(super) type Slot = SlabKey<Record>;

/// `first_due` is stored in units of 2^20 microseconds: 4 bytes last for 142 years.
const FIRST_DUE_SHIFT: u32 = 20;

/// One path of a delay and its neighbours among the delays of exactly that path.
#[derive(Clone, Copy, Default)]
pub(super) struct PathEnd {
    pub(super) node: Option<NodeId>,
    pub(super) newer: Option<Slot>,
    pub(super) older: Option<Slot>,
}

/// The record of a delay: 72 bytes, as there may be millions.
pub(super) struct Record {
    /// Order of arrival from 1; 0 marks an unused record.
    pub(super) serial: u64,
    pub(super) due: Time,
    /// The path, and the destination of a Move.
    pub(super) ends: [PathEnd; 2],
    before: Option<Slot>,
    pub(super) after: Option<Slot>,
    /// The delay this one waits for, always older than itself.
    pub(super) blocker: Option<Slot>,
    pub(super) first_blocked: Option<Slot>,
    /// Neighbours in the list of delays that the blocker blocks.
    next_blocked: Option<Slot>,
    previous_blocked: Option<Slot>,
    first_due: u32,
    pub(super) etype: Etype,
    pub(super) status: Status,
}

impl Record {
    pub(super) fn first_due(&self) -> Time {
        Time::from(self.first_due) << FIRST_DUE_SHIFT
    }

    /// Returns the newest among the older delays of the same path or paths.
    pub(super) fn older(&self) -> impl Iterator<Item = Slot> {
        self.ends.iter().filter_map(|end| end.older)
    }
}

impl Default for Record {
    fn default() -> Self {
        Record {
            serial: 0,
            due: 0,
            ends: [PathEnd::default(); 2],
            before: None,
            after: None,
            blocker: None,
            first_blocked: None,
            next_blocked: None,
            previous_blocked: None,
            first_due: 0,
            etype: Etype::Full,
            status: Status::Wait,
        }
    }
}

/// All delays of a queue.
pub(super) struct DelayTable {
    slab: Slab<Record>,
    first: Option<Slot>,
    last: Option<Slot>,
    serial: u64,
    len: usize,
}

impl DelayTable {
    pub(super) fn new() -> Self {
        DelayTable {
            slab: Slab::new(),
            first: None,
            last: None,
            serial: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn last_serial(&self) -> u64 {
        self.serial
    }

    pub(super) fn room(&self) -> usize {
        self.slab.room()
    }

    /// Returns the number of records, unused ones included.
    pub(super) fn slots(&self) -> usize {
        self.slab.slots()
    }

    pub(super) fn first(&self) -> Option<Slot> {
        self.first
    }

    pub(super) fn id(&self, slot: Slot) -> DelayId {
        DelayId {
            slot,
            serial: self.slab[slot].serial,
        }
    }

    /// Returns the slot of a delay, or `None` if it has left the queue.
    pub(super) fn find(&self, id: DelayId) -> Option<Slot> {
        let entry = self.slab.get(id.slot)?;
        (entry.serial == id.serial).then_some(id.slot)
    }

    /// Appends a new waiting record without paths and returns its slot.
    pub(super) fn append(&mut self, etype: Etype, due: Time) -> Slot {
        self.serial += 1;
        let slot = self.slab.insert(Record {
            serial: self.serial,
            due,
            before: self.last,
            first_due: u32::try_from(due >> FIRST_DUE_SHIFT).unwrap_or(u32::MAX),
            etype,
            ..Record::default()
        });
        match self.last {
            Some(last) => self.slab[last].after = Some(slot),
            None => self.first = Some(slot),
        }
        self.last = Some(slot);
        self.len += 1;
        slot
    }

    /// Removes the record. It must have no paths, block nothing and be blocked by nothing.
    pub(super) fn remove(&mut self, slot: Slot) {
        let entry = self.slab.remove(slot);
        match entry.before {
            Some(before) => self.slab[before].after = entry.after,
            None => self.first = entry.after,
        }
        match entry.after {
            Some(after) => self.slab[after].before = entry.before,
            None => self.last = entry.before,
        }
        self.len -= 1;
    }

    /// Makes `slot` wait for `blocker`. It must have no blocker yet.
    pub(super) fn block_on(&mut self, slot: Slot, blocker: Slot) {
        let next = self.slab[blocker].first_blocked.replace(slot);
        let entry = &mut self.slab[slot];
        entry.blocker = Some(blocker);
        entry.next_blocked = next;
        if let Some(next) = next {
            self.slab[next].previous_blocked = Some(slot);
        }
    }

    /// Removes `slot` from the list of its blocker, if it has one.
    pub(super) fn unblock(&mut self, slot: Slot) {
        let entry = &mut self.slab[slot];
        let Some(blocker) = entry.blocker.take() else {
            return;
        };
        let next = entry.next_blocked.take();
        let previous = entry.previous_blocked.take();
        match previous {
            Some(previous) => self.slab[previous].next_blocked = next,
            None => self.slab[blocker].first_blocked = next,
        }
        if let Some(next) = next {
            self.slab[next].previous_blocked = previous;
        }
    }

    /// Removes the records of an empty queue. Serial numbers continue, so that old ids stay stale.
    pub(super) fn reset(&mut self, keep: usize) {
        self.slab.reset(keep);
    }
}

impl Index<Slot> for DelayTable {
    type Output = Record;

    fn index(&self, slot: Slot) -> &Record {
        &self.slab[slot]
    }
}

impl IndexMut<Slot> for DelayTable {
    fn index_mut(&mut self, slot: Slot) -> &mut Record {
        &mut self.slab[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 80 - 8);
    }
}
