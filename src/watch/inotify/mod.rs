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
//! | `reconcile` | corrects the tree by comparison with the disk |
//! | `apply_listing` | applies the listing of a directory |
//! | `roots` | the roots of trees: set, lost, found again |
//! | `test_rig` | makes events of real watches, for tests |
//! | `event_tests` | tests of events that differ from the tree or the disk |
//! | `listing_tests` | tests of the listings of directories |

mod apply_listing;
mod arena;
mod backend;
mod crawl;
mod deferred_events;
mod dispatch;
#[cfg(test)]
mod event_tests;
#[cfg(test)]
mod listing_tests;
mod moves;
mod reconcile;
pub mod records;
mod roots;
#[cfg(test)]
mod test_rig;
mod tree;
mod tree_size;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use inotify::Inotify;
use mio::Waker;

use super::CrawlProgress;
use super::open_files::OpenFiles;
use super::reader::Reader;
use super::scopes::Scopes;
use crawl::Pool;
use deferred_events::DeferredEvents;
use moves::Moves;
use reconcile::Recheck;
use records::Kernel;
use roots::Roots;
use tree::{DirNode, Tree};
use tree_size::NamesRead;

/// Watches directory trees with inotify(7).
pub struct InotifyBackend {
    kernel: Kernel,
    /// The crawling threads; declared before the descriptor they use.
    pool: Pool,
    reader: Reader,
    inotify: Inotify,
    waker: Arc<Waker>,

    tree: Tree,
    moves: Moves,
    open_files: OpenFiles,
    scopes: Scopes,
    roots: Roots,

    /// True if the pool was busy at the last query.
    crawling: bool,
    /// The progress of reading roots, and the request to begin again afterwards.
    initial_scan: Option<CrawlProgress>,
    again: bool,
    names_read: NamesRead,
    /// Tokens of directories that the pool reads or will read.
    tickets: HashMap<u64, DirNode>,
    /// The number of tickets of each descriptor. Its events wait until it has none.
    pending_reads: HashMap<i32, u32>,
    /// Events that wait, in order for each descriptor.
    deferred: DeferredEvents,
    /// Descriptors whose deferred events may be handled.
    ready: VecDeque<i32>,

    rechecks: Vec<Recheck>,
    /// Watches that may belong to no node.
    orphans: Vec<i32>,

    /// The time of this turn.
    now: Instant,
    deadline: Option<Instant>,
    /// Buffers for the paths of events.
    from: Vec<u8>,
    path: Vec<u8>,
}
