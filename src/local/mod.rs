//! What default.direct does itself at a target that is a local directory.
//!
//! A [`CopyWorker`] is a thread that takes [`CopyJob`], the due events of one sync, and brings the
//! target to where the source is, by the system calls that cp, mv, rm and mkdir would make.
//! Events say where to look; both disks say what is to be done.
//!
//! | module | what it does |
//! |---|---|
//! | [`beneath`] | a tree entered from its root, in which no symlink is ever followed |
//! | [`copy`] | one file: contents, attributes, and its new name in one step |
//! | [`attributes`] | owner, mode, times, and extended attributes |
//! | [`mirror`] | one set of orders: what each event comes to |
//! | [`compare`] | whole directories: what differs is copied, what is too much removed |
//! | [`deletions`] | what would be deleted, counted |
//! | [`touched_paths`] | which renames at the target may not be believed |
//! | [`links`] | names of one file stay names of one file |
//! | [`temporary`] | new files in directories that other users may change |
//! | [`walk`] | the order in which a tree is gone through |
//! | [`worker`] | the thread |

pub(crate) mod attributes;
pub(crate) mod beneath;
mod compare;
pub(crate) mod copy;
mod deletions;
mod links;
mod mirror;
mod temporary;
mod touched_paths;
mod walk;
mod worker;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use crate::batch::Change;
use crate::config::MaxDelete;
use crate::filter::Filter;

pub use attributes::Unset;
pub use mirror::{Memory, carry_out};
pub use worker::{CopyEnded, CopyWorker};

/// Work for one sync.
pub struct CopyJob {
    /// Comes back with the result.
    pub token: u64,
    /// Absolute.
    pub source: Vec<u8>,
    /// A local directory; made if its parent exists.
    pub target: Vec<u8>,
    /// True if what is gone at the source is to be deleted at the target.
    pub delete: bool,
    /// What the filter excludes is deleted as well.
    pub delete_excluded: bool,
    /// What is left out wherever a directory is compared; events have passed it already.
    pub filter: Arc<RwLock<Filter>>,
    /// What is to be done.
    pub task: CopyTask,
    /// Every rename that was on disk when this worker last did something is known by now, and
    /// has been carried out: see [`touched_paths`].
    pub renames_applied: bool,
    /// The most that may be deleted; with more, nothing is done.
    pub limit: Option<MaxDelete>,
    /// Set when the work shall end before it is done.
    pub stop: Arc<AtomicBool>,
}

impl CopyJob {
    /// Returns true if the filter leaves out this path of a directory that it does not leave out.
    fn excludes(&self, path: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.excluded_here(path)
    }

    /// Returns true if the target keeps this, whatever the source has.
    fn protects(&self, path: &[u8]) -> bool {
        !self.delete_excluded && self.excludes(path)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyTask {
    /// The whole source is compared with the target.
    Everything,
    /// These events, in their order.
    Events(Vec<CopyItem>),
}

/// One due event. Paths begin with `/`, those of directories end with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyItem {
    /// What happened.
    pub change: Change,
    /// Where, relative to the source.
    pub path: Vec<u8>,
    /// The new path of a [`Change::Move`].
    pub to: Option<Vec<u8>>,
}

/// How the work went.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// What could not be done, in the order it was met.
    pub failures: Vec<CopyFailure>,
    /// Moves that were no renames at the target; their new paths were copied.
    pub split: Vec<Vec<u8>>,
    /// Nothing was done, as more would have been deleted than may be: how many entries, and of
    /// how many.
    pub excess: Option<(u64, u64)>,
    /// Attributes that the target does not permit. The files arrived.
    pub unset: Unset,
    /// Nothing can be done at all: source or target cannot be entered.
    pub closed: Option<String>,
}

/// A path that could not be brought up to date.
#[derive(Debug)]
pub struct CopyFailure {
    /// Relative to the source; a slash at the end stands for all below.
    pub path: Vec<u8>,
    /// In words, with the path as it was tried.
    pub reason: String,
}

impl CopyReport {
    /// In the exit codes of rsync(1): done, partly done, no access.
    pub fn code(&self) -> i32 {
        match (&self.closed, self.failures.is_empty()) {
            (Some(_), _) => 11,
            (None, true) => 0,
            (None, false) => 23,
        }
    }
}
