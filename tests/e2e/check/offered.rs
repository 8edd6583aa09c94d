//! Malicious files that appear in the source in various ways.

use std::fs;

use super::{COMMAND, SCANNER, arrives, asked, assert_clean, config, sentinel, site, start};
use crate::support::daemon::Daemon;
use crate::support::dir;

#[test]
fn rejected_files_are_not_sent_at_startup() {
    let dir = site();
    dir.mkdir("d");
    dir.write("good", "1");
    dir.write("evil", "EVIL");
    dir.write("d/evil", "an EVIL one");
    dir.write("d/good", "2");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    arrives(&dir, &mut daemon, "good", "1");
    arrives(&dir, &mut daemon, "d/good", "2");
    assert!(!dir.trg("evil").exists() && !dir.trg("d/evil").exists());
    assert_clean(&dir);
}

#[test]
fn older_versions_of_rejected_files_stay_on_the_target() {
    let dir = site();
    dir.mkdir("d");
    dir.write("d/f", "EVIL");
    fs::create_dir(dir.trg("d")).unwrap();
    fs::write(dir.trg("d/f"), "older").unwrap();
    fs::write(dir.trg("d/stale"), "x").unwrap();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    assert!(!dir.trg("d/stale").exists());
    assert_eq!(fs::read(dir.trg("d/f")).unwrap(), b"older");
    dir.append("d/f", "EVIL again");
    sentinel(&dir, &mut daemon, "d/s");
    assert_eq!(fs::read(dir.trg("d/f")).unwrap(), b"older");
    dir.write("d/f", "harmless now");
    arrives(&dir, &mut daemon, "d/f", "harmless now");
    dir.write("d/f", "EVIL");
    sentinel(&dir, &mut daemon, "d/s2");
    assert_eq!(fs::read(dir.trg("d/f")).unwrap(), b"harmless now");
    dir.rm("d/f");
    daemon.wait_for("the file is deleted", |_| !dir.trg("d/f").exists());
}

#[test]
fn written_and_growing_files_are_checked() {
    let dir = site();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.write("new", "EVIL");
    dir.write("grows", "harmless ");
    arrives(&dir, &mut daemon, "grows", "harmless ");
    dir.append("grows", "EVIL");
    sentinel(&dir, &mut daemon, "s");
    arrives(&dir, &mut daemon, "grows", "harmless ");
    assert!(!dir.trg("new").exists());
    assert_clean(&dir);
}

/// The scanner itself changes the file while it reads the copy.
#[test]
fn a_change_between_check_and_transfer_is_not_sent() {
    let dir = site();
    let turncoat = SCANNER.replace(
        "status=0\n",
        "status=0\ntest -e @SRC@/turncoat && printf EVIL > @SRC@/turncoat\n",
    );
    dir.script("scan", &turncoat);
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.write("turncoat", "harmless");
    arrives(&dir, &mut daemon, "turncoat", "harmless");
    daemon.wait_log("/turncoat was rejected");
    assert_eq!(fs::read(dir.trg("turncoat")).unwrap(), b"harmless");
}

