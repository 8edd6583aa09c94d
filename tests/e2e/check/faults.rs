//! What breaks while files are checked: nothing unchecked leaves, nothing is lost for good.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;

use super::{
    COMMAND, Daemon, SCANNER, arrives, asked, assert_clean, config, script, sentinel, site, start,
};
use crate::support::dir::{Dir, program, remove, skip};

/// The private directory.
fn staging(dir: &Dir) -> std::path::PathBuf {
    let entries = fs::read_dir(dir.root()).unwrap().flatten();
    let mut paths = entries.map(|entry| entry.path());
    let found = paths.find(|path| path.to_string_lossy().contains("/.src.checked-"));
    found.expect("a private directory")
}

#[test]
fn killed_in_the_middle_and_started_again() {
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
    // Nothing is left of the copies that were being checked.
    let incoming = staging(&dir).join("incoming");
    daemon.wait_for("no copies", |_| {
        fs::read_dir(&incoming).unwrap().next().is_none()
    });
}

/// Who removes it while the daemon runs has all checked again, as it is needed.
#[test]
fn the_private_directory_is_removed() {
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

/// One directory that cannot be read, for a daemon that is not all-powerful.
#[test]
fn a_directory_cannot_be_read() {
    let Some(setpriv) = program("setpriv") else {
        return skip("no setpriv");
    };
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
        let setpriv = setpriv.to_str().unwrap();
        let powerless = [setpriv, "--bounding-set", "-dac_override,-dac_read_search"];
        let mut daemon = Daemon::new(&dir, &config(COMMAND))
            .wrapped(&powerless)
            .start();
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

/// Its child keeps the output open; nobody waits for that.
#[test]
fn a_scanner_leaves_something_behind() {
    let dir = site();
    let text = SCANNER.replace("status=0\n", "status=0\nsleep 1000 &\n");
    script(&dir, "scan", &text);
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, COMMAND);
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
}

#[test]
fn a_scanner_talks_without_end() {
    let dir = site();
    let text = SCANNER.replace(
        "exit $status",
        "head -c 20000000 /dev/zero | tr '\\0' x; echo >&2; exit $status",
    );
    script(&dir, "scan", &text);
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, COMMAND);
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
    assert!(daemon.log().len() < 100_000);
}

/// With a limit for deletions nothing that only is not checked yet counts as deleted.
#[test]
fn all_has_to_be_checked_again_while_the_scanner_is_down() {
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
fn without_startup_and_with_one_process_only() {
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

/// What has been checked while the sync was paused waits like everything else.
#[test]
fn paused_while_it_checks() {
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

/// Another directory comes in place of the source while files are being checked.
#[test]
fn the_source_is_replaced() {
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
    daemon.wait_log("is another directory");
    fs::remove_dir_all(dir.src("")).unwrap();
    fs::rename(dir.path("elsewhere"), dir.src("")).unwrap();
    sentinel(&dir, &mut daemon, "s");
    assert_eq!(inode(), before);
    assert_clean(&dir);
}

#[test]
fn the_place_for_copies_is_full() {
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
