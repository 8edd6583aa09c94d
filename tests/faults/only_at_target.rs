//! `delete = "running"`: files that only the target has stay, also in directories that the source
//! gets, whatever replaces the events of their contents.

use std::fs;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::script::SSH;

/// Kinds of sync, and whether they execute moves on the target.
const KINDS: [(&str, bool); 5] = [
    ("default.rsync, target = '@TRG@'", false),
    (
        "default.rsync, target = '@TRG@', rsync = { list = 'filter' }",
        false,
    ),
    (
        "default.rsync, target = 'host:@TRG@', rsync = { rsh = '@DIR@/ssh' }",
        false,
    ),
    (
        "default.rsyncssh, host = 'host', targetdir = '@TRG@', ssh = { binary = '@DIR@/ssh' }",
        true,
    ),
    ("default.direct, target = '@TRG@'", true),
];

/// Directories of the target with a file that only the target has.
const OTHERS: [&str; 4] = ["only/here", "only", "d", "d/s"];

/// Begins to mirror, beside what only the target has.
fn mirror<'d>(dir: &'d Dir, kind: &str, keys: &str) -> Running<'d> {
    mirror_with(dir, "", kind, keys)
}

fn mirror_with<'d>(dir: &'d Dir, settings: &str, kind: &str, keys: &str) -> Running<'d> {
    dir.script("ssh", SSH);
    for directory in OTHERS {
        fs::create_dir_all(dir.trg(directory)).unwrap();
        fs::write(dir.trg(directory).join("precious"), "1").unwrap();
    }
    for directory in ["a", "c", "c/s", "d", "d/s"] {
        dir.mkdir(directory);
        dir.write(format!("{directory}/f"), "1");
    }
    let config = format!(
        "settings{{ controlSocket = '@DIR@/sock', {settings} }}
        sync{{ {kind}, source = '@SRC@', delay = 0.1, delete = 'running', {keys} }}"
    );
    Daemon::new(dir, &config).start_and_settle()
}

/// Waits until everything of the source has arrived, and asserts that the rest has stayed.
fn verify(dir: &Dir, daemon: &mut Running, case: &str) {
    daemon.settle();
    for directory in OTHERS {
        let stayed = dir.trg(directory).join("precious").exists();
        assert!(stayed, "{case}: {directory}\n{}", daemon.log());
    }
    let mut directories = vec![dir.path("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let there = dir
                .path("trg")
                .join(path.strip_prefix(dir.path("src")).unwrap());
            assert!(there.exists(), "{case}: {there:?}\n{}", daemon.log());
            if path.is_dir() {
                directories.push(path);
            }
        }
    }
}

#[test]
fn more_changes_than_max_pending_delete_nothing_else() {
    for (kind, _) in KINDS {
        let dir = Dir::new();
        let mut daemon = mirror(&dir, kind, "maxPending = 3");
        daemon.stop();
        for directory in ["only", "only/here"] {
            dir.mkdir(directory);
        }
        for n in 0..6 {
            for directory in OTHERS {
                dir.write(format!("{directory}/n{n}"), "1");
            }
        }
        daemon.cont();
        verify(&dir, &mut daemon, kind);
        // What is deleted at the source is deleted nevertheless.
        daemon.stop();
        for name in ["d/n0", "d/n1", "c/s/f", "a/f", "only/n0"] {
            dir.rm(name);
        }
        dir.mv("c/s", "only/s");
        daemon.cont();
        verify(&dir, &mut daemon, kind);
        for name in ["d/n0", "d/n1", "a/f", "only/n0", "c/s"] {
            assert!(!dir.trg(name).exists(), "{kind}: {name}\n{}", daemon.log());
        }
    }
}

