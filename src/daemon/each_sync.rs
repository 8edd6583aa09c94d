//! Steps of a turn that concern each sync on its own.

use std::rc::Rc;
use std::sync::Arc;

use mio::Waker;

use crate::audit::VerifySchedule;
use crate::component::AuditRequest;
use crate::cron::WallTime;
use crate::id::SyncId;
use crate::log;
use crate::queue::Time;
use crate::script::{SyncHandle, TunnelObject};
use crate::state::warm_start::{WarmStarts, WarmView};
use crate::state::{StateDir, pending};
use crate::watch::Watcher;

/// Queues the startup of the syncs whose directories are watched by now. `is_first` says that the
/// state saved by the previous daemon has not been restored yet.
pub fn begin_startups(warm_starts: &mut WarmStarts, view: &WarmView<'_>, is_first: bool) {
    for handle in view.syncs {
        let mut sync = handle.sync.borrow_mut();
        if warm_starts.begin(&sync, view, is_first) {
            continue;
        }
        let now = view.now;
        if sync.watched(now)
            && let Some(state) = view.state
        {
            pending::restore(state, &mut sync, is_first, now);
        }
    }
}

/// Saves the pending events of each sync; with `more`, others may be pending as well.
pub fn save_pending(syncs: &[Rc<SyncHandle>], more: bool, state: Option<&StateDir>) {
    let Some(state) = state else {
        return;
    };
    for handle in syncs {
        let sync = handle.sync.borrow();
        // What was saved has not been restored before the startup.
        if !sync.awaits_watches() {
            pending::save(state, &sync, more);
        }
    }
}

/// Saves the time up to which everything is at each target, and continues the searches for changes
/// that rsync's quick check cannot detect. `lacks` returns true for syncs with directories that are
/// not watched.
pub fn verify_recent(
    syncs: &[Rc<SyncHandle>],
    watcher: &Watcher,
    lacks: impl Fn(SyncId) -> bool,
    state: Option<&StateDir>,
    waker: &Arc<Waker>,
    now: Time,
) {
    for handle in syncs {
        let mut sync = handle.sync.borrow_mut();
        if let Err(error) = sync.verify_recent(waker, now) {
            let name = &sync.config.name;
            let text = format_args!("{name}: cannot start a thread: {error}");
            log::say("Debug", text);
        }
        let all_watched = !lacks(sync.id);
        if sync.advance_synced(watcher, all_watched)
            && let Some(state) = state
        {
            pending::save_synced(state, &sync);
        }
    }
}

/// Queues the comparisons whose crontab time has come. Returns the next such time.
pub fn run_crontabs(syncs: &[Rc<SyncHandle>], wall: WallTime, now: Time) -> Option<WallTime> {
    let next = |handle: &Rc<SyncHandle>| {
        let mut sync = handle.sync.borrow_mut();
        sync.on_cron(wall, now);
        sync.next_cron()
    };
    syncs.iter().filter_map(next).min()
}

/// Returns the comparisons of source and target whose time has come.
pub fn run_verify_schedule(
    syncs: &[Rc<SyncHandle>],
    schedule: &mut VerifySchedule,
    wall: WallTime,
) -> Vec<AuditRequest> {
    let configured = syncs.iter().filter_map(|handle| {
        let sync = handle.sync.borrow();
        Some((sync.id, sync.config.verify.clone()?))
    });
    schedule.on_turn(configured, wall)
}

/// Defers full comparisons beyond `max_startups`.
pub fn limit_startups(syncs: &[Rc<SyncHandle>], max_startups: usize) {
    let compares = |handle: &&Rc<SyncHandle>| handle.sync.borrow().compares_all();
    let wait = syncs.iter().filter(compares).count() >= max_startups;
    for handle in syncs {
        handle.sync.borrow_mut().defer_full_comparisons(wait);
    }
}

/// Logs which syncs wait for a tunnel.
pub fn log_blocked(syncs: &[Rc<SyncHandle>], tunnel: &Rc<TunnelObject>) {
    let uses = |handle: &&Rc<SyncHandle>| {
        let own = handle.tunnel.as_ref();
        own.is_some_and(|own| Rc::ptr_eq(own, tunnel))
    };
    for handle in syncs.iter().filter(uses) {
        let name = &handle.sync.borrow().config.name;
        let text = format_args!("Tunnel for Sync {name} not ready. Blocking events");
        log::say("Tunnel", text);
    }
}
