//! One child at work for a sync: whose it is, what it is about, and what it has said.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use mlua::Table;

use super::delete_limit::DryRun;
use super::scanners::Scan;
use super::tunnels;
use crate::batch;
use crate::batch::error_lines::{self, Attribute, ErrorLine};
use crate::batch::output::{self as rsync_output, RsyncProgress, RsyncTotals};
use crate::log;
use crate::process::{Pid, Stream};
use crate::queue::{DelayId, Etype};
use crate::scan::readers::Reading;
use crate::script::{CopyRequest, Script, ScriptContext, SpawnRequest, SyncHandle};
use crate::sync::{Blame, Entries, FailedEntries, LineKind, Sync};

/// So many lines of a child's error output are kept for people and for those that know a failure by
/// its words: the first ones, and the last ones. What failed is not known from these.
const MAX_KEPT_LINES: usize = 50;

/// So many of these are the last ones.
const LAST_LINES: usize = 20;

/// The most lines of a child that are remembered as saying nothing, if it ends well.
const MAX_UNKNOWN: usize = 16;

/// One child at work for a sync.
pub struct Job {
    pub(super) handle: Rc<SyncHandle>,
    /// The configuration whose code asked for it.
    pub(super) script: Rc<Script>,
    /// The sync that waits for this child of the one it replaces.
    pub(super) heir: Option<Rc<RefCell<Sync>>>,
    pub(super) agent: Table,
    pub(super) ids: Vec<DelayId>,
    pub(super) captured: bool,
    pub(super) transfer: Option<batch::TransferKind>,
    since: Instant,
    progress: RefCell<Option<RsyncProgress>>,
    totals: Cell<RsyncTotals>,
    pub(super) errors: RefCell<VecDeque<Vec<u8>>>,
    /// The source and the target it was called with.
    roots: Vec<Vec<u8>>,
    /// What its error output comes to, from the first line on.
    blame: RefCell<Option<Blame>>,
    /// Lines that are no message of rsync's.
    unknown: RefCell<Vec<Vec<u8>>>,
    /// The same work failed before: what it says about that is told once, when it is over.
    pub(super) repeated: bool,
    /// It is only the trial of another.
    pub(super) dry_run: Option<DryRun>,
    /// It checks files.
    pub(super) scan: Option<Scan>,
    /// It reads the staged tree of its sync, as long as this lives.
    _reading: Option<Rc<Reading>>,
}

impl Job {
    /// One for this sync that nothing else is known of.
    pub(super) fn new(handle: Rc<SyncHandle>, script: Rc<Script>, agent: Table) -> Job {
        Job {
            handle,
            script,
            heir: None,
            agent,
            ids: Vec::new(),
            captured: true,
            transfer: None,
            since: Instant::now(),
            progress: Default::default(),
            totals: Default::default(),
            errors: Default::default(),
            roots: Vec::new(),
            blame: Default::default(),
            unknown: Default::default(),
            repeated: false,
            dry_run: None,
            scan: None,
            _reading: None,
        }
    }

    /// One that only finds out what another would do.
    pub fn dry_run(dry_run: DryRun, script: Rc<Script>) -> Job {
        let (handle, agent) = (dry_run.handle(), dry_run.agent());
        Job {
            dry_run: Some(dry_run),
            ..Job::new(handle, script, agent)
        }
    }

    /// One that checks files for a sync.
    pub(super) fn scan(
        scan: Scan,
        handle: Rc<SyncHandle>,
        script: Rc<Script>,
        agent: Table,
    ) -> Job {
        Job {
            scan: Some(scan),
            ..Job::new(handle, script, agent)
        }
    }

    /// What user code or a built-in behaviour asked to be run.
    pub(super) fn of_request(
        request: SpawnRequest,
        roots: Vec<Vec<u8>>,
        script: Rc<Script>,
    ) -> Job {
        let handle = Rc::clone(&request.handle);
        let repeated = request.captured && handle.sync.borrow().is_failing();
        Job {
            ids: request.ids,
            captured: request.captured,
            transfer: request.transfer,
            _reading: request.reading,
            repeated,
            roots,
            ..Job::new(handle, script, request.agent)
        }
    }

