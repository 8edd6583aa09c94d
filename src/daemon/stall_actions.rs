//! Executes the actions of the stall detector.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::event_loop::EventLoop;
use super::stall_detector::{Action, Reason};
use crate::log;
use crate::process::{Observer, Pid, process_tree};
use crate::status::number_format::span;

impl EventLoop<'_> {
    /// Runs the stall detector if it is due.
    pub(super) fn detect_stalls(&mut self, now: Instant) {
        let jobs = &self.jobs;
        let mut observer = Observer::default();
        let actions = self.stall_detector.on_timer(now, |pid| {
            let local = jobs.get(&pid).is_some_and(|job| job.is_local());
            observer.observe(pid, local)
        });
        for action in actions {
            match action {
                Action::Report(pid, idle) => self.report_stall(pid, idle),
                Action::Terminate(pid, reason) => self.end_stalled(pid, reason),
                Action::Kill(pid) => self.signal_with_children(pid, Signal::SIGKILL),
            }
        }
    }

    fn report_stall(&self, pid: Pid, idle: Duration) {
        let Some(name) = self.name_of(pid) else {
            return;
        };
        log::warn(format_args!(
            "{name}: the transfer (process {pid}) has had no I/O for {}, waiting for it",
            span(idle.as_secs_f64())
        ));
    }

    fn end_stalled(&self, pid: Pid, reason: Reason) {
        let Some(name) = self.name_of(pid) else {
            return;
        };
        let why = match reason {
            Reason::Fifo => "waits for a named pipe that came in place of a file".to_owned(),
            Reason::NoIo(idle) => {
                let idle = span(idle.as_secs_f64());
                format!("has had no I/O for {idle}, more than stallTimeout")
            }
        };
        log::normal(format_args!(
            "{name}: the transfer {why}, starting it again"
        ));
        self.signal_with_children(pid, Signal::SIGTERM);
    }

    fn signal_with_children(&self, pid: Pid, signal: Signal) {
        for descendant in process_tree::below([pid]) {
            descendant.kill(signal);
        }
        if let Err(error) = self.context.children.borrow().kill(pid, signal) {
            log::warn(format_args!("process {pid} cannot be ended: {error}"));
        }
    }

    fn name_of(&self, pid: Pid) -> Option<String> {
        let job = self.jobs.get(&pid)?;
        Some(job.handle().sync.borrow().config.name.clone())
    }
}
