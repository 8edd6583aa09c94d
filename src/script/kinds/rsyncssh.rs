//! Native functions of default.rsyncssh: ssh arguments and the fallback of moves.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::config::ssh::{self, remote_move};
use crate::config::{config_error, config_error_about, text_of};
use crate::paths;
use crate::safe_path::{self, Access};
use crate::script::context::ScriptContext;
use crate::script::objects::{Agent, EventRef, Objects};
use crate::script::sync_handle::SyncHandle;

/// ssh(1), exit code 255: an error of ssh itself.
const EXIT_SSH: i32 = 255;

/// Adds the functions to the native functions of the preludes.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    rsyncssh(lua, native)?;

    let mapping = objects.clone();
    native.set(
        "shell_works",
        lua.create_function(move |_, event: Table| {
            let (handle, _) = event_of(&mapping, &event)?;
            handle.sync.borrow_mut().remote_shell_mut().works();
            Ok(())
        })?,
    )?;
    let mapping = objects.clone();
    native.set(
        "shell_failed",
        lua.create_function(move |_, (event, code): (Table, i32)| {
            let (handle, _) = event_of(&mapping, &event)?;
            let mut sync = handle.sync.borrow_mut();
            Ok(code == EXIT_SSH && sync.remote_shell_mut().fails())
        })?,
    )?;

    let (shared, mapping) = (Rc::clone(context), objects.clone());
    native.set(
        "split_move",
        lua.create_function(move |_, event: Table| {
            let (handle, event) = event_of(&mapping, &event)?;
            let now = shared.clock.now();
            handle.sync.borrow_mut().split_move(event.id, now);
            Ok(())
        })?,
    )
}

fn rsyncssh(lua: &Lua, native: &Table) -> Result<()> {
    native.set(
        "prepare_ssh",
        lua.create_function(|lua, config: Table| prepare_ssh(lua, &config))?,
    )?;
    native.set("remote_move", lua.create_function(remote_move)?)
}

/// Returns the ssh command of a move on the target; its last words are text for the login shell.
/// `is_equal` is true if everything that the source does not have is deleted on the target.
fn remote_move(
    lua: &Lua,
    (config, from, to, is_equal): (Table, mlua::BString, mlua::BString, bool),
) -> Result<Vec<mlua::LuaString>> {
    let source: mlua::BString = config.get("source")?;
    let directory: mlua::BString = config.get("targetdir")?;
    let alone = |path: &[u8]| is_at_the_top(path);
    let words = if is_equal && alone(&from) && alone(&to) && is_private(&source) {
        remote_move::move_words(&directory, &from, &to)
    } else {
        remote_move::proven_move_words(&directory, &from, &to)
    };
    words
        .into_iter()
        .map(|word| lua.create_string(word))
        .collect()
}

/// Returns true for a path directly in the source directory.
fn is_at_the_top(path: &[u8]) -> bool {
    paths::names(path).count() <= 1
}

/// Returns true if only root and this user can create files in a source, and in a target with the
/// same owner and mode.
fn is_private(source: &[u8]) -> bool {
    let directory = safe_path::enter(OsStr::from_bytes(source).as_ref());
    directory.is_ok_and(|directory| directory.own_access() == Access::Private)
}

/// Computes `ssh.binary` and `ssh._computed` for moves, and the remote shell options of rsync.
fn prepare_ssh(lua: &Lua, config: &Table) -> Result<()> {
    let table = match config.get("ssh")? {
        Value::Table(table) => table,
        _ => {
            return Err(config_error_about(
                "ssh",
                "Parameter \"ssh\" must be a table.",
            ));
        }
    };
    if !table.get::<Value>("_computed")?.is_nil() {
        return Err(config_error_about(
            "_computed",
            "please do not use the internal ssh._computed parameter",
        ));
    }
    let computed: Table = config.get::<Table>("rsync")?.get("_computed")?;
    let mut rsync = Vec::new();
    for word in computed.sequence_values::<Value>() {
        rsync.extend(text_of(&word?));
    }
    let environment = std::env::var_os("RSYNC_RSH").map(OsString::into_vec);
    let connection = ssh::SshConnection::new(&table, &rsync, environment.as_deref())?;
    if let Some(rsh) = connection.rsh {
        computed.raw_push(lua.create_string(rsh)?)?;
    }
    let words = lua.create_table()?;
    for word in connection.words {
        words.raw_push(lua.create_string(word)?)?;
    }
    table.set("_computed", words)?;
    table.set("binary", lua.create_string(connection.binary)?)
}

/// Returns the sync and the queue entry of an event object.
fn event_of(objects: &Objects, event: &Table) -> Result<(Rc<SyncHandle>, EventRef)> {
    match objects.agent(event)? {
        Some(Agent::Event(event)) => match event.handle.upgrade() {
            Some(handle) => Ok((handle, event)),
            None => Err(config_error("the event's sync is gone")),
        },
        _ => Err(config_error("not an event")),
    }
}
