//! The watcher with the real kernel. The test decides when a turn runs, so operations between turns
//! cause the races.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::watch_rig::{Rig, Told};
use lsyncd::watch::Follow;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

pub fn create(path: &str) -> Told {
    Told::Create(path.into())
}

pub fn delete(path: &str) -> Told {
    Told::Delete(path.into())
}

pub fn moved(from: &str, to: &str) -> Told {
    Told::Move(from.into(), to.into())
}

#[test]
fn existing_entries_are_watched_and_not_reported() {
    let mut rig = Rig::new(|rig| {
        rig.mkdir("r/a/b");
        rig.touch("r/a/f");
    });
    assert_eq!(rig.log.events, []);
    rig.settle();
    assert_eq!(rig.log.events, []);
    rig.check("start");
    assert!(rig.watcher.progress().is_none());
}

#[test]
fn a_deep_tree_made_at_once_is_reported_completely() {
    let mut rig = Rig::new(|_| {});
    rig.mkdir("r/a/b/c/d/e");
    rig.touch("r/a/b/c/d/e/f");
    rig.touch("r/a/g");
    rig.settle();
    for path in ["r/a/", "r/a/b/", "r/a/b/c/d/e/", "r/a/b/c/d/e/f", "r/a/g"] {
        assert!(rig.told(&create(path)), "{path}");
    }
    let at = |path| rig.log.events.iter().position(|told| *told == create(path));
    assert!(at("r/a/") < at("r/a/b/") && at("r/a/b/") < at("r/a/b/c/"));
    rig.check("deep");
}

#[test]
fn a_large_tree_moved_in_is_reported_completely() {
    let mut rig = Rig::new(Rig::make_large);
    rig.mv("out", "r/in");
    rig.settle();
    rig.check("large");
    rig.touch("r/in/7/7/late");
    rig.settle();
    assert!(rig.told(&create("r/in/7/7/late")));
}

#[test]
fn files_are_reported_one_by_one() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d"));
    rig.touch("r/d/f");
    fs::set_permissions(rig.path("r/d/f"), fs::Permissions::from_mode(0o600)).unwrap();
    rig.mv("r/d/f", "r/g");
    fs::remove_file(rig.path("r/g")).unwrap();
    rig.settle();
    let expected = [
        create("r/d/f"),
        Told::Modify("r/d/f".into()),
        Told::Attrib("r/d/f".into()),
        moved("r/d/f", "r/g"),
        delete("r/g"),
    ];
    assert_eq!(rig.log.events, expected);
}

#[test]
fn attributes_of_directories_are_reported_once() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d"));
    let mode = fs::Permissions::from_mode(0o711);
    fs::set_permissions(rig.path("r/d"), mode.clone()).unwrap();
    fs::set_permissions(rig.path("r"), mode).unwrap();
    rig.settle();
    let expected = [Told::Attrib("r/d/".into()), Told::Attrib("r/".into())];
    assert_eq!(rig.log.events, expected);
}

#[test]
fn a_directory_moved_out_is_not_reported_again() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d/e/f"));
    rig.mkdir("out");
    rig.mv("r/d", "out/d");
    rig.until("the end of d", |rig| rig.told(&delete("r/d/")));
    rig.touch("out/d/x");
    rig.touch("out/d/e/x");
    rig.mkdir("out/d/e/y");
    rig.settle();
    assert_eq!(rig.log.events, [delete("r/d/")]);
    rig.assert_watched(&["r/"]);
    rig.mv("out/d", "r/d");
    rig.settle();
    assert!(rig.told(&create("r/d/e/y/")));
    rig.check("back");
}

#[test]
fn a_directory_renamed_inside_keeps_its_watches() {
    let mut rig = Rig::new(|rig| {
        rig.mkdir("r/a/b/c");
        rig.mkdir("r/z");
    });
    rig.mv("r/a", "r/z/n");
    rig.touch("r/z/n/b/c/f");
    rig.settle();
    let expected = [
        moved("r/a/", "r/z/n/"),
        create("r/z/n/b/c/f"),
        Told::Modify("r/z/n/b/c/f".into()),
    ];
    assert_eq!(rig.log.events, expected);
    rig.check("renamed");
}

#[test]
fn the_contents_of_a_moved_directory_are_reported_on_request() {
    let mut rig = Rig::new(|rig| {
        rig.mkdir("r/a/b");
        rig.touch("r/a/b/f");
    });
    rig.log.follow = Follow::Contents;
    rig.mv("r/a", "r/n");
    rig.settle();
    let expected = [moved("r/a/", "r/n/"), create("r/n/b/"), create("r/n/b/f")];
    assert_eq!(rig.log.events, expected);
    rig.check("followed");
}

