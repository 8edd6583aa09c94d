//! Report files: the schedule and the contents of the status file and the metrics file.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::{DaemonState, snapshot};
use crate::component::Action;
use crate::config::Settings;
use crate::log;
use crate::queue::{Status, Time};
use crate::script::{PROCESS_KIND, SyncHandle, TunnelObject};
use crate::status::DelayStatus;
use crate::status::StatusError;
use crate::status::StatusReport;
use crate::status::SyncStatus;
use crate::status::TunnelProcessStatus;
use crate::status::TunnelStatus;
use crate::status::WatchList;
use crate::status::atomic_file;
use crate::status::metrics;
use crate::status::number_format::span;
use crate::status::snapshot::Progress;
use crate::sync::Sync;
use crate::watch::Watcher;

/// The minimum ratio of the pause between two reports to the time of writing one. With a million
/// directories a report has a million lines.
const MIN_PAUSE_FACTOR: u32 = 50;

/// The maximum number of entries of each queue in a JSON report.
const MAX_ENTRIES: usize = 1000;

/// Writes the report files.
pub trait ReportWriter {
    /// Writes the status file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    fn write_status(&self, path: &Path) -> Result<(), StatusError>;

    /// Writes the metrics file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    fn write_metrics(&self, path: &Path) -> Result<(), StatusError>;
}

impl ReportWriter for DaemonState<'_> {
    fn write_status(&self, path: &Path) -> Result<(), StatusError> {
        if path.extension().is_some_and(|ending| ending == "json") {
            write_json(self, path)
        } else {
            write_text(self, path)
        }
    }

    fn write_metrics(&self, path: &Path) -> Result<(), StatusError> {
        let text = metrics::text(&snapshot(self, None, 0));
        let result = atomic_file::write(path, &mut |out| out.write_all(text.as_bytes()));
        result.map_err(|cause| StatusError::of("metrics", path, cause))
    }
}

/// The schedule of the report files. They are written once in each interval, so that their age
/// shows whether the daemon is alive. Without report files an idle daemon is not woken.
#[derive(Default)]
pub struct ReportFiles {
    status: Option<PathBuf>,
    metrics: Option<PathBuf>,
    interval: Duration,
    due: Option<Instant>,
    /// The last error, which is logged once and not at each attempt.
    told: Option<String>,
}

impl ReportFiles {
    /// Returns the schedule for the files named in the settings.
    pub fn new(settings: &Settings) -> ReportFiles {
        ReportFiles {
            status: settings.status_file.clone(),
            metrics: settings.metrics_file.clone(),
            interval: settings.status_interval,
            due: None,
            told: None,
        }
    }

    /// Returns the time of the next report, if it is known.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Writes the reports that are due, at the end of a turn. Returns a message if that failed.
    pub fn on_turn(&mut self, writer: &impl ReportWriter, now: Instant) -> Vec<Action> {
        let any = self.status.is_some() || self.metrics.is_some();
        if !any || self.due.is_some_and(|due| due > now) {
            return Vec::new();
        }
        let mut problems = Vec::new();
        if let Some(path) = &self.status {
            log::say("Statusfile", "writing the status file");
            problems.extend(writer.write_status(path).err());
        }
        if let Some(path) = &self.metrics {
            problems.extend(writer.write_metrics(path).err());
        }
        let pause = self.interval.max(now.elapsed() * MIN_PAUSE_FACTOR);
        // With an interval of zero a report follows each turn that has done something.
        self.due = (!self.interval.is_zero()).then(|| now + pause);
        let lines: Vec<_> = problems.iter().map(StatusError::to_string).collect();
        let text = (!lines.is_empty()).then(|| lines.join("\n"));
        let before = std::mem::replace(&mut self.told, text.clone());
        let new = text.filter(|text| before.as_ref() != Some(text));
        new.into_iter().map(Action::error).collect()
    }
}

fn write_json(state: &DaemonState<'_>, path: &Path) -> Result<(), StatusError> {
    let snapshot = snapshot(state, None, MAX_ENTRIES);
    let fill = &mut |out: &mut dyn Write| {
        serde_json::to_writer_pretty(&mut *out, &snapshot)?;
        out.write_all(b"\n")
    };
    atomic_file::write(path, fill).map_err(|cause| StatusError::of("status", path, cause))
}

