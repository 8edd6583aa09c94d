//! The event loop.
//!
//! One turn waits for events, processes watch events and child output, reaps ended children, runs
//! alarms, runs each sync that is due, starts requested processes, and writes the reports. Nothing
//! in a turn blocks.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal as UnixSignal;

use super::context::Context;
use super::each_sync;
use super::event_router::{self, EventRouter};
use super::os::systemd::{Figures, ServicePhase};
use super::reload::{self, ReloadScope, ReloadedSyncs};
use super::report::{self, DaemonState, ReportFiles};
use super::rsync_probe::RsyncProbe;
use super::shutdown::{Ending, Remaining, Shutdown};
use super::source_monitor::{SourceMonitor, Sources};
use super::startup_progress::StartupProgress;
use super::watch_limit::{self, DirectoryCount, WatchLimit};
use super::{NoWatcher, new_watcher};
use crate::audit::{AuditStep, Audits, VerifySchedule};
use crate::component::Action;
use crate::config::Settings;
use crate::cron;
use crate::exit::Exit;
use crate::id::SyncId;
use crate::log;
use crate::scan::{ScanPasses, ScanTurn};
use crate::script::{Environment, Script, SyncHandle};
use crate::state;
use crate::state::warm_start::{WarmStarts, WarmView};
use crate::sync::{Next, Scheduler};
use crate::transfer::Transfers;
use crate::transfer::local_jobs::LocalJobs;
use crate::trends::Trends;
use crate::tunnel::TunnelSupervisor;
use crate::watch::Watcher;

/// The delay before an action is called again that neither spawned for an event nor discarded one.
const IDLE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The maximum number of calls of a sync's action, and of starts, in one turn. An action that
/// creates new events on each call must not block the loop.
const MAX_EVENTS_PER_TURN: usize = 1000;

/// The event loop of one configuration.
pub struct EventLoop<'a> {
    pub(super) context: &'a mut Context,
    pub(super) environment: &'a Environment,
    pub(super) script: Rc<Script>,
    pub(super) watcher: Watcher,
    pub(super) syncs: Vec<Rc<SyncHandle>>,
    pub(super) transfers: Transfers,
    pub(super) local_jobs: LocalJobs,
    /// Comparisons of sources and targets.
    pub(super) audits: Audits,
    verify_schedule: VerifySchedule,
    pub(super) trends: Trends,
    pub(super) scan_passes: ScanPasses,
    scheduler: Scheduler,
    pub(super) report_files: ReportFiles,
    pub(super) progress: StartupProgress,
    /// Flags by sync index: the sync is compared as a whole once no directory is being read.
    pub(super) compare: Vec<bool>,
    pub(super) watch_limit: WatchLimit,
    directory_count: DirectoryCount,
    pub(super) warm_starts: WarmStarts,
    pub(super) source_monitor: SourceMonitor,
    pub(super) tunnels: TunnelSupervisor,
    pub(super) rsync_probe: RsyncProbe,
    pub(super) started: bool,
    /// Some syncs have not started up yet.
    pub(super) starting_up: bool,
    pub(super) shutdown: Option<Shutdown>,
    /// Set when the loop has to end after this turn.
    pub(super) ending: Option<Exit>,
    pub(super) now: u64,
}

