//! `lsyncdctl status` in each state of a daemon.

use super::*;

#[test]
fn a_sync_is_shown_as_starting_current_pending_and_sending() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.hold();
    let mut daemon = Daemon::new(&dir, &one("")).start();
    wait_socket(&dir, &mut daemon);
    let starting = wait_state(&dir, &mut daemon, State::Starting);
    assert_eq!(starting.severity, Severity::Behind);
    assert_eq!(code(&ctl(&dir, &["status"])), 1);

    fake.release();
    wait_state(&dir, &mut daemon, State::Current);
    let shown = ctl(&dir, &["status", "one"]);
    assert_eq!(code(&shown), 0);
    assert!(text(&shown).starts_with("lsyncd CURRENT: 1 sync, "));

    fake.hold();
    dir.write("f\n1", "x");
    let sending = wait_state(&dir, &mut daemon, State::Sending);
    let child = &sending.syncs[0].sending[0];
    assert_eq!((child.entries, child.full), (1, false));
    assert_eq!(child.paths, ["/f\\0121"]);
    dir.write("g", "x");
    daemon.wait_for("more is pending", |_| status(&dir).syncs[0].pending == 2);
    let entries = &status(&dir).syncs[0].queue;
    assert_eq!(
        (entries[0].status.as_str(), entries[1].path.as_str()),
        ("active", "/g")
    );

    fake.release();
    let current = wait_state(&dir, &mut daemon, State::Current);
    let totals = &current.syncs[0].totals;
    assert!(
        totals.batches >= 3 && totals.entries >= 3 && totals.events >= 2,
        "{totals:?}"
    );
    assert!(current.syncs[0].last_success.is_some());
}

#[test]
fn an_unreachable_target_is_shown_until_it_is_back() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.exits(&[0, 12]);
    dir.write("f", "x");
    let cut = wait_state(&dir, &mut daemon, State::Retrying);
    assert_eq!(cut.severity, Severity::Trouble);
    let sync = &cut.syncs[0];
    assert_eq!(sync.totals.failures.get(&12), Some(&1), "{sync:?}");
    assert!(sync.detail.starts_with("retrying in "), "{}", sync.detail);
    assert_eq!(sync.last_error.as_ref().map(|error| error.code), Some(12));
    assert_eq!(code(&ctl(&dir, &["status"])), 2);

    fake.exits(&[0]);
    done(&dir, &["retry"]);
    wait_state(&dir, &mut daemon, State::Current);
    assert_eq!(code(&ctl(&dir, &["status"])), 0);
}

#[test]
fn failing_syncs_are_first_and_have_a_remedy() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fs::create_dir(dir.path("b")).unwrap();
    let more = r#"}
sync{
    default.rsync, name = "two", source = "@DIR@/b", target = "@DIR@/c", delay = 0,
    rsync = { binary = "@DIR@/bin/refused" }, init = false,"#;
    dir.script(
        "bin/refused",
        "echo 'Host key verification failed.' >&2\nexit 255\n",
    );
    let mut daemon = Daemon::new(&dir, &one(more)).start_and_settle();
    let shown = ctl(&dir, &["status", "-max-age", "15m"]);
    assert!(
        text(&shown).contains("\ncurrent: one, two\n"),
        "{}",
        text(&shown)
    );
    dir.put("b/f", "x");
    daemon.wait_for("it fails", |_| {
        status(&dir).syncs[1].state == State::Retrying
    });
    fake.hold();
    dir.write("f", "x");
    daemon.wait_for("more is pending", |_| status(&dir).syncs[0].pending == 1);

    let shown = ctl(&dir, &["status"]);
    let lines = text(&shown);
    let mut lines = lines.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    assert!(first.contains(" 1 in trouble (two), "), "{first}");
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("two  retrying in "))
    );
    let remedy = lines.any(|line| line.trim_start().starts_with("remedy: log in once"));
    assert!(remedy, "{}", text(&shown));
    assert!(lines.any(|line| line.starts_with("one  ")));

    let of_one = |words: &[&str]| ctl(&dir, &[&["status", "-sync", "o*"], words].concat());
    assert_eq!(code(&of_one(&[])), 1);
    assert_eq!(code(&of_one(&["-max-age", "15m"])), 0);
    assert_eq!(code(&of_one(&["-max-age", "0"])), 1);
    assert_eq!(code(&ctl(&dir, &["status", "-max-age", "15m"])), 2);
    let trouble = text(&ctl(&dir, &["status", "-trouble"]));
    assert!(!trouble.contains("\none "), "{trouble}");
    assert_eq!(code(&ctl(&dir, &["status", "-sync", "x*"])), 2);
    fake.release();
}

