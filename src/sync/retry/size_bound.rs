//! Size bound of full comparisons. A file that is too large for the target ends a comparison. It is
//! repeated at once without files of that size, and a full comparison follows later.

use std::collections::BTreeSet;

use super::super::Sync;
use super::partial::RetryPlan;
use super::{FailedEntries, RetryEntries};
use crate::queue::{DelayId, Time};

/// The maximum number of files that do not fit and are known by name.
const MAX_NAMED: usize = 1000;

/// The maximum size of files that a full comparison sends.
#[derive(Debug, Default)]
pub struct SizeBound {
    largest: Option<u64>,
    /// The files that did not fit.
    too_large: BTreeSet<Vec<u8>>,
    /// rsync accepts `--max-size`, and the user has not set it.
    usable: bool,
}

impl SizeBound {
    /// Handles the start of a full comparison. `usable` is false for a wrapper, and if the user has
    /// set a maximum size.
    pub fn begin(&mut self, usable: bool) {
        self.usable = usable;
    }

    /// Returns the option of rsync, if there is a bound.
    pub fn option(&self) -> Option<Vec<u8>> {
        let largest = self.largest.filter(|_| self.usable)?;
        Some(format!("--max-size={largest}").into_bytes())
    }

    /// Returns true if larger files are not sent.
    pub fn is_set(&self) -> bool {
        self.largest.is_some()
    }

    /// Adds files that did not fit.
    fn add<'a>(&mut self, paths: impl IntoIterator<Item = &'a Vec<u8>>) {
        for path in paths {
            if self.too_large.len() < MAX_NAMED {
                self.too_large.insert(path.clone());
            }
        }
    }

    /// Lowers the bound below the size of a file that did not fit. Returns false if no smaller file
    /// can be sent. The bound is at least halved, because each file that does not fit costs one
    /// transfer.
    fn lower(&mut self, size: u64) -> bool {
        let most = self.largest.map_or(u64::MAX, |largest| largest / 2);
        self.largest = size.checked_sub(1).map(|below| below.min(most));
        self.usable && self.largest.is_some_and(|largest| largest > 0)
    }
}

impl Sync {
    /// Handles the start of a full comparison by rsync. `usable` is false for a wrapper, and if the
    /// user has set a maximum size.
    pub fn begin_size_bound(&mut self, usable: bool) {
        self.retry.size_bound.begin(usable);
    }

    /// Returns rsync's option for the maximum size of files, if a full comparison has a size bound.
    pub fn size_option(&self) -> Option<Vec<u8>> {
        self.retry.size_bound.option()
    }

    /// Returns true if a full comparison does not send large files.
    pub fn is_size_bounded(&self) -> bool {
        self.retry.size_bound.is_set()
    }

    /// Returns the files for which the current full comparison is repeated without large files.
    pub fn too_large(&self) -> &BTreeSet<Vec<u8>> {
        &self.retry.size_bound.too_large
    }

    /// Handles a full comparison that ended at these paths, which are too large for the target: it
    /// is repeated at once without them. If that is not possible, a full comparison is scheduled
    /// and returned; changes are sent in the meantime.
    pub fn compare_smaller(
        &mut self,
        ids: &[DelayId],
        named: &RetryEntries,
        now: Time,
    ) -> Option<RetryPlan> {
        let sizes = named.keys().filter_map(|path| self.file_size(path));
        let size = sizes.min().unwrap_or(0);
        self.retry.size_bound.add(named.keys());
        if self.retry.size_bound.lower(size) {
            self.requeue(ids, now);
            return None;
        }
        Some(self.partly_failed(ids, FailedEntries::Everything, now))
    }

    /// Removes the bound for the next full comparison.
    pub(super) fn forget_size_bound(&mut self) {
        self.retry.size_bound.largest = None;
        self.retry.size_bound.too_large.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Etype, Policy, Take};
    use crate::sync::tests::sync_with;

    #[test]
    fn the_files_that_do_not_fit_are_known_up_to_a_limit() {
        let mut bound = SizeBound::default();
        let paths = |range: std::ops::Range<u32>| -> Vec<Vec<u8>> {
            range.map(|n| format!("/{n}").into_bytes()).collect()
        };
        bound.add(&paths(0..3));
        bound.add(&paths(2..5));
        assert_eq!(bound.too_large.len(), 5);
        bound.add(&paths(0..2000));
        assert_eq!(bound.too_large.len(), MAX_NAMED);
    }

    #[test]
    fn a_bound_is_lowered_at_most_64_times() {
        let mut bound = SizeBound::default();
        bound.begin(true);
        assert!(bound.option().is_none() && !bound.is_set());
        let mut size = u64::MAX;
        let mut count = 0;
        while bound.lower(size) {
            size = bound.largest.unwrap();
            assert_eq!(
                bound.option(),
                Some(format!("--max-size={size}").into_bytes())
            );
            count += 1;
        }
        assert_eq!(count, 64);
        bound.largest = None;
        assert!(!bound.lower(0) && !bound.lower(1));
    }

    #[test]
    fn a_wrapper_gets_no_maximum_size() {
        let mut bound = SizeBound::default();
        bound.begin(false);
        assert!(!bound.lower(1000));
        assert_eq!(bound.option(), None);
    }

    /// Otherwise the files above the bound would not be sent again.
    #[test]
    fn a_comparison_that_was_not_complete_is_repeated_without_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), [0; 10]).unwrap();
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
        sync.start(0);
        let ids = sync.queue.take(|_| Take::Take);
        sync.begin(&ids);
        sync.begin_size_bound(true);
        let named = RetryEntries::from([(b"/f".to_vec(), Etype::Modify)]);
        assert_eq!(sync.compare_smaller(&ids, &named, 0), None);
        assert!(sync.is_size_bounded());
        assert_eq!(sync.size_option(), Some(b"--max-size=9".to_vec()));
        assert_eq!(sync.too_large(), &BTreeSet::from([b"/f".to_vec()]));
        // In a batch such a file is a failed path.
        sync.queue.push(Etype::Modify, b"/a", None, 0);
        let others = sync
            .queue
            .iter()
            .filter(|delay| !delay.etype().is_special());
        let others: Vec<_> = others.map(|delay| delay.id()).collect();
        sync.partly_failed(&others, FailedEntries::Everything, 0);
        assert!(sync.is_size_bounded());
        let plan = sync.partly_failed(&ids, FailedEntries::Everything, 0);
        assert!(matches!(plan, RetryPlan::Everything(_)));
        assert!(!sync.is_size_bounded());
        assert_eq!(sync.size_option(), None);
        assert!(sync.too_large().is_empty());
    }
}
