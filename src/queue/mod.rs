//! The queue of one sync: events that have not been processed.
//!
//! lsyncd compares every new event with every pending one, so a burst of n events costs n². Here
//! the cost of an event is proportional to the depth of its path, independent of the length of the
//! queue.
//!
//! * [`etype`]: time, kinds of event, states and policies;
//! * [`delay`]: the view of one delay, and the paths of several;
//! * [`combine`]: how a new event and an older delay combine, a pure function;
//! * `push`: finds the deciding older delay and applies the combination;
//! * `path_index`: the trie of all paths;
//! * `heap`: the children of a trie node, ordered by their newest delay;
//! * `ready`: due delays, batches, and the removal of delays;
//! * [`journal`]: the pending changes of several targets of one source, each path once;
//! * `nodes`, `records`, `slab`: the records of delays and paths, and the lists of delays;
//! * `model`, `model_test`, `journal_model`: tests against naive models.
//!
//! The room is pure: it calls no other room, reads no file and no clock.
//!
//! The deciding delay is the newest related one; related are delays of the same path, of a
//! directory that contains it, and, if the event is about a directory, of anything inside. Under
//! [`Policy::Coalesce`] a delay of the same path that is not active decides before any other, so a
//! path has at most one such delay however often it changes while a target is unreachable. This is
//! sound because the result of `lstat` decides what is sent; only a Move is carried out without it,
//! so a Move that is related to anything pending is split.
//!
//! A delay has at most one blocker, the one that decided. When that leaves, an older delay of the
//! same path that is still queued becomes the blocker; so two actions never run at the same time
//! for one path, except together in one batch.

pub mod combine;
pub mod delay;
pub mod etype;
mod heap;
pub mod journal;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_test;
mod nodes;
mod path_index;
mod push;
mod ready;
mod records;
mod slab;

pub use combine::{Combination, Relation};
pub use delay::{Delay, PathReader};
pub use etype::{Etype, Policy, Status, Time, micros};
pub use push::{Placed, Pushed};
pub use ready::{Ready, Take};
pub use records::DelayId;

use nodes::Slot;
use path_index::PathIndex;
use records::DelayTable;

/// The number of records for which an empty queue keeps memory, so that a sync with few events does
/// not allocate.
const MAX_KEPT_RECORDS: usize = 1024;

/// The pending events of one sync.
pub struct Queue {
    policy: Policy,
    entries: DelayTable,
    index: PathIndex,
    /// The first slot that can hold a waiting delay; `None` if none waits.
    waiting_from: Option<Slot>,
    /// Number of Moves.
    moves: usize,
    /// Init, Blanket and Full in queue order; stale ids are possible. They wait for no other delay,
    /// so they are searched even behind delays that are not due.
    specials: Vec<DelayId>,
    /// The maximum number of delays. Only tests set it below what 4-byte keys allow.
    limit: usize,
}

impl Queue {
    /// Returns an empty queue.
    pub fn new(policy: Policy) -> Self {
        Queue {
            policy,
            entries: DelayTable::new(),
            index: PathIndex::new(),
            waiting_from: None,
            moves: 0,
            specials: Vec::new(),
            limit: usize::MAX,
        }
    }

    /// Returns the policy by which events of one path combine.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the number of delays, active and blocked ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true if this delay is still queued.
    pub fn contains(&self, id: DelayId) -> bool {
        self.entries.find(id).is_some()
    }

    /// Returns true if this delay is queued, and neither active nor blocked.
    pub fn is_waiting(&self, id: DelayId) -> bool {
        self.get(id)
            .is_some_and(|delay| delay.status() == Status::Wait)
    }

