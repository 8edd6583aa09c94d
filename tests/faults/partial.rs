//! Transfers that fail for some paths: only the paths that rsync names are sent again; after an
//! unknown error all paths are sent again.

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::{Call, Fake};

/// Returns a sync with a status file and with these settings and keys.
fn config(settings: &str, keys: &str) -> String {
    format!(
        r#"
settings{{ statusFile = "@DIR@/status", statusInterval = 0, {settings} }}
sync{{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = {{ binary = "@RSYNC@" }}, {keys}
}}
"#
    )
}

/// Sets the error output of this call, counted from 1.
fn says(dir: &Dir, call: usize, lines: &[&str]) {
    dir.put(
        &format!("fake/say.{call}"),
        dir.expand(&(lines.join("\n") + "\n")),
    );
}

/// Makes these files while the daemon is stopped, so that they are one batch.
fn write_at_once(dir: &Dir, daemon: &Running<'_>, names: &[&str]) {
    daemon.stop();
    for name in names {
        dir.write(name, "1");
    }
    daemon.cont();
}

/// Returns the names of plain files that a call lists.
fn listed(call: &Call) -> Vec<String> {
    let names = call.stdin.split(|&byte| byte == 0);
    let mut names: Vec<String> = names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| !name.is_empty() && !name.ends_with('/'))
        .collect();
    names.sort();
    names
}

/// The second call sends these files, and ends with this code and this output. Waits for the given
/// number of further calls, and returns their lists and the log.
fn after(
    dir: &Dir,
    config: &str,
    names: &[&str],
    code: u8,
    lines: &[&str],
    calls: usize,
) -> (Vec<Vec<String>>, String) {
    let fake = Fake::new(dir);
    fake.exits(&[0, code, 0]);
    says(dir, 2, lines);
    let mut daemon = Daemon::new(dir, config).start_and_settle();
    write_at_once(dir, &daemon, names);
    daemon.wait_for("the expected number of calls", |_| {
        fake.ended() >= calls + 2
    });
    daemon.wait_for("nothing is pending or retried", |_| {
        let status = dir.text("status");
        status.contains("There are 0 delays") && !status.contains("trying again")
    });
    // Another change shows that no further call came before it.
    dir.write("last", "1");
    daemon.wait_for("a later change was sent", |_| {
        fake.calls()
            .iter()
            .any(|call| call.done && call.lists("/last"))
    });
    let log = daemon.log();
    let mut all: Vec<_> = fake.calls().iter().skip(2).map(listed).collect();
    assert_eq!(all.pop(), Some(vec!["/last".to_owned()]), "{log}");
    (all, log)
}

fn retried(names: &[&str], lines: &[&str]) -> Vec<Vec<String>> {
    after(&Dir::new(), &config("", ""), names, 23, lines, 1).0
}

const SUMMARY: &str = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1338) [sender=3.2.7]";

#[test]
fn only_named_paths_are_sent_again() {
    let lines = [
        "rsync: [receiver] mkstemp \"@TRG@/.b.Ab12Cd\" failed: Permission denied (13)",
        "rsync: [sender] send_files failed to open \"@SRC@/quo\"te\": Permission denied (13)",
        "rsync: mkstemp \"@TRG@/.new\\#012line.Ab12Cd\" failed: Permission denied (13)",
        SUMMARY,
    ];
    let all = ["a", "b", "c", "new\nline", "quo\"te"];
    assert_eq!(retried(&all, &lines), [["/b", "/new\nline", "/quo\"te"]]);
}

#[test]
fn after_an_unknown_error_all_paths_are_sent_again() {
    let named = "rsync: mkstemp \"@TRG@/.b.Ab12Cd\" failed: Permission denied (13)";
    for line in [
        "rsync: [receiver] a message of a later version about \"@TRG@/b\": Permission denied (13)",
        "rsync: mkstemp \"@TRG@/.nobody.Ab12Cd\" failed: Permission denied (13)",
        "a wrapper has something to say",
    ] {
        assert_eq!(
            retried(&["a", "b"], &[named, line, SUMMARY]),
            [["/a", "/b"]],
            "{line}"
        );
    }
    assert_eq!(retried(&["a", "b"], &[]), [["/a", "/b"]]);
}

