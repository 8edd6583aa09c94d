//! Formats a [`Snapshot`] as metrics in the text format of Prometheus, version 0.0.4.
//!
//! Every series is present from the start, so that a rule over one that never failed finds zero
//! instead of nothing.

use std::fmt::Write;

use crate::status::drift_report::DriftVerdict;
use crate::status::snapshot::Snapshot;
use crate::status::snapshot::SyncSnapshot;
use crate::status::state::State;

/// The content type of the text, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Exit codes of rsync(1) and ssh(1), and of children ended by a signal or a limit. Their series
/// are present before the first failure.
const COMMON_CODES: [i32; 18] = [
    1, 2, 3, 5, 10, 11, 12, 14, 20, 22, 23, 24, 25, 30, 35, 137, 143, 255,
];

/// The attributes of files that may not be set, by their names in [`Snapshot`].
pub const ATTRIBUTES: [&str; 6] = ["owner", "group", "permissions", "times", "acls", "xattrs"];

/// The reasons for which paths are left out, by their names in [`Snapshot`].
pub const LEFT_OUT: [&str; 3] = ["too_long", "obstructed", "dangling_link"];

/// Returns the metrics.
pub fn text(snapshot: &Snapshot) -> String {
    let mut out = Text::default();
    out.single(
        "build_info",
        "gauge",
        "The running version.",
        |text, name| {
            let version = label(&snapshot.version);
            let _ = writeln!(text, "{name}{{version=\"{version}\"}} 1");
        },
    );
    let whole = [
        (
            "start_time_seconds",
            "Start time of the daemon.",
            snapshot.started,
        ),
        ("watches", "Watched directories.", snapshot.watches as f64),
        (
            "watch_limit",
            "The kernel's limit of watches, 0 if it cannot be read.",
            snapshot.watch_limit.unwrap_or_default() as f64,
        ),
        (
            "unwatched_directories",
            "Directories without a watch, because the limit is reached.",
            snapshot.unwatched as f64,
        ),
        (
            "resident_memory_bytes",
            "Memory of the daemon.",
            snapshot.memory as f64,
        ),
        (
            "crawling",
            "1 while directories are being read to be watched.",
            f64::from(u8::from(snapshot.crawling)),
        ),
    ];
    for (name, help, value) in whole {
        out.single(name, "gauge", help, |text, name| {
            let _ = writeln!(text, "{name} {value}");
        });
    }
    let overflows = snapshot.overflows;
    out.single(
        "overflows_total",
        "counter",
        "Overflows of the kernel's event queue.",
        |text, name| {
            let _ = writeln!(text, "{name} {overflows}");
        },
    );
    out.each(
        "sync_info",
        "gauge",
        "The source and the target of a sync.",
        snapshot,
        |text, name, labels, sync| {
            let (source, target) = (label(&sync.source), label(&sync.target));
            let _ = writeln!(
                text,
                "{name}{{{labels},source=\"{source}\",target=\"{target}\"}} 1"
            );
        },
    );
    gauges(&mut out, snapshot);
    states(&mut out, snapshot);
    counters(&mut out, snapshot);
    out.0
}

/// Name, help and value.
type Gauge<'a> = (&'a str, &'a str, &'a dyn Fn(&SyncSnapshot) -> f64);
type Counter = (&'static str, &'static str, fn(&SyncSnapshot) -> u64);

