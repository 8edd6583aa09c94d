//! Nested mounts of a source. The files of an unmounted file system have not been deleted, so the
//! target keeps them until it is mounted again.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::super::Sync;
use crate::queue::{DelayId, Etype, Status};

/// The mount points below a source: absolute paths without a trailing slash.
#[derive(Clone, Debug, Default)]
pub(super) struct NestedMounts {
    /// Present and missing mount points.
    known: BTreeSet<Vec<u8>>,
    missing: BTreeSet<Vec<u8>>,
}

/// The differences to the mount points that were found before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MountChanges {
    /// The mount points that have disappeared.
    pub gone: Vec<Vec<u8>>,
    /// The mount points that are present again.
    pub back: Vec<Vec<u8>>,
}

impl NestedMounts {
    /// Updates the record by all present mount points. Mount points that are not `relevant` are
    /// forgotten.
    fn update(
        &mut self,
        mounted: &BTreeSet<Vec<u8>>,
        relevant: impl Fn(&[u8]) -> bool,
    ) -> MountChanges {
        let present = mounted.iter().filter(|mount| relevant(mount)).cloned();
        let present: BTreeSet<_> = present.collect();
        self.known.retain(|mount| relevant(mount));
        let missing: BTreeSet<_> = self.known.difference(&present).cloned().collect();
        let changes = MountChanges {
            gone: missing.difference(&self.missing).cloned().collect(),
            back: self.missing.difference(&missing).cloned().collect(),
        };
        self.known.extend(present);
        self.missing = missing;
        changes
    }

    /// Forgets missing mount points. Returns true if there were any.
    fn forget_missing(&mut self) -> bool {
        let missing = std::mem::take(&mut self.missing);
        self.known.retain(|mount| !missing.contains(mount));
        !missing.is_empty()
    }
}

impl Sync {
    /// Records mount points that existed before. Those outside the source are ignored.
    pub fn remember_nested_mounts(&mut self, mounts: impl Iterator<Item = Vec<u8>>) {
        self.guard.nested_mounts.known.extend(mounts);
    }

    /// Returns all recorded mount points below the source.
    pub fn known_nested_mounts(&self) -> impl Iterator<Item = &[u8]> {
        self.guard.nested_mounts.known.iter().map(Vec::as_slice)
    }

    /// Updates the record by the present persistent mounts.
    pub fn update_nested_mounts(&mut self, mounted: &BTreeSet<Vec<u8>>) -> MountChanges {
        if !self.config.guard.on {
            return MountChanges::default();
        }
        let mut nested_mounts = std::mem::take(&mut self.guard.nested_mounts);
        let changes = nested_mounts.update(mounted, |mount| self.contains_mount(mount));
        self.guard.nested_mounts = nested_mounts;
        if !changes.gone.is_empty() {
            self.outdate_transfers();
        }
        self.protect_missing_mounts();
        changes
    }

    /// Returns true if this mount point is below the source and not excluded.
    pub fn contains_mount(&self, mount: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        let path = self.inner_path(mount);
        path.is_some_and(|path| !filter.configured_out(&path))
    }

    /// Forgets missing mounts. Returns true if there were any.
    pub(super) fn forget_missing_mounts(&mut self) -> bool {
        let forgotten = self.guard.nested_mounts.forget_missing();
        self.protect_missing_mounts();
        forgotten
    }

    /// Returns the mount points that are missing.
    pub fn missing_mounts(&self) -> impl Iterator<Item = &[u8]> {
        self.guard.nested_mounts.missing.iter().map(Vec::as_slice)
    }

    /// Brings filter and queue in line with the missing mounts.
    fn protect_missing_mounts(&mut self) {
        let paths: Vec<_> = self
            .missing_mounts()
            .filter_map(|mount| self.inner_path(mount))
            .collect();
        let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
        filter.hold(paths.iter().map(Vec::as_slice));
        drop(filter);
        self.discard_below_missing_mounts();
    }

    /// Removes entries below missing mounts, which would be treated as deletions.
    fn discard_below_missing_mounts(&mut self) {
        if !self.misses_mounts() {
            return;
        }
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        let waits = self.queue.iter().filter(|delay| {
            delay.status() != Status::Active
                && !delay.etype().is_special()
                && filter.holds(&delay.paths().0)
        });
        let ids: Vec<DelayId> = waits.map(|delay| delay.id()).collect();
        drop(filter);
        for id in ids {
            self.queue.discard(id);
        }
    }

    /// Returns true if any mount is missing.
    pub fn misses_mounts(&self) -> bool {
        !self.guard.nested_mounts.missing.is_empty()
    }

    /// Returns true if an event is below a missing mount.
    pub fn is_below_missing_mount(&self, etype: Etype, path: &[u8]) -> bool {
        self.misses_mounts() && !etype.is_special() && {
            let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
            filter.holds(path)
        }
    }

