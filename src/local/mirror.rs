//! Carries out one job: applies each event to the target.
//!
//! The rule is [`Mirror::sync_path`]: the target's path becomes equal to the source's, whatever the
//! event said. Only a Move is carried out as a rename, because that makes it cheap.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode, Stat};
use rustix::io::Errno;

use super::attributes::attributes_may_forbid;
use super::beneath::{Beneath, OpenDir, is_directory, is_missing, lookup, open_file, typed};
use super::copy::{Copied, Copier, TargetName};
use super::copy_control::StopCheck;
use super::deletions;
use super::links::HardLinks;
use super::touched_paths::TouchedPaths;
use super::{CopyFailure, CopyItem, CopyJob, CopyReport, CopyTask, attributes};
use crate::batch::Change;
use crate::log::escape;
use crate::paths;

/// The maximum length of a path in an event: watches are set by path.
const MAX_EVENT_PATH: usize = 4096;

/// The state that a worker keeps from one job to the next.
#[derive(Default)]
pub struct Memory {
    pub(super) journal: TouchedPaths,
    pub(super) links: HardLinks,
    pub(super) copier: Copier,
    /// The number of entries of the target at least, if known.
    entries: Option<u64>,
}

/// A job in progress.
pub struct Mirror<'a> {
    pub(super) orders: &'a CopyJob,
    pub(super) source: Beneath,
    pub(super) target: Beneath,
    pub(super) memory: &'a mut Memory,
    pub(super) report: CopyReport,
    /// Directories whose own attributes are set last: filling them changes their times, and a
    /// read-only one could not be filled.
    pub(super) directories: BTreeSet<Vec<u8>>,
    /// The directory that is being compared: its attributes are set when it is done.
    pub(super) walked: Option<Vec<u8>>,
    /// Files that were copied since this job began. Events of them are older.
    pub(super) fresh: HashSet<Vec<u8>>,
    /// Directories that were compared with their contents since this job began, with their slashes.
    /// Events below them are older.
    pub(super) compared: HashSet<Vec<u8>>,
    /// True if comparisons delete nothing, for the present event.
    pub(super) adds_only: bool,
}

/// Carries out a job.
pub fn run_job(orders: &CopyJob, memory: &mut Memory) -> CopyReport {
    let entered = enter_source(orders)
        .map_err(|error| closed("read", &orders.source, &error))
        .and_then(|source| match Beneath::enter_or_make(&orders.target) {
            Ok(target) => Ok((source, target)),
            Err(error) => Err(closed("enter", &orders.target, &error)),
        });
    let (source, target) = match entered {
        Ok(places) => places,
        Err(report) => return report,
    };
    if orders.renames_applied {
        memory.journal.clear();
    }
    match deletions::excess(orders, &mut memory.entries, &source, &target) {
        Ok(None) => {}
        Ok(excess) => {
            return CopyReport {
                excess,
                ..CopyReport::default()
            };
        }
        Err(error) => {
            return CopyReport {
                is_stopped: orders.control.is_stopped(),
                ..closed("count what would be deleted in", &orders.target, &error)
            };
        }
    }
    let mut mirror = Mirror {
        orders,
        source,
        target,
        memory,
        report: CopyReport::default(),
        directories: BTreeSet::new(),
        walked: None,
        fresh: HashSet::new(),
        compared: HashSet::new(),
        adds_only: false,
    };
    match &orders.task {
        CopyTask::Everything => {
            mirror.memory.journal.touch_tree(b"/");
            mirror.compare(b"/", attributes::is_copy);
            if !mirror.is_stopped() {
                mirror.memory.links.searched();
            }
        }
        CopyTask::Directories(directories) => {
            for directory in directories {
                mirror.compare_level(directory);
            }
        }
        CopyTask::Events(items) => {
            for items in items.split_inclusive(|item| item.to.is_some()) {
                mirror.handle_all(items);
            }
            if !mirror.is_stopped() {
                mirror.compare_names_of_lost(items);
            }
        }
    }
    mirror.finish();
    mirror.report.is_stopped = mirror.is_stopped();
    mirror.report
}