#[test]
fn the_contents_of_a_moved_directory_are_reported_to_scopes_that_did_not_see_the_move() {
    let mut rig = Rig::new(|rig| {
        rig.mkdir("r/a/b");
        rig.touch("r/a/b/f");
    });
    (rig.log.follow, rig.log.moves) = (Follow::Contents, true);
    rig.mv("r/a", "r/n");
    rig.settle();
    assert_eq!(rig.log.events, [moved("r/a/", "r/n/")]);
    rig.check("followed by another");
    rig.log.events.clear();
    // New entries in it are reported to all scopes.
    rig.mkdir("r/n/b/c/d");
    rig.touch("r/n/b/c/d/g");
    rig.mv("r/n", "r/o");
    rig.mkdir("r/o/e");
    rig.touch("r/o/e/h");
    rig.settle();
    for path in ["c/", "c/d/", "c/d/g"] {
        let old = create(&format!("r/n/b/{path}"));
        let new = create(&format!("r/o/b/{path}"));
        assert!(rig.told(&old) || rig.told(&new), "{path}");
    }
    assert!(rig.told(&create("r/o/e/")) && rig.told(&create("r/o/e/h")));
    assert!(!rig.told(&create("r/o/b/f")));
    rig.check("with news");
}

/// The threads of the pool read the directory.
#[test]
fn new_entries_of_a_large_moved_directory_are_reported_to_all_scopes() {
    let mut rig = Rig::new(|rig| {
        for number in 0..400 {
            rig.mkdir(&format!("r/a/d{number}"));
        }
        rig.touch("r/a/d7/old");
    });
    (rig.log.follow, rig.log.moves) = (Follow::Contents, true);
    rig.mkdir("r/a/new/x/y");
    rig.touch("r/a/new/x/y/f");
    rig.mkdir("r/a/d7/new");
    rig.touch("r/a/d7/new/g");
    rig.mv("r/a", "r/n");
    rig.settle();
    for path in [
        "new/",
        "new/x/",
        "new/x/y/",
        "new/x/y/f",
        "d7/new/",
        "d7/new/g",
    ] {
        // It may be reported before the rename.
        let told = ["a", "n"].map(|top| rig.told(&create(&format!("r/{top}/{path}"))));
        assert!(told.contains(&true), "{path}");
    }
    for path in ["d0/", "d7/", "d7/old"] {
        assert!(!rig.told(&create(&format!("r/n/{path}"))), "{path}");
    }
    rig.check("large and moved");
}

#[test]
fn removed_and_made_again_is_another_directory() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d/old"));
    rig.rmdir("r/d");
    rig.mkdir("r/d/new");
    rig.touch("r/d/f");
    rig.settle();
    rig.check("again");
    rig.touch("r/d/new/g");
    rig.settle();
    assert!(rig.told(&create("r/d/new/g")));
}

#[test]
fn exchanged_directories_are_both_watched_after() {
    let mut rig = Rig::new(|rig| {
        rig.mkdir("r/a/in-a");
        rig.mkdir("r/b/in-b");
    });
    let (a, b) = (rig.path("r/a"), rig.path("r/b"));
    renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
    rig.settle();
    rig.check("exchanged");
    rig.touch("r/a/in-b/f");
    rig.touch("r/b/in-a/f");
    rig.settle();
    assert!(rig.told(&create("r/a/in-b/f")) && rig.told(&create("r/b/in-a/f")));
    rig.log.events.clear();
    // Again, and one of the two is removed before the events are read.
    renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
    rig.rmdir("r/a");
    rig.settle();
    rig.check("exchanged and removed");
}

#[test]
fn renames_over_existing_names_are_reported() {
    let mut rig = Rig::new(|rig| {
        rig.touch("r/f");
        rig.touch("r/g");
        rig.mkdir("r/d/sub");
        rig.mkdir("r/e");
    });
    rig.mv("r/f", "r/g");
    rig.mv("r/d", "r/e");
    rig.settle();
    // The replacement of a file causes no event of its own.
    let renewed = Told::Renewed("r/e/".into());
    let expected = [moved("r/f", "r/g"), renewed, moved("r/d/", "r/e/")];
    assert_eq!(rig.log.events, expected);
    rig.check("over");
}

#[test]
fn a_name_left_and_taken_again_is_reported_in_that_order() {
    let mut rig = Rig::new(|rig| {
        rig.touch("r/f");
        rig.mkdir("out");
    });
    rig.mv("r/f", "out/f");
    rig.touch("r/f");
    rig.settle();
    let expected = [delete("r/f"), create("r/f"), Told::Modify("r/f".into())];
    // A create may be reported twice.
    rig.log.events.dedup();
    assert_eq!(rig.log.events, expected);
}

