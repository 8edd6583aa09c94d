//! Probes rsync binaries on a thread. A hanging binary takes seconds to time out; only the syncs
//! that use it wait for that.

use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use mlua::Value;

use super::event_loop::EventLoop;
use crate::batch::probe::Binary;
use crate::config::text_of;
use crate::queue::Policy;
use crate::script::SyncHandle;

/// The running probe; at most one at a time.
#[derive(Default)]
pub struct RsyncProbe(Option<Receiver<()>>);

impl EventLoop<'_> {
    /// Returns true if the capabilities of a sync's rsync are known. Otherwise the sync waits for
    /// the probe.
    pub(super) fn knows_rsync(&mut self, handle: &Rc<SyncHandle>) -> bool {
        if handle.sync.borrow().queue.policy() == Policy::PerEvent {
            return true;
        }
        let unknown = binary(handle).filter(|binary| !binary.is_probed());
        let Some(binary) = unknown else {
            return true;
        };
        if self.rsync_probe.0.is_none() {
            let (sender, done) = mpsc::channel();
            let waker = self.context.waker();
            let thread = thread::Builder::new().name("probe".into());
            let started = thread.spawn(move || {
                binary.probe();
                drop(sender);
                let _ = waker.wake();
            });
            if started.is_err() {
                // The binary is probed when it is needed.
                return true;
            }
            self.rsync_probe.0 = Some(done);
        }
        handle.sync.borrow_mut().set_probing(true);
        false
    }

    /// Releases the syncs that wait for a probe that has completed.
    pub(super) fn poll_probe(&mut self) {
        let probe = self.rsync_probe.0.as_ref();
        if probe.is_none_or(|done| done.try_recv() == Err(TryRecvError::Empty)) {
            return;
        }
        self.rsync_probe.0 = None;
        for handle in &self.syncs {
            handle.sync.borrow_mut().set_probing(false);
        }
    }
}

/// Returns the rsync binary of a sync; `None` for a wrapper, which is never probed.
fn binary(handle: &SyncHandle) -> Option<Binary> {
    let Ok(Value::Table(rsync)) = handle.config.get("rsync") else {
        return None;
    };
    let name = text_of(&rsync.get("binary").ok()?);
    Binary::plain(&name.unwrap_or_else(|| b"rsync".to_vec()))
}
