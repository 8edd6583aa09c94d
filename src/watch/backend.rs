//! The interface of a source of events.

use std::time::{Duration, Instant};

use super::{CrawlProgress, Observer, Scope};

/// The size of a watched tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// The number of watched directories, the root included.
    pub directories: usize,
    /// The estimated number of files and directories: the directories times the mean number of
    /// names that a directory of all trees had when it was read.
    pub entries: usize,
}

/// A source of events. [`Watcher`](super::Watcher) describes the methods.
pub trait Backend {
    /// Handles everything that is available and reports it to `observer`.
    fn turn(&mut self, now: Instant, observer: &mut dyn Observer);
    /// Returns the time at which `turn` has to be called even if the waker does not fire.
    fn next_deadline(&self) -> Option<Instant>;

    /// Sets the directories to be watched.
    fn set_scopes(&mut self, scopes: Vec<Scope>);
    /// Records roots that have been reported as lost by another backend, before they are set.
    fn expect_lost(&mut self, roots: &[Vec<u8>]);
    /// Marks roots as lost whose path does not lead to them any more.
    fn check_roots(&mut self);
    /// Returns true if this path leads to its watched directory, if there is one.
    fn leads_to_root(&mut self, path: &[u8]) -> bool;
    /// Tries lost roots again.
    fn retry_roots(&mut self);
    /// Brings all watches in line with the disk.
    fn rebuild(&mut self);

    /// Returns true if directories are being read in the background.
    fn crawling(&self) -> bool;
    /// Returns the progress of reading roots; `None` if none is being read.
    fn progress(&self) -> Option<CrawlProgress>;
    /// Returns the number of watches.
    fn watched(&self) -> usize;
    /// Returns the bytes of memory of the directory table.
    fn memory(&self) -> usize;
    /// Calls `show` with the number and the absolute path of every watch.
    fn for_each_watch(&self, show: &mut dyn FnMut(i32, &[u8]));
    /// Returns the size of the tree below a directory, whose absolute path ends with `/`.
    fn tree_size(&self, root: &[u8]) -> TreeSize;

    /// Reports everything below a directory by [`Observer::found`] with the returned number, as
    /// after a rename. Returns `None` if this cannot be done.
    fn report_contents(&mut self, directory: &[u8]) -> Option<u64>;

    /// Returns the current position in the stream of events.
    fn event_mark(&self) -> u64;
    /// Returns true if all events before the mark have been reported.
    fn has_reported(&self, mark: u64) -> bool;

    /// Returns the paths of files that are being written, among those of interest.
    fn being_written(&mut self, interested: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>>;
    /// Returns the paths of files that are being written, among these.
    fn being_written_of(&mut self, paths: Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    /// Returns the number of files that may be open for writing.
    fn open_files(&self) -> usize;
    /// Returns the age of the oldest change of a file that is not closed.
    fn oldest_open(&self) -> Option<Duration>;
    /// Reports all files that were written and not closed as if they had been closed.
    fn report_all_open(&mut self, observer: &mut dyn Observer);
}
