//! Shutdown of a configuration: no new processes start, running ones may complete, and the
//! remaining ones are terminated.
//!
//! On a stop, children get `settings{ stopTimeout }`, then `SIGTERM`, then `SIGKILL`. If no
//! transfer has had I/O for [`IDLE_TIME`], they are ended earlier, so that a peer that hangs does
//! not delay the stop. A second stop signal reduces the time to a second. On `SIGHUP` the daemon
//! waits for its children without a timeout, as lsyncd does.

use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::component::Action;
use crate::exit::Exit;
use crate::watch::EventMark;

/// The time without I/O after which the remaining transfers are terminated at a stop. Their changes
/// are sent by the next daemon.
pub const IDLE_TIME: Duration = Duration::from_secs(10);
/// The time between SIGTERM and SIGKILL.
const KILL_DELAY: Duration = Duration::from_secs(10);
/// The time between SIGTERM and SIGKILL after a second stop signal.
const KILL_DELAY_REPEATED: Duration = Duration::from_secs(1);
/// The maximum delay of the coarse clock that file timestamps are taken from.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// The interval at which the watcher is polled, whose reader does not wake the loop when it finds
/// nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The time in which changes from before the request must be reported. Later ones are unknown to
/// the next daemon, which then compares everything.
const MAX_REPORT_TIME: Duration = Duration::from_secs(2);
/// The interval of log messages about remaining children.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The action after a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process exits.
    Exit(Exit),
    /// The configuration is read again and all syncs are restarted.
    Reset,
}

/// The state of a shutdown.
#[derive(Debug)]
pub struct Shutdown {
    ending: Ending,
    /// The request to end, in the stream of events.
    moment: EventMark,
    /// The time until which changes from before it are waited for.
    report_until: Instant,
    /// The time of the next log message about remaining children.
    log_at: Instant,
    /// The time at which remaining children are terminated, if they are.
    kill_at: Option<Instant>,
    /// The time between SIGTERM and SIGKILL.
    kill_delay: Duration,
    /// No child is left: the time at which the daemon exits.
    exit_at: Option<Instant>,
    /// Remaining children have got SIGTERM.
    is_terminated: bool,
}

/// The processes that must end before the daemon exits.
#[derive(Clone, Copy, Debug)]
pub struct Remaining {
    /// The number of running children and threads of syncs.
    pub running: usize,
    /// All of them are transfers that have had no I/O for [`IDLE_TIME`].
    pub is_idle: bool,
    /// The time of the last end of a child.
    pub last_end: Option<SystemTime>,
    /// Pending changes are saved for the next daemon.
    pub is_saved: bool,
    /// The index of a source is being updated.
    pub is_indexing: bool,
    /// All changes from before the request have been reported.
    pub is_reported: bool,
}

impl Shutdown {
    /// Returns a shutdown that begins now.
    pub fn new(ending: Ending, moment: EventMark, now: Instant) -> Shutdown {
        Shutdown {
            ending,
            moment,
            report_until: now + MAX_REPORT_TIME,
            log_at: now,
            kill_at: None,
            kill_delay: KILL_DELAY,
            exit_at: None,
            is_terminated: false,
        }
    }

    /// Takes in a request to end. Children get `timeout` if the process is to exit, and a second
    /// such request terminates them.
    pub fn on_request(&mut self, ending: Ending, timeout: Duration, now: Instant) {
        if ending == Ending::Reset {
            return;
        }
        self.ending = ending;
        match self.kill_at {
            None => self.kill_at = Some(now + timeout),
            Some(_) => {
                self.kill_at = Some(now);
                self.kill_delay = KILL_DELAY_REPEATED;
            }
        }
    }

    /// Returns the moment of the request.
    pub fn moment(&self) -> EventMark {
        self.moment
    }

    /// Returns the time of the next step.
    pub fn deadline(&self) -> Instant {
        match (self.exit_at, self.kill_at) {
            (Some(time), _) => time,
            (None, Some(time)) => time.min(self.log_at),
            (None, None) => self.log_at,
        }
    }

