//! Completion of a child: applies its exit status to the entries of its sync.

use std::collections::BTreeSet;
use std::rc::Rc;

use mlua::Table;

use super::hooks::MAX_PATH_BYTES;
use super::job::{Job, is_attribute};
use super::transfer_log::{self, Fate};
use crate::batch::{self, error_lines::SizeLimit};
use crate::component::Action;
use crate::config::truthy;
use crate::exit::Exit;
use crate::history::BatchRecord;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::Time;
use crate::script::{CollectResult, HookEvent, HookReport, Script, SyncHandle};
use crate::status::number_format::counted;
use crate::sync::{Deferred, FailedEntries, RetryEntries, RetryPlan, Sync};

/// rsync(1), exit code 23: partial transfer due to error.
const EXIT_PARTIAL: i32 = 23;

/// rsync(1), exit code 11: error in file I/O.
const EXIT_FILE_IO: i32 = 11;

/// Exit codes of rsync if the other side hangs up: 10 (error in socket I/O) and 12 (error in the
/// protocol data stream). A receiver before 3.1 does so where a later one leaves exit code 11.
const EXIT_HUNG_UP: [i32; 2] = [10, 12];

/// Exit codes of rsync that may mean that the other side rejects an option: 2 (protocol
/// incompatibility) and 4 (requested action not supported).
const EXIT_REFUSALS: [i32; 2] = [2, 4];

/// The results of the end of a child, except for its entries.
#[derive(Default)]
pub struct Evaluation {
    /// The sync ends.
    pub is_critical: bool,
    /// The report for the sync's hook, if it has one.
    pub report: Option<HookReport>,
    /// The record for the transfer log.
    pub record: Option<BatchRecord>,
}

/// The result of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferResult {
    /// All entries are on the target.
    Synced,
    /// Some or all entries failed.
    Failed,
}

/// Applies the exit status of a child to its sync and its queue.
///
/// # Errors
///
/// User code failed.
pub fn evaluate(job: &Job, status: ExitStatus, now: Time) -> mlua::Result<Evaluation> {
    job.handle.sync.borrow_mut().transferred();
    if uses_other_list(job, status, now) {
        return Ok(Evaluation::default());
    }
    let errors = job.errors.borrow_mut().make_contiguous().join(&b'\n');
    let (verdict, by_default) = job
        .script
        .collect(&job.handle, &job.agent, status, &errors)?;
    let completion = job.completion(verdict, by_default, status);
    let report = account(job, status, completion.result());
    if job.repeated && !matches!(completion, Completion::Again | Completion::StoppedAt { .. }) {
        job.tell_errors();
    }
    let is_critical = matches!(completion, Completion::Die);
    let fate = completion.fate();
    let record = job
        .is_logged()
        .then(|| transfer_log::record(job, &fate, status));
    apply_completion(job, completion, status, now);
    Ok(Evaluation {
        is_critical,
        report,
        record,
    })
}

/// Queues the entries of a transfer that was ended by the stall detector or a delete limit, with a
/// delay that grows each time.
pub fn retry_ended(job: &mut Job, status: ExitStatus, now: Time) -> Evaluation {
    if let Some(dry_run) = job.dry_run.take() {
        job.ids = dry_run.ids().to_vec();
    }
    job.handle.sync.borrow_mut().transferred();
    let report = account(job, status, TransferResult::Failed);
    let record = transfer_log::record(job, &Fate::Failed, status);
    apply_completion(job, Completion::Again, status, now);
    Evaluation {
        is_critical: false,
        report,
        record: Some(record).filter(|_| job.is_logged()),
    }
}

/// Queues the entries of a transfer that was ended in order to be repeated. This is not a failure.
pub fn repeat(job: &mut Job, now: Time) {
    if let Some(dry_run) = job.dry_run.take() {
        job.ids = dry_run.ids().to_vec();
    }
    let mut sync = job.handle.sync.borrow_mut();
    sync.transferred();
    sync.requeue(&job.ids, now);
}

