//! Handles each event by its kind.
//!
//! A path is that of the directory at the time of reading and the name of the event. Two things make
//! the order of events differ from that of the changes: events of one name that are in the queue
//! together are one record, at the place of the first; and a look-up of a directory is ahead of the
//! events in the queue. So
//!
//! * of a name whose record contains a deletion and more, or a rename that the disk does not confirm,
//!   the disk is asked again when the queue has been read up to that moment
//!   ([`rechecks`](super::rechecks));
//! * a rename of a directory that concerns a look-up that may be newer ([`shadow`](super::shadow)) is
//!   told as what the disk has at both names, with all contents. This makes good whatever was told of
//!   paths ahead of their time.

use std::collections::VecDeque;

use rustix::fs::FileType;

use super::backend::FanotifyBackend;
use super::lookup::FoundDirectory;
use super::places::Place;
use super::records::{EntryName, EventRecord, HandleRef, count, decode};
use crate::log;
use crate::watch::{Event, Follow, Loss, Observer, Tell, next_rename};

/// The maximum number of renames that are remembered to detect an exchange.
const MAX_RECENT: usize = 64;

/// The number of records after a rename that are looked at. What belongs to it follows at once.
const FOLLOWING: usize = 16;

/// A directory and a name in it.
type OwnedEntry = (usize, Vec<u8>, Vec<u8>);

/// The renames handled last.
#[derive(Default)]
pub struct RecentRenames(VecDeque<(OwnedEntry, OwnedEntry, Vec<u8>)>);

impl RecentRenames {
    /// Records a rename. Returns true if it is the second half of an exchange: the reverse of
    /// another rename, of another object.
    fn is_exchange(&mut self, place: usize, rename: &Rename<'_>) -> bool {
        let own = |entry: EntryName<'_>| {
            let directory = entry.directory.bytes.to_vec();
            (place, directory, entry.name.to_vec())
        };
        let (from, to) = (own(rename.from), own(rename.to));
        let target = rename.target.map_or(&b""[..], |target| target.bytes);
        let mut others = self.0.iter().rev();
        let reverse = others.find(|other| other.0 == to && other.1 == from);
        let is_exchange = reverse.is_some_and(|other| other.2 != target);
        if self.0.len() == MAX_RECENT {
            self.0.pop_front();
        }
        self.0.push_back((from, to, target.to_vec()));
        is_exchange
    }

    /// Forgets all: no event is outstanding.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A rename within a file system.
#[derive(Clone, Copy)]
struct Rename<'a> {
    from: EntryName<'a>,
    to: EntryName<'a>,
    target: Option<HandleRef<'a>>,
    directory: bool,
    /// A directory may have been at the new name.
    replaces: bool,
    /// The two names may have been exchanged.
    swaps: bool,
}

impl FanotifyBackend {
    /// Handles one record; `rest` are those after it in the same read.
    pub(super) fn dispatch(
        &mut self,
        record: &EventRecord<'_>,
        rest: &[u8],
        observer: &mut dyn Observer,
    ) {
        if record.is(libc::FAN_Q_OVERFLOW) {
            self.overflow();
            return;
        }
        let Some(entry) = record.entry.or(record.from) else {
            // The number of links of a file; its names are events of their own.
            return;
        };
        self.check_root(record);
        let system = entry.directory.system;
        let is_here = |place: &Place| place.system == system;
        let places = self.places.all().iter().enumerate();
        let places: Vec<usize> = places
            .filter(|(_, place)| is_here(place))
            .map(|(at, _)| at)
            .collect();
        if places.is_empty() {
            return;
        }
        let (Some(from), Some(to)) = (record.from, record.to) else {
            for place in places {
                self.changed(place, record, entry, observer);
            }
            return;
        };
        let following = self.following(rest);
        for place in places {
            let directory = record.directory();
            let rename = Rename {
                from,
                to,
                target: record.target,
                directory,
                replaces: directory && self.replaces(place, record, &following),
                swaps: swaps(record, &following),
            };
            self.renamed(place, rename, observer);
        }
    }