/// An attribute that cannot be set is reported once.
#[test]
fn files_without_an_attribute_are_not_sent_again() {
    let dir = Dir::new();
    let lines = [
        "rsync: [receiver] chown \"@TRG@/.a.Ab12Cd\" failed: Operation not permitted (1)",
        "rsync: [receiver] chown \"@TRG@/.b.Ab12Cd\" failed: Operation not permitted (1)",
        "rsync: [generator] failed to set times on \"@TRG@/.\": Operation not permitted (1)",
        SUMMARY,
    ];
    let (calls, log) = after(&dir, &config("", ""), &["a", "b"], 23, &lines, 0);
    assert!(calls.is_empty(), "{log}");
    for (text, count) in [
        ("owner of all files", 1),
        ("times of all files", 1),
        ("chown", 1),
    ] {
        assert_eq!(log.matches(text).count(), count, "{text}: {log}");
    }
    assert!(!log.contains("partial transfer (exit code"), "{log}");
}

#[test]
fn a_user_defined_exit_code_table_decides() {
    let codes = |word: &str| {
        let keys = format!("exitcodes = {{ [0] = 'ok', [23] = '{word}', [24] = 'ok' }}");
        config("", &keys)
    };
    let lines = [
        "rsync: mkstemp \"@TRG@/.b.Ab12Cd\" failed: Permission denied (13)",
        SUMMARY,
    ];
    let (calls, log) = after(&Dir::new(), &codes("ok"), &["a", "b"], 23, &lines, 0);
    assert!(calls.is_empty(), "{log}");
    let (calls, _) = after(&Dir::new(), &codes("again"), &["a", "b"], 23, &lines, 1);
    assert_eq!(calls, [["/a", "/b"]]);
}

/// More than `maxPending` failed paths become one full comparison.
#[test]
fn more_failed_paths_than_max_pending_cause_a_full_comparison() {
    for (count, compares) in [(8, false), (9, true)] {
        let names: Vec<String> = (0..count).map(|n| format!("f{n}")).collect();
        let lines: Vec<String> = names
            .iter()
            .map(|name| {
                format!("rsync: mkstemp \"@TRG@/.{name}.Ab12Cd\" failed: Permission denied (13)")
            })
            .collect();
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        fake.exits(&[0, 23, 23, 0]);
        for call in [2, 3] {
            says(
                &dir,
                call,
                &lines.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        }
        let mut daemon = Daemon::new(&dir, &config("", "maxPending = 8")).start_and_settle();
        // Eight paths fail, then the ninth exceeds the limit.
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        write_at_once(&dir, &daemon, &names[..8]);
        daemon.wait_for("they failed", |_| fake.ended() >= 2);
        for name in &names[8..] {
            dir.write(name, "1");
        }
        daemon.wait_for("nothing is pending or retried", |_| {
            let status = dir.text("status");
            fake.ended() >= 4
                && status.contains("There are 0 delays")
                && !status.contains("trying again")
        });
        let full = |call: &Call| call.stdin.is_empty() && call.done;
        let compared = fake.calls().iter().skip(1).any(full);
        assert_eq!(compared, compares, "{count}: {}", daemon.log());
    }
}

/// The first failure is logged with rsync's message, the next ones as a count.
#[test]
fn a_second_failure_is_reported_with_its_count() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 23, 23, 23, 0]);
    for call in [2, 3, 4] {
        let line = "rsync: mkstemp \"@TRG@/.b.Ab12Cd\" failed: Permission denied (13)";
        says(&dir, call, &[line, SUMMARY]);
    }
    let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
    write_at_once(&dir, &daemon, &["a", "b"]);
    daemon.wait_for("it arrived at last", |_| {
        fake.ended() == 5 && !dir.text("status").contains("trying again")
    });
    let log = daemon.log();
    assert_eq!(log.matches("mkstemp").count(), 1, "{log}");
    assert_eq!(log.matches("retrying 1 path in").count(), 3, "{log}");
    assert_eq!(log.matches("retrying 1 path in 1 s").count(), 2, "{log}");
    let calls: Vec<_> = fake.calls().iter().skip(2).map(listed).collect();
    assert_eq!(calls, [["/b"], ["/b"], ["/b"]]);
}

#[test]
fn a_path_that_cannot_be_sent_does_not_delay_the_others() {
    let cases: [(u8, &str, &str); 3] = [
        (
            11,
            "rsync: [receiver] write failed on \"@TRG@/big\": No space left on device (28)",
            "no space left on the target for 1 path",
        ),
        (
            11,
            "rsync: write failed on \"@TRG@/big\": File too large (27)",
            "1 path too large for the target",
        ),
        (
            4,
            "ABORTING due to unsafe pathname from sender: big",
            "the transfer stopped at 1 path (exit code 4)",
        ),
    ];
    for (code, line, told) in cases {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        fake.exits(&[0, code, 0]);
        says(&dir, 2, &[line, "rsync error: it is over"]);
        let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
        daemon.stop();
        dir.write("big", "123456");
        dir.write("small", "1");
        daemon.cont();
        daemon.wait_for("all were sent", |_| {
            fake.ended() >= 4 && !dir.text("status").contains("trying again")
        });
        let calls: Vec<_> = fake.calls().iter().skip(1).map(listed).collect();
        let expected = [vec!["/big", "/small"], vec!["/small"], vec!["/big"]];
        assert_eq!(calls, expected, "{}", daemon.log());
        assert!(daemon.log().contains(told), "{}", daemon.log());
    }
}

