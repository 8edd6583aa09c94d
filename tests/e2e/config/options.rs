//! Effects of options and settings that have no file of their own.

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, under_fanotify};
use crate::support::fake::Fake;

const RECORDED: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.1, exclude = { "*.x" },
    rsync = { binary = "@RSYNC@" },
}
"#;

#[test]
fn runner_has_no_effect_and_is_reported() {
    for option in ["--runner", "-runner"] {
        let dir = Dir::new();
        let _fake = Fake::new(&dir);
        let daemon = Daemon::bare(&dir)
            .fake_first()
            .args(&[option, "/x.lua", "-nodaemon", "-rsync", "@SRC@", "@TRG@"])
            .start_and_settle();
        assert!(
            daemon.log().contains("Warn: -runner is ignored"),
            "{}",
            daemon.log()
        );
    }
}

#[test]
fn sshopts_are_passed_to_ssh() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::bare(&dir)
        .fake_first()
        .args(&["-nodaemon", "-sshopts", "-p 2222 -o 'User=a b'"])
        .args(&["-rsyncssh", "@SRC@", "h", "/t"])
        .start();
    daemon.wait_for("it started up", |_| fake.ended() >= 1);
    let call = &fake.calls()[0];
    let rsh = call.argv.iter().find(|word| word.starts_with("--rsh="));
    let rsh = rsh.unwrap_or_else(|| panic!("{:?}", call.argv));
    assert!(rsh.starts_with("--rsh=ssh -p 2222 -o "), "{rsh}");
    assert!(rsh.contains("User=a b"), "{rsh}");
}

#[test]
fn sshopts_without_ssh_are_reported() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let daemon = Daemon::bare(&dir)
        .fake_first()
        .args(&["-nodaemon", "-sshopts", "-p 2", "-rsync", "@SRC@", "@TRG@"])
        .start_and_settle();
    assert!(
        daemon.log().contains("-sshopts is for -rsyncssh only"),
        "{}",
        daemon.log()
    );
}

#[test]
fn monitor_accepts_inotify_only() {
    let dir = Dir::new();
    let run = |words: &[&str]| Daemon::bare(&dir).args(words).run();
    let listed = run(&["-monitor"]);
    assert_eq!(listed.code(), Some(255));
    assert!(
        listed.stdout.ends_with("\n   inotify\n\n"),
        "{}",
        listed.stdout
    );
    let other = run(&[
        "-nodaemon",
        "-monitor",
        "fsevents",
        "-rsync",
        "@SRC@",
        "@TRG@",
    ]);
    other.assert_refused();
    assert!(other.stderr.contains("event monitor \"fsevents\" unknown."));
    let words = [
        "-nodaemon",
        "-onepass",
        "-monitor",
        "inotify",
        "-rsync",
        "@SRC@",
        "@TRG@",
    ];
    assert_eq!(run(&words).code(), Some(0));
}

#[test]
fn scripts_run_before_the_configuration_in_order() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    dir.put("a.lua", "steps = 'a'");
    dir.put("b.lua", "steps = steps .. 'b' default.delay = 7");
    let config = format!("log('Normal', 'steps ', steps, default.delay)\n{RECORDED}");
    let daemon = Daemon::new(&dir, &config)
        .args(&["-script", "@DIR@/a.lua", "-script", "@DIR@/b.lua"])
        .start_and_settle();
    assert!(daemon.log().contains("steps ab7"), "{}", daemon.log());
}

#[test]
fn the_settings_choose_log_categories() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let config = format!("settings{{ log = {{ 'Exec', 'Delay' }} }}\n{RECORDED}");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_log("Exec: @RSYNC@ [<] [*.x]");
    dir.write("f", "1");
    daemon.wait_log("Delay: New Create: /f");

    let bad = "settings{ log = 'exec' }".to_owned() + RECORDED;
    let ended = Daemon::new(&dir, &bad).named("bad").run();
    ended.assert_refused();
    assert!(
        ended
            .stderr
            .contains("'exec' is not a valid logging category"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_command_line_overrides_log_categories_of_the_settings() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = format!("settings{{ log = 'all' }}\n{RECORDED}");
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "scarce"]).start();
    daemon.wait_for("it started up", |_| fake.ended() >= 1);
    assert_eq!(daemon.terminate(), Some(143));
    assert!(!daemon.log().contains("Normal:"), "{}", daemon.log());
}

/// Each log category of lsyncd logs something.
#[test]
fn every_category_logs() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let more = r#"
settings{ statusFile = "@DIR@/status" }
sync{ source = "@SRC@", onCreate = "/bin/true" }
"#;
    let mut daemon = Daemon::new(&dir, &(RECORDED.to_owned() + more))
        .args(&["-log", "all"])
        .start_and_settle();
    dir.write("f.x", "1");
    dir.write("f", "1");
    let watch = if under_fanotify() {
        [
            "Normal: @SRC@/ is watched with fanotify",
            "Inotify: got event Create",
        ]
    } else {
        [
            "Inotify: addwatch( @SRC@/ )-> 1",
            "Inotify: got event Create f(1.0)",
        ]
    };
    for line in [
        watch[0],
        watch[1],
        "Filter: filtered Create on \"/f.x\"",
        "Exclude: Sync1: excludes *.x",
        "Delay: New Create: /f",
        "Exec: @RSYNC@ [<]",
        "FWrite: onCreate: translated",
        "Function: Sync1: init for Init",
        "Function: Sync1: action for Create",
        "Statusfile: writing the status file",
        "Debug: settings: ",
    ] {
        daemon.wait_log(line);
    }
}
