//! Source monitor: halts syncs whose source is missing, replaced or not mounted, or whose local
//! target is not mounted, and releases them.
//!
//! A check runs when the watcher reports a lost or restored root, when the mount table changes (a
//! mount over a directory is reported by the mount table only), and before each transfer. Halted
//! syncs are checked every [`RECHECK_INTERVAL`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::component::Action;
use crate::log;
use crate::mount_table::{self, lasting, mounts};
use crate::queue::Time;
use crate::script::SyncHandle;
use crate::state::{StateDir, sources};
use crate::sync::{Sync, TargetState};
use crate::watch::Watcher;

/// The interval of checks while a source is missing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the paths of all sources are looked at. Nothing is told of a directory above a source
/// that is renamed.
const PATHS_INTERVAL: Duration = Duration::from_secs(10);
/// The minimum time between two readings of the mount table. A machine that starts containers
/// changes it many times a second, and each reading examines every source.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long the start waits for a target to answer.
const START_TIME: Duration = Duration::from_secs(5);
/// The pause before a target that has not answered is asked again, in microseconds.
const SILENT_PAUSE: Time = 100_000;
/// The time after which a target that does not answer halts its sync.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Wakes the loop when the mount table changes.
pub struct MountWatch {
    _file: Option<File>,
}

impl MountWatch {
    /// Registers the mount table. The kernel reports a change as priority data (`EPOLLPRI`,
    /// proc_pid_mountinfo(5)). Without proc(5) nothing is reported.
    ///
    /// # Errors
    ///
    /// No file descriptor is available.
    pub fn new(registry: &Registry, token: Token) -> io::Result<MountWatch> {
        let Ok(file) = File::open(mount_table::TABLE) else {
            return Ok(MountWatch { _file: None });
        };
        registry.register(&mut SourceFd(&file.as_raw_fd()), token, Interest::PRIORITY)?;
        Ok(MountWatch { _file: Some(file) })
    }
}

/// Why a sync is halted whose target is on a file system that does not answer.
const NO_ANSWER: &str = "the file system of the target does not answer";

/// The roots of watched trees, as the monitor needs them.
pub trait WatchedRoots {
    /// Returns true while directories are being read.
    fn crawling(&self) -> bool;
    /// Returns true if the path leads to the directory that is watched for it.
    fn leads_to_root(&mut self, path: &[u8]) -> bool;
    /// Looks at what is in the place of each root.
    fn check_roots(&mut self);
    /// Tries to watch lost roots again.
    fn retry_roots(&mut self);
    /// Brings all watches in line with the disk.
    fn rebuild(&mut self);
}

impl WatchedRoots for Watcher {
    fn crawling(&self) -> bool {
        self.crawling()
    }

    fn leads_to_root(&mut self, path: &[u8]) -> bool {
        self.leads_to_root(path)
    }

    fn check_roots(&mut self) {
        self.check_roots();
    }

    fn retry_roots(&mut self) {
        self.retry_roots();
    }

    fn rebuild(&mut self) {
        self.rebuild();
    }
}

/// What the monitor checks.
pub struct Sources<'a> {
    /// All syncs.
    pub syncs: &'a [Rc<SyncHandle>],
    /// The watched trees.
    pub roots: &'a mut dyn WatchedRoots,
    /// Where accepted sources are saved.
    pub state: Option<&'a StateDir>,
    /// The time at which released syncs continue; `None` before all directories are watched.
    pub started: Option<Time>,
}

impl Sources<'_> {
    /// Records that source and target are accepted.
    fn accepted(&self, handle: &SyncHandle) -> Option<Action> {
        let mut sync = handle.sync.borrow_mut();
        // For a halted sync this is logged when it is released.
        let is_new = sync.halted().is_none() && sync.take_source_replacement();
        self.save(&sync);
        is_new.then(|| {
            Action::normal(format!(
                "{}: another directory is in the place of the source {}",
                sync.config.name,
                log::escape(&sync.config.source)
            ))
        })
    }

    fn save(&self, sync: &Sync) {
        if let Some(state) = self.state {
            sources::save(state, sync);
        }
    }

    fn save_nested_mounts(&self, sync: &Sync) {
        if let Some(state) = self.state {
            sources::save_nested_mounts(state, sync);
        }
    }

    /// Updates each sync's nested mounts, so that unmounted ones are neither sent nor deleted.
    fn update_nested_mounts(&self, table: &[u8]) -> Vec<Action> {
        let mounted: BTreeSet<Vec<u8>> = lasting(table).collect();
        let mut actions = Vec::new();
        for handle in self.syncs {
            let mut sync = handle.sync.borrow_mut();
            let known = sync.known_nested_mounts().count();
            let changes = sync.update_nested_mounts(&mounted);
            let name = &sync.config.name;
            actions.extend(changes.gone.iter().map(|mount| {
                Action::warn(format!(
                    "{name}: what was mounted at {} is not; the target keeps what it has of it",
                    log::escape(mount)
                ))
            }));
            actions.extend(changes.back.iter().map(|mount| {
                Action::normal(format!("{name}: {} is mounted again", log::escape(mount)))
            }));
            // Nested mounts are only added here.
            if sync.known_nested_mounts().count() > known {
                self.save_nested_mounts(&sync);
            }
        }
        actions
    }

    /// Returns the mount points below the sources, with the mounted file systems.
    fn nested_mounts_in(&self, table: &[u8]) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
        let nested_mounts = |(mount, _): &(Vec<u8>, Vec<u8>)| {
            let mut syncs = self.syncs.iter();
            syncs.any(|handle| handle.sync.borrow().contains_mount(mount))
        };
        mounts(table).filter(nested_mounts).collect()
    }
}

/// The schedule of checks and the mounts found by the last one.
pub struct SourceMonitor {
    due: Option<Instant>,
    /// When the paths of all sources are looked at next.
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
        let table = mount_table::read();
        self.nested_mounts = sources.nested_mounts_in(&table);
        let mut actions = Vec::new();
        for handle in sources.syncs {
            let violation = {
                let mut sync = handle.sync.borrow_mut();
                if let Some(state) = sources.state {
                    sources::restore(state, &mut sync);
                }
                // The source is accepted only if the target is available.
                match sync.accept_target(START_TIME) {
                    TargetState::Available => sync.accept_source(),
                    TargetState::NotMounted(why) => Some(why),
                    TargetState::Silent(_) => Some(NO_ANSWER.to_owned()),
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
        let table = mount_table::read();
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
        actions.extend(syncs.map(|sync| Action::FullSyncWhenWatched(sync.id)));
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
        let violation = match sync.check_target() {
            TargetState::NotMounted(why) => Some(why),
            // The next transfer asks again, or the next check of a halted sync.
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
            None => {}
        }
        home
    }

    /// Halts a sync. Returns the message, if the reason is new.
    fn halt(&mut self, handle: &SyncHandle, why: String, now: Instant) -> Option<Action> {
        let mut sync = handle.sync.borrow_mut();
        let line = format!(
            "{}: {}: {why}; nothing is sent until that has changed",
            sync.config.name,
            log::escape(&sync.config.source)
        );
        self.due.get_or_insert(now + RECHECK_INTERVAL);
        sync.halt(why).then(|| Action::error(line))
    }
}
