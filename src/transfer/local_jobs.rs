//! Local jobs: the worker threads of default.direct syncs and the evaluation of their results.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::Waker;

use super::Job;
use super::delete_limit::put_off;
use crate::batch::error_lines::Attribute;
use crate::component::Action;
use crate::id::SyncId;
use crate::local::{CopyControl, CopyEnded, CopyJob, CopyReport, CopyTask, CopyWorker};
use crate::log;
use crate::paths;
use crate::process::{ExitStatus, IdleClock};
use crate::queue::{Etype, Time};
use crate::script::{CopyRequest, Script, SyncHandle};
use crate::status::number_format::span;
use crate::sync::micros;

/// The maximum number of failures that are logged individually.
const MAX_LOGGED_FAILURES: usize = 20;

/// The worker threads and jobs of one configuration.
#[derive(Default)]
pub struct LocalJobs {
    workers: HashMap<SyncId, CopyWorker>,
    jobs: HashMap<u64, Job>,
    progress: HashMap<u64, CopyProgress>,
    count: u64,
    stop: Arc<AtomicBool>,
}

/// The progress of a copy job.
struct CopyProgress {
    control: Arc<CopyControl>,
    idle_clock: IdleClock<u64>,
}

impl LocalJobs {
    /// Returns the number of unfinished jobs.
    pub fn running(&self) -> usize {
        self.jobs.len()
    }

    /// Returns the unfinished jobs, with the time without progress of stalled ones.
    pub fn jobs(&self) -> impl Iterator<Item = (&Job, Option<Duration>)> {
        let stalled = |token: &u64| self.progress.get(token)?.idle_clock.stalled();
        self.jobs
            .iter()
            .map(move |(token, job)| (job, stalled(token)))
    }

