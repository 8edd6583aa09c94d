//! What lsyncdctl says of a file for which the target has no space, and of the others.

use super::*;

use nix::unistd::Pid;

use crate::support::dir::{program, skip};

/// A sync to a file system of 1 MiB that only the daemon and its children see.
const SYNC: &str = r#"settings{ controlSocket = "@DIR@/sock", insist = true }
sync{ KIND, name = "one", source = "@SRC@", target = "@TRG@", delay = 1, OPTIONS }"#;

const BIG: usize = 2_000_000;

/// Starts a daemon with a small target. Returns `None` if no file system can be mounted.
fn with_small_target<'d>(dir: &'d Dir, config: &str) -> Option<Running<'d>> {
    let may_mount = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
        .status();
    if program("nsenter").is_none() || !may_mount.is_ok_and(|status| status.success()) {
        skip("no mount namespace");
        return None;
    }
    let mount = r#"mount -t tmpfs -o size=1m none @TRG@ && exec "$@""#;
    let wrapper = ["unshare", "-m", "sh", "-c", mount, "sh"];
    let mut daemon = Daemon::new(dir, config).wrapped(&wrapper).start();
    wait_socket(dir, &mut daemon);
    Some(daemon)
}

/// Returns the size of a file at the target as the daemon sees it.
fn size_at_target(dir: &Dir, pid: Pid, name: &str) -> Option<u64> {
    let path = format!("/proc/{pid}/root{}", dir.trg(name).display());
    fs::metadata(path).ok().map(|data| data.len())
}

/// Returns the operations and reasons that `lsyncdctl log` prints about a path.
fn history(dir: &Dir, path: &str) -> Vec<(String, Option<String>)> {
    let output = ctl(dir, &["log", "-json", "one", path]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let entries = output.stdout.split(|&byte| byte == b'\n');
    let entries = entries.filter(|line| !line.is_empty());
    let read = |line| serde_json::from_slice(line).unwrap();
    let entries = entries.map(read);
    let pair = |entry: lsyncd::history::LogEntry| (entry.operation, entry.reason);
    entries.map(pair).collect()
}

fn explain(dir: &Dir, path: &str) -> String {
    let output = ctl(dir, &["explain", &format!("@SRC@/{path}")]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    text(&output)
}

/// Asserts that all commands name the reason for the big file, and none for the other one.
fn assert_told(dir: &Dir, daemon: &mut Running<'_>, what: &str) {
    let pid = daemon.pid();
    daemon.wait_for("the big file has failed, the other one is sent", |_| {
        let sync = &status(dir).syncs[0];
        let is_retried = sync.failed == 1 || sync.state == State::Retrying;
        is_retried && sync.pending == 0 && size_at_target(dir, pid, "small") == Some(5)
    });
    let shown = text(&ctl(dir, &["status"]));
    assert_ne!(size_at_target(dir, pid, "big"), Some(BIG as u64));
    assert!(shown.contains("No space left on device"), "{what}: {shown}");
    assert!(
        shown.contains("remedy: free space on the target"),
        "{what}: {shown}"
    );

    let history = history(dir, "big");
    let (operation, reason) = history.last().unwrap();
    assert_eq!(operation, "failed", "{what}: {history:?}");
    let reason = reason.clone().unwrap();
    assert!(
        reason.contains("No space left on device"),
        "{what}: {history:?}"
    );
    let said = explain(dir, "big");
    assert!(said.contains("No space left on device"), "{what}: {said}");
    assert!(
        said.contains("    remedy   free space on the target"),
        "{what}: {said}"
    );
    assert!(said.contains("one: last failed "), "{what}: {said}");

    let others = self::history(dir, "small");
    let (operation, _) = others.last().unwrap();
    assert!(
        ["sent", "compared"].contains(&operation.as_str()),
        "{what}: {others:?}"
    );
    let said = explain(dir, "small");
    assert!(!said.contains("    failed "), "{what}: {said}");
    assert!(!said.contains("one: last failed"), "{what}: {said}");
}

#[test]
fn a_file_that_does_not_fit_is_named_with_the_reason_and_the_others_are_not() {
    let rsync = "rsync = { archive = true }";
    for (kind, options) in [("default.rsync", rsync), ("default.direct", "")] {
        for is_startup in [false, true] {
            let what = format!("{kind}, {is_startup}");
            let dir = Dir::new();
            let config = SYNC.replace("KIND", kind).replace("OPTIONS", options);
            let write = |dir: &Dir| {
                dir.write("big", "x".repeat(BIG));
                dir.write("small", "small");
            };
            if is_startup {
                write(&dir);
            }
            let Some(mut daemon) = with_small_target(&dir, &config) else {
                return;
            };
            if !is_startup {
                wait_state(&dir, &mut daemon, State::Current);
                write(&dir);
            }
            assert_told(&dir, &mut daemon, &what);

            let pid = daemon.pid();
            let grown = Command::new("nsenter")
                .args([
                    "-m",
                    "-t",
                    &pid.to_string(),
                    "mount",
                    "-o",
                    "remount,size=9m",
                ])
                .arg(dir.path("trg"))
                .status();
            assert!(grown.unwrap().success());
            done(&dir, &["retry"]);
            daemon.wait_for("the big file is sent", |_| {
                size_at_target(&dir, pid, "big") == Some(BIG as u64)
            });
            wait_state(&dir, &mut daemon, State::Current);
            let history = history(&dir, "big");
            let (operation, _) = history.last().unwrap();
            assert!(
                ["sent", "compared"].contains(&operation.as_str()),
                "{what}: {history:?}"
            );
            let said = explain(&dir, "big");
            assert!(!said.contains("    failed "), "{what}: {said}");
            daemon.terminate();
        }
    }
}
