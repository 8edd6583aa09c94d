//! The event loop.
//!
//! A turn waits for events, processes watch events and child output, reaps ended children, runs
//! alarms, runs each sync that is due, starts requested processes, and writes the reports. Nothing
//! in a turn blocks. The loop passes events to its components, executes the actions that they
//! return, and calls their `deadline()` last, right before it sleeps.
//!
//! * `tests`: takes turns one by one.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::audit::{AuditStep, Audits};
use crate::component::{Action, SyncCommand, WatchAction};
use crate::config::{Hup, Settings};
use crate::cron;
use crate::daemon::context::{Context, Wake};
use crate::daemon::os::signals::Signal;
use crate::daemon::os::systemd::ServicePhase;
use crate::daemon::reload::{self, ReloadScope};
use crate::daemon::report::{self, DaemonState, ReportFiles};
use crate::daemon::sending::SendingSide;
use crate::daemon::shutdown::{self, Ending, Remaining, Shutdown};
use crate::daemon::watching::WatchedSide;
use crate::daemon::{new_watcher, onepass};
use crate::exit::Exit;
use crate::log;
use crate::queue::Time;
use crate::script::{Environment, Script};
use crate::state;
use crate::sync::Clock;
use crate::trends::Trends;
use crate::watch::Watcher;

/// The event loop. It lives as long as the daemon; a reload replaces its configuration.
pub struct EventLoop<'a> {
    context: &'a mut Context,
    environment: &'a Environment,
    watching: WatchedSide,
    sending: SendingSide,
    audits: Audits,
    report_files: ReportFiles,
    trends: Trends,
    shutdown: Option<Shutdown>,
    /// Why the configuration could not be read again; `None` if it could.
    reload_error: Option<String>,
    /// Set when the loop has to end after this turn.
    ending: Option<Exit>,
    now: Time,
}

