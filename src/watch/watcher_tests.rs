//! Trees that fanotify takes over from inotify.
//!
//! fanotify reports the changes of the whole file system, so the reports of other paths are left
//! out.

use std::fs;
use std::path::PathBuf;

use mio::{Poll, Token};
use tempfile::TempDir;

use super::super::test_rig::Reports;
use super::*;
use crate::test_skip::skip;

/// The limit of a wait. Only a failing test reaches it.
const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    _dir: TempDir,
    base: PathBuf,
    poll: Poll,
    watcher: Watcher,
    reports: Reports,
}

impl Rig {
    /// Returns a rig that watches nothing; `None`, as a skipped test, if fanotify cannot be used.
    fn new() -> Option<Rig> {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mode = InotifyMode::CloseWrite;
        let mut watcher = Watcher::new(WatchChoice::Auto, mode, None, waker).unwrap();
        let refused = watcher.open_fanotify();
        let mut rig = Rig {
            _dir: dir,
            reports: Reports::below(&base),
            base,
            poll,
            watcher,
        };
        rig.mkdir("probe");
        rig.set_scopes(&["probe"]);
        let can_mark = refused.is_ok() && rig.promote("probe");
        rig.set_scopes(&[]);
        rig.watcher.has_started = false;
        rig.reports.overflows = 0;
        if !can_mark {
            skip("fanotify cannot be used here");
            return None;
        }
        Some(rig)
    }

    fn root(&self, name: &str) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        [
            self.base.as_os_str().as_bytes(),
            b"/",
            name.as_bytes(),
            b"/",
        ]
        .concat()
    }

    fn mkdir(&self, path: &str) {
        fs::create_dir_all(self.base.join(path)).unwrap();
    }

    fn set_scopes(&mut self, names: &[&str]) {
        let scope = |name: &&str| Scope {
            root: self.root(name),
            wants: Arc::new(|_: &[u8]| true),
        };
        let scopes = names.iter().map(scope).collect();
        self.watcher.set_scopes(scopes);
    }

    fn turn(&mut self) {
        self.watcher.turn(Instant::now(), &mut self.reports);
    }

    /// Runs turns until this report has been made.
    fn until(&mut self, report: &str) {
        self.until_true(report, |rig| {
            rig.reports.told.iter().any(|told| told == report)
        });
    }

    fn until_true(&mut self, what: &str, mut is_true: impl FnMut(&Rig) -> bool) {
        let end = Instant::now() + LIMIT;
        let mut events = mio::Events::with_capacity(1);
        self.turn();
        while !is_true(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.reports.told);
            let pause = Some(Duration::from_millis(2));
            self.poll.poll(&mut events, pause).unwrap();
            self.turn();
        }
    }

    fn settle(&mut self) {
        self.until_true("the scan", |rig| !rig.watcher.crawling());
    }

    fn promote(&mut self, name: &str) -> bool {
        let root = self.root(name);
        self.watcher
            .promote(&root, "it is a test", &mut self.reports)
    }

    /// Returns the backend that watches this tree.
    fn kind(&self, name: &str) -> BackendKind {
        tree_of(&self.watcher.trees, &self.root(name)).unwrap().kind
    }
}

#[test]
fn changes_of_a_tree_are_reported_after_fanotify_has_taken_it_over() {
    let Some(mut rig) = Rig::new() else { return };
    rig.mkdir("large/in");
    rig.mkdir("small");
    rig.set_scopes(&["large", "small"]);
    rig.settle();
    assert!(rig.promote("large"));
    assert_eq!(rig.kind("large"), BackendKind::Fanotify);
    assert_eq!(rig.kind("small"), BackendKind::Inotify);
    rig.settle();
    rig.mkdir("large/in/new");
    rig.mkdir("small/new");
    rig.until("create large/in/new/");
    rig.until("create small/new/");
    assert_eq!(rig.watcher.tree_size(&rig.root("large")).directories, 2);
    assert_eq!(rig.watcher.tree_size(&rig.root("small")).directories, 2);
    // It stays with fanotify.
    assert!(rig.promote("large"));
    assert!(!rig.promote("other"));
    rig.set_scopes(&["small", "large"]);
    assert_eq!(rig.kind("large"), BackendKind::Fanotify);
}

