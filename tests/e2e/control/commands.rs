//! Each command of lsyncdctl, for a daemon that is idle, busy, paused or without connection.

use super::*;

#[test]
fn a_paused_sync_queues_and_starts_nothing() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    done(&dir, &["pause", "one"]);
    dir.write("f", "x");
    daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
    done(&dir, &["flush"]);
    let paused = status(&dir);
    assert_eq!(paused.syncs[0].state, State::Paused);
    assert_eq!((paused.severity, fake.ended()), (Severity::Behind, 1));
    done(&dir, &["resume"]);
    wait_state(&dir, &mut daemon, State::Current);
    assert_eq!(fake.ended(), 2);
}

#[test]
fn flush_and_usr1_end_the_delay_of_what_waits() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = one("").replace("delay = 1", "delay = 86400");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for (calls, by_signal) in [(2, false), (3, true)] {
        // A file that is written in the source has more events, which may be read after the flush.
        let file = dir.put("new", "x");
        std::fs::rename(file, dir.src(format!("f{calls}"))).unwrap();
        daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
        if by_signal {
            daemon.signal(Signal::SIGUSR1)
        } else {
            done(&dir, &["flush", "one"])
        }
        daemon.wait_for("it is sent", |_| fake.ended() >= calls);
    }
}

#[test]
fn resync_compares_everything_or_a_path() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.mkdir("d");
    dir.write("d/a", "x");
    dir.write("b", "x");
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    done(&dir, &["resync", "one"]);
    daemon.wait_for("all is compared", |_| fake.ended() >= 2);
    assert!(fake.calls()[1].has("-r"));

    done(&dir, &["resync", "@SRC@/d"]);
    daemon.wait_for("the directory is sent", |_| fake.ended() >= 3);
    let call = &fake.calls()[2];
    assert!(call.lists("/d/***"), "{:?}", call.argv);
    assert!(!call.lists("/b"));

    done(&dir, &["resync", "one", "b"]);
    daemon.wait_for("the file is sent", |_| fake.ended() >= 4);
    assert!(fake.calls()[3].lists("/b"));

    for words in [
        &["resync", "/nowhere/f"][..],
        &["resync", "one", "../x"],
        &["resync", "none", "b"],
        &["pause", "none"],
    ] {
        assert_eq!(code(&ctl(&dir, words)), 2, "{words:?}");
    }
}

/// A directory is compared with all its contents, for each value of `delete` and each kind of sync.
#[test]
fn resync_of_a_directory_sends_its_contents() {
    for kind in ["default.rsync", "default.direct"] {
        for delete in ["true", "false", "'startup'"] {
            let dir = Dir::new();
            for name in ["d/deep/er", "other"] {
                dir.mkdir(name);
                dir.write(format!("{name}/f"), "x");
                dir.write(format!("{name}/left-out"), "x");
            }
            let config = format!(
                "{SETTINGS} sync{{ {kind}, source = '@SRC@', target = '@TRG@', delay = 0.1, \
                 delete = {delete}, name = 'one', exclude = {{ 'left-out' }} }}"
            );
            let mut daemon = Daemon::new(&dir, &config).start();
            wait_socket(&dir, &mut daemon);
            done(&dir, &["status", "-wait"]);
            for name in ["d/deep", "other"] {
                crate::support::dir::remove(&dir.trg(name));
            }
            std::fs::write(dir.trg("d/only-there"), "x").unwrap();
            done(&dir, &["resync", "@SRC@/d"]);
            done(&dir, &["status", "-wait"]);
            let what = format!("{kind} {delete}\n{}", daemon.log());
            assert!(dir.trg("d/deep/er/f").exists(), "{what}");
            assert!(!dir.trg("d/deep/er/left-out").exists(), "{what}");
            assert_eq!(dir.trg("d/only-there").exists(), delete != "true", "{what}");
            assert!(!dir.trg("other").exists(), "{what}");
            assert_eq!(daemon.terminate(), Some(143));
        }
    }
}

