//! One kind of change after the other arrives at a local mirror.

use std::os::unix::fs::MetadataExt;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::{Dir, remove};

/// Prepares a tree, starts the daemon with a plain configuration, makes a change and waits until
/// both sides are equal.
fn arrives(prepare: impl Fn(&Dir), change: impl Fn(&Dir)) {
    let dir = Dir::new();
    prepare(&dir);
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    daemon.wait_equal();
    change(&dir);
    daemon.wait_equal();
}

fn nothing(_: &Dir) {}

#[test]
fn startup_transfers_what_is_there_and_removes_what_is_not() {
    let dir = Dir::new();
    dir.mkdir("a/b/c");
    dir.mkdir("empty");
    dir.write("a/b/c/f", "content");
    dir.write("top", "");
    dir.symlink("a/b", "link");
    dir.symlink("nowhere", "dangling");
    dir.chmod("top", 0o600);
    std::fs::create_dir(dir.trg("stale")).unwrap();
    std::fs::write(dir.trg("stale/f"), "x").unwrap();
    let mut daemon = Daemon::new(&dir, MIRROR).start();
    daemon.wait_log("Startup of @SRC@/ -> @TRG@/ finished.");
    daemon.wait_equal();
}

#[test]
fn file_created() {
    arrives(nothing, |dir| dir.write("f", "1"));
}

#[test]
fn empty_file_created() {
    arrives(nothing, |dir| dir.write("f", ""));
}

#[test]
fn file_modified() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.write("f", "12"));
}

#[test]
fn file_appended_to() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.append("f", "2"));
}

/// rsync skips a file whose size and second of modification are equal.
#[test]
fn file_changed_in_the_second_of_its_transfer_without_changing_its_size() {
    let dir = Dir::new();
    dir.write("f", "0000");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    for n in 1..=8 {
        dir.write("f", format!("{n:04}"));
        daemon.wait_equal();
    }
}

#[test]
fn file_renamed() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.mv("f", "g"));
}

#[test]
fn file_renamed_over_another() {
    arrives(
        |dir| {
            dir.write("a", "new content");
            dir.write("b", "old");
        },
        |dir| dir.mv("a", "b"),
    );
}

/// rsync's quick check finds no difference.
#[test]
fn file_renamed_over_another_of_the_same_size_and_second() {
    arrives(
        |dir| {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
            for name in ["a", "b"] {
                dir.write(name, name);
                let file = std::fs::File::options().write(true).open(dir.src(name));
                file.unwrap().set_modified(time).unwrap();
            }
        },
        |dir| dir.mv("a", "b"),
    );
}

/// Beyond `maxPending` the changes in a directory are stored as one entry of the directory.
#[test]
fn files_of_the_same_size_and_second_in_a_directory_that_is_sent_whole() {
    for option in ["list = 'filter'", "list = 'files-from'", "list = 'auto'"] {
        let dir = Dir::new();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
        dir.mkdir("d/e");
        for name in ["d/e/f", "d/e/g", "d/e/h"] {
            dir.write(name, name);
            let file = std::fs::File::options().write(true).open(dir.src(name));
            file.unwrap().set_modified(time).unwrap();
        }
        let config = MIRROR
            .replace("archive = true", &format!("archive = true, {option}"))
            .replace("delay =", "maxPending = 1, delay =");
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        daemon.wait_equal();
        daemon.signal(Signal::SIGSTOP);
        dir.mkdir("first");
        for (old, new) in [("f", "x"), ("g", "f"), ("h", "g"), ("x", "h")] {
            dir.mv(format!("d/e/{old}"), format!("d/e/{new}"));
        }
        daemon.signal(Signal::SIGCONT);
        daemon.wait_equal();
    }
}

#[test]
fn file_moved_to_another_directory() {
    arrives(
        |dir| {
            dir.mkdir("a/deep");
            dir.mkdir("b");
            dir.write("a/deep/f", "1");
        },
        |dir| dir.mv("a/deep/f", "b/f"),
    );
}

#[test]
fn file_deleted() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.rm("f"));
}

#[test]
fn directory_created() {
    arrives(nothing, |dir| dir.mkdir("d"));
}

#[test]
fn directory_renamed_and_then_changed_inside() {
    let dir = Dir::new();
    dir.mkdir("d/e");
    dir.write("d/e/f", "1");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    dir.mv("d", "renamed");
    daemon.wait_equal();
    dir.append("renamed/e/f", "2");
    dir.write("renamed/new", "3");
    daemon.wait_equal();
}

