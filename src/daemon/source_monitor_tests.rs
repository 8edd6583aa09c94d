//! When syncs are halted and released, with trees and mount tables that the tests set.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use mlua::Lua;

use super::*;
use crate::daemon::sources::WatchedRoots;
use crate::mount_table;
use crate::queue::Etype;
use crate::state::StateDir;
use crate::sync::tests::sync_of;
use crate::sync::{Next, SourceIdentity};

/// Counts what is asked of the watched trees.
struct FakeRoots {
    is_crawling: bool,
    leads_home: bool,
    checks: usize,
    rebuilds: usize,
}

impl WatchedRoots for FakeRoots {
    fn crawling(&self) -> bool {
        self.is_crawling
    }

    fn leads_to_root(&mut self, _: &[u8]) -> bool {
        self.leads_home
    }

    fn check_roots(&mut self) {
        self.checks += 1;
    }

    fn retry_roots(&mut self) {}

    fn rebuild(&mut self) {
        self.rebuilds += 1;
    }
}

struct Fixture {
    monitor: SourceMonitor,
    syncs: [Rc<SyncHandle>; 1],
    roots: FakeRoots,
    mount_table: &'static dyn Fn() -> Vec<u8>,
    state: Option<StateDir>,
    now: Instant,
}

impl Fixture {
    fn new(source: &Path) -> Fixture {
        let mut path = source.as_os_str().as_bytes().to_vec();
        path.push(b'/');
        let now = Instant::now();
        Fixture {
            monitor: SourceMonitor::new(now),
            syncs: [SyncHandle::of_sync(&Lua::new(), sync_of(&path))],
            roots: FakeRoots {
                is_crawling: false,
                leads_home: true,
                checks: 0,
                rebuilds: 0,
            },
            mount_table: &mount_table::read,
            state: None,
            now,
        }
    }

    /// Returns a sync that is halted, and whose source could be sent.
    fn halted(source: &Path) -> Fixture {
        fs::write(source.join("file"), "").unwrap();
        let mut fixture = Fixture::new(source);
        fixture.start();
        fixture.syncs[0].sync.borrow_mut().halt("a test".into());
        fixture.turn();
        fixture
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut SourceMonitor, &mut Sources<'_>, Instant) -> T,
    ) -> T {
        let mut sources = Sources {
            syncs: &self.syncs,
            roots: &mut self.roots,
            mount_table: self.mount_table,
            state: self.state.as_ref(),
            started: Some(0),
        };
        call(&mut self.monitor, &mut sources, self.now)
    }

    fn start(&mut self) -> Vec<Action> {
        self.call(|monitor, sources, now| monitor.on_start(sources, now))
    }

    fn turn(&mut self) -> Vec<Action> {
        self.call(|monitor, sources, now| monitor.on_turn(&[], sources, now))
    }

    fn check_ready(&mut self) -> (bool, Vec<Action>) {
        let handle = Rc::clone(&self.syncs[0]);
        self.call(|monitor, sources, now| monitor.check_ready(&handle, sources, (now, 0)))
    }

    /// Returns the directory that is accepted as the source.
    fn accepted(&self) -> Option<String> {
        let sync = self.syncs[0].sync.borrow();
        sync.accepted_source().map(SourceIdentity::to_line)
    }

    /// Returns a sync as the next daemon begins with it.
    fn next(&self) -> Sync {
        let mut sync = sync_of(&self.syncs[0].sync.borrow().config.source);
        if let Some(state) = &self.state {
            sources::restore(state, &mut sync);
        }
        sync
    }

    /// Returns the directory that the next daemon takes for the source.
    fn saved(&self) -> Option<String> {
        self.next().accepted_source().map(SourceIdentity::to_line)
    }

    fn is_halted(&self) -> bool {
        self.syncs[0].sync.borrow().halted().is_some()
    }
}

