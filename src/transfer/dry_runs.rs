//! The ends of dry runs and of the counts that some of them need.

use std::collections::VecDeque;
use std::rc::Rc;

use super::delete_limit::{DryRun, DryRunResult, put_off};
use super::job::Job;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::Time;
use crate::script::{Script, SpawnRequest};

/// What follows the end of a dry run.
pub enum DryRunEnd {
    /// The transfer is started, with this limit of deletions if there is one.
    Start(SpawnRequest, Option<u64>),
    /// The source is counted for this job.
    Count(Job),
    /// The failure is evaluated as that of this transfer, which is not started.
    Failed(Job),
    /// The entries are queued again.
    Queued,
}

/// Returns what follows the end of a dry run with these lines of error output.
pub fn end(
    dry_run: DryRun,
    status: ExitStatus,
    errors: VecDeque<Vec<u8>>,
    script: &Rc<Script>,
    now: Time,
) -> DryRunEnd {
    if !dry_run.may_be_followed() {
        dry_run.put_back(now);
        return DryRunEnd::Queued;
    }
    match dry_run.result(status) {
        DryRunResult::Failed => {
            log::warn(format_args!(
                "{}: the dry run for maxDelete failed, nothing is sent",
                dry_run.handle().sync.borrow().config.name
            ));
            let job = Job::unsent(dry_run.into_request(), Rc::clone(script));
            job.take_errors(errors);
            DryRunEnd::Failed(job)
        }
        DryRunResult::Transfer(most) => DryRunEnd::Start(dry_run.into_request(), most),
        DryRunResult::Exceeded(deleted, total) => {
            put_off(&dry_run.handle(), dry_run.ids(), deleted, total, now);
            DryRunEnd::Queued
        }
        DryRunResult::Count => DryRunEnd::Count(Job::dry_run(dry_run, Rc::clone(script))),
    }
}

/// Returns the dry run of a job whose source has been counted. Without a count, because the daemon
/// is shutting down, its entries fail.
pub fn counted(mut job: Job, count: Option<u64>, now: Time) -> Option<DryRun> {
    job.leave();
    let dry_run = job.dry_run.take()?;
    match count {
        Some(count) => dry_run.on_counted(count),
        None => {
            let ids = dry_run.ids();
            job.handle.sync.borrow_mut().failed(ids, now);
            return None;
        }
    }
    Some(dry_run)
}
