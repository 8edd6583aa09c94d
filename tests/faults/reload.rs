//! Reloads: pending changes and valid watches are kept, and with `hup = "changed"` unchanged syncs
//! are not affected.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, under_fanotify};
use crate::support::fake::Fake;

/// The first sync uses the stand-in, the others the real rsync.
const FIRST: &str = r#"
settings{ hup = "changed", stopTimeout = 1 }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, exclude = { "*.tmp" },
    rsync = { binary = "@RSYNC@", archive = true },
}
"#;

fn other(dir: &Dir, number: u32, more: &str) -> String {
    for name in ["src", "trg"] {
        fs::create_dir_all(dir.path(format!("{name}{number}"))).unwrap();
    }
    format!(
        "sync{{ default.rsync, source = '@DIR@/src{number}', target = '@DIR@/trg{number}', \
         delay = 0.3, {more} }}\n"
    )
}

fn is_current(dir: &Dir, daemon: &mut Running<'_>, number: u32) {
    let (source, target) = (format!("src{number}"), format!("trg{number}"));
    dir.put(&format!("{source}/sign"), daemon.log().len().to_string());
    daemon.wait_same(&source, &target, false);
}

fn configure(dir: &Dir, config: &str) {
    dir.put("config.lua", dir.expand(config));
}

/// Returns number and inode of all watches (proc(5): fdinfo).
fn watches(daemon: &Running<'_>) -> Vec<String> {
    let mut watches = Vec::new();
    for file in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("inotify wd:"));
        watches.extend(lines.map(|line| line.split(" sdev").next().unwrap().to_owned()));
    }
    // The descriptor is listed more than once.
    watches.sort();
    watches.dedup();
    watches
}

#[test]
fn unchanged_syncs_are_not_affected() {
    let dir = Dir::new();
    dir.mkdir("a/b");
    let fake = Fake::new(&dir);
    let two = other(&dir, 2, "");
    let mut daemon = Daemon::new(&dir, &format!("{FIRST}{two}")).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    fake.hold_a_transfer(&mut daemon);
    dir.write("g", "1");
    let before = watches(&daemon);

    let two = other(&dir, 2, "delete = false,");
    let three = other(&dir, 3, "");
    configure(&dir, &format!("{three}{FIRST}{two}"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("1 untouched, 1 changed, 1 new, 0 removed");
    daemon.wait_for("the others have started up", |daemon| {
        daemon.log().matches("finished.").count() == 4
    });
    is_current(&dir, &mut daemon, 2);
    is_current(&dir, &mut daemon, 3);
    let after = watches(&daemon);
    if !under_fanotify() {
        assert!(
            before.iter().all(|watch| after.contains(watch)),
            "{before:?} {after:?}"
        );
        assert_eq!(after.len(), before.len() + 1);
    }
    assert_eq!((fake.calls().len(), fake.ended()), (2, 1));

    fake.release();
    daemon.wait_for("waiting changes are sent", |_| fake.ended() >= 3);
    assert!(fake.calls()[2].lists("/g"));
    dir.write("ignored.tmp", "");
    dir.write("h", "1");
    daemon.wait_for("later changes are sent", |_| fake.ended() >= 4);
    assert!(fake.calls()[3].lists("/h") && !fake.calls()[3].lists("/ignored.tmp"));
    assert_eq!(daemon.terminate(), Some(143));
}

/// The watcher must not take directories that were excluded for excluded any longer.
#[test]
fn directories_that_a_reload_no_longer_excludes_are_watched() {
    for watch in ["inotify", "fanotify"] {
        let dir = Dir::new();
        dir.mkdir("d/e/g");
        let config = |keys: &str| {
            format!(
                r#"settings{{ watch = "{watch}", insist = true, controlSocket = "@DIR@/sock" }}
                sync{{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0, {keys}
                       rsync = {{ archive = true }} }}"#
            )
        };
        let excluding = config(r#"exclude = { "/d" },"#);
        let mut daemon = Daemon::new(&dir, &excluding).start_and_settle();
        // Events of these directories are read, and found to be of no concern.
        for name in ["d/f", "d/e/f", "d/e/g/f", "f"] {
            dir.write(name, "1");
        }
        daemon.settle();
        assert!(dir.trg("f").exists() && !dir.trg("d").exists());
        configure(&dir, &config(""));
        daemon.signal(Signal::SIGHUP);
        daemon.wait_equal();
        daemon.settle();
        for name in ["d/f", "d/e/f", "d/e/g/f"] {
            dir.rm(name);
            dir.write([name, " new"].concat(), "22");
        }
        daemon.settle();
        daemon.wait_equal();
    }
}

#[test]
fn several_reloads_in_a_row_lose_nothing() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, FIRST).start_and_settle();
    for round in 1..=5 {
        let delete = if round % 2 == 0 { "false" } else { "true" };
        configure(
            &dir,
            &format!("{FIRST}{}", other(&dir, 2, &format!("delete = {delete},"))),
        );
        // Each time of another size: a wrapper of rsync gets no option against the quick check.
        dir.write("f", "x".repeat(round));
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("configuration was read", |daemon| {
            daemon.log().matches("Read the configuration again").count() == round
        });
    }
    is_current(&dir, &mut daemon, 2);
    daemon.wait_equal();
    let startups = fake
        .calls()
        .iter()
        .filter(|call| call.has("-r") && !call.has("--from0"))
        .count();
    assert_eq!(startups, 1);
}

#[test]
fn a_changed_sync_waits_for_its_transfer_and_keeps_pending_changes() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, FIRST).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    dir.write("g", "1");
    configure(
        &dir,
        &FIRST.replace("archive = true", "archive = true, checksum = true"),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("0 untouched, 1 changed, 0 new, 0 removed");
    // A second reload while the child of the first sync still runs.
    configure(
        &dir,
        &FIRST.replace("archive = true", "archive = true, inplace = true"),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("configuration was read twice", |daemon| {
        daemon.log().matches("1 changed").count() == 2
    });
    assert_eq!(fake.calls().len(), 2);
    fake.release();
    // Files that were written during the reload may be in a list of their own.
    daemon.wait_for("startup and pending changes were done", |_| {
        let calls = fake.calls();
        let lists = |path: &str| {
            calls
                .iter()
                .skip(3)
                .any(|call| call.done && call.lists(path))
        };
        lists("/f") && lists("/g")
    });
    let calls = fake.calls();
    assert!(calls[2].has("--inplace") && calls[2].concurrent == 1);
    daemon.wait_equal();
}

#[test]
fn a_removed_sync_ends() {
    let dir = Dir::new();
    Fake::new(&dir);
    let two = other(&dir, 2, "");
    let mut daemon = Daemon::new(&dir, &format!("{two}{FIRST}")).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches("finished.").count() == 2
    });
    let before = watches(&daemon);
    configure(&dir, FIRST);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("1 untouched, 0 changed, 0 new, 1 removed");
    daemon.wait_for("one directory less is watched", |daemon| {
        under_fanotify() || watches(daemon).len() == before.len() - 1
    });
}

