//! `lsyncdctl verify` of each kind of target: each kind of drift is named.

use super::drift::{fill, found, plant};
use super::verify::verify;
use super::*;

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
