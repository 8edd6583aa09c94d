//! The functions that user code calls: the globals, `tunnel{ … }` and the `lsyncd` table.
//!
//! * `globals`: logging, time, directories;
//! * `spawn`: processes for queue entries;
//! * `observe`: file descriptors;
//! * `tunnel`: `tunnel{ … }` and its substitutions;
//! * `lsyncd_table`: functions of lsyncd's core.
//!
//! A function checks its arguments and leaves a request for the event loop. It starts nothing that
//! has an event itself, and it does not block.

mod globals;
mod lsyncd_table;
pub mod observe;
pub mod spawn;
pub mod tunnel;

use std::rc::Rc;

use mlua::{Lua, Result, Table};

use super::context::ScriptContext;
use super::objects::Objects;

/// Adds the functions of user code to the native functions of the preludes.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    let globals = globals::globals(lua, context, objects)?;
    tunnel::add(lua, context, &globals)?;
    let lsyncd = lsyncd_table::functions(lua, context)?;
    observe::add(lua, context, &globals, &lsyncd)?;
    native.set("globals", globals)?;
    native.set("lsyncd_functions", lsyncd)?;
    native.set("inotify", lsyncd_table::inotify(lua)?)
}
