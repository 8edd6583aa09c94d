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
        let settled = has_left_queue(sync.caught_up_since(), oldest, delay);
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

/// Returns true if the queue contains no entry from before `told`, the time up to which all changes
/// are known. `oldest_due` is the due time of the oldest entry, `delay` after its change.
fn has_left_queue(told: Option<Time>, oldest_due: Option<Time>, delay: Time) -> bool {
    match (told, oldest_due) {
        (Some(told), Some(due)) => due > told + delay,
        _ => false,
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use mio::{Poll, Token};

    use super::*;
    use crate::local::{CopyFailure, StopCheck, Unset};
    use crate::script::ScriptRequest;
    use crate::sync::FailedEntries;
    use crate::transfer::test_setup::{ChangedSync, NOW, pending, script_request};
    use crate::watch::Event;

    /// A sync of default.direct with a changed file.
    fn changed() -> ChangedSync {
        let config = "sync { default.direct, source = '@DIR@/src', target = '@DIR@/trg', \
                      delay = 1, init = false }";
        ChangedSync::of(config, &["a"], |path| Event::Modify { path })
    }

    fn request(sync: &ChangedSync) -> CopyRequest {
        match script_request(&sync.script, &sync.handle, NOW) {
            ScriptRequest::Copy(request) => request,
            _ => panic!("no copy was requested"),
        }
    }

    struct Rig {
        jobs: LocalJobs,
        /// The owner of the waker, which is never polled.
        _poll: Poll,
        waker: Arc<Waker>,
    }

    impl Rig {
        fn new() -> Rig {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            Rig {
                jobs: LocalJobs::default(),
                _poll: poll,
                waker,
            }
        }

        fn start(&mut self, sync: &ChangedSync) {
            let waker = Arc::clone(&self.waker);
            self.jobs.start(request(sync), &sync.script, waker, NOW);
        }

        /// Waits for the end of all jobs.
        fn ended(&mut self) -> Vec<(Job, CopyReport)> {
            let mut ended = Vec::new();
            while self.jobs.running() > 0 {
                ended.extend(self.jobs.ended());
                thread::sleep(Duration::from_millis(1));
            }
            ended
        }
    }

    #[test]
    fn each_job_ends_with_its_own_report() {
        let mut rig = Rig::new();
        let syncs = [changed(), changed()];
        assert_eq!(rig.jobs.deadline(), None);
        for sync in &syncs {
            rig.start(sync);
            assert_eq!(sync.handle.sync.borrow().running(), 1);
        }
        assert_eq!(rig.jobs.running(), 2);
        assert!(rig.jobs.deadline().is_some());
        let ended = rig.ended();
        assert_eq!(ended.len(), 2);
        for sync in &syncs {
            let of_sync = |(job, _): &&(Job, CopyReport)| job.is_of(&sync.handle);
            assert_eq!(ended.iter().filter(of_sync).count(), 1);
            assert_eq!(sync.handle.sync.borrow().running(), 0);
            let copy = sync.directory.path().join("trg/a");
            assert_eq!(fs::read(copy).unwrap(), b"content");
        }
        assert_eq!(rig.jobs.deadline(), None);
    }

    #[test]
    fn threads_of_syncs_that_are_gone_end_after_their_work() {
        let mut rig = Rig::new();
        let sync = changed();
        rig.start(&sync);
        rig.jobs.retire(&[]);
        assert_eq!(rig.jobs.workers.len(), 1);
        rig.ended();
        rig.jobs.retire(&[Rc::clone(&sync.handle)]);
        assert_eq!(rig.jobs.workers.len(), 1);
        rig.jobs.retire(&[]);
        assert!(rig.jobs.workers.is_empty());
        let other = changed();
        rig.start(&other);
        rig.ended();
        other
            .handle
            .sync
            .borrow_mut()
            .end(&[], ExitStatus::Exit(1), NOW);
        rig.jobs.retire(&[Rc::clone(&other.handle)]);
        assert!(rig.jobs.workers.is_empty());
    }

    #[test]
    fn all_copies_are_stopped() {
        let mut rig = Rig::new();
        let sync = changed();
        rig.start(&sync);
        let is_stopped = |(job, _): (&Job, _)| job.control.as_ref().unwrap().is_stopped();
        assert!(!rig.jobs.jobs().any(is_stopped));
        rig.jobs.stop();
        assert!(rig.jobs.jobs().all(is_stopped));
        assert_eq!(rig.ended().len(), 1);
    }

    #[test]
    fn a_copy_that_makes_no_progress_is_reported_once() {
        let mut rig = Rig::new();
        let sync = changed();
        rig.start(&sync);
        // The steps of the thread are not seen.
        for progress in rig.jobs.progress.values_mut() {
            progress.control = Arc::default();
        }
        let mut reports = Vec::new();
        for _ in 0..10 {
            let due = rig.jobs.deadline().unwrap();
            assert_eq!(rig.jobs.on_timer(due - Duration::from_millis(1)), []);
            assert_eq!(rig.jobs.deadline(), Some(due));
            reports.extend(rig.jobs.on_timer(due));
            assert!(rig.jobs.deadline() > Some(due));
        }
        assert_eq!(reports.len(), 1, "{reports:?}");
        let stalled = rig.jobs.jobs().filter(|(_, stalled)| stalled.is_some());
        assert_eq!(stalled.count(), 1);
    }

    #[test]
    fn what_is_known_of_renames_depends_on_the_oldest_entry() {
        for (told, due, expected) in [
            (Some(7), Some(10), false),
            (Some(7), Some(12), false),
            (Some(7), Some(13), true),
            (Some(7), None, false),
            (None, Some(13), false),
        ] {
            assert_eq!(has_left_queue(told, due, 5), expected, "{told:?} {due:?}");
        }
    }

    #[test]
    fn paths_that_were_not_copied_have_failed() {
        let sync = changed();
        let job = Job::of_order(&request(&sync), Rc::clone(&sync.script));
        let failure = |path: &[u8], obstructed| CopyFailure {
            path: path.to_vec(),
            reason: "no access".into(),
            obstructed,
        };
        let report = CopyReport {
            failures: vec![failure(b"/a", true), failure(b"/d/", false)],
            unset: Unset {
                times: 2,
                ..Unset::default()
            },
            names_missing: true,
            ..CopyReport::default()
        };
        assert_eq!(status(&job, &report, 0), Some(ExitStatus::Exit(23)));
        assert_eq!(job.words(), b"no access");
        let etypes = [
            (b"/a".to_vec(), Etype::Modify),
            (b"/d/".to_vec(), Etype::Delete),
        ];
        let expected = FailedEntries::Paths(etypes.into(), [b"/a".to_vec()].into());
        assert_eq!(job.failed_paths(), expected);
        // Other names of a file are found by a comparison.
        assert_eq!(pending(&sync.handle), ["/a", "Full"]);

        let closed = CopyReport {
            closed: Some("no target".into()),
            ..CopyReport::default()
        };
        assert_eq!(status(&job, &closed, 0), Some(ExitStatus::Exit(11)));
        let done = CopyReport::default();
        assert_eq!(status(&job, &done, 0), Some(ExitStatus::Exit(0)));
        let excess = CopyReport {
            excess: Some((9, 10)),
            ..CopyReport::default()
        };
        assert_eq!(status(&job, &excess, 0), None);
        assert_eq!(sync.handle.sync.borrow().failures(), 1);
    }
}
