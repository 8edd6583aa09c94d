//! Tests of the component, with a daemon whose state they set and dry runs that they end.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::view::{AuditView, Obstacle};
use super::{AuditStep, Audits};
use crate::component::{Action, AuditRequest, AuditScope, SamplePlace, SyncCommand, WatchAction};
use crate::control::fake_view::FakeView;
use crate::control::{DaemonView, SyncView};
use crate::history::{LastEntry, Operation};
use crate::id::{ConnectionId, SyncId};
use crate::process::{Command, ExitStatus, Pid, Stream};
use crate::script::{Comparison, ComparisonScope};
use crate::status::drift_report::{DriftReport, DriftVerdict};
use crate::status::snapshot::Snapshot;
use crate::status::trends::TrendPage;
use crate::sync::Mark;
use crate::watch::EventMark;

const CLIENT: ConnectionId = ConnectionId {
    place: 0,
    serial: 1,
};

struct FakeDaemon {
    view: FakeView,
    is_connected: Cell<bool>,
    obstacle: RefCell<Option<Obstacle>>,
    changed: RefCell<Vec<&'static [u8]>>,
    sample: Option<SamplePlace>,
    /// The scopes of the dry runs.
    scopes: RefCell<Vec<ComparisonScope>>,
}

impl DaemonView for FakeDaemon {
    fn syncs(&self, name: Option<&str>) -> Vec<SyncView> {
        self.view.syncs(name)
    }

    fn snapshot(&self, name: Option<&str>, entries: usize) -> Snapshot {
        self.view.snapshot(name, entries)
    }

    fn trends(&self, name: Option<&str>) -> TrendPage {
        self.view.trends(name)
    }

    fn explain(&self, name: Option<&str>, path: &[u8]) -> String {
        self.view.explain(name, path)
    }

    fn leaves_out(&self, sync: SyncId, path: &[u8]) -> bool {
        self.view.leaves_out(sync, path)
    }

    fn event_mark(&self) -> EventMark {
        self.view.event_mark()
    }

    fn has_reported(&self, moment: EventMark) -> bool {
        self.view.has_reported(moment)
    }

    fn would_change(&self, sync: SyncId, command: &SyncCommand) -> bool {
        self.view.would_change(sync, command)
    }

    fn mark(&self, sync: SyncId) -> Option<Mark> {
        self.view.mark(sync)
    }

    fn reached(&self, sync: SyncId, mark: &mut Mark) -> bool {
        self.view.reached(sync, mark)
    }
}

impl AuditView for FakeDaemon {
    fn is_connected(&self, _: ConnectionId) -> bool {
        self.is_connected.get()
    }

    fn source(&self, sync: SyncId) -> Option<(String, Vec<u8>)> {
        let known = self.view.syncs.iter().find(|view| view.id == sync)?;
        Some((known.name.clone(), known.source.clone()))
    }

    fn obstacle(&self, _: SyncId) -> Option<Obstacle> {
        self.obstacle.borrow().clone()
    }

    fn has_changed(&self, _: SyncId, path: &[u8]) -> bool {
        self.changed.borrow().contains(&path)
    }

    fn is_directory(&self, _: SyncId, _: &[u8]) -> Option<bool> {
        Some(false)
    }

    fn comparison(
        &self,
        _: SyncId,
        scope: &ComparisonScope,
        _: bool,
    ) -> Result<Comparison, String> {
        self.scopes.borrow_mut().push(scope.clone());
        Ok(Comparison {
            command: Command::new("rsync"),
            target: b"/trg/".to_vec(),
            filters: Vec::new(),
        })
    }

    fn sample(&self, _: SyncId) -> Option<SamplePlace> {
        self.sample
    }

    fn remote_version(&self, _: SyncId, _: &Comparison) -> Option<Command> {
        None
    }

    fn host(&self) -> String {
        "here".to_owned()
    }

    fn wall_time(&self) -> f64 {
        5.0
    }
}

struct Fixture {
    audits: Audits,
    daemon: FakeDaemon,
    /// The programs that were started.
    started: Vec<Command>,
    now: Instant,
    reports: Vec<DriftReport>,
}

