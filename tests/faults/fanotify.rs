//! Sources that are watched with fanotify: differences from inotify.
//!
//! File systems are mounted in a mount namespace of the daemon's own, which may mark them since
//! Linux 6.16. On older kernels the tests are skipped.

use std::fs;
use std::process::Command;

use crate::guard::{NO_MOUNTS, among_mounts, inside, wait_target};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, program, skip};

const NO_FANOTIFY: &str = "fanotify cannot be used here";

fn config(watch: &str) -> String {
    format!(
        r#"settings{{ watch = "{watch}", log = "Delay", statusFile = "@DIR@/status", statusInterval = 0 }}
        sync{{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = {{ archive = true }} }}"#
    )
}

/// Starts the daemon after the script ran; `None` if it cannot use fanotify.
fn start<'d>(dir: &'d Dir, watch: &str, script: &str) -> Option<Running<'d>> {
    let Some(daemon) = among_mounts(dir, &config(watch), script) else {
        skip(NO_MOUNTS);
        return None;
    };
    watched(daemon)
}

/// Returns the daemon when it has started up, if it uses fanotify. Counts a skipped test otherwise.
fn watched(mut daemon: Running<'_>) -> Option<Running<'_>> {
    daemon.wait_log("finished.");
    if !daemon.log().contains("is watched with fanotify") {
        skip(NO_FANOTIFY);
        return None;
    }
    Some(daemon)
}

fn lacks(dir: &Dir, daemon: &mut Running<'_>, name: &str) {
    daemon.wait_for(&format!("{name} is gone"), |_| !dir.trg(name).exists());
}

#[test]
fn a_whole_file_system_is_watched_with_one_mark() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir -p @SRC@/a/b; echo 1 > @SRC@/a/b/f";
    let Some(mut daemon) = start(&dir, "auto", mount) else {
        return;
    };
    assert!(daemon.log().contains("the root of a file system"));
    inside(
        &dir,
        &daemon,
        "echo 22 > @SRC@/a/b/g; mkdir -p @SRC@/c/d/e; echo 333 > @SRC@/c/d/e/f",
    );
    wait_target(&dir, &mut daemon, "a/b/g", "22\n");
    wait_target(&dir, &mut daemon, "c/d/e/f", "333\n");
    daemon.wait_for("the status shows it", |_| {
        dir.text("status")
            .contains("Watched with fanotify: the root of a file system")
    });
}

/// Starts the daemon with `watch = "auto"` and a source that is a part of a file system.
fn start_within<'d>(dir: &'d Dir, script: &str) -> Option<Running<'d>> {
    let config = config("auto").replace("@SRC@", "@SRC@/in");
    let script = format!("mount -t tmpfs none @SRC@; mkdir @SRC@/in; {script}");
    let Some(mut daemon) = among_mounts(dir, &config, &script) else {
        skip(NO_MOUNTS);
        return None;
    };
    daemon.wait_log("finished.");
    Some(daemon)
}

fn changes_arrive(dir: &Dir, daemon: &mut Running<'_>) {
    let script =
        "mkdir -p @SRC@/in/x/y @SRC@/in/d30/y; echo 1 > @SRC@/in/x/y/z; echo 22 > @SRC@/in/d30/y/z";
    inside(dir, daemon, script);
    wait_target(dir, daemon, "x/y/z", "1\n");
    wait_target(dir, daemon, "d30/y/z", "22\n");
}

#[test]
fn auto_takes_inotify_for_a_small_part_of_a_file_system() {
    let dir = Dir::new();
    let Some(mut daemon) = start_within(&dir, "mkdir @SRC@/in/d30") else {
        return;
    };
    changes_arrive(&dir, &mut daemon);
    assert!(
        !daemon.log().contains("is watched with"),
        "{}",
        daemon.log()
    );
}

#[test]
fn auto_takes_fanotify_where_watches_are_short() {
    let dir = Dir::new();
    let script = "echo 10 > /proc/sys/user/max_inotify_watches; for n in $(seq 30); do mkdir @SRC@/in/d$n; done";
    let Some(mut daemon) = start_within(&dir, script) else {
        return;
    };
    let log = daemon.log();
    if log.contains("fanotify cannot be used") || log.contains("Out of inotify watches") {
        return skip(NO_FANOTIFY);
    }
    let line = "is watched with fanotify: there are not enough inotify watches";
    assert!(log.contains(line), "{log}");
    changes_arrive(&dir, &mut daemon);
}

