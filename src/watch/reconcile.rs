//! Brings the tree in line with the disk, name by name.
//!
//! The one question is "what is at this name in this directory?", asked by setting a watch
//! at the path and looking at the descriptor. The answer counts only if the directory's own
//! path leads to the directory, asked the same way. Why the tree is right in the end: a
//! root's path is known; of a directory with a true path every change of a name raises an
//! event; and the last event of each name is answered by a question whose answer counts,
//! at once or, as a doubt, as soon as the path above has become true.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::inotify::vanished;
use super::tree::{DirNode, Flags};
use super::watcher::Watcher;
use super::{Event, Loss, Observer, Tell};

/// Something to be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recheck {
    pub node: DirNode,
    /// The node's descriptor, to know it by.
    pub wd: i32,
    pub what: What,
}

/// What about the node is in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The directory of this name in it.
    Name(Vec<u8>),
    /// The file of this name in it.
    File(Vec<u8>),
    /// All it holds: it could not be read where it was thought to be.
    Contents { tell: Tell },
    /// The subdirectories nobody wanted under the directory's former path.
    Skipped,
}

/// Why a name is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An event said a directory appeared there; observers will be told so in any case.
    Arrival,
    /// An event said it disappeared, and which way; observers have been told.
    Departure(Loss),
    /// There was a doubt.
    Doubt,
}

/// What is at a name.
enum DirState {
    Directory(i32),
    Nothing,
    /// The path of the directory asked in does not lead to it.
    Untrue,
}

/// Where a directory is in the tree now.
pub enum WatchPlaced {
    /// Where it was.
    Same(DirNode),
    /// Here, and it was elsewhere or unknown before.
    New(DirNode),
    /// Not there yet: in the tree that place is below the directory itself.
    Refused,
    /// Not there: it really is below itself, by a bind mount.
    Loop,
}

impl Watcher {
    /// The descriptor of what is at this path. Watches nobody claims later are removed.
    pub(super) fn probe(&mut self, path: &[u8], root: bool) -> io::Result<i32> {
        let wd = self.kernel.add(path, root)?;
        if !self.tree.knows(wd) {
            self.strays.push(wd);
        }
        Ok(wd)
    }

    /// Does the node's path lead to its directory?
    pub(super) fn in_place(&mut self, node: DirNode) -> bool {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        let wd = self.tree.wd(node);
        let root = self.tree.is_root(node);
        self.probe(&path, root).is_ok_and(|found| found == wd)
    }

    pub(super) fn doubt(&mut self, node: DirNode, what: What) {
        let wd = self.tree.wd(node);
        let doubt = Recheck { node, wd, what };
        // Repetitions come in a row.
        if self.doubts.last() != Some(&doubt) {
            self.doubts.push(doubt);
        }
    }

