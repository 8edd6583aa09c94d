//! A full and a read-only file system on the target, over a real sshd: the status contains the
//! reason and the remedy.

use std::process::Command;

use super::ssh::{Sshd, account};
use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, program, skip};

/// Only the remote rsync sees the file system of the target.
fn told(mount: &str, expected: [&str; 2]) {
    let may_mount = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
        .status();
    if program("unshare").is_none() || !may_mount.is_ok_and(|status| status.success()) {
        return skip("no mount namespace");
    }
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let script = format!("exec unshare -m sh -c '{mount} && exec rsync \"$@\"' sh \"$@\"\n");
    dir.script("bin/remote-rsync", &script);
    let config = format!(
        r#"settings{{ controlSocket = "@DIR@/sock", insist = true }}
sync{{
    default.rsync, source = "@SRC@", target = "{user}@127.0.0.1:@TRG@", delay = 0.3,
    rsync = {{ rsh = "{rsh}", rsync_path = "@DIR@/bin/remote-rsync" }},
}}"#,
        user = account().name,
        rsh = sshd.rsh,
    );
    dir.write("f", "x".repeat(2_000_000));
    let mut daemon = Daemon::new(&dir, &config).start();
    let mut told = String::new();
    daemon.wait_for("the status has reason and remedy", |_| {
        let status = dir.ctl(&["status"]).output().unwrap();
        told = String::from_utf8_lossy(&status.stdout).into_owned();
        expected.iter().all(|text| told.contains(text)) && status.status.code() == Some(2)
    });
    daemon.terminate();
}

#[test]
fn a_full_remote_file_system_is_reported_with_a_remedy() {
    told(
        "mount -t tmpfs -o size=1m none @TRG@",
        [
            "No space left on device",
            "remedy: free space on the target",
        ],
    );
}

#[test]
fn a_read_only_remote_file_system_is_reported_with_a_remedy() {
    told(
        "mount --bind @TRG@ @TRG@ && mount -o remount,ro,bind @TRG@",
        [
            "Read-only file system",
            "remedy: mount the file system of the target read-write",
        ],
    );
}
