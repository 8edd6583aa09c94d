//! The properties of a sync that `init = "changed"` requires.

use std::time::Duration;

/// The configuration of a start that compares changed directories only.
#[derive(Clone, Debug)]
pub struct WarmStartConfig {
    /// All that decides what is sent where, except for the filter. If it differs from that of the
    /// last start, everything is compared.
    pub conditions: Vec<Vec<u8>>,
    /// The time after which everything is compared again; `None` for never.
    pub verify_every: Option<Duration>,
    /// The transfer program and its options can compare a directory without those below it. If not,
    /// everything is compared when anything has changed.
    pub by_directory: bool,
    /// Hard links are preserved, so that a file with several names concerns other directories.
    pub hard_links: bool,
    /// rsync opens directories by name, so others must not be able to replace them by links.
    pub by_name: bool,
    /// The target if it is a local directory.
    pub local_target: Option<Vec<u8>>,
}
