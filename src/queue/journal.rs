//! What is pending for several targets of one source: each path once, however many targets
//! still lack it.
//!
//! A path has one entry, at the place of its newest change; each target has a position. What
//! lies behind the position is what the target lacks, and what all targets have passed leaves.
//! So the memory grows with the distinct pending paths, not with paths × targets. A target
//! that falls back further than its bound gives up its position: it owes a comparison of all.
//!
//! Only for [`Policy::Coalesce`] without Moves: the disk decides what is sent, so it does not
//! matter in how many steps a path came to be what it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;

use super::combine::{Combination, Relation, combine};
use super::delay::{Etype, Policy, Status, Time};

/// A place in the journal; later changes have larger ones.
pub type Position = u64;

/// One of the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetId(u32);

/// What a target may have now.
#[derive(Debug, PartialEq, Eq)]
pub enum Pull {
    /// These changes, oldest first, with the time at which each was due.
    Take(Vec<(Etype, Rc<[u8]>, Time)>),
    /// Nothing before then.
    At(Time),
    /// It has everything.
    Nothing,
}

#[derive(Debug)]
struct JournalEntry {
    path: Rc<[u8]>,
    due: Time,
    /// What the changes come to for a target that has had none of them.
    etype: Etype,
    /// The same for targets that have been at `before`, where the entry was then.
    fresh: Etype,
    before: Position,
}

#[derive(Debug)]
struct Target {
    position: Position,
    /// Number of entries behind the position.
    behind: usize,
    bound: usize,
    /// An entry moved on while it was due for this target.
    overdue: Option<Time>,
    gave_up: bool,
    /// Directories whose Delete it took and may be at work on.
    deleting: HashSet<Rc<[u8]>>,
}

/// The pending changes of one source.
#[derive(Debug, Default)]
pub struct Journal {
    entries: BTreeMap<Position, JournalEntry>,
    places: HashMap<Rc<[u8]>, Position>,
    last: Position,
    targets: BTreeMap<TargetId, Target>,
    given: u32,
}

impl Journal {
    /// A new target, which lacks nothing so far and may fall back by `bound` paths.
    pub fn join(&mut self, bound: usize) -> TargetId {
        self.given += 1;
        let id = TargetId(self.given);
        let target = Target {
            position: self.last,
            behind: 0,
            bound,
            overdue: None,
            gave_up: false,
            deleting: HashSet::new(),
        };
        self.targets.insert(id, target);
        id
    }

    /// A new target in the place of another: it lacks what that one lacks.
    pub fn succeed(&mut self, before: TargetId, bound: usize) -> TargetId {
        let id = self.join(bound);
        let before = self.targets.get(&before);
        let place = before.map(|before| (before.position, before.behind, before.overdue));
        if let (Some(place), Some(target)) = (place, self.targets.get_mut(&id)) {
            (target.position, target.behind, target.overdue) = place;
        }
        id
    }

    /// Nothing is kept for this target any more.
    pub fn leave(&mut self, id: TargetId) {
        self.targets.remove(&id);
        self.trim();
    }

    /// Nothing is kept for any but these.
    pub fn keep(&mut self, ids: &[TargetId]) {
        self.targets.retain(|id, _| ids.contains(id));
        self.trim();
    }

    /// Takes in a change of a path, which every target lacks now. It is due then.
    pub fn push(&mut self, etype: Etype, path: &[u8], due: Time) {
        let Some(foremost) = self.targets.values().map(|target| target.position).max() else {
            return;
        };
        let etype = if self.is_renewal(etype, path) {
            Etype::Delete
        } else {
            etype
        };
        match self.places.get(path).copied() {
            // No one had it, so it keeps its place and its time.
            Some(place) if place > foremost => {
                if let Some(entry) = self.entries.get_mut(&place) {
                    entry.fresh = both(entry.fresh, etype, path);
                    entry.etype = both(entry.etype, etype, path);
                }
            }
            Some(place) => self.move_on(place, etype, due),
            None => {
                self.targets
                    .values_mut()
                    .for_each(|target| target.behind += 1);
                self.append(JournalEntry {
                    path: path.into(),
                    due,
                    etype,
                    fresh: etype,
                    before: 0,
                });
            }
        }
        self.overrun();
    }

    /// What this target is to do next, at most `most` paths. With so many waiting as
    /// `crowd`, or in a `hurry`, nothing waits for its time. All that waits goes with what is due.
    pub fn pull(
        &mut self,
        id: TargetId,
        now: Time,
        (crowd, most): (usize, usize),
        hurry: bool,
    ) -> Pull {
        let Some(due) = self.due(id) else {
            return Pull::Nothing;
        };
        let Some(target) = self.targets.get_mut(&id) else {
            return Pull::Nothing;
        };
        if due > now && target.behind < crowd && !hurry {
            return Pull::At(due);
        }
        let from = target.position;
        let mut taken = Vec::with_capacity(target.behind.min(most));
        for (place, entry) in self.entries.range((Excluded(from), Unbounded)).take(most) {
            let etype = entry.for_one_at(from);
            if etype == Etype::Delete && entry.path.ends_with(b"/") {
                target.deleting.insert(Rc::clone(&entry.path));
            }
            taken.push((etype, Rc::clone(&entry.path), entry.due));
            target.position = *place;
        }
        target.behind -= taken.len();
        if target.behind == 0 {
            target.position = self.last;
            target.overdue = None;
        }
        self.trim();
        Pull::Take(taken)
    }

