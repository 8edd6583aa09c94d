//! Scheduler: shares the global limit of processes fairly among syncs.

/// A round-robin queue of syncs by index. Syncs are served from the front, and one that has started
/// a process moves to the end. No sync starts twice while another one that may start is waiting.
#[derive(Debug, Default)]
pub struct Scheduler {
    line: Vec<usize>,
}

impl Scheduler {
    /// Returns the sync at this place among `count`; `None` behind the last one.
    pub fn at(&mut self, place: usize, count: usize) -> Option<usize> {
        if self.line.len() != count {
            self.line = (0..count).collect();
        }
        self.line.get(place).copied()
    }

    /// Moves the sync at this place to the end, after it has started a process.
    pub fn served(&mut self, place: usize) {
        if place < self.line.len() {
            let index = self.line.remove(place);
            self.line.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_was_served_goes_to_the_end() {
        let mut scheduler = Scheduler::default();
        let line = |scheduler: &mut Scheduler| {
            (0..)
                .map_while(|place| scheduler.at(place, 3))
                .collect::<Vec<_>>()
        };
        assert_eq!(line(&mut scheduler), [0, 1, 2]);
        scheduler.served(1);
        assert_eq!(line(&mut scheduler), [0, 2, 1]);
        scheduler.served(0);
        assert_eq!(line(&mut scheduler), [2, 1, 0]);
        for behind in [3, 7] {
            scheduler.served(behind);
        }
        assert_eq!(line(&mut scheduler), [2, 1, 0]);
        assert_eq!(scheduler.at(1, 2), Some(1));
        assert_eq!(scheduler.at(0, 0), None);
    }

    proptest! {
        /// Turns of the event loop, each with a number of free processes and the syncs that have
        /// work.
        #[test]
        fn no_one_starts_twice_while_another_waits(
            turns in prop::collection::vec((0usize..4, prop::collection::vec(0usize..3, 5)), 1..80)
        ) {
            let mut scheduler = Scheduler::default();
            // The syncs that have started since this one began to wait.
            let mut since: Vec<Vec<usize>> = vec![Vec::new(); 5];
            for (mut room, mut wants) in turns {
                for (index, want) in wants.iter().enumerate() {
                    if *want == 0 {
                        since[index].clear();
                    }
                }
                let mut place = 0;
                while let Some(index) = scheduler.at(place, 5) {
                    if room == 0 || wants[index] == 0 {
                        place += 1;
                        continue;
                    }
                    room -= 1;
                    wants[index] -= 1;
                    scheduler.served(place);
                    since[index].clear();
                    for (other, seen) in since.iter_mut().enumerate() {
                        if other != index && wants[other] > 0 {
                            prop_assert!(!seen.contains(&index), "{other} waits: {seen:?}");
                            seen.push(index);
                        }
                    }
                }
                // All free processes are used, or no work is left.
                prop_assert!(room == 0 || wants.iter().all(|want| *want == 0));
            }
        }
    }
}
