//! One source, many targets, of which some are unreachable or slow.
//!
//! | file | what it is about |
//! |---|---|
//! | mod | transfers: no target waits for another |
//! | reload | targets join and leave |
//! | again | resets, reloads and restarts |
//! | fair | the order of targets if `maxProcesses` limits all syncs |
//! | config | keys of targets, and mistakes |
//! | chain | receivers that are sources |
//! | rclone | default.rclone |

mod again;
mod chain;
mod config;
mod fair;
mod rclone;
mod reload;

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use lsyncd::status::snapshot::Snapshot;
use nix::sys::signal::Signal;

/// Returns a work directory with the stand-in and this number of targets, `t1`, `t2` and so on.
fn site(targets: usize) -> Dir {
    let dir = Dir::new();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/bin/target-rsync"
    );
    symlink(script, dir.path("bin/rsync")).unwrap();
    for number in 1..=targets {
        fs::create_dir_all(dir.path(format!("t{number}"))).unwrap();
    }
    dir
}

/// Returns a configuration of one sync with these targets and further keys.
fn config(targets: &str, more: &str) -> String {
    format!(
        r#"
settings{{ hup = "changed", insist = true, stopTimeout = 1, controlSocket = "@DIR@/sock" }}
sync{{
    default.rsync, name = "web", source = "@SRC@", targets = {targets}, delay = 0.3, {more}
    rsync = {{ binary = "@RSYNC@", archive = true, checksum = true }},
}}
"#
    )
}

fn list(numbers: impl IntoIterator<Item = usize>) -> String {
    let targets = numbers.into_iter().map(|n| format!("\"@DIR@/t{n}\","));
    format!("{{ {} }}", targets.collect::<String>())
}

fn calls(dir: &Dir, target: usize) -> usize {
    dir.text(&format!("t{target}.calls")).lines().count()
}

/// Makes an unreachable target reachable, and retries at once.
fn back(dir: &Dir, target: usize) {
    fs::remove_file(dir.path(format!("t{target}.dead"))).unwrap();
    assert!(dir.ctl(&["retry"]).output().unwrap().status.success());
}

