//! In-flight comparisons: transfers that may read a directory before it is watched.
//!
//! A transfer that compares a directory, at startup or because a directory of that name was
//! deleted, copies its current state. A new subdirectory may not be watched yet. A file that the
//! transfer finds in it, and that is deleted before the watch is set, causes no event, and the
//! target would keep it. The Create of a directory that may have appeared during such a transfer is
//! therefore extended to a comparison of its contents.
//!
//! A program that writes a file and then sets its time to that of the target's file may do so after
//! the daemon has examined the file, and before rsync does. rsync takes the file for unchanged then.
//! A change of attributes during the transfer of a file is therefore one of its contents.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use super::super::Sync;
use crate::paths;
use crate::queue::{DelayId, Etype, Policy, Time};
use crate::watch::{EventMark, Watcher};

/// The maximum number of recorded directories, and of files. With more, the whole source counts as
/// compared, or as written.
const MAX_PATHS: usize = 10_000;

/// The in-flight comparisons of the syncs that share a journal.
#[derive(Clone, Default)]
pub struct InFlight(Rc<RefCell<InFlightScan>>);

#[derive(Default)]
struct InFlightScan {
    state: InFlightState,
    /// A transfer is running in at least one of the syncs.
    busy: bool,
    /// The directories being compared, each with all below it.
    trees: BTreeSet<Vec<u8>>,
    everywhere: bool,
    /// The files whose contents are sent.
    written: HashSet<Vec<u8>>,
    /// There are more of them.
    written_anywhere: bool,
}

#[derive(Clone, Copy)]
enum InFlightState {
    /// No transfer has run since this time.
    Not(Time),
    /// Transfers run.
    Running,
    /// The transfers have ended; events from before this mark may still be undelivered.
    Until(EventMark),
}

impl Default for InFlightState {
    fn default() -> InFlightState {
        InFlightState::Not(0)
    }
}

impl InFlightScan {
    fn add(&mut self, path: Vec<u8>) {
        if self.trees.len() < MAX_PATHS {
            self.trees.insert(path);
        } else {
            self.everywhere = true
        }
    }

    fn add_written(&mut self, path: Vec<u8>) {
        if self.written.len() < MAX_PATHS {
            self.written.insert(path);
        } else {
            self.written_anywhere = true
        }
    }

    /// Returns true if the contents of this file are sent.
    fn writes(&self, path: &[u8]) -> bool {
        self.written_anywhere || self.written.contains(path)
    }

    /// Returns true if this directory is compared, or one around it.
    fn include(&self, path: &[u8]) -> bool {
        self.everywhere || self.include_by_name(path)
    }

    /// Returns true if an entry of a transfer compares this directory, or one around it.
    fn include_by_name(&self, path: &[u8]) -> bool {
        let mut directories = paths::directories(path).skip(1);
        directories.any(|directory| self.trees.contains(directory))
    }
}

impl Sync {
    /// Records a transfer of these entries.
    pub fn begin(&mut self, ids: &[DelayId]) {
        self.queue.activate(ids);
        self.note_overlaps(ids);
        if self.queue.policy() == Policy::PerEvent {
            return;
        }
        let mut scan = self.in_flight.0.borrow_mut();
        for delay in ids.iter().filter_map(|id| self.queue.get(*id)) {
            let etype = delay.etype();
            if etype.is_special() {
                scan.everywhere = true;
                continue;
            }
            let (path, to) = delay.paths();
            if !delay.is_directory() && etype != Etype::Attrib {
                scan.add_written(to.clone().unwrap_or_else(|| path.clone()));
            }
            if matches!(etype, Etype::Delete | Etype::Move) {
                [Some(path), to].into_iter().flatten().for_each(|mut path| {
                    paths::push_slash(&mut path);
                    scan.add(path);
                });
            }
        }
    }

    /// Records a transfer that may compare directories its entries do not name.
    pub fn begin_anywhere(&mut self, ids: &[DelayId]) {
        self.queue.activate(ids);
        self.in_flight.0.borrow_mut().everywhere = true;
    }

    /// Records that running transfers read the disk. Must be called before events are delivered.
    pub fn note_transfers(&self) {
        if self.running > 0 {
            let mut scan = self.in_flight.0.borrow_mut();
            scan.state = InFlightState::Running;
            scan.busy = true;
        }
    }

    /// Undoes [`Sync::note_transfers`], so that only transfers that run now count.
    pub fn reset_transfers(&self) {
        self.in_flight.0.borrow_mut().busy = false;
    }

    /// Returns true if no other sync shares the record.
    pub fn has_own_in_flight(&self) -> bool {
        Rc::strong_count(&self.in_flight.0) == 1
    }

