//! Transfers without I/O: those that wait for a FIFO are ended and repeated, all others are
//! reported only.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::daemon::{Daemon, Running, is_gone};
use crate::support::dir::{Dir, skip};
use crate::support::script::SSH;

/// If a file `block/NAME` exists, the next call of `bin/NAME` waits in open(2) of `fifo`; with
/// `idle/NAME` it waits in read(2) of an open FIFO, like in any other wait.
const WRAPPER: &str = r#"name=${0##*/}
echo $$ >> "@DIR@/rec/$name"
if rm "@DIR@/block/$name" 2>/dev/null; then read x < "@DIR@/fifo"; fi
if rm "@DIR@/idle/$name" 2>/dev/null; then read x 3<> "@DIR@/line" <&3; fi
exec rsync "$@"
"#;

/// The kinds of sync, each with a target and a wrapper of its name.
const KINDS: [(&str, &str); 4] = [
    ("local", r#"default.rsync, target = "@DIR@/local""#),
    ("classic", r#"default.rsync, target = "@DIR@/classic""#),
    ("remote", r#"default.rsync, target = "host:@DIR@/remote""#),
    (
        "moves",
        r#"default.rsyncssh, host = "host", targetdir = "@DIR@/moves", ssh = { binary = "@DIR@/bin/ssh" }"#,
    ),
];

/// Returns a configuration with these settings and a sync of each kind.
fn config(dir: &Dir, settings: &str) -> String {
    for name in ["block", "idle"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    for name in ["fifo", "line"] {
        mkfifo(&dir.path(name), Mode::S_IRWXU).unwrap();
    }
    dir.script("bin/ssh", SSH);
    let mut config = format!("settings{{ insist = true, {settings} }}\n");
    for (name, words) in KINDS {
        fs::create_dir(dir.path(name)).unwrap();
        dir.script(&format!("bin/{name}"), WRAPPER);
        let list = if name == "classic" { "filter" } else { "auto" };
        let rsh = if name == "remote" {
            r#"rsh = "@DIR@/bin/ssh","#
        } else {
            ""
        };
        config += &format!(
            r#"sync{{ {words}, name = "{name}", source = "@SRC@", delay = 0.3,
                rsync = {{ archive = true, list = "{list}", {rsh} binary = "@DIR@/bin/{name}" }} }}
"#
        );
    }
    config
}

fn flag(dir: &Dir, what: &str) {
    for (name, _) in KINDS {
        dir.put(&format!("{what}/{name}"), "");
    }
}

fn wait_for_all(dir: &Dir, daemon: &mut Running<'_>) {
    for (name, _) in KINDS {
        daemon.wait_same("src", name, true);
    }
    for (name, _) in KINDS {
        for what in ["block", "idle"] {
            assert!(
                !dir.path(format!("{what}/{name}")).exists(),
                "{what} {name}"
            );
        }
    }
}

/// Nothing else wakes the daemon: it has no status file, and no events occur.
#[test]
fn a_transfer_that_waits_for_a_fifo_is_repeated_in_every_kind_of_sync() {
    if fs::read("/proc/self/wchan").is_err() {
        return skip("the kernel does not tell what a process waits in");
    }
    let dir = Dir::new();
    let config = config(&dir, "");
    flag(&dir, "block");
    dir.write("startup", "1");
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_for_all(&dir, &mut daemon);
    flag(&dir, "block");
    dir.write("change", "1");
    wait_for_all(&dir, &mut daemon);
    let log = daemon.log();
    for (name, _) in KINDS {
        let told = format!("{name}: the transfer waits for a named pipe");
        assert_eq!(log.matches(&told).count(), 2, "{name}\n{log}");
    }
}

/// Transfers of each kind, a hook and a process of user code wait. None is ended; each transfer is
/// reported once.
#[test]
fn long_waits_are_reported_and_not_ended() {
    let dir = Dir::new();
    let more = r#"
sync{
    default.rsync, name = "hook", source = "@SRC@", target = "@TRG@", delay = 0.3,
    onSynced = { "sh", "-c", "echo $$ > @DIR@/hook.pid; read x < @DIR@/fifo" },
}
sync{
    name = "own", source = "@SRC@", delay = 0.3, init = false,
    action = function(inlet)
        local event = inlet.getEvent()
        spawn(event, "/bin/sh", "-c", "echo $$ > @DIR@/own.pid; read x < @DIR@/fifo")
    end,
}
"#;
    let settings =
        r#"statusFile = "@DIR@/status", statusInterval = 1, metricsFile = "@DIR@/metrics""#;
    let config = config(&dir, settings) + more;
    dir.write("startup", "1");
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_for_all(&dir, &mut daemon);
    daemon.wait_equal();
    let calls = |name: &str| dir.text(&format!("rec/{name}")).lines().count();
    let before = KINDS.map(|(name, _)| calls(name));
    flag(&dir, "idle");
    dir.write("change", "1");
    daemon.wait_for("hook and user code run", |_| {
        ["hook.pid", "own.pid"]
            .iter()
            .all(|pid| dir.text(pid).ends_with('\n'))
    });
    for (name, _) in KINDS {
        let told = format!("{name}: the transfer (process ");
        daemon.wait_log(&told);
        let stalled = |line: &str| {
            let value = line.strip_prefix(&format!("lsyncd_stalled_seconds{{sync=\"{name}\"}} "));
            value.is_some_and(|value| value.parse::<f64>().unwrap() >= 30.0)
        };
        daemon.wait_for("the metrics show it", |_| {
            dir.text("metrics").lines().any(stalled)
        });
    }
    daemon.wait_for("the status shows it", |_| {
        dir.text("status").matches("Stalled: process ").count() == KINDS.len()
    });
    for pid in ["hook.pid", "own.pid"] {
        let text = dir.text(pid);
        let pid = text
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{pid}: {}", daemon.log()));
        assert!(
            !is_gone(nix::unistd::Pid::from_raw(pid)),
            "{}",
            daemon.log()
        );
    }
    for (name, _) in KINDS {
        assert!(!dir.path(name).join("change").exists(), "{name}");
    }
    release(&dir.path("line"));
    wait_for_all(&dir, &mut daemon);
    let log = daemon.log();
    assert_eq!(
        log.matches("has had no I/O for").count(),
        KINDS.len(),
        "{log}"
    );
    assert!(!log.contains("starting it again"), "{log}");
    assert_eq!(
        KINDS.map(|(name, _)| calls(name)),
        before.map(|count| count + 1)
    );
}

/// Lets each waiting process read a line.
fn release(line: &Path) {
    fs::write(line, "\n".repeat(KINDS.len())).unwrap();
}

#[test]
fn stall_timeout_ends_a_stalled_transfer() {
    let dir = Dir::new();
    let config = config(&dir, "stallTimeout = 5");
    flag(&dir, "idle");
    dir.write("startup", "1");
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_for_all(&dir, &mut daemon);
    let log = daemon.log();
    for (name, _) in KINDS {
        let told = format!("{name}: the transfer has had no I/O for ");
        assert_eq!(log.matches(&told).count(), 1, "{name}\n{log}");
    }
}
