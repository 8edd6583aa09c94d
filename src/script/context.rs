//! The script context: state shared by the Lua API and the event loop.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::observed::Observed;
use super::request::RequestQueue;
use super::sync_handle::SyncHandle;
use super::tunnel_object::TunnelObject;
use super::watchdog::Watchdog;
use crate::config::{SettingsTable, config_error};
use crate::process::{Children, SshControl};
use crate::queue::Time;
use crate::staging::readers::Reading;
use crate::sync::Clock;

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
    /// The limits of user code.
    pub watchdog: Rc<Watchdog>,
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
        self.places() <= 1
    }

    /// Returns true if another child may start.
    pub fn may_spawn(&self) -> bool {
        self.places() > 0
    }

    /// Returns the number of children that may start besides the running and requested ones.
    pub fn places(&self) -> usize {
        let children = self.running.get() + self.requests.spawns();
        let limit = self.max_processes.get().unwrap_or(usize::MAX);
        limit.saturating_sub(children)
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
