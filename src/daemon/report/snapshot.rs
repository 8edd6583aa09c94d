//! The snapshot of the daemon's state, for status file, metrics and control socket.

use std::fs;
use std::rc::Rc;
use std::time::SystemTime;

use super::DaemonState;
use crate::batch;
use crate::daemon::watch_limit;
use crate::log::escape;
use crate::process::ExitStatus;
use crate::queue::{Delay, Etype, Status, Time};
use crate::script::SyncHandle;
use crate::staging::Blocked;
use crate::status::number_format::span;
use crate::status::snapshot::Entry;
use crate::status::snapshot::LastError;
use crate::status::snapshot::Retry;
use crate::status::snapshot::Sending;
use crate::status::snapshot::Snapshot;
use crate::status::snapshot::SyncSnapshot;
use crate::status::snapshot::Totals;
use crate::status::snapshot::WithheldPath;
use crate::sync::{Clock, Counters, LeftOutReason, Sync};
use crate::transfer::Job;
use crate::trends::TrendSample;

/// The maximum number of paths named for each child and for failed paths.
const MAX_NAMED_PATHS: usize = 5;

/// Returns a snapshot of the daemon and its syncs, or of those with this name, with at most
/// `entries` entries of each queue. The cost depends on what is shown, not on the size of the
/// queues.
pub fn snapshot(state: &DaemonState<'_>, name: Option<&str>, entries: usize) -> Snapshot {
    let syncs = state.syncs.iter();
    let meant = syncs.filter(|handle| handle.is_meant(name));
    let overflows = state.syncs.iter();
    let overflows = overflows.map(|handle| handle.sync.borrow().counters.overflows);
    Snapshot {
        version: crate::VERSION.into(),
        host: host(),
        pid: std::process::id(),
        time: seconds(SystemTime::now()),
        started: seconds(state.born),
        ending: state.ending,
        watches: state.watcher.watched(),
        watch_limit: watch_limit::kernel_limit(),
        unwatched: state.watch_limit.unwatched(),
        crawling: state.watcher.crawling(),
        memory: memory(),
        reload_error: state.reload_error.map(str::to_owned),
        overflows: overflows.max().unwrap_or(0),
        syncs: meant
            .map(|handle| of_sync(state, handle, entries))
            .collect(),
        ..Snapshot::default()
    }
    .judged()
}

pub(super) fn of_sync(
    state: &DaemonState<'_>,
    handle: &Rc<SyncHandle>,
    entries: usize,
) -> SyncSnapshot {
    let sync = handle.sync.borrow();
    let now = state.now;
    let mut jobs: Vec<_> = state
        .transfers
        .jobs()
        .filter(|(_, job)| job.is_of(handle))
        .collect();
    jobs.sort_by_key(|(pid, _)| *pid);
    let children = jobs.iter().map(|(pid, job)| Sending {
        stalled: state.transfers.stalled(*pid).map(|idle| idle.as_secs_f64()),
        ..sending(pid.0, job, &sync)
    });
    let counting = state.transfers.counting().map(|job| (job, None));
    let local = state.transfers.copies().chain(counting);
    let local = local.filter(|(job, _)| job.is_of(handle));
    // Local jobs run in the daemon's own process.
    let own = local.map(|(job, stalled)| Sending {
        stalled: stalled.map(|idle| idle.as_secs_f64()),
        ..sending(std::process::id(), job, &sync)
    });
    let sending = children.chain(own);
    let retry = sync.next_retry().map(|(hold, failures)| Retry {
        seconds: Clock::until(now, hold).as_secs_f64(),
        failures,
    });
    let queue = sync.queue.iter().take(entries).map(|delay| entry(&delay));
    let backlog = sync.backlog(entries.saturating_sub(sync.queue.len()));
    let backlog = backlog.into_iter().map(|(etype, path)| Entry {
        status: Status::Wait.name().into(),
        event: etype.name().into(),
        path: escape(&path).into_owned(),
        to: None,
    });
    let queue = queue.chain(backlog);
    let failed_paths = sync.failed_paths().missing_names(MAX_NAMED_PATHS);
    let blocked = sync.gate.blocked();
    let snapshot = SyncSnapshot {
        name: sync.config.name.clone(),
        source: escape(&sync.config.source).into_owned(),
        target: escape(&handle.destination().unwrap_or_default()).into_owned(),
        watch: state.watcher.backend_of(&sync.config.source),
        pending: sync.pending(),
        oldest: sync.oldest_change().map(|oldest| age(oldest, now)),
        lag: lag(state, &sync),
        sending: sending.collect(),
        retry,
        failed: sync.failed_paths().missing(),
        failed_paths: failed_paths.map(|path| escape(path).into_owned()).collect(),
        withheld: blocked.len(),
        rejected: blocked.rejected(),
        withheld_paths: told(&blocked),
        away: sync
            .missing_mounts()
            .map(|mount| escape(mount).into_owned())
            .collect(),
        queue: queue.collect(),
        last_success: sync.counters.last_success.map(seconds),
        last_error: last_error(&sync.counters),
        verified: state.audits.last(sync.id).cloned(),
        verifying: state.audits.progress(sync.id),
        paused: sync.is_paused(),
        halted: sync
            .halted()
            .or(sync.delete_guard().excess())
            .map(str::to_owned),
        ended: sync.ended().map(ExitStatus::code),
        totals: totals(&sync),
        ..SyncSnapshot::default()
    };
    let starting = starting(state, &sync, &snapshot);
    snapshot.judged(starting, sync.is_lost())
}

