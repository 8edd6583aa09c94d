//! Watches directory trees with fanotify(7): one mark for each file system.
//!
//! Events of all directories of a file system are reported, each with the handle of the directory,
//! which identifies it wherever it is, and a name. Nothing is read before the first event, and
//! directories without changes take no memory. The path of the directory must be determined, and if
//! it is inside a source.
//!
//! | file | what it does |
//! |---|---|
//! | `records` | the kernel's record format and the mask |
//! | `places` | the roots and mount points at which file systems are seen, and their marks |
//! | `directories` | the known directories: lookup by handle, path |
//! | `lookup` | finds the path of a directory that is not known |
//! | `irrelevant` | drops events of directories outside, on the reader's thread |
//! | `backend` | combines the above: one turn |
//! | `dispatch` | handles each event by its kind |
//! | `renames` | handles renames |
//! | `upcoming` | renames of directories that have been read and not handled |
//! | `shadow` | reports that are ahead of the events in the kernel's queue |
//! | `rechecks` | names whose last events may have been handled out of order |
//! | `contents` | reads a directory that has come from outside |
//! | `roots` | the roots of scopes: set, lost, found again |
//! | `tree_counts` | the sizes of trees, if they are needed |
//! | `test_rig` | makes records of real directories, for the tests below |
//! | `backend_tests` | tests of the limits and the order of a turn |
//! | `event_tests` | tests of events of one name, of look-ups and rechecks |
//! | `rename_tests` | tests of renames |
//! | `root_tests` | tests of the roots |
//! | `place_tests` | tests of the places |

mod backend;
mod contents;
mod directories;
mod dispatch;
#[cfg(test)]
mod event_tests;
mod irrelevant;
mod lookup;
mod places;
mod rechecks;
pub mod records;
#[cfg(test)]
mod rename_tests;
mod renames;
#[cfg(test)]
mod root_tests;
mod roots;
mod shadow;
#[cfg(test)]
mod test_rig;
mod tree_counts;
mod upcoming;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use super::open_files::OpenFiles;
use super::reader::{Chunk, Reader};
use super::scopes::Scopes;
use contents::{ContentsRead, RunningRead};
use directories::KnownDirectories;
use places::Places;
use rechecks::NameRechecks;
use renames::RecentRenames;
use roots::ScopeRoots;
use shadow::Shadow;
use tree_counts::TreeCounts;
use upcoming::UpcomingRenames;

/// Watches directory trees with fanotify(7).
pub struct FanotifyBackend {
    reader: Reader,
    places: Places,
    waker: Arc<Waker>,
    counts: TreeCounts,

    scopes: Scopes,
    roots: ScopeRoots,
    /// Roots that cannot be watched this way, with the reason.
    refused: Vec<(Vec<u8>, String)>,
    known: KnownDirectories,
    open_files: OpenFiles,

    /// Events that were read and not handled.
    pending: VecDeque<Chunk>,
    /// The position behind the event that is being handled.
    position: u64,
    /// The number of waits for the reader in this turn.
    catch_ups: usize,
    /// Reports that are ahead of the events in the queue.
    shadow: Shadow,
    /// Renames of directories in the events that were read and not handled.
    upcoming: UpcomingRenames,
    /// The position up to which a rename may have replaced a directory.
    replaced: u64,
    /// The handle of the last directory of which that was found out at the rename.
    last_replaced: Vec<u8>,
    rechecks: NameRechecks,
    recent: RecentRenames,

    /// Directories whose contents are reported before the next event is handled.
    reads: VecDeque<ContentsRead>,
    running: Option<RunningRead>,

    /// Events may have been lost.
    dirty: bool,
    /// The places must be determined again.
    places_changed: bool,
    /// The time of this turn.
    now: Instant,
    /// The directory in which a name was looked up last in this turn.
    opened: Option<(usize, Vec<u8>, OwnedFd)>,
    /// A buffer for the paths of events.
    path: Vec<u8>,
}
