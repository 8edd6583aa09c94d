//! A directory on the target that must not be deleted, at the path of a file to be sent: it is
//! reported once, stays, and delays nothing.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, remove};

const TOLD: &str = "the target has a directory at d with contents that are not to be deleted";

/// Replaces the directory `d` of the source by a link or a file.
fn replace(dir: &Dir, with_link: bool) {
    dir.rm("d");
    if with_link {
        dir.symlink("nowhere", "d");
    } else {
        dir.write("d", "a file");
    }
}

const KINDS: [&str; 2] = ["default.rsync", "default.direct"];

fn config(kind: &str, more: &str) -> String {
    format!(
        "settings{{ controlSocket = '@DIR@/sock' }}
         sync{{ {kind}, source = '@SRC@', target = '@TRG@', delay = 0.1,
                rsync = {{ archive = true }}, {more} }}"
    )
}

fn site() -> Dir {
    let dir = Dir::new();
    dir.mkdir("d/deep");
    dir.write("d/deep/f", "1");
    dir
}

#[test]
fn files_protected_by_the_filter_stay_and_delay_nothing() {
    KINDS.into_iter().for_each(protected_files_stay);
}

fn protected_files_stay(kind: &str) {
    for (number, delete) in ["true", "false", "'startup'"].iter().enumerate() {
        for at_start in [true, false] {
            let dir = site();
            let config = config(
                kind,
                &format!("exclude = {{ '*.keep' }}, delete = {delete}"),
            );
            let protect = || {
                fs::create_dir_all(dir.trg("d/deep")).unwrap();
                fs::write(dir.trg("d/deep/x.keep"), "").unwrap();
            };
            if at_start {
                protect();
                replace(&dir, number % 2 == 0);
            }
            let mut daemon = Daemon::new(&dir, &config).start();
            daemon.settle();
            if !at_start {
                protect();
                replace(&dir, number % 2 == 0);
            }
            dir.write("other", "1");
            daemon.wait_log(TOLD);
            daemon.settle();
            assert!(dir.trg("d/deep/x.keep").exists() && dir.trg("other").exists());
            let calls = daemon.log().matches("partial transfer").count();
            // Later transfers do not report it again.
            dir.write("later", "1");
            daemon.settle();
            assert!(dir.trg("later").exists());
            let log = daemon.log();
            assert_eq!(log.matches(TOLD).count(), 1, "{delete} {at_start}\n{log}");
            assert_eq!(log.matches("partial transfer").count(), calls, "{log}");
            // It is sent when it changes and the directory is gone.
            remove(&dir.trg("d"));
            dir.rm("d");
            symlink("elsewhere", dir.src("d")).unwrap();
            daemon.wait_for("it is sent", |_| {
                fs::read_link(dir.trg("d")).is_ok_and(|to| to.as_os_str() == "elsewhere")
            });
        }
    }
}

/// rsync does not delete the directory either, without `--delete`.
#[test]
fn without_deletion_a_directory_found_at_the_start_stays() {
    for (kind, with_link) in [(KINDS[0], true), (KINDS[0], false), (KINDS[1], false)] {
        let dir = site();
        fs::create_dir_all(dir.trg("d")).unwrap();
        fs::write(dir.trg("d/there"), "").unwrap();
        replace(&dir, with_link);
        dir.write("other", "1");
        let mut daemon = Daemon::new(&dir, &config(kind, "delete = false")).start();
        daemon.wait_log(TOLD);
        daemon.settle();
        assert!(dir.trg("d/there").exists() && dir.trg("other").exists());
        assert_eq!(daemon.log().matches("recursive full").count(), 1);
    }
}

#[test]
fn without_deletion_an_empty_directory_is_replaced() {
    for kind in KINDS {
        let dir = Dir::new();
        dir.mkdir("d");
        let mut daemon = Daemon::new(&dir, &config(kind, "delete = false")).start();
        daemon.settle();
        replace(&dir, false);
        daemon.settle();
        assert!(dir.trg("d").is_file(), "{kind}\n{}", daemon.log());
    }
}

/// No rule protects the files in the directory, so it is deleted.
#[test]
fn with_deletion_and_without_rules_the_directory_is_replaced() {
    for kind in KINDS {
        let dir = site();
        let mut daemon = Daemon::new(&dir, &config(kind, "")).start();
        daemon.settle();
        fs::write(dir.trg("d/deep/more"), "").unwrap();
        replace(&dir, true);
        daemon.settle();
        assert!(dir.trg("d").is_symlink());
        assert!(!daemon.log().contains(TOLD));
    }
}

/// The daemon does not know which files options of the user protect. rsync reports it each time.
#[test]
fn files_protected_by_options_of_the_user_stay_and_delay_nothing() {
    for own in [
        "rsync = { archive = true, _extra = { '--filter=P *.keep' } }",
        "rsync = { archive = true, _extra = { '--exclude=*.keep' } }",
        "rsync = { archive = true, list = 'filter', _extra = { '--filter=P *.keep' } }",
    ] {
        let dir = site();
        let config = config(KINDS[0], "").replace("rsync = { archive = true }", own);
        assert!(config.contains(own));
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.settle();
        fs::write(dir.trg("d/deep/x.keep"), "").unwrap();
        replace(&dir, false);
        dir.write("other", "1");
        daemon.wait_for("it is reported", |daemon| {
            dir.ctl(&["retry"]).output().unwrap();
            daemon.log().contains(TOLD)
        });
        daemon.settle();
        assert!(dir.trg("d/deep/x.keep").exists() && dir.trg("other").exists());
        // A full comparison tries it once, and logs nothing new.
        let failures = daemon.log().matches("partial transfer").count();
        assert!(dir.ctl(&["resync"]).status().unwrap().success());
        daemon.settle();
        let log = daemon.log();
        assert_eq!(log.matches(TOLD).count(), 1, "{own}\n{log}");
        assert_eq!(
            log.matches("partial transfer").count(),
            failures,
            "{own}\n{log}"
        );
        // It is sent when it changes and no protected file is left.
        remove(&dir.trg("d"));
        dir.write("d", "another");
        daemon.settle();
        assert_eq!(fs::read(dir.trg("d")).unwrap(), b"another", "{own}");
        daemon.terminate();
    }
}