/// Returns the status of the daemon, or none before it answers.
fn status(dir: &Dir) -> Snapshot {
    let output = dir.ctl(&["status", "-json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn wait_current(daemon: &mut Running<'_>, targets: impl IntoIterator<Item = usize>) {
    for target in targets {
        daemon.wait_same("src", &format!("t{target}"), true);
    }
}

#[test]
fn every_target_gets_everything() {
    let dir = site(3);
    dir.write("before", "1");
    let mut daemon = Daemon::new(&dir, &config(&list(1..=3), "")).start();
    wait_current(&mut daemon, 1..=3);
    dir.mkdir("d/e");
    dir.write("d/e/f", "2");
    wait_current(&mut daemon, 1..=3);
    fs::rename(dir.path("src/d"), dir.path("src/g")).unwrap();
    fs::remove_file(dir.path("src/before")).unwrap();
    wait_current(&mut daemon, 1..=3);
    fs::remove_dir_all(dir.path("src/g")).unwrap();
    dir.write("g", "a file now");
    wait_current(&mut daemon, 1..=3);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn dead_and_slow_targets_hold_up_no_other() {
    let dir = site(4);
    dir.write("before", "1");
    let mut daemon = Daemon::new(&dir, &config(&list(1..=4), "")).start();
    wait_current(&mut daemon, 1..=4);
    dir.put("t1.dead", "");
    dir.put("t2.held", "");
    for round in 0..5 {
        dir.write("same", round.to_string());
        dir.write(format!("new{round}"), "x");
        wait_current(&mut daemon, 3..=4);
    }
    fs::remove_file(dir.path("src/before")).unwrap();
    wait_current(&mut daemon, 3..=4);
    assert!(dir.path("t1/before").exists() && dir.path("t2/before").exists());

    // Both get the missing changes, the slow one in two calls.
    let slow = calls(&dir, 2);
    fs::remove_file(dir.path("t2.held")).unwrap();
    wait_current(&mut daemon, [2]);
    assert!(calls(&dir, 2) <= slow + 2);
    let healthy = calls(&dir, 3);
    back(&dir, 1);
    wait_current(&mut daemon, [1]);
    assert_eq!(calls(&dir, 3), healthy, "others are not disturbed");
    assert!(
        !dir.text("t1.calls")
            .lines()
            .skip(1)
            .any(|call| !call.contains("--from0"))
    );
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn a_target_beyond_max_pending_is_compared() {
    let dir = site(2);
    let mut daemon = Daemon::new(&dir, &config(&list(1..=2), "maxPending = 20,")).start();
    dir.write("before", "1");
    wait_current(&mut daemon, 1..=2);
    dir.put("t1.held", "");
    dir.write("first", "1");
    let asked = calls(&dir, 1);
    daemon.wait_for("the transfer to the slow target runs", |_| {
        calls(&dir, 1) > asked
    });
    for round in 0..4 {
        for number in 0..15 {
            dir.write(format!("f{round}.{number}"), "x");
        }
        wait_current(&mut daemon, [2]);
    }
    fs::remove_file(dir.path("t1.held")).unwrap();
    wait_current(&mut daemon, [1]);
    let said = dir.text("t1.calls");
    let full = said
        .lines()
        .filter(|call| !call.contains("--from0"))
        .count();
    assert_eq!(full, 2, "{said}");
    let said = dir.text("t2.calls");
    let full = said
        .lines()
        .filter(|call| !call.contains("--from0"))
        .count();
    assert_eq!(full, 1, "{said}");
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn pending_changes_of_targets_survive_a_restart() {
    let dir = site(2);
    let mut daemon = Daemon::new(&dir, &config(&list(1..=2), "init = false,")).start();
    daemon.wait_log("Startup");
    // Without a startup transfer, files from before the watch are not sent.
    let mut number = 0;
    daemon.wait_for("it watches", |_| {
        number += 1;
        dir.write(format!("sign{number}"), "1");
        dir.path("t1").read_dir().unwrap().count() > 0
    });
    dir.put("t2.held", "");
    let asked = calls(&dir, 2);
    dir.write("one", "1");
    daemon.wait_for("the transfer to the slow target runs", |_| {
        calls(&dir, 2) > asked
    });
    daemon.wait_for("the other has it", |_| dir.path("t1/one").exists());
    dir.write("two", "2");
    daemon.wait_for("the other has it", |_| dir.path("t1/two").exists());
    daemon.terminate();
    daemon.wait_all_gone();
    fs::remove_file(dir.path("t2.held")).unwrap();
    let mut daemon = Daemon::new(&dir, &config(&list(1..=2), "init = false,")).start();
    daemon.wait_for("pending changes are sent", |_| {
        dir.path("t2/one").exists() && dir.path("t2/two").exists()
    });
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn classic_syncs_of_one_source_share_a_journal() {
    let dir = site(2);
    let sync = |number: usize| {
        format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@DIR@/t{number}', delay = 0.3,
                rsync = {{ binary = '@RSYNC@', archive = true, checksum = true }} }}\n"
        )
    };
    let text = format!(
        "settings{{ insist = true, controlSocket = '@DIR@/sock' }}\n{}{}",
        sync(1),
        sync(2)
    );
    let mut daemon = Daemon::new(&dir, &text).start();
    wait_current(&mut daemon, 1..=2);
    dir.put("t1.dead", "");
    for round in 0..3 {
        dir.write("same", round.to_string());
        wait_current(&mut daemon, [2]);
    }
    back(&dir, 1);
    wait_current(&mut daemon, [1]);
    // HUP runs both startup transfers, and both syncs continue.
    let starts = calls(&dir, 2);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("it was reset", |_| calls(&dir, 2) > starts);
    dir.write("after", "1");
    wait_current(&mut daemon, 1..=2);
    assert_eq!(daemon.terminate(), Some(143));
}

/// A change that one sync does not send is sent by those that do.
#[test]
fn syncs_of_other_files_share_no_journal() {
    let dir = site(4);
    fs::create_dir(dir.path("other")).unwrap();
    let sync = |number: usize, source: &str, more: &str| {
        format!(
            "sync{{ default.rsync, source = '{source}', target = '@DIR@/t{number}', delay = 0.3,
                {more} rsync = {{ binary = '@RSYNC@', archive = true, checksum = true }} }}\n"
        )
    };
    let text = [
        "settings{ insist = true, controlSocket = '@DIR@/sock' }\n".to_owned(),
        sync(1, "@SRC@", "exclude = { 'a*' },"),
        sync(2, "@SRC@", ""),
        sync(3, "@DIR@/other", ""),
        sync(4, "@SRC@", "filter = { '- b*' },"),
    ];
    let mut daemon = Daemon::new(&dir, &text.concat()).start();
    let wait_for = |daemon: &mut Running<'_>, name: &str, targets: [usize; 2]| {
        daemon.wait_for(name, |_| {
            let mut paths = targets.iter().map(|t| dir.path(format!("t{t}/{name}")));
            paths.all(|path| path.exists())
        });
    };
    dir.write("first", "1");
    wait_for(&mut daemon, "first", [1, 2]);
    wait_for(&mut daemon, "first", [2, 4]);
    for name in ["a", "b"] {
        dir.write(name, "1");
        dir.put(&format!("other/other-{name}"), "1");
    }
    wait_for(&mut daemon, "a", [2, 4]);
    wait_for(&mut daemon, "b", [1, 2]);
    for name in ["other-a", "other-b"] {
        wait_for(&mut daemon, name, [3, 3]);
    }
    assert!(!dir.path("t1/a").exists() && !dir.path("t4/b").exists());
    assert_eq!(daemon.terminate(), Some(143));
}