    /// What the daemon does itself. It has no output.
    pub(super) fn of_order(request: &CopyRequest, script: Rc<Script>) -> Job {
        let (handle, agent) = (Rc::clone(&request.handle), request.agent.clone());
        Job {
            ids: request.ids.clone(),
            captured: false,
            ..Job::new(handle, script, agent)
        }
    }

    /// What rsync says of its work.
    fn read(&self, line: &[u8]) {
        if let Some(progress) = rsync_output::progress(line) {
            self.progress.replace(Some(progress));
            return;
        }
        let mut totals = self.totals.get();
        totals.take(line);
        self.totals.set(totals);
    }

    /// It has ended: its sync has one less, and so has the one that waits for that.
    pub(super) fn leave(&self) {
        self.handle.sync.borrow_mut().running -= 1;
        if let Some(heir) = &self.heir {
            heir.borrow_mut().not_started.children -= 1;
        }
    }

    /// Whose it is.
    pub(super) fn handle(&self) -> &Rc<SyncHandle> {
        &self.handle
    }

    /// Returns true if it runs for this sync.
    pub(super) fn is_of(&self, handle: &Rc<SyncHandle>) -> bool {
        Rc::ptr_eq(&self.handle.sync, &handle.sync)
    }

    /// The entries it is about.
    pub(super) fn ids(&self) -> &[DelayId] {
        &self.ids
    }

    /// When it was started.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// How far it is, if it says so.
    pub(super) fn progress(&self) -> Option<RsyncProgress> {
        self.progress.borrow().clone()
    }

    /// What it says it sent in all.
    pub(super) fn totals(&self) -> RsyncTotals {
        self.totals.get()
    }

    /// What it says went wrong. Attributes are no failure where there is another.
    pub(super) fn words(&self) -> Vec<u8> {
        let errors = self.errors.borrow();
        let is_failure = |line: &&Vec<u8>| !is_attribute(line);
        let failures = errors.iter().filter(is_failure).map(Vec::as_slice);
        match batch::reason(failures) {
            [] => batch::reason(errors.iter().map(Vec::as_slice)).to_vec(),
            words => words.to_vec(),
        }
    }

