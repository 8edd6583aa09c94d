//! Job: one running child of a sync, with its entries and its output.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mlua::Table;

use super::delete_limit::DryRun;
use super::progress::TransferProgress;
use super::scanner_call::ScannerCall;
use super::spawn;
use crate::batch;
use crate::batch::error_lines::{self, Attribute, ErrorLine};
use crate::batch::output::{self as rsync_output, RsyncProgress, RsyncTotals};
use crate::local::CopyControl;
use crate::log;
use crate::paths;
use crate::process::Stream;
use crate::queue::{DelayId, Etype};
use crate::script::{CopyRequest, Script, SpawnRequest, SyncHandle};
use crate::staging::readers::Reading;
use crate::status::snapshot::Progress;
use crate::sync::{Blame, FailedEntries, LineKind, PendingEvent, RetryEntries, Sync};
use crate::watch::TreeSize;

/// The maximum number of error output lines kept of a child, for messages and for checks of their
/// texts: the first and the last ones. Failed paths are collected separately.
const MAX_KEPT_LINES: usize = 50;

/// The number of kept lines that are the last ones.
const LAST_LINES: usize = 20;

/// The maximum number of lines of a child that count as harmless if it succeeds.
const MAX_UNKNOWN: usize = 16;

/// One running child of a sync.
pub struct Job {
    pub(super) handle: Rc<SyncHandle>,
    /// The configuration whose code requested the child.
    pub(super) script: Rc<Script>,
    /// The sync of a new configuration that waits for this child to end.
    pub heir: Option<Rc<RefCell<Sync>>>,
    pub(super) agent: Table,
    pub(super) ids: Vec<DelayId>,
    /// The Deletes among them whose path existed when the child was started.
    pub(super) existing: HashSet<DelayId>,
    pub(super) captured: bool,
    /// Set if it is a copy by the daemon itself.
    pub(super) is_copy: bool,
    pub(super) transfer: Option<batch::TransferKind>,
    since: Instant,
    progress: RefCell<Option<(RsyncProgress, Instant)>>,
    /// The daemon has added the option for rsync's progress, whose lines are not logged.
    hides_progress: bool,
    /// The progress of a local copy.
    pub(super) control: Option<Arc<CopyControl>>,
    totals: Cell<RsyncTotals>,
    pub(super) errors: RefCell<VecDeque<Vec<u8>>>,
    /// The source and the target of the rsync call.
    roots: Vec<Vec<u8>>,
    /// The entries that the error output names so far.
    blame: RefCell<Option<Blame>>,
    /// Lines that are not messages of rsync.
    unknown: RefCell<Vec<Vec<u8>>>,
    /// The limit of its bandwidth, if it is to be repeated when that changes.
    pub(super) limit: Option<Vec<u8>>,
    /// rsync stops deleting at the delete limit of the configuration.
    pub(super) has_delete_limit: bool,
    /// It was ended in order to be repeated.
    pub(super) is_restarted: bool,
    /// The work is a retry: failures are logged once, at the end.
    pub(super) repeated: bool,
    /// The transfer was not started, because its dry run failed.
    pub(super) is_unsent: bool,
    /// Set if the child is a dry run.
    pub(super) dry_run: Option<DryRun>,
    /// Set if the child is a scanner.
    pub scan: Option<ScannerCall>,
    /// The read lock of the staged tree, held while the child runs.
    _reading: Option<Rc<Reading>>,
}

impl Job {
    /// Returns a job without entries.
    pub fn new(handle: Rc<SyncHandle>, script: Rc<Script>, agent: Table) -> Job {
        Job {
            handle,
            script,
            heir: None,
            agent,
            ids: Vec::new(),
            existing: HashSet::new(),
            captured: true,
            is_copy: false,
            transfer: None,
            since: Instant::now(),
            progress: Default::default(),
            hides_progress: false,
            control: None,
            totals: Default::default(),
            errors: Default::default(),
            roots: Vec::new(),
            blame: Default::default(),
            unknown: Default::default(),
            limit: None,
            has_delete_limit: false,
            is_restarted: false,
            repeated: false,
            is_unsent: false,
            dry_run: None,
            scan: None,
            _reading: None,
        }
    }

    /// Returns the job of a dry run.
    pub fn dry_run(dry_run: DryRun, script: Rc<Script>) -> Job {
        let (handle, agent) = (dry_run.handle(), dry_run.agent());
        Job {
            dry_run: Some(dry_run),
            ..Job::new(handle, script, agent)
        }
    }