#[test]
fn a_broken_configuration_changes_nothing() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, FIRST).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    let broken = [
        "sync{",
        "sync{ default.rsync, source = '@DIR@/nowhere', target = '@TRG@' }",
        "settings{ hup = 'never' }",
        "error('x')",
        "",
    ];
    for (n, text) in broken.iter().enumerate() {
        configure(&dir, text);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("it is reported", |daemon| {
            daemon
                .log()
                .matches("previous configuration stays in force")
                .count()
                == n + 1
        });
    }
    fake.release();
    daemon.wait_for("the transfer ended", |_| fake.ended() >= 2);
    dir.write("g", "1");
    daemon.wait_for("changes are sent", |_| fake.ended() >= 3);
    assert!(fake.calls()[2].lists("/g"));
}

/// Functions may use changed values, so a sync with functions starts again; strings are compared.
#[test]
fn syncs_with_functions_start_again() {
    let dir = Dir::new();
    let config = r#"
        settings{ hup = "changed" }
        sync{ source = "@SRC@", delay = 0, onCreate = "echo text ^path" }
        sync{ source = "@SRC@", delay = 0, onCreate = function(event) log("Normal", "one " .. event.path) end }
    "#;
    let mut daemon = Daemon::new(&dir, config).args(&["-log", "Inotify"]).start();
    daemon.wait_log("directories in all");
    configure(&dir, &config.replace("one ", "two "));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("1 untouched, 1 changed, 0 new, 0 removed");
    dir.write("f", "1");
    daemon.wait_log("two f");
    daemon.wait_log("text f");
    assert!(!daemon.log().contains("one f"));
}