    /// A target has done all it took so far.
    pub fn settled(&mut self, id: TargetId) {
        if let Some(target) = self.targets.get_mut(&id)
            && !target.deleting.is_empty()
        {
            target.deleting = HashSet::new();
        }
    }

    /// Returns true if a directory came where some target is just deleting one, which may find the new
    /// one and leave in it what the old one held: see `Queue::push`.
    fn is_renewal(&self, etype: Etype, path: &[u8]) -> bool {
        let mut targets = self.targets.values();
        etype == Etype::Create
            && path.ends_with(b"/")
            && targets.any(|target| target.deleting.contains(path))
    }

    /// When the first of what a target lacks is due.
    pub fn due(&self, id: TargetId) -> Option<Time> {
        let target = self.targets.get(&id)?;
        let (_, first) = self.after(target.position).next()?;
        Some(target.overdue.map_or(first.due, |due| due.min(first.due)))
    }

    /// How many paths a target lacks.
    pub fn behind(&self, id: TargetId) -> usize {
        self.targets.get(&id).map_or(0, |target| target.behind)
    }

    /// What a target lacks, oldest first.
    pub fn lacks(&self, id: TargetId) -> impl Iterator<Item = (Etype, &[u8])> {
        let from = self.targets.get(&id).map_or(self.last, |t| t.position);
        let lacking = self.after(from);
        lacking.map(move |(_, entry)| (entry.for_one_at(from), &*entry.path))
    }

    /// Returns true if a target fell back too far; it has to compare everything.
    pub fn overran(&self, id: TargetId) -> bool {
        self.targets.get(&id).is_some_and(|target| target.gave_up)
    }

    /// The same, and it is seen to.
    pub fn take_overran(&mut self, id: TargetId) -> bool {
        let target = self.targets.get_mut(&id);
        target.is_some_and(|target| std::mem::take(&mut target.gave_up))
    }

    /// The place of the newest change.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Returns true if a target has been given all up to this place.
    pub fn has_passed(&self, id: TargetId, place: Position) -> bool {
        let target = self.targets.get(&id);
        target.is_none_or(|target| target.position >= place)
    }

    /// Number of paths, those that only some targets lack included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if all targets have everything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn after(&self, place: Position) -> impl Iterator<Item = (&Position, &JournalEntry)> {
        self.entries.range((Excluded(place), Unbounded))
    }

    fn append(&mut self, entry: JournalEntry) {
        self.last += 1;
        self.places.insert(Rc::clone(&entry.path), self.last);
        self.entries.insert(self.last, entry);
    }

    /// An entry that some target has had changes again.
    fn move_on(&mut self, place: Position, etype: Etype, due: Time) {
        let Some(entry) = self.entries.remove(&place) else {
            return;
        };
        for target in self.targets.values_mut() {
            if target.position >= place {
                target.behind += 1;
            } else {
                let overdue = target.overdue.unwrap_or(entry.due);
                target.overdue = Some(overdue.min(entry.due));
            }
        }
        self.append(JournalEntry {
            etype: both(entry.etype, etype, &entry.path),
            path: entry.path,
            due,
            fresh: etype,
            before: place,
        });
    }

    fn overrun(&mut self) {
        let mut any = false;
        for target in self.targets.values_mut() {
            if target.behind > target.bound {
                target.position = self.last;
                target.behind = 0;
                target.overdue = None;
                target.gave_up = true;
                any = true;
            }
        }
        if any {
            self.trim();
        }
    }

    /// Drops what all targets have passed.
    fn trim(&mut self) {
        let hindmost = self.targets.values().map(|target| target.position).min();
        let hindmost = hindmost.unwrap_or(self.last);
        while let Some(first) = self.entries.first_entry()
            && *first.key() <= hindmost
        {
            let path = first.remove().path;
            self.places.remove(&path);
        }
        if self.entries.is_empty() {
            self.places.shrink_to(0);
        }
    }
}

impl JournalEntry {
    /// What the changes come to for a target at this position.
    fn for_one_at(&self, position: Position) -> Etype {
        if position >= self.before {
            self.fresh
        } else {
            self.etype
        }
    }
}

/// What two changes of one path come to, as in a queue.
fn both(older: Etype, newer: Etype, path: &[u8]) -> Etype {
    let dir = path.ends_with(b"/");
    let waiting = (older, Status::Wait);
    match combine(Policy::Coalesce, waiting, (newer, dir), Relation::Same) {
        Combination::Replace => newer,
        _ => older,
    }
}

#[cfg(test)]
#[path = "journal_model.rs"]
mod tests;