/// Returns the state of each sync for its series.
pub fn trend_samples(state: &DaemonState<'_>) -> Vec<TrendSample> {
    let sample = |handle: &Rc<SyncHandle>| {
        let sync = handle.sync.borrow();
        TrendSample {
            sync: sync.id,
            name: sync.config.name.clone(),
            pending: sync.pending(),
            bytes: sync.counters.bytes,
            failures: sync.counters.failures.values().sum(),
            lag: lag(state, &sync),
        }
    };
    state.syncs.iter().map(sample).collect()
}

/// Returns the name of this host.
pub(super) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    escape(name.trim().as_bytes()).into_owned()
}

/// Returns the startup phase of a sync, if it is not complete.
fn starting(state: &DaemonState<'_>, sync: &Sync, snapshot: &SyncSnapshot) -> Option<String> {
    if !state.started {
        let watched = state.watcher.watched();
        return Some(format!("starting, {watched} directories watched so far"));
    }
    let mut specials = sync.queue.specials();
    specials.find(|delay| delay.etype() == Etype::Init)?;
    let Some(child) = snapshot.sending.first() else {
        return Some("starting, startup transfer waits".into());
    };
    let mut words = format!("starting, startup transfer for {}", span(child.seconds));
    if let Some(progress) = &child.progress {
        words = format!("starting {} %, {}", progress.percent, &words[10..]);
        if progress.total > 0 {
            words.push_str(&format!(", {}", progress.words()));
        }
    }
    Some(words)
}

fn sending(pid: u32, job: &Job, sync: &Sync) -> Sending {
    let delays = || job.ids().iter().filter_map(|&id| sync.queue.get(id));
    let paths = delays().take(MAX_NAMED_PATHS).map(|delay| {
        let (path, to) = delay.paths();
        escape(&to.unwrap_or(path)).into_owned()
    });
    Sending {
        pid,
        entries: job.ids().len(),
        full: delays().take(1).any(|delay| delay.etype().is_special()),
        seconds: job.since().elapsed().as_secs_f64(),
        paths: paths.filter(|path| !path.is_empty()).collect(),
        progress: job.progress(sync),
        ..Sending::default()
    }
}

fn entry(delay: &Delay<'_>) -> Entry {
    let (path, to) = delay.paths();
    Entry {
        status: delay.status().name().into(),
        event: delay.etype().name().into(),
        path: escape(&path).into_owned(),
        to: to.map(|to| escape(&to).into_owned()),
    }
}

/// Returns the first blocked files with their reasons.
fn told(blocked: &Blocked) -> Vec<WithheldPath> {
    let first = blocked.iter().take(MAX_NAMED_PATHS);
    let told = first.map(|(path, reason)| WithheldPath {
        path: escape(path).into_owned(),
        rejected: reason.rejected,
        reason: reason.reason.clone(),
    });
    told.collect()
}

/// Returns the seconds since a time of queues.
fn age(time: Time, now: Time) -> f64 {
    Clock::until(time, now).as_secs_f64()
}

/// Returns the seconds by which the target is behind. Before the directories have been read, that
/// is the time since the start.
fn lag(state: &DaemonState<'_>, sync: &Sync) -> f64 {
    if state.started {
        let since = sync.behind_since();
        return since.map_or(0.0, |since| age(since, state.now));
    }
    let elapsed = state.born.elapsed();
    elapsed.map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn last_error(counters: &Counters) -> Option<LastError> {
    counters.last_failure.as_ref().map(|failure| LastError {
        time: seconds(failure.at),
        code: failure.status.code(),
        text: escape(&failure.text).into_owned(),
        remedy: batch::remedy(&failure.text).map(str::to_owned),
    })
}

fn totals(sync: &Sync) -> Totals {
    let counters = &sync.counters;
    Totals {
        events: counters.events,
        batches: counters.batches,
        entries: counters.entries,
        bytes: counters.bytes,
        files: counters.files,
        passed: sync.gate.blocked().passed,
        rejections: sync.gate.blocked().rejections,
        failures: counters.failures.clone(),
        unset_attributes: counters
            .unset_attributes
            .iter()
            .map(|(attribute, count)| (attribute.name().to_owned(), *count))
            .collect(),
        left_out: LeftOutReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), sync.left_out().count(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| (since.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// Returns the resident memory in bytes (proc_pid_statm(5)).
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
