//! One check for many targets: they share the staged tree.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::sys::signal::Signal;

use super::{COMMAND, asked, assert_clean_in};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Returns a directory with both stand-ins and this number of targets, `t1`, `t2` and so on.
pub fn site(targets: usize) -> Dir {
    let dir = super::site();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/bin/target-rsync"
    );
    symlink(script, dir.path("bin/rsync")).unwrap();
    for number in 1..=targets {
        fs::create_dir_all(dir.path(format!("t{number}"))).unwrap();
    }
    dir
}

pub const SETTINGS: &str =
    "settings{ hup = 'changed', insist = true, stopTimeout = 1, controlSocket = '@DIR@/sock' }\n";

pub fn sync(place: &str, more: &str) -> String {
    format!(
        "sync{{ default.rsync, source = '@SRC@', {place}, delay = 0.2, {more},
           rsync = {{ binary = '@RSYNC@', archive = true, checksum = true }} }}\n"
    )
}

pub fn targets(numbers: impl IntoIterator<Item = usize>) -> String {
    let targets = numbers.into_iter().map(|n| format!("'@DIR@/t{n}',"));
    format!(
        "name = 'web', targets = {{ {} }}",
        targets.collect::<String>()
    )
}

pub fn checked(check: &str) -> String {
    format!("check = {{ {check} }}")
}

pub fn start<'d>(dir: &'d Dir, numbers: impl IntoIterator<Item = usize>) -> Running<'d> {
    let text = SETTINGS.to_owned() + &sync(&targets(numbers), &checked(COMMAND));
    Daemon::new(dir, &text).start()
}

pub fn arrives(
    dir: &Dir,
    daemon: &mut Running<'_>,
    numbers: impl IntoIterator<Item = usize>,
    (name, content): (&str, &str),
) {
    for number in numbers {
        let path = dir.path(format!("t{number}/{name}"));
        daemon.wait_for(&format!("t{number}/{name} has {content}"), |_| {
            fs::read(&path).is_ok_and(|found| found == content.as_bytes())
        });
    }
}

fn asked_about(dir: &Dir, name: &str) -> usize {
    asked(dir).iter().filter(|asked| *asked == name).count()
}

fn staged_trees(dir: &Dir) -> usize {
    let entries = fs::read_dir(dir.root()).unwrap().flatten();
    let is_tree = |name: &str| name.starts_with(".src.checked-");
    let trees = entries.filter(|entry| is_tree(&entry.file_name().to_string_lossy()));
    trees.count()
}

pub fn retry(dir: &Dir) {
    ctl(dir, &["retry"]);
}

fn resync(dir: &Dir, sync: &str) {
    ctl(dir, &["resync", "-sync", &dir.expand(sync)]);
}

fn ctl(dir: &Dir, words: &[&str]) {
    assert!(dir.ctl(words).status().unwrap().success());
}

#[test]
fn one_scan_serves_all_targets() {
    let dir = site(5);
    dir.write("before", "1");
    let mut daemon = start(&dir, 1..=5);
    arrives(&dir, &mut daemon, 1..=5, ("before", "1"));
    // It appears with its contents: a scan between two steps would check files twice.
    dir.mkdir("d");
    dir.put("new", "2");
    fs::rename(dir.path("new"), dir.src("d/new")).unwrap();
    arrives(&dir, &mut daemon, 1..=5, ("d/new", "2"));
    dir.mv("d/new", "d/newer");
    dir.rm("before");
    dir.write("evil", "EVIL");
    daemon.wait_log("was rejected");
    for number in 1..=5 {
        daemon.wait_for(&format!("t{number} is current"), |_| {
            let there = |name| dir.path(format!("t{number}/{name}")).exists();
            there("d/newer") && !there("d/new") && !there("before")
        });
        assert_clean_in(&dir, &format!("t{number}"));
    }
    for name in ["before", "new"] {
        assert_eq!(asked_about(&dir, name), 1, "{name}: {:?}", asked(&dir));
    }
    assert_eq!(daemon.log().matches("was rejected").count(), 1);
    assert_eq!(staged_trees(&dir), 1);
    assert_eq!(daemon.terminate(), Some(143));
}

