//! Starts the children of a comparison.

use std::collections::BTreeSet;

use super::{DryRunSpawner, Purpose, Run, RunStage, RunStep};
use crate::audit::child::Child;
use crate::audit::view::AuditView;
use crate::batch::dry_run::{self, DryRunOutput, Printed, Sampled, TELL_CHECKSUM};
use crate::component::SamplePlace;
use crate::log;
use crate::process::{Command, ExitStatus, Output, Stdin};
use crate::script::{Comparison, ComparisonScope};

impl Run {
    pub(super) fn ask_version(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let by_content = self.request.by_content;
        let comparison = match view.comparison(self.request.sync, &self.scope, by_content) {
            Ok(comparison) => comparison,
            Err(why) => return self.end_early(&why, view),
        };
        self.remote_version = view.remote_version(self.request.sync, &comparison);
        let text = |bytes: &Vec<u8>| log::escape(bytes).into_owned();
        let program = comparison.command.program;
        let words = [&program].into_iter().chain(&comparison.command.args);
        self.report.command = words.map(text).collect();
        self.report.target = text(&comparison.target);
        self.report.filters = comparison.filters.iter().map(text).collect();
        let command = Command {
            args: vec![b"--version".to_vec()],
            stdin: Stdin::Null,
            output: Output::Lines,
            ..Command::new(program)
        };
        self.start(command, view, spawn, Purpose::Version)
    }

    /// Asks the rsync on the target for its version, if there is a way to.
    pub(super) fn ask_remote_version(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        match self.remote_version.take() {
            Some(command) => self.start(command, view, spawn, Purpose::RemoteVersion),
            None => self.compare_first(view, spawn),
        }
    }

    /// Compares the whole scope: contents, too, unless there is a sample of them.
    pub(super) fn compare_first(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let (sync, by_content) = (self.request.sync, self.request.by_content);
        let Some(SamplePlace { part, parts }) = self.request.sample else {
            return match view.comparison(sync, &self.scope, by_content) {
                Ok(mut comparison) => {
                    self.ask_checksum(by_content, &mut comparison);
                    self.start(comparison.command, view, spawn, Purpose::Compare)
                }
                Err(why) => self.end_early(&why, view),
            };
        };
        match view.comparison(sync, &self.scope, false) {
            Ok(mut comparison) => {
                // All names are printed, those of equal files as well.
                let twice = [b"-i".to_vec(), b"-i".to_vec()];
                comparison.command.args.splice(0..0, twice);
                let output = DryRunOutput::sampling(Sampled::new(part, parts));
                let purpose = Purpose::Compare;
                self.start_with(comparison.command, output, view, spawn, purpose)
            }
            Err(why) => self.end_early(&why, view),
        }
    }

    /// Compares the contents of the sampled files.
    pub(super) fn compare_sample(
        &mut self,
        sampled: Sampled,
        printed: Printed,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        if let Some(sample) = &mut self.report.sample {
            sample.files = sampled.files;
        }
        if sampled.is_cut {
            return self.end_early("the sample has too many files; choose a smaller one", view);
        }
        if sampled.files == 0 {
            return self.on_compared(ExitStatus::Exit(0), printed, view);
        }
        self.held = Some(printed);
        let files = ComparisonScope::Files(sampled.names);
        match view.comparison(self.request.sync, &files, true) {
            Ok(mut comparison) => {
                self.ask_checksum(true, &mut comparison);
                self.start(comparison.command, view, spawn, Purpose::Sample)
            }
            Err(why) => self.end_early(&why, view),
        }
    }

    /// Makes a dry run that compares contents report the checksum, if its rsync supports that.
    fn ask_checksum(&self, by_content: bool, comparison: &mut Comparison) {
        if by_content && dry_run::tells_checksum(self.report.rsync.as_bytes()) {
            comparison.command.args.insert(0, TELL_CHECKSUM.to_vec());
        }
    }

    /// Compares some paths again.
    pub(super) fn compare_listed(
        &mut self,
        paths: BTreeSet<Vec<u8>>,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        purpose: Purpose,
    ) -> RunStep {
        let sync = self.request.sync;
        let is_directory = |path: &[u8]| view.is_directory(sync, path);
        let scope = self.passes.expect(paths, &self.scope, is_directory);
        match view.comparison(sync, &scope, self.request.by_content) {
            Ok(comparison) => self.start(comparison.command, view, spawn, purpose),
            Err(why) => self.end_early(&why, view),
        }
    }

    pub(super) fn start(
        &mut self,
        command: Command,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        purpose: Purpose,
    ) -> RunStep {
        self.start_with(command, DryRunOutput::default(), view, spawn, purpose)
    }

    pub(super) fn start_with(
        &mut self,
        command: Command,
        output: DryRunOutput,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        purpose: Purpose,
    ) -> RunStep {
        let program = log::escape(&command.program).into_owned();
        match spawn(command) {
            Ok(pid) => self.wait(RunStage::Running(purpose, Child::new(pid, output))),
            Err(error) => self.end_early(&format!("cannot start {program}: {error}"), view),
        }
    }
}