impl Fixture {
    /// Returns a daemon with one sync, and a request of a client to verify it.
    fn new() -> Fixture {
        let view = FakeView::new(&["one"]);
        view.has_reported.set(true);
        let id = view.syncs[0].id;
        view.done.borrow_mut().push(id);
        let mut fixture = Fixture {
            audits: Audits::default(),
            daemon: FakeDaemon {
                view,
                is_connected: Cell::new(true),
                obstacle: RefCell::default(),
                changed: RefCell::default(),
                sample: None,
                scopes: RefCell::default(),
            },
            started: Vec::new(),
            now: Instant::now(),
            reports: Vec::new(),
        };
        fixture.request(false);
        fixture
    }

    fn id(&self) -> SyncId {
        self.daemon.view.syncs[0].id
    }

    fn request(&mut self, repairs: bool) {
        self.audits.on_request(AuditRequest {
            client: Some(CLIENT),
            scope: AuditScope {
                syncs: vec![(self.id(), Vec::new())],
                by_content: false,
                repairs,
                sample: None,
            },
        });
    }

    /// Runs a turn and returns its actions.
    fn turn(&mut self) -> Vec<Action> {
        self.now += Duration::from_secs(1);
        let started = &mut self.started;
        let spawn = &mut |command| {
            started.push(command);
            Ok(Pid(started.len() as u32))
        };
        let mut all = Vec::new();
        loop {
            match self.audits.on_step(&self.daemon, spawn, self.now) {
                AuditStep::Waiting => return all,
                AuditStep::Actions(actions) => {
                    for action in actions {
                        match action {
                            Action::FindLast(token, _, paths) => {
                                let last = LastEntry {
                                    time: 4.0,
                                    operation: Operation::Sent,
                                    reason: None,
                                };
                                let last = vec![Some(last); paths.len()];
                                self.audits.on_last_found(token + 1, Vec::new());
                                self.audits.on_last_found(token, last);
                            }
                            other => all.push(other),
                        }
                    }
                }
                AuditStep::Done(client, reports) => {
                    assert!(client.is_none_or(|client| client == CLIENT));
                    self.reports.extend(reports);
                }
            }
        }
    }

    /// Ends the running child, which prints these lines, and runs a turn.
    fn end(&mut self, lines: &[&str], code: i32) -> Vec<Action> {
        let pid = Pid(self.started.len() as u32);
        assert!(self.audits.owns(pid));
        for line in lines {
            self.audits.on_output(pid, Stream::Stdout, line.as_bytes());
        }
        self.audits.on_ended(pid, ExitStatus::Exit(code));
        self.turn()
    }

    /// Ends the listings of the source and of the target, and runs a turn.
    fn list(&mut self) -> Vec<Action> {
        self.end(&["-rw-r--r-- 3 1970/01/01 00:00:07 f"], 0);
        self.end(&["-rw------- 4 1970/01/01 00:00:08 f"], 23)
    }

    /// Runs turns until the first dry run has started.
    fn compare(&mut self) {
        self.turn();
        self.end(&["rsync  version 3"], 0);
        assert_eq!(self.started.len(), 2);
    }

    fn command(&self, command: SyncCommand) -> Action {
        Action::Command(self.id(), command)
    }
}

const F_DIFFERS: &str = "//>fc........//3//f//";

#[test]
fn the_comparison_begins_when_everything_is_at_the_target() {
    let mut fixture = Fixture::new();
    let id = fixture.id();
    fixture.daemon.view.done.borrow_mut().clear();
    let actions = fixture.turn();
    let expected = [
        fixture.command(SyncCommand::RecordChanges),
        fixture.command(SyncCommand::Flush),
        fixture.command(SyncCommand::Retry),
        Action::Watch(WatchAction::ReportOpenFiles),
        fixture.command(SyncCommand::Flush),
    ];
    assert_eq!(
        (actions.as_slice(), fixture.started.len()),
        (&expected[..], 0)
    );
    fixture.daemon.view.done.borrow_mut().push(id);
    fixture.compare();
    let actions = fixture.end(&["Number of files: 7 (reg: 7)"], 0);
    assert_eq!(actions[0], fixture.command(SyncCommand::ForgetChanges));
    let report = &fixture.reports[0];
    assert_eq!(
        (report.verdict, report.entries),
        (DriftVerdict::Equal, Some(7))
    );
    assert_eq!(
        (report.rsync.as_str(), report.host.as_str()),
        ("rsync  version 3", "here")
    );
}

