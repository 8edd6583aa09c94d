//! The pending changes of several targets of one source. Each path is stored once, however many
//! targets still lack it.
//!
//! A path has one entry, at the position of its newest change, and each target has a position. A
//! target lacks the entries behind its position; entries that all targets have passed are removed.
//! So memory grows with the distinct pending paths, not with paths × targets. A target that lacks
//! more paths than its bound loses its position and needs a full sync.
//!
//! The journal is for [`Policy::Coalesce`] without Moves: the disk decides what is sent, so it does
//! not matter in how many steps a path reached its state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;

use super::combine::{Combination, Relation, combine};
use super::etype::{Etype, Policy, Status, Time};

/// A position in the journal. Later changes have larger ones.
pub type Position = u64;

/// The key of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetId(u32);

/// The result of [`Journal::pull`].
#[derive(Debug, PartialEq, Eq)]
pub enum Pull {
    /// These changes, oldest first, each with the time at which it was due.
    Take(Vec<(Etype, Rc<[u8]>, Time)>),
    /// Nothing before this time.
    At(Time),
    /// The target has everything.
    Nothing,
}

#[derive(Debug)]
struct JournalEntry {
    path: Rc<[u8]>,
    due: Time,
    /// The combined change for a target that has had none of the changes.
    etype: Etype,
    /// The combined change for a target that is past position `before`, where the entry was then.
    fresh: Etype,
    before: Position,
}

#[derive(Debug)]
struct Target {
    position: Position,
    /// Number of entries behind the position.
    behind: usize,
    bound: usize,
    /// The due time of an entry that moved on while it was due for this target.
    overdue: Option<Time>,
    gave_up: bool,
    /// Directories whose Delete the target has taken and may still be executing.
    deleting: HashSet<Rc<[u8]>>,
}

/// The pending changes of one source.
#[derive(Debug, Default)]
pub struct Journal {
    entries: BTreeMap<Position, JournalEntry>,
    positions: HashMap<Rc<[u8]>, Position>,
    last: Position,
    targets: BTreeMap<TargetId, Target>,
    given: u32,
}

