//! Handles each event by its kind.
//!
//! An event of a file is reported with the path that the tree has for its directory. Events of
//! directories also change the tree, which follows the order of events as far as possible: a paired
//! rename moves the node even if the disk has changed since, so that the events in between are
//! reported with the paths that were true then.

use super::InotifyBackend;
use super::moves::{HalfKind, MoveHalf, PAIR_TIMEOUT};
use super::reconcile::{Cause, RecheckTarget};
use super::records::RawEvent;
use super::tree::{DirNode, Flags, Tree};
use crate::log;
use crate::paths;
use crate::watch::{Event, Follow, Loss, Observer, Tell, next_rename};

/// A rename from one watched directory to another.
#[derive(Clone, Copy)]
struct Rename<'a> {
    /// The directory it left; `half` has the name there.
    from: DirNode,
    half: &'a MoveHalf,
    /// The directory it arrived in, and its name there.
    to: DirNode,
    name: &'a [u8],
    /// The kind of object whose rename just before was the exact reverse of this one, if any.
    back: Option<HalfKind>,
}

impl InotifyBackend {
    /// Handles an event of a known directory that is not being read.
    pub(super) fn dispatch(&mut self, event: RawEvent<'_>, observer: &mut dyn Observer) {
        let kept_quiet =
            event.is(libc::IN_MODIFY) && !event.directory() && self.open_files.tracks();
        if log::enabled("Inotify") && !kept_quiet {
            log::say("Inotify", describe(&event));
        }
        if event.name.is_empty() {
            self.dispatch_self(event, observer);
            return;
        }
        if let Some(half) = self.moves.take_named(event.wd, event.name) {
            let told = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO;
            if event.is(told) {
                self.left(half.wd, &half.name, half.directory, Loss::Moved, observer);
            } else {
                self.unpaired(&half, observer);
            }
        }
        let RawEvent { wd, name, .. } = event;
        if event.is(libc::IN_MOVED_FROM) {
            self.hold(event);
        } else if event.is(libc::IN_MOVED_TO) {
            match self.moves.take(event.cookie) {
                Some(half) => self.paired(half, event, observer),
                None => self.appeared(wd, name, event.directory(), observer),
            }
        } else if event.is(libc::IN_CREATE) {
            if !event.directory() {
                self.open_files.touched(wd, name, false, self.now);
            }
            self.appeared(wd, name, event.directory(), observer);
        } else if event.is(libc::IN_DELETE) {
            self.left(wd, name, event.directory(), Loss::Deleted, observer);
        } else if event.changes_attributes() {
            self.attributes(event, observer);
        } else if event.is(libc::IN_MODIFY) && self.open_files.tracks() {
            self.open_files.touched(wd, name, true, self.now);
        } else if event.is(libc::IN_CLOSE_WRITE | libc::IN_MODIFY) {
            self.open_files.closed(wd, name);
            for node in self.tree.nodes_of(wd) {
                self.build_path(node, name, event.directory());
                observer.written(&self.path, event.is(libc::IN_CLOSE_WRITE));
            }
        }
    }

    /// Handles an event of the directory itself. Most of them are also reported by the parent
    /// directory.
    fn dispatch_self(&mut self, event: RawEvent<'_>, observer: &mut dyn Observer) {
        for node in self.tree.nodes_of(event.wd) {
            if event.is(libc::IN_UNMOUNT) {
                self.ignored(node, Loss::Unmounted);
            } else if event.is(libc::IN_IGNORED) {
                self.ignored(node, Loss::Deleted);
            } else if event.is(libc::IN_DELETE_SELF) {
                self.tree.set(node, Flags::DYING);
            } else if !self.tree.is_root(node) {
                continue;
            } else if event.is(libc::IN_MOVE_SELF) {
                self.drop_tree(node, Loss::Moved);
            } else if event.changes_attributes() {
                self.build_path(node, b"", false);
                observer.event(Event::Attrib { path: &self.path });
                self.retry_skipped(node);
            }
        }
    }

