//! Sources that disappear after the start of a transfer, before rsync opens them.

use std::fs;

use crate::guard::{NO_MOUNTS, among_mounts, inside};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, skip};
use crate::support::script::SSH;

const ENDED: &str = "one: ending the running transfer, because its source or target has changed";

const RSYNC: &str = "default.rsync, target = 'host:@TRG@',
    rsync = { archive = true, checksum = true, rsh = '@DIR@/bin/ssh' }";
const RSYNCSSH: &str = "default.rsyncssh, host = 'host', targetdir = '@TRG@',
    ssh = { binary = '@DIR@/bin/ssh' },
    rsync = { archive = true, checksum = true, rsh = '@DIR@/bin/ssh' }";

fn config(sync: &str) -> String {
    format!(
        "settings{{ stateDir = '@DIR@/state', insist = true, controlSocket = '@DIR@/sock' }}
         sync{{ {sync}, name = 'one', source = '@SRC@', delay = 0.3 }}"
    )
}

/// Returns a directory with files and an ssh to this machine that waits while `held` exists.
fn site() -> Dir {
    let dir = Dir::new();
    let wait = "echo >> @DIR@/calls\nwhile [ -e @DIR@/held ]; do sleep 0.05; done\n";
    dir.script("bin/ssh", &(dir.expand(wait) + SSH));
    dir.write("f", "1");
    dir.mkdir("in");
    dir.write("in/g", "2");
    dir
}

fn ctl(dir: &Dir, words: &[&str]) -> String {
    let output = dir.ctl(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts a transfer by `trigger`, and waits until its ssh has been started.
fn begin(dir: &Dir, daemon: &mut Running<'_>, trigger: impl FnOnce()) {
    dir.put("held", "");
    let calls = || dir.text("calls").lines().count();
    let before = calls();
    trigger();
    daemon.wait_for("ssh has been started", |_| calls() > before);
}

/// Lets the transfer continue, and waits until none is running.
fn continue_transfer(dir: &Dir, daemon: &mut Running<'_>) {
    fs::remove_file(dir.path("held")).unwrap();
    daemon.wait_for("nothing is sent", |_| {
        let status = ctl(dir, &["status", "-json"]);
        let status: lsyncd::status::snapshot::Snapshot = serde_json::from_str(&status).unwrap();
        status.syncs.iter().all(|sync| sync.sending.is_empty())
    });
}

/// Replaces the source by an empty directory.
fn replace(dir: &Dir) {
    fs::rename(dir.path("src"), dir.path("old")).unwrap();
    fs::create_dir(dir.path("src")).unwrap();
}

fn is_kept(dir: &Dir) {
    for name in ["f", "in/g"] {
        assert!(dir.trg(name).exists(), "{name} is deleted");
    }
}

#[test]
fn an_empty_directory_does_not_empty_the_target() {
    for kind in [
        RSYNC.to_owned(),
        RSYNC.replace("checksum", "list = 'filter', checksum"),
        RSYNC.replace("rsync = {", "guard = { maxDelete = 1000 }, rsync = {"),
        RSYNCSSH.to_owned(),
    ] {
        for trigger in ["resync", "change", "remove"] {
            let dir = site();
            let mut daemon = Daemon::new(&dir, &config(&kind)).start();
            daemon.wait_same("src", "trg", false);
            daemon.settle();
            begin(&dir, &mut daemon, || match trigger {
                "resync" => drop(ctl(&dir, &["resync"])),
                "change" => dir.write("f", "another"),
                _ => fs::remove_dir_all(dir.src("in")).unwrap(),
            });
            replace(&dir);
            daemon.wait_log("an empty directory is in place of the source");
            daemon.wait_log(ENDED);
            continue_transfer(&dir, &mut daemon);
            is_kept(&dir);
            dir.write("new", "3");
            daemon.wait_same("src", "trg", false);
            assert!(!dir.trg("f").exists(), "{kind} {trigger}");
        }
    }
}

/// The dry run has ended when the source is replaced, and its transfer has not been started.
#[test]
fn a_dry_run_of_another_source_is_not_followed() {
    let dir = site();
    let kind = RSYNC.replace("rsync = {", "guard = { maxDelete = 1000 }, rsync = {");
    let mut daemon = Daemon::new(&dir, &config(&kind)).start();
    daemon.wait_same("src", "trg", false);
    daemon.settle();
    begin(&dir, &mut daemon, || drop(ctl(&dir, &["resync"])));
    daemon.stop();
    fs::remove_file(dir.path("held")).unwrap();
    daemon.wait_children_gone();
    replace(&dir);
    let calls = dir.text("calls");
    daemon.cont();
    daemon.wait_log("an empty directory is in place of the source");
    dir.put("held", "");
    continue_transfer(&dir, &mut daemon);
    is_kept(&dir);
    assert_eq!(dir.text("calls"), calls);
}

/// The source, or a directory in it, is on a file system that is unmounted.
#[test]
fn an_unmounted_file_system_is_not_emptied_on_the_target() {
    for (place, said) in [
        ("", "is not mounted any more"),
        ("in", "its files on the target are kept"),
    ] {
        let dir = site();
        fs::rename(dir.src(place), dir.path("disk")).unwrap();
        fs::create_dir(dir.src(place)).unwrap();
        let at = format!("@SRC@/{place}");
        let bind = format!("mount --bind @DIR@/disk {at}");
        let Some(mut daemon) = among_mounts(&dir, &config(RSYNC), &bind) else {
            return skip(NO_MOUNTS);
        };
        daemon.wait_for("everything has arrived", |_| {
            dir.trg("f").exists() && dir.trg("in/g").exists()
        });
        daemon.settle();
        begin(&dir, &mut daemon, || drop(ctl(&dir, &["resync"])));
        inside(&dir, &daemon, &format!("umount {at}"));
        daemon.wait_log(said);
        daemon.wait_log(ENDED);
        continue_transfer(&dir, &mut daemon);
        is_kept(&dir);
        inside(&dir, &daemon, &format!("{bind}; echo x > {at}/later"));
        let later = dir.trg(place).join("later");
        daemon.wait_for("it goes on", |_| later.exists());
        is_kept(&dir);
    }
}
