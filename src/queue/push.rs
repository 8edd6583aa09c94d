//! Adds new events to the queue.

use super::combine::{Combination, Relation, combine};
use super::etype::{Etype, Policy, Status, Time};
use super::nodes::{NodeId, PathEnd, Slot};
use super::path_index::{FULL_TOP, TOP, components};
use super::records::DelayId;
use super::{Queue, ready};
use crate::paths;

/// The result of [`Queue::push`]: everything the Delay lines of the log contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The event gave one result.
    Placed(Placed),
    /// The Move was related to the delay `on`, whose kind was `was`, and has been queued as a
    /// Delete of its origin and a Create of its destination. For directories the contents of the
    /// destination have to be pushed too: the Create does not cover them.
    Split {
        /// The delay that decided; its kind may have changed since.
        on: DelayId,
        /// The former kind of that delay.
        was: Etype,
        /// The result of the Delete.
        delete: Placed,
        /// The result of the Create.
        create: Placed,
    },
}

/// The result of an event that is not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Appended to the queue, waiting.
    Appended {
        /// The new delay.
        id: DelayId,
    },
    /// Appended to the queue, blocked.
    Blocked {
        /// The new delay.
        id: DelayId,
        /// The delay that blocks it.
        on: DelayId,
    },
    /// Dropped, because an older delay covers it.
    Absorbed {
        /// The older delay.
        by: DelayId,
    },
    /// Stored in an older delay of the same path, under its id.
    Replaced {
        /// The id of the delay, unchanged.
        id: DelayId,
        /// The former kind of the delay.
        was: Etype,
    },
    /// Appended to the queue, blocked by a Move that became a Delete of its origin (or a Create, if
    /// something was created there since). The Move's destination was the path of the new delay.
    Turned {
        /// The new delay.
        id: DelayId,
        /// The former Move.
        on: DelayId,
    },
    /// Not queued: 2³² delays or 4 GiB of names are pending. The caller must assume that any path
    /// may have changed.
    Refused,
}

/// The older delay that decides about a new event.
struct RelatedDelay {
    slot: Slot,
    relation: Relation,
}

/// The result of a search in the trie: the path ends at `node` after `known` bytes; and the newest
/// related delay.
struct PathLookup {
    node: NodeId,
    known: usize,
    found: Option<RelatedDelay>,
}

impl Queue {
    /// Queues an event. `path` is relative to the source (`/file`, `/directory/`), `path2` is the
    /// destination of a Move. The event may run from `due` on; a delay that absorbs it or is
    /// replaced by it keeps its own time, so that a path that changes all the time is not delayed
    /// for ever.
    ///
    /// Init, Blanket and Full are appended without a search. Under Coalesce pending Moves become a
    /// Delete and a Create before an Init or Blanket. The path of these two is always empty.
    pub fn push(&mut self, etype: Etype, path: &[u8], path2: Option<&[u8]>, due: Time) -> Pushed {
        let bytes = path.len() + path2.map_or(0, <[u8]>::len) + 1;
        // Each pending Move may still become two delays.
        let room = self.entries.room() >= 2 + self.moves && self.index.has_room(bytes);
        if !room || self.len() >= self.limit {
            return Pushed::Placed(Placed::Refused);
        }
        let path = if etype.is_special() || !path.is_empty() {
            path
        } else {
            b"/"
        };
        Pushed::Placed(match (etype, path2) {
            (Etype::Init | Etype::Blanket, _) => {
                self.split_pending_moves(due);
                self.append(etype, TOP, None, due, None)
            }
            (Etype::Full, _) => {
                let node = self.index.insert(FULL_TOP, path);
                self.append(etype, node, None, due, None)
            }
            (Etype::Move, Some(to)) if to != path => return self.push_move(path, to, due),
            // A Move to its own path changes at most attributes and contents.
            (Etype::Move, _) => self.push_plain(Etype::Modify, path, due),
            _ => self.push_plain(etype, path, due),
        })
    }

    /// Queues a Create, Modify, Attrib or Delete.
    fn push_plain(&mut self, etype: Etype, path: &[u8], due: Time) -> Placed {
        let look = self.lookup(etype, path);
        let etype = if look.known == path.len() && self.is_renewal(etype, path, look.node) {
            Etype::Delete
        } else {
            etype
        };
        let open = match self.policy {
            Policy::Coalesce if look.known == path.len() => self.open_delay(look.node),
            _ => None,
        };
        let found = match open {
            Some(slot) => Some(RelatedDelay {
                slot,
                relation: Relation::Same,
            }),
            None => self.newest([look.found, self.special()]),
        };
        let verdict = self.verdict(etype, path, found.as_ref());
        let on = match (verdict, found) {
            (Combination::Absorb, Some(found)) => {
                return Placed::Absorbed {
                    by: self.entries.id(found.slot),
                };
            }
            (Combination::Replace, Some(found)) => {
                return Placed::Replaced {
                    id: self.entries.id(found.slot),
                    was: std::mem::replace(&mut self.entries[found.slot].etype, etype),
                };
            }
            (Combination::Unrelated, _) => None,
            (_, found) => found.map(|found| found.slot),
        };
        let node = self.index.insert(look.node, &path[look.known..]);
        let placed = self.append(etype, node, None, due, on);
        match (verdict, placed, on) {
            (Combination::ToDelete, Placed::Blocked { id, on }, Some(older)) => {
                // Detached only after the new delay keeps the destination's node alive.
                self.detach(older, 1);
                self.entries[older].etype = Etype::Delete;
                self.fold_newer(older);
                Placed::Turned { id, on }
            }
            _ => placed,
        }
    }

