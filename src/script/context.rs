//! What the functions of the Lua side share with the engine.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::local_copy::CopyRequest;
use super::observe::Observed;
use super::scan_request::ScanRequest;
use super::spawn::SpawnRequest;
use super::tunnel::TunnelObject;
use crate::config::{SettingsTable, config_error};
use crate::process::{Children, SshControl};
use crate::queue::{DelayId, Time};
use crate::scan::readers::Reading;
use crate::sync::{Clock, Sync};

/// How far the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The configuration runs.
    Loading,
    /// Syncs are at work.
    Running,
    /// Waiting for the last children; nothing new starts.
    ShuttingDown,
}

/// A sync and what Lua holds of it.
pub struct SyncHandle {
    /// The sync itself. Never borrowed while Lua runs. Where a configuration was read anew and
    /// is the same for this sync, members of both share it.
    pub sync: Rc<RefCell<Sync>>,
    /// Equal for equal configurations; none where that can't be told.
    pub fingerprint: Option<Vec<u8>>,
    /// Its merged configuration.
    pub config: Table,
    /// The object its functions are given.
    pub inlet: Table,
    /// What its transfers go through.
    pub tunnel: Option<Rc<TunnelObject>>,
    /// Event objects of queue entries, two for a move; the same entry gives the same objects
    /// until it is done, with whatever user code has put into them.
    pub events: RefCell<HashMap<DelayId, (Table, Option<Table>)>>,
    /// What `inlet.getSync()` returns, once it was asked for.
    pub object: OnceCell<Table>,
}

impl SyncHandle {
    /// Returns true if its transfers may start, as far as its tunnel goes.
    pub fn is_connected(&self) -> bool {
        let tunnel = self.tunnel.as_ref();
        tunnel.is_none_or(|tunnel| tunnel.machine.borrow().is_up())
    }

    /// Drops the objects of those entries that are done.
    pub fn forget_finished(&self, ids: &[DelayId]) {
        let is_done = |id: &DelayId| !self.sync.borrow().queue.contains(*id);
        self.events
            .borrow_mut()
            .retain(|id, _| !ids.contains(id) || !is_done(id));
    }

    /// Drops the objects of entries that are done.
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

/// A call that user code asked for with `alarm`.
pub struct Alarm {
    /// When.
    pub due: Time,
    /// What is called, with the timestamp and `extra`.
    pub function: Function,
    /// Passed on.
    pub extra: Value,
}

/// State shared by the API's functions and the engine.
pub struct ScriptContext {
    /// How far the daemon is.
    pub stage: Cell<Stage>,
    /// All syncs, in the order of the configuration.
    pub syncs: RefCell<Vec<Rc<SyncHandle>>>,
    /// Those of the configuration before this one, whose state may go on.
    pub before: RefCell<Vec<Rc<SyncHandle>>>,
    /// All tunnels, in the order of the configuration.
    pub tunnels: RefCell<Vec<Rc<TunnelObject>>>,
    /// What Lua asked to be started since the engine looked last.
    pub requests: RefCell<Vec<SpawnRequest>>,
    /// What Lua asked the daemon to do itself, likewise.
    pub orders: RefCell<Vec<CopyRequest>>,
    /// What Lua asked to be checked first, likewise.
    pub checks: RefCell<Vec<ScanRequest>>,
    /// What is spawned now is for entries that are active, as they were checked, and reads the
    /// staged tree.
    pub cleared: RefCell<Option<Rc<Reading>>>,
    /// Pending calls of `alarm`.
    pub alarms: RefCell<Vec<Alarm>>,
    /// What user code observes.
    pub observed: Observed,
    /// Running children, of syncs only.
    pub running: Cell<usize>,
    /// The global limit of children.
    pub max_processes: Cell<Option<usize>>,
    /// Since when user code runs.
    pub user_code: super::watchdog::RunningSince,
    /// `terminate(n)` was called.
    pub ending: Cell<Option<i64>>,
    /// A startup transfer failed and `insist` is not set: the daemon ends.
    pub startup_failed: Cell<bool>,
    /// The built-in table of rsync's exit codes was asked since this was last cleared.
    pub by_default: Cell<bool>,
    /// The settings of the configuration.
    pub settings: SettingsTable,
    /// `-delay` of the command line.
    pub delay: Option<f64>,
    /// All children of the daemon.
    pub children: Rc<RefCell<Children>>,
    /// Where shared ssh connections have their sockets.
    pub sockets: SshControl,
    /// The clock of queues and timestamps.
    pub clock: Clock,
    /// Where relative local targets are meant from, when the daemon has left that directory.
    pub base: RefCell<Option<PathBuf>>,
    /// The last text made of a complaint, to tell those from errors of Lua itself.
    pub complained: RefCell<String>,
}

impl ScriptContext {
    /// Returns true if only one more child may start.
    pub fn is_last_place(&self) -> bool {
        let asked = self.requests.borrow().len();
        let limit = self.max_processes.get();
        limit.is_some_and(|limit| self.running.get() + asked + 1 >= limit)
    }

    /// Returns true if all that Lua asked for is processes for empty lists.
    pub fn spawns_for_nothing(&self) -> bool {
        let requests = self.requests.borrow();
        !requests.is_empty()
            && requests.iter().all(|request| request.ids.is_empty())
            && self.orders.borrow().is_empty()
            && self.checks.borrow().is_empty()
    }

    /// Returns true if another child of any sync may start.
    pub fn may_spawn(&self) -> bool {
        let asked = self.requests.borrow().len();
        self.max_processes
            .get()
            .is_none_or(|limit| self.running.get() + asked < limit)
    }
}

/// The member whose inlet object this is.
///
/// # Errors
/// It is none.
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
