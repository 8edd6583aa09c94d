//! The Lua functions `onSynced`, `onFailed` and `onRecovered` of a sync.

use std::time::{Duration, Instant};

use mlua::{Function, HookTriggers, Lua, Result, VmState};

use super::runtime::Script;
use super::sync_handle::SyncHandle;
use crate::component::DriftNews;
use crate::config::{Hook, SyncConfig};
use crate::process::ExitStatus;

/// The time after which a computing hook is stopped. A hook that blocks in a system call, for
/// example in `os.execute`, cannot be stopped.
pub(super) const HOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// The event that a hook is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A process has succeeded.
    Synced,
    /// A process has failed that follows no other failure.
    Failed,
    /// All failures that `Failed` has reported are resolved.
    Recovered,
}

impl HookEvent {
    /// Returns the key of the hook.
    pub fn key(self) -> &'static str {
        match self {
            HookEvent::Synced => "onSynced",
            HookEvent::Failed => "onFailed",
            HookEvent::Recovered => "onRecovered",
        }
    }

    /// Returns the name of the event in the environment of a command.
    pub fn name(self) -> &'static str {
        match self {
            HookEvent::Synced => "synced",
            HookEvent::Failed => "failed",
            HookEvent::Recovered => "recovered",
        }
    }

    /// Returns the hook of a sync for this event.
    pub fn hook(self, config: &SyncConfig) -> Option<&Hook> {
        match self {
            HookEvent::Synced => config.on_synced.as_ref(),
            HookEvent::Failed => config.on_failed.as_ref(),
            HookEvent::Recovered => config.on_recovered.as_ref(),
        }
    }
}

/// The report passed to a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    /// The event.
    pub event: HookEvent,
    /// The exit status of the child.
    pub status: ExitStatus,
    /// The error text of the child; of `Recovered` that of the last failure.
    pub text: Vec<u8>,
    /// The paths of its entries, relative to the source, each followed by a zero byte.
    pub paths: Vec<u8>,
    /// Paths were left out.
    pub truncated: bool,
    /// The number of children merged into this report.
    pub batches: u64,
}

impl HookReport {
    /// Returns the report that a comparison has found differences.
    pub fn of_drift(news: DriftNews) -> HookReport {
        HookReport {
            event: HookEvent::Failed,
            status: ExitStatus::Exit(1),
            text: news.text.into_bytes(),
            paths: news.paths,
            truncated: news.is_cut,
            batches: 1,
        }
    }

    /// Returns the report that nothing is left of the failure with this text.
    pub fn recovered(text: Vec<u8>) -> HookReport {
        HookReport {
            event: HookEvent::Recovered,
            status: ExitStatus::Exit(0),
            text,
            paths: Vec::new(),
            truncated: false,
            batches: 1,
        }
    }
}

impl Script {
    /// Calls the hook function of a sync with a table made of the report.
    ///
    /// # Errors
    ///
    /// User code failed or took too long.
    pub fn hook(&self, handle: &SyncHandle, report: &HookReport) -> Result<()> {
        let key = report.event.key();
        let Some(function) = handle.config.get::<Option<Function>>(key)? else {
            return Ok(());
        };
        let lua = self.lua();
        let told = lua.create_table()?;
        {
            if let Some(target) = handle.destination() {
                told.set("target", lua.create_string(target)?)?;
            }
            let sync = handle.sync.borrow();
            told.set(
                "sync",
                lua.create_string(crate::log::unescape(&sync.config.name))?,
            )?;
            told.set("source", lua.create_string(&sync.config.source)?)?;
        }
        told.set("exitcode", report.status.code())?;
        told.set("error", lua.create_string(&report.text)?)?;
        told.set("truncated", report.truncated)?;
        let paths = lua.create_table()?;
        let names = report.paths.split(|&byte| byte == 0);
        for path in names.filter(|path| !path.is_empty()) {
            paths.raw_push(lua.create_string(path)?)?;
        }
        told.set("paths", paths)?;

        with_timeout(lua, HOOK_TIMEOUT, || function.call(told))
    }
}

/// Calls user code and stops it if it computes for longer than this.
pub(super) fn with_timeout<T>(
    lua: &Lua,
    timeout: Duration,
    call: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + timeout;
    let often = HookTriggers::new().every_nth_instruction(10_000);
    lua.set_hook(often, move |_, _| {
        if Instant::now() < end {
            Ok(VmState::Continue)
        } else {
            Err(mlua::Error::runtime("the hook takes too long"))
        }
    })?;
    let result = call();
    lua.remove_hook();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::test_setup::Loaded;

    #[test]
    fn a_hook_may_compute_but_not_without_end() {
        let lua = crate::sys::lua();
        let compute = |timeout| {
            let code = lua.load("for i = 1, 200000 do end");
            with_timeout(&lua, timeout, || code.exec())
        };
        let hour = Duration::from_secs(3600);
        compute(hour).unwrap();
        let error = compute(Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("takes too long"), "{error}");
        // Other code is not limited.
        lua.load("for i = 1, 200000 do end").exec().unwrap();
    }

    #[test]
    fn a_hook_gets_the_values_of_its_report() {
        let sync = Loaded::of(
            "told = false
             sync{ default.rsync, name = 'n', source = '@DIR@/src', target = '/trg',
                   onFailed = function(report) told = report end }",
        );
        let report = HookReport {
            event: HookEvent::Failed,
            status: ExitStatus::Exit(23),
            text: b"why".to_vec(),
            paths: b"/a b\0/d/\0".to_vec(),
            truncated: true,
            batches: 1,
        };
        let hook = |event| {
            let report = HookReport {
                event,
                ..report.clone()
            };
            sync.script.hook(&sync.handle(0), &report).unwrap();
        };
        hook(HookEvent::Synced);
        assert!(!sync.eval::<bool>("told"));
        hook(HookEvent::Failed);
        let told: String = sync.eval(
            "table.concat({ told.sync, told.target, told.exitcode, told.error,
               tostring(told.truncated), #told.paths, table.unpack(told.paths) }, '|')",
        );
        assert_eq!(told, "n|/trg/|23|why|true|2|/a b|/d/");
    }
}
