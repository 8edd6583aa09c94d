//! The sending side of the daemon, from the queues of syncs to processes and back.
//!
//! A turn handles processes that have ended, then calls the actions of due syncs and starts the
//! processes that they request.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mio::Waker;
use nix::sys::signal::Signal;

use super::comparison_progress::ComparisonProgress;
use super::context::Context;
use super::dispatcher::{ActionCaller, Dispatcher, Requested};
use super::event_router;
use super::os::systemd::Figures;
use super::reload::{self, ReloadScope, ReloadedSyncs};
use super::watching::WatchedSide;
use crate::audit::{Audits, VerifySchedule};
use crate::component::{Action, DriftNews, SamplePlace, SyncCommand};
use crate::cron::WallTime;
use crate::id::SyncId;
use crate::log;
use crate::process::{EndedChild, Pid, Stream};
use crate::queue::{DelayId, Time};
use crate::scan::{ScanPasses, ScanTurn};
use crate::script::{HookReport, Script, ScriptRequest, SyncHandle, TunnelObject};
use crate::state::{StateDir, sample};
use crate::sync;
use crate::transfer::Transfers;
use crate::tunnel::{self, TunnelSupervisor};

/// The syncs of a configuration, and what runs for them.
pub struct SendingSide {
    script: Rc<Script>,
    syncs: Vec<Rc<SyncHandle>>,
    waker: Arc<Waker>,
    dispatcher: Dispatcher,
    transfers: Transfers,
    scan_passes: ScanPasses,
    tunnels: TunnelSupervisor,
    verify_schedule: VerifySchedule,
    progress: ComparisonProgress,
}

impl SendingSide {
    /// Returns the state in which nothing runs.
    pub fn new(context: &Context, script: Rc<Script>) -> SendingSide {
        let (children, syncs) = (&context.children, script.syncs());
        for handle in &syncs {
            handle.sync.borrow_mut().await_watches();
        }
        SendingSide {
            waker: context.waker(),
            dispatcher: Dispatcher::default(),
            transfers: Transfers::new(Rc::clone(children), context.waker(), &script, &syncs),
            scan_passes: ScanPasses::new(Rc::clone(children), context.waker()),
            tunnels: TunnelSupervisor::new(Rc::clone(children)),
            verify_schedule: VerifySchedule::new(crate::sys::utc_offset),
            progress: ComparisonProgress::default(),
            script,
            syncs,
        }
    }

    /// Returns the configuration.
    pub fn script(&self) -> &Rc<Script> {
        &self.script
    }

    /// Returns all syncs of the configuration.
    pub fn syncs(&self) -> &[Rc<SyncHandle>] {
        &self.syncs
    }

    /// Returns the sync with this id, if it is still configured.
    fn find(&self, id: SyncId) -> Option<&Rc<SyncHandle>> {
        let mut syncs = self.syncs.iter();
        syncs.find(|handle| handle.sync.borrow().id == id)
    }

    /// Executes a command of a user for a sync.
    pub fn command(&self, id: SyncId, command: &SyncCommand, now: Time) {
        if let Some(handle) = self.find(id) {
            handle.sync.borrow_mut().execute(command, now);
        }
    }

    /// Calls the hook of a sync for the differences that a comparison has found.
    pub fn tell_drift(&mut self, id: SyncId, news: DriftNews) {
        if let Some(handle) = self.find(id).map(Rc::clone) {
            self.transfers
                .call_hook(&handle, HookReport::of_drift(news));
        }
    }

    /// Returns the running processes and threads of syncs.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Returns true if nothing runs for a sync.
    pub fn is_idle(&self) -> bool {
        self.transfers.unfinished() == 0 && !self.scan_passes.is_busy()
    }

    /// Starts nothing from now on, and ends what is not waited for.
    pub fn close(&mut self, now: Time) {
        self.script.shut_down();
        self.scan_passes.close(&self.transfers, now);
    }

