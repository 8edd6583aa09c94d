//! A tunnel: processes, usually an ssh that forwards a port, that must have run for some time
//! before syncs may use them.
//!
//! A state machine without I/O. The caller starts as many processes as [`Tunnel::lacking`] returns,
//! reports their state, and calls [`Tunnel::turn`] at [`Tunnel::deadline`].

use std::fmt;
use std::time::Duration;

use crate::log;
use crate::process::Pid;
use crate::queue::{Time, micros};

/// The state of a tunnel, with lsyncd's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// No process runs; one is about to be started.
    Down,
    /// Disabled, because the daemon exits.
    Disabled,
    /// Processes run, none of them for `ready_delay`.
    Connecting,
    /// At least one process has run for `ready_delay`.
    Up,
    /// A process ended too early: some time passes before the next.
    RetryTimeout,
    /// As [`TunnelState::Up`], but a process is missing and has to wait for its next start.
    UpRetryTimeout,
}

impl fmt::Display for TunnelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TunnelState {
    /// Returns the name in log and status file.
    pub fn name(self) -> &'static str {
        match self {
            TunnelState::Down => "DOWN",
            TunnelState::Disabled => "DISABLED",
            TunnelState::Connecting => "CONNECTING",
            TunnelState::Up => "UP",
            TunnelState::RetryTimeout => "RETRY_TIMEOUT",
            TunnelState::UpRetryTimeout => "UP_RETRY_TIMEOUT",
        }
    }
}

/// One process of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelProcess {
    /// The process id.
    pub pid: Pid,
    /// The local port it was given, if any.
    pub port: Option<u16>,
    /// The time of its start.
    pub started: Time,
    /// It has run for `ready_delay`.
    pub ready: bool,
}

/// The settings of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// `TunnelN`, or what the configuration calls it.
    pub name: String,
    /// The number of processes to keep running.
    pub parallel: usize,
    /// The time after which a running process counts as connected.
    pub ready_delay: Duration,
    /// The time between a failure and the next start.
    pub retry_delay: Duration,
}

/// A tunnel at run time.
#[derive(Debug)]
pub struct Tunnel {
    /// As configured.
    pub config: TunnelConfig,
    state: TunnelState,
    processes: Vec<TunnelProcess>,
    retry: Option<Time>,
    /// The number of times that a process was picked.
    picked: usize,
    /// True if it was up at the last query; `None` before the first one.
    was_up: Option<bool>,
}

impl Tunnel {
    /// A tunnel that is down.
    pub fn new(config: TunnelConfig) -> Tunnel {
        Tunnel {
            config,
            state: TunnelState::Down,
            processes: Vec::new(),
            retry: None,
            picked: 0,
            was_up: None,
        }
    }

    /// Returns the state.
    pub fn state(&self) -> TunnelState {
        self.state
    }

    /// Returns true if syncs may go through it.
    pub fn is_up(&self) -> bool {
        matches!(self.state, TunnelState::Up | TunnelState::UpRetryTimeout)
    }

    /// Returns true if it was up, or unknown, when this was last called, and is down now.
    pub fn has_gone_down(&mut self) -> bool {
        let is_up = self.is_up();
        let was_up = self.was_up.replace(is_up);
        !is_up && was_up != Some(false)
    }

    /// Returns the processes in order of their start.
    pub fn processes(&self) -> &[TunnelProcess] {
        &self.processes
    }

    /// The processes that are connected, in turn.
    pub fn pick(&mut self) -> Option<TunnelProcess> {
        let ready: Vec<_> = self.processes.iter().filter(|each| each.ready).collect();
        let picked = **ready.get(self.picked % ready.len().max(1))?;
        self.picked = self.picked.wrapping_add(1);
        Some(picked)
    }

    /// Returns the number of processes to be started now.
    pub fn lacking(&self) -> usize {
        match self.state {
            TunnelState::Down | TunnelState::Connecting | TunnelState::Up => {
                self.config.parallel.saturating_sub(self.processes.len())
            }
            TunnelState::Disabled | TunnelState::RetryTimeout | TunnelState::UpRetryTimeout => 0,
        }
    }

    /// A process was started.
    pub fn started(&mut self, pid: Pid, port: Option<u16>, now: Time) {
        self.processes.push(TunnelProcess {
            pid,
            port,
            started: now,
            ready: false,
        });
        if self.state == TunnelState::Down {
            self.enter(TunnelState::Connecting);
        }
    }

    /// A process could not be started.
    pub fn not_started(&mut self, now: Time) {
        if self.state == TunnelState::Down {
            self.enter(TunnelState::Connecting);
        }
        self.wait(now);
    }

