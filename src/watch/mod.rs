//! Watches directory trees and reports changes.
//!
//! The owner calls [`Watcher::turn`] when the waker it passed in fires, and changed paths are
//! reported to an [`Observer`] in the order of the events. The events come from a [`Backend`].
//!
//! | file | what it does |
//! |---|---|
//! | `watcher` | assigns trees to backends, and passes calls to them |
//! | `watcher_tests` | its tests |
//! | `backend` | the interface of a source of events |
//! | `backend_view` | the observer of one backend |
//! | `inotify` | events of inotify(7): one watch for each directory |
//! | `fanotify` | events of fanotify(7): one mark for each file system |
//! | `choice` | the choice of the backend for each tree |
//! | `reader` | a thread that drains the kernel's queue independently of the main loop |
//! | `scopes` | the directories that each owner wants |
//! | `open_files` | files that are written and not closed |
//! | `open_files_tests` | its tests |
//! | `test_rig` | a backend or the watcher on a temporary directory, for tests |
//! | `event_mark` | marks: all events before a moment have been reported |
//!
//! Paths are absolute bytes; those of directories end with `/`. The room may call `log`,
//! `mount_table` and `sys`; it knows neither syncs nor filters nor queues.

mod backend;
mod backend_view;
mod choice;
mod event_mark;
pub mod fanotify;
pub mod inotify;
mod open_files;
mod reader;
mod scopes;
#[cfg(test)]
mod test_rig;
mod watcher;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use backend::{Backend, TreeSize};
pub use choice::WatchChoice;
pub use event_mark::EventMark;
pub use scopes::{Scope, Wants};
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
    /// It may be reported more than once, and for an object that does not exist any more.
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
    /// before, as an [`Event::Delete`] or by [`Observer::renewed`].
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
    /// It was removed, or has never existed.
    Deleted,
    /// It has another name now; the object at the old path is another one.
    Moved,
    /// Its file system was unmounted.
    Unmounted,
}

/// Returns a number for a rename whose contents are reported. Syncs outlive a watcher, so numbers
/// are not reused.
pub(crate) fn next_rename() -> u64 {
    static RENAMES: AtomicU64 = AtomicU64::new(1);
    RENAMES.fetch_add(1, Ordering::Relaxed)
}

/// Returns the number of inotify(7) records in these bytes, for tests that feed the decoder with
/// arbitrary input.
pub fn count_records(bytes: &[u8]) -> usize {
    inotify::records::decode(bytes).count()
}

/// Returns the number of fanotify(7) records in these bytes, as [`count_records`] does.
pub fn count_fanotify_records(bytes: &[u8]) -> usize {
    let records = fanotify::records::decode(bytes);
    records
        .inspect(|record| drop(format!("{record:?}")))
        .count()
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

    /// Reports that something else may have been reported at a path than what is there, which is
    /// reported next: an [`Event::Delete`] for observers for which that is harmless.
    fn renewed(&mut self, path: &[u8]) {
        self.event(Event::Delete { path });
    }

    /// Reports that the directory that was at a path before [`Observer::renewed`] is known to have
    /// left it: an [`Event::Delete`] for observers that did not take the renewal for one.
    fn vacated(&mut self, path: &[u8]) {
        let _ = path;
    }

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
