//! Watches directory trees with fanotify(7): one mark for each file system.
//!
//! Events of all directories of a file system are reported, each with the handle of the directory,
//! which identifies it wherever it is, and a name. Nothing has to be read before the first event, and
//! no memory is needed for a directory in which nothing changes. What has to be found out is the path
//! of the directory, and if it is inside a source at all.
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
//! | `shadow` | what has been told ahead of the events in the kernel's queue |
//! | `rechecks` | names whose last events may have been handled out of order |
//! | `contents` | reads a directory that has come from outside |
//! | `roots` | the roots of scopes: set, lost, found again |
//! | `tree_counts` | the sizes of trees, as far as they have to be known |

mod backend;
mod contents;
mod directories;
mod dispatch;
mod irrelevant;
mod lookup;
mod places;
mod rechecks;
pub mod records;
mod renames;
mod roots;
mod shadow;
mod tree_counts;
mod upcoming;

pub use backend::FanotifyBackend;
