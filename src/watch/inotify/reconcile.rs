//! Corrects the tree by comparison with the disk, name by name.
//!
//! The only query is "which directory has this name in this directory?". It sets a watch at the
//! path and compares the descriptor. The answer is valid only if the directory's own path leads to
//! the directory, checked the same way. The tree becomes correct because a root's path is known;
//! every change of a name in a directory with a valid path raises an event; and the last event of
//! each name is answered by a valid query, at once or, as a recheck, as soon as the path above has
//! become valid.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::InotifyBackend;
use super::records::vanished;
use super::tree::{DirNode, Flags};
use crate::paths;
use crate::watch::{Event, Loss, Observer, Tell};

/// A query that has to be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recheck {
    pub node: DirNode,
    /// The node's descriptor, which identifies it.
    pub wd: i32,
    pub what: RecheckTarget,
}

/// The part of a node that is rechecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecheckTarget {
    /// The subdirectory of this name.
    Name(Vec<u8>),
    /// The file of this name.
    File(Vec<u8>),
    /// All its contents: it could not be read at its expected path.
    Contents { tell: Tell },
    /// The subdirectories that no scope wanted under the directory's former path.
    Skipped,
}

/// The reason for checking a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An event reported a new directory there; it is reported to observers in any case.
    Arrival,
    /// An event reported that it is gone, with the reason; observers have been informed.
    Departure(Loss),
    /// A recheck.
    Recheck,
}

/// The result of querying a name.
enum DirState {
    Directory(i32),
    Nothing,
    /// The path of the parent directory does not lead to it.
    ParentMoved,
}

/// The node of a directory after it was placed in the tree.
pub enum WatchPlaced {
    /// At its former place.
    Same(DirNode),
    /// Here; it was elsewhere or unknown before.
    New(DirNode),
    /// Not here yet: in the tree this path is below the directory itself.
    Refused,
    /// Not here: it really is below itself, by a bind mount.
    Loop,
}

impl InotifyBackend {
    /// Returns the descriptor of the directory at this path. A watch that stays an orphan is
    /// removed later.
    pub(super) fn probe(&mut self, path: &[u8], root: bool) -> io::Result<i32> {
        let wd = self.kernel.add(path, root)?;
        if !self.tree.has_watch(wd) {
            self.orphans.push(wd);
        }
        Ok(wd)
    }

    /// Returns true if the node's path leads to its directory.
    pub(super) fn is_in_place(&mut self, node: DirNode) -> bool {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        let wd = self.tree.wd(node);
        let root = self.tree.is_root(node);
        self.probe(&path, root).is_ok_and(|found| found == wd)
    }

    /// Reports a watched directory as [`Backend::report_contents`](crate::watch::backend::Backend)
    /// describes.
    pub(super) fn read_again(&mut self, path: &[u8]) -> Option<u64> {
        let node = self.tree.find(path)?;
        let number = crate::watch::next_rename();
        let tell = Tell::Unmoved(number);
        self.recheck(node, RecheckTarget::Contents { tell });
        let _ = self.waker.wake();
        Some(number)
    }

    pub(super) fn recheck(&mut self, node: DirNode, what: RecheckTarget) {
        let wd = self.tree.wd(node);
        let recheck = Recheck { node, wd, what };
        // Repetitions are consecutive.
        if self.rechecks.last() != Some(&recheck) {
            self.rechecks.push(recheck);
        }
    }

    /// Makes the tree agree with the disk about the directory of this name, and reports the
    /// difference. Returns false if this has to be repeated.
    pub(super) fn reconcile(
        &mut self,
        parent: DirNode,
        name: &[u8],
        cause: Cause,
        observer: &mut dyn Observer,
    ) -> bool {
        let path = self.path_of(parent, name, true);
        let arrival = cause == Cause::Arrival;
        if !self.scopes.wanted(&path) {
            self.tree.set(parent, Flags::SKIPPED);
            if let Some(child) = self.tree.child(parent, name) {
                self.drop_tree(child, Loss::Moved);
            }
            if arrival {
                observer.event(Event::Create { path: &path });
            }
            return true;
        }
        match self.see(parent, name, &path, observer) {
            DirState::Directory(wd) => self.found(parent, name, wd, cause, observer),
            DirState::Nothing => {
                if let Some(child) = self.tree.child(parent, name) {
                    let loss = match cause {
                        Cause::Departure(loss) => loss,
                        Cause::Arrival | Cause::Recheck => {
                            observer.event(Event::Delete { path: &path });
                            Loss::Deleted
                        }
                    };
                    self.drop_tree(child, loss);
                    if cause == Cause::Recheck {
                        self.report_file(parent, name, observer);
                    }
                }
                if arrival {
                    observer.event(Event::Create { path: &path });
                }
                true
            }
            DirState::ParentMoved => {
                if matches!(cause, Cause::Departure(_))
                    && let Some(child) = self.tree.child(parent, name)
                {
                    self.report_again(child);
                }
                if arrival {
                    observer.event(Event::Create { path: &path });
                }
                self.recheck(parent, RecheckTarget::Name(name.to_vec()));
                false
            }
        }
    }

