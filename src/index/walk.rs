//! Reads the directories of a source on several threads, and takes their digests.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use hashbrown::HashMap;
use rustix::fs::{self, FileType, Stat};

use super::digest::{DirectoryDigest, FileTime, changed, modified};
use super::rows::Row;
use super::siphash::HashKey;
use crate::filter::Filter;
use crate::local::beneath::{self, Beneath};
use crate::log;
use crate::paths;

/// The maximum number of threads; more gain nothing.
const MAX_THREADS: usize = 8;
/// A change may get the timestamp of an earlier one within this time (git's rule for racy times).
pub const RACY: Duration = Duration::from_secs(2);

/// File systems by their magic number (statfs(2)) whose inodes last, and whose ctime advances with
/// each change and each rename: ext2 to ext4, XFS, btrfs, tmpfs, F2FS, ZFS and bcachefs.
const KNOWN_FILE_SYSTEMS: [u64; 7] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
];

/// The parameters of a walk.
pub struct IndexWalk<'a> {
    /// The source: absolute, with a trailing slash.
    pub source: &'a [u8],
    /// Subdirectories are included.
    pub subdirs: bool,
    /// The filter of the sync.
    pub filter: &'a RwLock<Filter>,
    /// The key of the hashes.
    pub key: &'a HashKey,
    /// The time of the start.
    pub begun: SystemTime,
    /// Set to end the walk.
    pub cancelled: &'a AtomicBool,
}

/// A directory that was read.
pub struct Visited<'a> {
    /// The path, with slashes around it.
    pub path: &'a [u8],
    /// The row.
    pub row: Row,
    /// A change from now on may not change the digest.
    pub is_racy: bool,
    /// The result of the visitor for the parent directory.
    pub is_marked: bool,
    /// The entries that are not directories, with their state.
    pub files: &'a [(Vec<u8>, Stat)],
    /// The directory could not be read completely.
    pub is_incomplete: bool,
}

/// Takes the directories of one thread.
pub trait Visitor: Send {
    /// Takes a directory. Returns the mark for those below.
    fn visit(&mut self, visited: &Visited<'_>) -> bool;
}

/// A directory to be read.
struct PendingDir {
    path: Vec<u8>,
    parent: u64,
    is_marked: bool,
    is_tree: bool,
}

/// The directories that wait for a thread.
#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Condvar,
    idle: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    items: Vec<PendingDir>,
    busy: usize,
    error: Option<String>,
}

impl IndexWalk<'_> {
    /// Reads these directories, those marked true with everything below them. Directories that do
    /// not exist are skipped. Returns the visitors.
    ///
    /// # Errors
    ///
    /// The digests of this source cannot be trusted, or it cannot be read; a text for the log.
    pub fn run<V: Visitor>(
        &self,
        roots: Vec<(Vec<u8>, bool)>,
        new_visitor: impl Fn() -> V + Sync,
    ) -> Result<Vec<V>, String> {
        let shared = Shared::default();
        let items = roots.into_iter().map(|(path, is_tree)| PendingDir {
            parent: self.key.path(paths::parent(&path).unwrap_or(b"/")),
            path,
            is_marked: false,
            is_tree,
        });
        lock(&shared.waiting).items = items.collect();
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        let visitors = thread::scope(|scope| {
            let work = || {
                let mut visitor = new_visitor();
                match Worker::new(self, &shared) {
                    Ok(mut worker) => worker.run(&mut visitor),
                    Err(error) => shared.fail(format!("it cannot be read: {error}")),
                }
                visitor
            };
            let mut others = Vec::new();
            for _ in 1..threads.min(MAX_THREADS) {
                let spawned = thread::Builder::new()
                    .name("index".into())
                    .spawn_scoped(scope, work);
                others.extend(spawned.ok());
            }
            let mut visitors = vec![work()];
            for other in others {
                match other.join() {
                    Ok(visitor) => visitors.push(visitor),
                    Err(_) => shared.fail("a thread has failed".to_owned()),
                }
            }
            visitors
        });
        let failed = lock(&shared.waiting).error.take();
        match failed {
            _ if self.cancelled.load(Ordering::Relaxed) => Err("the search was ended".to_owned()),
            Some(error) => Err(error),
            None => Ok(visitors),
        }
    }
}

impl Shared {
    /// Ends the walk of all threads.
    fn fail(&self, error: String) {
        let mut waiting = lock(&self.waiting);
        waiting.error.get_or_insert(error);
        waiting.items.clear();
        drop(waiting);
        self.more.notify_all();
    }

