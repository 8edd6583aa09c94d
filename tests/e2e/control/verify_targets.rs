//! `lsyncdctl verify` of each kind of target: each kind of drift is named.

use super::drift::{fill, found, plant};
use super::verify::verify;
use super::*;

use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::mirror::ssh::{Sshd, account, rsync_daemon_with};
use lsyncd::status::drift_report::DriftVerdict;

/// The options under which every kind of drift is a difference.
const ALL: &str = "archive = true, hard_links = true, xattrs = true, acls = true";

/// Starts a daemon with these syncs and plants drift at each of these targets. Each report must
/// name all of it and both sides of the top directory, and name nothing after a repair.
fn each_kind_is_named(dir: &Dir, syncs: &str, targets: &[&str]) {
    fill(dir);
    let config = format!("{SETTINGS}{}", syncs.replace("ALL", ALL));
    let mut daemon = Daemon::new(dir, &config).start();
    wait_socket(dir, &mut daemon);
    for target in targets {
        daemon.wait_same("src", target, true);
    }
    done(dir, &["status", "-wait"]);
    let names: Vec<_> = status(dir)
        .syncs
        .into_iter()
        .map(|sync| sync.name)
        .collect();
    assert_eq!(names.len(), targets.len());
    for (name, target) in names.iter().zip(targets) {
        let (exit, equal) = verify(dir, &["-sync", name, "-content"]);
        assert_eq!((exit, equal.len()), (0, 1), "{name}: {equal:?}");

        let expected = plant(&dir.path(target));
        let (exit, drift) = verify(dir, &["-sync", name, "-content"]);
        assert_eq!(found(&drift[0]), expected, "{name}");
        assert_eq!((exit, drift[0].verdict), (1, DriftVerdict::Drift));
        let root = &drift[0].differences[0];
        let (source, target) = (root.source.as_ref(), root.target.as_ref());
        assert_eq!(
            target.unwrap().permissions,
            "drwx------",
            "{name}: {root:?}"
        );
        assert_ne!(
            source.unwrap().permissions,
            "drwx------",
            "{name}: {root:?}"
        );

        let (exit, repaired) = verify(dir, &["-sync", name, "-content", "-repair"]);
        assert_eq!(
            (exit, repaired[0].repaired),
            (1, repaired[0].drift),
            "{name}: {repaired:?}"
        );
        let (exit, equal) = verify(dir, &["-sync", name, "-content"]);
        assert_eq!(exit, 0, "{name}: {equal:?}");
    }
    daemon.terminate();
}

#[test]
fn each_kind_of_drift_is_named_over_a_remote_shell() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let (user, rsh) = (account().name, &sshd.rsh);
    let syncs = format!(
        r#"
sync{{
    default.rsync, name = "shell", source = "@SRC@", target = "{user}@127.0.0.1:@TRG@", delay = 1,
    rsync = {{ ALL, rsh = "{rsh}" }},
}}"#
    );
    each_kind_is_named(&dir, &syncs, &["trg"]);
}

#[test]
fn each_kind_of_drift_is_named_at_an_rsync_daemon() {
    let dir = Dir::new();
    let Some((_rsync, port)) = rsync_daemon_with(&dir, "munge symlinks = no\n[x]") else {
        return;
    };
    let syncs = format!(
        r#"
sync{{
    default.rsync, name = "module", source = "@SRC@", target = "rsync://127.0.0.1:{port}/x",
    delay = 1, rsync = {{ ALL }},
}}"#
    );
    each_kind_is_named(&dir, &syncs, &["trg"]);
}

#[test]
fn each_kind_of_drift_is_named_with_rsyncssh() {
    let dir = Dir::new();
    dir.script("ssh", "shift\nexec \"$@\"\n");
    let syncs = r#"
sync{
    default.rsyncssh, name = "ssh", source = "@SRC@", host = "h", targetdir = "@TRG@", delay = 1,
    ssh = { binary = "@DIR@/ssh" }, rsync = { ALL, rsh = "@DIR@/ssh" },
}"#;
    each_kind_is_named(&dir, syncs, &["trg"]);
}

#[test]
fn each_kind_of_drift_is_named_at_each_of_several_targets() {
    let dir = Dir::new();
    for target in ["a", "b"] {
        fs::create_dir(dir.path(target)).unwrap();
    }
    let syncs = r#"
sync{
    default.rsync, name = "several", source = "@SRC@", targets = { "@DIR@/a", "@DIR@/b" },
    delay = 1, rsync = { ALL },
}"#;
    each_kind_is_named(&dir, syncs, &["a", "b"]);
}

