//! One sync: its filter, its queue, and the conditions of its transfers.
//!
//! Watcher events enter through [`Sync::ingest`]. [`Sync::next`] returns the next due entry.
//!
//! * `phase`: whether transfers may start;
//! * `ingest`: events to queue entries, comparisons that precede a watch, and the limit of pending
//!   paths;
//! * `full_sync`: full comparisons;
//! * `retry`: the retry rule, its delays, failed paths, their detection in rsync's messages, size
//!   limits of targets, and moves that fail on the target;
//! * `overlap`: transfers of one sync that run at the same time;
//! * `guard`: whether source and target are the expected directories on the expected mounts;
//! * `warm_start`: the state of the index of the source;
//! * `verify`: changes that rsync's quick check cannot detect;
//! * `journal_reader`: the journal shared by syncs of one source;
//! * `left_out`: paths that cannot be transferred;
//! * `blocked_paths`: the effect of the check gate on transfers;
//! * `handover`: pending events for a new configuration or the next daemon;
//! * `commands`: pause, flush, retry, and marks of the control socket;
//! * `health`, `counters`, `recovery`: problems, statistics, and the end of failures;
//! * `scheduler`, `clock`: fairness among syncs, and the time of queues;
//! * `tests`, `commands_tests`, `handover_tests`, `user_code_tests`: tests.
//!
//! The room may call `cron`, `batch`, `scan`, `queue`, `filter` and `watch`. It starts no
//! processes, runs no Lua and knows nothing of the event loop.

mod blocked_paths;
mod clock;
mod commands;
#[cfg(test)]
mod commands_tests;
pub mod counters;
mod full_sync;
mod guard;
mod handover;
#[cfg(test)]
mod handover_tests;
mod health;
mod ingest;
mod journal_reader;
mod left_out;
mod overlap;
mod phase;
mod recovery;
mod retry;
mod scheduler;
#[cfg(test)]
mod user_code_tests;
mod verify;
mod warm_start;

pub use clock::Clock;
pub use commands::Mark;
pub use counters::Counters;
pub use guard::{DeleteGuard, MountChanges, SourceIdentity, TargetState};
pub use handover::PendingEvent;
pub use journal_reader::{choose_leaders, share, share_inherited};
pub use left_out::LeftOutReason;
pub use retry::{
    Backoff, Blame, Deferred, FailedEntries, LineKind, OtherNames, RetryEntries, RetryPlan,
};
pub use scheduler::Scheduler;
pub use warm_start::{IndexState, WarmStart, index_fingerprint};

pub use crate::queue::micros;

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use self::guard::GuardState;
use self::ingest::{ChangeRecord, InFlight, QueueLimit};
use self::phase::Lifecycle;
use self::retry::RetryState;
use crate::batch::ListStrategy;
use crate::config::SyncConfig;
use crate::cron::{Crontab, WallTime};
use crate::filter::Filter;
use crate::id::SyncId;
use crate::queue::{DelayId, Policy, Queue, Ready, Time};
use crate::staging::Gate;
use crate::watch::{Scope, TreeSize};

/// A filter shared with the crawl's threads. User code may add rules at run time.
pub type SharedFilter = Arc<RwLock<Filter>>;

/// The next step of a sync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Run the action for this entry.
    Act(DelayId),
    /// Nothing before this time.
    At(Time),
    /// Nothing until an event arrives.
    Nothing,
}

