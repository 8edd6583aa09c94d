//! The retry rule: handles the entries of a partial transfer.
//!
//! Paths named by rsync are kept in [`FailedPaths`](super::FailedPaths) and retried together; the
//! other entries are done. If rsync does not name the failed paths, all entries are retried. If
//! there are no entries, or more failed paths than may be pending, a full comparison is queued.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::super::{LeftOutReason, Sync};
use super::{FailedEntries, RetryEntries};
use crate::log;
use crate::paths;
use crate::queue::{DelayId, Etype, Policy, Time};

/// The retry after a partial transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPlan {
    /// No retry; all paths are transferred.
    Nothing,
    /// The number of pending failed paths, and the delay before the first retry of this transfer's
    /// paths.
    Paths(usize, Duration),
    /// The delay before a full comparison.
    Everything(Duration),
}

/// The result of [`Sync::defer_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// The number of entries that wait.
    pub paths: usize,
    /// The number of entries that are sent without them.
    pub others: usize,
    /// The retry of the waiting entries.
    pub retry: RetryPlan,
}

/// The number of failures after which a path is left out that an undeleted directory obstructs.
const MAX_OBSTRUCTED: u32 = 3;

/// The number of such failures if no rule of the sync protects anything. The user's own options and
/// a daemon may protect it, or a program may fill the directory again.
const MAX_OBSTRUCTED_WITHOUT_RULES: u32 = 5;

impl Sync {
    /// Returns the paths of entries, each with the event type for its retry.
    pub fn entries(&self, ids: &[DelayId]) -> RetryEntries {
        let mut entries = RetryEntries::new();
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
        failed: FailedEntries,
        now: Time,
    ) -> RetryPlan {
        let retry = self.retry_failed(ids, failed, now);
        self.retry.backoff.reset();
        self.finish(ids);
        retry
    }

    fn retry_failed(&mut self, ids: &[DelayId], failed: FailedEntries, now: Time) -> RetryPlan {
        let entries = self.entries(ids);
        let is_whole = entries.is_empty();
        if is_whole {
            self.forget_size_bound();
        }
        let failed = match failed {
            FailedEntries::Nothing => RetryEntries::new(),
            FailedEntries::Paths(paths, obstructed) => {
                let named = paths.len();
                let paths = self.without_dangling_links(paths);
                let paths = self.without_obstructed(paths, &obstructed, is_whole);
                if paths.len() < named {
                    // What is left out is not on the target: the next start compares everything.
                    self.lose_index();
                }
                paths
            }
            FailedEntries::Everything if is_whole => return self.retry_everything(now),
            FailedEntries::Everything => entries.clone(),
        };
        for (path, etype) in &entries {
            if !failed.contains_key(path) {
                self.retry.failed_paths.succeeded(path, *etype);
            }
        }
        let mut all = failed.iter();
        if is_whole && all.any(|(path, etype)| !self.can_retry(path, *etype)) {
            return self.retry_everything(now);
        }
        // After a full comparison, further changes and failures need room, or they would cause the
        // next one.
        let bound = self.queue_limit.bound();
        let max = if is_whole { bound / 2 } else { bound };
        let plan = match failed.is_empty() {
            true => RetryPlan::Nothing,
            false => self.retry_at_most(max, failed, now),
        };
        if is_whole && !self.retry.failed_paths.retries_everything() {
            // What it has not done is known by its paths.
            self.retry.failed_paths.compared();
        }
        plan
    }

    /// Removes links that rsync follows and that lead nowhere, since there is nothing to send. They
    /// are sent when they change, or by the next full comparison.
    fn without_dangling_links(&mut self, mut paths: RetryEntries) -> RetryEntries {
        if !self.follows_links {
            return paths;
        }
        let all = paths.len();
        paths.retain(|path, _| {
            let dangles = is_dangling(&self.on_disk(path));
            if dangles {
                self.left_out.add(LeftOutReason::DanglingLink, path);
            }
            !dangles
        });
        let dangling = all - paths.len();
        if dangling > 0 {
            log::warn(format_args!(
                "{}: links without a referent: {dangling}; skipped until they change or \
                 everything is compared",
                self.config.name
            ));
        }
        paths
    }