#[test]
fn renamed_and_linked_files_are_checked() {
    let dir = site();
    let outside = dir.put("outside", "EVIL");
    fs::create_dir(dir.path("tree")).unwrap();
    dir.put("tree/evil", "EVIL");
    dir.put("tree/good", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    fs::hard_link(&outside, dir.src("linked")).unwrap();
    dir.symlink(outside.as_os_str().as_encoded_bytes(), "symlink");
    fs::rename(dir.path("tree"), dir.src("tree")).unwrap();
    arrives(&dir, &mut daemon, "tree/good", "good");
    fs::rename(&outside, dir.src("renamed")).unwrap();
    dir.mv("renamed", "renamed-again");
    dir.mv("tree", "tree2");
    arrives(&dir, &mut daemon, "tree2/good", "good");
    sentinel(&dir, &mut daemon, "s");
    for name in [
        "linked",
        "renamed",
        "renamed-again",
        "tree2/evil",
        "tree/evil",
    ] {
        assert!(!dir.trg(name).exists(), "{name}");
    }
    // A symlink is sent as a symlink.
    assert!(
        fs::symlink_metadata(dir.trg("symlink"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn a_directory_replaced_by_a_symlink_sends_nothing_unchecked() {
    let dir = site();
    dir.mkdir("d");
    dir.write("d/f", "good");
    fs::create_dir(dir.path("other")).unwrap();
    dir.put("other/f", "EVIL");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.mv("d", "e");
    dir.symlink(dir.path("other").as_os_str().as_encoded_bytes(), "d");
    arrives(&dir, &mut daemon, "e/f", "good");
    daemon.wait_for("a symlink", |_| {
        fs::symlink_metadata(dir.trg("d")).is_ok_and(|stat| stat.is_symlink())
    });
    dir.rm("d");
    dir.mkdir("d");
    sentinel(&dir, &mut daemon, "d/s");
    assert!(!dir.trg("d/f").exists());
}

const NAMES: [&[u8]; 9] = [
    b"-rf",
    b"--files-from=x",
    b"a b\"'$(touch x)`;",
    b"new\nline",
    b"st*r[a]?\\",
    b"\xff\xfe",
    b"#hash",
    b"...",
    b"{}",
];

#[test]
fn files_with_hostile_names_are_checked() {
    for check in [
        COMMAND,
        r#"command = { "xargs", "-0", "@DIR@/scan123" }, stdin = true"#,
    ] {
        let dir = site();
        // xargs exits with 123 if a command has failed.
        dir.script("scan123", "@DIR@/scan \"$@\"\n");
        let check = if check.contains("stdin") {
            format!("{check}, reject = {{ 123 }}")
        } else {
            check.to_owned()
        };
        dir.mkdir("evil");
        dir.mkdir("good");
        let offer = |place: &str, content: &str| {
            for name in NAMES {
                dir.write([place.as_bytes(), b"/", name].concat(), content);
            }
        };
        offer("evil", "EVIL");
        // The target has older versions: the patterns must match them and no other names.
        fs::create_dir(dir.trg("evil")).unwrap();
        for name in NAMES {
            fs::write(dir.trg([b"evil/", name].concat()), "older").unwrap();
        }
        fs::write(dir.trg("evil/stxrax"), "stale").unwrap();
        let mut daemon = Daemon::new(&dir, &config(&check)).start();
        daemon.wait_log("finished.");
        assert!(!dir.trg("evil/stxrax").exists());
        offer("good", "good");
        offer("evil", "more EVIL");
        for name in NAMES {
            daemon.wait_for("all arrive", |_| {
                fs::read(dir.trg([b"good/", name].concat())).is_ok_and(|found| found == b"good")
            });
        }
        sentinel(&dir, &mut daemon, "s");
        for name in NAMES {
            let found = fs::read(dir.trg([b"evil/", name].concat())).unwrap();
            assert_eq!(found, b"older", "{}", name.escape_ascii());
        }
        assert_clean(&dir);
    }
}

#[test]
fn renamed_and_unchanged_files_are_not_checked_again() {
    let dir = site();
    dir.mkdir("d");
    dir.write("d/f", "once");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.mv("d/f", "d/g");
    arrives(&dir, &mut daemon, "d/g", "once");
    dir.mv("d", "e");
    arrives(&dir, &mut daemon, "e/g", "once");
    dir.chmod("e/g", 0o640);
    sentinel(&dir, &mut daemon, "s");
    assert_eq!(asked(&dir), ["f", "s"]);
    daemon.terminate();
    let mut daemon = Daemon::new(&dir, &config(COMMAND)).named("again").start();
    daemon.wait_log("finished.");
    dir.mv("e/g", "h");
    arrives(&dir, &mut daemon, "h", "once");
    assert_eq!(asked(&dir), ["f", "s"]);
    // With other keys in `check`, everything is checked again.
    daemon.terminate();
    let other = config(&format!("{COMMAND}, parallel = 1"));
    let mut daemon = Daemon::new(&dir, &other).named("third").start();
    daemon.wait_log("finished.");
    assert_eq!(asked(&dir).len(), 4);
    assert!(dir::poll(|| dir.trg("h").exists()));
}
