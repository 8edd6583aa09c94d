//! Wakes the event loop when a crontab is due.
//!
//! The other timers of the loop use the monotonic clock, which cannot be set and stops during a
//! suspend. Crontabs use the time of day: a timerfd_create(2) descriptor on `CLOCK_REALTIME`
//! expires at the given time, and at once when the clock is set.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, SystemTime};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::schedule::WallTime;
use crate::log;

/// A timer for the crontabs of all syncs.
pub struct CronTimer {
    timer: TimerFd,
    /// When the timer expires.
    expires: Option<WallTime>,
}

impl CronTimer {
    /// Returns a timer that is not set and belongs to `token`.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn new(registry: &Registry, token: Token) -> io::Result<CronTimer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        let fd = timer.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(CronTimer {
            timer,
            expires: None,
        })
    }

    /// Takes in that the timer expired or the clock was set.
    pub fn on_event(&mut self) {
        self.expires = None;
    }

    /// Sets the timer to the time at which the next crontab is due.
    pub fn arm(&mut self, next: Option<WallTime>) {
        if self.expires == next {
            return;
        }
        self.expires = next;
        let result = match next {
            None => self.timer.unset(),
            Some(time) => self.timer.set(
                Expiration::OneShot(Duration::from_secs(time.max(1).unsigned_abs()).into()),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
            ),
        };
        // ECANCELED: the clock was set after the timer was. The timer is set nevertheless.
        if let Err(error) = result.or_else(|error| match error {
            Errno::ECANCELED => Ok(()),
            error => Err(error),
        }) {
            log::error(format_args!("cannot set the timer of crontabs: {error}"));
        }
    }
}

/// Returns the time of day, in seconds since the epoch.
pub fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        WallTime::try_from(since.as_secs()).unwrap_or(WallTime::MAX)
    })
}
