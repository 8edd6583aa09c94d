//! Stall detector: finds transfers that make no progress.
//!
//! rsync lists a regular file and opens it later. If a FIFO has replaced the file in between,
//! open(2) blocks until another process opens the other end (fifo(7)), perhaps for ever. The kernel
//! shows the system call of a process, so this case is certain; such a transfer is terminated and
//! repeated.
//!
//! Any other transfer without I/O may still be working: close(2) on s3fs, sshfs or NFS takes as
//! long as the upload of the file, and a receiver may be busy. It is reported (log, status,
//! metrics) and not terminated, unless `settings{ stallTimeout }` sets a limit in seconds.
//!
//! The detector reads neither a clock nor the process table. Both are passed in, and it returns
//! actions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::process::{FifoWait, Observation, Pid};

/// The time between two checks of running transfers.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The maximum time without I/O that one check adds.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The time without I/O after which a transfer is reported.
const REPORT_AFTER: Duration = Duration::from_secs(30);

/// The number of checks in a row after which a process that waits for a FIFO, and has not run in
/// between, counts as blocked.
const MIN_FIFO_CHECKS: u32 = 3;

/// The time between SIGTERM and SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a transfer is terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A process of it is blocked in opening a FIFO.
    Fifo,
    /// It has had no I/O for this long, more than `stallTimeout`.
    NoIo(Duration),
}

/// An action for the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Log that it has had no I/O for this long.
    Report(Pid, Duration),
    /// Send it SIGTERM.
    Terminate(Pid, Reason),
    /// Send it SIGKILL: SIGTERM did not end it.
    Kill(Pid),
}

/// The observations of one transfer.
struct Transfer {
    /// The I/O counters at the last check.
    figures: Option<Vec<(u32, u64)>>,
    /// The time of the last check.
    looked: Instant,
    /// The time without I/O.
    idle: Duration,
    /// The stall has been reported.
    is_reported: bool,
    fifo_waits: Vec<FifoWait>,
    /// The number of checks in a row with the same `fifo_waits`.
    fifo_looks: u32,
    terminated: Option<Termination>,
}

/// A transfer that got SIGTERM.
struct Termination {
    reason: Reason,
    kill_at: Instant,
}

/// The running transfers and the time of their next check.
pub struct StallDetector {
    timeout: Option<Duration>,
    transfers: HashMap<Pid, Transfer>,
    next_look: Option<Instant>,
}

impl StallDetector {
    /// Returns a detector that terminates transfers without I/O after `timeout`, or never if it is
    /// `None`.
    pub fn new(timeout: Option<Duration>) -> StallDetector {
        StallDetector {
            timeout,
            transfers: HashMap::new(),
            next_look: None,
        }
    }

    /// Sets the timeout of a new configuration.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Adds a transfer that was started.
    pub fn started(&mut self, pid: Pid, now: Instant) {
        self.next_look.get_or_insert(now + CHECK_INTERVAL);
        let transfer = Transfer {
            figures: None,
            looked: now,
            idle: Duration::ZERO,
            is_reported: false,
            fifo_waits: Vec::new(),
            fifo_looks: 0,
            terminated: None,
        };
        self.transfers.insert(pid, transfer);
    }

    /// Removes a child that has ended. Returns the reason of its termination, if the detector
    /// requested one.
    pub fn ended(&mut self, pid: Pid) -> Option<Reason> {
        let transfer = self.transfers.remove(&pid);
        if self.transfers.is_empty() {
            self.next_look = None;
        }
        Some(transfer?.terminated?.reason)
    }

    /// Returns the time for the next call of [`on_timer`](StallDetector::on_timer).
    pub fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Returns the time without I/O of a transfer, if it is long enough to be reported.
    pub fn stalled(&self, pid: Pid) -> Option<Duration> {
        let transfer = self.transfers.get(&pid)?;
        Some(transfer.idle).filter(|idle| *idle >= REPORT_AFTER)
    }

    /// Checks the transfers if it is time to.
    pub fn on_timer(
        &mut self,
        now: Instant,
        mut observe: impl FnMut(Pid) -> Observation,
    ) -> Vec<Action> {
        if self.next_look.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.next_look = Some(now + CHECK_INTERVAL);
        let timeout = self.timeout;
        let transfers = self.transfers.iter_mut();
        transfers
            .filter_map(|(&pid, transfer)| match &transfer.terminated {
                Some(_) => transfer.kill(pid, now),
                None => transfer.look(pid, observe(pid), timeout, now),
            })
            .collect()
    }
}

