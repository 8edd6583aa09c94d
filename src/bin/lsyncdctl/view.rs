//! Draws the live view: syncs above; children, errors and queue of the selected one below.

use lsyncd::status::health::Severity;
use lsyncd::status::number_format::bytes;
use lsyncd::status::number_format::counted;
use lsyncd::status::number_format::span;
use lsyncd::status::snapshot::Snapshot;
use lsyncd::status::snapshot::SyncSnapshot;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState};

const KEYS: &str = " q quit  ↑↓ choose  p pause  r resume  f flush  t retry  S resync";

/// The data that is shown.
#[derive(Default)]
pub struct View {
    status: Snapshot,
    /// The reason why there is no newer status.
    lost: Option<String>,
    /// The reply to the last key.
    message: String,
    chosen: usize,
}

impl View {
    /// Sets a new status.
    pub fn take(&mut self, status: Snapshot) {
        self.status = status;
        self.lost = None;
        self.choose(0);
    }

    /// Records that no status is available.
    pub fn lost(&mut self, text: String) {
        self.lost = Some(text);
    }

    /// Sets the reply to a key.
    pub fn set_message(&mut self, text: String) {
        self.message = text;
    }

    /// Moves the selection.
    pub fn choose(&mut self, by: isize) {
        let last = self.status.syncs.len().saturating_sub(1);
        self.chosen = self.chosen.saturating_add_signed(by).min(last);
    }

    /// Returns the name of the selected sync.
    pub fn chosen(&self) -> Option<String> {
        let sync = self.status.syncs.get(self.chosen)?;
        Some(sync.name.clone())
    }

    /// Draws the view.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        // At most half of the height is for syncs.
        let rows = self.status.syncs.len() as u16 + 1;
        let table = rows.min((area.height / 2).max(3));
        let parts = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(table),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .split(area);
        frame.render_widget(self.head(area.width), parts[0]);
        self.draw_syncs(frame, parts[1]);
        if let Some(sync) = self.status.syncs.get(self.chosen) {
            self.draw_one(frame, parts[2], sync);
        }
        frame.render_widget(self.foot(area.width), parts[3]);
    }

    fn head(&self, width: u16) -> Paragraph<'_> {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if let Some(text) = &self.lost {
            let line = format!(" {text}");
            return Paragraph::new(line).style(bold.fg(Color::White).bg(Color::Red));
        }
        let status = &self.status;
        let pending: usize = status.syncs.iter().map(|sync| sync.pending).sum();
        let mut words = vec![
            Span::styled(
                format!(" lsyncd {} ", status.severity.name()),
                bold.fg(colour(status.severity)),
            ),
            Span::raw(format!(
                " {}, {pending} pending, {} watches, {}, up {}",
                counted(status.syncs.len(), "sync"),
                status.watches,
                bytes(status.memory),
                span(status.time - status.started),
            )),
        ];
        if status.overflows > 0 {
            words.push(Span::raw(format!(", {} overflows", status.overflows)));
        }
        if width >= 110 {
            let text = format!("  {} process {}", status.version, status.pid);
            words.push(Span::styled(text, dimmed()));
        }
        Paragraph::new(Line::from(words))
    }

    fn foot(&self, width: u16) -> Paragraph<'_> {
        let keys = KEYS.chars().count();
        let room = (width as usize).saturating_sub(keys + 3);
        let said: String = self.message.chars().take(room).collect();
        let line = Line::from(vec![
            Span::styled(KEYS, dimmed()),
            Span::raw(if said.is_empty() { "" } else { "   " }),
            Span::raw(said),
        ]);
        Paragraph::new(line)
    }

    fn draw_syncs(&self, frame: &mut Frame<'_>, area: Rect) {
        let wide = area.width >= 110;
        let names = self
            .status
            .syncs
            .iter()
            .map(|sync| sync.name.chars().count());
        let name = names
            .max()
            .unwrap_or(4)
            .clamp(4, if wide { 30 } else { 16 });
        let mut widths = vec![
            Constraint::Length(name as u16),
            Constraint::Length(11),
            Constraint::Length(8),
            Constraint::Length(7),
        ];
        let mut titles = vec!["SYNC", "STATE", " PENDING", " OLDEST"];
        if wide {
            widths.extend([
                Constraint::Length(9),
                Constraint::Length(9),
                Constraint::Length(9),
            ]);
            titles.extend(["  CHANGES", "    BYTES", " FAILURES"]);
        }
        widths.push(Constraint::Min(10));
        titles.push("WHAT");
        let rows = self.status.syncs.iter().map(|sync| row(sync, wide));
        let table = Table::new(rows, widths)
            .header(Row::new(titles).style(dimmed()))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::new().with_selected(Some(self.chosen));
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn draw_one(&self, frame: &mut Frame<'_>, area: Rect, sync: &SyncSnapshot) {
        let title = if sync.target.is_empty() {
            format!(" {}: {} ", sync.name, sync.source)
        } else {
            format!(" {}: {} → {} ", sync.name, sync.source, sync.target)
        };
        let block = Block::new().borders(Borders::TOP).title(title);
        let mut lines = Vec::new();
        self.add_facts(&mut lines, sync);
        add_children(&mut lines, sync);
        let queue: Vec<_> = sync.queue.iter().collect();
        if !queue.is_empty() {
            lines.push(Line::styled(
                format!("queue, {} in all", sync.pending),
                dimmed(),
            ));
        }
        for entry in queue {
            let to = entry.to.as_ref();
            let to = to.map(|to| format!(" → {to}")).unwrap_or_default();
            lines.push(Line::from(vec![
                Span::styled(format!("  {:<7}", entry.status), dimmed()),
                Span::raw(format!("{:<7} {}{to}", entry.event, entry.path)),
            ]));
        }
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    fn add_facts<'a>(&self, lines: &mut Vec<Line<'a>>, sync: &'a SyncSnapshot) {
        lines.push(Line::styled(
            sync.detail.clone(),
            Style::new().fg(colour(sync.severity)),
        ));
        let success = match sync.last_success {
            Some(time) => format!("last success {} ago", span(self.status.time - time)),
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
            let ago = span(self.status.time - error.time);
            lines.push(Line::from(vec![
                Span::styled(
                    format!("last error {ago} ago, exit code {}: ", error.code),
                    dimmed(),
                ),
                Span::raw(error.text.clone()),
            ]));
            if let (Some(remedy), Severity::Trouble) = (&error.remedy, sync.severity) {
                lines.push(Line::raw(format!("remedy: {remedy}")));
            }
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
                Span::styled("left undone  ", Style::new().fg(Color::Red)),
                Span::raw(path.clone()),
            ]));
        }
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
                "  {} {:>3} %  {}  {}  {}",
                bar(progress.percent),
                progress.percent,
                bytes(progress.bytes),
                progress.rate,
                progress.time
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

