//! The known directories: handle, parent and name of each.
//!
//! A directory is a link to its parent, so a rename changes one of them and nothing below it. The
//! number of directories is limited: one that is not needed any more is looked up again.
//! Directories outside of all sources are stored separately.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};

use super::irrelevant::IrrelevantDirectories;

/// The maximum number of directories. One costs about 130 bytes.
const MAX_DIRECTORIES: usize = 50_000;
/// The maximum number of directories outside. One costs about 60 bytes.
const MAX_OUTSIDE: usize = 50_000;

/// The parent of a root.
const ROOT: u32 = u32::MAX;
/// The parent of a directory that has left the tree.
const OUTSIDE: u32 = u32::MAX - 1;
/// The parent of a slot that is free.
const FREE: u32 = u32::MAX - 2;

/// The number of a directory in [`KnownDirectories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryId(u32);

struct KnownDirectory {
    /// The number of the place, see [`Places`](super::places::Places).
    place: usize,
    handle: Box<[u8]>,
    parent: u32,
    /// The name; for a root its path, which ends with `/`.
    name: Box<[u8]>,
    children: u32,
    /// Used since the last visit of the eviction.
    used: bool,
    /// Some scope wants the directory; true for `epoch`.
    wanted: bool,
    epoch: u32,
}

/// The known directories.
#[derive(Default)]
pub struct KnownDirectories {
    slots: Vec<KnownDirectory>,
    free: Vec<u32>,
    by_handle: HashTable<u32>,
    outside: HashSet<(usize, Box<[u8]>)>,
    /// Those that are outside of all places.
    pub irrelevant: Arc<IrrelevantDirectories>,
    hasher: DefaultHashBuilder,
    /// The slot that the eviction visits next.
    hand: usize,
    /// Changes when directories may become wanted or unwanted.
    epoch: u32,
}

