//! Shutdown of a configuration: no new processes start, running ones may complete, and the
//! remaining ones are terminated.
//!
//! On a stop, children get `settings{ stopTimeout }`, then `SIGTERM`, then `SIGKILL`. A second stop
//! signal reduces the time to a second. On `SIGHUP` the daemon waits for its children without a
//! timeout, as lsyncd does.

use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use super::event_loop::{Ending, EventLoop};
use super::event_router::EventRouter;
use crate::log;
use crate::process::process_tree::{self, Descendant};

/// The time between SIGTERM and SIGKILL.
const KILL_DELAY: Duration = Duration::from_secs(10);
/// The time between SIGTERM and SIGKILL after a second stop signal.
const KILL_DELAY_REPEATED: Duration = Duration::from_secs(1);
/// The maximum delay of the coarse clock that file timestamps are taken from.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// The interval of log messages about remaining children.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The state of a shutdown.
#[derive(Debug)]
pub struct Shutdown {
    outcome: Ending,
    /// The time of the next log message about remaining children.
    told: Instant,
    /// The time at which remaining children are terminated, if they are.
    patience: Option<Instant>,
    /// The time between SIGTERM and SIGKILL.
    grace: Duration,
    /// The end of the second of the last transfer, see [`EventLoop::rest_of_second`].
    lingers: Option<Instant>,
    /// The descendants of children that got SIGTERM; `None` if none was sent.
    doomed: Option<Vec<Descendant>>,
}

impl Shutdown {
    fn new(outcome: Ending, now: Instant) -> Shutdown {
        Shutdown {
            outcome,
            told: now,
            patience: None,
            grace: KILL_DELAY,
            lingers: None,
            doomed: None,
        }
    }

    /// Returns the time of the next step.
    pub fn deadline(&self) -> Instant {
        match (self.lingers, self.patience) {
            (Some(time), _) => time,
            (None, Some(time)) => time.min(self.told),
            (None, None) => self.told,
        }
    }
}

impl EventLoop<'_> {
    /// Begins the shutdown. After that no process is started. A second stop signal shortens the
    /// timeouts.
    pub(super) fn begin_shutdown(&mut self, outcome: Ending) {
        self.script.shut_down();
        self.close_gates();
        let mut watching = EventRouter::new(&self.syncs, self.now);
        self.watcher.report_all_open(&mut watching);
        let now = Instant::now();
        let timeout = self.script.settings.stop_timeout;
        let shutdown = self
            .shutdown
            .get_or_insert_with(|| Shutdown::new(outcome, now));
        if outcome == Ending::Reset {
            return;
        }
        shutdown.outcome = outcome;
        match shutdown.patience {
            None => shutdown.patience = Some(now + timeout),
            Some(_) => {
                shutdown.patience = Some(now);
                shutdown.grace = KILL_DELAY_REPEATED;
            }
        }
    }

    /// Waits for the remaining children and terminates them when their time is over.
    pub(super) fn poll_shutdown(&mut self) {
        let Some(mut shutdown) = self.shutdown.take() else {
            return;
        };
        let running = self.jobs.len() + self.local_jobs.running();
        let now = Instant::now();
        if running == 0 {
            shutdown.lingers = self.rest_of_second(&shutdown);
            if shutdown.lingers.is_some() {
                self.shutdown = Some(shutdown);
                return;
            }
            if !self.close_tunnels() {
                shutdown.lingers = Some(now + LOG_INTERVAL);
                self.shutdown = Some(shutdown);
                return;
            }
            for descendant in shutdown.doomed.iter().flatten() {
                descendant.kill(Signal::SIGKILL);
            }
            self.ending = Some(shutdown.outcome);
            return;
        }
        if now >= shutdown.told {
            log::normal(format_args!("waiting for {running} more child processes."));
            shutdown.told = now + LOG_INTERVAL;
        }
        if shutdown.patience.is_some_and(|time| now >= time) {
            let signal = match shutdown.doomed {
                None => Signal::SIGTERM,
                Some(_) => Signal::SIGKILL,
            };
            log::warn(format_args!(
                "{running} child processes have not ended, sending {signal}"
            ));
            self.local_jobs.stop();
            let below = self.signal_children(signal);
            shutdown.doomed.get_or_insert_default().extend(below);
            shutdown.patience = Some(now + shutdown.grace);
        }
        self.shutdown = Some(shutdown);
    }

    /// Returns the end of the second of the last transfer. rsync's quick check compares whole
    /// seconds, so the startup transfer of the next daemon misses a change of the same size within
    /// that second. The daemon therefore watches until the second is over and saves such changes.
    fn rest_of_second(&self, shutdown: &Shutdown) -> Option<Instant> {
        if shutdown.outcome == Ending::Reset
            || shutdown.grace == KILL_DELAY_REPEATED
            || self.context.state.is_none()
        {
            return None;
        }
        let left = rest_of_second(self.last_end?, SystemTime::now())?;
        Some(Instant::now() + left)
    }

    /// Kills the children that still run at the end.
    pub(super) fn abandon(&self) {
        self.local_jobs.stop();
        if !self.jobs.is_empty() {
            self.signal_children(Signal::SIGTERM);
        }
        self.signal_tunnels(Signal::SIGTERM);
    }

    /// Sends a signal to all children and their descendants. Returns the descendants.
    fn signal_children(&self, signal: Signal) -> Vec<Descendant> {
        let below = process_tree::below(self.jobs.keys().copied());
        let children = self.context.children.borrow();
        for &pid in self.jobs.keys() {
            // A child that has ended is reaped in the next turn.
            let _ = children.kill(pid, signal);
        }
        for descendant in &below {
            descendant.kill(signal);
        }
        below
    }
}

/// Returns how long files may still get a timestamp in the second of `last`, if they may.
fn rest_of_second(last: SystemTime, now: SystemTime) -> Option<Duration> {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
    let end = Duration::from_secs(since(last)?.as_secs() + 1) + CLOCK_TICK;
    // If the clock was set back, nothing is waited for.
    let left = end.checked_sub(since(now)?)?;
    (!left.is_zero() && left <= Duration::from_secs(1) + CLOCK_TICK).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_over_when_no_file_can_get_its_time() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let left = |last, now| rest_of_second(at(last), at(now)).map(|left| left.as_millis());
        for (last, now, expected) in [
            (10_000, 10_000, Some(1010)),
            (10_999, 10_999, Some(11)),
            (10_500, 11_000, Some(10)),
            (10_500, 11_009, Some(1)),
            (10_500, 11_010, None),
            (10_500, 20_000, None),
            (10_500, 3_000, None),
        ] {
            assert_eq!(left(last, now), expected, "{last} {now}");
        }
    }
}