    /// Watches subdirectories of a directory that could not be watched.
    fn retry_skipped(&mut self, node: DirNode) {
        if self.tree.has(node, Flags::SKIPPED) {
            self.recheck(node, RecheckTarget::Skipped);
        }
    }

    /// Handles IN_IGNORED: the directory or its file system is gone, or the watch was removed as an
    /// orphan.
    fn ignored(&mut self, node: DirNode, loss: Loss) {
        let place = self.tree.parent(node);
        let place = place.map(|parent| (parent, self.tree.name(node).to_vec()));
        let expected = self.tree.has(node, Flags::DYING);
        self.tree.set(node, Flags::DYING);
        self.drop_tree(node, loss);
        if let Some((parent, name)) = place
            && !expected
        {
            self.recheck(parent, RecheckTarget::Name(name));
        }
    }

    fn attributes(&mut self, event: RawEvent<'_>, observer: &mut dyn Observer) {
        for node in self.tree.nodes_of(event.wd) {
            self.build_path(node, event.name, event.directory());
            observer.event(Event::Attrib { path: &self.path });
            if !event.directory() || !self.scopes.wanted(&self.path) {
                continue;
            }
            // A directory that was unreadable may be readable now, or those in it accessible.
            match self.tree.child(node, event.name) {
                None => {
                    self.reconcile(node, event.name, Cause::Recheck, observer);
                }
                Some(child) => self.retry_skipped(child),
            }
        }
    }

    /// Handles a name that did not exist before.
    fn appeared(&mut self, wd: i32, name: &[u8], directory: bool, observer: &mut dyn Observer) {
        for node in self.tree.nodes_of(wd) {
            if directory {
                self.reconcile(node, name, Cause::Arrival, observer);
            } else {
                self.build_path(node, name, false);
                observer.event(Event::Create { path: &self.path });
                if self.tree.child(node, name).is_some() {
                    self.reconcile(node, name, Cause::Recheck, observer);
                }
            }
        }
    }

    /// Handles a name that does not exist any more.
    pub(super) fn left(
        &mut self,
        wd: i32,
        name: &[u8],
        directory: bool,
        loss: Loss,
        observer: &mut dyn Observer,
    ) {
        for node in self.tree.nodes_of(wd) {
            self.build_path(node, name, directory);
            observer.event(Event::Delete { path: &self.path });
            if self.tree.child(node, name).is_some() {
                self.reconcile(node, name, Cause::Departure(loss), observer);
            }
        }
    }

    /// Handles a first half without a second. An object may still exist at the name: it was
    /// exchanged with one from a directory that is not watched, and reported before.
    pub(super) fn unpaired(&mut self, half: &MoveHalf, observer: &mut dyn Observer) {
        self.left(half.wd, &half.name, half.directory, Loss::Moved, observer);
        for node in self.tree.nodes_of(half.wd) {
            self.report_file(node, &half.name, observer);
        }
    }

    fn hold(&mut self, event: RawEvent<'_>) {
        let from = self.tree.first(event.wd);
        let child = from.and_then(|node| self.tree.child(node, event.name));
        self.moves.hold(MoveHalf {
            cookie: event.cookie,
            wd: event.wd,
            name: event.name.to_vec(),
            directory: event.directory(),
            child: child.map_or(0, |child| self.tree.wd(child)),
            deadline: self.now + PAIR_TIMEOUT,
        });
    }

    /// Handles a rename whose halves are both known.
    fn paired(&mut self, half: MoveHalf, event: RawEvent<'_>, observer: &mut dyn Observer) {
        let from: Vec<DirNode> = self.tree.nodes_of(half.wd).collect();
        let to: Vec<DirNode> = self.tree.nodes_of(event.wd).collect();
        // Directories mounted at several points have no unique counterpart, except within one
        // directory.
        let clear = half.wd == event.wd || (from.len() == 1 && to.len() == 1);
        if !clear {
            self.unpaired(&half, observer);
            self.appeared(event.wd, event.name, event.directory(), observer);
            return;
        }
        if !half.directory {
            let from = (half.wd, half.name.as_slice());
            self.open_files.moved(from, (event.wd, event.name));
        }
        let back = self.moves.reverses(&half, event.wd, event.name);
        for (from, to) in from.into_iter().zip(to) {
            let rename = Rename {
                from,
                half: &half,
                to,
                name: event.name,
                back,
            };
            if half.directory {
                self.move_directory(rename, observer);
            } else {
                self.move_file(rename, observer);
            }
        }
    }

