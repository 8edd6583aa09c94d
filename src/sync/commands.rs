//! Commands of the control socket for one sync (pause, flush, retry, resync), and marks for the
//! completion of earlier changes.

use super::Sync;
use crate::component::SyncCommand;
use crate::paths;
use crate::queue::journal::Position;
use crate::queue::{Etype, Policy, Ready, Time};

/// A mark in a sync's queue. It covers the entries up to a serial number, and the entries that
/// replace these.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    serial: u64,
    requeues: u64,
    /// The end of the journal.
    journal_end: Position,
}

impl Sync {
    /// Carries out a command of a user.
    pub fn execute(&mut self, command: &SyncCommand, now: Time) {
        match command {
            // Events are still queued, and running transfers complete.
            SyncCommand::Pause => self.lifecycle.set_paused(true),
            SyncCommand::Resume => self.lifecycle.set_paused(false),
            SyncCommand::Flush => self.flush(),
            SyncCommand::Retry => self.retry_now(now),
            SyncCommand::Resync => self.resync(now),
            SyncCommand::ResyncOnce => self.resync_once(now),
            SyncCommand::ResyncPath(path) => self.resync_path(path, now),
            SyncCommand::Release => self.release_guard(now),
            SyncCommand::Repair(path) => self.repair_path(path, now),
            SyncCommand::RecordChanges => self.changes.begin(),
            SyncCommand::DivideChanges => self.changes.divide(),
            SyncCommand::ForgetChanges => self.changes.end(),
        }
    }

    /// Returns true if the command changes anything.
    pub fn would_change(&self, command: &SyncCommand) -> bool {
        match command {
            SyncCommand::Pause => !self.is_paused(),
            SyncCommand::Resume => self.is_paused(),
            SyncCommand::Flush => self.pending() > 0,
            SyncCommand::Retry => {
                self.pending() > 0 || self.is_failing() || self.failed_paths().due().is_some()
            }
            SyncCommand::Resync | SyncCommand::ResyncOnce => self.compares_everything(),
            SyncCommand::ResyncPath(_)
            | SyncCommand::Repair(_)
            | SyncCommand::RecordChanges
            | SyncCommand::DivideChanges
            | SyncCommand::ForgetChanges => true,
            SyncCommand::Release => {
                let is_held = self.halted().is_some() || self.delete_guard().excess().is_some();
                is_held || self.missing_mounts().next().is_some()
            }
        }
    }

    /// Returns true if it was paused.
    pub fn is_paused(&self) -> bool {
        self.lifecycle.is_paused()
    }

    /// Makes all pending entries due now.
    pub fn flush(&mut self) {
        self.flushed_up_to = self.queue.last_serial();
        self.flush_journal();
    }

    /// Returns the entries that are due.
    pub fn ready(&mut self, now: Time) -> Ready {
        match self.queue.first_ready(now, 0) {
            Ready::Now(id) if id.serial() <= self.flushed_up_to => Ready::Now(id),
            _ => self.queue.first_ready(now, self.config.max_delays),
        }
    }

    /// Queues a path that differs on the target, without the contents of a directory. Files are
    /// compared by content, since size and time may be equal.
    pub fn repair_path(&mut self, path: &[u8], now: Time) {
        let path = paths::bare(path);
        if path.is_empty() {
            return self.resync(now);
        }
        if self.is_directory(path) {
            self.note(Etype::Create, &paths::with_slash(path), now);
        } else if self.is_at_source(path) {
            self.verify.add(path);
            self.note(Etype::Modify, path, now);
        } else {
            self.note(Etype::Delete, path, now);
            self.note(Etype::Delete, &paths::with_slash(path), now);
        }
    }

    /// Queues a path of the source (`/a/b`), a directory with its contents. User code gets each
    /// path below a directory, which the watcher reports; what is not watched is not known, so
    /// everything is compared.
    pub fn resync_path(&mut self, path: &[u8], now: Time) {
        let path = paths::bare(path);
        let directory = paths::with_slash(path);
        let is_directory = self.is_directory(path);
        let is_listed = is_directory && self.queue.policy() == Policy::PerEvent;
        if path.is_empty() || is_listed {
            return self.resync(now);
        }
        let named = if is_directory { &directory } else { path };
        if self.excluded(named) {
            return;
        }
        if is_directory {
            self.push_contents(&directory, now);
        } else if self.is_at_source(path) {
            self.note(Etype::Create, path, now);
        } else {
            self.note(Etype::Delete, path, now);
        }
    }

