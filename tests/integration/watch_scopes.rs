//! The watcher with the real kernel: roots that go and come back, and several scopes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::watch_live::{create, moved};
use crate::watch_rig::{Rig, Told};
use lsyncd::watch::Loss;

#[test]
fn a_deleted_root_is_lost_and_comes_back() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d"));
    rig.rmdir("r");
    rig.until("the loss", |rig| !rig.log.lost.is_empty());
    assert_eq!(rig.log.lost, [(0, Loss::Deleted)]);
    assert_eq!(rig.watcher.watched(), 0);
    rig.watcher.retry_roots();
    rig.turn();
    assert_eq!((rig.log.lost.len(), rig.log.back.len()), (1, 0));
    rig.mkdir("r/e");
    rig.watcher.retry_roots();
    rig.until("the return", |rig| {
        !rig.log.back.is_empty() && !rig.watcher.crawling()
    });
    rig.assert_watched(&["r/", "r/e/"]);
    assert_eq!(rig.log.lost.len(), 1);
}

#[test]
fn a_moved_root_is_lost() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d"));
    rig.mv("r", "elsewhere");
    rig.until("the loss", |rig| !rig.log.lost.is_empty());
    assert_eq!(rig.log.lost, [(0, Loss::Moved)]);
    rig.touch("elsewhere/d/f");
    rig.mkdir("r");
    rig.watcher.retry_roots();
    rig.settle();
    assert_eq!(rig.log.events, []);
}

#[test]
fn a_missing_root_is_lost_at_once() {
    let mut rig = Rig::bare();
    rig.mkdir("r");
    let scopes = vec![rig.scope("no/", |_| true), rig.scope("r/", |_| true)];
    rig.watcher.set_scopes(scopes.clone());
    rig.until("the loss", |rig| !rig.log.lost.is_empty());
    assert_eq!(rig.log.lost, [(0, Loss::Deleted)]);
    rig.mkdir("no/d");
    rig.watcher.set_scopes(scopes);
    rig.until("the return", |rig| {
        !rig.log.back.is_empty() && !rig.watcher.crawling()
    });
    assert_eq!(rig.log.back, [0]);
    rig.assert_watched(&["no/", "no/d/", "r/"]);
}

/// Returns how often the filter is called for `r/a/b/` while scopes with these roots are read.
fn asked(roots: &[&str]) -> usize {
    let mut rig = Rig::bare();
    rig.mkdir("r/a/b/c");
    let count = Arc::new(AtomicUsize::new(0));
    let scopes = roots.iter().map(|root| {
        let (count, inside) = (Arc::clone(&count), root.len() - 1);
        rig.scope(root, move |path| {
            let asked = path == &b"r/a/b/"[inside..];
            count.fetch_add(usize::from(asked), Ordering::Relaxed);
            true
        })
    });
    let scopes = scopes.collect();
    rig.watch(scopes);
    rig.assert_watched(&["r/", "r/a/", "r/a/b/", "r/a/b/c/"]);
    count.load(Ordering::Relaxed)
}

#[test]
fn scopes_that_overlap_are_read_in_one_walk() {
    if !Rig::has_watches() {
        return; // Nothing is read.
    }
    let once = asked(&["r/"]);
    assert!(once > 0);
    assert_eq!(asked(&["r/", "r/", "r/"]), once);
    assert_eq!(asked(&["r/", "r/a/b/c/", "r/"]), once);
}

#[test]
fn nested_scopes_share_watches() {
    let mut rig = Rig::bare();
    rig.mkdir("r/a/b/no");
    rig.mkdir("r/a/no");
    rig.mkdir("r/no/c/d");
    let outer = rig.scope("r/", |path| !path.windows(4).any(|part| part == b"/no/"));
    let inner = rig.scope("r/a/", |path| !path.starts_with(b"/no/"));
    let own = rig.scope("r/no/c/", |_| true);
    rig.watch(vec![outer.clone(), inner.clone(), own.clone()]);
    let all = ["r/", "r/a/", "r/a/b/", "r/a/b/no/", "r/no/c/", "r/no/c/d/"];
    rig.assert_watched(&all);
    let numbers = |rig: &Rig| {
        let mut numbers = Vec::new();
        rig.watcher.for_each_watch(|wd, _| numbers.push(wd));
        numbers.sort();
        numbers
    };
    let before = numbers(&rig);
    // Removing and adding the outer scope keeps the watches of the inner ones.
    rig.watch(vec![inner.clone(), own.clone()]);
    rig.assert_watched(&["r/a/", "r/a/b/", "r/a/b/no/", "r/no/c/", "r/no/c/d/"]);
    assert!(numbers(&rig).iter().all(|number| before.contains(number)));
    let before = numbers(&rig);
    rig.watch(vec![inner, own, outer.clone()]);
    rig.assert_watched(&all);
    assert!(before.iter().all(|number| numbers(&rig).contains(number)));
    rig.watch(vec![outer]);
    rig.assert_watched(&["r/", "r/a/", "r/a/b/"]);
    assert_eq!(rig.log.lost, []);
    rig.touch("r/a/b/f");
    // A process that another test has just started holds the file open until it executes.
    let written = Told::Modify("r/a/b/f".into());
    rig.until("the write", |rig| rig.told(&written));
    rig.settle();
    assert_eq!(rig.log.events, [create("r/a/b/f"), written]);
}

