//! Sources that are unmounted, removed, renamed or replaced: the target stays unchanged.
//!
//! Mounts are made in a mount namespace of the daemon's own. Files that change while the source is
//! missing get another size, because full comparisons compare size and whole seconds.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, program, skip};

pub const MIRROR: &str = r#"
settings{ statusFile = "@DIR@/status", statusInterval = 0 }
sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = { archive = true } }
"#;

pub fn with(guard: &str) -> String {
    MIRROR.replace("delay =", &format!("guard = {guard}, delay ="))
}

pub const NO_MOUNTS: &str = "nothing can be mounted in a namespace";

/// Returns true if a daemon in a namespace of its own keeps its state. In that of an ordinary user,
/// the owner of the root directory is unknown, so no state directory is trusted. Counts a skipped
/// test otherwise.
pub fn keeps_state_in_a_namespace() -> bool {
    let keeps = nix::unistd::geteuid().is_root();
    if !keeps {
        skip("no state is kept in the namespace of an ordinary user");
    }
    keeps
}

/// Starts the daemon in namespaces of its own, after `script` ran there.
pub fn among_mounts<'d>(dir: &'d Dir, config: &str, script: &str) -> Option<Running<'d>> {
    let unshare = program("unshare")?;
    let unshare = unshare.to_str()?;
    let allowed = Command::new(unshare)
        .args(["-U", "-r", "-m", "mount", "-t", "tmpfs", "none", "/mnt"])
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        return None;
    }
    let script = format!("{}; exec \"$@\"", dir.expand(script));
    let wrapper = [unshare, "-U", "-r", "-m", "sh", "-ec", &script, "sh"];
    Some(Daemon::new(dir, config).wrapped(&wrapper).start())
}

/// Runs a script in the mount namespace of the daemon.
pub fn inside(dir: &Dir, daemon: &Running<'_>, script: &str) {
    let output = Command::new("nsenter")
        .args(["--user", "--mount", "--preserve-credentials", "-t"])
        .arg(daemon.pid().to_string())
        .args(["sh", "-ec", &dir.expand(script)])
        .output()
        .expect("nsenter");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}

pub fn wait_target(dir: &Dir, daemon: &mut Running<'_>, name: &str, content: &str) {
    daemon.wait_for(&format!("{name} has {content}"), |_| {
        fs::read(dir.trg(name)).is_ok_and(|found| found == content.as_bytes())
    });
}

#[test]
fn unmounted_source_holds_until_it_is_mounted_again() {
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; mkdir @SRC@/d; echo 1 > @SRC@/d/f";
    let Some(mut daemon) = among_mounts(&dir, MIRROR, mount) else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    wait_target(&dir, &mut daemon, "d/f", "1\n");
    inside(&dir, &daemon, "umount @SRC@");
    daemon.wait_log("nothing is sent until");
    inside(&dir, &daemon, "echo 2 > @SRC@/under");
    daemon.wait_for("the status says why", |_| {
        dir.text("status").contains("Halted: ")
    });
    daemon.wait_log("@SRC@ is not mounted any more");
    assert_eq!(fs::read(dir.trg("d/f")).unwrap(), b"1\n");
    assert!(!dir.trg("under").exists());

    inside(&dir, &daemon, &mount.replace('1', "333"));
    wait_target(&dir, &mut daemon, "d/f", "333\n");
    inside(&dir, &daemon, "echo 4 > @SRC@/d/g");
    wait_target(&dir, &mut daemon, "d/g", "4\n");
    assert!(!dir.text("status").contains("Halted: "));
}

/// The end of a bind mount causes no event, because its file system stays mounted.
#[test]
fn unmounted_bind_mount_holds_until_it_is_mounted_again() {
    let dir = Dir::new();
    fs::create_dir(dir.path("real")).unwrap();
    fs::write(dir.path("real/f"), "1").unwrap();
    let Some(mut daemon) = among_mounts(&dir, MIRROR, "mount --bind @DIR@/real @SRC@") else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    wait_target(&dir, &mut daemon, "f", "1");
    inside(&dir, &daemon, "umount @SRC@");
    daemon.wait_log("@SRC@ is not mounted any more");
    fs::write(dir.path("real/f"), "22").unwrap();
    inside(&dir, &daemon, "mount --bind @DIR@/real @SRC@");
    wait_target(&dir, &mut daemon, "f", "22");
    fs::write(dir.path("real/g"), "3").unwrap();
    wait_target(&dir, &mut daemon, "g", "3");
}

/// inotify does not report a mount on a watched directory.
#[test]
fn something_is_mounted_over_the_source() {
    let dir = Dir::new();
    dir.write("f", "1");
    let Some(mut daemon) = among_mounts(&dir, MIRROR, "true") else {
        return skip(NO_MOUNTS);
    };
    wait_target(&dir, &mut daemon, "f", "1");
    let mount = "mount -t tmpfs none @SRC@; echo 2 > @SRC@/g";
    inside(&dir, &daemon, mount);
    wait_target(&dir, &mut daemon, "g", "2\n");
    inside(&dir, &daemon, "echo 3 > @SRC@/h");
    wait_target(&dir, &mut daemon, "h", "3\n");
}

