//! Mount of a local target. If its disk is not mounted, writes would fill the file system below and
//! be hidden by the next mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::super::Sync;
use crate::batch;
use crate::config::target::resolved;
use crate::log;
use crate::mount_table::{self, mount_of};

/// The mount a target is known to be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetMount {
    /// The mount point, without a trailing slash except for `/`.
    point: Vec<u8>,
    /// Device and inode of the mounted root; `None` if this daemon has not seen it yet.
    root: Option<(u64, u64)>,
}

impl TargetMount {
    /// Returns true if a target at this resolved path, which is on the mount at `point`, has lost
    /// the known mount.
    fn is_lost_at(&self, target: &[u8], point: &[u8]) -> bool {
        self.point.len() > point.len() && target.starts_with(&self.point)
    }

    /// Returns true if nothing has changed, given the root of the file system at the known mount
    /// point. `/` is always mounted.
    fn is_confirmed_by(&self, root: impl FnOnce() -> Option<(u64, u64)>) -> bool {
        self.point == b"/" || (self.root.is_some() && root() == self.root)
    }
}

impl Sync {
    /// Records that the target was on this mount once. A mount point above it is not accepted from
    /// then on.
    pub fn remember_target_mount(&mut self, point: Vec<u8>) {
        let known = self.guard.target.as_ref().map_or(0, |m| m.point.len());
        if point.len() > known {
            let root = None;
            self.guard.target = Some(TargetMount { point, root });
        }
    }

    /// Returns the mount point the target is known to be on.
    pub fn target_mount(&self) -> Option<&[u8]> {
        self.guard.target.as_ref().map(|mount| &*mount.point)
    }

    /// Returns the reason why the target must not be written to now. Costs one system call in the
    /// normal case.
    pub fn target_violation(&mut self) -> Option<String> {
        let known = self.guard.target.as_ref()?;
        if known.is_confirmed_by(|| root(&known.point)) {
            return None;
        }
        self.accept_target()
    }

    /// Checks a target that may have moved to another mount, and records it. Returns the violation
    /// as a log text.
    pub fn accept_target(&mut self) -> Option<String> {
        let target = self.config.target.as_ref()?;
        if !self.config.guard.on || !target.starts_with(b"/") || batch::is_remote(target) {
            return None;
        }
        // Reading the directory triggers an automount (autofs(5)).
        let _ = fs::read_dir(OsStr::from_bytes(target)).map(|mut names| names.next());
        let target = resolved(target);
        let point = mount_of(&mount_table::read(), &target);
        let known = self.guard.target.as_ref();
        if let Some(known) = known.filter(|known| known.is_lost_at(&target, &point)) {
            let known = log::escape(&known.point);
            return Some(format!(
                "what was mounted at {known}, where the target is, is not"
            ));
        }
        let root = root(&point);
        self.guard.target = Some(TargetMount { point, root });
        None
    }

    /// Forgets the mount, so that the target is accepted as it is.
    pub(super) fn forget_target_mount(&mut self) {
        self.guard.target = None;
        let _ = self.accept_target();
    }
}

fn root(point: &[u8]) -> Option<(u64, u64)> {
    let found = fs::metadata(OsStr::from_bytes(point));
    found.ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, root: Option<(u64, u64)>) -> TargetMount {
        let point = point.as_bytes().to_vec();
        TargetMount { point, root }
    }

    #[test]
    fn a_target_above_its_mount_has_lost_it() {
        let known = mount("/mnt/disk", None);
        for (target, point, lost) in [
            ("/mnt/disk/t/", "/", true),
            ("/mnt/disk/t/", "/mnt", true),
            ("/mnt/disk/t/", "/mnt/disk", false),
            ("/mnt/disk/t/", "/mnt/disk/t", false),
            // Another target is configured.
            ("/srv/t/", "/", false),
        ] {
            let is_lost = known.is_lost_at(target.as_bytes(), point.as_bytes());
            assert_eq!(is_lost, lost, "{target} on {point}");
        }
    }

    #[test]
    fn the_same_root_confirms_a_mount() {
        let found = || Some((1, 2));
        assert!(mount("/", None).is_confirmed_by(|| None));
        assert!(mount("/mnt", Some((1, 2))).is_confirmed_by(found));
        assert!(!mount("/mnt", Some((1, 3))).is_confirmed_by(found));
        assert!(!mount("/mnt", Some((1, 2))).is_confirmed_by(|| None));
        assert!(!mount("/mnt", None).is_confirmed_by(|| None));
    }
}
