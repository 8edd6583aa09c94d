//! `lsyncdctl verify`: each kind of drift is reported, running changes are not, and paths that
//! could not be compared are named.

use super::drift::{change_silently, fill, found, plant};
use super::*;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use lsyncd::status::drift_report::{DriftReport, DriftVerdict};

/// One sync with the real rsync.
const MIRROR: &str = r#"settings{ controlSocket = "@DIR@/sock" }
sync{
    default.rsync, name = "one", source = "@SRC@", target = "@TRG@", delay = 1,
    rsync = { archive = true, hard_links = true, xattrs = true, acls = true },
}"#;

/// Runs `lsyncdctl verify` and returns its exit code and the reports.
pub fn verify(dir: &Dir, words: &[&str]) -> (i32, Vec<DriftReport>) {
    let words = [&["verify", "-json"], words].concat();
    let output = ctl(dir, &words);
    (code(&output), reports(&output))
}

pub fn reports(output: &Output) -> Vec<DriftReport> {
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let read =
        |line| serde_json::from_slice(line).unwrap_or_else(|e| panic!("{e}: {}", text(output)));
    lines.map(read).collect()
}

#[test]
fn each_kind_of_drift_is_named_and_repaired() {
    let dir = Dir::new();
    let entries = fill(&dir);
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    daemon.wait_equal();
    let (exit, equal) = verify(&dir, &["-content"]);
    assert_eq!(
        (exit, equal[0].verdict, equal[0].drift),
        (0, DriftVerdict::Equal, 0)
    );
    assert_eq!(equal[0].entries, Some(entries));
    assert!(
        equal[0].rsync.starts_with("rsync  version"),
        "{:?}",
        equal[0]
    );

    let expected = plant(&dir.path("trg"));
    let (exit, drift) = verify(&dir, &["-content"]);
    assert_eq!(found(&drift[0]), expected);
    assert_eq!((exit, drift[0].verdict), (1, DriftVerdict::Drift));
    assert_eq!((drift[0].in_motion, drift[0].repaired), (0, 0));
    verify_details::assert_both_sides(&drift[0]);
    let told = status(&dir).syncs[0].verified.clone().unwrap();
    assert_eq!(
        (told.verdict, told.drift),
        (DriftVerdict::Drift, drift[0].drift)
    );

    // Without -content, rsync sees size and time.
    let (_, by_time) = verify(&dir, &[]);
    assert!(
        !found(&by_time[0])
            .iter()
            .any(|(path, _)| path == "/content")
    );
    let (exit, below) = verify(&dir, &["one", "d"]);
    assert_eq!((exit, below[0].path.as_str(), below[0].drift), (0, "/d", 0));
    fs::write(dir.trg("d/extra"), "x").unwrap();
    let (exit, below) = verify(&dir, &["@SRC@/d"]);
    let mut names = found(&below[0]);
    names.retain(|(path, _)| path != "/d/");
    let extra = ("/d/extra".to_owned(), "extra".to_owned());
    assert_eq!((exit, names), (1, vec![extra]));

    let (exit, repaired) = verify(&dir, &["-content", "-repair"]);
    assert_eq!((exit, repaired[0].verdict), (1, DriftVerdict::Drift));
    assert_eq!(repaired[0].repaired, repaired[0].drift, "{:?}", repaired[0]);
    assert!(repaired[0].differences.iter().all(|each| each.repaired));
    let (exit, equal) = verify(&dir, &["-content"]);
    assert_eq!(
        (exit, equal[0].verdict),
        (0, DriftVerdict::Equal),
        "{:?}",
        equal[0]
    );
    daemon.wait_equal();
}

/// Starts a sync with the stand-in that calls the real rsync. Returns when it is idle.
fn recorded<'d>(dir: &'d Dir, fake: &Fake<'_>) -> Running<'d> {
    let mut daemon = Daemon::new(dir, &one("")).start_and_settle();
    daemon.wait_for("the startup ends", |_| fake.ended() >= 1);
    daemon
}

