//! What a start has to compare, by the index and the disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::digest::FileTime;
use super::file::{Header, Index};
use super::rows::{self, Row, UNKNOWN};
use super::walk::{Visited, Visitor, Walk, file_time, may_look_unchanged};

/// The maximum number of directories that are compared one by one. Beyond, one comparison of
/// everything is cheaper.
const MAX_DIRECTORIES: usize = 100_000;
/// The maximum number of files whose content is compared.
const MAX_FILES: usize = 100_000;

/// What a start has to compare.
#[derive(Debug)]
pub enum StartupPlan {
    /// These directories, each without those below it; none if nothing has changed.
    Directories(DirectoryPlan),
    /// Everything, for this reason.
    Everything(String),
}

/// A plan that names directories.
#[derive(Debug)]
pub struct DirectoryPlan {
    /// Paths with slashes around them, each behind the directory that contains it.
    pub directories: Vec<Vec<u8>>,
    /// Files in them that have changed without looking so for rsync.
    pub files: Vec<Vec<u8>>,
    /// A file in them has several names.
    pub has_links: bool,
    /// All changes before this time are at the target.
    pub since: SystemTime,
    /// The index of what is known of the target before anything is sent.
    pub index: Index,
}

/// What is known of the daemon before this one.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// It was killed: it may have sent changes that were undone since. A directory that was renamed
    /// and renamed back has another ctime, and all below it counts as changed.
    pub was_killed: bool,
    /// The time before which all changes are at the target, if it is known to be later than that of
    /// the index.
    pub synced: Option<SystemTime>,
}

/// Compares the index with the source. `walk.key` is that of the index.
///
/// # Errors
///
/// The index proves nothing: a text for the log.
pub fn plan(index: Index, walk: &Walk<'_>, before: Before) -> Result<DirectoryPlan, String> {
    let since = before
        .synced
        .map_or(index.header.taken, |synced| synced.max(index.header.taken));
    let count = AtomicUsize::new(0);
    let visitors = walk.run(vec![(b"/".to_vec(), true)], || Judge {
        known: &index.rows,
        was_killed: before.was_killed,
        since: file_time(since),
        count: &count,
        kept: Vec::new(),
        directories: Vec::new(),
        files: Vec::new(),
        has_links: false,
    })?;
    let mut plan = DirectoryPlan {
        directories: Vec::new(),
        files: Vec::new(),
        has_links: false,
        since,
        index: Index {
            header: Header {
                taken: since,
                ..index.header
            },
            rows: Vec::new(),
        },
    };
    for judge in visitors {
        plan.directories.extend(judge.directories);
        plan.files.extend(judge.files);
        plan.has_links |= judge.has_links;
        plan.index.rows.extend(judge.kept);
    }
    if plan.directories.len() > MAX_DIRECTORIES || plan.files.len() > MAX_FILES {
        return Err("too much has changed".to_owned());
    }
    plan.directories.sort_unstable();
    rows::sort(&mut plan.index.rows);
    Ok(plan)
}

/// Judges the directories of one thread.
struct Judge<'a> {
    known: &'a [Row],
    was_killed: bool,
    since: FileTime,
    /// The number of changed directories of all threads.
    count: &'a AtomicUsize,
    kept: Vec<Row>,
    directories: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    has_links: bool,
}

impl Visitor for Judge<'_> {
    fn visit(&mut self, visited: &Visited<'_>) -> bool {
        let row = visited.row;
        let is_known = rows::find(self.known, row.path, row.digest).is_some();
        let has_changed = visited.is_marked || !is_known;
        if !has_changed {
            self.kept.push(row);
            return false;
        }
        self.kept.push(Row {
            digest: UNKNOWN,
            ..row
        });
        if self.count.fetch_add(1, Ordering::Relaxed) <= MAX_DIRECTORIES {
            self.directories.push(visited.path.to_vec());
            self.note_files(visited);
        }
        // The root is where it was: the guard of the source knows it.
        self.was_killed && visited.path != b"/"
    }
}

impl Judge<'_> {
    fn note_files(&mut self, visited: &Visited<'_>) {
        for (name, stat) in visited.files {
            self.has_links |= stat.st_nlink > 1;
            if self.files.len() <= MAX_FILES && may_look_unchanged(stat, self.since) {
                self.files.push([visited.path, name].concat());
            }
        }
    }
}

/// The digests of directories.
pub struct Digests {
    /// The rows, sorted. The digest of a racy directory is unknown.
    pub rows: Vec<Row>,
    /// The racy directories.
    pub racy: Vec<Vec<u8>>,
}

/// Takes the digests of these directories, those marked true with all below them.
///
/// # Errors
///
/// Digests of this source prove nothing, or it cannot be read: a text for the log.
pub fn digests(walk: &Walk<'_>, roots: Vec<(Vec<u8>, bool)>) -> Result<Digests, String> {
    let visitors = walk.run(roots, || Digests {
        rows: Vec::new(),
        racy: Vec::new(),
    })?;
    let mut all = Digests {
        rows: Vec::new(),
        racy: Vec::new(),
    };
    for digests in visitors {
        all.rows.extend(digests.rows);
        all.racy.extend(digests.racy);
    }
    rows::sort(&mut all.rows);
    Ok(all)
}

impl Visitor for Digests {
    fn visit(&mut self, visited: &Visited<'_>) -> bool {
        let mut row = visited.row;
        if visited.is_racy {
            row.digest = UNKNOWN;
            self.racy.push(visited.path.to_vec());
        }
        self.rows.push(row);
        false
    }
}
