//! The typed configuration of a sync, read from its merged table after `prepare`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use mlua::{Result, Table, Value};

use super::backup::{self, Backup};
use super::bandwidth::{Bandwidth, bandwidth};
use super::check::{CheckConfig, check, is_check};
use super::config_error::{bare_config_error, config_error_about};
use super::guard::{Guard, guard};
use super::hook::{Hook, hook};
use super::keys::{SYNC, find};
use super::priority::priority;
use super::settings_table::lossy;
use super::source::named_directory;
use super::values;
use super::verify::VerifyConfig;
use super::warm_start::WarmStartConfig;
use super::{number_of, text_of, texts, truthy};
use crate::filter::{Filter, parse_exclude_file, parse_filter_file};
use crate::process::Priority;
use crate::watch::InotifyMode;

/// The cases in which files that are not in the source are deleted on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delete {
    /// `true`: at startup and in batches.
    Always,
    /// `false`
    Never,
    /// `"startup"`
    Startup,
    /// `"running"`: in batches only.
    Running,
}

impl Delete {
    /// Returns true if batches delete on the target.
    pub fn in_batches(self) -> bool {
        matches!(self, Delete::Always | Delete::Running)
    }

    /// Returns true if files that only the target has stay, also in directories of the source, so
    /// that a comparison of a directory in a batch would delete too much.
    pub fn keeps_others(self) -> bool {
        self == Delete::Running
    }
}

/// The default of `maxDelays`.
const MAX_DELAYS: usize = 1000;
/// The default of `maxPending`; that many paths use about 300 MB.
const MAX_PENDING: usize = 2_000_000;

/// The configuration of a sync.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// The name as it is shown: `SyncN` by default, [escaped](crate::log::escape()) as paths are.
    pub name: String,
    /// The absolute source directory with a trailing slash.
    pub source: Vec<u8>,
    /// The configured source with its symbolic links.
    pub named_source: Vec<u8>,
    /// The target, after `prepare`.
    pub target: Option<Vec<u8>>,
    /// The delay of events; `None` for no delay.
    pub delay: Option<Duration>,
    /// The number of queued events at which delays are ignored.
    pub max_delays: usize,
    /// The number of queued paths at which directories are queued in place of the paths in them.
    pub max_pending: usize,
    /// The maximum number of children of this sync.
    pub max_processes: usize,
    /// The priority of its children; unset values are taken from the settings.
    pub priority: Priority,
    /// The limits of the bandwidth by time of day.
    pub bandwidth: Option<Bandwidth>,
    /// The directory and age of backups.
    pub backup: Option<Backup>,
    /// The deletions of batches.
    pub delete: Delete,
    /// Renames are reported as moves rather than as a deletion and a creation.
    pub moves: bool,
    /// Subdirectories are included.
    pub subdirs: bool,
    /// The guard of the source.
    pub guard: Guard,
    /// The checks of files.
    pub check: Option<CheckConfig>,
    /// The times of full comparisons: rules of six fields.
    pub crontab: Vec<String>,
    /// The size in bytes above which files are sent one by one.
    pub batch_size_limit: Option<u64>,
    /// The writes that count as changes; `None` for the setting's value.
    pub mode: Option<InotifyMode>,
    /// A startup event is queued when all directories are watched.
    pub init: bool,
    /// The startup compares changed directories only; set when the kind of the sync is known.
    pub warm_start: Option<WarmStartConfig>,
    /// The comparisons at given times; set when the kind of the sync is known.
    pub verify: Option<VerifyConfig>,
    /// The hook after a successful batch.
    pub on_synced: Option<Hook>,
    /// The hook after the first failure.
    pub on_failed: Option<Hook>,
    /// The hook after the end of all failures.
    pub on_recovered: Option<Hook>,
}

