//! Tests of jobs with few rights, and of errors.

use std::fs as std_fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::MaxDelete;
use crate::test_user::{as_another_owner_of_files, without_rights_of_root};

/// A source `s` and a target `t` in a directory.
struct Pair {
    directory: PathBuf,
    memory: Memory,
    limit: Option<MaxDelete>,
    keeps_others: bool,
}

impl Pair {
    fn new(directory: &Path) -> Pair {
        for name in ["s", "t"] {
            std_fs::create_dir(directory.join(name)).unwrap();
        }
        Pair {
            directory: directory.to_owned(),
            memory: Memory::default(),
            limit: None,
            keeps_others: false,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str) {
        let path = self.at(name);
        std_fs::create_dir_all(path.parent().unwrap()).unwrap();
        std_fs::write(path, "text").unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        std_fs::set_permissions(self.at(name), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Returns the names in a directory, and its mode.
    fn names(&self, name: &str) -> (Vec<String>, u32) {
        let entries = std_fs::read_dir(self.at(name)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        let data = std_fs::metadata(self.at(name)).unwrap();
        (names, data.permissions().mode() & 0o777)
    }

    fn run(&mut self, task: CopyTask) -> CopyReport {
        let bytes = |path: PathBuf| path.into_os_string().into_encoded_bytes();
        let job = CopyJob {
            token: 0,
            source: bytes(self.at("s")),
            source_numbers: None,
            target: bytes(self.at("t")),
            delete: true,
            keeps_others: self.keeps_others,
            delete_excluded: false,
            filter: std::sync::Arc::default(),
            task,
            renames_applied: false,
            limit: self.limit,
            control: std::sync::Arc::default(),
        };
        run_job(&job, &mut self.memory)
    }

    fn events(&mut self, events: &[(Change, &str, Option<&str>)]) -> CopyReport {
        let items = events.iter().map(|&(change, path, to)| CopyItem {
            change,
            path: path.into(),
            to: to.map(Into::into),
        });
        self.run(CopyTask::Events(items.collect()))
    }
}

/// Returns the failed paths without trailing slashes.
fn failed(report: &CopyReport) -> Vec<&str> {
    let failures = report.failures.iter();
    let paths = failures.map(|failure| paths::bare(&failure.path));
    paths
        .map(|path| std::str::from_utf8(path).unwrap())
        .collect()
}

#[test]
fn a_file_that_cannot_be_removed_is_an_error() {
    // Nobody can remove files of the kernel.
    let process = Beneath::enter(b"/proc/self").unwrap();
    let process = process.directory(b"/").unwrap();
    assert!(unlink(&process, OsStr::new("status")).is_err());
    assert!(unlink(&process, OsStr::new("nothing")).is_ok());
}

/// A read-only directory has a read-only copy, whose owner may make it writable.
#[test]
fn read_only_directories_are_filled_and_emptied() {
    without_rights_of_root(|directory| {
        let mut pair = Pair::new(directory);
        for name in ["s/d/f", "s/d/sub/x", "s/e/y"] {
            pair.write(name);
        }
        let close = |pair: &Pair, mode| {
            for name in ["s/d/sub", "s/d", "s/e"] {
                pair.mode(name, mode);
            }
        };
        close(&pair, 0o500);
        let report = pair.run(CopyTask::Everything);
        assert_eq!(failed(&report), [""; 0]);
        assert_eq!(pair.names("t/d"), (vec!["f".into(), "sub".into()], 0o500));

        close(&pair, 0o700);
        pair.write("s/d/g");
        pair.write("s/d/new/z");
        std_fs::remove_file(pair.at("s/d/f")).unwrap();
        std_fs::rename(pair.at("s/d/sub/x"), pair.at("s/e/x")).unwrap();
        close(&pair, 0o500);
        let report = pair.events(&[
            (Change::Create, "/d/g", None),
            (Change::Create, "/d/new/", None),
            (Change::Create, "/d/new/z", None),
            (Change::Delete, "/d/f", None),
            (Change::Move, "/d/sub/x", Some("/e/x")),
        ]);
        assert_eq!((failed(&report), report.split.len()), (vec![], 0));
        let names = ["g", "new", "sub"].map(String::from).to_vec();
        assert_eq!(pair.names("t/d"), (names, 0o500));
        assert_eq!(pair.names("t/d/new").0, ["z"]);
        assert_eq!(pair.names("t/e"), (vec!["x".into(), "y".into()], 0o500));

        close(&pair, 0o700);
        std_fs::remove_dir_all(pair.at("s/d")).unwrap();
        let report = pair.events(&[(Change::Delete, "/d/", None)]);
        assert_eq!(failed(&report), [""; 0]);
        assert!(!pair.at("t/d").exists());
        pair.mode("t/e", 0o700);
    });
}

/// The contents of such a directory are unknown. Its mode is not changed for another owner.
#[test]
fn what_cannot_be_reached_on_the_target_is_reported() {
    without_rights_of_root(|directory| {
        let mut pair = Pair::new(directory);
        pair.write("t/d/f");
        pair.mode("t/d", 0);
        for path in ["/d/f", "/d"] {
            let report = pair.events(&[(Change::Delete, path, None)]);
            assert_eq!(failed(&report), [path]);
        }
        pair.limit = Some(MaxDelete::Count(0));
        let report = pair.events(&[(Change::Delete, "/d/", None)]);
        assert!(report.closed.is_some(), "{report:?}");
        pair.limit = None;
        pair.write("s/d/f");
        let report = pair.events(&[(Change::Modify, "/d/f", None)]);
        assert_eq!(failed(&report), ["/d/f"]);
        pair.mode("t/d", 0o700);
    });
}

#[test]
fn what_cannot_be_removed_is_reported() {
    as_another_owner_of_files(|directory| {
        let mut pair = Pair::new(directory);
        pair.write("t/d/f");
        std_fs::create_dir(pair.at("t/d/e")).unwrap();
        pair.mode("t/d", 0o500);
        for path in ["/d/e", "/d/f"] {
            let report = pair.events(&[(Change::Delete, path, None)]);
            assert_eq!(failed(&report), [path]);
        }
        assert_eq!(pair.names("t/d").0, ["e", "f"]);
    });
}

/// The superuser's files have another owner on some network file systems. Such a copy is not made
/// again in each comparison.
#[test]
fn files_that_cannot_have_their_owner_are_copied_once() {
    as_another_owner_of_files(|directory| {
        let mut pair = Pair::new(directory);
        nix::unistd::setfsuid(0.into());
        pair.write("s/f");
        std::os::unix::fs::symlink("f", pair.at("s/l")).unwrap();
        nix::unistd::setfsuid(65534.into());
        let inodes = |pair: &Pair| {
            let inode = |name| rustix::fs::lstat(pair.at(name)).unwrap().st_ino;
            ["t/f", "t/l"].map(inode)
        };
        let report = pair.run(CopyTask::Everything);
        assert_eq!(failed(&report), [""; 0]);
        let copied = inodes(&pair);
        let report = pair.run(CopyTask::Everything);
        assert_eq!(failed(&report), [""; 0]);
        assert_eq!(inodes(&pair), copied);
    });
}

/// Its files would never be sent.
#[test]
fn a_directory_that_cannot_be_compared_is_reported_unless_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(directory.path());
    pair.write("s/d/f");
    let directories = || vec![b"/d/".to_vec(), b"/gone/".to_vec()];
    let report = pair.run(CopyTask::Directories(directories()));
    assert_eq!(failed(&report), ["/d"]);
    std_fs::create_dir(pair.at("t/d")).unwrap();
    let report = pair.run(CopyTask::Directories(directories()));
    assert_eq!(failed(&report), [""; 0]);
    assert_eq!(pair.names("t/d").0, ["f"]);
}

/// Its own Deletes are all that is deleted, and none of them is passed over.
#[test]
fn a_comparison_that_deletes_nothing_leaves_the_later_deletions() {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(directory.path());
    pair.keeps_others = true;
    for name in ["s/b/f", "t/b/gone", "t/b/only"] {
        pair.write(name);
    }
    // The target lacks what was moved, so the new path is compared.
    let report = pair.events(&[
        (Change::Move, "/a/", Some("/b/")),
        (Change::Delete, "/b/gone", None),
    ]);
    assert_eq!(failed(&report), [""; 0]);
    assert_eq!(pair.names("t/b").0, ["f", "only"]);
}

/// The copy at the old path may be older than the file that was moved.
#[test]
fn a_file_that_was_copied_before_its_move_is_compared() {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(directory.path());
    std_fs::write(pair.at("s/b"), "new text").unwrap();
    for name in ["t/a", "t/b"] {
        std_fs::write(pair.at(name), "old").unwrap();
    }
    let report = pair.events(&[
        (Change::Modify, "/b", None),
        (Change::Move, "/a", Some("/b")),
    ]);
    assert_eq!(failed(&report), [""; 0]);
    assert_eq!(pair.names("t").0, ["b"]);
    assert_eq!(std_fs::read(pair.at("t/b")).unwrap(), b"new text");
}

/// Otherwise the first change of each file with a name elsewhere would lead to a comparison of
/// everything.
#[test]
fn names_that_a_comparison_of_everything_has_not_found_are_elsewhere() {
    for is_compared in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(directory.path());
        pair.write("s/f");
        std_fs::hard_link(pair.at("s/f"), pair.at("elsewhere")).unwrap();
        if is_compared {
            pair.run(CopyTask::Everything);
        }
        std_fs::write(pair.at("s/f"), "changed").unwrap();
        let report = pair.events(&[(Change::Modify, "/f", None)]);
        assert_eq!(report.names_missing, !is_compared);
    }
}
