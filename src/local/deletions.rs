//! Counts the entries that a job would delete on the target, before the job begins.

use std::collections::{BTreeSet, HashSet};
use std::io;

use rustix::fs::{FileType, Stat};

use super::beneath::{self, Beneath, FoundEntry, is_directory, is_missing};
use super::beneath::{below, typed};
use super::copy::stopped;
use super::walk::Walk;
use super::{CopyItem, CopyJob, CopyTask};
use crate::batch::Change;
use crate::paths;

/// Numbers of entries of the target: files, directories and all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deletions {
    /// The entries that would be deleted.
    pub deleted: u64,
    /// All entries, if they have been counted.
    pub total: Option<u64>,
}

/// Returns the number of deletions and of all entries if the deletions exceed the limit; nothing is
/// changed. `entries` is the number of entries at least: those of the last count without those deleted
/// since.
///
/// # Errors
/// Something cannot be read, or the daemon is shutting down.
pub fn excess(
    orders: &CopyJob,
    entries: &mut Option<u64>,
    source: &Beneath,
    target: &Beneath,
) -> io::Result<Option<(u64, u64)>> {
    let Some(limit) = orders.limit else {
        *entries = None;
        return Ok(None);
    };
    let found = count(orders, source, target, &mut |_| ())?;
    let exceeds = |total| limit.exceeded(found.deleted, total);
    let mut known = found.total.or(*entries);
    if exceeds(known.unwrap_or(0)) {
        let counted = match found.total {
            Some(counted) => counted,
            None => total(orders, target)?,
        };
        if exceeds(counted) {
            return Ok(Some((found.deleted, counted)));
        }
        known = Some(counted);
    }
    *entries = known.map(|known| known.saturating_sub(found.deleted));
    Ok(None)
}

/// Counts the deletions of a job, and passes the path of each to `name`.
///
/// # Errors
/// As for [`excess`].
pub(super) fn count(
    orders: &CopyJob,
    source: &Beneath,
    target: &Beneath,
    name: &mut dyn FnMut(&[u8]),
) -> io::Result<Deletions> {
    let mut count = DeletionCount {
        orders,
        source,
        target,
        name,
        deleted: 0,
        seen: 0,
    };
    match &orders.task {
        _ if !orders.delete => {}
        CopyTask::Everything => {
            count.directory(b"/")?;
            return Ok(Deletions {
                deleted: count.deleted,
                total: Some(count.seen),
            });
        }
        // Syncs with a limit compare everything.
        CopyTask::Directories(_) => {}
        CopyTask::Events(items) => {
            for path in outermost(items) {
                count.event(path)?;
            }
        }
    }
    Ok(Deletions {
        deleted: count.deleted,
        total: None,
    })
}

/// Returns the paths of Deletes, without trailing slashes; those below another one are omitted.
fn outermost(items: &[CopyItem]) -> impl Iterator<Item = &[u8]> {
    let deletes = items.iter().filter(|item| item.change == Change::Delete);
    let bare = deletes.map(|item| paths::bare(&item.path));
    let deleted: HashSet<&[u8]> = bare.collect();
    let covered = {
        let deleted = deleted.clone();
        move |path: &&[u8]| {
            let mut above = paths::directories(path).map(paths::bare);
            above.any(|path| deleted.contains(path))
        }
    };
    deleted.into_iter().filter(move |path| !covered(path))
}

/// Returns the outermost paths of Deletes with other Deletes below them, without trailing slashes.
pub fn trees(items: &[CopyItem]) -> BTreeSet<&[u8]> {
    let deletes = items.iter().filter(|item| item.change == Change::Delete);
    let paths: HashSet<&[u8]> = deletes.map(|item| paths::bare(&item.path)).collect();
    let tops = paths.iter().copied().filter_map(|path| {
        let mut above = paths::directories(path).map(paths::bare);
        above.find(|directory| !directory.is_empty() && paths.contains(directory))
    });
    tops.collect()
}

/// Returns the number of entries of a target.
fn total(orders: &CopyJob, target: &Beneath) -> io::Result<u64> {
    let mut entries = 0;
    let mut walk = Walk::through(b"/");
    while let Some(path) = walk.enter_next() {
        let path = path.to_vec();
        for found in list(orders, target, &path)? {
            entries += 1;
            if is_tree(target, &path, &found)? {
                walk.add(found.name);
            }
        }
    }
    Ok(entries)
}

struct DeletionCount<'a> {
    orders: &'a CopyJob,
    source: &'a Beneath,
    target: &'a Beneath,
    name: &'a mut dyn FnMut(&[u8]),
    deleted: u64,
    seen: u64,
}

