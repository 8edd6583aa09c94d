//! Handles each event by its kind.
//!
//! A path consists of the path of the directory at the time of reading and the name of the event.
//! The order of events differs from that of the changes for two reasons: events of one name that
//! are in the queue together are one record, at the place of the first; and a look-up of a
//! directory is ahead of the events in the queue. Therefore
//!
//! * a name whose record contains a deletion and other events, or a rename that the disk does not
//!   confirm, is looked up again when the queue has been read up to that moment
//!   ([`rechecks`](super::rechecks));
//! * a rename of a directory that concerns a look-up that may be newer ([`shadow`](super::shadow))
//!   is reported as the entries that the disk has at both names, with all contents. This corrects
//!   earlier reports that were ahead of the events.

use rustix::fs::FileType;

use super::FanotifyBackend;
use super::lookup::FoundDirectory;
use super::places::Place;
use super::records::{EntryName, EventRecord};
use crate::log;
use crate::watch::{Event, Loss, Observer};

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
            // Only the link count of a file has changed; its names have their own events.
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
        self.rename(&places, record, (from, to), rest, observer);
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

    /// Reports that an object exists at a path, which may end with `/`.
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

    /// Returns the path of a name in a directory that is wanted.
    pub(super) fn path_in(
        &mut self,
        place: usize,
        entry: EntryName<'_>,
        directory: bool,
    ) -> Option<Vec<u8>> {
        self.find_wanted(place, entry.directory.bytes)?;
        let mut path = self.path.clone();
        path.extend_from_slice(entry.name);
        if directory {
            path.push(b'/');
        }
        Some(path)
    }
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