/// One sync at run time.
pub struct Sync {
    /// The id of the sync, under which other components store data.
    pub id: SyncId,
    /// The configuration.
    pub config: SyncConfig,
    /// The filter of excluded paths.
    pub filter: SharedFilter,
    /// The pending entries.
    pub queue: Queue,
    /// Statistics.
    pub counters: Counters,
    /// The check gate, with the blocked files and the staging directory.
    pub gate: Rc<Gate>,
    lifecycle: Lifecycle,
    retry: RetryState,
    guard: GuardState,
    verify: verify::Verify,
    /// What is known of the index; `None` without `init = "changed"`.
    warm_start: Option<WarmStart>,
    in_flight: InFlight,
    overlaps: overlap::Overlaps,
    queue_limit: QueueLimit,
    /// The paths that change while source and target are compared.
    changes: ChangeRecord,
    left_out: left_out::LeftOut,
    journal_reader: Option<journal_reader::JournalReader>,
    /// Equal for syncs that may share a journal; `None` for a sync that shares none.
    journal_group: Option<Vec<u8>>,
    /// The number of running children.
    running: usize,
    /// The end of the last transfer; before the first one, the creation of the sync.
    last_transfer: SystemTime,
    /// The last list protected paths on the target that the staged tree lacks, or nothing was deleted
    /// because of them.
    protects: bool,
    /// The list strategy for batches, as far as the abilities of both rsyncs are known.
    list_strategy: ListStrategy,
    /// Additional environment variables of its transfers.
    environment: Vec<(OsString, OsString)>,
    /// The times of unconditional full comparisons.
    crontab: Crontab,
    /// The sync's kind has a function for `Full` events, used for full comparisons.
    has_full: bool,
    /// The user has an action for `Full` events, used for full comparisons.
    has_on_full: bool,
    /// rsync sends a symlink to a directory as that directory.
    follows_links: bool,
    /// `maxStartups` is reached, so that full comparisons have to wait.
    defers_full_comparisons: bool,
    /// The size of the source before the last full comparison.
    tree_size: TreeSize,
    /// The last full comparison asked rsync for its progress.
    asks_progress: bool,
    /// Events were lost, for which a full comparison follows when the queue is empty.
    owes_comparison: bool,
    /// Transfers ran without deletions, because too many paths had to be protected.
    owes_deletions: bool,
    scope: Scope,
    /// The pending events of the replaced sync, until this one starts.
    inherited: Vec<handover::PendingEvent>,
    /// The inherited events for which children of the replaced sync run user code.
    run_by_predecessor: HashSet<handover::PendingEvent>,
    /// Entries up to this serial number are due without their delay.
    flushed_up_to: u64,
    /// The number of times pending work was moved into new entries.
    requeues: u64,
    /// Covers what was pending when the last failure was over; see [`Sync::recovers`].
    recovery: Option<Mark>,
    /// Numbers of directory renames that were queued as Moves.
    renames: VecDeque<u64>,
}

impl Sync {
    /// Returns a sync with an empty queue.
    pub fn new(config: SyncConfig, filter: Filter, policy: Policy, has_full: bool) -> Sync {
        let filter = Arc::new(RwLock::new(filter));
        Sync {
            id: SyncId::new(),
            scope: scope(&config, &filter),
            filter,
            queue: Queue::new(policy),
            counters: Counters::default(),
            gate: Rc::new(Gate::new(None)),
            lifecycle: Lifecycle::default(),
            retry: RetryState::new(config.delay),
            guard: GuardState::default(),
            verify: verify::Verify::default(),
            warm_start: config.warm_start.as_ref().map(|_| WarmStart::default()),
            in_flight: InFlight::default(),
            overlaps: overlap::Overlaps::default(),
            queue_limit: QueueLimit::new(match policy {
                Policy::Coalesce => config.max_pending,
                Policy::PerEvent => usize::MAX,
            }),
            changes: ChangeRecord::default(),
            left_out: left_out::LeftOut::default(),
            journal_reader: None,
            journal_group: None,
            running: 0,
            last_transfer: SystemTime::now(),
            protects: false,
            list_strategy: ListStrategy::default(),
            environment: Vec::new(),
            crontab: Crontab::new(crate::sys::utc_offset),
            has_full,
            has_on_full: false,
            follows_links: false,
            defers_full_comparisons: false,
            tree_size: TreeSize::default(),
            asks_progress: false,
            owes_comparison: false,
            owes_deletions: false,
            inherited: Vec::new(),
            run_by_predecessor: HashSet::new(),
            flushed_up_to: 0,
            requeues: 0,
            recovery: None,
            renames: VecDeque::new(),
            config,
        }
    }

    /// Returns the scope of directories to watch; always the same function.
    pub fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// Returns the due time of an event at `now`.
    pub fn due(&self, now: Time) -> Time {
        now + micros(self.config.delay.unwrap_or_default())
    }

