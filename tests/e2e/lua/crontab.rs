//! `crontab`: full comparisons at given times.

use nix::sys::signal::Signal;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, remove};
use crate::support::fake::Fake;

const EACH_SECOND: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", crontab = { "* * * * * *" },
    rsync = { binary = "@RSYNC@" },
}
"#;

#[test]
fn each_time_runs_a_full_comparison() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, EACH_SECOND)
        .args(&["-log", "Info"])
        .start_and_settle();
    daemon.wait_for("three more comparisons", |_| fake.ended() >= 4);
    daemon.wait_log("Info: Crontab triggered full sync");
    daemon.wait_log("Finished Full on @SRC@// = 0");
    assert!(
        fake.calls()
            .iter()
            .all(|call| call.has("-r") && call.concurrent == 1)
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("HUP signal");
    let before = fake.ended();
    daemon.wait_for("it continues after HUP", |_| fake.ended() >= before + 4);
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn a_comparison_repairs_changes_of_the_target() {
    let dir = Dir::new();
    dir.write("f", "1");
    let config = EACH_SECOND.replace("rsync = { binary = \"@RSYNC@\" },", "");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
    remove(&dir.trg("f"));
    daemon.wait_equal();
}

#[test]
fn comparisons_do_not_pile_up() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config =
        format!("settings{{ statusFile = '@DIR@/status', statusInterval = 0 }}\n{EACH_SECOND}");
    let mut daemon = Daemon::new(&dir, &config)
        .args(&["-log", "Info"])
        .start_and_settle();
    fake.hold();
    daemon.wait_for("it was due while one ran", |daemon| {
        daemon.log().matches("Crontab triggered").count() >= fake.calls().len() + 3
    });
    let status = dir.text("status");
    assert!(status.matches("wait   Full").count() <= 1, "{status}");
    fake.release();
}

#[test]
fn user_code_gets_a_full_event() {
    let dir = Dir::new();
    let config = r#"
sync{
    source = "@SRC@", crontab = "*/1 * * * * *",
    action = function(inlet)
        local event = inlet.getEvent()
        log("Normal", "got ", event.etype, " on ", event.sourcePath)
        inlet.discardEvent(event)
    end,
}
"#;
    Daemon::new(&dir, config)
        .start()
        .wait_log("got Full on @SRC@//");
}

#[test]
fn invalid_crontab_rules_are_refused() {
    for (rules, text) in [
        (
            "{ '0 0 3 * * *', '0 3 * * *' }",
            "crontab rule 2 is not valid: it has 5 fields",
        ),
        (
            "'61 * * * * *'",
            "crontab rule 1 is not valid: 61 is out of bounds",
        ),
        ("{ '0 0 0 30 2 *' }", "it never comes . Rule: 0 0 0 30 2 *"),
        ("{ 5 }", "crontab must be a list of texts"),
        ("5", "crontab must be a list of texts"),
    ] {
        let dir = Dir::new();
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', crontab = {rules} }}"
        );
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(ended.stderr.contains(text), "{rules}: {}", ended.stderr);
    }
}
