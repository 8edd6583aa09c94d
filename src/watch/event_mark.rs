//! Determines if all events before a moment have been reported.
//!
//! The kernel queues an event before the system call that causes it returns, and events are read in
//! order. So a change made before a moment has been reported when the contents of the kernel's
//! queue at that moment have been read and handled, and nothing that was handled is pending: no
//! half of a rename, no recheck of a path, no directory that is still being read.

use super::backend::Backend;
use super::watcher::Watcher;

/// A position in the streams of events.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventMark {
    inotify: u64,
    fanotify: u64,
}

impl Watcher {
    /// Returns the current position.
    pub fn event_mark(&self) -> EventMark {
        let fanotify = self.fanotify.as_ref();
        EventMark {
            inotify: self.inotify.event_mark(),
            fanotify: fanotify.map_or(0, Backend::event_mark),
        }
    }

    /// Returns true if all events before the mark have been reported. To be called right after
    /// [`turn`](Watcher::turn). The result may be false for a while after everything has been
    /// reported; it is never true too early.
    pub fn has_reported(&self, moment: EventMark) -> bool {
        let mut fanotify = self.fanotify.iter();
        self.inotify.has_reported(moment.inotify)
            && fanotify.all(|backend| backend.has_reported(moment.fanotify))
    }
}