    /// Returns when [`LocalJobs::on_timer`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let progress = self.progress.values();
        progress.map(|it| it.idle_clock.next_look()).min()
    }

    /// Checks running jobs for stalls if it is time to. A thread cannot be ended, so a stall is
    /// only reported.
    pub fn on_timer(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for (token, it) in &mut self.progress {
            if it.idle_clock.next_look() > now {
                continue;
            }
            it.idle_clock.look(Some(it.control.steps()), now);
            if let (Some(idle), Some(job)) = (it.idle_clock.take_report(), self.jobs.get(token)) {
                actions.push(Action::warn(format!(
                    "{}: copying has made no progress for {}, waiting for it",
                    job.handle().sync.borrow().config.name,
                    span(idle.as_secs_f64())
                )));
            }
        }
        actions
    }

    /// Returns the unfinished jobs, mutable.
    pub fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.jobs.values_mut()
    }

    /// Stops all threads as soon as possible.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Passes a copy request to the worker of its sync.
    pub fn start(
        &mut self,
        request: CopyRequest,
        script: &Rc<Script>,
        waker: Arc<Waker>,
        now: Time,
    ) {
        let handle = Rc::clone(&request.handle);
        let mut job = Job::of_order(&request, Rc::clone(script));
        let key = handle.sync.borrow().id;
        let priority = handle.sync.borrow().config.priority;
        let priority = priority.or(script.settings.priority);
        let worker = match self.workers.get(&key) {
            Some(worker) => worker,
            None => match CopyWorker::start(waker, priority) {
                Ok(worker) => self.workers.entry(key).or_insert(worker),
                Err(error) => {
                    let mut sync = handle.sync.borrow_mut();
                    let wait = sync.failed(&request.ids, now);
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
        self.count += 1;
        let token = self.count;
        let control = Arc::new(CopyControl::new(Arc::clone(&self.stop)));
        job.control = Some(Arc::clone(&control));
        let given = worker.give(CopyJob {
            token,
            source: sync.config.source.clone(),
            source_numbers: sync.watched_source(),
            target: request.target,
            delete: request.delete,
            delete_excluded: request.delete_excluded,
            keeps_others: request.keeps_others,
            filter: Arc::clone(&sync.filter),
            task: request.task,
            renames_applied: settled,
            limit: if sync.delete_guard_mut().take_lifted() {
                None
            } else {
                sync.config.guard.max_delete
            },
            control: Arc::clone(&control),
        });
        if given {
            sync.child_started();
            self.jobs.insert(token, job);
            let idle_clock = IdleClock::new(Instant::now());
            let progress = CopyProgress {
                control,
                idle_clock,
            };
            self.progress.insert(token, progress);
        } else {
            // The thread has panicked; the next request starts another.
            sync.failed(&request.ids, now);
            drop(sync);
            self.workers.remove(&key);
        }
    }

    /// Removes and returns the jobs that have ended, with their results.
    pub fn ended(&mut self) -> Vec<(Job, CopyReport)> {
        let workers = self.workers.values();
        let ended: Vec<CopyEnded> = workers.flat_map(CopyWorker::ended).collect();
        let ended = ended.into_iter().filter_map(|CopyEnded { token, report }| {
            self.progress.remove(&token);
            let job = self.jobs.remove(&token)?;
            job.leave();
            Some((job, report))
        });
        ended.collect()
    }

    /// Ends the threads of syncs that have ended or are not among the configured `syncs`. A thread
    /// that is working ends afterwards.
    pub fn retire(&mut self, syncs: &[Rc<SyncHandle>]) {
        let syncs = syncs.iter().map(|handle| handle.sync.borrow());
        let live = syncs.filter(|sync| !sync.has_ended()).map(|sync| sync.id);
        let live: HashSet<SyncId> = live.collect();
        let jobs = &self.jobs;
        self.workers.retain(|id, _| {
            let mut jobs = jobs.values();
            live.contains(id) || jobs.any(|job| job.handle().sync.borrow().id == *id)
        });
    }
}

/// Returns the status that rsync would have ended with; `None` if the job was put off because it
/// would delete too much.
pub fn status(job: &Job, report: &CopyReport, now: Time) -> Option<ExitStatus> {
    if let Some((deleted, total)) = report.excess {
        put_off(job.handle(), job.ids(), deleted, total, now);
        return None;
    }
    {
        let mut sync = job.handle().sync.borrow_mut();
        sync.deletions_within_limit();
        if report.names_missing {
            let due = sync.due(now);
            sync.compare_once(due);
        }
    }
    Some(ExitStatus::Exit(tell_failures(job, report)))
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
                 (reported once)",
                sync.config.name,
                attribute.name()
            ));
        }
    }
    let name = &sync.config.name;
    for path in &report.split {
        log::normal(format_args!(
            "The move of {} could not be executed on the target, sending it instead.",
            log::escape(paths::relative(path))
        ));
    }
    if let Some(reason) = &report.closed {
        log::error(format_args!("{name}: {reason}"));
        job.keep_reasons(std::iter::once(reason));
        return report.code();
    }
    let failures = report.failures.iter();
    job.keep_reasons(failures.clone().map(|failure| &failure.reason));
    // A repeated failure is logged as a count of pending retries.
    let new = failures
        .clone()
        .filter(|failure| !sync.failed_paths().is_tried(&failure.path));
    for failure in new.take(MAX_LOGGED_FAILURES) {
        log::warn(format_args!("{name}: {}", failure.reason));
    }
    let failed = failures.clone().map(|failure| {
        // A Delete of an existing directory stands for its contents.
        let etype = if failure.path.ends_with(b"/") {
            Etype::Delete
        } else {
            Etype::Modify
        };
        (failure.path.clone(), etype)
    });
    let obstructed = failures.filter(|failure| failure.obstructed);
    let obstructed = obstructed.map(|failure| paths::bare(&failure.path).to_vec());
    job.set_failed_paths(failed.collect(), obstructed.collect());
    report.code()
}

/// Logs a task in the category Exec.
fn tell(task: &CopyTask) {
    if !log::enabled("Exec") {
        return;
    }
    let items = match task {
        CopyTask::Everything => return log::say("Exec", "compare all"),
        CopyTask::Directories(directories) => {
            let count = directories.len();
            return log::say("Exec", format_args!("compare {count} directories"));
        }
        CopyTask::Events(items) => items,
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
