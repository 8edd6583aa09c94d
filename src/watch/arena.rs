//! The memory of the tree: records in one vector, names in one byte vector.
//!
//! Records name each other by index, and an index is used again after its record is released.
//! What the links mean is the [`tree`](super::tree)'s affair.

use std::ops::BitOr;

/// A directory's place in the tree. Indices are used again after removal; whoever keeps
/// one asks [`Tree::alive`](super::tree::Tree::alive) first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirNode(pub u32);

/// No record.
pub const NONE: u32 = u32::MAX;

/// What is known of a node beyond its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// What is below has been told as created.
    pub const REPORTED: Flags = Flags(1);
    /// It has been told as deleted but is still (or again) there.
    pub const REPORT_DUE: Flags = Flags(2);
    /// The kernel has said IN_DELETE_SELF.
    pub const DYING: Flags = Flags(4);
    /// It has subdirectories that no scope wanted when they were seen.
    pub const SKIPPED: Flags = Flags(8);
    /// It is the root of some scope.
    pub const SCOPE_ROOT: Flags = Flags(16);

    /// Are any of these set?
    pub fn any(self, flags: Flags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Without these.
    pub fn without(self, flags: Flags) -> Flags {
        Flags(self.0 & !flags.0)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One directory.
#[derive(Clone, Copy)]
pub struct ArenaSlot {
    /// `NONE` for a root.
    pub parent: u32,
    /// The first one below.
    pub first: u32,
    /// The next sibling; of a free slot the next free one.
    pub next: u32,
    pub prev: u32,
    /// 0, which the kernel never gives, marks a free slot.
    pub wd: i32,
    name: u32,
    length: u16,
    pub flags: Flags,
}

/// See the file's header.
pub struct Arena {
    slots: Vec<ArenaSlot>,
    free: u32,
    count: usize,
    names: Vec<u8>,
    /// Bytes of `names` that no record uses.
    garbage: usize,
}

impl Arena {
    pub fn new() -> Arena {
        Arena {
            slots: Vec::new(),
            free: NONE,
            count: 0,
            names: Vec::new(),
            garbage: 0,
        }
    }

    /// Number of records in use.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<ArenaSlot>() + self.names.capacity()
    }

    /// Gives back what growing has left over.
    pub fn shrink(&mut self) {
        self.collect_names();
        self.slots.shrink_to_fit();
        self.names.shrink_to_fit();
    }

    /// The record, if there ever was one.
    pub fn get(&self, node: DirNode) -> Option<&ArenaSlot> {
        self.slots.get(node.0 as usize)
    }

    pub fn slot(&self, node: DirNode) -> &ArenaSlot {
        &self.slots[node.0 as usize]
    }

    pub fn slot_mut(&mut self, node: DirNode) -> &mut ArenaSlot {
        &mut self.slots[node.0 as usize]
    }

    pub fn name(&self, node: DirNode) -> &[u8] {
        let slot = self.slot(node);
        &self.names[slot.name as usize..][..slot.length as usize]
    }

    /// A record that nothing is linked to.
    pub fn allocate(&mut self, name: &[u8], wd: i32) -> DirNode {
        let (name, length) = self.store(name);
        let slot = ArenaSlot {
            parent: NONE,
            first: NONE,
            next: NONE,
            prev: NONE,
            wd,
            name,
            length,
            flags: Flags::default(),
        };
        let index = match self.free {
            NONE => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
            index => {
                self.free = self.slots[index as usize].next;
                self.slots[index as usize] = slot;
                index
            }
        };
        self.count += 1;
        DirNode(index)
    }

    /// Gives another name to a record.
    pub fn rename(&mut self, node: DirNode, name: &[u8]) {
        if self.name(node) == name {
            return;
        }
        self.garbage += self.slot(node).length as usize;
        let (name, length) = self.store(name);
        let slot = self.slot_mut(node);
        slot.name = name;
        slot.length = length;
    }

    /// Takes back a record that nothing is linked to any more.
    pub fn release(&mut self, node: DirNode) {
        let free = self.free;
        let slot = self.slot_mut(node);
        let length = slot.length;
        slot.wd = 0;
        slot.length = 0;
        slot.next = free;
        self.free = node.0;
        self.count -= 1;
        self.garbage += length as usize;
        if self.garbage > 64 * 1024 && self.garbage > self.names.len() / 2 {
            self.collect_names();
        }
    }

    /// Names are at most 255 bytes, paths 4,095: longer ones the kernel has refused.
    fn store(&mut self, name: &[u8]) -> (u32, u16) {
        let length = name.len().min(u16::MAX.into());
        let start = self.names.len() as u32;
        self.names.extend_from_slice(&name[..length]);
        (start, length as u16)
    }

    fn collect_names(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.garbage);
        for slot in self.slots.iter_mut().filter(|slot| slot.wd != 0) {
            let start = names.len() as u32;
            names.extend_from_slice(&self.names[slot.name as usize..][..slot.length as usize]);
            slot.name = start;
        }
        self.names = names;
        self.garbage = 0;
    }
}