    /// Replaces the configuration. The old one lives as long as its children.
    pub fn replace_script(
        &mut self,
        script: Rc<Script>,
        scope: ReloadScope,
        now: Time,
    ) -> ReloadedSyncs {
        self.close(now);
        let last = std::mem::replace(&mut self.script, script);
        reload::retire(&last, &self.script);
        let old = std::mem::replace(&mut self.syncs, self.script.syncs());
        self.transfers.on_reload(&self.script, &self.syncs);
        let jobs = self.transfers.jobs_mut();
        reload::hand_over(scope, &old, &self.syncs, jobs)
    }

    /// Takes in that a configuration begins.
    pub fn on_configured(&mut self) {
        self.tunnels.on_start(&self.script.tunnels());
        sync::choose_leaders(self.syncs.iter().map(|handle| &handle.sync));
        self.scan_passes.assign_staging(&self.syncs);
        let compared = self.syncs.iter().filter_map(|handle| {
            let sync = handle.sync.borrow();
            Some((sync.id, sync.config.verify.clone()?))
        });
        self.verify_schedule.on_configured(compared);
    }

    /// Returns the time of the next step besides that of the queues.
    pub fn deadline(&self, at_work: bool, now: Instant) -> Option<Instant> {
        let others = if at_work {
            let may_spawn = self.script.context.may_spawn();
            self.scan_passes.deadline(&self.transfers, may_spawn, now)
        } else {
            self.tunnels.deadline()
        };
        let always = [self.transfers.deadline(), self.progress.deadline()];
        always.into_iter().flatten().chain(others).min()
    }

    /// Returns the next due time of syncs, if they have `started`, tunnels and alarms.
    pub fn due(&self, started: bool, now: Time) -> Option<Time> {
        let places = self.script.context.places();
        let syncs = started.then(|| Dispatcher::deadline(&self.syncs, places, now));
        let tunnels = self.script.context.tunnels.borrow();
        let tunnels = tunnels.iter();
        let tunnels = tunnels.filter_map(|tunnel| tunnel.machine.borrow().deadline());
        tunnels
            .chain(syncs.flatten())
            .chain(self.script.next_alarm())
            .min()
    }

    /// Reaps and evaluates ended children and threads, and ends the transfers whose source or target
    /// has changed.
    pub fn reap(&mut self, audits: &mut Audits, watching: &WatchedSide, now: Time) -> Vec<Action> {
        let before = |handle: &SyncHandle| {
            event_router::transfer_ended(handle, watching.watcher(), now);
        };
        let mut actions = self.transfers.on_copied(before, now);
        actions.extend(self.transfers.on_counted(now));
        let children = Rc::clone(self.transfers.children());
        let ended = children
            .borrow_mut()
            .reap(&mut |pid, stream, line| self.on_output(audits, pid, stream, line));
        for EndedChild { pid, end } in ended {
            if audits.owns(pid) {
                audits.on_ended(pid, end);
                continue;
            }
            let Some(mut job) = self.transfers.remove(pid) else {
                self.scan_passes.on_other_ended(pid, end);
                self.transfers.on_other_ended(pid, end);
                let tunnels = self.script.tunnels();
                self.tunnels.on_ended(&tunnels, pid, end, now);
                continue;
            };
            before(job.handle());
            match job.scan.take() {
                Some(scan) => self.scan_passes.on_scanned(scan, end),
                None => actions.extend(self.transfers.on_ended(pid, job, end, now)),
            }
        }
        self.dispatcher.on_turn(&self.syncs);
        actions.extend(self.transfers.end_outdated());
        actions
    }

    /// Logs a line of output of a child.
    pub fn on_output(&self, audits: &Audits, pid: Pid, stream: Stream, line: &[u8]) {
        if audits.owns(pid) {
            return audits.on_output(pid, stream, line);
        }
        let tunnels = self.script.context.tunnels.borrow();
        let tunnel = || Some(tunnel::of(&tunnels, pid)?.name());
        self.transfers.on_output(pid, stream, line, tunnel);
    }

    /// Advances the scan passes, and sends what has been checked unless the daemon `is_stopping`.
    pub fn run_scans(
        &mut self,
        watching: &mut WatchedSide,
        is_stopping: bool,
        now: Time,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_ready = &mut |handle: &Rc<SyncHandle>| {
            let (is_ready, halted) = watching.check_ready(handle, now);
            actions.extend(halted);
            is_ready
        };
        let mut turn = ScanTurn {
            syncs: &self.syncs,
            transfers: &mut self.transfers,
            script: &self.script,
            now,
        };
        self.scan_passes.on_turn(&mut turn, is_ready);
        if !is_stopping {
            let sent = self.scan_passes.send_checked(&self.script, now, is_ready);
            actions.extend(self.exit_after(sent));
            actions.extend(self.launch(now));
        }
        actions
    }