#[test]
fn directory_moved_below_another() {
    arrives(
        |dir| {
            dir.mkdir("a/b");
            dir.mkdir("c");
            dir.write("a/b/f", "1");
        },
        |dir| {
            dir.mv("a", "c/a");
            dir.append("c/a/b/f", "2");
        },
    );
}

#[test]
fn directory_renamed_over_an_empty_one() {
    arrives(
        |dir| {
            dir.mkdir("a");
            dir.mkdir("b");
            dir.write("a/f", "1");
        },
        |dir| dir.mv("a", "b"),
    );
}

#[test]
fn empty_directory_deleted() {
    arrives(|dir| dir.mkdir("d"), |dir| dir.rm("d"));
}

#[test]
fn tree_deleted() {
    arrives(
        |dir| {
            for n in 0..20 {
                dir.mkdir(format!("d/{n}/e"));
                dir.write(format!("d/{n}/e/f"), "1");
            }
        },
        |dir| dir.rm("d"),
    );
}

#[test]
fn mode_of_a_file_changed() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.chmod("f", 0o640));
}

#[test]
fn mode_of_a_directory_changed() {
    arrives(|dir| dir.mkdir("d/e"), |dir| dir.chmod("d/e", 0o700));
}

#[test]
fn time_of_a_file_changed() {
    arrives(
        |dir| dir.write("f", "1"),
        |dir| {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
            let file = std::fs::File::options()
                .write(true)
                .open(dir.src("f"))
                .unwrap();
            file.set_modified(time).unwrap();
        },
    );
}

#[test]
fn symlink_created() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.symlink("f", "l"));
}

#[test]
fn dangling_symlink_created() {
    arrives(nothing, |dir| dir.symlink("../no where", "l"));
}

#[test]
fn symlink_retargeted() {
    arrives(
        |dir| dir.symlink("one", "l"),
        |dir| {
            dir.symlink("two", "l.new");
            dir.mv("l.new", "l");
        },
    );
}

#[test]
fn symlink_removed_and_made_again() {
    arrives(
        |dir| dir.symlink("one", "l"),
        |dir| {
            dir.rm("l");
            dir.symlink("another", "l");
        },
    );
}

/// rsync must not write through the link.
#[test]
fn directory_replaced_by_symlink_to_another() {
    arrives(
        |dir| {
            dir.mkdir("other");
            dir.write("other/kept", "1");
            dir.mkdir("d/sub");
            dir.write("d/sub/f", "1");
        },
        |dir| {
            dir.rm("d");
            dir.symlink("other", "d");
        },
    );
}

#[test]
fn symlink_to_directory_replaced_by_directory() {
    arrives(
        |dir| {
            dir.mkdir("other");
            dir.write("other/kept", "1");
            dir.symlink("other", "d");
        },
        |dir| {
            dir.rm("d");
            dir.mkdir("d");
            dir.write("d/f", "1");
        },
    );
}

#[test]
fn hard_link_created() {
    arrives(|dir| dir.write("f", "1"), |dir| dir.hard_link("f", "g"));
}

#[test]
fn hard_link_kept_as_one_file_where_configured() {
    use std::os::unix::fs::MetadataExt;

    let dir = Dir::new();
    dir.write("f", "1");
    dir.hard_link("f", "g");
    let config = MIRROR.replace("archive = true", "archive = true, hard_links = true");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
    let inode = |name: &str| std::fs::metadata(dir.trg(name)).unwrap().ino();
    assert_eq!(inode("f"), inode("g"));
}

#[test]
fn tree_moved_in() {
    arrives(
        |dir| {
            std::fs::create_dir_all(dir.path("outside/a/b")).unwrap();
            std::fs::write(dir.path("outside/a/b/f"), "1").unwrap();
        },
        |dir| {
            std::fs::rename(dir.path("outside"), dir.src("inside")).unwrap();
            dir.append("inside/a/b/f", "2");
        },
    );
}

#[test]
fn file_moved_in_over_another() {
    arrives(
        |dir| {
            dir.write("f", "old");
            std::fs::write(dir.path("outside"), "new content").unwrap();
        },
        |dir| std::fs::rename(dir.path("outside"), dir.src("f")).unwrap(),
    );
}

#[test]
fn tree_moved_out() {
    arrives(
        |dir| {
            dir.mkdir("d/e");
            dir.write("d/e/f", "1");
        },
        |dir| std::fs::rename(dir.src("d"), dir.path("outside")).unwrap(),
    );
}

