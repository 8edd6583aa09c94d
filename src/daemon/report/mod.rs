//! The reports of the daemon's state.
//!
//! * `snapshot`: its state as plain data, for files and clients;
//! * `files`: the status file and the metrics file;
//! * `path_state`: what is known of one path, for `lsyncdctl explain`;
//! * `dump`: the state in the log, on `SIGUSR2`.
//!
//! Everything is computed from [`DaemonState`], which the event loop lends.

mod dump;
mod files;
mod path_state;
mod snapshot;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use self::dump::dump;
pub use self::files::ReportFiles;
pub use self::snapshot::{snapshot, trend_samples};
use super::inspect::{connect, explain};
use super::watch_limit::WatchLimit;
use crate::audit::{AuditView, Audits, Obstacle};
use crate::component::{SamplePlace, SyncCommand};
use crate::control::{ControlServer, DaemonView, SyncView};
use crate::id::{ConnectionId, SyncId};
use crate::process::{Command, ExitStatus};
use crate::queue::Time;
use crate::script::{Comparison, ComparisonScope, Script, SyncHandle};
use crate::state::{self, StateDir};
use crate::status::snapshot::Snapshot;
use crate::status::trends::TrendPage;
use crate::sync::Mark;
use crate::transfer::Transfers;
use crate::trends::Trends;
use crate::watch::{EventMark, Watcher};

/// The state of the daemon that is reported.
pub struct DaemonState<'a> {
    /// The time at which the daemon was started.
    pub born: SystemTime,
    /// The time of queues.
    pub now: Time,
    /// All directories have been watched once.
    pub started: bool,
    /// The daemon is shutting down.
    pub ending: bool,
    /// Why the configuration could not be read again.
    pub reload_error: Option<&'a str>,
    pub watcher: &'a Watcher,
    pub watch_limit: &'a WatchLimit,
    pub transfers: &'a Transfers,
    pub audits: &'a Audits,
    pub trends: &'a Trends,
    /// The configured syncs.
    pub syncs: &'a [Rc<SyncHandle>],
    pub script: &'a Script,
    pub server: &'a RefCell<ControlServer>,
    pub state_dir: Option<&'a StateDir>,
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

    fn trends(&self, name: Option<&str>) -> TrendPage {
        let syncs = self.syncs.iter().filter(|handle| handle.is_meant(name));
        let ids = syncs.map(|handle| handle.sync.borrow().id);
        self.trends.page(ids, Instant::now())
    }

    fn explain(&self, name: Option<&str>, path: &[u8]) -> String {
        path_state::explained(self, name, path)
    }

    fn leaves_out(&self, sync: SyncId, path: &[u8]) -> bool {
        let handle = self.find(sync);
        handle.is_some_and(|handle| explain::is_left_out(self.script, handle, path))
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

impl AuditView for DaemonState<'_> {
    fn is_connected(&self, client: ConnectionId) -> bool {
        self.server.borrow().knows(client)
    }

    fn source(&self, sync: SyncId) -> Option<(String, Vec<u8>)> {
        let sync = self.find(sync)?.sync.borrow();
        Some((sync.config.name.clone(), sync.config.source.clone()))
    }

    fn obstacle(&self, sync: SyncId) -> Option<Obstacle> {
        let sync = self.find(sync)?.sync.borrow();
        if let Some(status) = sync.ended() {
            let why = format!("the sync was ended by exit code {}", status.code());
            return Some(Obstacle::Halted(why));
        }
        if let Some(why) = sync.halted() {
            return Some(Obstacle::Halted(why.to_owned()));
        }
        if sync.is_paused() {
            return Some(Obstacle::Halted("the sync is paused".to_owned()));
        }
        let waits = sync.next_retry().is_some_and(|(due, _)| due > self.now);
        let fails = waits || sync.failed_paths().due().is_some_and(|due| due > self.now);
        (fails && sync.running() == 0).then(|| {
            let why = "earlier changes are not on the target: transfers fail";
            Obstacle::Failing(why.to_owned())
        })
    }

    fn has_changed(&self, sync: SyncId, path: &[u8]) -> bool {
        let sync = self.find(sync);
        sync.is_none_or(|sync| sync.sync.borrow().changes().has_changed(path))
    }

    fn is_directory(&self, sync: SyncId, path: &[u8]) -> Option<bool> {
        let sync = self.find(sync)?.sync.borrow();
        sync.is_at_source(path).then(|| sync.is_directory(path))
    }

    fn comparison(
        &self,
        sync: SyncId,
        scope: &ComparisonScope,
        by_content: bool,
    ) -> Result<Comparison, String> {
        match self.find(sync) {
            Some(handle) => {
                if *scope == ComparisonScope::Everything {
                    // The size decides if rsync lists the whole source first.
                    let mut sync = handle.sync.borrow_mut();
                    let size = self.watcher.tree_size(&sync.config.source);
                    sync.set_tree_size(size);
                }
                self.script.comparison(handle, scope, by_content)
            }
            None => Err("the configuration was read again".to_owned()),
        }
    }

    fn sample(&self, sync: SyncId) -> Option<SamplePlace> {
        let sync = self.find(sync)?.sync.borrow();
        state::sample::restore(self.state_dir?, &sync.config)
    }

    fn remote_version(&self, sync: SyncId, comparison: &Comparison) -> Option<Command> {
        let shell = self.script.ssh_words(self.find(sync)?);
        connect::version_command(&shell, &comparison.target, &comparison.command)
    }

    fn host(&self) -> String {
        snapshot::host()
    }

    fn wall_time(&self) -> f64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }
}
