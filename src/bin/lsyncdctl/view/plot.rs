//! Small plots in blocks.

use lsyncd::status::number_format::{bytes, span};
use lsyncd::status::trends::{Trend, TrendSeries};
use ratatui::style::Color;
use ratatui::text::{Line, Span};

use super::dimmed;

/// The heights of a cell.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The widths of a plot's title and of what is behind it.
const TITLE_WIDTH: usize = 9;
const CAPTION_WIDTH: usize = 13;

/// The span of time that is plotted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlotRange {
    #[default]
    Hour,
    Day,
}

impl PlotRange {
    /// Returns the other one.
    pub fn other(self) -> PlotRange {
        match self {
            PlotRange::Hour => PlotRange::Day,
            PlotRange::Day => PlotRange::Hour,
        }
    }

    fn of(self, trend: &Trend) -> &TrendSeries {
        match self {
            PlotRange::Hour => &trend.hour,
            PlotRange::Day => &trend.day,
        }
    }

    fn name(self) -> &'static str {
        match self {
            PlotRange::Hour => "hour",
            PlotRange::Day => "day",
        }
    }
}

/// Returns the plots of a sync, one or two on a line. `has_bytes` is false if its transfers do not
/// report how much they have sent.
pub fn lines(trend: &Trend, has_bytes: bool, range: PlotRange, width: usize) -> Vec<Line<'static>> {
    let series = range.of(trend);
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let pending: Vec<f64> = series.pending.iter().map(|&value| value.into()).collect();
    let lag: Vec<f64> = series.lag.iter().map(|&value| value.into()).collect();
    let sent: Vec<f64> = series.bytes.iter().map(|&value| value as f64).collect();
    let failures: Vec<f64> = series.failures.iter().map(|&value| value.into()).collect();
    let all = [
        (
            "pending",
            Color::Blue,
            format!("max {}", most(&pending)),
            pending,
        ),
        (
            "behind",
            Color::Yellow,
            format!("max {}", span(most(&lag))),
            lag,
        ),
        (
            "sent",
            Color::Blue,
            if has_bytes {
                bytes(series.bytes.iter().sum())
            } else {
                "not reported".into()
            },
            sent,
        ),
        (
            "failed",
            Color::Red,
            failures.iter().sum::<f64>().to_string(),
            failures,
        ),
    ];
    let columns = if width >= 2 * (TITLE_WIDTH + CAPTION_WIDTH + 20) {
        2
    } else {
        1
    };
    let room = (width / columns).saturating_sub(TITLE_WIDTH + CAPTION_WIDTH);
    let plot = |(title, colour, caption, values): &(&str, Color, String, Vec<f64>)| {
        [
            Span::styled(format!("{title:<TITLE_WIDTH$}"), dimmed()),
            Span::styled(blocks(values, series.spans, room), *colour),
            Span::raw(format!(" {caption:<width$}", width = CAPTION_WIDTH - 1)),
        ]
    };
    let rows = all.chunks(columns);
    let mut lines = vec![Line::styled(format!("last {}", range.name()), dimmed())];
    lines.extend(rows.map(|row| Line::from(row.iter().flat_map(plot).collect::<Vec<_>>())));
    lines
}

/// Returns the values as blocks, the newest at the right. Values share a cell if there is no room,
/// and the highest one counts.
fn blocks(values: &[f64], spans: usize, room: usize) -> String {
    let width = room.min(spans.max(1));
    let most = values.iter().copied().fold(0.0, f64::max);
    let cell = |at: usize| {
        // The range of spans that this cell shows.
        let (from, to) = (at * spans / width, (at + 1) * spans / width);
        let missing = spans.saturating_sub(values.len());
        let inside = from.saturating_sub(missing)..to.saturating_sub(missing);
        let value = values.get(inside)?.iter().copied().reduce(f64::max)?;
        let height = (value / most * 7.0).round();
        (value > 0.0).then(|| BLOCKS[(height as usize).min(7)])
    };
    (0..width).map(|at| cell(at).unwrap_or(' ')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_is_at_the_right() {
        assert_eq!(blocks(&[1.0, 8.0], 4, 10), "  ▂█");
        assert_eq!(blocks(&[0.0, 8.0, 1.0, 0.0], 4, 2), "█▂");
        assert_eq!(blocks(&[1.0], 60, 6), "     █");
        assert_eq!(blocks(&[], 60, 3), "   ");
        assert_eq!(blocks(&[1.0], 60, 0), "");
        assert_eq!(blocks(&[1.0; 90], 60, 3).chars().count(), 3);
    }
}
