//! `-preview` reports what the first transfer would send, change and delete, and changes nothing.

use std::fs;

use crate::support::daemon::{Daemon, Ended};
use crate::support::dir::Dir;
use crate::support::script::SSH;
use crate::support::tree;

fn preview(dir: &Dir, config: &str, words: &[&str]) -> Ended {
    dir.put("config.lua", dir.expand(config));
    let before = tree::read(dir.root());
    let ended = Daemon::bare(dir)
        .fake_first()
        .named("preview")
        .args(&["-preview", "@DIR@/config.lua"])
        .args(words)
        .run();
    for name in ["preview.out", "preview.err"] {
        let _ = fs::remove_file(dir.path(name));
    }
    // The output files change the times of their directory, so attributes are not compared.
    let left = tree::without_attributes(tree::read(dir.root()));
    let difference = tree::difference(&tree::without_attributes(before), &left);
    assert_eq!(difference, "", "the preview changed something");
    ended
}

/// Returns a source and a target with differences of all kinds.
fn differing() -> Dir {
    let dir = Dir::new();
    dir.mkdir("new");
    dir.write("new/f", "12345");
    dir.write("changed", "123");
    dir.write("skipped.tmp", "x");
    fs::create_dir_all(dir.trg("gone")).unwrap();
    dir.put("trg/changed", "1");
    dir.put("trg/gone/f", "1");
    dir.put("trg/kept.tmp", "1");
    dir
}

const CONFIG: &str = r#"
settings { logfile = "@DIR@/log", statusFile = "@DIR@/status", pidfile = "@DIR@/pid" }
sync { KIND, name = "web", source = "@SRC@", TARGET, exclude = { "*.tmp" } OPTIONS }
"#;

fn config(kind: &str, target: &str, options: &str) -> String {
    CONFIG
        .replace("KIND", kind)
        .replace("TARGET", target)
        .replace("OPTIONS", options)
}

const FOUND: &str = "    new        2, 5 B
                 new/
                 new/f
    changed    1, 3 B
                 changed
";

const DELETED: &str = "    DELETE     2
                 gone/f
                 gone/
";

#[test]
fn a_target_with_equal_files_and_times_needs_no_transfer() {
    let dir = Dir::new();
    dir.mkdir("d");
    dir.write("d/f", "12345");
    dir.write("g", "1");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([dir.src("."), dir.path("copy")])
        .status();
    assert!(copied.unwrap().success());
    let preview = |target: &str| preview(&dir, &config("default.rsync", target, ""), &[]).stdout;
    let copy = preview("target = '@DIR@/copy'");
    assert!(copy.contains("the target has everything"), "{copy}");
    let empty = preview("target = '@TRG@'");
    assert!(!empty.contains("the target has everything"), "{empty}");
}

#[test]
fn rsync_targets_are_previewed_by_a_dry_run() {
    let dir = differing();
    for options in [
        "",
        ", rsync = { quiet = true, _extra = { '--log-file=@DIR@/l' } }",
    ] {
        let ended = preview(
            &dir,
            &config("default.rsync", "target = '@TRG@'", options),
            &[],
        );
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains(FOUND), "{}", ended.stdout);
        assert!(ended.stdout.contains(DELETED), "{}", ended.stdout);
        assert!(!ended.stdout.contains(".tmp"), "{}", ended.stdout);
        let last = ended.stdout.lines().last().unwrap_or_default();
        assert!(last.starts_with("Nothing was changed. 1 sync: "), "{last}");
        assert!(last.ends_with(" to send (8 B), 2 to delete."), "{last}");
    }
    let kept = config("default.rsync", "target = '@TRG@'", ", delete = false");
    let ended = preview(&dir, &kept, &[]);
    assert!(ended.stdout.contains(FOUND), "{}", ended.stdout);
    assert!(!ended.stdout.contains("DELETE"), "{}", ended.stdout);
}

