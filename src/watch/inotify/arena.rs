//! The storage of the tree: records in one vector, names in one byte vector.
//!
//! Records refer to each other by index, and an index is reused after its record is released. The
//! [`tree`](super::tree) defines the meaning of the links.

use std::ops::BitOr;

/// The index of a directory in the tree. Indices are reused after removal;
/// [`Tree::alive`](super::tree::Tree::alive) returns true if a stored one is still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirNode(pub u32);

/// The index that represents no record.
pub const NONE: u32 = u32::MAX;

/// Properties of a node besides its name and parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The contents have been reported as created.
    pub const REPORTED: Flags = Flags(1);
    /// The directory was reported as deleted but exists, so its contents have to be reported again.
    pub const REPORT_DUE: Flags = Flags(2);
    /// The kernel has sent IN_DELETE_SELF.
    pub const DYING: Flags = Flags(4);
    /// The directory has subdirectories that no scope wanted when they were listed, or that could not
    /// be watched.
    pub const SKIPPED: Flags = Flags(8);
    /// The directory is the root of a scope.
    pub const SCOPE_ROOT: Flags = Flags(16);

    /// Returns true if any of `flags` is set.
    pub fn any(self, flags: Flags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Returns the set without `flags`.
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

/// The record of one directory.
#[derive(Clone, Copy)]
pub struct ArenaSlot {
    /// The index of the parent, `NONE` for a root.
    pub parent: u32,
    /// The index of the first child.
    pub first: u32,
    /// The index of the next sibling, or of the next free slot if this one is free.
    pub next: u32,
    pub prev: u32,
    /// The watch descriptor; 0, which the kernel never assigns, marks a free slot.
    pub wd: i32,
    name: u32,
    length: u16,
    pub flags: Flags,
}

/// The records and names of all directories.
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

    /// Returns the number of records in use.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<ArenaSlot>() + self.names.capacity()
    }

    /// Releases unused capacity.
    pub fn shrink(&mut self) {
        self.collect_names();
        self.slots.shrink_to_fit();
        self.names.shrink_to_fit();
    }

    /// Returns the record, or `None` if the index was never used.
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

    /// Allocates a record without links.
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

    /// Changes the name of a record.
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

    /// Releases a record without links.
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

    /// Stores a name and returns its offset and length. Names have at most 255 bytes and paths
    /// 4,095: the kernel refuses longer ones.
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
