//! Transfers of one sync that run at the same time (`maxProcesses` above one).
//!
//! rsync reads the times of directories when it begins and sets them when it ends. A transfer that
//! outlasts a later one gives the directories of both old times, and creates a directory again that
//! the later one has deleted. When it has ended, the paths that it may have changed in this way are
//! queued again.

use std::collections::BTreeMap;

use super::Sync;
use crate::paths;
use crate::queue::{DelayId, Etype, Policy, Queue, Status, Time};

/// The maximum number of entries of a transfer that are examined. After a larger one, everything
/// that the later transfers changed is queued again.
const MAX_EXAMINED: usize = 100_000;

/// The transfers of a sync that may run more than one at a time.
#[derive(Default)]
pub struct Overlaps(Vec<Running>);

/// One running transfer.
struct Running {
    ids: Vec<DelayId>,
    /// A full comparison.
    is_full: bool,
    /// The paths to queue again when it has ended.
    again: BTreeMap<Vec<u8>, Etype>,
    /// Events were lost while it ran, so that the changes it may undo are not known.
    lost_events: bool,
}

impl Running {
    /// Adds what this transfer and a later one both change.
    fn overlap(&mut self, queue: &Queue, later: &BTreeMap<Vec<u8>, Etype>) {
        if self.is_full || self.ids.len() > MAX_EXAMINED {
            for (path, etype) in later {
                add(&mut self.again, path, *etype);
            }
            return;
        }
        for delay in self.ids.iter().filter_map(|id| queue.get(*id)) {
            let (path, _) = delay.paths();
            for directory in paths::directories(&path) {
                // Not all events tell that their object is a directory.
                let named = [directory, paths::bare(directory)];
                if let Some(etype) = named.iter().find_map(|name| later.get(*name)) {
                    let etype = match etype {
                        Etype::Delete => Etype::Delete,
                        _ => Etype::Attrib,
                    };
                    add(&mut self.again, directory, etype);
                }
            }
        }
    }

    fn has_ended(&self, queue: &Queue) -> bool {
        let is_active = |id: &DelayId| {
            let delay = queue.get(*id);
            delay.is_some_and(|delay| delay.status() == Status::Active)
        };
        !self.ids.iter().any(is_active)
    }
}

/// Adds a path to queue again. A Delete stays one: it compares the contents of a directory.
fn add(again: &mut BTreeMap<Vec<u8>, Etype>, path: &[u8], etype: Etype) {
    let known = again.entry(path.to_vec()).or_insert(etype);
    if *known != Etype::Delete {
        *known = etype;
    }
}

/// Returns what a transfer changes: its entries, and the directories that contain them. A full
/// comparison has no entries: what changes meanwhile has an event, and so a later transfer.
fn touched(queue: &Queue, ids: &[DelayId]) -> BTreeMap<Vec<u8>, Etype> {
    let mut touched = BTreeMap::new();
    for delay in ids.iter().filter_map(|id| queue.get(*id)) {
        if delay.etype().is_special() {
            continue;
        }
        let (path, _) = delay.paths();
        if let Some(parent) = paths::parent(&path) {
            touched.entry(parent.to_vec()).or_insert(Etype::Attrib);
        }
        add(&mut touched, &path, delay.etype());
    }
    touched
}

impl Overlaps {
    /// Records that events were lost.
    pub(super) fn lose_events(&mut self) {
        for running in &mut self.0 {
            running.lost_events = true;
        }
    }

    /// Returns the paths to queue again when the running transfers have ended.
    pub(super) fn paths(&self) -> impl Iterator<Item = (Etype, Vec<u8>)> {
        let all = self.0.iter().flat_map(|running| &running.again);
        all.map(|(path, etype)| (*etype, path.clone()))
    }
}

impl Sync {
    /// Records that a transfer of these active entries begins.
    pub(super) fn note_overlaps(&mut self, ids: &[DelayId]) {
        if self.config.max_processes < 2 || self.queue.policy() == Policy::PerEvent {
            return;
        }
        let queue = &self.queue;
        if !self.overlaps.0.is_empty() {
            let later = touched(queue, ids);
            for running in &mut self.overlaps.0 {
                running.overlap(queue, &later);
            }
        }
        let mut entries = ids.iter().filter_map(|id| queue.get(*id));
        self.overlaps.0.push(Running {
            ids: ids.to_vec(),
            is_full: entries.any(|delay| delay.etype().is_special()),
            again: BTreeMap::new(),
            lost_events: false,
        });
    }

