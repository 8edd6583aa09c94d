//! Whose turn it is: syncs share the global limit of processes fairly.

/// Round robin among syncs: the one asked first moves on by one each turn.
#[derive(Debug, Default)]
pub struct Scheduler {
    first: usize,
}

impl Scheduler {
    /// The order in which `count` syncs are asked this turn.
    pub fn order(&mut self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first;
        if count > 0 {
            self.first = (first + 1) % count;
        }
        (0..count).map(move |n| (first + n) % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_first_in_turn() {
        let mut scheduler = Scheduler::default();
        assert_eq!(scheduler.order(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(scheduler.order(3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(scheduler.order(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(scheduler.order(0).count(), 0);
    }
}
