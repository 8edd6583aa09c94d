//! The script context: state shared by the Lua API and the event loop.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::api::observe::Observed;
use super::api::tunnel::TunnelObject;
use super::request::RequestQueue;
use crate::config::{SettingsTable, config_error};
use crate::log;
use crate::process::{Children, SshControl};
use crate::queue::{DelayId, Time};
use crate::scan::staging::readers::Reading;
use crate::sync::{Clock, Sync};

/// The stage of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The configuration is being loaded.
    Loading,
    /// The event loop is running.
    Running,
    /// The daemon waits for the last children; nothing new starts.
    ShuttingDown,
}

/// A sync handle: a sync with its Lua objects.
pub struct SyncHandle {
    /// The sync. Must not be borrowed while Lua runs. After a reload with an unchanged
    /// configuration the old and the new handle share it.
    pub sync: Rc<RefCell<Sync>>,
    /// Equal for equal configurations; `None` if they cannot be compared.
    pub fingerprint: Option<Vec<u8>>,
    /// The merged configuration.
    pub config: Table,
    /// The inlet object.
    pub inlet: Table,
    /// The tunnel of its transfers.
    pub tunnel: Option<Rc<TunnelObject>>,
    /// The event objects of queue entries, two for a move. An entry keeps its objects, including
    /// fields set by user code, until it is done.
    pub events: RefCell<HashMap<DelayId, (Table, Option<Table>)>>,
    /// The object returned by `inlet.getSync()`, once it is created.
    pub object: OnceCell<Table>,
}

impl SyncHandle {
    /// Returns true if it has this name, as it is configured or as it is shown, or if no name is
    /// given.
    pub fn is_meant(&self, name: Option<&str>) -> bool {
        let sync = self.sync.borrow();
        let shown = &sync.config.name;
        name.is_none_or(|name| shown == name || *shown == log::escape(name.as_bytes()))
    }

    /// Returns true if its tunnel, if any, permits transfers.
    pub fn is_connected(&self) -> bool {
        let tunnel = self.tunnel.as_ref();
        tunnel.is_none_or(|tunnel| tunnel.machine.borrow().is_up())
    }

    /// Drops the event objects of those entries that are done.
    pub fn forget_finished(&self, ids: &[DelayId]) {
        let is_done = |id: &DelayId| !self.sync.borrow().queue.contains(*id);
        self.events
            .borrow_mut()
            .retain(|id, _| !ids.contains(id) || !is_done(id));
    }

    /// Drops the event objects of entries.
    pub fn forget(&self, ids: &[DelayId]) {
        let mut events = self.events.borrow_mut();
        if events.is_empty() {
            return;
        }
        for id in ids {
            events.remove(id);
        }
    }
}

/// A pending call of `alarm`.
pub struct Alarm {
    /// The time of the call.
    pub due: Time,
    /// The function, called with the timestamp and `extra`.
    pub function: Function,
    /// An argument of the call.
    pub extra: Value,
}

/// The script context: state shared by the Lua API and the event loop.
pub struct ScriptContext {
    /// The stage of the configuration.
    pub stage: Cell<Stage>,
    /// All syncs, in the order of the configuration.
    pub syncs: RefCell<Vec<Rc<SyncHandle>>>,
    /// The syncs of the previous configuration, whose state may be taken over.
    pub previous_syncs: RefCell<Vec<Rc<SyncHandle>>>,
    /// All tunnels, in the order of the configuration.
    pub tunnels: RefCell<Vec<Rc<TunnelObject>>>,
    /// Requests that the event loop has not taken yet.
    pub requests: RequestQueue,
    /// The read lock of the staged tree for the transfer that is being spawned after a scan pass.
    pub staged_reading: RefCell<Option<Rc<Reading>>>,
    /// Pending calls of `alarm`.
    pub alarms: RefCell<Vec<Alarm>>,
    /// The file descriptors observed by user code.
    pub observed: Observed,
    /// The number of running children of syncs.
    pub running: Cell<usize>,
    /// The global limit of processes.
    pub max_processes: Cell<Option<usize>>,
    /// The start of the user code that is running.
    pub user_code: super::watchdog::RunningSince,
    /// The argument of `terminate(n)`, if it was called.
    pub ending: Cell<Option<i64>>,
    /// A startup transfer failed and `insist` is not set, so the daemon ends.
    pub startup_failed: Cell<bool>,
    /// The built-in exit code table has been used since this was reset.
    pub used_default_exit_codes: Cell<bool>,
    /// The settings of the configuration.
    pub settings: SettingsTable,
    /// `-delay` of the command line.
    pub delay: Option<f64>,
    /// All children of the daemon.
    pub children: Rc<RefCell<Children>>,
    /// The sockets of shared ssh connections.
    pub sockets: SshControl,
    /// The clock of queues and timestamps.
    pub clock: Clock,
    /// The directory relative local targets refer to, if the daemon has left it.
    pub base: RefCell<Option<PathBuf>>,
    /// The last text made of a configuration error, to distinguish it from errors of Lua.
    pub last_config_error: RefCell<String>,
}

impl ScriptContext {
    /// Returns true if only one more child may start.
    pub fn is_last_place(&self) -> bool {
        let processes = self.processes();
        let limit = self.max_processes.get();
        limit.is_some_and(|limit| processes + 1 >= limit)
    }

    /// Returns true if another child may start.
    pub fn may_spawn(&self) -> bool {
        let processes = self.processes();
        self.max_processes
            .get()
            .is_none_or(|limit| processes < limit)
    }

    /// Returns the number of running and requested children.
    fn processes(&self) -> usize {
        self.running.get() + self.requests.spawns()
    }
}

/// Returns the sync handle of an inlet object.
///
/// # Errors
///
/// The table is not an inlet.
pub fn handle_of(lua: &Lua, inlet: &Table) -> Result<Rc<SyncHandle>> {
    let context = lua
        .app_data_ref::<Rc<ScriptContext>>()
        .ok_or_else(|| config_error("the daemon is not set up"))?;
    let syncs = context.syncs.borrow();
    syncs
        .iter()
        .find(|handle| handle.inlet == *inlet)
        .cloned()
        .ok_or_else(|| config_error("not an inlet"))
}
