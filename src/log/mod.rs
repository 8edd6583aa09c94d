//! The log: categories, destinations, and escaping of names.
//!
//! | file | what it does |
//! |---|---|
//! | `logger` | takes messages and writes them to console, file and syslog |
//! | `categories` | the selection of message categories |
//! | `dedup` | suppresses repeated lines |
//! | `file` | the log file |
//! | `syslog` | the facilities of syslog(3) |
//! | `systemd_journal` | output to systemd's journal |
//! | `escape` | escapes file names for printing |
//!
//! The texts of lsyncd 2.x are kept byte for byte, because tools read them. The room may call
//! `safe_path` and nothing else of the program.

mod categories;
mod dedup;
mod escape;
mod file;
mod logger;
mod syslog;
mod systemd_journal;

pub use categories::{BadCategory, Selection};
pub use escape::{escape, is_control, unescape};
pub use file::open as open_log;
pub use logger::{
    CannotOpen, Channels, Syslog, enabled, error, install, last_error, normal, open, say,
    transient, warn, warnings,
};
pub use syslog::{Facility, UnknownFacility};

/// Returns the system's text for an error, without the number that Rust appends.
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
