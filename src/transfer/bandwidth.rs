//! Limits of the bandwidth by time of day: the option of a transfer that starts, and transfers that
//! are ended when the limit changes.

use nix::sys::signal::Signal;

use super::job::Job;
use crate::component::Action;
use crate::config::text_of;
use crate::cron::WallTime;
use crate::log;
use crate::process::Pid;
use crate::script::SpawnRequest;

/// The limit with which rsync was started.
pub type Limit = Vec<u8>;

/// Adds the limit of this time to a call of the sync's rsync. An option of the configuration's own
/// follows and takes precedence. Returns the limit if a transfer with another one is to be ended.
pub fn limit(request: &mut SpawnRequest, now: WallTime) -> Option<Limit> {
    let sync = request.handle.sync.borrow();
    let bandwidth = sync.config.bandwidth.as_ref()?;
    let rsync = request.handle.config.get::<mlua::Table>("rsync").ok()?;
    if text_of(&rsync.get("binary").ok()?).as_deref() != Some(&request.program) {
        return None;
    }
    let limit = bandwidth.limits.at(now).cloned().unwrap_or_else(none);
    if limit != none() {
        request.args.insert(0, [b"--bwlimit=", &limit[..]].concat());
    }
    bandwidth.restart.then_some(limit)
}

/// Ends the transfers whose limit is not that of this time. They are repeated at once.
pub fn restart<'a>(jobs: impl Iterator<Item = (Pid, &'a mut Job)>, now: WallTime) -> Vec<Action> {
    let mut actions = Vec::new();
    for (pid, job) in jobs {
        let Some(limit) = job.limit.as_ref().filter(|_| job.heir.is_none()) else {
            continue;
        };
        let sync = job.handle.sync.borrow();
        let bandwidth = sync.config.bandwidth.as_ref();
        let current = bandwidth.and_then(|bandwidth| bandwidth.limits.at(now).cloned());
        let current = current.unwrap_or_else(none);
        if *limit == current || job.is_restarted {
            continue;
        }
        let shown = match current == none() {
            true => "no bandwidth limit".to_owned(),
            false => format!("a bandwidth limit of {}", log::escape(&current)),
        };
        actions.push(Action::normal(format!(
            "{}: repeating the running transfer with {shown}",
            sync.config.name
        )));
        actions.push(Action::SignalTree(pid, Signal::SIGTERM));
        drop(sync);
        job.is_restarted = true;
    }
    actions
}

/// rsync(1), `--bwlimit`: 0 is not a limit.
fn none() -> Limit {
    b"0".to_vec()
}