    /// Makes the tree agree with the disk about the directory of this name, and tells the
    /// difference. False if that has to be done again.
    pub(super) fn look(
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
                        Cause::Arrival | Cause::Doubt => {
                            observer.event(Event::Delete { path: &path });
                            Loss::Deleted
                        }
                    };
                    self.drop_tree(child, loss);
                    if cause == Cause::Doubt {
                        self.tell_file(parent, name, observer);
                    }
                }
                if arrival {
                    observer.event(Event::Create { path: &path });
                }
                true
            }
            DirState::Untrue => {
                if matches!(cause, Cause::Departure(_))
                    && let Some(child) = self.tree.child(parent, name)
                {
                    self.owe(child);
                }
                if arrival {
                    observer.event(Event::Create { path: &path });
                }
                self.doubt(parent, What::Name(name.to_vec()));
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
        if !self.in_place(parent) {
            return DirState::Untrue;
        }
        match result {
            Ok(wd) => DirState::Directory(wd),
            Err(error) => {
                if !vanished(&error) {
                    self.failed(path, &error, observer);
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
        let (child, new) = match self.place(parent, name, wd, true, observer) {
            WatchPlaced::Same(child) => (child, false),
            WatchPlaced::New(child) => (child, true),
            WatchPlaced::Loop => return true,
            WatchPlaced::Refused => {
                self.doubt(parent, What::Name(name.to_vec()));
                return false;
            }
        };
        if matches!(cause, Cause::Departure(_)) && !new {
            // Another directory of that name was meant. If none is announced, this one has to
            // be told again all the same.
            self.owe(child);
            self.doubt(parent, What::Name(name.to_vec()));
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

    /// Puts the directory with this descriptor, which is at this name, there in the tree.
    ///
    /// What the tree had there goes. If the directory was elsewhere in the tree it is moved,
    /// unless it is there on the disk too (then it is mounted at both places). With `report`,
    /// what goes and what moves away is told as deleted; telling what came is the caller's.
    pub(super) fn place(
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
        for other in self.tree.places(wd) {
            if self.tree.within(parent, other) {
                return if self.in_place(other) && self.in_place(parent) {
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
                observer.event(Event::Delete { path: &path });
            }
            // Aside only: what is moved here may come from below it.
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
        self.attach_anchors(node, name);
        WatchPlaced::New(node)
    }

    /// Is the directory of `other` there as well as at (`parent`, `name`)?
    fn is_alias(&mut self, other: DirNode, parent: DirNode, name: &[u8], path: &[u8]) -> bool {
        match self.tree.parent(other) {
            // One name of one directory, seen twice.
            Some(above) if self.tree.wd(above) == self.tree.wd(parent) => {
                self.tree.name(other) == name || self.in_place(other)
            }
            // A tree that has become part of a larger one.
            None if self.tree.name(other) == path => false,
            _ => self.in_place(other),
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
                self.owe(node);
                observer.event(Event::Delete { path: &old });
                // It may be a file's name by now, and that may have been told.
                self.doubt(above, What::File(old_name.clone()));
            } else {
                self.tree.clear(node, Flags::REPORTED);
            }
            self.doubt(above, What::Name(old_name));
        }
    }

    /// What is below has been told as deleted and is there: it has to be told again, from
    /// here or, if something moves out before that, from there.
    pub(super) fn owe(&mut self, top: DirNode) {
        let mut next = Some(top);
        while let Some(node) = next {
            self.tree.set(node, Flags::REPORT_DUE);
            self.tree.clear(node, Flags::REPORTED);
            next = self.tree.next(node, top);
        }
    }

    /// Takes a directory and all below out of the tree, and the watches off.
    pub(super) fn drop_tree(&mut self, node: DirNode, loss: Loss) {
        for removed in self.tree.remove(node) {
            if removed.had(Flags::SCOPE_ROOT) {
                self.anchors.detach(removed.node, loss);
            }
            if removed.last && !removed.had(Flags::DYING) {
                self.unwatch(removed.wd);
            }
        }
    }

    /// Fails only if the kernel has removed the watch already, with its directory.
    pub(super) fn unwatch(&self, wd: i32) {
        let _ = crate::sys::inotify_rm_watch(self.inotify.as_fd(), wd);
    }

    /// Asks again what could not be answered. `settled` says that no event is outstanding:
    /// whatever is not as the tree has it now will not become so by itself.
    pub(super) fn clear_doubts(&mut self, settled: bool, observer: &mut dyn Observer) {
        for doubt in std::mem::take(&mut self.doubts) {
            let Recheck { node, wd, ref what } = doubt;
            if !self.tree.alive(node, wd) {
                continue;
            }
            if self.busy.contains_key(&wd) {
                self.doubts.push(doubt);
                continue;
            }
            if settled && !self.confirm(node, observer) {
                continue;
            }
            match what {
                What::Name(name) => {
                    self.look(node, name, Cause::Doubt, observer);
                }
                What::File(name) => self.tell_file(node, name, observer),
                What::Contents { tell } if settled || self.in_place(node) => {
                    self.read(node, *tell, observer);
                }
                What::Contents { .. } => self.doubts.push(doubt),
                What::Skipped => self.revisit(node, observer),
            }
        }
    }

    /// Makes sure of a node's path, from the root down. False if the node is not there.
    fn confirm(&mut self, node: DirNode, observer: &mut dyn Observer) -> bool {
        let wd = self.tree.wd(node);
        if self.in_place(node) {
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
        self.look(parent, &name, Cause::Doubt, observer);
        self.tree.alive(node, wd)
    }

    /// Tells what is at a name if it is no directory.
    pub(super) fn tell_file(&mut self, parent: DirNode, name: &[u8], observer: &mut dyn Observer) {
        let path = self.path_of(parent, name, false);
        let found = std::fs::symlink_metadata(OsStr::from_bytes(&path));
        if !self.in_place(parent) {
            self.doubt(parent, What::File(name.to_vec()));
        } else if found.is_ok_and(|found| !found.is_dir()) {
            observer.event(Event::Create { path: &path });
        }
    }

    /// Says why something could not be watched or read.
    pub(super) fn failed(&mut self, path: &[u8], error: &io::Error, observer: &mut dyn Observer) {
        if error.raw_os_error() != Some(libc::ENOSPC) {
            observer.trouble(path, error, "watching a directory");
        } else {
            observer.out_of_watches(path);
        }
    }

    /// The path of a name in a directory.
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
