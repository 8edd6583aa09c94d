//! Transfers that do a part of their work: what rsync names is sent again and nothing else; what it
//! does not name clearly makes everything be sent again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::support::daemon::{Daemon, MIRROR, Running};
use crate::support::dir::{Dir, program, skip};
use crate::support::fake::{Call, Fake};

/// A sync with a status file, and what else its table and the settings have.
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

/// What this call, counted from 1, writes to its error output, with paths expanded.
fn says(dir: &Dir, call: usize, lines: &[&str]) {
    dir.put(
        &format!("fake/say.{call}"),
        dir.expand(&(lines.join("\n") + "\n")),
    );
}

/// rsync writes it where a line of progress precedes the message of an error.
#[test]
fn an_empty_line_is_no_reason_to_compare_everything_again() {
    let dir = Dir::new();
    let wrapper = dir.put(
        "bin/wrapped",
        dir.expand(
            "#!/bin/sh\nif mkdir @DIR@/called; then rsync --exclude=/a \"$@\"; {
             echo; echo 'rsync: [sender] send_files failed to open \"@SRC@/a\": Permission denied (13)'
             echo 'rsync error: some files/attrs were not transferred (see previous errors) (code 23)'
             } >&2; exit 23; fi; exec rsync \"$@\"\n",
        ),
    );
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    dir.write("a", "1");
    dir.write("b", "1");
    let config = MIRROR.replace(
        "archive = true",
        "archive = true, binary = '@DIR@/bin/wrapped'",
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
    let log = daemon.log();
    assert!(
        log.contains("retrying 1 path in") && !log.contains("everything again"),
        "{log}"
    );
}

/// Makes these files while nothing is looked at, so that they are one batch.
fn write_at_once(dir: &Dir, daemon: &Running<'_>, names: &[&str]) {
    daemon.stop();
    for name in names {
        dir.write(name, "1");
    }
    daemon.cont();
}

/// The names of plain files that a call lists.
fn listed(call: &Call) -> Vec<String> {
    let names = call.stdin.split(|&byte| byte == 0);
    let mut names: Vec<String> = names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| !name.is_empty() && !name.ends_with('/'))
        .collect();
    names.sort();
    names
}

