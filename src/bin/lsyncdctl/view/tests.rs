//! Tests of the live view, drawn to a terminal in memory.

use super::*;
use lsyncd::status::snapshot::Entry;
use lsyncd::status::snapshot::LastError;
use lsyncd::status::snapshot::Sending;
use lsyncd::status::trends::{Trend, TrendSeries};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn status(syncs: usize) -> Snapshot {
    let syncs = (0..syncs).map(|n| {
        SyncSnapshot {
            name: format!("sync-{n}"),
            source: "/srv/data/".into(),
            target: "backup::data/".into(),
            pending: 3,
            oldest: Some(7.0),
            sending: vec![Sending {
                pid: 4711,
                entries: 2,
                paths: vec!["/a".into(), "/b".into()],
                ..Sending::default()
            }],
            queue: vec![Entry {
                status: "wait".into(),
                event: "Move".into(),
                path: "/c".into(),
                to: Some("/d".into()),
            }],
            last_error: Some(LastError {
                code: 12,
                text: "rsync: broken".into(),
                time: 0.0,
                ..LastError::default()
            }),
            ..SyncSnapshot::default()
        }
        .judged(None, false)
    });
    Snapshot {
        syncs: syncs.collect(),
        ..Snapshot::default()
    }
    .judged()
}

fn drawn(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn what_matters_is_there_at_every_size() {
    let mut view = View::default();
    view.take(status(2));
    view.choose(1);
    assert_eq!(view.chosen().as_deref(), Some("sync-1"));
    for (width, height) in [(80, 24), (160, 50)] {
        let text = drawn(&view, width, height);
        for part in [
            "lsyncd behind",
            "sync-0",
            "sending 2 paths",
            "process 4711",
            "Move    /c → /d",
            "rsync: broken",
            "q quit",
        ] {
            assert!(text.contains(part), "{part} at {width}x{height}\n{text}");
        }
    }
}

#[test]
fn a_small_terminal_shows_state_and_plots() {
    let mut view = View::default();
    let mut status = status(1);
    status.syncs[0].last_error = None;
    status.syncs[0].sending.clear();
    view.take(status);
    let series = TrendSeries {
        step: 60,
        spans: 60,
        pending: vec![0, 4, 8],
        bytes: vec![0, 0, 2048],
        failures: vec![0; 3],
        lag: vec![0.0, 3.0, 30.0],
    };
    let trend = Trend {
        hour: series.clone(),
        day: series,
    };
    let syncs = [("sync-0".to_owned(), trend)].into();
    view.set_trends(TrendPage { syncs });
    let text = drawn(&view, 40, 10);
    for part in ["sync-0", "last hour", "pending", "max 8", "? keys"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    view.turn_range();
    let text = drawn(&view, 160, 50);
    for part in ["last day", "max 30 s", "2.0 kB", "failed"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // rsync without -v or --stats does not report how much it has sent.
    let mut silent = self::status(1);
    silent.syncs[0].totals.batches = 3;
    view.take(silent);
    let text = drawn(&view, 160, 50);
    assert!(text.contains("not reported"), "{text}");
}

#[test]
fn a_small_terminal_shows_reason_and_remedy() {
    let mut view = View::default();
    let mut status = status(1);
    let sync = &mut status.syncs[0];
    sync.detail = "retrying in 36 s after ssh: connect to host h port 22: No route to host".into();
    sync.remedy = Some("check network and firewall between both hosts".into());
    view.take(status.clone());
    let text = drawn(&view, 40, 10);
    for part in ["No route to host", "remedy: check network", "between"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    status.reload_error = Some("lsyncd.conf.lua:7: Parameter \"dealy\" unknown.".into());
    view.take(status);
    let text = drawn(&view, 40, 10);
    for part in ["has errors", "Parameter \"dealy\"", "unknown", "sync-0"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn trouble_is_first_and_a_filter_leaves_the_rest_out() {
    let mut view = View::default();
    let mut status = status(5);
    status.syncs[3].severity = Severity::Trouble;
    status.syncs[4].severity = Severity::Trouble;
    view.take(status.clone());
    assert_eq!(view.chosen().as_deref(), Some("sync-3"));
    view.choose_trouble();
    assert_eq!(view.chosen().as_deref(), Some("sync-4"));
    view.choose_trouble();
    assert_eq!(view.chosen().as_deref(), Some("sync-3"));
    for character in "C-1".chars() {
        view.type_character(Some(character));
    }
    assert_eq!(view.chosen().as_deref(), Some("sync-1"));
    assert!(!drawn(&view, 80, 24).contains("sync-3"));
    // A selection stays with its sync, wherever that moves.
    assert!(view.go_back());
    status.syncs[0].severity = Severity::Trouble;
    view.take(status);
    assert_eq!(view.chosen().as_deref(), Some("sync-1"));
    view.choose(isize::MAX);
    assert_eq!(view.chosen().as_deref(), Some("sync-2"));
    assert!(!view.go_back());
}

#[test]
fn the_log_is_a_tab() {
    let mut view = View::default();
    view.take(status(1));
    let entry = |number: usize, operation: &str| LogEntry {
        sync: "sync-0".into(),
        operation: operation.into(),
        path: format!("/path-{number}"),
        ..LogEntry::default()
    };
    let entries = (0..30).map(|n| entry(n, if n == 7 { "failed" } else { "sent" }));
    view.set_log(LogPage {
        entries: entries.collect(),
        ..LogPage::default()
    });
    view.turn_tab();
    let text = drawn(&view, 40, 10);
    assert!(
        text.contains("/path-29") && !text.contains("/path-20"),
        "{text}"
    );
    view.choose(9);
    assert!(drawn(&view, 40, 10).contains("/path-20"));
    for character in "fail".chars() {
        view.type_character(Some(character));
    }
    assert!(drawn(&view, 40, 10).contains("/path-7"));
    view.turn_keys();
    assert!(drawn(&view, 40, 24).contains("next sync in trouble"));
}

#[test]
fn no_size_and_no_number_of_syncs_is_too_odd() {
    for syncs in [0, 1, 200] {
        let mut view = View::default();
        view.take(status(syncs));
        view.choose(150);
        view.turn_range();
        for (width, height) in [(1, 1), (10, 3), (300, 2), (80, 24)] {
            drawn(&view, width, height);
        }
        view.take(status(1));
        view.lost("gone".into());
        assert!(drawn(&view, 80, 24).contains("gone"));
    }
}