    fn see(
        &mut self,
        parent: DirNode,
        name: &[u8],
        path: &[u8],
        observer: &mut dyn Observer,
    ) -> DirState {
        let result = self.probe(path, false);
        if let Ok(wd) = result {
            let current = self.tree.child(parent, name);
            if current.is_some_and(|child| self.tree.wd(child) == wd) {
                return DirState::Directory(wd);
            }
        }
        if !self.is_in_place(parent) {
            return DirState::ParentMoved;
        }
        match result {
            Ok(wd) => DirState::Directory(wd),
            Err(error) => {
                if !vanished(&error) {
                    self.tree.set(parent, Flags::SKIPPED);
                    self.report_failure(path, &error, observer);
                }
                DirState::Nothing
            }
        }
    }

    fn found(
        &mut self,
        parent: DirNode,
        name: &[u8],
        wd: i32,
        cause: Cause,
        observer: &mut dyn Observer,
    ) -> bool {
        let (child, new) = match self.place_directory(parent, name, wd, true, observer) {
            WatchPlaced::Same(child) => (child, false),
            WatchPlaced::New(child) => (child, true),
            WatchPlaced::Loop => return true,
            WatchPlaced::Refused => {
                self.recheck(parent, RecheckTarget::Name(name.to_vec()));
                return false;
            }
        };
        if matches!(cause, Cause::Departure(_)) && !new {
            // Another directory of that name was meant. If no event announces one, this one has to
            // be reported again.
            self.report_again(child);
            self.recheck(parent, RecheckTarget::Name(name.to_vec()));
            return false;
        }
        let owed = self.tree.has(child, Flags::REPORT_DUE);
        let arrival = cause == Cause::Arrival;
        if new || owed || arrival {
            let path = self.path_of(parent, name, true);
            observer.event(Event::Create { path: &path });
        }
        if new || owed || (arrival && !self.tree.has(child, Flags::REPORTED)) {
            self.read(child, Tell::All, observer);
        }
        true
    }

    /// Places the directory with this descriptor in the tree under this name.
    ///
    /// The node that the tree had there is removed. If the directory was elsewhere in the tree it
    /// is moved, unless it is there on the disk too (then it is mounted at both paths). With
    /// `report`, removed and moved directories are reported as deleted; the caller reports the new
    /// path.
    pub(super) fn place_directory(
        &mut self,
        parent: DirNode,
        name: &[u8],
        wd: i32,
        report: bool,
        observer: &mut dyn Observer,
    ) -> WatchPlaced {
        let occupant = self.tree.child(parent, name);
        if let Some(child) = occupant
            && self.tree.wd(child) == wd
        {
            return WatchPlaced::Same(child);
        }
        let path = self.path_of(parent, name, true);
        let mut stale = None;
        for other in self.tree.nodes_of(wd) {
            if self.tree.within(parent, other) {
                return if self.is_in_place(other) && self.is_in_place(parent) {
                    WatchPlaced::Loop
                } else {
                    WatchPlaced::Refused
                };
            }
            if !self.is_alias(other, parent, name, &path) {
                stale = Some(other);
            }
        }
        if let Some(occupant) = occupant {
            if report {
                observer.renewed(&path);
            }
            // Only detached: the moved directory may come from below it.
            self.tree.make_root(occupant, b"");
        }
        let node = match stale {
            None => self.tree.insert(parent, name, wd),
            Some(node) => {
                self.move_here(node, parent, name, &path, report, observer);
                node
            }
        };
        if let Some(occupant) = occupant {
            self.drop_tree(occupant, Loss::Deleted);
        }
        if stale.is_some() {
            self.renamed(node);
        }
        self.attach_roots(node, name);
        WatchPlaced::New(node)
    }

    /// Returns true if the directory of `other` is at its own path as well as at (`parent`,
    /// `name`).
    fn is_alias(&mut self, other: DirNode, parent: DirNode, name: &[u8], path: &[u8]) -> bool {
        match self.tree.parent(other) {
            // One name in one directory, reached twice.
            Some(above) if self.tree.wd(above) == self.tree.wd(parent) => {
                self.tree.name(other) == name || self.is_in_place(other)
            }
            // A tree that has become part of a larger one.
            None if self.tree.name(other) == path => false,
            _ => self.is_in_place(other),
        }
    }