impl Transfer {
    fn look(
        &mut self,
        pid: Pid,
        seen: Observation,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Option<Action> {
        self.fifo_looks = match (
            seen.fifo_waits.is_empty(),
            seen.fifo_waits == self.fifo_waits,
        ) {
            (true, _) => 0,
            (false, true) => self.fifo_looks + 1,
            (false, false) => 1,
        };
        self.fifo_waits = seen.fifo_waits;
        // A daemon that was busy or stopped has not observed the transfer.
        let since = now
            .saturating_duration_since(self.looked)
            .min(MAX_CHECK_INTERVAL);
        let is_idle = seen.activity.is_some() && seen.activity == self.figures;
        self.idle = if is_idle {
            self.idle + since
        } else {
            Duration::ZERO
        };
        self.looked = now;
        self.figures = seen.activity;
        if self.fifo_looks >= MIN_FIFO_CHECKS {
            return Some(self.terminate(pid, Reason::Fifo, now));
        }
        if is_idle && timeout.is_some_and(|timeout| self.idle >= timeout) {
            return Some(self.terminate(pid, Reason::NoIo(self.idle), now));
        }
        if self.idle < REPORT_AFTER || self.is_reported {
            return None;
        }
        self.is_reported = true;
        Some(Action::Report(pid, self.idle))
    }

    fn terminate(&mut self, pid: Pid, reason: Reason, now: Instant) -> Action {
        self.terminated = Some(Termination {
            reason,
            kill_at: now + TERM_TIMEOUT,
        });
        Action::Terminate(pid, reason)
    }

    fn kill(&mut self, pid: Pid, now: Instant) -> Option<Action> {
        let termination = self.terminated.as_mut()?;
        if now < termination.kill_at {
            return None;
        }
        termination.kill_at = now + TERM_TIMEOUT;
        Some(Action::Kill(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: Pid = Pid(1);

    /// Runs a transfer whose observations come from `figure` and calls the detector at each of its
    /// deadlines. Returns the actions and the number of seconds.
    fn watch(
        timeout: Option<u64>,
        seconds: u64,
        observe: impl Fn(u64) -> Observation,
    ) -> (StallDetector, Vec<(u64, Action)>) {
        let start = Instant::now();
        let mut detector = StallDetector::new(timeout.map(Duration::from_secs));
        detector.started(PID, start);
        let mut actions = Vec::new();
        while let Some(due) = detector.deadline() {
            let second = (due - start).as_secs();
            if second > seconds {
                break;
            }
            let found = detector.on_timer(due, |_| observe(second));
            actions.extend(found.into_iter().map(|action| (second, action)));
        }
        (detector, actions)
    }

    fn activity(figure: u64) -> Observation {
        Observation {
            activity: Some(vec![(1, figure)]),
            ..Observation::default()
        }
    }

    fn fifo(switches: u64) -> Observation {
        let wait = FifoWait {
            thread: 1,
            call: b"257 0x1".to_vec(),
            switches,
        };
        Observation {
            fifo_waits: vec![wait],
            ..activity(7)
        }
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn long_transfers_are_left_alone() {
        let hour = 3600;
        for observe in [
            // It reads and writes, it computes whenever looked at, and it was never readable.
            &(|second| activity(second)) as &dyn Fn(u64) -> Observation,
            &|_| Observation::default(),
            // Bursts of I/O with 25 s between them, as with a slow close(2) for each file.
            &|second| activity(second / 25),
        ] {
            for timeout in [None, Some(60)] {
                let (detector, actions) = watch(timeout, hour, observe);
                assert_eq!(actions, []);
                assert_eq!(detector.stalled(PID), None);
            }
        }
    }

    #[test]
    fn a_transfer_without_io_is_reported_once_within_a_minute_and_not_ended() {
        let (detector, actions) = watch(None, 24 * 3600, |_| activity(7));
        assert_eq!(actions, [(35, Action::Report(PID, seconds(30)))]);
        assert!(detector.stalled(PID) > Some(seconds(23 * 3600)));
    }

    #[test]
    fn io_ends_a_stall() {
        let (detector, actions) = watch(None, 200, |second| activity(second / 100));
        assert_eq!(actions, [(35, Action::Report(PID, seconds(30)))]);
        assert_eq!(detector.stalled(PID), None);
    }

    #[test]
    fn a_timeout_of_the_user_ends_a_stalled_transfer() {
        let (mut detector, actions) = watch(Some(20), 60, |_| activity(7));
        let [
            (25, Action::Terminate(PID, reason)),
            (35, kill),
            (45, again),
            (55, _),
        ] = actions[..]
        else {
            panic!("{actions:?}");
        };
        assert_eq!((kill, again), (Action::Kill(PID), Action::Kill(PID)));
        assert_eq!(reason, Reason::NoIo(seconds(20)));
        assert_eq!(detector.ended(PID), Some(reason));
        assert_eq!(detector.deadline(), None);

        // It is counted from the last I/O, not from the start.
        let (_, actions) = watch(Some(100), 124, |second| activity(second.min(25)));
        assert_eq!(actions, [(55, Action::Report(PID, seconds(30)))]);
        let (_, actions) = watch(Some(100), 125, |second| activity(second.min(25)));
        assert_eq!(actions.len(), 2);
    }

    #[test]
    fn a_wait_for_a_fifo_is_ended_when_it_is_proven() {
        let (mut detector, actions) = watch(None, 20, |_| fifo(3));
        assert_eq!(actions, [(15, Action::Terminate(PID, Reason::Fifo))]);
        assert_eq!(detector.ended(PID), Some(Reason::Fifo));
        // The kernel tells the call, not the figures, of a process of another user.
        let (_, actions) = watch(None, 20, |_| Observation {
            activity: None,
            ..fifo(3)
        });
        assert_eq!(actions, [(15, Action::Terminate(PID, Reason::Fifo))]);
    }

    #[test]
    fn a_fifo_whose_other_end_is_opened_in_time_is_left_alone() {
        // A call that returns and one that waits again, each looked at twice.
        let calls = |second: u64| fifo(second / 10);
        // It waits for five seconds of each fifteen.
        let opened = |second: u64| match second % 15 {
            0 => fifo(3),
            _ => activity(second),
        };
        for observe in [&calls as &dyn Fn(u64) -> Observation, &opened] {
            let (_, actions) = watch(None, 25, observe);
            assert_eq!(actions, []);
        }
    }

    /// A transfer that starts last in a turn is checked as well, and running ones are checked
    /// however often others start and end.
    #[test]
    fn the_timer_is_armed_by_the_first_transfer_and_by_nothing_else() {
        let start = Instant::now();
        let mut detector = StallDetector::new(None);
        assert_eq!(detector.deadline(), None);
        detector.started(PID, start);
        assert_eq!(detector.deadline(), Some(start + CHECK_INTERVAL));
        for second in 1..5 {
            detector.started(Pid(2), start + seconds(second));
            assert_eq!(detector.ended(Pid(2)), None);
        }
        assert_eq!(detector.deadline(), Some(start + CHECK_INTERVAL));
        assert!(
            detector
                .on_timer(start + seconds(4), |_| panic!("too early"))
                .is_empty()
        );
        assert_eq!(detector.ended(PID), None);
        assert_eq!(detector.deadline(), None);
        assert_eq!(detector.ended(PID), None);
    }

    /// After a stop of the daemon, or minutes of user code, nothing is known of the time in
    /// between.
    #[test]
    fn a_late_look_is_not_taken_for_a_stall() {
        let start = Instant::now();
        let mut detector = StallDetector::new(Some(seconds(30)));
        detector.started(PID, start);
        for second in [5, 10, 1000] {
            let actions = detector.on_timer(start + seconds(second), |_| activity(7));
            assert_eq!(actions, []);
        }
    }

    #[test]
    fn transfers_are_told_apart() {
        let start = Instant::now();
        let mut detector = StallDetector::new(Some(seconds(15)));
        for number in 1..4 {
            detector.started(Pid(number), start);
        }
        let mut actions = Vec::new();
        while let Some(due) = detector
            .deadline()
            .filter(|due| *due <= start + seconds(20))
        {
            actions.extend(detector.on_timer(due, |pid| match pid {
                Pid(1) => activity((due - start).as_secs()),
                Pid(2) => activity(7),
                _ => fifo(1),
            }));
        }
        actions.sort_by_key(|action| matches!(action, Action::Terminate(Pid(2), _)));
        assert_eq!(
            actions,
            [
                Action::Terminate(Pid(3), Reason::Fifo),
                Action::Terminate(Pid(2), Reason::NoIo(seconds(15))),
            ]
        );
    }
}
