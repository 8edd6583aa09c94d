//! `observefd` and `nonobservefd`: functions of user code for file descriptors.

use std::os::fd::RawFd;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use crate::config::{config_error, number_of};
use crate::script::context::ScriptContext;

/// Adds the functions to the globals and to the `lsyncd` table.
pub fn add(lua: &Lua, context: &Rc<ScriptContext>, globals: &Table, lsyncd: &Table) -> Result<()> {
    let shared = Rc::clone(context);
    let observe =
        lua.create_function(move |_, (fd, readable, writable): (Value, Value, Value)| {
            let fd = descriptor(&fd, "observefd")?;
            shared
                .observed
                .observe(fd, function(&readable)?, function(&writable)?)
        })?;
    let shared = Rc::clone(context);
    let forget = lua.create_function(move |_, fd: Value| {
        shared.observed.forget(descriptor(&fd, "nonobservefd")?)
    })?;
    lsyncd.set("observe_fd", &observe)?;
    lsyncd.set("nonobserve_fd", &forget)?;
    globals.set("observefd", observe)?;
    globals.set("nonobservefd", forget)
}

fn descriptor(value: &Value, name: &str) -> Result<RawFd> {
    let number = number_of(value).filter(|number| (0.0..1e9).contains(number));
    number
        .map(|number| number as RawFd)
        .ok_or_else(|| config_error(format!("{name} needs the number of a descriptor")))
}

fn function(value: &Value) -> Result<Option<Function>> {
    match value {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::Function(function) => Ok(Some(function.clone())),
        other => Err(config_error(format!(
            "observefd takes functions, not a {}",
            other.type_name()
        ))),
    }
}
