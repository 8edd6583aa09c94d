//! Drops events of directories outside of all sources, on the reader's thread.
//!
//! The mark reports changes of a whole file system, among them the daemon's own log and status
//! file. Events in directories that are known to be outside of all sources neither wake the loop
//! nor are stored. When a directory is moved into a source, its contents are read afterwards, so no
//! change is missed.

use std::sync::{PoisonError, RwLock};

use hashbrown::HashSet;

use super::records::{EntryName, EventRecord, HandleRef, decode};

/// The directories, by file system and handle.
#[derive(Default)]
pub struct IrrelevantDirectories(RwLock<HashSet<Vec<u8>>>);

fn key(directory: HandleRef<'_>) -> Vec<u8> {
    [&directory.system, directory.bytes].concat()
}

impl IrrelevantDirectories {
    /// Adds a directory.
    pub fn add(&self, directory: HandleRef<'_>) {
        let mut directories = self.0.write().unwrap_or_else(PoisonError::into_inner);
        directories.insert(key(directory));
    }

    /// Removes all directories.
    pub fn clear(&self) {
        let mut directories = self.0.write().unwrap_or_else(PoisonError::into_inner);
        directories.clear();
    }

    /// Returns the relevant records, if some are irrelevant.
    pub fn filter(&self, records: &[u8]) -> Option<Vec<u8>> {
        let directories = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if directories.is_empty() {
            return None;
        }
        let is_outside = |entry: EntryName<'_>| directories.contains(&key(entry.directory));
        let mut kept = Vec::new();
        let mut decoder = decode(records);
        let mut rest = records;
        while let Some(record) = decoder.next() {
            let (bytes, next) = rest.split_at(rest.len() - decoder.rest().len());
            rest = next;
            if !is_irrelevant(&record, is_outside) {
                kept.extend_from_slice(bytes);
            }
        }
        (kept.len() < records.len()).then_some(kept)
    }
}

/// Returns true if a record changes nothing that is known. A directory that is renamed or deleted
/// may be a root, or known from elsewhere.
fn is_irrelevant(record: &EventRecord<'_>, is_outside: impl Fn(EntryName<'_>) -> bool) -> bool {
    if record.directory() && record.is(libc::FAN_RENAME | libc::FAN_DELETE) {
        return false;
    }
    let entries = [record.entry, record.from, record.to];
    let mut entries = entries.into_iter().flatten().peekable();
    entries.peek().is_some() && entries.all(is_outside)
}

#[cfg(test)]
mod tests {
    use super::super::records::QUEUE;
    use super::super::records::tests::{SYSTEM, info, record, rename};
    use super::*;

    const IN: &[u8] = b"\x01\0\0\0in";
    const OUT: &[u8] = b"\x01\0\0\0outside";

    fn entry(mask: u64, directory: &[u8]) -> Vec<u8> {
        record(mask, &[info(2, SYSTEM, directory, Some(b"name"))])
    }

    #[test]
    fn only_what_changes_nothing_inside_is_dropped() {
        let (create, delete) = (libc::FAN_CREATE, libc::FAN_DELETE);
        let directory = libc::FAN_ONDIR;
        let records = [
            (entry(create, OUT), false),
            (entry(create, IN), true),
            (entry(delete, OUT), false),
            (entry(create | directory, OUT), false),
            (entry(delete | directory, OUT), true),
            ((QUEUE.overflow)(), true),
            (rename(0, [OUT, b"a"], [OUT, b"b"], b"file"), false),
            (rename(0, [OUT, b"a"], [IN, b"b"], b"file"), true),
            (rename(0, [IN, b"a"], [OUT, b"b"], b"file"), true),
            (rename(directory, [OUT, b"a"], [OUT, b"b"], b"root"), true),
        ];
        let directories = IrrelevantDirectories::default();
        let all: Vec<u8> = records
            .iter()
            .flat_map(|(bytes, _)| bytes.clone())
            .collect();
        assert_eq!(directories.filter(&all), None);
        let bytes = OUT;
        directories.add(HandleRef {
            system: SYSTEM,
            bytes,
        });
        let other = *b"SYSTEM 2";
        directories.add(HandleRef {
            system: other,
            bytes: IN,
        });
        let kept = records.iter().filter(|(_, is_kept)| *is_kept);
        let kept: Vec<u8> = kept.flat_map(|(bytes, _)| bytes.clone()).collect();
        assert_eq!(directories.filter(&all), Some(kept.clone()));
        assert_eq!(directories.filter(&kept), None);
        directories.clear();
        assert_eq!(directories.filter(&all), None);
    }
}
