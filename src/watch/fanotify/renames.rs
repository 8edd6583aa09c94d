//! Handles renames, whose two names may be inside or outside of a source, or differ from the disk.
//! See [`dispatch`](super::dispatch) for the order of events.

use std::collections::VecDeque;

use rustix::fs::FileType;

use super::FanotifyBackend;
use super::records::{EntryName, EventRecord, HandleRef, count, decode};
use crate::log;
use crate::watch::{Event, Follow, Loss, Observer, Tell, next_rename};

/// The maximum number of renames that are remembered to detect an exchange.
const MAX_RECENT: usize = 64;

/// The number of records after a rename that are examined. Related records follow at once.
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
    /// Handles the record of a rename at these places; `rest` are the records after it.
    pub(super) fn rename(
        &mut self,
        places: &[usize],
        record: &EventRecord<'_>,
        (from, to): (EntryName<'_>, EntryName<'_>),
        rest: &[u8],
        observer: &mut dyn Observer,
    ) {
        let following = self.following(rest);
        for &place in places {
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

    /// Handles a rename at one place.
    fn renamed(&mut self, place: usize, rename: Rename<'_>, observer: &mut dyn Observer) {
        let Rename { from, to, .. } = rename;
        let old = self.path_in(place, from, rename.directory);
        let new = self.path_in(place, to, rename.directory);
        if rename.directory && new.is_some() {
            // A directory may be of interest at its new path only.
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

    /// Handles a file or directory that is moved outside.
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
            observer.renewed(new);
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
            observer.renewed(new);
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
        let is_unclear = there.contains(&Some(FileType::Directory))
            || self.is_unclear(place, rename, is_exchange, there);
        if is_unclear {
            let names = (old, new);
            self.split_rename(place, rename, names, is_exchange, there, observer);
            return;
        }
        self.open_files.moved((0, old), (0, new));
        observer.event(Event::Move { from: old, to: new });
        self.set_recheck(place, from, false);
        self.set_recheck(place, to, true);
        // The record of a later change may have been handled already, see `dispatch`.
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
        let is_unclear = is_old
            || self.is_unclear(place, rename, is_exchange, there)
            || !self.is_consistent(place, rename);
        if is_unclear {
            self.relink(place, rename.target);
            let names = (old, new);
            self.split_rename(place, rename, names, is_exchange, there, observer);
            return;
        }
        if rename.replaces {
            observer.renewed(new);
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

    /// Returns true if the record alone does not say what is at the names of a rename, `there` by
    /// the disk.
    fn is_unclear(
        &self,
        place: usize,
        rename: Rename<'_>,
        is_exchange: bool,
        there: [Option<FileType>; 2],
    ) -> bool {
        is_exchange
            || (rename.swaps && there[0].is_some())
            || self.is_doubtful(place, rename.from)
            || self.is_doubtful(place, rename.to)
    }

    /// Reports the entries at both names of a rename; `there` is the state of the disk.
    fn split_rename(
        &mut self,
        place: usize,
        rename: Rename<'_>,
        (old, new): (&[u8], &[u8]),
        is_exchange: bool,
        there: [Option<FileType>; 2],
        observer: &mut dyn Observer,
    ) {
        // Nothing that the source had at the new name is gone, unless it is at the old one.
        let is_new = there[1].is_some() && !is_exchange && !rename.swaps;
        let names = [(rename.from, old, false), (rename.to, new, is_new)];
        for ((entry, path, is_new), now) in names.into_iter().zip(there) {
            if is_new {
                observer.renewed(path);
            } else {
                observer.event(Event::Delete { path });
            }
            if rename.directory {
                self.root_left(path, Loss::Moved);
            }
            self.report_kind(place, entry, now, path, observer);
            self.recheck(place, entry, rename.directory, now.is_some(), true);
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
            Err(error) => self.lose(&format!("a renamed directory cannot be opened: {error}")),
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

    /// Returns true if a directory may have been at the new name of a renamed one. The kernel
    /// reports the end of its last link right after the rename, or before, with an earlier change.
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

/// Returns true if the rename may be the first half of an exchange. The kernel reports the second
/// right after it.
fn swaps(record: &EventRecord<'_>, following: &[u8]) -> bool {
    let is_second = |next: EventRecord<'_>| {
        next.from.is_some() && (next.from, next.to) == (record.to, record.from)
    };
    decode(following).take(FOLLOWING).any(is_second)
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{SYSTEM, rename as renamed};
    use super::*;

    fn entry<'a>(directory: &'a [u8], name: &'a [u8]) -> EntryName<'a> {
        let system = SYSTEM;
        let bytes = directory;
        EntryName {
            directory: HandleRef { system, bytes },
            name,
        }
    }

    fn rename<'a>(from: [&'a [u8]; 2], to: [&'a [u8]; 2], target: &'a [u8]) -> Rename<'a> {
        Rename {
            from: entry(from[0], from[1]),
            to: entry(to[0], to[1]),
            target: Some(HandleRef {
                system: SYSTEM,
                bytes: target,
            }),
            directory: true,
            replaces: false,
            swaps: false,
        }
    }

    #[test]
    fn an_exchange_is_the_reverse_of_a_rename_of_another_object() {
        let (a, b): ([&[u8]; 2], [&[u8]; 2]) = ([b"d", b"a"], [b"e", b"b"]);
        let others: [[&[u8]; 2]; 3] = [[b"d", b"b"], [b"e", b"a"], [b"f", b"b"]];
        let mut recent = RecentRenames::default();
        assert!(!recent.is_exchange(0, &rename(a, b, b"1")));
        for other in others {
            assert!(!recent.is_exchange(0, &rename(other, a, b"2")));
            assert!(!recent.is_exchange(0, &rename(b, other, b"2")));
        }
        assert!(!recent.is_exchange(1, &rename(b, a, b"2")));
        assert!(!recent.is_exchange(0, &rename(a, b, b"2")));
        assert!(recent.is_exchange(0, &rename(b, a, b"1")));
        recent.clear();
        assert!(!recent.is_exchange(0, &rename(b, a, b"1")));
        // Back again.
        assert!(!recent.is_exchange(0, &rename(a, b, b"1")));
    }

    #[test]
    fn an_exchange_is_known_among_many_renames() {
        let (a, b): ([&[u8]; 2], [&[u8]; 2]) = ([b"d", b"a"], [b"e", b"b"]);
        let mut recent = RecentRenames::default();
        for number in 0..3 * MAX_RECENT {
            recent.is_exchange(0, &rename(a, b, b"1"));
            let name = number.to_string();
            let other = [&b"d"[..], name.as_bytes()];
            recent.is_exchange(0, &rename(other, [b"x", b"x"], b"3"));
            assert!(recent.is_exchange(0, &rename(b, a, b"2")), "{number}");
            assert!(recent.0.len() <= MAX_RECENT);
        }
    }

    #[test]
    fn the_second_half_of_an_exchange_follows_soon() {
        let mask = libc::FAN_ONDIR;
        let (a, b): ([&[u8]; 2], [&[u8]; 2]) = ([b"dddd", b"a"], [b"eeee", b"b"]);
        let first = renamed(mask, a, b, b"1111");
        let second = renamed(mask, b, a, b"2222");
        let first = decode(&first).next().unwrap();
        let change = super::super::records::tests::record(
            libc::FAN_CREATE,
            &[super::super::records::tests::info(
                2,
                SYSTEM,
                b"dddd",
                Some(b"x"),
            )],
        );
        assert!(swaps(&first, &second));
        assert!(swaps(&first, &[change.clone(), second.clone()].concat()));
        assert!(!swaps(&first, &change));
        assert!(!swaps(&first, &[]));
        for (from, to) in [(a, b), (b, b), (b, [a[0], b[1]]), ([a[0], b[1]], a)] {
            assert!(!swaps(&first, &renamed(mask, from, to, b"2222")));
        }
        let many = [change.repeat(FOLLOWING), second].concat();
        assert!(!swaps(&first, &many));
        // A record without names is no rename.
        let none = EventRecord::default();
        assert!(!swaps(&none, &change));
    }
}