#[test]
fn everything_is_compared_if_a_tree_is_taken_over_after_the_first_scan() {
    let Some(mut rig) = Rig::new() else { return };
    rig.mkdir("first");
    rig.mkdir("second");
    rig.set_scopes(&["first", "second"]);
    assert!(rig.promote("first"));
    assert_eq!(rig.reports.overflows, 0);
    rig.settle();
    assert!(rig.promote("second"));
    assert_eq!(rig.reports.overflows, 1);
}

#[test]
fn a_lost_root_comes_back_after_another_tree_was_taken_over() {
    let Some(mut rig) = Rig::new() else { return };
    rig.mkdir("large");
    rig.set_scopes(&["large", "missing", "gone"]);
    rig.mkdir("gone");
    rig.until("lost 1 Deleted");
    rig.settle();
    rig.watcher.retry_roots();
    rig.until_true("a root that is not lost", |rig| {
        !rig.watcher.lost.contains(&rig.root("gone"))
    });
    rig.reports.told.clear();
    assert!(rig.promote("large"));
    rig.settle();
    assert!(
        !rig.reports.told.iter().any(|told| told.starts_with("lost")),
        "{:?}",
        rig.reports.told
    );
    rig.mkdir("missing");
    rig.watcher.retry_roots();
    rig.until("back 1");
    fs::remove_dir(rig.base.join("gone")).unwrap();
    rig.until("lost 2 Deleted");
}

#[test]
fn a_tree_is_taken_over_as_soon_as_it_has_many_directories() {
    let Some(mut rig) = Rig::new() else { return };
    rig.mkdir("r/in");
    rig.set_scopes(&["r"]);
    // The root is watched, and the scan has not ended.
    assert_eq!(rig.watcher.watched(), 1);
    rig.watcher.many_directories = 2;
    rig.watcher.size_check = 2;
    rig.watcher.promote_large(&mut rig.reports);
    assert_eq!(
        (rig.kind("r"), rig.watcher.size_check),
        (BackendKind::Inotify, 2)
    );
    // The tree is smaller than that; its size is determined again after more directories.
    rig.watcher.size_check = 1;
    rig.watcher.promote_large(&mut rig.reports);
    assert_eq!(
        (rig.kind("r"), rig.watcher.size_check),
        (BackendKind::Inotify, 2)
    );
    rig.watcher.size_check = 1;
    rig.watcher.many_directories = 1;
    rig.watcher.promote_large(&mut rig.reports);
    assert_eq!(rig.kind("r"), BackendKind::Fanotify);
    rig.settle();
    assert_eq!(rig.reports.overflows, 0);
}

#[test]
fn a_large_tree_stays_with_inotify_if_fanotify_has_refused_it_or_is_not_chosen() {
    let Some(mut rig) = Rig::new() else { return };
    rig.mkdir("r");
    rig.set_scopes(&["r"]);
    rig.watcher.many_directories = 1;
    rig.watcher.size_check = 1;
    rig.watcher.choice = WatchChoice::Inotify;
    rig.watcher.promote_large(&mut rig.reports);
    assert_eq!(rig.kind("r"), BackendKind::Inotify);
    rig.watcher.choice = WatchChoice::Auto;
    let root = rig.root("r");
    rig.watcher.refuse(&[(root, "refused".into())]);
    rig.watcher.promote_large(&mut rig.reports);
    assert!(!rig.promote("r"));
    assert_eq!(rig.kind("r"), BackendKind::Inotify);
    rig.settle();
    rig.mkdir("r/new");
    rig.until("create r/new/");
}
