//! What is reported of the daemon, to people, to monitoring, and to clients that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::super::*;
use super::rig::Site;
use crate::audit::{AuditView, Obstacle};
use crate::component::SyncCommand;
use crate::control::DaemonView;
use crate::daemon::watch_limit::{WatchLimit, kernel_limit};
use crate::id::{ConnectionId, SyncId};
use crate::process::ExitStatus;
use crate::queue::Etype;
use crate::script::SyncHandle;
use crate::status::snapshot::{Snapshot, SyncSnapshot};
use crate::status::state::{Severity, State};
use crate::sync::RetryEntries;
use crate::sync::tests::idle_watcher;
use crate::watch::Scope;

/// The time of an hour in microseconds.
const HOUR: Time = 3_600_000_000;

/// Returns the snapshot of the only sync.
fn snapshot_of(state: &DaemonState<'_>) -> SyncSnapshot {
    let Snapshot { mut syncs, .. } = state.snapshot(Some("one"), 10);
    assert_eq!(syncs.len(), 1);
    syncs.remove(0)
}

impl EventLoop<'_> {
    fn snapshot_of(&self) -> SyncSnapshot {
        snapshot_of(&self.state())
    }

    /// Returns the sync `one`, which has started up.
    fn one(&self) -> (Rc<SyncHandle>, SyncId) {
        let handle = Rc::clone(self.sync("one"));
        let id = handle.sync.borrow().id;
        (handle, id)
    }
}

#[test]
fn the_state_of_the_daemon_is_complete() {
    let seconds = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_secs_f64()
    };
    let begin = seconds() - 0.001;
    let mut site = Site::new();
    site.configure("", &["one"]);
    let root = format!("{}/", site.path("src").display());
    let event_loop = site.start_and_settle();
    let snapshot = event_loop.state().snapshot(None, 10);
    let times = [begin, snapshot.started, snapshot.time, seconds() + 0.001];
    assert!(times.is_sorted(), "{times:?}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(snapshot.version, crate::VERSION);
    assert_eq!(
        (&*snapshot.host, &*event_loop.state().host()),
        (host.trim(), host.trim())
    );
    assert_eq!(snapshot.pid, std::process::id());
    assert_eq!((snapshot.watches, snapshot.unwatched), (1, 0));
    assert_eq!(snapshot.watch_limit, kernel_limit());
    assert!(snapshot.watch_limit.is_some() && snapshot.memory > 1 << 20);
    assert!(!snapshot.ending && !snapshot.crawling && snapshot.reload_error.is_none());
    assert_eq!(snapshot.severity, Severity::Current);

    let mut limit = WatchLimit::new(Duration::ZERO);
    limit.on_refused(&BTreeSet::from([SyncId::new()]), Instant::now());
    let mut watcher = idle_watcher();
    watcher.set_scopes(vec![Scope {
        root: root.into_bytes(),
        wants: Arc::new(|_| true),
    }]);
    let state = DaemonState {
        watcher: &watcher,
        watch_limit: &limit,
        ending: true,
        reload_error: Some("wrong"),
        ..event_loop.state()
    };
    let snapshot = state.snapshot(None, 10);
    assert!(snapshot.crawling && snapshot.ending);
    assert_eq!(snapshot.unwatched, 1);
    assert_eq!(snapshot.reload_error.as_deref(), Some("wrong"));
}

