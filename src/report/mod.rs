//! What the daemon says: log, status file, and names made safe to print.

pub mod atomic;
mod escape;
pub mod log;
mod log_file;
mod selection;
pub mod status_file;
mod syslog;

pub use escape::escape;
pub use log::{enabled, error, normal, say, warn};
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