#[test]
fn a_missing_source_halts_its_sync_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (source, away) = (dir.path().join("src"), dir.path().join("away"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let mut fixture = Fixture::new(&source);
    assert_eq!(fixture.start(), []);
    assert_eq!(fixture.check_ready(), (true, vec![]));

    fs::rename(&source, &away).unwrap();
    let (is_ready, told) = fixture.check_ready();
    assert!(!is_ready && fixture.is_halted());
    assert!(matches!(told[..], [Action::Log(..)]), "{told:?}");
    assert_eq!(fixture.roots.checks, 1);
    // A transfer that runs may delete what it does not find.
    assert!(fixture.syncs[0].sync.borrow().has_outdated(fixture.now));
    assert_eq!(fixture.check_ready(), (false, vec![]), "it is told once");
    let due = fixture.now + RECHECK_INTERVAL;
    assert_eq!(fixture.monitor.deadline(), Some(due));

    fixture.now = due;
    assert_eq!(fixture.turn(), []);
    fs::rename(&away, &source).unwrap();
    fixture.now += RECHECK_INTERVAL / 2;
    assert_eq!(fixture.turn(), [], "it is not time yet");
    fixture.now += RECHECK_INTERVAL;
    let told = fixture.turn();
    assert!(matches!(told[..], [Action::Log(..)]), "{told:?}");
    assert!(!fixture.is_halted());
}

#[test]
fn a_sync_is_released_after_the_crawl() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::halted(dir.path());
    fixture.roots.is_crawling = true;
    fixture.now += RECHECK_INTERVAL;
    fixture.turn();
    assert!(fixture.is_halted());
    fixture.roots.is_crawling = false;
    fixture.turn();
    assert!(!fixture.is_halted());
}

#[test]
fn a_path_that_leads_elsewhere_releases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::halted(dir.path());
    fixture.roots.leads_home = false;
    fixture.now += RECHECK_INTERVAL;
    fixture.turn();
    assert!(fixture.is_halted());
    assert_eq!(fixture.roots.checks, 1);
}

#[test]
fn changes_of_the_mount_table_are_read_with_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(dir.path());
    fixture.start();
    let start = fixture.now;
    let mounts = |fixture: &mut Fixture| {
        fixture.call(|monitor, sources, now| monitor.on_mounts_changed(sources, now));
        fixture.monitor.deadline()
    };
    let idle = Some(start + PATHS_INTERVAL);
    assert_eq!(mounts(&mut fixture), idle);
    assert_eq!(mounts(&mut fixture), Some(start + MIN_INTERVAL));
    fixture.now += MIN_INTERVAL;
    fixture.turn();
    assert_eq!(fixture.monitor.deadline(), idle);
}

#[test]
fn the_paths_of_all_sources_are_looked_at_regularly() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(dir.path());
    fixture.start();
    fixture.turn();
    assert_eq!(fixture.roots.checks, 0);
    fixture.now += PATHS_INTERVAL;
    fixture.turn();
    assert_eq!(fixture.roots.checks, 1);
    assert_eq!(
        fixture.monitor.deadline(),
        Some(fixture.now + PATHS_INTERVAL)
    );
}

/// Returns a mount table with a file system of this device at the mount point.
fn table_with(device: &str, point: &Path) -> &'static dyn Fn() -> Vec<u8> {
    let point = point.display();
    let line = format!("22 1 {device} / {point} rw - ext4 /dev/sdb1 rw\n");
    Box::leak(Box::new(move || line.clone().into_bytes()))
}

/// What is hidden by a mount, or comes into view, has no events.
#[test]
fn a_mount_in_a_source_compares_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("inner")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut fixture = Fixture::new(dir.path());
    let id = fixture.syncs[0].sync.borrow().id;
    let empty: &'static dyn Fn() -> Vec<u8> = &Vec::new;
    let (inner, other) = (dir.path().join("inner"), Path::new("/elsewhere"));
    let tables = [
        (empty, false),
        (table_with("8:1", &inner), true),
        (table_with("8:1", &inner), false),
        (table_with("8:2", &inner), true),
        (empty, true),
        (table_with("8:1", other), false),
    ];
    fixture.mount_table = empty;
    fixture.start();
    for (at, (table, compares)) in tables.into_iter().enumerate() {
        let before = fixture.roots.rebuilds;
        fixture.now += MIN_INTERVAL;
        fixture.mount_table = table;
        let told = fixture.call(|monitor, sources, now| monitor.on_mounts_changed(sources, now));
        let compared = told.contains(&Action::Watch(WatchAction::FullSync(id)));
        assert_eq!(compared, compares, "{at}: {told:?}");
        assert_eq!(fixture.roots.rebuilds > before, compares, "{at}");
    }
    // The files of the unmounted file system stay on the target.
    assert!(fixture.syncs[0].sync.borrow().misses_mounts());
}

