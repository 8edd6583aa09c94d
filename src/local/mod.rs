//! default.direct at a local target: copies, renames and deletes without rsync.
//!
//! A [`CopyWorker`] is a thread that receives each [`CopyJob`], the due events of one sync, and
//! updates the target with the system calls that cp, mv, rm and mkdir use. Events name the paths;
//! the state of both disks decides what is done.
//!
//! | file | what it does |
//! |---|---|
//! | `beneath` | a tree opened from its root, in which no symlink is ever followed |
//! | `beneath_tests` | tests of it |
//! | `copy` | one file: contents, attributes, and its name in one step |
//! | `copy_tests` | tests of it |
//! | `attributes` | owner, mode, times, and extended attributes |
//! | `mirror` | one job: applies each event to the target |
//! | `mirror_tests` | tests of jobs with few rights, and of errors |
//! | `compare` | compares whole directories: copies and removes |
//! | `deletions` | counts the deletions of a job |
//! | `preview` | the effects of a full comparison, without executing it |
//! | `touched_paths` | paths whose renames have to be followed by a comparison |
//! | `links` | the names of files with several |
//! | `relink` | preserves hard links during a job |
//! | `renames` | carries out Moves |
//! | `temporary` | temporary files in directories that other users may change |
//! | `walk` | the order in which a tree is walked |
//! | `worker` | the thread |
//! | `copy_control` | the stop flag and the progress of a running job |
//!
//! The room may call `batch`, `filter`, `log` and `process`. It knows neither syncs nor queues, and
//! it never opens a path of source or target by name.

pub(crate) mod attributes;
pub(crate) mod beneath;
mod compare;
pub(crate) mod copy;
mod copy_control;
mod deletions;
mod links;
mod mirror;
mod preview;
mod relink;
mod renames;
mod temporary;
mod touched_paths;
mod walk;
mod worker;

use std::sync::{Arc, PoisonError, RwLock};

use crate::batch::Change;
use crate::config::MaxDelete;
use crate::filter::Filter;

pub use attributes::Unset;
pub use copy_control::{CopyControl, StopCheck};
pub use mirror::{Memory, run_job};
pub use preview::preview;
pub use worker::{CopyEnded, CopyWorker};

/// The work for one sync.
pub struct CopyJob {
    /// A number that is returned with the result.
    pub token: u64,
    /// The source, an absolute path.
    pub source: Vec<u8>,
    /// Device and inode of the source, if another directory at the path must not be copied.
    pub source_numbers: Option<(u64, u64)>,
    /// The target, a local directory; created if its parent exists.
    pub target: Vec<u8>,
    /// True if files on the target that are not in the source are to be deleted.
    pub delete: bool,
    /// True if events delete only what they name: the comparison of another directory does not.
    pub keeps_others: bool,
    /// True if excluded files are deleted as well.
    pub delete_excluded: bool,
    /// The paths that are excluded wherever a directory is compared; events have passed it already.
    pub filter: Arc<RwLock<Filter>>,
    /// The work to be done.
    pub task: CopyTask,
    /// True if every rename that was on disk when this worker last did something is known by now,
    /// and has been carried out: see [`touched_paths`].
    pub renames_applied: bool,
    /// The maximum number of deletions; if there would be more, nothing is done.
    pub limit: Option<MaxDelete>,
    /// Stops the work before it is done, and shows its progress.
    pub control: Arc<CopyControl>,
}

impl CopyJob {
    /// Returns true if the filter excludes this path in a directory that it does not exclude.
    fn excludes(&self, path: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.excluded_here(path)
    }

    /// Returns true if this path is protected on the target.
    fn protects(&self, path: &[u8]) -> bool {
        !self.delete_excluded && self.excludes(path)
    }
}

/// The kind of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyTask {
    /// The whole source is compared with the target.
    Everything,
    /// These directories are compared, each without those below it. The paths have slashes around
    /// them; each is behind the directory that contains it.
    Directories(Vec<Vec<u8>>),
    /// These events, in their order.
    Events(Vec<CopyItem>),
}

/// One due event. Paths begin with `/`, those of directories end with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyItem {
    /// The reported change.
    pub change: Change,
    /// The path, relative to the source.
    pub path: Vec<u8>,
    /// The new path of a [`Change::Move`].
    pub to: Option<Vec<u8>>,
}

/// The result of a job.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// Paths that failed, in order.
    pub failures: Vec<CopyFailure>,
    /// Moves that were no renames on the target; their new paths were copied.
    pub split: Vec<Vec<u8>>,
    /// The number of deletions and of all entries, if the limit was exceeded and nothing was done.
    pub excess: Option<(u64, u64)>,
    /// Attributes that the target does not permit. The files arrived.
    pub unset: Unset,
    /// True if a changed file has names in the source that are not known, whose copies are old.
    pub names_missing: bool,
    /// True if the job was stopped. Any part of it may not have been done.
    pub is_stopped: bool,
    /// The reason if nothing could be done: source or target cannot be opened.
    pub closed: Option<String>,
}

/// A path that could not be updated.
#[derive(Debug)]
pub struct CopyFailure {
    /// The path relative to the source; a trailing slash includes everything below.
    pub path: Vec<u8>,
    /// The reason, with the path that was tried.
    pub reason: String,
    /// The target has a directory at the path that is not deleted.
    pub obstructed: bool,
}

impl CopyReport {
    /// Returns the exit code of rsync(1) for the result: success, partial transfer, or no access.
    pub fn code(&self) -> i32 {
        match (&self.closed, self.failures.is_empty()) {
            (Some(_), _) => 11,
            (None, true) => 0,
            (None, false) => 23,
        }
    }
}
