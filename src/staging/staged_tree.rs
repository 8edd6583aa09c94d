//! The staged tree: the approved part of the source.
//!
//! A private directory (mode 0700) contains
//!
//! | name | contents |
//! |---|---|
//! | `tree/` | the files that rsync reads |
//! | `incoming/` | copies that are being checked, under their own names |
//! | `rules` | the checks by which the tree was made; a tree made by others is not reused |
//! | `lock` | locked while a daemon works here |
//!
//! The source is read without following a symlink. Copies are reflinks where the file system
//! supports them.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use rustix::fs::{self, Stat};

use super::incoming::Incoming;
use super::readers::{Readers, RemovedPaths, Usage};
use super::removal;
use super::request::{Collected, ScanScope};
use super::staging_dir::Private;
use super::verdict_cache::VerdictCache;
use crate::filter::Filter;
use crate::local::attributes;
use crate::local::beneath::{self, Beneath, OpenDir};
use crate::local::copy::{Copier, stopped};
use crate::log;
use crate::paths;

/// The directories of a gate, and the rules for comparison.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The source, an absolute path.
    pub source: Vec<u8>,
    /// The private directory, absolute, without trailing slash.
    pub staging: Vec<u8>,
    /// A text that identifies the checks; `None` if no text can identify them.
    pub rules: Option<Vec<u8>>,
    /// True if contents are compared where size and time agree.
    pub checksum: bool,
    /// The transfers that read the tree.
    pub readers: Arc<Readers>,
    /// Sources and targets of all syncs, which must not be inside the directories that are emptied.
    pub configured: Vec<Vec<u8>>,
}

/// The staged tree of one gate.
pub struct StagedTree {
    pub(super) layout: Layout,
    pub(super) source: Beneath,
    pub(super) tree: Beneath,
    pub(super) incoming: Incoming,
    pub(super) verdicts: VerdictCache,
    pub(super) copier: Copier,
    /// Directories of the tree whose attributes are set at the end of the pass.
    pub(super) touched: BTreeSet<Vec<u8>>,
    /// Paths to be removed from the tree at the end, after renamed files have been compared with
    /// it.
    pub(super) doomed: Vec<Vec<u8>>,
    /// Paths removed while transfers were reading.
    pub(super) removed: RemovedPaths,
    /// Directories that were compared with everything below them in this pass.
    /// They end with a slash.
    pub(super) compared: BTreeSet<Vec<u8>>,
    /// Directories that were found in the source and made in the tree in this pass, with those
    /// above them. They end with a slash.
    pub(super) present: HashSet<Vec<u8>>,
    /// Files that were copied in this pass.
    pub(super) copied: HashSet<Vec<u8>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) private: Private,
}

impl StagedTree {
    /// Opens the private directory and creates it if necessary.
    ///
    /// # Errors
    /// Returns the reason: it cannot be created, belongs to another user, or another daemon works
    /// there; or the source cannot be opened.
    pub fn open(layout: Layout, stop: Arc<AtomicBool>) -> Result<StagedTree, String> {
        let shown = log::escape(&layout.staging).into_owned();
        let failed = |error: io::Error| format!("cannot use {shown}: {error}");
        let private = Private::enter(&layout.staging)?;
        let tree = private.open_dir("tree").map_err(failed)?;
        let incoming = private.open_dir("incoming").map_err(failed)?;
        let source = Beneath::enter(&layout.source)
            .map_err(|error| format!("cannot enter {}: {error}", log::escape(&layout.source)))?;
        let named = layout.configured.iter();
        let inside = named.filter(|path| is_within(&layout.staging, path));
        let mut inside: Vec<&Vec<u8>> = inside.collect();
        if private.is_around(&source).map_err(failed)? {
            inside.push(&layout.source);
        }
        if let Some(path) = inside.first() {
            let path = log::escape(path);
            return Err(format!(
                "{shown} would be emptied, but contains {path}: set check.staging to another \
                 directory"
            ));
        }
        if layout.rules.is_none() || private.read("rules") != layout.rules {
            private.forget("rules");
            private.empty(&tree).map_err(failed)?;
            if let Some(text) = &layout.rules {
                private.write("rules", text).map_err(failed)?;
            }
        }
        Ok(StagedTree {
            removed: RemovedPaths::new(Arc::clone(&layout.readers)),
            incoming: Incoming::new(incoming, &layout.staging),
            layout,
            source,
            tree,
            verdicts: VerdictCache::default(),
            copier: Copier::default(),
            touched: BTreeSet::new(),
            doomed: Vec::new(),
            compared: BTreeSet::new(),
            present: HashSet::new(),
            copied: HashSet::new(),
            stop,
            private,
        })
    }

