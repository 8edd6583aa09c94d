//! The retry rule: what becomes of the entries of a transfer that did only a part of its work.
//!
//! What rsync names waits, in [`Failed`](super::FailedPaths), and is tried again together; everything
//! else is done. Where rsync does not say what failed, all entries are tried again; where there
//! are no entries, or more paths than may be pending, everything is compared again.

use std::fs;
use std::time::Duration;

use super::Sync;
use super::blame::{Entries, FailedEntries};
use super::failed_paths::Retry;
use crate::queue::{DelayId, Etype, Time};

/// What comes of a transfer that was partly done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Nothing: all paths arrived.
    Nothing,
    /// So many paths are owed now, the first of this transfer after this time.
    Paths(usize, Duration),
    /// Everything is compared after this time.
    Everything(Duration),
}

/// What comes of a transfer that was given up at some of its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside {
    /// So many entries wait.
    pub paths: usize,
    /// So many go without them.
    pub others: usize,
    /// When those that wait are tried again.
    pub again: Again,
}

impl Sync {
    /// The paths these entries are about, and what is to be done about each.
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

    /// A transfer of these entries did some and left this undone, which is tried again.
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

    /// What is owed is tried again after a while. Past the bound of pending paths, everything
    /// is compared instead.
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

    /// A transfer was given up at these paths, which wait from now on; what else it was about goes
    /// without them. `None` if none of the entries is concerned.
    ///
    /// Where it is new paths that fail each time, one transfer after the other, the sync waits as
    /// for any failure.
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
        // What is no smaller does not fit either.
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
                // Both paths of a move: neither was done.
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

    /// These entries are done, and what was owed of them is.
    pub(super) fn clear_retries(&mut self, ids: &[DelayId]) {
        if !self.failed_paths.is_idle() {
            for (path, etype) in self.entries(ids) {
                self.arrived(&path, etype);
            }
        }
    }

    /// A transfer with this entry succeeded. What the check gate holds was left out of it, and
    /// stays owed.
    fn arrived(&mut self, path: &[u8], etype: Etype) {
        if !self.is_held_by_gate(path) {
            self.failed_paths.arrived(path, etype);
        }
    }

    /// Queues what is due of what is owed.
    pub(super) fn push_retries(&mut self, now: Time) {
        let retry = self.failed_paths.take(now);
        if retry == Retry::default() {
            return;
        }
        self.carried += 1;
        for (path, etype) in retry.paths {
            // A directory that could not be looked at.
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
