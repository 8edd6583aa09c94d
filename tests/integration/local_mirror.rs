//! The worker of default.direct on two directories, without a daemon: attributes, links, holes and
//! filters, and random trees.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use crate::copy_job::copy_job;
use crate::support::dir::skip;
use lsyncd::batch::Change;
use lsyncd::config::MaxDelete;
use lsyncd::filter::Filter;
use lsyncd::local::{CopyItem, CopyJob, CopyReport, CopyTask, Memory, carry_out};
use proptest::prelude::*;

struct Pair {
    guard: tempfile::TempDir,
    memory: Memory,
    filter: Filter,
    delete: bool,
    limit: Option<MaxDelete>,
}

impl Pair {
    fn new() -> Pair {
        let guard = tempfile::tempdir().unwrap();
        for name in ["s", "t"] {
            fs::create_dir(guard.path().join(name)).unwrap();
        }
        Pair {
            guard,
            memory: Memory::default(),
            filter: Filter::default(),
            delete: true,
            limit: None,
        }
    }

    /// Returns the counted and the real number of deletions.
    fn deletions(&mut self, task: &CopyTask) -> (u64, u64) {
        let before = tree(&self.target(""));
        self.limit = Some(MaxDelete::Count(0));
        let refused = self.run(task.clone());
        let unchanged = tree(&self.target("")) == before;
        assert!(unchanged || refused.excess.is_none());
        if refused.excess.is_none() {
            // The task ran at once, because it deletes nothing.
            return (0, gone(&before, &tree(&self.target(""))));
        }
        self.limit = None;
        self.run(task.clone());
        let deleted = refused.excess.map_or(0, |(deleted, _)| deleted);
        (deleted, gone(&before, &tree(&self.target(""))))
    }

    fn source(&self, path: &str) -> PathBuf {
        self.guard.path().join("s").join(path)
    }

    fn target(&self, path: &str) -> PathBuf {
        self.guard.path().join("t").join(path)
    }

    fn run(&mut self, task: CopyTask) -> CopyReport {
        let job = CopyJob {
            delete: self.delete,
            filter: Arc::new(RwLock::new(self.filter.clone())),
            limit: self.limit,
            ..copy_job(&self.source(""), &self.target(""), task)
        };
        carry_out(&job, &mut self.memory)
    }

    fn compare(&mut self) {
        let report = self.run(CopyTask::Everything);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }

    fn event(&mut self, change: Change, path: &str) -> CopyReport {
        self.run(CopyTask::Events(vec![item(change, path, None)]))
    }
}

fn item(change: Change, path: &str, to: Option<&str>) -> CopyItem {
    CopyItem {
        change,
        path: path.into(),
        to: to.map(Into::into),
    }
}

fn data(path: PathBuf) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap()
}

/// The other name may be outside of the target, as in a snapshot.
#[test]
fn a_target_file_with_hard_links_outside_is_not_changed_in_place() {
    for everything in [true, false] {
        let mut pair = Pair::new();
        fs::write(pair.source("f"), "text").unwrap();
        pair.compare();
        let snapshot = pair.guard.path().join("snapshot");
        fs::hard_link(pair.target("f"), &snapshot).unwrap();
        let before = data(snapshot.clone()).mode();
        fs::set_permissions(pair.source("f"), PermissionsExt::from_mode(0o4777)).unwrap();
        if everything {
            pair.compare();
        } else {
            assert!(pair.event(Change::Attrib, "/f").failures.is_empty());
        }
        assert_eq!(data(pair.target("f")).mode() & 0o7777, 0o4777);
        assert_eq!(data(snapshot).mode(), before);
    }
}

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

