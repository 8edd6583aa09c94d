//! Tests of renames: what is reported for a record, given the records around it and the disk.

use std::fs;

use super::test_rig::{DIR, Rig};
use crate::watch::Follow;

/// An event of a directory itself.
const SELF: &str = ".";

#[test]
fn a_directory_that_is_where_its_rename_has_put_it_moves() {
    let Some(mut rig) = Rig::new(&["r/a/b/", "r/a/f"]) else {
        return;
    };
    let (root, a) = (rig.handle("r"), rig.handle("r/a"));
    rig.mv("r/a", "r/n");
    let rename = || rig.rename(DIR, (&root, "a"), (&root, "n"), &a);
    let (rename, inside) = (rename(), rig.event(libc::FAN_CREATE, &a, "g", None));
    assert_eq!(rig.handle_all(&[rename]), ["move r/a/ r/n/"]);
    assert_eq!(rig.handle_all(&[inside]), ["create r/n/g"]);
    assert_eq!(rig.reports.overflows, 0);
}

#[test]
fn the_contents_of_a_renamed_directory_are_found_on_request() {
    let Some(mut rig) = Rig::new(&["r/a/b/", "r/a/b/f"]) else {
        return;
    };
    rig.reports.follow = Follow::Contents;
    let (root, a) = (rig.handle("r"), rig.handle("r/a"));
    rig.mv("r/a", "r/n");
    let rename = rig.rename(DIR, (&root, "a"), (&root, "n"), &a);
    let told = rig.handle_all(&[rename]);
    assert_eq!(told, ["move r/a/ r/n/", "found r/n/b/", "found r/n/b/f"]);
}

/// Each of the two files has the name of the other one, so neither rename is true by itself.
#[test]
fn files_that_are_exchanged_are_reported_at_both_names() {
    let Some(mut rig) = Rig::new(&["r/f", "r/g"]) else {
        return;
    };
    let [root, f, g] = ["r", "r/f", "r/g"].map(|path| rig.handle(path));
    rig.exchange("r/f", "r/g");
    let records = [
        rig.rename(0, (&root, "f"), (&root, "g"), &f),
        rig.rename(0, (&root, "g"), (&root, "f"), &g),
    ];
    let (at_f, at_g) = (["delete r/f", "create r/f"], ["delete r/g", "create r/g"]);
    let expected = [at_f, at_g, at_g, at_f].concat();
    assert_eq!(rig.handle_all(&records), expected);
}

#[test]
fn directories_that_are_exchanged_are_reported_with_their_contents() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/a/x", "r/b/", "r/b/y"]) else {
        return;
    };
    let [root, a, b] = ["r", "r/a", "r/b"].map(|path| rig.handle(path));
    rig.exchange("r/a", "r/b");
    let records = [
        rig.rename(DIR, (&root, "a"), (&root, "b"), &a),
        rig.rename(DIR, (&root, "b"), (&root, "a"), &b),
        rig.event(libc::FAN_CREATE, &a, "in-a", None),
        rig.event(libc::FAN_CREATE, &b, "in-b", None),
    ];
    let at_a = ["delete r/a/", "create r/a/", "create r/a/y"];
    let at_b = ["delete r/b/", "create r/b/", "create r/b/x"];
    let after = ["create r/b/in-a", "create r/a/in-b"];
    let told = rig.handle_all(&records);
    let mut split: Vec<_> = told[..told.len() - 2].to_vec();
    assert_eq!(told[told.len() - 2..], after);
    let mut expected = [at_a, at_b, at_a, at_b].concat();
    split.sort();
    expected.sort();
    assert_eq!(split, expected);
}

/// Something has taken the old name, which an event will report.
#[test]
fn a_file_whose_old_name_is_taken_again_moves() {
    let Some(mut rig) = Rig::new(&["r/f"]) else {
        return;
    };
    let (root, f) = (rig.handle("r"), rig.handle("r/f"));
    rig.mv("r/f", "r/g");
    rig.add(&["r/f"]);
    let records = [
        rig.rename(0, (&root, "f"), (&root, "g"), &f),
        rig.event(libc::FAN_CREATE, &root, "f", None),
    ];
    assert_eq!(rig.handle_all(&records), ["move r/f r/g", "create r/f"]);
    // The event of the new file is not read.
    let Some(mut rig) = Rig::new(&["r/f"]) else {
        return;
    };
    let (root, f) = (rig.handle("r"), rig.handle("r/f"));
    rig.mv("r/f", "r/g");
    rig.add(&["r/f"]);
    let record = rig.rename(0, (&root, "f"), (&root, "g"), &f);
    assert_eq!(rig.handle_all(&[record]), ["move r/f r/g", "create r/f"]);
}