#[test]
fn something_is_mounted_inside_the_source() {
    let dir = Dir::new();
    dir.mkdir("in");
    let Some(mut daemon) = among_mounts(&dir, MIRROR, "true") else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    inside(
        &dir,
        &daemon,
        "mount -t tmpfs none @SRC@/in; echo 1 > @SRC@/in/f",
    );
    wait_target(&dir, &mut daemon, "in/f", "1\n");
    inside(&dir, &daemon, "echo 2 > @SRC@/in/g");
    wait_target(&dir, &mut daemon, "in/g", "2\n");
}

/// The mount is stored, so an empty mount point is recognized.
#[test]
fn source_is_not_mounted_at_start_or_hup() {
    if !keeps_state_in_a_namespace() {
        return;
    }
    let dir = Dir::new();
    let mount = "mount -t tmpfs none @SRC@; echo 1 > @SRC@/f";
    let Some(mut daemon) = among_mounts(&dir, MIRROR, mount) else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("finished.");
    assert_eq!(daemon.terminate(), Some(143));
    drop(daemon);

    let Some(mut daemon) = among_mounts(&dir, MIRROR, "true") else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("@SRC@ is not mounted any more");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("HUP signal");
    daemon.wait_for("it has started again", |daemon| {
        daemon.log().matches("--- Startup ---").count() == 2
    });
    assert_eq!(fs::read(dir.trg("f")).unwrap(), b"1\n");
    inside(&dir, &daemon, &mount.replace('1', "222"));
    wait_target(&dir, &mut daemon, "f", "222\n");
}

/// Puts another directory at the path of the source, and waits until it is sent.
fn another_source(dir: &Dir, daemon: &mut Running<'_>) {
    fs::create_dir(dir.path("new")).unwrap();
    fs::write(dir.path("new/g"), "2").unwrap();
    fs::rename(dir.path("new"), dir.path("src")).unwrap();
    daemon.wait_equal();
    dir.write("h", "3");
    daemon.wait_equal();
}

#[test]
fn removed_source_holds_until_it_is_there_again() {
    let dir = Dir::new();
    dir.write("f", "1");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    fs::remove_dir_all(dir.path("src")).unwrap();
    daemon.wait_log("nothing is sent until");
    assert!(dir.trg("f").exists());
    another_source(&dir, &mut daemon);
}

