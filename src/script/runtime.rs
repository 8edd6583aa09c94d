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
    pub host: Rc<ScriptContext>,
    /// The settings in types.
    pub settings: Settings,
}

impl Script {
    /// All syncs, in the order of the configuration.
    pub fn members(&self) -> Vec<Rc<SyncHandle>> {
        self.host.members.borrow().clone()
    }

    /// The Lua state.
    pub(super) fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Which writes any of the syncs is concerned with.
    pub fn mode(&self) -> InotifyMode {
        let members = self.host.members.borrow();
        let modes = members.iter().map(|m| m.sync.borrow().config.mode);
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
    pub fn act(&self, member: &Rc<SyncHandle>, id: DelayId) -> Result<()> {
        let etype = match member.sync.borrow().queue.get(id) {
            Some(delay) => delay.etype(),
            None => return Ok(()),
        };
        let special = match etype {
            Etype::Init => function(member, "init")?,
            Etype::Full => function(member, "full")?,
            _ => None,
        };
        if log::enabled("Function") {
            let name = match etype {
                Etype::Init => "init",
                Etype::Full if special.is_some() => "full",
                _ => "action",
            };
            let sync = &member.sync.borrow().config.name;
            let etype = etype.name();
            log::say("Function", format_args!("{sync}: {name} for {etype}"));
        }
        if let Some(special) = special {
            let (event, _) = self.objects.event(&self.lua, member, id)?;
            self.trace(
                member,
                format_args!("{}( event )", etype.name().to_lowercase()),
            );
            return watchdog::call(&self.host, || special.call(event));
        }
        if etype == Etype::Init {
            member.sync.borrow_mut().queue.discard(id);
            member.forget(&[id]);
            return Ok(());
        }
        let Some(action) = function(member, "action")? else {
            return Ok(());
        };
        self.trace(member, "action( inlet )");
        watchdog::call(&self.host, || action.call(&member.inlet))
    }

    /// The category Function shows which functions of the configuration are called.
    fn trace(&self, member: &SyncHandle, call: impl fmt::Display) {
        if log::enabled("Function") {
            let name = &member.sync.borrow().config.name;
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
        member: &SyncHandle,
        agent: &Table,
        code: i32,
        signal: Option<i32>,
        errors: &[u8],
    ) -> Result<(CollectResult, bool)> {
        let Some(collect) = function(member, "collect")? else {
            let verdict = if code == 0 {
                CollectResult::Done
            } else {
                CollectResult::Die
            };
            return Ok((verdict, false));
        };
        self.host.by_default.set(false);
        self.trace(member, format_args!("collect( agent, {code} )"));
        let errors = self.lua.create_string(errors)?;
        let answer: Value =
            watchdog::call(&self.host, || collect.call((agent, code, signal, errors)))?;
        let verdict = match answer {
            Value::String(text) if text.as_bytes() == b"again" => CollectResult::Again,
            Value::String(text) if text.as_bytes() == b"redo" => CollectResult::Redo,
            Value::String(text) if text.as_bytes() == b"die" => CollectResult::Die,
            _ => CollectResult::Done,
        };
        Ok((verdict, self.host.by_default.get()))
    }

    /// Calls the alarms that are due.
    ///
    /// # Errors
    /// User code failed.
    pub fn run_alarms(&self, now: Time) -> Result<()> {
        let mut due = {
            let mut alarms = self.host.alarms.borrow_mut();
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
            watchdog::call(&self.host, || function.call::<()>((Timestamp(due), extra)))?;
        }
        Ok(())
    }

    /// When the next alarm is due.
    pub fn next_alarm(&self) -> Option<Time> {
        self.host.alarms.borrow().iter().map(|a| a.due).min()
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
        self.host.stage.set(Stage::Running);
        let public = self.lua.named_registry_value("public")?;
        for member in self.members() {
            layer3::install(&self.lua, &self.host, &self.objects, &member, &public)?;
        }
        self.lua.named_registry_value::<Function>("lock")?.call(())
    }

    /// Failing startup transfers are tried again from now on: after a reset or an overflow
    /// they are no startup any more.
    pub fn insist(&self) {
        let insist = self.lua.create_table().and_then(|table| {
            table.set("insist", true)?;
            self.host.settings.take(&table)
        });
        if let Err(error) = insist {
            log::error(errors::plain(&error));
        }
    }

    /// Returns true if failing startup transfers are tried again.
    pub fn insists(&self) -> bool {
        let insist = self.host.settings.value("insist");
        insist.is_ok_and(|value| truthy(&value))
    }

    /// Syncs go on after all, with the configuration they have.
    pub fn resume(&self) {
        self.host.stage.set(Stage::Running);
    }

    /// Nothing new is started any more.
    pub fn fade(&self) {
        self.host.stage.set(Stage::Fading);
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
fn function(member: &SyncHandle, key: &str) -> Result<Option<Function>> {
    match member.config.get(key)? {
        Value::Function(function) => Ok(Some(function)),
        Value::Nil | Value::Boolean(false) => Ok(None),
        other => Err(config_error(format!(
            "{key} is {} and not a function",
            kind_of(&other)
        ))),
    }
}
