//! The component: requests of clients, one after the other.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use nix::sys::signal::Signal;

use super::run::{DryRunSpawner, Run, RunRequest, RunStep};
use super::view::AuditView;
use crate::component::{Action, AuditRequest, DriftNews, SamplePlace, SyncCommand};
use crate::history::LastEntry;
use crate::id::{ConnectionId, SyncId};
use crate::log;
use crate::process::{ExitStatus, Pid, Stream};
use crate::status::drift_report::{DriftReport, DriftVerdict, ReportSample};
use crate::status::number_format::counted;
use crate::status::snapshot::{LastVerify, VerifyProgress};

/// The result of a step.
pub enum AuditStep {
    /// Actions, then the next step.
    Actions(Vec<Action>),
    /// The reports for a client, if one has asked for them, then the next step.
    Done(Option<ConnectionId>, Vec<DriftReport>),
    /// Nothing until something happens.
    Waiting,
}

/// The comparisons that clients and the configuration have requested.
#[derive(Default)]
pub struct Audits {
    waiting: VecDeque<AuditRequest>,
    current: Option<Audit>,
    /// The last results by sync.
    last: HashMap<SyncId, LastVerify>,
    /// The next parts of samples.
    samples: HashMap<SyncId, SamplePlace>,
    /// The children of aborted audits, until they end.
    left: RefCell<Vec<Pid>>,
}

/// The request that is being carried out.
struct Audit {
    client: Option<ConnectionId>,
    remaining: VecDeque<RunRequest>,
    run: Option<(SyncId, Run)>,
    reports: Vec<DriftReport>,
}

impl Audits {
    /// Takes in a request. One of the configuration is dropped while an equal one waits.
    pub fn on_request(&mut self, request: AuditRequest) {
        if request.client.is_some() || !self.waiting.contains(&request) {
            self.waiting.push_back(request);
        }
    }

    /// Returns the last result for a sync.
    pub fn last(&self, sync: SyncId) -> Option<&LastVerify> {
        self.last.get(&sync)
    }

    /// Returns what the comparison of a sync does now, if one runs.
    pub fn progress(&self, sync: SyncId) -> Option<VerifyProgress> {
        let (compared, run) = self.run()?;
        (*compared == sync).then(|| run.progress())
    }

    /// Takes in the result of [`Action::FindLast`].
    pub fn on_last_found(&mut self, token: u64, last: Vec<Option<LastEntry>>) {
        let run = self.current.as_mut().and_then(|audit| audit.run.as_mut());
        if let Some((_, run)) = run {
            run.on_last_found(token, last);
        }
    }

    /// Returns true if the process is a dry run.
    pub fn owns(&self, pid: Pid) -> bool {
        self.child() == Some(pid) || self.left.borrow().contains(&pid)
    }