    /// Handles an event of one name.
    fn changed(
        &mut self,
        place: usize,
        record: &EventRecord<'_>,
        entry: EntryName<'_>,
        observer: &mut dyn Observer,
    ) {
        if entry.name == b"." {
            return self.attributes(place, entry.directory.bytes, observer);
        }
        let Some(parent) = self.find_wanted(place, entry.directory.bytes) else {
            return;
        };
        let mut path = std::mem::take(&mut self.path);
        path.extend_from_slice(entry.name);
        if record.directory() {
            path.push(b'/');
        }
        if log::enabled("Inotify") && !(record.mask == libc::FAN_MODIFY && self.open_files.tracks())
        {
            log::say("Inotify", describe(record.mask, &path));
        }
        let target = record.target.map(|target| target.bytes);
        if record.is(libc::FAN_DELETE) {
            self.deleted(place, record, entry, &path, observer);
        } else if record.directory() {
            if record.is(libc::FAN_CREATE) {
                self.set_recheck(place, entry, true);
                if let Some(target) = target
                    && self.known.find(place, target).is_none()
                {
                    self.known.place_at(place, target, parent, entry.name);
                }
                observer.event(Event::Create { path: &path });
                self.root_appeared(&path);
            }
        } else {
            if record.is(libc::FAN_CREATE) {
                self.set_recheck(place, entry, true);
            }
            self.file_changed(record, &path, observer);
        }
        path.clear();
        self.path = path;
    }

    /// Handles events of a file that was not deleted.
    fn file_changed(&mut self, record: &EventRecord<'_>, path: &[u8], observer: &mut dyn Observer) {
        if record.is(libc::FAN_CREATE) {
            self.open_files.touched(0, path, false, self.now);
            observer.event(Event::Create { path });
        }
        let (written, closed) = (
            record.is(libc::FAN_MODIFY),
            record.is(libc::FAN_CLOSE_WRITE),
        );
        if written && !self.open_files.tracks() {
            observer.written(path, false);
        }
        if closed {
            self.open_files.closed(0, path);
            if written {
                // Another process may have begun to write after it was closed.
                self.open_files.touched(0, path, false, self.now);
            }
            observer.written(path, true);
        } else if written {
            self.open_files.touched(0, path, true, self.now);
        }
        if record.is(libc::FAN_ATTRIB) {
            observer.event(Event::Attrib { path });
        }
    }

    /// Handles a record that contains a deletion. Together with other events it may be followed by
    /// more of the same name, older than those that are read next.
    fn deleted(
        &mut self,
        place: usize,
        record: &EventRecord<'_>,
        entry: EntryName<'_>,
        path: &[u8],
        observer: &mut dyn Observer,
    ) {
        let is_alone = record.mask & !libc::FAN_ONDIR == libc::FAN_DELETE;
        let now = if is_alone {
            None
        } else {
            self.kind_of(place, entry)
        };
        if now.is_none() && record.is(libc::FAN_CREATE) {
            observer.event(Event::Create { path });
        }
        observer.event(Event::Delete { path });
        if record.directory() {
            if let Some(target) = record.target {
                self.known.leave(place, target.bytes);
            }
            self.root_left(path, Loss::Deleted);
        }
        if is_alone {
            self.set_recheck(place, entry, false);
            return;
        }
        self.report_kind(place, entry, now, path, observer);
        self.recheck(place, entry, record.directory(), now.is_some(), true);
    }

    /// Handles a change of a directory's attributes.
    fn attributes(&mut self, place: usize, handle: &[u8], observer: &mut dyn Observer) {
        match self.find(place, handle) {
            FoundDirectory::Inside(id) => {
                if self.known.path(id, &mut self.path) {
                    observer.event(Event::Attrib { path: &self.path });
                }
            }
            FoundDirectory::Outside => {}
            // Renames that are read next may have replaced it.
            FoundDirectory::Gone if self.last_replaced == handle => {}
            FoundDirectory::Gone => self.replaced = self.reader.mark(),
        }
    }