    /// Removes paths at which the target has a directory that is kept from being deleted. rsync
    /// cannot send them. They are sent when they change, or by the next full comparison.
    ///
    /// A directory that is filled on the target again and again looks the same, so it is tried a
    /// few times.
    fn without_obstructed(
        &mut self,
        mut failed: RetryEntries,
        obstructed: &BTreeSet<Vec<u8>>,
        is_whole: bool,
    ) -> RetryEntries {
        let deletes = self.config.delete.in_batches();
        let has_rules = {
            let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
            filter.rules().next().is_some() || filter.excludes().next().is_some()
        };
        let max_failures = if has_rules {
            MAX_OBSTRUCTED
        } else {
            MAX_OBSTRUCTED_WITHOUT_RULES
        };
        let failed_paths = &self.retry.failed_paths;
        // The rules of the check gate and of missing mounts protect a directory for a while only.
        let is_temporary = self.protects;
        let is_kept = |path: &&Vec<u8>| match is_whole {
            _ if is_temporary => false,
            true if self.config.delete.keeps_others() => true,
            // The retry of a path would delete the directory, unless it has been tried.
            true => !deletes || self.left_out.contains(LeftOutReason::Obstructed, path),
            false => failed_paths.failures_of(path) >= max_failures,
        };
        let kept: BTreeSet<&Vec<u8>> = obstructed.iter().filter(is_kept).collect();
        failed.retain(|path, _| !kept.contains(&paths::bare(path).to_vec()));
        let new = kept.into_iter();
        let mut new = new.filter(|path| self.left_out.add(LeftOutReason::Obstructed, path));
        if let Some(first) = new.next() {
            log::warn(format_args!(
                "{}: the target has a directory at {} with contents that are not to be deleted; \
                 the path is skipped until it changes or everything is compared{}",
                self.config.name,
                log::escape(paths::relative(first)),
                match new.count() {
                    0 => String::new(),
                    others => format!(" (and {others} more)"),
                }
            ));
        }
        failed
    }

    /// Returns the new directories among these entries that cannot be read, so that rsync has not
    /// seen what is in them.
    pub fn unreadable_directories(&self, ids: &[DelayId]) -> RetryEntries {
        if self.queue.policy() == Policy::PerEvent {
            return RetryEntries::new();
        }
        // A batch may have many entries and few directories.
        let directories = ids.iter().copied().filter(|&id| {
            let delay = self.queue.get(id);
            delay.is_some_and(|delay| delay.is_directory())
        });
        let mut unreadable = self.entries(&directories.collect::<Vec<_>>());
        unreadable.retain(|path, etype| {
            let is_new = matches!(etype, Etype::Create | Etype::Delete);
            is_new && is_denied(&self.on_disk(path))
        });
        let with_contents = self.etype_of_contents();
        let etypes = unreadable.values_mut();
        etypes.for_each(|etype| *etype = with_contents);
        unreadable
    }

    /// Schedules retries of these paths. Beyond the limit of pending paths a full comparison is
    /// scheduled instead.
    pub(super) fn retry_paths(
        &mut self,
        paths: impl IntoIterator<Item = (Vec<u8>, Etype)>,
        now: Time,
    ) -> RetryPlan {
        self.retry_at_most(self.queue_limit.bound(), paths, now)
    }

    fn retry_at_most(
        &mut self,
        max: usize,
        paths: impl IntoIterator<Item = (Vec<u8>, Etype)>,
        now: Time,
    ) -> RetryPlan {
        let oldest = self.oldest_change().unwrap_or(now);
        self.retry.failed_paths.miss(oldest);
        let wait = self.retry.failed_paths.add(paths, now);
        match self.limit_failed_paths(max, now) {
            Some(plan) => plan,
            None => RetryPlan::Paths(self.retry.failed_paths.len(), wait),
        }
    }

