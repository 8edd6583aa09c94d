//! The watched side of the daemon, from the kernel to the queues of syncs: the watcher with the
//! components that depend on it.
//!
//! A turn passes events to the queues, then checks the sources, the watch limit and the crawl.
//! Syncs start up once their directories are watched. Full comparisons for lost events begin once
//! no directory is being read.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use super::event_router::{self, EventRouter};
use super::source_monitor::SourceMonitor;
use super::sources::Sources;
use super::startup_progress::StartupProgress;
use super::watch_limit::{self, DirectoryCount, WatchLimit};
use crate::component::{Action, WatchAction};
use crate::config::Settings;
use crate::id::SyncId;
use crate::log;
use crate::mount_table;
use crate::queue::Time;
use crate::script::SyncHandle;
use crate::state::warm_start::{WarmStarts, WarmView};
use crate::state::{StateDir, pending};
use crate::watch::{EventMark, TreeSize, Watcher};

/// The watcher, and the components that need it.
pub struct WatchedSide {
    watcher: Watcher,
    state: Option<StateDir>,
    waker: Arc<Waker>,
    /// All syncs of the configuration.
    syncs: Vec<Rc<SyncHandle>>,
    limit: WatchLimit,
    directory_count: DirectoryCount,
    progress: StartupProgress,
    monitor: SourceMonitor,
    warm_starts: WarmStarts,
    /// Flags by sync index: the sync is compared as a whole once no directory is being read.
    compare: Vec<bool>,
    /// All directories have been watched once since all syncs started.
    has_started: bool,
    /// Some syncs have not started up yet.
    starting_up: bool,
    /// The state of the previous daemon has been restored.
    is_restored: bool,
    /// All watches are corrected by comparison with the disk with the next configuration.
    rebuilds: bool,
}

impl WatchedSide {
    /// Returns the state before the first watch is set. `waker` wakes the event loop when a thread
    /// has ended.
    pub fn new(
        watcher: Watcher,
        settings: &Settings,
        state: Option<StateDir>,
        waker: Arc<Waker>,
    ) -> WatchedSide {
        let now = Instant::now();
        WatchedSide {
            watcher,
            state,
            waker,
            syncs: Vec::new(),
            limit: WatchLimit::new(settings.rescan_interval),
            directory_count: DirectoryCount::default(),
            progress: StartupProgress::new(now, settings.nodaemon),
            monitor: SourceMonitor::new(now),
            warm_starts: WarmStarts::default(),
            compare: Vec::new(),
            has_started: false,
            starting_up: true,
            is_restored: false,
            rebuilds: false,
        }
    }

    /// Returns the watcher.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Returns the watch limit.
    pub fn limit(&self) -> &WatchLimit {
        &self.limit
    }

    /// Returns true if all directories have been watched once since all syncs started.
    pub fn has_started(&self) -> bool {
        self.has_started
    }

    /// Returns true if all directories are watched and the startup of all syncs has begun.
    pub fn is_complete(&self) -> bool {
        self.has_started && !self.starting_up
    }

    /// Returns the time of the next step; without `at_work`, the daemon is shutting down.
    pub fn deadline(&self, at_work: bool, now: Instant) -> Option<Instant> {
        let is_crawling = self.watcher.crawling();
        let always = [
            self.watcher.next_deadline(),
            (self.starting_up && !is_crawling).then_some(now),
            self.warm_starts.deadline(&self.syncs, now),
        ];
        let others = [
            self.progress.deadline(&self.watcher),
            self.monitor.deadline(),
            self.limit.deadline(is_crawling),
        ];
        let others = others.into_iter().filter(|_| at_work);
        always.into_iter().chain(others).flatten().min()
    }

    /// Begins the startup of a configuration that keeps no sync, with a new watcher if it requests
    /// other events.
    pub fn start_anew(&mut self, watcher: Option<Watcher>, settings: &Settings) {
        if let Some(watcher) = watcher {
            self.watcher = watcher;
        }
        self.has_started = false;
        self.progress = StartupProgress::new(Instant::now(), settings.nodaemon);
        // Whoever sends SIGHUP may know of a mount, which inotify does not report.
        self.rebuilds = self.is_restored;
    }

    /// Sets the watches of a configuration. Syncs that wait for them start up then.
    pub fn on_configured(
        &mut self,
        syncs: &[Rc<SyncHandle>],
        settings: &Settings,
        now: Time,
    ) -> Vec<Action> {
        self.syncs = syncs.to_vec();
        let rebuilds = std::mem::take(&mut self.rebuilds) || self.limit.is_reached();
        self.limit = WatchLimit::new(settings.rescan_interval);
        self.compare = vec![self.compare.contains(&true); syncs.len()];
        self.warm_starts.on_reload();
        let actions = self.check(now, |monitor, sources| {
            monitor.on_start(sources, Instant::now())
        });
        let scopes = syncs.iter().map(|handle| handle.sync.borrow().scope());
        self.watcher.set_scopes(scopes.collect());
        self.starting_up = true;
        if rebuilds {
            self.watcher.rebuild();
        }
        self.watcher.check_roots();
        actions
    }

