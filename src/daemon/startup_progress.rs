//! Progress messages of a long startup: log lines, and on a terminal one line that is rewritten.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::log;
use crate::watch::Watcher;

/// The interval of log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// The interval of updates on the terminal, and the delay before the first, so that a short startup
/// shows none.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(250);

/// The schedule of progress messages.
pub struct StartupProgress {
    started: Instant,
    next: Instant,
    /// The time of the next update on the terminal; `None` without a terminal.
    blink: Option<Instant>,
    told: bool,
    shown: bool,
}

impl StartupProgress {
    /// Returns the schedule of a startup that begins now. A daemon in the foreground may have a
    /// terminal.
    pub fn new(now: Instant, foreground: bool) -> StartupProgress {
        let terminal = foreground && io::stdout().is_terminal();
        StartupProgress {
            started: now,
            next: now + LOG_INTERVAL,
            blink: terminal.then(|| now + TERMINAL_INTERVAL),
            told: false,
            shown: false,
        }
    }

    /// Shows the number of watched directories, then the number of remaining startup transfers, as
    /// returned by `transfers`.
    pub fn turn(&mut self, watcher: &Watcher, transfers: impl Fn() -> usize, now: Instant) {
        let crawling = watcher.crawling();
        if crawling && now >= self.next {
            self.next = now + LOG_INTERVAL;
            self.told = true;
            log::normal(self.line(watcher, "so far"));
        }
        if self.blink.is_none_or(|blink| blink > now) {
            return;
        }
        let left = transfers();
        let text = match (crawling, left) {
            (true, _) => self.line(watcher, "so far"),
            (false, 0) => {
                self.blink = None;
                if std::mem::take(&mut self.shown) {
                    log::transient("");
                }
                return;
            }
            (false, left) => format!(
                "directories watched: {}, startup transfers to be done: {left}, {:.0} s",
                watcher.watched(),
                self.started.elapsed().as_secs_f64()
            ),
        };
        self.blink = Some(now + TERMINAL_INTERVAL);
        self.shown = true;
        log::transient(&text);
    }

    /// Logs the end of the crawl if its progress was logged, else in the category Inotify only.
    pub fn finished(&self, watcher: &Watcher) {
        let category = if self.told { "Normal" } else { "Inotify" };
        log::say(category, self.line(watcher, "in all"));
    }

    /// Returns the time of the next message.
    pub fn deadline(&self, watcher: &Watcher) -> Option<Instant> {
        let next = watcher.crawling().then_some(self.next);
        next.into_iter().chain(self.blink).min()
    }

    fn line(&self, watcher: &Watcher, how: &str) -> String {
        format!(
            "watching {} directories {how}, {:.1} s",
            watcher.watched(),
            self.started.elapsed().as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::sync::tests::idle_watcher;
    use crate::watch::Scope;

    /// Returns a watcher that has not read the directory of its only scope.
    fn crawling_watcher(directory: &tempfile::TempDir) -> Watcher {
        let mut watcher = idle_watcher();
        watcher.set_scopes(vec![Scope {
            root: format!("{}/", directory.path().display()).into_bytes(),
            wants: Arc::new(|_| true),
        }]);
        assert!(watcher.crawling());
        watcher
    }

    #[test]
    fn the_loop_is_woken_for_each_line_and_no_sooner() {
        let directory = tempfile::tempdir().unwrap();
        let (idle, crawling) = (idle_watcher(), crawling_watcher(&directory));
        let start = Instant::now();
        let mut progress = StartupProgress::new(start, false);
        let mut deadline_after = |watcher: &Watcher, seconds| {
            progress.turn(watcher, || 0, start + Duration::from_secs(seconds));
            let deadline = progress.deadline(watcher);
            deadline.map(|time| (time - start).as_secs())
        };
        assert_eq!(deadline_after(&crawling, 1), Some(5));
        assert_eq!(deadline_after(&crawling, 5), Some(10));
        assert_eq!(deadline_after(&crawling, 9), Some(10));
        assert_eq!(deadline_after(&idle, 11), None);
    }

    #[test]
    fn the_terminal_is_updated_until_the_startup_is_complete() {
        let (watcher, start) = (idle_watcher(), Instant::now());
        let left = Cell::new(2);
        let mut progress = StartupProgress {
            blink: Some(start + TERMINAL_INTERVAL),
            ..StartupProgress::new(start, false)
        };
        for (turns, expected) in [
            (0, Some(1)),
            (1, Some(2)),
            (2, Some(3)),
            (3, None),
            (9, None),
        ] {
            left.set(3_usize.saturating_sub(turns));
            let now = start + TERMINAL_INTERVAL * u32::try_from(turns).unwrap();
            progress.turn(&watcher, || left.get(), now);
            let expected = expected.map(|intervals| start + TERMINAL_INTERVAL * intervals);
            assert_eq!(progress.deadline(&watcher), expected, "{turns}");
        }
    }
}
