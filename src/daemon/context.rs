//! The state that outlives a configuration: poll, signals, children, clock and sockets.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token, Waker};

use super::os::signals::{Signal, Signals};
use super::os::systemd::Systemd;
use super::sources::MountWatch;
use crate::component::{Action, ReadRequest};
use crate::config::Settings;
use crate::control::protocol::Reply;
use crate::control::{self, ControlServer};
use crate::cron::CronTimer;
use crate::history::{History, HistoryAnswer, LastEntry, LogPage, RingDirectory};
use crate::log;
use crate::process::{Children, Pid, Sink};
use crate::reports::{ReportAnswer, ReportPage, Reports};
use crate::script::ScriptContext;
use crate::state::{StateCleanup, StateDir};
use crate::sync::Clock;
use crate::watch::{InotifyMode, WatchChoice, Watcher};

const WAKER_TOKEN: Token = Token(0);
const SIGNALS_TOKEN: Token = Token(1);
const CRON_TOKEN: Token = Token(2);
const MOUNTS_TOKEN: Token = Token(3);
const FIRST_PIPE_TOKEN: usize = control::END_OF_TOKENS;

/// The reason of a wake-up of the event loop, unless the context handles it.
pub enum Wake {
    /// The mount table has changed.
    MountsChanged,
    /// A signal has arrived.
    Signal(Signal),
}

/// The state that outlives a configuration.
pub struct Context {
    poll: Poll,
    events: Events,
    signals: Signals,
    waker: Arc<Waker>,
    pub(super) notify: Systemd,
    _mounts: MountWatch,
    pub(super) cron_timer: CronTimer,
    /// All children of the daemon.
    pub children: Rc<RefCell<Children>>,
    /// The clock of queues and timestamps.
    pub clock: Clock,
    /// The control and metrics sockets.
    pub(super) server: Rc<RefCell<ControlServer>>,
    /// The time at which the daemon started.
    pub(super) started: SystemTime,
    /// The state directory; `None` without one.
    pub state: Option<StateDir>,
    /// The transfer log.
    pub(super) history: History,
    /// The kept reports of comparisons.
    pub(super) reports: Reports,
    /// The removal of unused state directories.
    state_cleanup: StateCleanup,
}

impl Context {
    /// Returns a new context. It must be created after detaching, in the process that stays.
    ///
    /// # Errors
    ///
    /// No file descriptor is available.
    pub fn new() -> io::Result<Context> {
        let poll = Poll::new()?;
        let signals = Signals::new(poll.registry(), SIGNALS_TOKEN)?;
        Self::with(poll, signals)
    }

    /// Returns a new context that handles no signals.
    #[cfg(test)]
    pub fn without_signals() -> io::Result<Context> {
        Self::with(Poll::new()?, Signals::none()?)
    }

    fn with(poll: Poll, signals: Signals) -> io::Result<Context> {
        let waker = Arc::new(Waker::new(poll.registry(), WAKER_TOKEN)?);
        let cron_timer = CronTimer::new(poll.registry(), CRON_TOKEN)?;
        let children = Children::new(poll.registry().try_clone()?, FIRST_PIPE_TOKEN);
        let server = ControlServer::new(poll.registry().try_clone()?);
        let history = History::new(None, Arc::clone(&waker));
        let reports = Reports::new(None, Arc::clone(&waker));
        Ok(Context {
            _mounts: MountWatch::new(poll.registry(), MOUNTS_TOKEN)?,
            poll,
            events: Events::with_capacity(256),
            signals,
            waker,
            notify: Systemd::from_environment(),
            cron_timer,
            children: Rc::new(RefCell::new(children)),
            clock: Clock::start(),
            server: Rc::new(RefCell::new(server)),
            started: SystemTime::now(),
            state: None,
            history,
            reports,
            state_cleanup: StateCleanup::new(Instant::now()),
        })
    }

    /// Opens the sockets named in the settings.
    ///
    /// # Errors
    ///
    /// A message for the user.
    pub fn open_server(&mut self, settings: &Settings) -> Result<(), String> {
        self.server
            .borrow_mut()
            .open(settings, self.poll.registry())
    }

    /// Opens the state directory. Must be called after detaching, before the first transfer.
    pub fn open_state(&mut self, settings: &Settings) {
        self.state = StateDir::open(settings);
        let root = || {
            let state = self.state.clone();
            state.map(|state| Box::new(state) as Box<dyn RingDirectory>)
        };
        self.history = History::new(root(), self.waker());
        self.reports = Reports::new(root(), self.waker());
    }