impl Journal {
    /// Adds a target that lacks nothing and may lack up to `bound` paths.
    pub fn add_target(&mut self, bound: usize) -> TargetId {
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

    /// Replaces a target by a new one that lacks the same paths.
    pub fn replace_target(&mut self, before: TargetId, bound: usize) -> TargetId {
        let id = self.add_target(bound);
        let before = self.targets.get(&before);
        let state = before.map(|before| (before.position, before.behind, before.overdue));
        if let (Some(state), Some(target)) = (state, self.targets.get_mut(&id)) {
            (target.position, target.behind, target.overdue) = state;
        }
        id
    }

    /// Removes a target. Nothing is kept for it any more.
    pub fn remove_target(&mut self, id: TargetId) {
        self.targets.remove(&id);
        self.trim();
    }

    /// Removes all targets except these.
    pub fn retain(&mut self, ids: &[TargetId]) {
        self.targets.retain(|id, _| ids.contains(id));
        self.trim();
    }

    /// Adds a change of a path, which every target lacks from now on. It is due at `due`.
    pub fn push(&mut self, etype: Etype, path: &[u8], due: Time) {
        let Some(foremost) = self.targets.values().map(|target| target.position).max() else {
            return;
        };
        let etype = if self.is_renewal(etype, path) {
            Etype::Delete
        } else {
            etype
        };
        match self.positions.get(path).copied() {
            // No target has it, so the entry keeps its position and its time.
            Some(position) if position > foremost => {
                if let Some(entry) = self.entries.get_mut(&position) {
                    entry.fresh = both(entry.fresh, etype, path);
                    entry.etype = both(entry.etype, etype, path);
                }
            }
            Some(position) => self.move_on(position, etype, due),
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

    /// Returns the next changes for a target, at most `most` paths. Changes wait for their time
    /// unless at least `crowd` paths wait or `hurry` is set. Once one is due, all that wait are
    /// returned.
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
        for (position, entry) in self.entries.range((Excluded(from), Unbounded)).take(most) {
            let etype = entry.for_one_at(from);
            if etype == Etype::Delete && entry.path.ends_with(b"/") {
                target.deleting.insert(Rc::clone(&entry.path));
            }
            taken.push((etype, Rc::clone(&entry.path), entry.due));
            target.position = *position;
        }
        target.behind -= taken.len();
        if target.behind == 0 {
            target.position = self.last;
            target.overdue = None;
        }
        self.trim();
        Pull::Take(taken)
    }

    /// Marks everything the target has taken as done.
    pub fn completed(&mut self, id: TargetId) {
        if let Some(target) = self.targets.get_mut(&id)
            && !target.deleting.is_empty()
        {
            target.deleting = HashSet::new();
        }
    }

    /// Returns true if a directory was created while some target is deleting one of that path. The
    /// deletion may find the new directory and leave the contents of the old one in it: see
    /// `Queue::push`.
    fn is_renewal(&self, etype: Etype, path: &[u8]) -> bool {
        let mut targets = self.targets.values();
        etype == Etype::Create
            && path.ends_with(b"/")
            && targets.any(|target| target.deleting.contains(path))
    }

    /// Returns the time at which the first change that a target lacks is due.
    pub fn due(&self, id: TargetId) -> Option<Time> {
        let target = self.targets.get(&id)?;
        let (_, first) = self.after(target.position).next()?;
        Some(target.overdue.map_or(first.due, |due| due.min(first.due)))
    }

    /// Returns the number of paths a target lacks.
    pub fn behind(&self, id: TargetId) -> usize {
        self.targets.get(&id).map_or(0, |target| target.behind)
    }

    /// Returns the changes a target lacks, oldest first.
    pub fn lacks(&self, id: TargetId) -> impl Iterator<Item = (Etype, &[u8])> {
        let from = self.targets.get(&id).map_or(self.last, |t| t.position);
        let lacking = self.after(from);
        lacking.map(move |(_, entry)| (entry.for_one_at(from), &*entry.path))
    }

    /// Returns true if a target exceeded its bound and needs a full sync.
    pub fn overran(&self, id: TargetId) -> bool {
        self.targets.get(&id).is_some_and(|target| target.gave_up)
    }

    /// Returns true if a target exceeded its bound, and clears that state.
    pub fn take_overran(&mut self, id: TargetId) -> bool {
        let target = self.targets.get_mut(&id);
        target.is_some_and(|target| std::mem::take(&mut target.gave_up))
    }

    /// Returns the position of the newest change.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Returns true if a target has taken everything up to this position.
    pub fn has_passed(&self, id: TargetId, position: Position) -> bool {
        let target = self.targets.get(&id);
        target.is_none_or(|target| target.position >= position)
    }

    /// Returns the number of paths, including those that only some targets lack.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if no target lacks anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn after(&self, position: Position) -> impl Iterator<Item = (&Position, &JournalEntry)> {
        self.entries.range((Excluded(position), Unbounded))
    }

    fn append(&mut self, entry: JournalEntry) {
        self.last += 1;
        self.positions.insert(Rc::clone(&entry.path), self.last);
        self.entries.insert(self.last, entry);
    }

    /// Moves an entry that some target has taken to the end of the journal, with its new change.
    fn move_on(&mut self, position: Position, etype: Etype, due: Time) {
        let Some(entry) = self.entries.remove(&position) else {
            return;
        };
        for target in self.targets.values_mut() {
            if target.position >= position {
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
            before: position,
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

    /// Removes the entries that all targets have passed.
    fn trim(&mut self) {
        let hindmost = self.targets.values().map(|target| target.position).min();
        let hindmost = hindmost.unwrap_or(self.last);
        while let Some(first) = self.entries.first_entry()
            && *first.key() <= hindmost
        {
            let path = first.remove().path;
            self.positions.remove(&path);
        }
        if self.entries.is_empty() {
            self.positions.shrink_to(0);
        }
    }
}

impl JournalEntry {
    /// Returns the combined change for a target at this position.
    fn for_one_at(&self, position: Position) -> Etype {
        if position >= self.before {
            self.fresh
        } else {
            self.etype
        }
    }
}

/// Returns the change that two changes of one path combine to, as in a queue.
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