    /// Takes in a line of its error output. Returns what the log gets of it.
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
            if sync.is_noise(line) {
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
            // That it fails again is told by the count of what is owed.
            LineKind::Failed(paths)
                if paths.iter().all(|path| sync.failed_paths.is_tried(path)) =>
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

    /// What it left undone, if it did some of its work.
    pub(super) fn failed_paths(&self) -> FailedEntries {
        match self.blame.take() {
            Some(blame) => blame.failed_paths(),
            None => FailedEntries::Everything,
        }
    }

    /// What it left undone, told by whoever did its work.
    pub(super) fn set_failed_paths(&self, failed: Entries) {
        self.blame.replace(Some(Blame::of_failures(failed)));
    }

    /// Lets `see` have what its error output comes to, if it has any.
    pub(super) fn blame<T>(&self, see: impl FnOnce(&Blame) -> Option<T>) -> Option<T> {
        self.blame.borrow().as_ref().and_then(see)
    }

    /// Lines of its error output that say nothing, as it did all it should.
    pub(super) fn noise(&self) -> Vec<Vec<u8>> {
        self.unknown.take()
    }

    /// Returns true if it can have done some of its work and not the rest.
    pub(super) fn may_be_partial(&self, sync: &Sync) -> bool {
        self.blame.borrow().is_some() || (self.captured && self.is_transfer(sync))
    }

    /// Returns true if it runs for this sync, or must have ended before this sync begins.
    pub(super) fn is_for(&self, sync: &Rc<RefCell<Sync>>) -> bool {
        let heir = self.heir.as_ref();
        Rc::ptr_eq(&self.handle.sync, sync) || heir.is_some_and(|heir| Rc::ptr_eq(heir, sync))
    }

    /// What it checks, if it does.
    pub(super) fn scanning(&self) -> Option<&Scan> {
        self.scan.as_ref()
    }

    /// Returns true if files may have been read. What ran for Moves alone says nothing of when rsync did.
    pub(super) fn is_transfer(&self, sync: &Sync) -> bool {
        self.etypes(sync).any(|etype| etype != Some(Etype::Move))
    }

    /// Returns true if it is a transfer of a built-in behaviour, or the trial of one: it reads the
    /// source and is no code of the user's.
    pub(super) fn may_stall(&self) -> bool {
        self.captured && self.scan.is_none()
    }

    /// Returns true if all its processes are on this host.
    pub(super) fn is_local(&self) -> bool {
        let sync = self.handle.sync.borrow();
        let target = sync.config.target.as_deref();
        target.is_some_and(|target| !batch::is_remote(target))
    }

    /// Returns true if it compared everything.
    pub(super) fn is_whole(&self, sync: &Sync) -> bool {
        self.etypes(sync)
            .any(|etype| matches!(etype, Some(Etype::Init | Etype::Full)))
    }

    /// Returns true if it ran for the startup event.
    pub(super) fn is_startup(&self, sync: &Sync) -> bool {
        self.etypes(sync).any(|etype| etype == Some(Etype::Init))
    }

    /// What its entries are; `None` for those that have left the queue.
    fn etypes(&self, sync: &Sync) -> impl Iterator<Item = Option<Etype>> {
        self.ids.iter().map(|&id| Some(sync.queue.get(id)?.etype()))
    }
}

/// Who takes in what children write, line by line.
pub fn listener(
    jobs: &HashMap<Pid, Job>,
    context: &ScriptContext,
) -> impl FnMut(Pid, Stream, &[u8]) {
    |pid, stream, line: &[u8]| output(jobs, context, pid, stream, line)
}

/// A line of output of a child: into the log, with the name of the sync or tunnel.
fn output(
    jobs: &HashMap<Pid, Job>,
    context: &ScriptContext,
    pid: Pid,
    stream: Stream,
    line: &[u8],
) {
    let job = jobs.get(&pid);
    if let (Some(dry_run), Stream::Stdout) = (job.and_then(|job| job.dry_run.as_ref()), stream) {
        return dry_run.line(line);
    }
    if let Some(scan) = job.and_then(|job| job.scan.as_ref()) {
        return scan.line(line);
    }
    let shown = log::escape(line);
    let text = match job {
        Some(job) => format!("{}: {shown}", job.handle.sync.borrow().config.name),
        None => match tunnels::of(context, pid) {
            Some(tunnel) => format!("{}: {shown}", tunnel.name()),
            None => shown.into_owned(),
        },
    };
    match (stream, job) {
        (Stream::Stdout, job) => {
            log::normal(text);
            if let Some(job) = job {
                job.read(line);
            }
        }
        (Stream::Stderr, Some(job)) => match job.read_error(line) {
            OutputKind::Attribute(attribute) => log::warn(format_args!(
                "{text} -- the file is sent without; told once for the {} of all files",
                attribute.name()
            )),
            OutputKind::Line if !job.repeated => log::warn(text),
            OutputKind::Line | OutputKind::Nothing => {}
        },
        (Stream::Stderr, None) => log::warn(text),
    }
}

/// What the log gets of a line of error output.
enum OutputKind {
    /// The line, unless it is known from the attempt before.
    Line,
    /// That this attribute cannot be set.
    Attribute(Attribute),
    /// Nothing: it is known.
    Nothing,
}

/// Returns true if a line of error output is about an attribute of a file that arrived.
pub(super) fn is_attribute(line: &[u8]) -> bool {
    matches!(error_lines::read(line), ErrorLine::Attribute(..))
}
