//! The clock of the queues: microseconds since the daemon started, never set back.

use std::time::{Duration, Instant};

use super::micros;
use crate::queue::Time;

/// A monotonic clock with its own zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock that starts an hour ahead of zero, so that times in the past can be said.
    pub fn start() -> Clock {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        Clock {
            zero: now.checked_sub(hour).unwrap_or(now),
        }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        micros(self.zero.elapsed())
    }

    /// How long it is from `now` until `then`; zero if it has passed.
    pub fn until(now: Time, then: Time) -> Duration {
        Duration::from_micros(then.saturating_sub(now))
    }
}
