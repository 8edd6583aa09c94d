//! Selection of a batch: all due entries, or with a `batchSizeLimit` the small ones together and
//! each large file alone.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table};

use crate::log;
use crate::paths;
use crate::queue::{Delay, DelayId, Etype, Take};
use crate::script::context::ScriptContext;
use crate::script::objects::Objects;
use crate::script::objects::inlet::{is_native, take_before_move, take_change};
use crate::script::sync_handle::SyncHandle;
use crate::sync::Sync;

/// `native.batch(inlet, test)`: returns the list for the next transfer. `test` is one of the
/// preludes' functions.
///
/// # Errors
///
/// Errors of Lua only.
pub fn batch(
    lua: &Lua,
    context: &ScriptContext,
    objects: &Objects,
    handle: &Rc<SyncHandle>,
    test: &Function,
) -> Result<Table> {
    let wanted = if is_native(lua, "is_before_move", test)? {
        take_before_move
    } else {
        take_change
    };
    let limit = handle.sync.borrow().config.batch_size_limit;
    let ids = match limit {
        None => {
            let sync = handle.sync.borrow();
            sync.queue.take(|delay| wanted(delay.etype()))
        }
        Some(limit) => by_size(context, &handle.sync.borrow(), limit, wanted),
    };
    objects.list(lua, handle, ids)
}

/// Selects the small entries or, if there are none, the first large one.
fn by_size(
    context: &ScriptContext,
    sync: &Sync,
    limit: u64,
    wanted: fn(Etype) -> Take,
) -> Vec<DelayId> {
    let mut large: usize = 0;
    let small = sync.queue.take(|delay| match wanted(delay.etype()) {
        Take::Take if is_large(sync, &delay, limit) => {
            large += 1;
            Take::Skip
        }
        other => other,
    });
    let ids = if small.is_empty() {
        large = large.saturating_sub(1);
        first(sync, wanted)
    } else {
        small
    };
    if large > 0 {
        tell_delayed(context, sync);
    }
    ids
}

fn first(sync: &Sync, wanted: fn(Etype) -> Take) -> Vec<DelayId> {
    let mut found = false;
    sync.queue.take(|delay| match wanted(delay.etype()) {
        Take::Take if found => Take::Stop,
        Take::Take => {
            found = true;
            Take::Take
        }
        other => other,
    })
}

/// Returns true if an entry exceeds the limit. Deleted files and entries without a transfer do not.
/// A directory has the size that stat(2) reports.
fn is_large(sync: &Sync, delay: &Delay<'_>, limit: u64) -> bool {
    if matches!(delay.etype(), Etype::Move | Etype::Delete) {
        return false;
    }
    let (path, _) = delay.paths();
    let path = paths::join(&sync.config.source, &path);
    fs::metadata(OsStr::from_bytes(&path)).is_ok_and(|meta| meta.len() > limit)
}

/// Marks large files as delayed if this transfer uses the last process.
fn tell_delayed(context: &ScriptContext, sync: &Sync) {
    let what = if sync.running() + 1 >= sync.config.max_processes {
        "Maximum processes for sync reached."
    } else if context.is_last_place() {
        "Maximum process count reached."
    } else {
        return;
    };
    let name = &sync.config.name;
    log::normal(format_args!(
        "{what} Delaying large transfer for sync: {name}"
    ));
}
