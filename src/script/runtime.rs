//! The Lua state of a loaded configuration, and the calls into it.

use std::fmt;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::context::{Alarm, ScriptContext, Stage};
use super::load_error::LoadError;
use super::objects::Objects;
use super::objects::timestamp::Timestamp;
use super::sync_handle::SyncHandle;
use super::tunnel_object::TunnelObject;
use super::watchdog;
use super::{errors, layer3};
use crate::config::{Settings, config_error, kind_of, truthy};
use crate::exit::Exit;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::{DelayId, Etype, Time};
use crate::watch::InotifyMode;

/// The verdict of `collect` on an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectResult {
    /// The entries are done.
    Done,
    /// The entries failed and are repeated after the retry delay.
    Again,
    /// The sync ends.
    Die,
}

/// A loaded configuration with its Lua state.
pub struct Script {
    pub(super) lua: Lua,
    pub(super) objects: Objects,
    /// The script context.
    pub context: Rc<ScriptContext>,
    /// The typed settings.
    pub settings: Settings,
}

impl Script {
    /// Returns all syncs in the order of the configuration.
    pub fn syncs(&self) -> Vec<Rc<SyncHandle>> {
        self.context.syncs.borrow().clone()
    }

    /// Returns the configured tunnels.
    pub fn tunnels(&self) -> Vec<Rc<TunnelObject>> {
        self.context.tunnels.borrow().clone()
    }

    /// Returns the Lua state.
    pub(super) fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Returns the inotify mode that covers all syncs.
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

    /// Calls the sync's action for a due entry.
    ///
    /// # Errors
    ///
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
            return watchdog::call(&self.context.watchdog, || special.call(event));
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
        watchdog::call(&self.context.watchdog, || action.call(&handle.inlet))
    }

    /// Logs a call of a user function in the category Function.
    fn trace(&self, handle: &SyncHandle, call: impl fmt::Display) {
        if log::enabled("Function") {
            let name = &handle.sync.borrow().config.name;
            log::say("Function", format_args!("{name}: {call}"));
        }
    }

    /// Calls the sync's `collect` for an ended child. `errors` are its error output lines, if they
    /// are captured. Returns the verdict, and true if it comes from the built-in exit code table
    /// alone.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn collect(
        &self,
        handle: &SyncHandle,
        agent: &Table,
        status: ExitStatus,
        errors: &[u8],
    ) -> Result<(CollectResult, bool)> {
        let Some(collect) = function(handle, "collect")? else {
            let verdict = if status.is_success() {
                CollectResult::Done
            } else {
                CollectResult::Die
            };
            return Ok((verdict, false));
        };
        let code = status.code();
        let signal = match status {
            ExitStatus::Signal(signal) => Some(signal),
            ExitStatus::Exit(_) => None,
        };
        self.context.used_default_exit_codes.set(false);
        self.trace(handle, format_args!("collect( agent, {code} )"));
        let errors = self.lua.create_string(errors)?;
        let answer: Value = watchdog::call(&self.context.watchdog, || {
            collect.call((agent, code, signal, errors))
        })?;
        let verdict = match answer {
            Value::String(text) if text.as_bytes() == b"again" => CollectResult::Again,
            Value::String(text) if text.as_bytes() == b"die" => CollectResult::Die,
            _ => CollectResult::Done,
        };
        Ok((verdict, self.context.used_default_exit_codes.get()))
    }

    /// Calls the due alarms.
    ///
    /// # Errors
    ///
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
            watchdog::call(&self.context.watchdog, || {
                function.call::<()>((Timestamp(due), extra))
            })?;
        }
        Ok(())
    }

    /// Returns the time of the next alarm.
    pub fn next_alarm(&self) -> Option<Time> {
        self.context.alarms.borrow().iter().map(|a| a.due).min()
    }

    /// Enters the running stage: new globals are refused, and layer 3 texts become functions.
    ///
    /// # Errors
    ///
    /// The configuration was changed after its syncs were created and is invalid now.
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

    /// Retries failed startup transfers from now on, because after a reset or an overflow they are
    /// not the initial startup.
    pub fn insist(&self) {
        let insist = self.lua.create_table().and_then(|table| {
            table.set("insist", true)?;
            self.context.settings.take(&table)
        });
        if let Err(error) = insist {
            log::error(errors::plain(&error));
        }
    }

    /// Returns true if failed startup transfers are retried.
    pub fn insists(&self) -> bool {
        let insist = self.context.settings.value("insist");
        insist.is_ok_and(|value| truthy(&value))
    }

    /// Returns to the running stage after a reload has failed.
    pub fn resume(&self) {
        self.context.stage.set(Stage::Running);
    }

    /// Enters the shutdown stage, in which nothing is started.
    pub fn shut_down(&self) {
        self.context.stage.set(Stage::ShuttingDown);
    }

    /// Returns how the daemon exits after an error in user code, and logs the error unless the code
    /// has called `terminate`.
    pub fn exit_after(&self, error: &mlua::Error) -> Exit {
        match self.context.watchdog.ending.get() {
            Some(code) => Exit::Asked(code),
            None => {
                self.report(error);
                Exit::Failure
            }
        }
    }

    /// Logs an error of user code with its position.
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

/// Returns a function of the sync's configuration; `None` if there is none. User code may have
/// changed the field.
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
