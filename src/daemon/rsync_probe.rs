//! Probes rsync binaries on a thread. A hanging binary takes seconds to time out; only the syncs
//! that use it wait for that.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use mio::Waker;
use mlua::Value;

use crate::batch::probe::Binary;
use crate::config::text_of;
use crate::queue::Policy;
use crate::script::SyncHandle;

/// The running probe; at most one at a time.
#[derive(Default)]
pub struct RsyncProbe(Option<Receiver<()>>);

impl RsyncProbe {
    /// Returns true if the capabilities of a sync's rsync are known. Otherwise the sync waits for
    /// the probe, which wakes the loop at its end.
    pub fn is_done(&mut self, handle: &SyncHandle, waker: &Arc<Waker>) -> bool {
        if handle.sync.borrow().queue.policy() == Policy::PerEvent {
            return true;
        }
        let unknown = binary(handle).filter(|binary| !binary.is_probed());
        let Some(binary) = unknown else {
            return true;
        };
        if self.0.is_none() {
            let (sender, done) = mpsc::channel();
            let waker = Arc::clone(waker);
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
            self.0 = Some(done);
        }
        handle.sync.borrow_mut().set_probing(true);
        false
    }

    /// Releases the syncs that wait for a probe that has completed.
    pub fn on_turn(&mut self, syncs: &[Rc<SyncHandle>]) {
        let probe = self.0.as_ref();
        if probe.is_none_or(|done| done.try_recv() == Err(TryRecvError::Empty)) {
            return;
        }
        self.0 = None;
        for handle in syncs {
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
