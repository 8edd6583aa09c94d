use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::file::{Header, Index};
use super::super::plan::{Before, Digests, DirectoryPlan, digests, plan};
use super::*;

const KEY: HashKey = HashKey([5; 16]);

/// Calls `see` with the walk through a directory; in an hour no timestamp is too new.
fn with_walk<T>(directory: &Path, subdirs: bool, see: impl Fn(&IndexWalk<'_>) -> T) -> T {
    see(&IndexWalk {
        source: &[directory.as_os_str().as_bytes(), b"/"].concat(),
        subdirs,
        filter: &RwLock::new(Filter::default()),
        key: &KEY,
        begun: SystemTime::now() + Duration::from_secs(3600),
        cancelled: &AtomicBool::new(false),
    })
}

fn digests_of(directory: &Path, subdirs: bool) -> Result<Digests, String> {
    let whole = vec![(b"/".to_vec(), true)];
    with_walk(directory, subdirs, |walk| digests(walk, whole.clone()))
}

fn plan_of(directory: &Path, rows: Vec<Row>, taken: SystemTime) -> DirectoryPlan {
    let header = Header {
        key: KEY,
        fingerprint: 0,
        taken,
        compared: taken,
    };
    let index = Index { header, rows };
    let before = Before {
        was_killed: false,
        synced: None,
    };
    with_walk(directory, true, |walk| {
        plan(index.clone(), walk, before).unwrap()
    })
}

#[test]
fn a_file_with_an_old_time_whose_inode_has_changed_may_look_unchanged() {
    let file = tempfile::tempfile().unwrap();
    let mut stat = fs::fstat(&file).unwrap();
    let since = (100, 5);
    for (modified, changed, expected) in [
        ((90, 0), (100, 4), false),
        ((90, 0), (100, 5), true),
        ((90, 0), (200, 0), true),
        // It was written, in a second in which nothing was sent.
        ((101, 0), (101, 0), true),
        ((102, 0), (102, 0), false),
        ((200, 1), (200, 1), false),
        ((200, 1), (200, 2), true),
    ] {
        (stat.st_mtime, stat.st_mtime_nsec) = modified;
        (stat.st_ctime, stat.st_ctime_nsec) = changed;
        let found = may_look_unchanged(&stat, since);
        assert_eq!(found, expected, "{modified:?} {changed:?}");
    }
    (stat.st_mtime, stat.st_ctime) = (90, 200);
    stat.st_mode = FileType::Symlink.as_raw_mode() | 0o777;
    assert!(!may_look_unchanged(&stat, since));
}

/// rsync would take them for those on the target.
#[test]
fn the_files_of_a_changed_directory_that_look_unchanged_are_in_the_plan() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["d", "e"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    for name in ["d/f", "d/old", "e/f"] {
        std::fs::write(at(name), "1").unwrap();
    }
    let Ok(Digests { rows, .. }) = digests_of(directory.path(), true) else {
        // The file system is not a reliable one.
        return crate::test_skip::skip("digests of this file system are not reliable");
    };
    // Timestamps are those of a clock that ticks every few milliseconds.
    thread::sleep(Duration::from_millis(12));
    let taken = SystemTime::now();
    let nothing = plan_of(directory.path(), rows.clone(), taken);
    assert!(nothing.directories.is_empty() && nothing.files.is_empty());
    thread::sleep(Duration::from_millis(12));
    let before = std::fs::metadata(at("d/f")).unwrap().modified().unwrap();
    std::fs::write(at("d/f"), "2").unwrap();
    let file = std::fs::File::options().write(true).open(at("d/f"));
    file.unwrap().set_modified(before).unwrap();
    let found = plan_of(directory.path(), rows.clone(), taken);
    assert_eq!(found.directories, [b"/d/"]);
    assert_eq!(found.files, [b"/d/f"]);
    assert!(!found.has_links);
    std::fs::hard_link(at("d/old"), at("e/link")).unwrap();
    let found = plan_of(directory.path(), rows, taken);
    assert!(found.has_links);
}

#[test]
fn without_subdirectories_only_the_files_of_the_source_count() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("d")).unwrap();
    let Ok(before) = digests_of(directory.path(), false) else {
        return crate::test_skip::skip("digests of this file system are not reliable");
    };
    assert_eq!(before.rows.len(), 1);
    std::fs::write(directory.path().join("d/f"), "").unwrap();
    let after = digests_of(directory.path(), false).unwrap();
    assert_eq!(before.rows, after.rows);
    std::fs::write(directory.path().join("f"), "").unwrap();
    let after = digests_of(directory.path(), false).unwrap();
    assert_ne!(before.rows, after.rows);
}

#[test]
fn a_file_system_without_reliable_times_has_no_digests() {
    let reason = digests_of(Path::new("/proc/sys"), false).err().unwrap();
    assert!(reason.contains("not reliable"), "{reason}");
}

/// If the daemon is killed before they are on the target, the next one must compare them again.
#[test]
fn the_index_of_a_plan_does_not_contain_the_directories_that_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["d", "e"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("f"), "1").unwrap();
    }
    let rows = digests_of(dir.path(), true).unwrap().rows;
    std::fs::write(dir.path().join("d/f"), "22").unwrap();
    let plan = plan_of(dir.path(), rows.clone(), SystemTime::now());
    assert_eq!(plan.directories, [b"/d/"]);
    assert_eq!(plan.index.rows.len(), rows.len());
    for row in &plan.index.rows {
        let is_compared = row.path == KEY.path(b"/d/");
        assert_eq!(rows.contains(row), !is_compared);
        assert_eq!(row.digest == super::super::rows::UNKNOWN, is_compared);
    }
}
