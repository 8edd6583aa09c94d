//! A killed daemon may have missed changes that do not change size and second. The next one finds
//! them, and sends no other files.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, poll};
use crate::support::fake::Fake;

/// A configuration with a long delay, so that changes are pending when the daemon is killed.
const LATE: &str = r#"
settings{ stateDir = "@DIR@/state", insist = true, stopTimeout = 1 }
sync{ KIND, source = "@SRC@", TARGET, delay = 1000, rsync = { archive = true, OPTIONS } }
"#;

const LOCAL: &str = r#"target = "@TRG@""#;
const REMOTE: &str = r#"target = "h:@TRG@""#;
const SSH: &str = r#"rsh = "@DIR@/ssh""#;

fn config(kind: &str, target: &str, options: &str) -> String {
    let config = LATE.replace("KIND", kind).replace("TARGET", target);
    config.replace("OPTIONS", options)
}

/// Writes an `ssh` that fails while a file `down` exists, and else runs the command on this
/// machine.
fn ssh(dir: &Dir) {
    dir.script("ssh", "[ -e @DIR@/down ] && exit 255\nshift\nexec \"$@\"\n");
}

/// Writes a file with an old time, so that a later change keeps size and time.
fn write_dated(dir: &Dir, name: &str, content: &str) {
    dir.write(name, content);
    let file = File::options().write(true).open(dir.src(name)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.set_modified(then).unwrap();
}

/// Makes changes of all kinds that keep size and time.
fn change_unseen(dir: &Dir) {
    write_dated(dir, "written", "2");
    dir.mv("other", "renamed");
    dir.mv("d", "t");
    dir.mv("e", "d");
    dir.mv("t", "e");
    // A change of its entries does not hide that a directory was renamed.
    dir.write("e/new", "entry");
    write_dated(dir, "d/b'\n*", "2");
}

fn prepare(dir: &Dir) {
    ssh(dir);
    for name in ["d/sub", "e/sub"] {
        dir.mkdir(name);
    }
    for (name, content) in [
        ("written", "1"),
        ("other", "2"),
        ("renamed", "1"),
        ("d/sub/f", "1"),
        ("e/sub/f", "2"),
        ("d/b'\n*", "1"),
        ("e/b'\n*", "1"),
        ("stays", "1"),
    ] {
        write_dated(dir, name, content);
    }
}

fn kill(mut daemon: Running<'_>) {
    daemon.signal(Signal::SIGKILL);
    daemon.wait_all_gone();
}

/// Starts a daemon and waits for the end of its startup.
fn start<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    let mut daemon = Daemon::new(dir, config).start();
    daemon.wait_log("finished");
    daemon
}

/// Waits until the daemon has stored that the target is current, by means of a transfer.
fn wait_synced(daemon: &mut Running<'_>, dir: &Dir) {
    let begun = SystemTime::now();
    dir.write("sent", "now");
    daemon.wait_for("it is known that all is at the target", |daemon| {
        daemon.signal(Signal::SIGUSR1);
        state(dir).is_some_and(|time| time > begun)
    });
}

/// Returns the stored time up to which the target is current.
fn state(dir: &Dir) -> Option<SystemTime> {
    let mut entries = fs::read_dir(dir.path("state")).ok()?.flatten();
    let text = entries.find_map(|entry| fs::read_to_string(entry.path().join("alive")).ok())?;
    let (seconds, nanos) = text.trim().split_once('.')?;
    let since = Duration::new(seconds.parse().ok()?, nanos.parse().ok()?);
    Some(SystemTime::UNIX_EPOCH + since)
}

fn arrives_after_a_kill(config: &str) {
    let dir = Dir::new();
    prepare(&dir);
    let daemon = start(&dir, config);
    change_unseen(&dir);
    kill(daemon);
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_equal();
}

