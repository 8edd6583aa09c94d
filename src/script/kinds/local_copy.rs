//! Requests of default.direct for local copies by the daemon.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use super::transfer::{change, rsync_target};
use crate::config::{Delete, config_error};
use crate::local::{CopyItem, CopyTask};
use crate::log;
use crate::queue::{DelayId, Etype};
use crate::script::context::{ScriptContext, Stage, SyncHandle};
use crate::script::objects::{Agent, Objects};
use crate::sync::Sync;

/// A local copy for queue entries of a sync.
pub struct CopyRequest {
    /// The sync.
    pub handle: Rc<SyncHandle>,
    /// The event or list object, for `collect`.
    pub agent: Table,
    /// The queue entries, which are active already.
    pub ids: Vec<DelayId>,
    /// The target, a local directory.
    pub target: Vec<u8>,
    /// Files deleted at the source are deleted at the target.
    pub delete: bool,
    /// Excluded files are deleted as well.
    pub delete_excluded: bool,
    /// The changes to be copied.
    pub task: CopyTask,
}

/// Adds the function to the native functions of the preludes.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    let (h, with) = (Rc::clone(context), objects.clone());
    native.set(
        "direct",
        lua.create_function(move |lua, agent: Table| {
            let Some(behind) = with.agent(&agent)? else {
                return Err(config_error("neither an event nor a list of events"));
            };
            if h.stage.get() == Stage::ShuttingDown {
                return Ok(());
            }
            let request = request(lua, agent, &behind)?;
            request
                .handle
                .sync
                .borrow_mut()
                .begin_anywhere(&request.ids);
            h.orders.borrow_mut().push(request);
            Ok(())
        })?,
    )
}

fn request(lua: &Lua, agent: Table, behind: &Agent) -> Result<CopyRequest> {
    let handle = behind
        .handle()
        .ok_or_else(|| config_error("the sync is gone"))?;
    let target = rsync_target(lua, &handle.config)?;
    let delete_excluded = match handle.config.get("rsync")? {
        Value::Table(rsync) => rsync.get::<Value>("delete_excluded")? == Value::Boolean(true),
        _ => false,
    };
    let ids = behind.ids();
    let sync = handle.sync.borrow();
    let delete_excluded = delete_excluded && !sync.misses_mounts();
    let task = task(&sync, &ids, |etype, path| {
        !sync.is_below_missing_mount(etype, path)
    });
    let delete = sync.config.delete;
    let delete = match task {
        CopyTask::Everything => {
            let way = format!(
                "recursive full copy: {} -> {}",
                log::escape(&sync.config.source),
                log::escape(&target)
            );
            log::normal(way);
            matches!(delete, Delete::Always | Delete::Startup)
        }
        CopyTask::Events(_) => delete.in_batches(),
    };
    drop(sync);
    Ok(CopyRequest {
        handle,
        agent,
        ids,
        target,
        delete,
        delete_excluded,
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
        return CopyTask::Everything;
    }
    let items = plain.filter_map(|delay| {
        let (path, to) = delay.paths();
        let change = change(delay.etype());
        wanted(delay.etype(), &path).then_some(CopyItem { change, path, to })
    });
    CopyTask::Events(items.collect())
}
