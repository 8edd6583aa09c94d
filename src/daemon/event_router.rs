//! Event router: passes watcher events to the queues of the syncs they concern.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use crate::id::SyncId;
use crate::log;
use crate::paths;
use crate::queue::{Policy, Time};
use crate::script::SyncHandle;
use crate::watch::{Event, Follow, Loss, Observer, Watcher};

/// The receiver of watcher events in one turn.
pub struct EventRouter<'a> {
    syncs: &'a [Rc<SyncHandle>],
    now: Time,
    /// The kernel's queue has overflowed.
    pub overflowed: bool,
    /// Syncs with a directory that is not watched because the watch limit is reached.
    pub unwatched: BTreeSet<SyncId>,
    /// Indexes of syncs whose roots are watched again.
    pub back: Vec<usize>,
    /// Indexes of syncs that accepted the last directory rename as a move.
    moved: Vec<usize>,
}

impl<'a> EventRouter<'a> {
    /// Returns a router for one turn.
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

/// Records that running transfers may read directories that are not watched yet.
pub fn note_transfers(syncs: &[Rc<SyncHandle>]) {
    for handle in syncs {
        handle.sync.borrow().note_transfers();
    }
}

/// Clears the record for transfers that have ended and whose changes are delivered or will be.
pub fn forget_transfers(syncs: &[Rc<SyncHandle>], watcher: &Watcher, now: Time) {
    for handle in syncs {
        handle.sync.borrow().reset_transfers();
    }
    note_transfers(syncs);
    for handle in syncs {
        handle.sync.borrow().forget_transfers(watcher, now);
    }
}

/// Clears the record for one sync before the end of its transfer is reported. A client that waits
/// for the end makes its next changes after the transfer.
pub fn transfer_ended(handle: &SyncHandle, watcher: &Watcher, now: Time) {
    let sync = handle.sync.borrow();
    if sync.has_own_in_flight() {
        sync.reset_transfers();
        sync.note_transfers();
        sync.forget_transfers(watcher, now);
    }
}

/// Removes files that are being written from a sync's queue if the sync sends file contents; the
/// watcher reports when they are closed. Returns true if there was any.
pub fn defer_open_files(handle: &SyncHandle, watcher: &mut Watcher) -> bool {
    if handle.sync.borrow().queue.policy() == Policy::PerEvent {
        return false;
    }
    let interested = |path: &[u8]| handle.sync.borrow().waiting(path).is_some();
    let waiting = handle.sync.borrow().waiting_files(watcher.open_files());
    let paths = match waiting {
        Some(waiting) => watcher.being_written_of(waiting),
        None => watcher.being_written(&interested),
    };
    let mut sync = handle.sync.borrow_mut();
    let ids: Vec<_> = paths.iter().filter_map(|path| sync.waiting(path)).collect();
    for id in &ids {
        sync.queue.withdraw(*id);
    }
    drop(sync);
    handle.forget(&ids);
    !ids.is_empty()
}

/// Reports a directory of a sync's source and everything below it to this sync alone, if its user
/// code gets each path. Returns false if it does not, or if the directory is not watched.
pub fn report_contents(
    syncs: &[Rc<SyncHandle>],
    watcher: &mut Watcher,
    to: SyncId,
    path: &[u8],
    now: Time,
) -> bool {
    let mut all = syncs.iter().map(|handle| handle.sync.borrow_mut());
    let Some(mut sync) = all.find(|sync| sync.id == to) else {
        return false;
    };
    let is_one = paths::bare(path).is_empty() || sync.queue.policy() == Policy::Coalesce;
    if is_one || !sync.is_directory(path) {
        return false;
    }
    let directory = paths::with_slash(path);
    let absolute = [paths::bare(&sync.config.source), &directory].concat();
    let Some(number) = watcher.report_contents(&absolute) else {
        return false;
    };
    sync.ingest(Event::Create { path: &absolute }, now);
    drop(sync);
    for handle in syncs {
        let mut other = handle.sync.borrow_mut();
        if other.id != to {
            other.record_rename(number);
        }
    }
    true
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
            self.syncs[index].sync.borrow_mut().record_rename(number);
        }
    }

    fn found(&mut self, path: &[u8], number: u64) {
        for handle in self.syncs {
            let mut sync = handle.sync.borrow_mut();
            if !sync.has_recorded_rename(number) {
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

    fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
        let path = log::escape(path);
        log::say("Inotify", format_args!("{what} {path}: {error}"));
    }
}
