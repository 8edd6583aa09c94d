//! What a sync has done so far, counted for whoever asks: control socket, metrics, status page.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::batch::error_lines::Attribute;
use crate::batch::output::RsyncTotals;

/// The counters of one sync since the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Events that passed the filter.
    pub events: u64,
    /// Children that ended well, startup transfers included.
    pub batches: u64,
    /// Queue entries these were about.
    pub entries: u64,
    /// Bytes sent, as far as the children tell (`--stats`, `-v`).
    pub bytes: u64,
    /// Files sent, as far as the children tell (`--stats`).
    pub files: u64,
    /// How often the kernel's queue overflowed.
    pub overflows: u64,
    /// Failed children by exit code; 128 + n is signal n.
    pub failures: BTreeMap<i32, u64>,
    /// How often an attribute of a path that arrived could not be set.
    pub unset_attributes: BTreeMap<Attribute, u64>,
    /// When something ended well last.
    pub last_success: Option<SystemTime>,
    /// What failed last, be it long ago.
    pub last_failure: Option<LastFailure>,
    /// The sync is in a row of failures that hooks were told of.
    pub failing: bool,
}

/// One failure.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// When.
    pub at: SystemTime,
    /// The exit code; 128 + n is signal n.
    pub code: i32,
    /// What the child said about it.
    pub text: Vec<u8>,
}

impl Counters {
    /// A child that was about so many entries ended well.
    pub fn succeeded(&mut self, entries: usize) {
        self.batches += 1;
        self.entries += entries as u64;
        self.last_success = Some(SystemTime::now());
        self.failing = false;
    }

    /// A child failed. True for the first failure since something ended well.
    pub fn failed(&mut self, code: i32, text: Vec<u8>) -> bool {
        *self.failures.entry(code).or_default() += 1;
        self.last_failure = Some(LastFailure {
            at: SystemTime::now(),
            code,
            text,
        });
        !std::mem::replace(&mut self.failing, true)
    }

    /// So many paths arrived without this attribute. True if these are the first.
    pub fn unset(&mut self, attribute: Attribute, paths: u64) -> bool {
        if paths == 0 {
            return false;
        }
        let count = self.unset_attributes.entry(attribute).or_default();
        *count += paths;
        *count == paths
    }

    /// What a child said of its work.
    pub fn sent(&mut self, totals: RsyncTotals) {
        self.bytes += totals.bytes;
        self.files += totals.files;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_of_a_row_is_news() {
        let mut counters = Counters::default();
        assert!(counters.failed(12, b"broken pipe".to_vec()));
        assert!(!counters.failed(255, Vec::new()));
        counters.succeeded(3);
        assert!(counters.failed(12, Vec::new()));
        assert_eq!(counters.failures, BTreeMap::from([(12, 2), (255, 1)]));
        assert_eq!((counters.batches, counters.entries), (1, 3));
    }
}