    /// Updates the record. Must be called after events are delivered and ended transfers are
    /// reaped.
    pub fn forget_transfers(&self, watcher: &Watcher, now: Time) {
        let mut scan = self.in_flight.0.borrow_mut();
        let until = match scan.state {
            InFlightState::Running if !scan.busy => watcher.event_mark(),
            InFlightState::Until(moment) => moment,
            _ => return,
        };
        if watcher.has_reported(until) {
            *scan = InFlightScan {
                state: InFlightState::Not(now),
                ..InFlightScan::default()
            };
        } else {
            scan.state = InFlightState::Until(until);
        }
    }

    /// Returns the time at which all events from before the end of the last transfer were
    /// delivered; `None` while a transfer runs or such events are missing.
    pub fn caught_up_since(&self) -> Option<Time> {
        match self.in_flight.0.borrow().state {
            InFlightState::Not(since) if self.running == 0 => Some(since),
            _ => None,
        }
    }

    /// Returns the event type to queue. The Delete of an existing directory represents a comparison
    /// of its contents; an Attrib of a file that is being sent may hide a Modify.
    pub(in crate::sync) fn in_flight_etype(&self, etype: Etype, path: &[u8]) -> Etype {
        let scan = self.in_flight.0.borrow();
        let deletes = self.config.delete.in_batches() || self.journal_reader.is_some();
        // Full comparisons do not delete then, and what only the target has must stay.
        let is_compared = match self.config.delete.keeps_others() {
            true => scan.include_by_name(path),
            false => scan.include(path),
        };
        match etype {
            Etype::Create
                if deletes
                    && path.ends_with(b"/")
                    && !matches!(scan.state, InFlightState::Not(_))
                    && is_compared
                    && self.queue.policy() == Policy::Coalesce =>
            {
                Etype::Delete
            }
            Etype::Attrib
                if !matches!(scan.state, InFlightState::Not(_))
                    && scan.writes(path)
                    && self.queue.policy() == Policy::Coalesce =>
            {
                Etype::Modify
            }
            other => other,
        }
    }

    /// Shares the record of another sync from now on.
    pub(in crate::sync) fn share_in_flight(&mut self, other: &Sync) {
        self.in_flight = other.in_flight.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Delete;
    use crate::queue::Status;
    use crate::sync::tests::{idle_watcher, sync_with};
    use crate::watch::Event;

    /// Returns the event type to queue for the Create of `path` while a transfer carries out
    /// `etype` of `done`.
    fn queued_etype(policy: Policy, etype: Etype, done: &[u8], path: &[u8]) -> Etype {
        let mut sync = sync_with(policy);
        sync.queue.push(etype, done, None, 0);
        let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        sync.begin(&ids);
        sync.running = 1;
        sync.note_transfers();
        sync.running = 0;
        sync.reset_transfers();
        assert_eq!(sync.caught_up_since(), None);
        sync.ingest(Event::Create { path }, 0);
        sync.queue.iter().last().unwrap().etype()
    }

    #[test]
    fn a_directory_created_during_its_comparison_is_compared_again() {
        use Etype::{Create, Delete, Init};
        use Policy::{Coalesce, PerEvent};
        for done in [b"/d/".as_slice(), b"/d", b"/d/e/"] {
            assert_eq!(queued_etype(Coalesce, Delete, done, b"/src/d/e/"), Delete);
        }
        assert_eq!(queued_etype(Coalesce, Init, b"", b"/src/d/"), Delete);
        assert_eq!(queued_etype(Coalesce, Create, b"/d/", b"/src/d/e/"), Create);
        assert_eq!(queued_etype(Coalesce, Delete, b"/d/", b"/src/dd/"), Create);
        assert_eq!(queued_etype(Coalesce, Delete, b"/d/e/", b"/src/d/"), Create);
        assert_eq!(queued_etype(Coalesce, Delete, b"/d/", b"/src/d/f"), Create);
        assert_eq!(queued_etype(PerEvent, Delete, b"/d/", b"/src/d/"), Create);
    }

    #[test]
    fn new_attributes_of_a_file_that_is_being_sent_count_as_contents() {
        use Etype::{Attrib, Create, Modify};
        let queued = |count: usize, etype, path: &[u8]| {
            let mut sync = sync_with(Policy::Coalesce);
            for n in 0..count {
                sync.queue.push(etype, format!("/{n}").as_bytes(), None, 0);
            }
            let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
            sync.begin(&ids);
            sync.child_started();
            sync.note_transfers();
            sync.in_flight_etype(Attrib, path)
        };
        assert_eq!(queued(1, Modify, b"/0"), Modify);
        assert_eq!(queued(1, Create, b"/0"), Modify);
        assert_eq!(queued(1, Attrib, b"/0"), Attrib);
        assert_eq!(queued(1, Modify, b"/1"), Attrib);
        assert_eq!(queued(MAX_PATHS, Modify, b"/other"), Attrib);
        assert_eq!(queued(MAX_PATHS + 1, Modify, b"/other"), Modify);
    }

    #[test]
    fn without_a_transfer_the_event_type_is_kept() {
        let mut sync = sync_with(Policy::Coalesce);
        assert_eq!(sync.caught_up_since(), Some(0));
        sync.ingest(Event::Create { path: b"/src/d/" }, 0);
        assert_eq!(sync.queue.iter().last().unwrap().etype(), Etype::Create);
    }

    #[test]
    fn a_transfer_that_may_compare_anything_counts_as_one_of_everything() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.queue.push(Etype::Create, b"/a", None, 0);
        let id = sync.queue.iter().next().unwrap().id();
        sync.begin_anywhere(&[id]);
        assert_eq!(sync.queue.get(id).unwrap().status(), Status::Active);
        sync.child_started();
        sync.note_transfers();
        sync.ingest(Event::Create { path: b"/src/d/" }, 0);
        assert_eq!(sync.queue.iter().last().unwrap().etype(), Etype::Delete);
    }

