//! Series of each sync: pending entries, sent bytes, failures and lag of the last hour and the last
//! day, in fixed memory.
//!
//! | file | what it does |
//! |---|---|
//! | `ring` | the series of one length of time |
//!
//! The daemon is not woken for the series: values that do not change while it sleeps are filled in
//! afterwards. The room may call `status` and `id`, and nothing else of the program.

mod ring;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ring::{TrendRing, TrendValues};

use crate::id::SyncId;
use crate::status::trends::{Trend, TrendPage};

/// The minimum time between two samples.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The state of a sync at one moment.
#[derive(Clone, Debug)]
pub struct TrendSample {
    /// The sync.
    pub sync: SyncId,
    /// Its name.
    pub name: String,
    /// The number of pending entries.
    pub pending: usize,
    /// The bytes sent since the sync was created.
    pub bytes: u64,
    /// The number of failed children since then.
    pub failures: u64,
    /// The seconds by which the target is behind.
    pub lag: f64,
}

/// The series of all syncs.
pub struct Trends {
    start: Instant,
    sampled: Option<Instant>,
    /// A turn has passed since the last sample.
    is_due: bool,
    syncs: HashMap<SyncId, SyncTrend>,
}

struct SyncTrend {
    name: String,
    hour: TrendRing,
    day: TrendRing,
    /// The counters at the last sample.
    bytes: u64,
    failures: u64,
}

impl Trends {
    /// Returns series that begin now.
    pub fn new(now: Instant) -> Trends {
        Trends {
            start: now,
            sampled: None,
            is_due: false,
            syncs: HashMap::new(),
        }
    }

