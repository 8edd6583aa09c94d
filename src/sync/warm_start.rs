//! Warm start, `init = "changed"`: the startup compares the directories that have changed since
//! the index of the source was made, and the sync records what makes that index obsolete.
//!
//! The index contains the state of each directory as of its last transfer. It is made after a full
//! comparison has succeeded; directories with events since the begin of the comparison are omitted.
//! At the stop it is updated for directories with events, as far as all of these have been sent.

use std::time::{Duration, Instant, SystemTime};

use super::Sync;
use crate::index::plan::DirectoryPlan;
use crate::index::{ChangedDirs, file};
use crate::queue::{Etype, Time};

/// The time between a comparison and the making of the index. Timestamps that are too new prove
/// nothing.
const INDEX_DELAY: Duration = Duration::from_millis(2500);

/// The state of the index of a sync.
#[derive(Debug, Default)]
pub struct WarmStart {
    state: IndexState,
    /// The directories that the startup compares; `None` for everything.
    directories: Option<Vec<Vec<u8>>>,
    /// Changes since the index was made, or since the last full comparison has begun.
    changed: ChangedDirs,
    /// The begin of the comparison that is running.
    begun: Option<SystemTime>,
    /// The sync that this one replaces had to compare everything.
    owes_comparison: bool,
    /// Numbers comparisons and losses of events.
    generation: u64,
}

/// The state of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexState {
    /// There is none, or the target may differ from it.
    #[default]
    Invalid,
    /// Everything was compared, so that an index can be made.
    Compared {
        /// The begin of the comparison.
        begun: SystemTime,
        /// The time from which on it can be made.
        due: Instant,
    },
    /// The index is valid except for later changes.
    Valid,
}

impl Sync {
    /// Returns what is known of the index; `None` without `init = "changed"`.
    pub fn warm_start(&self) -> Option<&WarmStart> {
        self.warm_start.as_ref()
    }

    /// Returns what is known of the index, for changes.
    pub fn warm_start_mut(&mut self) -> Option<&mut WarmStart> {
        self.warm_start.as_mut()
    }

    /// Returns the reason why the index must not be used or made now; `None` if nothing speaks
    /// against it.
    pub fn index_obstacle(&self) -> Option<&'static str> {
        let obstacles = [
            (self.has_ended(), "the sync has ended"),
            (
                self.halted().is_some() || self.is_lost(),
                "the source is not as expected",
            ),
            (
                self.misses_mounts(),
                "a file system in the source is not mounted",
            ),
            (self.owes_deletions, "deletions were left out"),
        ];
        let mut present = obstacles.into_iter().filter(|(is_present, _)| *is_present);
        present.next().map(|(_, reason)| reason)
    }

    /// Returns the reason why the startup compares everything in spite of the index.
    pub fn startup_distrust(&self) -> Option<&'static str> {
        let warm = self.warm_start.as_ref()?;
        warm.owes_comparison.then_some("events were lost before")
    }

    /// Takes over that the replaced sync had to compare everything.
    pub(super) fn owe_startup_comparison(&mut self) {
        if let Some(warm) = &mut self.warm_start {
            warm.owes_comparison = true;
        }
    }

    /// Returns all conditions of transfers, except for the identities of source and target.
    pub fn index_conditions(&self) -> Vec<Vec<u8>> {
        let mut parts = vec![self.config.source.clone()];
        if let Some(config) = &self.config.warm_start {
            parts.extend(config.conditions.iter().cloned());
        }
        let filter = self
            .filter
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        parts.extend(filter.rules());
        parts.push(Vec::new());
        parts.extend(filter.excludes().map(<[u8]>::to_vec));
        parts
    }

    /// Starts with the comparison of these directories in place of that of everything. Without any,
    /// nothing is compared. Returns false if the sync has not waited for it.
    pub fn start_warm(&mut self, plan: DirectoryPlan, begun: SystemTime, now: Time) -> bool {
        if !self.lifecycle.watched() {
            return false;
        }
        self.requeues += 1;
        let directories = plan.directories;
        if let Some(warm) = &mut self.warm_start {
            warm.state = IndexState::Valid;
            for directory in &directories {
                warm.changed.add_directory(directory);
            }
            if !directories.is_empty() {
                warm.directories = Some(directories);
                self.queue.push(Etype::Init, b"", None, now);
            }
        }
        self.verify.found_elsewhere(plan.since, begun, plan.files);
        self.queue_inherited(now);
        true
    }

    /// Returns the directories that the startup compares, each without those below it; `None` if a
    /// comparison compares everything.
    pub fn startup_directories(&self) -> Option<&[Vec<u8>]> {
        self.warm_start.as_ref()?.directories.as_deref()
    }

    /// Compares everything in place of directories.
    pub fn forget_startup_directories(&mut self) {
        if let Some(warm) = &mut self.warm_start
            && warm.directories.take().is_some()
        {
            warm.begin();
        }
    }

    /// Records that a full comparison begins.
    pub fn begin_full_comparison(&mut self) {
        if let Some(warm) = &mut self.warm_start
            && warm.directories.is_none()
        {
            warm.begin();
        }
    }

    /// Records that a full comparison has succeeded in every respect.
    pub fn full_comparison_succeeded(&mut self) {
        if let Some(warm) = &mut self.warm_start {
            warm.succeeded(Instant::now());
        }
    }
}

