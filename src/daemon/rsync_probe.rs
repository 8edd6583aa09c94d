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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use mlua::Lua;

    use super::*;
    use crate::queue::{Etype, Time};
    use crate::sync::Next;
    use crate::sync::tests::{sync_with, waker};

    /// A time at which its entry is due.
    const DUE: Time = 1_000_000_000;

    /// Returns a sync with an entry, and with this program as its rsync.
    fn handle(lua: &Lua, policy: Policy, program: &Path) -> Rc<SyncHandle> {
        let mut sync = sync_with(policy);
        sync.queue.push(Etype::Modify, b"/f", None, 0);
        let handle = SyncHandle::of_sync(lua, sync);
        let rsync = lua.create_table().unwrap();
        rsync.set("binary", program.to_str().unwrap()).unwrap();
        handle.config.set("rsync", rsync).unwrap();
        handle
    }

    /// A program that hangs must not block the loop.
    #[test]
    fn a_sync_waits_for_the_probe_of_its_rsync() {
        let (lua, (_poll, waker)) = (Lua::new(), waker());
        let directory = tempfile::tempdir().unwrap();
        let (rsync, script) = (
            directory.path().join("rsync"),
            directory.path().join("rsync.sh"),
        );
        fs::copy("/bin/true", &rsync).unwrap();
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let mut probe = RsyncProbe::default();
        let other = handle(&lua, Policy::PerEvent, &rsync);
        let wrapped = handle(&lua, Policy::Coalesce, &script);
        assert!(probe.is_done(&other, &waker) && probe.is_done(&wrapped, &waker));

        let own = handle(&lua, Policy::Coalesce, &rsync);
        let syncs = [Rc::clone(&own)];
        let may_send = || matches!(own.sync.borrow_mut().next(DUE), Next::Act(_));
        assert!(may_send());
        assert!(!probe.is_done(&own, &waker) && !may_send());
        let until = Instant::now() + Duration::from_secs(60);
        while !may_send() {
            assert!(Instant::now() < until);
            probe.on_turn(&syncs);
        }
        assert!(probe.is_done(&own, &waker) && may_send());
    }
}
