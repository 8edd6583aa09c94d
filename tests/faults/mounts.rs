//! A file system inside the source is unmounted, and its files stay on the target.
//!
//! Bind mounts stand for disks: the files of a tmpfs are lost when it is unmounted, and are deleted
//! on the target.

use std::fs;

use nix::sys::signal::Signal;

use crate::guard::{NO_MOUNTS, among_mounts, inside, keeps_state_in_a_namespace};
use crate::support::daemon::Running;
use crate::support::dir::{Dir, skip};

const BIND: &str = "mount --bind @DIR@/disk @SRC@/in";
const UNBIND: &str = "umount -l @SRC@/in";

fn config(kind: &str) -> String {
    format!(
        "settings{{ statusFile = '@DIR@/status', statusInterval = 0, stateDir = '@DIR@/state',
           insist = true, controlSocket = '@DIR@/sock' }}
         sync{{ default.{kind}, source = '@SRC@', target = '@TRG@', delay = 0.3 }}"
    )
}

fn rsync() -> String {
    config("rsync, rsync = { archive = true, checksum = true }")
}

/// Returns a directory with a mount point in the source and a directory to be mounted.
fn site() -> Dir {
    let dir = Dir::new();
    dir.mkdir("in");
    dir.write("f", "1");
    fs::create_dir(dir.path("disk")).unwrap();
    dir.put("disk/a", "a");
    dir.put("disk/b", "b");
    dir
}

fn has(dir: &Dir, daemon: &mut Running<'_>, name: &str, content: &str) {
    daemon.wait_for(&format!("{name} has {content}"), |_| {
        fs::read(dir.trg(name)).is_ok_and(|found| found == content.as_bytes())
    });
}

fn stays(dir: &Dir) {
    let there = |name| dir.trg(name).exists();
    assert!(there("in/a") && there("in/b"), "wiped");
}

fn ctl(dir: &Dir, word: &str) {
    assert!(dir.ctl(&[word]).status().unwrap().success());
}

/// Waits until a new file and a full comparison have arrived.
fn settled(dir: &Dir, daemon: &mut Running<'_>, name: &str) {
    dir.write(name, "x");
    has(dir, daemon, name, "x");
    ctl(dir, "resync");
    daemon.settle();
}

fn comes_and_goes(config: &str) {
    let dir = site();
    let Some(mut daemon) = among_mounts(&dir, config, BIND) else {
        return skip(NO_MOUNTS);
    };
    has(&dir, &mut daemon, "in/a", "a");
    has(&dir, &mut daemon, "in/b", "b");
    // Changes that are pending when it is unmounted do not count as deletions.
    daemon.stop();
    inside(&dir, &daemon, "echo 2 > @SRC@/in/a; touch @SRC@/in/new");
    inside(&dir, &daemon, UNBIND);
    daemon.cont();
    daemon.wait_log("its files on the target are kept");
    settled(&dir, &mut daemon, "s1");
    stays(&dir);
    daemon.wait_for("the status file shows it", |_| {
        dir.text("status").contains("in is not mounted, its files")
    });
    // The mount point is an ordinary directory now.
    dir.write("in/under", "x");
    settled(&dir, &mut daemon, "s2");
    stays(&dir);
    dir.rm("in/under");
    fs::remove_dir(dir.src("in")).unwrap();
    settled(&dir, &mut daemon, "s3");
    stays(&dir);

    dir.mkdir("in");
    fs::remove_file(dir.path("disk/b")).unwrap();
    inside(&dir, &daemon, BIND);
    daemon.wait_log("is mounted again");
    has(&dir, &mut daemon, "in/a", "2\n");
    daemon.wait_for("the deletion is sent", |_| {
        !dir.trg("in/b").exists() && dir.trg("in/new").exists() && !dir.trg("in/under").exists()
    });
    inside(&dir, &daemon, "echo 3 > @SRC@/in/c");
    has(&dir, &mut daemon, "in/c", "3\n");
}

#[test]
fn files_of_an_unmounted_file_system_stay_with_rsync() {
    comes_and_goes(&rsync());
}

#[test]
fn files_of_an_unmounted_file_system_stay_with_direct() {
    comes_and_goes(&config("direct"));
}

#[test]
fn files_of_an_unmounted_file_system_stay_with_delete_excluded() {
    for option in ["delete_excluded = true", "_extra = { '--delete-excluded' }"] {
        let rsync = format!("rsync = {{ archive = true, checksum = true, {option} }}");
        let more = format!("filter = {{ '+ /in/**', '- *.tmp' }}, {rsync}");
        comes_and_goes(&config(&format!("rsync, {more}")));
    }
    let more = "exclude = { '*.tmp' }, rsync = { delete_excluded = true }";
    comes_and_goes(&config(&format!("direct, {more}")));
}

/// The mount is stored over restarts and reloads, until it is released.
#[test]
fn an_unmounted_file_system_is_remembered_until_it_is_released() {
    if !keeps_state_in_a_namespace() {
        return;
    }
    let dir = site();
    let Some(mut daemon) = among_mounts(&dir, &rsync(), BIND) else {
        return skip(NO_MOUNTS);
    };
    has(&dir, &mut daemon, "in/a", "a");
    has(&dir, &mut daemon, "in/b", "b");
    assert_eq!(daemon.terminate(), Some(143));
    drop(daemon);
    let Some(mut daemon) = among_mounts(&dir, &rsync(), "true") else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("its files on the target are kept");
    settled(&dir, &mut daemon, "s1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("it has started again", |daemon| {
        daemon.log().matches("--- Startup ---").count() == 2
    });
    settled(&dir, &mut daemon, "s2");
    stays(&dir);
    ctl(&dir, "release");
    daemon.wait_for("it is deleted", |_| {
        dir.trg("in").exists() && !dir.trg("in/a").exists()
    });
    dir.write("in/under", "x");
    has(&dir, &mut daemon, "in/under", "x");
}