impl WarmStart {
    /// Returns the state of the index.
    pub fn state(&self) -> IndexState {
        self.state
    }

    /// Returns a number that is another one after each comparison and each loss of events.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Records an event.
    pub(super) fn note(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>) {
        let is_tree = !matches!(etype, Etype::Attrib | Etype::Modify);
        self.changed.add(path, is_tree);
        if let Some(to) = to {
            self.changed.add(to, is_tree);
        }
    }

    /// Records that events were lost.
    pub(super) fn lose_events(&mut self) {
        self.state = IndexState::Invalid;
        self.begun = None;
        self.generation += 1;
    }

    /// Returns the changes since the index was made, and begins a new record.
    pub fn take_changed(&mut self) -> ChangedDirs {
        std::mem::take(&mut self.changed)
    }

    /// Returns the changes since the index was made.
    pub fn changed(&self) -> ChangedDirs {
        self.changed.clone()
    }

    /// Records that the index was made. `racy` are the directories whose state it does not contain.
    pub fn made(&mut self, racy: &[Vec<u8>]) {
        self.state = IndexState::Valid;
        for directory in racy {
            self.changed.add_directory(directory);
        }
    }

    /// Sets that everything was compared from `begun` on, and that the index is made at `due`.
    #[cfg(test)]
    pub fn set_compared(&mut self, begun: SystemTime, due: Instant) {
        self.state = IndexState::Compared { begun, due };
    }

    fn begin(&mut self) {
        self.state = IndexState::Invalid;
        self.generation += 1;
        self.begun = Some(SystemTime::now());
        // Without a success of the comparison there is no index that earlier changes concern.
        self.changed = ChangedDirs::default();
    }

    fn succeeded(&mut self, now: Instant) {
        if self.directories.take().is_some() {
            return;
        }
        if let Some(begun) = self.begun.take() {
            self.state = IndexState::Compared {
                begun,
                due: now + INDEX_DELAY,
            };
        }
    }
}

