//! Files that are not sent, with their reasons.

use std::collections::BTreeMap;

use crate::paths;

/// The maximum number of paths that are protected on the target by rules of their own; with more, a
/// full comparison deletes nothing. rsync compares its rules with each file it sees.
pub const MAX_RULES: usize = 1000;

/// The maximum bytes of these rules: they are arguments, whose size is limited.
pub const MAX_RULE_BYTES: usize = 200_000;

/// The reason why a file is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockReason {
    /// True if it was checked and rejected, false if it could not be checked yet.
    pub rejected: bool,
    /// The reason, possibly in the scanner's words.
    pub reason: String,
    /// The number of times that a scanner failed at this file alone.
    pub failures: u32,
}

/// The files of one sync that are not sent in their present state. Paths are relative to the source
/// and begin with `/`; those of directories that cannot be read end with one.
#[derive(Debug, Default)]
pub struct Blocked {
    paths: BTreeMap<Vec<u8>, BlockReason>,
    rejected: usize,
    /// The number of files rejected since the daemon started.
    pub rejections: u64,
    /// The number of files passed since then.
    pub passed: u64,
}

impl Blocked {
    /// Records a rejected file. Returns true if this is new.
    pub fn reject(&mut self, path: &[u8], words: String) -> bool {
        let known = self.remove(path);
        let is_new = known.is_none_or(|known| !known.rejected || known.reason != words);
        self.rejections += u64::from(is_new);
        self.rejected += 1;
        let reason = BlockReason {
            rejected: true,
            reason: words,
            failures: 0,
        };
        self.paths.insert(path.to_vec(), reason);
        is_new
    }

    /// Records a file that could not be checked; `alone` means that the scanner was called for it
    /// only. Returns true if this is new.
    pub fn defer(&mut self, path: &[u8], words: String, alone: bool) -> bool {
        let known = self.remove(path).filter(|known| !known.rejected);
        let failures = known.as_ref().map_or(0, |known| known.failures) + u32::from(alone);
        let is_new = known.is_none_or(|known| known.reason != words);
        let reason = BlockReason {
            rejected: false,
            reason: words,
            failures,
        };
        self.paths.insert(path.to_vec(), reason);
        is_new
    }

    /// Records that the present file may be sent. A directory that could not be read is removed as
    /// well; it is recorded again if it still cannot be read.
    pub fn clear(&mut self, path: &[u8]) {
        let bare = paths::bare(path);
        self.remove(bare);
        self.remove(&paths::with_slash(bare));
    }

    /// Records that the path, and everything below it, does not exist any more.
    pub fn gone(&mut self, path: &[u8]) {
        let bare = paths::bare(path);
        self.remove(bare);
        let below = paths::with_slash(bare);
        let range = self.paths.range(below.clone()..);
        let inside = range.take_while(|(path, _)| path.starts_with(&below));
        for path in inside.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.remove(&path);
        }
    }

    /// Removes the paths for which `stays` returns false, after a full pass.
    pub fn retain(&mut self, stays: impl Fn(&[u8]) -> bool) {
        self.paths.retain(|path, _| stays(path));
        self.rejected = self.paths.values().filter(|reason| reason.rejected).count();
    }

    /// Returns the reason why this path is not sent.
    pub fn why(&self, path: &[u8]) -> Option<&BlockReason> {
        self.paths.get(path)
    }

    /// Returns the number of times that a scanner failed at this file alone.
    pub fn failures(&self, path: &[u8]) -> u32 {
        self.why(path).map_or(0, |reason| reason.failures)
    }

    /// Returns all paths in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &BlockReason)> {
        let paths = self.paths.iter();
        paths.map(|(path, reason)| (path.as_slice(), reason))
    }

    /// Returns the number of paths.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns true if every file may be sent.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Returns the number of rejected files.
    pub fn rejected(&self) -> usize {
        self.rejected
    }

    fn remove(&mut self, path: &[u8]) -> Option<BlockReason> {
        let known = self.paths.remove(path)?;
        self.rejected -= usize::from(known.rejected);
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_takes_along_what_is_below() {
        let mut held = Blocked::default();
        for path in [b"/d".as_slice(), b"/d/a", b"/d/e/b", b"/d.x", b"/e"] {
            assert!(held.defer(path, "down".into(), false));
        }
        assert!(held.reject(b"/d/a", "found".into()));
        assert!(!held.reject(b"/d/a", "found".into()));
        assert!(held.reject(b"/d/a", "found more".into()), "another reason");
        assert_eq!((held.len(), held.rejected(), held.rejections), (5, 1, 2));
        held.gone(b"/d/");
        let left: Vec<_> = held.iter().map(|(path, _)| path.to_vec()).collect();
        assert_eq!(left, [b"/d.x".to_vec(), b"/e".to_vec()]);
        assert_eq!(held.rejected(), 0);
    }

    #[test]
    fn after_a_full_pass_only_what_it_found_is_left() {
        let mut held = Blocked::default();
        for path in [b"/a", b"/b"] {
            held.reject(path, "found".into());
        }
        held.defer(b"/c", "down".into(), false);
        held.retain(|path| path != b"/a");
        assert!(held.why(b"/a").is_none() && held.why(b"/c").is_some());
        assert_eq!((held.len(), held.rejected()), (2, 1));
    }

    /// The hook of rejected files is called for each new one.
    #[test]
    fn a_file_that_could_not_be_checked_is_newly_rejected() {
        let mut held = Blocked::default();
        held.defer(b"/a", "words".into(), false);
        assert!(held.reject(b"/a", "words".into()));
        assert!(!held.reject(b"/a", "words".into()));
    }

    #[test]
    fn failures_alone_are_counted() {
        let mut held = Blocked::default();
        held.defer(b"/a", "2".into(), false);
        assert_eq!(held.failures(b"/a"), 0);
        assert!(!held.defer(b"/a", "2".into(), true));
        held.defer(b"/a", "2".into(), true);
        assert_eq!(held.failures(b"/a"), 2);
        held.clear(b"/a");
        assert!(held.is_empty());
    }
}
