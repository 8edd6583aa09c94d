//! Transfers that are ended because their source or target has changed since they were started.
//!
//! rsync opens its source some time after its start, over a remote shell after seconds. It would
//! treat an empty directory or a missing file system as deleted files.

use nix::sys::signal::Signal;

use super::job::Job;
use crate::component::Action;
use crate::process::Pid;

/// Ends the processes whose source or target has changed since their start. Their entries are
/// queued again.
pub fn end_processes<'a>(jobs: impl Iterator<Item = (Pid, &'a mut Job)>) -> Vec<Action> {
    let ended = jobs.filter(|(_, job)| reads_source(job) && is_outdated(job));
    let ended = ended.flat_map(|(pid, job)| {
        job.is_restarted = true;
        [Action::SignalTree(pid, Signal::SIGTERM), report(job)]
    });
    ended.collect()
}

/// Stops the local copies whose source or target has changed since their start. Their entries are
/// queued again.
pub fn stop_copies<'a>(jobs: impl Iterator<Item = &'a mut Job>) -> Vec<Action> {
    let stopped = jobs.filter(|job| is_outdated(job)).map(|job| {
        job.is_restarted = true;
        if let Some(control) = &job.control {
            control.stop();
        }
        report(job)
    });
    stopped.collect()
}

fn report(job: &Job) -> Action {
    let name = &job.handle.sync.borrow().config.name;
    Action::normal(format!(
        "{name}: ending the running transfer, because its source or target has changed"
    ))
}

/// Returns false for user code, scanners and commands that only move files on the target.
fn reads_source(job: &Job) -> bool {
    let is_transfer = || job.is_transfer(&job.handle.sync.borrow());
    job.may_stall() && (job.dry_run.is_some() || is_transfer())
}

fn is_outdated(job: &Job) -> bool {
    let sync = job.heir.as_ref().unwrap_or(&job.handle.sync);
    !job.is_restarted && sync.borrow().has_outdated(job.since())
}