/// Updates the entries of a child by its completion.
fn apply_completion(job: &Job, completion: Completion, status: ExitStatus, now: Time) {
    let code = status.code();
    let mut sync = job.handle.sync.borrow_mut();
    match completion {
        Completion::Done => {
            if let Some(heir) = &job.heir {
                let events = sync.events_of(&job.ids);
                heir.borrow_mut().predecessor_succeeded(events);
            }
            if status.is_success() {
                sync.add_harmless_lines(job.harmless_lines());
                if job.is_whole(&sync) {
                    sync.full_comparison_succeeded();
                }
            }
            let unreadable = sync.unreadable_directories(&job.ids);
            if unreadable.is_empty() {
                let moved = sync.directories_of_moves(&job.ids);
                sync.succeeded(&job.ids);
                if !moved.is_empty() && job.is_archiving() {
                    sync.send_times(moved, now);
                }
            } else {
                let count = unreadable.len();
                sync.partly_failed(
                    &job.ids,
                    FailedEntries::Paths(unreadable, BTreeSet::new()),
                    now,
                );
                let name = &sync.config.name;
                log::warn(format_args!(
                    "{name}: new directories that cannot be read: {count}; their contents are \
                     sent when they become readable"
                ));
            }
            drop(sync);
            job.handle.forget(&job.ids);
        }
        Completion::Partly(failed_paths) => {
            let retry = sync.partly_failed(&job.ids, failed_paths, now);
            tell_partial(&sync, retry, code);
            drop(sync);
            job.handle.forget(&job.ids);
        }
        Completion::Smaller => {
            let retry = sync.partly_failed(&job.ids, FailedEntries::Everything, now);
            tell_partial(&sync, retry, code);
            drop(sync);
            job.handle.forget(&job.ids);
        }
        Completion::StoppedAt { paths, limit } => {
            let is_limited = limit.is_some();
            match sync.defer_failed(&job.ids, &paths, is_limited, now) {
                Some(deferred) => tell_deferred(&sync, &deferred, limit, code),
                None => retry_all(&mut sync, job, now),
            }
            drop(sync);
            job.handle.forget_finished(&job.ids);
        }
        Completion::TooLarge { paths, limit } => {
            let why = too_large(paths.len(), Some(limit), code);
            match sync.compare_smaller(&job.ids, &paths, now) {
                Some(retry) => tell_partial(&sync, retry, code),
                None => log::warn(format_args!(
                    "{}: {why}, comparing smaller files",
                    sync.config.name
                )),
            }
            drop(sync);
            job.handle.forget_finished(&job.ids);
        }
        Completion::Again => retry_all(&mut sync, job, now),
        // The transfers end the sync.
        Completion::Die => {}
    }
}

/// Returns true if the transfer failed because one of the rsyncs does not support an option. The
/// transfer is then repeated at once without that option.
fn uses_other_list(job: &Job, status: ExitStatus, now: Time) -> bool {
    let mut sync = job.handle.sync.borrow_mut();
    let whole = job.captured && sync.has_full() && job.is_whole(&sync);
    let Some(kind) = job
        .transfer
        .or(whole.then_some(batch::TransferKind::Classic))
    else {
        return false;
    };
    let errors = job.errors.borrow();
    let told = sync
        .list_strategy()
        .failed(kind, status.code(), errors.iter());
    let Some(told) = told else {
        return false;
    };
    log::normal(format_args!("{}: {told}", sync.config.name));
    sync.requeue(&job.ids, now);
    true
}

/// Counts the end of a child and returns the report for the sync's hook, if it has one. Must be
/// called while the entries are still queued.
fn account(job: &Job, status: ExitStatus, result: TransferResult) -> Option<HookReport> {
    let mut sync = job.handle.sync.borrow_mut();
    let text = job.words();
    sync.counters.sent(job.totals());
    let news = match result {
        TransferResult::Synced => {
            sync.compared(&job.ids);
            sync.counters.succeeded(job.ids.len());
            true
        }
        TransferResult::Failed => sync.counters.failed(status, text.clone()),
    };
    let event = match result {
        TransferResult::Synced => HookEvent::Synced,
        TransferResult::Failed => HookEvent::Failed,
    };
    if !news || event.hook(&sync.config).is_none() {
        return None;
    }
    let (paths, truncated) = paths(&sync, job);
    Some(HookReport {
        event,
        status,
        text,
        paths,
        truncated,
        batches: 1,
    })
}

/// Returns the paths of a child's entries, each followed by a zero byte, and true if paths were
/// left out.
fn paths(sync: &Sync, job: &Job) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    for delay in job.ids.iter().filter_map(|&id| sync.queue.get(id)) {
        let (path, to) = delay.paths();
        for path in [Some(path), to].into_iter().flatten() {
            if all.len() + path.len() >= MAX_PATH_BYTES {
                return (all, true);
            }
            if !path.is_empty() {
                all.extend(path);
                all.push(0);
            }
        }
    }
    (all, false)
}

/// The result of a child for its entries.
enum Completion {
    /// All entries are done.
    Done,
    /// Some entries are done, those named here have failed.
    Partly(FailedEntries),
    /// The transfer was aborted at these paths. The other entries can be sent without them.
    StoppedAt {
        paths: RetryEntries,
        /// The limit of the target that was exceeded, if that is the cause.
        limit: Option<SizeLimit>,
    },
    /// A full comparison ended at these paths, which are too large for the target. It can be
    /// repeated for smaller files.
    TooLarge {
        paths: RetryEntries,
        limit: SizeLimit,
    },
    /// A full comparison of the smaller files succeeded. A complete one follows after a wait.
    Smaller,
    /// All entries are repeated after the retry delay.
    Again,
    /// The sync ends.
    Die,
}

