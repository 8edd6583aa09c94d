//! The worker of default.direct where source and target differ in one respect only.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::local_mirror::{Pair, data, item};
use lsyncd::batch::Change;
use lsyncd::config::MaxDelete;
use lsyncd::local::CopyTask;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 5,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The copy may be older than its time says.
#[test]
fn contents_are_compared_below_a_directory_that_was_made_again() {
    let block = 1 << 16;
    let long = vec![b'x'; 3 * block];
    let cases: [(&str, usize, &[u8]); 4] = [
        ("first", 0, b"y"),
        ("last", long.len() - 1, b"y"),
        ("block", block, b"y"),
        ("equal", 0, b"x"),
    ];
    let mut pair = Pair::new();
    fs::create_dir(pair.source("d")).unwrap();
    for (name, ..) in cases {
        let path = pair.source(&format!("d/{name}"));
        fs::write(&path, &long).unwrap();
        set_time(&path, 1_000_000_000);
    }
    pair.compare();
    let before = data(pair.target("d/equal")).ino();
    for (name, at, byte) in cases {
        let path = pair.source(&format!("d/{name}"));
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(byte, at as u64).unwrap();
        set_time(&path, 1_000_000_000);
    }
    let report = pair.event(Change::Delete, "/d/");
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for (name, ..) in cases {
        let read = |path| fs::read(path).unwrap();
        let name = format!("d/{name}");
        assert!(
            read(pair.source(&name)) == read(pair.target(&name)),
            "{name}"
        );
    }
    assert_eq!(
        data(pair.target("d/equal")).ino(),
        before,
        "not copied again"
    );
}

#[test]
fn a_link_to_elsewhere_of_the_same_time_is_replaced() {
    let mut pair = Pair::new();
    for (side, to) in [(pair.source("l"), "one"), (pair.target("l"), "two")] {
        symlink(to, &side).unwrap();
        set_time(&side, 1_000_000_000);
    }
    pair.compare();
    assert_eq!(fs::read_link(pair.target("l")).unwrap(), Path::new("one"));
    set_time(&pair.source("l"), 1_100_000_000);
    pair.compare();
    assert_eq!(data(pair.target("l")).mtime(), 1_100_000_000);
}

#[test]
fn special_files_are_compared_by_device_and_mode() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: takes root to make devices");
        return;
    }
    let mut pair = Pair::new();
    let make = |path: &Path, kind, mode: u32, minor| {
        let mode = Mode::from_raw_mode(mode);
        let device = rustix::fs::makedev(1, minor);
        rustix::fs::mknodat(CWD, path, kind, mode, device).unwrap();
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).unwrap();
        set_time(path, 1_000_000_000);
    };
    let device = FileType::CharacterDevice;
    if rustix::fs::mknodat(CWD, pair.source("try"), device, Mode::RUSR, 0).is_err() {
        println!("skipped: no devices here");
        return;
    }
    make(&pair.source("device"), device, 0o644, 3);
    make(&pair.target("device"), device, 0o644, 5);
    make(&pair.source("pipe"), FileType::Fifo, 0o640, 0);
    make(&pair.target("pipe"), FileType::Fifo, 0o600, 0);
    std::os::unix::fs::chown(pair.source("pipe"), Some(1), Some(2)).unwrap();
    pair.compare();
    for name in ["device", "pipe"] {
        let [source, target] = [pair.source(name), pair.target(name)].map(data);
        let facts = |data: &fs::Metadata| (data.mode(), data.rdev(), data.mtime(), data.uid());
        assert_eq!(facts(&source), facts(&target), "{name}");
    }
    let left = fs::read_dir(pair.target("")).unwrap();
    assert_eq!(left.count(), 3, "nothing temporary is left");
}

#[test]
fn each_part_of_a_file_with_several_holes_is_copied() {
    let mut pair = Pair::new();
    let file = File::create(pair.source("f")).unwrap();
    file.set_len(8 << 20).unwrap();
    for part in [1, 3, 5] {
        file.write_all_at(&[b'0' + part; 10_000], u64::from(part) << 20)
            .unwrap();
    }
    pair.compare();
    let read = |path| fs::read(path).unwrap();
    assert!(read(pair.source("f")) == read(pair.target("f")));
}

