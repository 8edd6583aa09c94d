//! Failures while files are checked: nothing unchecked is sent, and nothing is lost.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;

use super::{
    COMMAND, Daemon, SCANNER, arrives, asked, assert_clean, config, sentinel, site, start,
};
use crate::support::dir::{Dir, program, remove, skip};

/// Returns the staging directory.
fn staging(dir: &Dir) -> std::path::PathBuf {
    let entries = fs::read_dir(dir.root()).unwrap().flatten();
    let mut paths = entries.map(|entry| entry.path());
    let found = paths.find(|path| path.to_string_lossy().contains("/.src.checked-"));
    found.expect("a private directory")
}

#[test]
fn after_a_kill_files_are_checked_again() {
    let dir = site();
    dir.write("old", "good");
    let names = ["one", "two", "three"];
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    for name in names {
        dir.put("hang", "");
        let before = asked(&dir).len();
        dir.write(name, "good");
        dir.write("old", "EVIL");
        daemon.wait_for("the scanner runs", |_| asked(&dir).len() > before);
        daemon.signal(Signal::SIGKILL);
        daemon.wait_end();
        daemon.wait_all_gone();
        fs::remove_file(dir.path("hang")).unwrap();
        daemon = Daemon::new(&dir, &config(COMMAND)).named(name).start();
        arrives(&dir, &mut daemon, name, "good");
        assert_clean(&dir);
    }
    assert_eq!(fs::read(dir.trg("old")).unwrap(), b"good");
    // No copies of the interrupted check are left.
    let incoming = staging(&dir).join("incoming");
    daemon.wait_for("no copies", |_| {
        fs::read_dir(&incoming).unwrap().next().is_none()
    });
}

/// If the directory is removed while the daemon runs, files are checked again when they are needed.
#[test]
fn a_removed_staging_directory_is_made_again() {
    let dir = site();
    dir.write("f", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    for (round, part) in ["", "tree", "incoming"].into_iter().enumerate() {
        remove(&staging(&dir).join(part));
        sentinel(&dir, &mut daemon, &format!("s{round}"));
        dir.write("evil", "EVIL");
        dir.mkdir(format!("d{round}"));
        sentinel(&dir, &mut daemon, &format!("d{round}/s"));
        assert_clean(&dir);
        assert_eq!(fs::read(dir.trg("f")).unwrap(), b"good");
    }
}

/// The daemon runs without the capabilities that let root read every directory.
#[test]
fn an_unreadable_directory_holds_nothing_up() {
    for mode in [0o000, 0o444] {
        let dir = site();
        for place in ["closed", "open"] {
            dir.mkdir(place);
            dir.write(format!("{place}/f"), "good");
            dir.write(format!("{place}/evil"), "EVIL");
        }
        dir.mkdir("closed/below");
        dir.write("closed/below/f", "good");
        fs::create_dir(dir.trg("closed")).unwrap();
        fs::write(dir.trg("closed/f"), "older").unwrap();
        dir.chmod("closed", mode);
        let Some(daemon) = Daemon::new(&dir, &config(COMMAND)).powerless() else {
            return skip("no setpriv");
        };
        let mut daemon = daemon.start();
        arrives(&dir, &mut daemon, "open/f", "good");
        sentinel(&dir, &mut daemon, "s");
        if mode == 0 {
            assert_eq!(fs::read(dir.trg("closed/f")).unwrap(), b"older");
        }
        dir.chmod("closed", 0o755);
        arrives(&dir, &mut daemon, "closed/f", "good");
        arrives(&dir, &mut daemon, "closed/below/f", "good");
        sentinel(&dir, &mut daemon, "s2");
        assert_clean(&dir);
    }
}

#[test]
fn a_child_of_the_scanner_that_keeps_its_output_open_is_not_waited_for() {
    let dir = site();
    let text = SCANNER.replace("status=0\n", "status=0\nsleep 1000 &\n");
    dir.script("scan", &text);
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, COMMAND);
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
}

#[test]
fn megabytes_of_scanner_output_do_not_fill_the_log() {
    let dir = site();
    let text = SCANNER.replace(
        "exit $status",
        "head -c 20000000 /dev/zero | tr '\\0' x; echo >&2; exit $status",
    );
    dir.script("scan", &text);
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, COMMAND);
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
    assert!(daemon.log().len() < 100_000);
}