fn gauges(out: &mut Text, snapshot: &Snapshot) {
    let since = |sync: &SyncSnapshot| {
        let success = sync.last_success.unwrap_or(snapshot.started);
        (snapshot.time - success).max(0.0)
    };
    let retry = |sync: &SyncSnapshot| sync.retry.clone().unwrap_or_default();
    let verified = |sync: &SyncSnapshot| sync.verified.clone().unwrap_or_default();
    let progress = |sync: &SyncSnapshot| {
        let mut all = sync.sending.iter().filter_map(|each| each.progress.clone());
        all.find(|progress| progress.total > 0).unwrap_or_default()
    };
    let all: [Gauge<'_>; 20] = [
        (
            "lag_seconds",
            "Seconds by which the target is behind, 0 if it is current.",
            &|s| s.lag,
        ),
        ("pending", "Changes that are not on the target yet.", &|s| {
            s.pending as f64
        }),
        (
            "oldest_pending_seconds",
            "Age of the oldest pending change, 0 if there is none.",
            &|s| s.oldest.unwrap_or(0.0),
        ),
        ("running", "Running children.", &|s| s.sending.len() as f64),
        (
            "stalled_seconds",
            "The longest time for which a running child has had no I/O, 0 below 30 s.",
            &|s| s.stalled().unwrap_or(0.0),
        ),
        (
            "failed_paths",
            "Paths that could not be transferred.",
            &|s| s.failed as f64,
        ),
        ("held_files", "Files that could not be checked yet.", &|s| {
            s.withheld.saturating_sub(s.rejected) as f64
        }),
        (
            "rejected_files",
            "Files that did not pass the checks.",
            &|s| s.rejected as f64,
        ),
        (
            "comparison_entries",
            "Entries of the running full comparison, 0 if not known.",
            &|s| progress(s).total as f64,
        ),
        (
            "comparison_compared_entries",
            "Entries that the running full comparison has compared.",
            &|s| progress(s).compared as f64,
        ),
        (
            "comparison_left_seconds",
            "Estimated remaining time of the running full comparison.",
            &|s| progress(s).left.unwrap_or(0.0),
        ),
        (
            "retry_seconds",
            "Time to the next retry after a failure.",
            &|s| retry(s).seconds,
        ),
        ("consecutive_failures", "Consecutive failures.", &|s| {
            f64::from(retry(s).failures)
        }),
        ("severity", "0 current, 1 behind, 2 in trouble.", &|s| {
            f64::from(s.severity as u8)
        }),
        (
            "seconds_since_success",
            "Time since the last success, or since the start before the first.",
            &since,
        ),
        (
            "last_success_timestamp_seconds",
            "Time of the last success, 0 before the first.",
            &|s| s.last_success.unwrap_or(0.0),
        ),
        (
            "verify_last_timestamp_seconds",
            "Time of the last comparison of source and target, 0 before the first.",
            &|s| verified(s).time,
        ),
        (
            "verify_duration_seconds",
            "Duration of the last comparison.",
            &|s| verified(s).seconds,
        ),
        (
            "verify_drift_paths",
            "Differences of the last comparison that were not repaired.",
            &|s| verified(s).drift as f64,
        ),
        (
            "verify_incomplete",
            "1 if the last comparison was incomplete.",
            &|s| {
                let last = s.verified.as_ref();
                let is = last.is_some_and(|last| last.verdict == DriftVerdict::Incomplete);
                f64::from(u8::from(is))
            },
        ),
    ];
    for (name, help, value) in all {
        out.each(name, "gauge", help, snapshot, |text, name, labels, sync| {
            let _ = writeln!(text, "{name}{{{labels}}} {}", rounded(value(sync)));
        });
    }
}

fn states(out: &mut Text, snapshot: &Snapshot) {
    let help = "1 for the current state of the sync.";
    out.each(
        "state",
        "gauge",
        help,
        snapshot,
        |text, name, labels, sync| {
            for state in State::ALL {
                let is = u8::from(sync.state == state);
                let state = state.name();
                let _ = writeln!(text, "{name}{{{labels},state=\"{state}\"}} {is}");
            }
        },
    );
}

fn counters(out: &mut Text, snapshot: &Snapshot) {
    let all: [Counter; 5] = [
        ("events_total", "Events that passed the filter.", |s| {
            s.totals.events
        }),
        ("batches_total", "Successful child processes.", |s| {
            s.totals.batches
        }),
        ("changes_total", "Changes that were transferred.", |s| {
            s.totals.entries
        }),
        (
            "sent_bytes_total",
            "Bytes sent, if rsync reports them (--stats).",
            |s| s.totals.bytes,
        ),
        (
            "sent_files_total",
            "Files sent, if rsync reports them (--stats).",
            |s| s.totals.files,
        ),
    ];
    for (name, help, value) in all {
        out.each(
            name,
            "counter",
            help,
            snapshot,
            |text, name, labels, sync| {
                let _ = writeln!(text, "{name}{{{labels}}} {}", value(sync));
            },
        );
    }
    let help = "Failed children by exit code; 128 + n is signal n.";
    out.each(
        "failures_total",
        "counter",
        help,
        snapshot,
        |text, name, labels, sync| {
            let mut failures = sync.totals.failures.clone();
            for code in COMMON_CODES {
                failures.entry(code).or_default();
            }
            for (code, count) in failures {
                let _ = writeln!(text, "{name}{{{labels},code=\"{code}\"}} {count}");
            }
        },
    );
    let help = "Attributes of transferred files that could not be set.";
    out.each(
        "unset_attributes_total",
        "counter",
        help,
        snapshot,
        |text, name, labels, sync| {
            for attribute in ATTRIBUTES {
                let count = sync.totals.unset_attributes.get(attribute);
                let count = count.copied().unwrap_or_default();
                let _ = writeln!(text, "{name}{{{labels},attribute=\"{attribute}\"}} {count}");
            }
        },
    );
    let help = "Paths that cannot be transferred, by reason.";
    out.each(
        "left_out_total",
        "counter",
        help,
        snapshot,
        |text, name, labels, sync| {
            for reason in LEFT_OUT {
                let count = sync.totals.left_out.get(reason);
                let count = count.copied().unwrap_or_default();
                let _ = writeln!(text, "{name}{{{labels},reason=\"{reason}\"}} {count}");
            }
        },
    );
}

