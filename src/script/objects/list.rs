//! List objects: `size`, `getList` and `getPaths` of the entries selected for one action.

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::{Agent, Objects};
use crate::config::{config_error, text_of};
use crate::queue::DelayId;
use crate::script::sync_handle::SyncHandle;

/// Returns a field of a list object.
pub fn field(lua: &Lua, objects: &Objects, list: &Table, name: &str) -> Result<Value> {
    let Some(Agent::List(entries)) = objects.agent(list)? else {
        return Err(config_error("not a list of events"));
    };
    let handle = entries
        .handle
        .upgrade()
        .ok_or_else(|| config_error("the list's sync is gone"))?;
    let objects = objects.clone();
    let function = match name {
        "isList" => return Ok(Value::Boolean(true)),
        "config" => return Ok(Value::Table(handle.config.clone())),
        "size" => {
            let size = entries.ids.len();
            lua.create_function(move |_, _: MultiValue| Ok(size))?
        }
        "getList" => lua.create_function(move |lua, _: MultiValue| {
            let events = lua.create_table()?;
            for &id in entries.ids.iter() {
                if let Some(entry) = objects.entry(lua, &handle, id)? {
                    events.raw_push(entry)?;
                }
            }
            Ok(events)
        })?,
        "getPaths" => lua.create_function(move |lua, mutator: Option<Function>| {
            paths(lua, &handle, &entries.ids, mutator.as_ref())
        })?,
        _ => {
            let text = format!("event list does not have function \"{name}\"");
            return Err(config_error(text));
        }
    };
    let public: Function = lua.named_registry_value("public")?;
    public.call(function)
}

/// Returns the paths of a list, two for each move. The mutator may change them.
fn paths(
    lua: &Lua,
    handle: &SyncHandle,
    ids: &[DelayId],
    mutator: Option<&Function>,
) -> Result<Table> {
    let result = lua.create_table()?;
    let push = |value: Value| -> Result<()> {
        match text_of(&value) {
            Some(text) => result.raw_push(lua.create_string(text)?),
            None => Ok(()),
        }
    };
    for &id in ids {
        let (etype, (path, path2)) = match handle.sync.borrow().queue.get(id) {
            Some(delay) => (delay.etype(), delay.paths()),
            None => continue,
        };
        let path = Value::String(lua.create_string(path)?);
        let path2 = match path2 {
            Some(path2) => Value::String(lua.create_string(path2)?),
            None => Value::Nil,
        };
        match mutator {
            Some(mutator) => {
                let (one, two): (Value, Value) = mutator.call((etype.name(), path, path2))?;
                push(one)?;
                push(two)?;
            }
            None => {
                push(path)?;
                push(path2)?;
            }
        }
    }
    Ok(result)
}
