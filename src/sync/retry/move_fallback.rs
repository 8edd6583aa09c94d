//! Fallback for a Move that cannot be executed at the target: the old path is deleted and the new
//! one is sent. The fallback never queues a Move, so it ends.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::super::Sync;
use crate::batch::{BatchEntry, Change};
use crate::paths;
use crate::queue::{DelayId, Etype, Status, Time};

/// The maximum number of paths read from a moved directory. With more, a full comparison is queued.
const MAX_PATHS: usize = 10_000;

/// Names of the files of a batch that the batch does not include.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherNames {
    /// There are none.
    None,
    /// All of them are compared by content, in this batch or in others.
    Verified,
    /// There may be any.
    Unknown,
}

impl Sync {
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
        self.push(Etype::Delete, from, None, now);
        match to.ends_with(b"/") && self.is_directory(to) {
            // The Delete of an existing directory stands for its contents.
            true if self.config.delete.in_batches() => {
                self.push(Etype::Delete, to, None, now);
            }
            true => self.push_contents(to, now),
            false => {
                self.push(Etype::Create, to, None, now);
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
                false => data.is_file() && data.nlink() > 1,
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

    /// Returns the path without a trailing slash, which would make a symlink be followed.
    pub(in crate::sync) fn on_disk(&self, path: &[u8]) -> PathBuf {
        let path = paths::bare(paths::relative(path));
        Path::new(OsStr::from_bytes(&self.config.source)).join(OsStr::from_bytes(path))
    }

    /// Queues a directory and all below it as new.
    pub(in crate::sync) fn push_contents(&mut self, top: &[u8], now: Time) {
        let mut found = vec![top.to_vec()];
        let mut next = 0;
        while next < found.len() {
            let path = found[next].clone();
            next += 1;
            if found.len() > MAX_PATHS {
                return self.resync(now);
            }
            if !path.ends_with(b"/") || self.excluded(&path) {
                continue;
            }
            // rsync reports unreadable directories.
            for entry in fs::read_dir(self.on_disk(&path))
                .into_iter()
                .flatten()
                .flatten()
            {
                let mut below = path.clone();
                below.extend(entry.file_name().into_vec());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below.push(b'/');
                }
                found.push(below);
            }
        }
        for path in found {
            self.ingest_path(Etype::Create, &path, now);
        }
    }
}