impl Completion {
    /// Returns how the transfer counts in statistics and hooks.
    fn result(&self) -> TransferResult {
        match self {
            Completion::Done | Completion::Partly(FailedEntries::Nothing) => TransferResult::Synced,
            _ => TransferResult::Failed,
        }
    }

    /// Returns what came of the entries.
    fn fate(&self) -> Fate<'_> {
        match self {
            Completion::Done | Completion::Partly(FailedEntries::Nothing) => Fate::DoneExcept(None),
            Completion::Partly(FailedEntries::Paths(failed, _)) => Fate::DoneExcept(Some(failed)),
            Completion::StoppedAt { paths, .. } | Completion::TooLarge { paths, .. } => {
                Fate::StoppedAt(paths)
            }
            Completion::Smaller => Fate::Smaller,
            Completion::Partly(FailedEntries::Everything) | Completion::Again | Completion::Die => {
                Fate::Failed
            }
        }
    }
}

impl Job {
    /// Returns the completion for an exit code and the configuration's verdict on it. An exit code
    /// table of the user overrides the handling of partial transfers.
    fn completion(
        &self,
        verdict: CollectResult,
        by_default: bool,
        status: ExitStatus,
    ) -> Completion {
        let code = status.code();
        let sync = self.handle.sync.borrow();
        let is_partial = by_default && code == EXIT_PARTIAL && self.may_be_partial(&sync);
        let may_stop = match verdict {
            CollectResult::Again => code == EXIT_FILE_IO || EXIT_HUNG_UP.contains(&code),
            CollectResult::Die => by_default && EXIT_REFUSALS.contains(&code),
            _ => false,
        };
        if may_stop && self.captured {
            let stopped = self.blame(|blame| Some((blame.stopped_at()?.clone(), blame.limit())));
            let is_told =
                |limit: Option<SizeLimit>| limit.is_some() || !EXIT_HUNG_UP.contains(&code);
            let stopped = stopped.filter(|(_, limit)| is_told(*limit));
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
            // A table of exit codes cannot make a transfer of one that was not started.
            CollectResult::Done if self.is_unsent => Completion::Again,
            CollectResult::Done if is_bounded => Completion::Smaller,
            CollectResult::Done if is_partial => Completion::Partly(self.failed_paths()),
            CollectResult::Done => Completion::Done,
            CollectResult::Again => Completion::Again,
            CollectResult::Die => Completion::Die,
        }
    }

    /// Returns true if `mv` may have moved its entries on the target, and the user wants the
    /// attributes of the source there: `archive = true`.
    fn is_archiving(&self) -> bool {
        let rsync = self.handle.config.get::<Option<Table>>("rsync");
        let archive = rsync
            .ok()
            .flatten()
            .and_then(|rsync| rsync.get("archive").ok());
        !self.is_copy && archive.is_some_and(|archive| truthy(&archive))
    }

    /// Returns true if the transfer log is on.
    fn is_logged(&self) -> bool {
        self.script.settings.transfer_log_size > 0
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
        format!("{name}: files too large for the target were skipped;")
    } else {
        format!("{name}: partial transfer (exit code {code});")
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
        1 => "; the other path of the transfer does not wait".to_owned(),
        count => format!("; the other {count} paths of the transfer do not wait"),
    };
    log::warn(format_args!("{name}: {why}, retrying in {wait} s{others}"));
}

fn too_large(paths: usize, limit: Option<SizeLimit>, code: i32) -> String {
    let paths = counted(paths, "path");
    match limit {
        Some(SizeLimit::Space) => format!("no space left on the target for {paths}"),
        Some(SizeLimit::Quota) => format!("the disk quota of the target is exceeded by {paths}"),
        Some(SizeLimit::FileSize) => format!("{paths} too large for the target"),
        None => format!("the transfer stopped at {paths} (exit code {code})"),
    }
}

/// Ends a sync that cannot continue. The daemon exits if no other sync is left, or if the startup
/// failed and `insist` is not set.
pub fn end_sync(
    job: &Job,
    status: ExitStatus,
    script: &Script,
    syncs: &[Rc<SyncHandle>],
    now: Time,
) -> Vec<Action> {
    let exit = vec![Action::Exit(Exit::Failure)];
    if script.context.startup_failed.get() {
        return exit;
    }
    log::error("Critical exitcode.");
    let mut sync = job.handle.sync.borrow_mut();
    let startup = job.is_startup(&sync) && !script.insists();
    sync.end(&job.ids, status, now);
    let name = sync.config.name.clone();
    drop(sync);
    if !syncs.iter().any(|handle| job.is_for(&handle.sync)) {
        return Vec::new();
    }
    if startup || syncs.iter().all(|m| m.sync.borrow().has_ended()) {
        return exit;
    }
    log::error(format_args!(
        "{name}: ended by exit code {}, its target is no longer updated; the other syncs continue",
        status.code()
    ));
    Vec::new()
}

#[cfg(test)]
#[path = "completion_tests.rs"]
mod tests;