    /// Returns the delay, or `None` if it has left the queue.
    pub fn get(&self, id: DelayId) -> Option<Delay<'_>> {
        let slot = self.entries.find(id)?;
        Some(self.delay(slot))
    }

    /// Returns the delay of exactly this path that is not active; Moves are ignored.
    pub fn open_at(&self, path: &[u8]) -> Option<DelayId> {
        let slot = self.open_delay(self.index.find(path)?)?;
        Some(self.entries.id(slot))
    }

    /// Removes a delay that is not active and unblocks its successors; no action is taken. Returns
    /// false if it has left the queue or is active.
    pub fn withdraw(&mut self, id: DelayId) -> bool {
        self.discard(id) || self.leave(id, Status::Block)
    }

    /// Returns all delays in queue order.
    pub fn iter(&self) -> impl Iterator<Item = Delay<'_>> {
        std::iter::successors(self.entries.first(), |slot| self.entries[*slot].after)
            .map(|slot| self.delay(slot))
    }

    /// Returns the delays of Init, Blanket and Full in queue order. There are few.
    pub fn specials(&self) -> impl Iterator<Item = Delay<'_>> {
        self.specials.iter().filter_map(|id| self.get(*id))
    }

    /// Returns the last serial number that was assigned. Later delays have larger ones.
    pub fn last_serial(&self) -> u64 {
        self.entries.last_serial()
    }

    /// Returns the delay that has been queued for longest.
    pub fn oldest(&self) -> Option<Delay<'_>> {
        self.iter().next()
    }

    fn delay(&self, slot: Slot) -> Delay<'_> {
        Delay { queue: self, slot }
    }

    /// Removes a delay and unblocks its successors.
    fn remove(&mut self, slot: Slot) {
        if self.waiting_from == Some(slot) {
            self.waiting_from = self.entries[slot].after;
        }
        self.entries.unblock(slot);
        self.detach(slot, 0);
        self.detach(slot, 1);
        while let Some(blocked) = self.entries[slot].first_blocked {
            self.entries.unblock(blocked);
            self.block_on_path(blocked);
            if self.entries[blocked].status == Status::Block {
                self.update_status(blocked);
            }
        }
        self.entries.remove(slot);
        if self.is_empty() {
            self.entries.reset(MAX_KEPT_RECORDS);
            self.index.reset(MAX_KEPT_RECORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_goes_on() {
        let mut queue = Queue::new(Policy::Coalesce);
        queue.limit = 2;
        for path in [b"/a", b"/b", b"/c"] {
            queue.push(Etype::Create, path, None, 0);
        }
        let refused = queue.push(Etype::Move, b"/d", Some(b"/e"), 0);
        assert_eq!(refused, Pushed::Placed(Placed::Refused));
        let ids = queue.take(|_| Take::Take);
        assert_eq!(ids.len(), 2);
        queue.activate(&ids);
        assert!(queue.finish(ids[0]));
        queue.push(Etype::Create, b"/c", None, 0);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn what_is_not_active_can_be_withdrawn() {
        let mut queue = Queue::new(Policy::Coalesce);
        queue.push(Etype::Create, b"/d/", None, 0);
        queue.push(Etype::Create, b"/d/f", None, 0);
        queue.push(Etype::Modify, b"/d/g", None, 0);
        assert_eq!(queue.open_at(b"/d"), None);
        let blocked = queue.open_at(b"/d/f").unwrap();
        assert_eq!(queue.get(blocked).unwrap().status(), Status::Block);
        assert!(queue.withdraw(blocked) && !queue.withdraw(blocked));
        assert_eq!(queue.open_at(b"/d/f"), None);
        let ids = queue.take(|_| Take::Take);
        assert_eq!(ids.len(), 2);
        queue.activate(&ids);
        assert_eq!(queue.open_at(b"/d/"), None);
        assert!(!queue.withdraw(ids[0]));
        assert!(ids.iter().all(|id| queue.finish(*id)));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_empty_queue_gives_its_memory_back() {
        let mut queue = Queue::new(Policy::Coalesce);
        for n in 0..10_000 {
            queue.push(Etype::Create, format!("/d/{n}").as_bytes(), None, 0);
        }
        assert!(queue.entries.slots() >= 10_000);
        let old = queue.take(|_| Take::Take);
        queue.activate(&old);
        old.iter().for_each(|id| assert!(queue.finish(*id)));
        assert_eq!((queue.entries.slots(), queue.index.len()), (0, 0));
        queue.push(Etype::Create, b"/d/0", None, 0);
        assert!(old.iter().all(|id| !queue.contains(*id)));
    }

    #[test]
    fn a_delay_waits_until_it_is_active_and_is_contained_until_it_ends() {
        let mut queue = Queue::new(Policy::Coalesce);
        queue.push(Etype::Modify, b"/a", None, 0);
        let id = queue.iter().next().unwrap().id();
        assert!(queue.contains(id) && queue.is_waiting(id));
        queue.activate(&[id]);
        assert!(queue.contains(id) && !queue.is_waiting(id));
        queue.finish(id);
        assert!(!queue.contains(id) && !queue.is_waiting(id));
    }

    /// Otherwise a delay of centuries is none.
    #[test]
    fn a_time_that_is_too_long_is_a_long_one() {
        let long = micros(std::time::Duration::MAX);
        assert!(long > micros(std::time::Duration::from_secs(1 << 32)));
        assert!(long.checked_add(long).is_some());
    }

    /// The names of delays that have left are removed while others stay.
    #[test]
    fn the_memory_of_names_does_not_grow_with_the_number_of_past_changes() {
        let mut queue = Queue::new(Policy::Coalesce);
        queue.push(Etype::Modify, b"/stays", None, 0);
        for number in 0..20_000 {
            let path = format!("/{number:0100}");
            queue.push(Etype::Modify, path.as_bytes(), None, 0);
            let id = queue.open_at(path.as_bytes()).unwrap();
            queue.activate(&[id]);
            queue.finish(id);
        }
        assert!(queue.index.name_bytes() < 400_000);
        assert!(queue.open_at(b"/stays").is_some());
    }
}
