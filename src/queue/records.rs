//! The records of a queue and the two lists they form: the order of the queue, and for each delay
//! the delays it blocks.

use std::ops::{Index, IndexMut};

use super::etype::{Etype, Time};
use super::nodes::{FIRST_DUE_SHIFT, Record, Slot};
use super::slab::Slab;

/// The key of one delay in one queue. It stays valid while the delay changes its kind in place and
/// becomes stale for good when the delay leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DelayId {
    pub(super) slot: Slot,
    pub(super) serial: u64,
}

impl DelayId {
    /// Returns the serial number. It grows in the order of arrival, and a queue never uses one
    /// twice.
    pub fn serial(self) -> u64 {
        self.serial
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
