//! The state of the daemon at one moment, as plain data.
//!
//! Status lines, JSON, metrics, the status page and the terminal view are all made of this, so that
//! they cannot contradict each other. Names are in the printable form of
//! [`escape`](crate::log::escape()), which represents one name only; times are seconds since the
//! epoch, spans are seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::status::drift_report::DriftVerdict;
use crate::status::number_format::{bytes, span};
use crate::status::state::Severity;
use crate::status::state::State;

/// The version of this format. Fields may be added to a version, not removed or changed.
pub const VERSION: u32 = 1;

/// The state of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The version of lsyncd, for instance `3.0.0`.
    pub version: String,
    /// The name of the host.
    pub host: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The time of the snapshot.
    pub time: f64,
    /// The time at which the daemon started.
    pub started: f64,
    /// True if the daemon waits for its last children and starts nothing new.
    pub ending: bool,
    /// The worst severity of all syncs.
    pub severity: Severity,
    /// The greatest [`SyncSnapshot::lag`].
    pub lag: f64,
    /// The number of watched directories.
    pub watches: usize,
    /// The kernel's limit of watches for this user, if it can be read.
    pub watch_limit: Option<usize>,
    /// The number of directories without a watch, because the limit is reached; as of the last
    /// count, at least 1.
    pub unwatched: usize,
    /// True while directories are being read to be watched.
    pub crawling: bool,
    /// Resident memory in bytes.
    pub memory: u64,
    /// The number of overflows of the kernel's queue.
    pub overflows: u64,
    /// Why the configuration could not be read again. The one before is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_error: Option<String>,
    /// The syncs in the order of the configuration.
    pub syncs: Vec<SyncSnapshot>,
}

impl SyncSnapshot {
    /// Returns the longest time for which a running child has had no I/O, if one is stalled.
    pub fn stalled(&self) -> Option<f64> {
        let stalled = self.sending.iter().filter_map(|each| each.stalled);
        stalled.reduce(f64::max)
    }
}

/// The result of the last comparison of source and target (`lsyncdctl verify`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastVerify {
    /// The end of the comparison.
    pub time: f64,
    /// Its duration.
    pub seconds: f64,
    /// The verdict.
    pub verdict: DriftVerdict,
    /// The number of differences, without those that were repaired.
    pub drift: u64,
}

/// The progress of a comparison of source and target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyProgress {
    /// The step.
    pub stage: String,
    /// The moment at which the comparison began.
    pub begin: f64,
    /// The number of differences found until now.
    pub found: u64,
}

/// The state of one sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncSnapshot {
    /// The name: `Sync1`, or as configured.
    pub name: String,
    /// The source; absolute, ends with `/`.
    pub source: String,
    /// The target as configured; empty for a sync without one.
    pub target: String,
    /// The watch backend with the reason: `inotify` or `fanotify`, a colon and the reason.
    pub watch: String,
    /// The state in one word.
    pub state: State,
    /// The urgency of the state.
    pub severity: Severity,
    /// The state in a few words: `retrying in 12 s after rsync: …`.
    pub detail: String,
    /// The number of queue entries, running ones included.
    pub pending: usize,
    /// The age of the oldest entry, within about a second.
    pub oldest: Option<f64>,
    /// The seconds by which the target is behind: the age of the oldest change that is not there,
    /// pending or failed; 0 if it is current.
    pub lag: f64,
    /// Running children.
    pub sending: Vec<Sending>,
    /// The pending retry after a failure.
    pub retry: Option<Retry>,
    /// The number of paths that a transfer could not send, with those that are being retried.
    pub failed: usize,
    /// The first of these paths.
    pub failed_paths: Vec<String>,
    /// The number of files that are not sent because they did not pass the checks, or could not be
    /// checked yet.
    pub withheld: usize,
    /// The number of those that were rejected.
    pub rejected: usize,
    /// The first of the blocked files.
    pub withheld_paths: Vec<WithheldPath>,
    /// File systems that were mounted inside the source and are not any more: the target keeps
    /// their files.
    pub away: Vec<String>,
    /// The first entries of the queue.
    pub queue: Vec<Entry>,
    /// The last time a child succeeded.
    pub last_success: Option<f64>,
    /// The last failure.
    pub last_error: Option<LastError>,
    /// The last comparison of source and target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<LastVerify>,
    /// The comparison that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifying: Option<VerifyProgress>,
    /// The remedy for the trouble, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// True if the sync is paused.
    pub paused: bool,
    /// The reason if a guard blocks deletions.
    pub halted: Option<String>,
    /// The exit code after which the sync has stopped for good.
    pub ended: Option<i32>,
    /// Counters since the daemon started.
    pub totals: Totals,
}