/// What moves on the target must be what the event names.
#[test]
fn a_move_of_what_the_target_does_not_have_copies_it() {
    type Make = fn(&Pair);
    let old: [(&str, Make); 3] = [
        ("nothing", |_| ()),
        ("a directory", |pair| {
            fs::create_dir(pair.target("a")).unwrap();
            fs::write(pair.target("a/x"), "x").unwrap();
        }),
        ("the file", |pair| {
            fs::write(pair.target("a"), "text").unwrap()
        }),
    ];
    for (name, make) in old {
        let mut pair = Pair::new();
        make(&pair);
        fs::write(pair.source("b"), "text").unwrap();
        let moved = item(Change::Move, "/a", Some("/b"));
        let report = pair.run(CopyTask::Events(vec![moved]));
        assert!(report.failures.is_empty(), "{name}: {:?}", report.failures);
        assert!(!pair.target("a").exists(), "{name}");
        assert_eq!(fs::read(pair.target("b")).unwrap(), b"text", "{name}");
        assert_eq!(report.split.is_empty(), name == "the file", "{name}");
    }
}

/// The directory that is compared first ends the events below it, not those elsewhere.
#[test]
fn events_beside_a_compared_directory_are_carried_out() {
    let mut pair = Pair::new();
    for name in ["d", "e"] {
        fs::create_dir(pair.source(name)).unwrap();
        fs::write(pair.source(&format!("{name}/f")), "1").unwrap();
    }
    pair.run(CopyTask::Events(vec![
        item(Change::Delete, "/d/", None),
        item(Change::Create, "/d/f", None),
        item(Change::Create, "/e/", None),
        item(Change::Create, "/e/f", None),
        item(Change::Create, "/d.x", None),
    ]));
    for name in ["d/f", "e/f"] {
        assert!(pair.target(name).exists(), "{name}");
    }
}

#[test]
fn a_file_takes_the_place_of_a_directory() {
    for delete in [true, false] {
        let mut pair = Pair::new();
        pair.delete(delete);
        fs::create_dir(pair.target("f")).unwrap();
        if delete {
            fs::write(pair.target("f/x"), "x").unwrap();
        }
        fs::write(pair.source("f"), "text").unwrap();
        let report = pair.event(Change::Create, "/f");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(fs::read(pair.target("f")).unwrap(), b"text");
    }
}

#[test]
fn what_is_protected_deep_in_a_removed_directory_stays_without_a_failure() {
    let mut pair = Pair::new();
    pair.exclude(b"*.keep");
    fs::create_dir_all(pair.target("d/e/empty")).unwrap();
    for name in ["d/e/x.keep", "d/e/y", "d/z"] {
        fs::write(pair.target(name), "1").unwrap();
    }
    let report = pair.event(Change::Delete, "/d/");
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(pair.target("d/e/x.keep").exists());
    for name in ["d/e/empty", "d/e/y", "d/z"] {
        assert!(!pair.target(name).exists(), "{name}");
    }
    // A file cannot take its place.
    fs::write(pair.source("d"), "text").unwrap();
    let report = pair.event(Change::Create, "/d");
    assert_eq!(report.failures.len(), 1);
    assert!(report.failures[0].obstructed);
    assert!(pair.target("d/e/x.keep").exists());
}

/// With `delete = "running"`, events delete what they name.
#[test]
fn others_are_kept_but_in_a_directory_that_was_deleted() {
    for (change, kept) in [(Change::Create, true), (Change::Delete, false)] {
        let mut pair = Pair::new();
        pair.keeps_others = true;
        for path in [pair.source("d"), pair.target("d")] {
            fs::create_dir(path).unwrap();
        }
        fs::write(pair.source("d/f"), "1").unwrap();
        fs::write(pair.target("d/x"), "1").unwrap();
        let report = pair.event(change, "/d/");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(pair.target("d/x").exists(), kept, "{change:?}");
        assert_eq!(pair.target("d/f").exists(), !kept, "it has its own event");
    }
    // The Delete of one file is no reason to compare the directory above it.
    let mut pair = Pair::new();
    pair.keeps_others = true;
    for path in [pair.source("d"), pair.target("d")] {
        fs::create_dir(path).unwrap();
    }
    for name in ["d/f", "d/x"] {
        fs::write(pair.target(name), "1").unwrap();
    }
    pair.event(Change::Delete, "/d/f");
    assert!(!pair.target("d/f").exists() && pair.target("d/x").exists());
}

