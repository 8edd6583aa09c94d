//! Completion of a child: what its exit status means for the entries of its sync.

use std::time::Duration;

use super::event_loop::EventLoop;
use super::hooks;
use super::job::{Job, is_attribute};
use crate::batch::{self, error_lines::SizeLimit};
use crate::component::Ending;
use crate::exit::Exit;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::Time;
use crate::script::CollectResult;
use crate::status::number_format::counted;
use crate::sync::{Deferred, Entries, FailedEntries, RetryPlan, Sync, micros};

/// The delay before entries that changed during their transfer are examined again. The event of the
/// change arrives in the meantime.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// rsync(1), exit code 23: partial transfer due to error.
const EXIT_PARTIAL: i32 = 23;

/// rsync(1), exit code 11: error in file I/O.
const EXIT_FILE_IO: i32 = 11;

/// Exit codes of rsync that may mean that the other side rejects an option: 2 (protocol
/// incompatibility) and 4 (requested action not supported).
const EXIT_REFUSALS: [i32; 2] = [2, 4];

impl EventLoop<'_> {
    /// Applies the exit status of a child to its sync, its hooks and its queue.
    pub(super) fn evaluate(&mut self, job: Job, end: ExitStatus) {
        let code = end.code();
        job.handle.sync.borrow_mut().transferred();
        if self.use_other_list(&job, code) {
            return;
        }
        let signal = match end {
            ExitStatus::Signal(signal) => Some(signal),
            ExitStatus::Exit(_) => None,
        };
        let errors = job.errors.borrow_mut().make_contiguous().join(&b'\n');
        let collected = job
            .script
            .collect(&job.handle, &job.agent, code, signal, &errors);
        let completion = match collected {
            Ok((verdict, by_default)) => job.completion(verdict, by_default, code),
            Err(error) => return self.stop_with_error(&error),
        };
        let told = match completion.outcome() {
            Some(outcome) => self.account(&job, code, outcome),
            None => None,
        };
        if job.repeated && !matches!(completion, Completion::Again | Completion::StoppedAt { .. }) {
            job.tell_errors();
        }
        self.carry_out(&job, completion, code);
        self.call_hook(&job.handle, told);
    }

    /// Queues the entries of a transfer that the stall detector ended, with a delay that grows each
    /// time.
    pub(super) fn retry_stalled(&mut self, mut job: Job, end: ExitStatus) {
        if let Some(dry_run) = job.dry_run.take() {
            job.ids = dry_run.ids().to_vec();
        }
        job.handle.sync.borrow_mut().transferred();
        let told = self.account(&job, end.code(), hooks::TransferResult::Failed);
        self.carry_out(&job, Completion::Again, end.code());
        self.call_hook(&job.handle, told);
    }

    /// Updates the entries of a child by its completion.
    fn carry_out(&mut self, job: &Job, completion: Completion, code: i32) {
        let mut sync = job.handle.sync.borrow_mut();
        match completion {
            Completion::Done => {
                if code == 0 {
                    sync.add_harmless_lines(job.harmless_lines());
                }
                sync.succeeded(&job.ids);
                drop(sync);
                job.handle.forget(&job.ids);
            }
            Completion::Partly(failed_paths) => {
                let retry = sync.partly_failed(&job.ids, failed_paths, self.now);
                tell_partial(&sync, retry, code);
                drop(sync);
                job.handle.forget(&job.ids);
            }
            Completion::StoppedAt { paths, limit } => {
                let is_limited = limit.is_some();
                match sync.defer_failed(&job.ids, &paths, is_limited, self.now) {
                    Some(deferred) => tell_deferred(&sync, &deferred, limit, code),
                    None => retry_all(&mut sync, job, self.now),
                }
                drop(sync);
                job.handle.forget_finished(&job.ids);
            }
            Completion::TooLarge { paths, limit } => {
                let why = too_large(paths.len(), Some(limit), code);
                match sync.compare_smaller(&job.ids, &paths, self.now) {
                    Some(retry) => tell_partial(&sync, retry, code),
                    None => log::warn(format_args!(
                        "{}: {why}, comparing what is smaller",
                        sync.config.name
                    )),
                }
                drop(sync);
                job.handle.forget_finished(&job.ids);
            }
            Completion::Again => retry_all(&mut sync, job, self.now),
            Completion::Redo => sync.requeue(&job.ids, self.now + micros(RETRY_DELAY)),
            Completion::Die => {
                drop(sync);
                self.end_sync(job, code);
            }
        }
    }

    /// Ends a sync that cannot go on. The daemon exits if no other sync is left, or if the startup
    /// failed and `insist` is not set.
    fn end_sync(&mut self, job: &Job, code: i32) {
        let ending = Some(Ending::Exit(Exit::Failure));
        if self.script.context.startup_failed.get() {
            self.ending = ending;
            return;
        }
        log::error("Critical exitcode.");
        let mut sync = job.handle.sync.borrow_mut();
        let startup = job.is_startup(&sync) && !self.script.insists();
        sync.end(&job.ids, code, self.now);
        let name = sync.config.name.clone();
        drop(sync);
        if !self.syncs.iter().any(|handle| job.is_for(&handle.sync)) {
            return;
        }
        if startup || self.syncs.iter().all(|m| m.sync.borrow().has_ended()) {
            self.ending = ending;
            return;
        }
        log::error(format_args!(
            "{name}: ended by exit code {code}, its target is not kept current any more; \
             the other syncs go on"
        ));
    }

    /// Returns true if the transfer failed because one of the rsyncs does not support an option.
    /// The transfer is then repeated at once without that option.
    fn use_other_list(&mut self, job: &Job, code: i32) -> bool {
        let mut sync = job.handle.sync.borrow_mut();
        let whole = job.captured && sync.has_full() && job.is_whole(&sync);
        let Some(kind) = job
            .transfer
            .or(whole.then_some(batch::TransferKind::Classic))
        else {
            return false;
        };
        let errors = job.errors.borrow();
        let Some(told) = sync.list_strategy().failed(kind, code, errors.iter()) else {
            return false;
        };
        log::normal(format_args!("{}: {told}", sync.config.name));
        sync.requeue(&job.ids, self.now);
        true
    }
}

