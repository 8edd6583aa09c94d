//! Files that are written and not closed: what is said of them, and when they are reported.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use crate::watch_live::{create, moved};
use crate::watch_rig::{Rig, Told};

fn written(path: &str) -> Told {
    Told::Modify(path.into())
}

/// Returns a rig that watches `r/` and reports files that are not closed after this time.
fn rig(staleness: Duration, prepare: impl FnOnce(&Rig)) -> Rig {
    let mut rig = Rig::tracking(Some(staleness));
    rig.mkdir("r");
    prepare(&rig);
    let scope = rig.scope("r/", |_| true);
    rig.watch(vec![scope]);
    rig
}

/// An hour.
const LONG: Duration = Duration::from_secs(3600);

fn open(rig: &Rig, path: &str) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let mut file = options.open(rig.path(path)).unwrap();
    file.write_all(b"1").unwrap();
    file
}

/// Asserts which files are being written, by both queries.
fn assert_being_written(rig: &mut Rig, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|path| rig.absolute(path)).collect();
    let mut all = rig.watcher.being_written(&|_| true);
    all.sort();
    assert_eq!(all, expected);
    let paths: Vec<Vec<u8>> = rig.on_disk("r");
    let mut asked = rig.watcher.being_written_of(paths);
    asked.sort();
    assert_eq!(asked, expected);
    assert!(rig.watcher.being_written(&|_| false).is_empty());
    assert!(rig.watcher.being_written_of(Vec::new()).is_empty());
}

#[test]
fn a_file_is_being_written_until_it_is_closed() {
    let mut rig = rig(LONG, |rig| {
        rig.mkdir("r/d");
        rig.touch("r/d/g");
    });
    let (new, old) = (open(&rig, "r/d/f"), open(&rig, "r/d/g"));
    rig.touch("r/d/complete");
    rig.reach_mark();
    assert!(rig.told(&create("r/d/f")) && rig.told(&written("r/d/complete")));
    assert_being_written(&mut rig, &["r/d/f", "r/d/g"]);
    assert!(!rig.told(&written("r/d/f")) && !rig.told(&written("r/d/g")));
    drop(new);
    rig.reach_mark();
    assert!(rig.told(&written("r/d/f")) && !rig.told(&written("r/d/g")));
    assert_being_written(&mut rig, &["r/d/g"]);
    drop(old);
    rig.reach_mark();
    assert!(rig.told(&written("r/d/g")));
    assert_being_written(&mut rig, &[]);
}

#[test]
fn open_files_follow_renames_and_are_all_reported_at_the_end() {
    let mut rig = rig(LONG, |rig| {
        rig.mkdir("r/a/b");
        rig.mkdir("r/c");
        rig.touch("r/c/over");
    });
    let files = ["r/a/b/f", "r/a/g", "r/c/h", "r/c/i"].map(|path| open(&rig, path));
    rig.reach_mark();
    rig.mv("r/c/h", "r/c/over");
    rig.mv("r/c/i", "r/a/b/i");
    rig.mv("r/a", "r/n");
    rig.reach_mark();
    let expected = ["r/c/over", "r/n/b/f", "r/n/b/i", "r/n/g"];
    assert_being_written(&mut rig, &expected);
    rig.log.events.clear();
    rig.watcher.report_all_open(&mut rig.log);
    let told: Vec<_> = expected.map(written).into();
    let mut events = rig.log.events.clone();
    events.sort_by_key(|told| format!("{told:?}"));
    assert_eq!(events, told);
    assert_eq!(rig.watcher.open_files(), 0);
    drop(files);
}

/// It was opened before the directory was watched.
#[test]
fn an_open_file_in_a_directory_from_outside_is_being_written() {
    let mut rig = rig(LONG, |rig| rig.mkdir("out/in/d"));
    let file = open(&rig, "out/in/d/f");
    rig.touch("out/in/d/complete");
    rig.mv("out/in", "r/in");
    rig.reach_mark();
    assert!(rig.told(&create("r/in/d/f")));
    assert_being_written(&mut rig, &["r/in/d/f"]);
    rig.log.events.clear();
    drop(file);
    rig.reach_mark();
    assert_eq!(rig.log.events, [written("r/in/d/f")]);
}

#[test]
fn a_file_moved_in_is_being_written_until_it_is_closed() {
    let mut rig = rig(LONG, |rig| rig.mkdir("out"));
    let file = open(&rig, "r/f");
    rig.mv("r/f", "r/g");
    rig.reach_mark();
    assert_eq!(rig.log.events, [create("r/f"), moved("r/f", "r/g")]);
    assert_being_written(&mut rig, &["r/g"]);
    drop(file);
    rig.reach_mark();
    assert_eq!(rig.log.events[2..], [written("r/g")]);
}

#[test]
fn a_file_that_stays_open_is_reported_again_and_again() {
    let mut rig = rig(Duration::from_millis(400), |_| {});
    let mut file = open(&rig, "r/f");
    rig.until("the first report", |rig| rig.told(&written("r/f")));
    rig.log.events.clear();
    file.write_all(b"2").unwrap();
    rig.until("the second report", |rig| rig.told(&written("r/f")));
    // It is not deferred any more.
    assert_being_written(&mut rig, &[]);
}

/// truncate(2) opens nothing, so no close is reported.
#[test]
fn a_truncated_file_is_reported_soon() {
    let mut rig = rig(LONG, |rig| fs::write(rig.path("r/f"), b"12345").unwrap());
    nix::unistd::truncate(&rig.path("r/f"), 2).unwrap();
    rig.until("the report", |rig| rig.told(&written("r/f")));
    assert_being_written(&mut rig, &[]);
}
