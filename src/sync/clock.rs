//! The clock of the queues: microseconds since the daemon started, monotonic.

use std::time::{Duration, Instant};

use super::micros;
use crate::queue::Time;

/// A monotonic clock with its own origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// Returns a clock that starts at one hour, so that earlier times can be represented.
    pub fn start() -> Clock {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        Clock {
            zero: now.checked_sub(hour).unwrap_or(now),
        }
    }

    /// Returns the current time.
    pub fn now(&self) -> Time {
        micros(self.zero.elapsed())
    }

    /// Returns the time from `now` until `then`; zero if `then` has passed.
    pub fn until(now: Time, then: Time) -> Duration {
        Duration::from_micros(then.saturating_sub(now))
    }
}