    /// Examines the source: files that need no check are moved to the tree, others are copied
    /// aside.
    ///
    /// # Errors
    /// The source is not the expected directory (`home`: its device and inode) or cannot be read,
    /// the private directory cannot be used, or the daemon is shutting down.
    pub fn collect(
        &mut self,
        look: ScanScope,
        filter: &RwLock<Filter>,
        root_identity: Option<(u64, u64)>,
    ) -> io::Result<Collected> {
        // The source may be another directory than last time, at the same path.
        self.source = Beneath::enter(&self.layout.source)?;
        let numbers = |stat: Stat| (stat.st_dev, stat.st_ino);
        if root_identity.is_some() && self.source.lookup(b"/")?.map(numbers) != root_identity {
            return Err(io::Error::other("the source is another directory"));
        }
        self.tree.forget();
        self.copied.clear();
        self.compared.clear();
        self.present.clear();
        self.incoming.empty(&self.private)?;
        let mut found = Collected::default();
        match look {
            ScanScope::Everything => {
                self.subtree(b"/", filter, &mut found)?;
            }
            ScanScope::At(mentions) => {
                for (path, mention) in mentions {
                    stopped(&self.stop)?;
                    let done = self.sync_path(&path, mention, filter, &mut found);
                    self.note(done, &path, &mut found)?;
                }
            }
        }
        for path in std::mem::take(&mut self.doomed) {
            let done = self.remove(&path);
            self.note(done, &path, &mut found)?;
        }
        self.finish_directories();
        self.copied = HashSet::new();
        self.compared = BTreeSet::new();
        self.present = HashSet::new();
        Ok(found)
    }

    /// Returns true if the private directory is still at its path: another process may have removed
    /// it.
    pub fn is_in_place(&self) -> bool {
        let is_at = |place: &Beneath, name: &str| {
            let path = [self.layout.staging.as_slice(), name.as_bytes()].concat();
            let there = fs::lstat(OsStr::from_bytes(&path)).ok();
            let open = place.lookup(b"/").ok().flatten();
            let numbers = |stat: &Stat| (stat.st_dev, stat.st_ino);
            open.is_some() && open.as_ref().map(numbers) == there.as_ref().map(numbers)
        };
        is_at(&self.tree, "/tree") && is_at(self.incoming.directory(), "/incoming")
    }

    /// Records an error of one path, so that the work continues with others. Returns other errors.
    pub(super) fn note(
        &self,
        done: io::Result<()>,
        path: &[u8],
        found: &mut Collected,
    ) -> io::Result<()> {
        if let Err(error) = done {
            stopped(&self.stop)?;
            found.failures.push((path.to_vec(), error.to_string()));
        }
        Ok(())
    }

    /// Returns the directory of the tree in which `path` is created, changed or removed.
    pub(super) fn above<'p>(&mut self, path: &'p [u8]) -> io::Result<(OpenDir, &'p OsStr)> {
        self.touched.insert(paths::split(path).0.to_vec());
        self.tree.parent(path)
    }

    pub(super) fn finish_directories(&mut self) {
        self.tree.forget();
        for path in std::mem::take(&mut self.touched) {
            let (Ok(source), Ok(staged)) =
                (self.source.directory(&path), self.tree.directory(&path))
            else {
                continue;
            };
            // A directory that is removed meanwhile has an event of its own.
            if let Ok(stat) = fs::fstat(source.as_fd()) {
                let _ = attributes::give(source.as_fd(), &stat, staged.as_fd());
            }
        }
    }

    pub(super) fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        self.tree.forget();
        self.present.clear();
        let aside = self.incoming.directory().directory(b"/")?;
        match self.above(path) {
            Ok((directory, name)) => {
                let was = beneath::lookup(&directory, name)?;
                let done = removal::remove(&directory, name, &aside);
                if let Some(was) = was {
                    self.removed.note(path, Usage::of(&was));
                }
                done
            }
            Err(error) if beneath::is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Returns true if a path is equal to a directory or below it, by their names.
fn is_within(directory: &[u8], path: &[u8]) -> bool {
    paths::below(path, directory).is_some()
}

#[cfg(test)]
#[path = "staged_tree_tests.rs"]
mod tests;
