//! Hard links with the worker of default.direct: which names of a file are known.

use std::fs;

use crate::local_mirror::{Pair, item};
use lsyncd::batch::Change;
use lsyncd::local::CopyTask;

/// An event of a directory that has become a file since names the file.
#[test]
fn the_name_of_a_directory_is_no_further_name_of_a_file() {
    let mut pair = Pair::new();
    fs::write(pair.source("a"), "1").unwrap();
    fs::hard_link(pair.source("a"), pair.source("b")).unwrap();
    pair.compare();
    pair.event(Change::Delete, "/a/");
    // The rename is not known when the change is sent.
    fs::rename(pair.source("b"), pair.source("c")).unwrap();
    fs::write(pair.source("a"), "22").unwrap();
    assert!(pair.event(Change::Modify, "/a").names_missing);
    // The file that a directory has replaced has another name.
    fs::remove_file(pair.source("a")).unwrap();
    fs::write(pair.source("c"), "333").unwrap();
    fs::hard_link(pair.source("c"), pair.source("a")).unwrap();
    pair.compare();
    fs::write(pair.source("a"), "4444").unwrap();
    fs::remove_file(pair.source("a")).unwrap();
    fs::create_dir(pair.source("a")).unwrap();
    pair.event(Change::Delete, "/a/");
    assert_eq!(fs::read(pair.target("c")).unwrap(), b"4444");
}

/// A file is changed through a name that is removed, and its other name is renamed, or is in a
/// directory that is.
#[test]
fn a_change_through_a_lost_name_reaches_a_renamed_one() {
    for (from, to, name) in [("b", "c", "c"), ("d/", "e/", "e/b")] {
        let mut pair = Pair::new();
        fs::write(pair.source("a"), "1").unwrap();
        let other = if from == "b" { "b" } else { "d/b" };
        fs::create_dir(pair.source("d")).unwrap();
        fs::hard_link(pair.source("a"), pair.source(other)).unwrap();
        pair.compare();
        fs::write(pair.source("a"), "22").unwrap();
        fs::remove_file(pair.source("a")).unwrap();
        fs::rename(pair.source(from), pair.source(to)).unwrap();
        let (from, to) = (format!("/{from}"), format!("/{to}"));
        // All renames of the time of the comparison are known.
        let items = vec![
            item(Change::Delete, "/a", None),
            item(Change::Move, &from, Some(&to)),
        ];
        pair.run_next(CopyTask::Events(items));
        assert_eq!(fs::read(pair.target(name)).unwrap(), b"22");
    }
}

/// The name is that of a rename which was sent before.
#[test]
fn a_change_through_a_renamed_name_that_is_removed_reaches_the_others() {
    for (other, from, to, name) in [("b", "/b", "/c", "c"), ("d/b", "/d/", "/e/", "e/b")] {
        let mut pair = Pair::new();
        fs::create_dir(pair.source("d")).unwrap();
        fs::write(pair.source("a"), "1").unwrap();
        fs::hard_link(pair.source("a"), pair.source(other)).unwrap();
        pair.compare();
        fs::rename(pair.source(&from[1..]), pair.source(&to[1..])).unwrap();
        let rename = item(Change::Move, from, Some(to));
        pair.run_next(CopyTask::Events(vec![rename]));
        fs::write(pair.source(name), "22").unwrap();
        fs::remove_file(pair.source(name)).unwrap();
        let removal = item(Change::Delete, &format!("/{name}"), None);
        pair.run_next(CopyTask::Events(vec![removal]));
        assert_eq!(fs::read(pair.target("a")).unwrap(), b"22", "{name}");
    }
}
