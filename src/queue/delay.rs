//! What a delay is: lsyncd's word for an event that waits to be acted upon.

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
    /// Renamed inside the source; has two paths.
    Move,
    /// The startup of a sync; everything that comes later waits for it.
    Init,
    /// Something user code asked for; everything that comes later waits for it.
    Blanket,
    /// A full synchronisation user code asked for; stands apart from all others.
    Full,
}

impl Etype {
    /// As user code, log and status file know it.
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

    /// Not about a path of the source: never searched for what it relates to.
    pub fn is_special(self) -> bool {
        matches!(self, Etype::Init | Etype::Blanket | Etype::Full)
    }
}

/// How far a delay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Runs as soon as it is due.
    Wait,
    /// Being acted upon.
    Active,
    /// Waits for an older delay to leave the queue.
    Block,
}

impl Status {
    /// As user code and the status file know it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Wait => "wait",
            Status::Active => "active",
            Status::Block => "block",
        }
    }
}

/// How events of one path combine; it depends on who acts upon them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The built-in behaviours. Only the final state of a path matters, `lstat` at the
    /// time of sending decides, so a path has at most one delay that is not active.
    Coalesce,
    /// User code. Each kind of event is delivered: another kind on the same path waits
    /// behind the earlier one, an equal one that still waits absorbs the newer.
    PerEvent,
}

/// Names one delay of one queue. It stays valid while the delay's kind changes in place
/// and becomes stale, for good, when the delay leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DelayId {
    pub(super) slot: Slot,
    pub(super) serial: u64,
}

impl DelayId {
    /// Grows with the order of arrival, never used twice by one queue.
    pub fn serial(self) -> u64 {
        self.serial
    }
}

/// A look at one delay of a queue.
#[derive(Clone, Copy)]
pub struct Delay<'a> {
    pub(super) queue: &'a Queue,
    pub(super) slot: Slot,
}

impl Delay<'_> {
    /// Names it.
    pub fn id(&self) -> DelayId {
        self.queue.entries.id(self.slot)
    }

    /// What happened.
    pub fn etype(&self) -> Etype {
        self.queue.entries[self.slot].etype
    }

    /// How far it has come.
    pub fn status(&self) -> Status {
        self.queue.entries[self.slot].status
    }

    /// When it may run.
    pub fn due(&self) -> Time {
        self.queue.entries[self.slot].due
    }

    /// When it might have run first, before any retry. In steps of about one second,
    /// never later than the truth: it tells the age of what is pending.
    pub fn first_due(&self) -> Time {
        self.queue.entries[self.slot].first_due()
    }

    /// The delay it waits for. An active one may have it too: both run in one batch.
    pub fn blocker(&self) -> Option<DelayId> {
        let blocker = self.queue.entries[self.slot].blocker?;
        Some(self.queue.entries.id(blocker))
    }

    /// Writes the path over what `into` held: `/file`, `/directory/`, and nothing for
    /// Init and Blanket.
    pub fn path(&self, into: &mut Vec<u8>) {
        self.end(0, into);
    }

    /// Writes a Move's destination over what `into` held. False, and nothing written
    /// but an empty path, if it is no Move.
    pub fn path2(&self, into: &mut Vec<u8>) -> bool {
        self.end(1, into)
    }

    /// Path and, of a Move, destination as vectors of their own.
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