/// The target never had the file, but the time of its directory has changed.
#[test]
fn a_file_that_came_and_went_changes_the_time_of_its_directory() {
    for change in [Change::Delete, Change::Create] {
        let mut pair = Pair::new();
        fs::create_dir(pair.source("d")).unwrap();
        pair.compare();
        fs::write(pair.source("d/f"), "").unwrap();
        fs::remove_file(pair.source("d/f")).unwrap();
        let source = File::open(pair.source("d")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        source.set_modified(time).unwrap();
        pair.event(change, "/d/f");
        assert_eq!(
            data(pair.target("d")).modified().unwrap(),
            time,
            "{change:?}"
        );
    }
}

#[test]
fn holes_are_kept() {
    let mut pair = Pair::new();
    let file = File::create(pair.source("f")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"middle", 32 << 20).unwrap();
    pair.compare();
    assert_eq!(data(pair.target("f")).len(), 64 << 20);
    assert!(data(pair.target("f")).blocks() <= data(pair.source("f")).blocks() + 64);
    let copy = fs::read(pair.target("f")).unwrap();
    assert_eq!(&copy[32 << 20..(32 << 20) + 6], b"middle");
    assert_eq!(copy.iter().filter(|&&byte| byte != 0).count(), 6);
}

#[test]
fn large_files_are_copied_completely() {
    let mut pair = Pair::new();
    let text: Vec<u8> = (0..5_000_000u32)
        .flat_map(|n| n.to_le_bytes())
        .take(9_999_999)
        .collect();
    fs::write(pair.source("f"), &text).unwrap();
    pair.event(Change::Create, "/f");
    assert!(fs::read(pair.target("f")).unwrap() == text);
}

#[test]
fn hard_links_are_kept() {
    let mut pair = Pair::new();
    fs::write(pair.source("a"), "1").unwrap();
    fs::create_dir(pair.source("d")).unwrap();
    fs::hard_link(pair.source("a"), pair.source("d/b")).unwrap();
    pair.compare();
    assert_eq!(data(pair.target("a")).ino(), data(pair.target("d/b")).ino());
    // The event has the name that was written to.
    fs::write(pair.source("d/b"), "22").unwrap();
    pair.event(Change::Modify, "/d/b");
    assert_eq!(fs::read(pair.target("a")).unwrap(), b"22");
    assert_eq!(data(pair.target("a")).ino(), data(pair.target("d/b")).ino());
    // A replaced name is no hard link any more.
    fs::remove_file(pair.source("a")).unwrap();
    fs::write(pair.source("a"), "333").unwrap();
    pair.event(Change::Create, "/a");
    assert_eq!(fs::read(pair.target("a")).unwrap(), b"333");
    assert_eq!(fs::read(pair.target("d/b")).unwrap(), b"22");
}

/// The file had one name when it was copied, so the worker does not know its copy.
#[test]
fn unknown_hard_links_are_searched_for() {
    for change in [Change::Modify, Change::Attrib] {
        let mut pair = Pair::new();
        fs::write(pair.source("a"), "1").unwrap();
        fs::write(pair.source("alone"), "1").unwrap();
        fs::hard_link(pair.source("alone"), pair.guard.path().join("elsewhere")).unwrap();
        pair.compare();
        assert!(!pair.event(Change::Modify, "/alone").names_missing);
        fs::hard_link(pair.source("a"), pair.source("b")).unwrap();
        assert!(pair.event(Change::Create, "/b").names_missing);
        pair.compare();
        let inode = |name: &str| data(pair.target(name)).ino();
        assert_eq!(inode("a"), inode("b"));
        fs::write(pair.source("b"), "22").unwrap();
        assert!(!pair.event(change, "/b").names_missing);
        assert_eq!(fs::read(pair.target("a")).unwrap(), b"22");
        // A moved directory moves a name.
        fs::create_dir(pair.source("d")).unwrap();
        fs::rename(pair.source("a"), pair.source("d/a")).unwrap();
        fs::rename(pair.source("d"), pair.source("e")).unwrap();
        fs::write(pair.source("b"), "333").unwrap();
        assert!(pair.event(Change::Modify, "/b").names_missing);
    }
}

#[test]
fn a_reader_of_the_target_keeps_the_old_file() {
    let mut pair = Pair::new();
    fs::write(pair.source("f"), "old").unwrap();
    pair.compare();
    let reader = File::open(pair.target("f")).unwrap();
    fs::write(pair.source("f"), "new text").unwrap();
    pair.event(Change::Modify, "/f");
    let mut text = [0; 3];
    reader.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"old");
    assert_eq!(fs::read(pair.target("f")).unwrap(), b"new text");
    assert_eq!(fs::read_dir(pair.target("")).unwrap().count(), 1);
}

#[test]
fn excluded_names_are_neither_copied_nor_removed() {
    let mut pair = Pair::new();
    pair.filter.add_exclude(b"*.keep");
    for name in ["d", "gone"] {
        fs::create_dir(pair.target(name)).unwrap();
        fs::write(pair.target(&format!("{name}/x.keep")), "kept").unwrap();
        fs::write(pair.target(&format!("{name}/y")), "1").unwrap();
    }
    fs::create_dir(pair.source("d")).unwrap();
    fs::write(pair.source("d/z.keep"), "here").unwrap();
    pair.compare();
    for (name, there) in [
        ("d/x.keep", true),
        ("d/y", false),
        ("d/z.keep", false),
        ("gone/x.keep", true),
        ("gone/y", false),
    ] {
        assert_eq!(pair.target(name).exists(), there, "{name}");
    }
}