    /// Returns the job of a scanner.
    pub fn scan(
        scan: ScannerCall,
        handle: Rc<SyncHandle>,
        script: Rc<Script>,
        agent: Table,
    ) -> Job {
        Job {
            scan: Some(scan),
            ..Job::new(handle, script, agent)
        }
    }

    /// Returns the job of a spawn request.
    pub fn of_request(request: SpawnRequest, roots: Vec<Vec<u8>>, script: Rc<Script>) -> Job {
        let handle = Rc::clone(&request.handle);
        let repeated = request.captured && handle.sync.borrow().is_failing();
        let existing = existing_deletes(&handle.sync.borrow(), &request.ids);
        let hides_progress = {
            let sync = handle.sync.borrow();
            sync.asks_progress() && request.ids.iter().any(|&id| sync.is_whole(id))
        };
        Job {
            ids: request.ids,
            existing,
            captured: request.captured,
            transfer: request.transfer,
            _reading: request.reading,
            repeated,
            roots,
            hides_progress,
            ..Job::new(handle, script, request.agent)
        }
    }

    /// Returns the job for a transfer that was not started, because its dry run failed.
    pub(super) fn unsent(request: SpawnRequest, script: Rc<Script>) -> Job {
        let roots = spawn::roots(&request.args);
        Job {
            is_unsent: true,
            ..Job::of_request(request, roots, script)
        }
    }

    /// Takes in error output that has been logged already.
    pub(super) fn take_errors(&self, lines: impl IntoIterator<Item = Vec<u8>>) {
        for line in lines {
            self.read_error(&line);
        }
    }