    /// Passes the events of the watcher to the queues, and takes the next steps of everything that
    /// depends on them.
    pub fn on_turn(&mut self, is_stopping: bool, now: Time) -> Vec<Action> {
        event_router::note_transfers(&self.syncs);
        let mut router = EventRouter::new(&self.syncs, now);
        self.watcher.turn(Instant::now(), &mut router);
        let (unwatched, back) = (router.unwatched, router.back);
        let mut actions = Vec::new();
        if router.overflowed {
            self.overflow();
            actions.push(Action::RetryStartups);
        }
        let instant = Instant::now();
        actions.extend(self.check(now, |monitor, sources| {
            monitor.on_turn(&back, sources, instant)
        }));
        let mut limits = self.limit.on_refused(&unwatched, instant);
        if let Some(directories) = self.directory_count.result() {
            let limit = watch_limit::kernel_limit();
            let watched = self.watcher.watched();
            limits.push(self.limit.on_count(directories, watched, limit));
        }
        let is_crawling = !self.has_started || self.watcher.crawling();
        limits.extend(self.limit.on_turn(is_crawling, instant));
        actions.extend(self.perform_all(limits, now));
        let (syncs, has_started) = (&self.syncs, self.has_started);
        let starting = || {
            let is_done =
                |handle: &&Rc<SyncHandle>| has_started && handle.sync.borrow().has_started();
            syncs.len() - syncs.iter().filter(is_done).count()
        };
        self.progress.turn(&self.watcher, starting, instant);
        if !self.watcher.crawling() {
            self.crawl_ended(now);
        }
        if !is_stopping {
            self.with_warm_starts(now, |warm, view| warm.on_turn(view));
        }
        if self.has_started && !self.watcher.crawling() {
            for (handle, due) in self.syncs.iter().zip(&mut self.compare) {
                if std::mem::take(due) {
                    handle.sync.borrow_mut().resync_once(now);
                }
            }
        }
        actions
    }

    /// Lets the syncs start up whose directories are watched by now.
    fn crawl_ended(&mut self, now: Time) {
        if !std::mem::replace(&mut self.has_started, true) {
            self.progress.finished(&self.watcher);
        }
        if std::mem::take(&mut self.starting_up) {
            let is_first = !std::mem::replace(&mut self.is_restored, true);
            self.with_warm_starts(now, |warm, view| begin_startups(warm, view, is_first));
        }
    }

    /// Called in each turn of a stop, when no transfer runs any more. Returns true while the index
    /// of a source is being updated.
    pub fn on_stop(&mut self, now: Time) -> bool {
        self.has_started && self.with_warm_starts(now, |warm, view| warm.on_stop(view))
    }

    /// Handles a change of the mount table.
    pub fn on_mounts_changed(&mut self, now: Time) -> Vec<Action> {
        self.check(now, |monitor, sources| {
            monitor.on_mounts_changed(sources, Instant::now())
        })
    }

    /// Returns true if the sync may start a transfer. Otherwise it is halted.
    pub fn check_ready(&mut self, handle: &SyncHandle, now: Time) -> (bool, Vec<Action>) {
        let mut is_ready = false;
        let actions = self.check(now, |monitor, sources| {
            let (ready, actions) = monitor.check_ready(handle, sources, (Instant::now(), now));
            is_ready = ready;
            actions
        });
        (is_ready, actions)
    }

    /// Removes files that are being written from a sync's queue. Returns true if there was any.
    pub fn defer_open_files(&mut self, handle: &SyncHandle) -> bool {
        event_router::defer_open_files(handle, &mut self.watcher)
    }

    /// Reports a directory and everything below it to one sync. Returns false if the sync does not
    /// need this, or if the directory is not watched.
    pub fn report_contents(&mut self, to: SyncId, path: &[u8], now: Time) -> bool {
        event_router::report_contents(&self.syncs, &mut self.watcher, to, path, now)
    }

    /// Returns the size of the watched tree of a source.
    pub fn tree_size(&self, source: &[u8]) -> TreeSize {
        self.watcher.tree_size(source)
    }

