//! Sources that are not what they were: gone, replaced, not mounted; and local targets that are
//! not mounted. Their syncs wait, and this file looks when they may go on.
//!
//! Three things make it look: the watch room says that a root is lost or back; the table of
//! mounts changes, which the kernel tells, while it does not tell what is mounted over a
//! directory; and just before something is sent. While a sync waits it looks every second or so.

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

/// How often a source that is not there is looked for.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the paths of all sources are looked at. Nothing is told of a directory above a source
/// that is renamed.
const PATHS_INTERVAL: Duration = Duration::from_secs(10);
/// The time between two looks at the table of mounts. A host that starts containers changes
/// it many times a second, and a look asks after every source.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// What is remembered of a sync: the mount its source lies on.
const MOUNT_STATE: &str = "mount";
/// The directory that is its source.
const SOURCE_STATE: &str = "source";
/// The one its target lies on, if that is a local one.
const TARGET_MOUNT_STATE: &str = "target-mount";
/// And what was mounted inside the source, each with a zero byte behind it.
const NESTED_MOUNTS_STATE: &str = "inside";

/// Wakes the loop when something is mounted or unmounted.
pub struct MountWatch {
    _file: Option<File>,
}

impl MountWatch {
    /// The kernel makes the table an urgent matter when it has changed, see
    /// proc_pid_mountinfo(5). Without proc(5) nothing is told.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn new(registry: &Registry, token: Token) -> io::Result<MountWatch> {
        let Ok(file) = File::open(mount_table::TABLE) else {
            return Ok(MountWatch { _file: None });
        };
        registry.register(&mut SourceFd(&file.as_raw_fd()), token, Interest::PRIORITY)?;
        Ok(MountWatch { _file: Some(file) })
    }
}

/// When to look again, and what was mounted at the last look.
pub struct SourceMonitor {
    due: Option<Instant>,
    /// When the paths of all sources are looked at next.
    paths_due: Instant,
    /// No look at the table of mounts before this time.
    rests: Option<Instant>,
    /// The table has changed meanwhile.
    changed: bool,
    nested_mounts: BTreeSet<(Vec<u8>, Vec<u8>)>,
    waits_for_crawl: bool,
}

impl SourceMonitor {
    /// Nothing is amiss yet.
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

    /// When to look again.
    pub fn deadline(&self) -> Option<Instant> {
        let mounts = self.rests.filter(|_| self.changed);
        let others = self.due.into_iter().chain(mounts);
        others.chain([self.paths_due]).min()
    }
}

