//! The transfers that read a staged tree, and the objects that may replace others in it meanwhile.
//!
//! rsync lists names first and opens them later. If a directory of its list has become a symlink,
//! rsync follows it to files that were not checked; before 3.4 it also follows a symlink in place
//! of a file, and it blocks in opening a pipe. The use of a path is therefore never lower than a
//! running transfer may expect: the old object is removed at once, and the new one waits until the
//! transfers that were running then have ended. Transfers that begin later do not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Stat};

use crate::local::beneath::kind;
use crate::paths;

/// The maximum number of removed paths that are stored individually. With more, all paths count as
/// removed.
const MAX_REMOVED: usize = 100_000;

/// The use of a path by a transfer that has listed it, the most harmless first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// A symlink, pipe, socket or device: it is not opened.
    Listed,
    /// A regular file: it is opened.
    Opened,
    /// A directory: its entries are opened.
    Entered,
}

impl Usage {
    /// Returns the use of this object.
    pub fn of(stat: &Stat) -> Usage {
        match kind(stat) {
            FileType::Directory => Usage::Entered,
            FileType::RegularFile => Usage::Opened,
            _ => Usage::Listed,
        }
    }
}

/// The transfers that read a tree. Each has a number greater than those that began before it.
#[derive(Debug, Default)]
pub struct Readers(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    running: BTreeSet<u64>,
}

/// A transfer that reads, until this is dropped.
#[derive(Debug)]
pub struct Reading {
    readers: Arc<Readers>,
    number: u64,
}

