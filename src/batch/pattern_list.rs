//! The names of an include list, as patterns.

use hashbrown::HashSet;

use crate::filter::{push_entire, push_exact};
use crate::paths;

/// The names as patterns, each once.
#[derive(Default)]
pub struct PatternList<'a> {
    /// The names, and true if everything below them is included.
    seen: HashSet<(&'a [u8], bool)>,
    /// The patterns, separated by zero bytes.
    pub bytes: Vec<u8>,
}

impl<'a> PatternList<'a> {
    /// Adds a name and its parents, deepest first.
    pub fn add(&mut self, path: &'a [u8], entire: bool) {
        let entire = entire && path != b"/";
        // A name that is listed has its parents listed.
        if entire && !self.push(path, true) {
            return;
        }
        let mut next = Some(path);
        while let Some(path) = next.filter(|path| self.push(path, false)) {
            next = paths::parent(path);
        }
    }

    fn push(&mut self, path: &'a [u8], entire: bool) -> bool {
        if !self.seen.insert((path, entire)) {
            return false;
        }
        if self.seen.len() > 1 {
            self.bytes.push(0);
        }
        if entire {
            push_entire(&mut self.bytes, path);
        } else {
            push_exact(&mut self.bytes, path);
        }
        true
    }

    /// Returns the names, in any order.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.seen.iter().map(|(name, _)| *name)
    }

    /// Returns these rules and the names behind them, and the offset of the first name.
    pub fn behind(self, rules: &[Vec<u8>]) -> (Vec<u8>, usize) {
        let mut bytes = Vec::with_capacity(self.bytes.len() * 2);
        for rule in rules {
            bytes.extend_from_slice(rule);
            bytes.push(0);
        }
        let names_at = bytes.len();
        for (index, name) in self.bytes.split(|&byte| byte == 0).enumerate() {
            if index > 0 {
                bytes.push(0);
            } else if name.is_empty() {
                break;
            }
            bytes.extend_from_slice(b"+ ");
            bytes.extend_from_slice(name);
        }
        (bytes, names_at)
    }
}