impl EventLoop<'_> {
    /// Before anything is watched: is every source on the mount it was on last time?
    pub(super) fn check_sources_at_start(&mut self) {
        let table = mount_table::read();
        self.source_monitor.nested_mounts = self.nested_mounts_in(&table);
        for handle in self.syncs.clone() {
            if let Some(state) = &self.context.state {
                let mut sync = handle.sync.borrow_mut();
                if let Some(mount) = state.read(&sync.config, MOUNT_STATE) {
                    sync.remember_mount(&mount);
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
            let objection = {
                let mut sync = handle.sync.borrow_mut();
                // A source is taken as one with the target in sight.
                sync.inspect_target().or_else(|| sync.inspect())
            };
            match objection {
                Some(why) => self.halt(&handle, why),
                None => self.accepted(&handle),
            }
        }
        self.see_mounts(&table);
    }

    /// Has each sync leave alone what is not mounted in its source any more.
    fn see_mounts(&self, table: &[u8]) {
        let mounted: BTreeSet<Vec<u8>> = lasting(table).collect();
        for handle in &self.syncs {
            let mut sync = handle.sync.borrow_mut();
            let known = sync.known_nested_mounts().count();
            let (gone, back) = sync.see_mounts(&mounted);
            let name = &sync.config.name;
            for mount in gone {
                log::warn(format_args!(
                    "{name}: what was mounted at {} is not; the target keeps what it has of it",
                    log::escape(&mount)
                ));
            }
            for mount in back {
                let mount = log::escape(&mount);
                log::normal(format_args!("{name}: {mount} is mounted again"));
            }
            // Nothing is forgotten here.
            let news = sync.known_nested_mounts().count() > known;
            drop(sync);
            if news {
                self.remember_nested_mounts(handle);
            }
        }
    }

    /// A person has said that sources are as they should be.
    pub(super) fn mounts_released(&mut self) {
        for handle in &self.syncs {
            self.remember(handle);
            self.remember_nested_mounts(handle);
        }
        self.watcher.rebuild();
    }

    /// Returns true if the sync may send something now. If not, it waits from now on.
    pub(super) fn check_ready(&mut self, handle: &Rc<SyncHandle>) -> bool {
        // What is not mounted any more must not be taken for deleted, so this look is not put off.
        if self.source_monitor.changed
            && handle.sync.borrow().known_nested_mounts().next().is_some()
        {
            self.look_at_mounts();
        }
        let objection = {
            let mut sync = handle.sync.borrow_mut();
            sync.objection().or_else(|| sync.target_objection())
        };
        let Some(why) = objection else {
            return true;
        };
        self.halt(handle, why);
        self.watcher.check_roots();
        false
    }

    /// In each turn: `back` are syncs whose roots are watched again.
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

    /// Something was mounted or unmounted somewhere.
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
        self.see_mounts(&table);
        let nested_mounts = self.nested_mounts_in(&table);
        let before = std::mem::replace(&mut self.source_monitor.nested_mounts, nested_mounts);
        let changed: Vec<_> = before
            .symmetric_difference(&self.source_monitor.nested_mounts)
            .collect();
        if changed.is_empty() {
            return;
        }
        // What is mounted over a watched directory is not told, nor that it is hidden.
        for (handle, compare) in self.syncs.iter().zip(&mut self.compare) {
            let sync = handle.sync.borrow();
            *compare |= changed
                .iter()
                .any(|(mount, _)| sync.has_nested_mounts(mount));
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

    /// Halts a sync or lets it go on; false if its path does not lead to what is watched.
    fn recheck(&mut self, handle: &Rc<SyncHandle>) -> bool {
        let mut sync = handle.sync.borrow_mut();
        if sync.is_lost() {
            return true;
        }
        let home = self.watcher.leads_to_root(&sync.config.source);
        let objection = sync.target_objection().or_else(|| {
            if home {
                sync.inspect()
            } else {
                sync.objection()
            }
        });
        match objection {
            Some(why) => {
                drop(sync);
                self.halt(handle, why);
            }
            // What the crawl comes upon is not told, so what is compared must be watched.
            None if self.watcher.crawling() => {
                self.source_monitor.waits_for_crawl = true;
            }
            None if home && sync.halted().is_some() => {
                let name = sync.config.name.clone();
                let what = if sync.take_replaced() {
                    "another directory is in the place of the source"
                } else {
                    "source and target are the same as before"
                };
                log::normal(format_args!("{name}: {what}, comparing everything"));
                sync.go_on(self.started.then_some(self.now));
                drop(sync);
                self.remember(handle);
            }
            None => {}
        }
        home
    }

    /// Source and target are where they belong.
    fn accepted(&self, handle: &SyncHandle) {
        let mut sync = handle.sync.borrow_mut();
        // Who is halted is told when it goes on.
        if sync.halted().is_none() && sync.take_replaced() {
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

    /// Keeps the source and the mounts in mind for the next start. The mount `/` says nothing.
    fn remember(&self, handle: &SyncHandle) {
        let sync = handle.sync.borrow();
        let lasting = |mount: &[u8]| match mount {
            b"/" => Vec::new(),
            mount => mount.to_vec(),
        };
        let source = sync.known_source().map(SourceIdentity::to_line);
        self.keep(&sync, SOURCE_STATE, source.unwrap_or_default().as_bytes());
        self.keep(&sync, MOUNT_STATE, &lasting(sync.mount()));
        self.keep(
            &sync,
            TARGET_MOUNT_STATE,
            &lasting(sync.target_mount().unwrap_or_default()),
        );
    }

    /// Keeps in mind what is mounted inside a source for the next start.
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

    /// Writes what is to be remembered, if it is news; nothing is remembered by no file.
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

    /// The mount points below the sources, and what is mounted there.
    fn nested_mounts_in(&self, table: &[u8]) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
        let nested_mounts = |(mount, _): &(Vec<u8>, Vec<u8>)| {
            let mut syncs = self.syncs.iter();
            syncs.any(|handle| handle.sync.borrow().has_nested_mounts(mount))
        };
        mounts(table).filter(nested_mounts).collect()
    }
}