/// Each pair of file types on both sides: an excluded object counts as missing.
#[test]
fn rules_for_one_file_type_apply_to_each_side() {
    let kinds = ["file", "directory", "link"];
    let cases = kinds
        .iter()
        .flat_map(|here| kinds.map(|there| (*here, there)));
    for (here, there) in cases {
        for excluded in ["- x/", "+ x/\n- x"] {
            for everything in [true, false] {
                let mut pair = Pair::new();
                pair.filter.append_rule(excluded.as_bytes()).unwrap();
                for (path, kind) in [(pair.source("x"), here), (pair.target("x"), there)] {
                    match kind {
                        "file" => fs::write(path, kind).unwrap(),
                        "directory" => fs::create_dir(path).unwrap(),
                        _ => std::os::unix::fs::symlink("nowhere", path).unwrap(),
                    }
                }
                let is_excluded = |kind| (kind == "directory") == (excluded == "- x/");
                let expected = match (is_excluded(here), is_excluded(there)) {
                    (true, false) => None,
                    (true, true) => Some(there),
                    // A protected object of the target may be at the path.
                    (false, true) if here != there => continue,
                    (false, _) => Some(here),
                };
                match everything {
                    true => pair.compare(),
                    false => drop(pair.event(Change::Delete, "/x")),
                }
                let found = fs::symlink_metadata(pair.target("x")).ok();
                let found = found.map(|data| match data.file_type() {
                    kind if kind.is_dir() => "directory",
                    kind if kind.is_symlink() => "link",
                    _ => "file",
                });
                assert_eq!(found, expected, "{here} {there} {excluded} {everything}");
                let (count, gone) = pair.deletions(&CopyTask::Everything);
                assert_eq!((count, gone), (0, 0), "{here} {there} {excluded}");
            }
        }
    }
}

/// Changes from before the start have no events.
#[test]
fn a_comparison_gives_links_their_owner_and_time() {
    let mut pair = Pair::new();
    for name in ["a", "b"] {
        std::os::unix::fs::symlink("nowhere", pair.source(name)).unwrap();
    }
    pair.compare();
    let inode = data(pair.target("b")).ino();
    let time = filetime(1_000_000_000);
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, pair.source("a"), &time, flags).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::lchown(pair.source("a"), Some(1), Some(2)).unwrap();
    }
    pair.compare();
    let found = data(pair.target("a"));
    assert_eq!(found.mtime(), 1_000_000_000);
    assert!(!is_root || (found.uid(), found.gid()) == (1, 2));
    assert_eq!(data(pair.target("b")).ino(), inode, "unchanged");
}

fn filetime(seconds: i64) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Each directory of a new tree has its own events.
#[test]
fn a_new_tree_is_read_once() {
    const DEPTH: usize = 30;
    let mut pair = Pair::new();
    let deepest = pair.source(&"d/".repeat(DEPTH));
    fs::create_dir_all(&deepest).unwrap();
    pair.compare();
    let mut inotify = inotify::Inotify::init().unwrap();
    let opened = inotify::WatchMask::OPEN;
    inotify.watches().add(&deepest, opened).unwrap();
    let paths = (1..=DEPTH).rev();
    let paths = paths.map(|depth| format!("/{}", "d/".repeat(depth)));
    let items = paths.map(|path| item(Change::Delete, &path, None));
    let report = pair.run(CopyTask::Events(items.collect()));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let mut buffer = [0; 4096];
    let mut opens = 0;
    while let Ok(events) = inotify.read_events(&mut buffer) {
        opens += events.count();
    }
    assert!((1..DEPTH).contains(&opens), "{opens}");
}

#[test]
fn without_delete_nothing_is_removed() {
    let mut pair = Pair::new();
    pair.delete = false;
    fs::write(pair.target("f"), "1").unwrap();
    pair.compare();
    pair.event(Change::Delete, "/f");
    assert!(pair.target("f").exists());
}

#[test]
fn a_source_that_cannot_be_entered_removes_nothing() {
    let mut pair = Pair::new();
    fs::write(pair.target("f"), "1").unwrap();
    fs::remove_dir(pair.source("")).unwrap();
    let report = pair.run(CopyTask::Everything);
    assert!(report.closed.is_some());
    assert_eq!(report.code(), 11);
    assert!(pair.target("f").exists());
}

