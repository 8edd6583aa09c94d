//! What the owner uses: passes calls to the backend.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Waker;

use super::backend::{Backend, TreeSize};
use super::inotify::InotifyBackend;
use super::scopes::Scope;
use super::{CrawlProgress, InotifyMode, Observer};

/// Watches directory trees.
///
/// The owner creates one, sets the scopes, and calls [`turn`](Watcher::turn) whenever the waker
/// fires or [`next_deadline`](Watcher::next_deadline) has come.
pub struct Watcher {
    pub(super) inotify: InotifyBackend,
}

impl Watcher {
    /// Opens an inotify instance and starts the thread that reads it. `waker` fires when there is
    /// work.
    ///
    /// Under [`InotifyMode::CloseWrite`] a file that stays open for longer than `staleness` counts
    /// as changed, and again after each such time; `None`: only when it is closed.
    ///
    /// # Errors
    /// `EMFILE` if the user has too many instances (`fs.inotify.max_user_instances`) or the process
    /// too many descriptors.
    pub fn new(
        mode: InotifyMode,
        staleness: Option<Duration>,
        waker: Arc<Waker>,
    ) -> io::Result<Watcher> {
        let inotify = InotifyBackend::new(mode, staleness, waker)?;
        Ok(Watcher { inotify })
    }

    /// Handles everything that is available and reports it to `observer`.
    pub fn turn(&mut self, now: Instant, observer: &mut dyn Observer) {
        self.inotify.turn(now, observer);
    }

    /// Returns the time at which [`turn`](Watcher::turn) has to be called even if the waker does
    /// not fire.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.inotify.next_deadline()
    }

    /// Sets the directories to be watched.
    ///
    /// Watches that are still wanted stay. Roots of scopes that are new or have another function
    /// are read in the background without reports: after [`crawling`](Watcher::crawling) has ended,
    /// the owner of a new scope compares all of it. A root that does not exist is reported as lost
    /// at the next turn.
    pub fn set_scopes(&mut self, scopes: Vec<Scope>) {
        self.inotify.set_scopes(scopes);
    }

    /// Marks roots as lost whose path does not lead to them any more. The kernel sends no event
    /// when something is mounted over a directory, or when one of several mounts is removed.
    pub fn check_roots(&mut self) {
        self.inotify.check_roots();
    }

    /// Returns true if this path leads to its watched directory, if there is one.
    pub fn leads_to_root(&mut self, path: &[u8]) -> bool {
        self.inotify.leads_to_root(path)
    }

    /// Tries lost roots again. Those that exist are reported as back and read in the background
    /// like new ones.
    pub fn retry_roots(&mut self) {
        self.inotify.retry_roots();
    }

    /// Reads all roots again and sets missing watches, after an overflow. Like the initial scan
    /// this runs in the background and reports nothing.
    pub fn rebuild(&mut self) {
        self.inotify.rebuild();
    }

    /// Returns true if directories are being read in the background.
    pub fn crawling(&self) -> bool {
        self.inotify.crawling()
    }

    /// Returns the progress of reading roots while it goes on.
    pub fn progress(&self) -> Option<CrawlProgress> {
        self.inotify.progress()
    }

    /// Returns the number of watched directories. One that is mounted at two paths counts twice.
    pub fn watched(&self) -> usize {
        self.inotify.watched()
    }

    /// Returns the bytes of memory of the directory table.
    pub fn memory(&self) -> usize {
        self.inotify.memory()
    }

    /// Calls `show` with the watch descriptor and the absolute path of every watched directory.
    pub fn for_each_watch(&self, mut show: impl FnMut(i32, &[u8])) {
        self.inotify.for_each_watch(&mut show);
    }

    /// Returns the size of the watched tree below a directory, whose absolute path ends with `/`.
    /// Takes time in proportion to the number of directories.
    pub fn tree_size(&self, root: &[u8]) -> TreeSize {
        self.inotify.tree_size(root)
    }

    /// Has everything below a directory, whose absolute path ends with `/`, reported by
    /// [`Observer::found`] with the returned number, as after a rename. Returns `None` if the
    /// directory is not watched.
    pub fn report_contents(&mut self, directory: &[u8]) -> Option<u64> {
        self.inotify.report_contents(directory)
    }

    /// Returns the paths, among those for which `interested` returns true, of files that are being
    /// written. Each will be reported as a change, when it is closed or too old.
    pub fn being_written(&mut self, interested: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        self.inotify.being_written(interested)
    }

    /// Returns the paths, among these, of files that are being written. See
    /// [`Watcher::being_written`]; takes time in proportion to the number of paths.
    pub fn being_written_of(&mut self, paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        self.inotify.being_written_of(paths)
    }

    /// Returns the number of files that may be open for writing, in all directories.
    pub fn open_files(&self) -> usize {
        self.inotify.open_files()
    }

    /// Returns the age of the oldest change that is reported only when its file is closed or too
    /// old; `None` if there is none.
    pub fn oldest_open(&self) -> Option<Duration> {
        self.inotify.oldest_open()
    }

    /// Reports all files that were written and not closed as if they had been closed. Used at
    /// shutdown.
    pub fn report_all_open(&mut self, observer: &mut dyn Observer) {
        self.inotify.report_all_open(observer);
    }
}
