//! Paths whose renames on the target have to be followed by a comparison.
//!
//! Events arrive late. When the contents of `/a/f` are copied, the disk may be ahead: `/a` has
//! become `/b`, another `/a` exists, and the Move waits in the queue. The copy is that of the new
//! `/a/f`, and when the Move is carried out it ends up in `/b`. So the paths that were read are
//! recorded, and a Move of one of them, or of a directory that contains one, is followed by a
//! comparison. They are cleared when all renames of that time have been seen.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::paths;

/// The maximum number of paths. With more, every rename is followed by a comparison.
const MAX_PATHS: usize = 200_000;

/// The paths that were read. Directories and files are not distinguished.
#[derive(Default)]
pub struct TouchedPaths {
    paths: BTreeSet<Vec<u8>>,
    /// Paths that were read with everything below them.
    trees: BTreeSet<Vec<u8>>,
    everything: bool,
}

impl TouchedPaths {
    /// Removes all paths.
    pub fn clear(&mut self) {
        *self = TouchedPaths::default();
    }

    /// Records that this path was read.
    pub fn touch(&mut self, path: &[u8]) {
        if self.paths.len() < MAX_PATHS {
            self.paths.insert(paths::with_slash(path));
        } else {
            self.everything = true;
        }
    }

    /// Records that this path was read with everything below it.
    pub fn touch_tree(&mut self, path: &[u8]) {
        if paths::with_slash(path) == b"/" {
            self.everything = true;
        }
        self.touch(path);
        self.trees.insert(paths::with_slash(path));
    }

    /// Returns true if this path, or anything below it, was read.
    pub fn concerns(&self, path: &[u8]) -> bool {
        let path = paths::with_slash(path);
        if self.everything {
            return true;
        }
        let from = (Bound::Included(path.as_slice()), Bound::Unbounded);
        let below = self.paths.range::<[u8], _>(from).next();
        if below.is_some_and(|found| found.starts_with(&path)) {
            return true;
        }
        let mut directories = paths::directories(&path).skip(1);
        !self.trees.is_empty() && directories.any(|directory| self.trees.contains(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_or_below_a_path_concerns_it() {
        let mut journal = TouchedPaths::default();
        assert!(!journal.concerns(b"/a/"));
        journal.touch(b"/a/f");
        journal.touch_tree(b"/t/u/");
        for path in ["/a/", "/a/f", "/", "/t/", "/t/u", "/t/u/x/y"] {
            assert!(journal.concerns(path.as_bytes()), "{path}");
        }
        for path in ["/a/g", "/a/f.x", "/b/", "/t/v", "/a/ff"] {
            assert!(!journal.concerns(path.as_bytes()), "{path}");
        }
        journal.touch_tree(b"/");
        assert!(journal.concerns(b"/b/"));
        journal.clear();
        assert!(!journal.concerns(b"/a/f"));
    }
}
