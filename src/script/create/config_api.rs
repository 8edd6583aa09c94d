//! Native functions of the preludes for settings and syncs.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use super::{fanout, sync_checks, user_keys};
use crate::batch::rsync_options;
use crate::config::keys::{Kinds, ONLY_HOW, checkgauge, gauge};
use crate::config::{
    backup, bare_config_error, config_error, config_error_about, inherit, kind_of, no_text,
    rsync_args, text_of, truthy,
};
use crate::script::context::{ScriptContext, Stage};
use crate::script::objects::Objects;

/// Adds the functions needed to load a configuration.
///
/// # Errors
///
/// Errors of Lua only.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    phases(lua, context, native)?;
    inheriting(lua, context, native)?;
    values(lua, native)?;
    let (shared, mapping) = (Rc::clone(context), objects.clone());
    native.set(
        "create",
        lua.create_function(move |lua, config: Table| {
            super::create(lua, &shared, &mapping, config)
        })?,
    )
}

/// Adds the functions for phases and for global settings.
fn phases(lua: &Lua, context: &Rc<ScriptContext>, native: &Table) -> Result<()> {
    let shared = Rc::clone(context);
    native.set(
        "missing_default",
        lua.create_function(move |_, (default, key): (Table, Value)| match key {
            Value::String(key) if shared.stage.get() == Stage::Loading => {
                sync_checks::missing_default(&default, &key.to_string_lossy())
            }
            _ => Ok(()),
        })?,
    )?;
    let shared = Rc::clone(context);
    native.set(
        "settings",
        lua.create_function(move |_, value: Value| match value {
            Value::Table(given) => shared.settings.take(&given).map(|()| Value::Nil),
            Value::String(key) => shared.settings.value(&key.to_string_lossy()),
            _ => Err(config_error(
                "settings takes a table or the name of a setting",
            )),
        })?,
    )?;
    let shared = Rc::clone(context);
    native.set(
        "check_phase",
        lua.create_function(move |lua, ()| {
            if shared.stage.get() != Stage::Loading {
                return Err(config_error(
                    "Sync can only be created during initialization.",
                ));
            }
            check_settings_kept(lua)
        })?,
    )
}

/// Adds the functions that merge and check the configuration of a `sync{}`.
fn inheriting(lua: &Lua, context: &Rc<ScriptContext>, native: &Table) -> Result<()> {
    let shared = Rc::clone(context);
    native.set(
        "inherit",
        lua.create_function(move |lua, (given, default): (Value, Table)| match given {
            Value::Table(given) => inherit::inherit(
                lua,
                &given,
                |config| fill_from_settings(&shared, config),
                &default,
            ),
            other => Err(config_error(format!(
                "sync takes a table, not {}",
                kind_of(&other)
            ))),
        })?,
    )?;
    native.set(
        "check_gauge",
        lua.create_function(|lua, config: Table| match config.get("checkgauge")? {
            Value::Table(gauge) => {
                user_keys::note_gauged(lua, &config)?;
                checkgauge::check(&config, &gauge)
            }
            _ => Ok(()),
        })?,
    )?;
    native.set(
        "gauge",
        lua.create_function(|lua, name: String| {
            let named = Kinds::BUILT_IN.into_iter().find(|(_, kind)| *kind == name);
            gauge::gauge(lua, named.map_or(Kinds::OWN, |(kind, _)| kind))
        })?,
    )?;
    user_keys::install(lua)?;
    native.set(
        "owns_targets",
        lua.create_function(|lua, config: Table| user_keys::owns_targets(lua, &config))?,
    )
}

