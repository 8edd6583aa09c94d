//! Requests of default.direct for local copies by the daemon.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use super::transfer::{change, rsync_target};
use crate::config::Delete;
use crate::local::{CopyItem, CopyTask};
use crate::log;
use crate::queue::{DelayId, Etype};
use crate::script::context::{ScriptContext, Stage};
use crate::script::objects::Objects;
use crate::script::request::{CopyRequest, ScriptRequest};
use crate::script::sync_handle::SyncHandle;
use crate::sync::Sync;

/// Adds the function to the native functions of the preludes.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    let (shared, mapping) = (Rc::clone(context), objects.clone());
    native.set(
        "direct",
        lua.create_function(move |lua, agent: Table| {
            let (handle, ids) = mapping.entries(&agent)?;
            if shared.stage.get() != Stage::ShuttingDown {
                let request = request(lua, handle, agent, ids)?;
                shared.requests.push(ScriptRequest::Copy(request));
            }
            Ok(())
        })?,
    )
}

fn request(
    lua: &Lua,
    handle: Rc<SyncHandle>,
    agent: Table,
    ids: Vec<DelayId>,
) -> Result<CopyRequest> {
    let target = rsync_target(lua, &handle.config)?;
    let delete_excluded = match handle.config.get("rsync")? {
        Value::Table(rsync) => rsync.get::<Value>("delete_excluded")? == Value::Boolean(true),
        _ => false,
    };
    let sync = handle.sync.borrow();
    let delete_excluded = delete_excluded && !sync.misses_mounts();
    let task = task(&sync, &ids, |etype, path| {
        !sync.is_below_missing_mount(etype, path)
    });
    let delete = sync.config.delete;
    let keeps_others = delete.keeps_others();
    let what = match &task {
        CopyTask::Everything => Some("recursive full copy".to_owned()),
        CopyTask::Directories(all) => Some(format!("copy of {} changed directories", all.len())),
        CopyTask::Events(_) => None,
    };
    let delete = match what {
        Some(what) => {
            let source = log::escape(&sync.config.source);
            log::normal(format_args!("{what}: {source} -> {}", log::escape(&target)));
            matches!(delete, Delete::Always | Delete::Startup)
        }
        None => delete.in_batches(),
    };
    drop(sync);
    if task == CopyTask::Everything {
        handle.sync.borrow_mut().verify_mut().compares_all(true);
    }
    Ok(CopyRequest {
        handle,
        agent,
        ids,
        target,
        delete,
        delete_excluded,
        keeps_others,
        task,
    })
}

/// Returns the task of queue entries: the changes that are `wanted`, or a full comparison if no
/// entry has a path.
pub fn task(sync: &Sync, ids: &[DelayId], wanted: impl Fn(Etype, &[u8]) -> bool) -> CopyTask {
    let delays = ids.iter().filter_map(|id| sync.queue.get(*id));
    let plain = delays.filter(|delay| !delay.etype().is_special());
    let mut plain = plain.peekable();
    if plain.peek().is_none() {
        return match sync.startup_directories() {
            Some(directories) => CopyTask::Directories(directories.to_vec()),
            None => CopyTask::Everything,
        };
    }
    let items = plain.filter_map(|delay| {
        let (path, to) = delay.paths();
        let change = change(delay.etype());
        wanted(delay.etype(), &path).then_some(CopyItem { change, path, to })
    });
    CopyTask::Events(items.collect())
}
