//! Watches directory trees with inotify(7): one watch for each directory.
//!
//! One instance serves any number of trees. The design rests on three rules:
//!
//! * **A watch descriptor identifies a directory.** inotify_add_watch(2) returns the same
//!   number for the same inode, wherever it is. Setting the watch of a path again compares
//!   the tree with the disk in one system call, without opening anything.
//! * **Events are hints about names.** The disk is asked for the object at a name, through a
//!   parent whose own path has been checked the same way. An answer that cannot be trusted,
//!   because an ancestor's rename has not been read yet, is rechecked later.
//! * **First the watch, then the directory.** Changes after the watch are events, and objects
//!   created before it are found by reading, so nothing is missed.
//!
//! | file | what it does |
//! |---|---|
//! | `records` | the kernel's record format and the mask |
//! | `moves` | pairs the two halves of a rename by cookie |
//! | `tree` | the watched directories: lookup by name and by descriptor |
//! | `tree_size` | the number of directories and entries below a root |
//! | `arena` | the storage of the tree |
//! | `crawl` | reads directories and sets watches below, on several threads |
//! | `backend` | combines the above: one turn |
//! | `dispatch` | handles each event by its kind |
//! | `deferred_events` | events of directories that are being read |
//! | `reconcile` | brings the tree in line with the disk |
//! | `apply_listing` | applies the listing of a directory |
//! | `roots` | the roots of trees: set, lost, found again |

mod apply_listing;
mod arena;
mod backend;
mod crawl;
mod deferred_events;
mod dispatch;
mod moves;
mod reconcile;
pub mod records;
mod roots;
mod tree;
mod tree_size;

pub use backend::InotifyBackend;
