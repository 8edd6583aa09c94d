//! The transfers of a host share one connection of ssh.

use std::fs;
use std::process::Command;

use super::ssh::{Sshd, account};
use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll};

/// Returns the number of logins.
fn logins(dir: &Dir) -> usize {
    dir.text("ssh/log").matches("Accepted publickey").count()
}

/// Returns the ssh processes that keep a shared connection open.
fn masters(dir: &Dir) -> Vec<i32> {
    let path = dir.expand("@DIR@/run/");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| {
            let pid: i32 = process.file_name().to_str()?.parse().ok()?;
            let words = fs::read(process.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).into_owned();
            (words.contains("[mux]") && words.contains(&path)).then_some(pid)
        })
        .collect()
}

fn shared(dir: &Dir, lines: &str) -> String {
    fs::create_dir(dir.path("run")).unwrap();
    format!(
        r#"sync{{ default.rsync, source = "@SRC@", target = "{}@127.0.0.1:@TRG@", delay = 0.1,
            {lines} }}"#,
        account().name
    )
}

#[test]
fn one_connection_serves_all_transfers() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let config = shared(&dir, "rsync = { archive = true }");
    let mut daemon = Daemon::new(&dir, &config)
        .env("RSYNC_RSH", &sshd.rsh)
        .env("XDG_RUNTIME_DIR", &dir.expand("@DIR@/run"))
        .start_and_settle();
    let before = logins(&dir);
    for n in 0..5 {
        dir.write(format!("f{n}"), "1");
        daemon.wait_equal();
    }
    assert_eq!(logins(&dir), before, "{}", dir.text("ssh/log"));

    // A lost connection is made again.
    for pid in masters(&dir) {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    dir.write("after", "1");
    daemon.wait_equal();
    dir.write("after that", "1");
    daemon.wait_equal();
    assert_eq!(logins(&dir), before + 1);

    assert_eq!(daemon.terminate(), Some(143));
    assert!(poll(|| masters(&dir).is_empty()));
    assert_eq!(fs::read_dir(dir.path("run")).unwrap().count(), 0);
}

/// The runtime directory is removed at logout, and cleaners remove empty directories.
#[test]
fn a_removed_directory_of_connections_is_made_again() {
    for (gone, rsyncssh) in [("run/*", false), ("run", false), ("run", true)] {
        let dir = Dir::new();
        let Some(sshd) = Sshd::start(&dir) else {
            return;
        };
        let mut config = shared(&dir, "rsync = { archive = true }");
        if rsyncssh {
            let target = format!(r#"target = "{}@127.0.0.1:@TRG@""#, account().name);
            let there = format!(
                r#"host = "{}@127.0.0.1", targetdir = "@TRG@""#,
                account().name
            );
            config = config.replace("default.rsync", "default.rsyncssh");
            config = config.replace(&target, &there);
        }
        // Other directories depend on the environment of the test.
        let mut daemon = Daemon::new(&dir, &config)
            .env("RSYNC_RSH", &sshd.rsh)
            .env("XDG_RUNTIME_DIR", &dir.expand("@DIR@/run"))
            .start();
        daemon.wait_log("inished");
        dir.write("f", "1");
        daemon.wait_equal();
        let command = format!("rm -r '{}'/{gone}", dir.root().display());
        let removed = Command::new("sh").args(["-c", &command]).status();
        assert!(removed.unwrap().success());
        for name in ["g", "h"] {
            dir.write(name, "1");
            daemon.wait_equal();
        }
        dir.mv("g", "i");
        daemon.wait_equal();
        assert!(!daemon.log().contains("255"), "{}", daemon.log());
        assert_eq!(daemon.terminate(), Some(143));
        let left = fs::read_dir(dir.path("run"));
        assert_eq!(left.map_or(0, Iterator::count), 0);
    }
}

/// A user who can replace the directory could answer instead of the host.
#[test]
fn connections_are_not_shared_where_others_can_write() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let config = shared(&dir, "rsync = { archive = true }");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path("run"), permissions).unwrap();
    let mut daemon = Daemon::new(&dir, &config)
        .env("RSYNC_RSH", &sshd.rsh)
        .env("XDG_RUNTIME_DIR", &dir.expand("@DIR@/run"))
        .start_and_settle();
    dir.write("f", "1");
    daemon.wait_equal();
    assert_eq!(fs::read_dir(dir.path("run")).unwrap().count(), 0);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn connections_are_not_shared_with_reuse_false() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let config = shared(&dir, "ssh = { reuse = false }");
    let mut daemon = Daemon::new(&dir, &config)
        .env("RSYNC_RSH", &sshd.rsh)
        .env("XDG_RUNTIME_DIR", &dir.expand("@DIR@/run"))
        .start_and_settle();
    let before = logins(&dir);
    for n in 0..3 {
        dir.write(format!("f{n}"), "1");
        daemon.wait_equal();
    }
    assert!(logins(&dir) >= before + 3);
    assert!(masters(&dir).is_empty());
}
