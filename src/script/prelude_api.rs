//! Native functions of the preludes: parts of the built-in behaviours written in Rust.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value, Variadic};

use super::context::ScriptContext;
use super::create::config_api;
use super::objects::{Agent, Objects, list};
use super::{api, errors, kinds};
use crate::batch;
use crate::config::{config_error, config_error_about, text_of};
use crate::log;

/// Returns the table passed to the preludes.
pub fn table(lua: &Lua, context: &Rc<ScriptContext>, objects: &Objects) -> Result<Table> {
    let native = lua.create_table()?;
    let (event_meta, list_meta) = objects.metatables();
    native.set("event_meta", event_meta)?;
    native.set("list_meta", list_meta)?;
    native.set("version", crate::VERSION)?;
    api::add(lua, context, objects, &native)?;
    calls(lua, &native)?;
    errors_and_texts(lua, context, &native)?;
    objects_of(lua, objects, &native)?;
    config_api::add(lua, context, objects, &native)?;
    kinds::add(lua, context, objects, &native)?;
    Ok(native)
}

/// Logs calls of user code in the category Call. The category is tested once before any Lua code
/// runs, so that calls usually cost nothing.
fn calls(lua: &Lua, native: &Table) -> Result<()> {
    native.set("log_calls", log::enabled("Call"))?;
    native.set(
        "called",
        lua.create_function(|_, (name, values): (String, Variadic<Value>)| {
            let values: Vec<String> = values.iter().map(shown).collect();
            log::say("Call", format_args!("{name}( {} )", values.join(", ")));
            Ok(())
        })?,
    )
}

/// Returns a value as the category Call shows it.
fn shown(value: &Value) -> String {
    match text_of(value) {
        Some(text) => log::escape(&text).into_owned(),
        None => value.type_name().to_owned(),
    }
}

fn errors_and_texts(lua: &Lua, context: &Rc<ScriptContext>, native: &Table) -> Result<()> {
    let shared = Rc::clone(context);
    native.set(
        "message",
        lua.create_function(move |lua, value: Value| {
            let text = errors::raised(lua, &value);
            if matches!(value, Value::Error(_)) {
                shared.last_config_error.borrow_mut().clone_from(&text);
            }
            Ok(text)
        })?,
    )?;
    native.set(
        "fail",
        lua.create_function(|_, (text, key): (String, Option<String>)| -> Result<()> {
            Err(match key {
                Some(key) => config_error_about(&key, text),
                None => config_error(text),
            })
        })?,
    )?;
    native.set(
        "shown",
        lua.create_function(|_, path: mlua::BString| Ok(log::escape(&path).to_string()))?,
    )?;
    native.set(
        "reason",
        lua.create_function(|lua, errors: mlua::BString| {
            lua.create_string(batch::reason(errors.split(|&byte| byte == b'\n')))
        })?,
    )?;
    native.set(
        "is_connection_lost",
        lua.create_function(|_, errors: mlua::BString| {
            Ok(batch::is_connection_lost(
                errors.split(|&byte| byte == b'\n'),
            ))
        })?,
    )?;
    let shared = Rc::clone(context);
    native.set(
        "used_default_exit_codes",
        lua.create_function(move |_, ()| {
            shared.used_default_exit_codes.set(true);
            Ok(())
        })?,
    )?;
    let shared = Rc::clone(context);
    native.set(
        "failed_startup",
        lua.create_function(move |_, ()| {
            shared.startup_failed.set(true);
            Ok(())
        })?,
    )
}

fn objects_of(lua: &Lua, objects: &Objects, native: &Table) -> Result<()> {
    let mapping = objects.clone();
    native.set(
        "event_field",
        lua.create_function(move |lua, (event, name): (Table, Value)| {
            let name = text_of(&name).unwrap_or_default();
            match mapping.agent(&event)? {
                Some(Agent::Event(event)) => event.field(lua, &String::from_utf8_lossy(&name)),
                _ => Err(config_error("not an event")),
            }
        })?,
    )?;
    let mapping = objects.clone();
    native.set(
        "list_field",
        lua.create_function(move |lua, (list, name): (Table, Value)| {
            let name = text_of(&name).unwrap_or_default();
            list::field(lua, &mapping, &list, &String::from_utf8_lossy(&name))
        })?,
    )
}
