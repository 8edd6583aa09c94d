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

use nix::sys::signal::Signal;

use crate::component::Action;
use crate::process::{CHECK_INTERVAL, FifoWait, IdleClock, KEEP_ALIVE, Observation, Pid};
use crate::status::number_format::span;

/// The number of checks in a row after which a process that waits for a FIFO, and has not run in
/// between, counts as blocked.
const MIN_FIFO_CHECKS: u32 = 3;

/// The time between SIGTERM and SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(10);

/// The observations of one transfer.
struct ObservedTransfer {
    /// The name of its sync, for messages.
    name: String,
    /// The time without I/O, by the I/O counters of its processes.
    idle_clock: IdleClock<Vec<(u32, u64)>>,
    /// The counters of the last check, and those of the last one with more than keep-alive
    /// messages.
    counters: [Option<Vec<(u32, u64)>>; 2],
    fifo_waits: Vec<FifoWait>,
    /// The number of checks in a row with the same `fifo_waits`.
    fifo_looks: u32,
    /// The time of the next SIGKILL, once it got SIGTERM.
    kill_at: Option<Instant>,
}

/// The running transfers and the time of their next check.
pub struct StallDetector {
    timeout: Option<Duration>,
    transfers: HashMap<Pid, ObservedTransfer>,
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

    /// Adds a transfer of a sync of this name that was started.
    pub fn started(&mut self, pid: Pid, name: String, now: Instant) {
        self.next_look.get_or_insert(now + CHECK_INTERVAL);
        let transfer = ObservedTransfer {
            name,
            idle_clock: IdleClock::new(now),
            counters: [None, None],
            fifo_waits: Vec::new(),
            fifo_looks: 0,
            kill_at: None,
        };
        self.transfers.insert(pid, transfer);
    }

    /// Removes a child that has ended. Returns true if the detector has terminated it.
    pub fn ended(&mut self, pid: Pid) -> bool {
        let transfer = self.transfers.remove(&pid);
        if self.transfers.is_empty() {
            self.next_look = None;
        }
        transfer.is_some_and(|transfer| transfer.kill_at.is_some())
    }

    /// Returns the time for the next call of [`on_timer`](StallDetector::on_timer).
    pub fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Returns the time without I/O of a transfer, if it is long enough to be reported.
    pub fn stalled(&self, pid: Pid) -> Option<Duration> {
        self.transfers.get(&pid)?.idle_clock.stalled()
    }

    /// Returns true if a transfer has had no I/O for this long.
    pub fn is_idle(&self, pid: Pid, time: Duration) -> bool {
        let transfer = self.transfers.get(&pid);
        transfer.is_some_and(|transfer| transfer.idle_clock.idle() >= time)
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
        let mut actions = Vec::new();
        for (&pid, transfer) in &mut self.transfers {
            actions.extend(match transfer.kill_at {
                Some(_) => transfer.kill(pid, now),
                None => transfer.look(pid, observe(pid), timeout, now),
            });
        }
        actions
    }
}