impl DeletionCount<'_> {
    /// Counts a Delete. A path that exists again is compared with everything below it.
    fn event(&mut self, path: &[u8]) -> io::Result<()> {
        let Some(there) = self.target.lookup(path)? else {
            return Ok(());
        };
        if self.orders.protects(&typed(path, &there)) {
            return Ok(());
        }
        let sent = |stat: &Stat| !self.orders.excludes(&typed(path, stat));
        match (self.source.lookup(path)?.filter(sent), is_directory(&there)) {
            (None, true) => self.tree(&paths::with_slash(path)),
            (None, false) => {
                self.delete(path);
                Ok(())
            }
            (Some(stat), true) if is_directory(&stat) => self.directory(&paths::with_slash(path)),
            (Some(_), true) => self.tree(&paths::with_slash(path)),
            (Some(_), false) => Ok(()),
        }
    }

    /// Counts what a comparison of this directory would delete.
    fn directory(&mut self, top: &[u8]) -> io::Result<()> {
        let mut walk = Walk::through(top);
        while let Some(directory) = walk.enter_next() {
            let directory = directory.to_vec();
            for (path, tree) in self.unprotected(&directory)? {
                let stat = self.source.lookup(&path)?;
                let stays = stat.is_some_and(|stat| {
                    (is_directory(&stat) || !tree) && !self.orders.excludes(&typed(&path, &stat))
                });
                match (stays, tree) {
                    (true, true) => walk.add(paths::split(&path).1.to_vec()),
                    (true, false) => {}
                    (false, true) => self.tree(&path)?,
                    (false, false) => self.delete(&path),
                }
            }
        }
        Ok(())
    }

    /// Counts a directory of the target that would be deleted, with everything below it that is not
    /// protected.
    fn tree(&mut self, top: &[u8]) -> io::Result<()> {
        self.delete(top);
        let mut walk = Walk::through(top);
        while let Some(directory) = walk.enter_next() {
            let directory = directory.to_vec();
            for (path, tree) in self.unprotected(&directory)? {
                self.delete(&path);
                if tree {
                    walk.add(paths::split(&path).1.to_vec());
                }
            }
        }
        Ok(())
    }

    fn delete(&mut self, path: &[u8]) {
        self.deleted += 1;
        (self.name)(path);
    }

    /// Returns the entries of a directory of the target that may be deleted: each path, and true
    /// for a directory.
    fn unprotected(&mut self, directory: &[u8]) -> io::Result<Vec<(Vec<u8>, bool)>> {
        let mut paths = Vec::new();
        for found in list(self.orders, self.target, directory)? {
            self.seen += 1;
            let tree = is_tree(self.target, directory, &found)?;
            let path = below(directory, &found.name, tree);
            if !self.orders.protects(&path) {
                paths.push((path, tree));
            }
        }
        Ok(paths)
    }
}

/// Returns the entries of a directory of the target; none if it is gone.
fn list(orders: &CopyJob, target: &Beneath, path: &[u8]) -> io::Result<Vec<FoundEntry>> {
    stopped(&orders.control)?;
    match target
        .directory(path)
        .and_then(|found| beneath::list(&found))
    {
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        result => result,
    }
}

/// Returns true if this name in a directory of the target is that of a directory.
fn is_tree(target: &Beneath, directory: &[u8], found: &FoundEntry) -> io::Result<bool> {
    let path = || below(directory, &found.name, false);
    Ok(match found.kind {
        FileType::Unknown => target
            .lookup(&path())?
            .is_some_and(|stat| is_directory(&stat)),
        kind => kind == FileType::Directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(events: &[(Change, &str)]) -> Vec<CopyItem> {
        let item = |&(change, path): &(Change, &str)| CopyItem {
            change,
            path: path.into(),
            to: None,
        };
        events.iter().map(item).collect()
    }

    /// Whatever else the target has in a directory would be deleted with it.
    #[test]
    fn trees_are_removed_directories_with_removed_contents() {
        use Change::{Create, Delete};
        let items = items(&[
            (Delete, "/d/e/f"),
            (Delete, "/d/e/"),
            (Delete, "/d/"),
            (Delete, "/alone/"),
            (Delete, "/kept/f"),
            (Create, "/new/"),
            (Create, "/new/f"),
            (Delete, "/new/g"),
        ]);
        assert_eq!(trees(&items), BTreeSet::from([&b"/d"[..]]));
        let mut outermost: Vec<&[u8]> = outermost(&items).collect();
        outermost.sort();
        let wanted: [&[u8]; 4] = [b"/alone", b"/d", b"/kept/f", b"/new/g"];
        assert_eq!(outermost, wanted);
    }
}
