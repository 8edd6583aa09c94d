//! The log: categories, channels, and names made safe to print.
//!
//! * `logger`: takes messages and writes them to console, file and syslog;
//! * `categories`: which messages are shown;
//! * `dedup`: repeated messages become one;
//! * `file`, `syslog`, `systemd_journal`: the channels;
//! * `escape`: names of files as text on one line.
//!
//! The texts of lsyncd 2.x are kept byte for byte, because tools read them. The room calls no
//! other part of the program but `safe_path`.

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
    CannotOpen, Channels, Syslog, enabled, error, install, normal, open, say, transient, warn,
    warnings,
};
pub use syslog::{Facility, UnknownFacility};

/// Returns the system's text for an error, without the number that Rust appends.
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
