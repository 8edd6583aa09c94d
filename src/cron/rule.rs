//! One rule of a crontab: its six fields, and the times of day and dates that match them. Time
//! zones are handled in `schedule`.

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// One rule: for each field the matching values, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronRule {
    /// Second, minute, hour.
    time: [u64; 3],
    days: u64,
    months: u64,
    weekdays: u64,
    /// True if the hour is a star, or a star with a step.
    pub repeats: bool,
}

/// A field: its name, its first and last value, and names of values from the first on.
type Field = (&'static str, u32, u32, &'static [&'static str]);

const FIELDS: [Field; 6] = [
    ("second", 0, 59, &[]),
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    (
        "month",
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (
        "day of week",
        0,
        7,
        &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ),
];

/// Names of crontab(5) for whole rules.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@midnight", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
];

/// The maximum number of days to the next date that matches: 29 February of a given weekday occurs
/// at least once in 40 years.
const MAX_DAYS_AHEAD: i64 = 14_611;

impl CronRule {
    /// Parses six fields, or a name for them.
    ///
    /// # Errors
    /// Returns the reason why it is not a rule.
    pub fn parse(text: &str) -> Result<CronRule, String> {
        let text = text.trim().to_lowercase();
        let named = NAMED.iter().find(|(name, _)| *name == text);
        let text = named.map_or(text.as_str(), |(_, rule)| rule);
        let fields: Vec<&str> = text.split_whitespace().collect();
        let Ok(fields) = <[&str; 6]>::try_from(fields.as_slice()) else {
            return Err(format!(
                "it has {} fields instead of six: \
                 second, minute, hour, day of month, month, day of week",
                fields.len()
            ));
        };
        let mut bits = [0; 6];
        for (at, field) in FIELDS.iter().enumerate() {
            bits[at] = values(fields[at], field)?;
        }
        let [second, minute, hour, days, months, mut weekdays] = bits;
        // Both 0 and 7 are Sunday.
        weekdays |= weekdays >> 7 & 1;
        Ok(CronRule {
            time: [second, minute, hour],
            days,
            months,
            weekdays,
            repeats: fields[2].starts_with(['*', '?']),
        })
    }

    /// Returns the first matching time of a clock from `shown` on; both are expressed as if the
    /// clock showed UTC.
    pub fn first(&self, shown: i64) -> Option<i64> {
        let today = shown.div_euclid(DAY);
        let now = shown.rem_euclid(DAY);
        if self.is_day(today)
            && let Some(second) = self.first_of_day(now)
        {
            return Some(today * DAY + second);
        }
        let day = (today + 1..today + MAX_DAYS_AHEAD).find(|&day| self.is_day(day))?;
        Some(day * DAY + self.first_of_day(0)?)
    }

    fn is_day(&self, day: i64) -> bool {
        let (_, month, dom) = date(day);
        // The first day of 1970 was a Thursday.
        let weekday = (day + 4).rem_euclid(7);
        self.months >> month & 1 == 1
            && self.days >> dom & 1 == 1
            && self.weekdays >> weekday & 1 == 1
    }

    fn first_of_day(&self, second: i64) -> Option<i64> {
        let [seconds, minutes, hours] = self.time;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let at = |hour: i64, minute: i64, second: i64| hour * 3600 + minute * 60 + second;
        let same_minute = || {
            let second = next_bit(seconds, second % 60)?;
            Some(at(hour, minute, second))
        };
        let same_hour = || {
            let minute = next_bit(minutes, minute + 1)?;
            Some(at(hour, minute, next_bit(seconds, 0)?))
        };
        let later = || {
            let hour = next_bit(hours, hour + 1)?;
            Some(at(hour, next_bit(minutes, 0)?, next_bit(seconds, 0)?))
        };
        let this_hour = hours >> hour & 1 == 1;
        let this_minute = this_hour && minutes >> minute & 1 == 1;
        this_minute
            .then(same_minute)
            .flatten()
            .or_else(|| this_hour.then(same_hour).flatten())
            .or_else(later)
    }
}

/// Returns the position of the lowest set bit from `from` on.
fn next_bit(bits: u64, from: i64) -> Option<i64> {
    let left = bits.checked_shr(u32::try_from(from).ok()?)?;
    (left != 0).then(|| from + i64::from(left.trailing_zeros()))
}

/// Parses the values of a field: a list of stars, values and ranges, each optionally with a step.
fn values(text: &str, field: &Field) -> Result<u64, String> {
    let &(name, first, last, _) = field;
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step, name)?),
            None => (part, 1),
        };
        if step == 0 {
            return Err(format!("the step of the {name} is zero"));
        }
        let (low, high) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (first, last),
            Some((low, high)) => (value(low, field)?, value(high, field)?),
            // A single value with a step is the start of a range.
            None => match (value(range, field)?, part.contains('/')) {
                (low, true) => (low, last),
                (low, false) => (low, low),
            },
        };
        if low > high {
            return Err(format!("the range \"{range}\" of the {name} is backwards"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        for value in (low..=high).step_by(step) {
            bits |= 1 << value;
        }
    }
    Ok(bits)
}

fn value(text: &str, field: &Field) -> Result<u32, String> {
    let &(name, first, last, names) = field;
    if let Some(at) = names.iter().position(|name| *name == text) {
        return Ok(first + u32::try_from(at).unwrap_or(0));
    }
    match number(text, name)? {
        number if (first..=last).contains(&number) => Ok(number),
        number => Err(format!(
            "{number} is out of bounds: the {name} is {first} to {last}"
        )),
    }
}

fn number(text: &str, name: &str) -> Result<u32, String> {
    match text.chars().find(|each| !each.is_ascii_digit()) {
        Some(other) => Err(format!("illegal character '{other}' in the {name}")),
        None if text.is_empty() => Err(format!("a number is missing in the {name}")),
        None => Ok(text.parse().unwrap_or(u32::MAX)),
    }
}

/// Days of 400 years of the Gregorian calendar, after which it repeats.
pub const ERA: i64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970.
pub const EPOCH: i64 = 719_468;

/// Returns the date that many days after the first of 1970. Years begin with March here, so that a
/// leap day is the last of its year and the months before it have regular lengths.
pub fn date(days: i64) -> (i32, u32, u32) {
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
