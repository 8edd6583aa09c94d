//! Event objects: tables whose fields are looked up on access.

use std::rc::{Rc, Weak};

use mlua::{IntoLua, Lua, Result, UserData, Value};

use super::timestamp::Timestamp;
use crate::config::{config_error, text_of};
use crate::paths;
use crate::queue::{DelayId, Etype};
use crate::script::sync_handle::SyncHandle;

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
    pub(super) path: Rc<[u8]>,
    pub(super) half: MoveEnd,
}

/// The part of a queue entry that an object represents.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum MoveEnd {
    /// All of an entry that is not a move.
    Whole,
    /// The origin of a move.
    From,
    /// The destination of a move.
    To,
    /// An item of `getList()`: one object for both paths of a move.
    Entry,
}

impl UserData for EventRef {}

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
        let bare = paths::bare(path);
        let (above, base_name) = paths::split(path);
        let has_name = !above.is_empty();
        let directory = if has_name { above } else { path };
        let cut = |part: &[u8]| paths::relative(part).to_vec();
        let joined = |base: Vec<u8>, part: &[u8]| [base.as_slice(), part].concat();
        let (prefix, part) = match name.strip_prefix("source") {
            Some(part) => ("source", part),
            None => match name.strip_prefix("target") {
                Some(part) => ("target", part),
                None => ("", name),
            },
        };
        Ok(Some(match (prefix, part) {
            ("", "name") if has_name => path[above.len()..].to_vec(),
            ("", "basename") if has_name => base_name.to_vec(),
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
        handle.sync.borrow().queue.is_waiting(self.id)
    }
}
