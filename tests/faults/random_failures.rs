//! An rsync that fails at random, in every way that the real one has, and directories that nobody
//! may read or write: what failed is sent once that is over, nobody is told that all is there before
//! it is, and no failure is answered by a storm of calls.
//!
//! `LSYNCD_TEST_SEED` repeats a run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::names::SSH;
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, program, skip};
use crate::support::tree;

/// The rounds of changes while transfers fail.
const ROUNDS: u64 = 4;

/// Characters that rsync, shells and messages treat specially.
const NAMES: [&[u8]; 10] = [
    b"plain",
    b"two words",
    b"new\nline",
    b"quo\"te",
    b"it's",
    b"\\#012",
    b"*[x]?",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"-rf",
];

fn config(kind: &str, keys: &str) -> String {
    format!(
        r#"settings{{ insist = true, controlSocket = "@DIR@/sock" }}
           sync{{ {kind}, source = "@SRC@", delay = 0.2, {keys} }}"#
    )
}

fn rsync(list: &str) -> String {
    format!(
        r#"target = "@TRG@",
           rsync = {{ archive = true, checksum = true, binary = "@RSYNC@", list = "{list}" }},"#
    )
}

/// The changes of a round: new and changed files, enough to cross the limits of `keys`, directories,
/// and moves. Sizes differ, so that the real rsync sees each change.
fn change(dir: &Dir, round: u64) {
    for (index, name) in NAMES.iter().enumerate() {
        let below = [format!("d{}/", index as u64 % (round + 1)).as_bytes(), name].concat();
        dir.mkdir(format!("d{}", index as u64 % (round + 1)));
        dir.write(&below, vec![b'x'; (round * 100) as usize + index]);
    }
    for number in 0..70 {
        dir.mkdir(format!("many{round}"));
        dir.write(format!("many{round}/{number}"), number.to_string());
    }
    if round > 0 {
        let (old, new) = (format!("many{}", round - 1), format!("moved{}", round - 1));
        dir.mv(old, new);
        dir.rm([b"d0/".as_slice(), NAMES[round as usize]].concat());
    }
}

fn difference(dir: &Dir) -> String {
    let [source, target] =
        ["src", "trg"].map(|name| tree::without_attributes(tree::read(&dir.path(name))));
    tree::difference(&source, &target)
}

fn calls(dir: &Dir) -> u64 {
    fs::read_dir(dir.path("rec")).unwrap().count() as u64
}

