//! The races of a watcher of directory trees, and the test of each.
//!
//! `M`, `R` and `N` stand for `e2e::mirror::{changes, races, names}`, `W` for `integration::watch_live`, `K` for
//! `faults::kinds`; names without a letter are here.
//!
//! | # | race | tests |
//! |---|---|---|
//! | 1 | `mkdir -p a/b/c/d` and files before there is a watch | R `deep_directories_made_at_once_with_files` |
//! | 2 | a directory filled while it is read | R `five_hundred_directories_filled_at_once` |
//! | 3 | a directory gone, or emptied, before it is watched | R `directories_made_and_removed_at_once`, `emptied_before_it_is_watched` |
//! | 4 | a directory moved out, then changed | M `tree_moved_out_then_changed_outside_then_moved_back`, W `a_directory_moved_out_…` |
//! | 5 | a directory renamed inside the tree | R `changes_below_a_directory_that_is_then_renamed_twice`, W `a_directory_renamed_…` |
//! | 6 | removed and made again under one name | R `directory_removed_and_made_again`, W `removed_and_made_again_…` |
//! | 7 | `RENAME_EXCHANGE` | M `two_directories_exchanged`, W `exchanged_directories_…`, `faults::churn` |
//! | 8 | the halves of a rename apart from each other | `integration::watch_churn::files_moved_by_many_are_never_deleted`, R `moves_and_writes_…` |
//! | 9 | a rename over an existing file | M `file_renamed_over_another…`, R `two_files_moved_onto_the_same_name` |
//! | 10 | an overflow | R `twenty_thousand_files_while_stopped`, `an_overflow_leaves_other_work_alone`, `faults::churn` |
//! | 11 | the root deleted | `faults::guard`, W `a_deleted_root_…` |
//! | 12 | the root renamed | `faults::guard`, W `a_moved_root_is_lost` |
//! | 13 | the root unmounted | `faults::guard` |
//! | 14 | something mounted over a watched directory: the kernel tells nothing | `mounted_over_a_watched_directory` |
//! | 15 | queued events of watches that are gone | R `tree_moved_out_and_another_moved_in_under_its_name` |
//! | 16 | one directory under two paths or in two syncs | `one_directory_in_two_syncs`, W `nested_scopes_share_watches` |
//! | 17 | `truncate(2)` by path | K `file_truncated_by_its_path` |
//! | 18 | a file open for long | K `file_that_is_never_closed_…` |
//! | 19 | `O_TMPFILE` and `linkat` | K `unnamed_file_that_is_given_a_name` |
//! | 20 | changed through a hard link elsewhere: the kernel tells nothing | `changed_through_a_hard_link_outside` |
//! | 21 | attributes of a directory, of the root | K `attributes_of_the_root`, M `mode_of_a_directory_changed` |
//! | 22 | written after it was unlinked | `written_after_it_was_unlinked` |
//! | 23 | kinds change within a batch | R `kinds_swapped_several_times`, K `kinds_swap_in_any_order` |
//! | 24 | changes during the startup transfer | R `changes_during_the_startup_transfer` |
//! | 25 | changes while rsync runs; what it could not do | R `change_behind_the_back_…`, `e2e::mirror::retry::exit_23_is_sent_again` |
//! | 26 | no more watches | `faults::limits` |
//! | 27 | no more processes or descriptors | `faults::children::changes_are_sent_after_a_failing_fork`, `integration::process_limits` |
//! | 28 | the clock is set | nothing goes by it but names of log lines: `sync::Clock` is monotonic |
//! | 29 | names of any bytes | `faults::names`, N |
//! | 30 | many children end at once | `five_hundred_children` |

use std::fs;
use std::io::Write;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll, skip, under_fanotify};
use crate::support::fake::Fake;

const MIRROR: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.2, rsync = { archive = true },
}
"#;

/// The transfer of the other sync continues, and its changes stay pending.
#[test]
fn an_overflow_leaves_other_work_alone() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    for name in ["src2", "trg2"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    let other = MIRROR
        .replace("SRC@", "DIR@/src2")
        .replace("TRG@", "DIR@/trg2")
        .replace("archive = true", "archive = true, binary = '@RSYNC@'");
    let mut daemon = Daemon::new(&dir, &format!("{MIRROR}{other}")).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    fake.hold();
    dir.put("src2/f", "1");
    daemon.wait_for("a transfer runs", |_| fake.calls().len() >= 2);
    for round in 1..=2 {
        daemon.stop();
        // fanotify reports equal events that are in the queue together once.
        let names = if under_fanotify() { 18_000 } else { 500 };
        for n in 0..names.max(9000) {
            dir.write(format!("f{}", n % names), format!("{round} {n}"));
            dir.write("g", "");
        }
        daemon.cont();
        daemon.wait_for("the overflow is reported", |daemon| {
            daemon.log().matches("OVERFLOW").count() >= round
        });
    }
    daemon.wait_equal();
    assert_eq!((fake.calls().len(), fake.ended()), (2, 1));
    fake.release();
    daemon.wait_same("src2", "trg2", true);
}

