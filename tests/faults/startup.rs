//! Failures before the first transfer.

use std::fs;

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::Dir;

/// rsync creates the last directory of a target, not those above.
fn without_parent() -> String {
    MIRROR.replace("@TRG@", "@DIR@/no/such/trg")
}

#[test]
fn without_insist_the_daemon_exits_with_the_message_of_rsync() {
    let dir = Dir::new();
    let ended = Daemon::new(&dir, &without_parent()).run();
    ended.assert_refused();
    let line = ended
        .stderr
        .lines()
        .find(|line| line.contains("\"insist\" is not set"));
    assert!(
        line.is_some_and(|line| line.contains("/no/such/trg")),
        "{}",
        ended.stderr
    );
}

#[test]
fn with_insist_each_attempt_logs_one_line() {
    let dir = Dir::new();
    dir.write("f", "1");
    let config = format!("settings{{ insist = true }}{}", without_parent());
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_for("there were two attempts", |daemon| {
        daemon.log().matches("Retrying startup").count() >= 2
    });
    fs::create_dir_all(dir.path("no/such")).unwrap();
    daemon.wait_log("finished.");
    assert!(dir.path("no/such/trg/f").exists());
    let log = daemon.log();
    // rsync's output is logged at the first failure, later failures as one line each.
    let retries = log.matches("Retrying startup").count();
    let told = log
        .lines()
        .filter(|line| line.contains(" failed: No such file"))
        .count();
    assert!(told <= retries + 1, "{log}");
}

#[test]
fn missing_source_is_refused() {
    let dir = Dir::new();
    fs::remove_dir(dir.path("src")).unwrap();
    let ended = Daemon::new(&dir, &format!("settings{{ insist = true }}{MIRROR}")).run();
    ended.assert_refused();
    assert!(
        ended.stderr.contains("Cannot access source directory"),
        "{}",
        ended.stderr
    );
}

#[test]
fn missing_source_with_wait_for_source() {
    let dir = Dir::new();
    fs::remove_dir(dir.path("src")).unwrap();
    fs::write(dir.trg("kept"), "1").unwrap();
    let config = MIRROR.replace("delay =", "waitForSource = true, delay =");
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_log("the source does not exist");
    assert!(dir.trg("kept").exists());
    fs::create_dir_all(dir.path("new/d")).unwrap();
    fs::write(dir.path("new/d/f"), "1").unwrap();
    fs::rename(dir.path("new"), dir.path("src")).unwrap();
    daemon.wait_log("finished.");
    daemon.wait_equal();
    dir.write("d/g", "2");
    daemon.wait_equal();
    let log = daemon.log();
    assert_eq!(log.matches("recursive full rsync").count(), 1, "{log}");
}
