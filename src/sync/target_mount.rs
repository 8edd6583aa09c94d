//! A local target whose disk is not mounted is another directory: what is written there fills the
//! file system below, and is hidden as soon as the disk is back.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::Sync;
use super::mount_table::{self, mount_of};
use crate::batch;
use crate::config::target::resolved;
use crate::log;

/// The mount that a target lies on.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    /// Without a slash at its end but for `/`.
    point: Vec<u8>,
    /// Device and inode of what is mounted; none if it has not been seen by this daemon.
    root: Option<(u64, u64)>,
}

impl Sync {
    /// The target was on this mount once: less is not accepted.
    pub fn remember_target_mount(&mut self, point: Vec<u8>) {
        let known = self.target_mount.as_ref().map_or(0, |m| m.point.len());
        if point.len() > known {
            let root = None;
            self.target_mount = Some(Mounted { point, root });
        }
    }

    /// The mount that the target is known to lie on.
    pub fn target_mount(&self) -> Option<&[u8]> {
        self.target_mount.as_ref().map(|mount| &*mount.point)
    }

    /// What speaks against writing to the target now; one system call if all is well.
    pub fn target_objection(&mut self) -> Option<String> {
        let known = self.target_mount.as_ref()?;
        if known.point == b"/" || (known.root.is_some() && root(&known.point) == known.root) {
            return None;
        }
        self.inspect_target()
    }

    /// The same for a target that may lie elsewhere than before.
    pub fn inspect_target(&mut self) -> Option<String> {
        let target = self.config.target.as_ref()?;
        if !self.config.guard.on || !target.starts_with(b"/") || batch::is_remote(target) {
            return None;
        }
        // What is mounted when it is used (autofs) is used.
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

    /// The target is taken as it is.
    pub(super) fn forget_target_mount(&mut self) {
        self.target_mount = None;
        let _ = self.inspect_target();
    }
}

fn root(point: &[u8]) -> Option<(u64, u64)> {
    let found = fs::metadata(OsStr::from_bytes(point));
    found.ok().map(|found| (found.dev(), found.ino()))
}