#[test]
fn without_guard_files_of_an_unmounted_file_system_are_deleted() {
    let dir = site();
    let text = rsync().replace("delay =", "guard = false, delay =");
    let Some(mut daemon) = among_mounts(&dir, &text, BIND) else {
        return skip(NO_MOUNTS);
    };
    has(&dir, &mut daemon, "in/a", "a");
    inside(&dir, &daemon, UNBIND);
    daemon.wait_for("it is deleted", |_| !dir.trg("in/a").exists());
}

/// One disk replaces another so quickly that the mount points do not change.
#[test]
fn another_file_system_at_the_same_mount_point_is_compared() {
    let dir = site();
    fs::create_dir(dir.path("other")).unwrap();
    dir.put("other/c", "c");
    let Some(mut daemon) = among_mounts(&dir, &rsync(), BIND) else {
        return skip(NO_MOUNTS);
    };
    has(&dir, &mut daemon, "in/a", "a");
    daemon.stop();
    let swap = format!("{UNBIND}; {}", BIND.replace("disk", "other"));
    inside(&dir, &daemon, &swap);
    daemon.cont();
    has(&dir, &mut daemon, "in/c", "c");
    inside(&dir, &daemon, "echo 2 > @SRC@/in/d");
    has(&dir, &mut daemon, "in/d", "2\n");
    daemon.wait_for("the first one's files are gone", |_| {
        !dir.trg("in/a").exists()
    });
}

#[test]
fn excluded_mount_points_are_ignored() {
    let dir = site();
    let text = rsync().replace("delay =", "exclude = '/in/', delay =");
    let Some(mut daemon) = among_mounts(&dir, &text, "true") else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    inside(&dir, &daemon, BIND);
    inside(&dir, &daemon, UNBIND);
    dir.write("g", "x");
    has(&dir, &mut daemon, "g", "x");
    let log = daemon.log();
    assert_eq!(log.matches("recursive full rsync").count(), 1, "{log}");
    assert!(!log.contains("mounted"), "{log}");
}

/// Files that are written below the mount point of a missing disk fill another file system.
#[test]
fn a_target_that_is_not_mounted_is_left_alone() {
    if !keeps_state_in_a_namespace() {
        return;
    }
    for config in [rsync(), config("direct")] {
        let dir = Dir::new();
        dir.write("f", "1");
        let mount = "mount --bind @DIR@/disk @TRG@";
        fs::create_dir(dir.path("disk")).unwrap();
        let Some(mut daemon) = among_mounts(&dir, &config, mount) else {
            return skip(NO_MOUNTS);
        };
        let on_disk = |name: &str| dir.path(format!("disk/{name}")).exists();
        daemon.wait_for("it arrives", |_| on_disk("f"));
        inside(&dir, &daemon, "umount -l @TRG@");
        dir.write("g", "1");
        daemon.wait_log("trg, the mount point of the target, is not");
        dir.rm("f");
        inside(&dir, &daemon, mount);
        daemon.wait_for("it continues", |_| on_disk("g") && !on_disk("f"));
        assert_eq!(daemon.terminate(), Some(143));
        drop(daemon);

        let Some(mut daemon) = among_mounts(&dir, &config, "true") else {
            return skip(NO_MOUNTS);
        };
        daemon.wait_log("trg, the mount point of the target, is not");
        let below = fs::read_dir(dir.path("trg")).unwrap().count();
        assert_eq!(below, 0, "something was written below the mount point");
        ctl(&dir, "release");
        has(&dir, &mut daemon, "g", "1");
        assert_eq!(daemon.terminate(), Some(143));
    }
}

/// A directory that is mounted at a second path of the source has one watch for both.
#[test]
fn changes_of_a_directory_at_two_paths_arrive_at_both() {
    let dir = site();
    dir.mkdir("twice");
    let mount = format!("{BIND} && mount --bind @DIR@/disk @SRC@/twice");
    let Some(mut daemon) = among_mounts(&dir, &rsync(), &mount) else {
        return skip(NO_MOUNTS);
    };
    has(&dir, &mut daemon, "twice/a", "a");
    let both = |daemon: &mut Running<'_>, name: &str, content: &str| {
        for top in ["in", "twice"] {
            has(&dir, daemon, &format!("{top}/{name}"), content);
        }
    };
    inside(
        &dir,
        &daemon,
        "mkdir -p @SRC@/in/d/e; echo 1 > @SRC@/in/d/e/f",
    );
    both(&mut daemon, "d/e/f", "1\n");
    inside(
        &dir,
        &daemon,
        "echo 2 > @SRC@/twice/d/e/g; mv @SRC@/twice/d @SRC@/twice/h",
    );
    both(&mut daemon, "h/e/g", "2\n");
    inside(
        &dir,
        &daemon,
        "echo 3 > @SRC@/in/h/e/f; rm @SRC@/twice/h/e/g; mv @SRC@/in/h/e @SRC@/in/i",
    );
    both(&mut daemon, "i/f", "3\n");
    inside(&dir, &daemon, "echo 4 > @SRC@/twice/i/j");
    both(&mut daemon, "i/j", "4\n");
    daemon.wait_for("what has gone is removed at both", |_| {
        [
            "in/h/e",
            "twice/h/e",
            "in/d",
            "twice/d",
            "in/i/g",
            "twice/i/g",
        ]
        .iter()
        .all(|name| !dir.trg(name).exists())
    });
    // The paths do not take the watch from each other again and again.
    settled(&dir, &mut daemon, "s1");
}
