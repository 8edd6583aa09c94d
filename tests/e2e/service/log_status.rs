//! Log lines and the status file, as users' tools read them.

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, begins_like};
use crate::support::fake::{Fake, RECORDED};

#[test]
fn lines_on_the_console() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    daemon.terminate();
    let out = dir.text("daemon.out");
    for line in [
        "--- Startup ---",
        "Startup of @SRC@/ -> @TRG@/ finished.",
        "--- TERM signal, fading ---",
    ] {
        let line = dir.expand(line);
        let found = out.lines().find(|text| text.ends_with(&line));
        let found = found.unwrap_or_else(|| panic!("no {line:?} in\n{out}"));
        assert!(begins_like(found, "99:99:99 Normal: "), "{found}");
    }
    assert_eq!(dir.text("daemon.err"), "");
}

#[test]
fn lines_in_a_log_file() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED)
        .args(&["-logfile", "@DIR@/log"])
        .start_and_settle();
    daemon.wait_log("finished.");
    daemon.terminate();
    let log = dir.text("log");
    let finished = dir.expand("Normal: Startup of @SRC@/ -> @TRG@/ finished.");
    for line in ["Normal: --- Startup ---", finished.as_str()] {
        let found = log.lines().find(|text| text.ends_with(line));
        let found = found.unwrap_or_else(|| panic!("no {line:?} in\n{log}"));
        assert!(
            begins_like(
                found,
                "Aaa Aaa _9 99:99:99 9999 Normal: "
                    .replace('a', "A")
                    .as_str()
            ),
            "{found}"
        );
    }
}

#[test]
fn log_lines_of_a_batch() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_log("Normal: Calling rsync with filter-list of new/modified files/dirs\n/f\n/\n");
    daemon.wait_log("Normal: Finished a list after exitcode: 0\n");
}

#[test]
fn log_lines_of_the_startup() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    daemon.wait_log("Normal: recursive full rsync: @SRC@/ -> @TRG@/\n");
}

#[test]
fn log_lines_of_a_retry() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_log("Normal: Retrying a list after exitcode = 12\n");
}

#[test]
fn errors_go_to_standard_error() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 1]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_end();
    let err = dir.text("daemon.err");
    let last = err.lines().last().unwrap_or_default();
    assert!(
        begins_like(last, "99:99:99 Error: Critical exitcode."),
        "{err}"
    );
}

/// logrotate moves the file away.
#[test]
fn a_log_file_that_is_moved_away_is_made_again() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED)
        .args(&["-logfile", "@DIR@/log"])
        .start_and_settle();
    std::fs::rename(dir.path("log"), dir.path("log.1")).unwrap();
    dir.write("f", "1");
    daemon.wait_for("a new log file is written", |_| {
        dir.text("log").contains("Finished a list")
    });
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error() {
    let dir = Dir::new();
    Fake::new(&dir);
    let ended = Daemon::new(&dir, RECORDED)
        .args(&["-logfile", "@DIR@/no/log"])
        .run();
    ended.assert_refused();
    let text = dir.expand("Cannot open logfile [@DIR@/no/log]!");
    assert!(ended.stderr.contains(&text), "{}", ended.stderr);
}

#[test]
fn log_scarce_omits_normal_messages() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED)
        .args(&["-log", "scarce"])
        .start();
    daemon.wait_for("startup transfer", |_| fake.ended() >= 1);
    dir.write("f", "1");
    daemon.wait_for("a batch", |_| fake.ended() >= 2);
    assert_eq!(daemon.terminate(), Some(143));
    assert!(!daemon.log().contains("Normal"), "{}", daemon.log());
}

#[test]
fn log_exec_shows_each_command() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED)
        .args(&["-log", "Exec"])
        .start_and_settle();
    daemon.wait_log("Exec: @RSYNC@ [--delete] [--ignore-errors] ");
    daemon.wait_log(" [-r] [@SRC@/] [@TRG@/]");
}