/// The same of a directory, and of a file that is not at its new name any more.
#[test]
fn names_of_a_rename_that_differ_from_the_disk_are_reported_again() {
    let Some(mut rig) = Rig::new(&["r/d/", "r/d/x", "r/f"]) else {
        return;
    };
    let [root, d, f] = ["r", "r/d", "r/f"].map(|path| rig.handle(path));
    rig.mv("r/d", "r/e");
    rig.add(&["r/d/", "r/d/y"]);
    let record = rig.rename(DIR, (&root, "d"), (&root, "e"), &d);
    let told = rig.handle_all(&[record]);
    assert_eq!(told, ["move r/d/ r/e/", "create r/d/", "create r/d/y"]);
    rig.remove("r/f");
    let record = rig.rename(0, (&root, "f"), (&root, "g"), &f);
    assert_eq!(rig.handle_all(&[record]), ["move r/f r/g", "delete r/g"]);
}

/// The name is not gone, as a directory is there: observers may keep what it has.
#[test]
fn a_directory_at_the_new_name_of_a_file_is_reported_with_its_contents() {
    let Some(mut rig) = Rig::new(&["r/f"]) else {
        return;
    };
    let (root, f) = (rig.handle("r"), rig.handle("r/f"));
    rig.remove("r/f");
    rig.add(&["r/g/", "r/g/h"]);
    let record = rig.rename(0, (&root, "f"), (&root, "g"), &f);
    let told = rig.handle_all(&[record]);
    let expected = ["delete r/f", "renewed r/g", "create r/g/", "create r/g/h"];
    assert_eq!(told, expected);
}

/// The kernel combines the third rename with the first one, which is equal.
#[test]
fn a_directory_that_moved_there_and_back_and_there_is_reported_with_its_contents() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/a/x"]) else {
        return;
    };
    let (root, a) = (rig.handle("r"), rig.handle("r/a"));
    rig.mv("r/a", "r/b");
    let records = [
        rig.rename(DIR, (&root, "a"), (&root, "b"), &a),
        rig.rename(DIR, (&root, "b"), (&root, "a"), &a),
        rig.event(libc::FAN_CREATE, &a, "y", None),
    ];
    let expected = [
        "move r/a/ r/b/",
        "delete r/b/",
        "create r/b/",
        "delete r/a/",
        "create r/b/x",
        "create r/b/y",
    ];
    assert_eq!(rig.handle_all(&records), expected);
    assert_eq!(rig.reports.overflows, 0);
}

/// The second rename has not been read when the first one is handled.
#[test]
fn a_directory_that_has_moved_on_is_reported_where_it_is_at_last() {
    for unseen in [true, false] {
        let Some(mut rig) = Rig::new(&["r/a/", "r/a/x"]) else {
            return;
        };
        let (root, a) = (rig.handle("r"), rig.handle("r/a"));
        rig.mv("r/a", "r/c");
        let first = [rig.rename(DIR, (&root, "a"), (&root, "b"), &a)];
        let second = [rig.rename(DIR, (&root, "b"), (&root, "c"), &a)];
        let start = rig.backend.reader.taken();
        rig.queue_at(start, &first);
        if !unseen {
            rig.queue_at(start, &second);
            assert_eq!(rig.reported(), ["move r/a/ r/b/", "move r/b/ r/c/"]);
            continue;
        }
        rig.queue_unseen(start, &second);
        let expected = [
            "delete r/a/",
            "delete r/b/",
            "delete r/b/",
            "renewed r/c/",
            "create r/c/",
            "create r/c/x",
        ];
        assert_eq!(rig.reported(), expected);
        assert_eq!(rig.reports.overflows, 0);
    }
}

#[test]
fn a_directory_from_outside_that_has_moved_on_is_reported_where_it_is_at_last() {
    let Some(mut rig) = Rig::new(&["out/", "out/d/", "out/d/x"]) else {
        return;
    };
    let [root, out, d] = ["r", "out", "out/d"].map(|path| rig.handle(path));
    rig.mv("out/d", "r/e");
    let start = rig.backend.reader.taken();
    let first = [rig.rename(DIR, (&out, "d"), (&root, "d"), &d)];
    let second = [rig.rename(DIR, (&root, "d"), (&root, "e"), &d)];
    rig.queue_at(start, &first);
    rig.queue_unseen(start, &second);
    let expected = [
        "renewed r/d/",
        "delete r/d/",
        "renewed r/e/",
        "create r/e/",
        "create r/e/x",
    ];
    assert_eq!(rig.reported(), expected);
}

