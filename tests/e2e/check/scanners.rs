//! Scanners that fail: nothing unchecked is sent, and everything continues when they recover.

use std::fs;

use super::{COMMAND, arrives, asked, assert_clean, sentinel, site, start, with_check};
use super::{Daemon, SCANNER};

#[test]
fn files_are_held_until_a_failing_scanner_recovers() {
    let dir = site();
    dir.put("down", "");
    dir.mkdir("d");
    dir.write("d/evil", "EVIL");
    dir.write("d/good", "good");
    dir.symlink("good", "d/l");
    fs::create_dir(dir.trg("d")).unwrap();
    fs::write(dir.trg("d/good"), "older").unwrap();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("files are held as they could not be checked");
    daemon.wait_log("finished.");
    // Symlinks need no check.
    assert!(fs::symlink_metadata(dir.trg("d/l")).is_ok());
    assert_eq!(fs::read(dir.trg("d/good")).unwrap(), b"older");
    daemon.wait_for("the status says why", |_| {
        dir.text("status")
            .contains("Held: /d/good: the scanner failed with exit code 2: cannot")
    });
    fs::remove_file(dir.path("down")).unwrap();
    arrives(&dir, &mut daemon, "d/good", "good");
    daemon.wait_log("/d/evil was rejected: Evil.Test FOUND");
    assert!(!dir.text("status").contains("Held:"));
    assert_clean(&dir);
}

#[test]
fn deletions_continue_while_the_scanner_fails() {
    let dir = site();
    dir.write("gone", "1");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.put("down", "");
    dir.write("evil", "EVIL");
    dir.write("late", "good");
    daemon.wait_log("files are held");
    dir.rm("gone");
    daemon.wait_for("the deletion arrives", |_| !dir.trg("gone").exists());
    assert!(!dir.trg("late").exists());
    fs::remove_file(dir.path("down")).unwrap();
    arrives(&dir, &mut daemon, "late", "good");
    assert_clean(&dir);
}

#[test]
fn a_hanging_scanner_is_ended() {
    let dir = site();
    dir.put("hang", "");
    dir.write("f", "good");
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, &format!("{COMMAND}, timeout = 0.3"));
    daemon.wait_log("the scanner took too long");
    daemon.wait_log("finished.");
    assert!(!dir.trg("f").exists());
    fs::remove_file(dir.path("hang")).unwrap();
    arrives(&dir, &mut daemon, "f", "good");
    assert_clean(&dir);
}

#[test]
fn a_hanging_scanner_does_not_delay_the_stop() {
    let dir = site();
    dir.put("hang", "");
    dir.write("f", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_for("the scanner runs", |_| !asked(&dir).is_empty());
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn files_are_held_while_the_scanner_cannot_be_executed_or_is_killed() {
    for text in ["#!/no/such/interpreter\n", "kill -9 $$\n"] {
        let dir = site();
        dir.script("scan", text);
        dir.write("f", "good");
        let mut daemon = start(&dir, COMMAND);
        daemon.wait_log("/f is held: the scanner");
        daemon.wait_log("finished.");
        assert!(!dir.trg("f").exists());
        dir.script("scan", SCANNER);
        arrives(&dir, &mut daemon, "f", "good");
    }
}

#[test]
fn a_file_that_the_scanner_fails_at_does_not_hold_up_others() {
    let dir = site();
    let text = SCANNER.replace(
        "status=0\n",
        "status=0\nfor file; do grep -q POISON -- \"$file\" && exit 2; done\n",
    );
    dir.script("scan", &text);
    dir.write("poison", "POISON");
    for number in 0..100 {
        dir.write(format!("good{number}"), "good");
    }
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    for number in 0..100 {
        arrives(&dir, &mut daemon, &format!("good{number}"), "good");
    }
    assert!(!dir.trg("poison").exists());
    assert_clean(&dir);
}

#[test]
fn several_checks_run_in_order() {
    let dir = site();
    dir.write("a.exe", "good");
    dir.write("evil", "EVIL");
    dir.write("good", "good");
    dir.write("fails", "good");
    let check = r#"{
      function(path, copy)
        if path:match("fails$") and not io.open("@DIR@/mended") then error("broken") end
        if path == "@SRC@/a.exe" then return false, "no programs" end
        return io.open(copy):read("a") ~= nil
      end,
      { command = { "@DIR@/scan" } },
    }"#;
    let mut daemon = Daemon::new(&dir, &with_check(check)).start();
    daemon.wait_log("finished.");
    daemon.wait_log("/a.exe was rejected: no programs");
    daemon.wait_log("/fails is held: the function failed");
    arrives(&dir, &mut daemon, "good", "good");
    let mut names = asked(&dir);
    names.sort();
    names.dedup();
    assert_eq!(names, ["evil", "good"]);
    dir.put("mended", "");
    arrives(&dir, &mut daemon, "fails", "good");
    sentinel(&dir, &mut daemon, "s");
    assert!(!dir.trg("a.exe").exists());
    assert_clean(&dir);
}
