//! Limits on running user code: it ends after `terminate`, even if it catches errors, and it can be
//! interrupted by a signal.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mlua::{HookTriggers, Lua, Result, VmState};
use nix::sys::signal::Signal;

use crate::config::config_error;
use crate::log;

/// The number of Lua instructions between two checks.
const CHECK_INTERVAL_INSTRUCTIONS: u32 = 100_000;

/// The run time after which SIGTERM or SIGINT interrupts a call. A shorter call may end by itself.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The run time after which a warning is logged, since the loop is blocked.
const WARN_AFTER: Duration = Duration::from_secs(10);

/// The memory limit of a configuration, in bytes. Half of the machine's memory is a limit as well.
const MAX_MEMORY: usize = 2 << 30;

/// The limits of the user code of a configuration.
#[derive(Default)]
pub struct Watchdog {
    /// The start of the running user code.
    since: Cell<Option<Instant>>,
    /// The warning has been logged.
    told: Cell<bool>,
    /// The argument of `terminate(n)`, if it was called.
    pub ending: Cell<Option<i64>>,
}

/// Installs the checks for all code of this Lua state.
pub fn install(lua: &Lua, watchdog: &Rc<Watchdog>) -> Result<()> {
    lua.set_memory_limit(machine_memory().map_or(MAX_MEMORY, |all| MAX_MEMORY.min(all / 2)))?;
    let stopped = stop_signal();
    let watchdog = Rc::clone(watchdog);
    let triggers = HookTriggers::new().every_nth_instruction(CHECK_INTERVAL_INSTRUCTIONS);
    lua.set_global_hook(triggers, move |lua, _| {
        let Some(since) = watchdog.since.get() else {
            return Ok(VmState::Continue);
        };
        let spent = since.elapsed();
        if spent >= WARN_AFTER && !watchdog.told.replace(true) {
            log::warn(format_args!(
                "a function of the configuration has been running for {} s; \
                 the daemon is blocked meanwhile",
                spent.as_secs()
            ));
        }
        match stopped.load(Ordering::Relaxed) {
            0 => Ok(VmState::Continue),
            _ if spent < SIGNAL_TIMEOUT => Ok(VmState::Continue),
            number => {
                watchdog.ending.set(Some(128 + number as i64));
                stop(lua)?;
                Err(ended())
            }
        }
    })
}

/// Makes the running code fail from now on.
pub fn stop(lua: &Lua) -> Result<()> {
    let triggers = HookTriggers::new().every_nth_instruction(1);
    lua.set_global_hook(triggers, |_, _| Err(ended()))
}

/// Calls user code.
///
/// # Errors
///
/// The error of user code, or the request to end the process.
pub fn call<R>(watchdog: &Watchdog, code: impl FnOnce() -> Result<R>) -> Result<R> {
    watchdog.since.set(Some(Instant::now()));
    watchdog.told.set(false);
    let result = code();
    watchdog.since.set(None);
    match watchdog.ending.get() {
        Some(_) => Err(ended()),
        None => result,
    }
}

/// Returns the size of the machine's memory in bytes (proc_meminfo(5)).
fn machine_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = total.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes * 1024)
}

fn ended() -> mlua::Error {
    config_error("terminated")
}

/// Returns the number of the last SIGTERM or SIGINT; 0 if there was none. The event loop cannot
/// receive signals while user code runs.
fn stop_signal() -> Arc<AtomicUsize> {
    static LAST: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    let last = LAST.get_or_init(|| {
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let number = signal as i32;
            let registered =
                signal_hook::flag::register_usize(number, Arc::clone(&last), number as usize);
            if let Err(error) = registered {
                log::say("Debug", format_args!("cannot listen for {signal}: {error}"));
            }
        }
        last
    });
    Arc::clone(last)
}