#[test]
fn failed_paths_are_named() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fake.exits(&[0, 23]);
    dir.write("left", "x");
    daemon.wait_for("it is named", |_| {
        status(&dir).syncs[0].failed_paths == ["/left"]
    });
    assert_eq!(status(&dir).severity, Severity::Trouble);
    fake.exits(&[0]);
    done(&dir, &["retry"]);
    wait_state(&dir, &mut daemon, State::Current);
}

#[test]
fn a_missing_source_is_shown() {
    let dir = Dir::new();
    Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    fs::rename(dir.path("src"), dir.path("away")).unwrap();
    let lost = wait_state(&dir, &mut daemon, State::SourceLost);
    assert_eq!(lost.severity, Severity::Trouble);
    assert_eq!(code(&ctl(&dir, &["status"])), 2);
}

#[test]
fn exit_code_is_3_without_a_daemon_and_4_for_wrong_arguments() {
    let dir = Dir::new();
    assert_eq!(code(&ctl(&dir, &["status"])), 3);
    assert_eq!(code(&ctl(&dir, &["pause"])), 3);
    assert_eq!(code(&ctl(&dir, &["explode"])), 4);
    let help = ctl(&dir, &["-help"]);
    assert!(code(&help) == 0 && text(&help).contains("resync [PATH]"));
}

#[test]
fn the_lag_grows_with_a_failure_until_the_target_is_current() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    let first_line = || {
        text(&ctl(&dir, &["status"]))
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    let current = wait_state(&dir, &mut daemon, State::Current);
    assert_eq!((current.lag, current.syncs[0].lag), (0.0, 0.0));
    assert!(
        first_line().ends_with("| lag=0.0s pending=0"),
        "{}",
        first_line()
    );
    // The whole batch fails, or one path only.
    for code in [12, 23] {
        fake.exits(&[code]);
        dir.write("f", code.to_string());
        done(&dir, &["flush"]);
        let mut before = 0.0;
        daemon.wait_for("it fails", |_| {
            let failing = status(&dir);
            before = failing.lag;
            failing.severity == Severity::Trouble
        });
        assert!(before > 0.0);
        let mut last = before;
        let calls = fake.ended();
        daemon.wait_for("it fails again, and the lag has grown", |_| {
            done(&dir, &["retry"]);
            let now = status(&dir).lag;
            // The age of an entry is exact to a second.
            assert!(now > last - 1.1, "{now} after {last}");
            last = now;
            fake.ended() > calls + 1 && now > before
        });
        assert!(first_line().contains(" behind, "), "{}", first_line());
        fake.exits(&[0]);
        daemon.wait_for("it is current", |_| {
            done(&dir, &["retry"]);
            status(&dir).severity == Severity::Current
        });
        assert_eq!(status(&dir).lag, 0.0);
    }
}

/// The remedy of a halt is a command.
#[test]
fn a_halt_has_a_command_as_remedy_and_past_errors_are_marked() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    dir.write("here", "");
    let shown = || String::from_utf8(ctl(&dir, &["status", "-sync", "one"]).stdout).unwrap();
    let config = one("guard = { marker = \"here\" },");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    fake.exits(&[0, 12, 0]);
    dir.write("f", "x");
    daemon.wait_for("it has failed", |_| {
        status(&dir).syncs[0].last_error.is_some()
    });
    assert!(shown().contains("    last error "), "{}", shown());
    done(&dir, &["retry"]);
    wait_state(&dir, &mut daemon, State::Current);
    assert!(shown().contains("    past error "), "{}", shown());
    dir.rm("here");
    wait_state(&dir, &mut daemon, State::Halted);
    let remedy = "\"lsyncdctl release one\" continues";
    assert!(shown().contains(remedy), "{}", shown());
}