fn row(sync: &SyncSnapshot, wide: bool) -> Row<'_> {
    let style = Style::new().fg(colour(sync.severity));
    let oldest = sync.oldest.map_or_else(|| "–".into(), span);
    let mut cells = vec![
        Span::raw(sync.name.clone()),
        Span::styled(sync.state.name(), style),
        Span::raw(format!("{:>8}", sync.pending)),
        Span::raw(format!("{oldest:>7}")),
    ];
    if wide {
        let failures: u64 = sync.totals.failures.values().sum();
        let sent = match sync.totals.bytes {
            0 => "–".into(),
            count => bytes(count),
        };
        cells.push(Span::raw(format!("{:>9}", sync.totals.entries)));
        cells.push(Span::raw(format!("{sent:>9}")));
        cells.push(Span::raw(format!("{failures:>9}")));
    }
    cells.push(Span::raw(sync.detail.clone()));
    Row::new(cells)
}

fn colour(severity: Severity) -> Color {
    match severity {
        Severity::Current => Color::Green,
        Severity::Behind => Color::Yellow,
        Severity::Trouble => Color::Red,
    }
}

fn dimmed() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsyncd::status::snapshot::Entry;
    use lsyncd::status::snapshot::LastError;
    use lsyncd::status::snapshot::Sending;
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
    fn no_size_and_no_number_of_syncs_is_too_odd() {
        for syncs in [0, 1, 200] {
            let mut view = View::default();
            view.take(status(syncs));
            view.choose(150);
            for (width, height) in [(1, 1), (10, 3), (300, 2), (80, 24)] {
                drawn(&view, width, height);
            }
            view.take(status(1));
            view.lost("gone".into());
            assert!(drawn(&view, 80, 24).contains("gone"));
        }
    }
}
