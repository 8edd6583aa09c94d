//! Retry delay of a failing sync. It doubles from the sync's delay, at least a second, up to five
//! minutes, and varies at random so that several syncs do not retry in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const MAX_WAIT: Duration = Duration::from_secs(300);

/// The retry delays of one sync.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    /// Returns delays that begin with the sync's delay.
    pub fn new(delay: Option<Duration>) -> Backoff {
        let first = delay
            .unwrap_or_default()
            .clamp(Duration::from_secs(1), MAX_WAIT);
        Backoff { first, failures: 0 }
    }

    /// Counts a failure. Returns the delay before the retry.
    pub fn fail(&mut self) -> Duration {
        let wait = self.wait(self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Returns the delay after a failure that `before` failures precede. The first delay is exact,
    /// as in lsyncd; later ones vary by a tenth.
    pub fn wait(&self, before: u32) -> Duration {
        let factor = 1u32.checked_shl(before).unwrap_or(u32::MAX);
        let wait = self.first.saturating_mul(factor).min(MAX_WAIT);
        if before == 0 {
            return wait;
        }
        let random = RandomState::new().hash_one(before) % 100;
        wait - wait * random as u32 / 1000
    }

    /// Returns the number of failures from which on the delay does not grow.
    pub fn last_step(&self) -> u32 {
        let grows = |before: &u32| self.first.saturating_mul(1 << before) < MAX_WAIT;
        (0..u32::BITS)
            .find(|before| !grows(before))
            .unwrap_or_default()
    }

    /// Returns the number of failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Resets the delay after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_limit_and_a_success_ends_them() {
        let mut backoff = Backoff::new(Some(Duration::from_secs(15)));
        assert_eq!(backoff.fail(), Duration::from_secs(15));
        for expected in [30, 60, 120, 240, 300, 300] {
            let wait = backoff.fail().as_secs_f64();
            let expected = f64::from(expected);
            assert!(
                wait <= expected && wait > expected * 0.89,
                "{wait} for {expected}"
            );
        }
        for _ in 0..100 {
            assert!(backoff.fail() <= MAX_WAIT);
        }
        backoff.reset();
        assert_eq!(backoff.fail(), Duration::from_secs(15));
    }

    #[test]
    fn without_a_delay_the_first_wait_is_a_second() {
        assert_eq!(Backoff::new(None).fail(), Duration::from_secs(1));
    }
}
