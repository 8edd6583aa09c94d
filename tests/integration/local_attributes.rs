//! The worker of default.direct copies attributes, extended ones included.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::local_mirror::{Pair, data, item};
use crate::support::dir::skip;
use lsyncd::batch::Change;
use lsyncd::local::CopyTask;

#[test]
fn attributes_are_copied() {
    let mut pair = Pair::new();
    fs::write(pair.source("f"), "text").unwrap();
    fs::create_dir(pair.source("d")).unwrap();
    fs::write(pair.source("d/below"), "text").unwrap();
    symlink("f", pair.source("l")).unwrap();
    fs::set_permissions(pair.source("f"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(pair.source("d"), PermissionsExt::from_mode(0o2750)).unwrap();
    let past = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(pair.source("f"))
        .unwrap()
        .set_modified(past)
        .unwrap();
    File::open(pair.source("d"))
        .unwrap()
        .set_modified(past)
        .unwrap();
    pair.compare();
    for name in ["f", "d", "l"] {
        let [source, target] = [pair.source(name), pair.target(name)].map(data);
        assert_eq!(source.mode(), target.mode(), "{name}");
        assert_eq!(
            source.modified().unwrap(),
            target.modified().unwrap(),
            "{name}"
        );
        assert_eq!(source.uid(), target.uid(), "{name}");
    }
}

#[test]
fn extended_attributes_are_copied() {
    let mut pair = Pair::new();
    fs::write(pair.source("f"), "text").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(pair.source("f"), "user.colour", b"red", flags).is_err() {
        println!("skipped: no extended attributes here");
        return;
    }
    pair.compare();
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(pair.target("f"), "user.colour", &mut value).unwrap();
    assert_eq!(&value[..length], b"red");
    rustix::fs::removexattr(pair.source("f"), "user.colour").unwrap();
    pair.event(Change::Attrib, "/f");
    assert!(rustix::fs::getxattr(pair.target("f"), "user.colour", &mut value).is_err());
}

/// Such a change affects neither size, time nor mode.
#[test]
fn a_comparison_finds_changed_extended_attributes() {
    let mut pair = Pair::new();
    fs::create_dir(pair.source("d")).unwrap();
    fs::write(pair.source("d/f"), "text").unwrap();
    let set = |path: &Path, value: &[u8]| {
        rustix::fs::setxattr(path, "user.seen", value, rustix::fs::XattrFlags::empty())
    };
    if set(&pair.source("d/f"), b"1").is_err() {
        return skip("the file system has no extended attributes");
    }
    pair.compare();
    let get = |path: PathBuf| {
        let mut buffer = vec![0; 16];
        let length = rustix::fs::getxattr(&path, "user.seen", &mut buffer[..]).unwrap();
        buffer.truncate(length);
        buffer
    };
    for (value, everything) in [(&b"2"[..], true), (b"3", false)] {
        set(&pair.source("d/f"), value).unwrap();
        if everything {
            pair.compare();
        } else {
            // A Delete of an existing directory compares the tree.
            pair.run(CopyTask::Events(vec![
                item(Change::Delete, "/d/", None),
                item(Change::Create, "/d/", None),
                item(Change::Attrib, "/d/f", None),
            ]));
        }
        assert_eq!(get(pair.target("d/f")), value);
    }
}