#[test]
fn a_missing_source_is_halted_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(&dir.path().join("missing"));
    let told = fixture.start();
    assert!(matches!(told[..], [Action::Log(..)]), "{told:?}");
    assert!(fixture.is_halted());
}

/// A file system that is gone must not look like deleted files, even within the pause.
#[test]
fn mounts_are_read_before_a_transfer() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("inner")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut fixture = Fixture::new(dir.path());
    fixture.mount_table = table_with("8:1", &dir.path().join("inner"));
    fixture.start();
    for _ in 0..2 {
        fixture.call(|monitor, sources, now| monitor.on_mounts_changed(sources, now));
    }
    fixture.mount_table = &Vec::new;
    assert!(!fixture.syncs[0].sync.borrow().misses_mounts());
    let (is_ready, _) = fixture.check_ready();
    assert!(is_ready && fixture.syncs[0].sync.borrow().misses_mounts());
}

/// Without them, the next daemon takes an empty directory for the source, or a missing mount for
/// deleted files.
#[test]
fn what_is_accepted_is_saved() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let mut fixture = Fixture::new(dir.path());
    fixture.state = Some(StateDir::at(state.path()));
    fixture.mount_table = &Vec::new;
    fixture.start();
    assert!(fixture.saved().is_some());
    assert_eq!(fixture.saved(), fixture.accepted());
    assert_eq!(fixture.next().known_nested_mounts().count(), 0);

    fixture.mount_table = table_with("8:1", &inner);
    fixture.call(|monitor, sources, now| monitor.on_mounts_changed(sources, now));
    let known = fixture.next();
    let known: Vec<_> = known.known_nested_mounts().collect();
    assert_eq!(known, [inner.as_os_str().as_bytes()]);
}

/// Its changes would have no events.
#[test]
fn only_a_watched_directory_replaces_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let (source, away) = (dir.path().join("src"), dir.path().join("away"));
    fs::create_dir(&source).unwrap();
    let mut fixture = Fixture::halted(&source);
    let before = fixture.accepted();
    fs::rename(&source, &away).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("other"), "").unwrap();
    fixture.roots.leads_home = false;
    fixture.now += RECHECK_INTERVAL;
    fixture.turn();
    assert!(fixture.is_halted());
    assert_eq!(fixture.accepted(), before);

    fixture.roots.leads_home = true;
    fixture.now += RECHECK_INTERVAL;
    fixture.turn();
    assert!(!fixture.is_halted());
    assert_ne!(fixture.accepted(), before);
}

/// The source is accepted when a target that was silent at the start answers: before the next
/// transfer, or when the source is found again.
#[test]
fn a_source_waits_for_its_target() {
    for is_transfer in [true, false] {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("file"), "").unwrap();
        let mut fixture = Fixture::new(dir.path());
        fixture.state = Some(StateDir::at(state.path()));
        fixture.syncs[0].sync.borrow_mut().await_target();
        assert_eq!(fixture.saved(), None);
        if is_transfer {
            assert_eq!(fixture.check_ready(), (true, vec![]));
        } else {
            fixture.call(|monitor, sources, now| monitor.on_turn(&[0], sources, now));
        }
        assert!(!fixture.syncs[0].sync.borrow().awaits_target());
        assert!(fixture.saved().is_some());
        assert_eq!(fixture.saved(), fixture.accepted());
    }
}

/// The loop must neither wait for it nor turn without a pause. Transfers that run may continue: the
/// target is the same when it answers.
#[test]
fn a_target_that_does_not_answer_halts_its_sync_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for (time, halts) in [(MAX_SILENCE / 2, false), (MAX_SILENCE, true)] {
        let mut fixture = Fixture::new(dir.path());
        fixture.start();
        let handle = Rc::clone(&fixture.syncs[0]);
        let mut sync = handle.sync.borrow_mut();
        sync.queue.push(Etype::Modify, b"/file", None, 0);
        sync.silence_target(time);
        drop(sync);
        let (is_ready, told) = fixture.check_ready();
        assert!(!is_ready);
        assert_eq!(
            (fixture.is_halted(), told.len()),
            (halts, usize::from(halts))
        );
        assert!(!handle.sync.borrow().has_outdated(fixture.now));
        let next = handle.sync.borrow_mut().next(0);
        let expected = if halts {
            Next::Nothing
        } else {
            Next::At(SILENT_PAUSE)
        };
        assert_eq!(next, expected);
    }
}