    /// Handles a rename.
    fn renamed(&mut self, place: usize, rename: Rename<'_>, observer: &mut dyn Observer) {
        let Rename { from, to, .. } = rename;
        let old = self.path_in(place, from, rename.directory);
        let new = self.path_in(place, to, rename.directory);
        if rename.directory && new.is_some() {
            // What is of no concern where it was may be where it is.
            self.known.filters_changed();
        }
        if old.is_none() && new.is_none() {
            if let Some(target) = rename.target.filter(|_| rename.directory) {
                // It may have been inside, or below something that was.
                self.known.leave(place, target.bytes);
            }
            return;
        }
        if log::enabled("Inotify") {
            let path = |path: &Option<Vec<u8>>| {
                path.as_ref()
                    .map_or("?".into(), |path| log::escape(path).into_owned())
            };
            let (old, new) = (path(&old), path(&new));
            log::say("Inotify", format_args!("got event Move {old} -> {new}"));
        }
        let is_exchange = self.recent.is_exchange(place, &rename);
        match (old, new) {
            (None, None) => {}
            (Some(old), None) => self.left(place, rename, &old, is_exchange, observer),
            (None, Some(new)) => self.arrived(place, rename, &new, observer),
            (Some(old), Some(new)) if rename.directory => {
                self.directory_moved(place, rename, (&old, &new), is_exchange, observer);
            }
            (Some(old), Some(new)) => {
                self.file_moved(place, rename, (&old, &new), is_exchange, observer);
            }
        }
    }

    /// Handles a file or directory that goes outside.
    fn left(
        &mut self,
        place: usize,
        rename: Rename<'_>,
        old: &[u8],
        is_exchange: bool,
        observer: &mut dyn Observer,
    ) {
        let Rename {
            from, directory, ..
        } = rename;
        let now = self.kind_of(place, from);
        observer.event(Event::Delete { path: old });
        if directory {
            self.root_left(old, Loss::Moved);
            if let Some(target) = rename.target {
                self.known.leave(place, target.bytes);
            }
        }
        if is_exchange || self.is_doubtful(place, from) {
            self.report_kind(place, from, now, old, observer);
            self.recheck(place, from, directory, now.is_some(), true);
        } else if now.is_some() {
            // The same rename may have happened again, with another one in between.
            self.recheck(place, from, directory, false, false);
        } else {
            self.set_recheck(place, from, false);
        }
    }

    /// Handles a file or directory that comes from outside.
    fn arrived(
        &mut self,
        place: usize,
        rename: Rename<'_>,
        new: &[u8],
        observer: &mut dyn Observer,
    ) {
        let Rename { to, directory, .. } = rename;
        let now = self.kind_of(place, to);
        if rename.replaces {
            observer.event(Event::Delete { path: new });
        }
        if !directory {
            self.open_files.touched(0, new, false, self.now);
            observer.event(Event::Create { path: new });
        } else if self.is_consistent(place, rename) {
            self.take_place(place, rename);
            observer.event(Event::Create { path: new });
            self.read(place, rename, new, Tell::All);
            self.root_appeared(new);
        } else {
            self.relink(place, rename.target);
            observer.event(Event::Delete { path: new });
            self.report_kind(place, to, now, new, observer);
            return self.recheck(place, to, directory, now.is_some(), true);
        }
        if now.is_none() {
            self.recheck(place, to, directory, true, false);
        } else {
            self.set_recheck(place, to, true);
        }
    }

