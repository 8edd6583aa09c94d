//! The Lua functions `onSynced` and `onFailed` of a sync.

use std::time::{Duration, Instant};

use mlua::{Function, HookTriggers, Lua, Result, VmState};

use super::context::SyncHandle;
use super::runtime::Script;

/// A hook that computes for longer is stopped. Nothing can be done about one that waits, for
/// `os.execute` say.
const HOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a hook is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    /// For `onFailed`.
    pub failed: bool,
    /// The exit code; 128 + n is signal n.
    pub code: i32,
    /// What the child said went wrong.
    pub text: Vec<u8>,
    /// The paths it was about, relative to the source, each with a zero byte behind it.
    pub paths: Vec<u8>,
    /// There were more.
    pub truncated: bool,
    /// How many children are put together here.
    pub batches: u64,
}

impl Script {
    /// Calls the hook function of a sync with a table of what is in the report.
    ///
    /// # Errors
    /// User code failed, or took too long.
    pub fn hook(&self, handle: &SyncHandle, report: &HookReport) -> Result<()> {
        let key = if report.failed {
            "onFailed"
        } else {
            "onSynced"
        };
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
            told.set("sync", sync.config.name.as_str())?;
            told.set("source", lua.create_string(&sync.config.source)?)?;
        }
        told.set("exitcode", report.code)?;
        told.set("error", lua.create_string(&report.text)?)?;
        told.set("truncated", report.truncated)?;
        let paths = lua.create_table()?;
        let names = report.paths.split(|&byte| byte == 0);
        for path in names.filter(|path| !path.is_empty()) {
            paths.raw_push(lua.create_string(path)?)?;
        }
        told.set("paths", paths)?;

        with_timeout(lua, || function.call(told))
    }
}

/// Calls user code that is stopped when it computes for too long.
pub(super) fn with_timeout<T>(lua: &Lua, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let end = Instant::now() + HOOK_TIMEOUT;
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
