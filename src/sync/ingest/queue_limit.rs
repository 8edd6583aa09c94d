//! Queue limit: beyond `maxPending` paths, a directory is queued in place of the paths in it, and
//! is compared with its contents. In place of the source itself a full comparison is queued.
//!
//! The limit applies to built-in behaviours, which examine the disk. User functions get each event.
//! A sync that may not delete, or keeps what only the target has, is exempt too, since the
//! comparison of a directory deletes: a full comparison is queued at once.

use std::collections::HashMap;

use super::super::Sync;
use crate::paths;
use crate::queue::{DelayId, Etype, Placed, Pushed, Queue, Status, Time};

/// A full comparison replaces all entries at this multiple of the limit.
const MAX_BOUND_FACTOR: usize = 2;

/// An event that is not queued, so that everything has to be compared.
const REFUSED: Pushed = Pushed::Placed(Placed::Refused);

/// The directories that are queued in place of their contents.
pub struct QueueLimit {
    bound: usize,
    directories: HashMap<Vec<u8>, DelayId>,
}

impl QueueLimit {
    /// Returns a limit of `bound` pending paths.
    pub fn new(bound: usize) -> QueueLimit {
        QueueLimit {
            bound,
            directories: HashMap::new(),
        }
    }

    /// Returns the maximum number of pending paths.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Returns the waiting entry of a directory above this path. An active one has read the disk
    /// already and covers nothing.
    fn covering(&self, queue: &Queue, path: &[u8]) -> Option<DelayId> {
        let waits = |id: &DelayId| {
            let delay = queue.get(*id)?;
            (delay.status() != Status::Active).then_some(*id)
        };
        paths::directories(path)
            .filter_map(|directory| self.directories.get(directory))
            .find_map(waits)
    }

    fn keep(&mut self, queue: &Queue, directory: &[u8], id: DelayId) {
        if self.directories.len().is_power_of_two() {
            self.directories.retain(|_, id| queue.contains(*id));
        }
        self.directories.insert(directory.to_vec(), id);
    }
}

impl Sync {
    /// Queues an event beyond the limit. Returns `None` if the limit is not reached.
    pub(super) fn push_beyond_limit(
        &mut self,
        etype: Etype,
        path: &[u8],
        to: Option<&[u8]>,
        due: Time,
        now: Time,
    ) -> Option<Pushed> {
        if self.queue.is_empty() {
            self.queue_limit.directories.clear();
        }
        // The failed paths make room first; they are not the reason for a comparison at once.
        let room = self.queue_limit.bound.checked_sub(self.queue.len() + 1);
        if let Some(room) = room {
            self.limit_failed_paths(room, now);
        }
        let failed = match self.compares_everything() {
            true => 0,
            false => self.failed_paths().len(),
        };
        let full = self.queue.len() + failed >= self.queue_limit.bound;
        if etype.is_special() || (!full && self.queue_limit.directories.is_empty()) {
            return None;
        }
        if self.config.delete.keeps_others() {
            return self.push_or_refuse(etype, path, to.is_some(), full, due);
        }
        let Some(to) = to else {
            // A further change of a path that waits takes no more room.
            if self.queue.open_at(path).is_some() {
                return None;
            }
            return self.push_directory(path, full, due);
        };
        let concerned = full
            || self.queue_limit.covering(&self.queue, path).is_some()
            || self.queue_limit.covering(&self.queue, to).is_some();
        if !concerned {
            return None;
        }
        // The directory of the other path reports that end of the move.
        let [left, entered] = [path, to].map(|path| {
            self.push_directory(path, full, due)
                .unwrap_or_else(|| self.queue.push(Etype::Delete, path, None, due))
        });
        Some(if left == REFUSED { left } else { entered })
    }

    /// Queues deletions only: a comparison of a directory would delete what only the target has, and
    /// a full comparison, which sends all other changes, deletes nothing.
    fn push_or_refuse(
        &mut self,
        etype: Etype,
        path: &[u8],
        is_move: bool,
        full: bool,
        due: Time,
    ) -> Option<Pushed> {
        let max = self.queue_limit.bound.saturating_mul(MAX_BOUND_FACTOR);
        if !full || !is_move && self.queue.open_at(path).is_some() {
            return None;
        }
        let deletes = etype == Etype::Delete || is_move;
        if !deletes || self.queue.len() >= max {
            return Some(REFUSED);
        }
        let pushed = self.queue.push(Etype::Delete, path, None, due);
        Some(if is_move { REFUSED } else { pushed })
    }

