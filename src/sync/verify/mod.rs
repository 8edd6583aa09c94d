//! Verification: searches for changes that rsync's quick check cannot detect, and compares their
//! content.
//!
//! rsync treats a file as unchanged if its size and its modification time in whole seconds agree. A
//! file that was sent and changes again within one second, to the same size, is sent because of its
//! event. If events may have been lost, the files that have changed since everything was at the
//! target are searched for ([`recent`]) and queued, and their content is compared. They are few,
//! because each transfer advances that time.
//!
//! * `recent`: the search;
//! * `tests`: tests.

mod recent;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use hashbrown::HashSet;
use mio::Waker;

use self::recent::{MAX_FOUND, Recent, Search};
use super::commands::Mark;
use super::{SharedFilter, Sync};
use crate::log;
use crate::process::Priority;
use crate::queue::{Etype, Status, Time};
use crate::watch::{EventMark, Watcher};

/// The maximum delay of the coarse clock that file timestamps are taken from.
pub(super) const CLOCK_TICK: Duration = Duration::from_millis(10);

/// The maximum time between a write and its processing, since user code may block the loop.
const MAX_LAG: Duration = Duration::from_secs(30);

/// Found files are queued while the queue has fewer entries than this.
const MAX_QUEUED: usize = 1000;

/// The time up to which everything is on the target, and the search for later changes.
pub struct Verify {
    /// All changes before this time are on the target.
    synced: SystemTime,
    /// Changes after `synced` may have been missed.
    needed: bool,
    /// A full comparison is running, so changes that it cannot detect have to be searched for.
    wanted: bool,
    search: Option<Running>,
    /// The start of the last complete search.
    last: Option<SystemTime>,
    /// Files found and not queued yet.
    found: VecDeque<Vec<u8>>,
    /// The start of the search whose files are queued, and the mark that is reached when they are
    /// sent.
    queued: Option<(SystemTime, Mark)>,
    /// Paths to be compared by content when they are sent.
    by_content: HashSet<Vec<u8>>,
    /// The start of the last search whose files have all been queued.
    searched: SystemTime,
    /// A transfer has ended since `synced` was updated.
    stale: bool,
    progress: Option<SyncedProgress>,
}

/// The steps towards a new value of `synced`.
enum SyncedProgress {
    /// Events from before the mark are being delivered.
    Delivering(SystemTime, EventMark),
    /// They are queued, up to the mark.
    Sending(SystemTime, Mark),
}

/// A search on a thread. It is cancelled on drop.
struct Running {
    begun: SystemTime,
    result: Receiver<Recent>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Default for Verify {
    fn default() -> Verify {
        Verify {
            synced: SystemTime::now() - CLOCK_TICK,
            needed: false,
            wanted: false,
            search: None,
            last: None,
            found: VecDeque::new(),
            queued: None,
            by_content: HashSet::new(),
            searched: SystemTime::UNIX_EPOCH,
            stale: false,
            progress: None,
        }
    }
}

impl Verify {
    /// Returns the time before which all changes are on the target.
    pub fn synced(&self) -> SystemTime {
        self.synced
    }

    /// Records that changes may have been missed.
    pub fn suspect(&mut self) {
        self.needed = true;
    }

    /// Records that the previous daemon may have missed changes after this time.
    pub fn suspect_since(&mut self, synced: SystemTime) {
        self.synced = synced;
        self.needed = true;
    }

    /// Records that of the changes after this time those that are not on the target are queued.
    pub fn keep_synced(&mut self, synced: SystemTime) {
        self.synced = self.synced.min(synced);
    }

    /// Records that changes were searched for elsewhere, from `begun` on: those since `synced` are
    /// these files, which rsync takes for unchanged, and what is compared by other means.
    pub fn found_elsewhere(&mut self, synced: SystemTime, begun: SystemTime, files: Vec<Vec<u8>>) {
        self.synced = synced;
        self.needed = false;
        self.found.extend(files);
        self.last = Some(begun - CLOCK_TICK);
    }

