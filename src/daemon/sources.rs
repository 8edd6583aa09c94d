//! The sources of all syncs, as the source monitor checks them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::component::Action;
use crate::log;
use crate::mount_table::{self, lasting, mounts};
use crate::queue::Time;
use crate::script::SyncHandle;
use crate::state::{StateDir, sources};
use crate::sync::Sync;
use crate::watch::Watcher;

/// Wakes the loop when the mount table changes.
pub struct MountWatch {
    _file: Option<File>,
}

impl MountWatch {
    /// Registers the mount table. The kernel reports a change as priority data (`EPOLLPRI`,
    /// proc_pid_mountinfo(5)). Without proc(5) nothing is reported.
    ///
    /// # Errors
    ///
    /// No file descriptor is available.
    pub fn new(registry: &Registry, token: Token) -> io::Result<MountWatch> {
        let Ok(file) = File::open(mount_table::TABLE) else {
            return Ok(MountWatch { _file: None });
        };
        registry.register(&mut SourceFd(&file.as_raw_fd()), token, Interest::PRIORITY)?;
        Ok(MountWatch { _file: Some(file) })
    }
}

/// The roots of watched trees, as the monitor needs them.
pub trait WatchedRoots {
    /// Returns true while directories are being read.
    fn crawling(&self) -> bool;
    /// Returns true if the path leads to the directory that is watched for it.
    fn leads_to_root(&mut self, path: &[u8]) -> bool;
    /// Checks the directory at the path of each root.
    fn check_roots(&mut self);
    /// Tries to watch lost roots again.
    fn retry_roots(&mut self);
    /// Brings all watches in line with the disk.
    fn rebuild(&mut self);
}

impl WatchedRoots for Watcher {
    fn crawling(&self) -> bool {
        self.crawling()
    }

    fn leads_to_root(&mut self, path: &[u8]) -> bool {
        self.leads_to_root(path)
    }

    fn check_roots(&mut self) {
        self.check_roots();
    }

    fn retry_roots(&mut self) {
        self.retry_roots();
    }

    fn rebuild(&mut self) {
        self.rebuild();
    }
}

/// The sources that the monitor checks.
pub struct Sources<'a> {
    /// All syncs.
    pub syncs: &'a [Rc<SyncHandle>],
    /// The watched trees.
    pub roots: &'a mut dyn WatchedRoots,
    /// Reads the mount table.
    pub mount_table: &'a dyn Fn() -> Vec<u8>,
    /// The directory in which accepted sources are saved.
    pub state: Option<&'a StateDir>,
    /// The time at which released syncs continue; `None` before all directories are watched.
    pub started: Option<Time>,
}

impl Sources<'_> {
    /// Records that source and target are accepted.
    pub(super) fn accepted(&self, handle: &SyncHandle) -> Option<Action> {
        let mut sync = handle.sync.borrow_mut();
        // For a halted sync this is logged when it is released.
        let is_new = sync.halted().is_none() && sync.take_source_replacement();
        self.save(&sync);
        is_new.then(|| {
            Action::normal(format!(
                "{}: another directory is in the place of the source {}",
                sync.config.name,
                log::escape(&sync.config.source)
            ))
        })
    }

    pub(super) fn save(&self, sync: &Sync) {
        if let Some(state) = self.state {
            sources::save(state, sync);
        }
    }

    pub(super) fn save_nested_mounts(&self, sync: &Sync) {
        if let Some(state) = self.state {
            sources::save_nested_mounts(state, sync);
        }
    }

    /// Updates each sync's nested mounts, so that unmounted ones are neither sent nor deleted.
    pub(super) fn update_nested_mounts(&self, table: &[u8]) -> Vec<Action> {
        let mounted: BTreeSet<Vec<u8>> = lasting(table).collect();
        let mut actions = Vec::new();
        for handle in self.syncs {
            let mut sync = handle.sync.borrow_mut();
            let known = sync.known_nested_mounts().count();
            let changes = sync.update_nested_mounts(&mounted);
            let name = &sync.config.name;
            actions.extend(changes.gone.iter().map(|mount| {
                Action::warn(format!(
                    "{name}: {} is not mounted any more; its files on the target are kept",
                    log::escape(mount)
                ))
            }));
            actions.extend(changes.back.iter().map(|mount| {
                Action::normal(format!("{name}: {} is mounted again", log::escape(mount)))
            }));
            // Nested mounts are only added here.
            if sync.known_nested_mounts().count() > known {
                self.save_nested_mounts(&sync);
            }
        }
        actions
    }

    /// Returns the mount points below the sources, with the mounted file systems.
    pub(super) fn nested_mounts_in(&self, table: &[u8]) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
        let nested_mounts = |(mount, _): &(Vec<u8>, Vec<u8>)| {
            let mut syncs = self.syncs.iter();
            syncs.any(|handle| handle.sync.borrow().contains_mount(mount))
        };
        mounts(table).filter(nested_mounts).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::sync::tests::idle_watcher;
    use crate::watch::Scope;

    /// No event tells of a rename above a source.
    #[test]
    fn another_directory_at_its_path_is_not_the_one_that_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        let above = directory.path().join("above");
        fs::create_dir_all(above.join("src")).unwrap();
        let root = format!("{}/src/", above.display()).into_bytes();
        let mut watcher = idle_watcher();
        watcher.set_scopes(vec![Scope {
            root: root.clone(),
            wants: Arc::new(|_| true),
        }]);
        let roots: &mut dyn WatchedRoots = &mut watcher;
        assert!(roots.leads_to_root(&root) && roots.crawling());
        fs::rename(&above, directory.path().join("other")).unwrap();
        fs::create_dir_all(above.join("src")).unwrap();
        assert!(!roots.leads_to_root(&root));
    }
}
