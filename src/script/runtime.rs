//! The Lua state, and calls into it once syncs are at work.

use std::fmt;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::context::{Alarm, ScriptContext, Stage, SyncHandle};
use super::event::Objects;
use super::loader::LoadError;
use super::timestamp::Timestamp;
use super::watchdog;
use super::{errors, layer3};
use crate::config::{Settings, config_error, kind_of, truthy};
use crate::log;
use crate::queue::{DelayId, Etype, Time};
use crate::watch::InotifyMode;

/// What `collect` makes of an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectResult {
    /// The work is done.
    Done,
    /// It failed and has to be done again; the sync waits, longer each time.
    Again,
    /// Nothing failed, but what it was about changed meanwhile: it is looked at anew soon.
    Redo,
    /// The sync can't go on.
    Die,
}

/// A configuration that was loaded, with its Lua state.
pub struct Script {
    pub(super) lua: Lua,
    pub(super) objects: Objects,
    /// State shared with the functions Lua calls.
    pub context: Rc<ScriptContext>,
    /// The settings in types.
    pub settings: Settings,
}

impl Script {
    /// All syncs, in the order of the configuration.
    pub fn syncs(&self) -> Vec<Rc<SyncHandle>> {
        self.context.syncs.borrow().clone()
    }

    /// The Lua state.
    pub(super) fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Which writes any of the syncs is concerned with.
    pub fn mode(&self) -> InotifyMode {
        let syncs = self.context.syncs.borrow();
        let modes = syncs.iter().map(|m| m.sync.borrow().config.mode);
        let mut modes = modes.flatten();
        let first = modes.next().unwrap_or(self.settings.mode);
        if modes.all(|mode| mode == first) {
            first
        } else {
            InotifyMode::CloseWriteOrModify
        }
    }

    /// Asks the sync what shall run for the entry that is due.
    ///
    /// # Errors
    /// User code failed.
    pub fn act(&self, handle: &Rc<SyncHandle>, id: DelayId) -> Result<()> {
        let etype = match handle.sync.borrow().queue.get(id) {
            Some(delay) => delay.etype(),
            None => return Ok(()),
        };
        let special = match etype {
            Etype::Init => function(handle, "init")?,
            Etype::Full => function(handle, "full")?,
            _ => None,
        };
        if log::enabled("Function") {
            let name = match etype {
                Etype::Init => "init",
                Etype::Full if special.is_some() => "full",
                _ => "action",
            };
            let sync = &handle.sync.borrow().config.name;
            let etype = etype.name();
            log::say("Function", format_args!("{sync}: {name} for {etype}"));
        }
        if let Some(special) = special {
            let (event, _) = self.objects.event(&self.lua, handle, id)?;
            self.trace(
                handle,
                format_args!("{}( event )", etype.name().to_lowercase()),
            );
            return watchdog::call(&self.context, || special.call(event));
        }
        if etype == Etype::Init {
            handle.sync.borrow_mut().queue.discard(id);
            handle.forget(&[id]);
            return Ok(());
        }
        let Some(action) = function(handle, "action")? else {
            return Ok(());
        };
        self.trace(handle, "action( inlet )");
        watchdog::call(&self.context, || action.call(&handle.inlet))
    }

    /// The category Function shows which functions of the configuration are called.
    fn trace(&self, handle: &SyncHandle, call: impl fmt::Display) {
        if log::enabled("Function") {
            let name = &handle.sync.borrow().config.name;
            log::say("Function", format_args!("{name}: {call}"));
        }
    }

