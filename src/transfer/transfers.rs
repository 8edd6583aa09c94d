//! The running processes and copy threads of syncs.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::Waker;
use nix::sys::signal::Signal;

use super::backups::Backups;
use super::bandwidth;
use super::completion::{self, Evaluation};
use super::delete_limit::{self, DryRun};
use super::dry_runs::{self, DryRunEnd};
use super::entry_count::EntryCounts;
use super::hooks::Hooks;
use super::job::{self, Job};
use super::local_jobs::{self, LocalJobs};
use super::recall;
use super::spawn;
use super::stall_detector::StallDetector;
use crate::component::Action;
use crate::cron::{self, WallTime};
use crate::log;
use crate::process::process_tree::{self, Descendant};
use crate::process::{Children, ExitStatus, Pid, ProcessObserver, SpawnError, Stream};
use crate::queue::Time;
use crate::script::{CopyRequest, HookReport, Script, SpawnRequest, SyncHandle};
use crate::state;

/// The exit code of lsyncd's children whose program cannot be executed.
const EXIT_NOT_EXECUTED: ExitStatus = ExitStatus::Exit(255);

/// rsync(1), exit code 25: the `--max-delete` limit stopped deletions.
const EXIT_DELETE_LIMIT: ExitStatus = ExitStatus::Exit(25);

/// The running processes and copy threads of the syncs of one configuration.
pub struct Transfers {
    children: Rc<RefCell<Children>>,
    waker: Arc<Waker>,
    script: Rc<Script>,
    syncs: Vec<Rc<SyncHandle>>,
    jobs: HashMap<Pid, Job>,
    local_jobs: LocalJobs,
    counts: EntryCounts,
    stall_detector: StallDetector,
    hooks: Hooks,
    backups: Backups,
    /// The time at which bandwidth limits were last compared.
    bandwidth_checked: Option<WallTime>,
    /// The descendants of the processes that have been signalled.
    signalled: Vec<Descendant>,
    /// The time of the last end of a process.
    last_end: Option<SystemTime>,
}

impl Transfers {
    /// Returns the transfers of a configuration, of which none runs. `waker` wakes the loop when a
    /// thread has ended.
    pub fn new(
        children: Rc<RefCell<Children>>,
        waker: Arc<Waker>,
        script: &Rc<Script>,
        syncs: &[Rc<SyncHandle>],
    ) -> Transfers {
        Transfers {
            children,
            waker,
            stall_detector: StallDetector::new(script.settings.stall_timeout),
            script: Rc::clone(script),
            syncs: syncs.to_vec(),
            jobs: HashMap::new(),
            local_jobs: LocalJobs::default(),
            counts: EntryCounts::default(),
            hooks: Hooks::default(),
            backups: Backups::default(),
            bandwidth_checked: None,
            signalled: Vec::new(),
            last_end: None,
        }
    }

    /// Applies a new configuration. Running processes continue.
    pub fn on_reload(&mut self, script: &Rc<Script>, syncs: &[Rc<SyncHandle>]) {
        self.script = Rc::clone(script);
        self.syncs = syncs.to_vec();
        self.stall_detector
            .set_timeout(script.settings.stall_timeout);
        self.bandwidth_checked = None;
        self.backups.on_reload();
        self.hooks.retire();
        self.local_jobs.retire(syncs);
        self.count_running();
    }

    /// Returns all children of the daemon.
    pub fn children(&self) -> &Rc<RefCell<Children>> {
        &self.children
    }

    /// Returns the number of running processes.
    pub fn running(&self) -> usize {
        self.jobs.len()
    }

    /// Returns the number of running processes and threads.
    pub fn unfinished(&self) -> usize {
        self.jobs.len() + self.counts.jobs().count() + self.local_jobs.running()
    }

    /// Returns the running processes.
    pub fn jobs(&self) -> impl Iterator<Item = (Pid, &Job)> {
        self.jobs.iter().map(|(&pid, job)| (pid, job))
    }

    /// Returns the unfinished local copies, with the time without progress of stalled ones.
    pub fn copies(&self) -> impl Iterator<Item = (&Job, Option<Duration>)> {
        self.local_jobs.jobs()
    }

    /// Returns the jobs of running processes and of unfinished local copies.
    pub fn all_jobs(&self) -> impl Iterator<Item = &Job> {
        let copies = self.copies().map(|(job, _)| job);
        self.jobs.values().chain(copies)
    }

