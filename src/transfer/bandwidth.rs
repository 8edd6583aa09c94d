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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::test_setup::{ChangedSync, Transfer};
    use crate::watch::Event;

    fn sync(limit: &str, restart: &str) -> ChangedSync {
        let config = format!(
            "sync {{ default.rsync, source = '@DIR@/src', target = '/nowhere/trg', delay = 1, \
             init = false, rsync = {{ bwlimit = {{ {{ at = '0 0 0 * * *', limit = {limit} }}, \
             {restart} }} }} }}"
        );
        ChangedSync::of(&config, &["a"], |path| Event::Modify { path })
    }

    #[test]
    fn a_call_of_rsync_has_the_limit_of_its_time() {
        for (limited, restart, option, found) in [
            ("100", "restart = true", Some("--bwlimit=100"), Some("100")),
            ("100", "", Some("--bwlimit=100"), None),
            ("0", "restart = true", None, Some("0")),
        ] {
            let sync = sync(limited, restart);
            let mut request = sync.request();
            let before = request.args.len();
            let found = found.map(|found| found.as_bytes().to_vec());
            assert_eq!(limit(&mut request, 0), found);
            match option {
                Some(option) => assert_eq!(request.args[0], option.as_bytes()),
                None => assert_eq!(request.args.len(), before),
            }
        }
        // Another program does not know the option.
        let sync = sync("100", "restart = true");
        let mut request = sync.request();
        request.program = b"mv".to_vec();
        let before = request.args.clone();
        assert_eq!(limit(&mut request, 0), None);
        assert_eq!(request.args, before);
    }

    #[test]
    fn a_transfer_with_another_limit_is_ended_once() {
        let limits = |limit| {
            let entry = format!("{{ at = '0 0 0 * * *', limit = {limit} }}");
            Transfer::of(&format!("rsync = {{ bwlimit = {{ {entry} }} }}"), &["a"])
        };
        let ended = |transfer: &mut Transfer| restart([(Pid(7), &mut transfer.job)].into_iter(), 0);
        for (limit, of_job, count) in [
            (100, Some("100"), 0),
            (100, Some("200"), 2),
            (100, Some("0"), 2),
            (100, None, 0),
            (0, Some("0"), 0),
            (0, Some("100"), 2),
        ] {
            let mut transfer = limits(limit);
            transfer.job.limit = of_job.map(|of_job| of_job.as_bytes().to_vec());
            let actions = ended(&mut transfer);
            assert_eq!(actions.len(), count, "{limit} {of_job:?}");
            if count > 0 {
                assert_eq!(actions[1], Action::SignalTree(Pid(7), Signal::SIGTERM));
            }
            assert_eq!(transfer.job.is_restarted, count > 0);
            assert_eq!(ended(&mut transfer), []);
        }
    }
}