/// Named paths are retried; otherwise the comparison is repeated.
#[test]
fn failures_of_a_full_comparison_are_retried() {
    let named = "rsync: [receiver] mkstemp \"@TRG@/.b.Ab12Cd\" failed: Read-only file system (30)";
    for (line, expected) in [(named, vec!["/b"]), ("no message of rsync", Vec::new())] {
        let dir = Dir::new();
        dir.write("a", "1");
        dir.write("b", "1");
        let fake = Fake::new(&dir);
        fake.exits(&[23, 0]);
        says(&dir, 1, &[line, SUMMARY]);
        let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
        daemon.wait_for("it was retried", |_| {
            fake.ended() == 2 && !dir.text("status").contains("trying again")
        });
        assert_eq!(listed(&fake.calls()[1]), expected, "{}", daemon.log());
    }
}

/// A line that a successful transfer printed as well is not an error.
#[test]
fn a_greeting_is_no_failure() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 23, 0]);
    says(&dir, 1, &["Welcome to this host"]);
    let line = "rsync: mkstemp \"@TRG@/.b.Ab12Cd\" failed: Permission denied (13)";
    says(&dir, 2, &["Welcome to this host", line, SUMMARY]);
    let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
    write_at_once(&dir, &daemon, &["a", "b"]);
    daemon.wait_for("it was sent again", |_| fake.ended() >= 3);
    assert_eq!(listed(&fake.calls()[2]), ["/b"], "{}", daemon.log());
}

/// The number of calls is limited.
#[test]
fn after_failures_of_all_kinds_the_target_is_equal() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let codes = [23, 12, 23, 11, 23, 255, 23, 0, 23, 30, 23, 0];
    fake.exits(&[&[0], &codes[..], &[0]].concat());
    let blame = "rsync: mkstemp \"@TRG@/.f3.Ab12Cd\" failed: Permission denied (13)";
    let full = "rsync: [receiver] write failed on \"@TRG@/f2\": No space left on device (28)";
    let owner = "rsync: chown \"@TRG@/.f1.Ab12Cd\" failed: Operation not permitted (1)";
    // A failing call of the stand-in transfers nothing, so its output must not imply that the other
    // paths have arrived.
    for (call, lines) in [
        (2, vec!["?"]),
        (4, vec![blame, "?"]),
        (5, vec![full]),
        (
            6,
            vec![
                owner,
                "rsync: mkstemp \"/elsewhere/x\" failed: Permission denied (13)",
            ],
        ),
        (8, vec![]),
        (10, vec![blame, owner, "?"]),
    ] {
        says(&dir, call, &lines);
    }
    let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
    for round in 0..6 {
        for n in 0..6 {
            dir.write(format!("f{n}"), format!("{round}{n}"));
        }
        daemon.wait_for("another call", |_| fake.ended() > round + 1);
    }
    daemon.wait_equal();
    daemon.wait_for("nothing is pending or retried", |_| {
        let status = dir.text("status");
        status.contains("There are 0 delays") && !status.contains("trying again")
    });
    assert!(
        fake.calls().len() <= 2 * codes.len() + 8,
        "{}",
        daemon.log()
    );
}

/// rsync cannot remove a file at the path of a directory.
#[test]
fn contents_of_a_directory_that_could_not_be_made_are_sent_again() {
    let names = ["in/a", "in/b/c", "other"];
    let lines = [
        "rsync: [generator] delete_file: unlink(in) failed: Permission denied (13)",
        "could not make way for new directory: in",
        "*** Skipping any contents from this failed directory ***",
        SUMMARY,
    ];
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 23, 0]);
    says(&dir, 2, &lines);
    let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
    daemon.stop();
    dir.mkdir("in/b");
    write_at_once(&dir, &daemon, &names);
    daemon.wait_for("it was retried", |_| {
        fake.ended() == 3 && !dir.text("status").contains("trying again")
    });
    let mut again = listed(&fake.calls()[2]);
    // A directory that may have been created during the startup transfer is compared with its
    // contents.
    again.retain(|name| !name.ends_with("/***"));
    assert_eq!(again, ["/in/a", "/in/b/c"], "{}", daemon.log());
}