/// The user code of other syncs gets no path, and nothing waits for the directory to be read.
#[test]
fn resync_of_a_directory_calls_user_code_for_each_path_in_it() {
    let dir = Dir::new();
    let mut expected = vec!["d/".to_owned()];
    for outer in 0..20 {
        expected.push(format!("d/{outer}/"));
        dir.mkdir(format!("d/{outer}"));
        for inner in 0..30 {
            dir.write(format!("d/{outer}/{inner}"), "x");
            expected.push(format!("d/{outer}/{inner}"));
        }
    }
    dir.write("not-asked-for", "x");
    let one = |name: &str| {
        format!(
            "sync{{ source = '@SRC@', name = '{name}', delay = 0, maxProcesses = 1, init = false,
               action = function(inlet)
                 local event = inlet.getEvent()
                 log('Normal', '{name}: ' .. event.etype .. ' ' .. event.path)
                 inlet.discardEvent(event)
               end }}\n"
        )
    };
    let config = format!("{SETTINGS}\n{}{}", one("one"), one("two"));
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_socket(&dir, &mut daemon);
    done(&dir, &["status", "-wait"]);
    done(&dir, &["resync", "one", "d"]);
    done(&dir, &["status", "-wait"]);
    let log = daemon.log();
    for path in expected {
        assert_eq!(
            log.matches(&format!("one: Create {path}\n")).count(),
            1,
            "{path}\n{log}"
        );
    }
    assert!(
        !log.contains("two: ") && !log.contains("not-asked-for"),
        "{log}"
    );
}

#[test]
fn reload_reads_the_configuration_again() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    let renamed = one("").replace("\"one\"", "\"other\"");
    dir.put("config.lua", dir.expand(&renamed));
    done(&dir, &["reload"]);
    daemon.wait_for("the sync has its new name", |_| {
        code(&ctl(&dir, &["status", "other"])) == 0
    });
}

#[test]
fn reload_does_not_affect_unchanged_syncs() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.hold();
    dir.write("f", "x");
    daemon.wait_for("a transfer runs", |_| fake.calls().len() >= 2);

    fs::create_dir(dir.path("second")).unwrap();
    let second = r#"sync{ source = "@DIR@/second", onStartup = "echo begun" }"#;
    dir.put("config.lua", dir.expand(&format!("{}\n{second}", one(""))));
    done(&dir, &["reload"]);
    daemon.wait_log("1 untouched, 0 changed, 1 new, 0 removed");
    daemon.wait_log("begun");
    assert_eq!((fake.calls().len(), fake.ended()), (2, 1));

    dir.put("config.lua", "sync{ nonsense }");
    let refused = ctl(&dir, &["reload"]);
    assert_eq!(code(&refused), 2, "{}", text(&refused));
    let told = text(&refused);
    assert!(told.contains(&dir.expand("@DIR@/config.lua:1: ")), "{told}");
    let shown = text(&ctl(&dir, &["status"]));
    assert!(
        shown.contains("the previous one stays in force:\n"),
        "{shown}"
    );
    assert!(
        shown.contains(&dir.expand("@DIR@/config.lua:1: ")),
        "{shown}"
    );
    dir.put("config.lua", dir.expand(&format!("{}\n{second}", one(""))));
    done(&dir, &["reload"]);
    assert_eq!(status(&dir).reload_error, None);
    assert_eq!((fake.calls().len(), fake.ended()), (2, 1));
    fake.release();
    daemon.wait_for("the transfer ends", |_| fake.ended() >= 2);
    wait_state(&dir, &mut daemon, State::Current);
}

#[test]
fn log_level_takes_the_words_of_the_option() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    done(&dir, &["log-level", "Exec"]);
    dir.write("f", "x");
    daemon.wait_log("Exec: @RSYNC@ ");
    daemon.wait_for("it is sent", |_| fake.ended() >= 2);
    assert_eq!(code(&ctl(&dir, &["log-level", "bad"])), 2);
    done(&dir, &["log-level"]);
}

