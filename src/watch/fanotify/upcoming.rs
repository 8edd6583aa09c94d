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
