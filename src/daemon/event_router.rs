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

impl EventRouter<'_> {
    /// Reports a deletion to the syncs that keep what only the target has, or to the others.
    fn delete_where(&self, keeps_others: bool, path: &[u8]) {
        for handle in self.syncs {
            let mut sync = handle.sync.borrow_mut();
            if sync.config.delete.keeps_others() == keeps_others {
                sync.ingest(Event::Delete { path }, self.now);
            }
        }
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

    /// A sync that keeps what only the target has would delete that with the directory.
    fn renewed(&mut self, path: &[u8]) {
        self.delete_where(false, path);
    }

    /// The others have taken the renewal for a deletion.
    fn vacated(&mut self, path: &[u8]) {
        self.delete_where(true, path);
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

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;
    use crate::config::Delete;
    use crate::sync::tests::{idle_watcher, sync_of};

    fn handle(lua: &Lua, source: &str, moves: bool) -> Rc<SyncHandle> {
        let mut sync = sync_of(source.as_bytes());
        sync.config.moves = moves;
        SyncHandle::of_sync(lua, sync)
    }

    /// Returns the paths in the queue of a sync.
    fn queued(handle: &SyncHandle) -> Vec<String> {
        let sync = handle.sync.borrow();
        let paths = sync.queue.iter().map(|delay| delay.paths().0);
        paths.map(|path| String::from_utf8(path).unwrap()).collect()
    }

    /// Starts or ends a transfer of a sync.
    fn count(handle: &SyncHandle, starts: bool) {
        let mut sync = handle.sync.borrow_mut();
        if starts {
            sync.child_started();
        } else {
            sync.child_ended();
        }
    }

    fn caught_up_since(handle: &SyncHandle) -> Option<Time> {
        handle.sync.borrow().caught_up_since()
    }

    #[test]
    fn a_transfer_counts_until_its_end_is_noted() {
        let (lua, watcher) = (Lua::new(), idle_watcher());
        let syncs = [handle(&lua, "/one/", false), handle(&lua, "/two/", false)];
        syncs.iter().for_each(|handle| count(handle, true));
        note_transfers(&syncs);
        forget_transfers(&syncs, &watcher, 1);
        syncs.iter().for_each(|handle| count(handle, false));
        for handle in &syncs {
            assert_eq!(caught_up_since(handle), None);
        }
        forget_transfers(&syncs, &watcher, 2);
        for handle in &syncs {
            assert_eq!(caught_up_since(handle), Some(2));
        }
    }

    #[test]
    fn a_transfer_that_was_not_noted_before_counts_as_well() {
        let (lua, watcher) = (Lua::new(), idle_watcher());
        let syncs = [handle(&lua, "/one/", false)];
        count(&syncs[0], true);
        forget_transfers(&syncs, &watcher, 1);
        count(&syncs[0], false);
        assert_eq!(caught_up_since(&syncs[0]), None);
    }

    #[test]
    fn the_end_of_one_transfer_is_not_that_of_another() {
        let (lua, watcher) = (Lua::new(), idle_watcher());
        let own = handle(&lua, "/one/", false);
        count(&own, true);
        count(&own, true);
        own.sync.borrow().note_transfers();
        count(&own, false);
        transfer_ended(&own, &watcher, 1);
        count(&own, false);
        assert_eq!(caught_up_since(&own), None);
        transfer_ended(&own, &watcher, 2);
        assert_eq!(caught_up_since(&own), Some(2));
    }

    #[test]
    fn the_end_of_one_transfer_is_not_that_of_another_target() {
        let (lua, watcher) = (Lua::new(), idle_watcher());
        let syncs = [handle(&lua, "/one/", false), handle(&lua, "/one/", false)];
        crate::sync::share(
            &mut syncs[0].sync.borrow_mut(),
            &mut syncs[1].sync.borrow_mut(),
        );
        syncs.iter().for_each(|handle| count(handle, true));
        note_transfers(&syncs);
        count(&syncs[0], false);
        transfer_ended(&syncs[0], &watcher, 1);
        count(&syncs[1], false);
        assert_eq!(caught_up_since(&syncs[1]), None);
    }

    /// Where the target keeps what only it has, this would be deleted with the directory.
    #[test]
    fn a_renewed_directory_is_not_compared_where_the_target_keeps_others() {
        let lua = Lua::new();
        for (delete, expected) in [
            (Delete::Always, &["/d/"][..]),
            (Delete::Startup, &["/d/"]),
            (Delete::Running, &[]),
            (Delete::Never, &["/d/"]),
        ] {
            let syncs = [handle(&lua, "/src/", false)];
            syncs[0].sync.borrow_mut().config.delete = delete;
            let mut router = EventRouter::new(&syncs, 0);
            router.renewed(b"/src/d/");
            assert_eq!(queued(&syncs[0]), expected, "{delete:?}");
            router.vacated(b"/src/d/");
            assert_eq!(queued(&syncs[0]), ["/d/"], "{delete:?}");
        }
    }

    #[test]
    fn contents_of_a_renamed_directory_go_to_the_syncs_that_do_not_move_it() {
        let lua = Lua::new();
        let syncs = [handle(&lua, "/src/", true), handle(&lua, "/src/", false)];
        let mut router = EventRouter::new(&syncs, 0);
        let inner = Event::Move {
            from: b"/src/a/",
            to: b"/src/b/",
        };
        assert_eq!(router.event(inner), Follow::Contents);
        router.follow(7);
        router.found(b"/src/b/f", 7);
        assert_eq!(queued(&syncs[0]), ["/a/"]);
        assert_eq!(queued(&syncs[1]), ["/a/", "/b/", "/b/f"]);
        let outer = Event::Move {
            from: b"/else/",
            to: b"/src/c/",
        };
        assert_eq!(router.event(outer), Follow::Contents);
        router.follow(8);
        router.found(b"/src/c/f", 8);
        assert_eq!(queued(&syncs[0])[1..], ["/c/", "/c/f"]);
        assert_eq!(queued(&syncs[1])[3..], ["/c/", "/c/f"]);
    }

    #[test]
    fn a_directory_without_a_watch_concerns_the_syncs_around_it() {
        let lua = Lua::new();
        let syncs = [
            handle(&lua, "/src/", false),
            handle(&lua, "/src/d/", false),
            handle(&lua, "/srcs/", false),
        ];
        let ids: Vec<SyncId> = syncs.iter().map(|handle| handle.sync.borrow().id).collect();
        let mut router = EventRouter::new(&syncs, 0);
        router.out_of_watches(b"/src/d/e/");
        assert_eq!(router.unwatched, BTreeSet::from([ids[0], ids[1]]));
    }
}