// ---- status file

#[test]
fn status_file_of_an_idle_daemon() {
    let dir = Dir::new();
    Fake::new(&dir);
    dir.mkdir("d");
    let config =
        r#"settings{ watch = "inotify", statusFile = "@DIR@/status", statusInterval = 0 }"#
            .to_owned();
    let mut daemon = Daemon::new(&dir, &(config + RECORDED)).start_and_settle();
    let expected = "\n\nSync1 source=@SRC@/\nThere are 0 delays\nFiltering:\n  nothing.\n\n\n\
        Inotify watching 2 directories\n";
    let expected = dir.expand(expected);
    let mut status = String::new();
    daemon.wait_for(&format!("the status file has {expected:?}"), |_| {
        status = dir.text("status");
        status.contains(&expected) && status.ends_with('\n') && status.matches(": ").count() == 2
    });
    let shape = "Lsyncd status report at AAA AAA _9 99:99:99 9999\n\n";
    assert!(begins_like(&status, shape), "{status}");
    for watched in ["@SRC@/", "@SRC@/d/"] {
        let (line, path) = (r"  9: ", dir.expand(watched));
        let found = status
            .lines()
            .any(|said| begins_like(said, line) && said[line.len()..] == path);
        assert!(found, "{path} is not among the watches:\n{status}");
    }
}

#[test]
fn status_file_lists_waiting_delays() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = r#"
settings{ watch = "inotify", statusFile = "@DIR@/status", statusInterval = 1 }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 86400,
    rsync = { binary = "@RSYNC@" },
}
"#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    dir.mkdir("a");
    dir.mkdir("b c");
    let expected = "There are 2 delays\nwait   Create /a/\nwait   Create /b c/\nFiltering:\n";
    daemon.wait_for(&format!("the status file has {expected:?}"), |_| {
        let status = dir.text("status");
        status.contains(expected) && status.contains("Inotify watching 3 directories\n")
    });
}

#[test]
fn status_file_lists_running_transfers() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = r#"settings{ statusFile = "@DIR@/status", statusInterval = 0 }"#.to_owned();
    let mut daemon = Daemon::new(&dir, &(config + RECORDED)).start_and_settle();
    fake.hold();
    dir.mkdir("a");
    daemon.wait_for("the transfer is shown", |_| {
        // It is compared if a transfer may still have been running when it was created.
        let text = dir.text("status");
        text.contains("active Create /a/\n") || text.contains("active Delete /a/\n")
    });
    fake.release();
    daemon.wait_for("nothing is left", |_| {
        dir.text("status").contains("There are 0 delays\n")
    });
}

#[test]
fn status_file_lists_filters() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = r#"
settings{ statusFile = "@DIR@/status", statusInterval = 0 }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 1, filter = { "- /a", "+ b" },
    rsync = { binary = "@RSYNC@" },
}
"#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    daemon.wait_for("both are listed", |_| {
        dir.text("status").contains("Filtering:\n- /a\n+ b\n\n\n")
    });
}

#[test]
fn status_file_that_cannot_be_written_does_not_end_the_daemon() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = r#"settings{ statusFile = "@DIR@/no/status", statusInterval = 0 }"#.to_owned();
    let mut daemon = Daemon::new(&dir, &(config + RECORDED)).start_and_settle();
    daemon.wait_log("Error: Cannot open status file \"@DIR@/no/status\" :");
    dir.write("f", "1");
    daemon.wait_for("changes are sent nevertheless", |_| fake.ended() >= 2);
}

