//! A directory at the target that may not be deleted, in the place of what is to be sent: it is told
//! once, stays, and holds nothing up.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, remove};

const TOLD: &str = "the target has a directory at d with contents that are not to be deleted";

/// Puts a link or a file in the place of the directory `d` of the source.
fn replace(dir: &Dir, with_link: bool) {
    dir.rm("d");
    if with_link {
        dir.symlink("nowhere", "d");
    } else {
        dir.write("d", "a file");
    }
}

fn config(more: &str) -> String {
    format!(
        "settings{{ controlSocket = '@DIR@/sock' }}
         sync{{ default.rsync, source = '@SRC@', target = '@TRG@', delay = 0.1,
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
fn what_the_filter_protects_stays_and_holds_nothing_up() {
    for (number, delete) in ["true", "false", "'startup'"].iter().enumerate() {
        for at_start in [true, false] {
            let dir = site();
            let config = config(&format!("exclude = {{ '*.keep' }}, delete = {delete}"));
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
            // What is sent later does not bring it up again.
            dir.write("later", "1");
            daemon.settle();
            assert!(dir.trg("later").exists());
            let log = daemon.log();
            assert_eq!(log.matches(TOLD).count(), 1, "{delete} {at_start}\n{log}");
            assert_eq!(log.matches("partial transfer").count(), calls, "{log}");
            // It is sent when it changes and nothing is in its place.
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
    for with_link in [true, false] {
        let dir = site();
        fs::create_dir_all(dir.trg("d")).unwrap();
        fs::write(dir.trg("d/there"), "").unwrap();
        replace(&dir, with_link);
        dir.write("other", "1");
        let mut daemon = Daemon::new(&dir, &config("delete = false")).start();
        daemon.wait_log(TOLD);
        daemon.settle();
        assert!(dir.trg("d/there").exists() && dir.trg("other").exists());
        assert_eq!(daemon.log().matches("recursive full rsync").count(), 1);
    }
}

/// Nothing protects what is there, so whoever fills the directory does not keep it.
#[test]
fn with_deletion_and_without_rules_it_is_replaced_in_the_end() {
    let dir = site();
    let mut daemon = Daemon::new(&dir, &config("")).start();
    daemon.settle();
    fs::write(dir.trg("d/deep/more"), "").unwrap();
    replace(&dir, true);
    daemon.settle();
    assert!(dir.trg("d").is_symlink());
    assert!(!daemon.log().contains(TOLD));
}

/// The daemon does not know what the user's own options of rsync protect. rsync says it each time.
#[test]
fn what_own_options_protect_stays_and_holds_nothing_up() {
    for own in [
        "rsync = { archive = true, _extra = { '--filter=P *.keep' } }",
        "rsync = { archive = true, _extra = { '--exclude=*.keep' } }",
        "rsync = { archive = true, list = 'filter', _extra = { '--filter=P *.keep' } }",
    ] {
        let dir = site();
        let config = config("").replace("rsync = { archive = true }", own);
        assert!(config.contains(own));
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.settle();
        fs::write(dir.trg("d/deep/x.keep"), "").unwrap();
        replace(&dir, false);
        dir.write("other", "1");
        daemon.wait_for("it is told", |daemon| {
            dir.ctl(&["retry"]).output().unwrap();
            daemon.log().contains(TOLD)
        });
        daemon.settle();
        assert!(dir.trg("d/deep/x.keep").exists() && dir.trg("other").exists());
        // A comparison of everything tries it once, and tells nothing new.
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
        // It is sent when it changes and nothing protected is in its place.
        remove(&dir.trg("d"));
        dir.write("d", "another");
        daemon.settle();
        assert_eq!(fs::read(dir.trg("d")).unwrap(), b"another", "{own}");
        daemon.terminate();
    }
}
