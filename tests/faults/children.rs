//! Transfers that fail in various ways: no path is lost, the waits are logged, and the end of one
//! sync does not affect the others.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, program, skip};
use crate::support::fake::Fake;

const RECORDED: &str = r#"
settings{ statusFile = "@DIR@/status", statusInterval = 0 }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = { binary = "@RSYNC@" },
}
"#;

/// A second sync with the real rsync.
const OTHER: &str = r#"
sync{ default.rsync, source = "@DIR@/src2", target = "@DIR@/trg2", delay = 0.3 }
"#;

fn with_other(dir: &Dir) -> String {
    for name in ["src2", "trg2"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    format!("{RECORDED}{OTHER}")
}

fn other_is_current(dir: &Dir, daemon: &mut Running<'_>) {
    dir.put("src2/sign", "of life");
    daemon.wait_same("src2", "trg2", false);
}

/// Asserts that a batch that ends with this code is sent again, and that this is logged.
fn is_sent_again(code: u8) {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, code, code, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("it was sent three times", |_| {
        fake.calls().iter().filter(|call| call.lists("/f")).count() == 3
    });
    daemon.wait_log("Warn: Sync1: trying again in 1 s");
    daemon.wait_log("Warn: Sync1: failed 2 times in a row, trying again in ");
    daemon.wait_for("the status shows no failure", |_| {
        fake.ended() == 4 && !dir.text("status").contains("trying again")
    });
    assert_eq!(daemon.terminate(), Some(143));
}

macro_rules! codes {
    ($($test:ident $code:expr,)*) => {
        $(#[test]
        fn $test() {
            is_sent_again($code);
        })*
    };
}

codes! {
    exit_10 10,
    exit_12 12,
    exit_30 30,
    exit_35 35,
    exit_255 255,
    exit_code_nobody_knows 77,
}

#[test]
fn every_failure_is_reported_once_with_its_retry_delay() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 12, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("success after two failures", |_| fake.ended() >= 4);
    let log = daemon.log();
    assert_eq!(log.matches("trying again in").count(), 2, "{log}");
}

#[test]
fn the_status_file_shows_a_failing_sync() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("status names the failure", |_| {
        dir.text("status").contains("Failed once, trying again.")
    });
}

#[test]
fn changes_are_sent_when_a_removed_rsync_is_back() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    fs::rename(dir.path("bin/rsync"), dir.path("bin/away")).unwrap();
    dir.write("f", "1");
    daemon.wait_log(&dir.expand("Failed executing [ @RSYNC@ ]!"));
    daemon.wait_log("Sync1: trying again in");
    fs::rename(dir.path("bin/away"), dir.path("bin/rsync")).unwrap();
    daemon.wait_for("it was sent", |_| {
        fake.calls().iter().any(|c| c.lists("/f"))
    });
}

#[test]
fn changes_are_sent_when_rsync_is_executable_again() {
    let dir = Dir::new();
    Fake::new(&dir);
    let script = fs::read(dir.path("bin/rsync")).unwrap();
    fs::remove_file(dir.path("bin/rsync")).unwrap();
    dir.put("bin/rsync", script);
    let mode = |mode| {
        fs::set_permissions(dir.path("bin/rsync"), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    let mut daemon = Daemon::new(&dir, RECORDED).args(&["-insist"]).start();
    daemon.wait_log(&dir.expand("Failed executing [ @RSYNC@ ]!"));
    mode(0o755);
    daemon.wait_log("finished.");
}

#[test]
fn critical_exit_code_ends_one_sync_only() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 1]);
    let mut daemon = Daemon::new(&dir, &with_other(&dir)).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    dir.write("f", "1");
    daemon.wait_log("Error: Critical exitcode.");
    daemon.wait_log("Error: Sync1: ended by exit code 1");
    dir.write("g", "1");
    other_is_current(&dir, &mut daemon);
    daemon.wait_for("the status shows the end", |_| {
        dir.text("status").contains("Ended by exit code 1.")
    });
    assert_eq!(fake.calls().len(), 2);
    assert_eq!(daemon.terminate(), Some(143));
}

