//! The objects that user code gets: events, lists of events, inlets, syncs and timestamps.
//!
//! * `event`, `list`: one entry of a queue, and some of them;
//! * `inlet`: the functions that read the queue of a sync;
//! * `sync`: the object returned by `inlet.getSync()`;
//! * `timestamp`: points in time.
//!
//! Event and list objects are plain tables. [`Objects`] maps them to queue entries. An object holds
//! no sync alive and does not keep it borrowed while Lua runs.

pub mod event;
pub mod inlet;
pub mod list;
pub mod sync;
pub mod timestamp;

use std::rc::{Rc, Weak};

use mlua::{AnyUserData, Lua, Result, Table, UserData};

pub use event::EventRef;

use crate::config::config_error;
use crate::queue::{DelayId, Etype};
use crate::script::sync_handle::SyncHandle;
use event::MoveEnd;

/// The queue entries of a list object.
#[derive(Clone)]
pub struct ListRef {
    /// The sync.
    pub handle: Weak<SyncHandle>,
    /// The queue entries in order.
    pub ids: Rc<[DelayId]>,
}

impl UserData for ListRef {}

/// The agent of `spawn` and `collect`.
#[derive(Clone)]
pub enum Agent {
    /// An event object.
    Event(EventRef),
    /// A list object.
    List(ListRef),
}

impl Agent {
    /// Returns the sync handle.
    pub fn handle(&self) -> Option<Rc<SyncHandle>> {
        match self {
            Agent::Event(event) => event.handle.upgrade(),
            Agent::List(list) => list.handle.upgrade(),
        }
    }

    /// Returns the queue entries.
    pub fn ids(&self) -> Vec<DelayId> {
        match self {
            Agent::Event(event) => vec![event.id],
            Agent::List(list) => list.ids.to_vec(),
        }
    }
}

/// The mapping of objects to queue entries. Objects are plain tables, so the mapping is a table
/// with weak keys.
#[derive(Clone)]
pub struct Objects {
    refs: Table,
    event_meta: Table,
    list_meta: Table,
}

impl Objects {
    /// Returns an empty mapping. The prelude fills the metatables.
    pub fn new(lua: &Lua) -> Result<Objects> {
        let refs = lua.create_table()?;
        let weak = lua.create_table()?;
        weak.set("__mode", "k")?;
        refs.set_metatable(Some(weak))?;
        Ok(Objects {
            refs,
            event_meta: lua.create_table()?,
            list_meta: lua.create_table()?,
        })
    }

    /// Returns the metatables of events and of lists.
    pub fn metatables(&self) -> (Table, Table) {
        (self.event_meta.clone(), self.list_meta.clone())
    }

    /// Returns the event object of a queue entry, and a second one for a move.
    pub fn event(
        &self,
        lua: &Lua,
        handle: &Rc<SyncHandle>,
        id: DelayId,
    ) -> Result<(Table, Option<Table>)> {
        let known = handle.events.borrow().get(&id).cloned();
        let (etype, path, path2) = {
            let sync = handle.sync.borrow();
            let delay = match (sync.queue.get(id), known) {
                // A Delete becomes a Create in place if the file is created again.
                (Some(delay), Some(known)) if self.is_of(&known.0, delay.etype())? => {
                    return Ok(known);
                }
                (Some(delay), _) => delay,
                (None, Some(known)) => return Ok(known),
                (None, None) => return Err(config_error("the event is done already")),
            };
            let (path, path2) = delay.paths();
            (delay.etype(), path, path2)
        };
        let object = |path: Vec<u8>, half| {
            let event = EventRef {
                handle: Rc::downgrade(handle),
                id,
                etype,
                path: path.into(),
                half,
            };
            self.object(lua, event, &self.event_meta)
        };
        let made = match path2 {
            Some(path2) => (
                object(path, MoveEnd::From)?,
                Some(object(path2, MoveEnd::To)?),
            ),
            None => (object(path, MoveEnd::Whole)?, None),
        };
        handle.events.borrow_mut().insert(id, made.clone());
        Ok(made)
    }

    /// Returns the object of a queue entry for `getList()`: `path` has a leading slash, and the
    /// fields `path2` and `alarm` exist.
    pub fn entry(&self, lua: &Lua, handle: &Rc<SyncHandle>, id: DelayId) -> Result<Option<Table>> {
        let entry = match handle.sync.borrow().queue.get(id) {
            Some(delay) => EventRef {
                handle: Rc::downgrade(handle),
                id,
                etype: delay.etype(),
                path: delay.paths().0.into(),
                half: MoveEnd::Entry,
            },
            None => return Ok(None),
        };
        self.object(lua, entry, &self.event_meta).map(Some)
    }

    /// Returns a list object.
    pub fn list(&self, lua: &Lua, handle: &Rc<SyncHandle>, ids: Vec<DelayId>) -> Result<Table> {
        let list = ListRef {
            handle: Rc::downgrade(handle),
            ids: ids.into(),
        };
        self.object(lua, list, &self.list_meta)
    }

    fn is_of(&self, object: &Table, etype: Etype) -> Result<bool> {
        Ok(match self.agent(object)? {
            Some(Agent::Event(event)) => event.etype == etype,
            _ => false,
        })
    }

    fn object(&self, lua: &Lua, data: impl UserData + 'static, meta: &Table) -> Result<Table> {
        let object = lua.create_table()?;
        object.set_metatable(Some(meta.clone()))?;
        self.refs.raw_set(&object, lua.create_userdata(data)?)?;
        Ok(object)
    }

    /// Returns the sync and the queue entries of an agent.
    ///
    /// # Errors
    ///
    /// The table is not an agent, or its sync is gone.
    pub fn entries(&self, agent: &Table) -> Result<(Rc<SyncHandle>, Vec<DelayId>)> {
        let agent = self
            .agent(agent)?
            .ok_or_else(|| config_error("neither an event nor a list of events"))?;
        let handle = agent
            .handle()
            .ok_or_else(|| config_error("the sync is gone"))?;
        Ok((handle, agent.ids()))
    }

    /// Returns the agent of an object; `None` for any other table.
    pub fn agent(&self, object: &Table) -> Result<Option<Agent>> {
        let Some(data) = self.refs.raw_get::<Option<AnyUserData>>(object)? else {
            return Ok(None);
        };
        if let Ok(event) = data.borrow::<EventRef>() {
            return Ok(Some(Agent::Event(event.clone())));
        }
        let list = data.borrow::<ListRef>()?;
        Ok(Some(Agent::List(list.clone())))
    }
}

#[cfg(test)]
mod tests {
    use crate::script::test_setup::Loaded;
    use crate::watch::Event;

    /// User code would otherwise delete a file that was created again.
    #[test]
    fn an_entry_keeps_its_object_until_it_becomes_another_event() {
        let sync = Loaded::of("sync{ source = '@DIR@/src', init = false, onCreate = print }");
        sync.ingest("f", |path| Event::Delete { path });
        let (handle, id) = (sync.handle(0), sync.due());
        let event = || sync.script.objects.event(&sync.script.lua, &handle, id);
        let first = event().unwrap().0;
        assert_eq!(first.get::<String>("etype").unwrap(), "Delete");
        first.set("mine", 1).unwrap();
        assert_eq!(event().unwrap().0, first);
        sync.create("f");
        assert!(handle.sync.borrow().queue.contains(id));
        let second = event().unwrap().0;
        assert_eq!(second.get::<String>("etype").unwrap(), "Create");
        assert_eq!(event().unwrap().0, second);
    }
}
