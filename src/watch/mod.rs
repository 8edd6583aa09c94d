//! Watches directory trees with inotify(7) and reports changes.
//!
//! One inotify instance serves any number of directory trees. The owner calls [`Watcher::turn`]
//! when the waker it passed in fires, and changed paths are reported to an [`Observer`] in the
//! order of the events. The design rests on three rules:
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
//! | `inotify` | the kernel's record format and the mask |
//! | `reader` | a thread that drains the kernel's queue independently of the main loop |
//! | `moves` | pairs the two halves of a rename by cookie |
//! | `tree` | the watched directories: lookup by name and by descriptor |
//! | `tree_size` | the number of directories and entries below a root |
//! | `arena` | the storage of the tree |
//! | `crawl` | reads directories and sets watches below, on several threads |
//! | `scopes` | the directories that each owner wants |
//! | `watcher` | combines the above: one turn |
//! | `dispatch` | handles each event by its kind |
//! | `deferred_events` | events of directories that are being read |
//! | `open_files` | files that are written and not closed |
//! | `reconcile` | brings the tree in line with the disk |
//! | `apply_listing` | applies the listing of a directory |
//! | `event_mark` | tells if all events before a moment have been reported |
//! | `roots` | the roots of trees: set, lost, found again |
//!
//! Paths are absolute bytes; those of directories end with `/`. The room may call `log` and `sys`;
//! it knows neither syncs nor filters nor queues.

mod apply_listing;
mod arena;
mod crawl;
mod deferred_events;
mod dispatch;
mod event_mark;
pub mod inotify;
mod moves;
mod open_files;
mod reader;
mod reconcile;
mod roots;
mod scopes;
mod tree;
mod tree_size;
mod watcher;

use std::io;
use std::time::Instant;

pub use event_mark::EventMark;
pub use scopes::{Scope, Wants};
pub use tree_size::TreeSize;
pub use watcher::Watcher;

/// The kernel events that count as a change of a file's contents: lsyncd's `inotifyMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InotifyMode {
    /// Closing a file that was open for writing.
    #[default]
    CloseWrite,
    /// Every write and truncation.
    Modify,
    /// Both; usually two events for a write.
    CloseWriteOrModify,
}

/// One change. Paths are absolute, those of directories end with `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The path exists now: created, moved in, or found in a directory that is new.
    ///
    /// It may be reported more than once, and for an object that is gone already.
    Create {
        /// The path of the object.
        path: &'a [u8],
    },
    /// The contents of a file changed.
    Modify {
        /// The file.
        path: &'a [u8],
    },
    /// Owner, mode, times or extended attributes changed.
    Attrib {
        /// The path of the object.
        path: &'a [u8],
    },
    /// The path does not exist any more; for a directory, nothing below it does.
    Delete {
        /// The path of the object.
        path: &'a [u8],
    },
    /// A rename. An object that was at `to` before is gone; a directory that was there is reported
    /// before, as an [`Event::Delete`].
    Move {
        /// The old path.
        from: &'a [u8],
        /// The new path.
        to: &'a [u8],
    },
}

/// The observer's answer to [`Event::Move`] of a directory; ignored for other events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// No further reports.
    Nothing,
    /// No further reports: the rename itself is applied, with everything below.
    Moved,
    /// Everything below the new path, reported as [`Event::Create`].
    Contents,
}

/// The observers to which the contents of a directory that is read are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// None: only directories are needed.
    Nobody,
    /// All: the directory is new.
    All,
    /// Those that did not apply the rename of this number, see [`Observer::follow`].
    Unmoved(u64),
}

/// The reason why a root is not watched any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was removed, or was never there.
    Deleted,
    /// It has another name now; the object at the old path is another one.
    Moved,
    /// Its file system was unmounted.
    Unmounted,
}

/// Returns the number of inotify(7) records in these bytes, for tests that feed the decoder with
/// arbitrary input.
pub fn count_records(bytes: &[u8]) -> usize {
    inotify::decode(bytes).count()
}

/// The progress of reading roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrawlProgress {
    /// The number of directories read so far.
    pub directories: usize,
    /// The time at which reading began.
    pub started: Instant,
}

/// The receiver of reports. Scopes are identified by their index in the argument of
/// [`Watcher::set_scopes`].
pub trait Observer {
    /// Reports a change in some scope; the observer finds out which scopes it concerns.
    fn event(&mut self, event: Event<'_>) -> Follow;

    /// Says that the directory of the last [`Event::Move`] is read now and that its contents are
    /// reported by
    /// [`Observer::found`] with this number, possibly later. Numbers are not reused.
    fn follow(&mut self, number: u64) {
        let _ = number;
    }

    /// Reports an object in the directory of that rename: an [`Event::Create`] for observers that
    /// did not answer the rename with [`Follow::Moved`].
    fn found(&mut self, path: &[u8], number: u64) {
        let _ = number;
        self.event(Event::Create { path });
    }

    /// Reports that the contents of a file changed: it was closed after writing, or written to.
    /// Only events of the kernel are reported this way; everything else that counts as a change is
    /// an `event`.
    fn written(&mut self, path: &[u8], closed: bool) {
        let _ = closed;
        self.event(Event::Modify { path });
    }

    /// Reports that events were lost. [`Watcher::rebuild`] restores the watches; changes in between
    /// are found only by a full comparison.
    fn overflow(&mut self);

    /// Reports that the root of a scope is gone and nothing below it is watched.
    fn root_lost(&mut self, scope: usize, loss: Loss);

    /// Reports that a lost root is watched again. Changes in between are not reported.
    fn root_back(&mut self, scope: usize);

    /// Reports that the limit `fs.inotify.max_user_watches` is reached: this directory and
    /// everything below it are not watched. It is reported for each directory that is tried.
    fn out_of_watches(&mut self, path: &[u8]);

    /// Reports for the log that an object could not be watched or read; `what` is the action that
    /// failed.
    fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str);
}
