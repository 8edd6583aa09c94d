//! The retry rule: handles the entries of a partial transfer.
//!
//! Paths named by rsync are kept in [`FailedPaths`](super::FailedPaths) and retried together; the
//! other entries are done. If rsync does not name the failed paths, all entries are retried. If
//! there are no entries, or more failed paths than may be pending, a full comparison is queued.

use std::fs;
use std::time::Duration;

use super::Sync;
use super::blame::{Entries, FailedEntries};
use super::failed_paths::Retry;
use crate::queue::{DelayId, Etype, Time};

/// The retry after a partial transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No retry; all paths are transferred.
    Nothing,
    /// The number of pending failed paths, and the delay before the first retry of this transfer's
    /// paths.
    Paths(usize, Duration),
    /// The delay before a full comparison.
    Everything(Duration),
}

/// The result of [`Sync::set_aside`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The number of entries that wait.
    pub paths: usize,
    /// The number of entries that are sent without them.
    pub others: usize,
    /// The retry of the waiting entries.
    pub again: Again,
}

impl Sync {
    /// Returns the paths of entries, each with the event type for its retry.
    pub fn entries(&self, ids: &[DelayId]) -> Entries {
        let mut entries = Entries::new();
        for delay in ids.iter().filter_map(|&id| self.queue.get(id)) {
            let (path, to) = delay.paths();
            match (delay.etype(), to) {
                (etype, _) if etype.is_special() => {}
                (_, Some(to)) => {
                    entries.insert(path, Etype::Delete);
                    entries.insert(to, Etype::Create);
                }
                (etype, None) => drop(entries.insert(path, etype)),
            }
        }
        entries
    }

    /// Handles a partial transfer of these entries and schedules the retry of the failed ones.
    pub fn partly_failed(
        &mut self,
        ids: &[DelayId],
        failed_paths: FailedEntries,
        now: Time,
    ) -> Again {
        let again = self.retry_failed(ids, failed_paths, now);
        self.backoff.reset();
        self.finish(ids);
        again
    }

    fn retry_failed(&mut self, ids: &[DelayId], failed_paths: FailedEntries, now: Time) -> Again {
        let entries = self.entries(ids);
        let is_whole = entries.is_empty();
        if is_whole {
            self.forget_size_bound();
        }
        let failed = match failed_paths {
            FailedEntries::Nothing => Entries::new(),
            FailedEntries::Paths(paths) => paths,
            FailedEntries::Everything if is_whole => return self.retry_everything(now),
            FailedEntries::Everything => entries.clone(),
        };
        for (path, etype) in &entries {
            if !failed.contains_key(path) {
                self.arrived(path, *etype);
            }
        }
        if failed.is_empty() {
            return Again::Nothing;
        }
        if is_whole
            && failed
                .iter()
                .any(|(path, etype)| !self.can_try(path, *etype))
        {
            return self.retry_everything(now);
        }
        self.retry_paths(failed, now)
    }

    /// Schedules retries of these paths. Beyond the limit of pending paths a full comparison is
    /// scheduled instead.
    pub fn retry_paths(
        &mut self,
        paths: impl IntoIterator<Item = (Vec<u8>, Etype)>,
        now: Time,
    ) -> Again {
        let wait = self.failed_paths.add(paths, now);
        let bound = self.queue_limit.bound();
        if self.failed_paths.len() > bound && self.compares_everything() {
            self.failed_paths.clear_names();
            return self.retry_everything(now);
        }
        Again::Paths(self.failed_paths.len(), wait)
    }

    fn retry_everything(&mut self, now: Time) -> Again {
        Again::Everything(self.failed_paths.add_everything(now))
    }

    /// Returns true if a path of which a comparison of everything could not do what it should can
    /// be tried by itself.
    fn can_try(&self, path: &[u8], etype: Etype) -> bool {
        let deletes = etype == Etype::Delete;
        path != b"/" && !self.excluded(path) && (!deletes || self.config.delete.in_batches())
    }

    /// Sets aside the paths at which a transfer was aborted, so that the other entries are sent
    /// without them. Returns `None` if none of the entries is concerned.
    ///
    /// If transfers abort at new paths again and again, the sync waits as after any failure.
    pub fn set_aside(
        &mut self,
        ids: &[DelayId],
        named: &Entries,
        too_large: bool,
        now: Time,
    ) -> Option<Aside> {
        let size = |sync: &Sync, path: &[u8]| {
            let metadata = fs::symlink_metadata(sync.on_disk(path)).ok()?;
            metadata.is_file().then_some(metadata.len())
        };
        // A larger file does not fit either.
        let least = if too_large {
            named.keys().filter_map(|path| size(self, path)).min()
        } else {
            None
        };
        let (mut aside, mut rest) = (Vec::new(), Vec::new());
        let mut owed = Entries::new();
        for &id in ids {
            let paths = self.entries(&[id]);
            let is_concerned = paths.keys().any(|path| {
                let fits = || match least {
                    Some(least) => size(self, path).is_none_or(|size| size < least),
                    None => true,
                };
                named.contains_key(path) || !fits()
            });
            if is_concerned {
                // Neither path of a move was transferred.
                owed.extend(paths);
                aside.push(id);
            } else {
                rest.push(id);
            }
        }
        if aside.is_empty() {
            return None;
        }
        let is_new = owed.keys().any(|path| !self.failed_paths.is_tried(path));
        let again = self.retry_paths(owed, now);
        self.finish(&aside);
        let waits = is_new && self.is_failing();
        if waits {
            self.failed(&rest, now);
        } else {
            self.redo(&rest, now)
        }
        if is_new && !waits {
            self.backoff.fail();
        }
        Some(Aside {
            paths: aside.len(),
            others: rest.len(),
            again,
        })
    }

    /// Removes the failed paths of entries that succeeded.
    pub(super) fn clear_retries(&mut self, ids: &[DelayId]) {
        if !self.failed_paths.is_idle() {
            for (path, etype) in self.entries(ids) {
                self.arrived(&path, etype);
            }
        }
    }

    /// Handles the success of an entry. Paths held by the check gate were not sent and stay failed.
    fn arrived(&mut self, path: &[u8], etype: Etype) {
        if !self.is_held_by_gate(path) {
            self.failed_paths.arrived(path, etype);
        }
    }

    /// Queues the due retries.
    pub(super) fn push_retries(&mut self, now: Time) {
        let retry = self.failed_paths.take(now);
        if retry == Retry::default() {
            return;
        }
        self.carried += 1;
        for (path, etype) in retry.paths {
            // The event of a directory that could not be read.
            let unread = etype == Etype::Create && path.ends_with(b"/");
            if unread && self.config.check.is_some() {
                self.push_contents(&path, now);
            } else if !self.is_held(etype, &path) {
                self.queue.push(etype, &path, None, now);
            }
        }
        if retry.everything {
            self.compare_again(now);
        }
    }
}