#[test]
fn a_path_that_changes_during_the_dry_run_is_compared_again_and_is_no_drift() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    dir.write("f", "1");
    dir.write("g", "1");
    let mut daemon = recorded(&dir, &fake);
    fake.hold();
    dir.put(
        "fake/print.2",
        "//>f.st......//1//f//\n//*deleting  //0//.f.Ab12Cd//\n",
    );
    let client = command(&dir, &["verify", "-json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.wait_for("the dry run runs", |_| fake.calls().len() >= 2);
    assert!(fake.calls()[1].has("--dry-run"));
    dir.write("f", "22");
    fake.release();
    let output = client.wait_with_output().unwrap();
    let report = &reports(&output)[0];
    assert_eq!(
        (code(&output), report.verdict),
        (0, DriftVerdict::Equal),
        "{report:?}"
    );
    assert_eq!((report.drift, report.in_motion), (0, 0));
    let calls = fake.calls();
    let again = calls.iter().rfind(|call| call.has("--dry-run")).unwrap();
    assert!(again.lists("/f") && !again.lists("/g"), "{:?}", again.stdin);
    daemon.wait_equal();

    // The same output without a change is drift.
    let next = fake.calls().len() + 1;
    dir.put(&format!("fake/print.{next}"), "//>f.st......//1//f//\n");
    let (exit, drift) = verify(&dir, &[]);
    assert_eq!(exit, 1);
    assert_eq!(
        found(&drift[0]),
        [("/f".to_owned(), "size,time".to_owned())]
    );
}

#[test]
fn a_failed_comparison_is_incomplete() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = recorded(&dir, &fake);
    // The connection is lost when a part is compared.
    fake.exits(&[0, 12]);
    dir.put("fake/print.2", "//>f+++++++++//1//f//\n");
    dir.put(
        "fake/say.2",
        "rsync: connection unexpectedly closed (0 bytes received so far)\n",
    );
    let (exit, cut) = verify(&dir, &[]);
    assert_eq!((exit, cut[0].verdict), (2, DriftVerdict::Incomplete));
    let reason = cut[0].reason.clone().unwrap();
    assert!(
        reason.contains("exit code 12") && reason.contains("closed"),
        "{reason}"
    );
    fake.exits(&[0]);

    done(&dir, &["pause", "one"]);
    dir.write("f", "x");
    daemon.wait_for("it is queued", |_| status(&dir).syncs[0].pending == 1);
    let (exit, paused) = verify(&dir, &[]);
    assert_eq!(
        (exit, paused[0].reason.as_deref()),
        (2, Some("the sync is paused"))
    );
    done(&dir, &["resume", "one"]);
    let (exit, _) = verify(&dir, &[]);
    assert_eq!(exit, 0);
    assert_eq!(code(&ctl(&dir, &["verify", "none"])), 2);
}

#[test]
fn the_dry_run_ends_with_the_client() {
    // SIGINT is that of Ctrl-C.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = Dir::new();
        let fake = Fake::passing(&dir);
        let mut daemon = recorded(&dir, &fake);
        fake.hold();
        let mut client = start_ctl(&dir, &["verify"]);
        daemon.wait_for("the dry run runs", |_| fake.calls().len() >= 2);
        let pid = nix::unistd::Pid::from_raw(client.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
        assert!(!client.wait().unwrap().success());
        daemon.wait_for("the dry run ends", |daemon| {
            let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
            fs::read_to_string(children).is_ok_and(|text| text.trim().is_empty())
        });
        assert_eq!(status(&dir).syncs[0].verifying, None);
        fake.release();
        let (exit, _) = verify(&dir, &[]);
        assert_eq!(exit, 0);
    }
}

