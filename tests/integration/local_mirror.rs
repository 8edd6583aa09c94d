//! The worker of default.direct on two directories, without a daemon: attributes, links, holes and
//! filters, and random trees.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use crate::copy_job::copy_job;
use crate::local_trees::{gone, tree};
use lsyncd::batch::Change;
use lsyncd::config::MaxDelete;
use lsyncd::filter::Filter;
use lsyncd::local::{CopyControl, CopyItem, CopyJob, CopyReport, CopyTask, Memory, run_job};

pub struct Pair {
    guard: tempfile::TempDir,
    memory: Memory,
    filter: Filter,
    delete: bool,
    pub keeps_others: bool,
    limit: Option<MaxDelete>,
}

impl Pair {
    pub fn new() -> Pair {
        let guard = tempfile::tempdir().unwrap();
        for name in ["s", "t"] {
            fs::create_dir(guard.path().join(name)).unwrap();
        }
        Pair {
            guard,
            memory: Memory::default(),
            filter: Filter::default(),
            delete: true,
            keeps_others: false,
            limit: None,
        }
    }

    /// Returns the counted and the real number of deletions.
    pub fn deletions(&mut self, task: &CopyTask) -> (u64, u64) {
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

    pub fn source(&self, path: &str) -> PathBuf {
        self.guard.path().join("s").join(path)
    }

    pub fn target(&self, path: &str) -> PathBuf {
        self.guard.path().join("t").join(path)
    }

    pub fn run(&mut self, task: CopyTask) -> CopyReport {
        let job = self.job(task);
        run_job(&job, &mut self.memory)
    }

    /// Runs a job that has been stopped already.
    pub fn run_stopped(&mut self, task: CopyTask) -> CopyReport {
        let stop = Arc::new(AtomicBool::new(true));
        let job = CopyJob {
            control: Arc::new(CopyControl::new(stop)),
            ..self.job(task)
        };
        run_job(&job, &mut self.memory)
    }

    fn job(&self, task: CopyTask) -> CopyJob {
        CopyJob {
            delete: self.delete,
            keeps_others: self.keeps_others,
            filter: Arc::new(RwLock::new(self.filter.clone())),
            limit: self.limit,
            ..copy_job(&self.source(""), &self.target(""), task)
        }
    }

    pub fn delete(&mut self, delete: bool) {
        self.delete = delete;
    }

    pub fn exclude(&mut self, pattern: &[u8]) {
        self.filter.add_exclude(pattern);
    }

    pub fn limit(&mut self, limit: MaxDelete) {
        self.limit = Some(limit);
    }

    /// Runs a task when all renames of the time of the last one are known.
    pub fn run_next(&mut self, task: CopyTask) -> CopyReport {
        let job = CopyJob {
            renames_applied: true,
            ..self.job(task)
        };
        run_job(&job, &mut self.memory)
    }

    pub fn compare(&mut self) {
        let report = self.run(CopyTask::Everything);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }

    pub fn event(&mut self, change: Change, path: &str) -> CopyReport {
        self.run(CopyTask::Events(vec![item(change, path, None)]))
    }
}

pub fn item(change: Change, path: &str, to: Option<&str>) -> CopyItem {
    CopyItem {
        change,
        path: path.into(),
        to: to.map(Into::into),
    }
}

pub fn data(path: PathBuf) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap()
}

/// The directory at the path was replaced after the daemon had checked it.
#[test]
fn another_directory_in_place_of_the_source_is_not_copied() {
    let mut pair = Pair::new();
    fs::write(pair.source("f"), "text").unwrap();
    pair.compare();
    let numbers = |path: PathBuf| (data(path.clone()).dev(), data(path).ino());
    let source = numbers(pair.source(""));
    fs::remove_file(pair.source("f")).unwrap();
    for (expected, is_refused) in [(numbers(pair.target("")), true), (source, false)] {
        let job = CopyJob {
            source_numbers: Some(expected),
            ..copy_job(&pair.source(""), &pair.target(""), CopyTask::Everything)
        };
        let report = run_job(&job, &mut pair.memory);
        assert_eq!(report.closed.is_some(), is_refused, "{:?}", report.closed);
        assert_eq!(pair.target("f").exists(), is_refused);
    }
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
