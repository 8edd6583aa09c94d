//! `lsyncdctl reports`: each comparison is kept, and missing or altered reports are detected, also
//! after a restart.

use super::*;

use lsyncd::reports::ReportPage;

const KEPT: &str = r#"settings{ controlSocket = "@DIR@/sock", stateDir = "@DIR@/state", reports = 4 }
sync{ default.rsync, name = "one", source = "@SRC@", target = "@TRG@", delay = 1 }"#;

/// Runs `lsyncdctl reports` and returns its exit code and what it prints.
fn reports(dir: &Dir) -> (i32, ReportPage) {
    let output = ctl(dir, &["reports", "-json"]);
    let page = serde_json::from_slice(&output.stdout);
    let page = page.unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    (code(&output), page)
}

fn verify(dir: &Dir, expected: i32) {
    let output = ctl(dir, &["verify"]);
    assert_eq!(code(&output), expected, "{}", text(&output));
}

#[test]
fn each_comparison_is_kept_and_alterations_are_detected() {
    let dir = Dir::new();
    dir.write("a", "1");
    let mut running = Daemon::new(&dir, KEPT).start_and_settle();
    running.wait_equal();
    assert_eq!(reports(&dir), (0, ReportPage::default()));
    verify(&dir, 0);
    fs::write(dir.trg("b"), "x").unwrap();
    // Whole seconds are compared, so the directory gets another time.
    let target = fs::File::open(dir.path("trg")).unwrap();
    target.set_modified(std::time::UNIX_EPOCH).unwrap();
    verify(&dir, 1);
    let (exit, page) = reports(&dir);
    assert_eq!((exit, page.first, page.last), (0, 1, 2));
    let verdicts: Vec<_> = page.reports.iter().map(|kept| kept.report.drift).collect();
    // The time of the directory differs as well.
    assert_eq!(verdicts, [0, 2]);
    let shown = text(&ctl(&dir, &["reports", "1"]));
    assert!(shown.contains("DRIFT"), "{shown}");
    assert!(shown.contains("2 reports kept, none is missing"), "{shown}");
    // The log of the daemon contains the hash as well.
    running.wait_log(&format!("report 2, SHA-256 {}", page.hash));
    running.terminate();
    drop(running);

    // The chain continues after a restart, and the oldest reports are removed.
    let mut running = Daemon::new(&dir, KEPT).start();
    running.wait_for("the new daemon", |_| code(&ctl(&dir, &["status"])) == 0);
    for (first, last) in [(1, 3), (1, 4), (2, 5), (3, 6)] {
        verify(&dir, 0);
        let (exit, page) = reports(&dir);
        assert_eq!((exit, page.first, page.last), (0, first, last));
    }

    let lines = dir.path("state/reports/lines");
    let whole = fs::read_to_string(&lines).unwrap();
    let altered = whole.replacen("\"equal\"", "\"drift\"", 1);
    assert_ne!(whole, altered);
    let lines_of: Vec<&str> = whole.split_inclusive('\n').collect();
    let without_middle = [lines_of[0], lines_of[2], lines_of[3]].concat();
    for (kept, problem) in [
        (altered.as_str(), "report 3 or 4 is altered"),
        (&without_middle, "report 4 is missing"),
        (&whole[..whole.len() - 20], "report 6 is missing"),
        (
            &whole[whole.find('\n').unwrap() + 1..],
            "report 3 is missing",
        ),
        ("", "reports 3 to 6 are missing"),
    ] {
        fs::write(&lines, kept).unwrap();
        let (exit, page) = reports(&dir);
        assert_eq!((exit, page.problems), (1, vec![problem.to_owned()]));
    }
    running.terminate();
}

#[test]
fn without_a_state_directory_no_reports_are_kept() {
    let dir = Dir::new();
    fs::create_dir(dir.path("open")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path("open"), mode).unwrap();
    let config = KEPT.replace("@DIR@/state", "@DIR@/open");
    let mut running = Daemon::new(&dir, &config).start_and_settle();
    let output = ctl(&dir, &["reports"]);
    assert_eq!(code(&output), 2, "{}", text(&output));
    assert!(
        text(&output).contains("settings{ stateDir }"),
        "{}",
        text(&output)
    );
    running.terminate();
}