/// The text being built. Writing to a string cannot fail, so results are ignored.
#[derive(Default)]
struct Text(String);

impl Text {
    fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        write: impl FnOnce(&mut String, &str),
    ) {
        let name = format!("lsyncd_{name}");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        write(&mut self.0, &name);
    }

    fn each(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        snapshot: &Snapshot,
        write: impl Fn(&mut String, &str, &str, &SyncSnapshot),
    ) {
        self.single(name, kind, help, |text, name| {
            for sync in &snapshot.syncs {
                let labels = format!("sync=\"{}\"", label(&sync.name));
                write(text, name, &labels, sync);
            }
        });
    }
}

/// Returns the value of a label with backslash, quote and newline escaped.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Returns the value rounded to a thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mut sync = SyncSnapshot {
            name: "a \"b\"\\".into(),
            target: "h:/t/".into(),
            pending: 3,
            oldest: Some(1.23456),
            lag: 2.5,
            ..SyncSnapshot::default()
        }
        .judged(None, false);
        sync.totals.failures.insert(99, 4);
        Snapshot {
            version: "3.0.0".into(),
            time: 1000.5,
            started: 990.0,
            syncs: vec![sync],
            ..Snapshot::default()
        }
        .judged()
    }

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = text(&snapshot());
        for line in [
            r#"lsyncd_build_info{version="3.0.0"} 1"#,
            "lsyncd_overflows_total 0",
            "lsyncd_watch_limit 0",
            "lsyncd_unwatched_directories 0",
            r#"lsyncd_sync_info{sync="a \"b\"\\",source="",target="h:/t/"} 1"#,
            r#"lsyncd_pending{sync="a \"b\"\\"} 3"#,
            r#"lsyncd_lag_seconds{sync="a \"b\"\\"} 2.5"#,
            r#"lsyncd_oldest_pending_seconds{sync="a \"b\"\\"} 1.235"#,
            r#"lsyncd_stalled_seconds{sync="a \"b\"\\"} 0"#,
            r#"lsyncd_state{sync="a \"b\"\\",state="pending"} 1"#,
            r#"lsyncd_state{sync="a \"b\"\\",state="source-lost"} 0"#,
            r#"lsyncd_failures_total{sync="a \"b\"\\",code="12"} 0"#,
            r#"lsyncd_failures_total{sync="a \"b\"\\",code="99"} 4"#,
            r#"lsyncd_unset_attributes_total{sync="a \"b\"\\",attribute="owner"} 0"#,
            r#"lsyncd_left_out_total{sync="a \"b\"\\",reason="too_long"} 0"#,
            r#"lsyncd_seconds_since_success{sync="a \"b\"\\"} 10.5"#,
            r#"lsyncd_verify_drift_paths{sync="a \"b\"\\"} 0"#,
            r#"lsyncd_verify_incomplete{sync="a \"b\"\\"} 0"#,
        ] {
            assert!(text.lines().any(|said| said == line), "{line}\n{text}");
        }
    }

    /// Checks that the metrics in dashboard and alert rules exist.
    #[test]
    fn packaged_queries_name_metrics_that_exist() {
        let text = text(&snapshot());
        for file in [
            include_str!("../../packaging/grafana/lsyncd.json"),
            include_str!("../../packaging/prometheus/lsyncd.rules.yml"),
        ] {
            let mut found = 0;
            let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in words.filter(|word| word.starts_with("lsyncd_")) {
                assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
                found += 1;
            }
            assert!(found > 5);
        }
    }

    #[test]
    fn each_metric_has_help_and_type_once() {
        let text = text(&snapshot());
        for kind in ["# HELP ", "# TYPE "] {
            let mut names: Vec<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix(kind)?.split(' ').next())
                .collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{names:?}");
        }
    }
}