#[test]
fn direct_targets_are_previewed_without_rsync() {
    let dir = differing();
    let ended = preview(&dir, &config("default.direct", "target = '@TRG@'", ""), &[]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for part in ["new/f", "changed    1, 3 B", "DELETE     2", "gone/f"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains(".tmp"), "{}", ended.stdout);
    // A target that does not exist is created with everything.
    let absent = config("default.direct", "target = '@DIR@/absent'", "");
    let ended = preview(&dir, &absent, &[]);
    assert!(
        ended.stdout.contains("new        3, 8 B"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("DELETE"), "{}", ended.stdout);
}

#[test]
fn each_target_is_previewed_over_ssh() {
    let dir = differing();
    dir.script("bin/ssh", SSH);
    let one = config("default.rsyncssh", "host = 'host', targetdir = '@TRG@'", "");
    let ended = preview(&dir, &one, &[]);
    assert!(
        ended.stdout.contains(FOUND),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    assert!(ended.stdout.contains(DELETED), "{}", ended.stdout);

    let two = config(
        "default.rsync",
        "targets = { 'host:@TRG@', '@DIR@/absent' }",
        "",
    );
    let ended = preview(&dir, &two, &["-json"]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(answer["ok"], true);
    let counts = |number: usize, kind: &str| answer["syncs"][number][kind]["count"].as_u64();
    assert_eq!(
        (counts(0, "deleted"), counts(1, "deleted")),
        (Some(2), Some(0))
    );
    assert_eq!(answer["syncs"][0]["deleted"]["paths"][0], "gone/f");
    assert_eq!(answer["syncs"][1]["new"]["bytes"], 8);
}

#[test]
fn an_unreachable_target_is_a_failure_with_a_remedy() {
    let dir = differing();
    dir.script(
        "bin/ssh",
        "echo 'Host key verification failed.' >&2\nexit 255\n",
    );
    let failing = config("default.rsync", "targets = { 'h:@TRG@', '@TRG@' }", "");
    let ended = preview(&dir, &failing, &[]);
    assert_eq!(ended.status.code(), Some(255));
    for part in [
        "ERROR      Host key verification failed.",
        "remedy     log in once",
        "1 failed",
        FOUND,
    ] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
}

#[test]
fn names_beyond_the_first_ten_are_listed_with_all() {
    let dir = Dir::new();
    for number in 10..32 {
        dir.write(format!("f{number}"), "1");
    }
    let one = config("default.rsync", "target = '@TRG@'", "");
    let ended = preview(&dir, &one, &[]);
    assert!(
        ended.stdout.contains(" more (-all lists them)"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("f31"), "{}", ended.stdout);
    let ended = preview(&dir, &one, &["-all"]);
    assert!(ended.stdout.contains("f31"), "{}", ended.stdout);
}

#[test]
fn a_guard_is_reported_and_user_functions_are_not_run() {
    let dir = differing();
    let limit = config(
        "default.rsync",
        "target = '@TRG@'",
        ", guard = { maxDelete = 1 }",
    );
    let ended = preview(&dir, &limit, &[]);
    let expected = "GUARD      the guard would halt the sync: 2 deletions are more than 1";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);

    let own = "sync { source = '@SRC@', onStartup = 'touch @DIR@/run', onCreate = 'true' }
               sync { default.rsync, source = '@SRC@', target = '@TRG@',
                      init = function(event) os.execute('touch @DIR@/run') end }";
    let ended = preview(&dir, own, &[]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let untold = ended.stdout.matches("unknown    no preview: ").count();
    assert_eq!(untold, 2, "{}", ended.stdout);
}

#[test]
fn a_check_is_not_run_and_its_files_count_as_sent() {
    let dir = differing();
    let checked = config(
        "default.rsync",
        "target = '@TRG@'",
        ", check = { command = { 'touch', '@DIR@/scanned' } }",
    );
    let ended = preview(&dir, &checked, &[]);
    assert!(
        ended.stdout.contains(FOUND),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
}
