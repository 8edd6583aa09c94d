//! Pairs the two halves of a rename.
//!
//! The kernel writes MOVED_FROM and MOVED_TO with one cookie, but renames by several processes
//! interleave and a read may end between the halves. A first half is therefore held until its
//! second arrives, until its timeout, or until another event concerns the name it left (which must
//! not be reported before the name was left).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

/// The time a first half waits for its second, from the read that returned it.
pub const PAIR_TIMEOUT: Duration = Duration::from_millis(10);

/// A MOVED_FROM without its MOVED_TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveHalf {
    pub cookie: u32,
    /// The directory it left.
    pub wd: i32,
    pub name: Vec<u8>,
    pub directory: bool,
    /// The watch of the directory that moved, 0 if it is a file or not watched.
    pub child: i32,
    pub deadline: Instant,
}

/// The number of renames that are remembered in order to detect an exchange.
const MAX_RECENT: usize = 16;

/// The kind of the object that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfKind {
    File,
    Directory,
}

/// A name in a directory.
type MovePlace = (i32, Vec<u8>);

/// First halves that wait for their second.
#[derive(Default)]
pub struct Moves {
    halves: HashMap<u32, MoveHalf>,
    /// The cookies by (wd, name).
    names: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Cookies in order of arrival; some are paired already.
    order: VecDeque<u32>,
    /// The renames paired last: old name, new name, kind.
    recent: VecDeque<(MovePlace, MovePlace, HalfKind)>,
}

impl Moves {
    pub fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    /// Holds a first half. The caller first takes an older one of that name with
    /// [`Moves::take_named`].
    pub fn hold(&mut self, half: MoveHalf) {
        let Moves { halves, hasher, .. } = self;
        let cookie = half.cookie;
        let hash = hasher.hash_one((half.wd, half.name.as_slice()));
        if halves.insert(cookie, half).is_some() {
            return;
        }
        self.names.insert_unique(hash, cookie, |cookie| {
            halves
                .get(cookie)
                .map_or(0, |half| hasher.hash_one((half.wd, half.name.as_slice())))
        });
        self.order.push_back(cookie);
    }

    /// Removes and returns the first half that belongs to a MOVED_TO.
    pub fn take(&mut self, cookie: u32) -> Option<MoveHalf> {
        let half = self.halves.remove(&cookie)?;
        let hash = self.hasher.hash_one((half.wd, half.name.as_slice()));
        if let Ok(entry) = self.names.find_entry(hash, |&other| other == cookie) {
            entry.remove();
        }
        while let Some(first) = self.order.front() {
            if self.halves.contains_key(first) {
                break;
            }
            self.order.pop_front();
        }
        Some(half)
    }

    /// Removes and returns the half that left this name. It is handled before any other event of
    /// the name.
    pub fn take_named(&mut self, wd: i32, name: &[u8]) -> Option<MoveHalf> {
        if self.halves.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one((wd, name));
        let cookie = *self.names.find(hash, |cookie| {
            self.halves
                .get(cookie)
                .is_some_and(|half| half.wd == wd && half.name == name)
        })?;
        self.take(cookie)
    }

    /// Removes and returns the oldest half whose timeout has passed.
    pub fn expire(&mut self, now: Instant) -> Option<MoveHalf> {
        if self.next_deadline()? > now {
            return None;
        }
        let cookie = *self.order.front()?;
        self.take(cookie)
    }

    /// Returns the kind of the object whose rename just before was the exact reverse of this one,
    /// if any.
    ///
    /// rename(2) with RENAME_EXCHANGE is reported as two renames, one into the name the other seems
    /// to have left. The events alone do not distinguish it from a move there and back.
    pub fn reverses(&mut self, half: &MoveHalf, wd: i32, name: &[u8]) -> Option<HalfKind> {
        let reversed = self
            .recent
            .iter()
            .rev()
            .find(|((from, from_name), (to, to_name), _)| {
                *to == half.wd && *from == wd && *to_name == half.name && from_name == name
            });
        let reversed = reversed.map(|&(_, _, kind)| kind);
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        let from = (half.wd, half.name.clone());
        let kind = if half.directory {
            HalfKind::Directory
        } else {
            HalfKind::File
        };
        self.recent.push_back((from, (wd, name.to_vec()), kind));
        reversed
    }

