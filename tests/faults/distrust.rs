//! Starts with `init = "changed"` in conditions in which the index of the source is not trusted:
//! everything is compared. Defects of the index itself are tested in `warm_start`.

use std::fs;
use std::process::Command;

use crate::guard::{NO_MOUNTS, among_mounts, keeps_state_in_a_namespace};
use crate::limits::{NO_NAMESPACE, limited};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{program, skip};
use crate::warm_start::{
    EVERYTHING, NOTHING, RSYNC, config, grow_old, index, site, start_decided, state,
};

/// Waits until a startup has decided what to compare, and stops the daemon.
fn decision(mut daemon: Running<'_>, text: &str) {
    daemon.wait_log(text);
    if text != NOTHING {
        daemon.wait_log("Startup of");
    }
    assert_eq!(daemon.terminate(), Some(143), "{}", daemon.log());
}

const BIND: &str = "mount --bind @DIR@/disk @SRC@/in";

#[test]
fn a_file_system_in_the_source_is_not_mounted() {
    if !keeps_state_in_a_namespace() {
        return;
    }
    let Some(dir) = site() else { return };
    dir.mkdir("in");
    fs::create_dir(dir.path("disk")).unwrap();
    dir.put("disk/a", "a");
    let config = config(RSYNC);
    let start = |script: &str| {
        let daemon = among_mounts(&dir, &config, script);
        if daemon.is_none() {
            skip(NO_MOUNTS);
        }
        daemon
    };
    let Some(mut daemon) = start(BIND) else {
        return;
    };
    daemon.wait_log("Startup of");
    daemon.wait_for("all is there", |_| dir.trg("in/a").exists());
    grow_old(&dir);
    assert_eq!(daemon.terminate(), Some(143));
    decision(start(BIND).unwrap(), NOTHING);
    let reason = format!("{EVERYTHING}a file system in the source is not mounted");
    decision(start("true").unwrap(), &reason);
    assert!(dir.trg("in/a").exists());
    assert!(!state(&dir, "index").exists());
    // The index does not show the changes from this time.
    dir.put("disk/a", "another");
    let mut daemon = start(BIND).unwrap();
    daemon.wait_log(EVERYTHING);
    daemon.wait_for("it is there", |_| dir.text("trg/in/a") == "another");
}

#[test]
fn directories_are_not_watched() {
    if !keeps_state_in_a_namespace() {
        return;
    }
    let Some(dir) = site() else { return };
    index(&dir, &config(RSYNC));
    // An unwatched directory may have changed at any time.
    let limits = "echo 2 > /proc/sys/user/max_inotify_watches";
    let Some(mut daemon) = limited(&dir, &config(RSYNC), limits) else {
        return skip(NO_NAMESPACE);
    };
    daemon.wait_log("Out of inotify watches.");
    daemon.wait_log("directories are watched. To watch all");
    daemon.wait_log(NOTHING);
    assert_eq!(daemon.terminate(), Some(143));
    assert!(!state(&dir, "index").exists(), "{}", daemon.log());
    decision(start_decided(&dir, &config(RSYNC)), EVERYTHING);
}

/// Sets the clock of a program back by an hour.
const CLOCK: &str = "#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, \"clock_gettime\");
    int result = real(id, time);
    if (id == CLOCK_REALTIME) time->tv_sec -= 3600;
    return result;
}
";

#[test]
fn the_clock_was_set_back() {
    let Some(dir) = site() else { return };
    dir.put("clock.c", CLOCK);
    let mut cc = Command::new("cc");
    let cc = cc.args(["-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]);
    if !cc
        .current_dir(dir.root())
        .status()
        .is_ok_and(|s| s.success())
    {
        return skip("no C compiler");
    }
    index(&dir, &config(RSYNC));
    let daemon = Daemon::new(&dir, &config(RSYNC)).env("LD_PRELOAD", "@DIR@/clock.so");
    let reason = format!("{EVERYTHING}the clock was set back");
    decision(daemon.start(), &reason);
}

/// Times and inodes of ramfs are not trusted.
#[test]
fn the_file_system_is_unknown() {
    if !keeps_state_in_a_namespace() {
        return;
    }
    for mount in ["@SRC@", "@SRC@/b"] {
        let Some(dir) = site() else { return };
        let script = format!("mount -t ramfs none {mount}; mkdir {mount}/d; echo 1 > {mount}/d/f");
        let config = format!("settings{{ log = 'Info' }} {}", config(RSYNC));
        let Some(mut daemon) = among_mounts(&dir, &config, &script) else {
            return skip(NO_MOUNTS);
        };
        daemon.wait_log("Startup of");
        daemon.wait_log("no index of the source is kept: times and inodes of the file system");
        assert_eq!(daemon.terminate(), Some(143));
        assert!(!state(&dir, "index").exists());
    }
}

/// If single directories cannot be compared, one change causes a full comparison.
#[test]
fn options_allow_no_comparison_of_single_directories() {
    let more = [
        "guard = { maxDelete = 10 }, rsync = { archive = true }",
        "rsync = { archive = true, binary = '@DIR@/bin/wrapper' }",
        "rsync = { archive = true, list = 'filter' }",
    ];
    std::thread::scope(|scope| {
        for more in more {
            scope.spawn(move || {
                let Some(dir) = site() else { return };
                let rsync = program("rsync").unwrap();
                let text = format!("exec {} \"$@\"\n", rsync.display());
                dir.script("bin/wrapper", &text);
                let sync = format!("default.rsync, target = '@TRG@', {more}");
                index(&dir, &config(&sync));
                decision(start_decided(&dir, &config(&sync)), NOTHING);
                dir.write("a/f", "another content");
                let reason = "1 directories have changed, and the options allow no comparison";
                let mut daemon = start_decided(&dir, &config(&sync));
                daemon.wait_log(&format!("{EVERYTHING}{reason}"));
                daemon.wait_same("src", "trg", false);
            });
        }
    });
}

/// The other names of a file may be in directories that have not changed.
#[test]
fn a_file_with_several_names_has_changed() {
    let Some(dir) = site() else { return };
    let sync = "default.rsync, target = '@TRG@', rsync = { archive = true, hard_links = true }";
    dir.hard_link("a/f", "a/sub/link");
    index(&dir, &config(sync));
    decision(start_decided(&dir, &config(sync)), NOTHING);
    dir.write("a/new", "1");
    let mut daemon = start_decided(&dir, &config(sync));
    let reason = "1 directories have changed, and files with several names have changed";
    daemon.wait_log(&format!("{EVERYTHING}{reason}"));
    daemon.wait_same("src", "trg", false);
    grow_old(&dir);
    assert_eq!(daemon.terminate(), Some(143));
    // Without such a file, the directory is compared.
    dir.write("b/new", "1");
    let mut daemon = start_decided(&dir, &config(sync));
    daemon.wait_log("1 directories have changed since the last stop");
    daemon.wait_same("src", "trg", false);
}
