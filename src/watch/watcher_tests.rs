//! Trees that fanotify takes over from inotify.
//!
//! fanotify reports the changes of the whole file system, so the reports of other paths are left
//! out.

use std::fs;

use super::super::test_rig::{self, LIMIT};
use super::*;
use crate::test_skip::skip;

type Rig = test_rig::Rig<Watcher>;

impl Rig {
    /// Returns a rig that watches nothing; `None`, as a skipped test, if fanotify cannot be used.
    fn new() -> Option<Rig> {
        let mode = InotifyMode::CloseWrite;
        let start = |waker| Watcher::new(WatchChoice::Auto, mode, None, waker);
        let mut rig = Rig::start(start).unwrap();
        rig.make("probe/");
        rig.set_scopes(&["probe/"]);
        let can_mark = rig.promote("probe/");
        rig.set_scopes(&[]);
        rig.backend.has_started = false;
        rig.reports.overflows = 0;
        if !can_mark {
            skip("fanotify cannot be used here");
            return None;
        }
        Some(rig)
    }

    fn set_scopes(&mut self, names: &[&str]) {
        let scopes = names.iter().map(|name| self.scope(name)).collect();
        self.backend.set_scopes(scopes);
    }

    fn turn(&mut self) {
        self.backend.turn(Instant::now(), &mut self.reports);
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
            self.poll().poll(&mut events, pause).unwrap();
            self.turn();
        }
    }

    fn settle(&mut self) {
        self.until_true("the scan", |rig| !rig.backend.crawling());
    }

    fn promote(&mut self, name: &str) -> bool {
        let root = self.absolute(name);
        self.backend
            .promote(&root, "it is a test", &mut self.reports)
    }

    /// Returns the backend that watches this tree.
    fn kind(&self, name: &str) -> BackendKind {
        tree_of(&self.backend.trees, &self.absolute(name))
            .unwrap()
            .kind
    }
}

#[test]
fn changes_of_a_tree_are_reported_after_fanotify_has_taken_it_over() {
    let Some(mut rig) = Rig::new() else { return };
    rig.make("large/in/");
    rig.make("small/");
    rig.set_scopes(&["large/", "small/"]);
    rig.settle();
    assert!(rig.promote("large/"));
    assert_eq!(rig.kind("large/"), BackendKind::Fanotify);
    assert_eq!(rig.kind("small/"), BackendKind::Inotify);
    rig.settle();
    rig.make("large/in/new/");
    rig.make("small/new/");
    rig.until("create large/in/new/");
    rig.until("create small/new/");
    assert_eq!(
        rig.backend.tree_size(&rig.absolute("large/")).directories,
        2
    );
    assert_eq!(
        rig.backend.tree_size(&rig.absolute("small/")).directories,
        2
    );
    // It stays with fanotify.
    assert!(rig.promote("large/"));
    assert!(!rig.promote("other/"));
    rig.set_scopes(&["small/", "large/"]);
    assert_eq!(rig.kind("large/"), BackendKind::Fanotify);
}

#[test]
fn everything_is_compared_if_a_tree_is_taken_over_after_the_first_scan() {
    let Some(mut rig) = Rig::new() else { return };
    rig.make("first/");
    rig.make("second/");
    rig.set_scopes(&["first/", "second/"]);
    assert!(rig.promote("first/"));
    assert_eq!(rig.reports.overflows, 0);
    rig.settle();
    assert!(rig.promote("second/"));
    assert_eq!(rig.reports.overflows, 1);
}

#[test]
fn a_lost_root_comes_back_after_another_tree_was_taken_over() {
    let Some(mut rig) = Rig::new() else { return };
    rig.make("large/");
    rig.set_scopes(&["large/", "missing/", "gone/"]);
    rig.make("gone/");
    rig.until("lost 1 Deleted");
    rig.settle();
    rig.backend.retry_roots();
    rig.until_true("a root that is not lost", |rig| {
        !rig.backend.lost.contains(&rig.absolute("gone/"))
    });
    rig.reports.told.clear();
    assert!(rig.promote("large/"));
    rig.settle();
    assert!(
        !rig.reports.told.iter().any(|told| told.starts_with("lost")),
        "{:?}",
        rig.reports.told
    );
    rig.make("missing/");
    rig.backend.retry_roots();
    rig.until("back 1");
    fs::remove_dir(rig.path("gone")).unwrap();
    rig.until("lost 2 Deleted");
}

#[test]
fn a_tree_is_taken_over_as_soon_as_it_has_many_directories() {
    let Some(mut rig) = Rig::new() else { return };
    rig.make("r/in/");
    rig.set_scopes(&["r/"]);
    // The root is watched, and the scan has not ended.
    assert_eq!(rig.backend.watched(), 1);
    rig.backend.many_directories = 2;
    rig.backend.size_check = 2;
    rig.backend.promote_large(&mut rig.reports);
    assert_eq!(
        (rig.kind("r/"), rig.backend.size_check),
        (BackendKind::Inotify, 2)
    );
    // The tree is smaller than that; its size is determined again after more directories.
    rig.backend.size_check = 1;
    rig.backend.promote_large(&mut rig.reports);
    assert_eq!(
        (rig.kind("r/"), rig.backend.size_check),
        (BackendKind::Inotify, 2)
    );
    rig.backend.size_check = 1;
    rig.backend.many_directories = 1;
    rig.backend.promote_large(&mut rig.reports);
    assert_eq!(rig.kind("r/"), BackendKind::Fanotify);
    rig.settle();
    assert_eq!(rig.reports.overflows, 0);
}

#[test]
fn a_large_tree_stays_with_inotify_if_fanotify_has_refused_it_or_is_not_chosen() {
    let Some(mut rig) = Rig::new() else { return };
    rig.make("r/");
    rig.set_scopes(&["r/"]);
    rig.backend.many_directories = 1;
    rig.backend.size_check = 1;
    rig.backend.choice = WatchChoice::Inotify;
    rig.backend.promote_large(&mut rig.reports);
    assert_eq!(rig.kind("r/"), BackendKind::Inotify);
    rig.backend.choice = WatchChoice::Auto;
    let root = rig.absolute("r/");
    rig.backend.refuse(&[(root, "refused".into())]);
    rig.backend.promote_large(&mut rig.reports);
    assert!(!rig.promote("r/"));
    assert_eq!(rig.kind("r/"), BackendKind::Inotify);
    rig.settle();
    rig.make("r/new/");
    rig.until("create r/new/");
}
