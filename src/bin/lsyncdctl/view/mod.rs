//! Draws the live view: syncs above, the selected one below; or the transfer log.
//!
//! | file | what it does |
//! |---|---|
//! | `detail` | one sync |
//! | `plot` | small plots |
//! | `activity` | the transfer log |
//! | `tests` | tests of all of it |

mod activity;
mod detail;
mod plot;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use lsyncd::history::{LogEntry, LogPage};
use lsyncd::status::number_format::bytes;
use lsyncd::status::number_format::counted;
use lsyncd::status::number_format::span;
use lsyncd::status::snapshot::Snapshot;
use lsyncd::status::snapshot::SyncSnapshot;
use lsyncd::status::state::Severity;
use lsyncd::status::trends::TrendPage;
use plot::PlotRange;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState, Wrap};

const KEYS: &str = " q quit  ? keys  ↑↓ choose  / find  n next in trouble  Tab log";
const FEW_KEYS: &str = " q quit  ? keys";

const ALL_KEYS: [&str; 14] = [
    "q            quit",
    "↑ ↓ j k      choose a sync, or move in the log",
    "PgUp PgDn    a page up or down",
    "Home End     the first or the last",
    "n            next sync in trouble",
    "/            find: part of a name or a path",
    "Esc          show all again",
    "Tab          transfer log, and back",
    "h            plots of the hour or the day",
    "p r          pause, resume",
    "f t          flush, retry",
    "S            compare everything",
    "?            these keys",
    "",
];

/// The columns for which there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableWidth {
    Narrow,
    Usual,
    Wide,
}

/// What the screen shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tab {
    #[default]
    Syncs,
    Log,
    Keys,
}

/// The data that is shown.
#[derive(Default)]
pub struct View {
    status: Snapshot,
    trends: TrendPage,
    log: Vec<LogEntry>,
    /// The reason why there is no newer status.
    lost: Option<String>,
    /// The reply to the last key.
    message: String,
    /// The name of the selected sync.
    chosen: Option<String>,
    tab: Tab,
    range: PlotRange,
    /// Only what contains this text is shown.
    filter: String,
    /// Keys go to the filter.
    is_typing: bool,
    /// The entries of the log above the screen.
    skipped: usize,
}

impl View {
    /// Sets a new status.
    pub fn take(&mut self, mut status: Snapshot) {
        // The order is that of `lsyncdctl status`.
        status.syncs.sort_by_key(|sync| Reverse(sync.severity));
        self.status = status;
        self.lost = None;
        self.choose(0);
    }

    /// Sets new series.
    pub fn set_trends(&mut self, trends: TrendPage) {
        self.trends = trends;
    }

    /// Sets the newest entries of the transfer log.
    pub fn set_log(&mut self, page: LogPage) {
        self.log = page.entries;
        self.log.reverse();
    }

    /// Returns true if the transfer log is shown.
    pub fn shows_log(&self) -> bool {
        self.tab == Tab::Log
    }

    /// Records that no status is available.
    pub fn lost(&mut self, text: String) {
        self.lost = Some(text);
    }

    /// Sets the reply to a key.
    pub fn set_message(&mut self, text: String) {
        self.message = text;
    }

    /// Moves the selection, or the log.
    pub fn choose(&mut self, by: isize) {
        if self.shows_log() {
            let last = self.entries().count().saturating_sub(1);
            self.skipped = self.skipped.saturating_add_signed(by).min(last);
            return;
        }
        let last = self.shown().count().saturating_sub(1);
        let at = self.position().saturating_add_signed(by).min(last);
        let chosen = self.shown().nth(at).map(|sync| sync.name.clone());
        self.chosen = chosen;
    }

    /// Selects the next sync in trouble, if there is one.
    pub fn choose_trouble(&mut self) {
        let behind = self.shown().skip(self.position() + 1);
        let mut all = behind.chain(self.shown());
        let next = all.find(|sync| sync.severity == Severity::Trouble);
        let next = next.map(|sync| sync.name.clone());
        drop(all);
        match next {
            None => self.message = "no sync is in trouble".to_owned(),
            found => self.chosen = found,
        }
    }