    /// Returns true if a directory was created while one of that path is being deleted. The
    /// deletion was planned before and runs after this event: it may find the new directory and
    /// leave the contents of the old one in it on the target. So the event becomes the Delete of a
    /// directory that exists, as one that waits would.
    fn is_renewal(&self, newer: Etype, path: &[u8], node: NodeId) -> bool {
        let made = newer == Etype::Create && path.ends_with(b"/");
        made && self.policy == Policy::Coalesce
            && self.delays_at(node).any(|slot| {
                let older = &self.entries[slot];
                older.etype == Etype::Delete && older.status == Status::Active
            })
    }

    /// Queues a Move. Unlike other events it is carried out without another `lstat`, so under
    /// Coalesce it is kept only if nothing pending is related to it: no later event can then be
    /// absorbed by a delay before the Move, and no Init can repeat its work.
    fn push_move(&mut self, from: &[u8], to: &[u8], due: Time) -> Pushed {
        let related = self.newest([from, to].map(|path| self.lookup(Etype::Move, path).found));
        let found = self.newest([related, self.special()]);
        let on = found.as_ref().map(|found| found.slot);
        if let (Combination::Split, Some(on)) = (self.verdict(Etype::Move, to, found.as_ref()), on)
        {
            return self.split(on, from, to, due);
        }
        let node = self.index.insert(TOP, from);
        let node2 = self.index.insert(TOP, to);
        Pushed::Placed(self.append(Etype::Move, node, Some(node2), due, on))
    }

    /// Splits all pending Moves. Under Coalesce an Init may run before older delays, but no Move
    /// may run after it.
    fn split_pending_moves(&mut self, due: Time) {
        if self.policy != Policy::Coalesce {
            return;
        }
        let mut next = self.entries.first();
        while let Some(slot) = next
            && self.moves > 0
        {
            let entry = &self.entries[slot];
            if entry.etype == Etype::Move && entry.status != Status::Active {
                self.split_pending_move(slot, due);
            }
            next = self.entries[slot].after;
        }
    }

    /// Turns a Move into a Delete of its origin and queues the Create of its destination.
    pub(super) fn split_pending_move(&mut self, slot: Slot, due: Time) {
        let mut to = Vec::new();
        self.delay(slot).path2(&mut to);
        self.detach(slot, 1);
        self.entries[slot].etype = Etype::Delete;
        self.fold_newer(slot);
        self.push_plain(Etype::Create, &to, due);
    }

    fn split(&mut self, on: Slot, from: &[u8], to: &[u8], due: Time) -> Pushed {
        let (on, was) = (self.entries.id(on), self.entries[on].etype);
        Pushed::Split {
            on,
            was,
            delete: self.push_plain(Etype::Delete, from, due),
            create: self.push_plain(Etype::Create, to, due),
        }
    }

    fn verdict(&self, newer: Etype, path: &[u8], found: Option<&RelatedDelay>) -> Combination {
        let Some(found) = found else {
            return Combination::Unrelated;
        };
        let older = &self.entries[found.slot];
        let dir = path.ends_with(b"/");
        combine(
            self.policy,
            (older.etype, older.status),
            (newer, dir),
            found.relation,
        )
    }

    /// Returns the newest delay related to `path`; Init and Blanket are ignored.
    fn lookup(&self, newer: Etype, path: &[u8]) -> PathLookup {
        let mut look = PathLookup {
            node: TOP,
            known: 0,
            found: None,
        };
        for name in components(path) {
            if look.node != TOP {
                self.consider(&mut look.found, look.node, |_| Relation::Within);
            }
            if look.known + name.len() == path.len() {
                self.consider_namesake(&mut look, newer, name);
            }
            match self.index.child(look.node, name) {
                Some(child) => look.node = child,
                None => return look,
            }
            look.known += name.len();
        }
        self.consider(&mut look.found, look.node, |end| match end {
            0 => Relation::Same,
            _ => Relation::Destination,
        });
        self.consider_below(&mut look);
        look
    }