impl SyncConfig {
    /// Reads the merged table of a sync.
    ///
    /// # Errors
    ///
    /// The first invalid value, in lsyncd's words where it has any.
    pub fn from_table(config: &Table) -> Result<SyncConfig> {
        let bytes = |key| -> Result<Option<Vec<u8>>> { Ok(text_of(&config.get(key)?)) };
        let source = bytes("source")?
            .ok_or_else(|| config_error_about("source", "source missing from sync."))?;
        values::check_types(config)?;
        Ok(SyncConfig {
            name: bytes("name")?
                .map(|name| crate::log::escape(&name).into_owned())
                .unwrap_or_default(),
            named_source: bytes("_source")?
                .and_then(|given| named_directory(&given))
                .unwrap_or_else(|| source.clone()),
            source,
            target: bytes("target")?,
            delay: delay(&config.get("delay")?)?,
            // A queue that has something in it is never shorter than 1.
            max_delays: count(&config.get("maxDelays")?, MAX_DELAYS),
            max_pending: count(&config.get("maxPending")?, MAX_PENDING),
            // Checked files are sent before the next pass begins, so one child is enough.
            max_processes: if truthy(&config.get("check")?) {
                1
            } else {
                count(&config.get("maxProcesses")?, 1)
            },
            priority: priority(&config.get("nice")?, &config.get("ionice")?)?,
            bandwidth: bandwidth(config)?,
            backup: backup::backup(config)?,
            delete: delete(&config.get("delete")?),
            moves: truthy(&config.get("onMove")?),
            subdirs: config.get::<Value>("subdirs")? != Value::Boolean(false),
            guard: guard(config)?,
            check: check(config)?,
            crontab: texts(config, "crontab")?.into_iter().map(lossy).collect(),
            batch_size_limit: size(&config.get("batchSizeLimit")?),
            mode: values::mode(config)?,
            init: truthy(&config.get("init")?),
            warm_start: None,
            verify: None,
            on_synced: hook(config, "onSynced")?,
            on_failed: hook(config, "onFailed")?,
            on_recovered: hook(config, "onRecovered")?,
        })
    }
}

/// Returns true if the value at this key of a sync has a meaning for this program.
pub fn is_value(config: &Table, key: &str) -> bool {
    let value = config.get::<Value>(key).unwrap_or(Value::Nil);
    match key {
        "check" => is_check(&value),
        "guard" => guard(config).is_ok(),
        "inotifyMode" => values::mode(config).is_ok(),
        "ionice" => priority(&Value::Nil, &value).is_ok(),
        "nice" => priority(&value, &Value::Nil).is_ok(),
        "targets" => match &value {
            Value::Table(list) => list.raw_len() > 0,
            value => value.is_function(),
        },
        "targetsFrom" => value.is_string(),
        "waitForSource" => value.is_boolean(),
        key => find(SYNC, key).is_none_or(|key| key.value.complaint(&value).is_none()),
    }
}

/// Reads the delay.
///
/// # Errors
///
/// The value is not a number. As in lsyncd, a numeric text is refused.
fn delay(value: &Value) -> Result<Option<Duration>> {
    let seconds = match value {
        Value::Nil => return Ok(None),
        Value::Integer(_) | Value::Number(_) => number_of(value),
        _ => None,
    };
    // A time beyond a century would overflow the clock.
    match seconds {
        Some(seconds) if seconds >= 0.0 => Ok(Some(Duration::from_secs_f64(seconds.min(4e9)))),
        _ => Err(config_error_about(
            "delay",
            "delay must be a number and >= 0",
        )),
    }
}

/// Returns a number of bytes. As in lsyncd, every file exceeds a negative one.
fn size(value: &Value) -> Option<u64> {
    let size = truthy(value).then(|| number_of(value)).flatten()?;
    Some(size.max(0.0) as u64)
}

/// Returns a limit of at least 1. As in lsyncd, it is rounded up.
fn count(value: &Value, default: usize) -> usize {
    let number = truthy(value).then(|| number_of(value)).flatten();
    number.map_or(default, |number| number.ceil().max(1.0) as usize)
}

/// Returns when the target loses what the source does not have. lsyncd takes every value it does
/// not know for "never", and so is done here; see [`is_delete`].
fn delete(value: &Value) -> Delete {
    match value {
        Value::Boolean(true) => Delete::Always,
        Value::String(text) if text.as_bytes() == b"startup" => Delete::Startup,
        Value::String(text) if text.as_bytes() == b"running" => Delete::Running,
        _ => Delete::Never,
    }
}