    /// Returns the dry runs that have ended and wait for a thread.
    pub fn counting(&self) -> impl Iterator<Item = &Job> {
        self.counts.jobs()
    }

    /// Returns all jobs, mutable.
    pub fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        let jobs = self.jobs.values_mut().chain(self.counts.jobs_mut());
        jobs.chain(self.local_jobs.jobs_mut())
    }

    /// Returns the time of the last end of a process.
    pub fn last_end(&self) -> Option<SystemTime> {
        self.last_end
    }

    /// Returns the time without I/O of a transfer, if it is long enough to be reported.
    pub fn stalled(&self, pid: Pid) -> Option<Duration> {
        self.stall_detector.stalled(pid)
    }

    /// Returns true if all that is unfinished are transfers that have had no I/O for this long.
    pub fn are_idle(&self, time: Duration) -> bool {
        let mut pids = self.jobs.keys();
        self.unfinished() == self.jobs.len()
            && pids.all(|&pid| self.stall_detector.is_idle(pid, time))
    }

    /// Returns when [`Transfers::on_timer`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.stall_detector.deadline(), self.local_jobs.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Starts a process, or first a dry run of it if its deletions are limited.
    pub fn start(&mut self, request: SpawnRequest, now: Time) -> Vec<Action> {
        if DryRun::is_needed(&request) {
            let command = DryRun::command(&request);
            let spawned = self.children.borrow_mut().spawn(command);
            let script = Rc::clone(&self.script);
            match spawned {
                Ok(pid) => self.add(pid, Job::dry_run(DryRun::new(request), script)),
                Err(error) => {
                    let program = request.program.clone();
                    let job = Job::unsent(request, script);
                    return self.not_spawned(&job, &program, error, now);
                }
            }
            return Vec::new();
        }
        self.execute(request, None, now)
    }

    /// Passes a local copy to the thread of its sync.
    pub fn start_copy(&mut self, request: CopyRequest, now: Time) {
        let waker = Arc::clone(&self.waker);
        self.local_jobs.start(request, &self.script, waker, now);
    }

    /// Evaluates the local copies that have ended. `before` is called for the sync of each.
    pub fn on_copied(&mut self, before: impl Fn(&SyncHandle), now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        let ended = self.local_jobs.ended();
        let any = !ended.is_empty();
        for (mut job, report) in ended {
            before(job.handle());
            if job.is_restarted || report.is_stopped {
                completion::repeat(&mut job, now);
            } else if let Some(status) = local_jobs::status(&job, &report, now) {
                actions.extend(self.evaluate(&job, status, now));
            }
        }
        if any {
            self.local_jobs.retire(&self.syncs);
        }
        actions
    }

    /// Registers the job of a started process.
    pub fn add(&mut self, pid: Pid, job: Job) {
        {
            let mut sync = job.handle.sync.borrow_mut();
            sync.child_started();
            if job.may_stall() {
                let name = sync.config.name.clone();
                self.stall_detector.started(pid, name, Instant::now());
            }
        }
        self.jobs.insert(pid, job);
        self.count_running();
    }

    /// Removes the job of a process that has ended. It is evaluated with [`Transfers::on_ended`].
    pub fn remove(&mut self, pid: Pid) -> Option<Job> {
        let job = self.jobs.remove(&pid)?;
        self.last_end = Some(SystemTime::now());
        job.leave();
        self.count_running();
        Some(job)
    }

    /// Evaluates the end of a process.
    pub fn on_ended(&mut self, pid: Pid, job: Job, status: ExitStatus, now: Time) -> Vec<Action> {
        let handle = Rc::clone(&job.handle);
        let actions = self.evaluate_ended(pid, job, status, now);
        handle.sync.borrow_mut().repair_overlaps(now);
        actions
    }

    fn evaluate_ended(
        &mut self,
        pid: Pid,
        mut job: Job,
        status: ExitStatus,
        now: Time,
    ) -> Vec<Action> {
        let is_stalled = self.stall_detector.ended(pid);
        if job.is_restarted && !status.is_success() {
            completion::repeat(&mut job, now);
            return Vec::new();
        }
        let is_exceeding = job.has_delete_limit && status == EXIT_DELETE_LIMIT;
        if is_exceeding {
            delete_limit::tell_reached(&job.handle);
        }
        if is_exceeding || is_stalled && !status.is_success() {
            let evaluation = completion::retry_ended(&mut job, status, now);
            return self.apply(&job, status, evaluation, now);
        }
        match job.dry_run.take() {
            Some(dry_run) => {
                let errors = job.errors.take();
                self.dry_run_ended(dry_run, status, errors, now)
            }
            None => self.evaluate(&job, status, now),
        }
    }

    /// Handles the end of a process that is not a job, but may be a hook command.
    pub fn on_other_ended(&mut self, pid: Pid, status: ExitStatus) {
        let children = &self.children;
        let spawn = &mut |command| children.borrow_mut().spawn(command);
        self.hooks.on_ended(pid, status, spawn);
        self.backups.on_ended(pid, status);
    }

    /// Evaluates the dry runs whose count is complete.
    pub fn on_counted(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for (job, status, count) in self.counts.ended() {
            if let Some(dry_run) = dry_runs::counted(job, count, now) {
                actions.extend(self.dry_run_ended(dry_run, status, VecDeque::new(), now));
            }
        }
        actions
    }

    fn dry_run_ended(
        &mut self,
        dry_run: DryRun,
        status: ExitStatus,
        errors: VecDeque<Vec<u8>>,
        now: Time,
    ) -> Vec<Action> {
        match dry_runs::end(dry_run, status, errors, &self.script, now) {
            DryRunEnd::Start(request, most) => return self.execute(request, most, now),
            DryRunEnd::Failed(job) => return self.evaluate(&job, status, now),
            DryRunEnd::Count(job) => {
                let waker = Arc::clone(&self.waker);
                self.counts.start(job, status, waker, now);
            }
            DryRunEnd::Queued => {}
        }
        Vec::new()
    }

    /// Checks running transfers for stalls if it is time to.
    pub fn on_timer(&mut self, now: Instant) -> Vec<Action> {
        self.backups.on_turn();
        let jobs = &self.jobs;
        let mut observer = ProcessObserver::default();
        let mut actions = self.stall_detector.on_timer(now, |pid| {
            let is_local = jobs.get(&pid).is_some_and(Job::is_local);
            observer.observe(pid, is_local)
        });
        actions.extend(self.local_jobs.on_timer(now));
        actions
    }

    /// Ends the transfers whose source or target has changed since their start, in order to repeat
    /// them when both are accepted.
    pub fn end_outdated(&mut self) -> Vec<Action> {
        let jobs = self.jobs.iter_mut().map(|(&pid, job)| (pid, job));
        let mut actions = recall::end_processes(jobs);
        actions.extend(recall::stop_copies(self.local_jobs.jobs_mut()));
        actions
    }

    /// Ends the transfers whose bandwidth limit is not that of this time, in order to repeat them.
    pub fn on_wall_time(&mut self, now: WallTime) -> Vec<Action> {
        if self.bandwidth_checked.replace(now) == Some(now) {
            return Vec::new();
        }
        let jobs = self.jobs.iter_mut().map(|(&pid, job)| (pid, job));
        bandwidth::restart(jobs, now)
    }

    /// Returns the next time at which the bandwidth limit of a running transfer may change.
    pub fn wall_deadline(&self, now: WallTime) -> Option<WallTime> {
        let limited = self.jobs.values().filter(|job| job.limit.is_some());
        let next = limited.filter_map(|job| {
            let sync = job.handle.sync.borrow();
            sync.config.bandwidth.as_ref()?.limits.next(now)
        });
        next.min()
    }

    /// Handles a line of output. `other` is the name of the process if it is not a job.
    pub fn on_output(
        &self,
        pid: Pid,
        stream: Stream,
        line: &[u8],
        other: impl FnOnce() -> Option<String>,
    ) {
        let job = self.jobs.get(&pid);
        let other = if job.is_none() { other() } else { None };
        job::take_output(job, stream, line, other);
    }

    /// Sends a signal to all processes and their descendants, and stops all threads.
    pub fn signal_all(&mut self, signal: Signal) {
        self.counts.stop();
        self.backups.stop();
        self.local_jobs.stop();
        if self.jobs.is_empty() {
            return;
        }
        let below = process_tree::below(self.jobs.keys().copied());
        let children = self.children.borrow();
        for &pid in self.jobs.keys() {
            // A child that has ended is reaped in the next turn.
            let _ = children.kill(pid, signal);
        }
        for descendant in &below {
            descendant.kill(signal);
        }
        self.signalled.extend(below);
    }

    /// Kills the descendants of signalled processes.
    pub fn kill_descendants(&mut self) {
        for descendant in self.signalled.drain(..) {
            descendant.kill(Signal::SIGKILL);
        }
    }

    /// Applies the exit status of a child to its sync, its hooks and its queue.
    pub fn evaluate(&mut self, job: &Job, status: ExitStatus, now: Time) -> Vec<Action> {
        match completion::evaluate(job, status, now) {
            Ok(evaluation) => self.apply(job, status, evaluation, now),
            Err(error) => vec![Action::Exit(job.script.exit_after(&error))],
        }
    }

    fn apply(
        &mut self,
        job: &Job,
        status: ExitStatus,
        evaluation: Evaluation,
        now: Time,
    ) -> Vec<Action> {
        let mut actions = if evaluation.is_critical {
            completion::end_sync(job, status, &self.script, &self.syncs, now)
        } else {
            Vec::new()
        };
        if let Some(record) = evaluation.record {
            let key = state::key(&job.handle.sync.borrow().config);
            actions.push(Action::LogTransfer(key, record));
        }
        let children = &self.children;
        let spawn = &mut |command| children.borrow_mut().spawn(command);
        let waker = Arc::clone(&self.waker);
        self.backups
            .on_transferred(job, status, cron::wall_time(), waker, spawn);
        if let Some(report) = evaluation.report {
            self.call_hook(&job.handle, report);
        }
        actions
    }

    /// Starts one process, which may delete at most this number of entries.
    fn execute(&mut self, mut request: SpawnRequest, most: Option<u64>, now: Time) -> Vec<Action> {
        let has_delete_limit = most.is_some_and(|most| delete_limit::limit(&mut request, most));
        let limit = bandwidth::limit(&mut request, cron::wall_time());
        self.backups.date(&mut request, SystemTime::now());
        if log::enabled("Exec") {
            log::say("Exec", spawn::shown(&request));
        }
        let program = request.program.clone();
        let roots = spawn::roots(&request.args);
        let command = spawn::command(&mut request, &self.script);
        let spawned = self.children.borrow_mut().spawn(command);
        let mut job = Job::of_request(request, roots, Rc::clone(&self.script));
        job.limit = limit;
        job.has_delete_limit = has_delete_limit;
        match spawned {
            Ok(pid) => {
                self.add(pid, job);
                Vec::new()
            }
            Err(error) => self.not_spawned(&job, &program, error, now),
        }
    }

    /// Handles the failure to start the process of a job, or its dry run.
    fn not_spawned(
        &mut self,
        job: &Job,
        program: &[u8],
        error: SpawnError,
        now: Time,
    ) -> Vec<Action> {
        let program = log::escape(program);
        match error {
            SpawnError::NotExecutable(_) => {
                let text = format!("Failed executing [ {program} ]!");
                log::error(&text);
                job.errors.borrow_mut().push_back(text.into_bytes());
                return self.evaluate(job, EXIT_NOT_EXECUTED, now);
            }
            SpawnError::Resources(error) => {
                let mut sync = job.handle.sync.borrow_mut();
                let wait = sync.failed(&job.ids, now).as_secs();
                let text = format!("cannot start {program}: {error}");
                let name = &sync.config.name;
                log::error(format_args!("{name}: {text}; trying again in {wait} s"));
                sync.counters.failed(EXIT_NOT_EXECUTED, text.into_bytes());
            }
        }
        Vec::new()
    }

    /// Calls `onRecovered` of the syncs of whose failures nothing is left.
    pub fn tell_recovered(&mut self) {
        for handle in self.syncs.clone() {
            let recovered = handle.sync.borrow_mut().recovers();
            if let Some(text) = recovered {
                self.call_hook(&handle, HookReport::recovered(text));
            }
        }
    }

    /// Calls the hook of a sync.
    pub fn call_hook(&mut self, handle: &SyncHandle, report: HookReport) {
        let children = &self.children;
        let spawn = &mut |command| children.borrow_mut().spawn(command);
        self.hooks.on_report(&self.script, handle, report, spawn);
    }

    fn count_running(&self) {
        self.script.context.running.set(self.jobs.len());
    }
}

#[cfg(test)]
#[path = "transfers_tests.rs"]
mod tests;