    /// Changes between syncs and log.
    pub fn turn_tab(&mut self) {
        self.tab = match self.tab {
            Tab::Syncs => Tab::Log,
            Tab::Log | Tab::Keys => Tab::Syncs,
        };
        self.skipped = 0;
    }

    /// Shows the keys, or what was shown before.
    pub fn turn_keys(&mut self) {
        self.tab = match self.tab {
            Tab::Keys => Tab::Syncs,
            Tab::Syncs | Tab::Log => Tab::Keys,
        };
    }

    /// Changes between the plots of an hour and a day.
    pub fn turn_range(&mut self) {
        self.range = self.range.other();
    }

    /// Begins or ends the input of a filter.
    pub fn set_typing(&mut self, is_typing: bool) {
        self.is_typing = is_typing;
    }

    /// Returns true while a filter is entered.
    pub fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// Adds a character to the filter, or removes the last one.
    pub fn type_character(&mut self, character: Option<char>) {
        match character {
            Some(character) => self.filter.push(character),
            None => drop(self.filter.pop()),
        }
        self.skipped = 0;
        self.choose(0);
    }

    /// Goes one step back: closes the keys or the log, or removes the filter. Returns false if
    /// there is nothing to go back from.
    pub fn go_back(&mut self) -> bool {
        if self.tab != Tab::Syncs {
            self.tab = Tab::Syncs;
        } else if !self.filter.is_empty() {
            self.filter.clear();
            self.choose(0);
        } else {
            return false;
        }
        true
    }

    /// Returns the name of the selected sync.
    pub fn chosen(&self) -> Option<String> {
        self.chosen.clone()
    }

    fn shown(&self) -> impl Iterator<Item = &SyncSnapshot> {
        let syncs = self.status.syncs.iter();
        syncs.filter(|sync| self.is_found([&sync.name, &sync.source, &sync.target]))
    }

    fn entries(&self) -> impl Iterator<Item = &LogEntry> {
        let entries = self.log.iter();
        entries.filter(|entry| self.is_found([&entry.sync, &entry.path, &entry.operation]))
    }