impl<'a> EventLoop<'a> {
    /// Returns the event loop for a loaded configuration.
    pub fn new(
        context: &'a mut Context,
        environment: &'a Environment,
        script: Rc<Script>,
        watcher: Watcher,
    ) -> EventLoop<'a> {
        let settings: &Settings = &script.settings;
        let syncs = script.syncs();
        for handle in &syncs {
            handle.sync.borrow_mut().await_watches();
        }
        EventLoop {
            compare: vec![false; syncs.len()],
            transfers: Transfers::new(
                Rc::clone(&context.children),
                context.waker(),
                Rc::clone(&script),
                syncs.clone(),
            ),
            syncs,
            local_jobs: LocalJobs::default(),
            audits: Audits::default(),
            verify_schedule: VerifySchedule::new(crate::sys::utc_offset),
            trends: Trends::new(Instant::now()),
            scheduler: Scheduler::default(),
            report_files: ReportFiles::new(settings),
            progress: StartupProgress::new(Instant::now(), settings.nodaemon),
            watch_limit: WatchLimit::new(settings.rescan_interval),
            directory_count: DirectoryCount::default(),
            warm_starts: WarmStarts::default(),
            source_monitor: SourceMonitor::new(Instant::now()),
            tunnels: TunnelSupervisor::new(Rc::clone(&context.children)),
            scan_passes: ScanPasses::new(Rc::clone(&context.children), context.waker()),
            rsync_probe: RsyncProbe::default(),
            started: false,
            starting_up: true,
            shutdown: None,
            ending: None,
            now: context.clock.now(),
            context,
            environment,
            script,
            watcher,
        }
    }

    /// Runs until a signal or a fatal error. Returns how the process exits.
    pub fn run(mut self) -> Exit {
        self.start_watching(false);
        loop {
            self.now = self.context.clock.now();
            self.process_watch_events();
            self.reap();
            self.rsync_probe.on_turn(&self.syncs);
            self.poll_scans();
            event_router::forget_transfers(&self.syncs, &self.watcher, self.now);
            if self.started {
                let lacks = |sync| self.watch_limit.lacks(sync);
                let (state, waker) = (self.context.state.as_ref(), self.context.waker());
                each_sync::verify_recent(
                    &self.syncs,
                    &self.watcher,
                    lacks,
                    state,
                    &waker,
                    self.now,
                );
            }
            let mut actions = self.transfers.on_timer(Instant::now());
            actions.extend(self.local_jobs.on_timer(Instant::now()));
            self.apply(actions);
            self.transfers.tell_recovered();
            self.poll_tunnels();
            self.run_due();
            self.check_onepass();
            if let Some(exit) = self.ending {
                self.abandon();
                // The saved state has not been restored before the start and must not be
                // overwritten.
                self.report_open_files();
                let moment = self.shutdown.as_ref().map(Shutdown::moment);
                let more = !self.watcher.has_reported(moment.unwrap_or_default());
                let state = self.context.state.as_ref().filter(|_| self.started);
                each_sync::save_pending(&self.syncs, more, state);
                return exit;
            }
            self.clean_state(Instant::now());
            self.serve_clients();
            self.run_audits();
            self.sample_trends(Instant::now());
            let actions = self.write_reports(Instant::now());
            self.apply(actions);
            self.notify();
            self.wait();
        }
    }

    /// Returns the state that is reported.
    pub(super) fn state(&self) -> DaemonState<'_> {
        DaemonState {
            born: self.context.started,
            now: self.context.clock.now(),
            started: self.started,
            ending: self.shutdown.is_some(),
            watcher: &self.watcher,
            watch_limit: &self.watch_limit,
            transfers: &self.transfers,
            local_jobs: &self.local_jobs,
            audits: &self.audits,
            trends: &self.trends,
            syncs: &self.syncs,
            script: &self.script,
            server: &self.context.server,
            state_dir: self.context.state.as_ref(),
        }
    }

    /// Samples the state of all syncs for their series.
    fn sample_trends(&mut self, now: Instant) {
        let mut trends = std::mem::replace(&mut self.trends, Trends::new(now));
        trends.on_turn(now, || report::trend_samples(&self.state()));
        self.trends = trends;
    }

    /// Writes the report files that are due.
    fn write_reports(&mut self, now: Instant) -> Vec<Action> {
        let mut files = std::mem::take(&mut self.report_files);
        let actions = files.on_turn(&self.state(), now);
        self.report_files = files;
        actions
    }

    /// Reports the service phase to the service manager.
    fn notify(&mut self) {
        // Syncs added by a reload start up when they are watched.
        let phase = match (self.shutdown.is_some(), self.started && !self.starting_up) {
            (true, _) => ServicePhase::ShuttingDown,
            (false, true) => ServicePhase::Ready,
            (false, false) => ServicePhase::Starting,
        };
        let figures = || Figures {
            watched: self.watcher.watched(),
            waiting: self.syncs.iter().map(|m| m.sync.borrow().pending()).sum(),
            running: self.transfers.running(),
            troubled: self
                .syncs
                .iter()
                .filter(|m| m.sync.borrow().is_troubled())
                .count(),
        };
        self.context.notify.turn(Instant::now(), phase, figures);
    }

    /// Processes the events of the watcher.
    fn process_watch_events(&mut self) {
        event_router::note_transfers(&self.syncs);
        let mut watching = EventRouter::new(&self.syncs, self.now);
        self.watcher.turn(Instant::now(), &mut watching);
        let lost = watching.overflowed;
        let unwatched = watching.unwatched;
        let back = watching.back;
        if lost {
            self.overflow();
        }
        self.check_sources(|monitor, sources| monitor.on_turn(&back, sources, Instant::now()));
        self.check_watch_limit(&unwatched);
        let (syncs, started) = (&self.syncs, self.started);
        let starting = || {
            let is_done = |handle: &&Rc<SyncHandle>| started && handle.sync.borrow().has_started();
            syncs.len() - syncs.iter().filter(is_done).count()
        };
        self.progress.turn(&self.watcher, starting, Instant::now());
        if !self.watcher.crawling() {
            if !self.started {
                self.started = true;
                self.progress.finished(&self.watcher);
            }
            if std::mem::take(&mut self.starting_up) {
                let is_first = !std::mem::replace(&mut self.context.restored, true);
                self.with_warm_starts(|warm, view| each_sync::begin_startups(warm, view, is_first));
            }
        }
        if !self.is_shutting_down() {
            self.with_warm_starts(|warm, view| warm.on_turn(view));
        }
        self.compare();
    }

    /// Reads the configuration again and replaces syncs. Returns false if the new configuration is
    /// invalid; this is logged and the old one stays in force.
    ///
    /// A reload of changed syncs becomes one of all if the configurations are too different. All
    /// syncs start anew only when nothing is running any more.
    pub(super) fn reload(&mut self, scope: ReloadScope) -> Result<(), String> {
        let new = match reload::read(self.environment, self.context, &self.script, scope) {
            Ok(new) => Rc::new(new),
            Err(_) if scope == ReloadScope::All => {
                self.script.resume();
                Rc::clone(&self.script)
            }
            Err(problem) => return Err(problem),
        };
        if scope == ReloadScope::Changed && reload::replaces_all(&self.script, &new) {
            self.begin_shutdown(Ending::Reset);
            return Ok(());
        }
        if !Rc::ptr_eq(&self.script, &new) {
            self.script.shut_down();
            let observed = &self.script.context.observed;
            observed.leave(&new.context.observed).close();
        }
        self.scan_passes.close(&self.transfers, self.now);
        // The old script lives as long as its children.
        let last = std::mem::replace(&mut self.script, new);
        let old = std::mem::replace(&mut self.syncs, self.script.syncs());
        self.transfers.on_reload(&self.script, &self.syncs);
        let jobs = self.transfers.jobs_mut().chain(self.local_jobs.jobs_mut());
        let syncs = reload::hand_over(scope, &old, &self.syncs, jobs);
        self.local_jobs.retire(&self.syncs);
        self.warm_starts.on_reload();
        self.script.insist();
        if scope == ReloadScope::Changed {
            let ReloadedSyncs {
                untouched,
                changed,
                new,
                removed,
            } = syncs;
            log::normal(format_args!(
                "Read the configuration again, syncs: {untouched} untouched, {changed} changed, \
                 {new} new, {removed} removed"
            ));
            self.start_watching(self.watch_limit.is_reached());
            return Ok(());
        }
        if !reload::same_watching(&last, &self.script) {
            match new_watcher(self.context, &self.script, true) {
                Ok(watcher) => self.watcher = watcher,
                Err(NoWatcher::Stopped(exit)) => self.ending = Some(exit),
                Err(NoWatcher::Failed(error)) => {
                    error.lines.iter().for_each(log::error);
                    self.ending = Some(error.exit);
                }
            }
        }
        log::normal("--- Startup ---");
        self.shutdown = None;
        self.started = false;
        self.progress = StartupProgress::new(Instant::now(), self.script.settings.nodaemon);
        // Whoever sends SIGHUP may know of a mount, which inotify does not report.
        self.start_watching(self.context.restored);
        Ok(())
    }

    /// Sets the watches of a configuration, and reads all directories again with `rebuild`. Syncs
    /// that wait for their watches start up then.
    fn start_watching(&mut self, rebuild: bool) {
        let settings = &self.script.settings;
        self.report_files = ReportFiles::new(settings);
        self.context.history.set_limit(settings.transfer_log_size);
        self.context.reports.set_limit(settings.reports);
        self.watch_limit = WatchLimit::new(settings.rescan_interval);
        self.compare = vec![self.compare.contains(&true); self.syncs.len()];
        self.check_sources(|monitor, sources| monitor.on_start(sources, Instant::now()));
        self.tunnels.on_start(&self.script.tunnels());
        crate::sync::choose_leaders(self.syncs.iter().map(|handle| &handle.sync));
        self.scan_passes.assign_staging(&self.syncs);
        let scopes = self.syncs.iter().map(|m| m.sync.borrow().scope());
        self.watcher.set_scopes(scopes.collect());
        self.starting_up = true;
        if rebuild {
            self.watcher.rebuild();
        }
        self.watcher.check_roots();
    }

    /// Reloads the configuration for a request of a user, now if syncs go on, otherwise when
    /// nothing is running any more.
    ///
    /// # Errors
    ///
    /// The new configuration is invalid; the error has file, line and key.
    pub(super) fn on_reload_request(&mut self, scope: ReloadScope) -> Result<(), String> {
        if scope == ReloadScope::All {
            self.begin_shutdown(Ending::Reset);
            return Ok(());
        }
        match self.shutdown {
            Some(_) => Ok(()),
            None => self.reload(scope),
        }
    }

    /// Calls warm starts with the state of the daemon that they need.
    fn with_warm_starts<T>(
        &mut self,
        call: impl FnOnce(&mut WarmStarts, &mut WarmView<'_>) -> T,
    ) -> T {
        let lacks = |sync| self.watch_limit.lacks(sync);
        let mut view = WarmView {
            syncs: &self.syncs,
            watcher: &mut self.watcher,
            state: self.context.state.as_ref(),
            waker: self.context.waker(),
            lacks: &lacks,
            now: self.now,
        };
        call(&mut self.warm_starts, &mut view)
    }

    /// Lets the source monitor check sources.
    pub(super) fn check_sources(
        &mut self,
        check: impl FnOnce(&mut SourceMonitor, &mut Sources<'_>) -> Vec<Action>,
    ) {
        let mut sources = Sources {
            syncs: &self.syncs,
            roots: &mut self.watcher,
            state: self.context.state.as_ref(),
            started: self.started.then_some(self.now),
        };
        let actions = check(&mut self.source_monitor, &mut sources);
        self.apply(actions);
    }

    /// Returns true if the sync may start a transfer. Otherwise it is halted.
    pub(super) fn check_ready(&mut self, handle: &Rc<SyncHandle>) -> bool {
        let (mut is_ready, now) = (false, self.now);
        self.check_sources(|monitor, sources| {
            let (ready, actions) = monitor.check_ready(handle, sources, (Instant::now(), now));
            is_ready = ready;
            actions
        });
        is_ready
    }

    /// Returns the time of the next cleanup of the state directory, if it is used.
    pub(super) fn state_deadline(&self) -> Option<Instant> {
        let is_at_work = self.started && !self.starting_up && self.context.state.is_some();
        is_at_work.then(|| self.context.state_cleanup.deadline())
    }

    /// Removes the state directories of syncs that are no longer configured.
    fn clean_state(&mut self, now: Instant) {
        if self.state_deadline().is_none() {
            return;
        }
        let syncs = self.syncs.iter().map(|handle| handle.sync.borrow());
        let used = || syncs.map(|sync| state::key(&sync.config)).collect();
        let context = &mut *self.context;
        let cleanup = &mut context.state_cleanup;
        let actions = cleanup.on_timer(now, context.state.as_ref(), used);
        self.apply(actions);
    }

    /// Updates the watch limit. `refused` are the syncs with a directory whose watch has just been
    /// refused.
    fn check_watch_limit(&mut self, refused: &BTreeSet<SyncId>) {
        let now = Instant::now();
        let mut actions = self.watch_limit.on_refused(refused, now);
        if let Some(directories) = self.directory_count.result() {
            let limit = watch_limit::kernel_limit();
            let watched = self.watcher.watched();
            actions.push(self.watch_limit.on_count(directories, watched, limit));
        }
        let crawling = !self.started || self.watcher.crawling();
        actions.extend(self.watch_limit.on_turn(crawling, now));
        self.apply(actions);
    }

    pub(super) fn find(&self, id: SyncId) -> Option<&Rc<SyncHandle>> {
        let mut syncs = self.syncs.iter();
        syncs.find(|handle| handle.sync.borrow().id == id)
    }

    pub(super) fn report_open_files(&mut self) {
        let mut watching = EventRouter::new(&self.syncs, self.now);
        self.watcher.report_all_open(&mut watching);
    }

    pub(super) fn count_directories(&mut self) {
        let scopes = self.syncs.iter().map(|m| m.sync.borrow().scope());
        self.directory_count
            .start(scopes.collect(), self.context.waker());
    }

    /// Handles a queue overflow: restores missing watches and compares all syncs.
    fn overflow(&mut self) {
        log::normal("--- OVERFLOW in event queue ---");
        self.script.insist();
        self.watcher.rebuild();
        self.compare.fill(true);
        for handle in &self.syncs {
            let mut sync = handle.sync.borrow_mut();
            sync.verify_mut().suspect();
            sync.lose_index();
            sync.counters.overflows += 1;
        }
    }

    /// Compares syncs that may have changed before they were watched, once all are watched.
    fn compare(&mut self) {
        if !self.started || self.watcher.crawling() || !self.compare.contains(&true) {
            return;
        }
        for (handle, due) in self.syncs.iter().zip(&mut self.compare) {
            if std::mem::take(due) {
                handle.sync.borrow_mut().resync_once(self.now);
            }
        }
    }

    /// Runs alarms and due syncs, unless the loop is shutting down.
    fn run_due(&mut self) {
        if self.shutdown.is_some() {
            let running = self.transfers.unfinished() + self.local_jobs.running();
            let is_indexing = running == 0
                && self.started
                && self.with_warm_starts(|warm, view| warm.on_stop(view));
            let Some(shutdown) = &mut self.shutdown else {
                return;
            };
            let left = Remaining {
                running,
                last_end: self.transfers.last_end(),
                is_saved: self.context.state.is_some() && self.started,
                is_indexing,
                is_reported: self.watcher.has_reported(shutdown.moment()),
            };
            let actions = shutdown.on_turn(left, Instant::now(), SystemTime::now());
            return self.apply(actions);
        }
        let observed = self.script.context.observed.call(&self.script.context);
        if let Err(error) = observed.and_then(|()| self.script.run_alarms(self.now)) {
            self.stop_with_error(&error);
        }
        self.launch();
        if !self.started {
            return;
        }
        let max_startups = self.script.settings.max_startups;
        let wall = cron::wall_time();
        let next_cron = each_sync::run_crontabs(&self.syncs, wall, self.now);
        let due = each_sync::run_verify_schedule(&self.syncs, &mut self.verify_schedule, wall);
        due.into_iter().for_each(|due| self.audits.on_request(due));
        let actions = self.transfers.on_wall_time(wall);
        self.apply(actions);
        let next_limit = self.transfers.wall_deadline(wall);
        let next = [next_cron, self.verify_schedule.next(), next_limit];
        let next = next.into_iter().flatten().min();
        self.context.cron_timer.arm(next);
        each_sync::limit_startups(&self.syncs, max_startups);
        let (mut place, mut starts) = (0, 0);
        while let Some(index) = self.scheduler.at(place, self.syncs.len()) {
            let handle = Rc::clone(&self.syncs[index]);
            if self.run_sync(&handle) {
                starts += 1;
                self.scheduler.served(place);
            } else {
                place += 1
            }
            if starts == MAX_EVENTS_PER_TURN {
                return;
            }
            if handle.sync.borrow().compares_all() {
                each_sync::limit_startups(&self.syncs, max_startups);
            }
            if self.ending.is_some() {
                return;
            }
        }
    }

    /// Advances the scan passes, and sends what has been checked while processes are available.
    fn poll_scans(&mut self) {
        let (passes, mut turn) = self.scans();
        passes.on_turn(&mut turn);
        for (token, syncs) in self.scan_passes.startable(&self.transfers) {
            // The staged tree must not lose files while they are being sent to other targets.
            let ready = syncs.iter().filter(|handle| self.check_ready(handle));
            let is_ready = ready.count() == syncs.len();
            let (passes, mut turn) = self.scans();
            if is_ready {
                passes.begin(token, &mut turn);
            } else {
                passes.cancel(token, turn.now);
            }
        }
        while self.script.context.may_spawn()
            && !self.is_shutting_down()
            && let Some(transfer) = self.scan_passes.next_checked()
        {
            // The source or the tunnel may be unavailable by now.
            let handle = Rc::clone(&transfer.handle);
            let is_paused = handle.sync.borrow().is_paused();
            if is_paused || !handle.is_connected() || !self.check_ready(&handle) {
                transfer.requeue(self.now);
                continue;
            }
            match transfer.send(&self.script) {
                Ok(()) => self.launch(),
                Err(error) => self.stop_with_error(&error),
            }
        }
    }

    fn scans(&mut self) -> (&mut ScanPasses, ScanTurn<'_>) {
        let turn = ScanTurn {
            syncs: &self.syncs,
            transfers: &mut self.transfers,
            script: &self.script,
            now: self.now,
        };
        (&mut self.scan_passes, turn)
    }

    /// Starts what the tunnels lack and logs whom they block.
    fn poll_tunnels(&mut self) {
        if self.is_shutting_down() {
            return;
        }
        for tunnel in self.script.tunnels() {
            tunnel.machine.borrow_mut().turn(self.now);
            let is_up = tunnel.machine.borrow().is_up();
            if is_up {
                match tunnel.is_refused(&self.script.context) {
                    Ok(false) => {}
                    Ok(true) => self.tunnels.on_refused(&*tunnel),
                    Err(error) => return self.stop_with_error(&error),
                }
            }
            if !self.tunnels.on_turn(&*tunnel, self.now) {
                continue;
            }
            each_sync::log_blocked(&self.syncs, &tunnel);
        }
    }

    /// Calls a sync's action until it starts a process, nothing is due, or a limit is reached.
    /// Returns true if the sync was idle and has started a process.
    fn run_sync(&mut self, handle: &Rc<SyncHandle>) -> bool {
        for _ in 0..MAX_EVENTS_PER_TURN {
            if !self.script.context.may_spawn() || !handle.is_connected() {
                return false;
            }
            let next = handle.sync.borrow_mut().next(self.now);
            let Next::Act(id) = next else {
                return false;
            };
            if !self.rsync_probe.is_done(handle, || self.context.waker())
                || !self.check_ready(handle)
            {
                return false;
            }
            if event_router::defer_open_files(handle, &mut self.watcher) {
                continue;
            }
            let state = |handle: &SyncHandle| {
                let sync = handle.sync.borrow();
                (sync.running(), sync.queue.len())
            };
            let before = state(handle);
            let whole = handle.sync.borrow().is_whole(id);
            if whole {
                let mut sync = handle.sync.borrow_mut();
                let size = self.watcher.tree_size(&sync.config.source);
                sync.set_tree_size(size);
                sync.begin_full_comparison();
            }
            if let Err(error) = self.script.act(handle, id) {
                self.stop_with_error(&error);
                return false;
            }
            let empty = self.script.context.requests.are_for_nothing();
            self.launch();
            if self.ending.is_some() {
                return false;
            }
            let after = state(handle);
            if after.0 > before.0 {
                // A process for an empty list leaves all entries unchanged.
                if empty && after.1 == before.1 {
                    let until = self.now + crate::sync::micros(IDLE_RETRY_DELAY);
                    handle.sync.borrow_mut().defer(until);
                }
                return true;
            }
            let idle = after == before;
            let mut sync = handle.sync.borrow_mut();
            if idle && sync.next(self.now) == Next::Act(id) {
                let until = self.now + crate::sync::micros(IDLE_RETRY_DELAY);
                sync.defer(until);
                return false;
            }
        }
        false
    }

    /// With `onepass`: ends the loop when every sync has completed its startup.
    fn check_onepass(&mut self) {
        if self.script.settings.onepass
            && self.started
            && self.shutdown.is_none()
            && self.ending.is_none()
            && self.transfers.unfinished() == 0
            && self.local_jobs.running() == 0
            && !self.scan_passes.is_busy()
            && self.syncs.iter().all(|m| {
                let sync = m.sync.borrow();
                sync.has_started() || (sync.startup_obstacle().is_some() && !m.waits_for_source())
            })
            && !self.syncs.iter().any(|m| m.sync.borrow().is_verifying())
        {
            log::normal("onepass config set, exiting");
            if self.tell_obstacles() {
                self.begin_shutdown(Ending::Exit(Exit::Failure));
                return;
            }
            if self.syncs.iter().any(|m| m.sync.borrow().has_ended()) {
                self.ending = Some(Exit::Failure);
                return;
            }
            log::say(
                "Info",
                "onepass active and all syncs finished. Exiting successfully",
            );
            self.begin_shutdown(Ending::Exit(Exit::Done));
        }
    }

    /// Logs why the startup of syncs waits. Returns true if there is such a sync.
    fn tell_obstacles(&self) -> bool {
        let mut any = false;
        for handle in &self.syncs {
            let sync = handle.sync.borrow();
            if let Some(why) = sync.startup_obstacle() {
                let name = &sync.config.name;
                log::error(format_args!(
                    "{name}: not started: {why}; onepass does not wait for a change"
                ));
                any = true;
            }
        }
        any
    }

    /// Takes the steps of comparisons of sources and targets.
    fn run_audits(&mut self) {
        let now = Instant::now();
        let children = Rc::clone(&self.context.children);
        let spawn = &mut |command| children.borrow_mut().spawn(command);
        loop {
            let mut audits = std::mem::take(&mut self.audits);
            let step = audits.on_step(&self.state(), spawn, now);
            self.audits = audits;
            match step {
                AuditStep::Waiting => return,
                AuditStep::Actions(actions) => self.apply(actions),
                AuditStep::Done(None, _) => {}
                AuditStep::Done(Some(client), reports) => {
                    let mut server = self.context.server.borrow_mut();
                    server.on_audited(client, reports, now);
                }
            }
        }
    }

    /// Begins the shutdown: no process is started from now on.
    pub(super) fn begin_shutdown(&mut self, ending: Ending) {
        self.script.shut_down();
        self.scan_passes.close(&self.transfers, self.now);
        self.report_open_files();
        let (clients, actions) = self.audits.on_shutdown();
        self.apply(actions);
        let now = Instant::now();
        for client in clients {
            self.context.server.borrow_mut().on_audit_ended(client, now);
        }
        let timeout = self.script.settings.stop_timeout;
        let moment = self.watcher.event_mark();
        self.shutdown
            .get_or_insert_with(|| Shutdown::new(ending, moment, now))
            .on_request(ending, timeout, now);
    }

    /// Ends what still runs at the end.
    fn abandon(&mut self) {
        self.signal_transfers(UnixSignal::SIGTERM);
        let tunnels = self.script.tunnels();
        self.tunnels.signal(&tunnels, UnixSignal::SIGTERM);
    }

    /// Sends a signal to all transfers and their descendants.
    pub(super) fn signal_transfers(&mut self, signal: UnixSignal) {
        self.local_jobs.stop();
        self.transfers.signal_all(signal);
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// Ends the loop after an error in user code.
    pub(super) fn stop_with_error(&mut self, error: &mlua::Error) {
        self.ending = Some(self.script.exit_after(error));
    }
}