/// The watches of a tree that was moved out must be removed.
#[test]
fn tree_moved_out_then_changed_outside_then_moved_back() {
    let dir = Dir::new();
    dir.mkdir("d/e");
    dir.write("d/e/f", "1");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    std::fs::rename(dir.src("d"), dir.path("outside")).unwrap();
    daemon.wait_equal();
    std::fs::write(dir.path("outside/e/f"), "changed outside").unwrap();
    remove(&dir.path("outside/e/f"));
    std::fs::write(dir.path("outside/e/g"), "new").unwrap();
    dir.write("sign", "1");
    daemon.wait_equal();
    std::fs::rename(dir.path("outside"), dir.src("d")).unwrap();
    daemon.wait_equal();
    dir.append("d/e/g", "er");
    daemon.wait_equal();
}

#[test]
fn directory_removed_and_made_again_with_the_same_name() {
    let dir = Dir::new();
    dir.mkdir("d/old");
    dir.write("d/old/f", "1");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    dir.rm("d");
    dir.mkdir("d");
    dir.write("d/f", "1");
    daemon.wait_equal();
    dir.append("d/f", "2");
    dir.mkdir("d/new/deep");
    dir.write("d/new/deep/f", "1");
    daemon.wait_equal();
}

#[test]
fn two_directories_exchanged() {
    let dir = Dir::new();
    for name in ["a", "b"] {
        dir.mkdir(format!("{name}/sub"));
        dir.write(format!("{name}/in-{name}"), name);
        dir.write(format!("{name}/sub/f"), name);
    }
    dir.append("b/sub/f", "longer");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    if exchange(&dir, "a", "b").is_err() {
        return crate::support::dir::skip("this file system cannot exchange two names");
    }
    daemon.wait_equal();
    dir.write("a/sub/f", "then in a");
    dir.write("b/sub/f", "and then in b");
    daemon.wait_equal();
}

#[test]
fn file_and_directory_exchanged() {
    let dir = Dir::new();
    dir.mkdir("d/sub");
    dir.write("d/sub/f", "1");
    dir.write("f", "a file");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    if exchange(&dir, "d", "f").is_err() {
        return crate::support::dir::skip("this file system cannot exchange two names");
    }
    daemon.wait_equal();
}

fn exchange(dir: &Dir, a: &str, b: &str) -> nix::Result<()> {
    let flags = RenameFlags::RENAME_EXCHANGE;
    renameat2(AT_FDCWD, &dir.src(a), AT_FDCWD, &dir.src(b), flags)
}

/// truncate(2) by path causes no close event.
#[test]
fn file_truncated_by_its_path() {
    arrives(
        |dir| dir.write("f", "long content"),
        |dir| nix::unistd::truncate(&dir.src("f"), 4).unwrap(),
    );
}

/// The kernel reports a modification time that is set alone as a write, without a close.
#[test]
fn modification_time_set_alone() {
    let dir = Dir::new();
    dir.mkdir("d");
    dir.write("f", "1");
    dir.symlink("f", "link");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    for (name, seconds) in [("d", 1), ("f", 2), ("link", 3), ("", 4)] {
        let time = |nanoseconds| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time(UTIME_OMIT),
            last_modification: time(0),
        };
        utimensat(CWD, dir.src(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        daemon.wait_for(name, |_| {
            dir.trg(name).symlink_metadata().unwrap().mtime() == seconds
        });
    }
}

#[test]
fn source_given_by_a_symlink() {
    let dir = Dir::new();
    dir.write("f", "1");
    std::os::unix::fs::symlink("src", dir.path("link")).unwrap();
    let config = MIRROR.replace("@SRC@", "@DIR@/link");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.write("g", "2");
    daemon.wait_equal();
}

#[test]
fn many_changes_of_all_kinds_end_equal() {
    arrives(
        |dir| {
            for n in 0..50 {
                dir.mkdir(format!("d{n}/s"));
                dir.write(format!("d{n}/s/f"), n.to_string());
            }
        },
        |dir| {
            for n in 0..50 {
                match n % 5 {
                    0 => dir.rm(format!("d{n}")),
                    1 => dir.mv(format!("d{n}"), format!("e{n}")),
                    2 => dir.append(format!("d{n}/s/f"), "more"),
                    3 => {
                        dir.rm(format!("d{n}/s"));
                        dir.write(format!("d{n}/s"), "a file now");
                    }
                    _ => dir.mkdir(format!("d{n}/s/x/y/z")),
                }
            }
        },
    );
}
