//! Each verb, on a daemon that is idle, busy, paused or cut off.

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
        dir.write(format!("f{calls}"), "x");
        daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
        match by_signal {
            true => daemon.signal(Signal::SIGUSR1),
            false => done(&dir, &["flush", "one"]),
        }
        daemon.wait_for("it is sent", |_| fake.ended() == calls);
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
    daemon.wait_for("all is compared", |_| fake.ended() == 2);
    assert!(fake.calls()[1].has("-r"));

    done(&dir, &["resync", "@SRC@/d"]);
    daemon.wait_for("the directory is sent", |_| fake.ended() == 3);
    let call = &fake.calls()[2];
    assert!(call.lists("d/a") || call.lists("/d/a"), "{:?}", call.argv);
    assert!(!call.lists("/b"));

    done(&dir, &["resync", "one", "b"]);
    daemon.wait_for("the file is sent", |_| fake.ended() == 4);
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
fn reload_leaves_alone_what_has_not_changed() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.hold();
    dir.write("f", "x");
    daemon.wait_for("a transfer runs", |_| fake.calls().len() == 2);

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
    assert_eq!((fake.calls().len(), fake.ended()), (2, 1));
    fake.release();
    daemon.wait_for("the transfer ends", |_| fake.ended() == 2);
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
    daemon.wait_for("it is sent", |_| fake.ended() == 2);
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