#[test]
fn usr2_dumps_the_state_into_the_log() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.hold();
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Sending);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_log("--- end of the state dump ---");
    let log = daemon.log();
    assert!(log.contains("state: one: active Create /f\n"), "{log}");
    fake.release();
}

#[test]
fn a_sync_that_has_ended_refuses_commands_without_effect() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[1, 0, 0]);
    fs::create_dir(dir.path("trg2")).unwrap();
    let other = "sync{ default.direct, name = 'two', source = '@SRC@', target = '@DIR@/trg2' }";
    let config = format!("settings{{ insist = true }}\n{}\n{other}", one(""));
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_socket(&dir, &mut daemon);
    wait_state(&dir, &mut daemon, State::Ended);
    for words in [
        &["retry", "one"][..],
        &["resync", "one"],
        &["resync", "one", "f"],
        &["resume", "one"],
        &["flush", "one"],
        &["release", "one"],
    ] {
        let output = ctl(&dir, words);
        assert_ne!(code(&output), 0, "{words:?}");
        let said = text(&output);
        assert!(said.contains("one was ended by exit code 1"), "{said}");
    }
    // The other sync is active.
    for verb in ["retry", "resync", "resume", "flush"] {
        done(&dir, &[verb]);
        done(&dir, &[verb, "two"]);
    }
    done(&dir, &["reload"]);
    wait_state(&dir, &mut daemon, State::Current);
    dir.write("f", "x");
    daemon.wait_for("it is at work again", |_| {
        fake.calls().iter().any(|call| call.lists("/f"))
    });
}

#[test]
fn a_limit_of_deletions_is_shown_and_released() {
    for kind in ["default.rsync", "default.direct"] {
        let dir = Dir::new();
        for n in 0..8 {
            dir.write(format!("f{n}"), "x");
        }
        let config = format!(
            "{SETTINGS} sync{{ {kind}, source = '@SRC@', target = '@TRG@', delay = 0.1, \
             guard = {{ maxDelete = 3 }} }}"
        );
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_equal();
        for n in 0..8 {
            dir.rm(format!("f{n}"));
        }
        let halted = wait_state(&dir, &mut daemon, State::Halted);
        assert_eq!(halted.severity, Severity::Trouble);
        let why = halted.syncs[0].halted.clone().unwrap();
        assert!(
            why.contains("would be deleted on the target, more than 3"),
            "{why}"
        );
        // The growing wait does not delay the release.
        daemon.wait_for("it has looked several times", |daemon| {
            daemon.log().matches("checking again in").count() >= 3
        });
        let tries = daemon.log().matches("checking again in").count();
        done(&dir, &["release"]);
        daemon.wait_equal();
        wait_state(&dir, &mut daemon, State::Current);
        let log = daemon.log();
        assert_eq!(log.matches("checking again in").count(), tries, "{log}");
        // The release is for one transfer only.
        for n in 0..8 {
            dir.write(format!("g{n}"), "x");
        }
        daemon.wait_equal();
        for n in 0..8 {
            dir.rm(format!("g{n}"));
        }
        wait_state(&dir, &mut daemon, State::Halted);
        assert!(dir.trg("g0").exists());
    }
}

#[test]
fn the_target_of_rsyncssh_is_shown() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = format!(
        "{SETTINGS} sync{{ default.rsyncssh, source = '@SRC@', host = 'u@h', targetdir = '/srv/x', \
         rsync = {{ binary = '@RSYNC@' }} }}"
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_log("finished: 0");
    assert_eq!(status(&dir).syncs[0].target, "u@h:/srv/x/");
}

/// The status shows rsync's error, not a warning or the last line.
#[test]
fn the_last_error_is_the_error_line_of_rsync() {
    let dir = Dir::new();
    let script = "\
        echo \"Warning: Permanently added 'h' (RSA) to the list of known hosts.\" >&2\n\
        echo 'ERROR: password file must not be other-accessible' >&2\n\
        echo 'rsync error: syntax or usage error (code 1) at authenticate.c(261)' >&2\n\
        exit 12\n";
    dir.script("bin/rsync", script);
    let mut daemon =
        Daemon::new(&dir, &format!("settings{{ insist = true }}\n{}", one(""))).start();
    daemon.wait_log("Retrying startup");
    daemon.wait_log("(ERROR: password file must not be other-accessible)");
    daemon.wait_for("the status shows it", |_| {
        let error = status(&dir).syncs[0].last_error.clone();
        error.is_some_and(|error| error.text.starts_with("ERROR: password file"))
    });
}