    /// Returns the next step within the limits of this sync.
    pub fn next(&mut self, now: Time) -> Next {
        if !self.lifecycle.may_send() {
            return Next::Nothing;
        }
        if let Some(resume_at) = self.retry.wait(now) {
            return Next::At(resume_at);
        }
        self.note_gap();
        if self.owes_comparison && self.queue.is_empty() {
            self.owes_comparison = false;
            self.resync(now);
        }
        if self.running >= self.config.max_processes {
            return Next::Nothing;
        }
        self.push_retries(now);
        let failed_paths = self.failed_paths().due();
        let more = self.pull(now);
        let later = failed_paths.into_iter().chain(more).min();
        match (self.ready(now), later) {
            (Ready::Now(id), _) if self.defers_full_comparisons && self.is_whole(id) => {
                Next::Nothing
            }
            (Ready::Now(id), _) => Next::Act(id),
            (Ready::At(time), Some(due)) => Next::At(time.min(due)),
            (Ready::At(time), None) | (Ready::Nothing, Some(time)) => Next::At(time),
            (Ready::Nothing, None) => Next::Nothing,
        }
    }

    /// Counts a child that has started.
    pub fn child_started(&mut self) {
        self.running += 1;
    }

    /// Counts a child that has ended.
    pub fn child_ended(&mut self) {
        self.running -= 1;
    }

    /// Returns the number of running children.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Handles the end of a transfer, successful or not.
    pub fn transferred(&mut self) {
        self.last_transfer = SystemTime::now();
        self.verify.transferred();
    }

    /// Returns the end of the last transfer; before the first one, the creation of the sync.
    pub fn last_transfer(&self) -> SystemTime {
        self.last_transfer
    }

    /// Returns the list strategy for batches.
    pub fn list_strategy(&mut self) -> &mut ListStrategy {
        &mut self.list_strategy
    }

    /// Returns the additional environment variables of its transfers.
    pub fn environment(&self) -> &[(OsString, OsString)] {
        &self.environment
    }

    /// Sets the additional environment variables of its transfers.
    pub fn set_environment(&mut self, environment: Vec<(OsString, OsString)>) {
        self.environment = environment;
    }

    /// Adds a time of unconditional full comparisons.
    ///
    /// # Errors
    ///
    /// The rule is invalid; the error is the reason.
    pub fn add_crontab(&mut self, rule: &str) -> Result<(), String> {
        self.crontab.add(rule)
    }

    /// Returns the time of the next full comparison by crontab.
    pub fn next_cron(&self) -> Option<WallTime> {
        self.crontab.next()
    }

    /// Returns true if the sync's kind has a function for `Full` events.
    pub fn has_full(&self) -> bool {
        self.has_full
    }

    /// Returns the size of the source before the last full comparison.
    pub fn tree_size(&self) -> TreeSize {
        self.tree_size
    }

    /// Records the size of the source before a full comparison.
    pub fn set_tree_size(&mut self, size: TreeSize) {
        self.tree_size = size;
    }

    /// Returns true if the last full comparison asked rsync for its progress.
    pub fn asks_progress(&self) -> bool {
        self.asks_progress
    }

    /// Records whether a full comparison asks rsync for its progress.
    pub fn set_asks_progress(&mut self, asks: bool) {
        self.asks_progress = asks;
    }

    /// Records whether rsync sends a symlink to a directory as that directory.
    pub fn set_follows_links(&mut self, follows_links: bool) {
        self.follows_links = follows_links;
    }

    /// Returns the group of syncs that may share a journal; `None` for a sync that shares none.
    pub fn journal_group(&self) -> Option<&[u8]> {
        self.journal_group.as_deref()
    }

    /// Sets if the user has an action for `Full` events.
    pub fn set_has_on_full(&mut self, has_on_full: bool) {
        self.has_on_full = has_on_full;
    }

    /// Sets the group of syncs that may share a journal.
    pub fn set_journal_group(&mut self, group: Option<Vec<u8>>) {
        self.journal_group = group;
    }

    /// Returns the record of paths that change while source and target are compared.
    pub fn changes(&self) -> &ChangeRecord {
        &self.changes
    }

    /// Returns what is known of changes that rsync's quick check cannot detect.
    pub fn verify(&self) -> &verify::Verify {
        &self.verify
    }

    /// Returns what is known of changes that rsync's quick check cannot detect, for changes.
    pub fn verify_mut(&mut self) -> &mut verify::Verify {
        &mut self.verify
    }
}

/// Returns the scope of all directories below the source that are not excluded.
fn scope(config: &SyncConfig, filter: &SharedFilter) -> Scope {
    let filter = Arc::clone(filter);
    let subdirs = config.subdirs;
    Scope {
        root: config.source.clone(),
        wants: Arc::new(move |directory| {
            subdirs
                && !filter
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .excluded(directory)
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
