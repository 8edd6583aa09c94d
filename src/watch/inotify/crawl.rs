//! Reads directories and sets watches on their subdirectories, on several threads.
//!
//! Results are expressed in descriptors: "in the directory with this one, that name is the
//! directory with that one". Such a fact remains true after renames, so the threads do not need the
//! tree. They know a path, and after reading a directory they check that the path still leads to
//! it; if not, the listing may be that of another directory and is dropped.
//!
//! Directories that are not cached are read by many threads, which wait for the disk, cached ones
//! by a few.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mio::Waker;

use super::records::{Kernel, vanished};
use crate::paths;
use crate::watch::Tell;
use crate::watch::scopes::Scopes;

/// The number of records after which the main loop is woken. The loop takes records at other times
/// too; waking it for each one would cost more than applying it.
const WAKE_RECORDS: usize = 256;

/// A watched directory to be read.
pub struct CrawlTask {
    /// The absolute path, ending with `/`.
    pub path: Vec<u8>,
    pub wd: i32,
    /// True for the root of a tree.
    pub root: bool,
    /// The inode number listed in the parent directory, 0 if unknown.
    pub inode: u64,
    /// The observers to which results are reported. Files and unwanted directories are listed only
    /// if there are any.
    pub tell: Tell,
    pub scopes: Scopes,
}

/// The result of reading one directory.
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<ListedEntry>,
    /// The number of names read, listed or not.
    pub total: usize,
    pub outcome: ListOutcome,
    /// True if no scope wants some subdirectory.
    pub skipped: bool,
    /// The watch of the directory that the path leads to instead.
    pub orphan: Option<i32>,
    /// Subdirectories that could not be watched, with the error.
    pub failures: Vec<(Vec<u8>, io::Error)>,
}

/// The outcome of reading a directory.
pub enum ListOutcome {
    Complete,
    /// The path does not lead to the directory any more; the listing is not valid.
    PathChanged,
    /// The directory has more entries than the limit; none is listed.
    TooLarge,
    Failed(io::Error),
}

struct ListedEntry {
    length: u16,
    found: FoundKind,
    inode: u64,
}

/// The kind of a name in a [`Listing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// Anything that is not a directory.
    File,
    /// A directory that is not wanted or could not be watched.
    Unwatched,
    /// A directory and its watch; `token` is that of its own future [`CrawlRecord`], or 0.
    Directory { wd: i32, token: u64 },
}

impl Listing {
    /// Returns the names in the order of reading.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], FoundKind)> {
        let mut names = self.names.as_slice();
        self.entries.iter().map(move |entry| {
            let (name, rest) = names.split_at(entry.length.into());
            names = rest;
            (name, entry.found)
        })
    }

    /// Returns the number of names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn push(&mut self, entry: &DirEntry, found: FoundKind) {
        let name = entry.file_name();
        self.names.extend_from_slice(name.as_bytes());
        self.entries.push(ListedEntry {
            length: name.len() as u16,
            found,
            inode: entry.ino(),
        });
    }

    /// Returns the directories among the entries, by name.
    fn directories(&mut self) -> impl Iterator<Item = (&[u8], &mut ListedEntry)> {
        let mut names = self.names.as_slice();
        self.entries.iter_mut().filter_map(move |entry| {
            let (name, rest) = names.split_at(entry.length.into());
            names = rest;
            (entry.found != FoundKind::File).then_some((name, entry))
        })
    }
}