    /// Queues again what ended transfers may have changed after later ones. Must be called after
    /// the exit status of a transfer is applied to its entries.
    pub fn repair_overlaps(&mut self, now: Time) {
        let queue = &self.queue;
        let ended = self.overlaps.0.extract_if(.., |each| each.has_ended(queue));
        let ended: Vec<_> = ended.collect();
        if ended.iter().any(|ended| ended.lost_events) {
            self.compare_once(now);
        }
        // The next full comparison repairs what the last one may have undone. With `hard_links`,
        // each transfer in between would cause another full comparison.
        let compares_again = self.queue.specials().next().is_some();
        let ended = ended.into_iter();
        let ended = ended.filter(|ended| !(ended.is_full && compares_again));
        for (path, etype) in ended.flat_map(|ended| ended.again) {
            self.requeues += 1;
            // Beyond the queue limit, a full comparison would overlap with the next transfer.
            self.queue.push(etype, &path, None, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::tests::sync_with;

    type Entries = &'static [(Etype, &'static [u8])];

    /// A sync with `maxProcesses = 3`.
    fn parallel() -> Sync {
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.max_processes = 3;
        sync
    }

    /// Begins a transfer of new entries and returns their ids.
    fn begin(sync: &mut Sync, entries: &[(Etype, &[u8])]) -> Vec<DelayId> {
        let mut ids = Vec::new();
        for (etype, path) in entries {
            sync.queue.push(*etype, path, None, 0);
            ids.extend(sync.queue.iter().last().map(|delay| delay.id()));
        }
        sync.begin(&ids);
        ids
    }

    fn end(sync: &mut Sync, ids: &[DelayId]) -> Vec<(Etype, Vec<u8>)> {
        sync.succeeded(ids);
        sync.repair_overlaps(0);
        let waiting = sync.queue.iter();
        let waiting = waiting.filter(|delay| delay.status() != Status::Active);
        let waiting: Vec<_> = waiting
            .map(|delay| (delay.etype(), delay.paths().0))
            .collect();
        waiting
    }

    #[test]
    fn a_directory_that_a_later_transfer_changed_is_sent_again_after_the_older_one() {
        use Etype::{Attrib, Create, Delete, Modify};
        let cases: [[Entries; 3]; 6] = [
            [
                &[(Create, b"/d/a")],
                &[(Create, b"/d/b")],
                &[(Attrib, b"/d/")],
            ],
            // The times of all directories of a path are set, those above a name change with it.
            [
                &[(Modify, b"/d/e/a")],
                &[(Create, b"/d/b")],
                &[(Attrib, b"/d/")],
            ],
            [&[(Modify, b"/d/a")], &[(Create, b"/d/e/b")], &[]],
            [&[(Modify, b"/a")], &[(Attrib, b"/d/")], &[(Attrib, b"/")]],
            [
                &[(Delete, b"/e/a")],
                &[(Delete, b"/e/")],
                &[(Attrib, b"/"), (Delete, b"/e/")],
            ],
            [&[(Delete, b"/e/a")], &[(Delete, b"/f/")], &[(Attrib, b"/")]],
        ];
        for [older, later, want] in cases {
            let mut sync = parallel();
            let first = begin(&mut sync, older);
            let second = begin(&mut sync, later);
            assert_eq!(end(&mut sync, &second), [], "{later:?}");
            let found = end(&mut sync, &first);
            let found: Vec<_> = found
                .iter()
                .map(|(etype, path)| (*etype, &path[..]))
                .collect();
            assert_eq!(found, want, "{older:?}, then {later:?}");
        }
    }

    #[test]
    fn a_directory_that_was_deleted_is_compared_whatever_later_transfers_changed_in_it() {
        let mut sync = parallel();
        let first = begin(&mut sync, &[(Etype::Create, b"/e/a")]);
        for later in [(Etype::Delete, b"/e/".as_slice()), (Etype::Create, b"/e/b")] {
            let ids = begin(&mut sync, &[later]);
            assert_eq!(end(&mut sync, &ids), []);
        }
        let want = [
            (Etype::Attrib, b"/".to_vec()),
            (Etype::Delete, b"/e/".to_vec()),
        ];
        assert_eq!(end(&mut sync, &first), want);
    }

    #[test]
    fn the_transfer_that_began_last_repairs_nothing() {
        let mut sync = parallel();
        let first = begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        let second = begin(&mut sync, &[(Etype::Create, b"/d/b")]);
        assert_eq!(end(&mut sync, &first), [(Etype::Attrib, b"/d/".to_vec())]);
        let third = begin(&mut sync, &[(Etype::Create, b"/e/c")]);
        assert_eq!(end(&mut sync, &second).len(), 1);
        assert_eq!(end(&mut sync, &third).len(), 1);
    }

    #[test]
    fn what_was_sent_during_a_full_comparison_is_sent_again_after_it() {
        let mut sync = parallel();
        let full = begin(&mut sync, &[(Etype::Full, b"/")]);
        let plain = begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        assert_eq!(end(&mut sync, &plain), []);
        let again = [
            (Etype::Attrib, b"/d/".to_vec()),
            (Etype::Create, b"/d/a".to_vec()),
        ];
        assert_eq!(end(&mut sync, &full), again);
    }

    #[test]
    fn what_was_sent_during_a_full_comparison_is_left_to_the_next_one() {
        let mut sync = parallel();
        sync.has_full = true;
        let full = begin(&mut sync, &[(Etype::Full, b"/")]);
        let plain = begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        sync.compare_once(0);
        assert_eq!(end(&mut sync, &plain).len(), 1);
        let waiting = end(&mut sync, &full);
        assert_eq!(waiting, [(Etype::Full, b"/".to_vec())]);
    }

    /// Otherwise the two would call for each other for ever: a change of a file with several names
    /// is followed by a full comparison.
    #[test]
    fn a_full_comparison_repeats_no_older_transfer() {
        let mut sync = parallel();
        let plain = begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        let full = begin(&mut sync, &[(Etype::Full, b"/")]);
        assert_eq!(end(&mut sync, &plain), []);
        assert_eq!(end(&mut sync, &full), []);
    }

    #[test]
    fn after_lost_events_the_end_of_an_older_transfer_leads_to_a_comparison() {
        let mut sync = parallel();
        sync.has_full = true;
        let plain = begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        sync.resync(0);
        let full: Vec<_> = sync.queue.specials().map(|delay| delay.id()).collect();
        sync.begin(&full);
        assert_eq!(end(&mut sync, &full), []);
        assert_eq!(end(&mut sync, &plain).len(), 1);
        assert!(sync.queue.specials().next().is_some());
    }

    #[test]
    fn of_a_large_transfer_all_directories_of_the_later_one_are_sent_again() {
        let mut sync = parallel();
        let paths: Vec<_> = (0..=MAX_EXAMINED)
            .map(|n| format!("/d/{n}").into_bytes())
            .collect();
        let entries: Vec<_> = paths
            .iter()
            .map(|path| (Etype::Create, &path[..]))
            .collect();
        for (etype, path) in &entries {
            sync.queue.push(*etype, path, None, 0);
        }
        let first: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        sync.begin(&first);
        let second = begin(&mut sync, &[(Etype::Create, b"/e/b")]);
        assert_eq!(end(&mut sync, &second), []);
        let want = [
            (Etype::Attrib, b"/e/".to_vec()),
            (Etype::Create, b"/e/b".to_vec()),
        ];
        assert_eq!(end(&mut sync, &first), want);
    }

    #[test]
    fn what_is_to_be_repaired_is_handed_over() {
        let mut sync = parallel();
        begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        let second = begin(&mut sync, &[(Etype::Create, b"/d/b")]);
        sync.succeeded(&second);
        let (events, _) = sync.pending_events();
        assert!(
            events.contains(&(Etype::Attrib, b"/d/".to_vec(), None)),
            "{events:?}"
        );
    }

    #[test]
    fn a_repair_belongs_to_the_changes_before_a_mark() {
        let mut sync = parallel();
        let first = begin(&mut sync, &[(Etype::Create, b"/d/a")]);
        let second = begin(&mut sync, &[(Etype::Create, b"/d/b")]);
        let mut mark = sync.mark();
        end(&mut sync, &second);
        assert_eq!(end(&mut sync, &first).len(), 1);
        assert!(!sync.reached(&mut mark));
    }

    #[test]
    fn transfers_that_cannot_overlap_are_not_recorded() {
        for (policy, max_processes, recorded) in [
            (Policy::Coalesce, 1, 0),
            (Policy::Coalesce, 2, 1),
            (Policy::Coalesce, 3, 1),
            (Policy::PerEvent, 3, 0),
        ] {
            let mut sync = sync_with(policy);
            sync.config.max_processes = max_processes;
            begin(&mut sync, &[(Etype::Modify, b"/a")]);
            assert_eq!(
                sync.overlaps.0.len(),
                recorded,
                "{policy:?} {max_processes}"
            );
        }
    }
}