/// `maxDelete` is lower than the number of files that are not checked.
#[test]
fn unchecked_files_do_not_count_as_deleted() {
    let dir = site();
    for number in 0..20 {
        dir.write(format!("f{number}"), "good");
    }
    let text = config(COMMAND).replace("delay", "guard = { maxDelete = 2 }, delay");
    let mut daemon = Daemon::new(&dir, &text).start();
    daemon.wait_log("finished.");
    daemon.terminate();
    remove(&staging(&dir));
    dir.put("down", "");
    dir.rm("f0");
    let mut daemon = Daemon::new(&dir, &text).named("again").start();
    daemon.wait_log("files are held");
    daemon.wait_for("the deletion arrives", |_| !dir.trg("f0").exists());
    for number in 1..20 {
        assert!(dir.trg(format!("f{number}")).exists());
    }
    fs::remove_file(dir.path("down")).unwrap();
    sentinel(&dir, &mut daemon, "s");
}

#[test]
fn files_are_checked_without_startup_transfer_and_with_one_process() {
    let dir = site();
    dir.write("before", "EVIL");
    let text = config(COMMAND).replace("insist = true", "insist = true, maxProcesses = 1");
    let text = text.replace("delay", "init = false, delay");
    let mut daemon = Daemon::new(&dir, &text).start();
    daemon.wait_for("it watches", |_| {
        dir.write("w", "");
        dir.trg("w").exists()
    });
    sentinel(&dir, &mut daemon, "s");
    dir.mkdir("d");
    dir.write("d/f", "good");
    dir.write("d/evil", "EVIL");
    arrives(&dir, &mut daemon, "d/f", "good");
    dir.mv("d", "e");
    arrives(&dir, &mut daemon, "e/f", "good");
    daemon.signal(Signal::SIGHUP);
    dir.write("e/evil", "more EVIL");
    sentinel(&dir, &mut daemon, "s2");
    assert_clean(&dir);
}

#[test]
fn files_checked_during_a_pause_are_sent_after_it() {
    let dir = site();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    let ctl = |word: &str| {
        assert!(dir.ctl(&[word]).status().unwrap().success());
    };
    dir.put("hang", "");
    dir.write("f", "good");
    dir.write("evil", "EVIL");
    daemon.wait_for("the scanner runs", |_| !asked(&dir).is_empty());
    ctl("pause");
    fs::remove_file(dir.path("hang")).unwrap();
    daemon.wait_log("/evil was rejected");
    daemon.wait_for("it waits", |daemon| {
        let status = dir.text("status");
        assert!(!dir.trg("f").exists(), "{}", daemon.log());
        !status.contains("active")
    });
    ctl("resume");
    arrives(&dir, &mut daemon, "f", "good");
    assert_clean(&dir);
}

#[test]
fn a_source_replaced_during_a_check_is_not_sent() {
    let dir = site();
    dir.write("f", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    let inode = || dir.trg("f").metadata().map(|stat| stat.ino()).ok();
    let before = inode();
    dir.put("hang", "");
    dir.write("g", "good");
    daemon.wait_for("the scanner runs", |_| {
        asked(&dir).iter().any(|name| name == "g")
    });
    fs::rename(dir.src(""), dir.path("elsewhere")).unwrap();
    fs::create_dir(dir.src("")).unwrap();
    dir.write("evil", "EVIL");
    fs::remove_file(dir.path("hang")).unwrap();
    daemon.wait_for("the replacement is noticed", |daemon| {
        daemon.log().contains("another directory")
    });
    if daemon.log().contains("OVERFLOW") {
        return skip("the queue of fanotify, which others fill too, has overflowed");
    }
    fs::remove_dir_all(dir.src("")).unwrap();
    fs::rename(dir.path("elsewhere"), dir.src("")).unwrap();
    sentinel(&dir, &mut daemon, "s");
    assert_eq!(inode(), before);
    assert_clean(&dir);
}

#[test]
fn a_full_staging_directory_holds_only_files_that_do_not_fit() {
    let dir = site();
    let (Some(unshare), true) = (program("unshare"), nix::unistd::geteuid().is_root()) else {
        return skip("a file system of its own needs root and unshare");
    };
    fs::create_dir(dir.path("small")).unwrap();
    let mount = "mount -t tmpfs -o size=2m,mode=0700 none \"$1\" && shift && exec \"$@\"";
    let small = dir.path("small");
    let words = [
        unshare.to_str().unwrap(),
        "-m",
        "sh",
        "-c",
        mount,
        "sh",
        small.to_str().unwrap(),
    ];
    let text = config(&format!("{COMMAND}, staging = \"@DIR@/small/stage\""));
    dir.write("big", "x".repeat(3_000_000));
    dir.write("small", "good");
    dir.write("evil", "EVIL");
    let mut daemon = Daemon::new(&dir, &text).wrapped(&words).start();
    arrives(&dir, &mut daemon, "small", "good");
    daemon.wait_log("/big is held: No space left");
    dir.write("big", "not so big");
    arrives(&dir, &mut daemon, "big", "not so big");
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
}