#[test]
fn auto_takes_fanotify_for_many_directories() {
    let dir = Dir::new();
    let script = "cd @SRC@/in; seq -f d%.0f 21000 | xargs mkdir; cd /";
    let Some(mut daemon) = start_within(&dir, script) else {
        return;
    };
    let log = daemon.log();
    if log.contains("fanotify cannot be used") {
        return skip(NO_FANOTIFY);
    }
    let line = "is watched with fanotify: more than 20000 directories";
    assert!(log.contains(line), "{log}");
    changes_arrive(&dir, &mut daemon);
}

/// The mark is on the file system, so changes outside of the source are reported too.
#[test]
fn changes_outside_of_a_bind_mount_are_ignored() {
    let dir = Dir::new();
    let mount = "mkdir @DIR@/disk; mount -t tmpfs none @DIR@/disk; mkdir -p @DIR@/disk/in/d @DIR@/disk/out/d; \
        mount --bind @DIR@/disk/in @SRC@";
    let Some(mut daemon) = start(&dir, "fanotify", mount) else {
        return;
    };
    let disk = "cd @DIR@/disk; ";
    inside(
        &dir,
        &daemon,
        &format!("{disk} echo 1 > out/f; mkdir out/e; echo 1 > out/d/secret; echo 1 > top"),
    );
    inside(
        &dir,
        &daemon,
        &format!("{disk} echo 1 > in/d/f; mkdir -p out/t/u; echo 55555 > out/t/u/v; mv out/t in/t"),
    );
    wait_target(&dir, &mut daemon, "d/f", "1\n");
    wait_target(&dir, &mut daemon, "t/u/v", "55555\n");
    inside(
        &dir,
        &daemon,
        &format!("{disk} mv in/t out/back; echo 666666 > out/back/u/v; echo 1 > in/last"),
    );
    wait_target(&dir, &mut daemon, "last", "1\n");
    lacks(&dir, &mut daemon, "t");
    let log = daemon.log();
    for name in ["secret", "top", "/out", "/e", "back"] {
        assert!(!log.contains(&format!(": /{name}")), "{name}\n{log}");
        assert!(!dir.trg(name).exists());
    }
}

/// The kernel cannot report the path of such a directory. It is not part of the source, so nothing
/// is compared.
#[test]
fn a_too_long_path_outside_causes_no_comparison() {
    let dir = Dir::new();
    let config = config("fanotify").replace("@SRC@", "@SRC@/in");
    let mount = "mount -t tmpfs none @SRC@; mkdir @SRC@/in @SRC@/out; echo 1 > @SRC@/in/f";
    let Some(mut daemon) = among_mounts(&dir, &config, mount) else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    if !daemon.log().contains("is watched with fanotify") {
        return skip(NO_FANOTIFY);
    }
    let deep = "import os\nos.chdir(\"@SRC@/out\")\nfor _ in range(50):\n os.mkdir(\"d\" * 200)\n os.chdir(\"d\" * 200)\nopen(\"g\", \"w\")";
    inside(&dir, &daemon, &format!("exec python3 -c '{deep}'"));
    inside(&dir, &daemon, "echo 22 > @SRC@/in/g");
    wait_target(&dir, &mut daemon, "g", "22\n");
    assert!(!daemon.log().contains("OVERFLOW"), "{}", daemon.log());
}

/// An open descriptor would keep the file system mounted.
#[test]
fn an_idle_source_can_be_unmounted() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir @SRC@/d; echo 1 > @SRC@/d/f";
    let Some(mut daemon) = start(&dir, "fanotify", mount) else {
        return;
    };
    inside(
        &dir,
        &daemon,
        "mkdir -p @SRC@/x/y; echo 22 > @SRC@/x/y/z; mv @SRC@/x @SRC@/w",
    );
    wait_target(&dir, &mut daemon, "w/y/z", "22\n");
    daemon.wait_log("Finished");
    // A transfer may still read the source.
    inside(
        &dir,
        &daemon,
        "for i in $(seq 100); do umount @SRC@ && exit; sleep 0.1; done; exit 1",
    );
    daemon.wait_log("nothing is sent until");
    inside(&dir, &daemon, &mount.replace('1', "4444"));
    wait_target(&dir, &mut daemon, "d/f", "4444\n");
    inside(&dir, &daemon, "echo 55555 > @SRC@/d/g");
    wait_target(&dir, &mut daemon, "d/g", "55555\n");
}

