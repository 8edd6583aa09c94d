//! The functions every configuration may call: logging, time, directories, processes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value, Variadic};

use super::event::Objects;
use super::host::{Alarm, Host};
use super::spawn;
use super::timestamp::{self, Timestamp};
use crate::config::{self, complaint, number_of, text_of};
use crate::process;
use crate::report;

/// The global functions.
pub fn globals(lua: &Lua, host: &Rc<Host>, objects: &Objects) -> Result<Table> {
    let table = lua.create_table()?;
    table.set(
        "log",
        lua.create_function(|_, (category, values): (String, Variadic<Value>)| {
            let text = log_text(&values)?;
            report::say(&category, text);
            Ok(())
        })?,
    )?;
    let (h, with) = (Rc::clone(host), objects.clone());
    table.set(
        "spawn",
        lua.create_function(move |_, arguments: MultiValue| {
            spawn::spawn(&h, &with, false, arguments)
        })?,
    )?;
    let h = Rc::clone(host);
    table.set(
        "terminate",
        lua.create_function(move |_, code: Value| -> Result<()> {
            let code = number_of(&code).ok_or_else(|| complaint("terminate needs an exit code"))?;
            h.ending.set(Some(code as i64));
            Err(complaint("terminated by the configuration"))
        })?,
    )?;
    let h = Rc::clone(host);
    table.set(
        "now",
        lua.create_function(move |_, ()| Ok(Timestamp(h.clock.now())))?,
    )?;
    table.set("readdir", lua.create_function(read_directory)?)?;
    let h = Rc::clone(host);
    table.set(
        "alarm",
        lua.create_function(
            move |_, (time, function, extra): (Value, Function, Value)| {
                let due =
                    timestamp::stamp(&time).ok_or_else(|| complaint("alarm needs a timestamp"))?;
                h.alarms.borrow_mut().push(Alarm {
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

/// The members of the `lsyncd` table beyond the globals that are repeated there.
pub fn members(lua: &Lua, host: &Rc<Host>) -> Result<Table> {
    let table = lua.create_table()?;
    let h = Rc::clone(host);
    table.set(
        "exec",
        lua.create_function(move |_, words: Variadic<Value>| execute(&h, &words))?,
    )?;
    table.set(
        "get_file_size",
        lua.create_function(|_, path: mlua::BString| {
            Ok(fs::metadata(OsStr::from_bytes(&path)).ok().map(|m| m.len()))
        })?,
    )?;
    let h = Rc::clone(host);
    table.set(
        "get_process_info",
        lua.create_function(move |_, ()| Ok((h.running.get(), h.max_processes.get())))?,
    )?;
    table.set(
        "realdir",
        lua.create_function(
            |lua, path: mlua::BString| match config::real_directory(&path) {
                Ok(real) => Ok(Value::String(lua.create_string(real)?)),
                Err(error) => {
                    report::error(&error.lines()[0]);
                    Ok(Value::Nil)
                }
            },
        )?,
    )?;
    table.set(
        "splitQuotedString",
        lua.create_function(|lua, text: mlua::BString| {
            let words = lua.create_table()?;
            for word in crate::cli::split_quoted(&text) {
                words.raw_push(lua.create_string(word)?)?;
            }
            Ok(words)
        })?,
    )?;
    table.set(
        "jiffies_from_seconds",
        lua.create_function(|_, seconds: i64| {
            Ok(Timestamp(u64::try_from(seconds).unwrap_or(0) * 1_000_000))
        })?,
    )?;
    Ok(table)
}

/// What `log` prints for its values, one behind the other.
fn log_text(values: &[Value]) -> Result<String> {
    let mut text = String::new();
    for value in values {
        match value {
            Value::Nil => text.push_str("(nil)"),
            Value::Boolean(value) => text.push_str(&format!("({value})")),
            Value::Table(table) => text.push_str(&format!("(Table: {:p})", table.to_pointer())),
            Value::String(bytes) => text.push_str(&bytes.to_string_lossy()),
            Value::Function(_) => return Err(complaint("log does not take functions")),
            value => match (timestamp::stamp(value), text_of(value)) {
                (Some(stamp), _) => text.push_str(&format!("(Timestamp: {})", stamp.seconds())),
                (None, Some(number)) => text.push_str(&String::from_utf8_lossy(&number)),
                (None, None) => text.push_str(&format!("({})", value.type_name())),
            },
        }
    }
    Ok(text)
}

/// Names in a directory; true for directories, false for all else, symbolic links included.
fn read_directory(lua: &Lua, path: mlua::BString) -> Result<Option<Table>> {
    let shown = report::escape(&path);
    let entries = match fs::read_dir(OsStr::from_bytes(&path)) {
        Ok(entries) => entries,
        Err(_) => {
            report::error(format_args!("cannot open dir [{shown}]."));
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

/// Starts a process that belongs to no event; its end is not told to anybody.
fn execute(host: &Host, words: &[Value]) -> Result<Value> {
    let mut words = words
        .iter()
        .map(|word| text_of(word).ok_or_else(|| complaint("exec takes texts")));
    let program = words
        .next()
        .unwrap_or_else(|| Err(complaint("exec needs a program")))?;
    let command = process::Command {
        program,
        args: words.collect::<Result<_>>()?,
        stdin: process::Stdin::Inherit,
        output: process::Output::Inherit,
        environment: Vec::new(),
        priority: Default::default(),
    };
    match host.children.borrow_mut().spawn(command) {
        Ok(pid) => Ok(Value::Integer(pid.0.into())),
        Err(error) => {
            report::error(error.to_string());
            Ok(Value::Nil)
        }
    }
}
