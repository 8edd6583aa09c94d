//! Events of directories that are being read. They wait until the directory's node is known.

use hashbrown::HashMap;

/// Encoded events by the descriptor of their directory, in order for each descriptor.
#[derive(Default)]
pub(super) struct DeferredEvents {
    events: HashMap<i32, Vec<u8>>,
    bytes: usize,
}

impl DeferredEvents {
    /// Appends an event to those of its directory.
    pub(super) fn push(&mut self, wd: i32, event: &[u8]) {
        self.bytes += event.len();
        self.events.entry(wd).or_default().extend(event);
    }

    /// Removes and returns the events of a directory.
    pub(super) fn remove(&mut self, wd: i32) -> Option<Vec<u8>> {
        let events = self.events.remove(&wd)?;
        self.bytes -= events.len();
        Some(events)
    }

    /// Drops the events of all directories for which `keep` returns false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(i32) -> bool) {
        let bytes = &mut self.bytes;
        self.events.retain(|&wd, events| {
            let keeps = keep(wd);
            if !keeps {
                *bytes -= events.len();
            }
            keeps
        });
    }

    /// Drops all events.
    pub(super) fn clear(&mut self) {
        *self = DeferredEvents::default();
    }

    /// Returns true if no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the bytes that all events occupy.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(i32, usize),
        Remove(i32),
        Retain(i32),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..5, 1..100usize).prop_map(|(wd, length)| Step::Push(wd, length)),
            3 => (0..5).prop_map(Step::Remove),
            2 => (0..5).prop_map(Step::Retain),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_events_that_wait(steps in prop::collection::vec(step(), 0..50)) {
            let mut deferred = DeferredEvents::default();
            for step in steps {
                match step {
                    Step::Push(wd, length) => deferred.push(wd, &vec![0; length]),
                    Step::Remove(wd) => drop(deferred.remove(wd)),
                    Step::Retain(from) => deferred.retain(|wd| wd >= from),
                    Step::Clear => deferred.clear(),
                }
                let bytes: usize = deferred.events.values().map(Vec::len).sum();
                prop_assert_eq!(deferred.bytes(), bytes);
                prop_assert_eq!(deferred.is_empty(), bytes == 0);
            }
        }
    }
}
