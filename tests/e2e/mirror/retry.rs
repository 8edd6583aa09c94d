//! Exit codes and signals of rsync, and what follows.

use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::fake::{Fake, RECORDED};

/// Asserts that the list of the second call, which fails, is sent again.
fn sent_again(prepare: impl Fn(&Fake<'_>)) {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    prepare(&fake);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("the change was sent", |_| fake.ended() >= 2);
    assert!(fake.calls()[1].lists("/f"));
    daemon.wait_for("it was sent again", |_| {
        fake.calls().iter().skip(2).any(|call| call.lists("/f"))
    });
}

/// Asserts that this code of the second call ends the daemon.
fn ends_the_daemon(code: u8) {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, code]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    assert_eq!(daemon.wait_end().code(), Some(255), "{}", daemon.log());
    assert!(daemon.log().contains("Error: "), "{}", daemon.log());
}

macro_rules! codes {
    ($check:ident: $($test:ident $code:expr,)*) => {
        $(#[test]
        fn $test() {
            $check($code);
        })*
    };
}

codes! { ends_the_daemon:
    exit_1_ends_the_daemon 1,
    exit_2_ends_the_daemon 2,
    exit_4_ends_the_daemon 4,
    exit_25_ends_the_daemon 25,
}

fn again(code: u8) {
    sent_again(|fake| fake.exits(&[0, code, 0]));
}

codes! { again:
    exit_3_is_sent_again 3,
    exit_5_is_sent_again 5,
    exit_10_is_sent_again 10,
    exit_11_is_sent_again 11,
    exit_12_is_sent_again 12,
    exit_23_is_sent_again 23,
    exit_30_is_sent_again 30,
    exit_255_is_sent_again 255,
}

#[test]
fn killed_transfer_is_sent_again() {
    sent_again(|fake| fake.signals(&[0, 9, 0]));
}

#[test]
fn terminated_transfer_is_sent_again() {
    sent_again(|fake| fake.signals(&[0, 15, 0]));
}

/// Exit code 24: files vanished after they were listed.
#[test]
fn exit_24_is_a_success() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 24, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("the change was sent", |_| fake.ended() >= 2);
    dir.write("g", "1");
    daemon.wait_for("a later change is sent", |_| fake.ended() >= 3);
    let calls = fake.calls();
    assert!(calls[2].lists("/g") && !calls[2].lists("/f"));
}

#[test]
fn a_retry_includes_later_changes() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 12, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).start_and_settle();
    dir.write("f", "1");
    daemon.wait_for("the change was sent", |_| fake.ended() >= 2);
    dir.write("g", "1");
    daemon.wait_for("both were sent after the failures", |_| {
        let calls = fake.calls();
        ["/f", "/g"].iter().all(|name| {
            calls
                .iter()
                .skip(3)
                .any(|call| call.done && call.lists(name))
        })
    });
}

#[test]
fn failing_startup_ends_the_daemon() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[12]);
    let ended = Daemon::new(&dir, RECORDED).run();
    ended.assert_refused();
    let text = "Error: Temporary or permanent failure on startup";
    assert!(ended.stderr.contains(text), "{}", ended.stderr);
    assert_eq!(fake.calls().len(), 1);
}

#[test]
fn failing_startup_is_retried_with_insist() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[12, 0]);
    let config = format!("settings{{ insist = true }}\n{RECORDED}");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    assert_eq!(fake.ended(), 2);
    daemon.wait_log("Retrying startup of @SRC@/ -> @TRG@/: 12");
    dir.write("f", "1");
    daemon.wait_for("a change is sent", |_| fake.ended() >= 3);
}

#[test]
fn killed_startup_is_retried_with_insist() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.signals(&[9, 0]);
    let mut daemon = Daemon::new(&dir, RECORDED).args(&["-insist"]).start();
    daemon.wait_for("the startup was retried", |_| fake.ended() >= 2);
    let first = &fake.calls()[0];
    assert_eq!(first.argv[1..], fake.calls()[1].argv[1..]);
    daemon.wait_log("finished.");
}

#[test]
fn a_missing_rsync_ends_the_daemon() {
    let dir = Dir::new();
    let config = RECORDED.replace("@RSYNC@", "@DIR@/no-such-program");
    let ended = Daemon::new(&dir, &config).run();
    assert_eq!(ended.code(), Some(255));
    let text = ended.stdout + &ended.stderr;
    assert!(
        text.contains(&dir.expand("@DIR@/no-such-program")),
        "{text}"
    );
}

