//! The values of the last spans of one length.

use std::collections::VecDeque;

use crate::status::trends::TrendSeries;

/// The values of a span of time: maxima of what lasts, sums of what happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrendValues {
    pub pending: u32,
    pub bytes: u64,
    pub failures: u32,
    pub lag: f32,
}

/// The last spans of one length.
#[derive(Clone, Debug)]
pub struct TrendRing {
    /// The length of a span in seconds.
    step: u64,
    /// The maximum number of spans.
    spans: usize,
    /// The number of the current span since the start.
    current: u64,
    values: VecDeque<TrendValues>,
    /// The lasting values of the last sample.
    last: TrendValues,
    last_at: u64,
}

impl TrendRing {
    /// Returns an empty ring of the minutes of an hour.
    pub fn hour(seconds: u64) -> TrendRing {
        TrendRing::new(60, 60, seconds)
    }

    /// Returns an empty ring of the quarters of an hour of a day.
    pub fn day(seconds: u64) -> TrendRing {
        TrendRing::new(900, 96, seconds)
    }

    fn new(step: u64, spans: usize, seconds: u64) -> TrendRing {
        TrendRing {
            step,
            spans,
            current: seconds / step,
            values: VecDeque::from([TrendValues::default()]),
            last: TrendValues::default(),
            last_at: seconds,
        }
    }

    /// Adds a sample: the state at this time, and what has happened since the last one.
    pub fn add(&mut self, sample: TrendValues, seconds: u64) {
        self.advance(seconds);
        if let Some(value) = self.values.back_mut() {
            value.pending = value.pending.max(sample.pending);
            value.lag = value.lag.max(sample.lag);
            value.bytes += sample.bytes;
            value.failures = value.failures.saturating_add(sample.failures);
        }
        (self.last, self.last_at) = (sample, seconds);
    }

    /// Begins the span of this time. Nothing has changed since the last sample, but the lag has
    /// grown if there was one.
    fn advance(&mut self, seconds: u64) {
        let target = seconds / self.step;
        let lag_at = |time: u64| match self.last.lag {
            lag if lag > 0.0 => lag + time.saturating_sub(self.last_at) as f32,
            _ => 0.0,
        };
        // Spans that would be dropped at once are not made.
        self.current = self.current.max(target.saturating_sub(self.spans as u64));
        while self.current < target {
            let end = (self.current + 1) * self.step - 1;
            if let Some(value) = self.values.back_mut() {
                value.lag = value.lag.max(lag_at(end.max(self.last_at)));
            }
            self.current += 1;
            if self.values.len() == self.spans {
                self.values.pop_front();
            }
            self.values.push_back(TrendValues {
                pending: self.last.pending,
                lag: 0.0,
                ..TrendValues::default()
            });
        }
    }

    /// Returns the spans up to this time.
    pub fn series(&self, seconds: u64) -> TrendSeries {
        let mut ring = self.clone();
        ring.advance(seconds);
        let values = ring.values.iter();
        TrendSeries {
            step: ring.step,
            spans: ring.spans,
            pending: values.clone().map(|value| value.pending).collect(),
            bytes: values.clone().map(|value| value.bytes).collect(),
            failures: values.clone().map(|value| value.failures).collect(),
            lag: values.map(|value| value.lag).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_sync_is_small_and_does_not_grow() {
        let (mut hour, mut day) = (TrendRing::hour(0), TrendRing::day(0));
        for second in (0..1_000_000).step_by(30) {
            for ring in [&mut hour, &mut day] {
                ring.add(TrendValues::default(), second);
            }
        }
        let spans = hour.values.capacity() + day.values.capacity();
        assert!(spans * size_of::<TrendValues>() < 16 * 1024, "{spans}");
        // A clock that jumps ahead costs no more.
        hour.add(TrendValues::default(), u64::MAX / 2);
        assert_eq!(hour.values.len(), 60);
    }
}