/// Adds the functions that compute values.
fn values(lua: &Lua, native: &Table) -> Result<()> {
    native.set(
        "rsync_words",
        lua.create_function(|lua, config: Table| {
            let rsync = config.get::<Value>("rsync")?;
            let Value::Table(rsync) = rsync else {
                return Err(config_error_about(
                    "rsync",
                    "Parameter \"rsync\" must be a table.",
                ));
            };
            rsync_args::adopt_delete_excluded(&rsync, &rsync)?;
            let mut words = rsync_args::words(&rsync)?;
            words.extend(backup::words(&config)?);
            lua_words(lua, &words)
        })?,
    )?;
    let only_how = ONLY_HOW.iter().map(|key| (*key, true));
    native.set("only_how", lua.create_table_from(only_how)?)?;
    native.set(
        "essential",
        lua.create_function(|lua, words: Table| {
            let words = words.sequence_values::<Value>();
            let words: Result<Vec<_>> = words.map(|word| Ok(text_of(&word?))).collect();
            let words: Vec<_> = words?.into_iter().flatten().collect();
            lua_words(lua, &rsync_options::essential(&words))
        })?,
    )?;
    native.set("prepare_startup", lua.create_function(prepare_startup)?)?;
    native.set(
        "as_directory",
        lua.create_function(|lua, (target, key): (Value, String)| {
            let mut path = text_of(&target).ok_or_else(|| no_text(&key, "", &target))?;
            match path.last() {
                None => return Err(config_error_about(&key, format!("{key} must not be empty"))),
                Some(b'/' | b':') => {}
                Some(_) => path.push(b'/'),
            }
            lua.create_string(path)
        })?,
    )?;
    native.set(
        "targets_from",
        lua.create_function(|lua, name: Value| fanout::targets_from(lua, &name))?,
    )
}

/// Returns words as a list of Lua.
fn lua_words(lua: &Lua, words: &[Vec<u8>]) -> Result<Table> {
    let words = words.iter().map(|word| lua.create_string(word));
    lua.create_sequence_from(words.collect::<Result<Vec<_>>>()?)
}

/// Computes the options of full comparisons: `rsync`, changed by `startup.rsync` key by
/// key. The words of its `_extra` follow those of every call.
fn prepare_startup(lua: &Lua, config: Table) -> Result<()> {
    let Value::Table(startup) = config.get("startup")? else {
        return Ok(());
    };
    let (Value::Table(rsync), Value::Table(changes)) =
        (config.get("rsync")?, startup.get("rsync")?)
    else {
        return Ok(());
    };
    if changes.get::<Value>("bwlimit")?.is_table() {
        let text = "startup.rsync.bwlimit must be a text or a number, not a table.";
        return Err(config_error_about("bwlimit", text));
    }
    let merged = lua.create_table()?;
    for pair in rsync.pairs::<Value, Value>().chain(changes.pairs()) {
        let (key, value) = pair?;
        let extra = text_of(&key).is_some_and(|key| key == b"_extra");
        match (&value, merged.get("_extra")?) {
            (Value::Table(more), Value::Table(common)) if extra => {
                let words = common.sequence_values::<Value>();
                let words = words.chain(more.sequence_values());
                let words = words.collect::<Result<Vec<_>>>()?;
                merged.set(key, lua.create_sequence_from(words)?)?;
            }
            _ => merged.set(key, value)?,
        }
    }
    rsync_args::adopt_delete_excluded(&rsync, &changes)?;
    merged.set("_computed", Value::Nil)?;
    let mut words = rsync_args::words(&merged)?;
    words.extend(backup::words(&config)?);
    startup.set("_computed", lua_words(lua, &words)?)
}

/// Refuses `settings = {…}`, the form of lsyncd 2.0, since it would have no effect.
pub fn check_settings_kept(lua: &Lua) -> Result<()> {
    match lua.globals().raw_get::<Value>("settings")? {
        Value::Function(_) => Ok(()),
        _ => Err(bare_config_error(
            "settings",
            "Do not use settings = { ... }\n      please use settings{ ... } (without the equal \
             sign)",
        )),
    }
}

/// Refuses `sync = {…}` in a configuration without syncs.
pub fn check_sync_kept(lua: &Lua) -> Result<()> {
    match lua.globals().raw_get::<Value>("sync")? {
        Value::Table(_) => Err(bare_config_error(
            "sync",
            "Nothing to watch! Please write sync{ ... } instead of sync = { ... } (without the \
             equal sign)",
        )),
        _ => Ok(()),
    }
}

/// Applies the command line and the settings to a sync's configuration. A limit of the sync's own
/// takes precedence; see docs/differences.md.
fn fill_from_settings(context: &ScriptContext, config: &Table) -> Result<()> {
    if let Some(delay) = context.delay {
        config.set("delay", delay)?;
    }
    for key in ["maxDelays", "maxProcesses"] {
        let value = context.settings.value(key)?;
        if truthy(&value) && config.get::<Value>(key)?.is_nil() {
            config.set(key, value)?;
        }
    }
    Ok(())
}
