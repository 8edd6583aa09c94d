//! The last entry about each of several paths.

use std::collections::BTreeMap;

use super::record::{self, Operation};
use crate::log::escape;
use crate::paths;

/// The last entry about a path.
#[derive(Clone, Debug, PartialEq)]
pub struct LastEntry {
    /// The time at which its batch ended, in seconds since the epoch.
    pub time: f64,
    /// The operation.
    pub operation: Operation,
    /// The reason of a failure, in printable form.
    pub reason: Option<String>,
}

/// Returns for each path the last entry about it, or about a directory above it whose contents were
/// deleted, moved or compared with it.
pub fn last_entries(halves: &[Vec<u8>; 2], paths: &[Vec<u8>]) -> Vec<Option<LastEntry>> {
    let keys = paths.iter().map(|path| paths::with_slash(path));
    let places: BTreeMap<Vec<u8>, usize> = keys.zip(0..).collect();
    let mut last = vec![None; paths.len()];
    for record in halves.iter().flat_map(|half| record::records(half)) {
        for (_, entry) in record.entries() {
            let has_failed = entry.operation == Operation::Failed;
            let found = LastEntry {
                time: record.summary.time as f64 / 1e6,
                operation: entry.operation,
                reason: has_failed.then(|| escape(entry.other).into_owned()),
            };
            let is_moved = entry.operation == Operation::Moved;
            for name in [Some(entry.path), is_moved.then_some(entry.other)] {
                for &place in name
                    .into_iter()
                    .flat_map(|name| covered(&places, &entry, name))
                {
                    last[place] = Some(found.clone());
                }
            }
        }
    }
    last
}

/// Returns the places of the paths that an entry with this name is about.
fn covered<'a>(
    places: &'a BTreeMap<Vec<u8>, usize>,
    entry: &record::StoredEntry<'_>,
    name: &[u8],
) -> Vec<&'a usize> {
    let key = paths::with_slash(name);
    let is_deep = !matches!(entry.operation, Operation::Sent | Operation::Attributes);
    if !is_deep || !(name.is_empty() || name.ends_with(b"/")) {
        return places.get(&key).into_iter().collect();
    }
    let below = places.range(key.clone()..);
    let below = below.take_while(|(path, _)| path.starts_with(&key));
    below.map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{BatchRecord, BatchSummary};
    use super::*;

    fn half(batches: &[(u64, Operation, &str, &str)]) -> Vec<u8> {
        let records = batches.iter().flat_map(|&(time, operation, path, other)| {
            let summary = BatchSummary {
                time: time * 1_000_000,
                ..BatchSummary::default()
            };
            let mut batch = BatchRecord::new(summary, usize::MAX);
            batch.push(operation, path.as_bytes(), other.as_bytes());
            batch.records(time).remove(0).1
        });
        records.collect()
    }

    #[test]
    fn the_last_entry_about_a_path_or_a_directory_above_it_counts() {
        let halves = [
            half(&[
                (1, Operation::Compared, "", ""),
                (2, Operation::Sent, "/a", ""),
                (3, Operation::Sent, "/d/", ""),
                (4, Operation::Moved, "/x", "/y"),
            ]),
            half(&[
                (5, Operation::Failed, "/b", "No space\nleft"),
                (6, Operation::Deleted, "/e/", ""),
            ]),
        ];
        let paths = ["/a", "/d/f", "/d", "/y", "/x", "/b", "/e/f", "/ef", "/"];
        let paths = paths.map(|path| path.as_bytes().to_vec());
        let last = last_entries(&halves, &paths);
        let times: Vec<_> = last.iter().flatten().map(|entry| entry.time).collect();
        assert_eq!(times, [2.0, 1.0, 3.0, 4.0, 4.0, 5.0, 6.0, 1.0, 1.0]);
        let failed = last[5].clone().unwrap();
        assert_eq!(failed.operation, Operation::Failed);
        assert_eq!(failed.reason.as_deref(), Some("No space\\012left"));
        let empty = last_entries(&[Vec::new(), Vec::new()], &paths[..1]);
        assert_eq!(empty, [None]);
    }
}