    /// Handles the end of a process. Returns true if it belongs to this tunnel.
    pub fn ended(&mut self, pid: Pid, now: Time) -> bool {
        let Some(at) = self.processes.iter().position(|each| each.pid == pid) else {
            return false;
        };
        let process = self.processes.remove(at);
        let ready = process.ready || self.matures(&process) <= now;
        match self.state {
            TunnelState::Disabled => {}
            TunnelState::Up | TunnelState::UpRetryTimeout
                if !self.processes.iter().any(|each| each.ready) =>
            {
                self.retry = None;
                self.enter(TunnelState::Down);
                if !ready {
                    self.wait(now);
                }
            }
            // A tunnel that was ready is restarted at once, another one after a delay.
            _ if !ready => self.wait(now),
            _ => {}
        }
        true
    }

    /// Does what time has come for.
    pub fn turn(&mut self, now: Time) {
        if self.state == TunnelState::Disabled {
            return;
        }
        let span = micros(self.config.ready_delay);
        for process in &mut self.processes {
            process.ready |= process.started.saturating_add(span) <= now;
        }
        let connected = self.processes.iter().any(|each| each.ready);
        if self.retry.is_some_and(|retry| retry <= now) {
            self.retry = None;
            log::say("Tunnel", format_args!("Retry setup {}", self.config.name));
        }
        let next = match (connected, self.retry.is_some(), self.state) {
            (true, false, _) => TunnelState::Up,
            (true, true, _) => TunnelState::UpRetryTimeout,
            (false, true, _) => TunnelState::RetryTimeout,
            (false, false, TunnelState::RetryTimeout) => TunnelState::Connecting,
            (false, false, state) => state,
        };
        self.enter(next);
    }

    /// Returns the time at which [`Tunnel::turn`] must be called.
    pub fn deadline(&self) -> Option<Time> {
        let waiting = self.processes.iter().filter(|each| !each.ready);
        let matures = waiting.map(|each| self.matures(each));
        match self.state {
            TunnelState::Disabled => None,
            _ => matures.chain(self.retry).min(),
        }
    }

    /// Restarts a tunnel that is up but does not work. Returns its processes.
    pub fn refuse(&mut self) -> Vec<TunnelProcess> {
        self.retry = None;
        self.enter(TunnelState::Down);
        std::mem::take(&mut self.processes)
    }

    /// Disables the tunnel: no more processes are started.
    pub fn disable(&mut self) {
        self.enter(TunnelState::Disabled);
    }

    /// Enables the tunnel again. Remaining processes no longer belong to it.
    pub fn enable(&mut self) {
        self.was_up = None;
        if self.state == TunnelState::Disabled {
            self.refuse();
        }
    }

    fn matures(&self, process: &TunnelProcess) -> Time {
        let span = micros(self.config.ready_delay);
        process.started.saturating_add(span)
    }

    /// Starts no process for `retry_delay`.
    fn wait(&mut self, now: Time) {
        self.retry = Some(now + micros(self.config.retry_delay));
        self.enter(if self.is_up() {
            TunnelState::UpRetryTimeout
        } else {
            TunnelState::RetryTimeout
        });
    }

