//! The newest kept reports and the state of their chain, as plain data.

use serde::{Deserialize, Serialize};

use crate::status::drift_report::DriftReport;

/// A report that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptReport {
    /// Its number: 1 for the first report ever.
    pub number: u64,
    /// The SHA-256 of the line before, in hexadecimal; empty for number 1.
    pub previous: String,
    /// The report.
    #[serde(flatten)]
    pub report: DriftReport,
}

/// The answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportPage {
    /// The newest reports, oldest first.
    pub reports: Vec<KeptReport>,
    /// The number of the oldest report that is kept; 0 without any.
    pub first: u64,
    /// The number of the newest one.
    pub last: u64,
    /// The SHA-256 of its line.
    pub hash: String,
    /// The problems of the chain.
    pub problems: Vec<String>,
    /// Why no reports are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}
