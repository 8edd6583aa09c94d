//! When a sync's `crontab` has it compare everything.
//!
//! Six fields, seconds first, as the Lua module lsyncd used for this: every field has to
//! match, the day of the month and the day of the week as well. The time is the local time of
//! day. What the hours around a change of daylight saving time mean is crontab(5)'s: a fixed
//! time that is skipped comes right after the gap, one that is repeated comes once.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};

/// Seconds since the epoch, on the clock that people set.
pub type WallTime = i64;

/// How many seconds local time is ahead of UTC at a point in time.
pub type Zone = fn(WallTime) -> i64;

const DAY: i64 = 86_400;

/// A clock that was set back by no more than this (three hours, as cron(8) has it) does not
/// bring back what it passes for the second time.
const SET_BACK: i64 = 3 * 3600;

/// The rules of one sync.
#[derive(Clone, Debug)]
pub struct Crontab {
    rules: Vec<Cron>,
    zone: Zone,
    /// When it was looked at last.
    seen: Option<WallTime>,
    /// When it was due last.
    fired: Option<WallTime>,
    next: Option<WallTime>,
}

impl Crontab {
    /// No rules yet.
    pub fn new(zone: Zone) -> Crontab {
        Crontab {
            rules: Vec::new(),
            zone,
            seen: None,
            fired: None,
            next: None,
        }
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// Why it is none, in words. One that never comes is none.
    pub fn add(&mut self, rule: &str) -> Result<(), String> {
        let fields = rule.split_whitespace().count();
        if fields != 6 && !rule.trim_start().starts_with('@') {
            return Err(format!(
                "it has {fields} fields instead of six: \
                 second, minute, hour, day of month, month, day of week"
            ));
        }
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed)
            .dom_and_dow(true)
            .sloppy_ranges(true)
            .build()
            .parse(rule)
            .map_err(reason)?;
        if self.next_of(&cron, 0).is_none() {
            return Err("it never comes".into());
        }
        self.rules.push(cron);
        Ok(())
    }

    /// Whether a rule has become due since this was asked last. However many times it would
    /// have been due meanwhile, it is so once.
    pub fn is_due(&mut self, now: WallTime) -> bool {
        let seen = self.seen.replace(now);
        if seen.is_none_or(|seen| now < seen) {
            let passed = self.fired.filter(|&fired| fired - now <= SET_BACK);
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

    /// When it will be due, as long as nobody sets the clock.
    pub fn next(&self) -> Option<WallTime> {
        self.next
    }

    fn after(&self, time: WallTime) -> Option<WallTime> {
        let each = self
            .rules
            .iter()
            .filter_map(|rule| self.next_of(rule, time));
        each.min()
    }

    fn next_of(&self, rule: &Cron, time: WallTime) -> Option<WallTime> {
        // A jump of local time that the search does not get over lies within a day.
        [time, time + DAY].into_iter().find_map(|seconds| {
            let zone = self.zone;
            let found = rule.find_next_occurrence(&Local { seconds, zone }, false);
            found.ok().map(|local| local.seconds)
        })
    }
}

fn reason(error: CronError) -> String {
    match error {
        CronError::EmptyPattern => "it is empty".into(),
        CronError::InvalidPattern(text)
        | CronError::IllegalCharacters(text)
        | CronError::ComponentError(text) => text.trim_end_matches('.').to_owned(),
        other => other.to_string(),
    }
}

/// A point in time where clocks show local time.
#[derive(Clone, Debug)]
struct Local {
    seconds: WallTime,
    zone: Zone,
}

impl Local {
    /// What the clock shows, as the seconds since the epoch at which it would show that in UTC.
    fn shown(&self) -> i64 {
        self.seconds + (self.zone)(self.seconds)
    }
}

impl CronDateTime for Local {
    fn to_civil(&self) -> CivilDateTime {
        let shown = self.shown();
        let (year, month, day) = date(shown.div_euclid(DAY));
        let second = u32::try_from(shown.rem_euclid(DAY)).unwrap_or(0);
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(year, month, day),
            CivilTime::from_parts_unchecked(second / 3600, second / 60 % 60, second % 60),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let days = self.shown().div_euclid(DAY).rem_euclid(7);
        Weekday::Thursday.shift(i32::try_from(days).unwrap_or(0))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let day = days(civil.year(), civil.month(), civil.day());
        let time = civil.hour() * 3600 + civil.minute() * 60 + civil.second();
        let shown = day * DAY + i64::from(time);
        // The offsets before and after whatever change is near.
        let at = |offset| shown - offset;
        let exists = |time: &WallTime| time + (self.zone)(*time) == shown;
        let [one, two] = [shown - DAY, shown + DAY].map(self.zone).map(at);
        let local = |seconds| Local {
            seconds,
            zone: self.zone,
        };
        Ok(match (exists(&one), exists(&two)) {
            (false, false) => Resolution::Gap,
            (true, true) if one != two => {
                Resolution::Ambiguous(local(one.min(two)), local(one.max(two)))
            }
            (true, _) => Resolution::Single(local(one)),
            (false, true) => Resolution::Single(local(two)),
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        Some(Local {
            seconds: self.seconds.checked_add(seconds)?,
            zone: self.zone,
        })
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.seconds.cmp(&other.seconds)
    }
}

/// Days of 400 years of the Gregorian calendar, after which it repeats.
const ERA: i64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970.
const EPOCH: i64 = 719_468;

/// The days from 1970 on to a date. Years begin with March here, so that a leap day is the last
/// of its year and the months before it have a regular length.
fn days(year: i32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let month = (i64::from(month) + 9) % 12;
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * ERA + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH
}

/// The date that lies so many days after the first of 1970.
fn date(days: i64) -> (i32, u32, u32) {
    let days = days + EPOCH;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    let year = era * 400 + year + i64::from(month <= 2);
    let small = |number: i64| u32::try_from(number).unwrap_or(1);
    let year = i32::try_from(year).unwrap_or(i32::MAX);
    (year, small(month), small(day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;

    fn utc(_: WallTime) -> i64 {
        0
    }

    /// Central Europe in 2026: summer time from 29 March 01:00 UTC to 25 October 01:00 UTC.
    fn berlin(time: WallTime) -> i64 {
        let summer = at(2026, 3, 29, "01:00:00")..at(2026, 10, 25, "01:00:00");
        if summer.contains(&time) {
            2 * HOUR
        } else {
            HOUR
        }
    }

    /// The seconds since the epoch of a time in UTC.
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
    fn what_is_no_rule_is_told() {
        assert!(wrong("* * * * *").starts_with("it has 5 fields instead of six"));
        assert!(wrong("60 * * * * *").contains("out of bounds"));
        assert!(wrong("x * * * * *").contains("illegal character 'X'"));
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

        /// Against a clock that is looked at every second.
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

        #[test]
        fn no_text_makes_it_panic(rule in "[-*/,0-9a-zA-Z@?#+ ]{0,40}", words in prop::collection::vec("[-*/,0-9LW#+?]{1,6}", 6)) {
            let _ = Crontab::new(berlin).add(&rule);
            let _ = Crontab::new(berlin).add(&words.join(" "));
        }
    }
}