/// Returns the hash of the conditions of an index.
pub fn index_fingerprint(conditions: &[Vec<u8>]) -> u128 {
    file::fingerprint(conditions.iter().map(Vec::as_slice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::siphash::HashKey;
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;
    use crate::watch::Event;

    fn warm() -> Sync {
        let mut sync = sync_with(Policy::Coalesce);
        sync.warm_start = Some(WarmStart::default());
        sync
    }

    fn state(sync: &Sync) -> IndexState {
        sync.warm_start().unwrap().state()
    }

    #[test]
    fn an_index_is_made_after_a_comparison_during_which_no_events_were_lost() {
        let mut sync = warm();
        sync.begin_full_comparison();
        sync.full_comparison_succeeded();
        assert!(matches!(state(&sync), IndexState::Compared { .. }));
        let mut sync = warm();
        sync.begin_full_comparison();
        sync.resync(0);
        sync.full_comparison_succeeded();
        assert_eq!(state(&sync), IndexState::Invalid);
    }

    #[test]
    fn lost_events_end_an_index_and_what_makes_one() {
        type Loss = fn(&mut Sync);
        let losses: [Loss; 3] = [
            |sync| sync.resync(0),
            |sync| sync.resync_once(0),
            Sync::lose_index,
        ];
        for lose in losses {
            let mut sync = warm();
            sync.warm_start_mut().unwrap().made(&[]);
            let generation = sync.warm_start().unwrap().generation();
            assert_eq!(state(&sync), IndexState::Valid);
            lose(&mut sync);
            assert_eq!(state(&sync), IndexState::Invalid);
            // A thread that makes an index has begun before.
            assert_ne!(sync.warm_start().unwrap().generation(), generation);
        }
    }

    /// Until it has succeeded, the changes of before may not be on the target.
    #[test]
    fn a_comparison_that_begins_ends_an_index_and_what_makes_one() {
        let mut sync = warm();
        sync.warm_start_mut().unwrap().made(&[]);
        let generation = sync.warm_start().unwrap().generation();
        sync.begin_full_comparison();
        assert_eq!(state(&sync), IndexState::Invalid);
        assert_ne!(sync.warm_start().unwrap().generation(), generation);
    }

    #[test]
    fn the_changes_since_the_begin_of_a_comparison_are_recorded() {
        let key = HashKey([3; 16]);
        let mut sync = warm();
        let path = b"/src/before/f";
        sync.ingest(Event::Modify { path }, 0);
        sync.begin_full_comparison();
        let path = b"/src/d/f";
        sync.ingest(Event::Modify { path }, 0);
        let path = b"/src/e/";
        sync.ingest(Event::Delete { path }, 0);
        sync.full_comparison_succeeded();
        let [directories, trees] = sync.warm_start().unwrap().changed().hashes(&key);
        let has = |directory: &[u8]| directories.contains(&key.path(directory));
        assert!(has(b"/d/") && has(b"/") && !has(b"/before/"));
        assert_eq!(trees.len(), 1);
        assert!(trees.contains(&key.path(b"/e/")));
    }

    /// Returns the plan of a startup that compares these directories.
    fn plan(directories: &[&[u8]]) -> DirectoryPlan {
        DirectoryPlan {
            files: vec![b"/same".to_vec()],
            ..DirectoryPlan::of(directories)
        }
    }

    /// Returns a sync that starts with these directories.
    fn planned(directories: &[&[u8]]) -> Sync {
        let mut sync = warm();
        sync.await_watches();
        let requeues = sync.requeues;
        assert!(sync.start_warm(plan(directories), SystemTime::now(), 0));
        assert_eq!(sync.requeues, requeues + 1);
        sync
    }

    #[test]
    fn a_warm_start_compares_the_directories_that_have_changed() {
        let sync = planned(&[b"/d/"]);
        assert_eq!(sync.startup_directories(), Some(&[b"/d/".to_vec()][..]));
        let etypes: Vec<_> = sync.queue.iter().map(|delay| delay.etype()).collect();
        assert_eq!(etypes, [Etype::Init]);
        assert_eq!(state(&sync), IndexState::Valid);
        assert!(!sync.warm_start().unwrap().changed().is_empty());
        // Without any there is nothing to compare.
        let sync = planned(&[]);
        assert!(sync.startup_directories().is_none() && sync.queue.is_empty());
        assert!(sync.verify.is_searching());
        assert!(warm().startup_directories().is_none());
        // The sync has started meanwhile.
        let mut sync = warm();
        assert!(!sync.start_warm(plan(&[b"/d/"]), SystemTime::now(), 0));
        assert!(sync.startup_directories().is_none() && sync.queue.is_empty());
    }

    /// Too many to be listed: the index is made anew after the comparison.
    #[test]
    fn a_startup_that_compares_everything_after_all_makes_an_index() {
        let mut sync = planned(&[b"/d/"]);
        sync.forget_startup_directories();
        assert_eq!(sync.startup_directories(), None);
        assert_eq!(state(&sync), IndexState::Invalid);
        sync.full_comparison_succeeded();
        assert!(matches!(state(&sync), IndexState::Compared { .. }));
        let mut sync = planned(&[]);
        sync.forget_startup_directories();
        assert_eq!(state(&sync), IndexState::Valid);
    }

    /// The digest of a directory that changes again within a tick would be that of its new state.
    #[test]
    fn an_index_is_made_when_its_timestamps_are_old_enough() {
        let mut sync = warm();
        let now = Instant::now();
        sync.begin_full_comparison();
        sync.warm_start_mut().unwrap().succeeded(now);
        let IndexState::Compared { due, .. } = state(&sync) else {
            panic!("no index is made");
        };
        assert_eq!(due, now + INDEX_DELAY);
    }

    #[test]
    fn changes_are_taken_once() {
        let mut sync = warm();
        let path = b"/src/d/f";
        sync.ingest(Event::Modify { path }, 0);
        let warm = sync.warm_start_mut().unwrap();
        assert!(!warm.take_changed().is_empty());
        assert!(warm.take_changed().is_empty());
    }

    /// The target would lack what has changed, and no later comparison would find it.
    #[test]
    fn an_index_is_neither_used_nor_made_when_the_target_may_differ() {
        type Change = fn(&mut Sync);
        let changes: [(&str, Change); 5] = [
            ("has ended", |sync| {
                sync.lifecycle.end(crate::process::ExitStatus::Exit(5));
            }),
            ("source", |sync| {
                sync.halt("empty".into());
            }),
            ("source", |sync| {
                sync.lifecycle.lose_source("gone");
                sync.lifecycle.resume();
            }),
            ("not mounted", |sync| {
                sync.remember_nested_mounts([b"/src/in".to_vec()].into_iter());
                sync.update_nested_mounts(&Default::default());
            }),
            ("deletions", |sync| sync.owes_deletions = true),
        ];
        assert_eq!(warm().index_obstacle(), None);
        for (reason, change) in changes {
            let mut sync = warm();
            change(&mut sync);
            let obstacle = sync.index_obstacle();
            assert!(
                obstacle.is_some_and(|it| it.contains(reason)),
                "{obstacle:?}"
            );
        }
    }

    #[test]
    fn another_source_filter_or_option_is_another_index() {
        type Change = fn(&mut Sync);
        let configured = |condition: &[u8]| {
            Some(crate::config::WarmStartConfig {
                conditions: vec![condition.to_vec()],
                verify_every: None,
                by_directory: true,
                hard_links: false,
                by_name: false,
                local_target: None,
            })
        };
        let changes: [Change; 5] = [
            |_| {},
            |sync| sync.config.source = b"/other/".to_vec(),
            |sync| {
                sync.filter.write().unwrap().add_exclude(b"*.o");
            },
            |sync| sync.filter.write().unwrap().append_rule(b"- *.o").unwrap(),
            |sync| {
                if let Some(config) = &mut sync.config.warm_start {
                    config.conditions.push(b"--checksum".to_vec());
                }
            },
        ];
        let fingerprints = changes.map(|change| {
            let mut sync = warm();
            sync.config.warm_start = configured(b"rsync 3.2.7");
            change(&mut sync);
            let fingerprint = index_fingerprint(&sync.index_conditions());
            assert_eq!(fingerprint, index_fingerprint(&sync.index_conditions()));
            fingerprint
        });
        let distinct: std::collections::BTreeSet<_> = fingerprints.iter().collect();
        assert_eq!(distinct.len(), fingerprints.len());
    }
}