#[test]
fn what_is_exchanged_with_something_outside_is_reported() {
    let Some(mut rig) = Rig::new(&["r/f", "out/", "out/g"]) else {
        return;
    };
    let [root, out, f, g] = ["r", "out", "r/f", "out/g"].map(|path| rig.handle(path));
    rig.exchange("r/f", "out/g");
    let records = [
        rig.rename(0, (&out, "g"), (&root, "f"), &g),
        rig.rename(0, (&root, "f"), (&out, "g"), &f),
        rig.event(libc::FAN_CLOSE_WRITE, &root, "f", None),
    ];
    let expected = ["create r/f", "delete r/f", "create r/f", "closed r/f"];
    assert_eq!(rig.handle_all(&records), expected);
}

/// The name was taken again before the event of the first rename was handled.
#[test]
fn what_has_taken_the_name_of_something_that_left_is_reported() {
    let Some(mut rig) = Rig::new(&["r/f", "r/d/", "out/"]) else {
        return;
    };
    let [root, out, f, d] = ["r", "out", "r/f", "r/d"].map(|path| rig.handle(path));
    rig.mv("r/f", "out/f");
    rig.mv("r/d", "out/d");
    let records = [
        rig.rename(0, (&root, "f"), (&out, "f"), &f),
        rig.rename(DIR, (&root, "d"), (&out, "d"), &d),
        rig.event(libc::FAN_CREATE, &d, "x", None),
    ];
    assert_eq!(rig.handle_all(&records), ["delete r/f", "delete r/d/"]);
    rig.add(&["r/f", "r/d/", "r/d/y"]);
    let records = [
        rig.rename(0, (&root, "f"), (&out, "f"), &f),
        rig.rename(DIR, (&root, "d"), (&out, "d"), &d),
    ];
    let mut told = rig.handle_all(&records);
    assert_eq!(told[..2], ["delete r/f", "delete r/d/"]);
    told[2..].sort();
    assert_eq!(told[2..], ["create r/d/", "create r/d/y", "create r/f"]);
}

#[test]
fn a_directory_that_is_replaced_is_renewed_before_the_rename() {
    let attributes = libc::FAN_ATTRIB | DIR;
    // The end of the replaced directory: after the rename, after it by another process, of a
    // directory that still exists, and not at all.
    for (who, gone, told) in [
        (0, true, &["renewed r/b/", "move r/a/ r/b/"][..]),
        (7, true, &["move r/a/ r/b/"]),
        (0, false, &["move r/a/ r/b/", "attrib r/other/"]),
    ] {
        let Some(mut rig) = Rig::new(&["r/a/", "r/b/", "r/other/"]) else {
            return;
        };
        let [root, a, b, other] = ["r", "r/a", "r/b", "r/other"].map(|path| rig.handle(path));
        rig.mv("r/a", "r/b");
        let replaced = if gone { &b } else { &other };
        let mut end = rig.event(attributes, replaced, SELF, None);
        end[20..24].copy_from_slice(&i32::to_ne_bytes(who));
        let rename = rig.rename(DIR, (&root, "a"), (&root, "b"), &a);
        assert_eq!(rig.handle_all(&[rename, end]), told, "{who} {gone}");
    }
}

/// The two records are read apart from each other.
#[test]
fn the_end_of_a_replaced_directory_is_found_in_the_next_read() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/b/"]) else {
        return;
    };
    let [root, a, b] = ["r", "r/a", "r/b"].map(|path| rig.handle(path));
    rig.mv("r/a", "r/b");
    let end = rig.event(libc::FAN_ATTRIB | DIR, &b, SELF, None);
    let rename = rig.rename(DIR, (&root, "a"), (&root, "b"), &a);
    let start = rig.backend.reader.taken();
    rig.queue_at(start, &[rename]);
    rig.queue_at(start, &[end]);
    assert_eq!(rig.reported(), ["renewed r/b/", "move r/a/ r/b/"]);
}

/// The kernel's record of the rename has not been read when the directory is looked up.
#[test]
fn a_rename_after_a_look_up_without_its_record_is_not_reported_as_one() {
    let Some(mut rig) = Rig::with_roots(&["r/d/", "r/d/x"], &["r/"]) else {
        return;
    };
    let d = rig.handle("r/d");
    fs::rename(rig.path("r/d"), rig.path("r/e")).unwrap();
    rig.backend.catch_ups = usize::MAX;
    assert!(rig.backend.find_inside(0, &d).is_some());
    let told = rig.reported();
    assert!(!told.contains(&"move r/d/ r/e/".to_string()), "{told:?}");
    assert!(told.contains(&"create r/e/x".to_string()), "{told:?}");
}