/// The other side has ended, and its message was lost with the connection.
#[test]
fn a_critical_exit_code_after_a_lost_connection_is_retried() {
    for line in [
        "rsync: [sender] read error: Connection reset by peer (104)",
        "rsync: [sender] write error: Broken pipe (32)",
        "rsync: connection unexpectedly closed (42 bytes received so far) [sender]",
    ] {
        let dir = Dir::new();
        let fake = Fake::passing(&dir);
        // The first failures may be those of an option.
        fake.exits(&[0, 2, 2, 2, 0]);
        for call in 2..5 {
            let trailer =
                "rsync error: protocol incompatibility (code 2) at io.c(1) [sender=3.5.0]";
            dir.put(&format!("fake/say.{call}"), format!("{line}\n{trailer}\n"));
        }
        let mut daemon = Daemon::new(&dir, &with_other(&dir)).start();
        daemon.wait_for("both have started up", |daemon| {
            daemon.log().matches("finished.").count() == 2
        });
        dir.write("f", "1");
        daemon.wait_equal();
        assert!(!daemon.log().contains("ended by"), "{}", daemon.log());
        assert!(fake.calls().len() >= 5, "{}", daemon.log());
    }
}

#[test]
fn the_last_sync_that_ends_ends_the_daemon() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 0, 1]);
    let both = with_other(&dir).replace(
        "delay = 0.3 }",
        "delay = 0.3, rsync = { binary = \"@RSYNC@\" } }",
    );
    let mut daemon = Daemon::new(&dir, &both).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    dir.write("f", "1");
    daemon.wait_log("Error: Sync1: ended by exit code 1");
    dir.put("src2/f", "1");
    assert_eq!(daemon.wait_end().code(), Some(255), "{}", daemon.log());
}

#[test]
fn critical_exit_code_at_startup_ends_the_daemon() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[1]);
    let mut daemon = Daemon::new(&dir, &with_other(&dir)).start();
    assert_eq!(daemon.wait_end().code(), Some(255), "{}", daemon.log());
}

#[test]
fn critical_exit_code_at_startup_ends_one_sync_with_insist() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[1]);
    let config = with_other(&dir);
    let mut daemon = Daemon::new(&dir, &config).args(&["-insist"]).start();
    daemon.wait_log("Error: Sync1: ended by exit code 1");
    other_is_current(&dir, &mut daemon);
}

/// HUP starts the sync again with its pending changes.
#[test]
fn a_sync_that_ended_starts_again_at_hup() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    fake.exits(&[0, 1, 0]);
    let mut daemon = Daemon::new(&dir, &with_other(&dir)).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    dir.write("f", "1");
    daemon.wait_log("Error: Sync1: ended by exit code 1");
    dir.write("g", "nobody looked");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_equal();
}

/// No process can be started for a while, because no descriptors are left.
#[test]
fn changes_are_sent_after_a_failing_fork() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    let files = limit(&daemon, 0);
    dir.write("f", "1");
    daemon.wait_log("Sync1: cannot start");
    limit(&daemon, files);
    daemon.wait_for("it was sent", |_| {
        fake.calls().iter().any(|c| c.lists("/f"))
    });
}

/// In a container, orphans of all processes become children of process 1.
#[test]
fn process_1_reaps_orphans() {
    let (Some(unshare), true) = (program("unshare"), nix::unistd::geteuid().is_root()) else {
        return skip("a namespace of processes needs root and unshare");
    };
    let dir = Dir::new();
    let config = r#"sync{ source = "@SRC@", delay = 0, onCreate = function(event)
        spawnShell(event, "(sleep 0.1; echo > @DIR@/ended) > /dev/null 2>&1 &")
    end }"#;
    let words = [
        unshare.to_str().unwrap(),
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let mut daemon = Daemon::new(&dir, config).wrapped(&words).start();
    let children = |pid: &str| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let mut count = 0;
    daemon.wait_for("an orphan has ended", |_| {
        count += 1;
        dir.write(format!("f{count}"), "");
        dir.path("ended").exists()
    });
    let process_1 = children(&daemon.pid().to_string());
    daemon.wait_for("no child is left", |_| children(&process_1).is_empty());
    assert!(fs::metadata(format!("/proc/{process_1}")).is_ok());
}

/// Sets the limit of the daemon's descriptors (prlimit(1)). Returns the previous limit.
fn limit(daemon: &Running<'_>, files: u64) -> u64 {
    let run = |words: &[&str]| {
        let output = std::process::Command::new("prlimit")
            .args(["--pid", &daemon.pid().to_string()])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = run(&["--nofile", "--output", "SOFT", "--noheadings", "--raw"]);
    run(&[&format!("--nofile={files}:")]);
    before.trim().parse().unwrap()
}