    /// Checks running transfers for stalls, and starts what the tunnels lack unless the daemon
    /// `is_stopping`.
    pub fn on_timer(&mut self, is_stopping: bool, now: Time) -> Vec<Action> {
        let instant = Instant::now();
        let mut actions = self.transfers.on_timer(instant);
        actions.extend(self.progress.on_turn(&self.transfers, instant));
        self.transfers.tell_recovered();
        if is_stopping {
            return actions;
        }
        let watchdog = &self.script.context.watchdog;
        let is_refused = |tunnel: &TunnelObject| tunnel.is_refused(watchdog);
        let tunnels = self.script.tunnels();
        match self.tunnels.on_turn(&tunnels, is_refused, now) {
            Ok(down) => {
                for tunnel in &down {
                    log_blocked(&self.syncs, tunnel);
                }
            }
            Err(error) => actions.extend(self.exit_after(Err(error))),
        }
        actions
    }

    /// Runs alarms and functions of observed descriptors.
    pub fn run_user_code(&mut self, now: Time) -> Vec<Action> {
        let context = &self.script.context;
        let called = context.observed.call(&context.watchdog);
        let called = called.and_then(|()| self.script.run_alarms(now));
        let mut actions = self.exit_after(called);
        actions.extend(self.launch(now));
        actions
    }

    /// Queues the comparisons whose crontab time has come, and adjusts running transfers to the
    /// time of day. Returns the next time at which there is something to do.
    pub fn on_wall_time(&mut self, wall: WallTime, now: Time) -> (Option<WallTime>, Vec<Action>) {
        let next = |handle: &Rc<SyncHandle>| {
            let mut sync = handle.sync.borrow_mut();
            sync.on_cron(wall, now);
            sync.next_cron()
        };
        let crontabs = self.syncs.iter().filter_map(next).min();
        let mut actions = self.transfers.on_wall_time(wall);
        let audits = self.verify_schedule.on_turn(wall);
        actions.extend(audits.into_iter().map(Action::Audit));
        let times = [
            crontabs,
            self.transfers.wall_deadline(wall),
            self.verify_schedule.next(),
        ];
        (times.into_iter().flatten().min(), actions)
    }

    /// Calls the actions of due syncs and starts what they request.
    pub fn run_due(&mut self, watching: &mut WatchedSide, now: Time) -> Vec<Action> {
        let mut caller = Caller {
            script: &self.script,
            watching,
            transfers: &mut self.transfers,
            scan_passes: &mut self.scan_passes,
            actions: Vec::new(),
            now,
        };
        let max_startups = self.script.settings.max_startups;
        self.dispatcher
            .run_due(&self.syncs, max_startups, now, &self.waker, &mut caller);
        let mut actions = caller.actions;
        actions.extend(self.transfers.end_outdated());
        actions
    }

    /// Makes all pending entries of all syncs due.
    pub fn flush(&self) {
        for handle in &self.syncs {
            handle.sync.borrow_mut().flush();
        }
    }

    /// Returns the figures for the service manager. `watched`: the number of watched directories.
    pub fn figures(&self, watched: usize) -> Figures {
        let syncs = || self.syncs.iter().map(|handle| handle.sync.borrow());
        Figures {
            watched,
            waiting: syncs().map(|sync| sync.pending()).sum(),
            running: self.transfers.running(),
            troubled: syncs().filter(|sync| sync.is_troubled()).count(),
        }
    }

    /// Stores the part of the files that the next comparison of a sync by sample reads.
    pub fn save_sample(&self, state: Option<&StateDir>, id: SyncId, place: SamplePlace) {
        if let (Some(state), Some(handle)) = (state, self.find(id)) {
            sample::save(state, &handle.sync.borrow().config, place);
        }
    }