#[test]
fn a_move_to_a_directory_of_the_target_deletes_nothing_else() {
    for (kind, moves) in KINDS {
        for fails in [false, true] {
            if fails && !moves {
                continue;
            }
            let dir = Dir::new();
            let mut daemon = mirror(&dir, kind, "");
            if fails {
                fs::remove_dir_all(dir.trg("c")).unwrap();
            }
            dir.mv("c", "only");
            verify(&dir, &mut daemon, kind);
            // The contents of the new place are known: what is deleted there goes.
            dir.rm("only/s");
            daemon.settle();
            assert!(!dir.trg("only/s").exists(), "{kind}: {}", daemon.log());
            verify(&dir, &mut daemon, kind);
        }
    }
}

/// Renames that are read late, so that the disk does not confirm each. Without the capability for
/// fanotify, inotify is used.
#[test]
fn consecutive_moves_to_a_directory_of_the_target_delete_nothing_else() {
    let cases: [&[(&str, &str)]; 2] = [
        &[("c", "t"), ("t", "only")],
        &[("c", "a/t"), ("a", "b"), ("b/t", "only"), ("b", "a")],
    ];
    for (kind, _) in KINDS {
        for (case, watch) in [(0, "inotify"), (0, "fanotify"), (1, "fanotify")] {
            let dir = Dir::new();
            let mut daemon = mirror_with(&dir, &format!("watch = '{watch}'"), kind, "");
            daemon.stop();
            for (from, to) in cases[case] {
                dir.mv(from, to);
            }
            daemon.cont();
            verify(
                &dir,
                &mut daemon,
                &format!("{kind} {watch} {:?}", cases[case]),
            );
        }
    }
}

/// The directories are read again while the events of an exchange and of a rename wait, so that the
/// events are older than what is known.
#[test]
fn a_directory_that_was_exchanged_and_moved_before_it_is_read_deletes_nothing_else() {
    for (kind, _) in KINDS {
        for watch in ["inotify", "fanotify"] {
            for resets in [[true, false], [false, true], [true, true]] {
                let dir = Dir::new();
                let mut daemon = mirror_with(&dir, &format!("watch = '{watch}'"), kind, "");
                daemon.stop();
                exchange(&dir, "a", "c");
                if resets[0] {
                    daemon.signal(Signal::SIGHUP);
                }
                dir.mv("a", "t");
                dir.mv("t", "only");
                if resets[1] {
                    daemon.signal(Signal::SIGHUP);
                }
                daemon.cont();
                verify(&dir, &mut daemon, &format!("{kind} {watch} {resets:?}"));
                assert!(!dir.trg("only/a").exists() && !dir.trg("t").exists());
            }
        }
    }
}

/// What is moved away by an exchange is gone at its old path.
#[test]
fn exchanged_directories_have_what_the_other_had() {
    for (kind, _) in KINDS {
        for is_late in [false, true] {
            let dir = Dir::new();
            let mut daemon = mirror(&dir, kind, "");
            dir.write("a/of-a", "1");
            dir.write("c/of-c", "1");
            daemon.settle();
            if is_late {
                daemon.stop();
            }
            exchange(&dir, "a", "c");
            daemon.cont();
            verify(&dir, &mut daemon, kind);
            for (name, there) in [
                ("a/of-c", true),
                ("c/of-a", true),
                ("a/of-a", false),
                ("c/of-c", false),
            ] {
                let found = dir.trg(name).exists();
                assert_eq!(found, there, "{kind}: {name}\n{}", daemon.log());
            }
        }
    }
}

fn exchange(dir: &Dir, one: &str, other: &str) {
    let paths = [one, other].map(|name| dir.src(name));
    renameat2(
        AT_FDCWD,
        &paths[0],
        AT_FDCWD,
        &paths[1],
        RenameFlags::RENAME_EXCHANGE,
    )
    .unwrap();
}

/// At startup rsync refuses to put a file in place of the directory.
#[test]
fn a_file_in_place_of_a_directory_is_not_sent_at_startup() {
    for (kind, _) in KINDS {
        let dir = Dir::new();
        dir.write("only", "a file");
        let mut daemon = mirror(&dir, kind, "");
        daemon.settle();
        assert!(dir.trg("only/here/precious").exists(), "{kind}");
        assert!(dir.trg("c/s/f").exists(), "{kind}");
    }
}
