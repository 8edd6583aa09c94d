//! One sync in the live view: its state, plots, children and queue.

use lsyncd::status::number_format::{bytes, counted, span};
use lsyncd::status::snapshot::SyncSnapshot;
use lsyncd::status::trends::Trend;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

use super::plot::{self, PlotRange};
use super::{colour, dimmed};

/// Returns the lines about a sync, the most important first.
pub fn lines<'a>(
    sync: &'a SyncSnapshot,
    trend: Option<&Trend>,
    range: PlotRange,
    now: f64,
    width: usize,
) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    add_facts(&mut lines, sync, now);
    add_children(&mut lines, sync);
    let has_bytes = sync.totals.bytes > 0 || sync.totals.batches == 0;
    lines.extend(
        trend
            .into_iter()
            .flat_map(|trend| plot::lines(trend, has_bytes, range, width)),
    );
    if !sync.queue.is_empty() {
        let text = format!("queue, {} in all", sync.pending);
        lines.push(Line::styled(text, dimmed()));
    }
    for entry in &sync.queue {
        let to = entry.to.as_ref();
        let to = to.map(|to| format!(" → {to}")).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(format!("  {:<7}", entry.status), dimmed()),
            Span::raw(format!("{:<7} {}{to}", entry.event, entry.path)),
        ]));
    }
    lines
}

fn add_facts<'a>(lines: &mut Vec<Line<'a>>, sync: &'a SyncSnapshot, now: f64) {
    lines.push(Line::styled(
        sync.detail.clone(),
        Style::new().fg(colour(sync.severity)),
    ));
    // A small terminal shows the first lines only.
    if let Some(remedy) = &sync.remedy {
        lines.push(Line::raw(format!("remedy: {remedy}")));
    }
    let success = match sync.last_success {
        Some(time) => format!("last success {} ago", span(now - time)),
        None => "no success yet".into(),
    };
    let totals = &sync.totals;
    let mut facts = format!(
        "{success}, {}, {}",
        counted(totals.batches as usize, "batch").replace("batchs", "batches"),
        counted(totals.events as usize, "event")
    );
    if totals.bytes > 0 {
        facts.push_str(&format!(", {} sent", bytes(totals.bytes)));
    }
    lines.push(Line::styled(facts, dimmed()));
    if let Some(error) = &sync.last_error {
        let ago = span(now - error.time);
        let what = if sync.is_error_past() {
            "past error"
        } else {
            "last error"
        };
        let title = format!("{what} {ago} ago, exit code {}", error.code);
        let mut words = vec![Span::styled(title, dimmed())];
        if !sync.detail.contains(&error.text) {
            words.push(Span::raw(format!(": {}", error.text)));
        }
        lines.push(Line::from(words));
    }
    for file in &sync.withheld_paths {
        let what = if file.rejected {
            "rejected     "
        } else {
            "held         "
        };
        lines.push(Line::from(vec![
            Span::styled(what, Style::new().fg(Color::Red)),
            Span::raw(format!("{}: {}", file.path, file.reason)),
        ]));
    }
    for mount in &sync.away {
        lines.push(Line::from(vec![
            Span::styled("not mounted  ", Style::new().fg(Color::Red)),
            Span::raw(mount.clone()),
        ]));
    }
    for path in &sync.failed_paths {
        lines.push(Line::from(vec![
            Span::styled("failed  ", Style::new().fg(Color::Red)),
            Span::raw(path.clone()),
        ]));
    }
}

fn add_children(lines: &mut Vec<Line<'_>>, sync: &SyncSnapshot) {
    for child in &sync.sending {
        let what = if child.full {
            "comparing everything".to_owned()
        } else {
            counted(child.entries, "path")
        };
        let since = span(child.seconds);
        lines.push(Line::raw(format!(
            "process {}, {what} for {since}",
            child.pid
        )));
        if let Some(progress) = &child.progress {
            lines.push(Line::raw(format!(
                "  {} {:>3} %  {}",
                bar(progress.percent),
                progress.percent,
                progress.words()
            )));
        }
        for path in &child.paths {
            lines.push(Line::raw(format!("  {path}")));
        }
    }
}

fn bar(percent: u8) -> String {
    let full = usize::from(percent.min(100)) / 5;
    format!("{}{}", "█".repeat(full), "░".repeat(20 - full))
}
