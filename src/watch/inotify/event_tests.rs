//! Tests of events that are older or newer than the tree and the disk. Each test ends with the
//! watches that are wanted, see [`Rig::quiet`].

use std::fs;
use std::time::{Duration, Instant};

use super::reconcile::RecheckTarget;
use super::test_rig::{DIR, Rig};
use crate::watch::{Backend, Follow, Tell};

const CREATE: u32 = libc::IN_CREATE;
const DELETE: u32 = libc::IN_DELETE;

#[test]
fn a_directory_that_is_where_its_rename_has_put_it_moves() {
    let mut rig = Rig::new(&["r/a/x/", "r/a/f", "r/c/"]);
    let (root, a, c) = (rig.wd("r/"), rig.wd("r/a/"), rig.wd("r/c/"));
    rig.mv("r/a", "r/b");
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    assert_eq!(rig.quiet(), ["move r/a/ r/b/"]);
    rig.event(a, CREATE, "g");
    assert_eq!(rig.quiet(), ["create r/b/g"]);
    rig.reports.follow = Follow::Contents;
    rig.mv("r/b", "r/c/d");
    rig.rename(DIR, (root, "b"), (c, "d"), 2);
    let mut told = rig.quiet();
    assert_eq!(told.remove(0), "move r/b/ r/c/d/");
    told.sort();
    assert_eq!(told, ["found r/c/d/f", "found r/c/d/x/"]);
}

/// The rename was undone, and another directory has taken the new name.
#[test]
fn a_rename_that_the_disk_contradicts_is_two_events() {
    let mut rig = Rig::new(&["r/a/", "r/a/x"]);
    let root = rig.wd("r/");
    rig.add(&["r/b/", "r/b/y"]);
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    let expected = [
        "delete r/a/",
        "create r/b/",
        "create r/b/y",
        "create r/a/",
        "create r/a/x",
    ];
    assert_eq!(rig.quiet(), expected);
}

#[test]
fn a_directory_that_has_moved_on_follows_its_events() {
    let mut rig = Rig::new(&["r/a/", "r/a/x/"]);
    let root = rig.wd("r/");
    rig.mv("r/a", "r/c");
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    rig.rename(DIR, (root, "b"), (root, "c"), 2);
    assert_eq!(rig.quiet(), ["move r/a/ r/b/", "move r/b/ r/c/"]);
    // It has come back, and the event of that is lost.
    rig.rename(DIR, (root, "c"), (root, "d"), 3);
    let told = rig.quiet();
    assert_eq!(told[..2], ["move r/c/ r/d/", "delete r/d/"]);
    assert_eq!(told[2..], ["create r/c/", "create r/c/x/"]);
}

#[test]
fn a_directory_that_goes_where_nothing_is_wanted_is_not_watched() {
    let mut rig = Rig::new(&["r/a/x/", "r/b/"]);
    let (root, b) = (rig.wd("r/"), rig.wd("r/b/"));
    rig.mv("r/a", "r/b/no");
    rig.rename(DIR, (root, "a"), (b, "no"), 1);
    assert_eq!(rig.quiet(), ["move r/a/ r/b/no/"]);
    rig.mv("r/b/no", "r/c");
    rig.rename(DIR, (b, "no"), (root, "c"), 2);
    let expected = ["move r/b/no/ r/c/", "create r/c/", "create r/c/x/"];
    assert_eq!(rig.quiet(), expected);
    // The rename was undone.
    rig.rename(DIR, (root, "c"), (root, "no"), 3);
    let expected = [
        "delete r/c/",
        "create r/no/",
        "create r/c/",
        "create r/c/x/",
    ];
    assert_eq!(rig.quiet(), expected);
}

#[test]
fn exchanged_directories_are_reported_with_what_they_have() {
    let mut rig = Rig::new(&["r/a/", "r/a/x", "r/b/", "r/b/y"]);
    let root = rig.wd("r/");
    rig.exchange("r/a", "r/b");
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    rig.rename(DIR, (root, "b"), (root, "a"), 2);
    let expected = [
        "renewed r/b/",
        "move r/a/ r/b/",
        "vacated r/b/",
        "create r/b/",
        "create r/a/",
        "create r/a/y",
    ];
    assert_eq!(rig.quiet(), expected);
}

