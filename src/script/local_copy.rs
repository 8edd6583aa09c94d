//! What default.direct asks for: work that the daemon does itself, in place of a process.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use super::context::{ScriptContext, Stage, SyncHandle};
use super::event::{Agent, Objects};
use super::transfer::{change, rsync_target};
use crate::config::{Delete, config_error};
use crate::local::{CopyItem, CopyTask};
use crate::log;
use crate::queue::{DelayId, Etype};
use crate::sync::Sync;

/// Work that shall be done for queue entries of a sync.
pub struct CopyRequest {
    /// Whose.
    pub handle: Rc<SyncHandle>,
    /// The event or list object, for `collect`.
    pub agent: Table,
    /// The entries it is about; they are active already.
    pub ids: Vec<DelayId>,
    /// A local directory.
    pub target: Vec<u8>,
    /// True if what is gone at the source goes at the target.
    pub delete: bool,
    /// Even if it is excluded.
    pub delete_excluded: bool,
    /// What is to be done.
    pub task: CopyTask,
}

/// Puts the function into the table that preludes get.
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
    let delete_excluded = delete_excluded && !sync.holds_any();
    let task = task(&sync, &ids, |etype, path| !sync.is_held(etype, path));
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

/// What entries come to as work: the changes of them that are `wanted`, or everything if none of
/// them is about a path.
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