#[test]
fn the_source_itself_has_events() {
    let mut pair = Pair::new();
    fs::set_permissions(pair.source(""), PermissionsExt::from_mode(0o751)).unwrap();
    let report = pair.event(Change::Attrib, "/");
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(data(pair.target("")).mode() & 0o777, 0o751);
    fs::write(pair.source("f"), "1").unwrap();
    fs::write(pair.target("x"), "1").unwrap();
    let report = pair.event(Change::Delete, "/");
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(pair.target("f").exists() && !pair.target("x").exists());
}

#[test]
fn a_limit_refuses_only_what_would_be_deleted() {
    let mut pair = Pair::new();
    for number in 0..40 {
        fs::write(pair.source(&number.to_string()), "1").unwrap();
    }
    pair.compare();
    // 5 of 100 entries are less than 10 %, whatever the job is.
    for number in 0..60 {
        fs::write(pair.source(&format!("more-{number}")), "1").unwrap();
    }
    pair.compare();
    pair.limit(MaxDelete::Percent(10.0));
    for (count, everything) in [(5, false), (5, true)] {
        let names: Vec<String> = (0..count).map(|at| format!("{at}-{everything}")).collect();
        for name in &names {
            fs::write(pair.target(name), "1").unwrap();
        }
        let items = names
            .iter()
            .map(|name| item(Change::Delete, &format!("/{name}"), None));
        let task = match everything {
            true => CopyTask::Everything,
            false => CopyTask::Events(items.collect()),
        };
        assert_eq!(pair.run(task).excess, None);
        assert!(names.iter().all(|name| !pair.target(name).exists()));
    }
    // Nothing is deleted without `delete`, so nothing is refused.
    fs::write(pair.target("x"), "1").unwrap();
    pair.limit(MaxDelete::Count(0));
    pair.delete(false);
    for task in [
        CopyTask::Everything,
        CopyTask::Events(vec![item(Change::Delete, "/x", None)]),
    ] {
        assert_eq!(pair.run(task).excess, None);
    }
    assert!(pair.target("x").exists());
}

#[test]
fn all_names_of_a_file_with_three_are_searched_for() {
    let mut pair = Pair::new();
    fs::write(pair.source("a"), "1").unwrap();
    pair.compare();
    for name in ["b", "c"] {
        fs::hard_link(pair.source("a"), pair.source(name)).unwrap();
    }
    assert!(pair.event(Change::Modify, "/b").names_missing);
}

#[test]
fn attributes_of_the_system_are_not_copied() {
    let mut pair = Pair::new();
    let path = pair.source("f");
    fs::write(&path, "text").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    for name in ["trusted.mark", "user.mark"] {
        if rustix::fs::setxattr(&path, name, b"1", flags).is_err() {
            println!("skipped: {name} cannot be set here");
            return;
        }
    }
    pair.compare();
    let has = |name: &str| rustix::fs::getxattr(pair.target("f"), name, &mut [0; 8]).is_ok();
    assert!(has("user.mark") && !has("trusted.mark"));
}

/// The set-user-id bit of a copy would give its owner's rights, who is another one.
#[test]
fn an_owner_that_cannot_be_set_takes_the_set_id_bits() {
    if rustix::process::geteuid().is_root() {
        let mut pair = Pair::new();
        fs::write(pair.source("f"), "text").unwrap();
        std::os::unix::fs::chown(pair.source("f"), Some(1), Some(2)).unwrap();
        fs::set_permissions(pair.source("f"), PermissionsExt::from_mode(0o6755)).unwrap();
        pair.compare();
        let copy = data(pair.target("f"));
        assert_eq!((copy.mode() & 0o7777, copy.uid()), (0o6755, 1));
    }
}

#[test]
fn a_stopped_job_changes_nothing() {
    let mut pair = Pair::new();
    fs::write(pair.source("f"), "text").unwrap();
    fs::write(pair.target("x"), "text").unwrap();
    let tasks = [
        CopyTask::Everything,
        CopyTask::Directories(vec![b"/".to_vec()]),
        CopyTask::Events(vec![item(Change::Create, "/f", None)]),
    ];
    for task in tasks {
        let report = pair.run_stopped(task);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(!pair.target("f").exists() && pair.target("x").exists());
    }
}
