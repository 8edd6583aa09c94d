//! Requests of default.rsync for a scan pass, if the sync has a `check`.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::local_copy::task;
use super::transfer::not_yet;
use crate::config::{config_error, config_error_about, text_of, truthy};
use crate::script::context::{ScriptContext, Stage, handle_of};
use crate::script::hook::{HOOK_TIMEOUT, with_timeout};
use crate::script::objects::Objects;
use crate::script::request::{ScanRequest, ScriptRequest};
use crate::script::runtime::Script;
use crate::script::sync_handle::SyncHandle;
use crate::staging::ScanAnswer;

/// Adds the functions to the native functions of the preludes.
pub fn add(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    native: &Table,
) -> Result<()> {
    let (shared, mapping) = (Rc::clone(context), objects.clone());
    native.set(
        "when_checked",
        lua.create_function(move |_, (agent, send): (Table, Function)| {
            let (handle, ids) = mapping.entries(&agent)?;
            if handle.sync.borrow().config.check.is_none() {
                return send.call(agent);
            }
            if shared.stage.get() != Stage::ShuttingDown {
                let task = task(&handle.sync.borrow(), &ids, |_, _| true);
                shared.requests.push(ScriptRequest::Scan(ScanRequest {
                    handle,
                    agent,
                    ids,
                    task,
                    send,
                }));
            }
            Ok(())
        })?,
    )?;
    native.set(
        "rsync_source",
        lua.create_function(|lua, inlet: Table| {
            let handle = handle_of(lua, &inlet)?;
            let source = handle.sync.borrow().rsync_source();
            lua.create_string(source.ok_or_else(not_yet)?)
        })?,
    )?;
    native.set(
        "misses_mounts",
        lua.create_function(|lua, inlet: Table| {
            Ok(handle_of(lua, &inlet)?.sync.borrow().misses_mounts())
        })?,
    )?;
    native.set(
        "protection",
        lua.create_function(|lua, inlet: Table| {
            let handle = handle_of(lua, &inlet)?;
            let Some(patterns) = handle.sync.borrow_mut().protected_patterns() else {
                return Ok(None);
            };
            let words = lua.create_table()?;
            for pattern in patterns {
                words.raw_push(lua.create_string([b"--filter=P ".to_vec(), pattern].concat())?)?;
            }
            Ok(Some(words))
        })?,
    )
}

/// Checks that the sync's action is default.rsync's own.
///
/// # Errors
///
/// Another function could send unchecked files.
pub fn check_behaviour(lua: &Lua, config: &Table) -> Result<()> {
    let default: Table = lua.globals().raw_get("default")?;
    let rsync: Table = default.raw_get("rsync")?;
    for key in ["action", "init", "full"] {
        let given = config.get::<Value>(key)?;
        let is_off = key == "init" && given == Value::Boolean(false);
        if !is_off && rsync.raw_get::<Value>(key)? != given {
            let text = "check is for default.rsync only, without functions of your own";
            return Err(config_error_about("check", text));
        }
    }
    Ok(())
}

impl Script {
    /// Calls the check function with index `number` for a file. `path` is its path, `copy` that of
    /// the copy that would be sent.
    ///
    /// # Errors
    ///
    /// User code failed or took too long.
    pub fn check(
        &self,
        handle: &SyncHandle,
        number: usize,
        path: &[u8],
        copy: &[u8],
    ) -> Result<ScanAnswer> {
        let lua = self.lua();
        let function = match handle.config.get::<Value>("check")? {
            Value::Function(function) => Some(function),
            Value::Table(list) => {
                let items = list.sequence_values::<Value>().flatten();
                let functions = items.filter_map(|item| match item {
                    Value::Function(function) => Some(function),
                    _ => None,
                });
                functions.into_iter().nth(number)
            }
            _ => None,
        };
        let function = function.ok_or_else(|| config_error("the check is gone"))?;
        let words = (lua.create_string(path)?, lua.create_string(copy)?);
        let answer: MultiValue = with_timeout(lua, HOOK_TIMEOUT, || function.call(words))?;
        let mut answer = answer.into_iter();
        match answer.next() {
            Some(Value::Boolean(true)) => Ok(ScanAnswer::Passed),
            Some(Value::Boolean(false)) => {
                let reason = answer
                    .next()
                    .filter(truthy)
                    .and_then(|value| text_of(&value));
                let reason = reason.unwrap_or_else(|| b"rejected by a function".to_vec());
                Ok(ScanAnswer::Rejected(
                    crate::log::escape(&reason).into_owned(),
                ))
            }
            _ => Err(config_error("a check must return true or false")),
        }
    }

    /// Calls the function `onReject` of a sync's check.
    ///
    /// # Errors
    ///
    /// User code failed or took too long.
    pub fn rejected(&self, handle: &SyncHandle, path: &[u8], reason: &str) -> Result<()> {
        let Value::Table(check) = handle.config.get("check")? else {
            return Ok(());
        };
        let function: Function = check.get("onReject")?;
        let path = self.lua().create_string(path)?;
        with_timeout(self.lua(), HOOK_TIMEOUT, || function.call((path, reason)))
    }
}
