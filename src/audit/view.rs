//! The part of the daemon's state that audits read.

use crate::component::SamplePlace;
use crate::control::DaemonView;
use crate::id::{ConnectionId, SyncId};
use crate::process::Command;
use crate::script::{Comparison, ComparisonScope};

/// A view of the daemon.
pub trait AuditView: DaemonView {
    /// Returns true if the client is still connected.
    fn is_connected(&self, client: ConnectionId) -> bool;

    /// Returns the name and the source of a sync; `None` if a reload has removed it.
    fn source(&self, sync: SyncId) -> Option<(String, Vec<u8>)>;

    /// Returns why pending changes of a sync do not reach the target now.
    fn obstacle(&self, sync: SyncId) -> Option<Obstacle>;

    /// Returns true if the path may have changed since the last but one division of the record.
    fn has_changed(&self, sync: SyncId, path: &[u8]) -> bool;

    /// Returns true if the source has a directory, false if it has a file there, and `None` if it
    /// has nothing.
    fn is_directory(&self, sync: SyncId, path: &[u8]) -> Option<bool>;

    /// Returns the part of a sync's files that a comparison by sample reads next, as of the last
    /// start of the daemon.
    fn sample(&self, sync: SyncId) -> Option<SamplePlace>;

    /// Returns the dry run for a part of a sync.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be compared.
    fn comparison(
        &self,
        sync: SyncId,
        scope: &ComparisonScope,
        by_content: bool,
    ) -> Result<Comparison, String>;

    /// Returns the command that prints the version of the rsync on the target of a comparison;
    /// `None` if no remote shell reaches it.
    fn remote_version(&self, sync: SyncId, comparison: &Comparison) -> Option<Command>;

    /// Returns the name of this host.
    fn host(&self) -> String;

    /// Returns the time in seconds since the epoch.
    fn wall_time(&self) -> f64;
}

/// Why pending changes do not reach the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The sync transfers nothing, so that nothing can be compared.
    Halted(String),
    /// Some paths or all of them fail. The rest can be compared.
    Failing(String),
}