#[test]
fn a_nested_root_is_lost_and_comes_back_by_itself() {
    let mut rig = Rig::bare();
    rig.mkdir("r/a/n/x");
    rig.mkdir("out");
    let scopes = vec![rig.scope("r/", |_| true), rig.scope("r/a/n/", |_| true)];
    rig.watch(scopes);
    rig.mv("r/a", "r/b");
    rig.settle();
    assert_eq!(rig.log.lost, [(1, Loss::Moved)]);
    rig.mv("r/b", "r/a");
    rig.settle();
    assert_eq!(rig.log.back, [1]);
    rig.rmdir("r/a/n");
    rig.settle();
    assert_eq!(rig.log.lost[1..], [(1, Loss::Deleted)]);
    rig.mkdir("r/a/n");
    rig.settle();
    assert_eq!(rig.log.back, [1, 1]);
    rig.mv("r/a/n", "out/n");
    rig.settle();
    assert_eq!(rig.log.lost[2..], [(1, Loss::Moved)]);
    rig.check("nested");
}

#[test]
fn a_missing_root_inside_another_is_lost_until_it_is_made() {
    let mut rig = Rig::bare();
    rig.mkdir("r/a");
    let scopes = vec![rig.scope("r/", |_| true), rig.scope("r/a/n/", |_| true)];
    rig.watch(scopes);
    rig.until("the loss", |rig| !rig.log.lost.is_empty());
    assert_eq!(rig.log.lost, [(1, Loss::Deleted)]);
    rig.mkdir("r/a/n/x");
    rig.settle();
    assert_eq!((rig.log.lost.len(), &rig.log.back[..]), (1, &[1][..]));
}

/// The event of its rename has not been read.
#[test]
fn a_root_that_was_replaced_before_scopes_are_set_is_the_new_directory() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d"));
    rig.mv("r", "elsewhere");
    rig.mkdir("r/new");
    let scope = rig.scope("r/", |_| true);
    rig.watch(vec![scope]);
    rig.reach_mark();
    rig.touch("r/new/f");
    rig.touch("elsewhere/d/f");
    rig.reach_mark();
    assert!(rig.told(&create("r/new/f")));
    assert!(!rig.told(&create("r/d/f")) && !rig.told(&create("elsewhere/d/f")));
    rig.check("replaced");
}

#[test]
fn moves_into_and_out_of_what_is_excluded() {
    let mut rig = Rig::bare();
    rig.mkdir("r/a/sub");
    rig.touch("r/a/sub/f");
    let scope = rig.scope("r/", |path| {
        !path.starts_with(b"/no/") && !path.starts_with(b"/b/sub/")
    });
    rig.watch(vec![scope]);
    rig.mv("r/a", "r/no");
    rig.settle();
    assert_eq!(rig.log.events, [moved("r/a/", "r/no/")]);
    rig.assert_watched(&["r/"]);
    rig.touch("r/no/sub/g");
    rig.settle();
    assert_eq!(rig.log.events.len(), 1);
    rig.log.events.clear();
    // A rename back to the first name might be half of an exchange.
    rig.mv("r/no", "r/d");
    rig.settle();
    assert_eq!(rig.log.events[0], moved("r/no/", "r/d/"));
    assert!(rig.told(&create("r/d/sub/f")) && rig.told(&create("r/d/sub/g")));
    rig.assert_watched(&["r/", "r/d/", "r/d/sub/"]);
    // The filter may depend on the path of a directory.
    rig.log.events.clear();
    rig.mv("r/d", "r/b");
    rig.settle();
    rig.assert_watched(&["r/", "r/b/"]);
    rig.mv("r/b", "r/c");
    rig.settle();
    rig.assert_watched(&["r/", "r/c/", "r/c/sub/"]);
    // With fanotify, the observer requests the contents.
    if Rig::has_watches() {
        assert!(rig.told(&create("r/c/sub/")) && rig.told(&create("r/c/sub/g")));
    }
}
