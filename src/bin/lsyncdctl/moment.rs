//! Moments on the command line: `-since`.

use std::time::{SystemTime, UNIX_EPOCH};

use lsyncd::sys;

/// The forms of a moment, for error messages.
pub const FORMS: &str = "a time such as 15m, 2h, 3d, 14:30, 2026-01-31, \"2026-01-31 14:30\" or \
                         @SECONDS";

/// Returns the present in seconds since the epoch.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Returns the moment that a text names, in seconds since the epoch: a span before `now`, a time of
/// the day of `now` or a date in local time, or seconds behind `@`.
pub fn parse(text: &str, now: f64) -> Option<f64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok().filter(|it: &f64| it.is_finite());
    }
    if let Some(span) = span(text) {
        return Some((now - span).max(0.0));
    }
    let today = days(now as i64);
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (self::date(date)?, self::time(time)?),
        None => match self::time(text) {
            Some(time) => (today, time),
            None => (self::date(text)?, 0),
        },
    };
    Some(epoch(date * DAY + time) as f64)
}

const DAY: i64 = 24 * 60 * 60;

/// Returns the number of the local day of a moment.
fn days(seconds: i64) -> i64 {
    (seconds + sys::utc_offset(seconds)).div_euclid(DAY)
}

/// Returns the moment of a local time. The offset may change between the guess and the moment.
fn epoch(local: i64) -> i64 {
    let guess = local - sys::utc_offset(local);
    local - sys::utc_offset(guess)
}

/// Returns the seconds of `15m`.
pub fn span(text: &str) -> Option<f64> {
    let unit = match text.chars().last()? {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => DAY as f64,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let is_number = number.starts_with(|c: char| c.is_ascii_digit());
    let number: f64 = number.parse().ok().filter(|_| is_number)?;
    Some(number * unit)
}

/// Returns the seconds of `14:30` or `14:30:59`.
fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let is_valid = hour < 24 && minute < 60 && second < 61 && parts.next().is_none();
    is_valid.then_some(hour * 3600 + minute * 60 + second)
}

/// Returns the days since the epoch of `2026-01-31`.
fn date(text: &str) -> Option<i64> {
    let mut parts = text.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let is_valid = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && parts.next().is_none();
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = (year - i64::from(month < 3), (month + 9) % 12);
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1;
    is_valid.then_some(days - 719_468)
}

fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("2000-03-01"), Some(11_017));
        assert_eq!(date("2024-02-29"), Some(19_782));
        assert_eq!(date("2026-13-01"), None);
        assert_eq!(date("2026-1"), None);
    }

    #[test]
    fn moments() {
        let now = 1_700_000_000.0;
        assert_eq!(parse("@5", now), Some(5.0));
        assert_eq!(parse("15m", now), Some(now - 900.0));
        assert_eq!(parse("1.5h", now), Some(now - 5400.0));
        assert_eq!(parse("2d", now), Some(now - 2.0 * 86_400.0));
        let day = parse("2023-11-14", now).unwrap();
        assert_eq!(parse("2023-11-14 00:00", now), Some(day));
        assert_eq!(parse("2023-11-14T01:02:03", now), Some(day + 3723.0));
        let morning = parse("00:00", now).unwrap();
        assert!((now - 86_400.0..=now).contains(&morning));
        for text in [
            "",
            "m",
            "-5m",
            "infs",
            "25:00",
            "1:2:3:4",
            "yesterday",
            "@x",
            "ü",
        ] {
            assert_eq!(parse(text, now), None, "{text}");
        }
    }
}
