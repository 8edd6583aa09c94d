//! `crontab = { … }`: times at which a sync compares its whole source with its target.
//!
//! * `rule`: the six fields of one rule;
//! * `schedule`: the rules of one sync, in local time;
//! * `timer`: wakes the event loop, on the clock that people set.
//!
//! The room knows neither syncs nor queues: the event loop asks each [`Crontab`] whether it
//! is due and queues the comparison.

mod rule;
mod schedule;
mod timer;

pub use schedule::{Crontab, WallTime, Zone};
pub use timer::{CronTimer, wall_time};
