//! Nested mounts of a source. The files of an unmounted file system have not been deleted, so the
//! target keeps them until it is mounted again.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::Sync;
use crate::queue::{DelayId, Etype, Status};

/// The mount points below a source: absolute paths without a trailing slash.
#[derive(Clone, Debug, Default)]
pub(super) struct NestedMounts {
    known: BTreeSet<Vec<u8>>,
    away: BTreeSet<Vec<u8>>,
}

impl Sync {
    /// Records mount points that existed before. Those outside the source are ignored.
    pub fn remember_nested_mounts(&mut self, mounts: impl Iterator<Item = Vec<u8>>) {
        self.nested_mounts.known.extend(mounts);
    }

    /// Returns all recorded mount points below the source.
    pub fn known_nested_mounts(&self) -> impl Iterator<Item = &[u8]> {
        self.nested_mounts.known.iter().map(Vec::as_slice)
    }

    /// Updates the record by the present persistent mounts. Returns the mount points that have
    /// disappeared and those that are back.
    pub fn see_mounts(&mut self, mounted: &BTreeSet<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        if !self.config.guard.on {
            return Default::default();
        }
        let concerned = |mount: &&Vec<u8>| self.has_nested_mounts(mount);
        let here = mounted.iter().filter(concerned).cloned();
        let here: BTreeSet<_> = here.collect();
        let known: BTreeSet<_> = self
            .nested_mounts
            .known
            .iter()
            .filter(concerned)
            .cloned()
            .collect();
        let away: BTreeSet<_> = known.difference(&here).cloned().collect();
        let gone = away.difference(&self.nested_mounts.away).cloned().collect();
        let back = self.nested_mounts.away.difference(&away).cloned().collect();
        self.nested_mounts.known = known.union(&here).cloned().collect();
        self.set_away(away);
        (gone, back)
    }

    /// Returns true if this mount point is below the source and not excluded.
    pub fn has_nested_mounts(&self, mount: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        let path = self.inner_path(mount);
        path.is_some_and(|path| !filter.configured_out(&path))
    }

    /// Forgets missing mounts.
    pub(super) fn forget_mounts(&mut self) {
        let away = std::mem::take(&mut self.nested_mounts.away);
        self.nested_mounts
            .known
            .retain(|mount| !away.contains(mount));
        self.set_away(BTreeSet::new());
    }

    /// Returns the mount points that are missing.
    pub fn away(&self) -> impl Iterator<Item = &[u8]> {
        self.nested_mounts.away.iter().map(Vec::as_slice)
    }

    fn set_away(&mut self, away: BTreeSet<Vec<u8>>) {
        let paths: Vec<_> = away.iter().filter_map(|m| self.inner_path(m)).collect();
        let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
        filter.hold(paths.iter().map(Vec::as_slice));
        drop(filter);
        self.nested_mounts.away = away;
        self.drop_held();
    }

    /// Removes entries below missing mounts, which would be taken for deletions.
    pub fn drop_held(&mut self) {
        if self.nested_mounts.away.is_empty() {
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
    pub fn holds_any(&self) -> bool {
        !self.nested_mounts.away.is_empty()
    }

    /// Returns true if an event is below a missing mount.
    pub fn is_held(&self, etype: Etype, path: &[u8]) -> bool {
        !self.nested_mounts.away.is_empty() && !etype.is_special() && {
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
    use crate::queue::Etype;
    use crate::queue::Policy;
    use crate::sync::tests::sync_with;

    fn mounts(paths: &[&str]) -> std::collections::BTreeSet<Vec<u8>> {
        paths.iter().map(|path| path.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_goes_is_held_until_it_is_back() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.queue.push(Etype::Modify, b"/in/f", None, 0);
        sync.queue.push(Etype::Modify, b"/x", None, 0);
        assert_eq!(
            sync.see_mounts(&mounts(&["/src/in", "/else"])),
            Default::default()
        );
        let (gone, back) = sync.see_mounts(&mounts(&["/else"]));
        assert_eq!((gone, back.len()), (vec![b"/src/in".to_vec()], 0));
        assert_eq!(sync.queue.len(), 1);
        assert!(sync.is_held(Etype::Delete, b"/in/") && !sync.is_held(Etype::Full, b"/"));
        let (gone, back) = sync.see_mounts(&mounts(&["/src/in"]));
        assert_eq!((gone.len(), back), (0, vec![b"/src/in".to_vec()]));
        assert!(!sync.is_held(Etype::Delete, b"/in/"));
        sync.see_mounts(&mounts(&[]));
        sync.forget_mounts();
        assert!(
            !sync.is_held(Etype::Delete, b"/in/") && sync.known_nested_mounts().next().is_none()
        );
    }
}