fn enter_source(orders: &CopyJob) -> io::Result<Beneath> {
    let source = Beneath::enter(&orders.source)?;
    let found = fs::fstat(source.directory(b"/")?.as_fd())?;
    let is_same = |numbers| numbers == (found.st_dev, found.st_ino);
    match orders.source_numbers.is_none_or(is_same) {
        true => Ok(source),
        false => Err(io::Error::other("it is another directory")),
    }
}

fn closed(what: &str, path: &[u8], error: &io::Error) -> CopyReport {
    CopyReport {
        closed: Some(format!("cannot {what} {}: {error}", escape(path))),
        ..CopyReport::default()
    }
}

impl Mirror<'_> {
    /// Handles events of which only the last one may be a Move. A tree that was removed and made
    /// again is compared first: its Deletes come from the bottom to the top, and each of them would
    /// compare what is below it.
    fn handle_all(&mut self, items: &[CopyItem]) {
        let trees = deletions::trees(items);
        for tree in &trees {
            if !self.is_stopped() {
                self.adds_only = false;
                self.sync_path(tree, true);
            }
        }
        for item in items {
            if self.is_stopped() {
                return;
            }
            if item.change != Change::Delete || !trees.contains(paths::bare(&item.path)) {
                self.handle(item);
            }
        }
    }

    fn handle(&mut self, item: &CopyItem) {
        let path = &item.path;
        self.adds_only = self.orders.keeps_others && item.change != Change::Delete;
        match (item.change, &item.to) {
            (_, Some(to)) => self.rename(path, to),
            _ if self.is_compared(path) => {}
            (Change::Delete, _) => self.sync_path(path, true),
            _ if self.fresh.contains(path) => {}
            (Change::Attrib, _) if !path.ends_with(b"/") => self.sync_attributes(path),
            _ => self.sync_path(path, false),
        }
    }

    /// Returns true if this path is in a directory that was compared since this job began.
    fn is_compared(&self, path: &[u8]) -> bool {
        !self.compared.is_empty()
            && paths::directories(path).any(|directory| self.compared.contains(directory))
    }

    /// Makes the target's path equal to the source's; with `deep`, a directory with everything
    /// below it. A path that does not exist in the source is removed with `deep` only: otherwise
    /// its event is still pending and may be a Move.
    pub(super) fn sync_path(&mut self, path: &[u8], deep: bool) {
        if deep {
            self.memory.journal.touch_tree(path)
        } else {
            self.memory.journal.touch(path)
        }
        if let Err(error) = self.try_sync_path(path, deep) {
            self.fail(path, deep, "bring", &error);
        }
    }

    fn try_sync_path(&mut self, path: &[u8], deep: bool) -> io::Result<()> {
        if is_root(path) {
            self.directories.insert(b"/".to_vec());
            if deep {
                self.compare(b"/", attributes::is_copy);
            }
            return Ok(());
        }
        let Some(stat) = self.source.lookup(path)? else {
            // The time of the directory has changed, even if the target never had the path.
            self.changed_in(paths::split(path).0);
            return if deep { self.remove(path) } else { Ok(()) };
        };
        // Rules may exclude one kind of file only.
        if self.orders.excludes(&typed(path, &stat)) {
            return if deep { self.remove(path) } else { Ok(()) };
        }
        if let Some(above) = self.missing_parent(path)? {
            self.sync_path(&above, true);
            return Ok(());
        }
        if !is_directory(&stat) {
            return self.put(paths::bare(path), &stat);
        }
        let replaced = self.make_directory(path, &stat)?;
        // It may be another directory than before, or the same one again.
        self.changed_in(paths::split(path).0);
        self.directories.insert(paths::with_slash(path));
        if deep || replaced {
            let failures = self.report.failures.len();
            let top = paths::with_slash(path);
            self.compare(&top, attributes::is_proven_copy);
            // Files that are to be deleted in it may have events of their own.
            let is_equal = self.report.failures.len() == failures && !self.adds_only;
            if is_equal && !self.is_stopped() {
                self.compared.insert(top);
            }
        }
        Ok(())
    }

    /// Returns the topmost directory above a path that is not a directory on the target.
    fn missing_parent(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self.target.parent(path) {
            Ok(_) => return Ok(None),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
        let (above, _) = paths::split(path);
        for directory in paths::directories(above).skip(1) {
            let found = self.target.lookup(paths::bare(directory))?;
            if !found.is_some_and(|found| is_directory(&found)) {
                return Ok(Some(directory.to_vec()));
            }
        }
        Ok(None)
    }

    /// Creates a directory on the target, without its contents. Returns true if another object had
    /// to be removed.
    pub(super) fn make_directory(&mut self, path: &[u8], stat: &Stat) -> io::Result<bool> {
        let (parent, name) = self.target.parent(path)?;
        let found = lookup(&parent, name)?;
        if found.is_some_and(|found| is_directory(&found)) {
            return Ok(false);
        }
        if found.is_some() {
            unlink(&parent, name)?;
        }
        attributes_may_forbid(&parent, || fs::mkdirat(parent.as_fd(), name, Mode::RWXU))?;
        self.target.forget_at(path);
        // Users can enter it from now on, not only when the job is done.
        let made = parent.enter(name.as_bytes())?;
        let (above, _) = self.source.parent(path)?;
        if let Ok(source) = above.enter(name.as_bytes()) {
            let mut stat = *stat;
            stat.st_mode |= 0o700;
            let copier = &self.memory.copier;
            copier.give(source.as_fd(), &stat, made.as_fd())?;
        }
        self.changed_in(paths::split(path).0);
        Ok(found.is_some())
    }

    /// Copies a file, link, pipe, socket or device, or gives an existing copy another name.
    pub(super) fn put(&mut self, path: &[u8], stat: &Stat) -> io::Result<()> {
        self.make_way(path)?;
        self.changed_in(paths::split(path).0);
        let linked = self.memory.links.note(stat, path);
        if linked && self.link_to_fresh(path, stat)? {
            self.fresh.insert(path.to_vec());
            return Ok(());
        }
        let (from, name) = self.source.parent(path)?;
        let (to, _) = self.target.parent(path)?;
        let from = TargetName {
            directory: &from,
            name,
        };
        let to = TargetName {
            directory: &to,
            name,
        };
        let copier = &mut self.memory.copier;
        match copier.copy(&from, stat, &to, &self.orders.control)? {
            Copied::Vanished => return Ok(()),
            Copied::Done => {}
        }
        // Only later events and other names query this.
        if linked || matches!(self.orders.task, CopyTask::Events(_)) && path.len() <= MAX_EVENT_PATH
        {
            self.fresh.insert(path.to_vec());
        }
        if linked {
            self.relink_others(path, stat);
            self.find_names(stat);
        }
        Ok(())
    }

    /// Removes a directory in place of a file, as far as deleting is allowed. Like rsync, it always
    /// removes an empty one.
    fn make_way(&mut self, path: &[u8]) -> io::Result<()> {
        let found = self.target.lookup(path)?;
        if !found.is_some_and(|found| is_directory(&found)) {
            return Ok(());
        }
        if !self.orders.delete {
            return self.remove_directory(path);
        }
        match self.remove_tree(&paths::with_slash(path))? {
            true => Ok(()),
            false => Err(Errno::NOTEMPTY.into()),
        }
    }

    /// Removes a path from the target that does not exist in the source or is excluded, if the sync
    /// deletes and the filter does not protect it.
    pub(super) fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        if !self.orders.delete || is_root(path) {
            return Ok(());
        }
        let (parent, name) = match self.target.parent(path) {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(found) = lookup(&parent, name)? else {
            return Ok(());
        };
        if self.orders.protects(&typed(path, &found)) {
            return Ok(());
        }
        if is_directory(&found) {
            drop(parent);
            self.remove_tree(&paths::with_slash(path))?;
        } else {
            unlink(&parent, name)?;
        }
        self.changed_in(paths::split(path).0);
        Ok(())
    }

    /// Updates mode, owner and times of a file whose contents are current.
    fn sync_attributes(&mut self, path: &[u8]) {
        match self.try_attributes(path) {
            Ok(true) => {}
            Ok(false) => self.sync_path(path, false),
            Err(error) => self.fail(path, false, "set the attributes of", &error),
        }
    }

    fn try_attributes(&mut self, path: &[u8]) -> io::Result<bool> {
        let (Some(stat), Some(found)) = (self.source.lookup(path)?, self.target.lookup(path)?)
        else {
            return Ok(false);
        };
        if !attributes::is_copy(&stat, &found) {
            return Ok(false);
        }
        if self.memory.links.note(&stat, path) {
            self.find_names(&stat);
        }
        self.give(path)
    }

    /// Sets the attributes of an existing copy. Returns false if the file must be copied instead:
    /// source or copy cannot be opened, the owner changes, or only the copy has other names. The
    /// owner of an existing file is never changed, because it may be another user's hard link, or a
    /// user may have it open for writing.
    pub(super) fn give(&self, path: &[u8]) -> io::Result<bool> {
        let open = |place: &Beneath| -> io::Result<_> {
            let (parent, name) = place.parent(path)?;
            Ok(open_file(&parent, name)?)
        };
        let (Ok(source), Ok(target)) = (open(&self.source), open(&self.target)) else {
            return Ok(false);
        };
        // The opened file may not be the one that was examined.
        let (wanted, now) = (fs::fstat(&source)?, fs::fstat(&target)?);
        let changes_owner = now.st_uid != wanted.st_uid
            && self.memory.copier.keeps_owners
            && rustix::process::geteuid().is_root();
        // Another name of it may be in a directory of another user.
        let has_other_names = now.st_nlink > 1 && wanted.st_nlink == 1;
        if changes_owner || has_other_names || !attributes::is_copy(&wanted, &now) {
            return Ok(false);
        }
        let copier = &self.memory.copier;
        copier.give(source.as_fd(), &wanted, target.as_fd())?;
        Ok(true)
    }

    /// Records that a directory of the target was changed, so that its own attributes are set
    /// again.
    pub(super) fn changed_in(&mut self, directory: &[u8]) {
        if self.walked.as_deref() != Some(directory) {
            self.directories.insert(paths::with_slash(directory));
        }
    }

    /// Sets the attributes of directories, the deepest first.
    fn finish(&mut self) {
        for path in std::mem::take(&mut self.directories).iter().rev() {
            self.finish_directory(path);
        }
        self.report.unset = self.memory.copier.unset.take();
    }

    /// Copies the attributes of the source's directory to the target's.
    pub(super) fn finish_directory(&mut self, path: &[u8]) {
        let both = (self.source.directory(path), self.target.directory(path));
        let (Ok(source), Ok(target)) = both else {
            // It is gone, and its event is still to come.
            return;
        };
        let stat = fs::fstat(source.as_fd()).map_err(io::Error::from);
        let copier = &self.memory.copier;
        let give = |stat| copier.give(source.as_fd(), &stat, target.as_fd());
        if let Err(error) = stat.and_then(give) {
            self.fail(path, false, "set the attributes of", &error);
        }
    }

    /// Returns true if the daemon is shutting down.
    pub(super) fn is_stopped(&self) -> bool {
        self.orders.control.is_stopped()
    }

    /// Records a failed path, to be retried.
    pub(super) fn fail(&mut self, path: &[u8], deep: bool, what: &str, error: &io::Error) {
        if self.is_stopped() {
            return;
        }
        let path = if deep {
            paths::with_slash(path)
        } else {
            path.to_vec()
        };
        let reason = format!("cannot {what} {}: {error}", escape(&path));
        let obstructed = error.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error());
        self.report.failures.push(CopyFailure {
            path,
            reason,
            obstructed,
        });
    }
}

/// Removes an object that is not a directory.
pub(super) fn unlink(directory: &OpenDir, name: &OsStr) -> io::Result<()> {
    let unlink = || fs::unlinkat(directory.as_fd(), name, AtFlags::empty());
    match attributes_may_forbid(directory, unlink) {
        Err(error) if is_missing(&error) => Ok(()),
        result => result,
    }
}

pub(super) fn is_root(path: &[u8]) -> bool {
    path.iter().all(|&byte| byte == b'/')
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