#[test]
fn all_kinds_and_targets_are_compared_as_far_as_rsync_can() {
    let dir = Dir::new();
    dir.write("f", "1");
    let config = r#"settings{ controlSocket = "@DIR@/sock" }
sync{ default.direct, name = "direct", source = "@SRC@", target = "@DIR@/direct" }
for name, target in pairs{ a = "@DIR@/a", b = "@DIR@/b" } do
    sync{ default.rsync, name = name, source = "@SRC@", target = target, delay = 1 }
end
sync{ name = "own", source = "@SRC@", onCreate = function(event) spawn(event, "true") end }"#;
    for target in ["direct", "a", "b"] {
        fs::create_dir(dir.path(target)).unwrap();
    }
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    daemon.wait_for("all are started", |_| {
        ["direct/f", "a/f", "b/f"]
            .iter()
            .all(|file| dir.path(file).exists())
    });
    let (exit, all) = verify(&dir, &[]);
    assert_eq!((exit, all.len()), (2, 4));
    for report in &all {
        let expected = match report.sync.as_str() {
            "own" => DriftVerdict::Incomplete,
            _ => DriftVerdict::Equal,
        };
        assert_eq!(report.verdict, expected, "{report:?}");
    }
    for target in ["direct", "b"] {
        change_silently(&dir.path(format!("{target}/f")), "2");
        let (exit, drift) = verify(&dir, &[target, "-content", "-repair"]);
        assert_eq!((exit, drift[0].repaired), (1, 1), "{drift:?}");
        assert_eq!(verify(&dir, &[target, "-content"]).0, 0);
        assert_eq!(fs::read(dir.path(format!("{target}/f"))).unwrap(), b"1");
    }
    assert_eq!(verify(&dir, &["a", "-content"]).0, 0);
    let odd = OsStr::from_bytes(b"odd\xff");
    fs::write(dir.path("a").join(odd), "x").unwrap();
    let (exit, drift) = verify(&dir, &["a"]);
    assert_eq!(exit, 1);
    assert!(found(&drift[0]).contains(&("/odd\\377".to_owned(), "extra".to_owned())));
}

/// Each run of a sample compares a part, and all runs together cover everything, also over a
/// restart.
#[test]
fn a_sample_covers_everything_in_its_runs() {
    let dir = Dir::new();
    let config = MIRROR.replace("settings{", "settings{ stateDir = \"@DIR@/state\",");
    for number in 0..12 {
        dir.write(format!("f{number}"), "12345");
    }
    dir.write("n\nl]*", "12345");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
    for number in 0..12 {
        change_silently(&dir.trg(format!("f{number}")), "abcde");
    }
    change_silently(&dir.trg("n\nl]*"), "abcde");
    let mut all = Vec::new();
    for part in 1..=4 {
        if part == 3 {
            // Its startup compares sizes and times only.
            daemon.terminate();
            // Dropping the daemon ends its children.
            drop(daemon);
            daemon = Daemon::new(&dir, &config).start();
            daemon.wait_for("the new daemon", |_| code(&ctl(&dir, &["status"])) == 0);
        }
        let output = ctl(&dir, &["verify", "-json", "-sample", "25%"]);
        let reports = reports(&output);
        assert!(!reports.is_empty(), "{}", text(&output));
        let sample = reports[0].sample.expect("a sample");
        assert_eq!((sample.part, sample.parts), (part, 4));
        let found = found(&reports[0]);
        assert_eq!(found.len() as u64, sample.files);
        assert!(
            found.iter().all(|(_, kinds)| kinds == "content"),
            "{found:?}"
        );
        all.extend(found);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 13, "{all:?}");
    daemon.terminate();
}

