//! The daemon's state as plain data, and in the formats that people and tools read.
//!
//! | file | what it does |
//! |---|---|
//! | `snapshot` | all data that is shown |
//! | `drift_report` | the result of a comparison of source and target |
//! | `trends` | series of the last hour and day |
//! | `state` | states of a sync and their urgency |
//! | `health` | derives state and severity from it |
//! | `status_file` | the status file of lsyncd 2.x |
//! | `metrics` | metrics in Prometheus format |
//! | `page` | the status page |
//! | `number_format` | numbers for people |
//! | `atomic_file` | replaces files atomically |
//!
//! All views are made of one snapshot, so they cannot contradict each other. The room may call
//! `log` and `safe_path`; it does not collect the data.

pub mod atomic_file;
pub mod drift_report;
pub mod health;
pub mod metrics;
pub mod number_format;
pub mod page;
pub mod snapshot;
pub mod state;
pub mod status_file;
pub mod trends;

pub use status_file::{
    DelayStatus, StatusError, StatusReport, SyncStatus, TunnelProcessStatus, TunnelStatus,
    WatchList,
};