    /// Records that everything is compared. `by_time` is false if a user program decides how.
    pub fn compares_all(&mut self, by_time: bool) {
        self.wanted = by_time && self.needed;
        self.needed &= by_time;
    }

    /// Returns true if files to be compared by content may be missing in the queue.
    pub fn is_searching(&self) -> bool {
        self.search.is_some() || !self.found.is_empty() || (self.needed && self.wanted)
    }

    /// Returns true if the queue contains all changes that are not on the target.
    pub fn is_done(&self) -> bool {
        !self.needed && !self.is_searching()
    }

    /// Returns true if this path is to be compared by content.
    pub fn is_by_content(&self, path: &[u8]) -> bool {
        self.by_content.contains(path)
    }

    /// Returns true if a file with this path and ctime was found by a search, which has found all
    /// its names.
    pub(super) fn knows_names(&self, path: &[u8], changed: SystemTime) -> bool {
        self.is_by_content(path) && changed < self.searched
    }

    /// Sets the start of the last search whose files have all been queued.
    #[cfg(test)]
    pub(super) fn set_searched(&mut self, searched: SystemTime) {
        self.searched = searched;
    }

    /// Marks a path to be compared by content.
    pub fn add(&mut self, path: &[u8]) {
        self.by_content.insert(path.to_vec());
    }

    /// Handles the end of a transfer.
    pub fn transferred(&mut self) {
        self.stale = true;
    }

    /// Takes over the unverified changes of the replaced sync.
    pub fn take_over(&mut self, old: &Verify) {
        self.synced = old.synced;
        self.needed |= !old.is_done();
        self.by_content.clone_from(&old.by_content);
    }
}

impl Sync {
    /// Returns true if files are searched for or queued to be compared by content. Files of a sync
    /// that fails are left to the next daemon.
    pub fn is_verifying(&self) -> bool {
        let left = self.verify.is_searching() || self.verify.queued.is_some();
        left && !self.is_failing() && self.failed_paths().is_empty() && !self.has_ended()
    }

    /// Advances the search for files to be compared by content. `waker` is called when there are
    /// results.
    ///
    /// # Errors
    ///
    /// No thread can be started; the next call tries again.
    pub fn verify_recent(&mut self, waker: &Arc<Waker>, now: Time) -> io::Result<()> {
        if self.verify.needed && self.verify.wanted && self.verify.search.is_none() {
            self.verify.search = Some(self.search(waker)?);
            self.verify.needed = false;
            self.verify.queued = None;
        }
        let verify = &mut self.verify;
        let mut begun = None;
        if let Some(search) = verify.search.as_ref().filter(|_| verify.found.is_empty()) {
            match search.result.try_recv() {
                Ok(recent) => {
                    begun = (!recent.more).then_some(search.begun);
                    verify.found = recent.files.into();
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    verify.search = None;
                    verify.needed = true;
                }
            }
        }
        if begun.is_some() {
            verify.last = begun;
            verify.search = None;
        }
        self.queue_found(now);
        if self.verify.found.is_empty()
            && let Some(begun) = self.verify.last.take()
        {
            self.verify.searched = begun;
            self.verify.queued = Some((begun, self.mark()));
        }
        Ok(())
    }

    /// Queues found files while the queue has room. During a full comparison they wait, since they
    /// would be sent twice.
    fn queue_found(&mut self, now: Time) {
        let max = MAX_QUEUED.min(self.queue_limit.bound());
        let room = max.saturating_sub(self.queue.len());
        let count = self.verify.found.len().min(room);
        let mut specials = self.queue.specials();
        if count == 0 || specials.any(|delay| delay.status() == Status::Active) {
            return;
        }
        drop(specials);
        self.requeues += 1;
        for path in self.verify.found.drain(..count).collect::<Vec<_>>() {
            if !self.is_below_missing_mount(Etype::Modify, &path) {
                self.verify.add(&path);
                self.queue.push(Etype::Modify, &path, None, now);
            }
        }
    }

