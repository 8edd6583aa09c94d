//! Failed paths of a sync: paths that could not be sent or deleted while the rest of their transfer
//! succeeded.
//!
//! Each path is retried after a delay that grows with its own failures, so a path that failed once,
//! because it was changing, does not wait for one that always fails. Paths with the same number of
//! failures share one due time, so each step of the delays costs one transfer, however many paths
//! there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::Backoff;
use crate::paths;
use crate::queue::{Etype, Time, micros};

/// The failed paths of one sync.
pub struct FailedPaths {
    paths: BTreeMap<Vec<u8>, FailedPath>,
    /// The due time and the number of paths, by the number of failures.
    steps: BTreeMap<u32, RetryStep>,
    /// The paths being retried, with their number of failures.
    tried: BTreeMap<Vec<u8>, u32>,
    /// The time of a pending full comparison.
    everything: Option<Time>,
    /// The retry delays of full comparisons.
    backoff: Backoff,
    /// The time since which something is missing on the target.
    since: Option<Time>,
}

/// One failed path.
struct FailedPath {
    etype: Etype,
    step: u32,
    /// It is left out of the transfers of its present entries, see [`FailedPaths::set_held`].
    held: bool,
}

struct RetryStep {
    due: Time,
    count: usize,
}

/// The retries that are due together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DueRetries {
    /// The paths in the order in which they are to be queued.
    pub paths: Vec<(Vec<u8>, Etype)>,
    /// A full comparison is to be queued.
    pub everything: bool,
}

impl FailedPaths {
    /// Returns an empty set. The retry delays begin with the sync's delay.
    pub fn new(delay: Option<Duration>) -> FailedPaths {
        FailedPaths {
            paths: BTreeMap::new(),
            steps: BTreeMap::new(),
            tried: BTreeMap::new(),
            everything: None,
            backoff: Backoff::new(delay),
            since: None,
        }
    }

    /// Notes that something is missing on the target, and that the oldest change of the sync is of
    /// this time. Must be called before failures are added.
    pub fn miss(&mut self, oldest: Time) {
        if self.since().is_none() {
            self.since = Some(oldest);
        }
    }

    /// Returns the time since which something is missing on the target: that of the oldest change
    /// at the first failure, until nothing has failed any more.
    pub fn since(&self) -> Option<Time> {
        self.since.filter(|_| self.is_failing())
    }

    /// Adds the failed paths of a transfer. Returns the delay before the first retry of these.
    /// Paths that failed before keep their due times.
    pub fn add(
        &mut self,
        paths: impl IntoIterator<Item = (Vec<u8>, Etype)>,
        now: Time,
    ) -> Duration {
        let mut soonest = None;
        for (path, etype) in paths {
            let due = self.add_one(path, etype, now);
            soonest = Some(soonest.map_or(due, |soonest: Time| due.min(soonest)));
        }
        Duration::from_micros(soonest.unwrap_or(now).saturating_sub(now))
    }

    fn add_one(&mut self, path: Vec<u8>, etype: Etype, now: Time) -> Time {
        let failures = self.tried.remove(&path).map_or(0, |failures| failures + 1);
        let step = match self.paths.get_mut(&path) {
            Some(known) => {
                // A failed directory with contents must not be replaced by its attributes.
                if !stands_for_contents(known.etype, &path) || etype == Etype::Delete {
                    known.etype = etype;
                }
                known.step
            }
            None => {
                let step = failures.min(self.backoff.last_step());
                let wait = self.backoff.wait(step);
                let due = now + micros(wait);
                self.steps
                    .entry(step)
                    .or_insert(RetryStep { due, count: 0 })
                    .count += 1;
                let held = false;
                self.paths.insert(path, FailedPath { etype, step, held });
                step
            }
        };
        self.steps.get(&step).map_or(now, |step| step.due)
    }

    /// Sets if a failed path is excluded from the transfers of its present entries. If it is, their
    /// success does not concern it.
    pub fn set_held(&mut self, path: &[u8], held: bool) {
        if let Some(failed) = self.paths.get_mut(path) {
            failed.held = held;
        }
    }

    /// Adds the new names of failed paths that a rename moves: the rename has no effect on what is
    /// missing on the target.
    pub fn renamed(&mut self, from: &[u8], to: &[u8], now: Time) {
        let moved: Vec<_> = self
            .paths
            .range(paths::bare(from).to_vec()..)
            .take_while(|(path, _)| path.starts_with(paths::bare(from)))
            .filter_map(|(path, failed)| Some((paths::moved(path, from, to)?, failed.etype)))
            .collect();
        self.add(moved, now);
    }

    /// Schedules a full comparison, because the failed paths are unknown. Returns the delay. One
    /// that is scheduled already keeps its time, and is not counted again.
    pub fn add_everything(&mut self, now: Time) -> Duration {
        let due = match self.everything {
            Some(due) => due,
            None => now + micros(self.backoff.fail()),
        };
        self.everything = Some(due);
        Duration::from_micros(due.saturating_sub(now))
    }

    /// Removes the other paths, because a full comparison follows.
    pub fn retain_names(&mut self, is_kept: impl Fn(&[u8]) -> bool) {
        let steps = &mut self.steps;
        self.paths.retain(|path, failed| {
            let stays = is_kept(path);
            if !stays {
                leave(steps, failed.step);
            }
            stays
        });
        self.tried.retain(|path, _| is_kept(path));
    }