/// `onepass` ends after the startup transfers of all syncs.
#[test]
fn onepass_ends_with_zero() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    std::fs::create_dir(dir.path("second")).unwrap();
    dir.write("f", "1");
    let second = RECORDED.replace("@TRG@", "@DIR@/second");
    let config = format!("settings{{ onepass = true }}\n{RECORDED}{second}");
    let ended = Daemon::new(&dir, &config).run();
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(fake.ended(), 2);
    assert!(dir.trg("f").exists() && dir.path("second/f").exists());
}

/// `onepass` does not wait for a source, a target or a release that may never come. The other syncs
/// are completed.
#[test]
fn onepass_ends_with_a_failure_if_a_guard_stops_a_sync() {
    for (guard, why) in [
        ("{ marker = '.here' }", "the source does not contain .here"),
        ("{ maxDelete = 1 }", "2 entries would be deleted"),
    ] {
        for kind in ["rsync", "direct"] {
            let dir = Dir::new();
            std::fs::create_dir(dir.path("second")).unwrap();
            dir.write("f", "1");
            for name in ["old", "older"] {
                std::fs::write(dir.trg(name), "x").unwrap();
            }
            let config = format!(
                "settings{{ onepass = true }}
                sync{{ default.{kind}, source = '@SRC@', target = '@TRG@', guard = {guard} }}
                sync{{ default.{kind}, source = '@SRC@', target = '@DIR@/second' }}"
            );
            let ended = Daemon::new(&dir, &config).run();
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert_eq!(ended.code(), Some(255), "{said}");
            assert!(said.contains(why) && said.contains("not started"), "{said}");
            assert!(dir.trg("old").exists() && dir.path("second/f").exists());
        }
    }
}

#[test]
fn output_of_rsync_is_in_the_log_with_the_name_of_its_sync() {
    let dir = Dir::new();
    let config = r#"
settings{ logfile = "@DIR@/log" }
sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = { verbose = true } }
"#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    dir.write("a-name-to-be-found", "1");
    daemon.wait_for("the log file names the file and the sync", |_| {
        dir.text("log")
            .lines()
            .any(|line| line.contains("Sync1") && line.contains("a-name-to-be-found"))
    });
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_end().code(), Some(143));
}

/// The directory on the target has contents without events, which the classic list alone would
/// never delete.
#[test]
fn a_directory_on_the_target_is_replaced_by_a_file() {
    let config = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.2,
    rsync = { list = "filter" },
}
"#;
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    std::fs::create_dir(dir.trg("f")).unwrap();
    std::fs::write(dir.trg("f/x"), "old").unwrap();
    dir.write("f", "new");
    daemon.wait_equal();
}

/// Code 0 is a success unless the table says otherwise.
#[test]
fn a_table_without_zero_leaves_success_what_it_is() {
    for sync in [
        "default.rsync, target = '@TRG@', exitcodes = { [23] = 'again' }",
        "default.direct, target = '@TRG@', exitcodes = { [23] = 'again' }",
        "default.rsyncssh, host = 'h', targetdir = '/t', rsyncExitCodes = { [1] = 'again' }",
        "onCreate = 'true', onModify = 'true', exitcodes = { [1] = 'again' }",
    ] {
        let dir = Dir::new();
        Fake::new(&dir);
        let config = format!("sync{{ {sync}, source = '@SRC@', delay = 0 }}");
        let mut daemon = Daemon::new(&dir, &config)
            .fake_first()
            .args(&["-log", "all"])
            .start();
        daemon.wait_log("directories in all");
        for name in ["f", "g"] {
            dir.write(name, "1");
        }
        daemon.wait_for("it was executed", |daemon| {
            let log = daemon.log();
            let direct = dir.trg("g").exists();
            direct
                || log.contains("Finished a list")
                || log.contains("Finished (list)")
                || log.contains("Finished Create on")
        });
        assert_eq!(daemon.terminate(), Some(143), "{sync}");
    }
    // The table overrides the default.
    let dir = Dir::new();
    Fake::new(&dir);
    let config =
        "sync{ default.rsync, source = '@SRC@', target = '@TRG@', exitcodes = { [0] = 'die' } }";
    let ended = Daemon::new(&dir, config).fake_first().run();
    assert_eq!(ended.code(), Some(255));
}