    /// Returns the time of the next sample without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let sampled = self.sampled.filter(|_| self.is_due)?;
        Some(sampled + MIN_INTERVAL)
    }

    /// Takes in a turn of the loop, with the state of all syncs at its end.
    pub fn on_turn(&mut self, now: Instant, samples: impl FnOnce() -> Vec<TrendSample>) {
        self.is_due = self.sampled.is_some_and(|last| now < last + MIN_INTERVAL);
        if self.is_due {
            return;
        }
        self.sampled = Some(now);
        let seconds = self.seconds(now);
        let samples = samples();
        let mut before = std::mem::take(&mut self.syncs);
        let mut new = Vec::new();
        for sample in samples {
            match before.remove(&sample.sync) {
                Some(trend) => {
                    self.syncs.insert(sample.sync, trend.with(sample, seconds));
                }
                None => new.push(sample),
            }
        }
        // A reload replaces a sync by one of the same name.
        for sample in new {
            let same = before.iter().find(|(_, trend)| trend.name == sample.name);
            let same = same.map(|(id, _)| *id);
            let trend = match same.and_then(|id| before.remove(&id)) {
                Some(trend) => trend.renewed(),
                None => SyncTrend::new(&sample, seconds),
            };
            self.syncs.insert(sample.sync, trend.with(sample, seconds));
        }
    }

    /// Returns the series of these syncs.
    pub fn page(&self, syncs: impl Iterator<Item = SyncId>, now: Instant) -> TrendPage {
        let seconds = self.seconds(now);
        let trends = syncs.filter_map(|id| {
            let trend = self.syncs.get(&id)?;
            let series = Trend {
                hour: trend.hour.series(seconds),
                day: trend.day.series(seconds),
            };
            Some((trend.name.clone(), series))
        });
        TrendPage {
            syncs: trends.collect(),
        }
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

impl SyncTrend {
    /// Returns empty series of a sync whose counters have these values.
    fn new(sample: &TrendSample, seconds: u64) -> SyncTrend {
        SyncTrend {
            name: sample.name.clone(),
            hour: TrendRing::hour(seconds),
            day: TrendRing::day(seconds),
            bytes: sample.bytes,
            failures: sample.failures,
        }
    }

    /// Returns the series for a sync whose counters start at zero again.
    fn renewed(self) -> SyncTrend {
        SyncTrend {
            bytes: 0,
            failures: 0,
            ..self
        }
    }

    fn with(mut self, sample: TrendSample, seconds: u64) -> SyncTrend {
        let values = TrendValues {
            pending: u32::try_from(sample.pending).unwrap_or(u32::MAX),
            bytes: sample.bytes.saturating_sub(self.bytes),
            failures: u32::try_from(sample.failures.saturating_sub(self.failures))
                .unwrap_or(u32::MAX),
            lag: sample.lag as f32,
        };
        self.hour.add(values, seconds);
        self.day.add(values, seconds);
        (self.name, self.bytes, self.failures) = (sample.name, sample.bytes, sample.failures);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        trends: Trends,
        start: Instant,
        sync: SyncId,
    }

    impl Fixture {
        fn new() -> Fixture {
            let start = Instant::now();
            Fixture {
                trends: Trends::new(start),
                start,
                sync: SyncId::new(),
            }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn turn(&mut self, seconds: f64, pending: usize, bytes: u64, failures: u64, lag: f64) {
            let sample = TrendSample {
                sync: self.sync,
                name: "one".into(),
                pending,
                bytes,
                failures,
                lag,
            };
            let now = self.at(seconds);
            self.trends.on_turn(now, || vec![sample]);
        }

        fn trend(&self, seconds: f64) -> Trend {
            let now = self.at(seconds);
            let page = self.trends.page([self.sync].into_iter(), now);
            page.syncs.get("one").cloned().unwrap_or_default()
        }
    }

    #[test]
    fn the_last_state_before_a_sleep_is_sampled() {
        let mut fixture = Fixture::new();
        fixture.turn(0.0, 0, 0, 0, 0.0);
        assert_eq!(fixture.trends.deadline(), None);
        fixture.turn(0.3, 9, 0, 0, 0.3);
        assert_eq!(fixture.trends.deadline(), Some(fixture.at(1.0)));
        fixture.turn(1.0, 0, 500, 0, 0.0);
        assert_eq!(fixture.trends.deadline(), None);
        let hour = fixture.trend(200.0).hour;
        assert_eq!(hour.pending, [0, 0, 0, 0]);
        assert_eq!(hour.bytes, [500, 0, 0, 0]);
    }

    #[test]
    fn what_lasts_through_a_sleep_is_filled_in() {
        let mut fixture = Fixture::new();
        fixture.turn(10.0, 3, 100, 1, 5.0);
        fixture.turn(200.0, 4, 130, 3, 195.0);
        let hour = fixture.trend(200.0).hour;
        assert_eq!(hour.pending, [3, 3, 3, 4]);
        assert_eq!(hour.bytes, [0, 0, 0, 30]);
        assert_eq!(hour.failures, [0, 0, 0, 2]);
        assert_eq!(hour.lag, [54.0, 114.0, 174.0, 195.0]);
    }

    #[test]
    fn the_ends_of_hour_and_day_are_kept() {
        let mut fixture = Fixture::new();
        for minute in 0..3000u64 {
            fixture.turn(minute as f64 * 60.0, minute as usize, minute * 10, 0, 0.0);
        }
        let trend = fixture.trend(2999.0 * 60.0);
        assert_eq!(
            (trend.hour.pending.len(), trend.day.pending.len()),
            (60, 96)
        );
        assert_eq!(trend.hour.pending.last(), Some(&2999));
        // Each span begins with what the one before has left.
        assert_eq!(trend.hour.pending.first(), Some(&2940));
        assert_eq!(trend.hour.bytes.iter().sum::<u64>(), 600);
        assert_eq!(trend.day.bytes.iter().sum::<u64>(), 95 * 150 + 150);
    }

    #[test]
    fn a_reload_keeps_the_series_of_a_name() {
        let mut fixture = Fixture::new();
        fixture.turn(0.0, 5, 100, 2, 0.0);
        fixture.sync = SyncId::new();
        fixture.turn(61.0, 0, 30, 1, 0.0);
        let hour = fixture.trend(61.0).hour;
        assert_eq!(hour.pending, [5, 5]);
        assert_eq!((hour.bytes, hour.failures), (vec![0, 30], vec![0, 1]));
        assert_eq!(fixture.trends.syncs.len(), 1);
    }
}