    /// Returns a mark at the current end of the queue, for [`Sync::reached`].
    pub fn mark(&self) -> Mark {
        Mark {
            serial: self.queue.last_serial(),
            requeues: self.requeues,
            journal_end: self.journal_end(),
        }
    }

    /// Returns true if the target has all changes from before the mark.
    ///
    /// Work may move to new entries: a Move that fails becomes a Delete and a Create, and failed
    /// paths are queued again. Each time `requeues` is incremented, and the mark is set to the end
    /// of the queue again: later than needed, never too early.
    pub fn reached(&self, mark: &mut Mark) -> bool {
        if self.requeues != mark.requeues {
            *mark = self.mark();
        }
        if !self.has_read_journal(mark.journal_end) {
            return false;
        }
        if std::mem::take(&mut mark.journal_end) > 0 {
            // The journal's changes are in the queue now, with serial numbers up to the last one.
            mark.serial = self.queue.last_serial();
        }
        let is_complete = self.lifecycle.is_keeping_up()
            && !self.owes_comparison
            && !self.has_gap()
            && self.failed_paths().due().is_none()
            && self.inherited.is_empty()
            && !self.verify.is_searching();
        is_complete
            && self
                .queue
                .oldest()
                .is_none_or(|oldest| oldest.id().serial() > mark.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::error_lines;
    use crate::queue::{DelayId, Policy, Take};
    use crate::sync::Blame;
    use crate::sync::tests::sync_with;
    use crate::watch::Event;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SECOND: Time = 1_000_000;

    /// An event in the life of a sync.
    #[derive(Clone, Debug)]
    enum Step {
        Change(usize),
        Delete(usize),
        Move(usize, usize),
        Start,
        Succeed,
        Fail,
        /// The child fails for one entry, with an error line that names it or without.
        Partly(usize, bool),
        /// The child stops at one entry.
        Defer(usize),
        /// The Moves of the batch cannot be carried out on the target.
        Split,
        Retry,
        Mark,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = 0usize..4;
        prop::collection::vec(
            prop_oneof![
                4 => name.clone().prop_map(Step::Change),
                1 => name.clone().prop_map(Step::Delete),
                3 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Move(a, b)),
                5 => Just(Step::Start),
                3 => Just(Step::Succeed),
                1 => Just(Step::Fail),
                2 => (name.clone(), any::<bool>()).prop_map(|(n, named)| Step::Partly(n, named)),
                2 => name.prop_map(Step::Defer),
                2 => Just(Step::Split),
                1 => Just(Step::Retry),
                2 => Just(Step::Mark),
            ],
            1..60,
        )
    }

    /// The number of changes of each name at the source; the target holds one of these versions.
    type Versions = BTreeMap<Vec<u8>, u32>;

    struct World {
        sync: Sync,
        /// Another sync that shares the journal and does nothing.
        _other: Option<Sync>,
        now: Time,
        source: Versions,
        target: Versions,
        /// The running batch and the versions it found at the source.
        batch: Option<(Vec<DelayId>, Versions)>,
        marks: Vec<(Mark, Versions)>,
    }

    impl World {
        fn new(policy: Policy, shares: bool) -> World {
            let mut sync = sync_with(policy);
            let other = shares.then(|| {
                let mut other = sync_with(policy);
                sync.config.moves = false;
                other.config.moves = false;
                crate::sync::share(&mut sync, &mut other);
                other
            });
            World {
                sync,
                _other: other,
                now: SECOND,
                source: Versions::new(),
                target: Versions::new(),
                batch: None,
                marks: Vec::new(),
            }
        }

        fn bump(&mut self, name: &[u8]) {
            *self.source.entry(name.to_vec()).or_default() += 1;
        }

        fn event(&mut self, event: Event<'_>) {
            let names = match event {
                Event::Move { from, to } => vec![from, to],
                Event::Create { path } | Event::Modify { path } => vec![path],
                Event::Attrib { path } | Event::Delete { path } => vec![path],
            };
            names.into_iter().for_each(|name| self.bump(&name[4..]));
            self.sync.ingest(event, self.now);
        }

        fn begin(&mut self) {
            if self.batch.is_some()
                || !matches!(self.sync.next(self.now), crate::sync::Next::Act(_))
            {
                return;
            }
            let ids = self.sync.queue.take(|_| Take::Take);
            self.sync.queue.activate(&ids);
            let mut seen = Versions::new();
            for delay in ids.iter().filter_map(|&id| self.sync.queue.get(id)) {
                let (path, to) = delay.paths();
                for path in [Some(path), to].into_iter().flatten() {
                    let version = self.source.get(&path).copied().unwrap_or_default();
                    seen.insert(path, version);
                }
            }
            self.batch = Some((ids, seen));
        }

        fn end(&mut self, step: &Step) {
            let Some((ids, mut seen)) = self.batch.take() else {
                return;
            };
            match step {
                Step::Fail => {
                    self.sync.failed(&ids, self.now);
                    return;
                }
                Step::Partly(name, named) => {
                    let left = path(*name);
                    let line = format!(
                        "rsync: open \"/src{}\" failed: Permission denied (13)",
                        String::from_utf8_lossy(&left)
                    );
                    let known = seen.contains_key(&left) && *named;
                    let mut blame =
                        Blame::of_batch(self.sync.entries(&ids), &[b"/src/".to_vec()], 100);
                    if *named {
                        blame.take(error_lines::read(line.as_bytes()));
                    }
                    if known {
                        seen.remove(&left);
                    } else {
                        seen.clear()
                    }
                    self.sync
                        .partly_failed(&ids, blame.failed_paths(), self.now);
                    self.target.extend(seen);
                    return;
                }
                Step::Defer(name) => {
                    let left = path(*name);
                    let named = crate::sync::RetryEntries::from([(left.clone(), Etype::Modify)]);
                    let deferred = self.sync.defer_failed(&ids, &named, false, self.now);
                    if deferred.is_none() {
                        self.sync.failed(&ids, self.now);
                    }
                    return;
                }
                Step::Split => {
                    for &id in &ids {
                        let paths = self.sync.queue.get(id).map(|delay| delay.paths());
                        if let Some((from, Some(to))) = paths {
                            seen.remove(&from);
                            seen.remove(&to);
                            self.sync.split_move(id, self.now);
                        }
                    }
                }
                _ => {}
            }
            self.sync.succeeded(&ids);
            self.target.extend(seen);
        }

        fn step(&mut self, step: &Step) {
            self.now += SECOND;
            match step {
                Step::Change(n) => self.event(Event::Modify { path: &below(*n) }),
                Step::Delete(n) => self.event(Event::Delete { path: &below(*n) }),
                Step::Move(a, b) if a != b => self.event(Event::Move {
                    from: &below(*a),
                    to: &below(*b),
                }),
                Step::Move(..) => {}
                Step::Start => self.begin(),
                Step::Retry => self.sync.retry_now(self.now),
                Step::Mark => self.marks.push((self.sync.mark(), self.source.clone())),
                end => self.end(end),
            }
        }

        /// Checks that a mark counts as reached only if the target has the versions of before the
        /// mark.
        fn check(&mut self) -> Result<(), TestCaseError> {
            let (sync, target) = (&self.sync, &self.target);
            for (mark, then) in &mut self.marks {
                if sync.reached(mark) {
                    for (name, version) in then.iter() {
                        let has = target.get(name).copied().unwrap_or_default();
                        prop_assert!(has >= *version, "{}", name.escape_ascii());
                    }
                }
            }
            Ok(())
        }
    }

    fn path(name: usize) -> Vec<u8> {
        format!("/{}", ["a", "b", "c", "d"][name]).into_bytes()
    }

    fn below(name: usize) -> Vec<u8> {
        [b"/src", path(name).as_slice()].concat()
    }

    fn holds(policy: Policy, shares: bool, steps: &[Step]) -> Result<(), TestCaseError> {
        let mut world = World::new(policy, shares);
        for step in steps {
            world.step(step);
            world.check()?;
        }
        // Finally all transfers succeed and all marks are reached.
        for _ in 0..20 {
            world.now += 1000 * SECOND;
            world.sync.retry_now(world.now);
            world.begin();
            world.end(&Step::Succeed);
            world.check()?;
        }
        let sync = &world.sync;
        prop_assert!(world.marks.iter_mut().all(|(mark, _)| sync.reached(mark)));
        Ok(())
    }

    proptest! {
        #[test]
        fn changes_before_a_reached_mark_are_at_the_target(steps in steps()) {
            holds(Policy::Coalesce, false, &steps)?;
            holds(Policy::Coalesce, true, &steps)?;
            holds(Policy::PerEvent, false, &steps)?;
        }
    }

    #[test]
    fn a_startup_that_is_queued_after_a_mark_belongs_to_it() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.init = true;
        sync.await_watches();
        let mut mark = sync.mark();
        assert!(!sync.reached(&mut mark));
        assert!(sync.watched(0));
        assert!(!sync.reached(&mut mark));
        let ids: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        sync.queue.activate(&ids);
        sync.succeeded(&ids);
        assert!(sync.reached(&mut mark));
    }

