//! Paths that cannot be transferred, each of which is reported once.
//!
//! They are sent when they change and the reason no longer exists, or by the next full comparison.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::Sync;
use crate::batch::long_paths::MAX_PATH;
use crate::log;
use crate::paths;

/// The maximum number of known paths. Further ones are not reported.
const MAX_KNOWN: usize = 100_000;

/// The maximum number of paths that are named in the log for each reason.
const MAX_NAMED: usize = 100;

/// The number of bytes at both ends of a long path that the log shows.
const SHOWN_BYTES: usize = 100;

/// The reason why a path is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOutReason {
    /// It is too long for rsync or a file system.
    TooLong,
    /// The target has a directory in its place that is not deleted.
    Obstructed,
    /// It is a dangling link that is followed.
    DanglingLink,
}

impl LeftOutReason {
    /// All reasons.
    pub const ALL: [LeftOutReason; 3] = [
        LeftOutReason::TooLong,
        LeftOutReason::Obstructed,
        LeftOutReason::DanglingLink,
    ];

    /// The name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            LeftOutReason::TooLong => "too_long",
            LeftOutReason::Obstructed => "obstructed",
            LeftOutReason::DanglingLink => "dangling_link",
        }
    }
}

/// The reasons that may end.
const CURABLE: [LeftOutReason; 2] = [LeftOutReason::Obstructed, LeftOutReason::DanglingLink];

/// The paths that are left out, by reason.
#[derive(Default)]
pub struct LeftOut {
    /// Hashes of the reported paths, without trailing slashes.
    known: BTreeMap<LeftOutReason, HashSet<u64>>,
    counts: BTreeMap<LeftOutReason, u64>,
    hasher: RandomState,
}

impl LeftOut {
    /// Adds a path. Returns true if it is new.
    pub fn add(&mut self, reason: LeftOutReason, path: &[u8]) -> bool {
        let hash = self.hasher.hash_one(paths::bare(path));
        let known = self.known.entry(reason).or_default();
        let is_new = known.len() < MAX_KNOWN && known.insert(hash);
        *self.counts.entry(reason).or_default() += u64::from(is_new);
        is_new
    }

    /// Returns true if this path was left out and not sent since.
    pub fn contains(&self, reason: LeftOutReason, path: &[u8]) -> bool {
        let known = self.known.get(&reason);
        known.is_some_and(|known| known.contains(&self.hasher.hash_one(paths::bare(path))))
    }

    /// Returns true if there is a path that may be transferred.
    pub fn may_be_sent(&self) -> bool {
        self.curable().any(|known| !known.is_empty())
    }

    /// Handles the transfer of a path: the path is reported again if it is left out again. A path
    /// that is too long is not in the transfer.
    pub fn sent(&mut self, path: &[u8]) {
        let hash = self.hasher.hash_one(paths::bare(path));
        for reason in CURABLE {
            if let Some(known) = self.known.get_mut(&reason) {
                known.remove(&hash);
            }
        }
    }

    /// Handles a full comparison without failures.
    pub fn all_sent(&mut self) {
        for reason in CURABLE {
            self.known.remove(&reason);
        }
    }

    fn curable(&self) -> impl Iterator<Item = &HashSet<u64>> {
        CURABLE.iter().filter_map(|reason| self.known.get(reason))
    }

    /// Returns the number of paths that were left out for this reason so far.
    pub fn count(&self, reason: LeftOutReason) -> u64 {
        self.counts.get(&reason).copied().unwrap_or_default()
    }
}

impl Sync {
    /// Returns the paths that are left out.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Records that a path is too long to be transferred, and warns of it once.
    pub fn leave_out_long_path(&mut self, path: &[u8]) {
        if path.len() <= MAX_PATH {
            // A file system refused it, perhaps not the next one.
            self.lose_index();
        }
        if !self.left_out.add(LeftOutReason::TooLong, path) {
            return;
        }
        let (name, count) = (
            &self.config.name,
            self.left_out.count(LeftOutReason::TooLong),
        );
        if count <= MAX_NAMED as u64 {
            log::warn(format_args!(
                "{name}: a path is too long for rsync or a file system, and is skipped: {} ({} \
                 bytes below the source); shorten it, or add a sync for a directory on the path",
                shortened(paths::relative(path)),
                paths::relative(paths::bare(path)).len()
            ));
        }
        if count == MAX_NAMED as u64 {
            log::warn(format_args!(
                "{name}: further paths that are too long are only counted"
            ));
        }
    }
}

