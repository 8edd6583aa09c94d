//! A transfer that waits for its scan pass, or has been checked.

use std::rc::Rc;

use mlua::{Function, Table};

use crate::log;
use crate::process::ExitStatus;
use crate::queue::{DelayId, Time};
use crate::script::{ScanRequest, Script, SyncHandle};
use crate::sync::Sync;

/// The exit code of a failed check: rsync's "error in file I/O".
const EXIT_NOT_CHECKED: ExitStatus = ExitStatus::Exit(11);

/// A transfer that waits for its pass, or has been checked.
pub struct CheckedTransfer {
    /// The sync.
    pub handle: Rc<SyncHandle>,
    /// The event or list object.
    pub agent: Table,
    ids: Vec<DelayId>,
    send: Function,
}

impl CheckedTransfer {
    /// Returns the transfer of a request. Until its check is over it counts as a child of its sync.
    pub fn new(request: ScanRequest) -> CheckedTransfer {
        request.handle.sync.borrow_mut().child_started();
        CheckedTransfer {
            handle: request.handle,
            agent: request.agent,
            ids: request.ids,
            send: request.send,
        }
    }

    /// Puts the entries back into the queue; they are checked again.
    pub fn requeue(&self, now: Time) {
        self.handle.sync.borrow_mut().requeue(&self.ids, now);
    }

    /// Requeues a transfer that waits for its pass.
    pub fn cancel(&self, now: Time) {
        self.handle.sync.borrow_mut().child_ended();
        self.requeue(now);
    }

    /// Repeats entries that cannot be checked now. Nothing is sent.
    pub fn fail(&self, why: &str, now: Time) {
        let mut sync = self.handle.sync.borrow_mut();
        sync.child_ended();
        let wait = sync.failed(&self.ids, now).as_secs();
        let name = &sync.config.name;
        log::error(format_args!(
            "{name}: nothing can be checked, so nothing is sent: {why}; trying again in {wait} s"
        ));
        let text = format!("check: {why}").into_bytes();
        sync.counters.failed(EXIT_NOT_CHECKED, text);
    }

    /// Ends the wait. Returns false if nothing is left to be sent.
    pub fn is_needed(&self) -> bool {
        let mut sync = self.handle.sync.borrow_mut();
        sync.child_ended();
        if !nothing_to_send(&sync, &self.ids) {
            return true;
        }
        sync.succeeded(&self.ids);
        drop(sync);
        self.handle.forget(&self.ids);
        false
    }

    /// Lets user code send the entries. They stay active, so that later changes wait behind them.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn send(self, script: &Script) -> mlua::Result<()> {
        let reading = self.handle.sync.borrow().gate.begin_reading();
        script.context.staged_reading.replace(Some(reading));
        let sent = self.send.call::<()>(self.agent);
        script.context.staged_reading.take();
        sent
    }
}

/// Returns true if all entries are about blocked files.
fn nothing_to_send(sync: &Sync, ids: &[DelayId]) -> bool {
    ids.iter()
        .filter_map(|&id| sync.queue.get(id))
        .all(|delay| !delay.etype().is_special() && sync.is_blocked(&delay.paths().0))
}