/// The second call is about these files, ends with this code and says this; returns what the calls
/// after it list once there are so many.
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
    daemon.wait_for("so many calls", |_| fake.ended() >= calls + 2);
    daemon.wait_for("nothing is owed", |_| {
        let status = dir.text("status");
        status.contains("There are 0 delays") && !status.contains("trying again")
    });
    // A change that is none of these: no other call came before it.
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
fn what_was_named_is_sent_again_and_nothing_else() {
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
fn what_is_not_understood_is_all_of_it() {
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

/// An attribute that may not be set is told once, and nothing is sent again.
#[test]
fn what_arrived_without_an_attribute_is_done() {
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
fn exit_codes_of_the_users_own_decide() {
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

/// More names than may be pending become one comparison of everything; as many do not.
#[test]
fn past_the_bound_everything_is_compared() {
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
        // The first eight, and then one more: together they are too many.
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        write_at_once(&dir, &daemon, &names[..8]);
        daemon.wait_for("they failed", |_| fake.ended() >= 2);
        for name in &names[8..] {
            dir.write(name, "1");
        }
        daemon.wait_for("nothing is owed", |_| {
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

/// The first failure is in the log in rsync's words; that it fails again is counted.
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

/// A file that does not fit keeps nothing waiting, nor does a name that is refused.
#[test]
fn what_cannot_go_does_not_hold_back_the_rest() {
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
        daemon.wait_for("all went", |_| {
            fake.ended() >= 4 && !dir.text("status").contains("trying again")
        });
        let calls: Vec<_> = fake.calls().iter().skip(1).map(listed).collect();
        let expected = [vec!["/big", "/small"], vec!["/small"], vec!["/big"]];
        assert_eq!(calls, expected, "{}", daemon.log());
        assert!(daemon.log().contains(told), "{}", daemon.log());
    }
}

/// What a comparison of everything could not do is tried by name, or compared again.
#[test]
fn a_comparison_of_everything_forgets_nothing() {
    let named = "rsync: [receiver] mkstemp \"@TRG@/.b.Ab12Cd\" failed: Read-only file system (30)";
    for (line, expected) in [(named, vec!["/b"]), ("no message of rsync", Vec::new())] {
        let dir = Dir::new();
        dir.write("a", "1");
        dir.write("b", "1");
        let fake = Fake::new(&dir);
        fake.exits(&[23, 0]);
        says(&dir, 1, &[line, SUMMARY]);
        let mut daemon = Daemon::new(&dir, &config("", "")).start_and_settle();
        daemon.wait_for("it was tried again", |_| {
            fake.ended() == 2 && !dir.text("status").contains("trying again")
        });
        assert_eq!(listed(&fake.calls()[1]), expected, "{}", daemon.log());
    }
}

/// Words that a transfer without a failure wrote as well say nothing of one with a failure.
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
    daemon.wait_for("it was sent again", |_| fake.ended() == 3);
    assert_eq!(listed(&fake.calls()[2]), ["/b"], "{}", daemon.log());
}

/// After random failures of every kind the target has everything, in a number of calls that the
/// waits bound.
#[test]
fn after_any_trouble_the_target_is_equal() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let codes = [23, 12, 23, 11, 23, 255, 23, 0, 23, 30, 23, 0];
    fake.exits(&[&[0], &codes[..], &[0]].concat());
    let blame = "rsync: mkstemp \"@TRG@/.f3.Ab12Cd\" failed: Permission denied (13)";
    let full = "rsync: [receiver] write failed on \"@TRG@/f2\": No space left on device (28)";
    let owner = "rsync: chown \"@TRG@/.f1.Ab12Cd\" failed: Operation not permitted (1)";
    // Nothing that a call that fails names has arrived; what it does not name has not either, so
    // it must not say that all the rest is done.
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
        daemon.wait_for("a call more", |_| fake.ended() > round + 1);
    }
    daemon.wait_equal();
    daemon.wait_for("nothing is owed", |_| {
        let status = dir.text("status");
        status.contains("There are 0 delays") && !status.contains("trying again")
    });
    assert!(
        fake.calls().len() <= 2 * codes.len() + 8,
        "{}",
        daemon.log()
    );
}

const NOBODY: u32 = 65534;

/// A target that belongs to somebody else, who lets others make files in it: the times of its
/// directories cannot be set. The files arrive and nothing is done twice.
#[test]
fn directories_of_somebody_else_are_no_failure() {
    let setpriv = program("setpriv").filter(|_| nix::unistd::geteuid().is_root());
    let Some(setpriv) = setpriv else {
        return skip("needs root and setpriv");
    };
    for kind in ["default.rsync", "default.direct"] {
        let dir = Dir::new();
        let open = |path: std::path::PathBuf, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(dir.path(""), 0o755);
        dir.mkdir("d");
        std::fs::create_dir(dir.trg("d")).unwrap();
        open(dir.trg(""), 0o777);
        open(dir.trg("d"), 0o777);
        for path in [dir.src(""), dir.src("d"), dir.path("rec")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let config = r#"
settings{ statusFile = "@DIR@/rec/status", statusInterval = 0, insist = true }
sync{ KIND, source = "@SRC@", target = "@TRG@", delay = 0.2 }
"#;
        let nobody = NOBODY.to_string();
        let (user, group) = (format!("--reuid={nobody}"), format!("--regid={nobody}"));
        let wrapper = [setpriv.to_str().unwrap(), &user, &group, "--clear-groups"];
        let mut daemon = Daemon::new(&dir, &config.replace("KIND", kind))
            .wrapped(&wrapper)
            .start();
        daemon.wait_log("finished");
        for n in 0..3 {
            let name = format!("d/f{n}");
            dir.write(&name, "1");
            chown(dir.src(&name), Some(NOBODY), Some(NOBODY)).unwrap();
            let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            let directory = std::fs::File::open(dir.src("d")).unwrap();
            directory.set_times(old).unwrap();
            daemon.wait_for("it arrived", |_| {
                dir.trg(&name).exists() && dir.text("rec/status").contains("There are 0 delays")
            });
        }
        let log = daemon.log();
        assert_eq!(log.matches("the times of").count(), 1, "{log}");
        assert!(!log.contains("partial transfer (exit code"), "{log}");
        let status = dir.text("rec/status");
        assert!(!status.contains("trying again"), "{status}");
    }
}

/// The same for a comparison of everything, at the startup and later: what is smaller goes at once,
/// changes do not wait, and the file goes when it fits.
#[test]
fn a_comparison_goes_on_without_what_is_too_large() {
    // 200 blocks of 512 bytes.
    let limited = ["sh", "-c", "ulimit -f 200; trap '' XFSZ; exec \"$@\"", "sh"];
    for list in ["auto", "filter"] {
        let dir = Dir::new();
        for name in ["a", "b", "c", "d"] {
            dir.mkdir(name);
        }
        dir.write("a/big", "x".repeat(150_000));
        dir.write("b/bigger", "x".repeat(160_000));
        dir.write("c/small", "1");
        let text = format!(
            r#"
settings{{ statusFile = "@DIR@/status", statusInterval = 0, insist = true }}
sync{{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = {{ archive = true, list = "{list}" }},
}}
"#
        );
        let mut daemon = Daemon::new(&dir, &text).wrapped(&limited).start();
        daemon.wait_for("the small one is there", |_| dir.trg("c/small").exists());
        dir.write("d/new", "1");
        daemon.wait_for("the new one is there", |_| dir.trg("d/new").exists());
        let log = daemon.log();
        assert!(
            log.contains("1 path too large for the target, comparing smaller files"),
            "{log}"
        );
        daemon.wait_for("everything is owed", |daemon| {
            daemon
                .log()
                .contains("files too large for the target were skipped;")
        });
        assert!(!dir.trg("a/big").exists());
        dir.write("a/big", "it fits");
        dir.rm("b/bigger");
        daemon.wait_for("nothing is owed", |_| {
            let status = dir.text("status");
            status.contains("There are 0 delays") && !status.contains("again in")
        });
        daemon.wait_equal();
    }
}

/// A file that may not be removed is in the way of a directory: what is in it arrives later.
#[test]
fn what_is_in_a_directory_that_was_in_the_way_arrives() {
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
    daemon.wait_for("it was tried again", |_| {
        fake.ended() == 3 && !dir.text("status").contains("trying again")
    });
    let mut again = listed(&fake.calls()[2]);
    // A directory that may have appeared while the startup transfer ran is compared as a whole.
    again.retain(|name| !name.ends_with("/***"));
    assert_eq!(again, ["/in/a", "/in/b/c"], "{}", daemon.log());
}

/// rsync creates a directory that it cannot read without an error. What is in it is owed until it
/// can be read.
#[test]
fn a_new_directory_that_cannot_be_read_is_owed() {
    if nix::unistd::geteuid().is_root() {
        return skip("root can read every directory");
    }
    for (delete, list) in [("true", "auto"), ("true", "filter"), ("false", "auto")] {
        let dir = Dir::new();
        let mode = |path: std::path::PathBuf, mode: u32| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
        };
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', delay = 0.1,
             delete = {delete}, rsync = {{ archive = true, list = '{list}' }} }}"
        );
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        std::fs::create_dir(dir.src("d")).unwrap();
        mode(dir.src("d"), 0o300);
        std::fs::create_dir(dir.src("d/sub")).unwrap();
        std::fs::write(dir.src("d/sub/f"), "1").unwrap();
        // The call that recurses fails by itself.
        daemon.wait_for("it is owed", |daemon| {
            let log = daemon.log();
            log.contains("new directories that cannot be read: 1;") || log.contains("retrying")
        });
        mode(dir.src("d"), 0o700);
        daemon.wait_for("its contents are sent", |_| dir.trg("d/sub/f").exists());
        daemon.wait_equal();
    }
}
