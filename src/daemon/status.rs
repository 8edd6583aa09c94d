//! When the status report is written.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use crate::config::Settings;
use crate::queue::Time;
use crate::report::{
    self, DelayStatus, StatusReport, SyncStatus, TunnelProcess, TunnelStatus, WatchList,
};
use crate::script::{Host, PROCESS_KIND, TunnelObject};
use crate::sync::Sync;
use crate::watch::Watcher;

/// The status file of a daemon: written when something happened, but not more often than its
/// interval; a daemon with nothing to do is not woken for it.
pub struct StatusFile {
    path: Option<PathBuf>,
    interval: Duration,
    due: Option<Instant>,
    written: bool,
}

impl StatusFile {
    /// The file the settings name, if any.
    pub fn new(settings: &Settings) -> StatusFile {
        StatusFile {
            path: settings.status_file.clone(),
            interval: settings.status_interval,
            due: None,
            written: false,
        }
    }

    /// When it is to be written next, if that is known.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// At the end of a turn, which is when something happened: writes or notes when to.
    pub fn turn(&mut self, now: Instant, host: &Host, watcher: &Watcher) {
        let Some(path) = &self.path else {
            return;
        };
        if self.written && !self.interval.is_zero() {
            match self.due {
                None => {
                    self.due = Some(now + self.interval);
                    return;
                }
                Some(due) if due > now => return,
                Some(_) => self.due = None,
            }
        }
        self.written = true;
        report::say("Statusfile", "writing the status file");
        if let Err(error) = write(path, host, watcher) {
            report::error(error);
        }
    }
}

struct Watches<'a>(&'a Watcher);

impl WatchList for Watches<'_> {
    fn count(&self) -> usize {
        self.0.watched()
    }

    fn each(&self, show: &mut dyn FnMut(i32, &[u8])) {
        self.0.for_each_watch(show);
    }
}

fn write(path: &Path, host: &Host, watcher: &Watcher) -> Result<(), report::StatusError> {
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let (members, tunnels) = (host.members.borrow(), host.tunnels.borrow());
    let syncs = members
        .iter()
        .map(|member| sync_status(&member.sync.borrow()));
    StatusReport {
        time,
        syncs: syncs.collect(),
        tunnels: tunnels
            .iter()
            .map(|each| tunnel_status(each, time as f64, host.clock.now()))
            .collect(),
        watches: &Watches(watcher),
    }
    .save(path)
}

/// What is wrong with a sync.
fn notes(sync: &Sync) -> Vec<std::borrow::Cow<'static, str>> {
    let mut notes = Vec::new();
    if let Some(why) = sync.halted() {
        notes.push(format!("Halted: {why}").into());
    }
    if let Some(why) = &sync.excess {
        notes.push(format!("Halted: {why}").into());
    }
    if sync.unwatched {
        notes.push("Not all directories are watched: out of inotify watches".into());
    }
    notes.extend(sync.troubles().into_iter().map(Into::into));
    notes
}

fn sync_status(sync: &Sync) -> SyncStatus<'static> {
    let filter = sync.filter.read().unwrap_or_else(PoisonError::into_inner);
    let delays = sync.queue.iter().map(|delay| {
        let (path, path2) = delay.paths();
        DelayStatus {
            status: delay.status().name(),
            etype: delay.etype().name(),
            path: path.into(),
            path2: path2.map(Into::into),
        }
    });
    SyncStatus {
        name: sync.config.name.clone().into_bytes().into(),
        source: sync.config.source.clone().into(),
        notes: notes(sync),
        delays: delays.collect(),
        filters: filter.rules().map(|rule| rule.to_vec().into()).collect(),
        excludes: filter.excludes().map(|p| p.to_vec().into()).collect(),
    }
}

fn tunnel_status(tunnel: &TunnelObject, time: f64, now: Time) -> TunnelStatus<'static> {
    let machine = tunnel.machine.borrow();
    let processes = machine.processes().iter().map(|process| TunnelProcess {
        pid: process.pid.0,
        kind: PROCESS_KIND,
        started: time - now.saturating_sub(process.started) as f64 / 1e6,
    });
    TunnelStatus {
        name: machine.config.name.clone().into_bytes().into(),
        status: machine.state().name(),
        processes: processes.collect(),
    }
}