/// A command such as `mv` fails if it is repeated, or moves another file.
#[test]
fn a_command_that_runs_during_a_reload_is_not_repeated() {
    let dir = Dir::new();
    let config = r#"
        settings{ hup = "changed" }
        sync{
            source = "@SRC@", target = "@TRG@", delay = 0,
            onCreate = "cp -p ^sourcePathname ^targetPathname",
            onMove = "touch @DIR@/begun; until [ -e @DIR@/go ]; do sleep 0.1; done; "
                .. "mv ^o.targetPathname ^d.targetPathname",
            exitcodes = { [1] = "again" },
        }
    "#;
    dir.write("a", "1");
    dir.put("trg/a", "1");
    let mut daemon = Daemon::new(&dir, config).args(&["-log", "Inotify"]).start();
    daemon.wait_log("directories in all");
    fs::rename(dir.path("src/a"), dir.path("src/b")).unwrap();
    daemon.wait_for("the command runs", |_| dir.path("begun").exists());
    dir.write("a", "2");
    configure(&dir, &config.replace("delay = 0,", "delay = 0.1,"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("0 untouched, 1 changed, 0 new, 0 removed");
    dir.put("go", "");
    daemon.wait_equal();
    assert_eq!(daemon.log().matches("Finished Move").count(), 1);
    assert!(!daemon.log().contains("Retrying"));
}

/// Without the setting every sync runs its startup transfer, but watches and pending changes are
/// kept.
#[test]
fn hup_keeps_watches_and_what_is_pending() {
    let dir = Dir::new();
    dir.mkdir("a/b/c");
    let fake = Fake::passing(&dir);
    let config = FIRST.replace("hup = \"changed\",", "");
    let slow = config.replace("delay = 0.3", "delay = 100000, init = false");
    let mut daemon = Daemon::new(&dir, &slow)
        .args(&["-log", "Inotify", "-log", "Delay"])
        .start();
    daemon.wait_log("directories in all");
    dir.write("a/b/f", "1");
    dir.mv("a/b/c", "d");
    daemon.wait_log("/d/");
    let before = watches(&daemon);
    configure(
        &dir,
        &config.replace("delay = 0.3", "delay = 0.2, init = false"),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("--- HUP signal, resetting ---");
    daemon.wait_for("pending changes are sent", |_| fake.ended() >= 1);
    let call = &fake.calls()[0];
    assert!(call.lists("/a/b/f") && call.lists("/d/"));
    assert_eq!(watches(&daemon), before);
    configure(&dir, &config);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("finished.");
    daemon.wait_equal();
    assert_eq!(watches(&daemon), before);
}

#[test]
fn a_broken_configuration_at_hup_changes_nothing() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = FIRST.replace("hup = \"changed\",", "");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    configure(&dir, "sync{");
    for round in 2..4 {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("the startup transfer ran again", |_| fake.ended() >= round);
    }
    dir.write("f", "1");
    daemon.wait_for("changes are sent", |_| fake.ended() >= 4);
}

/// Returns the number of the daemon's threads with this name.
fn threads(daemon: &Running<'_>, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
    names
        .filter(|found| found.as_ref().is_ok_and(|found| found.trim() == name))
        .count()
}

/// The threads of default.direct and of checks, for syncs that are changed, kept and removed.
#[test]
fn threads_end_with_their_sync() {
    for hup in ["changed", "all"] {
        let dir = Dir::new();
        let settings = format!("settings{{ hup = '{hup}', stopTimeout = 1, insist = true }}\n");
        for name in ["stays", "checked"] {
            fs::create_dir(dir.path(name)).unwrap();
        }
        let config = |round: u32| {
            format!(
                r#"{settings}
sync{{ default.direct, source = "@SRC@", target = "@TRG@", delay = 0.1{round} }}
sync{{ default.direct, source = "@SRC@", target = "@DIR@/stays", delay = 0.1 }}
sync{{ default.rsync, source = "@SRC@", target = "@DIR@/checked", delay = 0.1{round},
       check = function(path) return true end }}
"#
            )
        };
        let mut daemon = Daemon::new(&dir, &config(0)).start();
        for round in 1..=4 {
            dir.write("f", round.to_string());
            for target in ["trg", "stays", "checked"] {
                daemon.wait_same("src", target, false);
            }
            daemon.wait_for("each has its thread", |daemon| {
                threads(daemon, "direct") == 2 && threads(daemon, "check") <= 1
            });
            configure(&dir, &config(round));
            daemon.signal(Signal::SIGHUP);
            let reloads = match hup {
                "changed" => "1 untouched, 2 changed, 0 new, 0 removed",
                _ => "--- Startup ---",
            };
            let times = if hup == "changed" { round } else { round + 1 };
            daemon.wait_for("it was read", |daemon| {
                daemon.log().matches(reloads).count() == times as usize
            });
        }
        configure(&dir, &format!("{settings}{}", other(&dir, 2, "")));
        daemon.signal(Signal::SIGHUP);
        is_current(&dir, &mut daemon, 2);
        daemon.wait_for("their threads have ended", |daemon| {
            threads(daemon, "direct") == 0 && threads(daemon, "check") == 0
        });
    }
}

#[test]
fn a_sync_that_ended_keeps_no_thread() {
    let dir = Dir::new();
    let config = r#"
settings{ hup = "changed", stopTimeout = 1 }
sync{ default.direct, name = "ends", source = "@SRC@", target = "@TRG@", delay = 0.1,
      exitcodes = { [0] = "ok", [11] = "die" } }
"#;
    let mut daemon = Daemon::new(&dir, &format!("{config}{}", other(&dir, 2, ""))).start();
    daemon.wait_for("both have started up", |daemon| {
        daemon.log().matches(" finished").count() == 2
    });
    // A file replaces the directory of the target.
    fs::remove_dir_all(dir.path("trg")).unwrap();
    dir.put("trg", "");
    dir.write("f", "1");
    daemon.wait_log("ends: ended by exit code");
    daemon.wait_for("its thread has ended", |daemon| {
        threads(daemon, "direct") == 0
    });
    is_current(&dir, &mut daemon, 2);
}