    fn file_moved(
        &mut self,
        place: usize,
        rename: Rename<'_>,
        (old, new): (&[u8], &[u8]),
        is_exchange: bool,
        observer: &mut dyn Observer,
    ) {
        let Rename { from, to, .. } = rename;
        let there = [self.kind_of(place, from), self.kind_of(place, to)];
        let is_unclear = is_exchange
            || there.contains(&Some(FileType::Directory))
            || (rename.swaps && there[0].is_some())
            || self.is_doubtful(place, from)
            || self.is_doubtful(place, to);
        if is_unclear {
            self.split_rename(place, rename, (old, new), there, observer);
            return;
        }
        self.open_files.moved((0, old), (0, new));
        observer.event(Event::Move { from: old, to: new });
        self.set_recheck(place, from, false);
        self.set_recheck(place, to, true);
        // The record of a later change may have been handled already, see above.
        if there[0].is_some() {
            self.recheck(place, from, false, false, false);
        }
        if there[1].is_none() {
            self.recheck(place, to, false, true, false);
        }
    }

    fn directory_moved(
        &mut self,
        place: usize,
        rename: Rename<'_>,
        (old, new): (&[u8], &[u8]),
        is_exchange: bool,
        observer: &mut dyn Observer,
    ) {
        let Rename { from, to, .. } = rename;
        let there = [self.kind_of(place, from), self.kind_of(place, to)];
        let target = rename.target.map(|target| target.bytes);
        let is_old = self.is_shadowed(place, target, [from, to], [old, new]);
        let is_unclear = is_exchange
            || is_old
            || (rename.swaps && there[0].is_some())
            || self.is_doubtful(place, from)
            || self.is_doubtful(place, to)
            || !self.is_consistent(place, rename);
        if is_unclear {
            self.relink(place, rename.target);
            self.split_rename(place, rename, (old, new), there, observer);
            return;
        }
        if rename.replaces {
            observer.event(Event::Delete { path: new });
        }
        self.set_recheck(place, from, false);
        self.set_recheck(place, to, true);
        if there[0].is_some() {
            self.recheck(place, from, true, false, false);
        }
        self.take_place(place, rename);
        self.open_files.moved_below(old, new);
        self.shadow.on_moved(old, new);
        let follow = observer.event(Event::Move { from: old, to: new });
        if !self.scopes.wanted(new) {
            // Nothing below is wanted any more.
        } else if !self.scopes.wanted(old) {
            observer.event(Event::Create { path: new });
            self.read(place, rename, new, Tell::All);
        } else if follow == Follow::Contents {
            let number = next_rename();
            observer.follow(number);
            self.read(place, rename, new, Tell::Unmoved(number));
        }
        self.root_left(old, Loss::Moved);
        self.root_appeared(new);
    }

    /// Tells what is at both names of a rename, `there` by the disk.
    fn split_rename(
        &mut self,
        place: usize,
        rename: Rename<'_>,
        (old, new): (&[u8], &[u8]),
        there: [Option<FileType>; 2],
        observer: &mut dyn Observer,
    ) {
        for ((entry, path), now) in [(rename.from, old), (rename.to, new)]
            .into_iter()
            .zip(there)
        {
            observer.event(Event::Delete { path });
            if rename.directory {
                self.root_left(path, Loss::Moved);
            }
            self.report_kind(place, entry, now, path, observer);
            self.recheck(place, entry, rename.directory, now.is_some(), true);
        }
    }

    /// Tells that there is an object at a path, which may end with `/`.
    pub(super) fn report_kind(
        &mut self,
        place: usize,
        entry: EntryName<'_>,
        now: Option<FileType>,
        path: &[u8],
        observer: &mut dyn Observer,
    ) {
        let bare = crate::paths::bare(path);
        match now {
            None => {}
            Some(FileType::Directory) => {
                let path = [bare, b"/"].concat();
                self.relink_name(place, entry);
                observer.event(Event::Create { path: &path });
                self.read_name(place, entry, &path);
                self.root_appeared(&path);
            }
            Some(_) => {
                self.open_files.touched(0, bare, false, self.now);
                observer.event(Event::Create { path: bare });
            }
        }
    }

    /// Reads a renamed directory, wherever it is now.
    fn read(&mut self, place: usize, rename: Rename<'_>, path: &[u8], tell: Tell) {
        let Some(target) = rename.target else {
            return self.read_name(place, rename.to, path);
        };
        match self.open(place, target.bytes) {
            Ok(Some(directory)) => self.read_contents(directory, path, tell),
            Ok(None) => {}
            Err(_) => self.dirty = true,
        }
    }