/// Returns a path for the log, without the middle of a long one.
fn shortened(path: &[u8]) -> String {
    if path.len() <= 2 * SHOWN_BYTES + 3 {
        return log::escape(path).into_owned();
    }
    let (begin, end) = (&path[..SHOWN_BYTES], &path[path.len() - SHOWN_BYTES..]);
    format!("{}...{}", log::escape(begin), log::escape(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Policy;
    use crate::sync::WarmStart;
    use crate::sync::tests::sync_with;
    use LeftOutReason::{Obstructed, TooLong};

    #[test]
    fn a_path_is_told_once_for_each_reason() {
        let mut left_out = LeftOut::default();
        assert!(left_out.add(TooLong, b"/d/"));
        assert!(!left_out.add(TooLong, b"/d"));
        assert!(left_out.add(TooLong, b"/e"));
        assert!(left_out.add(Obstructed, b"/d"));
        assert!(left_out.contains(TooLong, b"/d/") && !left_out.contains(Obstructed, b"/e"));
        assert_eq!(
            (left_out.count(TooLong), left_out.count(Obstructed)),
            (2, 1)
        );
    }

    #[test]
    fn what_was_sent_is_told_again() {
        let mut left_out = LeftOut::default();
        assert!(!left_out.may_be_sent());
        left_out.add(TooLong, b"/d");
        assert!(!left_out.may_be_sent());
        left_out.add(Obstructed, b"/d");
        left_out.add(Obstructed, b"/e");
        assert!(left_out.may_be_sent());
        left_out.sent(b"/d/");
        assert!(!left_out.contains(Obstructed, b"/d") && left_out.contains(TooLong, b"/d"));
        assert!(left_out.contains(Obstructed, b"/e"));
        left_out.all_sent();
        assert!(!left_out.may_be_sent() && left_out.contains(TooLong, b"/d"));
        assert!(left_out.add(Obstructed, b"/d"));
        assert_eq!(left_out.count(Obstructed), 3);
    }

    #[test]
    fn paths_beyond_the_limit_are_not_told() {
        let mut left_out = LeftOut::default();
        let news = (0..=MAX_KNOWN).filter(|n| left_out.add(TooLong, n.to_string().as_bytes()));
        assert_eq!(news.count(), MAX_KNOWN);
        assert_eq!(left_out.count(TooLong), MAX_KNOWN as u64);
    }

    #[test]
    fn both_ends_of_a_long_path_are_shown() {
        let path = [vec![b'a'; 1000], vec![b'b'; 1000]].concat();
        let shown = shortened(&path);
        assert_eq!(
            shown,
            ["a".repeat(100), "...".into(), "b".repeat(100)].concat()
        );
        assert_eq!(shortened(&path[..203]), "a".repeat(203));
    }

    #[test]
    fn the_names_of_the_reasons_are_those_of_metrics() {
        let names = LeftOutReason::ALL.map(LeftOutReason::name);
        assert_eq!(names, ["too_long", "obstructed", "dangling_link"]);
    }

    /// The next target may accept it.
    #[test]
    fn the_index_does_not_contain_a_path_that_a_file_system_refused() {
        for (length, is_lost) in [(MAX_PATH, true), (MAX_PATH + 1, false)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.warm_start = Some(WarmStart::default());
            let path = [&b"/"[..], &vec![b'a'; length - 1]].concat();
            for _ in 0..2 {
                sync.leave_out_long_path(&path);
            }
            assert_eq!(sync.left_out().count(TooLong), 1);
            let generation = sync.warm_start().unwrap().generation();
            assert_eq!(generation > 0, is_lost, "{length}");
        }
    }
}