/// Reads one directory, watches its wanted subdirectories, and checks that the path still leads to
/// it.
pub fn list(kernel: &mut Kernel, task: &CrawlTask, limit: Option<usize>) -> Listing {
    let mut listing = Listing {
        names: Vec::new(),
        entries: Vec::new(),
        total: 0,
        outcome: ListOutcome::Complete,
        skipped: false,
        orphan: None,
        failures: Vec::new(),
    };
    let result = read_names(task, &mut listing, limit.unwrap_or(usize::MAX));
    listing.outcome = match result {
        Ok(true) => ListOutcome::Complete,
        Ok(false) => {
            listing.names.clear();
            listing.entries.clear();
            return Listing {
                outcome: ListOutcome::TooLarge,
                ..listing
            };
        }
        Err(error) if vanished(&error) => ListOutcome::PathChanged,
        Err(error) => ListOutcome::Failed(error),
    };
    watch_below(kernel, task, &mut listing);
    if !is_still_there(task) {
        let now = kernel.add(&task.path, task.root).ok();
        if now != Some(task.wd) {
            listing.outcome = ListOutcome::PathChanged;
            listing.orphan = now;
        }
    }
    listing
}

/// Returns true if the path leads to the inode that the parent's listing named before the watch was
/// set.
///
/// Setting the watch again would be exact, but all threads would contend for it in the kernel. At a
/// mount point the inode numbers differ, and the watch is set again.
fn is_still_there(task: &CrawlTask) -> bool {
    if task.inode == 0 {
        return false;
    }
    let path = paths::bare(&task.path);
    let found = std::fs::symlink_metadata(OsStr::from_bytes(path));
    found.is_ok_and(|found| found.ino() == task.inode)
}

/// Lists the names. Returns false if there are more than `limit`.
fn read_names(task: &CrawlTask, listing: &mut Listing, limit: usize) -> io::Result<bool> {
    let directory = std::fs::read_dir(OsStr::from_bytes(&task.path))?;
    for (count, entry) in directory.enumerate() {
        let entry = entry?;
        if count == limit {
            return Ok(false);
        }
        listing.total += 1;
        let directory = match entry.file_type() {
            Ok(kind) => kind.is_dir(),
            // The file system does not report types, and the file is gone.
            Err(error) if vanished(&error) => continue,
            Err(error) => return Err(error),
        };
        if directory {
            listing.push(&entry, FoundKind::Unwatched);
        } else if task.tell != Tell::Nobody {
            listing.push(&entry, FoundKind::File);
        }
    }
    Ok(true)
}

fn watch_below(kernel: &mut Kernel, task: &CrawlTask, listing: &mut Listing) {
    let mut path = task.path.clone();
    let mut skipped = false;
    let mut failures = Vec::new();
    for (name, entry) in listing.directories() {
        path.truncate(task.path.len());
        path.extend_from_slice(name);
        path.push(b'/');
        if !task.scopes.wanted(&path) {
            skipped = true;
            continue;
        }
        match kernel.add(&path, false) {
            Ok(wd) => entry.found = FoundKind::Directory { wd, token: 0 },
            // It was removed, which an event reports.
            Err(error) if vanished(&error) => {}
            Err(error) => failures.push((path.clone(), error)),
        }
    }
    listing.skipped = skipped;
    listing.failures = failures;
}

/// The result of a [`CrawlTask`].
pub struct CrawlRecord {
    pub token: u64,
    pub wd: i32,
    pub tell: Tell,
    pub listing: Listing,
}

struct CrawlJob {
    token: u64,
    task: CrawlTask,
}

/// Threads that read directories and everything below them. They start when there is work and end
/// when there is none.
pub struct Pool {
    shared: Arc<SharedPool>,
    kernel: Kernel,
    threads: Vec<JoinHandle<()>>,
    limit: usize,
}

struct SharedPool {
    state: Mutex<PoolState>,
    /// Signals that jobs were added or that there will be no more.
    changed: Condvar,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct PoolState {
    /// A stack of jobs: few directories are open at a time, and consecutive paths are close to each
    /// other.
    jobs: Vec<CrawlJob>,
    /// The results. A directory's record is added before any thread can see the jobs below it.
    records: Vec<CrawlRecord>,
    running: usize,
    threads: usize,
    tokens: u64,
    stopping: bool,
}

impl PoolState {
    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }
}

