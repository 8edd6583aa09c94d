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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Delete;
    use crate::sync::tests::sync_with;
    use std::time::SystemTime;

    /// A target that is down is waited for. A shell that never works is replaced by transfers.
    #[test]
    fn a_remote_shell_that_has_never_worked_is_given_up() {
        let mut sync = sync_with(Policy::Coalesce);
        let fails = |sync: &mut Sync| sync.remote_shell_mut().fails();
        for _ in 1..MAX_SHELL_FAILURES {
            assert!(!fails(&mut sync));
        }
        assert!(fails(&mut sync) && fails(&mut sync));
        sync.remote_shell_mut().works();
        assert!(!fails(&mut sync));
    }

    /// Returns a sync whose source has a directory with a directory, two files of one name each, and
    /// a file with two names.
    fn with_source(policy: Policy, delete: Delete) -> (tempfile::TempDir, Sync) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        for name in ["d/f", "d/f.tmp", "d/e/g", "one"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
        let mut sync = sync_with(policy);
        sync.filter.write().unwrap().add_exclude(b"*.tmp");
        sync.config.source = [dir.path().as_os_str().as_bytes(), b"/"].concat();
        sync.config.delete = delete;
        (dir, sync)
    }

    /// What is expected in the queue.
    type Entries = &'static [(Etype, &'static str)];

    /// The comparison of a directory would delete what only the target has, and user functions get
    /// each path from the watcher.
    #[test]
    fn a_directory_whose_comparison_would_delete_is_sent_path_by_path() {
        use Etype::{Create, Delete as Compared};
        const ALL: Entries = &[
            (Create, "/d/"),
            (Create, "/d/e/"),
            (Create, "/d/e/g"),
            (Create, "/d/f"),
        ];
        let cases: [(Policy, Delete, Entries); 4] = [
            (Policy::Coalesce, Delete::Always, &[(Compared, "/d/")]),
            (Policy::Coalesce, Delete::Running, ALL),
            (Policy::PerEvent, Delete::Always, &[(Create, "/d/")]),
            (Policy::PerEvent, Delete::Running, &[(Create, "/d/")]),
        ];
        for (policy, delete, expected) in cases {
            let (_dir, mut sync) = with_source(policy, delete);
            sync.push_contents(b"/d/", 0);
            let mut queued: Vec<_> = sync
                .queue
                .iter()
                .map(|delay| (delay.paths().0, delay.etype()))
                .collect();
            queued.sort_by(|a, b| a.0.cmp(&b.0));
            let expected = expected
                .iter()
                .map(|(etype, path)| (path.as_bytes().to_vec(), *etype));
            assert_eq!(
                queued,
                expected.collect::<Vec<_>>(),
                "{policy:?} {delete:?}"
            );
            assert!(!sync.owes_comparison);
        }
    }

    /// Otherwise the target has two files in place of one with two names.
    #[test]
    fn names_that_a_batch_may_lack_are_noticed() {
        let soon = SystemTime::now() + Duration::from_secs(3600);
        let cases: [(Change, &str, bool, SystemTime, OtherNames); 8] = [
            (Change::Modify, "/d/f", false, soon, OtherNames::None),
            (Change::Modify, "/gone", false, soon, OtherNames::None),
            (Change::Modify, "/d/", false, soon, OtherNames::None),
            (Change::Delete, "/d/", false, soon, OtherNames::Unknown),
            (Change::Delete, "/one/", true, soon, OtherNames::None),
            (Change::Modify, "/one", false, soon, OtherNames::Unknown),
            (
                Change::Modify,
                "/one",
                true,
                UNIX_EPOCH,
                OtherNames::Unknown,
            ),
            (Change::Modify, "/one", true, soon, OtherNames::Verified),
        ];
        for (change, path, is_found, searched, expected) in cases {
            let (_dir, mut sync) = with_source(Policy::Coalesce, Delete::Always);
            if is_found {
                sync.verify.add(path.as_bytes());
            }
            sync.verify.set_searched(searched);
            let path = path.as_bytes();
            let entry = BatchEntry {
                change,
                path,
                to: None,
            };
            let found = sync.other_names([entry].into_iter());
            assert_eq!(found, expected, "{}", path.escape_ascii());
        }
    }
}
