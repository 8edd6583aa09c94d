//! Series of the last hour and day as plain data, for the status page and the live view.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The series of all syncs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrendPage {
    /// The series by the name of the sync.
    pub syncs: BTreeMap<String, Trend>,
}

/// The series of one sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trend {
    /// The last hour.
    pub hour: TrendSeries,
    /// The last day.
    pub day: TrendSeries,
}

/// Values of equal spans of time, oldest first. The last span is the current one. The series begin
/// at the start of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrendSeries {
    /// The length of a span in seconds.
    pub step: u64,
    /// The maximum number of spans.
    pub spans: usize,
    /// The maximum number of pending entries.
    pub pending: Vec<u32>,
    /// The bytes sent, as far as children report them.
    pub bytes: Vec<u64>,
    /// The number of failed children.
    pub failures: Vec<u32>,
    /// The maximum lag in seconds.
    pub lag: Vec<f32>,
}