#[test]
fn each_kind_of_drift_is_named_at_a_target_of_default_direct() {
    let dir = Dir::new();
    let syncs = r#"
sync{
    default.direct, name = "direct", source = "@SRC@", target = "@TRG@", delay = 1,
    rsync = { ALL },
}"#;
    each_kind_is_named(&dir, syncs, &["trg"]);
}

#[test]
fn a_difference_of_the_top_directory_alone_has_both_sides() {
    let dir = Dir::new();
    dir.write("f", "1");
    let syncs = r#"
sync{
    default.rsync, name = "one", source = "@SRC@", target = "@TRG@", delay = 1,
    rsync = { archive = true },
}"#;
    let config = format!("{SETTINGS}{syncs}");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir.path("trg"), mode).unwrap();
    let (exit, drift) = verify(&dir, &[]);
    let texts = [("/".to_owned(), "mode".to_owned())];
    assert_eq!((exit, found(&drift[0])), (1, texts.to_vec()));
    let root = &drift[0].differences[0];
    let (source, target) = (root.source.as_ref().unwrap(), root.target.as_ref().unwrap());
    assert_eq!((source.time, source.size), (target.time, target.size));
    assert_ne!(source.permissions, target.permissions);
    assert!(root.last.is_some(), "{root:?}");
    daemon.terminate();
}

/// A port that leads to another one until a number of bytes has passed.
struct Relay {
    port: u16,
    passed: Arc<AtomicUsize>,
    limit: Arc<AtomicUsize>,
}

impl Relay {
    fn new(to: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay {
            port: listener.local_addr().unwrap().port(),
            passed: Arc::default(),
            limit: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        let (passed, limit) = (Arc::clone(&relay.passed), Arc::clone(&relay.limit));
        // The threads end with the test program.
        thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let far = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let ends = [(&near, &far), (&far, &near)];
                for (from, to) in ends {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (passed, limit) = (Arc::clone(&passed), Arc::clone(&limit));
                    thread::spawn(move || carry(from, to, &passed, &limit));
                }
            }
        });
        relay
    }

    /// Cuts the connections when this many more bytes have passed.
    fn cut_after(&self, bytes: usize) {
        let limit = self.passed.load(Ordering::SeqCst) + bytes;
        self.limit.store(limit, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, passed: &AtomicUsize, limit: &AtomicUsize) {
    let mut buffer = [0; 1000];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let before = passed.fetch_add(count, Ordering::SeqCst);
        if before > limit.load(Ordering::SeqCst) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_target_that_is_cut_off_half_way_is_not_called_equal_or_different() {
    let dir = Dir::new();
    for number in 0..1000 {
        dir.write(format!("a file with a long name {number}"), "x");
    }
    let Some((_rsync, port)) = rsync_daemon_with(&dir, "[x]") else {
        return;
    };
    let relay = Relay::new(port);
    let syncs = format!(
        r#"
sync{{
    default.rsync, name = "one", source = "@SRC@", target = "rsync://127.0.0.1:{}/x", delay = 1,
    rsync = {{ archive = true }},
}}"#,
        relay.port
    );
    let config = format!("{SETTINGS}{syncs}");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
    done(&dir, &["status", "-wait"]);
    let before = relay.passed.load(Ordering::SeqCst);
    assert_eq!(verify(&dir, &["-content"]).0, 0);
    let whole = relay.passed.load(Ordering::SeqCst) - before;

    for part in [1, 2, 3] {
        relay.cut_after(whole * part / 4);
        let (exit, cut) = verify(&dir, &["-content"]);
        assert_eq!(
            (exit, cut[0].verdict),
            (2, DriftVerdict::Incomplete),
            "{part}: {cut:?}"
        );
        let reason = cut[0].reason.as_deref().unwrap_or_default();
        assert!(reason.contains("exit code"), "{part}: {reason}");
        assert_eq!(cut[0].drift, 0, "{part}: {cut:?}");
        relay.limit.store(usize::MAX, Ordering::SeqCst);
        done(&dir, &["status", "-wait"]);
    }
    assert_eq!(verify(&dir, &["-content"]).0, 0);
    daemon.terminate();
}
