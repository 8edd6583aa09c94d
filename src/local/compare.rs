//! Compares whole directories: what differs is copied, and files on the target that are not in the
//! source are removed. The path of a directory is stored once, so neither depth nor descriptors
//! limit the tree.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::attributes;
use super::attributes::attributes_may_forbid;
use super::beneath::below;
use super::beneath::os;
use super::beneath::{self, FoundEntry, is_directory, is_missing, lookup};
use super::copy::stopped;
use super::mirror::{Mirror, unlink};
use super::walk::{Step, Walk};
use crate::paths;

/// Returns true if a target's file counts as a copy of the source's. If it does not, but might be
/// one, the contents are compared.
pub type Judge = fn(&Stat, &Stat) -> bool;

impl Mirror<'_> {
    /// Makes the contents of an existing directory of the target those of the source's.
    pub(super) fn compare(&mut self, top: &[u8], judge: Judge) {
        let mut walk = Walk::through(top);
        while let Some(step) = walk.step() {
            if step == Step::Leave {
                self.directories.remove(walk.path());
                self.finish_directory(walk.path());
                continue;
            }
            if self.is_stopped() {
                walk.stop();
                continue;
            }
            let path = walk.path().to_vec();
            let around = self.walked.replace(path.clone());
            if let Err(error) = self.compare_one(&path, judge, &mut walk) {
                // A path that has left the source meanwhile has an event of its own.
                match self.source.lookup(&path) {
                    Ok(None) => {}
                    _ => self.fail(&path, true, "compare", &error),
                }
            }
            self.walked = around;
        }
    }

    /// Makes the entries of a directory those of the source's, without what is below its
    /// subdirectories.
    pub(super) fn compare_level(&mut self, path: &[u8]) {
        self.memory.journal.touch_tree(path);
        if self.is_stopped() {
            return;
        }
        self.walked = Some(path.to_vec());
        // The walk that takes the subdirectories is dropped.
        let compared = self.compare_one(path, attributes::is_copy, &mut Walk::through(path));
        if let Err(error) = compared
            && !matches!(self.source.lookup(path), Ok(None))
        {
            self.fail(path, true, "compare", &error);
        }
        self.walked = None;
        self.changed_in(path);
    }

    fn compare_one(&mut self, path: &[u8], judge: Judge, walk: &mut Walk) -> io::Result<()> {
        // Nothing is removed unless the list of names is complete.
        let wanted = beneath::list(&self.source.directory(path)?)?;
        let there = beneath::list(&self.target.directory(path)?)?;
        let mut there: HashMap<Vec<u8>, FileType> = there
            .into_iter()
            .map(|found| (found.name, found.kind))
            .collect();
        for found in wanted {
            if self.is_stopped() {
                return Ok(());
            }
            self.orders.control.count_entry();
            let name = found.name.clone();
            let exists = there.contains_key(&name);
            if self.compare_name(path, found, exists, judge, walk) {
                there.remove(&name);
            }
        }
        if self.orders.delete && !self.adds_only {
            for (name, kind) in there {
                self.remove_name(path, FoundEntry { name, kind });
            }
        }
        Ok(())
    }

    /// Compares one name of a source's directory. `exists`: the target has it, too. Returns false
    /// if the source has only an excluded object there, so that the target is to have none.
    fn compare_name(
        &mut self,
        directory: &[u8],
        found: FoundEntry,
        exists: bool,
        judge: Judge,
        walk: &mut Walk,
    ) -> bool {
        let bare = below(directory, &found.name, false);
        let stat = match self.source.lookup(&bare) {
            Ok(Some(stat)) => stat,
            // Removed since the directory was read.
            Ok(None) => return true,
            Err(error) => {
                self.fail(&bare, false, "look at", &error);
                return true;
            }
        };
        let path = below(directory, &found.name, is_directory(&stat));
        if self.orders.excludes(&path) {
            return false;
        }
        let done = if is_directory(&stat) {
            self.make_directory(&path, &stat)
                .map(|_| walk.add(found.name))
        } else {
            self.compare_file(&bare, &stat, exists, judge)
        };
        if let Err(error) = done {
            let deep = is_directory(&stat);
            self.fail(&bare, deep, "bring", &error);
        }
        true
    }

    pub(super) fn compare_file(
        &mut self,
        path: &[u8],
        stat: &Stat,
        exists: bool,
        judge: Judge,
    ) -> io::Result<()> {
        let there = if exists {
            self.target.lookup(path)?
        } else {
            None
        };
        let Some(there) = there else {
            return self.put(path, stat);
        };
        if !self.is_same(path, stat, &there, judge)? {
            return self.put(path, stat);
        }
        self.keep_linked(path, stat, &there);
        if beneath::kind(stat) != FileType::RegularFile {
            return Ok(());
        }
        if !attributes::has_same_rights(stat, &there) {
            if !self.give(path)? {
                return self.put(path, stat);
            }
        } else if attributes::may_be_newer(stat, &there) {
            // Extended attributes may differ. The file itself has arrived.
            self.give(path)?;
        }
        Ok(())
    }

    /// Returns true if both objects are the same: links by their text, owner and time, pipes and
    /// devices by their kind.
    fn is_same(&self, path: &[u8], stat: &Stat, there: &Stat, judge: Judge) -> io::Result<bool> {
        if beneath::kind(stat) != beneath::kind(there) {
            return Ok(false);
        }
        match beneath::kind(stat) {
            FileType::RegularFile => Ok(judge(stat, there)
                || (attributes::is_copy(stat, there) && self.has_same_contents(path)?)),
            FileType::Symlink => {
                let owner = |stat: &Stat| (stat.st_uid, stat.st_gid);
                let keeps_owners = self.memory.copier.keeps_owners && geteuid().is_root();
                if stat.st_mtime != there.st_mtime || (keeps_owners && owner(stat) != owner(there))
                {
                    return Ok(false);
                }
                let read = |place: &beneath::Beneath| -> io::Result<_> {
                    let (parent, name) = place.parent(path)?;
                    Ok(fs::readlinkat(parent.as_fd(), name, Vec::new())?)
                };
                Ok(read(&self.source)? == read(&self.target)?)
            }
            _ => Ok(stat.st_rdev == there.st_rdev && attributes::has_same_rights(stat, there)),
        }
    }

    fn has_same_contents(&self, path: &[u8]) -> io::Result<bool> {
        let open = |place: &beneath::Beneath| -> io::Result<_> {
            let (parent, name) = place.parent(path)?;
            let file = File::from(beneath::open_file(&parent, name)?);
            Ok(BufReader::with_capacity(1 << 16, file))
        };
        let (mut source, mut target) = (open(&self.source)?, open(&self.target)?);
        loop {
            stopped(&self.orders.control)?;
            let (left, right) = (source.fill_buf()?, target.fill_buf()?);
            let length = left.len().min(right.len());
            if left[..length] != right[..length] || (length == 0 && left.len() != right.len()) {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
            source.consume(length);
            target.consume(length);
        }
    }

    /// Removes a name that the target is not to have, unless the filter protects it.
    fn remove_name(&mut self, directory: &[u8], found: FoundEntry) {
        let bare = below(directory, &found.name, false);
        let kind = match found.kind {
            FileType::Unknown => match self.target.lookup(&bare) {
                Ok(Some(stat)) => beneath::kind(&stat),
                Ok(None) => return,
                Err(error) => return self.fail(&bare, true, "look at", &error),
            },
            kind => kind,
        };
        let path = below(directory, &found.name, kind == FileType::Directory);
        if self.orders.protects(&path) {
            return;
        }
        let removed = match kind {
            FileType::Directory => self.remove_tree(&path).map(drop),
            _ => self
                .target
                .directory(directory)
                .and_then(|directory| unlink(&directory, os(&found.name))),
        };
        if let Err(error) = removed {
            self.fail(&bare, true, "remove", &error);
        }
    }

    /// Removes a directory of the target with everything below it, except what the filter protects
    /// and the directories that contain it. Returns true if nothing was left.
    pub(super) fn remove_tree(&mut self, top: &[u8]) -> io::Result<bool> {
        let mut walk = Walk::through(top);
        // The depth, and the number of directories on the path that contain something protected.
        let (mut depth, mut kept) = (0_usize, 0_usize);
        while let Some(step) = walk.step() {
            stopped(&self.orders.control)?;
            if step == Step::Enter {
                depth += 1;
                if self.clear_directory(&mut walk)? {
                    kept = depth;
                }
                continue;
            }
            let is_kept = kept == depth;
            depth -= 1;
            kept = kept.min(depth);
            match self.remove_directory(walk.path()) {
                Err(error) if is_missing(&error) => {}
                Err(error)
                    if is_kept && error.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error()) => {}
                done => done?,
            }
            if depth == 0 {
                self.changed_in(paths::split(top).0);
                return Ok(!is_kept);
            }
        }
        Ok(true)
    }

    /// Removes everything except directories from a directory of the target, and adds those to the
    /// walk. Returns true if something is protected.
    fn clear_directory(&mut self, walk: &mut Walk) -> io::Result<bool> {
        let path = walk.path().to_vec();
        let directory = match self.target.directory(&path) {
            Ok(directory) => directory,
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        attributes::open_up(&directory);
        let mut kept = false;
        for found in beneath::list(&directory)? {
            let is_tree = match found.kind {
                FileType::Unknown => {
                    lookup(&directory, os(&found.name))?.is_some_and(|found| is_directory(&found))
                }
                kind => kind == FileType::Directory,
            };
            if self.orders.protects(&below(&path, &found.name, is_tree)) {
                kept = true;
            } else if is_tree {
                walk.add(found.name);
            } else {
                unlink(&directory, os(&found.name))?;
            }
        }
        Ok(kept)
    }

    /// Removes an empty directory of the target.
    pub(super) fn remove_directory(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.target.parent(path)?;
        attributes_may_forbid(&parent, || {
            fs::unlinkat(parent.as_fd(), name, AtFlags::REMOVEDIR)
        })
    }
}
