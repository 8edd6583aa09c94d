//! Fallback for a Move that cannot be executed on the target: the old path is deleted and the new
//! one is sent. The fallback never queues a Move, so it ends.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::super::Sync;
use crate::batch::{BatchEntry, Change};
use crate::paths;
use crate::queue::{DelayId, Etype, Policy, Status, Time};

/// Names of the files of a batch that the batch does not include.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherNames {
    /// There are no paths.
    None,
    /// All of them are compared by content, in this batch or in others.
    Verified,
    /// There may be any.
    Unknown,
}

/// The maximum number of paths that a directory is replaced by. With more, everything is compared.
const MAX_LISTED: usize = 10_000;

/// The number of failures after which a remote shell that has never worked is not waited for.
const MAX_SHELL_FAILURES: u32 = 3;

/// The remote shell of Moves. Transfers may use another one, because a wrapper or a popt alias can pass
/// `--rsh` to rsync.
#[derive(Debug, Default)]
pub struct RemoteShell {
    has_worked: bool,
    failures: u32,
}

impl RemoteShell {
    /// Handles a Move that reached the target.
    pub fn works(&mut self) {
        self.has_worked = true;
    }

    /// Handles a Move that did not reach the target. Returns true if it is to be sent, because no
    /// Move has ever reached the target. Otherwise the target is waited for.
    pub fn fails(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        !self.has_worked && self.failures >= MAX_SHELL_FAILURES
    }
}

impl Sync {
    /// Returns the remote shell of Moves.
    pub fn remote_shell_mut(&mut self) -> &mut RemoteShell {
        &mut self.retry.remote_shell
    }

    /// Queues the fallback of a Move, and removes the Move if it is waiting. An active Move is
    /// removed by [`Sync::succeeded`].
    pub fn split_move(&mut self, id: DelayId, now: Time) {
        let Some(delay) = self.queue.get(id) else {
            return;
        };
        let (from, Some(to)) = delay.paths() else {
            return;
        };
        if delay.status() == Status::Wait {
            self.queue.discard(id);
        }
        self.requeues += 1;
        self.send_moved(&from, &to, now);
    }

    /// Queues the Delete of the old path and the Create of the new one.
    pub(in crate::sync) fn send_moved(&mut self, from: &[u8], to: &[u8], now: Time) {
        // The transfer examines the disk, so a path that exists again is sent.
        if !self.excluded(from) {
            self.push(Etype::Delete, from, None, now);
        }
        if self.excluded(to) {
            return;
        }
        if to.ends_with(b"/") && self.is_directory(to) {
            self.push_contents(to, now);
        } else {
            self.push(Etype::Create, to, None, now);
        }
    }

    /// Returns the event type that represents an existing directory with its contents. The Delete
    /// of a directory that exists is a full comparison in it, unless user code gets it, or what only
    /// the target has must stay.
    pub(in crate::sync) fn etype_of_contents(&self) -> Etype {
        match self.queue.policy() {
            Policy::Coalesce if !self.config.delete.keeps_others() => Etype::Delete,
            _ => Etype::Create,
        }
    }

    /// Queues an existing directory with its contents.
    pub(in crate::sync) fn push_contents(&mut self, directory: &[u8], now: Time) {
        self.push(self.etype_of_contents(), directory, None, now);
        let is_listed = self.queue.policy() == Policy::Coalesce;
        if !is_listed || self.etype_of_contents() == Etype::Delete {
            return;
        }
        let mut directories = vec![directory.to_vec()];
        let mut listed = 0;
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(self.on_disk(&directory)) else {
                continue;
            };
            for entry in entries.flatten() {
                listed += 1;
                if listed > MAX_LISTED {
                    self.owes_comparison = true;
                    return;
                }
                let mut path = [&directory, entry.file_name().as_bytes()].concat();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    path.push(b'/');
                }
                if self.excluded(&path) {
                    continue;
                }
                self.push(Etype::Create, &path, None, now);
                if path.ends_with(b"/") {
                    directories.push(path);
                }
            }
        }
    }

    /// Queues an event that did not come from the kernel.
    pub fn note(&mut self, etype: Etype, path: &[u8], now: Time) {
        self.push(etype, path, None, now);
    }

    /// Returns if there are names of files with several hard links that these entries do not
    /// include: contents of directories that are sent whole, or other names of a file. rsync's
    /// `--hard-links` links only names that are in one list.
    pub fn other_names<'a>(&self, entries: impl Iterator<Item = BatchEntry<'a>>) -> OtherNames {
        let mut found = OtherNames::None;
        for entry in entries {
            let path = entry.to.unwrap_or(entry.path);
            let Ok(data) = fs::symlink_metadata(self.on_disk(path)) else {
                continue;
            };
            let is_linked = match path.ends_with(b"/") {
                true => data.is_dir() && entry.change == Change::Delete,
                false => !data.is_dir() && data.nlink() > 1,
            };
            let changed = Duration::new(data.ctime() as u64, data.ctime_nsec() as u32);
            match is_linked {
                false => {}
                true if self.verify.knows_names(path, UNIX_EPOCH + changed) => {
                    found = OtherNames::Verified;
                }
                true => return OtherNames::Unknown,
            }
        }
        found
    }

    /// Returns true if the source has a file of any type at this path.
    pub fn is_at_source(&self, path: &[u8]) -> bool {
        fs::symlink_metadata(self.on_disk(path)).is_ok()
    }

    /// Returns true if the source has a directory at this path, and no link to one.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        fs::symlink_metadata(self.on_disk(path)).is_ok_and(|data| data.is_dir())
    }

    /// Returns the directories whose time on the target is that of these Moves, once they have been
    /// carried out there.
    pub fn directories_of_moves(&self, ids: &[DelayId]) -> BTreeSet<Vec<u8>> {
        if self.queue.policy() == Policy::PerEvent {
            return BTreeSet::new();
        }
        let delays = ids.iter().filter_map(|&id| self.queue.get(id));
        let moves = delays.filter(|delay| delay.etype() == Etype::Move);
        let paths = moves.flat_map(|delay| {
            let (path, to) = delay.paths();
            [Some(path.to_vec()), to.map(|to| to.to_vec())]
        });
        let parents = paths
            .flatten()
            .filter_map(|path| paths::parent(&path).map(<[u8]>::to_vec));
        parents.collect()
    }

    /// Queues the times of directories that were changed on the target.
    pub fn send_times(&mut self, directories: BTreeSet<Vec<u8>>, now: Time) {
        self.requeues += 1;
        for directory in directories {
            self.push(Etype::Attrib, &directory, None, now);
        }
    }

    /// Returns the path without a trailing slash, which would make a symlink be followed.
    pub(in crate::sync) fn on_disk(&self, path: &[u8]) -> PathBuf {
        let path = paths::bare(paths::relative(path));
        Path::new(OsStr::from_bytes(&self.config.source)).join(OsStr::from_bytes(path))
    }
}
