//! The part of the daemon's state that the control server reads.

use crate::component::SyncCommand;
use crate::id::SyncId;
use crate::status::snapshot::Snapshot;
use crate::status::trends::TrendPage;
use crate::sync::Mark;
use crate::watch::EventMark;

/// A read-only view of the daemon.
pub trait DaemonView {
    /// Returns the syncs with this name, or all without a name.
    fn syncs(&self, name: Option<&str>) -> Vec<SyncView>;

    /// Returns a snapshot of the syncs with this name, or of all, with at most `entries` entries of
    /// each queue.
    fn snapshot(&self, name: Option<&str>, entries: usize) -> Snapshot;

    /// Returns the series of the syncs with this name, or of all.
    fn trends(&self, name: Option<&str>) -> TrendPage;

    /// Returns what is known of an absolute path, for the sync of this name or for all.
    fn explain(&self, name: Option<&str>, path: &[u8]) -> String;

    /// Returns true if full comparisons of a sync leave out a path relative to its source, because a
    /// rule excludes it.
    fn leaves_out(&self, sync: SyncId, path: &[u8]) -> bool;

    /// Returns the current position in the stream of watch events.
    fn event_mark(&self) -> EventMark;

    /// Returns true if all events before the mark, and the startups of all syncs, are queued.
    fn has_reported(&self, moment: EventMark) -> bool;

    /// Returns true if the command changes anything in a sync.
    fn would_change(&self, sync: SyncId, command: &SyncCommand) -> bool;

    /// Returns a mark behind all entries of a sync's queue.
    fn mark(&self, sync: SyncId) -> Option<Mark>;

    /// Returns true if everything before the mark is on the target.
    fn reached(&self, sync: SyncId, mark: &mut Mark) -> bool;
}

/// One sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncView {
    /// Its id.
    pub id: SyncId,
    /// Its name.
    pub name: String,
    /// Its source.
    pub source: Vec<u8>,
    /// Its target as configured; empty for a sync without one.
    pub target: Vec<u8>,
    /// The key of its saved state.
    pub state_key: String,
    /// The exit code that ended it, if one has.
    pub ended: Option<i32>,
}