impl Readers {
    /// Registers a transfer; to be called before the tree is read for it.
    pub fn begin(readers: &Arc<Readers>) -> Reading {
        let mut numbers = readers.numbers();
        let number = numbers.next;
        numbers.next += 1;
        numbers.running.insert(number);
        drop(numbers);
        Reading {
            readers: Arc::clone(readers),
            number,
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the oldest running transfer.
    fn oldest(&self) -> Option<u64> {
        self.numbers().running.first().copied()
    }

    /// Returns the number of the next transfer: running ones have smaller numbers.
    fn next(&self) -> u64 {
        self.numbers().next
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readers.numbers().running.remove(&self.number);
    }
}

/// Paths removed from a tree while transfers were reading it. Paths begin with a slash and end with
/// none.
#[derive(Debug, Default)]
pub struct RemovedPaths {
    readers: Arc<Readers>,
    /// The former use of each path, and the number of the first transfer that does not know it.
    paths: BTreeMap<Vec<u8>, (Usage, u64)>,
    /// The number of the first transfer that has not listed a removed path.
    all: u64,
}

impl RemovedPaths {
    /// Returns the state of a tree of which running transfers may know anything.
    pub fn new(readers: Arc<Readers>) -> RemovedPaths {
        RemovedPaths {
            all: readers.next(),
            readers,
            paths: BTreeMap::new(),
        }
    }

    /// Records that a path was removed, with everything below it.
    pub fn note(&mut self, path: &[u8], usage: Usage) {
        let Some(oldest) = self.oldest() else {
            return;
        };
        let next = self.readers.next();
        if self.paths.len() >= MAX_REMOVED {
            self.paths.retain(|_, (_, number)| oldest < *number);
        }
        if self.paths.len() >= MAX_REMOVED {
            self.all = next;
            self.paths.clear();
        }
        let known = self.paths.entry(path.to_vec()).or_insert((usage, next));
        *known = (usage.max(known.0), next);
    }

    /// Returns true if an object with this use may be placed at a free path of the tree: no running
    /// transfer has listed the path with a greater use.
    pub fn may_become(&mut self, path: &[u8], usage: Usage) -> bool {
        let Some(oldest) = self.oldest() else {
            return true;
        };
        let known = |path: &[u8]| {
            let (was, number) = self.paths.get(path)?;
            (oldest < *number).then_some(*was)
        };
        if known(path).is_some_and(|was| was > usage) {
            return false;
        }
        let is_listed = usage == Usage::Listed;
        let is_below = || {
            let mut around = paths::directories(path).skip(1);
            around.any(|directory| known(paths::bare(directory)) == Some(Usage::Entered))
        };
        // A file below a new directory can only have been an object that is not read.
        !(is_listed && (oldest < self.all || is_below()))
    }

    /// Returns the number of the oldest running transfer; if there is none, all paths are cleared.
    fn oldest(&mut self) -> Option<u64> {
        let oldest = self.readers.oldest();
        if oldest.is_none() {
            self.paths.clear();
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Usage::{Entered, Listed, Opened};

    fn tree() -> (Arc<Readers>, RemovedPaths) {
        let readers = Arc::new(Readers::default());
        (Arc::clone(&readers), RemovedPaths::new(readers))
    }

    #[test]
    fn a_path_never_becomes_less_than_a_running_transfer_knows() {
        for was in [Listed, Opened, Entered] {
            for becomes in [Listed, Opened, Entered] {
                let (readers, mut removed) = tree();
                removed.note(b"/p", was);
                assert!(removed.may_become(b"/p", becomes), "nobody reads");
                let old = Readers::begin(&readers);
                assert!(removed.may_become(b"/p", becomes), "removed before");
                removed.note(b"/p", was);
                let new = Readers::begin(&readers);
                let fits = becomes >= was;
                assert_eq!(removed.may_become(b"/p", becomes), fits);
                assert!(removed.may_become(b"/p2", becomes));
                drop(old);
                assert!(removed.may_become(b"/p", becomes), "only a new one reads");
                drop(new);
                assert!(removed.may_become(b"/p", becomes));
            }
        }
    }

    #[test]
    fn what_was_in_a_removed_directory_may_have_been_anything() {
        let (readers, mut removed) = tree();
        let _reading = Readers::begin(&readers);
        removed.note(b"/d", Entered);
        assert!(!removed.may_become(b"/d/e/l", Listed));
        assert!(removed.may_become(b"/d/e/f", Opened));
        assert!(removed.may_become(b"/d.x/l", Listed));
        removed.note(b"/f", Opened);
        assert!(removed.may_become(b"/f/l", Listed));
    }

    #[test]
    fn only_files_and_directories_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("f"), "").unwrap();
        std::os::unix::fs::symlink("f", at("l")).unwrap();
        let usage = |name: &str| Usage::of(&rustix::fs::lstat(at(name)).unwrap());
        assert_eq!(
            [usage("l"), usage("f"), usage("")],
            [Listed, Opened, Entered]
        );
    }

    #[test]
    fn the_most_that_was_known_counts() {
        let (readers, mut removed) = tree();
        let _reading = Readers::begin(&readers);
        removed.note(b"/p", Entered);
        removed.note(b"/p", Listed);
        assert!(!removed.may_become(b"/p", Opened));
    }

    #[test]
    fn too_many_removed_paths_hold_every_link() {
        let (readers, mut removed) = tree();
        let reading = Readers::begin(&readers);
        for number in 0..=MAX_REMOVED {
            removed.note(format!("/{number}").as_bytes(), Opened);
        }
        assert!(removed.paths.len() <= MAX_REMOVED);
        assert!(!removed.may_become(b"/other", Listed));
        assert!(removed.may_become(b"/other", Opened));
        let _later = Readers::begin(&readers);
        drop(reading);
        assert!(removed.may_become(b"/other", Listed));
    }

    #[test]
    fn a_tree_that_is_opened_while_something_reads_holds_links() {
        let readers = Arc::new(Readers::default());
        let reading = Readers::begin(&readers);
        let mut removed = RemovedPaths::new(Arc::clone(&readers));
        assert!(!removed.may_become(b"/l", Listed));
        drop(reading);
        assert!(removed.may_become(b"/l", Listed));
    }
}