    fn move_here(
        &mut self,
        node: DirNode,
        parent: DirNode,
        name: &[u8],
        path: &[u8],
        report: bool,
        observer: &mut dyn Observer,
    ) {
        let mut old = Vec::new();
        self.tree.path(node, &mut old);
        let above = self.tree.parent(node);
        let old_name = self.tree.name(node).to_vec();
        self.tree.relocate(node, parent, name);
        // A tree that has become part of a larger one.
        if old == path {
            return;
        }
        if let Some(above) = above {
            if report {
                self.report_again(node);
                let there = std::fs::symlink_metadata(OsStr::from_bytes(paths::bare(&old)));
                if there.is_ok_and(|found| found.is_dir()) {
                    observer.renewed(&old);
                } else {
                    observer.event(Event::Delete { path: &old });
                }
                // It may be the name of a file now, and that may have been reported.
                self.recheck(above, RecheckTarget::File(old_name.clone()));
            } else {
                self.tree.clear(node, Flags::REPORTED);
            }
            self.recheck(above, RecheckTarget::Name(old_name));
        }
    }

    /// Marks a directory whose contents were reported as deleted although they exist. They are
    /// reported again, from here or, if something moves out before, from its new path.
    pub(super) fn report_again(&mut self, top: DirNode) {
        let mut next = Some(top);
        while let Some(node) = next {
            self.tree.set(node, Flags::REPORT_DUE);
            self.tree.clear(node, Flags::REPORTED);
            next = self.tree.next(node, top);
        }
    }

    /// Removes a directory and everything below it from the tree, and removes the watches.
    pub(super) fn drop_tree(&mut self, node: DirNode, loss: Loss) {
        for removed in self.tree.remove(node) {
            if removed.had(Flags::SCOPE_ROOT) {
                self.roots.detach(removed.node, loss);
            }
            if removed.last && !removed.had(Flags::DYING) {
                self.unwatch(removed.wd);
            }
        }
    }

    /// Removes a watch. It fails only if the kernel has removed the watch already, with its
    /// directory.
    pub(super) fn unwatch(&self, wd: i32) {
        let _ = crate::sys::inotify_rm_watch(self.inotify.as_fd(), wd);
    }

    /// Repeats the queries that had no valid answer. `settled` means that no event is outstanding:
    /// a mismatch between tree and disk will not disappear by itself.
    pub(super) fn run_rechecks(&mut self, settled: bool, observer: &mut dyn Observer) {
        for recheck in std::mem::take(&mut self.rechecks) {
            let Recheck { node, wd, ref what } = recheck;
            if !self.tree.alive(node, wd) {
                continue;
            }
            if self.pending_reads.contains_key(&wd) {
                self.rechecks.push(recheck);
                continue;
            }
            if settled && !self.confirm(node, observer) {
                continue;
            }
            match what {
                RecheckTarget::Name(name) => {
                    self.reconcile(node, name, Cause::Recheck, observer);
                }
                RecheckTarget::File(name) => self.report_file(node, name, observer),
                RecheckTarget::Contents { tell } if settled || self.is_in_place(node) => {
                    self.read(node, *tell, observer);
                }
                RecheckTarget::Contents { .. } => self.rechecks.push(recheck),
                RecheckTarget::Skipped => self.revisit(node, observer),
            }
        }
    }

    /// Checks the path of a node from its root down. Returns false if the path does not lead to the
    /// node's directory.
    fn confirm(&mut self, node: DirNode, observer: &mut dyn Observer) -> bool {
        let wd = self.tree.wd(node);
        if self.is_in_place(node) {
            return true;
        }
        let Some(parent) = self.tree.parent(node) else {
            self.lose_root(node);
            return false;
        };
        if !self.confirm(parent, observer) {
            return false;
        }
        let name = self.tree.name(node).to_vec();
        self.reconcile(parent, &name, Cause::Recheck, observer);
        self.tree.alive(node, wd)
    }

    /// Reports the object at a name if it is not a directory.
    pub(super) fn report_file(
        &mut self,
        parent: DirNode,
        name: &[u8],
        observer: &mut dyn Observer,
    ) {
        let path = self.path_of(parent, name, false);
        let found = std::fs::symlink_metadata(OsStr::from_bytes(&path));
        if !self.is_in_place(parent) {
            self.recheck(parent, RecheckTarget::File(name.to_vec()));
        } else if found.is_ok_and(|found| !found.is_dir()) {
            observer.event(Event::Create { path: &path });
        }
    }

    /// Reports why an object could not be watched or read.
    pub(super) fn report_failure(
        &mut self,
        path: &[u8],
        error: &io::Error,
        observer: &mut dyn Observer,
    ) {
        if error.raw_os_error() != Some(libc::ENOSPC) {
            observer.watch_failed(path, error, "watching a directory");
        } else {
            observer.out_of_watches(path);
        }
    }

    /// Returns the path of a name in a directory.
    pub(super) fn path_of(&self, parent: DirNode, name: &[u8], directory: bool) -> Vec<u8> {
        let mut path = Vec::new();
        self.tree.path(parent, &mut path);
        path.extend_from_slice(name);
        if directory {
            path.push(b'/');
        }
        path
    }
}
