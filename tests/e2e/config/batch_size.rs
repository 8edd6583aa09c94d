//! `batchSizeLimit`: large files do not hold up small ones.

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::fake::{Call, Fake};

const LARGE: &str = "more than ten bytes";

fn config(kind: &str) -> String {
    format!(
        r#"
sync{{
    {kind}, source = "@SRC@", delay = 0.3, batchSizeLimit = 10,
    rsync = {{ binary = "@RSYNC@" }},
}}
"#
    )
}

/// Returns the files that a call lists, without their directories.
fn files(call: &Call) -> Vec<String> {
    let names = call.stdin.split(|&byte| byte == 0);
    let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
    names
        .filter(|name| !name.is_empty() && !name.ends_with('/'))
        .collect()
}

/// Asserts that each batch is either a single large file or contains only small files, and that
/// everything is sent once.
fn check(fake: &Fake<'_>) {
    let mut sent = Vec::new();
    for call in fake.calls().iter().skip(1) {
        let mut files = files(call);
        let large = files
            .iter()
            .filter(|name| name.starts_with("/large"))
            .count();
        assert!(large == 0 || files.len() == 1, "{files:?}");
        sent.append(&mut files);
    }
    sent.sort();
    assert_eq!(
        sent,
        [
            "/gone", "/large1", "/large2", "/large3", "/small1", "/small2"
        ]
    );
}

fn change(dir: &Dir) {
    for name in ["large1", "large2", "large3"] {
        dir.write(name, LARGE);
    }
    for name in ["small1", "small2"] {
        dir.write(name, "1");
    }
    dir.rm("gone");
}

fn sent(fake: &Fake<'_>) -> usize {
    fake.calls()
        .iter()
        .skip(1)
        .filter(|call| call.done)
        .map(|call| files(call).len())
        .sum()
}

#[test]
fn large_files_go_alone_and_at_the_same_time() {
    let dir = Dir::new();
    dir.write("gone", LARGE);
    let fake = Fake::new(&dir);
    let kind = "default.rsync, target = '@TRG@', maxProcesses = 2";
    let mut daemon = Daemon::new(&dir, &config(kind)).start_and_settle();
    fake.hold();
    change(&dir);
    daemon.wait_for("two run", |_| fake.calls().len() >= 3);
    daemon.wait_log("Maximum processes for sync reached. Delaying large transfer for sync: Sync1");
    fake.release();
    daemon.wait_for("all is sent", |_| sent(&fake) == 6);
    check(&fake);
    let calls = fake.calls();
    assert!(
        calls[1..3]
            .iter()
            .any(|call| call.lists("/small1") && call.lists("/gone"))
    );
    assert!(calls.iter().any(|call| call.concurrent == 2));
    assert!(calls.iter().all(|call| call.concurrent <= 2));
}

#[test]
fn one_process_sends_one_after_the_other() {
    for kind in [
        "default.rsync, target = '@TRG@'",
        "default.rsyncssh, host = 'h', targetdir = '/t'",
    ] {
        let dir = Dir::new();
        dir.write("gone", LARGE);
        let fake = Fake::new(&dir);
        let mut daemon = Daemon::new(&dir, &config(kind)).start();
        daemon.wait_for("it started up", |_| fake.ended() >= 1);
        daemon.wait_log("tartup of");
        change(&dir);
        daemon.wait_for("all is sent", |_| sent(&fake) == 6);
        check(&fake);
        let calls = fake.calls();
        assert!(calls[1].lists("/small1") && calls[1].lists("/small2"));
        assert!(calls.iter().all(|call| call.concurrent == 1));
    }
}

#[test]
fn a_global_limit_is_reported_as_such() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let kind = "default.rsync, target = '@TRG@', maxProcesses = 5";
    let config = format!("settings{{ maxProcesses = 2 }}\n{}", config(kind));
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    fake.hold();
    for name in ["large1", "large2", "large3"] {
        dir.write(name, LARGE);
    }
    daemon.wait_log("Maximum process count reached. Delaying large transfer for sync: Sync1");
    fake.release();
    daemon.wait_for("all is sent", |_| sent(&fake) == 3);
}

#[test]
fn a_large_file_that_fails_is_sent_again() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 0]);
    let kind = "default.rsync, target = '@TRG@', maxProcesses = 3";
    let mut daemon = Daemon::new(&dir, &config(kind)).start_and_settle();
    dir.write("large1", LARGE);
    daemon.wait_for("it is sent twice", |_| sent(&fake) == 2);
    assert!(fake.calls()[2].lists("/large1"));
}

/// default.direct sends each file by itself in any case.
#[test]
fn direct_accepts_batch_size_limit() {
    let dir = Dir::new();
    let kind = "default.direct, target = '@TRG@'";
    let config = config(kind).replace("rsync = { binary = \"@RSYNC@\" },", "");
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_log("finished");
    dir.write("large1", LARGE);
    dir.write("small1", "1");
    daemon.wait_same("src", "trg", false);
}
