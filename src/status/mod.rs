//! What the daemon tells about itself, as plain data and in the formats that people and tools
//! read.
//!
//! * [`snapshot`]: all that is shown; [`health`]: the state and severity that follow from it;
//! * [`status_file`]: the status file of lsyncd 2.x; [`metrics`]: OpenMetrics; [`page`]: the
//!   status page;
//! * [`number_format`]: numbers for people; [`atomic_file`]: files that are replaced in one step.
//!
//! All views are made of one snapshot, so they cannot contradict each other. The room may call
//! `log` and `safe_path`.

pub mod atomic_file;
pub mod health;
pub mod metrics;
pub mod number_format;
pub mod page;
pub mod snapshot;
pub mod status_file;

pub use status_file::{
    DelayStatus, StatusError, StatusReport, SyncStatus, TunnelProcess, TunnelStatus, WatchList,
};
