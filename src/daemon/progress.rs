//! A long crawl is told in the log, so that nobody wonders why nothing happens.

use std::time::{Duration, Instant};

use crate::report;
use crate::watch::Watcher;

const INTERVAL: Duration = Duration::from_secs(5);

/// When the crawl's progress is told.
pub struct Progress {
    started: Instant,
    next: Instant,
    told: bool,
}

impl Progress {
    /// A crawl that starts now.
    pub fn new(now: Instant) -> Progress {
        Progress {
            started: now,
            next: now + INTERVAL,
            told: false,
        }
    }

    /// Tells how many directories are watched so far, every few seconds.
    pub fn turn(&mut self, watcher: &Watcher, now: Instant) {
        if !watcher.crawling() || now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        self.told = true;
        report::normal(self.line(watcher, "so far"));
    }

    /// Tells the end of a crawl whose progress was told, and else only who asks for `Inotify`.
    pub fn finished(&self, watcher: &Watcher) {
        let category = if self.told { "Normal" } else { "Inotify" };
        report::say(category, self.line(watcher, "in all"));
    }

    /// When there is something to tell.
    pub fn deadline(&self, watcher: &Watcher) -> Option<Instant> {
        watcher.crawling().then_some(self.next)
    }

    fn line(&self, watcher: &Watcher, how: &str) -> String {
        format!(
            "watching {} directories {how}, {:.1} s",
            watcher.watched(),
            self.started.elapsed().as_secs_f64()
        )
    }
}
