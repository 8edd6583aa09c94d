//! Replacing files, on a real file system.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lsyncd::status::atomic_file::ReplaceError;
use lsyncd::status::atomic_file::write;
use lsyncd::status::status_file::StatusReport;
use lsyncd::status::status_file::WatchList;
use nix::unistd::mkfifo;

fn put(path: &Path, text: &str) -> Result<(), ReplaceError> {
    write(path, &mut |out| out.write_all(text.as_bytes()))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_and_an_existing_file_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    put(&path, "one").unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o700, 0o600);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let before = path.metadata().unwrap().ino();
    let reader = fs::File::open(&path).unwrap();
    put(&path, "two").unwrap();
    let after = path.metadata().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(after.mode() & 0o777, 0o664);
    assert_ne!(after.ino(), before);
    assert_eq!(io::read_to_string(reader).unwrap(), "one");
    assert_eq!(names(dir.path()), ["status"]);
}

#[test]
fn a_temporary_file_of_a_killed_process_with_the_same_pid_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let left = format!(".status.{}.new", std::process::id());
    fs::write(dir.path().join(left), "half").unwrap();
    put(&dir.path().join("status"), "whole").unwrap();
    assert_eq!(names(dir.path()), ["status"]);
}

/// Another user may occupy the temporary name by a directory, which cannot be unlinked.
#[test]
fn an_occupied_temporary_name_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let taken = format!(".status.{}.new", std::process::id());
    fs::create_dir(dir.path().join(&taken)).unwrap();
    for text in ["one", "two"] {
        put(&dir.path().join("status"), text).unwrap();
        assert_eq!(
            fs::read(dir.path().join("status")).unwrap(),
            text.as_bytes()
        );
    }
    assert_eq!(names(dir.path()), [taken.as_str(), "status"]);
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    put(&path, "one").unwrap();
    let result = write(&path, &mut |out| {
        out.write_all(&[b'x'; 100_000])?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(matches!(result, Err(ReplaceError::Write(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    assert_eq!(names(dir.path()), ["status"]);
}

#[test]
fn the_target_of_a_link_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    let (link, real) = (dir.path().join("status"), dir.path().join("run/real"));
    symlink("run/real", &link).unwrap();
    for text in ["one", "two"] {
        put(&link, text).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), text);
    }
    assert_eq!(names(dir.path()), ["run", "status"]);
    assert_eq!(names(&dir.path().join("run")), ["real"]);
}

#[test]
fn a_name_too_long_for_a_temporary_file_is_written_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n".repeat(255));
    for text in ["longer", "short"] {
        put(&path, text).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_file_in_a_directory_without_write_permission_is_written_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    fs::write(&path, "a longer one").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let result = put(&path, "two");
    let missing = put(&dir.path().join("other"), "x");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    result.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    let root = nix::unistd::geteuid().is_root();
    assert!(root || matches!(missing, Err(ReplaceError::Open(_))));
}

#[test]
fn special_files_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(put(dir.path(), "x"), Err(ReplaceError::Open(_))));
    put(Path::new("/dev/null"), "x").unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        matches!(put(&fifo, "x"), Err(ReplaceError::Open(_))),
        "and holds up nobody"
    );
}

/// A list of many watches.
struct Many(i32);

impl WatchList for Many {
    fn count(&self) -> usize {
        self.0 as usize
    }

    fn each(&self, show: &mut dyn FnMut(i32, &[u8])) {
        (1..=self.0).for_each(|n| show(n, format!("/source/directory-{n}/").as_bytes()));
    }
}

#[test]
fn readers_of_a_status_file_see_complete_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    let save = |count| {
        let report = StatusReport {
            time: 0,
            syncs: Vec::new(),
            tunnels: Vec::new(),
            watches: &Many(count),
        };
        report.save(&path).unwrap();
    };
    save(50_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in [40_000, 10, 50_000, 20_000] {
                save(count);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let text = fs::read_to_string(&path).unwrap();
            let count = text.lines().nth(2).unwrap().split(' ').nth(2).unwrap();
            assert!(text.ends_with(&format!("  {count}: /source/directory-{count}/\n")));
        }
    });
}