#[test]
fn a_rename_does_not_move_files_that_were_copied_before_it() {
    let mut pair = Pair::new();
    fs::create_dir(pair.source("a")).unwrap();
    fs::write(pair.source("a/f"), "first").unwrap();
    pair.compare();
    // The disk is newer than the events: `a` was renamed to `b`, and another `a` exists.
    fs::write(pair.source("a/f"), "changed").unwrap();
    fs::rename(pair.source("a"), pair.source("b")).unwrap();
    fs::create_dir(pair.source("a")).unwrap();
    fs::write(pair.source("a/f"), "another").unwrap();
    pair.event(Change::Modify, "/a/f");
    pair.run(CopyTask::Events(vec![item(
        Change::Move,
        "/a/",
        Some("/b/"),
    )]));
    assert_eq!(fs::read(pair.target("b/f")).unwrap(), b"changed");
    assert_eq!(fs::read(pair.target("a/f")).unwrap(), b"another");
}

#[test]
fn protected_files_do_not_count_as_deleted() {
    let mut pair = Pair::new();
    pair.filter.add_exclude(b"*.keep");
    fs::create_dir(pair.target("d")).unwrap();
    for name in ["a.keep", "b", "d/c"] {
        fs::write(pair.target(name), "1").unwrap();
    }
    assert_eq!(pair.deletions(&CopyTask::Everything), (3, 3));
    assert!(pair.target("a.keep").exists());
}

#[test]
fn names_that_were_exchanged_are_exchanged() {
    let mut pair = Pair::new();
    fs::write(pair.source("a"), "1").unwrap();
    fs::write(pair.source("b"), "22").unwrap();
    pair.compare();
    let root = File::open(pair.source("")).unwrap();
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    if rustix::fs::renameat_with(&root, "a", &root, "b", exchange).is_err() {
        println!("skipped: no exchange here");
        return;
    }
    let moves = [("/a", "/b"), ("/b", "/a")];
    let moves = moves.map(|(from, to)| item(Change::Move, from, Some(to)));
    pair.run(CopyTask::Events(moves.to_vec()));
    assert_eq!(fs::read(pair.target("a")).unwrap(), b"22");
    assert_eq!(fs::read(pair.target("b")).unwrap(), b"1");
}

type Tree = BTreeMap<PathBuf, (char, u32, Vec<u8>)>;

/// Returns type, mode and contents of each path of a tree.
fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let mode = data.mode() & 0o7777;
            let node = if data.is_dir() {
                open.push(path.clone());
                ('d', mode, Vec::new())
            } else if data.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                ('l', 0, to.as_os_str().as_bytes().to_vec())
            } else {
                ('-', mode, fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    found
}

/// Returns the number of entries that are gone or are no directories any more.
fn gone(before: &Tree, after: &Tree) -> u64 {
    let gone = before.iter().filter(|(path, node)| match after.get(*path) {
        None => true,
        Some(now) => node.0 == 'd' && now.0 != 'd',
    });
    gone.count() as u64
}

/// Replaces `path` below a tree by a file of each type.
fn init(root: &Path, path: &str, kind: u8) {
    let mut at = root.to_owned();
    let names: Vec<_> = path.split('/').collect();
    for name in &names[..names.len() - 1] {
        at.push(name);
        if !fs::symlink_metadata(&at).is_ok_and(|data| data.is_dir()) {
            let _ = fs::remove_file(&at);
            fs::create_dir(&at).unwrap();
        }
    }
    at.push(names[names.len() - 1]);
    let _ = fs::remove_dir_all(&at);
    let _ = fs::remove_file(&at);
    match kind % 4 {
        0 => fs::create_dir(&at).unwrap(),
        1 => symlink("a", &at).unwrap(),
        _ => fs::write(&at, vec![kind; usize::from(kind)]).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_comparison_makes_any_target_equal(
        source in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..20),
        target in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..20),
    ) {
        let mut pair = Pair::new();
        for (path, kind) in &source {
            init(&pair.source(""), path, *kind);
        }
        for (path, kind) in &target {
            init(&pair.target(""), path, *kind);
        }
        let (told, gone) = pair.deletions(&CopyTask::Everything);
        prop_assert_eq!(told, gone);
        let first = tree(&pair.target(""));
        prop_assert_eq!(tree(&pair.source("")), first);
    }

    #[test]
    fn deletes_of_all_replaced_directories_make_trees_equal(
        before in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..12),
        after in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..12),
    ) {
        let mut pair = Pair::new();
        for (path, kind) in &before {
            init(&pair.source(""), path, *kind);
        }
        pair.compare();
        let mut items = Vec::new();
        for (path, kind) in &after {
            init(&pair.source(""), path, *kind);
            items.push(item(Change::Delete, &format!("/{path}"), None));
        }
        let (told, gone) = pair.deletions(&CopyTask::Events(items));
        prop_assert_eq!(told, gone);
        prop_assert_eq!(tree(&pair.source("")), tree(&pair.target("")));
    }
}
