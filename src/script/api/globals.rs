//! The global functions of configurations: logging, time, directories, processes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value, Variadic};

use super::spawn;
use crate::config::{config_error, number_of, text_argument, text_of};
use crate::log;
use crate::script::context::{Alarm, ScriptContext};
use crate::script::objects::Objects;
use crate::script::objects::timestamp::{self, Timestamp};
use crate::script::watchdog;
use crate::sync::Clock;

/// Returns the global functions.
pub fn globals(lua: &Lua, context: &Rc<ScriptContext>, objects: &Objects) -> Result<Table> {
    let table = lua.create_table()?;
    table.set(
        "log",
        lua.create_function(|_, (category, values): (Value, Variadic<Value>)| {
            let category = text_argument(&category, "log")?;
            log::say(&String::from_utf8_lossy(&category), log_text(&values)?);
            Ok(())
        })?,
    )?;
    let (shared, mapping) = (Rc::clone(context), objects.clone());
    table.set(
        "spawn",
        lua.create_function(move |_, arguments: MultiValue| {
            spawn::spawn(&shared, &mapping, false, arguments)
        })?,
    )?;
    let shared = Rc::clone(context);
    table.set(
        "terminate",
        lua.create_function(move |lua, code: Value| -> Result<()> {
            let code =
                number_of(&code).ok_or_else(|| config_error("terminate needs an exit code"))?;
            shared.watchdog.ending.set(Some(code as i64));
            watchdog::stop(lua)?;
            Err(config_error("terminated by the configuration"))
        })?,
    )?;
    let shared = Rc::clone(context);
    table.set(
        "now",
        lua.create_function(move |_, ()| Ok(Timestamp(shared.clock.now())))?,
    )?;
    table.set("readdir", lua.create_function(read_directory)?)?;
    let shared = Rc::clone(context);
    table.set(
        "alarm",
        lua.create_function(
            move |_, (time, function, extra): (Value, Function, Value)| {
                let due = timestamp::stamp(&time)
                    .ok_or_else(|| config_error("alarm needs a timestamp"))?;
                if log::enabled("Alarm") {
                    let wait = Clock::until(shared.clock.now(), due.0).as_secs_f64();
                    log::say("Alarm", format_args!("user alarm in {wait:.3} s"));
                }
                shared.alarms.borrow_mut().push(Alarm {
                    due: due.0,
                    function,
                    extra,
                });
                Ok(())
            },
        )?,
    )?;
    Ok(table)
}

/// Returns the text that `log` writes for its values, concatenated.
fn log_text(values: &[Value]) -> Result<String> {
    let mut text = String::new();
    for value in values {
        match value {
            Value::Nil => text.push_str("(nil)"),
            Value::Boolean(value) => text.push_str(&format!("({value})")),
            Value::Table(table) => text.push_str(&format!("(Table: {:p})", table.to_pointer())),
            Value::String(bytes) => text.push_str(&bytes.to_string_lossy()),
            Value::Function(_) => return Err(config_error("log does not take functions")),
            value => match (timestamp::stamp(value), text_of(value)) {
                (Some(stamp), _) => text.push_str(&format!("(Timestamp: {})", stamp.seconds())),
                (None, Some(number)) => text.push_str(&String::from_utf8_lossy(&number)),
                (None, None) => text.push_str(&format!("({})", value.type_name())),
            },
        }
    }
    Ok(text)
}

/// Returns the names in a directory: true for directories, false for all other types, including
/// symbolic links.
fn read_directory(lua: &Lua, path: mlua::BString) -> Result<Option<Table>> {
    let shown = log::escape(&path);
    let entries = match fs::read_dir(OsStr::from_bytes(&path)) {
        Ok(entries) => entries,
        Err(_) => {
            log::error(format_args!("cannot open dir [{shown}]."));
            return Ok(None);
        }
    };
    let table = lua.create_table()?;
    for entry in entries.flatten() {
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        table.set(lua.create_string(entry.file_name().into_vec())?, directory)?;
    }
    Ok(Some(table))
}
