//! Values that change at the times of crontab rules.

use super::schedule::{Crontab, WallTime, Zone};

/// Values, each in force from the times of a rule on, until another rule is due.
///
/// The value in force is computed from the time alone, so it is correct after restarts and after
/// changes of the clock.
#[derive(Clone, Debug)]
pub struct Timetable<T> {
    zone: Zone,
    entries: Vec<(Crontab, T)>,
}

impl<T> Timetable<T> {
    /// Returns a timetable without values.
    pub fn new(zone: Zone) -> Timetable<T> {
        Timetable {
            zone,
            entries: Vec::new(),
        }
    }

    /// Adds a value that is in force from the times of this rule on.
    ///
    /// # Errors
    ///
    /// Says why the rule is invalid.
    pub fn add(&mut self, rule: &str, value: T) -> Result<(), String> {
        let mut crontab = Crontab::new(self.zone);
        crontab.add(rule)?;
        self.entries.push((crontab, value));
        Ok(())
    }

    /// Returns the value in force at a time: that of the rule that was due last, of several the
    /// last one. `None` if none was due in the last years.
    pub fn at(&self, now: WallTime) -> Option<&T> {
        let due = self.entries.iter();
        let due = due.filter_map(|(crontab, value)| Some((crontab.last(now)?, value)));
        due.max_by_key(|(last, _)| *last).map(|(_, value)| value)
    }

    /// Returns the next time after `now` at which a rule is due.
    pub fn next(&self, now: WallTime) -> Option<WallTime> {
        let next = self.entries.iter();
        next.filter_map(|(crontab, _)| crontab.after(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400;
    const HOUR: i64 = 3600;

    /// Thursday, 1 January 1970 is day 0, so that 4 is a Monday.
    fn office_hours() -> Timetable<u32> {
        let mut table = Timetable::new(|_| 0);
        table.add("0 0 8 * * 1-5", 1000).unwrap();
        table.add("0 0 18 * * 1-5", 0).unwrap();
        table
    }

    #[test]
    fn the_rule_that_was_due_last_is_in_force() {
        let table = office_hours();
        let monday = 704 * DAY;
        for (time, value, next) in [
            (monday + 8 * HOUR - 1, 0, monday + 8 * HOUR),
            (monday + 8 * HOUR, 1000, monday + 18 * HOUR),
            (monday + 18 * HOUR, 0, monday + DAY + 8 * HOUR),
            (monday + 5 * DAY + 12 * HOUR, 0, monday + 7 * DAY + 8 * HOUR),
        ] {
            assert_eq!(table.at(time), Some(&value), "{time}");
            assert_eq!(table.next(time), Some(next), "{time}");
        }
        let never: Timetable<u32> = Timetable::new(|_| 0);
        assert_eq!((never.at(0), never.next(0)), (None, None));
    }

    #[test]
    fn of_rules_that_are_due_together_the_last_one_counts() {
        let mut table = Timetable::new(|_| 0);
        table.add("0 0 * * * *", 1).unwrap();
        table.add("0 0 8 * * *", 2).unwrap();
        assert_eq!(table.at(800 * DAY + 8 * HOUR + 5), Some(&2));
        assert_eq!(table.at(800 * DAY + 9 * HOUR + 5), Some(&1));
        assert!(table.add("0 8 * * *", 3).unwrap_err().contains("5 fields"));
    }

    proptest! {
        /// From one change to the next one the value stays the same.
        #[test]
        fn the_value_changes_only_at_the_next_time(time in 400 * DAY..40_000 * DAY, part in 0.0..1.0f64) {
            let table = office_hours();
            let next = table.next(time).unwrap();
            let between = time + ((next - time - 1) as f64 * part) as i64;
            prop_assert_eq!(table.at(between), table.at(time));
            prop_assert_ne!(table.at(next), table.at(time));
        }
    }
}
