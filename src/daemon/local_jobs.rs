//! Local jobs: the worker threads of default.direct syncs and the evaluation of their results.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::event_loop::EventLoop;
use super::event_router;
use crate::batch::error_lines::Attribute;
use crate::id::SyncId;
use crate::local::{CopyEnded, CopyJob, CopyReport, CopyTask, CopyWorker};
use crate::log;
use crate::paths;
use crate::process::ExitStatus;
use crate::queue::Etype;
use crate::script::CopyRequest;
use crate::sync::micros;
use crate::transfer::{Job, put_off};

/// The maximum number of failures that are logged individually.
const MAX_LOGGED_FAILURES: usize = 20;

/// The worker threads and jobs of one configuration.
#[derive(Default)]
pub struct LocalJobs {
    workers: HashMap<SyncId, CopyWorker>,
    jobs: HashMap<u64, Job>,
    count: u64,
    stop: Arc<AtomicBool>,
}

impl LocalJobs {
    /// Returns the number of unfinished jobs.
    pub fn running(&self) -> usize {
        self.jobs.len()
    }

    /// Returns the unfinished jobs.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Returns the unfinished jobs, mutable.
    pub(super) fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.jobs.values_mut()
    }

    /// Ends the threads of syncs that are not in `live` and have no jobs left.
    fn retire(&mut self, live: &HashSet<SyncId>) {
        let jobs = &self.jobs;
        self.workers.retain(|id, _| {
            let has_work = || {
                jobs.values()
                    .any(|job| job.handle().sync.borrow().id == *id)
            };
            live.contains(id) || has_work()
        });
    }

    /// Tells all threads to stop as soon as possible.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl EventLoop<'_> {
    /// Passes a copy request to the worker of its sync.
    pub(super) fn start_copy(&mut self, request: CopyRequest) {
        let handle = Rc::clone(&request.handle);
        let job = Job::of_order(&request, Rc::clone(&self.script));
        let key = handle.sync.borrow().id;
        let priority = handle.sync.borrow().config.priority;
        let priority = priority.or(self.script.settings.priority);
        let worker = match self.local_jobs.workers.get(&key) {
            Some(worker) => worker,
            None => match CopyWorker::start(self.context.waker(), priority) {
                Ok(worker) => self.local_jobs.workers.entry(key).or_insert(worker),
                Err(error) => {
                    let mut sync = handle.sync.borrow_mut();
                    let wait = sync.failed(&request.ids, self.now);
                    return log::error(format_args!(
                        "{}: cannot start a thread: {error}; trying again in {} s",
                        sync.config.name,
                        wait.as_secs()
                    ));
                }
            },
        };
        let mut sync = handle.sync.borrow_mut();
        let delay = micros(sync.config.delay.unwrap_or_default());
        let oldest = sync.queue.oldest().map(|oldest| oldest.first_due());
        // Entries from before that time have left the queue.
        let settled = match (sync.caught_up_since(), oldest) {
            (Some(told), Some(due)) => due > told + delay,
            _ => false,
        };
        tell(&request.task);
        self.local_jobs.count += 1;
        let token = self.local_jobs.count;
        let given = worker.give(CopyJob {
            token,
            source: sync.config.source.clone(),
            target: request.target,
            delete: request.delete,
            delete_excluded: request.delete_excluded,
            filter: Arc::clone(&sync.filter),
            task: request.task,
            renames_applied: settled,
            limit: if sync.delete_guard_mut().take_lifted() {
                None
            } else {
                sync.config.guard.max_delete
            },
            stop: Arc::clone(&self.local_jobs.stop),
        });
        if given {
            sync.child_started();
            self.local_jobs.jobs.insert(token, job);
        } else {
            // The thread has panicked; the next request starts another.
            sync.failed(&request.ids, self.now);
            drop(sync);
            self.local_jobs.workers.remove(&key);
        }
    }

    /// Evaluates completed copy jobs.
    pub(super) fn reap_copies(&mut self) {
        let workers = self.local_jobs.workers.values();
        let ended: Vec<CopyEnded> = workers.flat_map(CopyWorker::ended).collect();
        let any = !ended.is_empty();
        for CopyEnded { token, report } in ended {
            if let Some(job) = self.local_jobs.jobs.remove(&token) {
                job.leave();
                event_router::transfer_ended(job.handle(), self.watcher, self.now);
                if let Some((deleted, total)) = report.excess {
                    put_off(job.handle(), job.ids(), deleted, total, self.now);
                    continue;
                }
                job.handle().sync.borrow_mut().deletions_within_limit();
                if report.names_missing {
                    let mut sync = job.handle().sync.borrow_mut();
                    let due = sync.due(self.now);
                    sync.compare_once(due);
                }
                let code = tell_failures(&job, &report);
                let actions = self
                    .transfers
                    .evaluate(&job, ExitStatus::Exit(code), self.now);
                self.apply(actions);
            }
        }
        if any {
            self.retire_workers();
        }
    }

    /// Ends the threads of syncs that have ended or are no longer configured. A thread that is
    /// working ends afterwards.
    pub(super) fn retire_workers(&mut self) {
        let syncs = self.syncs.iter().map(|handle| handle.sync.borrow());
        let live = syncs.filter(|sync| !sync.has_ended()).map(|sync| sync.id);
        let live = live.collect();
        self.local_jobs.retire(&live);
    }
}

/// Logs failures and stores them in the job. Returns the exit code that rsync would have.
fn tell_failures(job: &Job, report: &CopyReport) -> i32 {
    let mut sync = job.handle().sync.borrow_mut();
    let unset = [
        (Attribute::Permissions, report.unset.permissions),
        (Attribute::Times, report.unset.times),
    ];
    for (attribute, count) in unset {
        if sync.counters.unset(attribute, count) {
            log::warn(format_args!(
                "{}: the target does not permit the {} of some files; they are copied without \
                 (told once)",
                sync.config.name,
                attribute.name()
            ));
        }
    }
    let name = &sync.config.name;
    for path in &report.split {
        log::normal(format_args!(
            "The move of {} could not be carried out at the target, sending it instead.",
            log::escape(paths::relative(path))
        ));
    }
    if let Some(reason) = &report.closed {
        log::error(format_args!("{name}: {reason}"));
        return report.code();
    }
    let failures = report.failures.iter();
    // A repeated failure is logged as a count of pending retries.
    let new = failures
        .clone()
        .filter(|failure| !sync.failed_paths().is_tried(&failure.path));
    for failure in new.take(MAX_LOGGED_FAILURES) {
        log::warn(format_args!("{name}: {}", failure.reason));
    }
    let failed = failures.map(|failure| {
        // A Delete of an existing directory stands for its contents.
        let etype = if failure.path.ends_with(b"/") {
            Etype::Delete
        } else {
            Etype::Modify
        };
        (failure.path.clone(), etype)
    });
    job.set_failed_paths(failed.collect());
    report.code()
}

/// Logs a task in the category Exec.
fn tell(task: &CopyTask) {
    if !log::enabled("Exec") {
        return;
    }
    let CopyTask::Events(items) = task else {
        return log::say("Exec", "compare all");
    };
    for item in items {
        let path = log::escape(&item.path);
        let change = format!("{:?}", item.change).to_lowercase();
        match &item.to {
            Some(to) => log::say(
                "Exec",
                format_args!("{change} [{path}] [{}]", log::escape(to)),
            ),
            None => log::say("Exec", format_args!("{change} [{path}]")),
        }
    }
}
