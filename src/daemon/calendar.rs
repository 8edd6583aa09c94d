//! When crontabs are due: a timer on the clock that people set.
//!
//! The other timers of the loop count on a clock that no one sets and that stands still while
//! the machine sleeps; "three o'clock" is neither. A timerfd_create(2) descriptor on
//! `CLOCK_REALTIME` ends at the time itself, and at once when the clock is set.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::queue::Time;
use crate::report;
use crate::script::Member;
use crate::sync::crontab::WallTime;

/// Wakes the loop when the next crontab is due.
pub struct Calendar {
    timer: TimerFd,
    /// What the timer is set to.
    set: Option<WallTime>,
}

impl Calendar {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Calendar> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        let fd = timer.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(Calendar { timer, set: None })
    }

    /// Queues what is due, and sets the timer to what is next.
    pub fn turn(&mut self, members: &[Rc<Member>], now: Time) {
        let wall = wall_time();
        let mut next: Option<WallTime> = None;
        for member in members {
            let mut sync = member.sync.borrow_mut();
            sync.strike(wall, now);
            next = [next, sync.crontab.next()].into_iter().flatten().min();
        }
        self.set(next);
    }

    /// The event of the timer came: by time, or because the clock was set.
    pub fn rang(&mut self) {
        self.set = None;
    }

    fn set(&mut self, next: Option<WallTime>) {
        if self.set == next {
            return;
        }
        self.set = next;
        let result = match next {
            None => self.timer.unset(),
            Some(time) => self.timer.set(
                Expiration::OneShot(Duration::from_secs(time.max(1).unsigned_abs()).into()),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
            ),
        };
        // The clock was set since the timer was; it is set now nevertheless.
        if let Err(error) = result.or_else(|error| match error {
            Errno::ECANCELED => Ok(()),
            error => Err(error),
        }) {
            report::error(format_args!("cannot set the timer of crontabs: {error}"));
        }
    }
}

fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        WallTime::try_from(since.as_secs()).unwrap_or(WallTime::MAX)
    })
}