    /// Asks the sync what an ended child means. `errors` are the lines it wrote to its error
    /// output, if these are captured. True with the answer if it is that of the built-in table of
    /// rsync's exit codes, and no table or function of the user's.
    ///
    /// # Errors
    /// User code failed.
    pub fn collect(
        &self,
        handle: &SyncHandle,
        agent: &Table,
        code: i32,
        signal: Option<i32>,
        errors: &[u8],
    ) -> Result<(CollectResult, bool)> {
        let Some(collect) = function(handle, "collect")? else {
            let verdict = if code == 0 {
                CollectResult::Done
            } else {
                CollectResult::Die
            };
            return Ok((verdict, false));
        };
        self.context.by_default.set(false);
        self.trace(handle, format_args!("collect( agent, {code} )"));
        let errors = self.lua.create_string(errors)?;
        let answer: Value = watchdog::call(&self.context, || {
            collect.call((agent, code, signal, errors))
        })?;
        let verdict = match answer {
            Value::String(text) if text.as_bytes() == b"again" => CollectResult::Again,
            Value::String(text) if text.as_bytes() == b"redo" => CollectResult::Redo,
            Value::String(text) if text.as_bytes() == b"die" => CollectResult::Die,
            _ => CollectResult::Done,
        };
        Ok((verdict, self.context.by_default.get()))
    }

    /// Calls the alarms that are due.
    ///
    /// # Errors
    /// User code failed.
    pub fn run_alarms(&self, now: Time) -> Result<()> {
        let mut due = {
            let mut alarms = self.context.alarms.borrow_mut();
            let (due, later) = alarms.drain(..).partition(|alarm| alarm.due <= now);
            *alarms = later;
            let due: Vec<Alarm> = due;
            due
        };
        due.sort_by_key(|alarm| alarm.due);
        for alarm in due {
            log::say("Alarm", "calling a user alarm");
            let Alarm {
                due,
                function,
                extra,
            } = alarm;
            watchdog::call(&self.context, || {
                function.call::<()>((Timestamp(due), extra))
            })?;
        }
        Ok(())
    }

    /// When the next alarm is due.
    pub fn next_alarm(&self) -> Option<Time> {
        self.context.alarms.borrow().iter().map(|a| a.due).min()
    }

    /// Syncs are at work from now on: new globals are refused, and texts become functions.
    ///
    /// # Errors
    /// The configuration was changed after its syncs were made, and makes no sense now.
    pub fn run(&self) -> std::result::Result<(), LoadError> {
        self.prepare_to_run()
            .map_err(|error| LoadError::line(errors::message(&self.lua, &error)))
    }

    fn prepare_to_run(&self) -> Result<()> {
        self.context.stage.set(Stage::Running);
        let public = self.lua.named_registry_value("public")?;
        for handle in self.syncs() {
            layer3::install(&self.lua, &self.context, &self.objects, &handle, &public)?;
        }
        self.lua.named_registry_value::<Function>("lock")?.call(())
    }

    /// Failing startup transfers are tried again from now on: after a reset or an overflow
    /// they are no startup any more.
    pub fn insist(&self) {
        let insist = self.lua.create_table().and_then(|table| {
            table.set("insist", true)?;
            self.context.settings.take(&table)
        });
        if let Err(error) = insist {
            log::error(errors::plain(&error));
        }
    }

    /// Returns true if failing startup transfers are tried again.
    pub fn insists(&self) -> bool {
        let insist = self.context.settings.value("insist");
        insist.is_ok_and(|value| truthy(&value))
    }

    /// Syncs go on after all, with the configuration they have.
    pub fn resume(&self) {
        self.context.stage.set(Stage::Running);
    }

    /// Nothing new is started any more.
    pub fn shut_down(&self) {
        self.context.stage.set(Stage::ShuttingDown);
    }

    /// Tells an error of user code in the log, with where it came from.
    pub fn report(&self, error: &mlua::Error) {
        log::error(format_args!(
            "in Lua: {}",
            errors::located(&self.lua, error)
        ));
        for (number, line) in errors::backtrace(error).iter().enumerate() {
            log::error(format_args!("Backtrace {} :{line}", number + 1));
        }
    }
}

/// A function of the configuration. User code may put anything else there at run time.
fn function(handle: &SyncHandle, key: &str) -> Result<Option<Function>> {
    match handle.config.get(key)? {
        Value::Function(function) => Ok(Some(function)),
        Value::Nil | Value::Boolean(false) => Ok(None),
        other => Err(config_error(format!(
            "{key} is {} and not a function",
            kind_of(&other)
        ))),
    }
}
