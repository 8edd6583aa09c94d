//! Log lines about long full comparisons.

use std::time::{Duration, Instant};

use crate::component::Action;
use crate::transfer::{Job, Transfers};

/// The time until the first line, and between two.
const FIRST_LINE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(60);

/// The schedule of the lines.
#[derive(Default)]
pub struct ComparisonProgress {
    /// The time of the next line; `None` while nothing is compared.
    next: Option<Instant>,
}

impl ComparisonProgress {
    /// Returns the time at which [`ComparisonProgress::on_turn`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Returns the lines that are due.
    pub fn on_turn(&mut self, transfers: &Transfers, now: Instant) -> Vec<Action> {
        let whole: Vec<_> = transfers
            .all_jobs()
            .filter(|job| job.is_whole(&job.handle().sync.borrow()))
            .collect();
        if !self.is_due(!whole.is_empty(), now) {
            return Vec::new();
        }
        whole
            .into_iter()
            .filter_map(line)
            .map(Action::normal)
            .collect()
    }

    /// Returns true if lines are due while something is compared, and schedules the next ones.
    fn is_due(&mut self, is_comparing: bool, now: Instant) -> bool {
        if !is_comparing {
            self.next = None;
            return false;
        }
        let next = *self.next.get_or_insert(now + FIRST_LINE);
        let is_due = next <= now;
        if is_due {
            self.next = Some(now + INTERVAL);
        }
        is_due
    }
}

/// Returns the line of a full comparison, if something is known of its progress.
fn line(job: &Job) -> Option<String> {
    let sync = job.handle().sync.borrow();
    let progress = job.progress(&sync)?;
    let (name, percent, words) = (&sync.config.name, progress.percent, progress.words());
    (progress.total > 0).then(|| format!("{name}: comparing everything, {percent} %, {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_comparison_is_told_from_time_to_time() {
        let mut log = ComparisonProgress::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!log.is_due(false, start) && log.deadline().is_none());
        assert!(!log.is_due(true, start));
        assert_eq!(log.deadline(), Some(at(10)));
        assert!(!log.is_due(true, at(9)) && log.is_due(true, at(10)));
        assert!(!log.is_due(true, at(69)) && log.is_due(true, at(70)));
        assert!(!log.is_due(false, at(71)) && log.deadline().is_none());
    }
}
