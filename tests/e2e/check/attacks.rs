//! Malicious files from a user who knows how the gate works.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{
    COMMAND, Daemon, SCANNER, arrives, asked, assert_clean, config, sentinel, site, start,
};
use crate::support::dir::{Dir, remove};

/// Sets a time in the past, which no change gets by itself.
fn set_time(path: &Path) {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(then)).unwrap();
}

fn write_like_before(dir: &Dir, name: &str, content: &str) {
    dir.write(name, content);
    set_time(&dir.src(name));
}

fn ctl(dir: &Dir, words: &[&str]) {
    assert!(dir.ctl(words).status().unwrap().success());
}

/// Size and time of the files do not differ.
#[test]
fn a_rejected_file_with_the_size_and_time_of_a_passed_one_is_not_sent() {
    let dir = site();
    for place in ["d", "e"] {
        dir.mkdir(place);
        write_like_before(&dir, &format!("{place}/f"), "GOOD");
    }
    write_like_before(&dir, "f", "GOOD");
    write_like_before(&dir, "g", "GOOD");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    write_like_before(&dir, "f", "EVIL");
    let other = dir.put("other", "EVIL");
    set_time(&other);
    fs::rename(other, dir.src("g")).unwrap();
    // The directories differ in the contents of their files only.
    fs::create_dir(dir.path("d2")).unwrap();
    set_time(&dir.put("d2/f", "EVIL"));
    fs::rename(dir.src("d"), dir.path("d-away")).unwrap();
    fs::rename(dir.path("d2"), dir.src("d")).unwrap();
    sentinel(&dir, &mut daemon, "s");
    // A change of attributes only, then a full comparison.
    dir.chmod("f", 0o600);
    ctl(&dir, &["resync"]);
    sentinel(&dir, &mut daemon, "s2");
    assert_clean(&dir);
    // A harmless change of that kind is sent.
    write_like_before(&dir, "e/f", "FINE");
    arrives(&dir, &mut daemon, "e/f", "FINE");
    daemon.terminate();
    let mut daemon = Daemon::new(&dir, &config(COMMAND)).named("again").start();
    daemon.wait_log("finished.");
    sentinel(&dir, &mut daemon, "s3");
    assert_clean(&dir);
}

/// The kernel reports no change through a name outside of the source.
#[test]
fn a_change_through_a_hard_link_outside_is_not_sent() {
    let dir = site();
    let outside = dir.put("outside", "GOOD");
    set_time(&outside);
    fs::hard_link(&outside, dir.src("f")).unwrap();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    fs::write(&outside, "EVIL").unwrap();
    set_time(&outside);
    dir.chmod("f", 0o640);
    dir.hard_link("f", "g");
    dir.mv("f", "h");
    sentinel(&dir, &mut daemon, "s");
    ctl(&dir, &["resync"]);
    sentinel(&dir, &mut daemon, "s2");
    assert_clean(&dir);
    assert!(!dir.trg("g").exists() && !dir.trg("h").exists());
}

