//! Time without progress of a process or thread that is checked periodically.

use std::time::{Duration, Instant};

/// The time between two looks.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The maximum time without progress that one look adds.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The time without progress after which it is reported.
const REPORT_AFTER: Duration = Duration::from_secs(30);

/// The time without progress, measured by figures that grow with it.
#[derive(Debug)]
pub struct IdleClock<T> {
    /// The figures of the last look.
    figures: Option<T>,
    /// The time of the last look.
    looked: Instant,
    idle: Duration,
    is_reported: bool,
}

impl<T: PartialEq> IdleClock<T> {
    /// Returns the clock of work that begins.
    pub fn new(now: Instant) -> IdleClock<T> {
        IdleClock {
            figures: None,
            looked: now,
            idle: Duration::ZERO,
            is_reported: false,
        }
    }

    /// Takes in the present figures; `None` if they are unknown. Returns true if there was no
    /// progress since the last look.
    pub fn look(&mut self, figures: Option<T>, now: Instant) -> bool {
        // A daemon that was busy or stopped has not observed the work.
        let since = now
            .saturating_duration_since(self.looked)
            .min(MAX_CHECK_INTERVAL);
        let is_idle = figures.is_some() && figures == self.figures;
        self.idle = if is_idle {
            self.idle + since
        } else {
            Duration::ZERO
        };
        self.looked = now;
        self.figures = figures;
        is_idle
    }

    /// Returns the time of the next look.
    pub fn next_look(&self) -> Instant {
        self.looked + CHECK_INTERVAL
    }

    /// Returns the time without progress.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// Returns the time without progress, if it is long enough to be reported.
    pub fn stalled(&self) -> Option<Duration> {
        Some(self.idle).filter(|idle| *idle >= REPORT_AFTER)
    }

    /// Returns the time without progress once when it is long enough to be reported.
    pub fn take_report(&mut self) -> Option<Duration> {
        let stalled = self.stalled().filter(|_| !self.is_reported)?;
        self.is_reported = true;
        Some(stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_once_and_ends_with_progress() {
        let start = Instant::now();
        let mut clock = IdleClock::new(start);
        let mut reports = Vec::new();
        for second in (5..=100).step_by(5) {
            let now = start + Duration::from_secs(second);
            assert_eq!(clock.next_look(), now);
            clock.look(Some(second / 60), now);
            reports.extend(clock.take_report().map(|idle| (second, idle.as_secs())));
        }
        assert_eq!(reports, [(35, 30)]);
        assert_eq!(clock.stalled(), Some(Duration::from_secs(40)));
        clock.look(Some(7), start + Duration::from_secs(105));
        assert_eq!(clock.stalled(), None);
    }
}
