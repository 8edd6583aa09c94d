//! `rsync = { bwlimit = { … } }`: limits of the bandwidth by time of day.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::keys::{BANDWIDTH, BANDWIDTH_ENTRY, Key, unknown};
use super::{text_of, truthy};
use crate::cron::Timetable;

/// Limits of the bandwidth, each from certain times on.
#[derive(Clone, Debug)]
pub struct Bandwidth {
    /// The values of rsync's `--bwlimit`.
    pub limits: Timetable<Vec<u8>>,
    /// A running transfer is ended and repeated when the limit changes.
    pub restart: bool,
}

/// Returns the limits of a sync, if `rsync.bwlimit` is a table.
///
/// # Errors
///
/// The first invalid entry.
pub fn bandwidth(config: &Table) -> Result<Option<Bandwidth>> {
    let Value::Table(rsync) = config.get("rsync")? else {
        return Ok(None);
    };
    let Value::Table(table) = rsync.get("bwlimit")? else {
        return Ok(None);
    };
    check_keys(&table, BANDWIDTH, "rsync.bwlimit.")?;
    let restart = match table.get("restart")? {
        Value::Nil => false,
        Value::Boolean(restart) => restart,
        _ => return Err(wrong("rsync.bwlimit.restart must be true or false.")),
    };
    let mut limits = Timetable::new(crate::sys::utc_offset);
    let mut number = 0;
    for entry in table.sequence_values::<Value>() {
        number += 1;
        let Value::Table(entry) = entry? else {
            let text = "must be a table such as { at = \"0 0 8 * * 1-5\", limit = 1000 }.";
            return Err(wrong(format!("rsync.bwlimit: entry {number} {text}")));
        };
        add(&mut limits, &entry, number)?;
    }
    if number == 0 {
        let text = "rsync.bwlimit needs entries such as { at = \"0 0 8 * * 1-5\", limit = 1000 }.";
        return Err(wrong(text));
    }
    Ok(Some(Bandwidth { limits, restart }))
}

fn add(limits: &mut Timetable<Vec<u8>>, entry: &Table, number: usize) -> Result<()> {
    check_keys(entry, BANDWIDTH_ENTRY, "rsync.bwlimit[].")?;
    let at = entry.get::<Value>("at")?;
    let limit = text_of(&entry.get("limit")?);
    let (Value::String(at), Some(limit)) = (at, limit) else {
        let text = "needs at = \"CRONTAB\" and limit = NUMBER.";
        return Err(wrong(format!("rsync.bwlimit: entry {number} {text}")));
    };
    if !is_rate(&limit) {
        let limit = String::from_utf8_lossy(&limit).into_owned();
        let text = format!(
            "rsync.bwlimit: entry {number}: \"{limit}\" is not a limit. Write a number of KiB per \
             second, with a suffix such as \"1.5m\", or 0 for no limit."
        );
        return Err(wrong(text));
    }
    let at = at.to_string_lossy();
    limits.add(&at, limit).map_err(|why| {
        wrong(format!(
            "rsync.bwlimit: entry {number}: \"{at}\" is not a crontab rule: {why}."
        ))
    })
}

/// Returns true for a rate as rsync(1) reads it: a number with an optional suffix.
fn is_rate(text: &[u8]) -> bool {
    let digits = text
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    let (number, suffix) = text.split_at(digits.count());
    let number = std::str::from_utf8(number).unwrap_or_default();
    let suffix = suffix.to_ascii_lowercase();
    let is_suffix = matches!(
        suffix.first(),
        None | Some(b'b' | b'k' | b'm' | b'g' | b't' | b'p')
    );
    number.parse::<f64>().is_ok() && is_suffix && suffix.len() <= 3
}

/// Refuses a key that a table does not have.
fn check_keys(table: &Table, keys: &[Key], prefix: &str) -> Result<()> {
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        if let Value::String(key) = key
            && truthy(&value)
            && let Some(text) = unknown(keys, prefix, &key.to_string_lossy())
        {
            return Err(config_error_about(&key.to_string_lossy(), text));
        }
    }
    Ok(())
}

fn wrong(text: impl Into<String>) -> mlua::Error {
    config_error_about("bwlimit", text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bwlimit: &str) -> std::result::Result<Option<Bandwidth>, String> {
        let lua = crate::sys::lua();
        let config = format!("{{ rsync = {{ bwlimit = {bwlimit} }} }}");
        let config = lua.load(config).eval().unwrap();
        bandwidth(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_gives_limits_and_a_number_is_left_to_rsync() {
        assert!(read("1000").unwrap().is_none() && read("'1.5m'").unwrap().is_none());
        let table = "{ restart = true, { at = '0 0 8 * * *', limit = 1000 }, \
                     { at = '@daily', limit = '1.5m' } }";
        let limits = read(table).unwrap().unwrap();
        assert!(limits.restart && limits.limits.next(0).is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (table, text) in [
            ("{}", "needs entries"),
            ("{ 5 }", "entry 1 must be a table"),
            ("{ { at = '@daily' } }", "entry 1 needs at"),
            ("{ { at = 5, limit = 5 } }", "entry 1 needs at"),
            (
                "{ { at = '0 8 * * 1-5', limit = 5 } }",
                "\"0 8 * * 1-5\" is not a crontab rule: it has 5",
            ),
            (
                "{ { at = '@daily', limit = 'fast' } }",
                "\"fast\" is not a limit",
            ),
            ("{ { at = '@daily', limit = '--x' } }", "is not a limit"),
            (
                "{ { at = '@daily', limits = 5 } }",
                "Did you mean \"rsync.bwlimit[].limit\"?",
            ),
            (
                "{ restrat = true, { at = '@daily', limit = 5 } }",
                "rsync.bwlimit.restart",
            ),
            (
                "{ restart = 1, { at = '@daily', limit = 5 } }",
                "must be true or false",
            ),
        ] {
            let error = read(table).unwrap_err();
            assert!(error.contains(text), "{table}: {error}");
        }
    }
}
