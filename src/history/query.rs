//! Queries: the entries that a client asks for, merged by time, in pages.

use super::page::{LogEntry, LogPage};
use super::record::{self, Operation, StoredEntry, StoredRecord};
use crate::log::escape;
use crate::paths;

/// The maximum number of entries of a page.
pub const MAX_PAGE_ENTRIES: usize = 5000;

/// A query of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The rings to be read.
    pub rings: Vec<RingQuery>,
    /// The earliest time, in microseconds since the epoch.
    pub since: u64,
    /// The maximum number of entries.
    pub limit: usize,
    /// The newest entries are wanted, not the oldest.
    pub newest: bool,
}

/// The part of a query for one sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingQuery {
    /// The key of the ring.
    pub key: String,
    /// The name of the sync.
    pub name: String,
    /// The target of the sync.
    pub target: Vec<u8>,
    /// Selects entries about this path, relative to the source: the path itself, paths below it,
    /// and comparisons of directories above it. That of a directory may end with a slash.
    pub path: Option<Vec<u8>>,
    /// The path is excluded, so entries about directories above it are not about the path.
    pub is_left_out: bool,
    /// Selects entries after this number.
    pub after: Option<u64>,
}

/// Collects the entries of a query.
pub struct PageBuilder<'a> {
    query: &'a HistoryQuery,
    limit: usize,
    page: LogPage,
}

impl<'a> PageBuilder<'a> {
    /// Returns an empty page.
    pub fn new(query: &'a HistoryQuery) -> PageBuilder<'a> {
        PageBuilder {
            query,
            limit: query.limit.clamp(1, MAX_PAGE_ENTRIES),
            page: LogPage::default(),
        }
    }

    /// Adds the entries of a ring.
    pub fn add(&mut self, ring: &RingQuery, halves: &[Vec<u8>; 2]) {
        let last = halves.iter().rev().find_map(|half| last_number(half));
        // The ring was replaced by a new one whose numbers are smaller.
        let after = ring
            .after
            .filter(|&after| last.is_some_and(|last| after <= last));
        let mut examined = after;
        let mut found = 0;
        let before = self.page.entries.len();
        let records = halves.iter().flat_map(|half| record::records(half));
        'ring: for record in records {
            let is_known = after.is_some_and(|after| record.next() <= after.saturating_add(1));
            if is_known || record.summary.time < self.query.since {
                examined = examined.max(record.next().checked_sub(1));
                continue;
            }
            for (number, entry) in record.entries() {
                if after.is_some_and(|after| number <= after) {
                    continue;
                }
                if is_about(&entry, ring) {
                    let entry = log_entry(ring, &record, number, &entry);
                    self.page.entries.push(entry);
                    found += 1;
                }
                examined = Some(number);
                if self.query.newest && found > 2 * self.limit {
                    let end = self.page.entries.len() - self.limit;
                    self.page.entries.drain(before..end);
                    found = self.limit;
                }
                // One entry beyond the limit shows that there are more.
                if found > self.limit && !self.query.newest {
                    break 'ring;
                }
            }
        }
        if let Some(examined) = examined {
            self.page.next.insert(ring.name.clone(), examined);
        }
    }

    /// Reports that a ring cannot be read.
    pub fn fail(&mut self, ring: &RingQuery, reason: &str) {
        self.page.problems.push(format!("{}: {reason}", ring.name));
    }

    /// Returns the page: the oldest entries of all rings.
    pub fn finish(mut self, lost: u64) -> LogPage {
        let page = &mut self.page;
        // Stable, so the entries of a sync keep their order.
        page.entries.sort_by(|a, b| a.time.total_cmp(&b.time));
        if self.query.newest {
            let end = page.entries.len().saturating_sub(self.limit);
            page.entries.drain(..end);
        } else if page.entries.len() > self.limit {
            page.more = true;
            for entry in page.entries.drain(self.limit..).rev() {
                page.next.insert(entry.sync, entry.number.saturating_sub(1));
            }
        }
        page.lost = lost;
        self.page
    }
}

fn last_number(half: &[u8]) -> Option<u64> {
    record::records(half).last()?.next().checked_sub(1)
}

/// Returns true if an entry concerns the path of a query.
fn is_about(entry: &StoredEntry<'_>, ring: &RingQuery) -> bool {
    let Some(path) = ring.path.as_deref() else {
        return true;
    };
    // Directories are sent without what is in them, which has entries of its own.
    let is_deep =
        !ring.is_left_out && !matches!(entry.operation, Operation::Sent | Operation::Attributes);
    let relates = |other: &[u8]| {
        paths::bare(other) == paths::bare(path)
            || other.starts_with(&paths::with_slash(path))
            || (is_deep && (other.is_empty() || paths::with_slash(path).starts_with(other)))
    };
    relates(entry.path) || (entry.operation == Operation::Moved && relates(entry.other))
}

