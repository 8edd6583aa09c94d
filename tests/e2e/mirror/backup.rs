//! `backup = { … }`: replaced and deleted files are kept in dated directories, and old directories
//! are removed.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::ssh::{Sshd, account, rsync_daemon};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Returns the contents of a file in all dated directories, oldest first.
fn kept(backups: &Path, name: &str) -> Vec<String> {
    let names = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let is_day = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 10);
    let times = names(backups)
        .into_iter()
        .filter(is_day)
        .flat_map(|day| names(&day));
    times
        .filter_map(|time| fs::read_to_string(time.join(name)).ok())
        .collect()
}

fn sync(target: &str, keys: &str) -> String {
    format!(
        r#"settings{{ insist = true }}
sync{{
    default.rsync, source = "@SRC@", target = "{target}", delay = 0.2, {keys}
}}"#
    )
}

/// Makes backups older than any limit, and a directory that is no backup.
fn put_old_backups(backups: &Path) {
    for name in ["2001-01-01", "kept", "2001-01-01.txt"] {
        fs::create_dir_all(backups.join(name).join("12-00-00")).unwrap();
        fs::write(backups.join(name).join("12-00-00/f"), "old").unwrap();
    }
}

/// Changes and deletes files, and waits until the backups contain them.
fn check(dir: &Dir, daemon: &mut Running<'_>, backups: &Path) {
    daemon.wait_for("the old backups are removed", |_| {
        !backups.join("2001-01-01").exists()
    });
    for name in ["kept", "2001-01-01.txt"] {
        assert!(backups.join(name).join("12-00-00/f").exists(), "{name}");
    }
    dir.write("f", "second, longer");
    dir.rm("d/g");
    fs::remove_dir_all(dir.src("gone")).unwrap();
    let has = |name: &str, content: &str| {
        fs::read_to_string(dir.trg(name)).is_ok_and(|text| text == content)
    };
    daemon.wait_for("the target has the changes", |_| {
        has("f", "second, longer") && !dir.trg("d/g").exists() && !dir.trg("gone").exists()
    });
    daemon.wait_for("the deleted file is kept", |_| {
        kept(backups, "f") == ["first"]
            && kept(backups, "d/g") == ["g"]
            && kept(backups, "gone/deep/h") == ["h"]
    });
    // Each version is kept, and a full comparison deletes no backup.
    dir.write("f", "third");
    daemon.wait_for("the target has the change", |_| has("f", "third"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("everything is compared", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    let versions = kept(backups, "f");
    assert!(
        versions.contains(&"first".into()) && versions.contains(&"second, longer".into()),
        "{versions:?}"
    );
    assert_eq!(kept(backups, "d/g"), ["g"]);
    assert_eq!(daemon.terminate(), Some(143));
}

fn fill(dir: &Dir) {
    dir.write("f", "first");
    dir.mkdir("d");
    dir.write("d/g", "g");
    fs::create_dir_all(dir.src("gone/deep")).unwrap();
    dir.write("gone/deep/h", "h");
}

#[test]
fn a_local_target_keeps_replaced_and_deleted_files() {
    for list in ["filter", "files-from"] {
        for place in ["@TRG@/.old", ".old", "@DIR@/old"] {
            let dir = Dir::new();
            fill(&dir);
            let backups = match place {
                "@DIR@/old" => dir.path("old"),
                _ => dir.trg(".old"),
            };
            put_old_backups(&backups);
            let keys = format!(
                "backup = {{ dir = '{place}', keep = '30d' }}, rsync = {{ list = '{list}' }},"
            );
            let mut daemon = Daemon::new(&dir, &sync("@TRG@", &keys)).start_and_settle();
            check(&dir, &mut daemon, &backups);
        }
    }
}

#[test]
fn a_target_over_ssh_keeps_replaced_and_deleted_files() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    fill(&dir);
    put_old_backups(&dir.path("old"));
    let keys = format!(
        "backup = {{ dir = '@DIR@/old', keep = '4w' }}, rsync = {{ rsh = \"{}\" }},",
        sshd.rsh
    );
    let target = format!("{}@127.0.0.1:@TRG@", account().name);
    let mut daemon = Daemon::new(&dir, &sync(&target, &keys)).start_and_settle();
    check(&dir, &mut daemon, &dir.path("old"));
}

#[test]
fn a_module_of_an_rsync_daemon_keeps_replaced_and_deleted_files() {
    for place in [".old", "/.old"] {
        let dir = Dir::new();
        let Some((_daemon, port)) = rsync_daemon(&dir) else {
            return;
        };
        fill(&dir);
        put_old_backups(&dir.trg(".old"));
        let keys = format!("backup = {{ dir = '{place}', keep = '30d' }},");
        let target = format!("rsync://127.0.0.1:{port}/x");
        let mut daemon = Daemon::new(&dir, &sync(&target, &keys)).start_and_settle();
        check(&dir, &mut daemon, &dir.trg(".old"));
    }
}

#[test]
fn replaced_files_are_kept_without_deletions_and_without_limit() {
    let dir = Dir::new();
    fill(&dir);
    put_old_backups(&dir.path("old"));
    let keys = "delete = false, backup = { dir = '@DIR@/old' },";
    let mut daemon = Daemon::new(&dir, &sync("@TRG@", keys)).start_and_settle();
    dir.rm("d/g");
    dir.write("f", "second, longer");
    daemon.wait_for("the replaced file is kept", |_| {
        kept(&dir.path("old"), "f") == ["old", "first"]
    });
    assert!(dir.trg("d/g").exists() && kept(&dir.path("old"), "d/g").is_empty());
}

/// default.direct and default.rsyncssh rename files on the target without rsync.
#[test]
fn kinds_without_rsync_at_the_target_refuse_backup() {
    for (kind, target) in [
        ("direct", "target = '@TRG@'"),
        ("rsyncssh", "host = 'h', targetdir = '/t'"),
    ] {
        let dir = Dir::new();
        let config = format!(
            "sync{{ default.{kind}, source = '@SRC@', {target}, backup = {{ dir = '@DIR@/old' }} }}"
        );
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(
            ended.stderr.contains("\"backup\" unknown"),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("default.rsync"), "{}", ended.stderr);
    }
}
