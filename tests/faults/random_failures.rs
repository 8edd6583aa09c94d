//! An rsync that fails at random in the ways of the real one, and unreadable and unwritable
//! directories: failed paths are sent afterwards, `-wait` does not return early, and the number of
//! calls is limited.
//!
//! `LSYNCD_TEST_SEED` repeats a run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, program, skip};
use crate::support::random::number;
use crate::support::script::SSH;
use crate::support::tree;

/// The number of rounds of changes while transfers fail.
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

/// Makes the changes of a round: new and changed files, enough to exceed the limits in `keys`,
/// directories, and moves. Sizes differ, so that rsync finds each change.
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

/// Waits until `lsyncdctl status -wait` ends or rsync was called this number of times. If `-wait`
/// succeeds, the target must be equal.
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

fn fails_and_recovers(kind: &str, keys: &str, own_seed: u64) {
    if program("perl").is_none() {
        return skip("the failing rsync needs perl");
    }
    let seed = number("LSYNCD_TEST_SEED").unwrap_or(own_seed);
    let dir = Dir::new();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/bin/failing-rsync"
    );
    symlink(script, dir.path("bin/rsync")).unwrap();
    dir.script("bin/ssh", SSH);
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
    // Each wait takes at least 0.9 s. The changes of a round are a few batches, because files
    // precede the directories that are moved.
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
fn random_failures_are_retried_with_lists_of_files() {
    fails_and_recovers("default.rsync", &rsync("files-from"), 1);
}

#[test]
fn random_failures_are_retried_with_include_lists() {
    fails_and_recovers("default.rsync", &rsync("filter"), 2);
}

/// More changes are pending than the queue may hold, and batches are split.
#[test]
fn random_failures_are_retried_beyond_the_limits() {
    let keys = rsync("auto") + "maxPending = 40, maxDelays = 20,";
    fails_and_recovers("default.rsync", &keys, 3);
}

#[test]
fn random_failures_are_retried_with_rsyncssh() {
    let keys = r#"host = "host", targetdir = "@TRG@", ssh = { binary = "@DIR@/bin/ssh" },
        rsync = { archive = true, checksum = true, binary = "@RSYNC@" },"#;
    fails_and_recovers("default.rsyncssh", keys, 4);
}

/// Runs the daemon without privileges: some files and directories of source and target belong to
/// other users and are not accessible.
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
    // The other files are sent meanwhile.
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
fn unreadable_files_and_foreign_directories_are_sent_later_with_include_lists() {
    unreadable_and_foreign(
        "default.rsync",
        &rsync("filter").replace("binary = \"@RSYNC@\", ", ""),
    );
}

#[test]
fn unreadable_files_and_foreign_directories_are_sent_later_by_direct() {
    unreadable_and_foreign("default.direct", r#"target = "@TRG@","#);
}
