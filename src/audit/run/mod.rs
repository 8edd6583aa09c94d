//! The comparison of one sync.
//!
//! * `details`: what each side has at the paths that differ, and when they were sent last;
//! * `dry_runs`: starts its children;
//! * `purpose`: what a child is for.

mod details;
mod dry_runs;
mod purpose;

use std::time::Instant;

use self::purpose::Purpose;
use super::child::Child;
use super::passes::Passes;
use super::view::{AuditView, Obstacle};
use crate::batch::dry_run::Printed;
use crate::component::{Action, SamplePlace, SyncCommand, WatchAction};
use crate::control::barrier::Barrier;
use crate::history::LastEntry;
use crate::id::SyncId;
use crate::log;
use crate::paths;
use crate::process::{Command, ExitStatus, Pid, SpawnError, Stream};
use crate::script::ComparisonScope;
use crate::status::drift_report::{DriftReport, DriftVerdict, ReportSample};
use crate::status::snapshot::VerifyProgress;

/// Starts a child.
pub type DryRunSpawner<'a> = &'a mut dyn FnMut(Command) -> Result<Pid, SpawnError>;

/// A request for the comparison of one sync.
#[derive(Clone, Debug)]
pub struct RunRequest {
    pub sync: SyncId,
    /// The path that is compared, with a leading slash; empty for everything.
    pub path: Vec<u8>,
    pub by_content: bool,
    pub repairs: bool,
    /// The part of the files whose contents are compared; `None` for all.
    pub sample: Option<SamplePlace>,
}

/// The comparison of one sync, from the flush to the report.
pub struct Run {
    request: RunRequest,
    report: DriftReport,
    scope: ComparisonScope,
    passes: Passes,
    /// The output of the dry run that precedes a sample.
    held: Option<Printed>,
    /// The command that prints the version of the rsync on the target.
    remote_version: Option<Command>,
    /// The target can list its entries at the paths that differ.
    may_list: bool,
    stage: RunStage,
}

/// The result of a step.
pub enum RunStep {
    /// Actions, then the next step.
    Actions(Vec<Action>),
    /// Nothing until something happens.
    Waiting,
    /// The comparison has ended.
    Done(Box<DriftReport>),
}

enum RunStage {
    /// Not begun.
    Begin,
    /// Waits until everything from before is on the target.
    Settle {
        barrier: Barrier,
        /// Files that are open have been queued.
        is_marked: bool,
        /// Everything up to the mark has been flushed.
        is_flushed: bool,
        next: AfterSettling,
    },
    /// A child runs.
    Running(Purpose, Child),
    /// Waits until the transfer log has been searched with this number.
    FindLast(u64),
    /// The report is complete.
    End,
}

/// The step after everything is on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterSettling {
    /// The first dry run.
    Compare,
    /// The evaluation of a dry run, which has failed or not.
    Sort { has_failed: bool },
    /// The evaluation of a repair.
    Check,
}

impl Run {
    /// Returns a comparison that has not begun.
    pub fn new(request: RunRequest) -> Run {
        Run {
            report: DriftReport {
                version: crate::VERSION.to_owned(),
                content: request.by_content,
                sample: request.sample.map(|place| ReportSample {
                    part: place.part + 1,
                    parts: place.parts,
                    files: 0,
                }),
                path: log::escape(&request.path).into_owned(),
                ..DriftReport::default()
            },
            scope: ComparisonScope::Everything,
            passes: Passes::new(&request.path),
            held: None,
            remote_version: None,
            may_list: false,
            stage: RunStage::Begin,
            request,
        }
    }

    /// Returns the running child.
    pub fn child(&self) -> Option<Pid> {
        Some(self.running()?.pid)
    }