/// A file that is not sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WithheldPath {
    /// The path relative to the source.
    pub path: String,
    /// True if it was rejected, false if it could not be checked yet.
    pub rejected: bool,
    /// The reason, possibly in the scanner's words.
    pub reason: String,
}

/// Counters of a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Events that passed the filter.
    pub events: u64,
    /// Children that succeeded.
    pub batches: u64,
    /// Queue entries of these children.
    pub entries: u64,
    /// Bytes sent, as far as children report it.
    pub bytes: u64,
    /// Files sent, as far as children report it.
    pub files: u64,
    /// Files that passed the checks.
    pub passed: u64,
    /// Files that were rejected.
    pub rejections: u64,
    /// Failed children by exit code.
    pub failures: BTreeMap<i32, u64>,
    /// The number of times an attribute of a transferred file could not be set, by attribute.
    pub unset_attributes: BTreeMap<String, u64>,
    /// The number of paths that cannot be transferred, by reason.
    pub left_out: BTreeMap<String, u64>,
}

/// A running child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sending {
    /// The process id.
    pub pid: u32,
    /// The number of queue entries it handles.
    pub entries: usize,
    /// True for the startup transfer or another full sync.
    pub full: bool,
    /// The time it has been running.
    pub seconds: f64,
    /// The first paths it handles.
    pub paths: Vec<String>,
    /// The time it has had no I/O, if that is long.
    pub stalled: Option<f64>,
    /// The progress, if it reports any.
    pub progress: Option<Progress>,
}

/// The progress of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes sent.
    pub bytes: u64,
    /// 0 to 100.
    pub percent: u8,
    /// The rate: `146.38kB/s`; empty if it is not known.
    pub rate: String,
    /// The time left: `0:00:08`.
    pub time: String,
    /// The entries that a full comparison has compared so far.
    pub compared: u64,
    /// The number of entries to compare, which may be an estimate; 0 if it is not known.
    pub total: u64,
    /// An estimate of the seconds left.
    pub left: Option<f64>,
}

impl Progress {
    /// Returns the progress for people, without the percentage.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if self.total > 0 {
            let (compared, total) = (self.compared, self.total);
            words.push(format!("{compared} of {total} entries compared"));
        }
        if self.bytes > 0 || self.total == 0 {
            words.push(bytes(self.bytes));
        }
        if !self.rate.is_empty() {
            words.push(self.rate.clone());
        }
        words.push(match self.left {
            Some(left) => format!("about {} left", span(left)),
            None => self.time.clone(),
        });
        words.retain(|word| !word.is_empty());
        words.join(", ")
    }
}

/// A wait after a failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// The time until the retry.
    pub seconds: f64,
    /// The number of consecutive failures.
    pub failures: u32,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// The time of the failure.
    pub time: f64,
    /// The exit code; 128 + n is signal n.
    pub code: i32,
    /// The child's error message.
    pub text: String,
    /// The remedy, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl LastError {
    /// Returns the error with its age: of a sync that is in no trouble any more, that it is past.
    pub fn shown(&self, now: f64, is_past: bool) -> String {
        let ago = span(now - self.time);
        let what = if is_past { "past error" } else { "last error" };
        let code = self.code;
        match self.text.as_str() {
            "" => format!("{what} {ago} ago, exit code {code}"),
            text => format!("{what} {ago} ago, exit code {code}: {text}"),
        }
    }
}

/// An entry of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// `active`, `wait` or `block`.
    pub status: String,
    /// `Create`, `Move` …
    pub event: String,
    /// The path relative to the source; empty for the whole sync.
    pub path: String,
    /// The destination of a Move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_json() {
        let snapshot = Snapshot {
            syncs: vec![SyncSnapshot::default().judged(Some("starting".into()), false)],
            ..Snapshot::default()
        }
        .judged();
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
        for state in State::ALL {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(text, format!("\"{}\"", state.name()));
        }
    }
}