#[test]
fn a_scheduled_comparison_repairs_and_reports_drift() {
    let dir = Dir::new();
    dir.write("f", "12345");
    let with = |verify: &str| {
        let settings = "settings{ stateDir = \"@DIR@/state\",";
        MIRROR.replace("settings{", settings).replace(
            "delay = 1,",
            &format!(
                "delay = 1, verify = {verify},
    onFailed = {{ \"/bin/sh\", \"-c\", 'cat > \"$0\"; echo $LSYNCD_ERROR >> \"$0\"', \"@DIR@/told\" }},"
            ),
        )
    };
    let every_second = "{ at = \"* * * * * *\", content = true }";
    let mut daemon = Daemon::new(&dir, &with(every_second)).start_and_settle();
    daemon.wait_equal();
    daemon.wait_log("verified one: equal");
    change_silently(&dir.trg("f"), "abcde");
    daemon.wait_log("verified one: drift, 1 differences");
    daemon.wait_for("the hook", |_| {
        dir.text("told") == "/f\0verify: 1 difference at the target\n"
    });
    // The report is kept like those of a client.
    let output = ctl(&dir, &["reports", "-json"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(
        text(&output).contains("\"verdict\":\"drift\""),
        "{}",
        text(&output)
    );
    let repairing = with("{ at = \"* * * * * *\", content = true, repair = true }");
    dir.put("config.lua", dir.expand(&repairing));
    done(&dir, &["reload"]);
    daemon.wait_log("1 differences, 1 repaired");
    daemon.wait_equal();
    daemon.terminate();
}

#[test]
fn invalid_times_and_samples_are_refused() {
    let dir = Dir::new();
    for (verify, expected) in [
        (
            "{ at = \"0 3 * *\" }",
            "verify.at \"0 3 * *\" is not valid: it has 4 fields",
        ),
        (
            "{ at = \"@daily\", sample = \"5%\" }",
            "verify.sample needs content = true",
        ),
        (
            "{ at = \"@daily\", contents = true }",
            "Parameter \"verify.contents\" unknown",
        ),
        ("{ }", "verify needs the times of comparisons"),
        ("true", "\"verify\" must be a table"),
    ] {
        let config = MIRROR.replace("delay = 1,", &format!("delay = 1,\n    verify = {verify},"));
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(
            ended.stderr.contains(expected),
            "{verify}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("(line 4)"),
            "{verify}: {}",
            ended.stderr
        );
    }
}

/// rsync has at most 1,000 names in transit, so a comparison over a network would wait for a round
/// trip per 1,000 names.
#[test]
fn a_big_source_is_listed_first_for_a_remote_target() {
    let dir = Dir::new();
    for number in 0..1001 {
        dir.mkdir(format!("d{number}"));
    }
    let config = MIRROR
        .replace("@TRG@", "127.0.0.1::none/")
        .replace("delay = 1,", "delay = 1, init = false,")
        .replace("rsync = {", "rsync = { _extra = { \"--port=1\" },");
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_for("the socket", |_| code(&ctl(&dir, &["status"])) == 0);
    let (exit, reports) = verify(&dir, &[]);
    assert_eq!((exit, reports[0].verdict), (2, DriftVerdict::Incomplete));
    let command = &reports[0].command;
    assert!(
        command.contains(&"--no-inc-recursive".to_owned()),
        "{command:?}"
    );
    daemon.terminate();
}

/// Files are written, renamed and deleted all the time.
#[test]
fn continuous_changes_are_no_drift() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = Dir::new();
    (0..5).for_each(|number| dir.mkdir(format!("d{number}")));
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                let name = format!("d{}/f{}", number % 5, number % 300);
                let path = dir.src(&name);
                let _ = match number % 7 {
                    0 => fs::remove_file(&path),
                    1 => fs::rename(&path, dir.src(format!("d0/moved{}", number % 50))),
                    _ => fs::write(&path, "x".repeat(number % 1000)),
                };
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        for _ in 0..2 {
            let (exit, reports) = verify(&dir, &["-content"]);
            if exit != 0 {
                is_over.store(true, Ordering::Relaxed);
            }
            assert_eq!((exit, reports[0].drift), (0, 0), "{:?}", reports[0]);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    daemon.terminate();
}
