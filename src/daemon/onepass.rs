//! `onepass`: the daemon exits when every sync has completed its startup.

use std::rc::Rc;

use crate::component::Action;
use crate::exit::Exit;
use crate::log;
use crate::script::SyncHandle;

/// Returns how the daemon ends, once every sync has completed its startup or cannot. Nothing may be
/// running.
pub fn conclude(syncs: &[Rc<SyncHandle>]) -> Vec<Action> {
    let is_complete = |handle: &Rc<SyncHandle>| {
        let sync = handle.sync.borrow();
        let is_stuck = sync.startup_obstacle().is_some() && !handle.waits_for_source();
        (sync.has_started() || is_stuck) && !sync.is_verifying()
    };
    if !syncs.iter().all(is_complete) {
        return Vec::new();
    }
    let mut actions = vec![Action::normal("onepass config set, exiting")];
    let obstacles = syncs.iter().filter_map(|handle| {
        let sync = handle.sync.borrow();
        let (name, why) = (&sync.config.name, sync.startup_obstacle()?);
        Some(Action::error(format!(
            "{name}: not started: {why}; onepass does not wait for a change"
        )))
    });
    actions.extend(obstacles);
    if actions.len() > 1 {
        actions.push(Action::ShutDown(Exit::Failure));
    } else if syncs.iter().any(|handle| handle.sync.borrow().has_ended()) {
        actions.push(Action::Exit(Exit::Failure));
    } else {
        log::say(
            "Info",
            "onepass active and all syncs finished. Exiting successfully",
        );
        actions.push(Action::ShutDown(Exit::Done));
    }
    actions
}