#[test]
fn a_missed_change_is_sent() {
    for (target, options) in [
        (LOCAL, ""),
        (LOCAL, r#"list = "filter""#),
        (REMOTE, SSH),
        (REMOTE, &format!(r#"{SSH}, list = "filter""#)),
        (LOCAL, "update = true, inplace = true"),
    ] {
        arrives_after_a_kill(&config("default.rsync", target, options));
    }
}

#[test]
fn a_missed_change_is_sent_with_rsyncssh() {
    let target = r#"host = "h", targetdir = "@TRG@", ssh = { binary = "@DIR@/ssh" }"#;
    arrives_after_a_kill(&config("default.rsyncssh", target, SSH));
}

#[test]
fn a_missed_change_is_sent_by_direct() {
    arrives_after_a_kill(&config("default.direct", LOCAL, ""));
}

#[test]
fn a_missed_change_is_sent_with_onepass() {
    let dir = Dir::new();
    prepare(&dir);
    let config = config("default.rsync", LOCAL, "");
    let mut daemon = start(&dir, &config);
    wait_synced(&mut daemon, &dir);
    change_unseen(&dir);
    kill(daemon);
    let mut daemon = Daemon::new(&dir, &config).args(&["-onepass"]).start();
    daemon.wait_end();
    assert_eq!(fs::read(dir.trg("written")).unwrap(), b"2");
    assert_eq!(fs::read(dir.trg("e/sub/f")).unwrap(), b"1");
}

/// The first daemon stores the changes, the second one is killed before it sends them.
#[test]
fn a_change_stored_at_a_stop_is_sent_after_a_kill() {
    for kind in ["default.rsync", "default.direct"] {
        let dir = Dir::new();
        prepare(&dir);
        let config = config(kind, LOCAL, "");
        let mut daemon = start(&dir, &config);
        change_unseen(&dir);
        daemon.terminate();
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("changes were pending");
        kill(daemon);
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_for(kind, |_| dir.text("trg/written") == "2");
        daemon.wait_equal();
    }
}

/// A full comparison links the names, and takes their contents from the target.
#[test]
fn a_change_stored_at_a_stop_is_sent_if_the_file_is_linked_meanwhile() {
    let config = config("default.rsync", LOCAL, "hard_links = true");
    let config = config
        .replace("delay = 1000", "delay = 1")
        .replace("settings{", r#"settings{ controlSocket = "@DIR@/sock","#);
    let dir = Dir::new();
    prepare(&dir);
    let mut daemon = start(&dir, &config);
    daemon.settle();
    write_dated(&dir, "written", "2");
    daemon.terminate();
    fs::hard_link(dir.src("written"), dir.src("a link")).unwrap();
    let mut daemon = start(&dir, &config);
    daemon.settle();
    assert_eq!(dir.text("trg/written"), "2", "{}", daemon.log());
    assert_eq!(dir.text("trg/a link"), "2", "{}", daemon.log());
}

/// A full comparison replaces the changes, and their contents are compared after it. These
/// comparisons must not exceed the limit again.
#[test]
fn more_changes_than_max_pending_cause_one_full_comparison() {
    let options =
        r#"}, delete = false, maxPending = 3, maxProcesses = 3, rsync = { archive = true"#;
    let config = config("default.rsync", LOCAL, options)
        .replace("delay = 1000", "delay = 0")
        .replace("settings{", r#"settings{ controlSocket = "@DIR@/sock","#);
    let dir = Dir::new();
    let write = |content| {
        for n in 0..20 {
            write_dated(&dir, &format!("f{n}"), content);
        }
    };
    write("1");
    let mut daemon = start(&dir, &config);
    daemon.settle();
    daemon.stop();
    write("2");
    daemon.cont();
    daemon.settle();
    daemon.wait_equal();
    let comparisons = daemon.log().matches("recursive full rsync").count();
    assert_eq!(comparisons, 2, "{}", daemon.log());
}

/// The verification fails several times.
#[test]
fn a_missed_change_is_sent_after_failures() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let dir = Dir::new();
        prepare(&dir);
        let config = config("default.rsync", REMOTE, SSH);
        let mut daemon = start(&dir, &config);
        wait_synced(&mut daemon, &dir);
        change_unseen(&dir);
        kill(daemon);
        dir.put("down", "");
        for _ in 0..2 {
            let mut daemon = Daemon::new(&dir, &config).start();
            daemon.wait_log("trying again in");
            daemon.signal(signal);
            daemon.wait_all_gone();
        }
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("trying again in");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_log("HUP signal");
        fs::remove_file(dir.path("down")).unwrap();
        daemon.wait_equal();
    }
}

/// Returns the inodes of a tree: a file that is sent gets another one.
fn inodes(directory: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            found.extend(inodes(&path));
        } else {
            found.push(data.ino());
        }
    }
    found.sort_unstable();
    found
}

/// Truncates all times to whole seconds.
fn truncate_times(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            truncate_times(&path);
        } else {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(data.mtime() as u64);
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
        }
    }
}

#[test]
fn a_target_with_times_in_whole_seconds_is_not_sent_again() {
    for options in ["", r#"list = "filter""#] {
        let config = config("default.rsync", LOCAL, options);
        for how in ["kill", "kill at once", "stop", "pass"] {
            let dir = Dir::new();
            for n in 0..20 {
                dir.mkdir(format!("d{n}"));
                dir.write(format!("d{n}/f"), "content");
            }
            let daemon = Daemon::new(&dir, &config);
            match how {
                "kill" => {
                    let mut daemon = daemon.start_and_settle();
                    wait_synced(&mut daemon, &dir);
                    kill(daemon);
                }
                "kill at once" => {
                    // This daemon is killed as well, so the next one must verify again.
                    let daemon = daemon.start_and_settle();
                    for n in 0..20 {
                        dir.chmod(format!("d{n}/f"), 0o600);
                    }
                    kill(daemon);
                    for n in 0..20 {
                        dir.chmod(format!("d{n}/f"), 0o644);
                    }
                }
                "stop" => {
                    let mut daemon = daemon.start_and_settle();
                    daemon.terminate();
                }
                _ => {
                    daemon.args(&["-onepass"]).run();
                }
            }
            truncate_times(&dir.trg(""));
            let before = inodes(&dir.trg(""));
            let mut daemon = Daemon::new(&dir, &config).args(&["-log", "Exec"]).start();
            daemon.wait_log("finished.");
            if how == "kill at once" {
                daemon.wait_log("--checksum");
                daemon.wait_log("Finished a list");
            }
            daemon.terminate();
            let log = daemon.log();
            assert_eq!(inodes(&dir.trg("")), before, "{how}\n{log}");
            // After a clean stop nothing is verified.
            assert_eq!(
                log.contains("--checksum"),
                how == "kill at once",
                "{how}\n{log}"
            );
        }
    }
}

#[test]
fn a_wrapper_gets_no_checksum_option() {
    let dir = Dir::new();
    prepare(&dir);
    let fake = Fake::passing(&dir);
    let config = config("default.rsync", LOCAL, r#"binary = "@RSYNC@""#);
    let daemon = Daemon::new(&dir, &config).start_and_settle();
    change_unseen(&dir);
    kill(daemon);
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].argv, calls[1].argv);
    daemon.terminate();
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    assert!(poll(|| fake.calls().len() >= 3));
    daemon.terminate();
    for call in fake.calls() {
        for word in ["--modify-window=-1", "--checksum", "--ignore-times"] {
            assert!(!call.has(word), "{:?}", call.argv);
        }
    }
}
