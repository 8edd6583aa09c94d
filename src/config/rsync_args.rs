//! The arguments common to all rsync calls of a sync, computed from its `rsync` table.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::keys::{Argument, RSYNC, ValueType};
use super::{kind_of, text_of, truthy};
use crate::rsync_syntax;

/// The keys that `archive = true` switches on unless they are set.
const ARCHIVE_KEYS: &[&str] = &[
    "recursive",
    "links",
    "perms",
    "times",
    "group",
    "owner",
    "devices",
    "specials",
];

/// An option for full comparisons. With the list of a batch, rsync would delete everything that is
/// not listed.
const DELETE_EXCLUDED: &str = "delete-excluded";

/// Returns true if `_extra` has one of these long options or letters.
pub fn has_extra(rsync: &Table, options: &[&str], letters: &[u8]) -> Result<bool> {
    let Value::Table(extra) = rsync.get("_extra")? else {
        return Ok(false);
    };
    let words = extra.sequence_values::<Value>();
    let words = words.map(|word| Ok(text_of(&word?).unwrap_or_default()));
    let words = words.collect::<Result<Vec<_>>>()?;
    Ok(rsync_syntax::has(&words, options, letters))
}

/// Sets `delete_excluded` in `rsync` if the `_extra` of `given` has that option, which is not among
/// the [`words`].
pub fn adopt_delete_excluded(rsync: &Table, given: &Table) -> Result<()> {
    if has_extra(given, &[DELETE_EXCLUDED], b"")? {
        rsync.set("delete_excluded", true)?;
    }
    Ok(())
}

/// Returns the arguments in this order: one word of short options, `_extra`, `--devices` or
/// `--specials` if only one of them is on, the long options.
///
/// # Errors
///
/// A value of the wrong type, or `_computed` set by the configuration.
pub fn words(rsync: &Table) -> Result<Vec<Vec<u8>>> {
    if !rsync.get::<Value>("_computed")?.is_nil() {
        return Err(config_error_about(
            "_computed",
            "please do not use the internal rsync._computed parameter",
        ));
    }
    let incremental: Value = rsync.get("inc_recursive")?;
    if !matches!(incremental, Value::Nil | Value::Boolean(_)) {
        let kind = kind_of(&incremental);
        let text = format!("Parameter \"rsync.inc_recursive\" must be true or false, not {kind}.");
        return Err(config_error_about("inc_recursive", text));
    }
    let archive = truthy(&rsync.get("archive")?);
    let on = |key: &str| -> Result<bool> {
        Ok(match rsync.get::<Value>(key)? {
            Value::Nil => archive && ARCHIVE_KEYS.contains(&key),
            value => truthy(&value),
        })
    };

    let mut letters = vec![b'-'];
    for key in RSYNC {
        if let Argument::Letter(letter) = key.argument
            && on(key.name)?
        {
            letters.push(letter);
        }
    }
    let (devices, specials) = (on("devices")?, on("specials")?);
    if devices && specials {
        letters.push(b'D');
    }
    let mut words = Vec::new();
    if letters.len() > 1 {
        words.push(letters);
    }
    extra_words(rsync, &mut words)?;
    match (devices, specials) {
        (true, false) => words.push(b"--devices".to_vec()),
        (false, true) => words.push(b"--specials".to_vec()),
        _ => {}
    }
    for key in RSYNC.iter().filter(|key| key.argument == Argument::Long) {
        let value: Value = rsync.get(key.name)?;
        // Limits by time of day are added when a transfer starts.
        let is_timetable = key.name == "bwlimit" && value.is_table();
        if !truthy(&value) || is_timetable {
            continue;
        }
        let mut word = key.option().into_bytes();
        if !matches!(key.value, ValueType::Switch) {
            let text = text_of(&value).ok_or_else(|| {
                let kind = kind_of(&value);
                let text = format!(
                    "Parameter \"rsync.{}\" must be a text or a number, not {kind}.",
                    key.name
                );
                config_error_about(key.name, text)
            })?;
            word.push(b'=');
            word.extend(text);
        }
        words.push(word);
    }
    Ok(words)
}

fn extra_words(rsync: &Table, words: &mut Vec<Vec<u8>>) -> Result<()> {
    let wrong = || {
        config_error_about(
            "_extra",
            "Parameter \"rsync._extra\" must be a list of texts.",
        )
    };
    match rsync.get("_extra")? {
        // As in lsyncd, a text has no effect; a warning is logged.
        Value::Nil | Value::Boolean(false) | Value::String(_) => {}
        Value::Table(extra) => {
            let own = extra.sequence_values::<Value>();
            let own = own.map(|value| text_of(&value?).ok_or_else(wrong));
            let own = own.collect::<Result<Vec<_>>>()?;
            words.extend(rsync_syntax::without(&own, &[DELETE_EXCLUDED], b""));
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(rsync: &str) -> String {
        let lua = crate::sys::lua();
        match words(&lua.load(rsync).eval().unwrap()) {
            Ok(words) => String::from_utf8(words.join(&b' ')).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn archive_fills_in_what_is_not_said() {
        assert_eq!(
            computed("{ archive = true, protect_args = true }"),
            "-glopstD"
        );
        assert_eq!(computed("{ archive = true, owner = false }"), "-glptD");
        assert_eq!(
            computed("{ archive = true, devices = false }"),
            "-glopt --specials"
        );
    }

    #[test]
    fn order_is_letters_extra_long() {
        assert_eq!(
            computed("{ links = true, bwlimit = 1.5, append = true, _extra = { '-x', 2 } }"),
            "-l -x 2 --append --bwlimit=1.5"
        );
        assert_eq!(computed("{ links = false, timeout = 10 }"), "--timeout=10");
        assert_eq!(computed("{}"), "");
        assert_eq!(
            computed("{ _extra = { '-x', '--delete-excluded', '-y' } }"),
            "-x -y"
        );
    }

    #[test]
    fn wrong_values_are_named() {
        assert!(computed("{ bwlimit = true }").contains("\"rsync.bwlimit\""));
        assert!(computed("{ _extra = 5 }").contains("\"rsync._extra\""));
        assert_eq!(computed("{ times = true, _extra = '-x' }"), "-t");
        assert!(computed("{ _computed = 'x' }").contains("_computed"));
    }
}