#[test]
fn a_file_and_a_directory_that_are_exchanged_are_both_reported() {
    let mut rig = Rig::new(&["r/d/", "r/d/x", "r/f"]);
    let root = rig.wd("r/");
    rig.exchange("r/d", "r/f");
    rig.rename(0, (root, "f"), (root, "d"), 1);
    rig.rename(DIR, (root, "d"), (root, "f"), 2);
    let told = rig.quiet();
    for line in ["create r/d", "create r/f/", "create r/f/x"] {
        assert!(told.iter().any(|told| told == line), "{told:?}");
    }
    rig.exchange("r/d", "r/f");
    rig.rename(DIR, (root, "f"), (root, "d"), 3);
    rig.rename(0, (root, "d"), (root, "f"), 4);
    let told = rig.quiet();
    let at = |line: &str| told.iter().rposition(|told| told == line);
    assert!(told.contains(&"move r/f/ r/d/".to_string()), "{told:?}");
    assert!(at("create r/f") > at("move r/f/ r/d/"), "{told:?}");
    assert!(at("create r/d") < at("create r/d/"), "{told:?}");
}

/// Only its arrival is read: its other name is in the tree.
#[test]
fn a_directory_that_arrives_from_another_name_is_not_at_both() {
    for (from, to, above) in [
        ("r/a/d", "r/b/d", "r/b/"),
        ("r/a/d", "r/a/e", "r/a/"),
        ("r/d", "r/b/d", "r/b/"),
    ] {
        let mut rig = Rig::new(&["r/a/d/", "r/b/", "r/d/"]);
        let (path, name) = (format!("{from}/"), to.rsplit('/').next().unwrap());
        rig.add(&[&format!("{path}x")]);
        let wd = rig.wd(above);
        rig.mv(from, to);
        rig.event(wd, libc::IN_MOVED_TO | DIR, name);
        let expected = [
            format!("delete {path}"),
            format!("create {to}/"),
            format!("create {to}/x"),
        ];
        assert_eq!(rig.quiet(), expected, "{from} {to}");
    }
}

/// A file has taken the old name, and its event was reported before.
#[test]
fn a_file_at_the_old_name_of_a_directory_is_reported_again() {
    let mut rig = Rig::new(&["r/a/d/", "r/b/"]);
    let b = rig.wd("r/b/");
    rig.mv("r/a/d", "r/b/d");
    rig.add(&["r/a/d"]);
    rig.event(b, libc::IN_MOVED_TO | DIR, "d");
    let expected = ["delete r/a/d/", "create r/b/d/", "create r/a/d"];
    assert_eq!(rig.quiet(), expected);
}

/// The event is older than the directory that the tree has.
#[test]
fn a_deletion_of_an_earlier_directory_reports_the_present_one_again() {
    let mut rig = Rig::new(&["r/d/", "r/d/x"]);
    let root = rig.wd("r/");
    rig.event(root, DELETE | DIR, "d");
    let expected = ["delete r/d/", "create r/d/", "create r/d/x"];
    assert_eq!(rig.quiet(), expected);
    // What has been reported is not read again.
    rig.event(root, CREATE | DIR, "d");
    assert_eq!(rig.quiet(), ["create r/d/"]);
    rig.event(root, DELETE | DIR, "d");
    rig.event(root, CREATE | DIR, "d");
    let expected = ["delete r/d/", "create r/d/", "create r/d/x"];
    assert_eq!(rig.quiet(), expected);
}

#[test]
fn a_directory_that_is_gone_is_not_watched() {
    let mut rig = Rig::new(&["r/d/e/", "r/g/"]);
    let (root, d) = (rig.wd("r/"), rig.wd("r/d/"));
    rig.change(|rig| fs::remove_dir_all(rig.path("r/d")).unwrap());
    rig.event(d, DELETE | DIR, "e");
    rig.event(root, DELETE | DIR, "d");
    assert_eq!(rig.quiet(), ["delete r/d/e/", "delete r/d/"]);
    // It has become a file: one event says that it is there.
    rig.change(|rig| {
        fs::remove_dir(rig.path("r/g")).unwrap();
        fs::write(rig.path("r/g"), "").unwrap();
    });
    rig.event(root, CREATE, "g");
    let expected = ["create r/g", "delete r/g/", "create r/g"];
    assert_eq!(rig.quiet(), expected);
}