#[test]
fn entries_made_before_a_rename_of_their_directory_are_reported() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/a"));
    rig.mkdir("r/a/x/y");
    rig.touch("r/a/x/y/f");
    rig.mv("r/a", "r/b");
    rig.settle();
    rig.check("renamed");
    rig.touch("r/b/x/y/g");
    rig.settle();
    assert!(rig.told(&create("r/b/x/y/g")));
    // The same with another directory of the same names at the old path.
    rig.mkdir("r/c/x/z");
    rig.mkdir("r/b/x2");
    rig.mv("r/b", "r/d");
    rig.mv("r/c", "r/b");
    rig.mkdir("r/b/x2/w");
    rig.settle();
    rig.check("replaced");
}

#[test]
fn entries_made_and_moved_between_turns_are_reported() {
    let mut rig = Rig::new(|_| {});
    rig.mkdir("r/a/x");
    rig.mv("r/a", "r/b");
    rig.mkdir("r/a/y");
    rig.mv("r/b/x", "r/a/y/x");
    rig.mv("r/a", "r/b/a");
    rig.settle();
    rig.check("moved");
    rig.rmdir("r/b");
    rig.mkdir("r/b/a/y");
    rig.settle();
    rig.check("again");
}

#[test]
fn a_symlink_is_not_watched() {
    let mut rig = Rig::new(|rig| rig.mkdir("r/d/e"));
    rig.mkdir("out/e");
    std::os::unix::fs::symlink(rig.path("out"), rig.path("r/link")).unwrap();
    rig.rmdir("r/d");
    std::os::unix::fs::symlink(rig.path("out"), rig.path("r/d")).unwrap();
    // The event says that it is a directory.
    rig.mkdir("r/n");
    rig.rmdir("r/n");
    std::os::unix::fs::symlink(rig.path("out"), rig.path("r/n")).unwrap();
    rig.settle();
    rig.assert_watched(&["r/"]);
    for name in ["r/link", "r/d", "r/n"] {
        assert!(rig.told(&create(name)), "{name}");
    }
    assert!(!rig.told(&create("r/n/e/")));
}

#[test]
fn names_may_be_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let mut rig = Rig::new(|_| {});
    let directory = rig.path("r").join(OsStr::from_bytes(b"\xff\n "));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(OsStr::from_bytes(b"*\\\x01\xfe")), b"").unwrap();
    rig.settle();
    rig.check("bytes");
}

#[test]
fn an_unreadable_directory_is_reported_until_it_is_readable() {
    let mut rig = Rig::new(|_| {});
    rig.mkdir("r/d/sub");
    fs::set_permissions(rig.path("r/d"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(rig.path("r/d")).is_ok() {
        return; // Root reads everything.
    }
    rig.settle();
    // A change of the mode causes another attempt.
    let troubles = std::mem::take(&mut rig.log.troubles);
    let told = "watching a directory r/d/: Permission denied (os error 13)";
    assert!(
        !troubles.is_empty() && troubles.iter().all(|trouble| trouble == told),
        "{troubles:?}"
    );
    fs::set_permissions(rig.path("r/d"), fs::Permissions::from_mode(0o700)).unwrap();
    rig.settle();
    assert!(rig.told(&create("r/d/sub/")));
    rig.assert_watched(&["r/", "r/d/", "r/d/sub/"]);
}

/// Such a directory can be listed, and nothing in it be watched.
#[test]
fn directories_in_one_that_may_not_be_searched_are_watched_when_it_may_be() {
    let mut rig = Rig::bare();
    rig.mkdir("r/d/sub/deep");
    rig.touch("r/d/sub/f");
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(rig.path("r/d"), mode(0o400)).unwrap();
    if fs::read_dir(rig.path("r/d/sub")).is_ok() {
        return; // Root searches everything.
    }
    let scope = rig.scope("r/", |_| true);
    rig.watcher.set_scopes(vec![scope]);
    rig.until("the root to be read", |rig| !rig.watcher.crawling());
    rig.assert_watched(&["r/", "r/d/"]);
    let trouble = "watching a directory r/d/sub/: Permission denied (os error 13)";
    assert_eq!(rig.log.troubles, [trouble]);
    fs::set_permissions(rig.path("r/d"), mode(0o700)).unwrap();
    rig.reach_mark();
    for path in ["r/d/sub/", "r/d/sub/deep/", "r/d/sub/f"] {
        assert!(rig.told(&create(path)), "{path}");
    }
    rig.assert_watched(&["r/", "r/d/", "r/d/sub/", "r/d/sub/deep/"]);
}
