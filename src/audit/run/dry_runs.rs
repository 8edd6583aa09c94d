//! Starts the children of a comparison.

use std::collections::BTreeSet;

use super::{DryRunSpawner, Run, RunStage, RunStep};
use crate::audit::child::Child;
use crate::audit::view::AuditView;
use crate::batch::dry_run::{DryRunOutput, Printed, Sampled};
use crate::component::SamplePlace;
use crate::log;
use crate::process::{Command, ExitStatus, Output, Stdin};
use crate::script::ComparisonScope;

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
        self.start(command, view, spawn, RunStage::Version)
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
                Ok(comparison) => self.start(comparison.command, view, spawn, RunStage::Compare),
                Err(why) => self.end_early(&why, view),
            };
        };
        match view.comparison(sync, &self.scope, false) {
            Ok(mut comparison) => {
                // All names are printed, those of equal files as well.
                let twice = [b"-i".to_vec(), b"-i".to_vec()];
                comparison.command.args.splice(0..0, twice);
                let output = DryRunOutput::sampling(Sampled::new(part, parts));
                let stage = RunStage::Compare;
                self.start_with(comparison.command, output, view, spawn, stage)
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
            Ok(comparison) => self.start(comparison.command, view, spawn, RunStage::Sample),
            Err(why) => self.end_early(&why, view),
        }
    }

    /// Compares some paths again.
    pub(super) fn compare_listed(
        &mut self,
        paths: BTreeSet<Vec<u8>>,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        stage: fn(Child) -> RunStage,
    ) -> RunStep {
        let sync = self.request.sync;
        let is_directory = |path: &[u8]| view.is_directory(sync, path);
        let scope = self.passes.expect(paths, &self.scope, is_directory);
        match view.comparison(sync, &scope, self.request.by_content) {
            Ok(comparison) => self.start(comparison.command, view, spawn, stage),
            Err(why) => self.end_early(&why, view),
        }
    }

    pub(super) fn start(
        &mut self,
        command: Command,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        stage: fn(Child) -> RunStage,
    ) -> RunStep {
        self.start_with(command, DryRunOutput::default(), view, spawn, stage)
    }

    fn start_with(
        &mut self,
        command: Command,
        output: DryRunOutput,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        stage: fn(Child) -> RunStage,
    ) -> RunStep {
        let program = log::escape(&command.program).into_owned();
        match spawn(command) {
            Ok(pid) => self.wait(stage(Child::new(pid, output))),
            Err(error) => self.end_early(&format!("cannot start {program}: {error}"), view),
        }
    }
}
