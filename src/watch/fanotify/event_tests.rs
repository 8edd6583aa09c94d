//! Tests of events of one name, of look-ups of their directories, and of rechecks.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};

use super::places::handle_of;
use super::records::{EntryName, HandleRef, QUEUE};
use super::test_rig::{DIR, Handle, Rig};
use crate::watch::Backend;
use crate::watch::open_files::OpenFiles;

const CREATE: u64 = libc::FAN_CREATE;
const DELETE: u64 = libc::FAN_DELETE;
const CLOSE: u64 = libc::FAN_CLOSE_WRITE;
const ATTRIB: u64 = libc::FAN_ATTRIB;

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    File,
    Directory,
}

/// Returns what is reported for one record of `r/n`.
fn told(mask: u64, there: There) -> Option<Vec<String>> {
    let mut rig = Rig::new(&[])?;
    match there {
        There::Nothing => {}
        There::File => rig.add(&["r/n"]),
        There::Directory => rig.add(&["r/n/", "r/n/x"]),
    }
    let root = rig.handle("r");
    let record = rig.event(mask, &root, "n", None);
    let told = rig.handle_all(&[record]);
    assert_eq!(rig.reports.overflows, 0);
    Some(told)
}

/// The record of a deletion alone is in its place among the others. One with other events is at the
/// place of the first of them, so only the disk tells which was the last.
#[test]
fn a_deletion_with_other_events_is_compared_with_the_disk() {
    let (file, directory) = ("create r/n", ["create r/n/", "create r/n/x"]);
    let cases: [(u64, There, &[&str]); 11] = [
        (DELETE, There::Nothing, &["delete r/n"]),
        (DELETE, There::File, &["delete r/n"]),
        (DELETE | DIR, There::Directory, &["delete r/n/"]),
        (DELETE | CREATE, There::Nothing, &[file, "delete r/n"]),
        (DELETE | CREATE, There::File, &["delete r/n", file]),
        (DELETE | CLOSE, There::Nothing, &["delete r/n"]),
        (DELETE | CLOSE, There::File, &["delete r/n", file]),
        (DELETE | ATTRIB, There::File, &["delete r/n", file]),
        (
            DELETE | CREATE | DIR,
            There::Nothing,
            &["create r/n/", "delete r/n/"],
        ),
        (
            DELETE | CREATE | DIR,
            There::Directory,
            &["delete r/n/", directory[0], directory[1]],
        ),
        (
            DELETE | CREATE | DIR,
            There::File,
            &["delete r/n/", "create r/n"],
        ),
    ];
    for (mask, there, expected) in cases {
        let Some(told) = told(mask, there) else {
            return;
        };
        assert_eq!(told, expected, "{mask:x} {there:?}");
    }
}

#[test]
fn events_of_a_file_are_reported_in_their_order() {
    let closed = ["create r/n", "closed r/n"];
    let cases: [(u64, &[&str]); 6] = [
        (CREATE, &closed[..1]),
        (CREATE | CLOSE, &closed),
        (CLOSE | ATTRIB, &["closed r/n", "attrib r/n"]),
        (libc::FAN_MODIFY | CLOSE, &["closed r/n"]),
        (libc::FAN_MODIFY, &[]),
        (ATTRIB, &["attrib r/n"]),
    ];
    for (mask, expected) in cases {
        let Some(told) = told(mask, There::File) else {
            return;
        };
        assert_eq!(told, expected, "{mask:x}");
    }
}

#[test]
fn writes_are_reported_at_once_if_open_files_are_not_tracked() {
    let Some(mut rig) = Rig::new(&["r/n"]) else {
        return;
    };
    let root = rig.handle("r");
    let record = rig.event(libc::FAN_MODIFY, &root, "n", None);
    assert_eq!(rig.handle_one(&record), [""; 0]);
    assert_eq!(rig.backend.open_files(), 1);
    rig.backend.open_files = OpenFiles::new(None);
    assert_eq!(rig.handle_all(&[record]), ["written r/n"]);
}

/// Each later event of the name changes what the recheck compares the disk with.
#[test]
fn the_last_report_of_a_name_is_compared_with_the_disk() {
    let (new, gone) = (["create r/n", "delete r/n"], ["delete r/n", "create r/n"]);
    for (is_there, second, expected) in [
        (true, DELETE, [gone, gone].concat()),
        (false, CREATE, [new, new].concat()),
    ] {
        let Some(mut rig) = Rig::new(&[]) else {
            return;
        };
        if is_there {
            rig.add(&["r/n"]);
        }
        let root = rig.handle("r");
        let record = |mask| rig.event(mask, &root, "n", None);
        let records = [record(CREATE | DELETE), record(second)];
        assert_eq!(rig.handle_all(&records), expected);
    }
    let new = ["create r/n/", "delete r/n/"];
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    let root = rig.handle("r");
    let record = |mask| rig.event(mask | DIR, &root, "n", None);
    let records = [record(CREATE | DELETE), record(CREATE)];
    assert_eq!(rig.handle_all(&records), [new, new].concat());
}

