//! When a mark is reached, all events before it have been reported.

use std::time::Duration;

use lsyncd::watch::{Follow, Loss};

use crate::support::random::{Random, seed};
use crate::watch_churn::operate;
use crate::watch_live::delete;
use crate::watch_rig::{Rig, Told};

#[test]
fn churn_is_reported_at_the_mark() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..40 {
        let mut rig = Rig::new(|rig| rig.mkdir("out"));
        for step in 0..15 {
            let mut done = Vec::new();
            rig.log.events.clear();
            for _ in 0..random.below(30) {
                done.extend(operate(&mut random, &rig.base, &["r", "r", "out"]));
                if random.below(20) == 0 {
                    rig.turn();
                    done.push("turn".into());
                }
            }
            rig.reach_mark();
            let events = &rig.log.events;
            rig.check(&format!(
                "seed {seed}, round {round}, step {step}: {done:#?}, {events:#?}"
            ));
        }
    }
}

/// Makes a tree of three directories in each, of this depth.
fn make_tree(rig: &Rig, top: &str, depth: usize) {
    rig.mkdir(top);
    for name in ["a", "b", "c"].iter().take(3 * depth) {
        make_tree(rig, &format!("{top}/{name}"), depth - 1);
    }
}

/// Threads of the pool read the directory. Its events wait until it has been read, and a part of it
/// that is renamed meanwhile is read again.
#[test]
fn churn_in_a_large_directory_that_is_read_is_reported_at_the_mark() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut rig = Rig::new(|rig| rig.mkdir("out"));
    for round in 0..30 {
        rig.log.events.clear();
        (rig.log.follow, rig.log.moves) = match round % 3 {
            0 => (Follow::Nothing, false),
            1 => (Follow::Contents, false),
            _ => (Follow::Contents, true),
        };
        make_tree(&rig, "out/a", 5);
        make_tree(&rig, "out/b", 2);
        rig.mv("out/a", "r/a");
        if round % 2 == 1 {
            rig.turn();
        }
        let mut done = Vec::new();
        for _ in 0..random.below(100) {
            done.extend(operate(
                &mut random,
                &rig.base,
                &["r", "r", "r/a", "r/a", "out"],
            ));
            if random.below(6) == 0 {
                rig.turn();
                done.push("turn".into());
            }
        }
        rig.reach_mark();
        rig.check(&format!("seed {seed}, round {round}: {done:#?}"));
        for name in ["r/a", "r/b", "r/c", "out/a", "out/b", "out/c"] {
            if rig.path(name).is_dir() {
                rig.rmdir(name);
            } else if rig.path(name).exists() {
                std::fs::remove_file(rig.path(name)).unwrap();
            }
        }
        rig.reach_mark();
        rig.check(&format!("seed {seed}, round {round}, removed: {done:#?}"));
    }
}

/// The listing of a directory is older than the events that waited for it.
#[test]
fn events_of_directories_that_wait_to_be_read_are_reported() {
    let mut rig = Rig::new(|rig| {
        for number in 0..2000 {
            rig.mkdir(&format!("out/d{number}"));
            rig.touch(&format!("out/d{number}/f"));
        }
    });
    rig.mv("out", "r/in");
    rig.turn();
    for number in 0..2000 {
        std::fs::remove_file(rig.path(&format!("r/in/d{number}/f"))).unwrap();
        if number % 100 == 0 {
            rig.turn();
        }
    }
    rig.reach_mark();
    rig.check("removed");
}

#[test]
fn a_mark_waits_for_the_contents_of_a_large_directory() {
    let mut rig = Rig::new(Rig::make_large);
    rig.mv("out", "r/in");
    rig.reach_mark();
    rig.check("large");
    rig.mv("r/in", "r/on");
    rig.mkdir("r/on/7/7/new/er");
    rig.touch("r/on/7/7/late");
    rig.mv("r/on", "out");
    rig.reach_mark();
    rig.check("gone");
}

#[test]
fn a_mark_waits_for_the_end_of_a_file_that_was_moved_out() {
    let mut rig = Rig::new(|rig| {
        rig.touch("r/f");
        rig.mkdir("out");
    });
    rig.mv("r/f", "out/f");
    rig.reach_mark();
    assert_eq!(rig.log.events, [delete("r/f")]);
}

#[test]
fn a_mark_is_not_reached_before_its_events_are_reported() {
    let mut rig = Rig::new(|_| {});
    rig.reach_mark();
    rig.touch("r/f");
    let after = rig.watcher.event_mark();
    assert!(!rig.watcher.has_reported(after));
    rig.reach_mark();
    assert!(rig.watcher.has_reported(after));
    assert!(rig.told(&Told::Modify("r/f".into())));
}

/// The watched directory gets no event if a directory above it is renamed.
#[test]
fn a_root_below_a_renamed_directory_is_found_lost() {
    for rebuild in [false, true] {
        let mut rig = Rig::bare();
        rig.mkdir("r");
        rig.mkdir("top/r/d");
        let scope = rig.scope("top/r/", |_| true);
        rig.watch(vec![scope]);
        let root = rig.absolute("top/r/");
        assert!(rig.watcher.leads_to_root(&root));
        rig.watcher.check_roots();
        rig.reach_mark();
        assert_eq!(rig.log.lost, []);
        rig.mv("top", "elsewhere");
        rig.mkdir("top/r/new");
        assert!(!rig.watcher.leads_to_root(&root));
        rig.sleep(Duration::ZERO);
        if rebuild {
            rig.watcher.rebuild();
        } else {
            rig.watcher.check_roots();
        }
        // The loop sleeps until the waker fires.
        assert!(rig.sleep(Duration::from_secs(60)));
        rig.until("the loss", |rig| !rig.log.lost.is_empty());
        assert_eq!(rig.log.lost, [(0, Loss::Moved)]);
        rig.watcher.retry_roots();
        rig.until("the return", |rig| {
            !rig.log.back.is_empty() && !rig.watcher.crawling()
        });
        rig.assert_watched(&["top/r/", "top/r/new/"]);
        assert!(rig.watcher.leads_to_root(&root));
        rig.touch("elsewhere/r/d/f");
        rig.touch("top/r/new/f");
        rig.reach_mark();
        assert!(rig.told(&Told::Create("top/r/new/f".into())));
        assert!(!rig.told(&Told::Create("elsewhere/r/d/f".into())));
    }
}

#[test]
fn the_contents_of_a_directory_are_found_on_request() {
    let mut rig = Rig::new(|rig| {
        rig.mkdir("r/a/b");
        rig.touch("r/a/b/f");
        rig.touch("r/a/g");
        rig.mkdir("r/z");
    });
    rig.log.moves = true;
    let directory = rig.absolute("r/a/");
    let number = rig.watcher.report_contents(&directory).unwrap();
    rig.reach_mark();
    rig.log.found.sort();
    let expected = ["r/a/b/", "r/a/b/f", "r/a/g"].map(|path| (path.to_string(), number));
    assert_eq!(rig.log.found, expected);
    let other = rig.watcher.report_contents(&directory).unwrap();
    assert_ne!(number, other);
    let unwatched = rig.absolute("r/no/");
    assert_eq!(rig.watcher.report_contents(&unwatched), None);
}