    /// Schedules a full comparison in place of the failed paths if there are more than `max`. It
    /// waits like other retries, however many changes arrive meanwhile.
    pub(in crate::sync) fn limit_failed_paths(
        &mut self,
        max: usize,
        now: Time,
    ) -> Option<RetryPlan> {
        if self.retry.failed_paths.len() <= max || !self.compares_everything() {
            return None;
        }
        // The comparison takes files of equal size and second for equal. Those that have changed
        // are searched for; the others that have to be compared by content stay.
        let before = self.retry.failed_paths.len();
        let verify = &self.verify;
        let failed_paths = &mut self.retry.failed_paths;
        failed_paths.retain_names(|path| verify.is_by_content(path));
        if failed_paths.len() == before {
            return None;
        }
        self.verify.suspect();
        Some(self.retry_everything(now))
    }

    fn retry_everything(&mut self, now: Time) -> RetryPlan {
        let oldest = self.oldest_change().unwrap_or(now);
        self.retry.failed_paths.miss(oldest);
        RetryPlan::Everything(self.retry.failed_paths.add_everything(now))
    }

    /// Returns true if a path at which a full comparison failed can be retried by itself.
    fn can_retry(&self, path: &[u8], etype: Etype) -> bool {
        let delete = self.config.delete;
        let deletes = match etype {
            // The contents of a directory that exists: the retry would delete in it.
            Etype::Delete if delete.keeps_others() && self.is_directory(path) => return false,
            other => other == Etype::Delete,
        };
        path != b"/" && !self.excluded(path) && (!deletes || delete.in_batches())
    }

    /// Defers the paths at which a transfer was aborted, so that the other entries are sent without
    /// them. Returns `None` if none of the entries is concerned.
    ///
    /// If transfers abort at new paths again and again, the sync waits as after any failure.
    pub fn defer_failed(
        &mut self,
        ids: &[DelayId],
        named: &RetryEntries,
        too_large: bool,
        now: Time,
    ) -> Option<Deferred> {
        // A larger file does not fit either.
        let sizes = named.keys().filter_map(|path| self.file_size(path));
        let least = if too_large { sizes.min() } else { None };
        let is_too_large = |size: u64| least.is_some_and(|least| size >= least);
        let (mut deferred, mut rest) = (Vec::new(), Vec::new());
        let mut failed = RetryEntries::new();
        for &id in ids {
            let paths = self.entries(&[id]);
            let is_concerned = paths.keys().any(|path| {
                let fails = || self.file_size(path).is_some_and(is_too_large);
                named.contains_key(path) || (least.is_some() && fails())
            });
            if is_concerned {
                // Neither path of a move was transferred.
                failed.extend(paths);
                deferred.push(id);
            } else {
                rest.push(id);
            }
        }
        if deferred.is_empty() {
            return None;
        }
        let is_new = failed
            .keys()
            .any(|path| !self.retry.failed_paths.is_tried(path));
        let retry = self.retry_paths(failed, now);
        self.finish(&deferred);
        let waits = is_new && self.is_failing();
        if waits {
            self.failed(&rest, now);
        } else {
            self.requeue(&rest, now);
        }
        if is_new && !waits {
            self.retry.backoff.fail();
        }
        Some(Deferred {
            paths: deferred.len(),
            others: rest.len(),
            retry,
        })
    }

    /// Returns the size of a regular file of the source.
    pub(super) fn file_size(&self, path: &[u8]) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.on_disk(path)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }
}

/// Returns true for a symbolic link that leads to nothing.
fn is_dangling(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
    let leads_nowhere = |error: io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
        )
    };
    is_link && fs::metadata(path).is_err_and(leads_nowhere)
}

/// Returns true for a directory whose permissions keep this user from reading what is in it.
fn is_denied(path: &Path) -> bool {
    let (access, flags) = (Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS);
    let is_directory = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    is_directory && rustix::fs::accessat(CWD, path, access, flags) == Err(Errno::ACCESS)
}

#[cfg(test)]
mod link_tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_that_lead_nowhere_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("f"), "").unwrap();
        for (to, name) in [("none", "a"), ("loop", "loop"), ("f/x", "b"), ("f", "good")] {
            symlink(to, at(name)).unwrap();
        }
        for name in ["a", "loop", "b"] {
            assert!(is_dangling(&at(name)), "{name}");
        }
        for name in ["good", "f", "missing"] {
            assert!(!is_dangling(&at(name)), "{name}");
        }
    }
}

#[cfg(test)]
#[path = "partial_tests.rs"]
mod tests;