    /// The comparison of a directory would delete what only the target has. A full comparison that
    /// runs does not.
    #[test]
    fn what_only_the_target_has_is_not_compared() {
        for (shares, etype, done, expected) in [
            (false, Etype::Init, &b""[..], Etype::Create),
            (true, Etype::Init, &b""[..], Etype::Create),
            (false, Etype::Delete, b"/d/", Etype::Delete),
        ] {
            let mut sync = sync_with(Policy::Coalesce);
            let mut other = sync_with(Policy::Coalesce);
            (sync.config.moves, other.config.moves) = (false, false);
            sync.config.delete = Delete::Running;
            if shares {
                crate::sync::share(&mut sync, &mut other);
            }
            sync.queue.push(etype, done, None, 0);
            let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
            sync.begin(&ids);
            sync.child_started();
            sync.note_transfers();
            assert_eq!(sync.in_flight_etype(Etype::Create, b"/d/e/"), expected);
        }
    }

    /// The comparison of a directory would delete. In a journal it is for others, too.
    #[test]
    fn without_deletions_only_a_journal_gets_the_comparison() {
        for shares in [false, true] {
            let mut sync = sync_with(Policy::Coalesce);
            let mut other = sync_with(Policy::Coalesce);
            (sync.config.moves, other.config.moves) = (false, false);
            sync.config.delete = Delete::Never;
            if shares {
                crate::sync::share(&mut sync, &mut other);
            }
            sync.begin_anywhere(&[]);
            sync.child_started();
            sync.note_transfers();
            let expected = if shares { Etype::Delete } else { Etype::Create };
            assert_eq!(sync.in_flight_etype(Etype::Create, b"/d/"), expected);
        }
    }

    #[test]
    fn a_sync_with_a_transfer_that_was_not_noted_has_not_caught_up() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.child_started();
        assert_eq!(sync.caught_up_since(), None);
        sync.child_ended();
        assert_eq!(sync.caught_up_since(), Some(0));
    }

    /// Directories that it compares may appear until its end is noted.
    #[test]
    fn a_transfer_is_in_flight_until_events_from_before_its_end_are_delivered() {
        let watcher = idle_watcher();
        let mut sync = sync_with(Policy::Coalesce);
        sync.begin_anywhere(&[]);
        sync.child_started();
        sync.note_transfers();
        sync.forget_transfers(&watcher, 5);
        sync.child_ended();
        assert_eq!(sync.caught_up_since(), None);
        sync.reset_transfers();
        sync.forget_transfers(&watcher, 7);
        assert_eq!(sync.caught_up_since(), Some(7));
        assert_eq!(sync.in_flight_etype(Etype::Create, b"/d/"), Etype::Create);
    }

    #[test]
    fn a_transfer_whose_end_was_not_reported_yet_is_forgotten_later() {
        let watcher = idle_watcher();
        let sync = sync_with(Policy::Coalesce);
        sync.in_flight.0.borrow_mut().state = InFlightState::Until(watcher.event_mark());
        assert_eq!(sync.caught_up_since(), None);
        sync.forget_transfers(&watcher, 9);
        assert_eq!(sync.caught_up_since(), Some(9));
    }
}
