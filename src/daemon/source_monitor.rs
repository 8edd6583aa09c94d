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

use super::event_loop::EventLoop;
use crate::log;
use crate::script::SyncHandle;
use crate::sync::{SourceIdentity, Sync, lasting, mount_table, mounts};

/// The interval of checks while a source is missing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the paths of all sources are looked at. Nothing is told of a directory above a source
/// that is renamed.
const PATHS_INTERVAL: Duration = Duration::from_secs(10);
/// The minimum time between two readings of the mount table. A machine that starts containers
/// changes it many times a second, and each reading examines every source.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The state file with the mount point of the source.
const MOUNT_STATE: &str = "mount";
/// The state file with the identity of the source directory.
const SOURCE_STATE: &str = "source";
/// The state file with the mount point of a local target.
const TARGET_MOUNT_STATE: &str = "target-mount";
/// The state file with the mount points within the source, each followed by a zero byte.
const NESTED_MOUNTS_STATE: &str = "inside";

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
    pub fn new() -> SourceMonitor {
        SourceMonitor {
            due: None,
            paths_due: Instant::now() + PATHS_INTERVAL,
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
}

impl EventLoop<'_> {
    /// Checks before the first watch is set that each source is on the same mount as the last time.
    pub(super) fn check_sources_at_start(&mut self) {
        let table = mount_table::read();
        self.source_monitor.nested_mounts = self.nested_mounts_in(&table);
        for handle in self.syncs.clone() {
            if let Some(state) = &self.context.state {
                let mut sync = handle.sync.borrow_mut();
                if let Some(mount) = state.read(&sync.config, MOUNT_STATE) {
                    sync.remember_source_mount(&mount);
                }
                let source = state.read(&sync.config, SOURCE_STATE);
                if let Some(source) = source.and_then(|line| SourceIdentity::from_line(&line)) {
                    sync.remember_source(source);
                }
                if let Some(mount) = state.read(&sync.config, TARGET_MOUNT_STATE) {
                    sync.remember_target_mount(mount);
                }
                let known = state
                    .read(&sync.config, NESTED_MOUNTS_STATE)
                    .unwrap_or_default();
                let known = known
                    .split(|&byte| byte == 0)
                    .filter(|path| !path.is_empty());
                sync.remember_nested_mounts(known.map(<[u8]>::to_vec));
            }
            let violation = {
                let mut sync = handle.sync.borrow_mut();
                // The source is accepted only if the target is available.
                sync.accept_target().or_else(|| sync.accept_source())
            };
            match violation {
                Some(why) => self.halt(&handle, why),
                None => self.accepted(&handle),
            }
        }
        self.update_nested_mounts(&table);
    }

    /// Updates each sync's nested mounts, so that unmounted ones are neither sent nor deleted.
    fn update_nested_mounts(&self, table: &[u8]) {
        let mounted: BTreeSet<Vec<u8>> = lasting(table).collect();
        for handle in &self.syncs {
            let mut sync = handle.sync.borrow_mut();
            let known = sync.known_nested_mounts().count();
            let changes = sync.update_nested_mounts(&mounted);
            let name = &sync.config.name;
            for mount in changes.gone {
                log::warn(format_args!(
                    "{name}: what was mounted at {} is not; the target keeps what it has of it",
                    log::escape(&mount)
                ));
            }
            for mount in changes.back {
                let mount = log::escape(&mount);
                log::normal(format_args!("{name}: {mount} is mounted again"));
            }
            // Nested mounts are only added here.
            let news = sync.known_nested_mounts().count() > known;
            drop(sync);
            if news {
                self.remember_nested_mounts(handle);
            }
        }
    }

    /// Accepts the current mounts of all sources, on request of the user.
    pub(super) fn mounts_released(&mut self) {
        for handle in &self.syncs {
            self.remember(handle);
            self.remember_nested_mounts(handle);
        }
        self.watcher.rebuild();
    }

    /// Returns true if the sync may start a transfer. Otherwise it is halted.
    pub(super) fn check_ready(&mut self, handle: &Rc<SyncHandle>) -> bool {
        // An unmounted file system must not look like deleted files, so this check is not delayed.
        if self.source_monitor.changed
            && handle.sync.borrow().known_nested_mounts().next().is_some()
        {
            self.look_at_mounts();
        }
        let violation = {
            let mut sync = handle.sync.borrow_mut();
            sync.source_violation().or_else(|| sync.target_violation())
        };
        let Some(why) = violation else {
            return true;
        };
        self.halt(handle, why);
        self.watcher.check_roots();
        false
    }

    /// Runs the checks that are due in a turn. `back` are the indexes of syncs whose roots are
    /// watched again.
    pub(super) fn recheck_sources(&mut self, back: &[usize]) {
        if self.source_monitor.changed {
            self.mounts_changed();
        }
        let now = Instant::now();
        if self.source_monitor.paths_due <= now {
            self.source_monitor.paths_due = now + PATHS_INTERVAL;
            self.watcher.check_roots();
        }
        for &index in back {
            if let Some(handle) = self.syncs.get(index).cloned() {
                self.recheck(&handle);
            }
        }
        let halted = self
            .syncs
            .iter()
            .any(|m| m.sync.borrow().halted().is_some());
        if !halted {
            self.source_monitor.due = None;
            return;
        }
        if self.source_monitor.waits_for_crawl && !self.watcher.crawling() {
            self.source_monitor.waits_for_crawl = false;
            self.recheck_all();
        }
        match self.source_monitor.due {
            Some(due) if due > now => {}
            None => self.source_monitor.due = Some(now + RECHECK_INTERVAL),
            Some(_) => {
                self.source_monitor.due = Some(now + RECHECK_INTERVAL);
                self.recheck_all();
            }
        }
    }

    /// Handles a change of the mount table.
    pub(super) fn mounts_changed(&mut self) {
        let now = Instant::now();
        self.source_monitor.changed = self.source_monitor.rests.is_some_and(|until| until > now);
        if self.source_monitor.changed {
            return;
        }
        self.source_monitor.rests = Some(now + MIN_INTERVAL);
        self.look_at_mounts();
    }

    fn look_at_mounts(&mut self) {
        self.source_monitor.changed = false;
        self.recheck_all();
        let table = mount_table::read();
        self.update_nested_mounts(&table);
        let nested_mounts = self.nested_mounts_in(&table);
        let before = std::mem::replace(&mut self.source_monitor.nested_mounts, nested_mounts);
        let changed: Vec<_> = before
            .symmetric_difference(&self.source_monitor.nested_mounts)
            .collect();
        if changed.is_empty() {
            return;
        }
        // inotify does not report that a mount hides a watched directory.
        for (handle, compare) in self.syncs.iter().zip(&mut self.compare) {
            let sync = handle.sync.borrow();
            *compare |= changed.iter().any(|(mount, _)| sync.contains_mount(mount));
        }
        self.watcher.rebuild();
    }

    fn recheck_all(&mut self) {
        let mut astray = false;
        for handle in self.syncs.clone() {
            astray |= !self.recheck(&handle);
        }
        if astray {
            self.watcher.check_roots();
        }
        self.watcher.retry_roots();
    }

    /// Halts a sync or releases it. Returns false if its path does not lead to the watched
    /// directory.
    fn recheck(&mut self, handle: &Rc<SyncHandle>) -> bool {
        let mut sync = handle.sync.borrow_mut();
        if sync.is_lost() {
            return true;
        }
        let home = self.watcher.leads_to_root(&sync.config.source);
        let violation = sync.target_violation().or_else(|| {
            if home {
                sync.accept_source()
            } else {
                sync.source_violation()
            }
        });
        match violation {
            Some(why) => {
                drop(sync);
                self.halt(handle, why);
            }
            // The crawl reports no events for what it finds, so the comparison has to wait for it.
            None if self.watcher.crawling() => {
                self.source_monitor.waits_for_crawl = true;
            }
            None if home && sync.halted().is_some() => {
                let name = sync.config.name.clone();
                let what = if sync.take_source_replacement() {
                    "another directory is in the place of the source"
                } else {
                    "source and target are the same as before"
                };
                log::normal(format_args!("{name}: {what}, comparing everything"));
                sync.resume(self.started.then_some(self.now));
                drop(sync);
                self.remember(handle);
            }
            None => {}
        }
        home
    }

    /// Records that source and target are accepted.
    fn accepted(&self, handle: &SyncHandle) {
        let mut sync = handle.sync.borrow_mut();
        // For a halted sync this is logged when it is released.
        if sync.halted().is_none() && sync.take_source_replacement() {
            log::normal(format_args!(
                "{}: another directory is in the place of the source {}",
                sync.config.name,
                log::escape(&sync.config.source)
            ));
        }
        drop(sync);
        self.remember(handle);
    }

    fn halt(&mut self, handle: &SyncHandle, why: String) {
        let mut sync = handle.sync.borrow_mut();
        let line = format!(
            "{}: {}: {why}; nothing is sent until that has changed",
            sync.config.name,
            log::escape(&sync.config.source)
        );
        if sync.halt(why) {
            log::error(line);
        }
        self.source_monitor
            .due
            .get_or_insert(Instant::now() + RECHECK_INTERVAL);
    }

    /// Saves the source and the mounts for the next start. The mount point `/` is not saved.
    fn remember(&self, handle: &SyncHandle) {
        let sync = handle.sync.borrow();
        let lasting = |mount: &[u8]| match mount {
            b"/" => Vec::new(),
            mount => mount.to_vec(),
        };
        let source = sync.accepted_source().map(SourceIdentity::to_line);
        self.keep(&sync, SOURCE_STATE, source.unwrap_or_default().as_bytes());
        self.keep(&sync, MOUNT_STATE, &lasting(sync.source_mount()));
        self.keep(
            &sync,
            TARGET_MOUNT_STATE,
            &lasting(sync.target_mount().unwrap_or_default()),
        );
    }

    /// Saves the nested mounts of a source for the next start.
    fn remember_nested_mounts(&self, handle: &SyncHandle) {
        let sync = handle.sync.borrow();
        let ended = sync
            .known_nested_mounts()
            .map(|mount| [mount, b"\0"].concat());
        self.keep(
            &sync,
            NESTED_MOUNTS_STATE,
            &ended.collect::<Vec<_>>().concat(),
        );
    }

    /// Writes a state file if its contents have changed; removes it if `bytes` is empty.
    fn keep(&self, sync: &Sync, kind: &str, bytes: &[u8]) {
        let Some(state) = &self.context.state else {
            return;
        };
        let known = state.read(&sync.config, kind);
        let result = match (known, bytes) {
            (Some(known), bytes) if known == bytes => Ok(()),
            (None, []) => Ok(()),
            (Some(_), []) => {
                state.remove(&sync.config, kind);
                Ok(())
            }
            (_, bytes) => state.write(&sync.config, kind, bytes),
        };
        if let Err(error) = result {
            log::say("Debug", format_args!("remembering mounts: {error}"));
        }
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