    /// Called in each turn. Waits for the remaining children and terminates them when their time
    /// is over. `wall` is the time of the clock of files.
    pub fn on_turn(&mut self, left: Remaining, now: Instant, wall: SystemTime) -> Vec<Action> {
        let running = left.running;
        let is_late = self.kill_at.is_some_and(|time| now >= time);
        if running == 0 && left.is_indexing && !is_late {
            self.log_at = now + LOG_INTERVAL;
            return Vec::new();
        }
        let awaits_reports = left.is_saved && !left.is_reported && now < self.report_until;
        if running == 0 && awaits_reports && !is_late && self.ending != Ending::Reset {
            self.log_at = now + POLL_INTERVAL;
            return Vec::new();
        }
        if running == 0 {
            let wait = self.rest_of_second(left, wall);
            self.exit_at = Some(now + wait.unwrap_or(LOG_INTERVAL));
            return match wait {
                Some(_) => Vec::new(),
                None => vec![Action::CloseTunnels],
            };
        }
        if left.is_idle && !self.is_terminated && self.kill_at.is_some() {
            self.kill_at = Some(now);
        }
        let mut actions = Vec::new();
        if now >= self.log_at {
            let text = format!("waiting for {running} more child processes.");
            actions.push(Action::normal(text));
            self.log_at = now + LOG_INTERVAL;
        }
        if self.kill_at.is_some_and(|time| now >= time) {
            let signal = if std::mem::replace(&mut self.is_terminated, true) {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            };
            let why = if left.is_idle {
                format!("have had no I/O for {} s", IDLE_TIME.as_secs())
            } else {
                "have not ended".to_owned()
            };
            let text = format!("{running} child processes {why}, sending {signal}");
            actions.push(Action::warn(text));
            actions.push(Action::SignalTransfers(signal));
            self.kill_at = Some(now + self.kill_delay);
        }
        actions
    }

    /// Takes in that all tunnels are closed, the last step before the end.
    pub fn on_tunnels_closed(&self) -> Vec<Action> {
        let last = match self.ending {
            Ending::Exit(exit) => Action::Exit(exit),
            Ending::Reset => Action::StartAnew,
        };
        vec![Action::KillDescendants, last]
    }

    /// Returns the time left of the second of the last transfer. rsync's quick check compares whole
    /// seconds, so the startup transfer of the next daemon misses a change of the same size within
    /// that second. The daemon therefore watches until the second is over and saves such changes.
    fn rest_of_second(&self, left: Remaining, wall: SystemTime) -> Option<Duration> {
        let is_hasty = self.kill_delay == KILL_DELAY_REPEATED;
        if self.ending == Ending::Reset || is_hasty || !left.is_saved {
            return None;
        }
        rest_of_second(left.last_end?, wall)
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

    const EXIT: Ending = Ending::Exit(Exit::Signal(15));
    const TIMEOUT: Duration = Duration::from_secs(30);
    const WALL: SystemTime = SystemTime::UNIX_EPOCH;

    fn left(running: usize) -> Remaining {
        Remaining {
            running,
            is_idle: false,
            last_end: None,
            is_saved: true,
            is_indexing: false,
            is_reported: true,
        }
    }

    /// Calls the shutdown at each of its deadlines and returns the signals with their seconds.
    fn signals(shutdown: &mut Shutdown, start: Instant, seconds: u64) -> Vec<(u64, Signal)> {
        let mut sent = Vec::new();
        loop {
            let due = shutdown.deadline();
            let second = (due - start).as_secs();
            if second > seconds {
                return sent;
            }
            for action in shutdown.on_turn(left(2), due, WALL) {
                if let Action::SignalTransfers(signal) = action {
                    sent.push((second, signal));
                }
            }
        }
    }

    #[test]
    fn children_are_terminated_then_killed() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(EXIT, EventMark::default(), start);
        shutdown.on_request(EXIT, TIMEOUT, start);
        let sent = signals(&mut shutdown, start, 55);
        let (term, kill) = (Signal::SIGTERM, Signal::SIGKILL);
        assert_eq!(sent, [(30, term), (40, kill), (50, kill)]);
    }

    #[test]
    fn transfers_without_io_are_terminated_early_unless_syncs_start_anew() {
        let start = Instant::now();
        let idle = Remaining {
            is_idle: true,
            ..left(2)
        };
        for ending in [EXIT, Ending::Reset] {
            let mut shutdown = Shutdown::new(ending, EventMark::default(), start);
            shutdown.on_request(ending, TIMEOUT, start);
            let now = start + Duration::from_secs(12);
            let actions = shutdown.on_turn(idle, now, WALL);
            let term = Action::SignalTransfers(Signal::SIGTERM);
            assert_eq!(actions.contains(&term), ending == EXIT, "{actions:?}");
            let actions = shutdown.on_turn(idle, now + Duration::from_secs(9), WALL);
            assert_eq!(actions, []);
        }
    }