    fn move_file(&mut self, rename: Rename<'_>, observer: &mut dyn Observer) {
        let directory_there = |tree: &Tree| {
            tree.child(rename.from, &rename.half.name).is_some()
                || tree.child(rename.to, rename.name).is_some()
        };
        if rename.back.is_some() {
            self.exchanged(rename, observer);
        } else if directory_there(&self.tree) {
            self.split(rename, observer);
        } else {
            self.build_move(rename);
            self.report_move(observer);
        }
    }

    fn move_directory(&mut self, rename: Rename<'_>, observer: &mut dyn Observer) {
        let Rename {
            from,
            half,
            to,
            name,
            back,
        } = rename;
        self.build_move(rename);
        let moved = match self.tree.child(from, &half.name) {
            Some(moved) if self.tree.wd(moved) == half.child => moved,
            Some(_) => return self.split(rename, observer),
            None if back.is_some() => return self.exchanged(rename, observer),
            None => {
                // It was not watched at its old path, so all its contents are reported.
                self.report_move(observer);
                return self.receive_directory(to, name, observer);
            }
        };
        let (old, new) = (self.from.clone(), self.path.clone());
        let stays = |watcher: &mut InotifyBackend| {
            watcher.probe(&old, false).is_ok_and(|wd| wd == half.child)
        };
        if !self.scopes.wanted(&new) {
            if stays(self) {
                return match back {
                    Some(_) => self.exchanged(rename, observer),
                    None => self.split(rename, observer),
                };
            }
            self.report_move(observer);
            self.drop_tree(moved, Loss::Moved);
            self.tree.set(to, Flags::SKIPPED);
            return;
        }
        let there = self.probe(&new, false).ok();
        let confirmed = there == Some(half.child);
        if back.is_some() && !confirmed {
            return self.exchanged(rename, observer);
        }
        // Another directory is at the new path, and this one is still at the old path: the event is
        // older than the tree's state.
        let contradicted = !confirmed && there.is_some() && stays(self);
        if contradicted || self.tree.within(to, moved) {
            return self.split(rename, observer);
        }
        if self.carry(moved, to, name) {
            // An empty directory is replaced, or another one by an exchange, or the tree is newer
            // than the event.
            observer.renewed(&self.path);
        }
        if !confirmed {
            self.recheck(from, RecheckTarget::Name(half.name.clone()));
            self.recheck(to, RecheckTarget::Name(name.to_vec()));
        }
        let follow = self.report_move(observer);
        if back == Some(HalfKind::File) {
            // A file cannot replace a directory: it is at the directory's old path.
            let path = paths::bare(&old);
            observer.event(Event::Create { path });
        }
        self.renamed(moved);
        if self.tree.has(moved, Flags::REPORT_DUE) {
            self.read(moved, Tell::All, observer);
        } else if follow == Follow::Contents {
            let number = next_rename();
            observer.follow(number);
            self.read(moved, Tell::Unmoved(number), observer);
        }
    }

    /// Moves a node to the path the event names, and removes the node that the tree had there.
    /// Returns true if there was one.
    fn carry(&mut self, node: DirNode, parent: DirNode, name: &[u8]) -> bool {
        let occupant = self.tree.child(parent, name).filter(|&other| other != node);
        if let Some(occupant) = occupant {
            self.tree.make_root(occupant, b"");
        }
        self.tree.relocate(node, parent, name);
        if let Some(occupant) = occupant {
            self.drop_tree(occupant, Loss::Deleted);
        }
        occupant.is_some()
    }

