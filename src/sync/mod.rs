//! One sync: its filter, its queue, and the conditions of its transfers.
//!
//! Watcher events enter through [`Sync::ingest`]. [`Sync::next`] returns the next due entry.
//!
//! * `ingest`, `describe`: events to queue entries, and their log lines;
//! * `full_sync`, `in_flight`: full comparisons, and comparisons that precede a watch;
//! * `retry`, `backoff`, `failed_paths`, `blame`, `size_bound`: the retry rule, its delays, failed
//!   paths, their detection in rsync's messages, and size limits of targets;
//! * `move_fallback`: moves that fail at the target;
//! * `queue_limit`: the limit of pending paths;
//! * `journal_reader`: the journal shared by syncs of one source;
//! * `guard`, `identity`, `target_mount`, `nested_mounts`, `mount_table`: whether source and target
//!   are the expected directories on the expected mounts;
//! * `blocked_paths`: the effect of the check gate on transfers;
//! * `verify`, `recent`: changes that rsync's quick check cannot detect;
//! * `handover`: pending events for a new configuration or the next daemon;
//! * `commands`: pause, flush, retry, and marks of the control socket;
//! * `health`, `counters`: problems and statistics;
//! * `scheduler`, `clock`: fairness among syncs, and the time of queues;
//! * `tests`, `blame_tests`: tests.
//!
//! The room may call `cron`, `batch`, `scan`, `queue`, `filter` and `watch`. It starts no processes,
//! runs no Lua and knows nothing of the event loop.

mod backoff;
mod blame;
mod blocked_paths;
mod clock;
mod commands;
pub mod counters;
mod describe;
mod failed_paths;
mod full_sync;
mod guard;
mod handover;
mod health;
mod identity;
mod in_flight;
mod ingest;
mod journal_reader;
pub mod mount_table;
mod move_fallback;
mod nested_mounts;
mod queue_limit;
mod recent;
mod retry;
mod scheduler;
mod size_bound;
mod target_mount;
mod verify;

pub use backoff::Backoff;
pub use blame::{Blame, Entries, FailedEntries, LineKind};
pub use clock::Clock;
pub use commands::Mark;
pub use counters::Counters;
pub use failed_paths::FailedPaths;
pub use handover::NotStarted;
pub use identity::{SourceIdentity, SourcePlace};
pub use journal_reader::{choose_leaders, share, share_inherited};
pub use mount_table::{lasting, mounts, shared_kind};
pub use retry::{Again, Aside};
pub use scheduler::Scheduler;

pub use crate::queue::micros;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use self::queue_limit::QueueLimit;
use crate::batch::ListStrategy;
use crate::config::SyncConfig;
use crate::cron::Crontab;
use crate::filter::Filter;
use crate::id::SyncId;
use crate::queue::{DelayId, Policy, Queue, Ready, Time};
use crate::scan::Gate;
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
    /// The list strategy for batches, as far as the abilities of both rsyncs are known.
    pub list_strategy: ListStrategy,
    /// The end of the last transfer; before the first one, the creation of the sync.
    pub last_transfer: SystemTime,
    /// The number of running children.
    pub running: usize,
    /// The sync's kind has a function for `Full` events, used for full comparisons.
    pub has_full: bool,
    /// rsync sends a symlink to a directory as that directory.
    pub follows_links: bool,
    /// The times of unconditional full comparisons.
    pub crontab: Crontab,
    /// Paths that failed in partial transfers.
    pub failed_paths: FailedPaths,
    /// Up to which size files are sent by comparisons of everything.
    pub size_bound: size_bound::SizeBound,
    /// Statistics.
    pub counters: Counters,
    /// Additional environment variables of its transfers.
    pub environment: Vec<(OsString, OsString)>,
    /// The startup has to wait because `maxStartups` is reached.
    pub startups_wait: bool,
    /// The reasons why the sync has not started yet.
    pub not_started: NotStarted,
    /// The time up to which everything is at the target, and the files to be compared by content.
    pub verify: verify::Verify,
    /// The size of the source before the last comparison of everything.
    pub tree_size: TreeSize,
    /// Equal for syncs that may share a journal; `None` for a sync that shares none.
    pub group: Option<Vec<u8>>,
    journal_reader: Option<journal_reader::JournalReader>,
    scope: Scope,
    inherited: Vec<handover::PendingEvent>,
    in_flight: in_flight::InFlight,
    backoff: Backoff,
    queue_limit: QueueLimit,
    not_before: Option<Time>,
    /// The queue has overflowed; a full comparison follows when it is empty.
    overrun: bool,
    lost: bool,
    paused: bool,
    /// Entries up to this serial number are due without their delay.
    flushed: u64,
    /// The number of times pending work was moved into new entries.
    carried: u64,
    /// Error lines that successful transfers have written as well.
    noise: BTreeSet<Vec<u8>>,
    /// The exit code that ended this sync.
    ended: Option<i32>,
    /// The reason why nothing is sent until the source is restored.
    halted: Option<String>,
    /// The watched directory and the deepest mount point it is known to be on.
    root_identity: Option<SourceIdentity>,
    mount: Vec<u8>,
    /// The directory last accepted as the source, kept over losses and restarts.
    known: Option<SourceIdentity>,
    /// The source was replaced, and this is not logged yet.
    replaced: bool,
    /// The mount points below the source, present and missing.
    nested_mounts: nested_mounts::NestedMounts,
    /// Numbers of renames that were queued as Moves, see [`Sync::moved_whole`].
    moved: VecDeque<u64>,
    target_mount: Option<target_mount::Mounted>,
    /// The next transfer is exempt from the delete limit, on request of the user.
    pub unlimited: bool,
    /// The message about a transfer that exceeds the delete limit.
    pub excess: Option<String>,
    /// The number of entries at the target, if known.
    pub entries: Option<u64>,
    /// The check gate, with the blocked files and the staging directory.
    pub gate: Rc<Gate>,
    /// Transfers ran without deletions, because too many paths had to be protected.
    undeleted: bool,
}