/// Characters that change the direction of text make a name look like another one.
#[test]
fn names_that_turn_the_text_around_are_escaped_everywhere() {
    let dir = Dir::new();
    let config = r#"
        settings{ statusFile = "@DIR@/status", statusInterval = 0 }
        sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = DELAY }
    "#;
    let name = "a\u{202e}b\u{2066}c\u{200f}d\u{61c}.gpj";
    let shown = r"/a\342\200\256b\342\201\246c\342\200\217d\330\234.gpj";
    for (status, delay) in [
        ("status", "100000"),
        ("status.json", "100000"),
        ("status", "0.2"),
    ] {
        let config = config.replace("@DIR@/status", &format!("@DIR@/{status}"));
        let mut daemon = Daemon::new(&dir, &config.replace("DELAY", delay))
            .args(&["-log", "Delay"])
            .start_and_settle();
        dir.write(name, delay);
        daemon.wait_log(shown);
        if delay == "100000" {
            // JSON doubles a backslash.
            let shown = match status {
                "status" => shown.to_owned(),
                _ => shown.replace('\\', r"\\"),
            };
            daemon.wait_for("the name in the status", |_| {
                dir.text(status).contains(&shown)
            });
        } else {
            daemon.wait_equal();
        }
        daemon.terminate();
        for text in [daemon.log(), dir.text(status)] {
            assert!(text.is_ascii(), "{text}");
        }
        dir.rm(name);
    }
}

#[test]
fn names_with_control_bytes_do_not_reach_the_log_as_they_are() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f\x1b[31m\n09:09:09 Error: forged", "1");
    daemon.wait_for("it was sent", |_| fake.ended() >= 2);
    daemon.terminate();
    let log = daemon.log();
    assert!(!log.contains('\x1b'), "{log:?}");
    assert!(
        !log.lines().any(|line| line.starts_with("09:09:09 Error")),
        "{log:?}"
    );
}

#[test]
fn paths_with_control_bytes_do_not_reach_the_log_as_they_are() {
    for (kind, target) in [
        ("default.rsync", "target = PATH"),
        ("default.rsync", "targets = { PATH }"),
        ("default.rsyncssh", "host = 'h', targetdir = PATH"),
        ("default.direct", "target = PATH"),
        ("onStartup = 'true'", "target = PATH"),
    ] {
        let dir = Dir::new();
        Fake::new(&dir);
        let name = "s\n09:09:09 Error: forged\u{1b}[31m\n";
        dir.mkdir(name);
        let path = format!("[==[\n@SRC@/{name}]==]");
        let target = target.replace("PATH", &path.replace("@SRC@", "@TRG@"));
        let options = kind
            .starts_with("default")
            .then_some("rsync = { binary = '@RSYNC@' },");
        let options = options
            .filter(|_| kind != "default.direct")
            .unwrap_or_default();
        let config = format!("sync{{ {kind}, source = {path}, {options} {target} }}");
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("Startup of");
        daemon.wait_log("finished");
        daemon.terminate();
        let log = daemon.log();
        assert!(!log.contains('\x1b'), "{kind} {log:?}");
        let is_forged = |line: &str| line.starts_with("09:09:09 Error");
        assert!(!log.lines().any(is_forged), "{kind} {log:?}");
    }
}

#[test]
fn lines_of_the_json_log() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = format!("settings{{ logformat = \"json\", logfile = \"@DIR@/log\" }}\n{RECORDED}");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.write("a \"b\"", "1");
    daemon.wait_log("Finished a list after exitcode: 0");
    daemon.terminate();
    for name in ["log", "daemon.out"] {
        let text = dir.text(name);
        let messages = text.lines().map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            assert_eq!(object.as_object().unwrap().len(), 3);
            assert!(object["time"].as_str().unwrap().contains('T'));
            assert_eq!(object["category"], "Normal");
            object["message"].as_str().unwrap().to_owned()
        });
        let messages: Vec<String> = messages.collect();
        assert_eq!(messages[0], "--- Startup ---");
        let list = "Calling rsync with filter-list of new/modified files/dirs\n/a \"b\"\n/";
        assert!(messages.iter().any(|text| text == list), "{messages:?}");
    }
}
