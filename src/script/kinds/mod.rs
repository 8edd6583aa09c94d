//! The parts of the built-in kinds that are written in Rust: the requests of `default.rsync`,
//! `default.rsyncssh` and `default.direct` to the event loop.
//!
//! * `built_in`: the kind of a sync and the programs it runs, for `-check` and reports;
//! * `batch_size`: selection of a batch;
//! * `comparison`: the dry run that compares source and target;
//! * `transfer`: the rsync call of a batch;
//! * `rsyncssh`: moves on the target;
//! * `local_copy`: copies by the daemon itself;
//! * `scan_request`: checks before a transfer;
//! * `request_tests`, `collect_tests`: tests of what they request, and of what follows.
//!
//! No Lua code runs while a sync is borrowed.

mod batch_size;
mod built_in;
#[cfg(test)]
mod collect_tests;
pub mod comparison;
pub mod local_copy;
#[cfg(test)]
mod request_tests;
mod rsyncssh;
pub mod scan_request;
mod transfer;

use std::rc::Rc;

use mlua::{Lua, Result, Table};

pub(in crate::script) use transfer::{rsync_target, whole_words};

use super::context::ScriptContext;
use super::objects::Objects;

/// Adds the functions of the built-in behaviours to the native functions of the preludes.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    transfer::add(lua, context, objects, native)?;
    rsyncssh::add(lua, context, objects, native)?;
    local_copy::add(lua, context, objects, native)?;
    scan_request::add(lua, context, objects, native)
}
