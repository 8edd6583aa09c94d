//! Renames of directories that have been read and not handled.
//!
//! On disk, a directory has the name that its last rename has given it. Events before that rename
//! refer to another name: the old name in the first rename that has not been handled. Paths are
//! therefore those of the time of the event, as far as events have been read.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::records::{EntryName, EventRecord, HandleRef, decode};

/// A directory and a name in it.
pub type OwnedName = (Vec<u8>, Vec<u8>);

/// The key of a directory: file system and handle.
type DirectoryKey = ([u8; 8], Vec<u8>);

#[derive(Hash)]
struct SeekDirectory<'a>([u8; 8], &'a [u8]);

impl hashbrown::Equivalent<DirectoryKey> for SeekDirectory<'_> {
    fn equivalent(&self, key: &DirectoryKey) -> bool {
        self.0 == key.0 && self.1 == key.1.as_slice()
    }
}

/// The old names of directories in renames, in the order of the events.
#[derive(Default)]
pub struct UpcomingRenames(HashMap<DirectoryKey, VecDeque<OwnedName>>);

/// Returns the directory and its old name, if the record is the rename of one.
fn rename<'a>(record: &EventRecord<'a>) -> Option<(HandleRef<'a>, EntryName<'a>)> {
    let is_rename = record.is(libc::FAN_RENAME) && record.directory();
    Some((record.target.filter(|_| is_rename)?, record.from?))
}

impl UpcomingRenames {
    /// Takes in records that have been read.
    pub fn on_read(&mut self, records: &[u8]) {
        for (target, from) in decode(records).filter_map(|record| rename(&record)) {
            let key = (target.system, target.bytes.to_vec());
            let name = (from.directory.bytes.to_vec(), from.name.to_vec());
            self.0.entry(key).or_default().push_back(name);
        }
    }

    /// Takes in a record that is handled now.
    pub fn on_handled(&mut self, record: &EventRecord<'_>) {
        let Some((target, _)) = rename(record) else {
            return;
        };
        let key = SeekDirectory(target.system, target.bytes);
        if let Some(renames) = self.0.get_mut(&key) {
            renames.pop_front();
            if renames.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name that a directory had before the first rename.
    pub fn name_of(&self, system: [u8; 8], handle: &[u8]) -> Option<&OwnedName> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&SeekDirectory(system, handle))?.front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{SYSTEM, rename as renamed};
    use super::*;

    const DIRECTORY: u64 = libc::FAN_ONDIR;
    const HANDLE: &[u8] = b"\x01\0\0\0handle";

    #[test]
    fn a_directory_has_the_name_before_the_first_rename_that_is_not_handled() {
        let parents = [b"\x01\0\0\0pa", b"\x01\0\0\0pb", b"\x01\0\0\0pc"];
        let place = |at: usize| [&parents[at][..], &parents[at][4..]];
        let reads = [
            renamed(DIRECTORY, place(0), place(1), HANDLE),
            renamed(0, place(0), place(1), b"\x01\0\0\0file"),
            renamed(DIRECTORY, place(1), place(2), HANDLE),
        ]
        .concat();
        let mut upcoming = UpcomingRenames::default();
        assert!(upcoming.is_empty());
        upcoming.on_read(&reads);
        let own = |at: usize| (place(at)[0].to_vec(), place(at)[1].to_vec());
        assert_eq!(upcoming.name_of(SYSTEM, HANDLE), Some(&own(0)));
        assert_eq!(upcoming.name_of(*b"SYSTEM 2", HANDLE), None);
        assert_eq!(upcoming.name_of(SYSTEM, b"\x01\0\0\0file"), None);
        let records: Vec<_> = decode(&reads).collect();
        upcoming.on_handled(&records[0]);
        upcoming.on_handled(&records[1]);
        assert_eq!(upcoming.name_of(SYSTEM, HANDLE), Some(&own(1)));
        assert!(!upcoming.is_empty());
        upcoming.on_handled(&records[2]);
        assert!(upcoming.is_empty() && upcoming.name_of(SYSTEM, HANDLE).is_none());
    }

    #[test]
    fn each_directory_has_its_own_names() {
        let handle = |number: u32| [&b"\x01\0\0\0"[..], &number.to_ne_bytes()].concat();
        let mut upcoming = UpcomingRenames::default();
        for number in 0..2000 {
            let (name, to) = (number.to_string(), [HANDLE, &b"new"[..]]);
            upcoming.on_read(&renamed(
                DIRECTORY,
                [HANDLE, name.as_bytes()],
                to,
                &handle(number),
            ));
        }
        for number in 0..2000 {
            let name = upcoming.name_of(SYSTEM, &handle(number)).unwrap();
            assert_eq!(name.1, number.to_string().as_bytes());
            assert_eq!(upcoming.name_of(SYSTEM, &handle(number + 2000)), None);
        }
    }
}
