//! A vector with holes, addressed by 4-byte typed keys.
//!
//! A million pending paths are a million small records linked to each other. Keys of
//! 4 bytes (also as an `Option`) halve what pointers would cost, and their type says
//! which slab they belong to.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// The index of a `T` in its slab, counted from 1.
pub(super) struct SlabKey<T> {
    number: NonZeroU32,
    of: PhantomData<fn() -> T>,
}

impl<T> SlabKey<T> {
    pub(super) const fn new(number: NonZeroU32) -> Self {
        SlabKey {
            number,
            of: PhantomData,
        }
    }

    /// Returns the index in the vector.
    pub(super) fn index(self) -> usize {
        self.number.get() as usize - 1
    }

    pub(super) fn number(self) -> u32 {
        self.number.get()
    }

    fn at(index: usize) -> Self {
        SlabKey::new(NonZeroU32::MIN.saturating_add(index as u32))
    }
}

impl<T> Clone for SlabKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SlabKey<T> {}

impl<T> PartialEq for SlabKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for SlabKey<T> {}

impl<T> Hash for SlabKey<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl<T> fmt::Debug for SlabKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// Records of one type. A removed record leaves `T::default()` until its slot is used again.
pub(super) struct Slab<T> {
    items: Vec<T>,
    free: Vec<SlabKey<T>>,
}

impl<T: Default> Slab<T> {
    pub(super) fn new() -> Self {
        Slab {
            items: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Returns the number of slots that are left before 4-byte keys run out.
    pub(super) fn room(&self) -> usize {
        (u32::MAX as usize - 1).saturating_sub(self.items.len()) + self.free.len()
    }

    /// Stores a record and returns its key. The caller checks [`Slab::room`] first.
    pub(super) fn insert(&mut self, item: T) -> SlabKey<T> {
        if let Some(key) = self.free.pop() {
            self[key] = item;
            return key;
        }
        let key = SlabKey::at(self.items.len());
        self.items.push(item);
        key
    }

    pub(super) fn remove(&mut self, key: SlabKey<T>) -> T {
        self.free.push(key);
        std::mem::take(&mut self[key])
    }

    pub(super) fn get(&self, key: SlabKey<T>) -> Option<&T> {
        self.items.get(key.index())
    }

    /// Returns the number of slots, free ones included.
    pub(super) fn slots(&self) -> usize {
        self.items.len()
    }

    /// Returns every slot, free ones (as `T::default()`) included.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut()
    }

    /// Removes all records and keeps memory for at most `keep` of them.
    pub(super) fn reset(&mut self, keep: usize) {
        self.items.clear();
        self.items.shrink_to(keep);
        self.free.clear();
        self.free.shrink_to(keep);
    }
}

impl<T> Index<SlabKey<T>> for Slab<T> {
    type Output = T;

    fn index(&self, key: SlabKey<T>) -> &T {
        &self.items[key.index()]
    }
}

impl<T> IndexMut<SlabKey<T>> for Slab<T> {
    fn index_mut(&mut self, key: SlabKey<T>) -> &mut T {
        &mut self.items[key.index()]
    }
}
