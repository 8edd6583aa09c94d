//! What lives as long as the process, whatever configurations come and go: what the loop waits
//! on, the children, the clock and the sockets.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token, Waker};

use super::os::signals::{Signal, Signals};
use super::os::systemd::Systemd;
use super::server::{self, Server};
use super::source_monitor::MountWatch;
use super::state_cleanup::StateCleanup;
use super::state_dir::StateDir;
use crate::config::Settings;
use crate::cron::CronTimer;
use crate::log;
use crate::process::Children;
use crate::sync::Clock;
use crate::watch::{InotifyMode, Watcher};

const WAKER_TOKEN: Token = Token(0);
pub(super) const SIGNALS_TOKEN: Token = Token(1);
pub(super) const CRON_TOKEN: Token = Token(2);
const FIRST_PIPE_TOKEN: usize = server::END_OF_TOKENS;
pub(super) const MOUNTS_TOKEN: Token = Token(3);

/// What lives as long as the process, whatever configurations come and go.
pub struct Context {
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) signals: Signals,
    waker: Arc<Waker>,
    pub(super) notify: Systemd,
    _mounts: MountWatch,
    pub(super) cron_timer: CronTimer,
    /// All children of the daemon.
    pub children: Rc<RefCell<Children>>,
    /// The clock of queues and timestamps.
    pub clock: Clock,
    /// Who asks what is going on, and says what to do.
    pub(super) server: Server,
    /// When the daemon started.
    pub(super) started: SystemTime,
    /// What outlives the process, if there is a place for it.
    pub state: Option<StateDir>,
    /// Removes what is not used in it.
    pub(super) state_cleanup: StateCleanup,
    /// What the state directory holds of the daemon before this one has been taken over.
    pub restored: bool,
}

impl Context {
    /// Everything the loop waits on. Called in the process that stays, after detaching.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn new() -> io::Result<Context> {
        let poll = Poll::new()?;
        let signals = Signals::new(poll.registry(), SIGNALS_TOKEN)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER_TOKEN)?);
        let cron_timer = CronTimer::new(poll.registry(), CRON_TOKEN)?;
        let children = Children::new(poll.registry().try_clone()?, FIRST_PIPE_TOKEN);
        let server = Server::closed(poll.registry().try_clone()?);
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
            server,
            started: SystemTime::now(),
            state: None,
            state_cleanup: StateCleanup::new(Instant::now()),
            restored: false,
        })
    }

    /// Opens the sockets that the settings name.
    ///
    /// # Errors
    /// In words for the user.
    pub fn open_server(&mut self, settings: &Settings) -> Result<(), String> {
        self.server.open(settings, self.poll.registry())
    }

    /// What wakes this loop.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits without a configuration at work; the number of the signal that ends the process,
    /// if one comes.
    pub fn sleep(&mut self, span: Duration) -> Option<i32> {
        let end = Instant::now() + span;
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            // Interrupted or not, the signals are looked at.
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

    /// A watcher that wakes this loop.
    ///
    /// # Errors
    /// No inotify instance to be had.
    pub fn watcher(&self, mode: InotifyMode, staleness: Option<Duration>) -> io::Result<Watcher> {
        let waker = Arc::clone(&self.waker);
        Watcher::new(mode, staleness, waker)
    }
}