/// The name cannot be looked up any more. Its path is not that of the directory that was looked up
/// before.
#[test]
fn a_name_in_a_directory_that_is_gone_is_not_rechecked() {
    let Some(mut rig) = Rig::new(&["r/d/", "r/d/n", "r/e/"]) else {
        return;
    };
    let [d, e] = ["r/d", "r/e"].map(|path| rig.handle(path));
    let records = [
        rig.event(CREATE | DELETE, &d, "n", None),
        rig.event(CREATE, &e, "f", None),
    ];
    let start = rig.backend.reader.taken();
    rig.queue_at(start, &records[..1]);
    // The directory is removed between the handling of the record and the recheck.
    rig.backend
        .recheck(0, entry(&rig, &d, b"n"), false, true, true);
    rig.remove("r/d/");
    rig.queue_at(start, &records[1..]);
    let told = rig.reported();
    assert!(!told.contains(&"delete r/e/n".to_string()), "{told:?}");
    assert!(!told.contains(&"delete r/n".to_string()), "{told:?}");
    assert_eq!(told.last().unwrap(), "create r/e/f");
}

fn entry<'a>(rig: &Rig, directory: &'a [u8], name: &'a [u8]) -> EntryName<'a> {
    let system = rig.backend.places.all()[0].system;
    EntryName {
        directory: HandleRef {
            system,
            bytes: directory,
        },
        name,
    }
}

#[test]
fn each_name_has_its_own_recheck() {
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    let root = rig.handle("r");
    let names: Vec<Vec<u8>> = (0..2000).map(|n| n.to_string().into_bytes()).collect();
    for name in &names {
        rig.backend
            .recheck(0, entry(&rig, &root, name), false, false, true);
    }
    for name in &names {
        assert!(rig.backend.is_doubtful(0, entry(&rig, &root, name)));
        let other = [b"x", &name[..]].concat();
        assert!(!rig.backend.is_doubtful(0, entry(&rig, &root, &other)));
        assert!(!rig.backend.is_doubtful(0, entry(&rig, &other, name)));
        assert!(!rig.backend.is_doubtful(1, entry(&rig, &root, name)));
    }
    assert_eq!(rig.reported(), [""; 0]);
    assert!(rig.backend.rechecks.is_empty() && rig.reports.overflows == 0);
}

#[test]
fn a_recheck_stays_doubtful() {
    let Some(mut rig) = Rig::new(&["r/n"]) else {
        return;
    };
    let root = rig.handle("r");
    rig.backend
        .recheck(0, entry(&rig, &root, b"n"), false, true, true);
    rig.backend
        .recheck(0, entry(&rig, &root, b"n"), false, true, false);
    assert!(rig.backend.is_doubtful(0, entry(&rig, &root, b"n")));
    rig.reported();
    rig.backend
        .recheck(0, entry(&rig, &root, b"n"), false, true, false);
    assert!(!rig.backend.is_doubtful(0, entry(&rig, &root, b"n")));
}

/// No event wakes the loop.
#[test]
fn a_turn_is_requested_while_a_name_is_to_be_rechecked() {
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    assert_eq!(rig.backend.next_deadline(), None);
    let mark = rig.backend.event_mark();
    rig.reported();
    assert!(rig.backend.has_reported(mark));
    let root = rig.handle("r");
    rig.backend
        .recheck(0, entry(&rig, &root, b"n"), false, true, true);
    let deadline = rig.backend.next_deadline().unwrap();
    assert!(deadline > rig.backend.now);
    assert!(!rig.backend.has_reported(mark));
    assert_eq!(rig.reported(), ["delete r/n"]);
    assert_eq!(rig.backend.next_deadline(), None);
}

/// After an overflow nothing that is known is reliable.
#[test]
fn an_overflow_forgets_directories_and_rechecks() {
    let Some(mut rig) = Rig::new(&["r/d/"]) else {
        return;
    };
    let (root, d) = (rig.handle("r"), rig.handle("r/d"));
    let inside = rig.event(CREATE, &d, "f", None);
    assert_eq!(rig.handle_one(&inside), ["create r/d/f"]);
    // The event of the rename is lost.
    rig.mv("r/d", "r/e");
    rig.backend
        .recheck(0, entry(&rig, &root, b"n"), false, true, true);
    let records = [(QUEUE.overflow)(), inside];
    assert_eq!(rig.handle_all(&records), ["create r/e/f"]);
    assert_eq!(rig.reports.overflows, 1);
}

#[test]
fn a_directory_that_was_deleted_is_not_known_any_more() {
    let Some(mut rig) = Rig::new(&["r/d/"]) else {
        return;
    };
    let (root, d) = (rig.handle("r"), rig.handle("r/d"));
    let inside = |name| rig.event(CREATE, &d, name, None);
    let (first, late) = (inside("f"), inside("late"));
    assert_eq!(rig.handle_all(&[first]), ["create r/d/f"]);
    rig.remove("r/d/");
    let end = rig.event(DELETE | DIR, &root, "d", Some(&d));
    assert_eq!(rig.handle_all(&[end, late]), ["delete r/d/"]);
}