    /// Returns when [`Audits::on_step`] has something to do without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let (_, run) = self.current.as_ref()?.run.as_ref()?;
        run.deadline()
    }

    /// Takes in a line of output of a dry run.
    pub fn on_output(&self, pid: Pid, stream: Stream, line: &[u8]) {
        if let Some((_, run)) = self.run()
            && run.child() == Some(pid)
        {
            run.on_output(stream, line);
        }
    }

    /// Takes in the end of a dry run.
    pub fn on_ended(&mut self, pid: Pid, status: ExitStatus) {
        self.left.borrow_mut().retain(|&left| left != pid);
        if let Some(audit) = &mut self.current
            && let Some((_, run)) = &mut audit.run
            && run.child() == Some(pid)
        {
            run.on_ended(status);
        }
    }

    /// Takes the next step. Must be called right after the turn of the watcher, until it returns
    /// [`AuditStep::Waiting`].
    pub fn on_step(
        &mut self,
        view: &impl AuditView,
        spawn: DryRunSpawner<'_>,
        now: Instant,
    ) -> AuditStep {
        let is_wanted =
            |client: Option<ConnectionId>| client.is_none_or(|id| view.is_connected(id));
        self.waiting.retain(|request| is_wanted(request.client));
        if let Some(audit) = &self.current
            && !is_wanted(audit.client)
        {
            return AuditStep::Actions(self.give_up());
        }
        if self.current.is_none() {
            let Some(request) = self.waiting.pop_front() else {
                return AuditStep::Waiting;
            };
            self.last.retain(|sync, _| view.source(*sync).is_some());
            self.samples.retain(|sync, _| view.source(*sync).is_some());
            self.current = Some(Audit::new(request));
        }
        let Some(audit) = &mut self.current else {
            return AuditStep::Waiting;
        };
        let Some((sync, run)) = &mut audit.run else {
            if let Some(mut request) = audit.remaining.pop_front() {
                if let Some(place) = &mut request.sample {
                    let known = self.samples.get(&request.sync).copied();
                    let known = known.or_else(|| view.sample(request.sync));
                    let known = known.filter(|known| known.parts == place.parts);
                    place.part = known.map_or(0, |known| known.part % known.parts);
                }
                audit.run = Some((request.sync, Run::new(request)));
                return AuditStep::Actions(Vec::new());
            }
            let (client, reports) = (audit.client, std::mem::take(&mut audit.reports));
            self.current = None;
            return AuditStep::Done(client, reports);
        };
        // A reload may remove the sync under a running dry run.
        let child = run.child();
        match run.on_step(view, spawn, now) {
            RunStep::Actions(actions) => AuditStep::Actions(actions),
            RunStep::Waiting => AuditStep::Waiting,
            RunStep::Done(report) => {
                let sync = *sync;
                audit.reports.push((*report).clone());
                audit.run = None;
                let kill = child.map(|pid| self.leave(pid));
                let actions = self.on_report(sync, report);
                AuditStep::Actions(kill.into_iter().chain(actions).collect())
            }
        }
    }

    /// Returns what follows the report on a sync.
    fn on_report(&mut self, sync: SyncId, report: Box<DriftReport>) -> Vec<Action> {
        let drift = report.drift - report.repaired;
        let result = LastVerify {
            time: report.end,
            seconds: report.end - report.begin,
            verdict: report.verdict,
            drift,
        };
        self.last.insert(sync, result);
        let forget = Action::Command(sync, SyncCommand::ForgetChanges);
        let mut actions = vec![forget, Action::normal(told(&report))];
        if let Some(ReportSample { part, parts, .. }) = report.sample
            && report.verdict != DriftVerdict::Incomplete
        {
            let next = SamplePlace {
                part: part % parts.max(1),
                parts,
            };
            self.samples.insert(sync, next);
            actions.push(Action::SaveSample(sync, next));
        }
        if drift > 0 {
            let count = counted(drift as usize, "difference");
            let news = DriftNews {
                text: format!("verify: {count} at the target"),
                paths: paths_of(&report),
                is_cut: report.drift > report.differences.len() as u64,
            };
            actions.push(Action::TellDrift(sync, news));
        }
        actions.push(Action::KeepReport(report));
        actions
    }

    /// Drops all requests, because the daemon shuts down. Returns the clients to be notified, and
    /// the actions.
    pub fn on_shutdown(&mut self) -> (Vec<ConnectionId>, Vec<Action>) {
        let current = self.current.iter().map(|audit| audit.client);
        let waiting = self.waiting.iter().map(|request| request.client);
        let clients = current.chain(waiting).flatten().collect();
        self.waiting.clear();
        (clients, self.give_up())
    }

    /// Ends the current request without a report.
    fn give_up(&mut self) -> Vec<Action> {
        let kill = self.child().map(|pid| self.leave(pid));
        let run = self.current.take().and_then(|audit| audit.run);
        let forget = run.map(|(sync, _)| Action::Command(sync, SyncCommand::ForgetChanges));
        kill.into_iter().chain(forget).collect()
    }

    /// Ends a child that is not needed any more.
    fn leave(&self, pid: Pid) -> Action {
        self.left.borrow_mut().push(pid);
        Action::SignalTree(pid, Signal::SIGTERM)
    }

    fn run(&self) -> Option<&(SyncId, Run)> {
        self.current.as_ref()?.run.as_ref()
    }

    fn child(&self) -> Option<Pid> {
        self.run()?.1.child()
    }
}

impl Audit {
    fn new(request: AuditRequest) -> Audit {
        let AuditRequest { client, scope } = request;
        let remaining = scope.syncs.into_iter().map(|(sync, path)| RunRequest {
            sync,
            path,
            by_content: scope.by_content,
            repairs: scope.repairs,
            sample: scope.sample.map(|parts| SamplePlace { part: 0, parts }),
        });
        Audit {
            client,
            remaining: remaining.collect(),
            run: None,
            reports: Vec::new(),
        }
    }
}

/// Returns the paths that differ, each followed by a zero byte.
fn paths_of(report: &DriftReport) -> Vec<u8> {
    let left = report.differences.iter().filter(|each| !each.repaired);
    let mut paths = Vec::new();
    for difference in left {
        paths.extend(log::unescape(&difference.path));
        paths.push(0);
    }
    paths
}

/// Returns the message of the log for a report.
fn told(report: &DriftReport) -> String {
    let verdict = report.verdict.name();
    let mut text = format!(
        "verified {}: {verdict}",
        log::escape(report.sync.as_bytes())
    );
    if report.drift > 0 {
        text.push_str(&format!(", {} differences", report.drift));
    }
    if report.repaired > 0 {
        text.push_str(&format!(", {} repaired", report.repaired));
    }
    if let Some(reason) = &report.reason {
        text.push_str(&format!(", {reason}"));
    }
    text
}
