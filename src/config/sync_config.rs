//! One sync in types, read from its merged table after `prepare` ran.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use mlua::{Result, Table, Value};

use super::check::{CheckConfig, check};
use super::config_error::{bare_config_error, config_error_about};
use super::guard::{Guard, guard};
use super::priority::priority;
use super::source::named_directory;
use super::values;
use super::{number_of, text_of, truthy};
use crate::filter::{Filter, parse_exclude_file, parse_filter_file};
use crate::process::Priority;
use crate::watch::InotifyMode;

/// When a target loses what the source does not have (any more).
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
    /// Returns true if batches delete at the target.
    pub fn in_batches(self) -> bool {
        matches!(self, Delete::Always | Delete::Running)
    }
}

/// What is called after a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A program and its arguments.
    Command(Vec<Vec<u8>>),
    /// A Lua function, to be found in the sync's table.
    Function,
}
/// About 300 MB of pending paths.
const MAX_PENDING: usize = 2_000_000;

/// What Rust needs to know of a sync.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// `SyncN`, or what the configuration calls it.
    pub name: String,
    /// Absolute source directory with a slash at its end.
    pub source: Vec<u8>,
    /// The same as it was configured, with symbolic links in it.
    pub named_source: Vec<u8>,
    /// The target as configured after `prepare`.
    pub target: Option<Vec<u8>>,
    /// How long an event waits for more. `None`: no delay at all.
    pub delay: Option<Duration>,
    /// With so many events in the queue delays are ignored.
    pub max_delays: usize,
    /// With so many paths in the queue directories stand for what changes in them.
    pub max_pending: usize,
    /// At most so many children of this sync at a time.
    pub max_processes: usize,
    /// Of its children; what is not set is as the settings have it.
    pub priority: Priority,
    /// What batches may delete.
    pub delete: Delete,
    /// Renames are told as such instead of as a delete and a create.
    pub moves: bool,
    /// What is below the source's own directories is a concern, too.
    pub subdirs: bool,
    /// What must hold of the source before the target is changed.
    pub guard: Guard,
    /// What a file must pass before it is sent.
    pub check: Option<CheckConfig>,
    /// When all is compared again: rules of six fields.
    pub crontab: Vec<String>,
    /// Files larger than this, in bytes, are sent one by one.
    pub batch_size_limit: Option<u64>,
    /// Which writes are a concern; the setting's where the sync says nothing.
    pub mode: Option<InotifyMode>,
    /// A startup event is queued when all directories are watched.
    pub init: bool,
    /// Called after a batch that ended well.
    pub on_synced: Option<Hook>,
    /// Called when batches begin to fail.
    pub on_failed: Option<Hook>,
}

impl SyncConfig {
    /// Reads the merged table of a sync.
    ///
    /// # Errors
    /// The first value that makes no sense, in lsyncd's words where it has any.
    pub fn from_table(config: &Table) -> Result<SyncConfig> {
        let bytes = |key| -> Result<Option<Vec<u8>>> { Ok(text_of(&config.get(key)?)) };
        let source = bytes("source")?
            .ok_or_else(|| config_error_about("source", "source missing from sync."))?;
        Ok(SyncConfig {
            name: bytes("name")?
                .map(|name| String::from_utf8_lossy(&name).into_owned())
                .unwrap_or_default(),
            named_source: bytes("_source")?
                .and_then(|given| named_directory(&given))
                .unwrap_or_else(|| source.clone()),
            source,
            target: bytes("target")?,
            delay: delay(&config.get("delay")?)?,
            max_delays: max_delays(config)?,
            max_pending: count(config, "maxPending", MAX_PENDING)?,
            // What a list was checked for is sent before the next is looked at.
            max_processes: if truthy(&config.get("check")?) {
                1
            } else {
                count(config, "maxProcesses", 1)?
            },
            priority: priority(&config.get("nice")?, &config.get("ionice")?)?,
            delete: delete(&config.get("delete")?),
            moves: truthy(&config.get("onMove")?),
            subdirs: config.get::<Value>("subdirs")? != Value::Boolean(false),
            guard: guard(config)?,
            check: check(config)?,
            crontab: crontab(&config.get("crontab")?)?,
            batch_size_limit: size(&config.get("batchSizeLimit")?)?,
            mode: values::mode(config)?,
            init: truthy(&config.get("init")?),
            on_synced: hook(config, "onSynced")?,
            on_failed: hook(config, "onFailed")?,
        })
    }
}

