//! `rsync = { bwlimit }` by time of day, and plain options that change by reload.

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::{Call, Fake};
use lsyncd::status::snapshot::Snapshot;

fn config(rsync: &str) -> String {
    format!(
        r#"settings{{ controlSocket = "@DIR@/sock" }}
sync{{
    default.rsync, name = "one", source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = {{ binary = "@RSYNC@", {rsync} }},
}}"#
    )
}

fn ctl(dir: &Dir, verb: &str) -> String {
    let words: Vec<&str> = verb.split(' ').collect();
    let output = dir.ctl(&words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn reload(dir: &Dir, daemon: &mut Running<'_>, rsync: &str, told: &str) {
    dir.put("config.lua", dir.expand(&config(rsync)));
    ctl(dir, "reload");
    daemon.wait_log(told);
}

/// Returns the limit of each call.
fn limits(fake: &Fake<'_>) -> Vec<String> {
    let limit = |argv: &[String]| {
        let word = argv.iter().find_map(|word| word.strip_prefix("--bwlimit="));
        word.unwrap_or("none").to_owned()
    };
    fake.calls().iter().map(|call| limit(&call.argv)).collect()
}

fn is_batch(call: &Call) -> bool {
    call.has("--include-from=-")
}

/// Options that change only how data is sent take effect with the next transfer. Other options
/// change the target, so everything is compared.
#[test]
fn plain_options_change_by_reload_without_a_comparison() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &config("bwlimit = 5")).start_and_settle();
    assert_eq!(limits(&fake), ["5"]);
    let more = "bwlimit = 6, compress = true, timeout = 9, _extra = { '--stats' }";
    reload(&dir, &mut daemon, more, "1 untouched, 0 changed");
    dir.write("f", "x");
    daemon.wait_for("it is sent", |_| fake.ended() >= 2);
    let calls = fake.calls();
    assert!(
        ["--bwlimit=6", "--timeout=9", "--stats"]
            .iter()
            .all(|word| calls[1].has(word))
    );
    let compresses = |word: &String| !word.starts_with("--") && word.contains("zls");
    assert!(
        calls[1].argv.iter().any(compresses) && is_batch(&calls[1]),
        "{:?}",
        calls[1].argv
    );
    let table = "bwlimit = { { at = '0 0 0 1 1 *', limit = 7 } }";
    reload(
        &dir,
        &mut daemon,
        table,
        "1 untouched, 0 changed, 0 new, 0 removed",
    );
    dir.write("f", "y");
    daemon.wait_for("it is sent", |_| fake.ended() >= 3);
    assert_eq!(limits(&fake), ["5", "6", "7"]);
    reload(&dir, &mut daemon, "perms = true", "0 untouched, 1 changed");
    daemon.wait_for("everything is compared", |_| fake.ended() >= 4);
    assert!(!is_batch(&fake.calls()[3]));
}

/// The limits of even and odd seconds differ, so a held transfer is repeated each second with the
/// other limit. This does not count as a failure.
#[test]
fn a_running_transfer_is_repeated_with_the_new_limit() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let table = "bwlimit = { restart = true, { at = '*/2 * * * * *', limit = 1000 },
                 { at = '1-59/2 * * * * *', limit = '2m' } }";
    let mut daemon = Daemon::new(&dir, &config(table)).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    daemon.wait_for("it is repeated", |_| fake.calls().len() >= 4);
    daemon.wait_log("one: repeating the running transfer with a bandwidth limit of ");
    let of_calls = limits(&fake);
    assert!(
        of_calls[1..].windows(2).all(|two| two[0] != two[1]),
        "{of_calls:?}"
    );
    fake.release();
    daemon.wait_for("it is sent", |_| ctl(&dir, "status").contains("current"));
    let calls = fake.calls();
    assert!(calls[1..].iter().all(|call| call.stdin == calls[1].stdin));
    let status: Snapshot = serde_json::from_str(&ctl(&dir, "status -json")).unwrap();
    assert_eq!(status.syncs[0].last_error, None);
}

#[test]
fn invalid_limits_are_refused() {
    for (rsync, text) in [
        ("bwlimit = { }", "rsync.bwlimit needs entries such as"),
        (
            "bwlimit = { { at = '0 8 * * *', limit = 5 } }",
            "is not a crontab rule: it has 5 fields",
        ),
        (
            "bwlimit = { { at = '@daily', limit = 'x' } }",
            "\"x\" is not a limit",
        ),
    ] {
        let dir = Dir::new();
        Fake::new(&dir);
        let ended = Daemon::new(&dir, &config(rsync)).run();
        ended.assert_refused();
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("config.lua:2: rsync.bwlimit"),
            "{}",
            ended.stderr
        );
    }
}