/// The file type of a path changes between any two reads.
#[test]
fn changes_of_the_file_type_send_nothing_rejected() {
    let dir = site();
    dir.write("x", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    let outside = dir.put("outside", "EVIL");
    let outside = outside.as_os_str().as_encoded_bytes().to_vec();
    for round in 0..4 {
        let steps: [&dyn Fn(); 6] = [
            &|| mkfifo(&dir.src("x"), Mode::S_IRWXU).unwrap(),
            &|| {
                dir.mkdir("x");
                dir.write("x/evil", "EVIL");
            },
            &|| dir.symlink(&outside, "x"),
            &|| dir.write("x", "EVIL"),
            &|| fs::hard_link(dir.path("outside"), dir.src("x")).unwrap(),
            &|| {
                dir.mkdir("x");
                dir.mkdir("x/x");
                dir.write("x/x/x", "EVIL");
            },
        ];
        for (at, step) in steps.iter().enumerate() {
            remove(&dir.src("x"));
            step();
            if (at + round) % 3 == 0 {
                sentinel(&dir, &mut daemon, &format!("s{round}-{at}"));
                assert_clean(&dir);
            }
        }
    }
    remove(&dir.src("x"));
    dir.write("x", "good again");
    arrives(&dir, &mut daemon, "x", "good again");
    assert_clean(&dir);
}

#[test]
fn odd_sizes_modes_and_names_do_not_pass_the_check() {
    let dir = site();
    let longest = "l".repeat(255);
    dir.write("empty", "");
    dir.write("mode0", "EVIL");
    dir.chmod("mode0", 0);
    dir.write("setuid", "EVIL");
    dir.chmod("setuid", 0o4755);
    dir.write(&longest, "EVIL");
    let sparse = File::create(dir.src("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"EVIL", 2_500_000).unwrap();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    arrives(&dir, &mut daemon, "empty", "");
    dir.append("empty", "EVIL");
    sentinel(&dir, &mut daemon, "s");
    for name in ["mode0", "setuid", "sparse", &longest] {
        assert!(!dir.trg(name).exists(), "{name}");
    }
    assert_eq!(fs::read(dir.trg("empty")).unwrap(), b"");
    dir.write(&longest, "good");
    arrives(&dir, &mut daemon, &longest, "good");
    assert_clean(&dir);
}

/// A check function, which decides about many files in a short time.
const QUICK: &str = r#"{ function(path, copy)
    local file = io.open(copy) local text = file:read("a") file:close()
    return not text:find("EVIL"), "evil" end }"#;

/// The filter rules that protect the older versions are too long for an argument list.
#[test]
fn older_versions_of_rejected_files_with_long_names_stay() {
    let dir = site();
    let above = vec!["d".repeat(250); 10].join("/");
    fs::create_dir_all(dir.src(&above)).unwrap();
    fs::create_dir_all(dir.trg(&above)).unwrap();
    let name = |number: usize| format!("{above}/{number:03}{}", "e".repeat(247));
    for number in 0..900 {
        dir.write(name(number), "EVIL");
    }
    for number in [0, 899] {
        fs::write(dir.trg(name(number)), "older").unwrap();
    }
    let mut daemon = Daemon::new(&dir, &super::with_check(QUICK)).start();
    sentinel(&dir, &mut daemon, "s");
    dir.rm("s");
    dir.write("s2", "");
    arrives(&dir, &mut daemon, "s2", "");
    for number in [0, 899] {
        assert_eq!(fs::read(dir.trg(name(number))).unwrap(), b"older");
    }
    assert_clean(&dir);
}

/// While more than 1,000 files on the target would have to be protected, nothing is deleted.
#[test]
fn deletions_wait_while_too_many_files_are_rejected() {
    let dir = site();
    for name in ["gone", "stays"] {
        dir.write(name, "good");
    }
    let mut daemon = Daemon::new(&dir, &super::with_check(QUICK)).start();
    daemon.wait_log("finished.");
    dir.mkdir("d");
    for number in 0..1001 {
        dir.write(format!("d/evil{number}"), "EVIL");
    }
    sentinel(&dir, &mut daemon, "s");
    dir.rm("gone");
    sentinel(&dir, &mut daemon, "s2");
    dir.rm("d/evil7");
    daemon.wait_for("it is deleted", |_| !dir.trg("gone").exists());
    assert!(dir.trg("stays").exists());
    assert_clean(&dir);
}

/// A check function may reject one name of a file and accept another.
#[test]
fn each_name_of_a_file_is_checked() {
    let dir = site();
    dir.write("a.exe", "good");
    let check = r#"function(path) return not path:match("%.exe$"), "no programs" end"#;
    let mut daemon = Daemon::new(&dir, &super::with_check(check)).start();
    daemon.wait_log("/a.exe was rejected");
    daemon.wait_log("finished.");
    dir.hard_link("a.exe", "b.txt");
    arrives(&dir, &mut daemon, "b.txt", "good");
    dir.hard_link("b.txt", "c.exe");
    sentinel(&dir, &mut daemon, "s");
    ctl(&dir, &["resync"]);
    dir.mv("b.txt", "d.exe");
    daemon.wait_for("it is deleted", |_| !dir.trg("b.txt").exists());
    dir.mv("c.exe", "e.txt");
    arrives(&dir, &mut daemon, "e.txt", "good");
    for name in ["a.exe", "c.exe", "d.exe"] {
        assert!(!dir.trg(name).exists(), "{name}");
    }
}

/// Each step replaces a harmless file by a malicious one and that by a harmless one.
#[test]
fn renames_over_a_passed_file_send_nothing_rejected() {
    let dir = site();
    dir.write("good", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    dir.write("evil", "EVIL");
    for round in 0..10 {
        dir.mv("evil", "good");
        dir.hard_link("good", "evil");
        dir.write("tmp", "good");
        dir.mv("tmp", "good");
        if round % 3 == 0 {
            sentinel(&dir, &mut daemon, &format!("s{round}"));
        }
    }
    arrives(&dir, &mut daemon, "good", "good");
    sentinel(&dir, &mut daemon, "s");
    assert!(!dir.trg("evil").exists());
    assert_clean(&dir);
}

#[test]
fn quarantine_takes_long_names_and_removes_permissions() {
    let dir = site();
    fs::create_dir(dir.path("jail")).unwrap();
    let name = "q".repeat(255);
    let words = r#"onReject = "quarantine", quarantine = "@DIR@/jail""#;
    let mut daemon = start(&dir, &format!("{COMMAND}, {words}"));
    daemon.wait_log("finished.");
    for round in 0..2 {
        dir.write(&name, "EVIL");
        dir.chmod(&name, 0o4755);
        daemon.wait_for("the source loses it", |_| !dir.src(&name).exists());
        let jailed = || fs::read_dir(dir.path("jail")).unwrap();
        assert_eq!(jailed().count(), round + 1);
        for entry in jailed().flatten() {
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o7777,
                0o600
            );
        }
    }
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
}

#[test]
fn an_overflow_sends_nothing_rejected() {
    let dir = site();
    dir.write("f", "good");
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    daemon.stop();
    dir.overflow_queue();
    dir.write("f", "EVIL");
    dir.write("evil", "EVIL");
    dir.write("good", "good");
    daemon.cont();
    daemon.wait_log("OVERFLOW");
    arrives(&dir, &mut daemon, "good", "good");
    sentinel(&dir, &mut daemon, "s");
    assert_clean(&dir);
    assert!(asked(&dir).contains(&"evil".to_owned()));
}

/// The path is longer than a system call accepts, and the tree is moved in at once.
#[test]
fn a_rejected_file_below_a_very_deep_directory_is_not_sent() {
    let dir = site();
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    let name = "d".repeat(100);
    let chain = |to: &str, depth: usize| {
        // Built from the innermost directory outwards, so that no path is too long.
        let place = |name: &str| dir.path(name);
        fs::create_dir(place("inner")).unwrap();
        fs::write(place("inner/evil"), "EVIL").unwrap();
        for _ in 0..depth {
            fs::create_dir(place("outer")).unwrap();
            fs::rename(place("inner"), place(&format!("outer/{name}"))).unwrap();
            fs::rename(place("outer"), place("inner")).unwrap();
        }
        fs::rename(place("inner"), place(to)).unwrap();
    };
    chain("src/deep", 45);
    sentinel(&dir, &mut daemon, "s");
    fs::rename(dir.src("deep"), dir.path("away")).unwrap();
    daemon.wait_for("the target loses it", |_| !dir.trg("deep").exists());
    sentinel(&dir, &mut daemon, "s2");
    assert_clean(&dir);
}

/// A copy that the scanner has changed is not the file that was checked.
#[test]
fn a_scanner_that_changes_the_copies_lets_nothing_pass() {
    for meddling in [
        r#"rm -f -- "$@""#,
        r#"for file; do rm -f -- "$file"; mkdir "$file"; done"#,
        r#"for file; do echo EVIL > "$file"; done"#,
        r#"for file; do echo EVIL > "$file.new"; mv "$file.new" "$file"; done"#,
    ] {
        let dir = site();
        dir.script("scan", &format!("{meddling}\n"));
        dir.write("f", "good");
        let mut daemon = start(&dir, COMMAND);
        daemon.wait_log("files are held");
        daemon.wait_log("finished.");
        dir.script("scan", SCANNER);
        arrives(&dir, &mut daemon, "f", "good");
        assert_clean(&dir);
    }
}