/// The watcher tells nobody that it has reported the last event before a moment.
#[test]
fn a_step_is_requested_while_events_are_outstanding() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.audits.deadline(), None);
    fixture.daemon.view.has_reported.set(false);
    fixture.turn();
    assert!(fixture.audits.deadline() > Some(fixture.now));
    fixture.daemon.view.has_reported.set(true);
    fixture.turn();
    assert_eq!(fixture.audits.deadline(), None);
    assert_eq!(fixture.started.len(), 1);
}

#[test]
fn the_client_is_told_of_a_shutdown_and_the_dry_run_ends() {
    let mut fixture = Fixture::new();
    fixture.request(false);
    fixture.turn();
    let (clients, actions) = fixture.audits.on_shutdown();
    assert_eq!(clients, [CLIENT, CLIENT]);
    let expected = [
        Action::SignalTree(Pid(1), Signal::SIGTERM),
        fixture.command(SyncCommand::ForgetChanges),
    ];
    assert_eq!(actions, expected);
    assert!(fixture.turn().is_empty() && fixture.audits.owns(Pid(1)));
}

#[test]
fn a_difference_is_drift_only_after_a_second_barrier() {
    let mut fixture = Fixture::new();
    fixture.compare();
    fixture.daemon.view.done.borrow_mut().clear();
    let actions = fixture.end(&[F_DIFFERS], 0);
    assert_eq!(actions[0], fixture.command(SyncCommand::DivideChanges));
    assert!(fixture.reports.is_empty());
    let id = fixture.id();
    fixture.daemon.view.done.borrow_mut().push(id);
    fixture.turn();
    fixture.list();
    let report = &fixture.reports[0];
    assert_eq!((report.verdict, report.drift), (DriftVerdict::Drift, 1));
    assert_eq!(fixture.started.len(), 4);
    let found = &report.differences[0];
    let (source, target) = (found.source.clone(), found.target.clone());
    let (source, target) = (source.unwrap(), target.unwrap());
    assert_eq!((source.size, source.time), (3, 7));
    assert_eq!((target.size, target.time), (4, 8));
    let last = found.last.clone().unwrap();
    assert_eq!((last.operation.as_str(), last.time), ("sent", 4.0));
}

#[test]
fn what_never_rests_is_in_motion_after_three_dry_runs() {
    let mut fixture = Fixture::new();
    fixture.daemon.changed.borrow_mut().push(b"/f");
    fixture.compare();
    for _ in 0..3 {
        assert!(fixture.reports.is_empty());
        fixture.end(&[F_DIFFERS], 0);
    }
    let report = &fixture.reports[0];
    assert_eq!((report.verdict, report.drift), (DriftVerdict::Equal, 0));
    assert_eq!(
        (report.in_motion, report.moving.join(" ")),
        (1, "/f".to_owned())
    );
    let scopes = fixture.daemon.scopes.borrow();
    let lists = scopes
        .iter()
        .filter(|scope| matches!(scope, ComparisonScope::Paths(_)));
    assert_eq!(lists.count(), 2);
}

#[test]
fn what_changes_during_a_dry_run_that_fails_is_not_compared_again() {
    let mut fixture = Fixture::new();
    fixture.daemon.changed.borrow_mut().push(b"/f");
    fixture.compare();
    fixture.end(&[F_DIFFERS, "//*deleting  //0//g//"], 12);
    // The target is not asked again.
    fixture.end(&[], 0);
    let report = &fixture.reports[0];
    assert_eq!(report.verdict, DriftVerdict::Incomplete);
    assert_eq!(
        (report.drift, report.in_motion, fixture.started.len()),
        (1, 1, 3)
    );
}

#[test]
fn a_halted_sync_is_not_compared_and_a_failing_one_is() {
    for (obstacle, children) in [
        (Obstacle::Halted("no source".into()), 0),
        (Obstacle::Failing("one path fails".into()), 1),
    ] {
        let mut fixture = Fixture::new();
        fixture.daemon.view.done.borrow_mut().clear();
        *fixture.daemon.obstacle.borrow_mut() = Some(obstacle);
        fixture.turn();
        assert_eq!(fixture.started.len(), children);
        if children > 0 {
            fixture.end(&[], 0);
            fixture.end(&[], 0);
        }
        assert_eq!(fixture.reports[0].verdict, DriftVerdict::Incomplete);
    }
}