fn wait_command(dir: &Dir) -> Child {
    dir.ctl(&["status", "-wait"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until `lsyncdctl status -wait` ends, or until there were so many calls of rsync, whichever
/// comes first. If it says that all is there, all has to be there.
fn wait_or_calls(dir: &Dir, daemon: &mut Running<'_>, limit: u64, seed: u64) {
    let mut waiting = wait_command(dir);
    let mut ended = None;
    daemon.wait_for("lsyncdctl ends, or rsync is called", |_| {
        ended = waiting.try_wait().unwrap();
        ended.is_some() || calls(dir) >= limit
    });
    if ended.is_some_and(|status| status.success()) {
        let difference = difference(dir);
        assert!(
            difference.is_empty(),
            "seed {seed}: -wait returned before this had arrived:\n{difference}\n{}",
            daemon.log()
        );
    }
    let _ = waiting.kill();
    waiting.wait().unwrap();
}

/// `LSYNCD_TEST_SEED`, or a fixed one for each kind.
fn seed(own: u64) -> u64 {
    let given = std::env::var("LSYNCD_TEST_SEED").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(own)
}

fn fails_and_recovers(kind: &str, keys: &str, own_seed: u64) {
    if program("perl").is_none() {
        return skip("the failing rsync needs perl");
    }
    let seed = seed(own_seed);
    let dir = Dir::new();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/bin/failing-rsync"
    );
    symlink(script, dir.path("bin/rsync")).unwrap();
    let ssh = dir.put("bin/ssh", SSH);
    fs::set_permissions(ssh, fs::Permissions::from_mode(0o755)).unwrap();
    dir.put("fake/seed", seed.to_string());
    dir.write("at first", "1");
    let start = Instant::now();
    let mut daemon = Daemon::new(&dir, &config(kind, keys)).start();
    daemon.wait_for("the socket is there", |_| dir.answers());

    for round in 0..ROUNDS {
        daemon.stop();
        change(&dir, round);
        daemon.cont();
        let limit = calls(&dir) + 3;
        wait_or_calls(&dir, &mut daemon, limit, seed);
    }
    // Each step of the back-off takes at least nine tenths of a second. A round's changes are a few
    // batches, as files sort before the directories that are moved.
    let (calls, seconds) = (calls(&dir), start.elapsed().as_secs());
    let bound = 2 + ROUNDS * 6 + seconds * 2;
    assert!(calls <= bound, "seed {seed}: {calls} calls in {seconds} s");

    fs::remove_file(dir.path("fake/seed")).unwrap();
    wait_or_calls(&dir, &mut daemon, u64::MAX, seed);
    let left = difference(&dir);
    assert!(left.is_empty(), "seed {seed}:\n{left}\n{}", daemon.log());
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn what_failed_at_random_arrives_with_lists_of_files() {
    fails_and_recovers("default.rsync", &rsync("files-from"), 1);
}

#[test]
fn what_failed_at_random_arrives_with_lists_of_filters() {
    fails_and_recovers("default.rsync", &rsync("filter"), 2);
}

/// More waits than the queue may hold, and batches are split.
#[test]
fn what_failed_at_random_arrives_across_limits() {
    let keys = rsync("auto") + "maxPending = 40, maxDelays = 20,";
    fails_and_recovers("default.rsync", &keys, 3);
}

#[test]
fn what_failed_at_random_arrives_with_rsyncssh() {
    let keys = r#"host = "host", targetdir = "@TRG@", ssh = { binary = "@DIR@/bin/ssh" },
        rsync = { archive = true, checksum = true, binary = "@RSYNC@" },"#;
    fails_and_recovers("default.rsyncssh", keys, 4);
}

/// Runs the daemon as a user without rights, if this is root: nobody may read or write some files
/// and directories of source and target, which belong to others.
fn unreadable_and_foreign(kind: &str, keys: &str) {
    const USER: &str = "65534";
    let as_user = [
        "setpriv",
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
    ];
    let root = nix::unistd::geteuid().is_root();
    let dir = Dir::new();
    let own = |path: &str| {
        if root {
            let mut chown = Command::new("chown");
            chown.args(["-R", "-h", USER]).arg(dir.path(path));
            assert!(chown.status().unwrap().success());
        }
    };
    let mode = |path: &str, mode| {
        fs::set_permissions(dir.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in ["d/f", "read-only/f", "foreign/f"] {
        dir.mkdir(name.split('/').next().unwrap());
        dir.write(name, "1");
    }
    let mut daemon = Daemon::new(&dir, &config(kind, keys));
    own("");
    if root {
        let mut probe = Command::new("setpriv");
        probe
            .args(&as_user[1..])
            .arg(crate::support::daemon::binary());
        if !probe
            .arg("-version")
            .output()
            .is_ok_and(|o| o.status.success())
        {
            return skip("a user without rights may not run the program");
        }
        daemon = daemon.wrapped(&as_user);
    }
    let mut daemon = daemon.start();
    daemon.wait_same("src", "trg", false);

    daemon.stop();
    mode("trg/read-only", 0o555);
    if root {
        std::os::unix::fs::chown(dir.path("trg/foreign"), Some(0), Some(0)).unwrap();
    }
    dir.write("d/secret", "1");
    own("src/d");
    mode("src/d/secret", 0);
    for name in ["d", "read-only", "foreign"] {
        for number in 0..60 {
            dir.write(format!("{name}/new{number}"), number.to_string());
        }
    }
    own("src/read-only");
    own("src/foreign");
    own("src/d");
    daemon.cont();
    // What can go goes meanwhile.
    daemon.wait_for("the others arrive", |_| {
        (0..60).all(|number| dir.trg(format!("d/new{number}")).exists())
    });
    let mut waiting = wait_command(&dir);
    dir.write("later", "1");
    own("src/later");
    daemon.wait_for("a later file arrives", |_| dir.trg("later").exists());
    assert_eq!(waiting.try_wait().unwrap(), None, "{}", daemon.log());

    own("trg");
    mode("trg/read-only", 0o755);
    mode("src/d/secret", 0o644);
    let mut status = None;
    daemon.wait_for("lsyncdctl ends", |_| {
        status = waiting.try_wait().unwrap();
        status.is_some()
    });
    let left = difference(&dir);
    assert!(status.unwrap().success() && left.is_empty(), "{left}");
}

#[test]
fn unreadable_files_and_foreign_directories_are_sent_later_with_lists_of_files() {
    unreadable_and_foreign(
        "default.rsync",
        &rsync("files-from").replace("binary = \"@RSYNC@\", ", ""),
    );
}

#[test]
fn unreadable_files_and_foreign_directories_are_sent_later_with_lists_of_filters() {
    unreadable_and_foreign(
        "default.rsync",
        &rsync("filter").replace("binary = \"@RSYNC@\", ", ""),
    );
}

#[test]
fn unreadable_files_and_foreign_directories_are_sent_later_by_direct() {
    unreadable_and_foreign("default.direct", r#"target = "@TRG@","#);
}