    fn is_found<'a>(&self, texts: impl IntoIterator<Item = &'a String>) -> bool {
        let wanted = self.filter.to_lowercase();
        texts
            .into_iter()
            .any(|text| text.to_lowercase().contains(&wanted))
    }

    /// Returns the position of the selected sync. One that has gone is replaced by the first.
    fn position(&self) -> usize {
        let mut shown = self.shown();
        let found = shown.position(|sync| Some(&sync.name) == self.chosen.as_ref());
        found.unwrap_or(0)
    }

    /// Draws the view.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let parts = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .split(frame.area());
        frame.render_widget(self.head(parts[0].width), parts[0]);
        match self.tab {
            Tab::Syncs => self.draw_status(frame, parts[1]),
            Tab::Log => {
                let height = usize::from(parts[1].height);
                let lines = match self.entries().next() {
                    Some(_) => activity::lines(self.entries(), self.skipped, height),
                    None => vec![Line::styled("nothing has been transferred", dimmed())],
                };
                frame.render_widget(Paragraph::new(lines), parts[1]);
            }
            Tab::Keys => {
                let lines: Vec<Line<'_>> = ALL_KEYS.into_iter().map(Line::raw).collect();
                frame.render_widget(Paragraph::new(lines), parts[1]);
            }
        }
        frame.render_widget(self.foot(parts[2].width), parts[2]);
    }

    fn draw_status(&self, frame: &mut Frame<'_>, area: Rect) {
        let area = self.draw_reload_error(frame, area);
        // At most half of the height is for syncs.
        let rows = self.shown().count() as u16 + 1;
        let table = rows.min((area.height / 2).max(3));
        let parts = Layout::vertical([Constraint::Length(table), Constraint::Min(0)]).split(area);
        self.draw_syncs(frame, parts[0]);
        if let Some(sync) = self.shown().nth(self.position()) {
            self.draw_one(frame, parts[1], sync);
        }
    }

    /// Draws the error of a configuration that was refused above the rest. Returns the remaining
    /// area.
    fn draw_reload_error(&self, frame: &mut Frame<'_>, area: Rect) -> Rect {
        let Some(error) = &self.status.reload_error else {
            return area;
        };
        let text = format!("the new configuration has errors: {error}");
        let width = usize::from(area.width.max(1));
        let lines = text
            .lines()
            .map(|line| line.chars().count().div_ceil(width));
        // Words are not divided, so a line may need more room.
        let height = (lines.sum::<usize>() as u16 + 1).min(area.height / 2);
        let parts = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).split(area);
        let text = Paragraph::new(text).style(Style::new().fg(Color::Red));
        frame.render_widget(text.wrap(Wrap { trim: false }), parts[0]);
        parts[1]
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
        if self.is_typing {
            let text = format!(" find: {}█  Enter keep  Esc all", self.filter);
            return Paragraph::new(text);
        }
        let keys = match width {
            0..60 => FEW_KEYS,
            _ => KEYS,
        };
        let said = match (self.message.as_str(), self.filter.as_str()) {
            ("", "") => String::new(),
            ("", filter) => format!("   found by \"{filter}\""),
            (message, _) => format!("   {message}"),
        };
        let line = Line::from(vec![Span::styled(keys, dimmed()), Span::raw(said)]);
        Paragraph::new(line)
    }

    fn draw_syncs(&self, frame: &mut Frame<'_>, area: Rect) {
        let width = match area.width {
            0..60 => TableWidth::Narrow,
            60..110 => TableWidth::Usual,
            _ => TableWidth::Wide,
        };
        let names = self.shown().map(|sync| sync.name.chars().count());
        let longest = if width == TableWidth::Wide { 30 } else { 16 };
        let name = names.max().unwrap_or(4).clamp(4, longest);
        let mut columns = vec![("SYNC", name as u16), ("STATE", 11), (" PENDING", 8)];
        if width != TableWidth::Narrow {
            columns.push((" OLDEST", 7));
        }
        if width == TableWidth::Wide {
            columns.extend([("  CHANGES", 9), ("    BYTES", 9), (" FAILURES", 9)]);
        }
        let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
        let mut widths: Vec<_> = widths.collect();
        let mut titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
        if width != TableWidth::Narrow {
            widths.push(Constraint::Min(10));
            titles.push("WHAT");
        }
        let rows = self.shown().map(|sync| row(sync, width));
        let table = Table::new(rows, widths)
            .header(Row::new(titles).style(dimmed()))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::new().with_selected(Some(self.position()));
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn draw_one(&self, frame: &mut Frame<'_>, area: Rect, sync: &SyncSnapshot) {
        let title = if sync.target.is_empty() {
            format!(" {}: {} ", sync.name, sync.source)
        } else {
            format!(" {}: {} → {} ", sync.name, sync.source, sync.target)
        };
        let block = Block::new().borders(Borders::TOP).title(title);
        let (trend, now) = (self.trends.syncs.get(&sync.name), self.status.time);
        let lines = detail::lines(sync, trend, self.range, now, usize::from(area.width));
        let text = Paragraph::new(lines).wrap(Wrap { trim: false });
        frame.render_widget(text.block(block), area);
    }
}

fn row(sync: &SyncSnapshot, width: TableWidth) -> Row<'_> {
    let style = Style::new().fg(colour(sync.severity));
    let mut cells = vec![
        Span::raw(sync.name.clone()),
        Span::styled(sync.state.name(), style),
        Span::raw(format!("{:>8}", sync.pending)),
    ];
    if width != TableWidth::Narrow {
        let oldest = sync.oldest.map_or_else(|| "–".into(), span);
        cells.push(Span::raw(format!("{oldest:>7}")));
    }
    if width == TableWidth::Wide {
        let failures: u64 = sync.totals.failures.values().sum();
        let sent = match sync.totals.bytes {
            0 => "–".into(),
            count => bytes(count),
        };
        cells.push(Span::raw(format!("{:>9}", sync.totals.entries)));
        cells.push(Span::raw(format!("{sent:>9}")));
        cells.push(Span::raw(format!("{failures:>9}")));
    }
    if width != TableWidth::Narrow {
        cells.push(Span::raw(sync.detail.clone()));
    }
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