/// The kernel has removed the watch, and the directory still exists: another one with the same name
/// has ended, or the watch was taken for one of no directory.
#[test]
fn a_directory_that_has_lost_its_watch_is_watched_again() {
    let mut rig = Rig::new(&["r/d/", "r/d/x"]);
    let d = rig.wd("r/d/");
    rig.change(|rig| rig.backend.unwatch(d));
    rig.event(d, libc::IN_IGNORED, "");
    let told = rig.quiet();
    assert_eq!(told, ["create r/d/", "create r/d/x"]);
    // After its end nothing is to be looked for.
    let d = rig.wd("r/d/");
    rig.change(|rig| fs::remove_dir_all(rig.path("r/d")).unwrap());
    rig.event(d, libc::IN_DELETE_SELF, "");
    rig.event(d, libc::IN_IGNORED, "");
    assert!(rig.backend.rechecks.is_empty());
    assert_eq!(rig.quiet(), [""; 0]);
}

/// The rename of the directory around has not been read.
#[test]
fn a_new_directory_in_one_that_has_moved_is_found_at_its_new_path() {
    for is_taken in [false, true] {
        let mut rig = Rig::new(&["r/a/"]);
        let (root, a) = (rig.wd("r/"), rig.wd("r/a/"));
        rig.mv("r/a", "r/b");
        rig.add(&["r/b/x/", "r/b/x/f"]);
        if is_taken {
            rig.add(&["r/a/x/", "r/a/x/g"]);
        }
        rig.event(a, CREATE | DIR, "x");
        rig.rename(DIR, (root, "a"), (root, "b"), 1);
        if is_taken {
            rig.event(root, CREATE | DIR, "a");
        }
        let mut told = rig.quiet();
        assert_eq!(told[..2], ["create r/a/x/", "move r/a/ r/b/"]);
        told[2..].sort();
        let found = ["create r/b/x/", "create r/b/x/f"];
        let taken = ["create r/a/", "create r/a/x/", "create r/a/x/g"];
        let expected = if is_taken {
            [&taken[..], &found].concat()
        } else {
            found.to_vec()
        };
        assert_eq!(told[2..], expected);
    }
}

/// No event tells where the directories are.
#[test]
fn a_recheck_below_a_directory_that_has_moved_finds_that_out() {
    for (from, to, expected) in [
        ("r/a", "r/no", &["delete r/a/"][..]),
        ("r/a/b", "r/no", &["delete r/a/b/"]),
        ("r/a/b/c", "r/no", &["delete r/a/b/c/"]),
    ] {
        let mut rig = Rig::new(&["r/a/b/c/"]);
        let node = rig.node("r/a/b/c/");
        rig.mv(from, to);
        let name = RecheckTarget::Name(b"d".to_vec());
        rig.backend.recheck(node, name);
        assert_eq!(rig.quiet(), expected, "{from}");
    }
}

#[test]
fn the_contents_of_a_directory_that_has_moved_are_found_at_its_new_path() {
    let mut rig = Rig::new(&["r/a/", "r/a/x/", "r/a/x/f"]);
    let (root, a) = (rig.wd("r/"), rig.node("r/a/"));
    rig.mv("r/a", "r/b");
    let contents = RecheckTarget::Contents { tell: Tell::All };
    rig.backend.recheck(a, contents);
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    let expected = ["move r/a/ r/b/", "create r/b/x/", "create r/b/x/f"];
    assert_eq!(rig.quiet(), expected);
}

