//! Which renames at the target may not be believed.
//!
//! Events come after the fact. When the contents of `/a/f` are copied, the disk may be ahead: `/a`
//! is `/b` by now and another `/a` has come, and the Move that says so waits in the queue. The
//! copy is of the new `/a/f`, and when the Move is carried out it lands in `/b`. So the paths
//! that were looked at are kept, and a Move of one of them, or of a directory around it, is
//! followed by a comparison. They are forgotten when all renames of that time have been seen.

use std::collections::BTreeSet;
use std::ops::Bound;

/// With more paths every rename is followed by a comparison.
const MAX_PATHS: usize = 200_000;

/// The paths that were looked at. Those of directories and files are alike here.
#[derive(Default)]
pub struct TouchedPaths {
    paths: BTreeSet<Vec<u8>>,
    /// Those with all below them.
    trees: BTreeSet<Vec<u8>>,
    everything: bool,
}

impl TouchedPaths {
    /// Nothing of before matters any more.
    pub fn clear(&mut self) {
        *self = TouchedPaths::default();
    }

    /// This path was looked at.
    pub fn touch(&mut self, path: &[u8]) {
        if self.paths.len() < MAX_PATHS {
            self.paths.insert(key(path));
        } else {
            self.everything = true;
        }
    }

    /// This path was looked at, and all below it.
    pub fn touch_tree(&mut self, path: &[u8]) {
        if key(path) == b"/" {
            self.everything = true;
        }
        self.touch(path);
        self.trees.insert(key(path));
    }

    /// Returns true if something of what is at this path was looked at.
    pub fn concerns(&self, path: &[u8]) -> bool {
        let path = key(path);
        if self.everything {
            return true;
        }
        let from = (Bound::Included(path.as_slice()), Bound::Unbounded);
        let below = self.paths.range::<[u8], _>(from).next();
        if below.is_some_and(|found| found.starts_with(&path)) {
            return true;
        }
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        !self.trees.is_empty()
            && slashes
                .skip(1)
                .any(|(slash, _)| self.trees.contains(&path[..=slash]))
    }
}

/// With a slash at its end, so that what is below begins with it and `/ab` not with `/a`.
fn key(path: &[u8]) -> Vec<u8> {
    let bare = path.strip_suffix(b"/").unwrap_or(path);
    [bare, b"/"].concat()
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