/// The result of a child for its entries.
enum Completion {
    /// All entries are done.
    Done,
    /// Some entries are done, those named here have failed.
    Partly(FailedEntries),
    /// The transfer was aborted at these paths. The other entries can be sent without them.
    StoppedAt {
        paths: Entries,
        /// The limit of the target that was exceeded, if that is the cause.
        limit: Option<SizeLimit>,
    },
    /// A comparison of everything was given up at these paths, which are too large for the target.
    /// It can go on with what is smaller.
    TooLarge { paths: Entries, limit: SizeLimit },
    /// All entries are repeated after the retry delay.
    Again,
    /// The entries changed during the transfer and are examined again after [`RETRY_DELAY`].
    Redo,
    /// The sync ends.
    Die,
}

impl Completion {
    /// Returns how the transfer counts in statistics and hooks; `None` if it does not count.
    fn outcome(&self) -> Option<hooks::TransferResult> {
        match self {
            Completion::Done | Completion::Partly(FailedEntries::Nothing) => {
                Some(hooks::TransferResult::Synced)
            }
            Completion::Redo => None,
            _ => Some(hooks::TransferResult::Failed),
        }
    }
}

impl Job {
    /// Returns the completion for an exit code and the configuration's verdict on it. An exit code
    /// table of the user overrides the handling of partial transfers.
    fn completion(&self, verdict: CollectResult, by_default: bool, code: i32) -> Completion {
        let sync = self.handle.sync.borrow();
        let is_partial = by_default && code == EXIT_PARTIAL && self.may_be_partial(&sync);
        let may_stop = match verdict {
            CollectResult::Again => code == EXIT_FILE_IO,
            CollectResult::Die => by_default && EXIT_REFUSALS.contains(&code),
            _ => false,
        };
        if may_stop && self.captured {
            let stopped = self.blame(|blame| Some((blame.stopped_at()?.clone(), blame.limit())));
            match (stopped, self.is_whole(&sync)) {
                (Some((paths, limit)), false) => return Completion::StoppedAt { paths, limit },
                (Some((paths, Some(limit))), true) => {
                    return Completion::TooLarge { paths, limit };
                }
                _ => {}
            }
        }
        // What is too large was left out.
        let is_bounded = sync.is_size_bounded() && self.is_whole(&sync);
        match verdict {
            CollectResult::Done if is_bounded => Completion::Partly(FailedEntries::Everything),
            CollectResult::Done if is_partial => Completion::Partly(self.failed_paths()),
            CollectResult::Done => Completion::Done,
            CollectResult::Again => Completion::Again,
            CollectResult::Redo => Completion::Redo,
            CollectResult::Die => Completion::Die,
        }
    }

    /// Logs the lines of the child's error output that were kept.
    fn tell_errors(&self) {
        let sync = self.handle.sync.borrow();
        let name = &sync.config.name;
        for line in self
            .errors
            .borrow()
            .iter()
            .filter(|line| !is_attribute(line))
        {
            log::warn(format_args!("{name}: {}", log::escape(line)));
        }
    }
}

/// Repeats all entries after the retry delay.
fn retry_all(sync: &mut Sync, job: &Job, now: Time) {
    let wait = sync.failed(&job.ids, now).as_secs();
    let name = &sync.config.name;
    log::warn(match sync.failures() {
        0 | 1 => format!("{name}: trying again in {wait} s"),
        count => format!("{name}: failed {count} times in a row, trying again in {wait} s"),
    });
}

fn tell_partial(sync: &Sync, retry: RetryPlan, code: i32) {
    let name = &sync.config.name;
    let begin = if code == 0 {
        format!("{name}: files too large for the target were left out;")
    } else {
        format!("{name}: partial transfer (exit code {code}), could not do everything;")
    };
    match retry {
        RetryPlan::Nothing => {}
        RetryPlan::Paths(count, wait) => log::warn(format_args!(
            "{begin} retrying {} in {} s",
            counted(count, "path"),
            wait.as_secs()
        )),
        RetryPlan::Everything(wait) => log::warn(format_args!(
            "{begin} comparing everything again in {} s",
            wait.as_secs()
        )),
    }
}

fn tell_deferred(sync: &Sync, deferred: &Deferred, limit: Option<SizeLimit>, code: i32) {
    let name = &sync.config.name;
    let why = too_large(deferred.paths, limit, code);
    let wait = match deferred.retry {
        RetryPlan::Paths(_, wait) | RetryPlan::Everything(wait) => wait.as_secs(),
        RetryPlan::Nothing => 0,
    };
    let others = match deferred.others {
        0 => String::new(),
        count => format!("; the other {count} of the transfer do not wait"),
    };
    log::warn(format_args!("{name}: {why}, retrying in {wait} s{others}"));
}

fn too_large(paths: usize, limit: Option<SizeLimit>, code: i32) -> String {
    let paths = counted(paths, "path");
    match limit {
        Some(SizeLimit::Space) => format!("no space left at the target for {paths}"),
        Some(SizeLimit::Quota) => format!("the disk quota of the target is exceeded by {paths}"),
        Some(SizeLimit::FileSize) => format!("{paths} too large for the target"),
        None => format!("the transfer stopped at {paths} (exit code {code})"),
    }
}