#[test]
fn a_first_half_waits_for_its_second_one() {
    let mut rig = Rig::new(&["r/a/", "r/f"]);
    let root = rig.wd("r/");
    rig.mv("r/f", "r/g");
    rig.half(root, libc::IN_MOVED_FROM, "f", 1);
    let now = rig.backend.now;
    rig.backend.turn(now, &mut rig.reports);
    assert_eq!(rig.reports.told, [""; 0]);
    assert!(rig.backend.next_deadline().unwrap() > now);
    rig.half(root, libc::IN_MOVED_TO, "g", 1);
    assert_eq!(rig.quiet(), ["move r/f r/g"]);
    rig.mv("r/g", "x");
    rig.half(root, libc::IN_MOVED_FROM, "g", 2);
    let later = Instant::now() + Duration::from_secs(1);
    while rig.reports.told.is_empty() {
        rig.backend.turn(later, &mut rig.reports);
    }
    assert_eq!(rig.quiet(), ["delete r/g"]);
    assert_eq!(rig.backend.next_deadline(), None);
    // Something has taken the name.
    rig.half(root, libc::IN_MOVED_FROM, "h", 3);
    rig.event(root, CREATE, "h");
    assert_eq!(rig.quiet(), ["delete r/h", "create r/h"]);
    // An event of what was exchanged for it from outside.
    rig.add(&["r/i"]);
    rig.half(root, libc::IN_MOVED_FROM, "i", 4);
    rig.event(root, libc::IN_CLOSE_WRITE, "i");
    assert_eq!(rig.quiet(), ["delete r/i", "create r/i", "closed r/i"]);
}

/// The directory in which it arrives is below it in the tree: that has moved out before.
#[test]
fn a_directory_that_moves_below_itself_in_the_tree_is_looked_up() {
    let mut rig = Rig::new(&["r/a/b/"]);
    let (root, b) = (rig.wd("r/"), rig.wd("r/a/b/"));
    rig.mv("r/a/b", "r/c");
    rig.mv("r/a", "r/c/a");
    rig.rename(DIR, (root, "a"), (b, "a"), 1);
    rig.event(root, CREATE | DIR, "c");
    let told = rig.quiet();
    assert!(told.contains(&"delete r/a/".to_string()), "{told:?}");
    assert!(told.contains(&"create r/c/".to_string()), "{told:?}");
    assert!(told.contains(&"create r/c/a/".to_string()), "{told:?}");
}

/// The events of the directory are lost, and the first reading may be over when it is made.
#[test]
fn a_rebuild_during_another_one_finds_what_that_has_not() {
    let mut rig = Rig::new(&["r/a/"]);
    rig.backend.rebuild();
    rig.add(&["r/a/b/c/"]);
    rig.backend.rebuild();
    assert!(rig.backend.crawling());
    assert_eq!(rig.quiet(), [""; 0]);
}

#[test]
fn files_and_their_attributes_are_reported() {
    let mut rig = Rig::new(&["r/d/", "r/f"]);
    let (root, d) = (rig.wd("r/"), rig.wd("r/d/"));
    rig.event(root, CREATE, "f");
    rig.event(root, libc::IN_CLOSE_WRITE, "f");
    rig.event(root, libc::IN_MODIFY, "f");
    rig.event(root, libc::IN_ATTRIB, "f");
    rig.event(root, libc::IN_ATTRIB | DIR, "d");
    rig.event(root, libc::IN_MODIFY | DIR, "d");
    // The directory above reports it as well.
    rig.event(d, libc::IN_ATTRIB | DIR, "");
    rig.event(root, libc::IN_ATTRIB | DIR, "");
    rig.event(root, DELETE, "f");
    let expected = [
        "create r/f",
        "closed r/f",
        "written r/f",
        "attrib r/f",
        "attrib r/d/",
        "attrib r/d/",
        "attrib r/",
        "delete r/f",
    ];
    assert_eq!(rig.quiet(), expected);
}

#[test]
fn a_root_that_moves_or_ends_is_lost() {
    let mut rig = Rig::new(&["r/d/"]);
    let root = rig.wd("r/");
    rig.mv("r", "s");
    rig.event(root, libc::IN_MOVE_SELF, "");
    assert_eq!(rig.quiet(), ["lost 0 Moved"]);
    rig.add(&["r/e/"]);
    rig.backend.retry_roots();
    assert_eq!(rig.quiet(), ["back 0"]);
    let root = rig.wd("r/");
    rig.change(|rig| fs::remove_dir_all(rig.path("r")).unwrap());
    rig.event(root, libc::IN_DELETE_SELF, "");
    rig.event(root, libc::IN_IGNORED, "");
    assert_eq!(rig.quiet(), ["lost 0 Deleted"]);
}
