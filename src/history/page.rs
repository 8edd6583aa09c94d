//! Entries of the transfer log as plain data. Names are in the printable form of
//! [`escape`](crate::log::escape()), which represents one name only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogEntry {
    /// The time at which its batch ended, in seconds since the epoch.
    pub time: f64,
    /// The name of the sync.
    pub sync: String,
    /// The target of the sync; empty for a sync without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The operation: `sent`, `deleted`, `moved`, `attributes`, `compared` or `failed`.
    pub operation: String,
    /// The path relative to the source; empty for everything.
    pub path: String,
    /// The new path, if it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The reason, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of the entry, which grows within a sync.
    pub number: u64,
    /// The exit code of its batch; 128 + n is signal n.
    pub code: i32,
    /// The duration of its batch in seconds.
    pub seconds: f64,
    /// The bytes that its batch sent, if the transfer reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The number of queue entries of its batch.
    pub entries: u32,
}

/// A part of the transfer log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogPage {
    /// The entries, oldest first.
    pub entries: Vec<LogEntry>,
    /// By sync, the number of the last entry that was examined, for the next request.
    pub next: BTreeMap<String, u64>,
    /// True if there are more entries now.
    pub more: bool,
    /// The number of batches that could not be written since the daemon started.
    pub lost: u64,
    /// Why the log of a sync cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
