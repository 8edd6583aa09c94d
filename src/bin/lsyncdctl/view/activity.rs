//! The transfer log in the live view.

use lsyncd::history::LogEntry;
use lsyncd::sys;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

use super::dimmed;

/// Returns the lines of entries, the newest first, of which `skipped` are above the screen.
pub fn lines<'a>(
    entries: impl Iterator<Item = &'a LogEntry>,
    skipped: usize,
    height: usize,
) -> Vec<Line<'a>> {
    entries.skip(skipped).take(height).map(line).collect()
}

fn line(entry: &LogEntry) -> Line<'_> {
    let time = sys::local_time(entry.time as i64, c"%H:%M:%S");
    let path = match entry.path.as_str() {
        "" => "everything",
        path => path,
    };
    let style = match entry.operation.as_str() {
        "failed" => Style::new().fg(Color::Red),
        _ => Style::new(),
    };
    let to = entry.to.iter().map(|to| format!(" → {to}"));
    let reason = entry.reason.iter().map(|reason| format!(": {reason}"));
    let rest: String = to.chain(reason).collect();
    Line::from(vec![
        Span::styled(format!("{time} "), dimmed()),
        Span::styled(format!("{:<10} ", entry.operation), style),
        Span::raw(format!("{path}{rest}")),
        Span::styled(format!("  {}", entry.sync), dimmed()),
    ])
}
