//! Source monitor: halts syncs whose source is missing, replaced or not mounted, or whose local
//! target is not mounted, and releases them.
//!
//! A check runs when the watcher reports a lost or restored root, when the mount table changes (a
//! mount over a directory is reported by the mount table only), and before each transfer. Halted
//! syncs are checked every [`RECHECK_INTERVAL`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::sources::Sources;
use crate::component::{Action, WatchAction};
use crate::log;
use crate::queue::Time;
use crate::script::SyncHandle;
use crate::state::sources;
use crate::sync::{Sync, TargetState};

/// The interval of checks while a source is missing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval in which the paths of all sources are checked. No event reports a rename of a
/// directory above a source.
const PATHS_INTERVAL: Duration = Duration::from_secs(10);
/// The minimum time between two readings of the mount table. A machine that starts containers
/// changes it many times a second, and each reading examines every source.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The time in which all targets must answer at the start. Later, only the syncs of silent targets
/// wait.
const START_TIME: Duration = Duration::from_millis(100);
/// The pause before a silent target is checked again, in microseconds.
const SILENT_PAUSE: Time = 100_000;
/// The time after which a target that does not answer halts its sync.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Why a sync is halted whose target is on a file system that does not answer.
const NO_ANSWER: &str = "the file system of the target does not answer";

/// The schedule of checks and the mounts found by the last one.
pub struct SourceMonitor {
    due: Option<Instant>,
    /// The time of the next check of the paths of all sources.
    paths_due: Instant,
    /// The mount table is not read before this time.
    rests: Option<Instant>,
    /// The mount table has changed since it was read.
    changed: bool,
    nested_mounts: BTreeSet<(Vec<u8>, Vec<u8>)>,
    waits_for_crawl: bool,
}

impl SourceMonitor {
    /// Returns a monitor without scheduled checks.
    pub fn new(now: Instant) -> SourceMonitor {
        SourceMonitor {
            due: None,
            paths_due: now + PATHS_INTERVAL,
            rests: None,
            changed: false,
            nested_mounts: BTreeSet::new(),
            waits_for_crawl: false,
        }
    }

    /// Returns the time of the next check.
    pub fn deadline(&self) -> Option<Instant> {
        let mounts = self.rests.filter(|_| self.changed);
        let others = self.due.into_iter().chain(mounts);
        others.chain([self.paths_due]).min()
    }

    /// Checks before the first watch is set that each source is on the same mount as the last time.
    pub fn on_start(&mut self, sources: &Sources<'_>, now: Instant) -> Vec<Action> {
        let table = (sources.mount_table)();
        self.nested_mounts = sources.nested_mounts_in(&table);
        let mut actions = Vec::new();
        for handle in sources.syncs {
            let mut sync = handle.sync.borrow_mut();
            if let Some(state) = sources.state {
                sources::restore(state, &mut sync);
            }
            sync.ask_target();
        }
        let until = Instant::now() + START_TIME;
        for handle in sources.syncs {
            let violation = {
                let mut sync = handle.sync.borrow_mut();
                // The source is accepted only if the target is available.
                match sync.accept_target(until.saturating_duration_since(Instant::now())) {
                    TargetState::Available => sync.accept_source(),
                    TargetState::NotMounted(why) => Some(why),
                    TargetState::Silent(_) => {
                        sync.await_target();
                        continue;
                    }
                }
            };
            actions.extend(match violation {
                Some(why) => self.halt(handle, why, now),
                None => sources.accepted(handle),
            });
        }
        actions.extend(sources.update_nested_mounts(&table));
        actions
    }

    /// Accepts the current mounts of all sources, on request of the user.
    pub fn on_released(&self, sources: &mut Sources<'_>) -> Vec<Action> {
        for handle in sources.syncs {
            let sync = handle.sync.borrow();
            sources.save(&sync);
            sources.save_nested_mounts(&sync);
        }
        sources.roots.rebuild();
        Vec::new()
    }

    /// Checks a sync before a transfer. Returns true if it may start one; otherwise the sync is
    /// halted, or deferred while its target does not answer.
    pub fn check_ready(
        &mut self,
        handle: &SyncHandle,
        sources: &mut Sources<'_>,
        (now, time): (Instant, Time),
    ) -> (bool, Vec<Action>) {
        let mut actions = Vec::new();
        // An unmounted file system must not look like deleted files, so this check is not delayed.
        if self.changed && handle.sync.borrow().known_nested_mounts().next().is_some() {
            actions = self.look_at_mounts(sources, now);
        }
        let violation = {
            let mut sync = handle.sync.borrow_mut();
            match (sync.source_violation(), sync.check_target()) {
                (Some(why), _) | (None, TargetState::NotMounted(why)) => Some(why),
                (None, TargetState::Silent(since)) if since >= MAX_SILENCE => {
                    Some(NO_ANSWER.to_owned())
                }
                (None, TargetState::Silent(_)) => {
                    sync.defer(time + SILENT_PAUSE);
                    return (false, actions);
                }
                (None, TargetState::Available) if sync.awaits_target() => {
                    let violation = sync.accept_source();
                    drop(sync);
                    if violation.is_none() {
                        actions.extend(sources.accepted(handle));
                    }
                    violation
                }
                (None, TargetState::Available) => None,
            }
        };
        let Some(why) = violation else {
            return (true, actions);
        };
        actions.extend(self.halt(handle, why, now));
        sources.roots.check_roots();
        (false, actions)
    }