impl<'a> EventLoop<'a> {
    /// Returns the event loop for a loaded configuration.
    pub fn new(
        context: &'a mut Context,
        environment: &'a Environment,
        script: Rc<Script>,
        watcher: Watcher,
    ) -> EventLoop<'a> {
        let (state, waker) = (context.state.clone(), context.waker());
        EventLoop {
            watching: WatchedSide::new(watcher, &script.settings, state, waker),
            report_files: ReportFiles::new(&script.settings),
            sending: SendingSide::new(context, script),
            audits: Audits::default(),
            trends: Trends::new(Instant::now()),
            shutdown: None,
            reload_error: None,
            ending: None,
            now: context.clock.now(),
            context,
            environment,
        }
    }

    /// Runs until a signal or a fatal error. Returns how the process exits.
    pub fn run(mut self) -> Exit {
        self.start_watching();
        loop {
            if let Some(exit) = self.turn() {
                return exit;
            }
            self.wait();
        }
    }

    /// Handles what has happened since the last turn, and starts what is due. Returns how the
    /// process exits if the loop has ended.
    fn turn(&mut self) -> Option<Exit> {
        self.now = self.context.clock.now();
        let now = self.now;
        let is_stopping = self.shutdown.is_some();
        let actions = self.watching.on_turn(is_stopping, now);
        self.apply(actions);
        let actions = self.sending.reap(&mut self.audits, &self.watching, now);
        self.apply(actions);
        let actions = self.sending.run_scans(&mut self.watching, is_stopping, now);
        self.apply(actions);
        self.watching.confirm_synced(now);
        let actions = self.sending.on_timer(is_stopping, now);
        self.apply(actions);
        if is_stopping {
            self.continue_shutdown();
        } else {
            self.run_due();
        }
        self.check_onepass();
        if self.ending.is_some() {
            self.sending.abandon();
            let moment = self.shutdown.as_ref().map(Shutdown::moment);
            self.watching.save_pending(moment.unwrap_or_default(), now);
            return self.ending.take();
        }
        self.clean_state(Instant::now());
        self.serve_clients();
        self.run_audits();
        self.sample_trends(Instant::now());
        self.write_reports(Instant::now());
        self.notify();
        None
    }

    fn settings(&self) -> &Settings {
        &self.sending.script().settings
    }

    /// Executes the actions of components.
    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Watch(action) => {
                    let actions = self.watching.perform(action, self.now);
                    self.apply(actions);
                }
                Action::Log(level, text) => log::say(level.category(), text),
                Action::Command(id, SyncCommand::ResyncPath(path))
                    if self.watching.report_contents(id, &path, self.now) => {}
                Action::Command(id, command) => self.sending.command(id, &command, self.now),
                Action::Audit(request) => self.audits.on_request(request),
                Action::Reload => self.reload_for_client(),
                Action::LogTransfer(key, record) => self.context.history.write(key, record),
                Action::Read(token, request) => self.context.read(token, request),
                Action::FindLast(token, key, paths) => {
                    if !self.context.history.find_last(token, key, paths) {
                        self.audits.on_last_found(token, Vec::new());
                    }
                }
                Action::SaveSample(id, place) => {
                    let state = self.context.state.as_ref();
                    self.sending.save_sample(state, id, place);
                }
                Action::TellDrift(id, news) => self.sending.tell_drift(id, news),
                Action::KeepReport(report) => self.context.reports.keep(*report),
                Action::SelectLog(selection) => log::install(selection, None),
                Action::RetryStartups => self.sending.script().insist(),
                Action::SignalTransfers(signal) => self.sending.signal_all(signal),
                Action::SignalTree(pid, signal) => self.context.signal_tree(pid, signal),
                Action::KillDescendants => self.sending.kill_descendants(),
                Action::CloseTunnels => {
                    if self.sending.close_tunnels() {
                        let last = self.shutdown.iter().flat_map(Shutdown::on_tunnels_closed);
                        self.apply(last.collect());
                    }
                }
                Action::ShutDown(exit) => self.begin_shutdown(Ending::Exit(exit)),
                Action::StartAnew => {
                    let _ = self.reload(ReloadScope::All);
                }
                Action::Exit(exit) => self.ending = Some(exit),
            }
        }
    }

    /// Reads the configuration again for a client, and answers it.
    fn reload_for_client(&mut self) {
        log::normal("on request: reading the configuration again");
        self.context.notify.heard(Signal::HangUp);
        let result = self.on_reload_request(ReloadScope::Changed);
        let mut server = self.context.server.borrow_mut();
        server.on_reloaded(result, Instant::now());
    }

    /// Returns the state that is reported.
    fn state(&self) -> DaemonState<'_> {
        DaemonState {
            born: self.context.started,
            now: self.context.clock.now(),
            started: self.watching.has_started(),
            ending: self.shutdown.is_some(),
            reload_error: self.reload_error.as_deref(),
            watcher: self.watching.watcher(),
            watch_limit: self.watching.limit(),
            transfers: self.sending.transfers(),
            audits: &self.audits,
            trends: &self.trends,
            syncs: self.sending.syncs(),
            script: self.sending.script(),
            server: &self.context.server,
            state_dir: self.context.state.as_ref(),
        }
    }

    /// Reads the configuration again and replaces syncs. A reload of changed syncs becomes one of
    /// all if the configurations are too different. The error of an invalid configuration has file,
    /// line and key. It is logged, and the old configuration stays in force.
    fn reload(&mut self, scope: ReloadScope) -> Result<(), String> {
        let old = Rc::clone(self.sending.script());
        let read = reload::read(self.environment, self.context, &old, scope);
        self.reload_error = read.as_ref().err().cloned();
        let new = match read {
            Ok(new) => Rc::new(new),
            // All syncs are restarted with the old configuration.
            Err(_) if scope == ReloadScope::All => Rc::clone(&old),
            Err(problem) => return Err(problem),
        };
        if scope == ReloadScope::Changed && reload::replaces_all(&old, &new) {
            self.begin_shutdown(Ending::Reset);
            return Ok(());
        }
        let syncs = self.sending.replace_script(new, scope, self.now);
        match scope {
            ReloadScope::Changed => {
                log::normal(format_args!("Read the configuration again, syncs: {syncs}"));
            }
            ReloadScope::All => self.start_anew(&old),
        }
        self.start_watching();
        Ok(())
    }

    /// Begins the startup of a configuration that keeps no sync.
    fn start_anew(&mut self, last: &Script) {
        let script = Rc::clone(self.sending.script());
        let mut other = None;
        if !reload::same_watching(last, &script) {
            match new_watcher(self.context, &script, true) {
                Ok(watcher) => other = Some(watcher),
                Err(failure) => {
                    failure.lines.iter().for_each(log::error);
                    self.ending = Some(failure.exit);
                }
            }
        }
        log::normal("--- Startup ---");
        self.shutdown = None;
        self.watching.start_anew(other, &script.settings);
    }

    /// Sets the watches of the configuration. Syncs that wait for them start up then.
    fn start_watching(&mut self) {
        let script = Rc::clone(self.sending.script());
        let settings = &script.settings;
        self.report_files = ReportFiles::new(settings);
        self.context.history.set_limit(settings.transfer_log_size);
        self.context.reports.set_limit(settings.reports);
        self.sending.on_configured();
        let syncs = self.sending.syncs();
        let actions = self.watching.on_configured(syncs, settings, self.now);
        self.apply(actions);
    }

    /// Begins the shutdown: no process is started from now on.
    fn begin_shutdown(&mut self, ending: Ending) {
        self.sending.close(self.now);
        self.apply(vec![Action::Watch(WatchAction::ReportOpenFiles)]);
        let (clients, actions) = self.audits.on_shutdown();
        self.apply(actions);
        let now = Instant::now();
        for client in clients {
            self.context.server.borrow_mut().on_audit_ended(client, now);
        }
        let timeout = self.settings().stop_timeout;
        let moment = self.watching.watcher().event_mark();
        self.shutdown
            .get_or_insert_with(|| Shutdown::new(ending, moment, now))
            .on_request(ending, timeout, now);
    }

    /// Ends the daemon or restarts all syncs when no process is running any more.
    fn continue_shutdown(&mut self) {
        let running = self.sending.transfers().unfinished();
        let is_indexing = running == 0 && self.watching.on_stop(self.now);
        if let Some(shutdown) = &mut self.shutdown {
            let left = Remaining {
                running,
                is_idle: self.sending.transfers().are_idle(shutdown::IDLE_TIME),
                last_end: self.sending.transfers().last_end(),
                is_saved: self.context.state.is_some() && self.watching.has_started(),
                is_indexing,
                is_reported: self.watching.watcher().has_reported(shutdown.moment()),
            };
            let actions = shutdown.on_turn(left, Instant::now(), SystemTime::now());
            self.apply(actions);
        }
    }

    /// Runs alarms and due syncs.
    fn run_due(&mut self) {
        let actions = self.sending.run_user_code(self.now);
        self.apply(actions);
        if self.ending.is_none() && self.watching.has_started() {
            let (next, actions) = self.sending.on_wall_time(cron::wall_time(), self.now);
            self.context.cron_timer.arm(next);
            self.apply(actions);
            let actions = self.sending.run_due(&mut self.watching, self.now);
            self.apply(actions);
        }
    }

    /// With `onepass`: ends the loop when every sync has completed its startup.
    fn check_onepass(&mut self) {
        if self.settings().onepass
            && self.watching.has_started()
            && self.shutdown.is_none()
            && self.ending.is_none()
            && self.sending.is_idle()
        {
            let actions = onepass::conclude(self.sending.syncs());
            self.apply(actions);
        }
    }

    /// Handles a signal.
    fn on_signal(&mut self, signal: Signal) {
        self.context.notify.heard(signal);
        match signal {
            Signal::Terminate | Signal::Interrupt => {
                log::normal(format_args!("--- {} signal, fading ---", signal.name()));
                self.begin_shutdown(Ending::Exit(Exit::Signal(signal.number())));
            }
            Signal::HangUp => {
                let (scope, what) = match self.settings().hup {
                    Hup::Changed => (ReloadScope::Changed, "reading the configuration again"),
                    Hup::All => (ReloadScope::All, "resetting"),
                };
                log::normal(format_args!("--- HUP signal, {what} ---"));
                // An error is in the log.
                let _ = self.on_reload_request(scope);
            }
            Signal::Child => {}
            Signal::User1 => {
                log::normal("--- USR1 signal, flushing ---");
                self.sending.flush();
            }
            Signal::User2 => {
                let lines = report::dump(&self.state());
                self.apply(lines);
            }
        }
    }

    /// Reloads the configuration for a user: at once if syncs are kept, otherwise when no process
    /// is running any more. Returns errors as [`EventLoop::reload`] does.
    fn on_reload_request(&mut self, scope: ReloadScope) -> Result<(), String> {
        if scope == ReloadScope::All {
            self.begin_shutdown(Ending::Reset);
            return Ok(());
        }
        match self.shutdown {
            Some(_) => Ok(()),
            None => self.reload(scope),
        }
    }

    /// Serves the clients of the sockets.
    fn serve_clients(&mut self) {
        let now = Instant::now();
        let server = Rc::clone(&self.context.server);
        for (token, last) in self.context.pass_on_answers(now) {
            self.audits.on_last_found(token, last);
        }
        server.borrow_mut().on_turn(now);
        loop {
            let Some(actions) = server.borrow_mut().on_step(&self.state(), now) else {
                return;
            };
            self.apply(actions);
        }
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

    /// Samples the state of all syncs for their series.
    fn sample_trends(&mut self, now: Instant) {
        let mut trends = std::mem::replace(&mut self.trends, Trends::new(now));
        trends.on_turn(now, || report::trend_samples(&self.state()));
        self.trends = trends;
    }

    /// Writes the report files that are due.
    fn write_reports(&mut self, now: Instant) {
        let mut files = std::mem::take(&mut self.report_files);
        let actions = files.on_turn(&self.state(), now);
        self.report_files = files;
        self.apply(actions);
    }

    /// Reports the service phase to the service manager.
    fn notify(&mut self) {
        let phase = match self.shutdown {
            Some(_) => ServicePhase::ShuttingDown,
            None if self.watching.is_complete() => ServicePhase::Ready,
            None => ServicePhase::Starting,
        };
        let watched = self.watching.watcher().watched();
        let figures = || self.sending.figures(watched);
        self.context.notify.turn(Instant::now(), phase, figures);
    }

    /// Removes the state directories of syncs that are no longer configured.
    fn clean_state(&mut self, now: Instant) {
        if self.watching.is_complete() {
            let syncs = self.sending.syncs().iter();
            let used = || syncs.map(|handle| state::key(&handle.sync.borrow().config));
            let actions = self.context.clean_state(|| used().collect(), now);
            self.apply(actions);
        }
    }

    /// Waits until an event arrives or a deadline is reached.
    fn wait(&mut self) {
        let timeout = self.timeout();
        let (sending, audits) = (&self.sending, &self.audits);
        let context = &sending.script().context;
        let wakes = self
            .context
            .wait(timeout, context, &mut |pid, stream, line| {
                sending.on_output(audits, pid, stream, line);
            });
        for wake in wakes {
            match wake {
                Wake::MountsChanged => {
                    let actions = self.watching.on_mounts_changed(self.now);
                    self.apply(actions);
                }
                Wake::Signal(signal) => self.on_signal(signal),
            }
        }
    }

    /// Returns the time until the next deadline; `None` without one.
    fn timeout(&self) -> Option<Duration> {
        let requests = &self.sending.script().context.requests;
        if self.context.children.borrow().pending() || !requests.is_empty() {
            return Some(Duration::ZERO);
        }
        let instant = Instant::now();
        let deadline = self.deadline(instant);
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(instant));
        if self.shutdown.is_some() {
            return deadline;
        }
        let now = self.context.clock.now();
        let due = self.sending.due(self.watching.has_started(), now);
        let due = due.map(|due| Clock::until(now, due));
        let soonest = deadline.into_iter().chain(due).min();
        // The kernel's timer may fire slightly early; a turn before the deadline would only spin.
        soonest.map(|span| span + Duration::from_micros(u64::from(!span.is_zero()) * 500))
    }

    /// Returns the next deadline of the components other than the queues.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let is_working = self.shutdown.is_none();
        let is_cleaning = is_working && self.watching.is_complete();
        let deadlines = [
            self.context.notify.deadline(),
            self.context.server.borrow().deadline(now),
            self.watching.deadline(is_working, now),
            self.sending.deadline(is_working, now),
            self.audits.deadline(),
            self.trends.deadline(),
            self.shutdown.as_ref().map(Shutdown::deadline),
            self.report_files.deadline().filter(|_| is_working),
            self.context.state_deadline().filter(|_| is_cleaning),
        ];
        deadlines.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
