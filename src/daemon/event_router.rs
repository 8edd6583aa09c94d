//! From what the watch room tells to the queues of the syncs it concerns.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use crate::id::SyncId;
use crate::log;
use crate::queue::{Policy, Time};
use crate::script::SyncHandle;
use crate::watch::{Event, Follow, Loss, Observer};

/// Hands each event to every sync.
pub struct EventRouter<'a> {
    syncs: &'a [Rc<SyncHandle>],
    now: Time,
    /// The kernel dropped events.
    pub overflowed: bool,
    /// Syncs of which a directory could not be watched because the limit is reached.
    pub unwatched: BTreeSet<SyncId>,
    /// Syncs whose roots are watched again, by index.
    pub back: Vec<usize>,
    /// Syncs that took in the last rename of a directory as such, by index.
    moved: Vec<usize>,
}

impl<'a> EventRouter<'a> {
    /// For one turn.
    pub fn new(syncs: &'a [Rc<SyncHandle>], now: Time) -> EventRouter<'a> {
        EventRouter {
            syncs,
            now,
            overflowed: false,
            unwatched: BTreeSet::new(),
            back: Vec::new(),
            moved: Vec::new(),
        }
    }
}

impl super::event_loop::EventLoop<'_> {
    /// Transfers that run may see directories that are not watched yet.
    pub(super) fn note_transfers(&self) {
        for handle in &self.syncs {
            handle.sync.borrow().note_transfers();
        }
    }

    /// What transfers that have ended may have seen has been told, or will be.
    pub(super) fn forget_transfers(&self) {
        for handle in &self.syncs {
            handle.sync.borrow().count_transfers_anew();
        }
        self.note_transfers();
        for handle in &self.syncs {
            let sync = handle.sync.borrow();
            sync.forget_transfers(self.watcher, self.now);
        }
    }

    /// The same for one, before its end is told to anybody: who waits for that makes changes
    /// which no transfer is ahead of.
    pub(super) fn transfer_ended(&self, handle: &SyncHandle) {
        let sync = handle.sync.borrow();
        if sync.is_ahead_alone() {
            sync.count_transfers_anew();
            sync.note_transfers();
            sync.forget_transfers(self.watcher, self.now);
        }
    }

    /// Takes what is being written just now out of a sync's queue, if the sync sends files as
    /// they are at the time: the watcher tells when they are complete. True if there was any.
    pub(super) fn defer_open_files(&mut self, handle: &SyncHandle) -> bool {
        if handle.sync.borrow().queue.policy() == Policy::PerEvent {
            return false;
        }
        let interested = |path: &[u8]| handle.sync.borrow().waiting(path).is_some();
        let paths = self.watcher.being_written(&interested);
        let mut sync = handle.sync.borrow_mut();
        let ids: Vec<_> = paths.iter().filter_map(|path| sync.waiting(path)).collect();
        for id in &ids {
            sync.queue.withdraw(*id);
        }
        drop(sync);
        handle.forget(&ids);
        !ids.is_empty()
    }
}

impl Observer for EventRouter<'_> {
    fn event(&mut self, event: Event<'_>) -> Follow {
        let mut follow = Follow::Nothing;
        self.moved.clear();
        for (index, handle) in self.syncs.iter().enumerate() {
            match handle.sync.borrow_mut().ingest(event, self.now) {
                Follow::Contents => follow = Follow::Contents,
                Follow::Moved => self.moved.push(index),
                Follow::Nothing => {}
            }
        }
        follow
    }

    fn follow(&mut self, number: u64) {
        for &index in &self.moved {
            self.syncs[index].sync.borrow_mut().moved_whole(number);
        }
    }

    fn found(&mut self, path: &[u8], number: u64) {
        for handle in self.syncs {
            let mut sync = handle.sync.borrow_mut();
            if !sync.has_moved(number) {
                sync.ingest(Event::Create { path }, self.now);
            }
        }
    }

    fn written(&mut self, path: &[u8], closed: bool) {
        for handle in self.syncs {
            handle.sync.borrow_mut().written(path, closed, self.now);
        }
    }

    fn overflow(&mut self) {
        self.overflowed = true;
    }

    fn root_lost(&mut self, scope: usize, loss: Loss) {
        let Some(handle) = self.syncs.get(scope) else {
            return;
        };
        let how = match loss {
            Loss::Deleted => "removed",
            Loss::Moved => "renamed",
            Loss::Unmounted => "unmounted",
        };
        let mut sync = handle.sync.borrow_mut();
        if sync.source_lost(&format!("the source was {how}")) {
            log::error(format_args!(
                "{}: the source {} was {how}; nothing is sent until it is back",
                sync.config.name,
                log::escape(&sync.config.source)
            ));
        }
    }

    fn root_back(&mut self, scope: usize) {
        if let Some(handle) = self.syncs.get(scope) {
            handle.sync.borrow_mut().source_found();
            self.back.push(scope);
        }
    }

    fn out_of_watches(&mut self, path: &[u8]) {
        for handle in self.syncs {
            let sync = handle.sync.borrow();
            if path.starts_with(&sync.config.source) {
                self.unwatched.insert(sync.id);
            }
        }
    }

    fn trouble(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
        let path = log::escape(path);
        log::say("Inotify", format_args!("{what} {path}: {error}"));
    }
}
