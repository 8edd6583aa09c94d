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

impl Watchdog {
    /// Returns true once in each call, if the call has been running for this time.
    fn is_warning_due(&self, spent: Duration) -> bool {
        spent >= WARN_AFTER && !self.told.replace(true)
    }
}

/// Installs the checks for all code of this Lua state.
pub fn install(lua: &Lua, watchdog: &Rc<Watchdog>) -> Result<()> {
    lua.set_memory_limit(memory_limit(machine_memory()))?;
    let stopped = stop_signal();
    let watchdog = Rc::clone(watchdog);
    let triggers = HookTriggers::new().every_nth_instruction(CHECK_INTERVAL_INSTRUCTIONS);
    lua.set_global_hook(triggers, move |lua, _| {
        let Some(since) = watchdog.since.get() else {
            return Ok(VmState::Continue);
        };
        let spent = since.elapsed();
        if watchdog.is_warning_due(spent) {
            log::warn(format_args!(
                "a function of the configuration has been running for {} s; \
                 the daemon is blocked meanwhile",
                spent.as_secs()
            ));
        }
        match interruption(stopped.load(Ordering::Relaxed), spent) {
            None => Ok(VmState::Continue),
            code => {
                watchdog.ending.set(code);
                stop(lua)?;
                Err(ended())
            }
        }
    })
}

/// Returns the exit code if a signal with this number, 0 without one, ends code that has been
/// running for this time.
fn interruption(signal: usize, spent: Duration) -> Option<i64> {
    (signal != 0 && spent >= SIGNAL_TIMEOUT).then_some(128 + signal as i64)
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

/// Returns the memory limit of a configuration on a machine with this memory, in bytes.
fn memory_limit(machine: Option<usize>) -> usize {
    machine.map_or(MAX_MEMORY, |all| MAX_MEMORY.min(all / 2))
}

/// Returns the size of the machine's memory in bytes (proc_meminfo(5)).
fn machine_memory() -> Option<usize> {
    total_memory(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// Returns `MemTotal` of the text of `/proc/meminfo`, in bytes.
fn total_memory(text: &str) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_half_of_the_memory_at_most() {
        for (machine, limit) in [
            (None, MAX_MEMORY),
            (Some(64 << 30), MAX_MEMORY),
            (Some(4 << 30), MAX_MEMORY),
            (Some(512 << 20), 256 << 20),
        ] {
            assert_eq!(memory_limit(machine), limit, "{machine:?}");
        }
        let text = "MemTotal:        4012345 kB\nMemFree:   99 kB\n";
        assert_eq!(total_memory(text), Some(4_012_345 << 10));
        assert_eq!(total_memory("MemFree:   99 kB\n"), None);
        assert!(machine_memory().is_some_and(|all| all > 64 << 20));
    }

    #[test]
    fn a_signal_ends_only_code_that_does_not_end_by_itself() {
        let long = SIGNAL_TIMEOUT;
        let short = long - Duration::from_nanos(1);
        let term = Signal::SIGTERM as usize;
        assert_eq!(interruption(0, long * 9), None);
        assert_eq!(interruption(term, short), None);
        assert_eq!(interruption(term, long), Some(143));
        assert_eq!(interruption(Signal::SIGINT as usize, long * 9), Some(130));
    }

    #[test]
    fn a_long_call_is_reported_once() {
        let watchdog = Watchdog::default();
        assert!(!watchdog.is_warning_due(WARN_AFTER - Duration::from_nanos(1)));
        assert!(watchdog.is_warning_due(WARN_AFTER) && !watchdog.is_warning_due(WARN_AFTER * 2));
        call(&watchdog, || Ok(())).unwrap();
        assert!(watchdog.is_warning_due(WARN_AFTER));
    }
}
