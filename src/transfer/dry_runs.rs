//! Dry runs of transfers whose deletions are limited: start, count of the source, and result.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::delete_limit::{DryRun, DryRunResult, put_off};
use super::job::Job;
use super::transfers::Transfers;
use crate::component::Action;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::Time;
use crate::script::SpawnRequest;

impl Transfers {
    /// Starts the dry run of a transfer.
    pub(super) fn start_dry_run(&mut self, request: SpawnRequest, now: Time) -> Vec<Action> {
        let command = DryRun::command(&request);
        let spawned = self.children.borrow_mut().spawn(command);
        let script = Rc::clone(&self.script);
        match spawned {
            Ok(pid) => self.add(pid, Job::dry_run(DryRun::new(request), script)),
            Err(error) => {
                let program = request.program.clone();
                let job = Job::unsent(request, script);
                return self.not_spawned(&job, &program, error, now);
            }
        }
        Vec::new()
    }

    /// Evaluates the dry runs whose count is complete.
    pub fn on_counted(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for (mut job, status, count) in self.counts.ended() {
            job.leave();
            let Some(dry_run) = job.dry_run.take() else {
                continue;
            };
            let Some(count) = count else {
                // The daemon is shutting down.
                let ids = dry_run.ids();
                job.handle.sync.borrow_mut().failed(ids, now);
                continue;
            };
            dry_run.on_counted(count);
            actions.extend(self.dry_run_ended(dry_run, status, VecDeque::new(), now));
        }
        actions
    }

    /// Starts the transfer of a dry run, defers its entries, or counts the source first. The
    /// failure of a dry run is handled as one of the transfer, which is not started.
    pub(super) fn dry_run_ended(
        &mut self,
        dry_run: DryRun,
        status: ExitStatus,
        errors: VecDeque<Vec<u8>>,
        now: Time,
    ) -> Vec<Action> {
        if !dry_run.may_be_followed() {
            dry_run.put_back(now);
            return Vec::new();
        }
        match dry_run.result(status) {
            DryRunResult::Failed => {
                log::warn(format_args!(
                    "{}: the dry run for maxDelete failed, nothing is sent",
                    dry_run.handle().sync.borrow().config.name
                ));
                let job = Job::unsent(dry_run.into_request(), Rc::clone(&self.script));
                job.take_errors(errors);
                return self.evaluate(&job, status, now);
            }
            DryRunResult::Transfer(most) => {
                return self.execute(dry_run.into_limited_request(most), now);
            }
            DryRunResult::Exceeded(deleted, total) => {
                put_off(&dry_run.handle(), dry_run.ids(), deleted, total, now);
            }
            DryRunResult::Count => {
                let job = Job::dry_run(dry_run, Rc::clone(&self.script));
                let waker = Arc::clone(&self.waker);
                self.counts.start(job, status, waker, now);
            }
        }
        Vec::new()
    }
}
