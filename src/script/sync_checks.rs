//! What is asked about a sync beyond whether its values make sense: whether it can do anything,
//! whether its patterns can match, and what in it is built in.

use mlua::{Lua, Result, Table, Value};

use super::{errors, layer3};
use crate::config::{self, SyncConfig, complaint, complaint_about, truthy};
use crate::filter::Filter;
use crate::report;
use crate::sync::{mount_table, shared_kind};

/// A pattern that can match nothing is no error, and excludes nothing in silence.
pub fn warn_of_patterns(lua: &Lua, filter: &Filter, source: &[u8]) {
    let warn = |key: &str, pattern: &[u8]| {
        if let Some(advice) = crate::filter::suspicious(pattern, source) {
            let shown = report::escape(pattern);
            let text = format!("the pattern \"{shown}\" in {key}: {advice}");
            report::warn(errors::message(lua, &complaint_about(key, text)));
        }
    };
    for pattern in filter.excludes() {
        warn("exclude", pattern);
    }
    for rule in filter.rules() {
        if let Some(pattern) = rule.get(2..) {
            warn("filter", pattern);
        }
    }
}

/// Of what other hosts change in a shared file system the kernel tells nothing.
pub fn warn_of_file_system(lua: &Lua, sync: &SyncConfig) {
    let Some(kind) = shared_kind(&mount_table::read(), &sync.source) else {
        return;
    };
    if sync.crontab.is_empty() {
        let text = format!(
            "the source is on {kind}, where only changes made by this host are noticed; with \
             crontab = \"...\" all is compared at given times"
        );
        report::warn(errors::message(lua, &complaint_about("source", text)));
    }
}

/// The default action calls the `on…` functions; one without any makes a sync of no use.
pub fn warn_of_idleness(lua: &Lua, config: &Table) -> Result<()> {
    let default: Table = lua.globals().raw_get("default")?;
    for key in layer3::KEYS {
        if truthy(&config.get(key)?) {
            return Ok(());
        }
    }
    for key in ["action", "init"] {
        if config.get::<Value>(key)? != default.raw_get::<Value>(key)? {
            return Ok(());
        }
    }
    let idle = complaint("the sync does nothing: it has no action, no on… and no default.… in it");
    report::warn(errors::message(lua, &idle));
    Ok(())
}

/// A misspelt field of `default` would be nil, and a sync inherit nothing.
pub fn missing_default(default: &Table, key: &str) -> Result<()> {
    let known: Vec<String> = default
        .pairs::<String, Value>()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    match config::nearest(key, known.iter().map(String::as_str)) {
        Some(known) => Err(complaint(format!(
            "default.{key} does not exist. Did you mean \"default.{known}\"?"
        ))),
        None => Ok(()),
    }
}

/// Whether the function at this key is that of `default` or of one of the three kinds.
pub fn is_built_in(lua: &Lua, config: &Table, key: &str) -> Result<bool> {
    let function = config.get::<Value>(key)?;
    let default: Table = lua.globals().raw_get("default")?;
    if default.raw_get::<Value>(key)? == function {
        return Ok(true);
    }
    for kind in ["rsync", "rsyncssh", "direct", "rclone"] {
        if let Value::Table(kind) = default.raw_get(kind)?
            && kind.raw_get::<Value>(key)? == function
        {
            return Ok(true);
        }
    }
    Ok(false)
}
