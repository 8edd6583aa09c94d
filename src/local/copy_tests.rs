//! Tests of copies that fail or lack attributes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::local::beneath::Beneath;
use crate::test_user::as_another_owner_of_files;

fn open(path: &Path) -> OpenDir {
    let place = Beneath::enter(path.as_os_str().as_encoded_bytes()).unwrap();
    place.directory(b"/").unwrap()
}

fn target<'a>(directory: &'a OpenDir, name: &'a str) -> TargetName<'a> {
    TargetName {
        directory,
        name: OsStr::new(name),
    }
}

fn copy(copier: &mut Copier, from: &TargetName<'_>, to: &TargetName<'_>) -> io::Result<Copied> {
    let stat = lookup(from.directory, from.name)?.unwrap();
    copier.copy(from, &stat, to, &AtomicBool::new(false))
}

fn names(path: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Stops what repeats itself for ever.
struct StopLater(Cell<u32>);

impl StopCheck for StopLater {
    fn is_stopped(&self) -> bool {
        self.0.set(self.0.get() + 1);
        self.0.get() > 1000
    }
}

#[test]
fn contents_that_cannot_be_read_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    // A directory can be opened, but not read like a file.
    let source = File::open(directory.path()).unwrap();
    let target = File::create(directory.path().join("f")).unwrap().into();
    let mut copier = Copier::default();
    let stop = StopLater(Cell::default());
    let error = copier.span(&source, &target, 0, 10, &stop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
}

/// The data behind a hole, where the file system has no copy_file_range(2).
#[test]
fn a_part_of_a_file_is_copied_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let length = 4 * usize::try_from(MAX_BUFFERED_COPY).unwrap() + 7;
    let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    std::fs::write(at("f"), &bytes).unwrap();
    let (start, end) = (4096, length - 5);
    let source = File::open(at("f")).unwrap();
    let target = File::create(at("copy")).unwrap().into();
    let mut copier = Copier {
        ranges: false,
        ..Copier::default()
    };
    let stop = StopLater(Cell::default());
    let (from, to) = (start as u64, end as u64);
    copier.span(&source, &target, from, to, &stop).unwrap();
    let copied = std::fs::read(at("copy")).unwrap();
    assert_eq!(copied[..start], vec![0; start]);
    assert!(copied[start..] == bytes[start..end]);
}

#[test]
fn a_failure_leaves_no_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("target/in the way")).unwrap();
    std::fs::write(at("file"), "text").unwrap();
    std::os::unix::fs::symlink("file", at("link")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (source, place) = (open(directory.path()), open(&at("target")));
    let to = target(&place, "in the way");
    for name in ["file", "link", "pipe"] {
        let copied = copy(&mut Copier::default(), &target(&source, name), &to);
        assert!(copied.is_err(), "{name}");
        assert_eq!(names(&at("target")), ["in the way"], "{name}");
    }
    let stat = fs::lstat(at("file")).unwrap();
    assert!(link_to(&target(&source, "file"), &stat, &to).is_err());
    assert_eq!(names(&at("target")), ["in the way"]);
}

/// Another user may have put another object in the place of the copy.
#[test]
fn only_a_copy_gets_another_name_and_the_old_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("copy"), "text").unwrap();
    std::fs::write(at("other"), "other text").unwrap();
    let place = open(directory.path());
    let stat = fs::lstat(at("copy")).unwrap();
    let link = |of, to| link_to(&target(&place, of), &stat, &target(&place, to));
    assert!(link("other", "name").is_err());
    assert_eq!(names(directory.path()), ["copy", "other"]);
    for _ in 0..2 {
        link("copy", "name").unwrap();
        assert_eq!(names(directory.path()), ["copy", "name", "other"]);
        assert_eq!(fs::lstat(at("name")).unwrap().st_ino, stat.st_ino);
    }
}

/// The superuser's files have another owner on some network file systems.
#[test]
fn a_pipe_has_its_mode_where_nothing_is_private() {
    as_another_owner_of_files(|directory| {
        let at = |name: &str| directory.join(name);
        std::fs::create_dir(at("target")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::set_permissions(at("pipe"), PermissionsExt::from_mode(0o640)).unwrap();
        let (source, place) = (open(directory), open(&at("target")));
        let (from, to) = (target(&source, "pipe"), target(&place, "pipe"));
        copy(&mut Copier::default(), &from, &to).unwrap();
        assert_eq!(names(&at("target")), ["pipe"]);
        let mode = fs::lstat(at("target/pipe")).unwrap().st_mode;
        assert_eq!(mode & 0o7777, 0o640);
    });
}
