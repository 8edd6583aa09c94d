//! What the kernel tells about directories.
//!
//! One inotify instance serves any number of directory trees. Its owner calls
//! [`Watcher::turn`] when the waker it gave away fires and is told, in the order things
//! happened, which paths changed. Three ideas carry the room:
//!
//! * **A watch descriptor is a directory's identity.** inotify_add_watch(2) gives the same
//!   number for the same inode, wherever it is. Asking for a path again is how the tree here
//!   is compared with the disk, in one system call and without opening anything.
//! * **Events are hints about names.** What is at a name now is asked of the disk, through a
//!   parent whose own path has been checked the same way. An answer that cannot be trusted,
//!   because some ancestor's rename has not been read yet, is a doubt to be cleared later.
//! * **First the watch, then the directory.** Whatever is made after the watch is an event,
//!   whatever was made before is found by reading, so nothing falls in between.
//!
//! | file | what it does |
//! |---|---|
//! | `inotify` | the kernel's record format and the mask |
//! | `reader` | a thread that empties the kernel queue whatever the rest is doing |
//! | `moves` | pairs the two halves of a rename by cookie |
//! | `tree` | the directories watched: name and descriptor look-up |
//! | `arena` | its memory |
//! | `crawl` | reads directories and sets watches below, on several threads |
//! | `scopes` | which directories are wanted, and who asked for them |
//! | `watcher` | puts the above together: one turn |
//! | `dispatch` | what each event means |
//! | `open_files` | files that are written and not closed |
//! | `reconcile` | brings the tree in line with the disk |
//! | `apply_listing` | takes in what was read of a directory |
//! | `event_mark` | whether all that happened before a moment has been told |
//! | `roots` | where trees begin, how they are lost and found |
//!
//! Paths are absolute bytes; those of directories end with `/`.

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
mod watcher;

use std::io;
use std::time::Instant;

pub use event_mark::EventMark;
pub use scopes::{Scope, Wants};
pub use watcher::Watcher;

/// Which kernel events count as a change of a file's contents: lsyncd's `inotifyMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InotifyMode {
    /// A file that was open for writing is closed.
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
    /// Something is there now: made, moved in, or found in a directory that is new.
    ///
    /// May be told more than once, and for something that is gone again already.
    Create {
        /// What appeared.
        path: &'a [u8],
    },
    /// The contents of a file changed.
    Modify {
        /// The file.
        path: &'a [u8],
    },
    /// Owner, mode, times or extended attributes changed.
    Attrib {
        /// What has other attributes now.
        path: &'a [u8],
    },
    /// Something is there no more, and of a directory nothing below it.
    Delete {
        /// What is gone.
        path: &'a [u8],
    },
    /// A rename. What was at `to` before is gone; of a directory that was there this is told
    /// before, as a [`Event::Delete`].
    Move {
        /// The old path.
        from: &'a [u8],
        /// The new path.
        to: &'a [u8],
    },
}

/// What an observer wants after [`Event::Move`] of a directory; ignored for all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing more.
    Nothing,
    /// Nothing more: the rename itself is taken in, with all that is below.
    Moved,
    /// Everything below the new path, told as [`Event::Create`].
    Contents,
}

/// Who is told what is found in a directory that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Nobody: only directories are of interest.
    Nobody,
    /// Everybody: the directory is new.
    All,
    /// Those who did not take in the rename of this number, see [`Observer::follow`].
    Unmoved(u64),
}

/// Why a root is watched no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was removed, or was never there.
    Deleted,
    /// It has another name now; what is there under the old one is something else.
    Moved,
    /// Its file system was unmounted.
    Unmounted,
}

/// How many records of inotify(7) these bytes are, for whoever wants to try the decoder with
/// what no kernel would say.
pub fn count_records(bytes: &[u8]) -> usize {
    inotify::decode(bytes).count()
}

/// How far the reading of roots has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrawlProgress {
    /// Directories read so far.
    pub directories: usize,
    /// When it began.
    pub started: Instant,
}

/// Who is told. Scopes are named by their index in what [`Watcher::set_scopes`] was given.
pub trait Observer {
    /// Something changed in some scope; who is concerned is the observer's to find out.
    fn event(&mut self, event: Event<'_>) -> Follow;

    /// The directory of the [`Event::Move`] that was told last is read now, and what is in it is
    /// told by [`Observer::found`] with this number, maybe later. Numbers are not used again.
    fn follow(&mut self, number: u64) {
        let _ = number;
    }

    /// Something is in the directory of that rename: an [`Event::Create`] for those who did not
    /// answer the rename with [`Follow::Moved`].
    fn found(&mut self, path: &[u8], number: u64) {
        let _ = number;
        self.event(Event::Create { path });
    }

    /// The contents of a file changed: it was closed after writing, or written to. Only the
    /// kernel's own words come this way, whatever else is taken for a change is an `event`.
    fn written(&mut self, path: &[u8], closed: bool) {
        let _ = closed;
        self.event(Event::Modify { path });
    }

    /// Events were lost. [`Watcher::rebuild`] puts the watches right; what changed
    /// meanwhile only a full comparison can tell.
    fn overflow(&mut self);

    /// The root of a scope is gone and nothing below it is watched.
    fn root_lost(&mut self, scope: usize, loss: Loss);

    /// A lost root is watched again. What changed meanwhile is not told.
    fn root_back(&mut self, scope: usize);

    /// The kernel's limit `fs.inotify.max_user_watches` is reached: this directory and
    /// what is below are not watched. Told for each directory that is tried.
    fn out_of_watches(&mut self, path: &[u8]);

    /// Something could not be watched or read, for the log: `what` was being done.
    fn trouble(&mut self, path: &[u8], error: &io::Error, what: &'static str);
}
