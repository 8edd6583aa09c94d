//! File types of a name, and complete and incomplete files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::fcntl::{AT_FDCWD, AtFlags};

use crate::support::daemon::{Daemon, MIRROR, Running};
use crate::support::dir::{Dir, skip, under_fanotify};

fn settled<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    Daemon::new(dir, config).start_and_settle()
}

/// truncate(2) by path causes no close event.
#[test]
fn file_truncated_by_its_path() {
    let dir = Dir::new();
    dir.write("f", "long content");
    let mut daemon = settled(&dir, MIRROR);
    nix::unistd::truncate(&dir.src("f"), 4).unwrap();
    daemon.wait_equal();
}

#[test]
fn file_truncated_by_its_path_then_renamed() {
    let dir = Dir::new();
    dir.write("f", "long content");
    let mut daemon = settled(&dir, MIRROR);
    nix::unistd::truncate(&dir.src("f"), 4).unwrap();
    dir.mv("f", "g");
    daemon.wait_equal();
}

/// The second file shows that a batch was sent meanwhile.
#[test]
fn file_being_written_is_sent_when_it_is_closed() {
    let dir = Dir::new();
    // A directory that may have been created during a transfer is sent with its open files. With
    // fanotify, a transfer counts as running until all events of its time have been read.
    if under_fanotify() {
        dir.mkdir("new");
    }
    let mut daemon = settled(&dir, MIRROR);
    if !under_fanotify() {
        dir.mkdir("new");
    }
    let mut file = File::create(dir.src("new/f")).unwrap();
    file.write_all(b"the first half, ").unwrap();
    for n in 0..3 {
        let name = format!("other{n}");
        dir.write(&name, "complete");
        daemon.wait_for("the other file is there", |_| dir.trg(&name).exists());
        assert!(!dir.trg("new/f").exists(), "{}", daemon.log());
    }
    file.write_all(b"the second half").unwrap();
    drop(file);
    daemon.wait_equal();
}

#[test]
fn file_that_is_never_closed_is_sent_when_it_gets_too_old() {
    let dir = Dir::new();
    let mut daemon = settled(&dir, &format!("settings{{ maxStaleness = 1 }}{MIRROR}"));
    let mut log = File::create(dir.src("log")).unwrap();
    for n in 0..3 {
        writeln!(log, "line {n}").unwrap();
        daemon.wait_equal();
    }
}

/// `maxStaleness = 0`: as in lsyncd, an open file is not sent.
#[test]
fn staleness_can_be_switched_off() {
    let dir = Dir::new();
    dir.write("f", "long content");
    let mut daemon = settled(&dir, &format!("settings{{ maxStaleness = 0 }}{MIRROR}"));
    nix::unistd::truncate(&dir.src("f"), 4).unwrap();
    dir.write("g", "closed");
    daemon.wait_for("the other file is there", |_| dir.trg("g").exists());
    assert_eq!(fs::read(dir.trg("f")).unwrap(), b"long content");
}

#[test]
fn unnamed_file_that_is_given_a_name() {
    let dir = Dir::new();
    let mut daemon = settled(&dir, MIRROR);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_TMPFILE)
        .open(dir.src(""));
    let Ok(mut file) = file else {
        return skip("no O_TMPFILE on this file system");
    };
    file.write_all(b"written before it had a name").unwrap();
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    nix::unistd::linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &dir.src("f"), follow).unwrap();
    drop(file);
    daemon.wait_equal();
}

fn make(dir: &Dir, name: &str, kind: usize) {
    match kind {
        0 => dir.write(name, format!("file {name}")),
        1 => {
            dir.mkdir(format!("{name}/sub"));
            dir.write(format!("{name}/sub/f"), "in a directory");
        }
        2 => dir.symlink("outside", name),
        _ => dir.symlink("../outside", name),
    }
}

/// Each file type is replaced by each other one, within one batch and one by one.
#[test]
fn kinds_swap_in_any_order() {
    let dir = Dir::new();
    fs::create_dir(dir.path("outside")).unwrap();
    fs::write(dir.path("outside/kept"), "not ours").unwrap();
    dir.mkdir("outside");
    dir.write("outside/inside", "ours");
    for from in 0..4 {
        for to in 0..4 {
            make(&dir, &format!("n{from}{to}"), from);
        }
    }
    let mut daemon = settled(&dir, MIRROR);
    daemon.wait_equal();
    for round in 0..4 {
        for from in 0..4 {
            for to in 0..4 {
                let name = format!("n{from}{to}");
                dir.rm(&name);
                make(&dir, &name, (from + to + round) % 4);
            }
        }
        daemon.wait_equal();
    }
    let kept = fs::read(dir.path("outside/kept")).unwrap();
    assert_eq!(kept, b"not ours");
    assert_eq!(fs::read_dir(dir.path("outside")).unwrap().count(), 1);
}

/// The target has a symlink at the path of a directory of the source: rsync must not write through
/// it.
#[test]
fn symlink_at_the_target_is_not_followed() {
    let dir = Dir::new();
    fs::create_dir(dir.path("outside")).unwrap();
    dir.mkdir("d");
    dir.write("d/f", "1");
    let mut daemon = settled(&dir, MIRROR);
    daemon.wait_equal();
    fs::remove_dir_all(dir.trg("d")).unwrap();
    std::os::unix::fs::symlink(dir.path("outside"), dir.trg("d")).unwrap();
    dir.write("d/g", "2");
    daemon.wait_for("the new file is there", |_| {
        fs::symlink_metadata(dir.trg("d")).is_ok_and(|d| d.is_dir()) && dir.trg("d/g").exists()
    });
    assert_eq!(fs::read_dir(dir.path("outside")).unwrap().count(), 0);
}

#[test]
fn hard_links_are_kept_with_the_option_hard_links() {
    let config = MIRROR.replace("archive = true", "archive = true, hard_links = true");
    let dir = Dir::new();
    dir.write("a", "one file");
    let mut daemon = settled(&dir, &config);
    dir.hard_link("a", "b");
    dir.mkdir("d");
    dir.hard_link("a", "d/c");
    daemon.wait_equal();
    dir.write("b", "other content");
    daemon.wait_equal();
    let inode = |name: &str| fs::metadata(dir.trg(name)).map(|data| data.ino()).ok();
    daemon.wait_for("names are linked", |_| {
        inode("a").is_some() && inode("a") == inode("b") && inode("b") == inode("d/c")
    });
    dir.rm("a");
    daemon.wait_equal();
}

#[test]
fn attributes_of_the_root() {
    let dir = Dir::new();
    dir.write("f", "1");
    let mut daemon = settled(&dir, MIRROR);
    daemon.wait_equal();
    dir.chmod("", 0o711);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o7777;
    daemon.wait_for("the root has the new mode", |_| mode(&dir.trg("")) == 0o711);
}

#[test]
fn same_size_in_the_same_second_again_and_again() {
    let dir = Dir::new();
    dir.write("f", "0000");
    let mut daemon = settled(&dir, MIRROR);
    for n in 1..=5 {
        dir.write("f", format!("{n:04}"));
        daemon.wait_equal();
    }
}