    /// Returns a mount point relative to the source, as a directory; `None` if it is outside.
    fn inner_path(&self, mount: &[u8]) -> Option<Vec<u8>> {
        let below = mount.strip_prefix(self.config.source.as_slice())?;
        let relevant = !below.is_empty() && self.config.subdirs;
        relevant.then(|| [b"/", below, b"/"].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;

    fn mounts(paths: &[&str]) -> BTreeSet<Vec<u8>> {
        paths.iter().map(|path| path.as_bytes().to_vec()).collect()
    }

    fn changes(gone: &[&str], back: &[&str]) -> MountChanges {
        MountChanges {
            gone: mounts(gone).into_iter().collect(),
            back: mounts(back).into_iter().collect(),
        }
    }

    #[test]
    fn each_change_is_reported_once() {
        let mut nested = NestedMounts::default();
        let relevant = |mount: &[u8]| mount.starts_with(b"/src");
        for (mounted, expected) in [
            (&["/src/a", "/src/b", "/else"][..], changes(&[], &[])),
            (&["/src/b"], changes(&["/src/a"], &[])),
            (&["/src/b"], changes(&[], &[])),
            (&["/src/a"], changes(&["/src/b"], &["/src/a"])),
        ] {
            assert_eq!(nested.update(&mounts(mounted), relevant), expected);
        }
        assert!(nested.forget_missing() && !nested.forget_missing());
        assert_eq!(nested.known, mounts(&["/src/a"]));
        assert_eq!(nested.update(&mounts(&[]), |_| false), changes(&[], &[]));
        assert_eq!(nested.known, mounts(&[]));
    }

    #[test]
    fn entries_below_a_missing_mount_are_discarded() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.queue.push(Etype::Modify, b"/in/f", None, 0);
        sync.queue.push(Etype::Modify, b"/x", None, 0);
        let all = mounts(&["/src/in", "/else"]);
        assert_eq!(sync.update_nested_mounts(&all), changes(&[], &[]));
        let found = sync.update_nested_mounts(&mounts(&["/else"]));
        assert_eq!(found, changes(&["/src/in"], &[]));
        assert_eq!(sync.queue.len(), 1);
        let is_below = |sync: &Sync| sync.is_below_missing_mount(Etype::Delete, b"/in/");
        assert!(is_below(&sync) && !sync.is_below_missing_mount(Etype::Full, b"/"));
        let found = sync.update_nested_mounts(&mounts(&["/src/in"]));
        assert_eq!(found, changes(&[], &["/src/in"]));
        assert!(!is_below(&sync));
        sync.update_nested_mounts(&mounts(&[]));
        assert!(sync.forget_missing_mounts());
        assert!(!is_below(&sync) && sync.known_nested_mounts().next().is_none());
    }

    /// Whatever is pending elsewhere stays, and is sent.
    #[test]
    fn a_release_ends_the_protection_of_missing_mounts_by_a_comparison() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.queue.push(Etype::Modify, b"/x", None, 0);
        sync.remember_nested_mounts(mounts(&["/src/in"]).into_iter());
        sync.update_nested_mounts(&mounts(&[]));
        assert!(sync.excluded(b"/in/f") && sync.queue.open_at(b"/x").is_some());
        sync.release_guard(0);
        assert!(!sync.excluded(b"/in/f") && !sync.misses_mounts());
        assert!(sync.queue.open_at(b"/x").is_some());
        assert_eq!(sync.queue.specials().count(), 1);
        // Without a missing mount there is nothing to compare.
        sync.release_guard(0);
        assert_eq!(sync.queue.len(), 2);
    }

    #[test]
    fn a_running_transfer_keeps_its_entries_and_may_find_another_source() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.queue.push(Etype::Modify, b"/in/f", None, 0);
        let ids = sync.queue.take(|_| crate::queue::Take::Take);
        sync.queue.activate(&ids);
        sync.queue.push(Etype::Full, b"/in/", None, 0);
        let begun = std::time::Instant::now();
        sync.update_nested_mounts(&mounts(&["/src/in"]));
        assert!(!sync.has_outdated(begun));
        sync.update_nested_mounts(&mounts(&[]));
        assert!(sync.has_outdated(begun));
        assert_eq!(sync.queue.len(), 2);
    }

    #[test]
    fn mounts_below_the_source_are_those_of_watched_directories() {
        for (subdirs, contained) in [(true, true), (false, false)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.subdirs = subdirs;
            assert_eq!(sync.contains_mount(b"/src/in"), contained);
            for mount in [&b"/src/"[..], b"/src", b"/srcs/in", b"/"] {
                assert!(!sync.contains_mount(mount));
            }
        }
    }
}