    /// Reports each half of a rename by itself if the halves do not fit the tree.
    fn split(&mut self, rename: Rename<'_>, observer: &mut dyn Observer) {
        let Rename { half, to, name, .. } = rename;
        let wd = self.tree.wd(to);
        self.unpaired(half, observer);
        if self.tree.alive(to, wd) {
            self.appeared(wd, name, half.directory, observer);
        }
    }

    /// Handles the second half of an exchange, or of a move there and back: the event moves it from
    /// `from` to `to`, where the present object came from.
    fn exchanged(&mut self, rename: Rename<'_>, observer: &mut dyn Observer) {
        let Rename {
            from,
            half,
            to,
            name,
            ..
        } = rename;
        let wd = self.tree.wd(to);
        if self.tree.child(from, &half.name).is_some() {
            if half.directory {
                self.build_path(from, &half.name, true);
                observer.vacated(&self.path);
            } else {
                // Until now this was the name of a file, which the target may have.
                self.build_path(from, &half.name, false);
                observer.event(Event::Attrib { path: &self.path });
            }
            self.reconcile(from, &half.name, Cause::Recheck, observer);
            // The name may have been reported as that of a file.
            if self.tree.child(from, &half.name).is_some() {
                self.build_path(from, &half.name, true);
                observer.event(Event::Create { path: &self.path });
            }
        } else {
            self.build_path(from, &half.name, half.directory);
            observer.event(Event::Delete { path: &self.path });
            self.report_file(from, &half.name, observer);
            self.reconcile(from, &half.name, Cause::Recheck, observer);
        }
        if !self.tree.alive(to, wd) {
            return;
        }
        if half.directory {
            self.receive_directory(to, name, observer);
        } else {
            self.build_path(to, name, false);
            observer.event(Event::Create { path: &self.path });
        }
    }

    /// Reports the contents of a directory whose rename has been reported.
    fn receive_directory(&mut self, to: DirNode, name: &[u8], observer: &mut dyn Observer) {
        if let Some(child) = self.tree.child(to, name) {
            self.report_again(child);
        }
        self.reconcile(to, name, Cause::Arrival, observer);
    }

    /// Updates everything that depends on paths after a node was moved.
    pub(super) fn renamed(&mut self, node: DirNode) {
        self.refilter(node);
        self.check_nested_roots(node);
    }

    fn report_move(&mut self, observer: &mut dyn Observer) -> Follow {
        let (from, to) = (&self.from, &self.path);
        observer.event(Event::Move { from, to })
    }

    /// Sets `from` and `path` to the two paths of a rename.
    fn build_move(&mut self, rename: Rename<'_>) {
        let Rename { half, .. } = rename;
        self.build_path(rename.from, &half.name, half.directory);
        std::mem::swap(&mut self.from, &mut self.path);
        self.build_path(rename.to, rename.name, half.directory);
    }

    fn build_path(&mut self, node: DirNode, name: &[u8], directory: bool) {
        self.tree.path(node, &mut self.path);
        self.path.extend_from_slice(name);
        if directory {
            self.path.push(b'/');
        }
    }
}

/// Returns the text of an event for the log category Inotify, in lsyncd's words.
fn describe(event: &RawEvent<'_>) -> String {
    let kinds = [
        (libc::IN_CREATE, "Create"),
        (libc::IN_DELETE | libc::IN_DELETE_SELF, "Delete"),
        (libc::IN_CLOSE_WRITE | libc::IN_MODIFY, "Modify"),
        (libc::IN_ATTRIB, "Attrib"),
        (libc::IN_MOVED_FROM, "MoveFrom"),
        (libc::IN_MOVED_TO, "MoveTo"),
        (libc::IN_MOVE_SELF, "MoveSelf"),
        (libc::IN_UNMOUNT, "Unmount"),
        (libc::IN_IGNORED, "Ignored"),
    ];
    let kind = kinds.iter().find(|(mask, _)| event.is(*mask));
    let kind = kind.map_or("unknown", |(_, kind)| kind);
    let (name, wd) = (log::escape(event.name), event.wd);
    format!("got event {kind} {name}({wd}.0)")
}