    /// Returns the time of the next step without an event.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            RunStage::Settle { barrier, .. } => barrier.deadline(),
            _ => None,
        }
    }

    /// Takes in a line of output of the child.
    pub fn on_output(&self, stream: Stream, line: &[u8]) {
        if let Some(child) = self.running() {
            child.on_output(stream, line);
        }
    }

    /// Takes in the end of the child.
    pub fn on_ended(&mut self, status: ExitStatus) {
        if let RunStage::Running(_, child) = &mut self.stage {
            child.status = Some(status);
        }
    }

    /// Takes in what a search of the transfer log has found.
    pub fn on_last_found(&mut self, token: u64, last: Vec<Option<LastEntry>>) {
        if matches!(self.stage, RunStage::FindLast(expected) if expected == token) {
            self.passes.on_last_found(last);
            self.stage = RunStage::FindLast(0);
        }
    }

    /// Returns what happens now.
    pub fn progress(&self) -> VerifyProgress {
        let (text, found) = match &self.stage {
            RunStage::Begin | RunStage::Settle { .. } => ("sending pending changes", 0),
            RunStage::Running(purpose, child) => (purpose.text(), child.output.found()),
            RunStage::FindLast(_) | RunStage::End => ("reading the transfer log", 0),
        };
        VerifyProgress {
            stage: text.to_owned(),
            begin: self.report.begin,
            found: (found as u64).max(self.passes.differences_so_far()),
        }
    }

    fn running(&self) -> Option<&Child> {
        match &self.stage {
            RunStage::Running(_, child) => Some(child).filter(|child| child.status.is_none()),
            _ => None,
        }
    }

    /// Takes the next step. Must be called right after the turn of the watcher.
    pub fn on_step(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        now: Instant,
    ) -> RunStep {
        let Some((name, source)) = view.source(self.request.sync) else {
            return self.end_early("the configuration was read again", view);
        };
        match std::mem::replace(&mut self.stage, RunStage::End) {
            RunStage::Begin => {
                self.report.sync = name;
                self.report.source = log::escape(&source).into_owned();
                self.report.host = view.host();
                self.report.begin = view.wall_time();
                self.scope = self.whole(view);
                self.stage = self.settle(AfterSettling::Compare);
                RunStep::Actions(vec![
                    self.command(SyncCommand::RecordChanges),
                    self.command(SyncCommand::Flush),
                    self.command(SyncCommand::Retry),
                ])
            }
            RunStage::Settle {
                barrier,
                is_marked,
                is_flushed,
                next,
            } => self.on_settling(barrier, is_marked, is_flushed, next, view, spawn, now),
            RunStage::Running(purpose, child) => match child.status {
                None => self.wait(RunStage::Running(purpose, child)),
                Some(status) => self.on_child(purpose, child, status, view, spawn),
            },
            RunStage::FindLast(0) => self.list_source(view, spawn),
            RunStage::FindLast(token) => self.wait(RunStage::FindLast(token)),
            RunStage::End => self.end(view),
        }
    }

    /// Evaluates the output of a child that has ended.
    fn on_child(
        &mut self,
        purpose: Purpose,
        child: Child,
        status: ExitStatus,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let first = child.first.take().unwrap_or_default();
        let mut printed = child.output.into_printed();
        match purpose {
            Purpose::Version => {
                self.report.rsync = log::escape(&first).into_owned();
                self.ask_remote_version(view, spawn)
            }
            Purpose::RemoteVersion => {
                let version = Some(first).filter(|line| line.starts_with(b"rsync"));
                self.report.remote_rsync = version.map(|line| log::escape(&line).into_owned());
                self.compare_first(view, spawn)
            }
            Purpose::Compare => match printed.sampled.take() {
                Some(sampled) if Child::failure(status, &printed).is_none() => {
                    self.compare_sample(sampled, printed, view, spawn)
                }
                _ => self.on_compared(status, printed, view),
            },
            Purpose::Sample => {
                let mut held = self.held.take().unwrap_or_default();
                held.changes.extend(printed.changes);
                held.beyond += printed.beyond;
                held.errors = printed.errors;
                held.checksum = printed.checksum;
                self.on_compared(status, held, view)
            }
            Purpose::Types => {
                self.passes.on_typed(printed.changes);
                self.find_last(view)
            }
            Purpose::ListSource => {
                self.passes.on_source_listed(printed.listed);
                self.list_target(view, spawn)
            }
            Purpose::ListTarget => {
                self.passes.on_target_listed(printed.listed);
                self.repair(view)
            }
            Purpose::Check => {
                if Child::failure(status, &printed).is_none() {
                    self.passes.on_repaired(printed.changes);
                }
                self.end(view)
            }
        }
    }

    fn wait(&mut self, stage: RunStage) -> RunStep {
        self.stage = stage;
        RunStep::Waiting
    }

    fn command(&self, command: SyncCommand) -> Action {
        Action::Command(self.request.sync, command)
    }

    /// Returns the scope of the request.
    fn whole(&self, view: &impl AuditView) -> ComparisonScope {
        let path = paths::bare(&self.request.path);
        if path.is_empty() {
            return ComparisonScope::Everything;
        }
        match view.is_directory(self.request.sync, path) {
            Some(false) => ComparisonScope::Below(path.to_vec()),
            _ => ComparisonScope::Below(paths::with_slash(path)),
        }
    }

    fn settle(&self, next: AfterSettling) -> RunStage {
        RunStage::Settle {
            barrier: Barrier::new(Some(self.report.sync.clone())),
            is_marked: false,
            is_flushed: false,
            next,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn on_settling(
        &mut self,
        mut barrier: Barrier,
        is_marked: bool,
        is_flushed: bool,
        next: AfterSettling,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        now: Instant,
    ) -> RunStep {
        barrier.begin(view, now);
        if !is_marked && barrier.is_to_mark(view) {
            self.stage = RunStage::Settle {
                barrier,
                is_marked: true,
                is_flushed,
                next,
            };
            return RunStep::Actions(vec![Action::Watch(WatchAction::ReportOpenFiles)]);
        }
        let is_over = barrier.is_over(view, now);
        if is_over {
            return self.on_settled(next, None, view, spawn);
        }
        if is_marked && !is_flushed {
            self.stage = RunStage::Settle {
                barrier,
                is_marked,
                is_flushed: true,
                next,
            };
            return RunStep::Actions(vec![self.command(SyncCommand::Flush)]);
        }
        if let Some(obstacle) = view.obstacle(self.request.sync) {
            return self.on_settled(next, Some(obstacle), view, spawn);
        }
        self.wait(RunStage::Settle {
            barrier,
            is_marked,
            is_flushed,
            next,
        })
    }

    /// Goes on when everything is on the target, or an obstacle prevents that.
    fn on_settled(
        &mut self,
        next: AfterSettling,
        obstacle: Option<Obstacle>,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let (is_halted, why) = match obstacle {
            None => (false, None),
            Some(Obstacle::Halted(why)) => (true, Some(why)),
            Some(Obstacle::Failing(why)) => (false, Some(why)),
        };
        if let Some(why) = why {
            self.report.reason.get_or_insert(why);
        }
        match next {
            AfterSettling::Compare if is_halted => self.end(view),
            AfterSettling::Compare => self.ask_version(view, spawn),
            AfterSettling::Sort { has_failed } => self.sort(!has_failed && !is_halted, view, spawn),
            AfterSettling::Check => {
                let paths = self.passes.drifting();
                self.compare_listed(paths, view, spawn, Purpose::Check)
            }
        }
    }

    /// Evaluates the end of a dry run.
    fn on_compared(
        &mut self,
        status: ExitStatus,
        printed: Printed,
        view: &impl AuditView,
    ) -> RunStep {
        let failure = Child::failure(status, &printed);
        let has_failed = failure.is_some();
        if let Some(why) = failure {
            self.report.reason.get_or_insert(why);
        }
        if printed.beyond > 0 {
            let why = format!("{} further differences were not examined", printed.beyond);
            self.report.reason.get_or_insert(why);
        }
        if printed.checksum.is_some() {
            self.report.checksum = printed.checksum;
        }
        if self.report.entries.is_none() {
            self.report.entries = printed.entries;
            self.report.bytes = printed.bytes;
        }
        if !self.passes.on_compared(printed.changes) {
            return self.end(view);
        }
        self.stage = self.settle(AfterSettling::Sort { has_failed });
        // The next barrier sends what the dry run has found missing on the target.
        RunStep::Actions(vec![
            self.command(SyncCommand::DivideChanges),
            self.command(SyncCommand::Flush),
        ])
    }

    fn sort(
        &mut self,
        may_repeat: bool,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let sync = self.request.sync;
        let again = self
            .passes
            .sort(|path| view.has_changed(sync, path), may_repeat);
        if let Some(paths) = again {
            return self.compare_listed(paths, view, spawn, Purpose::Compare);
        }
        let missing = self.passes.missing();
        self.may_list = may_repeat;
        if missing.is_empty() || !may_repeat {
            return self.find_last(view);
        }
        let is_directory = |path: &[u8]| view.is_directory(sync, path);
        let scope = self.passes.expect(missing, &self.scope, is_directory);
        let by_content = self.request.by_content;
        match view.comparison(sync, &scope, by_content) {
            Ok(mut comparison) => {
                comparison.command.args.insert(0, b"--existing".to_vec());
                self.start(comparison.command, view, spawn, Purpose::Types)
            }
            Err(_) => self.find_last(view),
        }
    }

    /// Queues what differs, if that is requested.
    fn repair(&mut self, view: &impl AuditView) -> RunStep {
        let paths = self.passes.drifting();
        if !self.request.repairs || paths.is_empty() {
            return self.end(view);
        }
        let repairs = paths.into_iter().map(SyncCommand::Repair);
        let mut actions: Vec<_> = repairs.map(|command| self.command(command)).collect();
        actions.push(self.command(SyncCommand::Flush));
        self.stage = self.settle(AfterSettling::Check);
        RunStep::Actions(actions)
    }

    /// Ends the comparison, which is incomplete for this reason.
    pub fn end_early(&mut self, why: &str, view: &impl AuditView) -> RunStep {
        self.report.reason.get_or_insert(why.to_owned());
        self.end(view)
    }

    fn end(&mut self, view: &impl AuditView) -> RunStep {
        let report = &mut self.report;
        report.end = view.wall_time();
        (report.drift, report.differences) = self.passes.differences();
        (report.in_motion, report.moving) = self.passes.moving();
        report.repaired = self.passes.repaired();
        report.verdict = match (&report.reason, report.drift) {
            (Some(_), _) => DriftVerdict::Incomplete,
            (None, 0) => DriftVerdict::Equal,
            (None, _) => DriftVerdict::Drift,
        };
        self.stage = RunStage::End;
        RunStep::Done(Box::new(std::mem::take(report)))
    }
}
