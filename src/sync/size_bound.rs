//! Comparisons of everything that a file too large for the target would end: they go on with what is
//! smaller, and everything is compared again later.

use std::fs;

use super::Sync;
use super::blame::{Entries, FailedEntries};
use super::retry::Again;
use crate::queue::{DelayId, Time};

/// Up to which size a comparison of everything sends files.
#[derive(Debug, Default)]
pub struct SizeBound {
    largest: Option<u64>,
    /// rsync can be told so.
    usable: bool,
}

impl SizeBound {
    /// rsync begins to compare everything. It is told no size if it is a wrapper or the user has
    /// told it one.
    pub fn begin(&mut self, usable: bool) {
        self.usable = usable;
    }

    /// The word for rsync, if there is a bound.
    pub fn word(&self) -> Option<Vec<u8>> {
        let largest = self.largest.filter(|_| self.usable)?;
        Some(format!("--max-size={largest}").into_bytes())
    }

    /// Returns true if something is left out.
    pub fn is_set(&self) -> bool {
        self.largest.is_some()
    }

    /// A file of this size did not fit. Returns false if no smaller one is left to try.
    ///
    /// Files fail one after the other, so the bound halves at least.
    fn lower(&mut self, size: u64) -> bool {
        let most = self.largest.map_or(u64::MAX, |largest| largest / 2);
        self.largest = size.checked_sub(1).map(|below| below.min(most));
        self.usable && self.largest.is_some_and(|largest| largest > 0)
    }
}

impl Sync {
    /// A comparison of everything ended at these paths, which are too large for the target: it is
    /// done at once for what is smaller. Where that is not possible everything is compared after a
    /// while, and changes do not wait for that; what comes then.
    pub fn compare_smaller(
        &mut self,
        ids: &[DelayId],
        named: &Entries,
        now: Time,
    ) -> Option<Again> {
        let sizes = named.keys().filter_map(|path| {
            let metadata = fs::symlink_metadata(self.on_disk(path)).ok()?;
            metadata.is_file().then_some(metadata.len())
        });
        let size = sizes.min().unwrap_or(0);
        if self.size_bound.lower(size) {
            self.redo(ids, now);
            return None;
        }
        Some(self.partly_failed(ids, FailedEntries::Everything, now))
    }

    /// The next comparison of everything leaves nothing out.
    pub(super) fn forget_size_bound(&mut self) {
        self.size_bound.largest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_end() {
        let mut bound = SizeBound::default();
        bound.begin(true);
        assert!(bound.word().is_none() && !bound.is_set());
        let mut size = u64::MAX;
        let mut count = 0;
        while bound.lower(size) {
            size = bound.largest.unwrap();
            assert_eq!(
                bound.word(),
                Some(format!("--max-size={size}").into_bytes())
            );
            count += 1;
        }
        assert_eq!(count, 64);
        bound.largest = None;
        assert!(!bound.lower(0) && !bound.lower(1));
    }

    #[test]
    fn a_wrapper_is_told_no_size() {
        let mut bound = SizeBound::default();
        bound.begin(false);
        assert!(!bound.lower(1000));
        assert_eq!(bound.word(), None);
    }
}