    /// Keeps the reasons of failures of a local copy.
    pub(super) fn keep_reasons<'a>(&self, reasons: impl Iterator<Item = &'a String>) {
        let reasons = reasons.take(MAX_KEPT_LINES);
        let mut errors = self.errors.borrow_mut();
        errors.extend(reasons.map(|reason| reason.clone().into_bytes()));
    }

    /// Returns the job of a local copy, which has no process and no output.
    pub fn of_order(request: &CopyRequest, script: Rc<Script>) -> Job {
        let (handle, agent) = (Rc::clone(&request.handle), request.agent.clone());
        let existing = existing_deletes(&handle.sync.borrow(), &request.ids);
        Job {
            ids: request.ids.clone(),
            existing,
            captured: false,
            is_copy: true,
            ..Job::new(handle, script, agent)
        }
    }

    /// Handles a line of the progress that the daemon has requested. Returns false for other lines.
    fn takes_progress(&self, line: &[u8]) -> bool {
        let is_progress = self.hides_progress && rsync_output::progress(line).is_some();
        if is_progress {
            self.read(line);
        }
        is_progress
    }

    /// Evaluates a line of rsync's standard output.
    fn read(&self, line: &[u8]) {
        if let Some(mut progress) = rsync_output::progress(line) {
            let mut last = self.progress.borrow_mut();
            let known = last.as_ref().and_then(|(last, _)| last.entries);
            // A progress line within a file does not contain the number of entries.
            progress.entries = progress.entries.or(known);
            *last = Some((progress, Instant::now()));
            return;
        }
        let mut totals = self.totals.get();
        totals.take(line);
        self.totals.set(totals);
    }

    /// Decrements the running counters of its sync and of the sync that waits for it.
    pub fn leave(&self) {
        self.handle.sync.borrow_mut().child_ended();
        if let Some(heir) = &self.heir {
            heir.borrow_mut().predecessor_job_ended();
        }
    }

    /// Returns its sync.
    pub fn handle(&self) -> &Rc<SyncHandle> {
        &self.handle
    }

    /// Returns true if it runs for this sync.
    pub fn is_of(&self, handle: &Rc<SyncHandle>) -> bool {
        Rc::ptr_eq(&self.handle.sync, &handle.sync)
    }

    /// Returns the events of its queue entries.
    pub fn events(&self) -> Vec<PendingEvent> {
        self.handle.sync.borrow().events_of(&self.ids)
    }

    /// Returns its queue entries.
    pub fn ids(&self) -> &[DelayId] {
        &self.ids
    }

    /// Returns its start time.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns the progress for people, if something is known of it.
    pub fn progress(&self, sync: &Sync) -> Option<Progress> {
        let size = match self.is_whole(sync) {
            true => sync.tree_size(),
            false => TreeSize::default(),
        };
        let control = self.control.as_ref().filter(|_| size.entries > 0);
        let rsync = self.progress.borrow();
        let known = TransferProgress {
            since: self.since,
            rsync: rsync.as_ref(),
            copied: control.map(|control| control.compared()),
            size,
            now: Instant::now(),
        };
        known.shown()
    }

    /// Returns the totals reported at the end.
    pub fn totals(&self) -> RsyncTotals {
        self.totals.get()
    }

    /// Returns the error text. Failed attributes are left out if anything else failed.
    pub fn words(&self) -> Vec<u8> {
        let errors = self.errors.borrow();
        let is_failure = |line: &&Vec<u8>| !is_attribute(line);
        let failures = errors.iter().filter(is_failure).map(Vec::as_slice);
        match batch::reason(failures) {
            [] => batch::reason(errors.iter().map(Vec::as_slice)).to_vec(),
            words => words.to_vec(),
        }
    }

    /// Evaluates a line of error output. Returns what is to be logged.
    fn read_error(&self, line: &[u8]) -> OutputKind {
        let mut errors = self.errors.borrow_mut();
        if errors.len() >= MAX_KEPT_LINES {
            errors.remove(MAX_KEPT_LINES - LAST_LINES);
        }
        errors.push_back(line.to_vec());
        let mut sync = self.handle.sync.borrow_mut();
        if !self.captured || !self.is_transfer(&sync) {
            return OutputKind::Line;
        }
        let said = error_lines::read(line);
        if said == ErrorLine::Unknown {
            if sync.is_harmless(line) {
                return OutputKind::Line;
            }
            let mut unknown = self.unknown.borrow_mut();
            if unknown.len() < MAX_UNKNOWN {
                unknown.push(line.to_vec());
            }
        }
        let mut blame = self.blame.borrow_mut();
        let blame = blame.get_or_insert_with(|| self.new_blame(&sync));
        match blame.take(said) {
            LineKind::Attribute(attribute) => {
                if sync.counters.unset(attribute, 1) {
                    OutputKind::Attribute(attribute)
                } else {
                    OutputKind::Nothing
                }
            }
            LineKind::Unsendable(path) => {
                sync.leave_out_long_path(&path);
                OutputKind::Nothing
            }
            // A repeated failure is logged as a count of pending retries.
            LineKind::Failed(paths)
                if paths.iter().all(|path| sync.failed_paths().is_tried(path)) =>
            {
                OutputKind::Nothing
            }
            _ => OutputKind::Line,
        }
    }

    fn new_blame(&self, sync: &Sync) -> Blame {
        let entries = sync.entries(&self.ids);
        let max_failed = sync.config.max_pending;
        if entries.is_empty() {
            Blame::of_everything(&self.roots, max_failed)
        } else {
            Blame::of_batch(entries, &self.roots, max_failed)
        }
    }

    /// Returns the entries that failed, if the transfer was partial.
    pub fn failed_paths(&self) -> FailedEntries {
        match self.blame.take() {
            Some(blame) => blame.failed_paths(),
            None => FailedEntries::Everything,
        }
    }

    /// Sets the entries that failed, for local copies.
    pub fn set_failed_paths(&self, failed: RetryEntries, obstructed: BTreeSet<Vec<u8>>) {
        self.blame
            .replace(Some(Blame::of_failures(failed, obstructed)));
    }

    /// Calls `see` with the evaluation of the error output, if there is one.
    pub fn blame<T>(&self, see: impl FnOnce(&Blame) -> Option<T>) -> Option<T> {
        self.blame.borrow().as_ref().and_then(see)
    }

    /// Returns the lines that count as harmless from now on, since the child succeeded.
    pub fn harmless_lines(&self) -> Vec<Vec<u8>> {
        self.unknown.take()
    }

    /// Returns true if the child may have completed only some of its entries.
    pub fn may_be_partial(&self, sync: &Sync) -> bool {
        self.blame.borrow().is_some() || (self.captured && self.is_transfer(sync))
    }

    /// Returns true if it runs for this sync, or has to end before this sync starts.
    pub fn is_for(&self, sync: &Rc<RefCell<Sync>>) -> bool {
        let heir = self.heir.as_ref();
        Rc::ptr_eq(&self.handle.sync, sync) || heir.is_some_and(|heir| Rc::ptr_eq(heir, sync))
    }

    /// Returns true if files may have been read. A batch of Moves alone reads none.
    pub fn is_transfer(&self, sync: &Sync) -> bool {
        self.etypes(sync).any(|etype| etype != Some(Etype::Move))
    }

    /// Returns true for a transfer or a dry run of a built-in kind, which reads the source and is
    /// not user code.
    pub fn may_stall(&self) -> bool {
        self.captured && self.scan.is_none()
    }

    /// Returns true if all its processes run on this machine.
    pub fn is_local(&self) -> bool {
        let sync = self.handle.sync.borrow();
        let target = sync.config.target.as_deref();
        target.is_some_and(|target| !batch::is_remote(target))
    }

    /// Returns true if it compared the whole source.
    pub fn is_whole(&self, sync: &Sync) -> bool {
        self.has_special(sync, |etype| matches!(etype, Etype::Init | Etype::Full))
    }

    /// Returns true if it ran for the startup event.
    pub fn is_startup(&self, sync: &Sync) -> bool {
        self.has_special(sync, |etype| etype == Etype::Init)
    }

    /// Returns the types of its entries; `None` for an entry that has left the queue.
    fn etypes(&self, sync: &Sync) -> impl Iterator<Item = Option<Etype>> {
        self.ids.iter().map(|&id| Some(sync.queue.get(id)?.etype()))
    }

    /// Returns true if a queued special delay is one of its entries. There are few, while it may
    /// have many entries, and this is asked in each turn.
    fn has_special(&self, sync: &Sync, is_meant: impl Fn(Etype) -> bool) -> bool {
        let mut specials = sync.queue.specials();
        specials.any(|delay| is_meant(delay.etype()) && self.ids.contains(&delay.id()))
    }
}

