//! One sync: its filter, its queue and what holds it back.
//!
//! What the kernel tells comes in through [`Sync::ingest`]; [`Sync::next`] says when there is
//! something to do. What is done about it is asked of Lua by the rooms above.

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
use crate::watch::Scope;

/// A filter that the crawl's threads ask as well; user code may add to it at run time.
pub type SharedFilter = Arc<RwLock<Filter>>;

/// What a sync wants next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// This entry may go now.
    Act(DelayId),
    /// Nothing before then.
    At(Time),
    /// Nothing until something happens.
    Nothing,
}

/// One sync at run time.
pub struct Sync {
    /// The key of what other parts keep for this sync.
    pub id: SyncId,
    /// As configured.
    pub config: SyncConfig,
    /// What it is not concerned with.
    pub filter: SharedFilter,
    /// What is to be done.
    pub queue: Queue,
    /// Which list a batch gets, as far as known of the two rsyncs.
    pub list_strategy: ListStrategy,
    /// When the last transfer ended; before the first, when the sync was made.
    pub last_transfer: SystemTime,
    /// Children of this sync.
    pub running: usize,
    /// A full comparison is a `Full` event if the sync's kind has a function for it.
    pub has_full: bool,
    /// When it is compared as a whole, whatever happens.
    pub crontab: Crontab,
    /// What transfers left undone.
    pub failed_paths: FailedPaths,
    /// Up to which size files are sent by comparisons of everything.
    pub size_bound: size_bound::SizeBound,
    /// What it has done so far.
    pub counters: Counters,
    /// What the environment of its transfers has beyond that of the daemon.
    pub environment: Vec<(OsString, OsString)>,
    /// As many whole sources are being compared as may be.
    pub startups_wait: bool,
    /// Not yet: its directories are not watched, or children of the sync in whose place it is
    /// still run.
    pub not_started: NotStarted,
    /// Up to when everything is at the target, and what rsync's quick check cannot tell.
    pub verify: verify::Verify,
    /// Equal for syncs that may share a journal; none for those that share nothing.
    pub group: Option<Vec<u8>>,
    journal_reader: Option<journal_reader::JournalReader>,
    scope: Scope,
    inherited: Vec<handover::PendingEvent>,
    in_flight: in_flight::InFlight,
    backoff: Backoff,
    queue_limit: QueueLimit,
    not_before: Option<Time>,
    /// The queue was full once: all is compared when it is empty.
    overrun: bool,
    lost: bool,
    paused: bool,
    /// Entries up to this serial number do not wait for their delay.
    flushed: u64,
    /// How often pending work has moved into new entries.
    carried: u64,
    /// Lines of error output that say nothing: transfers that did all wrote them as well.
    noise: BTreeSet<Vec<u8>>,
    /// The exit code after which this sync does nothing any more.
    ended: Option<i32>,
    /// Why nothing is sent until the source is what it should be.
    halted: Option<String>,
    /// The directory that is watched, and the deepest mount it is known to lie on.
    root_identity: Option<SourceIdentity>,
    mount: Vec<u8>,
    /// The directory that was taken as the source last, over losses and restarts.
    known: Option<SourceIdentity>,
    /// Another one than before, which has not been told.
    replaced: bool,
    /// What is mounted below it, or was.
    nested_mounts: nested_mounts::NestedMounts,
    /// Numbers of renames that were taken in as such, see [`Sync::moved_whole`].
    moved: VecDeque<u64>,
    target_mount: Option<target_mount::Mounted>,
    /// The next transfer may delete whatever it wants: a person has said so.
    pub unlimited: bool,
    /// Why a transfer was not begun: it would have deleted too much.
    pub excess: Option<String>,
    /// How many entries the target has, as far as known.
    pub entries: Option<u64>,
    /// What did not pass the checks, and where what did is kept.
    pub gate: Rc<Gate>,
    /// Transfers deleted nothing, as too much would have had to be protected.
    undeleted: bool,
}

impl Sync {
    /// A sync with an empty queue.
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
            crontab: Crontab::new(crate::sys::utc_offset),
            failed_paths: FailedPaths::new(config.delay),
            size_bound: size_bound::SizeBound::default(),
            counters: Counters::default(),
            environment: Vec::new(),
            startups_wait: false,
            not_started: NotStarted::default(),
            verify: verify::Verify::default(),
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

    /// Which directories this sync wants to be watched: each time the same function.
    pub fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// When something that happens now is due.
    pub fn due(&self, now: Time) -> Time {
        now + micros(self.config.delay.unwrap_or_default())
    }

    /// What was known of source and target under the configuration before.
    fn inherit_source_state(&mut self, old: &Sync) {
        self.root_identity.clone_from(&old.root_identity);
        // If its path is another now, another mount may be above it.
        self.remember_mount(&old.mount);
        self.known.clone_from(&old.known);
        self.nested_mounts.clone_from(&old.nested_mounts);
        self.target_mount.clone_from(&old.target_mount);
        self.entries = old.entries;
    }

    /// What to do now, as far as this sync's own limits go.
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

    /// The source is watched no longer. What its disappearance looked like is not the target's
    /// business: nothing is sent until [`Sync::go_on`]. True if that is news.
    pub fn source_lost(&mut self, why: &str) -> bool {
        self.lost = true;
        self.halted.is_none() && self.halt(why.to_owned())
    }

    /// It is watched again, whatever it is now.
    pub fn source_found(&mut self) {
        self.lost = false;
        self.root_identity = None;
    }

    /// Returns true if it is not watched.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Nothing of this sync starts before then: its action left everything as it was.
    pub fn pause(&mut self, until: Time) {
        self.not_before = Some(until);
    }

    /// The work on these entries is done.
    pub fn succeeded(&mut self, ids: &[DelayId]) {
        self.backoff.reset();
        self.clear_retries(ids);
        self.finish(ids);
    }

    /// These entries leave the queue, whatever is owed of them.
    pub fn finish(&mut self, ids: &[DelayId]) {
        for &id in ids {
            self.queue.finish(id);
        }
        if self.queue.is_empty() {
            self.failed_paths.none_tried();
        }
    }

    /// The work on these entries has to be done again, after a while that grows with each
    /// failure; the whole sync waits so long.
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

    /// The work has to be done again from `due` on, without having failed.
    pub fn redo(&mut self, ids: &[DelayId], due: Time) {
        for &id in ids {
            self.queue.retry(id, due);
        }
    }

    /// A transfer ended, well or not: it may have sent what has changed since.
    pub fn transferred(&mut self) {
        self.last_transfer = SystemTime::now();
        self.verify.transferred();
    }
}

/// All below the source that is not excluded.
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