/// The end of the replaced directory is combined with an earlier change of its attributes, so it
/// may belong to each rename that was in the queue with it.
#[test]
fn renames_after_the_end_of_a_directory_may_have_replaced_it() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/b/", "r/c/"]) else {
        return;
    };
    let [root, a, b, c] = ["r", "r/a", "r/b", "r/c"].map(|path| rig.handle(path));
    rig.mv("r/a", "r/b");
    rig.mv("r/c", "r/d");
    let end = rig.event(libc::FAN_ATTRIB | DIR, &b, SELF, None);
    let rename = rig.rename(DIR, (&root, "a"), (&root, "b"), &a);
    rig.queue_at(0, &[end, rename]);
    let mark = rig.backend.reader.mark();
    assert!(mark > 2, "the position of the rename is before the mark");
    assert_eq!(rig.reported(), ["renewed r/b/", "move r/a/ r/b/"]);
    // Everything has been handled: later renames replace nothing.
    while rig.backend.replaced > 0 {
        rig.reported();
    }
    let rename = rig.rename(DIR, (&root, "c"), (&root, "d"), &c);
    rig.queue_at(0, &[rename]);
    assert_eq!(rig.reported(), ["move r/c/ r/d/"]);
}

/// An open directory has a handle after its end.
#[test]
fn a_directory_that_is_gone_and_open_is_replaced() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/b/", "r/c/"]) else {
        return;
    };
    let [root, a, b, c] = ["r", "r/a", "r/b", "r/c"].map(|path| rig.handle(path));
    let _open = fs::File::open(rig.path("r/b")).unwrap();
    rig.mv("r/a", "r/b");
    let end = rig.event(libc::FAN_ATTRIB | DIR, &b, SELF, None);
    let rename = rig.rename(DIR, (&root, "a"), (&root, "b"), &a);
    // Its end belongs to that rename alone.
    rig.mv("r/c", "r/d");
    let next = rig.rename(DIR, (&root, "c"), (&root, "d"), &c);
    rig.queue_at(0, &[rename, end, next]);
    let mark = rig.backend.reader.mark();
    assert!(mark > 3, "the positions of the renames are before the mark");
    let expected = ["renewed r/b/", "move r/a/ r/b/", "move r/c/ r/d/"];
    assert_eq!(rig.reported(), expected);
}

#[test]
fn a_directory_from_outside_over_another_renews_it() {
    let Some(mut rig) = Rig::new(&["r/b/", "out/a/", "out/a/x"]) else {
        return;
    };
    let [root, out, a, b] = ["r", "out", "out/a", "r/b"].map(|path| rig.handle(path));
    rig.mv("out/a", "r/b");
    let end = rig.event(libc::FAN_ATTRIB | DIR, &b, SELF, None);
    let rename = rig.rename(DIR, (&out, "a"), (&root, "b"), &a);
    let told = rig.handle_all(&[rename, end]);
    assert_eq!(told, ["renewed r/b/", "create r/b/", "create r/b/x"]);
}

/// The scope wants the directory at one of the two names only.
#[test]
fn a_directory_that_becomes_wanted_is_read() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/a/x/", "r/a/x/f"]) else {
        return;
    };
    rig.reports.follow = Follow::Contents;
    let (root, a) = (rig.handle("r"), rig.handle("r/a"));
    rig.mv("r/a", "r/no");
    let records = [
        rig.rename(DIR, (&root, "a"), (&root, "no"), &a),
        rig.event(libc::FAN_CREATE, &a, "g", None),
    ];
    assert_eq!(rig.handle_all(&records), ["move r/a/ r/no/"]);
    rig.mv("r/no", "r/b");
    let records = [
        rig.rename(DIR, (&root, "no"), (&root, "b"), &a),
        rig.event(libc::FAN_CREATE, &a, "h", None),
    ];
    let expected = [
        "move r/no/ r/b/",
        "create r/b/",
        "create r/b/x/",
        "create r/b/x/f",
        "create r/b/h",
    ];
    assert_eq!(rig.handle_all(&records), expected);
}

/// An earlier look-up has found the directory where the rename is going to put it.
#[test]
fn a_rename_that_a_look_up_has_seen_is_reported_as_the_entries_at_both_names() {
    let Some(mut rig) = Rig::new(&["r/a/", "r/a/x"]) else {
        return;
    };
    let (root, a) = (rig.handle("r"), rig.handle("r/a"));
    rig.mv("r/a", "r/b");
    rig.backend.note_link(0, &a, &root, b"b");
    let rename = rig.rename(DIR, (&root, "a"), (&root, "b"), &a);
    rig.queue_at(0, std::slice::from_ref(&rename));
    let expected = ["delete r/a/", "renewed r/b/", "create r/b/", "create r/b/x"];
    assert_eq!(rig.reported(), expected);
    // The look-up does not concern later renames.
    rig.mv("r/b", "r/a");
    rig.mv("r/a", "r/b");
    assert_eq!(rig.handle_all(&[rename]), ["move r/a/ r/b/"]);
}