/// Logs a line of output with the name of its sync, and passes it to the job, if it is one. `other`
/// is the name of any other process.
pub fn take_output(job: Option<&Job>, stream: Stream, line: &[u8], other: Option<String>) {
    if let (Some(dry_run), Stream::Stdout) = (job.and_then(|job| job.dry_run.as_ref()), stream) {
        return dry_run.line(line);
    }
    if let Some(scan) = job.and_then(|job| job.scan.as_ref()) {
        return scan.line(line);
    }
    let shown = log::escape(line);
    let name = job.map(|job| job.handle.sync.borrow().config.name.clone());
    let text = match name.or(other) {
        Some(name) => format!("{name}: {shown}"),
        None => shown.into_owned(),
    };
    match (stream, job) {
        (Stream::Stdout, Some(job)) if job.takes_progress(line) => {}
        (Stream::Stdout, job) => {
            log::normal(text);
            if let Some(job) = job {
                job.read(line);
            }
        }
        (Stream::Stderr, Some(job)) => match job.read_error(line) {
            OutputKind::Attribute(attribute) => log::warn(format_args!(
                "{text} -- the file is sent without; reported once for the {} of all files",
                attribute.name()
            )),
            OutputKind::Line if !job.repeated => log::warn(text),
            OutputKind::Line | OutputKind::Nothing => {}
        },
        (Stream::Stderr, None) => log::warn(text),
    }
}

/// The log category of a line of error output.
enum OutputKind {
    /// The line, unless it was logged in the last attempt.
    Line,
    /// A message that this attribute could not be set.
    Attribute(Attribute),
    /// Nothing.
    Nothing,
}

/// Returns true if a line of error output is about an attribute of a file that arrived.
pub fn is_attribute(line: &[u8]) -> bool {
    matches!(error_lines::read(line), ErrorLine::Attribute(..))
}

/// Returns the Deletes among these entries whose path exists now: a transfer compares it with the
/// target.
fn existing_deletes(sync: &Sync, ids: &[DelayId]) -> HashSet<DelayId> {
    let deletes = ids.iter().filter(|&&id| {
        let delay = sync.queue.get(id);
        delay.is_some_and(|delay| {
            let exists = || {
                let path = paths::join(&sync.config.source, &delay.paths().0);
                Path::new(OsStr::from_bytes(paths::bare(&path)))
                    .symlink_metadata()
                    .is_ok()
            };
            delay.etype() == Etype::Delete && exists()
        })
    });
    deletes.copied().collect()
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
