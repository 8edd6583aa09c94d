//! The mount of a local target. If its disk is not mounted, writes would fill the file system below
//! and be hidden by the next mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::Sync;
use super::mount_table::{self, mount_of};
use crate::batch;
use crate::config::target::resolved;
use crate::log;

/// The mount of a target.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    /// The mount point, without a trailing slash except for `/`.
    point: Vec<u8>,
    /// Device and inode of the mounted root; `None` if this daemon has not seen it yet.
    root: Option<(u64, u64)>,
}

impl Sync {
    /// Records that the target was on this mount once. A mount point above it is not accepted from
    /// then on.
    pub fn remember_target_mount(&mut self, point: Vec<u8>) {
        let known = self.target_mount.as_ref().map_or(0, |m| m.point.len());
        if point.len() > known {
            let root = None;
            self.target_mount = Some(Mounted { point, root });
        }
    }

    /// Returns the mount point the target is known to be on.
    pub fn target_mount(&self) -> Option<&[u8]> {
        self.target_mount.as_ref().map(|mount| &*mount.point)
    }

    /// Returns the reason why the target must not be written to now. Costs one system call in the
    /// normal case.
    pub fn target_objection(&mut self) -> Option<String> {
        let known = self.target_mount.as_ref()?;
        if known.point == b"/" || (known.root.is_some() && root(&known.point) == known.root) {
            return None;
        }
        self.inspect_target()
    }

    /// Checks a target that may have moved to another mount, and records it. Returns the violation
    /// as a log text.
    pub fn inspect_target(&mut self) -> Option<String> {
        let target = self.config.target.as_ref()?;
        if !self.config.guard.on || !target.starts_with(b"/") || batch::is_remote(target) {
            return None;
        }
        // Reading the directory triggers an automount (autofs(5)).
        let _ = fs::read_dir(OsStr::from_bytes(target)).map(|mut names| names.next());
        let place = resolved(target);
        let table = mount_table::read();
        let point = mount_of(&table, &place);
        if let Some(known) = self.target_mount()
            && known.len() > point.len()
            && place.starts_with(known)
        {
            let known = log::escape(known);
            return Some(format!(
                "what was mounted at {known}, where the target is, is not"
            ));
        }
        let root = root(&point);
        self.target_mount = Some(Mounted { point, root });
        None
    }

    /// Forgets the mount, so that the target is accepted as it is.
    pub(super) fn forget_target_mount(&mut self) {
        self.target_mount = None;
        let _ = self.inspect_target();
    }
}

fn root(point: &[u8]) -> Option<(u64, u64)> {
    let found = fs::metadata(OsStr::from_bytes(point));
    found.ok().map(|found| (found.dev(), found.ino()))
}