/// A transfer that deletes a directory finds another one, and sends its contents before a watch can
/// report their removal.
#[test]
fn emptied_before_it_is_watched() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    dir.mkdir("d");
    let config = MIRROR.replace("true", "true, binary = '@RSYNC@', list = 'filter'");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    fake.hold();
    dir.rm("d");
    daemon.wait_for("the transfer runs", |_| fake.calls().len() >= 2);
    daemon.stop();
    dir.mkdir("d");
    dir.write("d/new", "1");
    fake.release();
    assert!(poll(|| fake.ended() == 2) && dir.trg("d/new").exists());
    dir.rm("d/new");
    daemon.cont();
    daemon.wait_equal();
}

/// The next full transfer compares the contents of the mount.
#[test]
fn mounted_over_a_watched_directory() {
    let dir = Dir::new();
    dir.mkdir("d/old");
    dir.write("d/f", "below the mount");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    let none: Option<&str> = None;
    let place = dir.src("d");
    if mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), none).is_err() {
        return skip("only root can mount");
    }
    dir.write("d/g", "in the mount");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("the mounted files are mirrored", |_| {
        dir.trg("d/g").exists() && !dir.trg("d/f").exists()
    });
    dir.write("d/h", "seen");
    daemon.wait_for("the source is watched", |_| dir.trg("d/h").exists());
    umount2(&place, MntFlags::MNT_DETACH).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_equal();
    dir.write("d/old/f", "watched again");
    daemon.wait_equal();
}

/// Removing one of the two syncs keeps the watches of the other.
#[test]
fn one_directory_in_two_syncs() {
    let dir = Dir::new();
    dir.mkdir("a/b");
    fs::create_dir(dir.path("trg2")).unwrap();
    let second = r#"
        sync{ default.rsync, source = "@SRC@/a", target = "@DIR@/trg2", delay = 0.2 }
    "#;
    let first = format!("settings{{ hup = 'changed' }}\n{MIRROR}");
    let mut daemon = Daemon::new(&dir, &format!("{first}{second}")).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    dir.write("a/b/f", "1");
    daemon.wait_equal();
    daemon.wait_same("src/a", "trg2", false);
    dir.put(
        "config.lua",
        dir.expand(&format!("settings{{ hup = 'changed' }}\n{second}")),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("1 untouched, 0 changed, 0 new, 1 removed");
    dir.write("a/b/g", "1");
    daemon.wait_same("src/a", "trg2", false);
    assert!(!dir.trg("a/b/g").exists());
    dir.put("config.lua", dir.expand(&first));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_equal();
    dir.write("a/b/h", "1");
    daemon.wait_equal();
    assert!(!dir.path("trg2/b/h").exists());
}

/// Only the next full transfer finds the change.
#[test]
fn changed_through_a_hard_link_outside() {
    let dir = Dir::new();
    dir.write("f", "1");
    fs::hard_link(dir.src("f"), dir.path("outside")).unwrap();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    dir.put("outside", "changed");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_equal();
}

#[test]
fn written_after_it_was_unlinked() {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    let mut file = fs::File::create(dir.src("f")).unwrap();
    file.write_all(b"1").unwrap();
    dir.rm("f");
    dir.write("sign", "1");
    daemon.wait_equal();
    file.write_all(b"2").unwrap();
    drop(file);
    dir.write("sign", "22");
    daemon.wait_equal();
    let log = daemon.log();
    assert!(!log.contains("Warn:") && !log.contains("Error:"), "{log}");
}

#[test]
fn five_hundred_children() {
    let dir = Dir::new();
    let config = r#"
        sync{
            source = "@SRC@", delay = 0, maxProcesses = 100,
            onCreate = "true ^path",
        }
    "#;
    let mut daemon = Daemon::new(&dir, config).args(&["-log", "Inotify"]).start();
    daemon.wait_log("directories in all");
    for n in 0..500 {
        dir.mkdir(format!("d{n}"));
    }
    daemon.wait_for("all have ended", |daemon| {
        daemon.log().matches("Finished Create").count() == 500
    });
    dir.mkdir("one more");
    daemon.wait_for("it continues", |daemon| {
        daemon.log().matches("Finished Create").count() == 501
    });
}
