//! Counts the directories of trees up to a limit, on threads that wake the loop.
//!
//! How a large tree is compared depends on its size.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use mio::Waker;
use rustix::fs::{CWD, statvfs};

use super::contents::{ContentsRead, open};
use crate::mount_table;
use crate::paths;
use crate::watch::scopes::Scopes;
use crate::watch::{Tell, TreeSize};

/// The number of directories at which counting ends.
const MAX_COUNTED: usize = 2000;
/// The mean number of entries in a directory that is assumed for whole file systems.
const ENTRIES_PER_DIRECTORY: usize = 16;

/// The sizes of trees, by their roots.
#[derive(Default)]
pub struct TreeCounts(HashMap<Vec<u8>, TreeCount>);

enum TreeCount {
    Counting(Receiver<TreeSize>),
    Known(TreeSize),
}

impl TreeCounts {
    /// Counts the directories of these trees. What is known of other trees is forgotten.
    pub fn set(&mut self, roots: &[Vec<u8>], scopes: &Scopes, waker: &Arc<Waker>) {
        self.0.retain(|root, _| roots.contains(root));
        for root in roots {
            if !self.0.contains_key(root) {
                let count = start(root, scopes.clone(), Arc::clone(waker));
                self.0.insert(root.clone(), count);
            }
        }
    }

    /// Takes in what has been counted.
    pub fn turn(&mut self) {
        for count in self.0.values_mut() {
            if let TreeCount::Counting(result) = count {
                match result.try_recv() {
                    Ok(size) => *count = TreeCount::Known(size),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => *count = TreeCount::Known(large(b"/")),
                }
            }
        }
    }

    /// Returns true while a tree is being counted.
    pub fn is_counting(&self) -> bool {
        let mut counts = self.0.values();
        counts.any(|count| matches!(count, TreeCount::Counting(_)))
    }

    /// Returns the size of a tree, if it is known.
    pub fn size(&self, root: &[u8]) -> Option<TreeSize> {
        match self.0.get(root) {
            Some(TreeCount::Known(size)) => Some(*size),
            _ => None,
        }
    }
}

/// Starts to count a tree. A tree that cannot be read has no directories. For a whole file system,
/// its number of files is used.
fn start(root: &[u8], scopes: Scopes, waker: Arc<Waker>) -> TreeCount {
    let size = large(root);
    let is_whole = || mount_table::is_file_system_root(&mount_table::read(), root);
    if size.directories > MAX_COUNTED && is_whole() {
        return TreeCount::Known(size);
    }
    let Ok(top) = open(&CWD, paths::bare(root)) else {
        return TreeCount::Known(TreeSize::default());
    };
    let (sender, result) = channel();
    let path = root.to_vec();
    let read = ContentsRead::new(top, path.clone(), Tell::Nobody, scopes);
    let count = move || {
        // Nobody waits if the root is not watched any more.
        let _ = sender.send(count(read, &path));
        let _ = waker.wake();
    };
    match thread::Builder::new().name("count".into()).spawn(count) {
        Ok(_) => TreeCount::Counting(result),
        Err(_) => TreeCount::Known(large(root)),
    }
}

fn count(mut read: ContentsRead, root: &[u8]) -> TreeSize {
    let mut size = TreeSize::default();
    while size.directories < MAX_COUNTED {
        match read.step(false, &mut |_| size.entries += 1) {
            Ok(false) => return size,
            Ok(true) | Err(_) => size.directories += 1,
        }
    }
    large(root)
}

/// Returns the size of the file system around a tree, which is an upper bound.
pub fn large(root: &[u8]) -> TreeSize {
    let system = statvfs(OsStr::from_bytes(root)).ok();
    let used = system.map_or(0, |system| system.f_files.saturating_sub(system.f_ffree));
    let entries = (used as usize).max(MAX_COUNTED);
    TreeSize {
        directories: (entries / ENTRIES_PER_DIRECTORY).max(MAX_COUNTED),
        entries,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all};

    use super::*;
    use crate::watch::Scope;

    #[test]
    fn the_directories_and_entries_of_a_tree_are_counted() {
        let top = tempfile::tempdir().unwrap();
        create_dir_all(top.path().join("a/b")).unwrap();
        create_dir_all(top.path().join("c")).unwrap();
        File::create(top.path().join("a/f")).unwrap();
        let root = [top.path().as_os_str().as_bytes(), b"/"].concat();
        let scope = Scope {
            root: root.clone(),
            wants: Arc::new(|_| true),
        };
        let scopes = Scopes::new(vec![scope]);
        let mut poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut counts = TreeCounts::default();
        assert!(!counts.is_counting());
        counts.set(std::slice::from_ref(&root), &scopes, &waker);
        let mut events = mio::Events::with_capacity(1);
        assert!(counts.is_counting() && counts.size(&root).is_none());
        while counts.is_counting() {
            poll.poll(&mut events, None).unwrap();
            counts.turn();
        }
        let size = TreeSize {
            directories: 4,
            entries: 4,
        };
        assert_eq!(counts.size(&root), Some(size));
        assert_eq!(counts.size(b"/other/"), None);
        counts.set(&[], &scopes, &waker);
        assert_eq!(counts.size(&root), None);
        // More directories than are counted.
        let large = large(&root);
        assert!(large.directories >= MAX_COUNTED && large.entries >= MAX_COUNTED);
    }
}