    /// Runs the checks that are due in a turn. `back` are the indexes of syncs whose roots are
    /// watched again.
    pub fn on_turn(
        &mut self,
        back: &[usize],
        sources: &mut Sources<'_>,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.changed {
            actions = self.on_mounts_changed(sources, now);
        }
        if self.paths_due <= now {
            self.paths_due = now + PATHS_INTERVAL;
            sources.roots.check_roots();
        }
        for handle in back.iter().filter_map(|&index| sources.syncs.get(index)) {
            self.recheck(handle, sources, now, &mut actions);
        }
        let mut syncs = sources.syncs.iter();
        if !syncs.any(|handle| handle.sync.borrow().halted().is_some()) {
            self.due = None;
            return actions;
        }
        if self.waits_for_crawl && !sources.roots.crawling() {
            self.waits_for_crawl = false;
            self.recheck_all(sources, now, &mut actions);
        }
        match self.due {
            Some(due) if due > now => {}
            None => self.due = Some(now + RECHECK_INTERVAL),
            Some(_) => {
                self.due = Some(now + RECHECK_INTERVAL);
                self.recheck_all(sources, now, &mut actions);
            }
        }
        actions
    }

    /// Handles a change of the mount table.
    pub fn on_mounts_changed(&mut self, sources: &mut Sources<'_>, now: Instant) -> Vec<Action> {
        self.changed = self.rests.is_some_and(|until| until > now);
        if self.changed {
            return Vec::new();
        }
        self.rests = Some(now + MIN_INTERVAL);
        self.look_at_mounts(sources, now)
    }

    fn look_at_mounts(&mut self, sources: &mut Sources<'_>, now: Instant) -> Vec<Action> {
        self.changed = false;
        let mut actions = Vec::new();
        self.recheck_all(sources, now, &mut actions);
        let table = (sources.mount_table)();
        actions.extend(sources.update_nested_mounts(&table));
        let nested_mounts = sources.nested_mounts_in(&table);
        let before = std::mem::replace(&mut self.nested_mounts, nested_mounts);
        let changed: Vec<_> = before.symmetric_difference(&self.nested_mounts).collect();
        if changed.is_empty() {
            return actions;
        }
        // inotify does not report that a mount hides a watched directory.
        let is_changed = |sync: &Sync| {
            let mut changed = changed.iter();
            changed.any(|(mount, _)| sync.contains_mount(mount))
        };
        let syncs = sources.syncs.iter().map(|handle| handle.sync.borrow());
        let syncs = syncs.filter(|sync| is_changed(sync));
        actions.extend(syncs.map(|sync| Action::Watch(WatchAction::FullSync(sync.id))));
        sources.roots.rebuild();
        actions
    }

    fn recheck_all(&mut self, sources: &mut Sources<'_>, now: Instant, actions: &mut Vec<Action>) {
        let mut astray = false;
        for handle in sources.syncs {
            astray |= !self.recheck(handle, sources, now, actions);
        }
        if astray {
            sources.roots.check_roots();
        }
        sources.roots.retry_roots();
    }

    /// Halts a sync or releases it. Returns false if its path does not lead to the watched
    /// directory.
    fn recheck(
        &mut self,
        handle: &SyncHandle,
        sources: &mut Sources<'_>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> bool {
        let mut sync = handle.sync.borrow_mut();
        if sync.is_lost() {
            return true;
        }
        let home = sources.roots.leads_to_root(&sync.config.source);
        let waited = sync.awaits_target();
        let violation = match sync.check_target() {
            TargetState::NotMounted(why) => Some(why),
            // The next transfer, or the next check of a halted sync, repeats the query.
            TargetState::Silent(_) => return home,
            TargetState::Available if home => sync.accept_source(),
            TargetState::Available => sync.source_violation(),
        };
        match violation {
            Some(why) => {
                drop(sync);
                actions.extend(self.halt(handle, why, now));
            }
            // The crawl reports no events for what it finds, so the comparison has to wait for it.
            None if sources.roots.crawling() => self.waits_for_crawl = true,
            None if home && sync.halted().is_some() => {
                let what = if sync.take_source_replacement() {
                    "another directory is in the place of the source"
                } else {
                    "source and target are the same as before"
                };
                let name = &sync.config.name;
                let text = format!("{name}: {what}, comparing everything");
                actions.push(Action::normal(text));
                sync.resume(sources.started);
                sources.save(&sync);
            }
            None if waited && home => {
                drop(sync);
                actions.extend(sources.accepted(handle));
            }
            None => {}
        }
        home
    }

    /// Halts a sync. Returns the message, if the reason is new.
    fn halt(&mut self, handle: &SyncHandle, why: String, now: Instant) -> Option<Action> {
        let mut sync = handle.sync.borrow_mut();
        let line = format!(
            "{}: {}: {why}; nothing is sent until this is resolved",
            sync.config.name,
            log::escape(&sync.config.source)
        );
        self.due.get_or_insert(now + RECHECK_INTERVAL);
        // A target that does not answer is the same when it does.
        if why != NO_ANSWER {
            sync.outdate_transfers();
        }
        sync.halt(why).then(|| Action::error(line))
    }
}

#[cfg(test)]
#[path = "source_monitor_tests.rs"]
mod tests;
