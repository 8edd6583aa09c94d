//! From the prepared table of a `sync{}` to a sync that can be started.

use std::rc::{Rc, Weak};

use mlua::{Lua, Result, Table, Value};

use super::event::Objects;
use super::host::{Host, Member};
use super::{errors, inlet, layer3};
use crate::config::{
    self, SyncConfig, bare_complaint, complaint, complaint_about, kind_of, text_of, truthy,
};
use crate::filter::Filter;
use crate::queue::Policy;
use crate::report;
use crate::sync::Sync;

/// Makes the sync of a prepared configuration; returns its inlet.
pub fn make_sync(lua: &Lua, host: &Rc<Host>, objects: &Objects, config: Table) -> Result<Table> {
    let index = host.members.borrow().len();
    resolve_source(lua, &config)?;
    let monitor = config.get::<Value>("monitor")?;
    match text_of(&monitor) {
        _ if !truthy(&monitor) => {}
        Some(name) if name == b"inotify" => {}
        name => {
            let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
            let text = format!("event monitor \"{name}\" unknown.");
            return Err(complaint_about("monitor", text));
        }
    }
    check_functions(&config)?;
    config::check_values(&config, is_built_in(lua, &config, "collect")?)?;
    layer3::check(&config)?;
    if !has_action(&config)? {
        return Err(no_actions(&config));
    }
    config.set("monitor", "inotify")?;
    if config.get::<Value>("name")?.is_nil() {
        config.set("name", format!("Sync{}", index + 1))?;
    }

    let typed = SyncConfig::from_table(&config)?;
    let filter = config::filter(&config)?;
    warn_of_patterns(lua, &filter, &typed.source);
    warn_of_idleness(lua, &config)?;
    let full = config.get::<Value>("full")?.is_function();
    let sync = Sync::new(typed, filter, policy(lua, &config)?, full);

    let functions = lua.create_table()?;
    let inlet = lua.create_table()?;
    let member = Rc::new(Member {
        sync: sync.into(),
        config,
        inlet: inlet.clone(),
        events: Default::default(),
        object: Default::default(),
    });
    let weak: Weak<Member> = Rc::downgrade(&member);
    for pair in inlet::functions(lua, host, objects, &weak)?.pairs::<Value, Value>() {
        let (name, function) = pair?;
        functions.set(name, function)?;
    }
    let make: mlua::Function = lua.named_registry_value("make_inlet")?;
    make.call::<()>((&inlet, functions))?;
    host.members.borrow_mut().push(member);
    Ok(inlet)
}

fn resolve_source(lua: &Lua, config: &Table) -> Result<()> {
    let given = text_of(&config.get("source")?)
        .ok_or_else(|| complaint_about("source", "source missing from sync."))?;
    let real = config::real_directory(&given).map_err(|error| {
        let [first, second] = error.lines();
        report::error(first);
        bare_complaint("source", second)
    })?;
    config.set("_source", lua.create_string(given)?)?;
    config.set("source", lua.create_string(real)?)
}

fn has_action(config: &Table) -> Result<bool> {
    if truthy(&config.get("action")?) {
        return Ok(true);
    }
    for key in layer3::KEYS {
        if truthy(&config.get(key)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A pattern that can match nothing is no error, and excludes nothing in silence.
fn warn_of_patterns(lua: &Lua, filter: &Filter, source: &[u8]) {
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

/// The default action calls the `on…` functions; one without any makes a sync of no use.
fn warn_of_idleness(lua: &Lua, config: &Table) -> Result<()> {
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

/// Says why a sync without a gauge may have no action: its key may be misspelt.
fn no_actions(config: &Table) -> mlua::Error {
    let similar = config
        .pairs::<String, Value>()
        .flatten()
        .find_map(|(key, _)| Some((config::nearest(&key, layer3::KEYS)?, key)));
    match similar {
        Some((known, key)) => complaint_about(
            &key,
            format!("no actions specified. Did you mean \"{known}\" instead of \"{key}\"?"),
        ),
        None => complaint("no actions specified."),
    }
}

/// These keys are functions or switched off.
fn check_functions(config: &Table) -> Result<()> {
    for key in ["action", "collect", "full", "init", "prepare"] {
        match config.get(key)? {
            Value::Nil | Value::Boolean(false) | Value::Function(_) => {}
            Value::Boolean(true) => {
                let text = format!("{key} must be a function or false, not true.");
                return Err(complaint_about(key, text));
            }
            other => {
                let text = format!("{key} must be a function, not {}.", kind_of(&other));
                return Err(complaint_about(key, text));
            }
        }
    }
    Ok(())
}

/// Built-in behaviours are decided by the state of the disk; user code gets what happened.
fn policy(lua: &Lua, config: &Table) -> Result<Policy> {
    let default: Table = lua.globals().raw_get("default")?;
    let general = default.raw_get::<Value>("action")? == config.get::<Value>("action")?;
    Ok(match is_built_in(lua, config, "action")? && !general {
        true => Policy::Settle,
        false => Policy::Deliver,
    })
}

/// Whether the function at this key is that of `default` or of one of the three kinds.
fn is_built_in(lua: &Lua, config: &Table, key: &str) -> Result<bool> {
    let function = config.get::<Value>(key)?;
    let default: Table = lua.globals().raw_get("default")?;
    if default.raw_get::<Value>(key)? == function {
        return Ok(true);
    }
    for kind in ["rsync", "rsyncssh", "direct"] {
        if let Value::Table(kind) = default.raw_get(kind)?
            && kind.raw_get::<Value>(key)? == function
        {
            return Ok(true);
        }
    }
    Ok(false)
}
