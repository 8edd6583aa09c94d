//! The signals the daemon listens to, as a source of events.
//!
//! The handlers only write to a pipe, and the loop handles the signals. A signal cannot be missed
//! between a check and the following wait.

use std::io;

use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal as Number};
use signal_hook_mio::v1_0::Signals as Source;

/// A signal the daemon listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// `SIGTERM`: end.
    Terminate,
    /// `SIGINT`: end.
    Interrupt,
    /// `SIGHUP`: read the configuration again.
    HangUp,
    /// `SIGCHLD`: some children, one at least, have ended.
    Child,
    /// `SIGUSR1`.
    User1,
    /// `SIGUSR2`.
    User2,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Terminate,
        Self::Interrupt,
        Self::HangUp,
        Self::Child,
        Self::User1,
        Self::User2,
    ];

    /// The name without `SIG`, as log lines have it.
    pub fn name(self) -> &'static str {
        &self.kernel().as_str()[3..]
    }

    /// The number, as in signal(7).
    pub fn number(self) -> i32 {
        self.kernel() as i32
    }

    fn set() -> SigSet {
        Signal::ALL.into_iter().map(Signal::kernel).collect()
    }

    fn kernel(self) -> Number {
        match self {
            Self::Terminate => Number::SIGTERM,
            Self::Interrupt => Number::SIGINT,
            Self::HangUp => Number::SIGHUP,
            Self::Child => Number::SIGCHLD,
            Self::User1 => Number::SIGUSR1,
            Self::User2 => Number::SIGUSR2,
        }
    }
}

/// Holds back the signals of [`Signal::ALL`] until [`Signals::new`] catches them. To be called
/// before there are other threads.
pub fn hold() {
    // Fails for an invalid operation only.
    let _ = Signal::set().thread_block();
}

/// Lets the signals have their usual effect, in a program that does not catch them.
pub fn release() {
    let _ = Signal::set().thread_unblock();
}

/// Catches the signals of [`Signal::ALL`] until it is dropped.
pub struct Signals {
    source: Source,
}

impl Signals {
    /// Sets the handlers and registers the source. It must be called before other threads are
    /// started, because it also unblocks the signals: a daemon started with `SIGCHLD` blocked or
    /// ignored would wait for its children forever. Signals that were blocked by [`hold`] are
    /// caught now.
    ///
    /// # Errors
    /// There are not enough descriptors.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut source = Source::new(Signal::ALL.map(Signal::number))?;
        registry.register(&mut source, token, Interest::READABLE)?;
        Signal::set().thread_unblock()?;
        Ok(Self { source })
    }

    /// Catches no signal: those of a test process are not for a single test.
    #[cfg(test)]
    pub fn none() -> io::Result<Self> {
        Source::new::<_, i32>([]).map(|source| Self { source })
    }

    /// Returns the signals since the last call, each once. To be called when the token is ready.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> + '_ {
        self.source.pending().filter_map(|number| {
            Signal::ALL
                .into_iter()
                .find(|signal| signal.number() == number)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names() {
        let names = Signal::ALL.map(Signal::name);
        assert_eq!(names, ["TERM", "INT", "HUP", "CHLD", "USR1", "USR2"]);
        assert_eq!(Signal::Terminate.number(), 15);
    }

    /// A signal that arrives earlier would end a daemon that shall handle it.
    #[test]
    fn signals_are_held_until_they_are_released() {
        let held = || {
            let mask = SigSet::thread_get_mask().unwrap();
            Signal::ALL.map(|signal| mask.contains(signal.kernel()))
        };
        hold();
        assert_eq!(held(), [true; 6]);
        release();
        assert_eq!(held(), [false; 6]);
    }

    #[test]
    fn a_raised_signal_wakes_the_poll() {
        let mut poll = mio::Poll::new().unwrap();
        let mut signals = Signals::new(poll.registry(), Token(7)).unwrap();
        nix::sys::signal::raise(Number::SIGUSR2).unwrap();
        nix::sys::signal::raise(Number::SIGUSR2).unwrap();

        let mut events = mio::Events::with_capacity(4);
        while let Err(e) = poll.poll(&mut events, Some(Duration::from_secs(60))) {
            assert_eq!(e.kind(), io::ErrorKind::Interrupted);
        }
        assert!(events.iter().all(|event| event.token() == Token(7)));
        // Children of other tests end whenever they do.
        let mut seen = || {
            signals
                .pending()
                .filter(|signal| *signal != Signal::Child)
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(), [Signal::User2]);
        assert_eq!(seen(), []);
    }
}