    /// Clears the records of transfers that have ended, and saves the time up to which everything
    /// is at each target. Continues the searches for changes that rsync's quick check cannot
    /// detect.
    pub fn confirm_synced(&self, now: Time) {
        event_router::forget_transfers(&self.syncs, &self.watcher, now);
        if !self.has_started {
            return;
        }
        for handle in &self.syncs {
            let mut sync = handle.sync.borrow_mut();
            if let Err(error) = sync.verify_recent(&self.waker, now) {
                let name = &sync.config.name;
                let text = format_args!("{name}: cannot start a thread: {error}");
                log::say("Debug", text);
            }
            let all_watched = !self.limit.lacks(sync.id);
            if sync.advance_synced(&self.watcher, all_watched)
                && let Some(state) = &self.state
            {
                pending::save_synced(state, &sync);
            }
        }
    }

    /// Saves the pending events of each sync whose saved events have been restored, when the daemon
    /// ends. Events from before `moment` that have not been reported may be pending as well.
    pub fn save_pending(&mut self, moment: EventMark, now: Time) {
        self.perform(WatchAction::ReportOpenFiles, now);
        let more = !self.watcher.has_reported(moment);
        let Some(state) = self.state.as_ref().filter(|_| self.has_started) else {
            return;
        };
        for handle in &self.syncs {
            let sync = handle.sync.borrow();
            if !sync.awaits_watches() {
                pending::save(state, &sync, more);
            }
        }
    }

    /// Carries out an action that concerns the watcher.
    pub fn perform(&mut self, action: WatchAction, now: Time) -> Vec<Action> {
        match action {
            WatchAction::AcceptMounts => {
                return self.check(now, |monitor, sources| monitor.on_released(sources));
            }
            WatchAction::CheckRoots => self.watcher.check_roots(),
            WatchAction::Rebuild => self.watcher.rebuild(),
            WatchAction::ReportOpenFiles => {
                let mut router = EventRouter::new(&self.syncs, now);
                self.watcher.report_all_open(&mut router);
            }
            WatchAction::CountDirectories => {
                let scopes = self.syncs.iter().map(|m| m.sync.borrow().scope());
                let waker = Arc::clone(&self.waker);
                self.directory_count.start(scopes.collect(), waker);
            }
            WatchAction::FullSync(id) => {
                let syncs = self.syncs.iter().zip(&mut self.compare);
                for (_, due) in syncs.filter(|(handle, _)| handle.sync.borrow().id == id) {
                    *due = true;
                }
            }
        }
        Vec::new()
    }

    /// Carries out the actions that concern the watcher. Returns the others.
    fn perform_all(&mut self, actions: Vec<Action>, now: Time) -> Vec<Action> {
        let mut others = Vec::new();
        for action in actions {
            match action {
                Action::Watch(action) => others.extend(self.perform(action, now)),
                other => others.push(other),
            }
        }
        others
    }

    /// Lets the source monitor check sources, and carries out what concerns the watcher.
    fn check(
        &mut self,
        now: Time,
        check: impl FnOnce(&mut SourceMonitor, &mut Sources<'_>) -> Vec<Action>,
    ) -> Vec<Action> {
        let mut sources = Sources {
            syncs: &self.syncs,
            roots: &mut self.watcher,
            mount_table: &mount_table::read,
            state: self.state.as_ref(),
            started: self.has_started.then_some(now),
        };
        let actions = check(&mut self.monitor, &mut sources);
        self.perform_all(actions, now)
    }

    /// Calls warm starts with the state of the daemon that they need.
    fn with_warm_starts<T>(
        &mut self,
        now: Time,
        call: impl FnOnce(&mut WarmStarts, &mut WarmView<'_>) -> T,
    ) -> T {
        let mut view = WarmView {
            syncs: &self.syncs,
            watcher: &mut self.watcher,
            state: self.state.as_ref(),
            waker: Arc::clone(&self.waker),
            lacking: self.limit.lacking(),
            now,
        };
        call(&mut self.warm_starts, &mut view)
    }

    /// Handles a queue overflow: restores missing watches and compares all syncs.
    pub(super) fn overflow(&mut self) {
        log::normal("--- OVERFLOW in event queue ---");
        self.watcher.rebuild();
        self.compare.fill(true);
        for handle in &self.syncs {
            let mut sync = handle.sync.borrow_mut();
            sync.verify_mut().suspect();
            sync.lose_index();
            sync.counters.overflows += 1;
        }
    }
}

/// Queues the startup of the syncs whose directories are watched by now. `is_first` is true if the
/// state saved by the previous daemon has not been restored yet.
fn begin_startups(warm_starts: &mut WarmStarts, view: &WarmView<'_>, is_first: bool) {
    for handle in view.syncs {
        let mut sync = handle.sync.borrow_mut();
        if warm_starts.begin(&sync, view, is_first) {
            continue;
        }
        let now = view.now;
        if sync.watched(now)
            && let Some(state) = view.state
        {
            pending::restore(state, &mut sync, is_first, false, now);
        }
    }
}
