//! The kernel's limits: watches, instances, the queue of events.
//!
//! A user namespace has limits of its own (user_namespaces(7)), so other processes are not
//! affected.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, program, skip, under_fanotify};

const MIRROR: &str = r#"
settings{ rescanInterval = 1 }
sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = { archive = true } }
"#;

/// Starts the daemon in a user namespace in which `limits` were written.
pub fn limited<'d>(dir: &'d Dir, config: &str, limits: &str) -> Option<Running<'d>> {
    let unshare = program("unshare")?;
    let allowed = Command::new(&unshare)
        .args(["-U", "-r", "sh", "-c", limits])
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        return None;
    }
    let script = format!("{limits}; exec \"$@\"");
    let unshare = unshare.to_str()?;
    let wrapper = [unshare, "-U", "-r", "sh", "-c", script.as_str(), "sh"];
    Some(Daemon::new(dir, config).wrapped(&wrapper).start())
}

fn set_limit(daemon: &Running<'_>, script: &str) {
    let status = Command::new("nsenter")
        .args(["--user", "--preserve-credentials", "-t"])
        .arg(daemon.pid().to_string())
        .args(["sh", "-c", script])
        .status();
    assert!(status.unwrap().success(), "limit in the namespace");
}

pub const NO_NAMESPACE: &str = "no user namespace with limits of its own";

#[test]
fn without_enough_watches_the_rest_is_compared_from_time_to_time() {
    let dir = Dir::new();
    for n in 0..30 {
        dir.mkdir(format!("d{n}/sub"));
        dir.write(format!("d{n}/sub/f"), "1");
    }
    let limits = "echo 20 > /proc/sys/user/max_inotify_watches";
    let Some(mut daemon) = limited(&dir, MIRROR, limits) else {
        return skip(NO_NAMESPACE);
    };
    daemon.wait_log("Out of inotify watches.");
    daemon.wait_log("20 of 61 directories are watched.");
    daemon.wait_log("sysctl fs.inotify.max_user_watches=1000");
    daemon.wait_equal();
    for n in 0..30 {
        dir.write(format!("d{n}/sub/f"), "changed");
    }
    dir.mkdir("new/deep");
    dir.write("new/deep/f", "2");
    daemon.wait_equal();

    set_limit(&daemon, "echo 2000 > /proc/sys/user/max_inotify_watches");
    daemon.wait_log("all directories are watched now");
    dir.write("d29/sub/f", "watched");
    dir.rm("d28");
    daemon.wait_equal();
    let log = daemon.log();
    assert_eq!(log.matches("Out of inotify watches.").count(), 1, "{log}");
}

#[test]
fn without_any_watch_all_is_compared_from_time_to_time() {
    let dir = Dir::new();
    dir.mkdir("d");
    dir.write("d/f", "1");
    let limits = "echo 0 > /proc/sys/user/max_inotify_watches";
    let Some(mut daemon) = limited(&dir, MIRROR, limits) else {
        return skip(NO_NAMESPACE);
    };
    daemon.wait_equal();
    dir.write("d/f", "22");
    daemon.wait_equal();
    set_limit(&daemon, "echo 2000 > /proc/sys/user/max_inotify_watches");
    daemon.wait_log("all directories are watched now");
    dir.write("d/g", "3");
    daemon.wait_equal();
}

#[test]
fn after_a_reload_directories_without_a_watch_are_compared_still() {
    let dir = Dir::new();
    for n in 0..30 {
        dir.mkdir(format!("d{n}"));
    }
    let config = MIRROR.replace("rescanInterval", "hup = \"changed\", rescanInterval");
    let limits = "echo 20 > /proc/sys/user/max_inotify_watches";
    let Some(mut daemon) = limited(&dir, &config, limits) else {
        return skip(NO_NAMESPACE);
    };
    daemon.wait_log("Out of inotify watches.");
    daemon.wait_equal();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("1 untouched");
    for n in 0..30 {
        dir.write(format!("d{n}/f"), "1");
    }
    daemon.wait_equal();
    // Of the comparisons before the reload, none is left to send these.
    for n in 0..30 {
        dir.write(format!("d{n}/f"), "22");
    }
    daemon.wait_equal();
}