#[test]
fn a_client_that_is_gone_and_a_sync_that_is_gone_end_the_dry_run() {
    for is_reload in [false, true] {
        let mut fixture = Fixture::new();
        fixture.compare();
        let forget = fixture.command(SyncCommand::ForgetChanges);
        if is_reload {
            fixture.daemon.view.syncs.clear();
        } else {
            fixture.daemon.is_connected.set(false);
        }
        let actions = fixture.turn();
        let kill = Action::SignalTree(Pid(2), Signal::SIGTERM);
        assert_eq!(actions[..2], [kill, forget]);
        assert_eq!(fixture.reports.len(), usize::from(is_reload));
        // Its further output and its end are ignored.
        assert!(fixture.audits.owns(Pid(2)));
        fixture.end(&[F_DIFFERS], 20);
        assert!(!fixture.audits.owns(Pid(2)));
    }
}

#[test]
fn a_repair_is_proved_and_the_next_request_waits() {
    let mut fixture = Fixture::new();
    fixture.request(true);
    fixture.compare();
    fixture.end(&[], 0);
    assert_eq!((fixture.reports.len(), fixture.started.len()), (1, 3));
    fixture.end(&["rsync  version 3"], 0);
    fixture.end(&[F_DIFFERS, "//.f...p.....//3//g//"], 0);
    let actions = fixture.list();
    for path in [b"/f", b"/g"] {
        let repair = fixture.command(SyncCommand::Repair(path.to_vec()));
        assert!(actions.contains(&repair), "{actions:?}");
    }
    fixture.end(&["//.f...p.....//3//g//"], 0);
    let report = &fixture.reports[1];
    let repaired: Vec<_> = report
        .differences
        .iter()
        .map(|each| each.repaired)
        .collect();
    assert_eq!(
        (report.verdict, repaired),
        (DriftVerdict::Drift, vec![true, false])
    );
}

#[test]
fn a_sample_goes_on_where_the_last_one_ended() {
    let mut fixture = Fixture::new();
    fixture.compare();
    fixture.end(&[], 0);
    fixture.daemon.sample = Some(SamplePlace { part: 1, parts: 2 });
    let saved = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::SaveSample(_, place) => Some(place.part),
            _ => None,
        })
    };
    for (part, next) in [(2, 0), (1, 1), (2, 0)] {
        let id = fixture.id();
        fixture.audits.on_request(AuditRequest {
            client: None,
            scope: AuditScope {
                syncs: vec![(id, Vec::new())],
                by_content: true,
                repairs: false,
                sample: Some(2),
            },
        });
        fixture.turn();
        fixture.end(&["rsync  version 3"], 0);
        let names: Vec<String> = (0..20)
            .map(|n| format!("//.f         //3//f{n}//"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(fixture.end(&names, 0), []);
        let scope = fixture.daemon.scopes.borrow().last().cloned();
        assert!(
            matches!(scope, Some(ComparisonScope::Files(_))),
            "{scope:?}"
        );
        let actions = fixture.end(&[], 0);
        assert_eq!(saved(&actions), Some(next));
        let sample = fixture.reports.last().unwrap().sample.unwrap();
        assert_eq!((sample.part, sample.parts), (part, 2));
        assert!((1..20).contains(&sample.files));
    }
}

#[test]
fn drift_is_told_and_kept() {
    let mut fixture = Fixture::new();
    fixture.compare();
    let actions = [fixture.end(&[F_DIFFERS], 0), fixture.list()].concat();
    let news = actions.iter().find_map(|action| match action {
        Action::TellDrift(_, news) => Some(news.clone()),
        _ => None,
    });
    let news = news.expect("drift is told");
    assert_eq!(news.text, "verify: 1 difference at the target");
    assert_eq!((news.paths.as_slice(), news.is_cut), (&b"/f\0"[..], false));
    let kept = |action: &Action| matches!(action, Action::KeepReport(_));
    assert!(actions.iter().any(kept));
}