/// Returns true if this is a value of `delete`; configurations say "false" as well.
pub fn is_delete(value: &Value) -> bool {
    let never = match value {
        Value::Nil | Value::Boolean(false) => true,
        Value::String(text) => text.as_bytes() == b"false",
        _ => false,
    };
    never || delete(value) != Delete::Never
}

/// Returns the filter of a sync: `exclude`, `excludeFrom`, `filter` and `filterFrom`.
///
/// # Errors
///
/// A value of the wrong type, an unreadable file, or an invalid rule.
pub fn filter(config: &Table) -> Result<Filter> {
    let mut filter = Filter::default();
    let source = text_of(&config.get("source")?).unwrap_or_default();
    if let Some(rule) = backup::exclusion(config, &source)? {
        filter
            .append_rule(&rule)
            .map_err(|error| bare_config_error("dir", error.to_string()))?;
    }
    for rule in texts(config, "filter")? {
        filter
            .append_rule(&rule)
            .map_err(|error| bare_config_error("filter", format!("{error}{}", advice(&rule))))?;
    }
    if let Some((name, content)) = file(config, "filterFrom", "filter")? {
        let wrong = |error| bare_config_error("filterFrom", format!("{error} in \"{name}\""));
        for rule in parse_filter_file(&content).map_err(wrong)? {
            filter.append_rule(&rule).map_err(wrong)?;
        }
    }
    for pattern in texts(config, "exclude")? {
        filter.add_exclude(&pattern);
    }
    if let Some((_, content)) = file(config, "excludeFrom", "exclude")? {
        for pattern in parse_exclude_file(&content) {
            filter.add_exclude(pattern.as_ref());
        }
    }
    Ok(filter)
}

/// Returns the advice for an invalid filter rule, after the end of the previous sentence.
fn advice(rule: &[u8]) -> String {
    let text = String::from_utf8_lossy(rule);
    let (word, pattern) = text.trim_start().split_once(' ').unwrap_or(("", &text));
    let sign = match word.to_ascii_lowercase().as_str() {
        "include" | "show" | "s" => Some('+'),
        "exclude" | "hide" | "h" => Some('-'),
        _ => None,
    };
    match sign {
        Some(sign) => format!(". Write \"{sign} {pattern}\"."),
        None => ". A rule is \"+ PATTERN\" or \"- PATTERN\".".to_owned(),
    }
}

fn file(config: &Table, key: &str, what: &str) -> Result<Option<(String, Vec<u8>)>> {
    let name = match config.get(key)? {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        value => text_of(&value)
            .ok_or_else(|| config_error_about(key, format!("{key} must be the name of a file")))?,
    };
    let shown = OsStr::from_bytes(&name).display().to_string();
    match fs::read(OsStr::from_bytes(&name)) {
        Ok(content) => Ok(Some((shown, content))),
        Err(error) => Err(bare_config_error(
            key,
            format!("Cannot open {what} file \"{shown}\": {error}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_lsyncd_takes_are_taken() {
        let lua = crate::sys::lua();
        let read = |keys: &str| {
            let text = format!("{{ source = '/s/', target = '/t/', {keys} }}");
            let config: Table = lua.load(text).eval().unwrap();
            SyncConfig::from_table(&config).unwrap()
        };
        let none = read("");
        assert_eq!(none.batch_size_limit, None);
        assert_eq!((none.max_delays, none.max_pending), (1000, 2_000_000));
        assert_eq!(read("batchSizeLimit = -1").batch_size_limit, Some(0));
        assert_eq!(read("batchSizeLimit = '100'").batch_size_limit, Some(100));
        assert_eq!(read("maxDelays = -2").max_delays, 1);
        assert_eq!(read("maxProcesses = 1.5").max_processes, 2);
        assert_eq!(read("crontab = '0 * * * * *'").crontab.len(), 1);
    }
}
