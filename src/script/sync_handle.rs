//! A sync with its Lua objects.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

#[cfg(test)]
use mlua::Lua;
use mlua::Table;

use super::tunnel_object::TunnelObject;
use crate::log;
use crate::queue::DelayId;
use crate::sync::Sync;

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

#[cfg(test)]
impl SyncHandle {
    /// Returns a handle of a sync without configuration.
    pub fn of_sync(lua: &Lua, sync: Sync) -> Rc<SyncHandle> {
        Rc::new(SyncHandle {
            sync: Rc::new(RefCell::new(sync)),
            fingerprint: None,
            config: lua.create_table().unwrap(),
            inlet: lua.create_table().unwrap(),
            tunnel: None,
            events: RefCell::default(),
            object: OnceCell::new(),
        })
    }
}
