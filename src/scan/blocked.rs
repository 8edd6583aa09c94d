//! What does not leave, and why.

use std::collections::BTreeMap;

/// So many paths are protected at the target by rules of their own; with more, nothing is deleted
/// in a comparison of everything. rsync walks its rules for each file it sees.
pub const MAX_RULES: usize = 1000;

/// The same in bytes: rules are arguments, for which there may be little room.
pub const MAX_RULE_BYTES: usize = 200_000;

/// Why a file does not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockReason {
    /// It was looked at and rejected; else nothing could be said of it yet.
    pub rejected: bool,
    /// In words, of the scanner maybe.
    pub reason: String,
    /// How often a scanner failed that was asked about this file alone.
    pub failures: u32,
}

/// The files of one sync that do not leave in their present state. Paths are relative to the
/// source and begin with `/`; those of directories that cannot be read end with one.
#[derive(Debug, Default)]
pub struct Blocked {
    paths: BTreeMap<Vec<u8>, BlockReason>,
    rejected: usize,
    /// How many files were rejected since the daemon started.
    pub rejections: u64,
    /// How many files passed since then.
    pub passed: u64,
}

impl Blocked {
    /// A file was rejected; true if that is news.
    pub fn reject(&mut self, path: &[u8], words: String) -> bool {
        let known = self.remove(path);
        let news = known.is_none_or(|known| !known.rejected || known.reason != words);
        self.rejections += u64::from(news);
        self.rejected += 1;
        let reason = BlockReason {
            rejected: true,
            reason: words,
            failures: 0,
        };
        self.paths.insert(path.to_vec(), reason);
        news
    }

    /// Nothing could be said of a file; `alone`: though nothing but it was asked about. True if
    /// that is news.
    pub fn defer(&mut self, path: &[u8], words: String, alone: bool) -> bool {
        let known = self.remove(path).filter(|known| !known.rejected);
        let failures = known.as_ref().map_or(0, |known| known.failures) + u32::from(alone);
        let news = known.is_none_or(|known| known.reason != words);
        let reason = BlockReason {
            rejected: false,
            reason: words,
            failures,
        };
        self.paths.insert(path.to_vec(), reason);
        news
    }

    /// What is there now may leave. That a directory could not be read is forgotten as well; who
    /// finds it so again says it again.
    pub fn clear(&mut self, path: &[u8]) {
        let bare = path.strip_suffix(b"/").unwrap_or(path);
        self.remove(bare);
        self.remove(&[bare, b"/"].concat());
    }

    /// There is nothing any more, nor below it.
    pub fn gone(&mut self, path: &[u8]) {
        let bare = path.strip_suffix(b"/").unwrap_or(path);
        self.remove(bare);
        let below = [bare, b"/"].concat();
        let range = self.paths.range(below.clone()..);
        let inside = range.take_while(|(path, _)| path.starts_with(&below));
        for path in inside.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.remove(&path);
        }
    }

    /// Forgets what `stays` is false of: everything has been looked at.
    pub fn retain(&mut self, stays: impl Fn(&[u8]) -> bool) {
        self.paths.retain(|path, _| stays(path));
        self.rejected = self.paths.values().filter(|reason| reason.rejected).count();
    }

    /// Why this path does not leave.
    pub fn why(&self, path: &[u8]) -> Option<&BlockReason> {
        self.paths.get(path)
    }

    /// How often a scanner failed at this file alone.
    pub fn failures(&self, path: &[u8]) -> u32 {
        self.why(path).map_or(0, |reason| reason.failures)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &BlockReason)> {
        let paths = self.paths.iter();
        paths.map(|(path, reason)| (path.as_slice(), reason))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns true if everything may leave.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// How many of them were rejected.
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
        assert_eq!((held.len(), held.rejected(), held.rejections), (5, 1, 1));
        held.gone(b"/d/");
        let left: Vec<_> = held.iter().map(|(path, _)| path.to_vec()).collect();
        assert_eq!(left, [b"/d.x".to_vec(), b"/e".to_vec()]);
        assert_eq!(held.rejected(), 0);
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