fn log_entry(
    ring: &RingQuery,
    record: &StoredRecord<'_>,
    number: u64,
    entry: &StoredEntry<'_>,
) -> LogEntry {
    let summary = &record.summary;
    let other = || escape(entry.other).into_owned();
    LogEntry {
        time: seconds(summary.time),
        sync: ring.name.clone(),
        target: escape(&ring.target).into_owned(),
        operation: entry.operation.name().into(),
        path: escape(entry.path).into_owned(),
        to: (entry.operation == Operation::Moved).then(other),
        reason: (entry.operation == Operation::Failed).then(other),
        number,
        code: summary.code,
        seconds: seconds(summary.duration),
        bytes: summary.bytes,
        entries: summary.entries,
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::record::{BatchRecord, BatchSummary};
    use super::*;

    /// Returns a ring with one batch for each name, a second apart.
    fn halves(names: &[&str], first: u64) -> [Vec<u8>; 2] {
        let mut halves = [Vec::new(), Vec::new()];
        for (index, name) in names.iter().enumerate() {
            let summary = BatchSummary {
                time: index as u64 * 1_000_000,
                ..BatchSummary::default()
            };
            let mut batch = BatchRecord::new(summary, usize::MAX);
            let operation = if *name == "/d/" {
                Operation::Deleted
            } else {
                Operation::Sent
            };
            batch.push(operation, name.as_bytes(), b"");
            let (_, record) = batch.records(first + index as u64).remove(0);
            halves[index * 2 / names.len()].extend(record);
        }
        halves
    }

    fn ring(name: &str) -> RingQuery {
        RingQuery {
            name: name.into(),
            ..RingQuery::default()
        }
    }

    #[test]
    fn pages_of_several_syncs_have_each_entry_once_in_the_order_of_time() {
        let rings = [
            halves(&["/a0", "/a1", "/a2", "/a3"], 7),
            halves(&["/b0", "/b1"], 100),
        ];
        for limit in 1..8 {
            let mut query = HistoryQuery {
                rings: vec![ring("a"), ring("b")],
                limit,
                ..HistoryQuery::default()
            };
            let mut all = Vec::new();
            loop {
                let mut builder = PageBuilder::new(&query);
                for (wanted, halves) in query.rings.iter().zip(&rings) {
                    builder.add(wanted, halves);
                }
                let page = builder.finish(0);
                assert!(page.entries.len() <= limit);
                all.extend(page.entries.into_iter().map(|entry| entry.path));
                for wanted in &mut query.rings {
                    wanted.after = page.next.get(&wanted.name).copied().or(wanted.after);
                }
                if !page.more {
                    break;
                }
            }
            assert_eq!(all, ["/a0", "/b0", "/a1", "/b1", "/a2", "/a3"], "{limit}");
        }
    }

    #[test]
    fn a_path_has_its_entries_and_those_of_deleted_directories_above() {
        let halves = halves(&["/d/f", "/d/", "/d/f/below", "/df", "/d", "/"], 0);
        let query = HistoryQuery {
            limit: 10,
            ..HistoryQuery::default()
        };
        let paths = |path: &str, is_left_out| {
            let mut builder = PageBuilder::new(&query);
            let wanted = RingQuery {
                path: Some(path.as_bytes().to_vec()),
                is_left_out,
                ..ring("a")
            };
            builder.add(&wanted, &halves);
            let entries = builder.finish(0).entries.into_iter();
            entries.map(|entry| entry.path).collect::<Vec<_>>()
        };
        assert_eq!(paths("/d/f", false), ["/d/f", "/d/", "/d/f/below"]);
        assert_eq!(paths("/df", false), ["/df"]);
        assert_eq!(paths("/d/f", true), ["/d/f", "/d/f/below"]);
    }

    #[test]
    fn a_ring_that_began_anew_is_read_from_its_start() {
        let query = HistoryQuery {
            limit: 10,
            ..HistoryQuery::default()
        };
        let mut builder = PageBuilder::new(&query);
        let after = Some(500);
        builder.add(&RingQuery { after, ..ring("a") }, &halves(&["/x"], 3));
        assert_eq!(builder.finish(0).entries.len(), 1);
    }
}