    /// Records the new place of a directory.
    fn take_place(&mut self, place: usize, rename: Rename<'_>) {
        let (Some(parent), Some(target)) = (
            self.find_inside(place, rename.to.directory.bytes),
            rename.target,
        ) else {
            return;
        };
        let placed = self
            .known
            .place_at(place, target.bytes, parent, rename.to.name);
        if placed.is_none() {
            // The known directories contradict the event.
            self.forget_directories();
        }
    }

    /// Returns the path of a name in a directory that is wanted.
    fn path_in(&mut self, place: usize, entry: EntryName<'_>, directory: bool) -> Option<Vec<u8>> {
        self.find_wanted(place, entry.directory.bytes)?;
        let mut path = self.path.clone();
        path.extend_from_slice(entry.name);
        if directory {
            path.push(b'/');
        }
        Some(path)
    }

    /// Returns true if a directory is where a rename has put it. If that is not so, the rename was
    /// followed by the same one again, as one record, or by one that has not been read.
    fn is_consistent(&mut self, place: usize, rename: Rename<'_>) -> bool {
        let Some(target) = rename.target else {
            return true;
        };
        let to = (rename.to.directory.bytes, rename.to.name);
        if let Some((parent, name)) = self.upcoming.name_of(target.system, target.bytes) {
            return (parent.as_slice(), name.as_slice()) == to;
        }
        let Ok(Some(directory)) = self.open(place, target.bytes) else {
            return false;
        };
        let number = rustix::fs::fstat(&directory).map(|status| status.st_ino);
        number.is_ok_and(|number| self.number_of(place, rename.to) == Some(number))
    }

    /// Returns the records after a rename: those that belong to it are among them.
    fn following(&mut self, rest: &[u8]) -> Vec<u8> {
        let mut bytes = rest[..rest.len().min(64 * 1024)].to_vec();
        if count(&bytes) < FOLLOWING {
            self.catch_up();
            bytes.extend(self.next_records());
        }
        bytes
    }

    /// Returns true if a directory may have been at the new name of a renamed one. The kernel reports
    /// the end of its last link right after the rename, or before, with an earlier change.
    fn replaces(&mut self, place: usize, record: &EventRecord<'_>, following: &[u8]) -> bool {
        if self.position <= self.replaced {
            return true;
        }
        for next in decode(following).take(FOLLOWING) {
            let Some(entry) = next.entry.filter(|entry| entry.name == b".") else {
                continue;
            };
            let handle = entry.directory.bytes;
            let is_candidate = next.process == record.process && next.is(libc::FAN_ATTRIB);
            if is_candidate && self.is_gone(place, handle) {
                self.known.leave(place, handle);
                self.last_replaced = handle.to_vec();
                return true;
            }
        }
        count(following) == 0 && !self.reader.drained()
    }
}

/// Returns true if the rename may be the first half of an exchange. The kernel reports the second right
/// after it.
fn swaps(record: &EventRecord<'_>, following: &[u8]) -> bool {
    let is_second = |next: EventRecord<'_>| {
        next.from.is_some() && (next.from, next.to) == (record.to, record.from)
    };
    decode(following).take(FOLLOWING).any(is_second)
}

/// Returns the text of an event for the log.
fn describe(mask: u64, path: &[u8]) -> String {
    let kinds = [
        (libc::FAN_CREATE, "Create"),
        (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE, "Modify"),
        (libc::FAN_ATTRIB, "Attrib"),
        (libc::FAN_DELETE, "Delete"),
    ];
    let kinds = kinds.iter().filter(|(bits, _)| mask & bits != 0);
    let kinds: Vec<&str> = kinds.map(|(_, kind)| *kind).collect();
    format!("got event {} {}", kinds.join(" "), log::escape(path))
}
