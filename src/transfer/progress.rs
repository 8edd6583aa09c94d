//! The progress of a full comparison: the reports of rsync or of the daemon's own thread, and the
//! estimate of the rest from the size of the source.

use std::time::{Duration, Instant};

use crate::batch::output::RsyncProgress;
use crate::status::number_format::clock;
use crate::status::snapshot::Progress;
use crate::watch::TreeSize;

/// The known progress of a transfer.
pub struct TransferProgress<'a> {
    /// The begin.
    pub since: Instant,
    /// The last report of rsync, and its time.
    pub rsync: Option<&'a (RsyncProgress, Instant)>,
    /// The entries that the daemon's own thread has compared.
    pub copied: Option<u64>,
    /// The size of the source, if all of it is compared; otherwise none.
    pub size: TreeSize,
    /// The time of the question.
    pub now: Instant,
}

impl TransferProgress<'_> {
    /// Returns the progress for people; `None` if nothing is known.
    pub fn shown(&self) -> Option<Progress> {
        let listed = self.rsync.and_then(|(report, _)| report.entries);
        let entries = self.size.entries as u64;
        let (compared, total) = match (listed, self.copied) {
            (Some(listed), _) if listed.is_complete => (listed.compared, listed.listed),
            (Some(listed), _) => (listed.compared, listed.listed.max(entries)),
            (None, Some(copied)) => (copied, entries.max(copied)),
            (None, None) => (0, 0),
        };
        let mut shown = match self.rsync {
            Some((report, _)) => Progress {
                bytes: report.bytes,
                percent: report.percent,
                rate: report.rate.clone(),
                time: report.time.clone(),
                ..Progress::default()
            },
            None if self.copied.is_none() => return None,
            None => Progress::default(),
        };
        if entries == 0 || total == 0 {
            return Some(shown);
        }
        shown.compared = compared;
        shown.total = total;
        // If everything is sent, the bytes are more significant than the entries.
        let is_copy = listed.is_some_and(|listed| {
            let directories = self.size.directories as u64;
            listed.is_complete && compared <= listed.sent + directories
        });
        let (compared, total) = match is_copy {
            true => (shown.percent.into(), 100),
            false => (compared, total),
        };
        shown.percent = (compared * 100 / total).min(100) as u8;
        let told = self.rsync.map_or(self.now, |(_, at)| *at);
        shown.left = left(told - self.since, compared, total).map(|left| {
            let left = left.saturating_sub(self.now - told).as_secs_f64();
            shown.time = clock(left);
            left
        });
        Some(shown)
    }
}

/// Returns the time that the rest takes at the mean rate so far.
fn left(elapsed: Duration, compared: u64, total: u64) -> Option<Duration> {
    let rest = total.saturating_sub(compared) as f64 / compared as f64;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::output::progress;

    #[test]
    fn the_rest_is_estimated_by_the_entries() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let shown = |line: &str, copied, entries, now| {
            let rsync = progress(line.as_bytes()).map(|report| (report, at(10)));
            let known = TransferProgress {
                since,
                rsync: rsync.as_ref(),
                copied,
                size: TreeSize {
                    directories: 10,
                    entries,
                },
                now,
            };
            known.shown()
        };
        let line = "1,000 2% 1.00kB/s 0:00:01 (xfr#1, to-chk=75/100)";
        let found = shown(line, None, 1000, at(10)).unwrap();
        assert_eq!((found.compared, found.total, found.percent), (25, 100, 25));
        assert_eq!((found.left, &*found.time), (Some(30.0), "0:00:30"));
        assert_eq!(shown(line, None, 1000, at(25)).unwrap().left, Some(15.0));
        assert_eq!(shown(line, None, 1000, at(99)).unwrap().left, Some(0.0));
        // All of a new copy is sent.
        let copy = line.replace("xfr#1", "xfr#15");
        let found = shown(&copy, None, 1000, at(10)).unwrap();
        assert_eq!((found.percent, found.left), (2, Some(490.0)));
        // More is being listed, and the source has more.
        let line = line.replace("to-chk", "ir-chk");
        let found = shown(&line, None, 1000, at(10)).unwrap();
        assert_eq!((found.total, found.percent), (1000, 2));
        let found = shown("", Some(50), 200, at(10)).unwrap();
        assert_eq!((found.percent, found.left), (25, Some(30.0)));
        assert_eq!(shown("", Some(0), 200, at(10)).unwrap().left, None);
        // For a batch, rsync's own figures are shown.
        let found = shown(&line, None, 0, at(10)).unwrap();
        assert_eq!(
            (found.percent, found.total, &*found.time),
            (2, 0, "0:00:01")
        );
        assert_eq!(shown("", None, 200, at(10)), None);
    }
}