/// The mark ends with the file system without an event.
#[test]
fn a_source_that_is_mounted_again_at_once_is_watched() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir @SRC@/d; echo 1 > @SRC@/d/f";
    let Some(mut daemon) = start(&dir, "fanotify", mount) else {
        return;
    };
    wait_target(&dir, &mut daemon, "d/f", "1\n");
    daemon.stop();
    inside(
        &dir,
        &daemon,
        &format!("umount @SRC@; {}", mount.replace('1', "22")),
    );
    daemon.cont();
    wait_target(&dir, &mut daemon, "d/f", "22\n");
    inside(&dir, &daemon, "echo 333 > @SRC@/d/f");
    wait_target(&dir, &mut daemon, "d/f", "333\n");
}

#[test]
fn a_file_system_in_the_source_has_a_mark_of_its_own() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir -p @SRC@/in @SRC@/late; mount -t tmpfs none @SRC@/in; mkdir @SRC@/in/d";
    let Some(mut daemon) = start(&dir, "fanotify", mount) else {
        return;
    };
    inside(&dir, &daemon, "echo 1 > @SRC@/in/d/f; echo 22 > @SRC@/g");
    wait_target(&dir, &mut daemon, "in/d/f", "1\n");
    wait_target(&dir, &mut daemon, "g", "22\n");
    inside(
        &dir,
        &daemon,
        "mount -t tmpfs none @SRC@/late; mkdir @SRC@/late/e; echo 333 > @SRC@/late/e/f",
    );
    wait_target(&dir, &mut daemon, "late/e/f", "333\n");
    inside(&dir, &daemon, "echo 4444 > @SRC@/late/e/g");
    wait_target(&dir, &mut daemon, "late/e/g", "4444\n");
    // The mark ended with the file system, and a new one was added.
    inside(
        &dir,
        &daemon,
        "umount @SRC@/late; mount -t tmpfs none @SRC@/late; echo 55555 > @SRC@/late/h",
    );
    wait_target(&dir, &mut daemon, "late/h", "55555\n");
    inside(&dir, &daemon, "echo 666666 > @SRC@/late/i");
    wait_target(&dir, &mut daemon, "late/i", "666666\n");
}

/// One rename changes the paths of all directories, and it is older than the paths that are looked
/// up.
#[test]
fn queued_renames_of_an_ancestor_are_followed() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir -p @SRC@/a/b/c/d; echo 1 > @SRC@/a/b/c/d/f";
    let Some(mut daemon) = start(&dir, "fanotify", mount) else {
        return;
    };
    daemon.stop();
    inside(
        &dir,
        &daemon,
        "cd @SRC@; echo 22 > a/b/c/d/g; mv a/b a/x; echo 333 > a/x/c/d/h; mv a z; mkdir -p a/b/c/d; \
         echo 4444 > a/b/c/d/f; rm z/x/c/d/f; mv z/x/c z/y; mv a/b/c/d/f z/y/d/moved",
    );
    daemon.cont();
    wait_target(&dir, &mut daemon, "z/y/d/g", "22\n");
    wait_target(&dir, &mut daemon, "z/y/d/h", "333\n");
    wait_target(&dir, &mut daemon, "z/y/d/moved", "4444\n");
    lacks(&dir, &mut daemon, "a/b/c/d/f");
    lacks(&dir, &mut daemon, "z/y/d/f");
    inside(
        &dir,
        &daemon,
        "echo 55555 > @SRC@/z/y/d/last; echo 55555 > @SRC@/a/b/last",
    );
    wait_target(&dir, &mut daemon, "z/y/d/last", "55555\n");
    wait_target(&dir, &mut daemon, "a/b/last", "55555\n");
}

/// The kernel combines the third rename with the first one, which is equal.
#[test]
fn repeated_equal_renames_are_followed() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir -p @SRC@/a/d; echo 1 > @SRC@/a/d/f";
    let Some(mut daemon) = start(&dir, "fanotify", mount) else {
        return;
    };
    daemon.stop();
    inside(
        &dir,
        &daemon,
        "exec python3 -c 'import os\nos.chdir(\"@SRC@\")\nfor i in range(5): os.rename(*((\"a\", \"b\") if i % 2 == 0 else (\"b\", \"a\")))'",
    );
    daemon.cont();
    wait_target(&dir, &mut daemon, "b/d/f", "1\n");
    lacks(&dir, &mut daemon, "a");
    inside(&dir, &daemon, "echo 22 > @SRC@/b/d/g; echo 333 > @SRC@/b/h");
    wait_target(&dir, &mut daemon, "b/d/g", "22\n");
    wait_target(&dir, &mut daemon, "b/h", "333\n");
}

