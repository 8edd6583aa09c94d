//! Whether everything that happened before a moment has been told to the observer.
//!
//! The kernel queues an event before the system call that causes it returns, and events are read in
//! order. So what was done before a moment has been told when all that was in the kernel's
//! queue at that moment has been read and taken in, and nothing that was taken in is held
//! back: no half of a rename, no doubt about a path, no directory that is still being read.

use super::watcher::Watcher;

/// A moment, as a place in the stream of events.
#[derive(Clone, Copy, Debug)]
pub struct EventMark(u64);

impl Watcher {
    /// This moment.
    pub fn moment(&self) -> EventMark {
        EventMark(self.reader.mark())
    }

    /// Returns true if all that happened before the moment has been told. To be asked right after
    /// [`turn`](Watcher::turn); it may say no for a while where everything has been told, never
    /// yes too early.
    pub fn has_told(&self, moment: EventMark) -> bool {
        self.reader.passed(moment.0)
            && !self.crawling
            && self.tickets.is_empty()
            && self.early.is_empty()
            && self.ready.is_empty()
            && self.moves.is_empty()
            && self.doubts.is_empty()
    }
}
