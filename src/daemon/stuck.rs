//! Ends transfers that would never end.
//!
//! rsync lists a regular file and opens it when its turn comes. If a pipe has taken its place
//! in between, opening waits until somebody writes to the pipe (fifo(7)), perhaps for ever, and
//! with it the whole sync. What a process waits in is told by proc_pid_wchan(5); where the
//! kernel does not tell it, nothing is done here.
//!
//! And rsyncs have been seen to wait for each other for good, with hard links whose first name
//! vanished. Where all of them are on this host, that they do nothing at all tells it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::engine::Engine;
use super::job::Job;
use crate::process::Pid;
use crate::process::family::{self, Processes};
use crate::report;

/// How often transfers that run are looked at. One that waits at two looks in a row is stuck.
const PAUSE: Duration = Duration::from_secs(5);

/// An rsync on this host that does nothing at so many looks in a row does nothing for good.
const IDLE_LOOKS: u32 = 6;

/// Where the kernel waits for the other end of a named pipe that is being opened.
const OPENING_PIPE: &[u8] = b"wait_for_partner";

/// What is known of one transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// It did not wait for a pipe when it was looked at last.
    #[default]
    Working,
    /// It did.
    Waiting,
    /// It was told to end, so its work is to be done again.
    Ended,
}

/// When transfers are looked at next.
#[derive(Debug, Default)]
pub struct Stuck {
    due: Option<Instant>,
}

impl Stuck {
    /// `None` while nothing runs.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Engine<'_> {
    /// Looks at the transfers that run if it is time to.
    pub(super) fn end_stuck(&mut self, now: Instant) {
        let mut transfers = self.jobs.iter().filter(|(_, job)| job.may_get_stuck());
        if transfers.next().is_none() {
            self.stuck.due = None;
            return;
        }
        if *self.stuck.due.get_or_insert(now + PAUSE) > now {
            return;
        }
        self.stuck.due = Some(now + PAUSE);
        let processes = Processes::now();
        for (&pid, job) in &self.jobs {
            if !job.may_get_stuck() {
                continue;
            }
            if is_opening_pipe(pid, &processes) {
                if job.stuck.replace(Seen::Waiting) == Seen::Waiting {
                    self.end(
                        pid,
                        job,
                        "waits for a named pipe that came in place of a file",
                    );
                }
                continue;
            }
            job.stuck.set(Seen::Working);
            let effort = match job.is_local() && family::runs(pid, "rsync") {
                true => processes.effort(pid),
                false => None,
            };
            let idle = match job.idle.get() {
                (before, looks) if effort.is_some() && before == effort => looks + 1,
                _ => 0,
            };
            job.idle.set((effort, idle));
            if idle >= IDLE_LOOKS {
                self.end(pid, job, "has done nothing for half a minute");
            }
        }
    }

    fn end(&self, pid: Pid, job: &Job, why: &str) {
        let name = job.member().sync.borrow().config.name.clone();
        for descendant in family::below([pid]) {
            descendant.kill(Signal::SIGTERM);
        }
        match self.core.children.borrow().kill(pid, Signal::SIGTERM) {
            Ok(()) => {
                job.stuck.set(Seen::Ended);
                report::normal(format_args!(
                    "{name}: the transfer {why}, starting it again"
                ));
            }
            Err(error) => report::warn(format_args!(
                "{name}: the transfer {why} and cannot be ended: {error}"
            )),
        }
    }
}

/// Whether this process waits for the other end of a pipe, or one below it does, as the rsync
/// of a wrapper.
fn is_opening_pipe(pid: Pid, processes: &Processes) -> bool {
    let waits = |pid| {
        let place = fs::read(format!("/proc/{pid}/wchan"));
        place.is_ok_and(|place| place.ends_with(OPENING_PIPE))
    };
    waits(pid) || processes.below([pid]).into_iter().any(|d| waits(d.pid()))
}
