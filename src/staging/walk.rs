//! Updates the staged tree from the source: directories, links and entries without checks at once,
//! and files whose verdict is known.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::os::fd::AsFd;
use std::sync::{PoisonError, RwLock};

use rustix::fs::{self, FileType, Mode, Stat};
use rustix::io::Errno;

use super::request::{Collected, ScanPath};
use super::staged_tree::StagedTree;
use crate::filter::Filter;
use crate::local::attributes::attributes_may_forbid;
use crate::local::beneath::{self, is_directory, kind};
use crate::local::copy::{Copied, stopped};
use crate::paths;

/// The maximum length of a path in rsync (`MAXPATHLEN`); deeper files are never sent.
const MAX_PATH: usize = 4096;

impl StagedTree {
    /// Brings the tree in line with the source at one path; with `deep` set, below it as well.
    pub(super) fn sync_path(
        &mut self,
        path: &[u8],
        mention: ScanPath,
        filter: &RwLock<Filter>,
        found: &mut Collected,
    ) -> io::Result<()> {
        let Some(stat) = self.source.lookup(path)? else {
            self.doomed.push(path.to_vec());
            found.gone.push(path.to_vec());
            return Ok(());
        };
        if !self.has_parents(path)? {
            return Ok(());
        }
        if !is_directory(&stat) {
            // If a directory was here, its contents are gone.
            let bare = paths::bare(path);
            found.compared.push(bare.to_vec());
            return self.single(path, &stat, mention.written, found);
        }
        let new = self.directory(path)?;
        found.clear.push(path.to_vec());
        if (new || mention.deep) && !self.is_compared(path) {
            self.subtree(path, filter, found)
        } else {
            Ok(())
        }
    }

    /// Returns true if this directory, or one above it, has been compared with everything below it.
    fn is_compared(&self, path: &[u8]) -> bool {
        let path = paths::with_slash(path);
        // No entry is below another one, so only the last entry before the path can contain it.
        let mut before = self
            .compared
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(path.as_slice())));
        before
            .next_back()
            .is_some_and(|other| path.starts_with(other))
    }

    fn set_compared(&mut self, path: &[u8]) {
        let top = paths::with_slash(path);
        let below = self
            .compared
            .range::<[u8], _>((Bound::Included(top.as_slice()), Bound::Unbounded));
        let below = below.take_while(|other| other.starts_with(&top));
        for other in below.cloned().collect::<Vec<_>>() {
            self.compared.remove(&other);
        }
        self.compared.insert(top);
    }

    /// Compares everything in a directory that is in the tree already.
    ///
    /// # Errors
    /// The daemon is shutting down, or the source itself cannot be read.
    pub(super) fn subtree(
        &mut self,
        path: &[u8],
        filter: &RwLock<Filter>,
        found: &mut Collected,
    ) -> io::Result<()> {
        let top = paths::bare(path);
        self.set_compared(top);
        found.compared.push(top.to_vec());
        let mut open = vec![paths::with_slash(top)];
        while let Some(directory) = open.pop() {
            stopped(&self.stop)?;
            match self.level(&directory, filter, &mut open, found) {
                Err(error) if beneath::is_missing(&error) && directory != b"/" => {}
                Err(error) if directory == b"/" => return Err(error),
                done => self.note(done, &directory, found)?,
            }
        }
        Ok(())
    }

    /// Compares the entries of one directory; subdirectories are added to `open`. Entries that
    /// cannot be examined stay as they are in the tree.
    fn level(
        &mut self,
        directory: &[u8],
        filter: &RwLock<Filter>,
        open: &mut Vec<Vec<u8>>,
        found: &mut Collected,
    ) -> io::Result<()> {
        if directory.len() > MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.touched.insert(directory.to_vec());
        let entries = self.source.directory(directory);
        let mut names = BTreeSet::new();
        for entry in entries.and_then(|directory| beneath::list(&directory))? {
            let below = [directory, &entry.name].concat();
            let stat = match self.source.lookup(&below) {
                Ok(Some(stat)) => stat,
                Ok(None) => continue,
                Err(error) => {
                    names.insert(entry.name);
                    self.note(Err(error), &below, found)?;
                    continue;
                }
            };
            let is_directory = is_directory(&stat);
            let tested = if is_directory {
                paths::with_slash(&below)
            } else {
                below.clone()
            };
            if excluded(filter, &tested) {
                continue;
            }
            names.insert(entry.name);
            let done = if is_directory {
                self.directory(&below).map(|_| open.push(tested))
            } else {
                self.single(&below, &stat, false, found)
            };
            self.note(done, &below, found)?;
        }
        let staged = self.tree.directory(directory);
        let staged = staged.and_then(|directory| beneath::list(&directory))?;
        let extra = staged.into_iter().map(|entry| entry.name);
        let extra = extra.filter(|name| !names.contains(name));
        let extra = extra.map(|name| [directory, &name].concat());
        // A file system that was mounted there is unmounted, and its files are not deleted.
        let filter = filter.read().unwrap_or_else(PoisonError::into_inner);
        let lost = extra.filter(|path| !filter.holds(&paths::with_slash(path)));
        self.doomed.extend(lost);
        Ok(())
    }

    /// Creates the directories above a path. Returns false if one of them is not a directory any more,
    /// which another event reports.
    fn has_parents(&mut self, path: &[u8]) -> io::Result<bool> {
        let above = paths::directories(paths::bare(path)).rev();
        let is_unknown =
            |directory: &&[u8]| *directory != b"/" && !self.present.contains(*directory);
        let unknown: Vec<&[u8]> = above.take_while(is_unknown).collect();
        for directory in unknown.into_iter().rev() {
            match self.source.lookup(paths::bare(directory))? {
                Some(stat) if is_directory(&stat) => self.directory(directory)?,
                _ => return Ok(false),
            };
            self.present.insert(directory.to_vec());
        }
        Ok(true)
    }

    /// Makes this path a directory of the tree. Returns true if it is new.
    fn directory(&mut self, path: &[u8]) -> io::Result<bool> {
        let path = paths::bare(path);
        self.touched.insert(paths::with_slash(path));
        if path.is_empty() {
            return Ok(false);
        }
        match self.tree.lookup(path)? {
            Some(stat) if is_directory(&stat) => return Ok(false),
            Some(_) => self.remove(path)?,
            None => {}
        }
        let (directory, name) = self.above(path)?;
        attributes_may_forbid(&directory, || {
            fs::mkdirat(directory.as_fd(), name, Mode::RWXU)
        })?;
        Ok(true)
    }

    /// Handles an object that is not a directory.
    fn single(
        &mut self,
        path: &[u8],
        stat: &Stat,
        written: bool,
        found: &mut Collected,
    ) -> io::Result<()> {
        if kind(stat) == FileType::RegularFile {
            return self.file(path, stat, written, found);
        }
        let (directory, name) = self.source.parent(path)?;
        // Created aside, as a transfer may be reading the tree.
        let (aside, copy) = self.incoming.place_for(name)?;
        match self.copy_to(&aside, &directory, name, stat) {
            // Only the superuser may create devices; rsync would not send them either.
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {}
            Err(error) => return Err(error),
            Ok(Copied::Vanished) => {}
            Ok(Copied::Done) => self.rename_into_tree(path, &copy)?,
        }
        found.clear.push(path.to_vec());
        Ok(())
    }
}

fn excluded(filter: &RwLock<Filter>, path: &[u8]) -> bool {
    let filter = filter.read().unwrap_or_else(PoisonError::into_inner);
    filter.excluded(path)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
