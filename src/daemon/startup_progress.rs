//! How far a long startup is, so that nobody wonders why nothing happens: lines in the log,
//! and on a terminal one line that is rewritten.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::log;
use crate::watch::Watcher;

/// Between two lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Between two states of the line on the terminal, and before the first: a short startup
/// shows none.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(250);

/// When the progress of a startup is told.
pub struct StartupProgress {
    started: Instant,
    next: Instant,
    /// When the line on the terminal is rewritten; `None` without one.
    blink: Option<Instant>,
    told: bool,
    shown: bool,
}

impl StartupProgress {
    /// A startup that begins now; a daemon in the foreground may have a terminal.
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

    /// Tells how many directories are watched so far; after that, how many startup transfers,
    /// `transfers`, are left.
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

    /// Tells the end of a crawl whose progress was told, and else only who asks for `Inotify`.
    pub fn finished(&self, watcher: &Watcher) {
        let category = if self.told { "Normal" } else { "Inotify" };
        log::say(category, self.line(watcher, "in all"));
    }

    /// When there is something to tell.
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