    /// Starts the search.
    fn search(&self, waker: &Arc<Waker>) -> io::Result<Running> {
        let cancelled = Arc::new(AtomicBool::new(false));
        // One part of the results waits in the channel, the next one in the thread.
        let (sender, result) = sync_channel(1);
        let request = SearchRequest {
            source: self.config.source.clone(),
            since: self.verify.synced,
            filter: Arc::clone(&self.filter),
            subdirs: self.config.subdirs,
            cancelled: Arc::clone(&cancelled),
        };
        let begun = SystemTime::now() - CLOCK_TICK;
        let priority = self.config.priority;
        let waker = Arc::clone(waker);
        thread::Builder::new()
            .name("verify".into())
            .spawn(move || request.run(priority, &sender, &waker))?;
        Ok(Running {
            begun,
            result,
            cancelled,
        })
    }

    /// Advances the time up to which everything is on the target. Must be called right after the
    /// turn of the watcher. Returns true if the time has changed. If some directories are not
    /// watched, only a search of the disk advances it.
    pub fn advance_synced(&mut self, watcher: &Watcher, all_watched: bool) -> bool {
        let mut advanced = false;
        if let Some((begun, mut mark)) = self.verify.queued.take() {
            if !self.reached(&mut mark) {
                self.verify.queued = Some((begun, mark));
                return false;
            }
            // The search also finds changes in unwatched directories.
            self.verify.synced = begun;
            self.verify.by_content.clear();
            self.verify.progress = None;
            advanced = true;
        }
        if !self.verify.is_done() || !all_watched {
            self.verify.progress = None;
            return advanced;
        }
        let mut progress = self.verify.progress.take();
        if progress.is_none() && std::mem::take(&mut self.verify.stale) {
            progress = Some(SyncedProgress::Delivering(
                SystemTime::now() - CLOCK_TICK,
                watcher.event_mark(),
            ));
        }
        if let Some(SyncedProgress::Delivering(time, moment)) = progress
            && watcher.has_reported(moment)
        {
            // Writes to open files are reported later.
            let age = watcher.oldest_open();
            let time = before_open(time, SystemTime::now(), age);
            progress = Some(SyncedProgress::Sending(time, self.mark()));
        }
        if let Some(SyncedProgress::Sending(time, mark)) = &mut progress
            && self.reached(mark)
        {
            self.verify.synced = *time;
            progress = None;
            advanced = true;
        }
        self.verify.progress = progress;
        advanced
    }
}

/// Returns a time before the writes to files that are open at `now`, and `time` at most. `age` is
/// that of the file that has been open the longest.
fn before_open(time: SystemTime, now: SystemTime, age: Option<Duration>) -> SystemTime {
    let open = age.map(|age| now - age - MAX_LAG);
    open.map_or(time, |open| open.min(time))
}

/// The parameters of the search thread.
struct SearchRequest {
    source: Vec<u8>,
    since: SystemTime,
    filter: SharedFilter,
    subdirs: bool,
    cancelled: Arc<AtomicBool>,
}

impl SearchRequest {
    /// Searches part by part until the end or until it is cancelled.
    fn run(&self, priority: Priority, sender: &SyncSender<Recent>, waker: &Waker) {
        if let Err(error) = priority.give(0) {
            log::say("Debug", format_args!("priority of a search: {error}"));
        }
        let mut after = Vec::new();
        loop {
            let recent = Search {
                source: &self.source,
                since: self.since,
                after: &after,
                excluded: &|path| self.is_excluded(path),
                cancelled: &|| self.cancelled.load(Ordering::Relaxed),
                most: MAX_FOUND,
            }
            .run();
            let last = recent.files.last().filter(|_| recent.more).cloned();
            if sender.send(recent).is_err() {
                return;
            }
            // Waking fails only if the loop has ended.
            let _ = waker.wake();
            match last {
                Some(last) => after = last,
                None => return,
            }
        }
    }

    fn is_excluded(&self, path: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        (!self.subdirs && path.ends_with(b"/")) || filter.excluded(path)
    }
}

#[cfg(test)]
mod tests;