    #[test]
    fn a_second_signal_shortens_the_time() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(EXIT, EventMark::default(), start);
        shutdown.on_request(EXIT, TIMEOUT, start);
        shutdown.on_request(EXIT, TIMEOUT, start);
        let sent = signals(&mut shutdown, start, 1);
        assert_eq!(sent, [(0, Signal::SIGTERM), (1, Signal::SIGKILL)]);
    }

    #[test]
    fn a_reset_waits_without_a_timeout_until_a_stop_signal() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(Ending::Reset, EventMark::default(), start);
        shutdown.on_request(Ending::Reset, TIMEOUT, start);
        assert_eq!(signals(&mut shutdown, start, 1000), []);
        assert_eq!(
            shutdown.on_tunnels_closed(),
            [Action::KillDescendants, Action::StartAnew]
        );
        shutdown.on_request(EXIT, TIMEOUT, start);
        shutdown.on_request(Ending::Reset, TIMEOUT, start);
        assert_eq!(
            shutdown.on_tunnels_closed(),
            [Action::KillDescendants, Action::Exit(Exit::Signal(15))]
        );
        assert_eq!(signals(&mut shutdown, start, 30), [(30, Signal::SIGTERM)]);
    }

    #[test]
    fn the_end_waits_for_the_second_of_the_last_transfer_and_for_tunnels() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(EXIT, EventMark::default(), start);
        shutdown.on_request(EXIT, TIMEOUT, start);
        let ended = Remaining {
            last_end: Some(WALL),
            ..left(0)
        };
        assert_eq!(shutdown.on_turn(ended, start, WALL), []);
        let second = Duration::from_secs(1) + CLOCK_TICK;
        assert_eq!(shutdown.deadline(), start + second);
        let actions = shutdown.on_turn(ended, start + second, WALL + second);
        assert_eq!(actions, [Action::CloseTunnels]);
        let unsaved = Remaining {
            is_saved: false,
            ..ended
        };
        let actions = shutdown.on_turn(unsaved, start, WALL);
        assert_eq!(actions, [Action::CloseTunnels]);
    }

    #[test]
    fn the_end_waits_for_changes_from_before_the_request_as_for_children() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(EXIT, EventMark::default(), start);
        shutdown.on_request(EXIT, TIMEOUT, start);
        let unreported = Remaining {
            is_reported: false,
            ..left(0)
        };
        assert_eq!(shutdown.on_turn(unreported, start, WALL), []);
        assert_eq!(shutdown.deadline(), start + POLL_INTERVAL);
        let unsaved = Remaining {
            is_saved: false,
            ..unreported
        };
        for (left, at) in [
            (left(0), start),
            (unsaved, start),
            (unreported, start + MAX_REPORT_TIME),
        ] {
            assert_eq!(shutdown.on_turn(left, at, WALL), [Action::CloseTunnels]);
        }
    }

    #[test]
    fn the_end_waits_for_the_index_as_for_children() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(EXIT, EventMark::default(), start);
        shutdown.on_request(EXIT, TIMEOUT, start);
        let indexing = Remaining {
            is_indexing: true,
            ..left(0)
        };
        assert_eq!(shutdown.on_turn(indexing, start, WALL), []);
        // The end of the thread wakes the loop.
        assert_eq!(shutdown.deadline(), start + TIMEOUT);
        let actions = shutdown.on_turn(indexing, start + TIMEOUT, WALL);
        assert_eq!(actions, [Action::CloseTunnels]);
    }

    #[test]
    fn only_an_end_with_time_waits_for_the_second_of_the_last_transfer() {
        let start = Instant::now();
        let ended = Remaining {
            last_end: Some(WALL),
            ..left(0)
        };
        for (ending, requests, waits) in
            [(EXIT, 1, true), (EXIT, 2, false), (Ending::Reset, 1, false)]
        {
            let mut shutdown = Shutdown::new(ending, EventMark::default(), start);
            for _ in 0..requests {
                shutdown.on_request(ending, TIMEOUT, start);
            }
            let actions = shutdown.on_turn(ended, start, WALL);
            assert_eq!(actions.is_empty(), waits, "{ending:?} {requests}");
        }
    }

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