    fn enter(&mut self, state: TunnelState) {
        if self.state == state {
            return;
        }
        let name = &self.config.name;
        let was_up = self.is_up();
        log::say(
            "Tunnel",
            format_args!("{name}: status change: {} -> {state}", self.state),
        );
        self.state = state;
        if self.is_up() && !was_up {
            log::say("Tunnel", format_args!("Setup of tunnel {name} sucessfull"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Time = 1_000_000;

    fn tunnel(parallel: usize) -> Tunnel {
        Tunnel::new(TunnelConfig {
            name: "t".into(),
            parallel,
            ready_delay: Duration::from_secs(5),
            retry_delay: Duration::from_secs(10),
        })
    }

    /// Starts what lacks; returns the numbers given.
    fn start(tunnel: &mut Tunnel, now: Time, next: &mut u32) -> usize {
        let lacking = tunnel.lacking();
        for _ in 0..lacking {
            *next += 1;
            tunnel.started(Pid(*next), None, now);
        }
        lacking
    }

    #[test]
    fn one_process_that_lives_is_a_tunnel() {
        let mut tunnel = tunnel(1);
        assert_eq!((tunnel.state(), tunnel.lacking()), (TunnelState::Down, 1));
        tunnel.started(Pid(7), Some(4000), 0);
        assert_eq!(
            (tunnel.state(), tunnel.lacking()),
            (TunnelState::Connecting, 0)
        );
        assert_eq!(tunnel.deadline(), Some(5 * SECOND));
        tunnel.turn(5 * SECOND - 1);
        assert!(!tunnel.is_up() && tunnel.pick().is_none());
        tunnel.turn(5 * SECOND);
        assert_eq!((tunnel.state(), tunnel.deadline()), (TunnelState::Up, None));
        assert_eq!(tunnel.pick().map(|process| process.port), Some(Some(4000)));
    }

    #[test]
    fn what_has_worked_is_started_again_at_once() {
        let mut tunnel = tunnel(1);
        tunnel.started(Pid(7), None, 0);
        tunnel.turn(5 * SECOND);
        assert!(!tunnel.ended(Pid(8), 6 * SECOND));
        assert!(tunnel.ended(Pid(7), 6 * SECOND));
        assert_eq!((tunnel.state(), tunnel.lacking()), (TunnelState::Down, 1));
        tunnel.started(Pid(8), None, 6 * SECOND);
        assert_eq!(tunnel.state(), TunnelState::Connecting);
    }

    #[test]
    fn what_fails_is_tried_again_after_a_while() {
        let mut tunnel = tunnel(1);
        tunnel.started(Pid(7), None, 0);
        assert!(tunnel.ended(Pid(7), SECOND));
        assert_eq!(
            (tunnel.state(), tunnel.lacking()),
            (TunnelState::RetryTimeout, 0)
        );
        assert_eq!(tunnel.deadline(), Some(11 * SECOND));
        tunnel.turn(11 * SECOND);
        assert_eq!(
            (tunnel.state(), tunnel.lacking()),
            (TunnelState::Connecting, 1)
        );
        tunnel.not_started(11 * SECOND);
        assert_eq!(tunnel.state(), TunnelState::RetryTimeout);
        assert_eq!(tunnel.deadline(), Some(21 * SECOND));
    }

    #[test]
    fn one_of_several_is_enough_and_a_flapping_one_does_no_harm() {
        let mut tunnel = tunnel(2);
        tunnel.started(Pid(1), None, 0);
        tunnel.started(Pid(2), None, 0);
        tunnel.turn(5 * SECOND);
        assert!(tunnel.ended(Pid(2), 6 * SECOND));
        assert_eq!((tunnel.state(), tunnel.lacking()), (TunnelState::Up, 1));
        tunnel.started(Pid(3), None, 6 * SECOND);
        assert!(tunnel.ended(Pid(3), 7 * SECOND));
        assert_eq!(tunnel.state(), TunnelState::UpRetryTimeout);
        assert!(tunnel.is_up() && tunnel.lacking() == 0);
        tunnel.turn(17 * SECOND);
        assert_eq!((tunnel.state(), tunnel.lacking()), (TunnelState::Up, 1));
    }

    #[test]
    fn one_that_leads_nowhere_begins_anew() {
        let mut tunnel = tunnel(2);
        tunnel.started(Pid(1), None, 0);
        tunnel.turn(5 * SECOND);
        assert_eq!(tunnel.refuse().len(), 1);
        assert_eq!((tunnel.state(), tunnel.lacking()), (TunnelState::Down, 2));
        assert!(!tunnel.ended(Pid(1), 6 * SECOND));
    }

    #[test]
    fn the_connected_are_picked_in_turn() {
        let mut tunnel = tunnel(3);
        for pid in 1..=3 {
            tunnel.started(Pid(pid), None, u64::from(pid) * SECOND);
        }
        tunnel.turn(7 * SECOND);
        let picked: Vec<_> = (0..4)
            .filter_map(|_| tunnel.pick())
            .map(|p| p.pid.0)
            .collect();
        assert_eq!(picked, [1, 2, 1, 2]);
    }

    #[test]
    fn a_disabled_tunnel_starts_nothing() {
        let mut tunnel = tunnel(2);
        tunnel.started(Pid(1), None, 0);
        tunnel.disable();
        assert!(tunnel.ended(Pid(1), SECOND));
        tunnel.turn(100 * SECOND);
        assert_eq!((tunnel.lacking(), tunnel.deadline()), (0, None));
        assert_eq!(tunnel.state(), TunnelState::Disabled);
        tunnel.enable();
        assert_eq!((tunnel.state(), tunnel.lacking()), (TunnelState::Down, 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens, it is up only with a process that has lived for long enough, it
        /// never has more processes than it should, a failure is followed by a pause until one
        /// that worked ends, and it is never left with nothing to do and nothing to wait for.
        #[test]
        fn promises_hold(parallel in 1..4usize, steps in prop::collection::vec((0..12u64, 0..4usize), 1..80)) {
            let mut tunnel = tunnel(parallel);
            let (mut now, mut next, mut failed) = (0, 0, None);
            for (seconds, what) in steps {
                now += seconds * SECOND / 2;
                tunnel.turn(now);
                let started = start(&mut tunnel, now, &mut next);
                if started > 0 && let Some(failed) = failed {
                    prop_assert!(now >= failed + 10 * SECOND);
                }
                match tunnel.processes().get(what).copied() {
                    Some(process) => {
                        let early = process.started + 5 * SECOND > now;
                        failed = early.then_some(now);
                        prop_assert!(tunnel.ended(process.pid, now));
                    }
                    None => tunnel.turn(now),
                }
                let lived = |p: &TunnelProcess| p.ready && p.started + 5 * SECOND <= now;
                prop_assert_eq!(tunnel.is_up(), tunnel.processes().iter().any(lived));
                prop_assert!(tunnel.processes().len() <= parallel);
                prop_assert!(tunnel.lacking() > 0 || tunnel.deadline().is_some()
                    || tunnel.processes().len() == parallel);
            }
        }
    }
}
