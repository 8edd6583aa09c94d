//! The command line: its effects, refused arguments and their messages.

use std::fs;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, begins_like};
use crate::support::fake::Fake;

/// Asserts that the arguments are refused with exactly this text after `Error: `.
fn refused(args: &[&str], text: &str) {
    let dir = Dir::new();
    dir.put("empty.lua", "");
    let ended = Daemon::bare(&dir).args(args).run();
    ended.assert_refused();
    let line = format!("Error: {}", dir.expand(text));
    let found = ended.stderr.lines().any(|said| said == line);
    assert!(
        found,
        "{args:?} does not say {line:?}:\n{}{}",
        ended.stdout, ended.stderr
    );
}

#[test]
fn an_unknown_option_is_refused() {
    refused(&["-foo"], "unknown option command line option -foo");
    refused(&["--foo"], "unknown option command line option --foo");
    refused(
        &["---rsync", "@SRC@", "@TRG@"],
        "unknown option command line option ---rsync",
    );
    refused(
        &["--delay=1"],
        "unknown option command line option --delay=1",
    );
    refused(&["-"], "unknown option command line option -");
    refused(&["--"], "unknown option command line option --");
}

#[test]
fn missing_arguments_of_options_are_refused() {
    refused(&["-rsync"], "rsync needs 2 arguments");
    refused(&["--rsync", "@SRC@"], "rsync needs 2 arguments");
    refused(
        &["-rsyncssh", "@SRC@", "host"],
        "rsyncssh needs 3 arguments",
    );
    refused(&["-direct", "@SRC@"], "direct needs 2 arguments");
    refused(&["-logfile"], "logfile needs 1 arguments");
    refused(&["-pidfile"], "pidfile needs 1 arguments");
    refused(&["-delay"], "delay needs 1 arguments");
}

#[test]
fn the_first_mistake_is_reported() {
    refused(
        &["-foo", "-rsync"],
        "unknown option command line option -foo",
    );
}

#[test]
fn a_sync_option_with_a_configuration_is_refused() {
    let text = "There cannot be command line syncs and a config file together.";
    refused(&["-rsync", "@SRC@", "@TRG@", "@DIR@/empty.lua"], text);
    refused(&["@DIR@/empty.lua", "-rsync", "@SRC@", "@TRG@"], text);
}

#[test]
fn two_configurations_are_refused() {
    let text = "There can only be one config file in the command line.";
    refused(&["@DIR@/empty.lua", "@DIR@/empty.lua"], text);
}

#[test]
fn a_missing_configuration_is_refused() {
    refused(
        &["@DIR@/none.lua"],
        "Cannot find config file at '@DIR@/none.lua'.",
    );
}

#[test]
fn an_unknown_log_category_is_refused() {
    let text = "'foo' is not a valid logging category";
    refused(&["-log", "foo", "@DIR@/empty.lua"], text);
}

#[test]
fn a_configuration_without_syncs_is_refused() {
    refused(&["-nodaemon", "@DIR@/empty.lua"], "Nothing to watch!");
}

#[test]
fn a_delay_that_is_no_number_is_refused() {
    let dir = Dir::new();
    for word in ["soon", "-1", ""] {
        let ended = Daemon::bare(&dir)
            .args(&["-nodaemon", "-delay", word, "-rsync", "@SRC@", "@TRG@"])
            .run();
        ended.assert_refused();
        assert!(ended.stderr.contains("delay"), "{word:?}: {}", ended.stderr);
    }
}

#[test]
fn version_is_printed() {
    for word in ["-version", "--version"] {
        let dir = Dir::new();
        let ended = Daemon::bare(&dir).args(&[word]).run();
        assert_eq!(ended.code(), Some(0));
        assert!(
            begins_like(&ended.stdout, "Version: 9.9.9\n"),
            "{}",
            ended.stdout
        );
        assert_eq!(ended.stdout.lines().count(), 1);
        assert_eq!(ended.stderr, "");
    }
}

#[test]
fn help_lists_all_options() {
    for args in [
        &["-help"][..],
        &["--help"],
        &[],
        &["-foo", "-help"],
        &["-version", "-help"],
    ] {
        let dir = Dir::new();
        let ended = Daemon::bare(&dir).args(args).run();
        ended.assert_refused();
        assert!(
            begins_like(&ended.stdout, "lsyncd version: 9.9.9\n"),
            "{args:?}: {}",
            ended.stdout
        );
        for option in [
            "-delay",
            "-direct",
            "-help",
            "-insist",
            "-log",
            "-logfile",
            "-nodaemon",
            "-onepass",
            "-pidfile",
            "-rsync",
            "-rsyncssh",
            "-script",
            "-sshopts",
            "-version",
        ] {
            assert!(ended.stdout.contains(option), "help lacks {option}");
        }
    }
}

#[test]
fn monitors_prints_inotify() {
    let dir = Dir::new();
    let ended = Daemon::bare(&dir).args(&["-monitor"]).run();
    ended.assert_refused();
    assert!(ended.stdout.contains("\n   inotify\n"), "{}", ended.stdout);
}

#[test]
fn rsync_and_rsyncssh_options_make_syncs() {
    let dir = Dir::new();
    dir.write("f", "1");
    fs::create_dir(dir.path("second")).unwrap();
    let mut daemon = Daemon::bare(&dir)
        .args(&["-nodaemon", "-delay", "0.3"])
        .args(&["--rsync", "@SRC@", "@TRG@", "-rsync", "@SRC@", "second"])
        .start();
    daemon.wait_same("src", "trg", false);
    daemon.wait_same("src", "second", false);
    daemon.wait_log("-> @TRG@/ finished.");
    dir.write("g", "1");
    daemon.wait_same("src", "trg", false);
    daemon.wait_same("src", "second", false);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn the_direct_option_makes_a_sync() {
    let dir = Dir::new();
    dir.write("f", "1");
    dir.mkdir("d");
    let mut daemon = Daemon::bare(&dir)
        .args(&["-nodaemon", "-delay", "0.3", "-direct", "@SRC@", "@TRG@"])
        .start();
    daemon.wait_same("src", "trg", false);
    daemon.wait_log("finished");
    dir.write("g", "1");
    daemon.wait_same("src", "trg", false);
    dir.write("d/h", "1");
    daemon.wait_same("src", "trg", false);
    dir.mv("d/h", "h");
    daemon.wait_same("src", "trg", false);
    dir.rm("d");
    dir.rm("f");
    daemon.wait_same("src", "trg", false);
}

#[test]
fn options_after_the_configuration_are_accepted() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.put(
        "config.lua",
        dir.expand(
            r#"sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 86400,
                rsync = { binary = "@RSYNC@" } }"#,
        ),
    );
    let mut daemon = Daemon::bare(&dir)
        .args(&["config.lua", "-delay", "0", "-nodaemon", "-log", "Exec"])
        .start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("the delay of the command line counts", |_| {
        fake.ended() >= 2
    });
    daemon.wait_log("Exec: @RSYNC@");
}