/// Its rename has not been read: only the name tells that it is there.
#[test]
fn a_directory_that_is_found_at_a_name_is_known_there() {
    let Some(mut rig) = Rig::new(&["r/d/"]) else {
        return;
    };
    let (root, d) = (rig.handle("r"), rig.handle("r/d"));
    let inside = |name| rig.event(CREATE, &d, name, None);
    let (first, second) = (inside("f"), inside("g"));
    assert_eq!(rig.handle_all(&[first]), ["create r/d/f"]);
    rig.mv("r/d", "r/e");
    let found = rig.event(CREATE | DELETE | DIR, &root, "e", None);
    let expected = ["delete r/e/", "create r/e/", "create r/e/g"];
    assert_eq!(rig.handle_all(&[found, second]), expected);
}

#[test]
fn events_of_other_directories_are_not_reported() {
    let Some(mut rig) = Rig::new(&["out/d/", "r/no/sub/", "r/d/"]) else {
        return;
    };
    let handles = ["out", "out/d", "r/no", "r/no/sub"].map(|path| rig.handle(path));
    let (gone, sub) = (rig.handle("r/d"), handles[3].clone());
    rig.remove("r/d/");
    let create = |handle: &Handle| rig.event(CREATE, handle, "f", None);
    let mut records: Vec<_> = handles.iter().chain([&gone]).map(create).collect();
    let attributes = |handle: &Handle| rig.event(ATTRIB | DIR, handle, ".", None);
    let outside = [&handles[0], &handles[1], &gone].map(attributes);
    records.extend(outside);
    // Another file system.
    let mut other = rig.event(CREATE, &rig.handle("r"), "f", None);
    other[24 + 4..24 + 12].copy_from_slice(b"ELSEWHER");
    records.push(other);
    assert_eq!(rig.handle_all(&records), [""; 0]);
    assert!(rig.backend.known.is_outside(0, &sub));
    let root = rig.handle("r");
    let own = rig.event(ATTRIB | DIR, &root, ".", None);
    assert_eq!(rig.handle_all(&[own]), ["attrib r/"]);
}

/// An error says nothing about the directory: it may have changes that have to be sent.
#[test]
fn a_directory_that_cannot_be_opened_counts_as_a_loss() {
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    let too_long = vec![1; 200];
    let record = rig.event(CREATE, &too_long, "f", None);
    assert_eq!(rig.handle_all(&[record]), [""; 0]);
    assert_eq!(rig.reports.overflows, 1);
}

/// Makes directories below one until the path is too long for the kernel. Returns the last one.
fn make_deep(top: File) -> OwnedFd {
    let name = "d".repeat(200);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = OwnedFd::from(top);
    for _ in 0..25 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    at
}

/// The kernel does not report such a path. Changes outside do not matter; those inside are found by
/// a comparison.
#[test]
fn a_directory_with_a_too_long_path_is_told_from_one_outside() {
    for (top, is_open, overflows) in [("out", true, 0), ("r", true, 1), ("r", false, 0)] {
        let Some(mut rig) = Rig::new(&["out/"]) else {
            return;
        };
        let mut handle = Handle::new();
        rig.change(|rig| {
            let last = make_deep(File::open(rig.path(top)).unwrap());
            handle = handle_of(last.as_fd()).unwrap().0;
            if !is_open {
                let above = openat(&last, "..", OFlags::RDONLY, Mode::empty()).unwrap();
                unlinkat(&above, "d".repeat(200), AtFlags::REMOVEDIR).unwrap();
            }
        });
        let record = rig.event(CREATE, &handle, "f", None);
        assert_eq!(rig.handle_all(&[record]), [""; 0]);
        assert_eq!(rig.reports.overflows, overflows, "{top} {is_open}");
        let is_outside = rig.backend.known.is_outside(0, &handle);
        assert_eq!(is_outside, top == "out");
    }
}

/// It has a handle as long as it is open.
#[test]
fn a_directory_that_is_gone_and_open_has_no_changes() {
    for is_deep in [false, true] {
        let Some(mut rig) = Rig::new(&["r/d/"]) else {
            return;
        };
        let mut open = Vec::new();
        rig.change(|rig| {
            let directory = File::open(rig.path("r/d")).unwrap();
            if is_deep {
                let last = make_deep(directory);
                let above = openat(&last, "..", OFlags::RDONLY, Mode::empty()).unwrap();
                unlinkat(&above, "d".repeat(200), AtFlags::REMOVEDIR).unwrap();
                open.push(last);
            } else {
                fs::remove_dir(rig.path("r/d")).unwrap();
                open.push(directory.into());
            }
        });
        let handle = handle_of(open[0].as_fd()).unwrap().0;
        let record = rig.event(CREATE, &handle, "f", None);
        assert_eq!(rig.handle_all(&[record]), [""; 0], "{is_deep}");
        assert_eq!(rig.reports.overflows, 0, "{is_deep}");
    }
}
