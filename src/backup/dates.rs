//! Names of dated directories: `2026-11-28`, and in it `21-18-05.042`.

use crate::cron::{self, WallTime};

const DAY_SECONDS: i64 = 86_400;

/// A day of local time, as the number of days since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

impl Day {
    /// Returns the day of a time of local clocks, in seconds.
    fn of(shown: i64) -> Day {
        Day(shown.div_euclid(DAY_SECONDS))
    }

    /// Returns the day of a time.
    pub fn at(time: WallTime) -> Day {
        Day::of(time + crate::sys::utc_offset(time))
    }

    /// Returns the day that many days later.
    pub fn plus(self, days: i64) -> Day {
        Day(self.0 + days)
    }

    /// Returns the name of its directory.
    pub fn name(self) -> String {
        let (year, month, day) = cron::date(self.0);
        format!("{year:04}-{month:02}-{day:02}")
    }
}

/// Returns the directory of a transfer that starts at a time, relative to that of all backups. The
/// time is in milliseconds since the epoch.
pub fn directory(time: i64) -> String {
    let (time, fraction) = (time.div_euclid(1000), time.rem_euclid(1000));
    let shown = time + crate::sys::utc_offset(time);
    let second = shown.rem_euclid(DAY_SECONDS);
    let day = Day::of(shown).name();
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{day}/{hour:02}-{minute:02}-{:02}.{fraction:03}",
        second % 60
    )
}

/// Returns true for the name of a day.
pub fn is_day(name: &[u8]) -> bool {
    name.len() == 10
        && name.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_so_that_names_sort_by_time() {
        let day = Day::of(1_796_000_000);
        assert_eq!(day.name(), "2026-11-30");
        assert_eq!(day.plus(-30).name(), "2026-10-31");
        assert!(day.plus(-30).name() < day.name());
        assert!(is_day(day.name().as_bytes()));
        for name in [
            "",
            "2026-11-3",
            "2026-11-300",
            "2026/11/30",
            "x026-11-30",
            "kept",
        ] {
            assert!(!is_day(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn times_are_those_of_local_clocks() {
        let seconds = 1_796_000_000;
        let shown = seconds - crate::sys::utc_offset(seconds);
        assert_eq!(directory(shown * 1000 + 42), "2026-11-30/00-53-20.042");
        assert_eq!(Day::at(shown).name(), "2026-11-30");
        let later = shown + 13 * 3600 + 9 * 60;
        assert_eq!(directory(later * 1000), "2026-11-30/14-02-20.000");
    }
}
