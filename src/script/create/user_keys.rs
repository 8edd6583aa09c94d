//! Keys of user-defined kinds that have the name of a key that lsyncd 2.x does not have.
//!
//! lsyncd refuses keys that are not in the gauge of a sync. The gauge is not applied with
//! `checkgauge = false`, or with a user-defined `prepare` that does not call `default.prepare`. In
//! these cases the key belongs to the user, unless its value is valid for this program.

use mlua::{Lua, Result, Table, Value};

use super::sync_checks::is_built_in;
use crate::config::keys::gauge::{self, is_declared};
use crate::config::{self, config_error_about, truthy};
use crate::log;
use crate::script::errors;
use crate::script::kinds::scan_request;

/// Keys of a `sync{}` with several targets. They are removed from the syncs made of it.
const TARGETS: [&str; 2] = ["targets", "targetsFrom"];

/// The registry field with the configurations that were compared with a gauge.
const GAUGED_FIELD: &str = "gauged";

/// Prepares the registry for [`note_gauged`].
///
/// # Errors
///
/// Errors of Lua only.
pub fn install(lua: &Lua) -> Result<()> {
    let gauged = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.set("__mode", "k")?;
    gauged.set_metatable(Some(weak))?;
    lua.set_named_registry_value(GAUGED_FIELD, gauged)
}

/// Records that a configuration was compared with its gauge.
///
/// # Errors
///
/// Errors of Lua only.
pub fn note_gauged(lua: &Lua, config: &Table) -> Result<()> {
    let gauged: Table = lua.named_registry_value(GAUGED_FIELD)?;
    gauged.raw_set(config, true)
}

/// Returns true if `targets` or `targetsFrom` belong to the user and no syncs are made of them. The
/// configuration must not be prepared yet.
///
/// # Errors
///
/// Errors of Lua only.
pub fn owns_targets(lua: &Lua, config: &Table) -> Result<bool> {
    let free = !truthy(&config.get("checkgauge")?) || !is_built_in(lua, config, "prepare")?;
    for key in TARGETS {
        let value: Value = config.get(key)?;
        if value.is_nil() {
            continue;
        }
        let foreign = !is_built_in(lua, config, "action")? || !config::is_value(config, key);
        if is_declared(config, key)? || (free && foreign) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the prepared configuration without the user's keys; the same table if there are no such
/// keys.
///
/// # Errors
///
/// `targets` is not a list and does not belong to the user.
pub fn without(lua: &Lua, config: &Table) -> Result<Table> {
    let gauged: Table = lua.named_registry_value(GAUGED_FIELD)?;
    let compared = truthy(&gauged.raw_get(config)?);
    let own_action = !is_built_in(lua, config, "action")?;
    let own_kind = own_action || !is_built_in(lua, config, "prepare")?;
    let mut users = Vec::new();
    for key in gauge::new_keys().map(|key| key.name) {
        let value: Value = config.get(key)?;
        if value.is_nil() {
            continue;
        }
        let declared = is_declared(config, key)?;
        // Without `check` files are sent unchecked, so a gauge that is off is not sufficient.
        let free = !compared && (own_kind || key != "check");
        // The `targets` of this program have been removed from the table by now.
        let ours = !TARGETS.contains(&key)
            && config::is_value(config, key)
            && (key != "check" || !own_kind || scan_request::check_behaviour(lua, config).is_ok());
        let guards = ["check", "guard"].contains(&key);
        if (declared && !(ours && guards)) || (free && !ours) {
            users.push(key);
        } else if TARGETS.contains(&key) {
            let text = "targets must be a list, or a function that returns one";
            return Err(config_error_about(key, text));
        }
    }
    // lsyncd passes this key to the action as well.
    if own_action && !config::is_value(config, "batchSizeLimit") {
        users.push("batchSizeLimit");
    }
    if users.is_empty() {
        return Ok(config.clone());
    }
    let rest = lua.create_table()?;
    for pair in config.pairs::<Value, Value>() {
        let (key, value) = pair?;
        rest.raw_set(key, value)?;
    }
    for key in users {
        rest.raw_set(key, Value::Nil)?;
        let text = format!("{key} is left to the functions of this sync's own kind");
        log::warn(errors::message(lua, &config_error_about(key, text)));
    }
    Ok(rest)
}
