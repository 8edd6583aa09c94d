//! What the daemon is doing at one moment, as plain data.
//!
//! Status lines, JSON, metrics, the status page and the terminal view are all made of this, so
//! that they cannot tell different things. Names are in the printable form of
//! [`escape`](crate::log::escape()), which stands for one name only; times are seconds since the epoch,
//! spans are seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::status::health::Severity;
use crate::status::health::State;

/// The version of this format; fields may be added to a version, not taken or changed.
pub const VERSION: u32 = 1;

/// The daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Of lsyncd, for instance `3.0.0`.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// When this was true.
    pub time: f64,
    /// When the daemon started.
    pub started: f64,
    /// It waits for its last children and starts nothing new.
    pub ending: bool,
    /// All syncs together.
    pub severity: Severity,
    /// Watched directories.
    pub watches: usize,
    /// Directories are being read to be watched.
    pub crawling: bool,
    /// Resident memory in bytes.
    pub memory: u64,
    /// How often the kernel's queue overflowed.
    pub overflows: u64,
    /// In the order of the configuration.
    pub syncs: Vec<SyncSnapshot>,
}

impl SyncSnapshot {
    /// The longest time for which a running child has had no I/O, if one stands still.
    pub fn stalled(&self) -> Option<f64> {
        let stalled = self.sending.iter().filter_map(|each| each.stalled);
        stalled.reduce(f64::max)
    }
}

/// One sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncSnapshot {
    /// `Sync1`, or as configured.
    pub name: String,
    /// Absolute, ends with `/`.
    pub source: String,
    /// As configured; empty for a sync that has none.
    pub target: String,
    /// In one word.
    pub state: State,
    /// What the state means to someone who is to be woken.
    pub severity: Severity,
    /// The state in a few words: `retrying in 12 s since rsync: …`.
    pub detail: String,
    /// Entries of the queue, running ones included.
    pub pending: usize,
    /// Age of the oldest of them, within about a second.
    pub oldest: Option<f64>,
    /// Running children.
    pub sending: Vec<Sending>,
    /// What is waited for after a failure.
    pub retry: Option<Retry>,
    /// Paths that a transfer left undone.
    pub failed: usize,
    /// The first of them.
    pub failed_paths: Vec<String>,
    /// Files that do not leave as they did not pass the checks, or could not be checked yet.
    pub withheld: usize,
    /// Those of them that were rejected.
    pub rejected: usize,
    /// The first of them.
    pub withheld_paths: Vec<WithheldPath>,
    /// What was mounted inside the source and is not: the target keeps what it has of it.
    pub away: Vec<String>,
    /// The first entries of the queue.
    pub queue: Vec<Entry>,
    /// When a child ended well last.
    pub last_success: Option<f64>,
    /// What failed last.
    pub last_error: Option<LastError>,
    /// It was paused.
    pub paused: bool,
    /// The guard holds deletions back, and why.
    pub halted: Option<String>,
    /// The exit code after which it does nothing any more.
    pub ended: Option<i32>,
    /// Counters since the daemon started.
    pub totals: Totals,
}

/// A file that does not leave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WithheldPath {
    /// Relative to the source.
    pub path: String,
    /// It was rejected; else it could not be checked yet.
    pub rejected: bool,
    /// Why, in words of the scanner maybe.
    pub reason: String,
}

/// Counters of a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Events that passed the filter.
    pub events: u64,
    /// Children that ended well.
    pub batches: u64,
    /// Queue entries these were about.
    pub entries: u64,
    /// Bytes sent, as far as children tell.
    pub bytes: u64,
    /// Files sent, as far as children tell.
    pub files: u64,
    /// Files that passed the checks.
    pub passed: u64,
    /// Files that were rejected.
    pub rejections: u64,
    /// Failed children by exit code.
    pub failures: BTreeMap<i32, u64>,
    /// How often an attribute of a file that arrived could not be set, by attribute.
    pub unset_attributes: BTreeMap<String, u64>,
}

/// A running child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sending {
    /// Its process.
    pub pid: u32,
    /// How many queue entries it is about.
    pub entries: usize,
    /// It is the startup transfer or another comparison of everything.
    pub full: bool,
    /// For how long.
    pub seconds: f64,
    /// The first paths it is about.
    pub paths: Vec<String>,
    /// For how long it has had no I/O, if that is long.
    pub stalled: Option<f64>,
    /// How far it is, if it tells.
    pub progress: Option<Progress>,
}

/// How far a child is, in rsync's words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes sent.
    pub bytes: u64,
    /// 0 to 100.
    pub percent: u8,
    /// `146.38kB/s`
    pub rate: String,
    /// `0:00:08`
    pub time: String,
}

/// A wait after a failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// In so many seconds.
    pub seconds: f64,
    /// Failures in a row.
    pub failures: u32,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// When.
    pub time: f64,
    /// Exit code; 128 + n is signal n.
    pub code: i32,
    /// In the child's words.
    pub text: String,
}

/// An entry of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// `active`, `wait` or `block`
    pub status: String,
    /// `Create`, `Move` …
    pub event: String,
    /// Relative to the source; empty for the whole sync.
    pub path: String,
    /// Where a Move goes.
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
