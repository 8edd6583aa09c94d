//! `crontab = { … }`: times at which a sync compares its whole source with its target, and values
//! by time of day.
//!
//! | file | what it does |
//! |---|---|
//! | `rule` | the six fields of one rule |
//! | `schedule` | the rules of one sync, in local time |
//! | `timetable` | values that change at the times of rules |
//! | `timer` | wakes the event loop, on the settable clock |
//!
//! The room knows neither syncs nor queues: the event loop asks each [`Crontab`] if it is due and
//! queues the full sync. The room may call `log`.

mod rule;
mod schedule;
mod timer;
mod timetable;

pub use rule::date;
pub use schedule::{Crontab, WallTime, Zone};
pub use timer::{CronTimer, wall_time};
pub use timetable::Timetable;