#[test]
fn the_state_of_a_sync_is_complete() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let root = format!("{}/", site.path("src").display());
    let event_loop = site.start_and_settle();
    let (handle, _) = event_loop.one();
    let quiet = event_loop.snapshot_of();
    assert_eq!(
        (quiet.state, quiet.severity),
        (State::Current, Severity::Current)
    );
    assert_eq!((&*quiet.source, quiet.lag, quiet.pending), (&*root, 0.0, 0));
    assert!(quiet.watch.starts_with("inotify"), "{}", quiet.watch);
    assert!(quiet.totals.left_out.is_empty() && quiet.last_success.is_none());

    let now = event_loop.context.clock.now();
    {
        let mut sync = handle.sync.borrow_mut();
        sync.counters.bytes = 7;
        sync.counters.last_success =
            Some(SystemTime::UNIX_EPOCH + Duration::from_micros(12_345_400));
        sync.leave_out_long_path(&[b'/'; 5000]);
        sync.gate.blocked_mut().reject(b"/virus", "found".into());
        let mount = format!("{root}mount").into_bytes();
        sync.update_nested_mounts(&BTreeSet::from([mount]));
        sync.update_nested_mounts(&BTreeSet::new());
        sync.queue.push(Etype::Modify, b"/f", None, now + HOUR);
        sync.queue.push(Etype::Modify, b"/g", None, now + HOUR);
        let ids = sync.queue.iter().map(|delay| delay.id()).take(1);
        let ids: Vec<_> = ids.collect();
        let failed = RetryEntries::from([(b"/f".to_vec(), Etype::Modify)]);
        sync.begin(&ids);
        sync.defer_failed(&ids, &failed, false, now).unwrap();
    }
    let snapshot = event_loop.snapshot_of();
    assert_eq!(snapshot.totals.bytes, 7);
    assert_eq!(
        snapshot.totals.left_out,
        BTreeMap::from([("too_long".into(), 1)])
    );
    assert_eq!(snapshot.last_success, Some(12.345));
    assert_eq!((snapshot.withheld, snapshot.rejected), (1, 1));
    assert_eq!(snapshot.withheld_paths[0].path, "/virus");
    assert_eq!(snapshot.away, [format!("{root}mount")]);
    assert_eq!((snapshot.failed, snapshot.pending), (1, 1));
    assert_eq!(snapshot.failed_paths, ["/f"]);
    assert_eq!(snapshot.severity, Severity::Trouble);
    let samples = report::trend_samples(&event_loop.state());
    let samples: Vec<_> = samples.iter().map(|one| (&*one.name, one.bytes)).collect();
    assert_eq!(samples, [("one", 7)]);
}

#[test]
fn a_sync_that_sends_nothing_is_in_trouble() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let event_loop = site.start_and_settle();
    let (handle, _) = event_loop.one();
    let state = || {
        let snapshot = event_loop.snapshot_of();
        (snapshot.state, snapshot.severity)
    };
    handle.sync.borrow_mut().halt("a reason".into());
    assert_eq!(event_loop.snapshot_of().halted.as_deref(), Some("a reason"));
    assert_eq!(state(), (State::Halted, Severity::Trouble));
    handle.sync.borrow_mut().end(&[], ExitStatus::Exit(5), 0);
    assert_eq!(event_loop.snapshot_of().ended, Some(5));
    assert_eq!(state(), (State::Ended, Severity::Trouble));
}

#[test]
fn a_target_is_behind_since_the_oldest_change() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let event_loop = site.start_and_settle();
    let (handle, _) = event_loop.one();
    let now = event_loop.context.clock.now();
    // It is due after an hour.
    let mut sync = handle.sync.borrow_mut();
    sync.queue.push(Etype::Modify, b"/f", None, now + HOUR);
    drop(sync);
    let later = |started| DaemonState {
        now: now + 7_000_000,
        started,
        ..event_loop.state()
    };
    let lag = snapshot_of(&later(true)).lag;
    assert!((6.0..9.0).contains(&lag), "{lag}");
    // Before all directories are watched, the changes are not known.
    let born = SystemTime::now() - Duration::from_secs(60);
    let snapshot = snapshot_of(&DaemonState {
        born,
        ..later(false)
    });
    assert!((60.0..600.0).contains(&snapshot.lag), "{}", snapshot.lag);
    let detail = "starting, 1 directories watched so far";
    assert_eq!(
        (snapshot.state, &*snapshot.detail),
        (State::Starting, detail)
    );
}