/// The kernel's queue holds 16,384 events by default.
#[test]
fn an_overflow_is_followed_by_one_comparison() {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
    if limit.map_or(true, |limit| limit.trim() != "16384") {
        return skip("fs.inotify.max_queued_events is not 16384");
    }
    let dir = Dir::new();
    dir.mkdir("d");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    daemon.stop();
    // The creation of a file causes two events of inotify, and one of fanotify.
    for n in 0..18_000 {
        dir.write(format!("d/{n}"), "");
    }
    dir.mkdir("new/deep");
    dir.write("new/deep/f", "1");
    daemon.cont();
    daemon.wait_log("OVERFLOW");
    daemon.wait_equal();
    dir.write("new/deep/g", "2");
    daemon.wait_equal();
    let log = daemon.log();
    let overflows = log.matches("OVERFLOW").count();
    let comparisons = log.matches("recursive full rsync").count();
    assert!(comparisons <= 1 + overflows, "{log}");
}

/// Without `insist` the daemon exits like lsyncd, and the message contains a remedy.
#[test]
fn without_an_instance_the_daemon_does_not_start() {
    let dir = Dir::new();
    let limits = "echo 0 > /proc/sys/user/max_inotify_instances";
    let Some(mut daemon) = limited(&dir, MIRROR, limits) else {
        return skip(NO_NAMESPACE);
    };
    assert_eq!(daemon.wait_end().code(), Some(255));
    let log = daemon.log();
    assert!(log.contains("Cannot access inotify monitor!"), "{log}");
    assert!(log.contains("fs.inotify.max_user_instances"), "{log}");
}

#[test]
fn with_insist_the_daemon_waits_for_an_instance() {
    let dir = Dir::new();
    dir.write("f", "1");
    let limits = "echo 0 > /proc/sys/user/max_inotify_instances";
    let config = format!("settings{{ insist = true }}{MIRROR}");
    let Some(mut daemon) = limited(&dir, &config, limits) else {
        return skip(NO_NAMESPACE);
    };
    daemon.wait_log("fs.inotify.max_user_instances");
    set_limit(&daemon, "echo 10 > /proc/sys/user/max_inotify_instances");
    daemon.wait_equal();
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn waiting_for_an_instance_ends_with_term() {
    let dir = Dir::new();
    let limits = "echo 0 > /proc/sys/user/max_inotify_instances";
    let config = format!("settings{{ insist = true }}{MIRROR}");
    let Some(mut daemon) = limited(&dir, &config, limits) else {
        return skip(NO_NAMESPACE);
    };
    daemon.wait_log("fs.inotify.max_user_instances");
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn check_warns_of_too_few_watches() {
    if under_fanotify() {
        return skip("fanotify needs no watches");
    }
    let dir = Dir::new();
    for n in 0..30 {
        dir.mkdir(format!("d{n}"));
    }
    dir.put("config.lua", dir.expand(MIRROR));
    for (limit, code, expected) in [(20, 0, true), (100, 0, false)] {
        let script = format!("echo {limit} > /proc/sys/user/max_inotify_watches; exec \"$@\"");
        let wrapper = ["unshare", "-U", "-r", "sh", "-c", script.as_str(), "sh"];
        if limited(&dir, MIRROR, "echo 20 > /proc/sys/user/max_inotify_watches").is_none() {
            return skip(NO_NAMESPACE);
        }
        let ended = Daemon::bare(&dir)
            .wrapped(&wrapper)
            .args(&["-check", "@DIR@/config.lua"])
            .run();
        assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
        let text = "the sources have 31 directories, and the limit of inotify watches is 20";
        assert_eq!(ended.stdout.contains(text), expected, "{}", ended.stdout);
    }
}
