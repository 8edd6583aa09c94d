//! What the daemon reports of itself.
//!
//! * `snapshot`: its state as plain data, for files and clients;
//! * `files`: the status file and the metrics file;
//! * `dump`: the state in the log, on `SIGUSR2`.
//!
//! Everything is computed from [`DaemonState`], which the event loop lends.

mod dump;
mod files;
mod snapshot;

use std::rc::Rc;
use std::time::SystemTime;

pub use self::dump::dump;
pub use self::files::ReportFiles;
pub use self::snapshot::snapshot;
use super::watch_limit::WatchLimit;
use crate::queue::Time;
use crate::script::{ScriptContext, SyncHandle};
use crate::transfer::Transfers;
use crate::transfer::local_jobs::LocalJobs;
use crate::watch::Watcher;

/// The state of the daemon that is reported.
pub struct DaemonState<'a> {
    /// When the daemon was started.
    pub born: SystemTime,
    /// The time of queues.
    pub now: Time,
    /// All directories have been watched once.
    pub started: bool,
    /// The daemon is shutting down.
    pub ending: bool,
    pub watcher: &'a Watcher,
    pub watch_limit: &'a WatchLimit,
    pub transfers: &'a Transfers,
    pub local_jobs: &'a LocalJobs,
    /// The configured syncs.
    pub syncs: &'a [Rc<SyncHandle>],
    pub script: &'a ScriptContext,
}