#[test]
fn two_sources_on_one_file_system_get_their_own_changes() {
    let dir = Dir::new();
    fs::create_dir(dir.path("trg2")).unwrap();
    let config = format!(
        "{} sync{{ default.rsync, source = '@SRC@/two', target = '@DIR@/trg2', delay = 0.3 }}",
        config("fanotify").replace("@SRC@", "@SRC@/one")
    );
    let mount =
        "mount -t tmpfs none @SRC@; mkdir -p @SRC@/one/d @SRC@/two/d; echo 1 > @SRC@/one/d/f";
    let Some(mut daemon) = among_mounts(&dir, &config, mount) else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_for("both have started", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    if !daemon.log().contains("is watched with fanotify") {
        return skip(NO_FANOTIFY);
    }
    let second = |name: &str| dir.path("trg2").join(name).exists();
    inside(
        &dir,
        &daemon,
        "mv @SRC@/one/d/f @SRC@/two/d/f; ln @SRC@/two/d/f @SRC@/two/link; echo 22 > @SRC@/one/g",
    );
    wait_target(&dir, &mut daemon, "g", "22\n");
    lacks(&dir, &mut daemon, "d/f");
    daemon.wait_for("it is in the other", |_| second("d/f") && second("link"));
    inside(&dir, &daemon, "mv @SRC@/two/d @SRC@/one/e");
    wait_target(&dir, &mut daemon, "e/f", "1\n");
    daemon.wait_for("it is deleted on the other", |_| !second("d"));
}

#[test]
fn a_file_system_without_handles_is_watched_with_inotify() {
    let dir = Dir::new();
    let mount = "mkdir @DIR@/disk; mount -t tmpfs none @DIR@/disk; mkdir @DIR@/disk/a @DIR@/disk/b @DIR@/disk/c; \
        mount -t overlay -o lowerdir=@DIR@/disk/a,upperdir=@DIR@/disk/b,workdir=@DIR@/disk/c none @SRC@ || \
        mount -t tmpfs none @SRC@";
    let Some(mut daemon) = among_mounts(&dir, &config("fanotify"), mount) else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    if daemon.log().contains("is watched with fanotify") {
        return skip("no overlay can be mounted here");
    }
    assert!(
        daemon
            .log()
            .contains("is watched with inotify: fanotify cannot be used: ")
    );
    inside(&dir, &daemon, "mkdir -p @SRC@/d/e; echo 1 > @SRC@/d/e/f");
    wait_target(&dir, &mut daemon, "d/e/f", "1\n");
}

#[test]
fn without_the_capability_inotify_is_used_and_logged_once() {
    let dir = Dir::new();
    let Some(setpriv) = program("setpriv") else {
        return skip("no setpriv");
    };
    let setpriv = setpriv.to_str().unwrap();
    let limited = [setpriv, "--bounding-set", "-sys_admin"];
    let mut probe = Command::new(setpriv);
    if !probe
        .args(["--bounding-set", "-sys_admin", "true"])
        .status()
        .unwrap()
        .success()
    {
        return skip("capabilities cannot be dropped here");
    }
    let mut daemon = Daemon::new(&dir, &config("fanotify"))
        .wrapped(&limited)
        .start_and_settle();
    let lines =
        "is watched with inotify: fanotify cannot be used: it needs the capability CAP_SYS_ADMIN";
    assert_eq!(daemon.log().matches(lines).count(), 1, "{}", daemon.log());
    dir.mkdir("d/e");
    dir.write("d/e/f", "1");
    daemon.wait_equal();
}

/// The rename is older than the overflow, after which the new directory is found.
#[test]
fn a_source_replaced_before_an_overflow_is_watched() {
    let dir = Dir::new();
    let Some(mut daemon) = watched(Daemon::new(&dir, &config("fanotify")).start()) else {
        return;
    };
    daemon.stop();
    fs::rename(dir.src(""), dir.path("elsewhere")).unwrap();
    fs::create_dir(dir.src("")).unwrap();
    dir.write("new", "1");
    dir.overflow_queue();
    daemon.cont();
    daemon.wait_equal();
    dir.write("later", "2");
    daemon.wait_equal();
}

/// The kernel drops the events, and reports that it has.
#[test]
fn changes_that_an_overflow_hides_are_found() {
    let dir = Dir::new();
    let Some(mut daemon) = watched(Daemon::new(&dir, &config("fanotify")).start()) else {
        return;
    };
    daemon.stop();
    dir.overflow_queue();
    dir.mkdir("d/e");
    dir.write("d/e/hidden", "1");
    daemon.cont();
    daemon.wait_equal();
    dir.write("d/e/later", "2");
    daemon.wait_equal();
}
