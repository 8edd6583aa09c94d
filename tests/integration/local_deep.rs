//! The worker of default.direct on trees deeper than the longest path, with few descriptors and
//! little stack.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::copy_job::copy_job;
use crate::support::own_process::in_own_process;
use lsyncd::batch::Change;
use lsyncd::config::MaxDelete;
use lsyncd::local::{CopyItem, CopyJob, CopyReport, CopyTask, Memory, run_job};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

/// Each level adds two bytes to the path, which exceeds the 4096 bytes of a system call.
const DEPTH: usize = 2500;

struct Pair(tempfile::TempDir);

impl Pair {
    /// A source with one directory in another, each with a file and another directory beside it.
    fn new() -> Pair {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let pair = Pair(tempfile::tempdir().unwrap());
        for name in ["s", "t"] {
            fs::create_dir(pair.path(name)).unwrap();
        }
        for level in 0..DEPTH {
            let next = pair.path("next");
            fs::create_dir(&next).unwrap();
            fs::write(next.join("f"), level.to_string()).unwrap();
            fs::create_dir(next.join("beside")).unwrap();
            if level > 0 {
                fs::rename(pair.path("d"), next.join("d")).unwrap();
            }
            fs::set_permissions(&next, fs::Permissions::from_mode(0o750)).unwrap();
            fs::rename(next, pair.path("d")).unwrap();
        }
        fs::rename(pair.path("d"), pair.path("s/d")).unwrap();
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Executes a task with little stack.
    fn run(&self, task: CopyTask, limit: Option<MaxDelete>) -> CopyReport {
        let job = CopyJob {
            limit,
            ..copy_job(&self.path("s"), &self.path("t"), task)
        };
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        let work = move || run_job(&job, &mut Memory::default());
        small.spawn(work).unwrap().join().unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("rm").arg("-rf").arg(self.0.path()).status();
    }
}

fn enter(directory: impl AsFd, name: &Path) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).unwrap()
}

/// Returns type, mode, size and time of each name in a directory.
fn list(directory: &OwnedFd) -> BTreeMap<Vec<u8>, (FileType, u32, i64, i64)> {
    let entries = Dir::read_from(directory).unwrap().map(Result::unwrap);
    let names = entries.map(|entry| entry.file_name().to_owned());
    let names = names.filter(|name| ![c".", c".."].contains(&name.as_c_str()));
    let stat = |name: std::ffi::CString| {
        let found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let kind = FileType::from_raw_mode(found.st_mode);
        let size = if kind == FileType::RegularFile {
            found.st_size
        } else {
            0
        };
        (
            name.into_bytes(),
            (kind, found.st_mode, size, found.st_mtime),
        )
    };
    names.map(stat).collect()
}

/// Asserts that both trees are equal, and returns their depth.
fn assert_equal(pair: &Pair) -> usize {
    let mut both = ["s", "t"].map(|name| enter(CWD, &pair.path(name)));
    let mut depth = 0;
    loop {
        let [source, target] = [&both[0], &both[1]].map(list);
        assert_eq!(source, target, "at depth {depth}");
        if !source.contains_key(b"d".as_slice()) {
            return depth;
        }
        both = both.map(|directory| enter(directory, Path::new("d")));
        depth += 1;
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_mirrored_counted_and_deleted() {
    let name = "a_tree_deeper_than_any_path_is_mirrored_counted_and_deleted";
    if !in_own_process(module_path!(), name) {
        return;
    }
    let pair = Pair::new();
    let report = pair.run(CopyTask::Everything, None);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    assert_eq!(report.closed, None);
    assert_eq!(assert_equal(&pair), DEPTH);

    // First nothing differs, then the innermost directory.
    let report = pair.run(CopyTask::Everything, None);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let mut end = enter(CWD, &pair.path("s"));
    for _ in 0..DEPTH {
        end = enter(end, Path::new("d"));
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    openat(&end, "new", flags, Mode::RUSR).unwrap();
    drop(end);
    let report = pair.run(CopyTask::Everything, None);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    assert_eq!(assert_equal(&pair), DEPTH);

    fs::rename(pair.path("s/d"), pair.path("away")).unwrap();
    let deleted = CopyTask::Events(vec![CopyItem {
        change: Change::Delete,
        path: b"/d/".to_vec(),
        to: None,
    }]);
    for task in [deleted.clone(), CopyTask::Everything] {
        let report = pair.run(task, Some(MaxDelete::Count(10)));
        let entries = 3 * DEPTH as u64 + 1;
        assert_eq!(report.excess, Some((entries, entries)));
    }
    let report = pair.run(deleted, None);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    assert_eq!(fs::read_dir(pair.path("t")).unwrap().count(), 0);
}