    fn push_directory(&mut self, path: &[u8], full: bool, due: Time) -> Option<Pushed> {
        if let Some(by) = self.queue_limit.covering(&self.queue, path) {
            return Some(Pushed::Placed(Placed::Absorbed { by }));
        }
        if !full {
            return None;
        }
        let bound = self.queue_limit.bound.saturating_mul(MAX_BOUND_FACTOR);
        if !self.config.delete.in_batches() || self.queue.len() >= bound {
            return Some(REFUSED);
        }
        // The source itself stands for its contents in no list: that is a full comparison.
        let directory = match paths::parent(path) {
            Some(directory) if directory != b"/" => directory,
            _ => return Some(REFUSED),
        };
        let pushed = self.queue.push(Etype::Delete, directory, None, due);
        if let Pushed::Placed(placed) = pushed {
            let id = match placed {
                Placed::Appended { id }
                | Placed::Blocked { id, .. }
                | Placed::Replaced { id, .. }
                | Placed::Turned { id, .. }
                | Placed::Absorbed { by: id } => Some(id),
                Placed::Refused => None,
            };
            // All of these are Deletes of this directory.
            if let Some(id) = id {
                self.queue_limit.keep(&self.queue, directory, id);
            }
        }
        Some(pushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Delete;
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;
    use crate::sync::{FailedEntries, RetryEntries};

    /// Returns a sync with this limit and this many pending files.
    fn sync_of(delete: Delete, bound: usize, files: usize) -> Sync {
        let mut config = sync_with(Policy::Coalesce).config;
        config.max_pending = bound;
        config.delete = delete;
        let mut sync = Sync::new(config, Default::default(), Policy::Coalesce, true);
        for number in 0..files {
            sync.ingest_path(Etype::Create, format!("/{number}").as_bytes(), 0);
        }
        assert_eq!((sync.queue.len(), sync.owes_comparison), (files, false));
        sync
    }

    /// What is expected in the queue.
    type Entries = &'static [(Etype, &'static [u8])];

    /// An event, with the new path of a move.
    type Change = (Etype, &'static [u8], Option<&'static [u8]>);

    fn queued(sync: &Sync) -> Vec<(Etype, Vec<u8>)> {
        let delays = sync.queue.iter().skip(2);
        delays
            .map(|delay| (delay.etype(), delay.paths().0))
            .collect()
    }

    /// The full comparison that follows does not delete, so no deletion is left to it.
    #[test]
    fn beyond_the_limit_a_sync_that_keeps_other_files_queues_deletions_only() {
        use Etype::{Create, Delete as Gone, Modify, Move};
        let table: [(Change, bool, Entries); 5] = [
            ((Modify, b"/new", None), true, &[]),
            ((Create, b"/d/new", None), true, &[]),
            ((Gone, b"/d/old", None), false, &[(Gone, b"/d/old")]),
            ((Modify, b"/0", None), false, &[]),
            ((Move, b"/d/x", Some(b"/d/y")), true, &[(Gone, b"/d/x")]),
        ];
        for ((etype, path, to), owes, expected) in table {
            let mut sync = sync_of(Delete::Running, 2, 2);
            sync.push(etype, path, to, 0);
            assert_eq!(sync.owes_comparison, owes, "{etype:?}");
            let expected = expected.iter().map(|(etype, path)| (*etype, path.to_vec()));
            assert_eq!(queued(&sync), expected.collect::<Vec<_>>(), "{etype:?}");
        }
        // Deletions have a limit as well.
        let mut sync = sync_of(Delete::Running, 2, 2);
        for number in 0..5 {
            sync.push(Etype::Delete, format!("/gone{number}").as_bytes(), None, 0);
        }
        assert_eq!((sync.queue.len(), sync.owes_comparison), (4, true));
        let mut sync = sync_of(Delete::Running, 3, 2);
        sync.push(Modify, b"/new", None, 0);
        assert_eq!((sync.queue.len(), sync.owes_comparison), (3, false));
    }

    /// They take room when they are queued again, and no comparison can stand for them.
    #[test]
    fn failed_paths_count_if_nothing_can_stand_for_them() {
        for (compares, expected) in [(true, b"/d/new".to_vec()), (false, b"/d/".to_vec())] {
            let mut sync = sync_of(Delete::Always, 4, 2);
            sync.has_full = compares;
            sync.config.init = compares;
            for name in ["/x", "/y"] {
                let failed = RetryEntries::from([(name.as_bytes().to_vec(), Etype::Modify)]);
                sync.partly_failed(&[], FailedEntries::Paths(failed, Default::default()), 0);
            }
            sync.ingest_path(Etype::Create, b"/d/new", 0);
            assert_eq!(queued(&sync)[0].1, expected, "{compares}");
        }
    }

    /// Both directories are compared when either of them is.
    #[test]
    fn a_move_from_or_to_a_directory_that_is_compared_is_no_move() {
        for (from, to) in [
            (&b"/d/x"[..], &b"/e/y"[..]),
            (b"/e/y", b"/d/x"),
            (b"/d/x", b"/d/y"),
        ] {
            let mut sync = sync_of(Delete::Always, 3, 3);
            sync.ingest_path(Etype::Create, b"/d/new", 0);
            let files = sync.queue.iter().take(3).map(|delay| delay.id());
            let files: Vec<_> = files.collect();
            sync.queue.activate(&files);
            sync.succeeded(&files);
            sync.push(Etype::Move, from, Some(to), 0);
            let moves = sync
                .queue
                .iter()
                .filter(|delay| delay.etype() == Etype::Move);
            assert_eq!(moves.count(), 0, "{}", from.escape_ascii());
            assert!(!sync.queue.is_empty());
        }
    }

    /// A comparison that is queued at the limit is not one of a directory.
    #[test]
    fn a_full_comparison_is_queued_at_the_limit_too() {
        let mut sync = sync_of(Delete::Always, 3, 3);
        sync.push(Etype::Full, b"/", None, 0);
        assert_eq!(sync.queue.specials().count(), 1);
    }
}
