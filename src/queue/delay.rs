//! The delay: lsyncd's term for an event in the queue.

use super::Queue;
use super::etype::{Etype, Status, Time};
use super::nodes::{NodeId, Slot};
use super::records::DelayId;

/// A read-only view of one delay of a queue.
#[derive(Clone, Copy)]
pub struct Delay<'a> {
    pub(super) queue: &'a Queue,
    pub(super) slot: Slot,
}

impl Delay<'_> {
    /// Returns the key of the delay.
    pub fn id(&self) -> DelayId {
        self.queue.entries.id(self.slot)
    }

    /// Returns the kind of the event.
    pub fn etype(&self) -> Etype {
        self.queue.entries[self.slot].etype
    }

    /// Returns the state of the delay.
    pub fn status(&self) -> Status {
        self.queue.entries[self.slot].status
    }

    /// Returns the time from which the delay may run.
    pub fn due(&self) -> Time {
        self.queue.entries[self.slot].due
    }

    /// Returns the time from which the delay could first run, before any retry. The value is
    /// rounded down to steps of about one second; it tells the age of pending work.
    pub fn first_due(&self) -> Time {
        self.queue.entries[self.slot].first_due()
    }

    /// Returns the delay this one waits for. An active delay can have a blocker too: both run in
    /// one batch.
    pub fn blocker(&self) -> Option<DelayId> {
        let blocker = self.queue.entries[self.slot].blocker?;
        Some(self.queue.entries.id(blocker))
    }

    /// Replaces the contents of `into` by the path: `/file`, `/directory/`, or nothing for Init and
    /// Blanket.
    pub fn path(&self, into: &mut Vec<u8>) {
        self.end(0, into);
    }

    /// Replaces the contents of `into` by a Move's destination. Returns false and leaves `into`
    /// empty if the delay is no Move.
    pub fn path2(&self, into: &mut Vec<u8>) -> bool {
        self.end(1, into)
    }

    /// Returns the path and, for a Move, the destination.
    pub fn paths(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        self.path(&mut from);
        let moved = self.path2(&mut to);
        (from, moved.then_some(to))
    }

    /// Returns true if the path is that of a directory.
    pub fn is_directory(&self) -> bool {
        let node = self.queue.entries[self.slot].ends[0].node;
        node.is_some_and(|node| self.queue.index.is_dir(node))
    }

    fn end(&self, end: usize, into: &mut Vec<u8>) -> bool {
        into.clear();
        let Some(node) = self.queue.entries[self.slot].ends[end].node else {
            return false;
        };
        self.queue.index.path(node, into);
        true
    }
}

/// Reads the paths of delays one after the other. A path in the directory of the one before costs
/// its last component only.
pub struct PathReader<'a> {
    queue: &'a Queue,
    /// The directory of the last path, and the length of its path.
    directory: Option<NodeId>,
    length: usize,
    path: Vec<u8>,
}

impl<'a> PathReader<'a> {
    /// Returns a reader for delays of a queue.
    pub fn new(queue: &'a Queue) -> PathReader<'a> {
        PathReader {
            queue,
            directory: None,
            length: 0,
            path: Vec::new(),
        }
    }

    /// Returns the path of a delay of this queue, as [`Delay::path`].
    pub fn read(&mut self, delay: &Delay<'_>) -> &[u8] {
        let index = &self.queue.index;
        let Some(node) = self.queue.entries[delay.slot].ends[0].node else {
            self.directory = None;
            return b"";
        };
        let (directory, name) = index.last_component(node);
        if directory.is_some() && directory == self.directory {
            self.path.truncate(self.length);
            self.path.extend_from_slice(name);
        } else {
            index.path(node, &mut self.path);
            self.directory = directory;
            self.length = self.path.len() - name.len();
        }
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::queue::Policy;

    proptest! {
        #[test]
        fn a_reader_returns_the_path_of_each_delay(
            paths in prop::collection::vec("(/[ab]{1,2}){1,4}/?", 1..30),
        ) {
            let mut queue = Queue::new(Policy::Coalesce);
            queue.push(Etype::Full, b"/", None, 0);
            for path in &paths {
                queue.push(Etype::Create, path.as_bytes(), None, 0);
            }
            let mut reader = PathReader::new(&queue);
            for delay in queue.iter() {
                prop_assert_eq!(reader.read(&delay), &delay.paths().0[..]);
                prop_assert_eq!(delay.is_directory(), delay.paths().0.ends_with(b"/"));
            }
        }
    }
}