    /// Sends a signal to all processes and their descendants, and stops all threads.
    pub fn signal_all(&mut self, signal: Signal) {
        self.transfers.signal_all(signal);
    }

    /// Kills the descendants of signalled processes.
    pub fn kill_descendants(&mut self) {
        self.transfers.kill_descendants();
    }

    /// Ends the processes of all tunnels. Returns true if they are gone, or will not end.
    pub fn close_tunnels(&mut self) -> bool {
        self.tunnels.close(&self.script.tunnels(), Instant::now())
    }

    /// Ends all processes when the daemon exits.
    pub fn abandon(&mut self) {
        self.transfers.signal_all(Signal::SIGTERM);
        self.tunnels.signal(&self.script.tunnels(), Signal::SIGTERM);
    }

    fn launch(&mut self, now: Time) -> Vec<Action> {
        launch(
            &self.script,
            &mut self.transfers,
            &mut self.scan_passes,
            now,
        )
    }

    /// Returns the end of the daemon after an error in user code.
    fn exit_after(&self, result: mlua::Result<()>) -> Vec<Action> {
        let error = result.err().into_iter();
        error
            .map(|error| Action::Exit(self.script.exit_after(&error)))
            .collect()
    }
}

/// Executes the requests of Lua code in their order.
fn launch(
    script: &Script,
    transfers: &mut Transfers,
    scan_passes: &mut ScanPasses,
    now: Time,
) -> Vec<Action> {
    let mut actions = Vec::new();
    for request in script.context.requests.take() {
        match request {
            ScriptRequest::Spawn(request) => actions.extend(transfers.start(request, now)),
            ScriptRequest::Copy(request) => transfers.start_copy(request, now),
            ScriptRequest::Scan(request) => scan_passes.on_request(request),
        }
    }
    actions
}

/// Logs which syncs wait for a tunnel.
fn log_blocked(syncs: &[Rc<SyncHandle>], tunnel: &Rc<TunnelObject>) {
    let uses = |handle: &&Rc<SyncHandle>| {
        let own = handle.tunnel.as_ref();
        own.is_some_and(|own| Rc::ptr_eq(own, tunnel))
    };
    for handle in syncs.iter().filter(uses) {
        let name = &handle.sync.borrow().config.name;
        let text = format_args!("Tunnel for Sync {name} not ready. Blocking events");
        log::say("Tunnel", text);
    }
}

/// Calls the actions of the configuration, and collects what is to be done.
struct Caller<'a> {
    script: &'a Script,
    watching: &'a mut WatchedSide,
    transfers: &'a mut Transfers,
    scan_passes: &'a mut ScanPasses,
    actions: Vec<Action>,
    now: Time,
}

impl ActionCaller for Caller<'_> {
    fn places(&self) -> usize {
        self.script.context.places()
    }

    fn check_ready(&mut self, handle: &SyncHandle) -> bool {
        let (is_ready, halted) = self.watching.check_ready(handle, self.now);
        self.actions.extend(halted);
        is_ready
    }

    fn defer_open_files(&mut self, handle: &SyncHandle) -> bool {
        self.watching.defer_open_files(handle)
    }

    fn call_action(&mut self, handle: &Rc<SyncHandle>, id: DelayId) -> Requested {
        if handle.sync.borrow().is_whole(id) {
            let mut sync = handle.sync.borrow_mut();
            let size = self.watching.tree_size(&sync.config.source);
            sync.set_tree_size(size);
            sync.begin_full_comparison();
        }
        let last = handle.sync.borrow().queue.last_serial();
        if let Err(error) = self.script.act(handle, id) {
            let exit = self.script.exit_after(&error);
            self.actions.push(Action::Exit(exit));
            return Requested::Ending;
        }
        let is_for_nothing = self.script.context.requests.are_for_none_up_to(last);
        let started = launch(self.script, self.transfers, self.scan_passes, self.now);
        let ends = started
            .iter()
            .any(|action| matches!(action, Action::Exit(_)));
        self.actions.extend(started);
        match (ends, is_for_nothing) {
            (true, _) => Requested::Ending,
            (false, true) => Requested::ForNothing,
            (false, false) => Requested::ForEntries,
        }
    }
}
