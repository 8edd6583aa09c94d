//! Event and list objects of user code: tables whose fields are looked up on access.

use std::rc::{Rc, Weak};

use mlua::{AnyUserData, IntoLua, Lua, Result, Table, UserData, Value};

use super::context::SyncHandle;
use super::timestamp::Timestamp;
use crate::config::{config_error, text_of};
use crate::queue::{DelayId, Etype, Status};

/// The queue entry of an event object.
#[derive(Clone)]
pub struct EventRef {
    /// The sync.
    pub handle: Weak<SyncHandle>,
    /// The queue entry.
    pub id: DelayId,
    /// The event type.
    pub etype: Etype,
    /// The path of this object: the origin of a move for the first object, the destination for the
    /// second. It begins with a slash except for Init and Blanket.
    path: Rc<[u8]>,
    half: MoveEnd,
}

#[derive(Clone, Copy, PartialEq)]
enum MoveEnd {
    Whole,
    From,
    To,
    /// An item of `getList()`: one object for both paths of a move.
    Entry,
}

impl UserData for EventRef {}

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
    behind: Table,
    event_meta: Table,
    list_meta: Table,
}

impl Objects {
    /// Returns an empty mapping. The prelude fills the metatables.
    pub fn new(lua: &Lua) -> Result<Objects> {
        let behind = lua.create_table()?;
        let weak = lua.create_table()?;
        weak.set("__mode", "k")?;
        behind.set_metatable(Some(weak))?;
        Ok(Objects {
            behind,
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
                // The entry may have been replaced while it waited for a retry.
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

    fn object(&self, lua: &Lua, behind: impl UserData + 'static, meta: &Table) -> Result<Table> {
        let object = lua.create_table()?;
        object.set_metatable(Some(meta.clone()))?;
        self.behind.raw_set(&object, lua.create_userdata(behind)?)?;
        Ok(object)
    }

    /// Returns the agent of an object; `None` for any other table.
    pub fn agent(&self, object: &Table) -> Result<Option<Agent>> {
        let Some(behind) = self.behind.raw_get::<Option<AnyUserData>>(object)? else {
            return Ok(None);
        };
        if let Ok(event) = behind.borrow::<EventRef>() {
            return Ok(Some(Agent::Event(event.clone())));
        }
        let list = behind.borrow::<ListRef>()?;
        Ok(Some(Agent::List(list.clone())))
    }
}

impl EventRef {
    /// Returns a field of the event.
    ///
    /// # Errors
    ///
    /// The field does not exist, or it needs a target and there is none.
    pub fn field(&self, lua: &Lua, name: &str) -> Result<Value> {
        let handle = self
            .handle
            .upgrade()
            .ok_or_else(|| config_error("the event's sync is gone"))?;
        let text = |bytes: &[u8]| Ok(Value::String(lua.create_string(bytes)?));
        match name {
            "config" => return Ok(Value::Table(handle.config.clone())),
            "inlet" => return Ok(Value::Table(handle.inlet.clone())),
            "etype" => return text(self.etype.name().as_bytes()),
            "isList" => return Ok(Value::Boolean(false)),
            "isdir" => return Ok(Value::Boolean(self.path.ends_with(b"/"))),
            "status" => return text(self.status(&handle).as_bytes()),
            "move" => {
                return match self.half {
                    MoveEnd::Whole | MoveEnd::Entry => Ok(Value::Nil),
                    MoveEnd::From => text(b"Fr"),
                    MoveEnd::To => text(b"To"),
                };
            }
            "path" if self.half == MoveEnd::Entry => return text(&self.path),
            "path2" if self.half == MoveEnd::Entry => {
                let sync = handle.sync.borrow();
                let path2 = sync.queue.get(self.id).and_then(|delay| delay.paths().1);
                return path2.map_or(Ok(Value::Nil), |path| text(&path));
            }
            "alarm" if self.half == MoveEnd::Entry => {
                let due = handle.sync.borrow().queue.get(self.id).map(|d| d.due());
                return due.map(Timestamp).into_lua(lua);
            }
            _ => {}
        }
        // User code may change the target at run time.
        let source = handle.sync.borrow().config.source.clone();
        let target = text_of(&handle.config.raw_get("target")?);
        let value = match name {
            "source" => Some(source),
            "target" => return handle.config.raw_get("target"),
            _ => self.path_field(name, &source, target.as_deref())?,
        };
        value.map_or(Ok(Value::Nil), |value| text(&value))
    }

    /// Returns true if it is an event of this sync.
    pub fn is_of(&self, handle: &Rc<SyncHandle>) -> bool {
        self.handle.as_ptr() == Rc::as_ptr(handle)
    }

    fn path_field(
        &self,
        name: &str,
        source: &[u8],
        target: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        let base = |name: &str| -> Result<Vec<u8>> {
            match (name, target) {
                ("source", _) => Ok(source.to_vec()),
                (_, Some(target)) => Ok(target.to_vec()),
                (_, None) => Err(config_error("the sync has no target")),
            }
        };
        // Examples are "/d/g h" and "/d/"; Init and Blanket have an empty path.
        let path: &[u8] = &self.path;
        let bare = path.strip_suffix(b"/").unwrap_or(path);
        let slash = bare.iter().rposition(|&byte| byte == b'/');
        let directory = match slash {
            Some(slash) => &path[..=slash],
            None => path,
        };
        let cut = |part: &[u8]| part.strip_prefix(b"/").unwrap_or(part).to_vec();
        let joined = |base: Vec<u8>, part: &[u8]| [base.as_slice(), part].concat();
        let (prefix, part) = match name.strip_prefix("source") {
            Some(part) => ("source", part),
            None => match name.strip_prefix("target") {
                Some(part) => ("target", part),
                None => ("", name),
            },
        };
        Ok(Some(match (prefix, part) {
            ("", "name") if slash.is_some() => path[slash.map_or(0, |at| at + 1)..].to_vec(),
            ("", "basename") if slash.is_some() => bare[slash.map_or(0, |at| at + 1)..].to_vec(),
            ("", "name" | "basename") => return Ok(None),
            ("", "path") => cut(path),
            ("", "pathname") => cut(bare),
            ("", "pathdir") => cut(directory),
            ("source" | "target", "Path") => joined(base(prefix)?, path),
            ("source" | "target", "Pathname") => joined(base(prefix)?, bare),
            ("source" | "target", "Pathdir") => joined(base(prefix)?, directory),
            _ => {
                return Err(config_error(format!(
                    "event does not have field \"{name}\""
                )));
            }
        }))
    }

    fn status(&self, handle: &SyncHandle) -> &'static str {
        match handle.sync.borrow().queue.get(self.id) {
            Some(delay) => delay.status().name(),
            None => "done",
        }
    }

    /// Returns true if the entry is still waiting.
    pub fn waits(&self, handle: &SyncHandle) -> bool {
        handle
            .sync
            .borrow()
            .queue
            .get(self.id)
            .is_some_and(|delay| delay.status() == Status::Wait)
    }
}