    /// Considers a file and a directory of the same name. The effect of `mv` depends on which of
    /// the two exists, so under Coalesce, where order does not matter otherwise, Moves are kept in
    /// order with such names.
    fn consider_namesake(&self, look: &mut PathLookup, newer: Etype, name: &[u8]) {
        let moves = newer == Etype::Move || self.moves > 0;
        if self.policy != Policy::Coalesce || !moves {
            return;
        }
        let namesake = match name.strip_suffix(b"/") {
            Some(file) => self.index.child(look.node, file),
            None => self.index.child(look.node, &paths::with_slash(name)),
        };
        let Some(node) = namesake else { return };
        let related =
            |slot: &Slot| newer == Etype::Move || self.entries[*slot].etype == Etype::Move;
        if let Some(slot) = self.delays_at(node).find(related)
            && self.serial(&look.found) < self.entries[slot].serial
        {
            let relation = Relation::Namesake;
            look.found = Some(RelatedDelay { slot, relation });
        }
    }

    /// Returns the newest Init or Blanket, to which every event is related.
    fn special(&self) -> Option<RelatedDelay> {
        let slot = self.index.nodes[TOP].own?;
        let relation = Relation::Within;
        Some(RelatedDelay { slot, relation })
    }

    fn newest(&self, found: [Option<RelatedDelay>; 2]) -> Option<RelatedDelay> {
        found
            .into_iter()
            .flatten()
            .max_by_key(|found| self.entries[found.slot].serial)
    }

    /// Stores the newest delay at `node` in `found` unless the one there is newer.
    fn consider(
        &self,
        found: &mut Option<RelatedDelay>,
        node: NodeId,
        relation: impl Fn(usize) -> Relation,
    ) {
        let Some(slot) = self.index.nodes[node].own else {
            return;
        };
        if self.serial(found) <= self.entries[slot].serial {
            let relation = relation(self.end_at(slot, node));
            *found = Some(RelatedDelay { slot, relation });
        }
    }

    fn consider_below(&self, look: &mut PathLookup) {
        let Some(kid) = self.index.nodes[look.node].children else {
            return;
        };
        if self.serial(&look.found) >= self.index.nodes[kid].newest {
            return;
        }
        if let Some(slot) = self.index.newest_below(look.node, &self.entries) {
            let relation = Relation::Around;
            look.found = Some(RelatedDelay { slot, relation });
        }
    }

    fn serial(&self, found: &Option<RelatedDelay>) -> u64 {
        found
            .as_ref()
            .map_or(0, |found| self.entries[found.slot].serial)
    }

    /// Returns the delay of this path that is neither active nor a Move. Under Coalesce a path has
    /// at most one active delay, one Move and one of these, so the search is short.
    pub(super) fn open_delay(&self, node: NodeId) -> Option<Slot> {
        self.delays_at(node).find(|slot| {
            let entry = &self.entries[*slot];
            entry.status != Status::Active && entry.etype != Etype::Move
        })
    }

    /// Returns the delays of exactly this path, newest first.
    fn delays_at(&self, node: NodeId) -> impl Iterator<Item = Slot> {
        let older = move |slot: &Slot| self.entries[*slot].ends[self.end_at(*slot, node)].older;
        std::iter::successors(self.index.nodes[node].own, older)
    }

    fn append(
        &mut self,
        etype: Etype,
        node: NodeId,
        node2: Option<NodeId>,
        due: Time,
        on: Option<Slot>,
    ) -> Placed {
        let slot = self.entries.append(etype, due);
        self.attach(slot, 0, node);
        if let Some(node2) = node2 {
            self.attach(slot, 1, node2);
            self.moves += 1;
        }
        let id = self.entries.id(slot);
        if etype.is_special() {
            self.specials.retain(|id| self.entries.find(*id).is_some());
            self.specials.push(id);
        }
        let Some(on) = on else {
            ready::note_waiting(&mut self.waiting_from, &self.entries, slot);
            return Placed::Appended { id };
        };
        self.entries.block_on(slot, on);
        self.entries[slot].status = Status::Block;
        let on = self.entries.id(on);
        Placed::Blocked { id, on }
    }

    /// Makes `node` the path (`end` 0) or destination (1) of the newest delay.
    fn attach(&mut self, slot: Slot, end: usize, node: NodeId) {
        let older = self.index.nodes[node].own.replace(slot);
        self.entries[slot].ends[end] = PathEnd {
            node: Some(node),
            newer: None,
            older,
        };
        if let Some(older) = older {
            let end = self.end_at(older, node);
            self.entries[older].ends[end].newer = Some(slot);
        }
        self.index.raise(node, self.entries[slot].serial);
    }

    /// Removes the path or destination of a delay, if it has one.
    pub(super) fn detach(&mut self, slot: Slot, end: usize) {
        let PathEnd { node, newer, older } = std::mem::take(&mut self.entries[slot].ends[end]);
        let Some(node) = node else { return };
        self.moves -= end;
        if let Some(older) = older {
            let end = self.end_at(older, node);
            self.entries[older].ends[end].newer = newer;
        }
        if let Some(newer) = newer {
            let end = self.end_at(newer, node);
            self.entries[newer].ends[end].older = older;
            return;
        }
        self.index.nodes[node].own = older;
        self.index.lower(node, &self.entries);
    }

    /// Returns which end of this delay lies at `node`.
    fn end_at(&self, slot: Slot, node: NodeId) -> usize {
        usize::from(self.entries[slot].ends[0].node != Some(node))
    }
}