impl Pool {
    pub fn new(kernel: Kernel, waker: Arc<Waker>) -> Pool {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Pool {
            shared: Arc::new(SharedPool {
                state: Mutex::default(),
                changed: Condvar::new(),
                waker,
            }),
            kernel,
            threads: Vec::new(),
            limit: cores.clamp(2, 8),
        }
    }

    /// Reads a directory and everything below it; returns the token of the directory's own record.
    ///
    /// # Errors
    /// No thread can be started and none is running; the task is dropped.
    pub fn submit(&mut self, task: CrawlTask) -> io::Result<u64> {
        self.threads.retain(|thread| !thread.is_finished());
        let mut state = self.shared.lock();
        let token = state.token();
        state.jobs.push(CrawlJob { token, task });
        self.shared.changed.notify_one();
        while state.threads < self.limit {
            let shared = Arc::clone(&self.shared);
            let kernel = self.kernel.clone();
            let builder = thread::Builder::new().name("crawl".into());
            match builder.spawn(move || run(&shared, kernel)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if state.threads == 0 => {
                    state.jobs.clear();
                    return Err(error);
                }
                Err(_) => break,
            }
            state.threads += 1;
        }
        Ok(token)
    }

    /// Returns the records so far, and true if no more will come.
    pub fn take(&self) -> (Vec<CrawlRecord>, bool) {
        let mut state = self.shared.lock();
        let records = std::mem::take(&mut state.records);
        (records, state.jobs.is_empty() && state.running == 0)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.jobs.clear();
        drop(state);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl SharedPool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next job, or `None` when all is done.
    fn next(&self) -> Option<CrawlJob> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 || state.stopping {
                state.threads -= 1;
                return None;
            }
            let waiting = self.changed.wait(state);
            state = waiting.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds a record and creates jobs for the directories it lists.
    fn done(&self, job: CrawlJob, mut listing: Listing) {
        let CrawlJob { token, task } = job;
        // Paths are built before the lock is taken; tokens need it.
        let trusted = matches!(listing.outcome, ListOutcome::Complete);
        let mut below = Vec::new();
        if trusted {
            for (name, entry) in listing.directories() {
                if let FoundKind::Directory { wd, .. } = entry.found {
                    below.push(task.below(name, wd, entry.inode));
                }
            }
        }
        let count = below.len();
        let mut state = self.lock();
        let first = state.tokens + 1;
        if trusted {
            state.tokens += count as u64;
            let mut token = first;
            for (_, entry) in listing.directories() {
                if let FoundKind::Directory { token: slot, .. } = &mut entry.found {
                    *slot = token;
                    token += 1;
                }
            }
        }
        state.records.push(CrawlRecord {
            token,
            wd: task.wd,
            tell: task.tell,
            listing,
        });
        if !state.stopping {
            let jobs = (first..)
                .zip(below)
                .map(|(token, task)| CrawlJob { token, task });
            state.jobs.extend(jobs);
        }
        state.running -= 1;
        let finished = state.running == 0 && state.jobs.is_empty();
        let enough = state.records.len() == WAKE_RECORDS;
        drop(state);
        if finished || count > 2 {
            self.changed.notify_all();
        } else if count > 1 {
            self.changed.notify_one();
        }
        if enough || finished {
            let _ = self.waker.wake();
        }
    }
}

impl CrawlTask {
    fn below(&self, name: &[u8], wd: i32, inode: u64) -> CrawlTask {
        let mut path = Vec::with_capacity(self.path.len() + name.len() + 1);
        path.extend_from_slice(&self.path);
        path.extend_from_slice(name);
        path.push(b'/');
        CrawlTask {
            path,
            wd,
            root: false,
            inode,
            tell: self.tell,
            scopes: self.scopes.clone(),
        }
    }
}

fn run(shared: &SharedPool, mut kernel: Kernel) {
    while let Some(job) = shared.next() {
        let listing = list(&mut kernel, &job.task, None);
        shared.done(job, listing);
    }
}