impl KnownDirectories {
    /// Forgets all directories.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.by_handle.clear();
        self.outside.clear();
        self.filters_changed();
    }

    /// Returns the bytes of memory in use, without the names.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<KnownDirectory>() + self.by_handle.allocation_size()
    }

    /// Adds the root of a place; `path` ends with `/`.
    pub fn insert_root(&mut self, place: usize, handle: &[u8], path: &[u8]) {
        self.add(place, handle, ROOT, path);
    }

    /// Returns the directory with this handle, if it is inside.
    pub fn find(&mut self, place: usize, handle: &[u8]) -> Option<DirectoryId> {
        self.find_any(place, handle)
            .filter(|&id| self.is_inside(id))
    }

    /// Returns the directory with this handle. One that has left, or is below one that has, may be
    /// anywhere.
    fn find_any(&mut self, place: usize, handle: &[u8]) -> Option<DirectoryId> {
        let hash = self.hasher.hash_one((place, handle));
        let found = self.by_handle.find(hash, |&at| {
            let slot = &self.slots[at as usize];
            slot.place == place && *slot.handle == *handle
        });
        let at = *found?;
        self.slots[at as usize].used = true;
        Some(DirectoryId(at))
    }

    /// Returns true if the directory with this handle is known to be of no concern.
    pub fn is_outside(&self, place: usize, handle: &[u8]) -> bool {
        let key = OutsideKey(place, handle);
        !self.outside.is_empty() && self.outside.contains(&key)
    }

    /// Records that the directory with this handle is of no concern.
    pub fn add_outside(&mut self, place: usize, handle: &[u8]) {
        if self.outside.len() >= MAX_OUTSIDE {
            self.outside.clear();
            self.irrelevant.clear();
        }
        self.outside.insert((place, handle.into()));
    }

    /// Forgets what was of no concern: renames or other filters may have changed that.
    pub fn filters_changed(&mut self) {
        self.outside.clear();
        self.irrelevant.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Adds a directory, or moves the one with this handle. Returns `None` if the directory would
    /// be below itself.
    pub fn place_at(
        &mut self,
        place: usize,
        handle: &[u8],
        parent: DirectoryId,
        name: &[u8],
    ) -> Option<DirectoryId> {
        let Some(id) = self.find_any(place, handle) else {
            self.evict(parent);
            return Some(self.add(place, handle, parent.0, name));
        };
        if self.slots[id.0 as usize].parent == ROOT || self.is_within(parent, id) {
            return None;
        }
        self.detach(id);
        let slot = &mut self.slots[id.0 as usize];
        slot.parent = parent.0;
        slot.name = name.into();
        self.slots[parent.0 as usize].children += 1;
        Some(id)
    }

    /// Records that a directory has left the tree with everything below it.
    pub fn leave(&mut self, place: usize, handle: &[u8]) {
        let Some(id) = self.find_any(place, handle) else {
            return;
        };
        let slot = &self.slots[id.0 as usize];
        if slot.parent == ROOT {
            return;
        }
        if slot.children == 0 {
            self.remove(id);
        } else {
            self.detach(id);
            self.slots[id.0 as usize].parent = OUTSIDE;
        }
    }

    /// Replaces the contents of `buffer` by the absolute path, which ends with `/`. Returns false
    /// if the directory is outside.
    pub fn path(&self, id: DirectoryId, buffer: &mut Vec<u8>) -> bool {
        let mut length = 0;
        let mut at = id.0;
        while at < FREE {
            let slot = &self.slots[at as usize];
            length += slot.name.len() + usize::from(slot.parent != ROOT);
            at = slot.parent;
        }
        buffer.clear();
        if at != ROOT {
            return false;
        }
        buffer.resize(length, b'/');
        let mut at = id.0;
        while at < FREE {
            let slot = &self.slots[at as usize];
            let start = length - slot.name.len() - usize::from(slot.parent != ROOT);
            buffer[start..start + slot.name.len()].copy_from_slice(&slot.name);
            length = start;
            at = slot.parent;
        }
        true
    }

    /// Returns true if the directory at `path` is wanted; `wants` is called if that is not known.
    pub fn is_wanted(
        &mut self,
        id: DirectoryId,
        path: &[u8],
        wants: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let epoch = self.epoch;
        let slot = &mut self.slots[id.0 as usize];
        if slot.epoch != epoch {
            slot.epoch = epoch;
            slot.wanted = wants(path);
        }
        slot.wanted
    }

    fn add(&mut self, place: usize, handle: &[u8], parent: u32, name: &[u8]) -> DirectoryId {
        let directory = KnownDirectory {
            place,
            handle: handle.into(),
            parent,
            name: name.into(),
            children: 0,
            used: true,
            wanted: false,
            epoch: self.epoch.wrapping_sub(1),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = directory;
                at
            }
            None => {
                self.slots.push(directory);
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(above) = self.slots.get_mut(parent as usize) {
            above.children += 1;
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = |&at: &u32| {
            let slot = &slots[at as usize];
            hasher.hash_one((slot.place, &*slot.handle))
        };
        self.by_handle.insert_unique(hash(&at), at, hash);
        DirectoryId(at)
    }

    fn is_inside(&self, id: DirectoryId) -> bool {
        let mut at = id.0;
        while at < FREE {
            at = self.slots[at as usize].parent;
        }
        at == ROOT
    }

    fn is_within(&self, id: DirectoryId, top: DirectoryId) -> bool {
        let mut at = id.0;
        while at < FREE {
            if at == top.0 {
                return true;
            }
            at = self.slots[at as usize].parent;
        }
        false
    }

    fn detach(&mut self, id: DirectoryId) {
        let parent = self.slots[id.0 as usize].parent;
        if let Some(above) = self.slots.get_mut(parent as usize) {
            above.children -= 1;
        }
    }

    fn remove(&mut self, id: DirectoryId) {
        self.detach(id);
        let slot = &mut self.slots[id.0 as usize];
        slot.parent = FREE;
        slot.name = Box::default();
        let handle = std::mem::take(&mut slot.handle);
        let hash = self.hasher.hash_one((slot.place, &*handle));
        if let Ok(entry) = self.by_handle.find_entry(hash, |&at| at == id.0) {
            entry.remove();
        }
        self.free.push(id.0);
    }

    /// Makes room for one more directory: removes one that has not been used for a while and has
    /// none below it. `kept` is not removed.
    fn evict(&mut self, kept: DirectoryId) {
        if self.slots.len() - self.free.len() < MAX_DIRECTORIES {
            return;
        }
        for _ in 0..2 * self.slots.len() {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            let is_leaf = slot.children == 0 && slot.parent != ROOT && slot.parent != FREE;
            if is_leaf && !std::mem::take(&mut slot.used) && self.hand != kept.0 as usize {
                self.remove(DirectoryId(self.hand as u32));
                return;
            }
        }
    }
}

#[derive(Hash)]
struct OutsideKey<'a>(usize, &'a [u8]);

impl hashbrown::Equivalent<(usize, Box<[u8]>)> for OutsideKey<'_> {
    fn equivalent(&self, key: &(usize, Box<[u8]>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn path(known: &KnownDirectories, id: DirectoryId) -> Option<String> {
        let mut path = Vec::new();
        known
            .path(id, &mut path)
            .then(|| String::from_utf8(path).unwrap())
    }

    #[test]
    fn a_rename_moves_everything_below() {
        let mut known = KnownDirectories::default();
        known.insert_root(0, b"r", b"/src/");
        let root = known.find(0, b"r").unwrap();
        let a = known.place_at(0, b"a", root, b"a").unwrap();
        let b = known.place_at(0, b"b", a, b"b").unwrap();
        assert_eq!(path(&known, b).unwrap(), "/src/a/b/");
        known.place_at(0, b"a", root, b"z");
        assert_eq!(path(&known, b).unwrap(), "/src/z/b/");
        assert!(known.find(1, b"a").is_none());
        assert!(known.place_at(0, b"a", b, b"x").is_none());
        assert!(known.place_at(0, b"r", b, b"x").is_none());
        known.leave(0, b"a");
        assert_eq!(path(&known, b), None);
        // It may be anywhere, so it has to be looked up.
        assert!(known.find(0, b"a").is_none() && known.find(0, b"b").is_none());
        known.place_at(0, b"a", root, b"back");
        assert_eq!(path(&known, b).unwrap(), "/src/back/b/");
        known.leave(0, b"b");
        assert!(known.find(0, b"b").is_none());
        known.leave(0, b"a");
        assert_eq!(known.slots.len() - known.free.len(), 1);
        known.clear();
        assert!(known.find(0, b"r").is_none());
    }

    /// A directory that is removed while others are below it would give them wrong paths.
    #[test]
    fn directories_around_others_stay() {
        let mut known = KnownDirectories::default();
        known.insert_root(0, b"r", b"/");
        let root = known.find(0, b"r").unwrap();
        let outer = known.place_at(0, b"o", root, b"o").unwrap();
        let inner = known.place_at(0, b"i", outer, b"i").unwrap();
        for number in 0..2 * MAX_DIRECTORIES as u32 {
            let handle = number.to_ne_bytes();
            let id = known.place_at(0, &handle, inner, b"x").unwrap();
            assert_eq!(path(&known, id).unwrap(), "/o/i/x/");
        }
        assert_eq!(known.find(0, b"o"), Some(outer));
        assert_eq!(known.slots.len() - known.free.len(), MAX_DIRECTORIES);
    }

    #[test]
    fn only_what_was_added_is_outside() {
        let mut known = KnownDirectories::default();
        for number in 0..5000u32 {
            known.add_outside(1, &number.to_ne_bytes());
        }
        for number in 0..5000u32 {
            assert!(known.is_outside(1, &number.to_ne_bytes()));
            assert!(!known.is_outside(0, &number.to_ne_bytes()));
            assert!(!known.is_outside(1, &(number + 5000).to_ne_bytes()));
        }
        known.filters_changed();
        assert!(!known.is_outside(1, &0u32.to_ne_bytes()));
    }

    #[test]
    fn the_number_of_directories_is_limited() {
        let mut known = KnownDirectories::default();
        known.insert_root(0, b"r", b"/");
        let root = known.find(0, b"r").unwrap();
        for number in 0..2 * MAX_DIRECTORIES as u32 {
            let handle = number.to_ne_bytes();
            let id = known.place_at(0, &handle, root, b"x").unwrap();
            assert_eq!(path(&known, id).unwrap(), "/x/");
        }
        assert_eq!(known.slots.len() - known.free.len(), MAX_DIRECTORIES);
        for number in 0..2 * MAX_OUTSIDE as u32 {
            known.add_outside(0, &number.to_ne_bytes());
        }
        let last = 2 * MAX_OUTSIDE as u32 - 1;
        assert!(known.outside.len() <= MAX_OUTSIDE);
        assert!(known.is_outside(0, &last.to_ne_bytes()));
    }

    #[test]
    fn what_is_wanted_is_asked_again_after_a_rename() {
        let mut known = KnownDirectories::default();
        known.insert_root(0, b"r", b"/");
        let root = known.find(0, b"r").unwrap();
        assert!(known.is_wanted(root, b"/", |_| true));
        assert!(known.is_wanted(root, b"/", |_| false));
        known.filters_changed();
        assert!(!known.is_wanted(root, b"/", |_| false));
    }

    proptest! {
        /// Compares with a map of handles to parents and names.
        #[test]
        fn like_a_map(steps in prop::collection::vec((0..8u8, 0..9u8, 0..4u8, 0..5u8), 0..100)) {
            let mut known = KnownDirectories::default();
            known.insert_root(0, &[8], b"/r/");
            // Handle → parent and name; `None` for a directory that has left the tree.
            let mut model: BTreeMap<u8, Option<(u8, u8)>> = BTreeMap::new();
            fn of(model: &BTreeMap<u8, Option<(u8, u8)>>, handle: u8) -> Option<String> {
                if handle == 8 {
                    return Some("/r/".into());
                }
                let (parent, name) = (*model.get(&handle)?)?;
                Some(format!("{}{}/", of(model, parent)?, char::from(b'a' + name)))
            }
            let within = |model: &BTreeMap<u8, Option<(u8, u8)>>, mut handle: u8, top: u8| {
                while handle != top {
                    match model.get(&handle) {
                        Some(Some((parent, _))) => handle = *parent,
                        _ => return false,
                    }
                }
                true
            };
            for (handle, parent, name, what) in steps {
                if what == 0 {
                    known.leave(0, &[handle]);
                    let has_children = model.values().flatten().any(|link| link.0 == handle);
                    if has_children {
                        model.insert(handle, None);
                    } else {
                        model.remove(&handle);
                    }
                } else if let Some(above) = known.find(0, &[parent]) {
                    let loops = model.contains_key(&handle) && within(&model, parent, handle);
                    let placed = known.place_at(0, &[handle], above, &[b'a' + name]);
                    prop_assert_eq!(placed.is_none(), loops);
                    if !loops {
                        model.insert(handle, Some((parent, name)));
                    }
                }
                for handle in 0..8 {
                    let found = known.find(0, &[handle]);
                    let found = found.and_then(|id| path(&known, id));
                    prop_assert_eq!(found, of(&model, handle));
                }
            }
        }
    }
}