fn write_text(state: &DaemonState<'_>, path: &Path) -> Result<(), StatusError> {
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let context = &state.script.context;
    let (syncs, tunnels) = (context.syncs.borrow(), context.tunnels.borrow());
    let syncs = syncs.iter().map(|handle| {
        let sync = handle.sync.borrow();
        let mut status = sync_status(&sync, state.watch_limit.lacks(sync.id));
        status.notes.extend(comparisons(state, handle, &sync));
        status.notes.extend(stalls(state, handle));
        let watch = state.watcher.backend_of(&sync.config.source);
        if is_remarkable(&watch) {
            status.notes.push(format!("Watched with {watch}").into());
        }
        status
    });
    StatusReport {
        time,
        syncs: syncs.collect(),
        tunnels: tunnels
            .iter()
            .map(|each| tunnel_status(each, time as f64, context.clock.now()))
            .collect(),
        watches: &Watches(state.watcher),
    }
    .save(path)
}

/// Returns one line for each full comparison that tells its progress.
fn comparisons(
    state: &DaemonState<'_>,
    handle: &Rc<SyncHandle>,
    sync: &Sync,
) -> Vec<Cow<'static, str>> {
    let jobs = state.transfers.all_jobs();
    let progress = jobs.filter(|job| job.is_of(handle));
    let progress = progress.filter_map(|job| job.progress(sync));
    let progress = progress.filter(|progress| progress.total > 0);
    let line = |progress: Progress| {
        let (percent, words) = (progress.percent, progress.words());
        format!("Comparing everything: {percent} %, {words}").into()
    };
    progress.map(line).collect()
}

/// Returns one line for each stalled transfer of a sync.
fn stalls(state: &DaemonState<'_>, handle: &Rc<SyncHandle>) -> Vec<Cow<'static, str>> {
    let jobs = state.transfers.jobs().filter(|(_, job)| job.is_of(handle));
    let stalled = jobs.filter_map(|(pid, _)| {
        let idle = state.transfers.stalled(pid)?;
        let idle = span(idle.as_secs_f64());
        Some(format!("Stalled: process {pid} has had no I/O for {idle}").into())
    });
    let local = state.transfers.copies();
    let local = local.filter(|(job, _)| job.is_of(handle));
    let local = local.filter_map(|(_, stalled)| {
        let idle = span(stalled?.as_secs_f64());
        Some(format!("Stalled: copying has made no progress for {idle}").into())
    });
    stalled.chain(local).collect()
}

/// Returns true if the watch backend is worth a line: fanotify, or a reason why it cannot be used.
fn is_remarkable(watch: &str) -> bool {
    watch.contains("fanotify")
}

struct Watches<'a>(&'a Watcher);

impl WatchList for Watches<'_> {
    fn count(&self) -> usize {
        self.0.watched()
    }

    fn each(&self, show: &mut dyn FnMut(i32, &[u8])) {
        self.0.for_each_watch(show);
    }
}

/// The maximum number of blocked files that are listed.
const MAX_BLOCKED_PATHS: usize = 100;

/// Returns the problems of a sync, one line each.
fn notes(sync: &Sync, lacks_watches: bool) -> Vec<Cow<'static, str>> {
    let mut notes = Vec::new();
    if let Some(why) = sync.halted() {
        notes.push(format!("Halted: {why}").into());
    }
    if let Some(why) = sync.delete_guard().excess() {
        notes.push(format!("Halted: {why}").into());
    }
    for (path, reason) in sync.gate.blocked().iter().take(MAX_BLOCKED_PATHS) {
        let (path, words) = (log::escape(path), &reason.reason);
        let what = if reason.rejected { "Rejected" } else { "Held" };
        notes.push(format!("{what}: {path}: {words}").into());
    }
    let more = sync.gate.blocked().len().saturating_sub(MAX_BLOCKED_PATHS);
    if more > 0 {
        notes.push(format!("and {more} more files are rejected or held").into());
    }
    if lacks_watches {
        notes.push("Not all directories are watched: out of inotify watches".into());
    }
    notes.extend(sync.problems().into_iter().map(Into::into));
    notes
}