    /// Returns a directory; `None` if none is left and no thread can find more.
    fn next(&self, was_busy: bool) -> Option<PendingDir> {
        let mut waiting = lock(&self.waiting);
        waiting.busy -= usize::from(was_busy);
        loop {
            if waiting.error.is_some() {
                break;
            }
            if let Some(item) = waiting.items.pop() {
                waiting.busy += 1;
                return Some(item);
            }
            if waiting.busy == 0 {
                break;
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            waiting = self
                .more
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.more.notify_all();
        None
    }

    /// Gives half of the directories to idle threads.
    fn share(&self, own: &mut Vec<PendingDir>) {
        if own.len() < 2 || self.idle.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.error.is_none() {
            waiting.items.extend(own.drain(..own.len() / 2));
        }
        drop(waiting);
        self.more.notify_all();
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread.
struct Worker<'a> {
    walk: &'a IndexWalk<'a>,
    shared: &'a Shared,
    place: Beneath,
    digest: DirectoryDigest<'a>,
    files: Vec<(Vec<u8>, Stat)>,
    /// True for devices whose digests can be trusted.
    devices: HashMap<u64, bool>,
}

impl<'a> Worker<'a> {
    fn new(walk: &'a IndexWalk<'a>, shared: &'a Shared) -> io::Result<Worker<'a>> {
        Ok(Worker {
            walk,
            shared,
            place: Beneath::enter(walk.source)?,
            digest: DirectoryDigest::new(walk.key, file_time(walk.begun - RACY)),
            files: Vec::new(),
            devices: HashMap::new(),
        })
    }

    fn run(&mut self, visitor: &mut impl Visitor) {
        let mut own = Vec::new();
        let mut was_busy = false;
        while let Some(first) = self.shared.next(was_busy) {
            was_busy = true;
            own.push(first);
            while let Some(item) = own.pop() {
                if self.walk.cancelled.load(Ordering::Relaxed) {
                    return self.shared.fail(String::new());
                }
                if let Err(error) = self.read(&item, visitor, &mut own) {
                    return self.shared.fail(error);
                }
                self.shared.share(&mut own);
            }
        }
    }

    /// Reads a directory.
    fn read(
        &mut self,
        item: &PendingDir,
        visitor: &mut impl Visitor,
        own: &mut Vec<PendingDir>,
    ) -> Result<(), String> {
        let path = &item.path;
        let hash = self.walk.key.path(path);
        let first = own.len();
        self.digest.clear();
        self.files.clear();
        let read = self.read_entries(path, hash, own);
        let (digest, is_incomplete) = match read {
            Ok(Some(stat)) => {
                self.check_device(path, &stat)?;
                (self.digest.finish(path, &stat), false)
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                let shown = log::escape(path);
                log::say("Debug", format_args!("cannot read {shown}: {error}"));
                (super::rows::UNKNOWN, true)
            }
        };
        let mark = visitor.visit(&Visited {
            path,
            row: Row {
                path: hash,
                parent: item.parent,
                digest,
            },
            is_racy: self.digest.is_racy(),
            is_marked: item.is_marked,
            files: &self.files,
            is_incomplete,
        });
        if item.is_tree {
            own[first..]
                .iter_mut()
                .for_each(|below| below.is_marked = mark);
        } else {
            own.truncate(first);
        }
        Ok(())
    }

    /// Adds the entries of a directory to the digest, and its subdirectories to `own`. Returns the
    /// state of the directory; `None` if it is gone.
    fn read_entries(
        &mut self,
        path: &[u8],
        hash: u64,
        own: &mut Vec<PendingDir>,
    ) -> io::Result<Option<Stat>> {
        let open = match self.place.directory(path) {
            Err(error) if beneath::is_missing(&error) => return Ok(None),
            open => open?,
        };
        // The state of before, so that a change meanwhile is seen as one.
        let stat = fs::fstat(&open)?;
        for found in beneath::list(&open)? {
            let is_directory = match found.kind {
                FileType::Directory => true,
                FileType::Unknown => {
                    match beneath::lookup(&open, OsStr::from_bytes(&found.name))? {
                        Some(stat) => beneath::is_directory(&stat),
                        None => continue,
                    }
                }
                _ => false,
            };
            let below = [path, &found.name, if is_directory { b"/" } else { b"" }].concat();
            if self.is_excluded(&below, is_directory) {
                continue;
            }
            if is_directory {
                self.digest.add_directory(&found.name);
                own.push(PendingDir {
                    path: below,
                    parent: hash,
                    is_marked: false,
                    is_tree: true,
                });
                continue;
            }
            if let Some(stat) = beneath::lookup(&open, OsStr::from_bytes(&found.name))? {
                self.digest.add_file(&found.name, &stat);
                self.files.push((found.name, stat));
            }
        }
        Ok(Some(stat))
    }

    fn is_excluded(&self, path: &[u8], is_directory: bool) -> bool {
        let filter = self
            .walk
            .filter
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        (is_directory && !self.walk.subdirs) || (!filter.is_empty() && filter.excluded_here(path))
    }

    /// Refuses file systems whose times or inodes prove nothing.
    fn check_device(&mut self, path: &[u8], stat: &Stat) -> Result<(), String> {
        let known = *self.devices.entry(stat.st_dev).or_insert_with(|| {
            let open = self.place.directory(path);
            let found = open.and_then(|open| Ok(fs::fstatfs(&open)?));
            found.is_ok_and(|found| KNOWN_FILE_SYSTEMS.contains(&(found.f_type as u32).into()))
        });
        if known {
            return Ok(());
        }
        let shown = log::escape(path);
        Err(format!(
            "times and inodes of the file system of {shown} are not reliable"
        ))
    }
}

/// Returns a time as files have it.
pub fn file_time(time: SystemTime) -> FileTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() as i64, since.subsec_nanos().into())
}

/// Returns true if rsync's comparison of size and whole seconds may miss that a file has changed
/// since then: its inode has, and it may have an old modification time.
pub fn may_look_unchanged(stat: &Stat, since: FileTime) -> bool {
    let (modified, changed) = (modified(stat), changed(stat));
    let is_recent = changed >= since;
    // A file that was written has the time of the write, unless it was set afterwards.
    let is_written = modified == changed && modified.0 > since.0 + 1;
    is_recent && !is_written && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
