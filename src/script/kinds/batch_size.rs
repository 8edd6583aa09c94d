//! Selection of a batch: all due entries, or with a `batchSizeLimit` the small ones together and
//! each large file alone.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{Lua, Result, Table};

use crate::log;
use crate::paths;
use crate::queue::{Delay, DelayId, Etype, Take};
use crate::script::context::ScriptContext;
use crate::script::objects::Objects;
use crate::script::sync_handle::SyncHandle;
use crate::sync::Sync;

/// Decides by its type if an entry is taken.
pub type Wanted = fn(Etype) -> Take;

/// Takes all entries but those that go alone or only wait for others.
pub fn changes(etype: Etype) -> Take {
    match etype {
        Etype::Init | Etype::Blanket | Etype::Full => Take::Skip,
        _ => Take::Take,
    }
}

/// As [`changes`], up to the first Move, which goes alone.
pub fn before_move(etype: Etype) -> Take {
    match etype {
        Etype::Move => Take::Stop,
        etype => changes(etype),
    }
}

/// Returns the list of all entries that are wanted.
///
/// # Errors
///
/// Errors of Lua only.
pub fn list(
    lua: &Lua,
    objects: &Objects,
    handle: &Rc<SyncHandle>,
    wanted: Wanted,
) -> Result<Table> {
    let queue = &handle.sync.borrow().queue;
    let ids = queue.take(|delay| wanted(delay.etype()));
    objects.list(lua, handle, ids)
}

/// Returns the list for the next transfer.
///
/// # Errors
///
/// Errors of Lua only.
pub fn batch(
    lua: &Lua,
    context: &ScriptContext,
    objects: &Objects,
    handle: &Rc<SyncHandle>,
    wanted: Wanted,
) -> Result<Table> {
    let limit = handle.sync.borrow().config.batch_size_limit;
    let Some(limit) = limit else {
        return list(lua, objects, handle, wanted);
    };
    let ids = by_size(context, &handle.sync.borrow(), limit, wanted);
    objects.list(lua, handle, ids)
}

/// Selects the small entries or, if there are none, the first large one.
fn by_size(context: &ScriptContext, sync: &Sync, limit: u64, wanted: Wanted) -> Vec<DelayId> {
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

fn first(sync: &Sync, wanted: Wanted) -> Vec<DelayId> {
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
