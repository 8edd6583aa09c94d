//! The delay: lsyncd's word for an event that waits to be acted upon.

use std::time::Duration;

use super::Queue;
use super::records::Slot;

/// Microseconds of a monotonic clock.
pub type Time = u64;

/// Returns a time span in the unit of [`Time`]. Spans of centuries become one that never ends.
pub fn micros(span: Duration) -> Time {
    Time::try_from(span.as_micros()).unwrap_or(Time::MAX / 4)
}

/// What happened, in lsyncd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Etype {
    /// A file, directory or link appeared, or was moved in.
    Create,
    /// The content of a file changed.
    Modify,
    /// Owner, mode or times changed.
    Attrib,
    /// Deleted, or moved out.
    Delete,
    /// Renamed inside the source; the event has two paths.
    Move,
    /// The startup of a sync. All later events wait for it.
    Init,
    /// A blanket event that user code created. All later events wait for it.
    Blanket,
    /// A full sync that user code asked for. It is related to no other delay.
    Full,
}

impl Etype {
    /// Returns the name used by user code, the log and the status file.
    pub fn name(self) -> &'static str {
        match self {
            Etype::Create => "Create",
            Etype::Modify => "Modify",
            Etype::Attrib => "Attrib",
            Etype::Delete => "Delete",
            Etype::Move => "Move",
            Etype::Init => "Init",
            Etype::Blanket => "Blanket",
            Etype::Full => "Full",
        }
    }

    /// Returns true for events that are not about a path of the source. They are never searched for
    /// related delays.
    pub fn is_special(self) -> bool {
        matches!(self, Etype::Init | Etype::Blanket | Etype::Full)
    }
}

/// The state of a delay in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Runs as soon as it is due.
    Wait,
    /// Is being acted upon.
    Active,
    /// Waits for an older delay to leave the queue.
    Block,
}

impl Status {
    /// Returns the name used by user code and the status file.
    pub fn name(self) -> &'static str {
        match self {
            Status::Wait => "wait",
            Status::Active => "active",
            Status::Block => "block",
        }
    }
}

/// The rule by which events of one path combine. It depends on who acts upon them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The built-in behaviours. Only the final state of a path matters, `lstat` at the
    /// time of sending decides, so a path has at most one delay that is not active.
    Coalesce,
    /// User code. Each kind of event is delivered: another kind on the same path waits behind the
    /// earlier one, and an equal one is absorbed by the earlier one while that still waits.
    PerEvent,
}

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