/// Each command reports what it has changed.
#[test]
fn commands_that_change_nothing_report_it() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    let says = |words: &[&str]| {
        let output = ctl(&dir, words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
        text(&output)
    };
    for verb in ["resume", "flush", "retry", "release"] {
        assert_eq!(says(&[verb, "one"]), "nothing to do for one\n");
        assert_eq!(says(&[verb]), "nothing to do for 1 sync\n");
    }
    assert!(!daemon.log().contains("on request:"), "{}", daemon.log());
    assert_eq!(says(&["pause"]), "paused 1 sync\n");
    assert_eq!(says(&["pause"]), "nothing to do for 1 sync\n");
    dir.write("f", "x");
    daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
    assert_eq!(says(&["flush", "one"]), "flushed one\n");
    assert_eq!(says(&["resume", "one"]), "resumed one\n");
    daemon.wait_for("it is sent", |_| fake.ended() >= 2);
}

/// For a sync without a kind, `onFull` is the full comparison.
#[test]
fn resync_of_user_actions_calls_on_full() {
    for (more, runs) in [
        ("onFull = 'echo full >> @DIR@/told'", true),
        (
            "onFull = 'echo full >> @DIR@/told', onStartup = 'true'",
            true,
        ),
        ("onFull = 'echo full >> @DIR@/told', init = false", true),
        ("onCreate = 'true', init = false", false),
    ] {
        let dir = Dir::new();
        let config = format!("{SETTINGS} sync{{ source = '@SRC@', name = 'one', {more} }}");
        let mut daemon = Daemon::new(&dir, &config).start();
        wait_socket(&dir, &mut daemon);
        wait_state(&dir, &mut daemon, State::Current);
        assert!(!dir.path("told").exists());
        let output = text(&ctl(&dir, &["resync", "one"]));
        if runs {
            daemon.wait_for("it is run", |_| dir.path("told").exists());
            assert_eq!(output, "comparing all of one\n");
        } else {
            assert_eq!(output, "nothing to do for one\n");
        }
    }
}

/// The name of a sync is escaped like paths; commands accept both forms.
#[test]
fn names_of_syncs_are_escaped() {
    for (name, shown) in [
        ("a\\nNormal: b", r"a\012Normal: b"),
        ("a\\27[2Jb", r"a\033[2Jb"),
        ("a\\u{202e}b", r"a\342\200\256b"),
        ("caf\\xe9", r"caf\351"),
        ("a\\\\033b", r"a\134033b"),
    ] {
        let dir = Dir::new();
        let config = one("onSynced = { 'sh', '-c', 'printf %s \"$LSYNCD_SYNC\" > @DIR@/hook' }")
            .replace("\"one\"", &format!("\"{name}\""))
            .replace(
                "controlSocket",
                "statusFile = '@DIR@/status', controlSocket",
            );
        let fake = Fake::new(&dir);
        fake.exits(&[0, 1, 0]);
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        let has_run = || fs::metadata(dir.path("hook")).is_ok_and(|file| file.len() > 0);
        daemon.wait_for("the hook has run", |_| has_run());
        assert_eq!(
            lsyncd::log::escape(&fs::read(dir.path("hook")).unwrap()),
            shown
        );
        assert_eq!(status(&dir).syncs[0].name, shown);
        done(&dir, &["pause", shown]);
        if let Ok(raw) = String::from_utf8(lsyncd::log::unescape(shown)) {
            done(&dir, &["resume", &raw]);
        }
        let line = format!("{shown} source=");
        daemon.wait_for("the status file names it", |_| {
            dir.text("status").contains(&line)
        });
        daemon.wait_log(&format!("on request: paused {shown}\n"));
    }
}
