//! Options of full comparisons only: `--no-inc-recursive` and `startup = { rsync }`.

use std::fs;

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;

/// The arguments of the rsync calls for a startup and one change.
struct Calls {
    startup: String,
    batch: String,
}

impl Calls {
    fn have(&self, word: &str) -> (bool, bool) {
        let word = format!("[{word}]");
        (self.startup.contains(&word), self.batch.contains(&word))
    }
}

/// Starts a daemon with this number of directories, then changes a file.
fn calls(directories: usize, target: &str, rsync: &str, keys: &str) -> Calls {
    let dir = Dir::new();
    dir.script("ssh", "shift\nexec \"$@\"\n");
    dir.script("wrapper", "exec rsync \"$@\"\n");
    // The source itself counts.
    for number in 1..directories {
        fs::create_dir(dir.path(format!("src/{number}"))).unwrap();
    }
    let config = format!(
        r#"sync{{ default.rsync, source = "@SRC@", target = "{target}", delay = 0, {keys}
            rsync = {{ rsh = "@DIR@/ssh", archive = true, {rsync} }} }}"#
    );
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "Exec"]).start();
    daemon.wait_log("finished");
    dir.write("sign", "sign");
    daemon.wait_for("the change arrives", |_| dir.trg("sign").exists());
    let log = daemon.log();
    let mut lines = log.lines().filter(|line| line.contains("Exec: "));
    Calls {
        startup: lines.next().unwrap().to_owned(),
        batch: lines.next().unwrap().to_owned(),
    }
}

const FLAT: &str = "--no-inc-recursive";

#[test]
fn a_big_source_is_listed_before_it_is_compared_over_a_network() {
    assert_eq!(calls(1001, "h:@TRG@", "", "").have(FLAT), (true, false));
    assert_eq!(calls(1000, "h:@TRG@", "", "").have(FLAT), (false, false));
    assert_eq!(calls(1001, "@TRG@", "", "").have(FLAT), (false, false));
}

#[test]
fn incremental_recursion_is_as_configured() {
    let with = |directories, rsync: &str| calls(directories, "h:@TRG@", rsync, "").have(FLAT);
    assert_eq!(with(1001, "inc_recursive = true"), (false, false));
    assert_eq!(with(2, "inc_recursive = false"), (true, false));
    let own = "_extra = { '--inc-recursive' }, inc_recursive = false";
    assert_eq!(with(1001, own), (false, false));
    let wrapper = "binary = '@DIR@/wrapper', inc_recursive = false";
    assert_eq!(with(1001, wrapper), (false, false));
}

#[test]
fn startup_options_are_for_full_comparisons_only() {
    let changes =
        "startup = { rsync = { bwlimit = 9999, perms = false, _extra = { '--stats' } } },";
    let calls = calls(
        2,
        "@TRG@",
        "bwlimit = 8888, _extra = { '--fuzzy' }",
        changes,
    );
    assert_eq!(calls.have("--bwlimit=9999"), (true, false));
    assert_eq!(calls.have("--bwlimit=8888"), (false, true));
    assert_eq!(calls.have("--stats"), (true, false));
    assert_eq!(calls.have("--fuzzy"), (true, true));
    assert_eq!(calls.have("-glostD"), (true, false));
    assert_eq!(calls.have("-glopstD"), (false, true));
}

/// In a batch, rsync would delete everything that is not listed.
#[test]
fn excluded_files_are_deleted_by_comparisons_of_everything_only() {
    let extra = "_extra = { '--delete-excluded' },";
    for (rsync, keys) in [
        (extra.to_owned(), String::new()),
        (format!("{extra} list = 'filter'"), String::new()),
        (format!("{extra} binary = '@DIR@/wrapper'"), String::new()),
        (
            String::new(),
            format!("startup = {{ rsync = {{ {extra} }} }},"),
        ),
    ] {
        let calls = calls(2, "@TRG@", &rsync, &format!("exclude = '*.x', {keys}"));
        let seen = calls.have("--delete-excluded");
        assert_eq!(seen, (true, false), "{rsync} {keys}");
    }
    let dir = Dir::new();
    dir.mkdir("d");
    dir.write("d/f", "1");
    dir.put("trg/b.x", "1");
    let config = format!(
        "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', exclude = '*.x', delay = 0,
           rsync = {{ list = 'filter', {extra} }} }}"
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_log("finished");
    assert!(!dir.trg("b.x").exists());
    dir.write("new", "1");
    daemon.wait_log("Finished a list");
    assert!(dir.trg("new").exists() && dir.trg("d/f").exists());
}

#[test]
fn mistakes_in_startup_options_are_reported() {
    for (keys, text) in [
        ("startup = { rsync = { checksums = true } },", "checksum"),
        ("startup = { rsync = { bwlimit = true } },", "bwlimit"),
        ("startup = { delay = 3 },", "startup.delay"),
        ("rsync = { inc_recursive = 'no' },", "inc_recursive"),
        (
            "check = { command = { '/bin/true' } }, startup = { rsync = { copy_links = true } },",
            "rsync.copy_links cannot be combined with check",
        ),
    ] {
        let dir = Dir::new();
        let config =
            format!(r#"sync{{ default.rsync, source = "@SRC@", target = "@TRG@", {keys} }}"#);
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(ended.stderr.contains(text), "{keys}: {}", ended.stderr);
    }
}

/// Log, status and metrics contain the progress; the lines of rsync are not logged.
#[test]
fn the_progress_of_a_long_comparison_is_reported() {
    let dir = Dir::new();
    for number in 0..1100 {
        dir.mkdir(format!("d{number}"));
    }
    for number in 0..40 {
        dir.write(format!("d{number}/f"), "x".repeat(100_000));
    }
    let config = r#"
        settings{ statusFile = "@DIR@/status", statusInterval = 1 }
        sync{ default.rsync, source = "@SRC@", target = "@TRG@", rsync = { archive = true, bwlimit = 150 } }
    "#;
    let mut daemon = Daemon::new(&dir, config).args(&["-log", "Exec"]).start();
    daemon.wait_for("the status shows the progress", |_| {
        let status = dir.text("status");
        status.contains("entries compared") && status.contains("left")
    });
    daemon.wait_log("Sync1: comparing everything, ");
    let log = daemon.log();
    assert!(log.contains(" entries compared, "), "{log}");
    assert!(log.contains("--info=progress2"), "{log}");
    assert!(!log.contains("to-chk"), "{log}");
    daemon.terminate();
}

/// If options of the user affect rsync's output, no option is added.
#[test]
fn user_options_about_output_are_kept() {
    let dir = Dir::new();
    for number in 0..1100 {
        dir.mkdir(format!("d{number}"));
    }
    for (own, asks) in [
        ("", true),
        ("verbose = true", false),
        ("_extra = { '--info=name' }", false),
    ] {
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', rsync = {{ archive = true, {own} }} }}"
        );
        let mut daemon = Daemon::new(&dir, &config)
            .args(&["-log", "Exec"])
            .start_and_settle();
        assert_eq!(daemon.log().contains("progress2"), asks, "{own}");
        daemon.terminate();
    }
}