    /// Handles a full comparison without failures.
    pub fn compared(&mut self) {
        self.backoff.reset();
    }

    /// Removes a path whose entry succeeded.
    pub fn succeeded(&mut self, path: &[u8], etype: Etype) {
        self.tried.remove(path);
        let covered = |failed: &FailedPath| {
            !failed.held && (etype == failed.etype || !stands_for_contents(failed.etype, path))
        };
        if self.paths.get(path).is_some_and(covered)
            && let Some(failed) = self.paths.remove(path)
        {
            leave(&mut self.steps, failed.step);
        }
    }

    /// Returns true if something is missing on the target, retries that are running included.
    pub fn is_failing(&self) -> bool {
        !self.is_idle() || self.everything.is_some() || self.backoff.failures() > 0
    }

    /// Returns the number of failed paths, with those that are being retried.
    pub fn missing(&self) -> usize {
        self.paths.len() + self.tried.len()
    }

    /// Returns the first `most` of these paths: those that wait, then those that are being retried.
    pub fn missing_names(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        let all = self.paths.keys().chain(self.tried.keys());
        all.take(most).map(Vec::as_slice)
    }

    /// Returns true if no path has failed or is being retried.
    pub fn is_idle(&self) -> bool {
        self.paths.is_empty() && self.tried.is_empty()
    }

    /// Returns the event type for the retry of this path, if it has failed.
    pub fn etype_of(&self, path: &[u8]) -> Option<Etype> {
        self.paths.get(path).map(|failed| failed.etype)
    }

    /// Returns true if this path is being retried.
    pub fn is_tried(&self, path: &[u8]) -> bool {
        self.tried.contains_key(path)
    }

    /// Returns how often a path that is being retried has failed before.
    pub fn failures_of(&self, path: &[u8]) -> u32 {
        self.tried.get(path).map_or(0, |failures| failures + 1)
    }

    /// Ends the retry of all paths.
    pub fn none_tried(&mut self) {
        self.tried.clear();
    }

    /// Returns the failed paths as events.
    pub fn paths(&self) -> impl Iterator<Item = (Etype, Vec<u8>, Option<Vec<u8>>)> {
        let one = |(path, failed): (&Vec<u8>, &FailedPath)| (failed.etype, path.clone(), None);
        self.paths.iter().map(one)
    }

    /// Returns the time of the next full comparison and the number of failed ones in a row. A time
    /// in the past means that it is running.
    pub fn next_comparison(&self) -> Option<(Time, u32)> {
        let failures = self.backoff.failures();
        let due = self.everything.or((failures > 0).then_some(0));
        due.map(|due| (due, failures))
    }

    /// Returns true if a full comparison is scheduled.
    pub fn retries_everything(&self) -> bool {
        self.everything.is_some()
    }

    /// Returns the number of failed paths.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns true if no path has failed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Returns the time of the first retry; `None` if there is none.
    pub fn due(&self) -> Option<Time> {
        let steps = self.steps.values().map(|step| step.due);
        steps.chain(self.everything).min()
    }

    /// Makes all retries due now.
    pub fn hasten(&mut self, now: Time) {
        for step in self.steps.values_mut() {
            step.due = step.due.min(now);
        }
        self.everything = self.everything.map(|due| due.min(now));
    }

    /// Returns the first `most` paths, in order.
    pub fn names(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        self.paths.keys().take(most).map(Vec::as_slice)
    }

    /// Removes and returns what is due, and what is due soon after.
    pub fn take(&mut self, now: Time) -> DueRetries {
        if self.due().is_none_or(|due| due > now) {
            return DueRetries::default();
        }
        let everything = self.everything.take_if(|due| *due <= now).is_some();
        let backoff = &self.backoff;
        let is_due = |step: u32, due: Time| due <= now + micros(backoff.wait(step) / 4);
        let steps = self.steps.iter();
        let due: Vec<u32> = steps
            .filter(|(step, it)| is_due(**step, it.due))
            .map(|(step, _)| *step)
            .collect();
        let mut paths = Vec::new();
        for (path, failed) in std::mem::take(&mut self.paths) {
            if !due.contains(&failed.step) {
                self.paths.insert(path, failed);
                continue;
            }
            self.tried.insert(path.clone(), failed.step);
            paths.push((path, failed.etype));
        }
        self.steps.retain(|step, _| !due.contains(step));
        paths.sort_by_key(|(_, etype)| *etype != Etype::Delete);
        DueRetries { paths, everything }
    }
}

/// Removes one path from a step.
fn leave(steps: &mut BTreeMap<u32, RetryStep>, step: u32) {
    if let Some(known) = steps.get_mut(&step) {
        known.count -= 1;
        if known.count == 0 {
            steps.remove(&step);
        }
    }
}

/// Returns true if an entry also represents the contents of its directory.
fn stands_for_contents(etype: Etype, path: &[u8]) -> bool {
    path.ends_with(b"/") && matches!(etype, Etype::Create | Etype::Delete)
}

#[cfg(test)]
#[path = "failed_paths_tests.rs"]
mod tests;
