//! Tests of one turn: its limits, its order, and what it says has been handled.

use std::fs::File;
use std::os::fd::OwnedFd;

use super::super::records::tests::{info, record};
use super::super::test_rig::Rig;
use super::*;

/// Runs one turn.
fn turn(rig: &mut Rig) {
    rig.backend.turn(Instant::now(), &mut rig.reports);
}

/// A position behind all records: each rename may have replaced a directory.
const REPLACED: u64 = u64::MAX;

#[test]
fn a_turn_handles_a_limited_number_of_records() {
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    let other = info(2, *b"ELSEWHER", b"\x01\0\0\0none", Some(b"x"));
    let other = record(libc::FAN_CREATE, &[other]);
    let start = rig.backend.reader.taken();
    rig.queue_at(start, &vec![other; MAX_RECORDS_PER_TURN]);
    rig.backend.replaced = REPLACED;
    turn(&mut rig);
    // The rig has added one record.
    assert_eq!(rig.backend.pending.len(), 1);
    let handled = start + MAX_RECORDS_PER_TURN as u64;
    assert_eq!(rig.backend.position, handled);
    assert!(rig.backend.has_handled(handled));
    assert!(!rig.backend.has_handled(handled + 1));
    // The other records may belong to renames.
    assert_eq!(rig.backend.replaced, REPLACED);
    let mut events = mio::Events::with_capacity(1);
    rig.poll().poll(&mut events, None).unwrap();
    turn(&mut rig);
    assert!(rig.backend.pending.is_empty());
    assert_eq!(rig.backend.replaced, 0);
}

#[test]
fn contents_are_reported_before_the_next_event() {
    let Some(mut rig) = Rig::new(&["r/d/", "r/d/f"]) else {
        return;
    };
    let directory = |rig: &Rig| OwnedFd::from(File::open(rig.path("r/d")).unwrap());
    let path = rig.absolute("r/d/");
    for _ in 0..=MAX_BATCHES_PER_TURN {
        let directory = directory(&rig);
        rig.backend.read_contents(directory, &path, Tell::All);
    }
    let create = rig.event(libc::FAN_CREATE, &rig.handle("r"), "f", None);
    let start = rig.backend.reader.taken();
    rig.queue_at(start, &[create]);
    turn(&mut rig);
    assert_eq!(rig.reports.told, ["create r/d/f"; MAX_BATCHES_PER_TURN]);
    assert_eq!(
        rig.reported()[MAX_BATCHES_PER_TURN..],
        ["create r/d/f", "create r/f"]
    );
}

/// A name is not compared with the disk while the contents around it are being read.
#[test]
fn names_are_rechecked_after_contents_are_read() {
    let Some(mut rig) = Rig::new(&["r/d/", "r/d/f"]) else {
        return;
    };
    let root = rig.handle("r");
    let system = rig.backend.places.all()[0].system;
    let directory = super::super::records::HandleRef {
        system,
        bytes: &root,
    };
    let entry = EntryName {
        directory,
        name: b"n",
    };
    rig.backend.recheck(0, entry, false, true, true);
    let directory = File::open(rig.path("r/d")).unwrap().into();
    let path = rig.absolute("r/d/");
    rig.backend.read_contents(directory, &path, Tell::All);
    rig.backend.clear_up(&mut rig.reports);
    assert_eq!(rig.reports.told, [""; 0]);
    assert_eq!(rig.reported(), ["create r/d/f", "delete r/n"]);
}

/// A wait takes milliseconds, and there may be one for each event.
#[test]
fn a_turn_waits_for_the_reader_a_limited_number_of_times() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
        return;
    };
    // Its events are outstanding until they are taken.
    rig.make("r/f");
    rig.backend.catch_ups = MAX_CATCH_UPS;
    assert!(!rig.backend.catch_up());
    assert!(rig.backend.pending.is_empty());
    // Nothing can be said of renames.
    rig.backend.replaced = REPLACED;
    rig.backend.clear_up(&mut rig.reports);
    assert_eq!(rig.backend.replaced, REPLACED);
    rig.backend.catch_ups = 0;
    rig.backend.catch_up();
    assert_eq!(rig.backend.catch_ups, 1);
}

#[test]
fn a_failure_to_read_a_directory_is_reported() {
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    let path = rig.absolute("r/d/");
    let error = Some(io::Error::other("text"));
    rig.backend.report_failure(&path, None, &mut rig.reports);
    rig.backend.report_failure(&path, error, &mut rig.reports);
    assert_eq!(rig.reports.told, ["reading a directory: text r/d/"]);
}

#[test]
fn the_age_of_the_oldest_change_of_an_open_file_is_told() {
    let Some(mut rig) = Rig::new(&[]) else {
        return;
    };
    assert_eq!(rig.backend.oldest_open(), None);
    let age = Duration::from_millis(10);
    let path = rig.absolute("r/f");
    let since = Instant::now() - age;
    rig.backend.open_files.touched(0, &path, true, since);
    assert!(rig.backend.oldest_open().unwrap() >= age);
}