    /// Returns true if renames are remembered by which an exchange could be detected.
    pub fn has_recent(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Clears the remembered renames: no event is outstanding, so none can be the second half of an
    /// exchange.
    pub fn clear_recent(&mut self) {
        self.recent.clear();
    }

    /// Returns the timeout of the oldest half.
    pub fn next_deadline(&self) -> Option<Instant> {
        let half = self.halves.get(self.order.front()?)?;
        Some(half.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn there_and_back_is_known() {
        let mut moves = Moves::default();
        let half = |wd, name: &[u8]| MoveHalf {
            cookie: 0,
            wd,
            name: name.to_vec(),
            directory: false,
            child: 0,
            deadline: Instant::now(),
        };
        assert_eq!(moves.reverses(&half(1, b"a"), 2, b"b"), None);
        assert_eq!(moves.reverses(&half(1, b"b"), 2, b"a"), None);
        assert_eq!(
            moves.reverses(&half(2, b"b"), 1, b"a"),
            Some(HalfKind::File)
        );
        for _ in 0..MAX_RECENT {
            moves.reverses(&half(3, b"x"), 4, b"x");
        }
        assert_eq!(moves.reverses(&half(1, b"a"), 2, b"b"), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hold(i32, u8),
        Take(u32),
        Named(i32, u8),
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3i32, 0..4u8).prop_map(|(wd, name)| Step::Hold(wd, name)),
            2 => (0..40u32).prop_map(Step::Take),
            1 => (0..3i32, 0..4u8).prop_map(|(wd, name)| Step::Named(wd, name)),
            1 => (0..30u64).prop_map(Step::Expire),
        ]
    }

    proptest! {
        /// Compares with a plain list that is searched from the front.
        #[test]
        fn like_a_list(steps in prop::collection::vec(step(), 0..120)) {
            let start = Instant::now();
            let mut moves = Moves::default();
            let mut model: Vec<MoveHalf> = Vec::new();
            let mut cookie = 0;
            for (at, step) in (0u64..).zip(steps) {
                let now = start + Duration::from_millis(at);
                let remove = |model: &mut Vec<MoveHalf>, index: Option<usize>| {
                    index.map(|index| model.remove(index))
                };
                match step {
                    Step::Hold(wd, name) => {
                        let name = vec![name];
                        let index = model.iter().position(|half| half.wd == wd && half.name == name);
                        prop_assert_eq!(moves.take_named(wd, &name), remove(&mut model, index));
                        cookie += 1;
                        let half = MoveHalf {
                            cookie, wd, name, directory: false, child: 0, deadline: now + PAIR_TIMEOUT,
                        };
                        moves.hold(half.clone());
                        model.push(half);
                    }
                    Step::Take(cookie) => {
                        let index = model.iter().position(|half| half.cookie == cookie);
                        prop_assert_eq!(moves.take(cookie), remove(&mut model, index));
                    }
                    Step::Named(wd, name) => {
                        let index = model.iter().position(|half| half.wd == wd && half.name == [name]);
                        prop_assert_eq!(moves.take_named(wd, &[name]), remove(&mut model, index));
                    }
                    Step::Expire(ahead) => {
                        let then = now + Duration::from_millis(ahead);
                        let index = (model.first().is_some_and(|half| half.deadline <= then)).then_some(0);
                        prop_assert_eq!(moves.expire(then), remove(&mut model, index));
                    }
                }
                prop_assert_eq!(moves.is_empty(), model.is_empty());
                prop_assert_eq!(moves.next_deadline(), model.first().map(|half| half.deadline));
                prop_assert!(model.is_empty() || !moves.order.is_empty());
            }
        }
    }
}