/// Returns true if the value at this key of a sync is one that [`SyncConfig::from_table`] takes.
/// Keys that it does not read by themselves are right.
pub fn is_value(config: &Table, key: &str) -> bool {
    let value = || config.get::<Value>(key);
    let right = match key {
        "batchSizeLimit" => value().and_then(|value| size(&value)).map(drop),
        "guard" => guard(config).map(drop),
        "inotifyMode" => values::mode(config).map(drop),
        "ionice" => value().and_then(|io| priority(&Value::Nil, &io)).map(drop),
        "maxPending" => count(config, "maxPending", MAX_PENDING).map(drop),
        "nice" => value()
            .and_then(|nice| priority(&nice, &Value::Nil))
            .map(drop),
        "onFailed" | "onSynced" => hook(config, key).map(drop),
        _ => Ok(()),
    };
    right.is_ok()
}

/// # Errors
/// lsyncd takes numbers only here, and no text that is one.
fn delay(value: &Value) -> Result<Option<Duration>> {
    let seconds = match value {
        Value::Nil => return Ok(None),
        Value::Integer(_) | Value::Number(_) => number_of(value),
        _ => None,
    };
    // More than a century is as good as for ever and does not overflow a clock.
    match seconds {
        Some(seconds) if seconds >= 0.0 => Ok(Some(Duration::from_secs_f64(seconds.min(4e9)))),
        _ => Err(config_error_about(
            "delay",
            "delay must be a number and >= 0",
        )),
    }
}

pub(super) fn hook(config: &Table, key: &str) -> Result<Option<Hook>> {
    let wrong = || {
        let text = format!("{key} must be a function or a list of a program and its arguments");
        config_error_about(key, text)
    };
    match config.get(key)? {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::Function(_) => Ok(Some(Hook::Function)),
        Value::Table(list) => {
            let words = list.sequence_values::<Value>();
            let words: Result<Vec<_>> = words
                .map(|word| text_of(&word?).ok_or_else(wrong))
                .collect();
            match words? {
                words if words.first().is_some_and(|program| !program.is_empty()) => {
                    Ok(Some(Hook::Command(words)))
                }
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

fn size(value: &Value) -> Result<Option<u64>> {
    match (value, number_of(value)) {
        (Value::Nil | Value::Boolean(false), _) => Ok(None),
        (_, Some(number)) if number >= 0.0 => Ok(Some(number as u64)),
        _ => Err(config_error_about(
            "batchSizeLimit",
            "batchSizeLimit must be a number of bytes, 0 or more",
        )),
    }
}

fn crontab(value: &Value) -> Result<Vec<String>> {
    let wrong = || config_error_about("crontab", "crontab must be a list of texts");
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.to_string_lossy()),
        _ => Err(wrong()),
    };
    match value {
        Value::Nil | Value::Boolean(false) => Ok(Vec::new()),
        Value::String(_) => Ok(vec![text(value)?]),
        Value::Table(rules) => rules
            .sequence_values::<Value>()
            .map(|rule| text(&rule?))
            .collect(),
        _ => Err(wrong()),
    }
}

fn count(config: &Table, key: &str, default: usize) -> Result<usize> {
    match config.get(key)? {
        Value::Nil | Value::Boolean(false) => Ok(default),
        value => match number_of(&value) {
            // A limit that is reached by the first above it, as in lsyncd.
            Some(number) if number > 0.0 => Ok(number.ceil() as usize),
            _ => Err(config_error_about(
                key,
                format!("{key} must be a number, 1 or more"),
            )),
        },
    }
}

/// Returns how many events in the queue end the delays. Below 1 all is sent at once: a queue that
/// has something in it is never shorter.
fn max_delays(config: &Table) -> Result<usize> {
    match config.get("maxDelays")? {
        Value::Nil | Value::Boolean(false) => Ok(1000),
        value => match number_of(&value) {
            Some(number) if !number.is_nan() => Ok(number.ceil().max(1.0) as usize),
            _ => Err(config_error_about(
                "maxDelays",
                "maxDelays must be a number",
            )),
        },
    }
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

/// The filter a sync is configured with: exclude, excludeFrom, filter and filterFrom.
///
/// # Errors
/// A value of the wrong type, a file that can't be read, or a rule that is none.
pub fn filter(config: &Table) -> Result<Filter> {
    let mut filter = Filter::default();
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

/// What to write in place of a filter rule that is none, with the end of its sentence in front.
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

/// A text or a list of texts.
fn texts(config: &Table, key: &str) -> Result<Vec<Vec<u8>>> {
    let wrong = || config_error_about(key, format!("type for {key} must be table or string"));
    match config.get(key)? {
        Value::Nil | Value::Boolean(false) => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.as_bytes().to_vec()]),
        Value::Table(list) => list
            .sequence_values::<Value>()
            .map(|value| text_of(&value?).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
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
