//! Metrics, page and report files.

use super::*;

use lsyncd::history::LogPage;
use lsyncd::status::trends::TrendPage;

#[test]
fn metrics_page_and_health_over_http() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let port = free_port();
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        &format!("controlSocket = \"@DIR@/sock\", metricsListen = \"127.0.0.1:{port}\""),
    );
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    done(&dir, &["status", "-wait"]);
    let (head, body) = get(port, "/metrics");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(
        body.contains("lsyncd_batches_total{sync=\"one\"} 1\n"),
        "{body}"
    );
    assert!(
        body.contains("lsyncd_failures_total{sync=\"one\",code=\"12\"} 0\n"),
        "{body}"
    );
    assert!(get(port, "/").1.contains("<!DOCTYPE html>"));
    let json: Snapshot = serde_json::from_str(&get(port, "/status.json").1).unwrap();
    assert_eq!(json.syncs[0].name, "one");
    assert_eq!(get(port, "/healthz").1, "one: current\n");
    let trends: TrendPage = serde_json::from_str(&get(port, "/trends.json").1).unwrap();
    assert_eq!(trends.syncs["one"].hour.pending.len(), 1);
    assert_eq!(trends.syncs["one"].hour.failures, [0]);
    let activity: LogPage = serde_json::from_str(&get(port, "/activity.json").1).unwrap();
    assert_eq!(activity.entries[0].operation, "compared");
    assert!(get(port, "/etc/passwd").0.starts_with("HTTP/1.0 404 "));

    fake.exits(&[0, 12]);
    dir.write("f", "x");
    wait_state(&dir, &mut daemon, State::Retrying);
    assert!(get(port, "/healthz").0.starts_with("HTTP/1.0 503 "));
    daemon.wait_for("the failure in the series", |_| {
        let trends: TrendPage = serde_json::from_str(&get(port, "/trends.json").1).unwrap();
        trends.syncs["one"].hour.failures.iter().sum::<u32>() == 1
    });
    let activity: LogPage = serde_json::from_str(&get(port, "/activity.json").1).unwrap();
    assert_eq!(activity.entries.last().unwrap().operation, "failed");
}

#[test]
fn metrics_and_json_status_as_files() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = one("").replace(
        "controlSocket = \"@DIR@/sock\"",
        r#"metricsFile = "@DIR@/m.prom", statusFile = "@DIR@/status.json", statusInterval = 1"#,
    );
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_for("both files report the startup", |_| {
        let json: Result<Snapshot, _> = serde_json::from_str(&dir.text("status.json"));
        json.is_ok_and(|status| status.syncs[0].totals.batches == 1)
            && dir
                .text("m.prom")
                .contains("lsyncd_batches_total{sync=\"one\"} 1\n")
    });
    // An idle daemon continues to write the files, so their age shows that it is alive.
    let inode = |name: &str| fs::metadata(dir.path(name)).map(|data| data.ino()).ok();
    let before = (inode("m.prom"), inode("status.json"));
    daemon.wait_for("they are written again", |_| {
        let now = (inode("m.prom"), inode("status.json"));
        now.0 != before.0 && now.1 != before.1
    });
}