#[test]
fn a_startup_is_told_from_other_comparisons() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let event_loop = site.start_and_settle();
    let (handle, _) = event_loop.one();
    handle
        .sync
        .borrow_mut()
        .queue
        .push(Etype::Full, b"/", None, 0);
    assert_eq!(event_loop.snapshot_of().state, State::Pending);
    handle
        .sync
        .borrow_mut()
        .queue
        .push(Etype::Init, b"", None, 0);
    let snapshot = event_loop.snapshot_of();
    assert_eq!(snapshot.state, State::Starting);
    assert_eq!(snapshot.detail, "starting, startup transfer waits");
}

#[test]
fn what_is_being_sent_is_reported() {
    let mut site = Site::new();
    site.compare_for_long();
    let mut event_loop = site.start();
    event_loop.poll_until(|event_loop| event_loop.sending.transfers().running() == 1);
    let pid = event_loop.sending.transfers().jobs().next().unwrap().0;
    let snapshot = event_loop.snapshot_of();
    let [sent] = &snapshot.sending[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!((sent.pid, sent.entries, sent.full), (pid.0, 1, true));
    assert_eq!((snapshot.state, sent.stalled), (State::Starting, None));
    assert!(sent.paths.is_empty() && (0.0..600.0).contains(&sent.seconds));
    event_loop.sending.abandon();
}

#[test]
fn files_that_are_being_sent_are_named() {
    let mut site = Site::new();
    let keys = "delay = 0, action = function(inlet)
           spawn(inlet.getEvents(), '/bin/sleep', '300')
         end";
    site.write("", keys);
    let source = site.path("src");
    let mut event_loop = site.start();
    fs::write(source.join("f"), "x").unwrap();
    event_loop.poll_until(|event_loop| event_loop.sending.transfers().running() == 1);
    let snapshot = event_loop.snapshot_of();
    let sent = &snapshot.sending[0];
    // Its creation and its contents may be two events.
    assert!(!sent.paths.is_empty() && sent.paths.iter().all(|path| path == "/f"));
    assert!(!sent.full && sent.seconds > 0.0);
    event_loop.sending.abandon();
}

/// lsyncdctl status -wait must not return before.
#[test]
fn a_mark_is_reached_when_the_changes_before_it_are_gone() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let event_loop = site.start_and_settle();
    let (handle, id) = event_loop.one();
    handle
        .sync
        .borrow_mut()
        .queue
        .push(Etype::Modify, b"/f", None, 0);
    let state = event_loop.state();
    let mut mark = state.mark(id).unwrap();
    assert!(!state.reached(id, &mut mark));
    handle
        .sync
        .borrow_mut()
        .queue
        .push(Etype::Modify, b"/g", None, 0);
    let mut sync = handle.sync.borrow_mut();
    let first = sync.queue.oldest().unwrap().id();
    sync.queue.discard(first);
    drop(sync);
    assert!(state.reached(id, &mut mark));
    let moment = state.event_mark();
    assert!(state.has_reported(moment));
    let crawling = DaemonState {
        started: false,
        ..event_loop.state()
    };
    assert!(!crawling.has_reported(moment));
    assert!(state.mark(SyncId::new()).is_none());
}