    /// Returns the waker of the event loop.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Reads the data that a client of the server has requested.
    pub fn read(&mut self, token: u64, request: ReadRequest) {
        let (is_taken, nothing) = match request {
            ReadRequest::Log(query) => {
                let is_taken = self.history.read(token, query);
                (is_taken, Reply::log(LogPage::default()))
            }
            ReadRequest::Reports(count) => {
                let is_taken = self.reports.read(token, count);
                (is_taken, Reply::kept(ReportPage::default()))
            }
        };
        if !is_taken {
            let mut server = self.server.borrow_mut();
            server.on_read(token, nothing, Instant::now());
        }
    }

    /// Passes on to the server what was read for its clients. Returns what was found for
    /// comparisons.
    pub fn pass_on_answers(&mut self, now: Instant) -> Vec<(u64, Vec<Option<LastEntry>>)> {
        let mut server = self.server.borrow_mut();
        let mut found = Vec::new();
        for answer in self.history.answers() {
            match answer {
                HistoryAnswer::Page(token, page) => server.on_read(token, Reply::log(page), now),
                HistoryAnswer::Last(token, last) => found.push((token, last)),
            }
        }
        for ReportAnswer { token, page } in self.reports.answers() {
            server.on_read(token, Reply::kept(page), now);
        }
        found
    }

    /// Waits until an event arrives or `timeout` is over. `lines` gets the output of children.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        script: &ScriptContext,
        lines: Sink<'_>,
    ) -> Vec<Wake> {
        if log::enabled("Masterloop") {
            log::say("Masterloop", format_args!("waiting, at most {timeout:?}"));
        }
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                log::error(format_args!("waiting for events: {error}"));
            }
            _ => {}
        }
        let mut wakes = Vec::new();
        let mut children = self.children.borrow_mut();
        for event in &self.events {
            let token = event.token();
            if ControlServer::owns(token) {
                self.server.borrow_mut().on_event(token);
            } else if token == MOUNTS_TOKEN {
                wakes.push(Wake::MountsChanged);
            } else if token == SIGNALS_TOKEN {
                wakes.extend(self.signals.pending().map(Wake::Signal));
            } else if token == CRON_TOKEN {
                self.cron_timer.on_event();
            } else if !script.observed.note(event) {
                children.ready(event, lines);
            }
        }
        if children.pending() {
            children.resume(lines);
        }
        wakes
    }

    /// Sends a signal to a child and its descendants.
    pub fn signal_tree(&self, pid: Pid, signal: nix::sys::signal::Signal) {
        if let Err(error) = self.children.borrow().kill_tree(pid, signal) {
            log::warn(format_args!("process {pid} cannot be ended: {error}"));
        }
    }

    /// Removes the state directories of syncs that are no longer configured, if it is time to.
    pub fn clean_state(
        &mut self,
        used: impl FnOnce() -> HashSet<String>,
        now: Instant,
    ) -> Vec<Action> {
        let state = self.state.as_ref();
        self.state_cleanup.on_timer(now, state, used)
    }

    /// Returns the time of the next cleanup of the state directory, if it is used.
    pub fn state_deadline(&self) -> Option<Instant> {
        self.state.as_ref().map(|_| self.state_cleanup.deadline())
    }

    /// Sleeps while no configuration is active. Returns the number of a terminating signal, if one
    /// arrives.
    pub fn sleep(&mut self, span: Duration) -> Option<i32> {
        let end = Instant::now() + span;
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            // Signals are checked even after an interruption.
            let _ = self.poll.poll(&mut self.events, Some(left));
            let ending = self
                .signals
                .pending()
                .find(|signal| matches!(signal, Signal::Terminate | Signal::Interrupt));
            if let Some(signal) = ending {
                log::normal(format_args!("--- {} signal, fading ---", signal.name()));
                return Some(signal.number());
            }
        }
    }

    /// Returns a watcher that wakes the event loop.
    ///
    /// # Errors
    ///
    /// inotify_init(2) failed.
    pub fn watcher(
        &self,
        choice: WatchChoice,
        mode: InotifyMode,
        staleness: Option<Duration>,
    ) -> io::Result<Watcher> {
        let waker = Arc::clone(&self.waker);
        Watcher::new(choice, mode, staleness, waker)
    }
}
