//! The vocabulary of a queue: time, kinds of event, states and combination rules.

use std::time::Duration;

/// Microseconds of a monotonic clock.
pub type Time = u64;

/// Returns a time span in the unit of [`Time`]. Spans of centuries become one that never ends.
pub fn micros(span: Duration) -> Time {
    Time::try_from(span.as_micros()).unwrap_or(Time::MAX / 4)
}

/// The type of an event, with lsyncd's names.
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
    /// A full sync that user code has requested. It is not related to other delays.
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

/// The rule by which events of one path combine, for built-in kinds and for user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The built-in behaviours. Only the final state of a path matters, `lstat` at the
    /// time of sending decides, so a path has at most one delay that is not active.
    Coalesce,
    /// User code. Each kind of event is delivered: another kind on the same path waits behind the
    /// earlier one, and an equal one is absorbed by the earlier one while that still waits.
    PerEvent,
}
