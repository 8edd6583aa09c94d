//! Counters of a sync, for control socket, metrics and status page.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::batch::error_lines::Attribute;
use crate::batch::output::RsyncTotals;
use crate::process::ExitStatus;

/// The counters of one sync since the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Events that passed the filter.
    pub events: u64,
    /// Successful children, including startup transfers.
    pub batches: u64,
    /// Queue entries of the successful children.
    pub entries: u64,
    /// Bytes sent, as reported by rsync (`--stats`, `-v`).
    pub bytes: u64,
    /// Files sent, as reported by rsync (`--stats`).
    pub files: u64,
    /// Overflows of the kernel's event queue.
    pub overflows: u64,
    /// Failed children by exit code; 128 + n is signal n.
    pub failures: BTreeMap<i32, u64>,
    /// Attributes that could not be set on transferred paths.
    pub unset_attributes: BTreeMap<Attribute, u64>,
    /// The time of the last success.
    pub last_success: Option<SystemTime>,
    /// The last failure, even if it was followed by successes.
    pub last_failure: Option<LastFailure>,
    /// A failure has been reported, and no recovery since.
    pub failing: bool,
}

/// One failure.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// The time of the failure.
    pub at: SystemTime,
    /// The exit status.
    pub status: ExitStatus,
    /// The error text of the child.
    pub text: Vec<u8>,
}

impl Counters {
    /// Counts a successful child with this number of entries.
    pub fn succeeded(&mut self, entries: usize) {
        self.batches += 1;
        self.entries += entries as u64;
        self.last_success = Some(SystemTime::now());
    }

    /// Counts a failed child. Returns true for the first failure since the last recovery.
    /// A success that left something out has the reason of the failure before it.
    pub fn failed(&mut self, status: ExitStatus, text: Vec<u8>) -> bool {
        let (status, text) = match self.last_failure.take() {
            Some(last) if status.is_success() && text.is_empty() => (last.status, last.text),
            _ => (status, text),
        };
        *self.failures.entry(status.code()).or_default() += 1;
        self.last_failure = Some(LastFailure {
            at: SystemTime::now(),
            status,
            text,
        });
        !std::mem::replace(&mut self.failing, true)
    }

    /// Counts paths on which an attribute could not be set. Returns true for the first ones.
    pub fn unset(&mut self, attribute: Attribute, paths: u64) -> bool {
        if paths == 0 {
            return false;
        }
        let count = self.unset_attributes.entry(attribute).or_default();
        *count += paths;
        *count == paths
    }

    /// Adds the totals reported by a child.
    pub fn sent(&mut self, totals: RsyncTotals) {
        self.bytes += totals.bytes;
        self.files += totals.files;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_before_a_recovery_is_news() {
        let mut counters = Counters::default();
        assert!(counters.failed(ExitStatus::Exit(12), b"broken pipe".to_vec()));
        assert!(!counters.failed(ExitStatus::Exit(255), Vec::new()));
        counters.succeeded(3);
        assert!(!counters.failed(ExitStatus::Exit(12), Vec::new()));
        counters.failing = false;
        assert!(counters.failed(ExitStatus::Exit(12), Vec::new()));
        assert_eq!(counters.failures, BTreeMap::from([(12, 3), (255, 1)]));
        assert_eq!((counters.batches, counters.entries), (1, 3));
    }

    #[test]
    fn a_success_that_left_something_out_has_the_reason_of_before() {
        let mut counters = Counters::default();
        counters.failed(ExitStatus::Exit(11), b"no space".to_vec());
        counters.failed(ExitStatus::Exit(0), Vec::new());
        assert_eq!(counters.last_failure.unwrap().text, b"no space");
        assert_eq!(counters.failures, BTreeMap::from([(11, 2)]));
    }

    #[test]
    fn what_was_sent_adds_up() {
        let mut counters = Counters::default();
        counters.sent(RsyncTotals { bytes: 5, files: 2 });
        counters.sent(RsyncTotals { bytes: 7, files: 1 });
        assert_eq!((counters.bytes, counters.files), (12, 3));
    }

    #[test]
    fn only_the_first_paths_without_an_attribute_are_news() {
        let mut counters = Counters::default();
        assert!(!counters.unset(Attribute::Owner, 0));
        assert!(counters.unset(Attribute::Owner, 2));
        assert!(!counters.unset(Attribute::Owner, 3));
        assert!(counters.unset(Attribute::Group, 1));
        let expected = BTreeMap::from([(Attribute::Owner, 5), (Attribute::Group, 1)]);
        assert_eq!(counters.unset_attributes, expected);
    }
}
