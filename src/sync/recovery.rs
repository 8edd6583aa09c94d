//! The end of failures, for the hook `onRecovered`.

use super::Sync;

impl Sync {
    /// Returns the text of the last failure, once, when all reported failures are resolved and the
    /// target has all changes from before their end. A sync that never becomes idle recovers as
    /// well.
    pub fn recovers(&mut self) -> Option<Vec<u8>> {
        if !self.counters.failing {
            return None;
        }
        if self.is_failing()
            || self.failed_paths().due().is_some()
            || !self.lifecycle.is_keeping_up()
        {
            self.recovery = None;
            return None;
        }
        let mut mark = self.recovery.take().unwrap_or_else(|| self.mark());
        if !self.reached(&mut mark) {
            self.recovery = Some(mark);
            return None;
        }
        self.counters.failing = false;
        let last = self.counters.last_failure.as_ref();
        Some(last.map(|failure| failure.text.clone()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use crate::process::ExitStatus;
    use crate::queue::{DelayId, Policy, Take};
    use crate::sync::Sync;
    use crate::sync::tests::sync_with;
    use crate::watch::Event;

    const SECOND: u64 = 1_000_000;

    fn change(sync: &mut Sync, path: &[u8]) {
        sync.ingest(Event::Modify { path }, 0);
    }

    fn begin(sync: &mut Sync) -> Vec<DelayId> {
        let ids = sync.queue.take(|_| Take::Take);
        sync.queue.activate(&ids);
        ids
    }

    fn fail(sync: &mut Sync, ids: &[DelayId]) {
        sync.counters
            .failed(ExitStatus::Exit(12), b"broken".to_vec());
        sync.failed(ids, SECOND);
    }

    #[test]
    fn a_sync_recovers_once_when_what_failed_is_sent() {
        let mut sync = sync_with(Policy::Coalesce);
        change(&mut sync, b"/src/a");
        let ids = begin(&mut sync);
        assert_eq!(sync.recovers(), None);
        fail(&mut sync, &ids);
        assert_eq!(sync.recovers(), None);
        change(&mut sync, b"/src/b");
        let first = ids;
        sync.queue.activate(&first);
        sync.succeeded(&first);
        // Changes from before the end of the failure have not been sent.
        assert_eq!(sync.recovers(), None);
        let second = begin(&mut sync);
        change(&mut sync, b"/src/c");
        sync.succeeded(&second);
        // Later changes are not waited for.
        assert_eq!(sync.recovers(), Some(b"broken".to_vec()));
        assert_eq!(sync.recovers(), None);
        let third = begin(&mut sync);
        sync.succeeded(&third);
        assert_eq!(sync.recovers(), None);
    }

    #[test]
    fn a_sync_that_takes_over_recovers_when_its_startup_is_done() {
        let mut old = sync_with(Policy::Coalesce);
        change(&mut old, b"/src/a");
        let ids = begin(&mut old);
        fail(&mut old, &ids);
        let mut new = sync_with(Policy::Coalesce);
        new.await_watches();
        new.adopt(&old);
        assert_eq!(new.recovers(), None);
        new.watched(SECOND);
        assert_eq!(new.recovers(), None);
        while !new.queue.is_empty() {
            let ids = begin(&mut new);
            new.succeeded(&ids);
        }
        assert_eq!(new.recovers(), Some(b"broken".to_vec()));
    }

    #[test]
    fn a_sync_that_fails_with_nothing_queued_has_not_recovered() {
        let mut sync = sync_with(Policy::Coalesce);
        fail(&mut sync, &[]);
        assert_eq!(sync.recovers(), None);
        sync.succeeded(&[]);
        assert_eq!(sync.recovers(), Some(b"broken".to_vec()));
    }
}