fn sync_status(sync: &Sync, lacks_watches: bool) -> SyncStatus<'static> {
    let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    let delays = sync.queue.iter().map(|delay| {
        let (path, path2) = delay.paths();
        DelayStatus {
            status: delay.status().name(),
            etype: delay.etype().name(),
            path: path.into(),
            path2: path2.map(Into::into),
        }
    });
    let backlog = sync.backlog(usize::MAX).into_iter();
    let backlog = backlog.map(|(etype, path)| DelayStatus {
        status: Status::Wait.name(),
        etype: etype.name(),
        path: path.into(),
        path2: None,
    });
    SyncStatus {
        name: log::unescape(&sync.config.name).into(),
        source: sync.config.source.clone().into(),
        notes: notes(sync, lacks_watches),
        delays: delays.chain(backlog).collect(),
        filters: filter.rules().map(|rule| rule.to_vec().into()).collect(),
        excludes: filter.excludes().map(|p| p.to_vec().into()).collect(),
    }
}

fn tunnel_status(tunnel: &TunnelObject, time: f64, now: Time) -> TunnelStatus<'static> {
    let machine = tunnel.machine.borrow();
    let processes = machine
        .processes()
        .iter()
        .map(|process| TunnelProcessStatus {
            pid: process.pid.0,
            kind: PROCESS_KIND,
            started: time - now.saturating_sub(process.started) as f64 / 1e6,
        });
    TunnelStatus {
        name: log::unescape(&machine.config.name).into(),
        status: machine.state().name(),
        processes: processes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io;

    use super::*;

    #[derive(Default)]
    struct FakeWriter {
        written: RefCell<Vec<PathBuf>>,
        fails: Cell<bool>,
    }

    impl ReportWriter for FakeWriter {
        fn write_status(&self, path: &Path) -> Result<(), StatusError> {
            self.written.borrow_mut().push(path.to_owned());
            if self.fails.get() {
                let cause = io::Error::from(io::ErrorKind::StorageFull);
                return Err(StatusError::of(
                    "status",
                    path,
                    atomic_file::ReplaceError::Open(cause),
                ));
            }
            Ok(())
        }

        fn write_metrics(&self, path: &Path) -> Result<(), StatusError> {
            self.write_status(path)
        }
    }

    fn files(status: Option<&str>, metrics: Option<&str>, seconds: u64) -> ReportFiles {
        ReportFiles {
            status: status.map(PathBuf::from),
            metrics: metrics.map(PathBuf::from),
            interval: Duration::from_secs(seconds),
            ..ReportFiles::default()
        }
    }

    #[test]
    fn both_files_are_written_once_in_each_interval() {
        let (writer, start) = (FakeWriter::default(), Instant::now());
        let mut files = files(Some("status"), Some("metrics"), 10);
        for second in 0..25 {
            files.on_turn(&writer, start + Duration::from_secs(second));
        }
        assert_eq!(writer.written.borrow().len(), 2 * 3);
    }

    /// Nothing else may wake the loop, and the age of the file tells if the daemon is alive.
    #[test]
    fn the_next_report_has_a_deadline() {
        let mut files = files(Some("status"), None, 10);
        let now = Instant::now() + Duration::from_secs(3600);
        files.on_turn(&FakeWriter::default(), now);
        assert_eq!(files.deadline(), Some(now + Duration::from_secs(10)));
    }

    #[test]
    fn without_files_there_is_no_deadline() {
        let mut files = files(None, None, 10);
        files.on_turn(&FakeWriter::default(), Instant::now());
        assert_eq!(files.deadline(), None);
    }

    #[test]
    fn without_an_interval_each_turn_writes_and_none_is_asked_for() {
        let (writer, now) = (FakeWriter::default(), Instant::now());
        let mut files = files(Some("status"), None, 0);
        files.on_turn(&writer, now);
        files.on_turn(&writer, now);
        assert_eq!((writer.written.borrow().len(), files.deadline()), (2, None));
    }

    #[test]
    fn an_error_is_told_once_until_the_file_could_be_written() {
        let (writer, now) = (FakeWriter::default(), Instant::now());
        let mut files = files(Some("status"), None, 0);
        let mut told = |fails| {
            writer.fails.set(fails);
            files.on_turn(&writer, now).len()
        };
        assert_eq!([true, true, false, true].map(&mut told), [1, 0, 0, 1]);
    }
}
