//! What the daemon says: log, status file, and names made safe to print.

pub mod amounts;
pub mod atomic;
pub mod control;
mod escape;
mod fold;
mod journal;
pub mod log;
mod log_file;
pub mod metrics;
pub mod page;
pub mod places;
mod selection;
pub mod snapshot;
pub mod state;
pub mod status_file;
mod syslog;

pub use escape::{escape, is_control, unescape};
pub use log::{enabled, error, normal, say, warn, warnings};
pub use log_file::open as open_log;
pub use selection::{BadCategory, Selection};
pub use status_file::{
    DelayStatus, StatusError, StatusReport, SyncStatus, TunnelProcess, TunnelStatus, WatchList,
};
pub use syslog::{Facility, UnknownFacility};

/// The system's words for an error, without the number Rust puts behind them.
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
