//! The crontab of one sync: the times at which its rules are due, in local time.
//!
//! A rule has six fields, seconds first, as in the Lua module that lsyncd uses for this. Every
//! field must match, the day of the month and the day of the week as well. Changes of daylight
//! saving time follow crontab(5): a fixed time that is skipped is due right after the gap, a fixed
//! time that is repeated is due once.

use super::rule::{CronRule, DAY};

/// Seconds since the epoch, on the settable clock.
pub type WallTime = i64;

/// A function that returns the offset of local time from UTC in seconds at a point in time.
pub type Zone = fn(WallTime) -> i64;

/// The maximum number of seconds that the clock is set back without repeating due times: three
/// hours, as in cron(8).
const MAX_SET_BACK: i64 = 3 * 3600;

/// The maximum age of the last due time in searches: ten years.
const MAX_PAST: i64 = 3653 * DAY;

/// The rules of one sync.
#[derive(Clone, Debug)]
pub struct Crontab {
    rules: Vec<CronRule>,
    zone: Zone,
    /// The time of the last call of [`Crontab::is_due`].
    checked: Option<WallTime>,
    /// The time at which a rule was last due.
    fired: Option<WallTime>,
    next: Option<WallTime>,
}

impl Crontab {
    /// Returns a crontab without rules.
    pub fn new(zone: Zone) -> Crontab {
        Crontab {
            rules: Vec::new(),
            zone,
            checked: None,
            fired: None,
            next: None,
        }
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// Says why the rule is invalid. A rule that is never due is invalid.
    pub fn add(&mut self, rule: &str) -> Result<(), String> {
        let rule = CronRule::parse(rule)?;
        if self.next_of(&rule, 0).is_none() {
            return Err("it never comes".into());
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Returns true if a rule has become due since the last call. Several times in between
    /// count as one.
    pub fn is_due(&mut self, now: WallTime) -> bool {
        let seen = self.checked.replace(now);
        if seen.is_none_or(|seen| now < seen) {
            let passed = self.fired.filter(|&fired| fired - now <= MAX_SET_BACK);
            self.next = self.after(passed.map_or(now, |fired| fired.max(now)));
            return false;
        }
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        self.fired = Some(now);
        self.next = self.after(now);
        true
    }

    /// Returns the next time at which a rule is due, provided that the clock is not set.
    pub fn next(&self) -> Option<WallTime> {
        self.next
    }

    /// Returns the last time up to `now` at which a rule was due; `None` if none was in the last
    /// years.
    pub(super) fn last(&self, now: WallTime) -> Option<WallTime> {
        let is_over = |time| self.after(time).is_none_or(|next| next > now);
        let earliest = now - MAX_PAST;
        (!is_over(earliest)).then(|| first(earliest, now, is_over))
    }

    /// Returns the first time after `time` at which a rule is due.
    pub(super) fn after(&self, time: WallTime) -> Option<WallTime> {
        let each = self
            .rules
            .iter()
            .filter_map(|rule| self.next_of(rule, time));
        each.min()
    }

    fn next_of(&self, rule: &CronRule, time: WallTime) -> Option<WallTime> {
        if rule.repeats {
            self.next_of_repeated(rule, time)
        } else {
            self.next_of_fixed(rule, time)
        }
    }

    /// Returns the next time of a rule that is due at least every hour. Such a rule continues
    /// through each change of local time.
    fn next_of_repeated(&self, rule: &CronRule, time: WallTime) -> Option<WallTime> {
        let mut from = time + 1;
        for _ in 0..MAX_CHANGES {
            let offset = (self.zone)(from);
            let found = rule.first(from + offset)? - offset;
            if (self.zone)(found) == offset {
                return Some(found);
            }
            // The clocks change before that; continue from the change.
            from = first(from, found, |time| (self.zone)(time) != offset);
        }
        None
    }

    /// Returns the next time of a rule with a fixed time of day. A time that clocks skip is due at
    /// the change, one that they repeat at its first occurrence.
    fn next_of_fixed(&self, rule: &CronRule, time: WallTime) -> Option<WallTime> {
        let zone = self.zone;
        let mut from = time + zone(time) + 1;
        if zone(time - DAY) != zone(time + DAY) {
            from -= MAX_SET_BACK;
        }
        loop {
            let shown = rule.first(from)?;
            let found = self.first_at(shown);
            if found > time {
                return Some(found);
            }
            from = shown + 1;
        }
    }

    /// Returns the first moment at which clocks show this time, or a later one because they skip
    /// it.
    fn first_at(&self, shown: i64) -> WallTime {
        let zone = self.zone;
        let offsets = [zone(shown - DAY), zone(shown + DAY)];
        let early = shown - offsets[0].max(offsets[1]);
        let late = shown - offsets[0].min(offsets[1]);
        for time in [early, late] {
            if time + zone(time) == shown {
                return time;
            }
        }
        first(early, late, |time| time + zone(time) >= shown)
    }
}

/// The maximum number of changes of local time between two times of any rule.
const MAX_CHANGES: usize = 200;

/// Returns the first time from which on `is_so` returns true; it must return true at `end`.
fn first(mut start: WallTime, mut end: WallTime, is_so: impl Fn(WallTime) -> bool) -> WallTime {
    while start < end {
        let middle = start + (end - start) / 2;
        if is_so(middle) {
            end = middle
        } else {
            start = middle + 1
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::rule::{EPOCH, ERA, date};
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;

    /// Returns the days from 1970 on to a date: the inverse of [`date`].
    fn days(year: i32, month: u32, day: u32) -> i64 {
        let year = i64::from(year) - i64::from(month <= 2);
        let month = (i64::from(month) + 9) % 12;
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
        era * ERA + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH
    }

    fn utc(_: WallTime) -> i64 {
        0
    }

    /// Returns the offset of Central Europe in 2026: summer time from 29 March 01:00 UTC to 25
    /// October 01:00 UTC.
    fn berlin(time: WallTime) -> i64 {
        let summer = at(2026, 3, 29, "01:00:00")..at(2026, 10, 25, "01:00:00");
        if summer.contains(&time) {
            2 * HOUR
        } else {
            HOUR
        }
    }

    /// Returns the seconds since the epoch of a time in UTC.
    fn at(year: i32, month: u32, day: u32, time: &str) -> WallTime {
        let mut seconds = 0;
        for part in time.split(':') {
            seconds = seconds * 60 + part.parse::<i64>().unwrap();
        }
        days(year, month, day) * DAY + seconds
    }

    fn crontab(zone: Zone, rules: &[&str]) -> Crontab {
        let mut crontab = Crontab::new(zone);
        rules.iter().for_each(|rule| crontab.add(rule).unwrap());
        crontab
    }

    fn next(zone: Zone, rule: &str, time: WallTime) -> WallTime {
        crontab(zone, &[rule]).after(time).unwrap()
    }

    fn wrong(rule: &str) -> String {
        Crontab::new(utc).add(rule).unwrap_err()
    }

    #[test]
    fn fields_are_seconds_first() {
        let now = at(2026, 11, 23, "07:52:09"); // a Monday
        assert_eq!(next(utc, "*/10 * * * * *", now), now + 1);
        assert_eq!(
            next(utc, "0 */15 * * * *", now),
            at(2026, 11, 23, "08:00:00")
        );
        assert_eq!(next(utc, "0 0 3 * * *", now), at(2026, 11, 24, "03:00:00"));
        assert_eq!(
            next(utc, "5 0,30 1-4/2 * * *", now),
            at(2026, 11, 24, "01:00:05")
        );
        assert_eq!(next(utc, "0 0 0 1 jan *", now), at(2027, 1, 1, "00:00:00"));
        assert_eq!(
            next(utc, "0 0 0 * * SUN", now),
            at(2026, 11, 29, "00:00:00")
        );
        assert_eq!(next(utc, "0 0 0 * * 7", now), at(2026, 11, 29, "00:00:00"));
        assert_eq!(next(utc, "@daily", now), at(2026, 11, 24, "00:00:00"));
    }

    #[test]
    fn day_of_month_and_day_of_week_both_count() {
        let now = at(2026, 11, 23, "00:00:00");
        assert_eq!(
            next(utc, "0 0 0 13 * FRI", now),
            at(2027, 8, 13, "00:00:00")
        );
    }

    #[test]
    fn texts_that_are_no_rule_are_refused() {
        assert!(wrong("* * * * *").starts_with("it has 5 fields instead of six"));
        assert!(wrong("60 * * * * *").contains("out of bounds"));
        assert!(wrong("x * * * * *").contains("illegal character 'x'"));
        assert!(wrong("*/0 * * * * *").contains("zero"));
        assert_eq!(wrong("0 0 0 30 2 *"), "it never comes");
        assert!(wrong("").contains("0 fields"));
        assert!(!wrong("@never").is_empty());
    }

    #[test]
    fn local_time_counts() {
        let now = at(2026, 7, 1, "00:00:00");
        assert_eq!(next(berlin, "0 0 3 * * *", now), at(2026, 7, 1, "01:00:00"));
        let now = at(2026, 12, 1, "00:00:00");
        assert_eq!(
            next(berlin, "0 0 3 * * *", now),
            at(2026, 12, 1, "02:00:00")
        );
    }

    #[test]
    fn a_fixed_time_in_the_gap_comes_right_after_it() {
        let now = at(2026, 3, 28, "12:00:00");
        let first = next(berlin, "0 30 2 * * *", now);
        assert_eq!(first, at(2026, 3, 29, "01:00:00"));
        assert_eq!(
            next(berlin, "0 30 2 * * *", first),
            at(2026, 3, 30, "00:30:00")
        );
    }

    #[test]
    fn a_fixed_time_that_is_repeated_comes_once() {
        let now = at(2026, 10, 24, "12:00:00");
        let first = next(berlin, "0 30 2 * * *", now);
        assert_eq!(first, at(2026, 10, 25, "00:30:00"));
        assert_eq!(
            next(berlin, "0 30 2 * * *", first),
            at(2026, 10, 26, "01:30:00")
        );
    }

    #[test]
    fn what_repeats_goes_on_through_both() {
        let change = at(2026, 10, 25, "01:00:00");
        let mut time = change - 2 * HOUR;
        for _ in 0..16 {
            let then = next(berlin, "0 */15 * * * *", time);
            assert_eq!(then, time + 900);
            time = then;
        }
        let change = at(2026, 3, 29, "01:00:00");
        assert_eq!(next(berlin, "0 */15 * * * *", change - 900), change);
        assert_eq!(next(berlin, "0 */15 * * * *", change), change + 900);
    }

    #[test]
    fn it_is_due_once_however_late() {
        let noon = at(2026, 11, 23, "12:00:00");
        let mut crontab = crontab(utc, &["*/10 * * * * *", "0 0 3 * * *"]);
        assert!(!crontab.is_due(noon));
        assert_eq!(crontab.next(), Some(noon + 10));
        assert!(!crontab.is_due(noon + 9));
        assert!(crontab.is_due(noon + 10));
        assert!(!crontab.is_due(noon + 10));
        assert!(crontab.is_due(noon + 5 * DAY + 1));
        assert_eq!(crontab.next(), Some(noon + 5 * DAY + 10));
    }

    #[test]
    fn a_clock_set_back_neither_repeats_nor_stalls() {
        let three = at(2026, 11, 23, "03:00:00");
        let mut crontab = crontab(utc, &["0 0 3 * * *"]);
        assert!(!crontab.is_due(three - HOUR));
        assert!(crontab.is_due(three));
        assert!(!crontab.is_due(three - 60));
        assert_eq!(crontab.next(), Some(three + DAY), "that was done already");
        assert!(!crontab.is_due(three - 300 * DAY));
        assert_eq!(crontab.next(), Some(three - 299 * DAY));
    }

    #[test]
    fn without_rules_nothing_is_due() {
        let mut none = Crontab::new(utc);
        assert!(!none.is_due(0) && !none.is_due(DAY));
        assert_eq!(none.next(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn dates_are_those_of_a_calendar(day in -1_000_000..1_000_000i64) {
            let (year, month, dom) = date(day);
            prop_assert_eq!(days(year, month, dom), day);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, 28 + u32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let tomorrow = match (month, dom) {
                (12, 31) => (year + 1, 1, 1),
                (month, dom) if dom == length[month as usize - 1] => (year, month + 1, 1),
                (month, dom) => (year, month, dom + 1),
            };
            prop_assert_eq!(date(day + 1), tomorrow);
        }

        /// Compares with a clock that is checked every second.
        #[test]
        fn the_next_time_is_the_first_that_matches(
            start in at(2026, 3, 28, "20:00:00")..at(2026, 3, 29, "04:00:00"),
            second in 0..60i64, step in 1..30i64, winter: bool,
        ) {
            let start = start + if winter { 210 * DAY } else { 0 };
            let rule = format!("{second} */{step} * * * *");
            let matches = |time: &i64| {
                let shown = time + berlin(*time);
                shown % 60 == second && shown / 60 % 60 % step == 0
            };
            let naive = (start + 1..).find(matches).unwrap();
            prop_assert_eq!(next(berlin, &rule, start), naive);
        }

        /// Compares with an observer who checks the clock every second and notes the times it has
        /// shown.
        #[test]
        fn a_fixed_time_comes_once_a_day(
            start in at(2026, 3, 28, "23:00:00")..at(2026, 3, 29, "03:00:00"),
            hour in 0..5i64, minute in 0..60i64, second in 0..60i64, winter: bool,
        ) {
            let start = start + if winter { 210 * DAY } else { 0 };
            let rule = format!("{second} {minute} {hour} * * *");
            let wanted = hour * HOUR + minute * 60 + second;
            let shown = |time: i64| time + berlin(time);
            let mut latest = (start - 3 * HOUR..=start).map(shown).max().unwrap();
            let naive = (start + 1..).find(|&time| {
                let passed = latest + 1..=shown(time);
                latest = latest.max(shown(time));
                passed.into_iter().any(|local| local.rem_euclid(DAY) == wanted)
            });
            prop_assert_eq!(next(berlin, &rule, start), naive.unwrap());
        }

        #[test]
        fn no_text_makes_it_panic(rule in "[-*/,0-9a-zA-Z@?#+ ]{0,40}", words in prop::collection::vec("[-*/,0-9LW#+?]{1,6}", 6)) {
            let _ = Crontab::new(berlin).add(&rule);
            let _ = Crontab::new(berlin).add(&words.join(" "));
        }
    }
}
