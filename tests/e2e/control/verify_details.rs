//! The details of a report of drift, and the progress on a terminal.

use super::drift::change_silently;
use super::verify::verify;
use super::*;

use crate::mirror::ssh::{Sshd, account, rsync_daemon};
use crate::support::dir::{program, skip};
use lsyncd::status::drift_report::{DriftReport, ListedDrift};

fn difference<'r>(report: &'r DriftReport, path: &str) -> &'r ListedDrift {
    let mut all = report.differences.iter();
    all.find(|it| it.path == path).unwrap()
}

/// Asserts that the report contains both sides, the last transfer and the method of the comparison.
pub fn assert_both_sides(report: &DriftReport) {
    let at = |path| difference(report, path);
    let size = at("/size");
    let (source, target) = (size.source.clone().unwrap(), size.target.clone().unwrap());
    assert_eq!((source.size, target.size), (4, 8), "{size:?}");
    assert_eq!(source.time, target.time);
    let time = at("/time").target.clone().unwrap();
    assert_eq!(time.time, 1_000_000_000);
    let mode = at("/mode").target.clone().unwrap();
    assert_eq!(mode.permissions, "-rw-------");
    let root = at("/");
    let modes = [&root.source, &root.target].map(|side| side.clone().unwrap().permissions);
    assert_ne!(modes[0], "drwx------");
    assert_eq!(modes[1], "drwx------");
    let (missing, extra) = (at("/missing"), at("/extra"));
    assert!(missing.source.is_some() && missing.target.is_none());
    assert!(extra.source.is_none() && extra.target.is_some());
    let hostile = at("/n\\012l]*").source.clone().unwrap();
    assert_eq!(hostile.size, 1);
    let last = size.last.clone().unwrap();
    assert_eq!(last.operation, "compared");
    assert!(last.time > 1e9 && last.time <= report.end);
    assert!(report.text().contains("last compared"), "{}", report.text());
    if report.rsync.starts_with("rsync  version 3.5") {
        assert!(report.checksum.is_some(), "{report:?}");
    }
    assert_eq!(report.remote_rsync, None);
}

/// Over a remote shell and from an rsync daemon.
#[test]
fn a_report_contains_the_state_of_a_remote_target() {
    let dir = Dir::new();
    dir.write("f", "1");
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let Some((_rsync, port)) = rsync_daemon(&dir) else {
        return;
    };
    let config = format!(
        r#"{SETTINGS}
sync{{
    default.rsync, name = "shell", source = "@SRC@", target = "{user}@127.0.0.1:@TRG@", delay = 1,
    rsync = {{ archive = true, rsh = "{rsh}" }},
}}
sync{{
    default.rsync, name = "module", source = "@SRC@", target = "rsync://127.0.0.1:{port}/x", delay = 1,
    rsync = {{ archive = true }},
}}"#,
        user = account().name,
        rsh = sshd.rsh,
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
    done(&dir, &["status", "-wait"]);
    change_silently(&dir.trg("f"), "2");
    fs::write(dir.trg("a b"), "extra").unwrap();
    for name in ["shell", "module"] {
        let (exit, drift) = verify(&dir, &[name, "-content"]);
        assert_eq!(exit, 1, "{drift:?}");
        let report = &drift[0];
        let at = |path| difference(report, path);
        let (file, extra) = (at("/f"), at("/a b"));
        let (source, target) = (file.source.as_ref().unwrap(), file.target.as_ref().unwrap());
        assert_eq!(source, target, "{report:?}");
        assert_eq!(extra.target.as_ref().unwrap().size, 5);
        assert!(extra.source.is_none());
        let told = report
            .remote_rsync
            .as_ref()
            .map(|line| line == &report.rsync);
        assert_eq!(told, (name == "shell").then_some(true), "{report:?}");
    }
}

#[test]
fn a_terminal_shows_the_progress_of_a_comparison() {
    let Some(script) = program("script") else {
        return skip("script(1) is not installed");
    };
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, &one("")).start_and_settle();
    daemon.wait_for("the startup ends", |_| fake.ended() >= 1);
    fake.hold();
    dir.put("fake/print.2", "//>f.st......//1//f//\n");
    let words = format!(
        "{} -socket {} verify -json",
        env!("CARGO_BIN_EXE_lsyncdctl"),
        dir.path("sock").display()
    );
    let mut client = Command::new(script)
        .args(["-qefc", &words, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    let mut output = client.stdout.take().unwrap();
    let mut buffer = [0; 1000];
    while !shown.contains("one: comparing, ") {
        let count = output.read(&mut buffer).unwrap();
        assert!(count > 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert_eq!(
        status(&dir).syncs[0].verifying.as_ref().unwrap().stage,
        "comparing"
    );
    fake.release();
    output.read_to_string(&mut shown).unwrap();
    client.wait().unwrap();
    // The progress line is removed before the report is printed.
    let report = shown.rsplit("\r\x1b[K").next().unwrap();
    let end = report.trim_end();
    let report: DriftReport = serde_json::from_str(end).unwrap_or_else(|e| panic!("{e}: {shown}"));
    assert_eq!(report.sync, "one");
    assert_eq!(status(&dir).syncs[0].verifying, None);
}
