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
use crate::component::SyncCommand;
use crate::control::{DaemonView, SyncView};
use crate::id::SyncId;
use crate::process::ExitStatus;
use crate::queue::Time;
use crate::script::{ScriptContext, SyncHandle};
use crate::state;
use crate::status::snapshot::Snapshot;
use crate::sync::Mark;
use crate::transfer::Transfers;
use crate::transfer::local_jobs::LocalJobs;
use crate::watch::{EventMark, Watcher};

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

impl DaemonState<'_> {
    fn find(&self, id: SyncId) -> Option<&Rc<SyncHandle>> {
        let mut syncs = self.syncs.iter();
        syncs.find(|handle| handle.sync.borrow().id == id)
    }
}

impl DaemonView for DaemonState<'_> {
    fn syncs(&self, name: Option<&str>) -> Vec<SyncView> {
        let syncs = self.syncs.iter().filter(|handle| handle.is_meant(name));
        let views = syncs.map(|handle| {
            let sync = handle.sync.borrow();
            SyncView {
                id: sync.id,
                name: sync.config.name.clone(),
                source: sync.config.source.clone(),
                target: handle.destination().unwrap_or_default(),
                state_key: state::key(&sync.config),
                ended: sync.ended().map(ExitStatus::code),
            }
        });
        views.collect()
    }

    fn snapshot(&self, name: Option<&str>, entries: usize) -> Snapshot {
        snapshot(self, name, entries)
    }

    fn event_mark(&self) -> EventMark {
        self.watcher.event_mark()
    }

    fn has_reported(&self, moment: EventMark) -> bool {
        self.started && self.watcher.has_reported(moment)
    }

    fn would_change(&self, sync: SyncId, command: &SyncCommand) -> bool {
        let handle = self.find(sync);
        handle.is_some_and(|handle| handle.sync.borrow().would_change(command))
    }

    fn mark(&self, sync: SyncId) -> Option<Mark> {
        Some(self.find(sync)?.sync.borrow().mark())
    }

    fn reached(&self, sync: SyncId, mark: &mut Mark) -> bool {
        let handle = self.find(sync);
        handle.is_some_and(|handle| handle.sync.borrow().reached(mark))
    }
}