/// A configuration whose source is missing is not loaded.
#[test]
fn hup_with_a_removed_source_keeps_the_configuration() {
    let dir = Dir::new();
    dir.write("f", "1");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    fs::rename(dir.path("src"), dir.path("old")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("Cannot access source directory");
    daemon.wait_log("the source does not exist");
    assert!(dir.trg("f").exists());
    fs::rename(dir.path("old"), dir.path("src")).unwrap();
    dir.write("g", "2");
    daemon.wait_equal();
}

#[test]
fn a_missing_source_does_not_affect_other_syncs() {
    let dir = Dir::new();
    for name in ["src2", "trg2"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    let other = MIRROR
        .replace("@SRC@", "@DIR@/src2")
        .replace("@TRG@", "@DIR@/trg2");
    let other = other.lines().last().unwrap().to_owned();
    let mut daemon = Daemon::new(&dir, &format!("{MIRROR}{other}")).start();
    daemon.wait_log("Startup of @DIR@/src2/ -> @DIR@/trg2/ finished.");
    fs::rename(dir.path("src"), dir.path("old")).unwrap();
    daemon.wait_log("nothing is sent until");
    for n in 0..3 {
        fs::write(dir.path("src2/f"), n.to_string().repeat(n + 1)).unwrap();
        daemon.wait_same("src2", "trg2", true);
    }
}

#[test]
fn renamed_source_then_another_in_its_place() {
    let dir = Dir::new();
    dir.write("f", "1");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    fs::rename(dir.path("src"), dir.path("old")).unwrap();
    fs::write(dir.path("old/elsewhere"), "not ours").unwrap();
    daemon.wait_log("nothing is sent until");
    another_source(&dir, &mut daemon);
}

#[test]
fn source_without_its_marker_is_held() {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.write(".present", "");
    let config = with("{ marker = \".present\" }");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
    dir.rm(".present");
    dir.rm("f");
    daemon.wait_log("the source does not contain .present");
    assert!(dir.trg("f").exists());
    dir.write(".present", "");
    daemon.wait_equal();
}

/// Changes into a root of its own, in which nothing is mounted above source and target.
const OWN_ROOT: &str = r#"
    root=@DIR@/root; mkdir "$root"; mount -t tmpfs none "$root"
    for place in /bin /dev /etc /lib /lib32 /lib64 /proc /sbin /usr @BIN@; do
        if [ -L "$place" ]; then cp -P "$place" "$root$place"
        elif [ -d "$place" ] && [ ! -d "$root$place" ]; then
            mkdir -p "$root$place"; mount --rbind "$place" "$root$place"
        fi
    done
    mkdir -p "$root@SRC@" "$root@TRG@"; cp @DIR@/config.lua "$root@DIR@/"
    echo 1 > "$root@TRG@/kept"
    exec chroot "$root" "$@"
"#;

#[test]
fn source_that_must_be_mounted_is_held() {
    let dir = Dir::new();
    let config = with("{ mount = true }");
    let binary = crate::support::daemon::binary();
    let place = binary.parent().unwrap().to_str().unwrap();
    let script = OWN_ROOT.replace("@BIN@", place);
    let Some(mut daemon) = among_mounts(&dir, &config, &script) else {
        return skip(NO_MOUNTS);
    };
    daemon.wait_log("the source is not on a mounted file system");
    let pid = daemon.pid();
    let target = |name: &str| format!("/proc/{pid}/root{}/{name}", dir.path("trg").display());
    assert!(fs::exists(target("kept")).unwrap());
    let mount = "mount -t tmpfs none @DIR@/root@SRC@; echo 2 > @DIR@/root@SRC@/f";
    inside(&dir, &daemon, mount);
    daemon.wait_for("it is sent", |_| {
        fs::read(target("f")).is_ok_and(|found| found == b"2\n")
    });
}

#[test]
fn targets_that_would_destroy_are_refused() {
    for (target, words) in [
        ("/", "is the root directory"),
        ("@SRC@", "is the source itself"),
        ("@DIR@/link", "is the source itself"),
        ("@DIR@", "contains the source"),
        ("@SRC@/in/deep", "is inside the source"),
    ] {
        let dir = Dir::new();
        dir.write("f", "1");
        std::os::unix::fs::symlink("src", dir.path("link")).unwrap();
        let config = MIRROR.replace("@TRG@", target);
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(ended.stderr.contains(words), "{target}: {}", ended.stderr);
        assert!(dir.src("f").exists());
    }
}

#[test]
fn excluded_target_inside_the_source_is_accepted() {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.mkdir("mirror");
    let config = MIRROR
        .replace("@TRG@", "@SRC@/mirror")
        .replace("delay =", "exclude = \"/mirror\", delay =");
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_for("the file is there", |_| dir.src("mirror/f").exists());
    assert!(!dir.src("mirror/mirror").exists());
}

/// The file system of one target does not answer. Only its sync waits, and starts when the file
/// system answers.
#[test]
fn a_target_that_does_not_answer_at_the_start_delays_no_other() {
    let dir = Dir::new();
    for name in ["slow", "other"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    dir.write("f", "1");
    let sync = |name: &str, kind: &str, target: &str| {
        format!(
            "sync{{ {kind}, name = '{name}', source = '@SRC@', target = '@DIR@/{target}', delay = 0.1 }}\n"
        )
    };
    let config = "settings{ insist = true, stateDir = '@DIR@/state' }\n".to_owned()
        + &sync("slow", "default.rsync", "slow/t")
        + &sync("direct", "default.direct", "slow/d")
        + &sync("other", "default.rsync", "other")
        + &sync("last", "default.direct", "trg");
    // No process answers the requests of this FUSE file system.
    let hang = "exec 3<> /dev/fuse
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 slow @DIR@/slow";
    let works = Command::new("unshare")
        .args(["-U", "-r", "-m", "sh", "-ec", &dir.expand(hang)])
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("no FUSE in a namespace");
    }
    let Some(mut daemon) = among_mounts(&dir, &config, hang) else {
        return skip(NO_MOUNTS);
    };
    for target in ["other", "trg"] {
        let sent = dir.path(target).join("f");
        daemon.wait_for(&format!("{target} is current"), |_| sent.exists());
    }
    let started = daemon.log();
    let silent = "the file system of the target does not answer";
    assert!(!started.contains(silent), "{started}");
    assert!(!dir.path("slow/t").exists());
    // The requests fail, and the directory below appears.
    inside(&dir, &daemon, "umount -i -n -f -l @DIR@/slow");
    for target in ["slow/t", "slow/d"] {
        let sent = dir.path(target).join("f");
        daemon.wait_for(&format!("{target} is current"), |_| sent.exists());
    }
    dir.write("f", "2");
    for target in ["slow/t", "slow/d", "other", "trg"] {
        let sent = dir.path(target).join("f");
        daemon.wait_for(&format!("{target} has the change"), |_| {
            fs::read(&sent).is_ok_and(|found| found == b"2")
        });
    }
    daemon.terminate();
}
