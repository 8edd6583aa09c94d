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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Etype;
    use crate::sync::tests::sync_of;

    #[test]
    fn objects_of_entries_that_are_done_are_dropped() {
        let lua = Lua::new();
        let mut sync = sync_of(b"/src/");
        for path in [b"/a", b"/b", b"/c", b"/d"] {
            sync.queue.push(Etype::Modify, path, None, 0);
        }
        let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        // Of `a` and `c` nothing is left to do.
        for id in [ids[0], ids[2]] {
            sync.queue.discard(id);
        }
        let handle = SyncHandle::of_sync(&lua, sync);
        for &id in &ids {
            let object = lua.create_table().unwrap();
            handle.events.borrow_mut().insert(id, (object, None));
        }
        let kept = |handle: &SyncHandle| {
            let events = handle.events.borrow();
            ids.iter()
                .map(|id| events.contains_key(id))
                .collect::<Vec<_>>()
        };
        handle.forget_finished(&ids[..2]);
        assert_eq!(kept(&handle), [false, true, true, true]);
        handle.forget(&ids[1..3]);
        assert_eq!(kept(&handle), [false, false, false, true]);
    }

    #[test]
    fn a_name_is_that_of_the_configuration_or_of_the_log() {
        let mut sync = sync_of(b"/src/");
        sync.config.name = log::escape(b"a\nb").into_owned();
        let shown = sync.config.name.clone();
        let handle = SyncHandle::of_sync(&Lua::new(), sync);
        for name in [None, Some("a\nb"), Some(&*shown)] {
            assert!(handle.is_meant(name), "{name:?}");
        }
        assert!(!handle.is_meant(Some("a")));
    }
}
