//! The nodes of a queue: the record of a delay and the node of a path. They refer to each other by
//! their keys.

use super::etype::{Etype, Status, Time};
use super::slab::SlabKey;

/// The key of a delay's record.
pub(super) type Slot = SlabKey<Record>;

/// `first_due` is stored in units of 2^20 microseconds: 4 bytes last for 142 years.
pub(super) const FIRST_DUE_SHIFT: u32 = 20;

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
    pub(super) before: Option<Slot>,
    pub(super) after: Option<Slot>,
    /// The delay this one waits for, always older than itself.
    pub(super) blocker: Option<Slot>,
    pub(super) first_blocked: Option<Slot>,
    /// Neighbours in the list of delays that the blocker blocks.
    pub(super) next_blocked: Option<Slot>,
    pub(super) previous_blocked: Option<Slot>,
    pub(super) first_due: u32,
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

/// The key of a node.
pub(super) type NodeId = SlabKey<PathNode>;

/// One path: 40 bytes and its last component.
#[derive(Default)]
pub(super) struct PathNode {
    pub(super) parent: Option<NodeId>,
    pub(super) name_at: u32,
    pub(super) name_len: u32,
    /// The newest delay of exactly this path.
    pub(super) own: Option<Slot>,
    /// The top of the heap of children.
    pub(super) children: Option<NodeId>,
    pub(super) links: HeapLinks,
    /// Serial of the newest delay here or below, 0 for none.
    pub(super) newest: u64,
}

/// The links of a node to its siblings. `previous` is the heap parent for the first of its
/// children, else the sibling before; the top of the heap has none.
#[derive(Clone, Copy, Default)]
pub(super) struct HeapLinks {
    pub(super) child: Option<NodeId>,
    pub(super) next: Option<NodeId>,
    pub(super) previous: Option<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 80 - 8);
    }
}