/// A comparison for a client that is gone must not go on, and one of a sync that is stuck must not
/// wait for ever.
#[test]
fn a_comparison_is_told_of_clients_and_obstacles() {
    let mut site = Site::new();
    fs::create_dir(site.path("src/d")).unwrap();
    fs::write(site.path("src/f"), "").unwrap();
    site.configure("", &["one"]);
    let event_loop = site.start_and_settle();
    let (handle, id) = event_loop.one();
    let gone = ConnectionId {
        place: 0,
        serial: 0,
    };
    assert!(!event_loop.state().is_connected(gone));
    let is_directory = |path: &[u8]| event_loop.state().is_directory(id, path);
    let found = [&b"/d/"[..], b"/f", b"/none"].map(is_directory);
    assert_eq!(found, [Some(true), Some(false), None]);

    let now = event_loop.context.clock.now();
    let fails_at = |time| {
        let state = DaemonState {
            now: time,
            ..event_loop.state()
        };
        let obstacle = state.obstacle(id);
        assert!(!matches!(obstacle, Some(Obstacle::Halted(_))));
        obstacle.is_some()
    };
    assert!(!fails_at(now));
    let mut sync = handle.sync.borrow_mut();
    sync.queue.push(Etype::Modify, b"/f", None, now);
    let ids = [sync.queue.oldest().unwrap().id()];
    let wait = Time::try_from(sync.failed(&ids, now).as_micros()).unwrap();
    drop(sync);
    // The last one is the time of the retry.
    let times = [now, now + wait - 1, now + wait];
    assert_eq!(times.map(fails_at), [true, true, false]);
    handle.sync.borrow_mut().child_started();
    assert!(!fails_at(now));
    handle.sync.borrow_mut().child_ended();

    // One path fails.
    let mut sync = handle.sync.borrow_mut();
    sync.succeeded(&[]);
    let failed = RetryEntries::from([(b"/f".to_vec(), Etype::Modify)]);
    sync.defer_failed(&ids, &failed, false, now).unwrap();
    let due = sync.failed_paths().due().unwrap();
    drop(sync);
    assert_eq!([due - 1, due].map(fails_at), [true, false]);

    event_loop
        .sync("one")
        .sync
        .borrow_mut()
        .execute(&SyncCommand::Pause, now);
    let obstacle = event_loop.state().obstacle(id);
    assert!(
        matches!(obstacle, Some(Obstacle::Halted(_))),
        "{obstacle:?}"
    );
}

/// Writes both report files.
fn write(state: &DaemonState<'_>, status: &Path, metrics: &Path) {
    let mut files = ReportFiles::new(&Settings {
        status_file: Some(status.to_owned()),
        metrics_file: Some(metrics.to_owned()),
        ..state.script.settings.clone()
    });
    assert_eq!(files.on_turn(state, Instant::now()), []);
}

#[test]
fn report_files_tell_what_is_wrong() {
    let mut site = Site::new();
    site.configure("", &["one"]);
    let (text, json) = (site.path("status"), site.path("status.json"));
    let (written, healthy) = (site.path("metrics"), site.path("healthy"));
    let root = format!("{}/", site.path("src").display());
    let event_loop = site.start_and_settle();
    let (handle, id) = event_loop.one();
    let mut sync = handle.sync.borrow_mut();
    sync.halt("a reason".into());
    sync.queue.push(Etype::Modify, b"/waits", None, 0);
    for number in 0..101 {
        let path = format!("/{number}");
        sync.gate
            .blocked_mut()
            .reject(path.as_bytes(), "a virus".into());
    }
    drop(sync);
    let mut limit = WatchLimit::new(Duration::ZERO);
    limit.on_refused(&BTreeSet::from([id]), Instant::now());
    let state = DaemonState {
        watch_limit: &limit,
        ..event_loop.state()
    };
    for file in [&text, &json] {
        write(&state, file, &written);
    }
    let [text, json, metrics] =
        [&text, &json, &written].map(|file| fs::read_to_string(file).unwrap());
    for expected in [
        "Halted: a reason\n",
        "Rejected: /0: a virus\n",
        "and 1 more files are rejected or held\n",
        "Not all directories are watched",
        "wait   Modify /waits\n",
        "Inotify watching 1 directories\n",
        &root,
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert_eq!(text.matches("Rejected: ").count(), 100);
    let json: Snapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(json.syncs[0].halted.as_deref(), Some("a reason"));
    assert!(metrics.contains("lsyncd_"), "{metrics}");

    handle.sync.borrow_mut().resume(None);
    *handle.sync.borrow().gate.blocked_mut() = Default::default();
    write(&event_loop.state(), &healthy, &written);
    let healthy = fs::read_to_string(&healthy).unwrap();
    for trouble in ["Halted", "Rejected", "more files", "Not all"] {
        assert!(!healthy.contains(trouble), "{healthy}");
    }
}
