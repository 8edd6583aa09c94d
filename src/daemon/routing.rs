//! Routing: the only blocking call of the event loop, poll events and signals to their owners, and
//! the actions of components.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Events;
use mio::event::Event;

use super::context::{CRON_TOKEN, MOUNTS_TOKEN, SIGNALS_TOKEN};
use super::event_loop::EventLoop;
use super::event_router;
use super::os::signals::Signal;
use super::reload::ReloadScope;
use super::report;
use super::shutdown::{Ending, Shutdown};
use crate::component::{Action, Level, SyncCommand};
use crate::config::Hup;
use crate::control::ControlServer;
use crate::exit::Exit;
use crate::history::{HistoryAnswer, LogPage};
use crate::local::CopyEnded;
use crate::log;
use crate::process::{EndedChild, Pid, Stream};
use crate::queue::Time;
use crate::reports::{ReportAnswer, ReportPage};
use crate::script::ScriptRequest;
use crate::state;
use crate::sync::{Clock, Next};
use crate::transfer::local_jobs;
use crate::tunnel;

impl EventLoop<'_> {
    /// Waits until an event arrives or a deadline is reached.
    pub(super) fn wait(&mut self) {
        let timeout = self.timeout();
        if log::enabled("Masterloop") {
            log::say("Masterloop", format_args!("waiting, at most {timeout:?}"));
        }
        let mut events = std::mem::replace(&mut self.context.events, Events::with_capacity(0));
        match self.context.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                log::error(format_args!("waiting for events: {error}"));
            }
            _ => {}
        }
        for event in &events {
            self.pass_on(event);
        }
        self.context.events = events;
        let children = Rc::clone(&self.context.children);
        if children.borrow().pending() {
            children
                .borrow_mut()
                .resume(&mut |pid, stream, line: &[u8]| self.take_output(pid, stream, line));
        }
    }

    /// Passes a poll event to its owner by its token.
    fn pass_on(&mut self, event: &Event) {
        let token = event.token();
        if ControlServer::owns(token) {
            self.context.server.borrow_mut().on_event(token);
        } else if token == MOUNTS_TOKEN {
            self.check_sources(|monitor, sources| {
                monitor.on_mounts_changed(sources, Instant::now())
            });
        } else if token == SIGNALS_TOKEN {
            for signal in self.context.signals.pending().collect::<Vec<_>>() {
                self.signal(signal);
            }
        } else if token == CRON_TOKEN {
            self.context.cron_timer.on_event();
        } else if !self.script.context.observed.note(event) {
            let children = Rc::clone(&self.context.children);
            if children.borrow().owns(token) {
                children
                    .borrow_mut()
                    .ready(event, &mut |pid, stream, line: &[u8]| {
                        self.take_output(pid, stream, line);
                    });
            }
        }
    }

    /// Returns the time until the next deadline; `None` without one.
    fn timeout(&mut self) -> Option<Duration> {
        if self.context.children.borrow().pending() || !self.script.context.requests.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.starting_up && !self.watcher.crawling() {
            return Some(Duration::ZERO);
        }
        let instant = Instant::now();
        let deadline = self.deadline(instant);
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(instant));
        if self.shutdown.is_some() {
            return deadline;
        }
        let now = self.context.clock.now();
        let due = self.due(now).map(|due| Clock::until(now, due));
        let soonest = deadline.into_iter().chain(due).min();
        // The kernel's timer may fire slightly early; a turn before the deadline would only spin.
        soonest.map(|span| span + Duration::from_micros(u64::from(!span.is_zero()) * 500))
    }

    /// Returns the next deadline of the components other than the queues.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let always = [
            self.context.notify.deadline(),
            self.watcher.next_deadline(),
            self.context.server.borrow().deadline(now),
            self.transfers.deadline(),
            self.local_jobs.deadline(),
            self.audits.deadline(),
            self.trends.deadline(),
            self.warm_starts.deadline(&self.syncs, now),
        ];
        let always = always.into_iter().flatten();
        if let Some(shutdown) = &self.shutdown {
            let end = [Some(shutdown.deadline()), self.tunnels.deadline()];
            return always.chain(end.into_iter().flatten()).min();
        }
        let at_work = [
            self.scan_passes
                .deadline(&self.transfers, self.script.context.may_spawn(), now),
            self.progress.deadline(&self.watcher),
            self.source_monitor.deadline(),
            self.watch_limit.deadline(self.watcher.crawling()),
            self.report_files.deadline(),
            self.state_deadline(),
        ];
        always.chain(at_work.into_iter().flatten()).min()
    }

    /// Returns the next due time of syncs, tunnels and alarms.
    fn due(&self, now: Time) -> Option<Time> {
        let asks = self.started && self.script.context.may_spawn();
        let syncs = self.syncs.iter().filter(|_| asks);
        let syncs = syncs.filter_map(|handle| {
            if !handle.is_connected() {
                return None;
            }
            match handle.sync.borrow_mut().next(now) {
                Next::Act(_) => Some(now),
                Next::At(time) => Some(time),
                Next::Nothing => None,
            }
        });
        let tunnels = self.script.tunnels();
        let tunnels = tunnels
            .iter()
            .filter_map(|each| each.machine.borrow().deadline());
        syncs.chain(tunnels).chain(self.script.next_alarm()).min()
    }

    /// Executes the actions of components.
    pub(super) fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Log(Level::Normal, text) => log::normal(text),
                Action::Log(Level::Warn, text) => log::warn(text),
                Action::Log(Level::Error, text) => log::error(text),
                Action::FullSync(id) => {
                    if let Some(handle) = self.find(id) {
                        handle.sync.borrow_mut().resync_once(self.now);
                    }
                }
                Action::Command(id, SyncCommand::ResyncPath(path))
                    if event_router::report_contents(
                        &self.syncs,
                        &mut self.watcher,
                        id,
                        &path,
                        self.now,
                    ) => {}
                Action::Command(id, command) => {
                    if let Some(handle) = self.find(id) {
                        handle.sync.borrow_mut().execute(&command, self.now);
                    }
                }
                Action::Audit(request) => self.audits.on_request(request),
                Action::AcceptMounts => {
                    self.check_sources(|monitor, sources| monitor.on_released(sources));
                }
                Action::Reload => {
                    log::normal("on request: reading the configuration again");
                    self.context.notify.heard(Signal::HangUp);
                    let result = self.on_reload_request(ReloadScope::Changed);
                    let mut server = self.context.server.borrow_mut();
                    server.on_reloaded(result, Instant::now());
                }
                Action::LogTransfer(key, record) => self.context.history.write(key, record),
                Action::ReadHistory(token, query) => {
                    if !self.context.history.read(token, query) {
                        let page = LogPage::default();
                        let mut server = self.context.server.borrow_mut();
                        server.on_history(HistoryAnswer { token, page }, Instant::now());
                    }
                }
                Action::SaveSample(id, place) => {
                    if let (Some(state), Some(handle)) = (&self.context.state, self.find(id)) {
                        state::sample::save(state, &handle.sync.borrow().config, place);
                    }
                }
                Action::TellDrift(id, news) => {
                    if let Some(handle) = self.find(id).map(Rc::clone) {
                        self.transfers.tell_drift(&handle, news);
                    }
                }
                Action::KeepReport(report) => self.context.reports.keep(*report),
                Action::ReadReports(token, count) => {
                    if !self.context.reports.read(token, count) {
                        let page = ReportPage::default();
                        let mut server = self.context.server.borrow_mut();
                        server.on_reports(ReportAnswer { token, page }, Instant::now());
                    }
                }
                Action::SelectLog(selection) => log::install(selection, None),
                Action::CheckRoots => self.watcher.check_roots(),
                Action::ReportOpenFiles => self.report_open_files(),
                Action::FullSyncWhenWatched(id) => {
                    let syncs = self.syncs.iter().zip(&mut self.compare);
                    for (_, due) in syncs.filter(|(handle, _)| handle.sync.borrow().id == id) {
                        *due = true;
                    }
                }
                Action::RebuildWatches => self.watcher.rebuild(),
                Action::CountDirectories => self.count_directories(),
                Action::SignalTransfers(signal) => self.signal_transfers(signal),
                Action::SignalTree(pid, signal) => {
                    let children = self.context.children.borrow();
                    if let Err(error) = children.kill_tree(pid, signal) {
                        log::warn(format_args!("process {pid} cannot be ended: {error}"));
                    }
                }
                Action::KillDescendants => self.transfers.kill_descendants(),
                Action::CloseTunnels => {
                    if self.tunnels.close(&self.script.tunnels(), Instant::now()) {
                        let shutdown = self.shutdown.iter();
                        let last = shutdown.flat_map(Shutdown::on_tunnels_closed).collect();
                        self.apply(last);
                    }
                }
                Action::StartAnew => {
                    let _ = self.reload(ReloadScope::All);
                }
                Action::Exit(exit) => self.ending = Some(exit),
            }
        }
    }

    /// Handles a signal.
    fn signal(&mut self, signal: Signal) {
        self.context.notify.heard(signal);
        match signal {
            Signal::Terminate | Signal::Interrupt => {
                log::normal(format_args!("--- {} signal, fading ---", signal.name()));
                self.begin_shutdown(Ending::Exit(Exit::Signal(signal.number())));
            }
            Signal::HangUp if self.script.settings.hup == Hup::Changed => {
                log::normal("--- HUP signal, reading the configuration again ---");
                // An error is in the log.
                let _ = self.on_reload_request(ReloadScope::Changed);
            }
            Signal::HangUp => {
                log::normal("--- HUP signal, resetting ---");
                let _ = self.on_reload_request(ReloadScope::All);
            }
            Signal::Child => {}
            Signal::User1 => {
                log::normal("--- USR1 signal, flushing ---");
                for handle in &self.syncs {
                    handle.sync.borrow_mut().flush();
                }
            }
            Signal::User2 => {
                let lines = report::dump(&self.state());
                self.apply(lines);
            }
        }
    }

    /// Serves the clients of the sockets.
    pub(super) fn serve_clients(&mut self) {
        let now = Instant::now();
        let server = Rc::clone(&self.context.server);
        for answer in self.context.history.answers() {
            server.borrow_mut().on_history(answer, now);
        }
        for answer in self.context.reports.answers() {
            server.borrow_mut().on_reports(answer, now);
        }
        server.borrow_mut().on_turn(now);
        loop {
            let Some(actions) = server.borrow_mut().on_step(&self.state(), now) else {
                return;
            };
            self.apply(actions);
        }
    }

    /// Executes the requests of Lua code in their order.
    pub(super) fn launch(&mut self) {
        for request in self.script.context.requests.take() {
            match request {
                ScriptRequest::Spawn(request) => {
                    let actions = self.transfers.start(request, self.now);
                    self.apply(actions);
                }
                ScriptRequest::Copy(request) => {
                    let waker = self.context.waker();
                    self.local_jobs
                        .start(request, &self.script, waker, self.now);
                }
                ScriptRequest::Scan(request) => self.scan_passes.on_request(request),
            }
        }
    }

    /// Reaps and evaluates ended children and threads.
    pub(super) fn reap(&mut self) {
        self.reap_copies();
        let actions = self.transfers.on_counted(self.now);
        self.apply(actions);
        let children = Rc::clone(&self.context.children);
        let ended = children
            .borrow_mut()
            .reap(&mut |pid, stream, line: &[u8]| self.take_output(pid, stream, line));
        for EndedChild { pid, end } in ended {
            if self.audits.owns(pid) {
                self.audits.on_ended(pid, end);
                continue;
            }
            let Some(mut job) = self.transfers.remove(pid) else {
                self.scan_passes.on_other_ended(pid, end);
                self.transfers.on_other_ended(pid, end);
                let tunnels = self.script.tunnels();
                self.tunnels.on_ended(&tunnels, pid, end, self.now);
                continue;
            };
            event_router::transfer_ended(job.handle(), &self.watcher, self.now);
            if let Some(scan) = job.scan.take() {
                self.scan_passes.on_scanned(scan, end);
            } else {
                let actions = self.transfers.on_ended(pid, job, end, self.now);
                self.apply(actions);
            }
        }
    }

    /// Logs a line of output of a child.
    fn take_output(&self, pid: Pid, stream: Stream, line: &[u8]) {
        if self.audits.owns(pid) {
            return self.audits.on_output(pid, stream, line);
        }
        let tunnels = self.script.context.tunnels.borrow();
        let tunnel = || Some(tunnel::of(&tunnels, pid)?.name());
        self.transfers.on_output(pid, stream, line, tunnel);
    }

    /// Evaluates the copies that threads have completed.
    fn reap_copies(&mut self) {
        let ended = self.local_jobs.ended();
        let any = !ended.is_empty();
        for CopyEnded { token, report } in ended {
            let Some(job) = self.local_jobs.remove(token) else {
                continue;
            };
            event_router::transfer_ended(job.handle(), &self.watcher, self.now);
            if let Some(status) = local_jobs::status(&job, &report, self.now) {
                let actions = self.transfers.evaluate(&job, status, self.now);
                self.apply(actions);
            }
        }
        if any {
            self.local_jobs.retire(&self.syncs);
        }
    }
}