    #[test]
    fn a_flush_concerns_entries_that_are_pending_now() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.ingest(Event::Modify { path: b"/src/a" }, 0);
        assert!(matches!(sync.ready(1), Ready::At(_)));
        sync.flush();
        let Ready::Now(id) = sync.ready(1) else {
            panic!("it does not go");
        };
        sync.queue.activate(&[id]);
        sync.succeeded(&[id]);
        sync.ingest(Event::Modify { path: b"/src/b" }, 2);
        assert!(matches!(sync.ready(3), Ready::At(_)));
    }

    /// The target is not like the source before they have arrived.
    #[test]
    fn the_times_of_directories_after_a_move_belong_to_the_changes_before_a_mark() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.ingest(Event::Modify { path: b"/src/a" }, 0);
        let mut mark = sync.mark();
        let ids = sync.queue.take(|_| Take::Take);
        sync.begin(&ids);
        sync.succeeded(&ids);
        sync.send_times([b"/".to_vec()].into(), 1);
        assert!(!sync.reached(&mut mark));
        let ids = sync.queue.take(|_| Take::Take);
        sync.begin(&ids);
        sync.succeeded(&ids);
        assert!(sync.reached(&mut mark));
    }

    #[test]
    fn a_comparison_that_replaces_lost_work_belongs_to_the_changes_before_a_mark() {
        for compare in [Sync::compare_once, Sync::resync, Sync::resync_once] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.has_full = true;
            let mut mark = sync.mark();
            compare(&mut sync, 1);
            assert!(!sync.reached(&mut mark));
        }
    }

    /// The queue is empty, but not everything that the target lacks is in it.
    #[test]
    fn what_is_not_queued_yet_belongs_to_the_changes_before_a_mark() {
        type Change = fn(&mut Sync);
        let cases: [(&str, Change); 6] = [
            ("lost events", |sync| sync.owes_comparison = true),
            ("a lost source", |sync| {
                sync.source_lost("gone");
            }),
            ("an unwatched source", Sync::await_watches),
            ("inherited events", |sync| {
                let change = (Etype::Modify, b"/a".to_vec(), None);
                sync.inherited.push(change);
            }),
            ("a search", |sync| {
                sync.verify.suspect();
                sync.verify.compares_all(true);
            }),
            ("found files", |sync| {
                let begun = std::time::SystemTime::now();
                let found = vec![b"/a".to_vec()];
                sync.verify.found_elsewhere(begun, begun, found);
            }),
        ];
        for (what, change) in cases {
            let mut sync = sync_with(Policy::Coalesce);
            let mut mark = sync.mark();
            assert!(sync.reached(&mut mark), "{what}");
            change(&mut sync);
            assert!(!sync.reached(&mut mark), "{what}");
        }
    }
}
