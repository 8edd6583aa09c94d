//! The delay: lsyncd's term for an event in the queue.

use super::Queue;
use super::etype::{Etype, Status, Time};
use super::nodes::Slot;
use super::records::DelayId;

/// A read-only view of one delay of a queue.
#[derive(Clone, Copy)]
pub struct Delay<'a> {
    pub(super) queue: &'a Queue,
    pub(super) slot: Slot,
}

impl Delay<'_> {
    /// Returns the key of the delay.
    pub fn id(&self) -> DelayId {
        self.queue.entries.id(self.slot)
    }

    /// Returns the kind of the event.
    pub fn etype(&self) -> Etype {
        self.queue.entries[self.slot].etype
    }

    /// Returns the state of the delay.
    pub fn status(&self) -> Status {
        self.queue.entries[self.slot].status
    }

    /// Returns the time from which the delay may run.
    pub fn due(&self) -> Time {
        self.queue.entries[self.slot].due
    }

    /// Returns the time from which the delay could first run, before any retry. The value is
    /// rounded down to steps of about one second; it tells the age of pending work.
    pub fn first_due(&self) -> Time {
        self.queue.entries[self.slot].first_due()
    }

    /// Returns the delay this one waits for. An active delay can have a blocker too: both run in
    /// one batch.
    pub fn blocker(&self) -> Option<DelayId> {
        let blocker = self.queue.entries[self.slot].blocker?;
        Some(self.queue.entries.id(blocker))
    }

    /// Replaces the contents of `into` by the path: `/file`, `/directory/`, or nothing for Init and
    /// Blanket.
    pub fn path(&self, into: &mut Vec<u8>) {
        self.end(0, into);
    }

    /// Replaces the contents of `into` by a Move's destination. Returns false and leaves `into`
    /// empty if the delay is no Move.
    pub fn path2(&self, into: &mut Vec<u8>) -> bool {
        self.end(1, into)
    }

    /// Returns the path and, for a Move, the destination.
    pub fn paths(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        self.path(&mut from);
        let moved = self.path2(&mut to);
        (from, moved.then_some(to))
    }

    fn end(&self, end: usize, into: &mut Vec<u8>) -> bool {
        into.clear();
        let Some(node) = self.queue.entries[self.slot].ends[end].node else {
            return false;
        };
        self.queue.index.path(node, into);
        true
    }
}