/// The filter or the check of the other syncs differs.
#[test]
fn separate_syncs_share_a_scan_if_source_and_check_are_equal() {
    let dir = site(4);
    dir.write("f", "1");
    dir.write("g.tmp", "2");
    let place = |number| format!("target = '@DIR@/t{number}'");
    let check = checked(COMMAND);
    let other = checked(&format!("{COMMAND}, reject = {{ 1, 3 }}"));
    let text = [
        SETTINGS.to_owned(),
        sync(&place(1), &check),
        sync(&place(2), &format!("{check}, exclude = {{ '*.tmp' }}")),
        sync(&place(3), &check).replace("delay = 0.2", "delay = 0.1"),
        sync(&place(4), &other),
    ];
    let mut daemon = Daemon::new(&dir, &text.concat()).start();
    arrives(&dir, &mut daemon, 1..=4, ("f", "1"));
    arrives(&dir, &mut daemon, [1, 3, 4], ("g.tmp", "2"));
    assert!(!dir.path("t2/g.tmp").exists());
    assert_eq!(staged_trees(&dir), 3);
    assert_eq!((asked_about(&dir, "f"), asked_about(&dir, "g.tmp")), (3, 2));
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn a_check_function_is_called_once_for_all_targets() {
    let dir = site(3);
    dir.write("f", "1");
    dir.write("g.exe", "2");
    let check = r#"check = function(path, copy)
        local out = io.open("@DIR@/asked", "a"); out:write(path, "\n"); out:close()
        if path:match("%.exe$") then return false, "no programs" end
        return true
    end"#;
    let text = SETTINGS.to_owned() + &sync(&targets(1..=3), check);
    let mut daemon = Daemon::new(&dir, &text).start();
    arrives(&dir, &mut daemon, 1..=3, ("f", "1"));
    dir.write("h", "3");
    arrives(&dir, &mut daemon, 1..=3, ("h", "3"));
    let paths = asked(&dir);
    let count = |name: &str| paths.iter().filter(|path| path.ends_with(name)).count();
    assert_eq!([count("/f"), count("/h"), count("/g.exe")], [1, 1, 1]);
    assert!((1..=3).all(|number| !dir.path(format!("t{number}/g.exe")).exists()));
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn dead_and_slow_targets_hold_up_no_other_and_get_nothing_rejected() {
    let dir = site(4);
    dir.write("same", "harmless");
    let mut daemon = start(&dir, 1..=4);
    arrives(&dir, &mut daemon, 1..=4, ("same", "harmless"));
    dir.put("t1.dead", "");
    dir.put("t2.held", "");
    for round in 0..4 {
        let name = format!("new{round}");
        dir.write(&name, "x");
        arrives(&dir, &mut daemon, 3..=4, (&name, "x"));
    }
    // The change is pending for both targets.
    dir.write("same", "EVIL");
    dir.write("late", "y");
    arrives(&dir, &mut daemon, 3..=4, ("late", "y"));
    fs::remove_file(dir.path("t2.held")).unwrap();
    arrives(&dir, &mut daemon, [2], ("late", "y"));
    fs::remove_file(dir.path("t1.dead")).unwrap();
    retry(&dir);
    arrives(&dir, &mut daemon, [1], ("late", "y"));
    for number in 1..=4 {
        arrives(&dir, &mut daemon, [number], ("same", "harmless"));
        assert_clean_in(&dir, &format!("t{number}"));
    }
    assert_eq!(asked_about(&dir, "new0"), 1, "{:?}", asked(&dir));
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn all_targets_wait_for_a_failing_scanner() {
    let dir = site(3);
    dir.write("f", "1");
    let mut daemon = start(&dir, 1..=3);
    arrives(&dir, &mut daemon, 1..=3, ("f", "1"));
    dir.put("down", "");
    dir.write("g", "2");
    dir.write("evil", "EVIL");
    daemon.wait_log("web/");
    daemon.wait_log("are held as they could not be checked");
    dir.rm("f");
    for number in 1..=3 {
        let file = dir.path(format!("t{number}/f"));
        daemon.wait_for("deletions continue", |_| !file.exists());
    }
    fs::remove_file(dir.path("down")).unwrap();
    retry(&dir);
    arrives(&dir, &mut daemon, 1..=3, ("g", "2"));
    for number in 1..=3 {
        assert_clean_in(&dir, &format!("t{number}"));
    }
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn delete_target_deletes_on_all_targets_and_reports_once() {
    for (on_reject, stays) in [("'delete-target'", true), ("'quarantine'", false)] {
        let dir = site(3);
        fs::create_dir(dir.path("jail")).unwrap();
        dir.write("f", "1");
        let more = format!("{COMMAND}, onReject = {on_reject}, quarantine = '@DIR@/jail'");
        let text = SETTINGS.to_owned() + &sync(&targets(1..=3), &checked(&more));
        let mut daemon = Daemon::new(&dir, &text).start();
        arrives(&dir, &mut daemon, 1..=3, ("f", "1"));
        dir.write("f", "EVIL");
        for number in 1..=3 {
            let file = dir.path(format!("t{number}/f"));
            daemon.wait_for(&format!("t{number} loses it"), |_| !file.exists());
        }
        assert_eq!(dir.src("f").exists(), stays);
        assert_eq!(dir.path("jail/f").exists(), !stays);
        let told = daemon
            .log()
            .matches("/f was rejected: Evil.Test FOUND")
            .count();
        assert_eq!(told, 1, "{}", daemon.log());
        assert_eq!(daemon.terminate(), Some(143));
    }
}

#[test]
fn a_target_that_joins_needs_no_scan() {
    let dir = site(4);
    dir.write("f", "1");
    dir.write("evil", "EVIL");
    let mut daemon = start(&dir, 1..=2);
    arrives(&dir, &mut daemon, 1..=2, ("f", "1"));
    let before = asked_about(&dir, "f");
    // The first target, which owned the gate, is removed.
    let text = SETTINGS.to_owned() + &sync(&targets(2..=4), &checked(COMMAND));
    dir.put("config.lua", dir.expand(&text));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("1 untouched, 0 changed, 2 new, 1 removed");
    arrives(&dir, &mut daemon, 2..=4, ("f", "1"));
    assert_eq!(asked_about(&dir, "f"), before, "{:?}", asked(&dir));
    assert_eq!(staged_trees(&dir), 1);
    dir.write("g", "2");
    arrives(&dir, &mut daemon, 2..=4, ("g", "2"));
    assert_eq!(asked_about(&dir, "g"), 1);

    // Another check makes another tree in the same directory.
    let check = checked("command = { '@DIR@/scan' }, reject = { 1, 3 }");
    let text = SETTINGS.to_owned() + &sync(&targets(2..=4), &check);
    dir.put("config.lua", dir.expand(&text));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("0 untouched, 3 changed, 0 new, 0 removed");
    daemon.wait_for("it is asked again", |_| asked_about(&dir, "f") > before);
    dir.write("h", "3");
    arrives(&dir, &mut daemon, 2..=4, ("h", "3"));
    assert_eq!(staged_trees(&dir), 1);
    for number in 1..=4 {
        assert_clean_in(&dir, &format!("t{number}"));
    }
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn two_different_checks_cannot_share_a_staging_directory() {
    let dir = site(2);
    let place = |number, scan: &str| {
        let check = format!("command = {{ '{scan}' }}, staging = '@DIR@/stage'");
        sync(&format!("target = '@DIR@/t{number}'"), &checked(&check))
    };
    let text = place(1, "a") + &place(2, "b");
    let mut daemon = Daemon::new(&dir, &text).start();
    assert!(!daemon.wait_end().success());
    let log = daemon.log();
    assert!(
        log.contains("check.staging is used by sync \"Sync1\""),
        "{log}"
    );
}

/// The reload replaces the staged tree from which a transfer is reading.
#[test]
fn a_reload_during_a_transfer_loses_no_file() {
    let function = r#"check = function(path, copy)
        local file = io.open(copy); local text = file:read("a"); file:close()
        return not text:find("EVIL"), "evil"
    end"#;
    let command = checked(COMMAND);
    let other = checked(&format!("{COMMAND}, reject = {{ 1, 3 }}"));
    for (before, after) in [(function, function), (&command, &other)] {
        let dir = site(2);
        dir.write("f", "1");
        let config = |check: &str| SETTINGS.to_owned() + &sync(&targets(1..=2), check);
        let mut daemon = Daemon::new(&dir, &config(before)).start();
        arrives(&dir, &mut daemon, 1..=2, ("f", "1"));
        let inode = |number| {
            fs::metadata(dir.path(format!("t{number}/f")))
                .map(|f| f.ino())
                .ok()
        };
        let inodes = [inode(1), inode(2)];
        // The first target gets a full comparison.
        dir.put("t1.held", "");
        let calls = || dir.text("t1.calls").lines().count();
        let count = calls();
        resync(&dir, "web/@DIR@/t1");
        daemon.wait_for("a transfer", |_| calls() > count);
        // The new checks fail until the transfer has ended.
        dir.put("config.lua", dir.expand(&config(after)));
        dir.put("down", "");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_log("0 untouched, 2 changed, 0 new, 0 removed");
        dir.write("evil", "EVIL");
        fs::remove_file(dir.path("t1.held")).unwrap();
        daemon.wait_for("the next transfer", |_| calls() > count + 1);
        assert_eq!([inode(1), inode(2)], inodes);
        fs::remove_file(dir.path("down")).unwrap();
        dir.write("g", "2");
        arrives(&dir, &mut daemon, 1..=2, ("g", "2"));
        assert_eq!([inode(1), inode(2)], inodes);
        (1..=2).for_each(|number| assert_clean_in(&dir, &format!("t{number}")));
        assert_eq!(daemon.terminate(), Some(143));
    }
}

/// Other keys of a target do not prevent the sharing.
#[test]
fn targets_with_other_filters_share_no_scan() {
    let dir = site(4);
    dir.write("f", "1");
    dir.write("g.tmp", "2");
    let list = "name = 'web', targets = { '@DIR@/t1', { target = '@DIR@/t2', delay = 0.1 },
        { target = '@DIR@/t3', exclude = { '*.tmp' } },
        { target = '@DIR@/t4', check = { command = { '@DIR@/scan' }, reject = { 1, 3 } } } }";
    let text = SETTINGS.to_owned() + &sync(list, &checked(COMMAND));
    let mut daemon = Daemon::new(&dir, &text).start();
    arrives(&dir, &mut daemon, 1..=4, ("f", "1"));
    arrives(&dir, &mut daemon, [1, 2, 4], ("g.tmp", "2"));
    dir.write("evil", "EVIL");
    dir.write("h", "3");
    arrives(&dir, &mut daemon, 1..=4, ("h", "3"));
    assert!(!dir.path("t3/g.tmp").exists());
    assert_eq!(staged_trees(&dir), 3);
    assert_eq!((asked_about(&dir, "f"), asked_about(&dir, "g.tmp")), (3, 2));
    (1..=4).for_each(|number| assert_clean_in(&dir, &format!("t{number}")));
    assert_eq!(daemon.terminate(), Some(143));
}

/// The symlink leads to a directory that contains other files.
#[test]
fn an_exchanged_symlink_above_the_staging_directory_sends_nothing_unchecked() {
    let dir = site(1);
    for name in ["safe", "theirs"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    symlink(dir.path("safe"), dir.path("link")).unwrap();
    let check = checked(&format!("{COMMAND}, staging = '@DIR@/link/stage'"));
    let text = SETTINGS.to_owned() + &sync("target = '@DIR@/t1'", &check);
    let mut daemon = Daemon::new(&dir, &text).start();
    dir.write("f", "1");
    arrives(&dir, &mut daemon, [1], ("f", "1"));
    fs::create_dir_all(dir.path("theirs/stage/tree")).unwrap();
    dir.put("theirs/stage/tree/f", "EVIL");
    fs::remove_file(dir.path("link")).unwrap();
    symlink(dir.path("theirs"), dir.path("link")).unwrap();
    dir.write("f", "2");
    arrives(&dir, &mut daemon, [1], ("f", "2"));
    resync(&dir, "Sync1");
    dir.write("g", "3");
    arrives(&dir, &mut daemon, [1], ("g", "3"));
    assert_clean_in(&dir, "t1");
    assert_eq!(daemon.terminate(), Some(143));
}
