//! Details of differences: the entries of both sides, and the last transfer of each path.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{DryRunSpawner, Purpose, Run, RunStage, RunStep};
use crate::audit::view::AuditView;
use crate::batch::dry_run::DryRunOutput;
use crate::batch::listing;
use crate::component::Action;
use crate::process::Stdin;
use crate::script::Comparison;

/// The number of the last search of the transfer log. It distinguishes the search of an aborted run
/// from that of the next one.
static SEARCHES: AtomicU64 = AtomicU64::new(0);

impl Run {
    /// Searches the transfer log for the paths that differ.
    pub(super) fn find_last(&mut self, view: &impl AuditView) -> RunStep {
        let paths = self.passes.named();
        let syncs = view.syncs(Some(&self.report.sync));
        let sync = syncs.into_iter().find(|sync| sync.id == self.request.sync);
        let Some(sync) = sync.filter(|_| !paths.is_empty()) else {
            return self.repair(view);
        };
        let token = SEARCHES.fetch_add(1, Ordering::Relaxed) + 1;
        self.stage = RunStage::FindLast(token);
        RunStep::Actions(vec![Action::FindLast(token, sync.state_key, paths)])
    }

    /// Lists what the source has at the paths that differ.
    pub(super) fn list_source(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let Some((_, source)) = view.source(self.request.sync) else {
            return self.repair(view);
        };
        let list = |_: &Comparison, paths: &[Vec<u8>]| listing::arguments(&[], &source, paths);
        self.list(Purpose::ListSource, list, view, spawn)
    }

    /// Lists what the target has there.
    pub(super) fn list_target(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        if !self.may_list {
            return self.repair(view);
        }
        let list = |comparison: &Comparison, paths: &[Vec<u8>]| {
            listing::arguments(&comparison.command.args, &comparison.target, paths)
        };
        self.list(Purpose::ListTarget, list, view, spawn)
    }

    /// Starts a listing. A report without one is complete.
    fn list(
        &mut self,
        purpose: Purpose,
        arguments: impl FnOnce(&Comparison, &[Vec<u8>]) -> Vec<Vec<u8>>,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
    ) -> RunStep {
        let paths = self.passes.named();
        let comparison = view.comparison(self.request.sync, &self.scope, false);
        let Some(comparison) = comparison.ok().filter(|_| !paths.is_empty()) else {
            return self.repair(view);
        };
        let arguments = arguments(&comparison, &paths);
        let mut command = comparison.command;
        command.args = arguments;
        command.stdin = Stdin::Bytes(listing::list(&paths));
        let (name, value) = listing::TIME_ZONE;
        command.environment.push((name.into(), value.into()));
        let output = DryRunOutput::listing(paths);
        self.start_with(command, output, view, spawn, purpose)
    }
}