impl ObservedTransfer {
    fn look(
        &mut self,
        pid: Pid,
        seen: Observation,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Vec<Action> {
        self.fifo_looks = match (
            seen.fifo_waits.is_empty(),
            seen.fifo_waits == self.fifo_waits,
        ) {
            (true, _) => 0,
            (false, true) => self.fifo_looks + 1,
            (false, false) => 1,
        };
        self.fifo_waits = seen.fifo_waits;
        let progress = self.without_keep_alives(seen.activity);
        let is_idle = self.idle_clock.look(progress, now);
        let idle = self.idle_clock.idle();
        if self.fifo_looks >= MIN_FIFO_CHECKS {
            let why = "waits for a named pipe that replaced a file";
            return self.terminate(pid, why, now);
        }
        if is_idle && timeout.is_some_and(|timeout| idle >= timeout) {
            let idle = span(idle.as_secs_f64());
            let why = format!("has had no I/O for {idle}, more than stallTimeout");
            return self.terminate(pid, &why, now);
        }
        let Some(idle) = self.idle_clock.take_report() else {
            return Vec::new();
        };
        vec![Action::warn(format!(
            "{}: the transfer (process {pid}) has had no I/O for {}, waiting for it",
            self.name,
            span(idle.as_secs_f64())
        ))]
    }

    /// Returns the counters, or those of an earlier check if there were only keep-alive messages
    /// since.
    fn without_keep_alives(
        &mut self,
        activity: Option<Vec<(u32, u64)>>,
    ) -> Option<Vec<(u32, u64)>> {
        let [last, counted] = &mut self.counters;
        let is_little = match (&*last, &activity) {
            (Some(before), Some(now)) => is_keep_alive(before, now),
            _ => false,
        };
        if !is_little {
            counted.clone_from(&activity);
        }
        *last = activity;
        last.as_ref().and(counted.clone())
    }

    fn terminate(&mut self, pid: Pid, why: &str, now: Instant) -> Vec<Action> {
        self.kill_at = Some(now + TERM_TIMEOUT);
        let name = &self.name;
        vec![
            Action::normal(format!("{name}: the transfer {why}, starting it again")),
            Action::SignalTree(pid, Signal::SIGTERM),
        ]
    }

    fn kill(&mut self, pid: Pid, now: Instant) -> Vec<Action> {
        if self.kill_at.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.kill_at = Some(now + TERM_TIMEOUT);
        vec![Action::SignalTree(pid, Signal::SIGKILL)]
    }
}

/// Returns true if the counters of the same processes have grown by keep-alive messages at most.
fn is_keep_alive(before: &[(u32, u64)], now: &[(u32, u64)]) -> bool {
    let mut pairs = before.iter().zip(now);
    before.len() == now.len()
        && pairs.all(|((pid, before), (other, now))| {
            pid == other && now.checked_sub(*before).is_some_and(|it| it <= KEEP_ALIVE)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: Pid = Pid(1);

    fn report() -> Action {
        let idle = span(30.0);
        let text =
            format!("one: the transfer (process 1) has had no I/O for {idle}, waiting for it");
        Action::warn(text)
    }

    fn no_io(seconds: f64) -> String {
        let idle = span(seconds);
        format!("has had no I/O for {idle}, more than stallTimeout")
    }

    const FIFO: &str = "waits for a named pipe that replaced a file";

    fn terminate(pid: Pid, why: &str) -> [Action; 2] {
        let text = format!("one: the transfer {why}, starting it again");
        let term = Action::SignalTree(pid, Signal::SIGTERM);
        [Action::normal(text), term]
    }

    /// Runs a transfer whose observations come from `figure` and calls the detector at each of its
    /// deadlines. Returns the actions and the number of seconds.
    fn watch(
        timeout: Option<u64>,
        seconds: u64,
        observe: impl Fn(u64) -> Observation,
    ) -> (StallDetector, Vec<(u64, Action)>) {
        let start = Instant::now();
        let mut detector = StallDetector::new(timeout.map(Duration::from_secs));
        detector.started(PID, "one".into(), start);
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

    /// Returns an observation with this amount of I/O, more than keep-alive messages.
    fn activity(figure: u64) -> Observation {
        Observation {
            activity: Some(vec![(1, figure * (KEEP_ALIVE + 1))]),
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
    fn a_transfer_without_io_is_idle() {
        let (detector, _) = watch(None, 12, |_| activity(1));
        assert!(detector.is_idle(PID, seconds(5)) && !detector.is_idle(PID, seconds(10)));
        let (detector, _) = watch(None, 12, activity);
        assert!(!detector.is_idle(PID, seconds(5)));
        assert!(!detector.is_idle(Pid(2), seconds(0)));
    }

    #[test]
    fn long_transfers_are_left_alone() {
        let hour = 3600;
        for observe in [
            // A process that does I/O, one that computes at each observation, and one that cannot
            // be observed.
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
        assert_eq!(actions, [(35, report())]);
        assert!(detector.stalled(PID) > Some(seconds(23 * 3600)));
    }

    /// Over ssh, rsync may wait while ssh sends what is in the pipe between them.
    #[test]
    fn io_of_any_process_of_a_transfer_counts() {
        let observe = |second| Observation {
            activity: Some(vec![(1, 7), (2, second * (KEEP_ALIVE + 1))]),
            ..Observation::default()
        };
        let (detector, actions) = watch(Some(60), 3600, observe);
        assert_eq!(actions, []);
        assert_eq!(detector.stalled(PID), None);
    }

    /// With `--timeout`, rsync sends a message each half of it, also if two of its processes wait
    /// for each other.
    #[test]
    fn keep_alive_messages_are_no_progress() {
        let io = |each: u64| {
            move |second: u64| Observation {
                activity: Some(vec![(1, 1000 + second / 60 * each), (2, 7)]),
                ..Observation::default()
            }
        };
        let (detector, actions) = watch(None, 3600, io(KEEP_ALIVE));
        assert_eq!(actions, [(35, report())]);
        assert!(detector.stalled(PID) > Some(seconds(3500)));
        let (detector, _) = watch(None, 3610, io(KEEP_ALIVE + 1));
        assert_eq!(detector.stalled(PID), None);
        // The first stall is reported, the second one ends the process.
        let (_, actions) = watch(Some(600), 610, io(KEEP_ALIVE));
        let times: Vec<_> = actions.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [35, 605, 605], "{actions:?}");
    }

    #[test]
    fn io_ends_a_stall() {
        let (detector, actions) = watch(None, 200, |second| activity(second / 100));
        assert_eq!(actions, [(35, report())]);
        assert_eq!(detector.stalled(PID), None);
    }

    #[test]
    fn a_timeout_of_the_user_ends_a_stalled_transfer() {
        let (mut detector, actions) = watch(Some(20), 60, |_| activity(7));
        let [text, term] = terminate(PID, &no_io(20.0));
        let kill = Action::SignalTree(PID, Signal::SIGKILL);
        let kills = [35, 45, 55].map(|second| (second, kill.clone()));
        assert_eq!(actions[..2], [(25, text), (25, term)]);
        assert_eq!(actions[2..], kills);
        assert!(detector.ended(PID));
        assert_eq!(detector.deadline(), None);

        // The time is counted from the last I/O, not from the start.
        let (_, actions) = watch(Some(100), 124, |second| activity(second.min(25)));
        assert_eq!(actions, [(55, report())]);
        let (_, actions) = watch(Some(100), 125, |second| activity(second.min(25)));
        assert_eq!(actions.len(), 3);
    }

    #[test]
    fn a_wait_for_a_fifo_is_ended_when_it_is_proven() {
        let (mut detector, actions) = watch(None, 20, |_| fifo(3));
        assert_eq!(actions, terminate(PID, FIFO).map(|action| (15, action)));
        assert!(detector.ended(PID));
        // The kernel tells the call, not the figures, of a process of another user.
        let (_, actions) = watch(None, 20, |_| Observation {
            activity: None,
            ..fifo(3)
        });
        assert_eq!(actions, terminate(PID, FIFO).map(|action| (15, action)));
    }

    #[test]
    fn a_fifo_whose_other_end_is_opened_in_time_is_left_alone() {
        // A call that returns and a call that waits again, each observed twice.
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
        detector.started(PID, "one".into(), start);
        assert_eq!(detector.deadline(), Some(start + CHECK_INTERVAL));
        for second in 1..5 {
            detector.started(Pid(2), "one".into(), start + seconds(second));
            assert!(!detector.ended(Pid(2)));
        }
        assert_eq!(detector.deadline(), Some(start + CHECK_INTERVAL));
        assert!(
            detector
                .on_timer(start + seconds(4), |_| panic!("too early"))
                .is_empty()
        );
        assert!(!detector.ended(PID));
        assert_eq!(detector.deadline(), None);
        assert!(!detector.ended(PID));
    }

    /// After a stop of the daemon, or minutes of user code, nothing is known of the time in
    /// between.
    #[test]
    fn a_late_look_is_not_taken_for_a_stall() {
        let start = Instant::now();
        let mut detector = StallDetector::new(Some(seconds(30)));
        detector.started(PID, "one".into(), start);
        for second in [5, 10, 1000] {
            let actions = detector.on_timer(start + seconds(second), |_| activity(7));
            assert_eq!(actions, []);
        }
    }

    #[test]
    fn transfers_are_distinguished() {
        let start = Instant::now();
        let mut detector = StallDetector::new(Some(seconds(15)));
        for number in 1..4 {
            detector.started(Pid(number), "one".into(), start);
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
        let signals = |action: &Action| matches!(action, Action::SignalTree(..));
        actions.retain(signals);
        actions.sort_by_key(|action| *action == terminate(Pid(2), "")[1]);
        let [_, third] = terminate(Pid(3), FIFO);
        let [_, second] = terminate(Pid(2), "");
        assert_eq!(actions, [third, second]);
    }
}