impl Sync {
    /// Returns a sync with an empty queue.
    pub fn new(config: SyncConfig, filter: Filter, policy: Policy, has_full: bool) -> Sync {
        let filter = Arc::new(RwLock::new(filter));
        Sync {
            id: SyncId::new(),
            scope: scope(&config, &filter),
            inherited: Vec::new(),
            group: None,
            journal_reader: None,
            filter,
            queue: Queue::new(policy),
            list_strategy: ListStrategy::default(),
            last_transfer: SystemTime::now(),
            running: 0,
            has_full,
            follows_links: false,
            crontab: Crontab::new(crate::sys::utc_offset),
            failed_paths: FailedPaths::new(config.delay),
            size_bound: size_bound::SizeBound::default(),
            counters: Counters::default(),
            environment: Vec::new(),
            startups_wait: false,
            not_started: NotStarted::default(),
            verify: verify::Verify::default(),
            tree_size: TreeSize::default(),
            in_flight: in_flight::InFlight::default(),
            backoff: Backoff::new(config.delay),
            queue_limit: QueueLimit::new(match policy {
                Policy::Coalesce => config.max_pending,
                Policy::PerEvent => usize::MAX,
            }),
            not_before: None,
            overrun: false,
            lost: false,
            paused: false,
            flushed: 0,
            carried: 0,
            noise: BTreeSet::new(),
            ended: None,
            halted: None,
            root_identity: None,
            mount: Vec::new(),
            known: None,
            replaced: false,
            nested_mounts: nested_mounts::NestedMounts::default(),
            moved: VecDeque::new(),
            target_mount: None,
            unlimited: false,
            excess: None,
            entries: None,
            gate: Rc::new(Gate::new(None)),
            undeleted: false,
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

    /// Takes over what is known of source and target from the replaced sync.
    fn inherit_source_state(&mut self, old: &Sync) {
        self.root_identity.clone_from(&old.root_identity);
        // If its path is another now, another mount may be above it.
        self.remember_mount(&old.mount);
        self.known.clone_from(&old.known);
        self.nested_mounts.clone_from(&old.nested_mounts);
        self.target_mount.clone_from(&old.target_mount);
        self.entries = old.entries;
    }

    /// Returns the next step within the limits of this sync.
    pub fn next(&mut self, now: Time) -> Next {
        let stopped = self.lost || self.halted.is_some() || self.ended.is_some();
        if stopped || self.paused || self.not_started.any() {
            return Next::Nothing;
        }
        if let Some(not_before) = self.not_before {
            if not_before > now {
                return Next::At(not_before);
            }
            self.not_before = None;
        }
        self.note_gap();
        if self.overrun && self.queue.is_empty() {
            self.overrun = false;
            self.resync(now);
        }
        if self.running >= self.config.max_processes {
            return Next::Nothing;
        }
        self.push_retries(now);
        let failed_paths = self.failed_paths.due();
        let more = self.pull(now);
        let later = failed_paths.into_iter().chain(more).min();
        match (self.ready(now), later) {
            (Ready::Now(id), _) if self.startups_wait && self.is_whole(id) => Next::Nothing,
            (Ready::Now(id), _) => Next::Act(id),
            (Ready::At(time), Some(due)) => Next::At(time.min(due)),
            (Ready::At(time), None) | (Ready::Nothing, Some(time)) => Next::At(time),
            (Ready::Nothing, None) => Next::Nothing,
        }
    }

    /// Handles the loss of the watched source. Nothing is sent until [`Sync::go_on`], so that its
    /// disappearance is not mirrored. Returns true if the loss was not known.
    pub fn source_lost(&mut self, why: &str) -> bool {
        self.lost = true;
        self.halted.is_none() && self.halt(why.to_owned())
    }

    /// Handles the return of the watched source.
    pub fn source_found(&mut self) {
        self.lost = false;
        self.root_identity = None;
    }

    /// Returns true if it is not watched.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Defers this sync, because its action changed nothing.
    pub fn pause(&mut self, until: Time) {
        self.not_before = Some(until);
    }

    /// Removes entries that succeeded, and resets the retry delay.
    pub fn succeeded(&mut self, ids: &[DelayId]) {
        self.backoff.reset();
        self.clear_retries(ids);
        self.finish(ids);
    }

    /// Removes entries from the queue without an effect on their failed paths.
    pub fn finish(&mut self, ids: &[DelayId]) {
        for &id in ids {
            self.queue.finish(id);
        }
        if self.queue.is_empty() {
            self.failed_paths.none_tried();
        }
    }

    /// Repeats failed entries after the retry delay, during which the whole sync waits. Returns the
    /// delay.
    pub fn failed(&mut self, ids: &[DelayId], now: Time) -> Duration {
        let wait = self.backoff.fail();
        let due = now + micros(wait);
        for &id in ids {
            self.queue.retry(id, due);
        }
        self.not_before = Some(due);
        wait
    }

    /// Returns true if the last work has to be done again.
    pub fn is_failing(&self) -> bool {
        self.backoff.failures() > 0
    }

    /// Repeats entries from `due` on, without counting a failure.
    pub fn redo(&mut self, ids: &[DelayId], due: Time) {
        for &id in ids {
            self.queue.retry(id, due);
        }
    }

    /// Handles the end of a transfer, successful or not.
    pub fn transferred(&mut self) {
        self.last_transfer = SystemTime::now();
        self.verify.transferred();
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
mod tests;
