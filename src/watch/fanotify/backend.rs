//! One turn: takes events from the reader and handles them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Waker;

use super::FanotifyBackend;
use super::contents::ContentsRead;
use super::directories::KnownDirectories;
use super::lookup::FoundDirectory;
use super::places::Places;
use super::rechecks::NameRechecks;
use super::records::{EntryName, QUEUE, decode, mask};
use super::renames::RecentRenames;
use super::roots::ScopeRoots;
use super::shadow::Shadow;
use super::tree_counts::TreeCounts;
use super::upcoming::UpcomingRenames;
use crate::log;
use crate::watch::open_files::OpenFiles;
use crate::watch::reader::{Chunk, Reader, RecordFilter};
use crate::watch::scopes::Scopes;
use crate::watch::{Backend, CrawlProgress, Event, InotifyMode, Observer, Scope, Tell, TreeSize};

/// The delay of the next turn while something is to be rechecked.
const RETRY_DELAY: Duration = Duration::from_millis(5);
/// The maximum number of records that are handled in one turn, and of batches of a directory that
/// is read.
const MAX_RECORDS_PER_TURN: usize = 50_000;
const MAX_BATCHES_PER_TURN: usize = 32;
/// The maximum number of times that a turn waits for the reader, and the time for which it does.
const MAX_CATCH_UPS: usize = 100;
const CATCH_UP_TIME: Duration = Duration::from_millis(2);

impl FanotifyBackend {
    /// Opens a fanotify instance and starts the thread that reads it. See
    /// [`Watcher::new`](crate::watch::Watcher::new).
    ///
    /// # Errors
    ///
    /// The reason why this process cannot use fanotify.
    pub fn new(
        mode: InotifyMode,
        staleness: Option<Duration>,
        waker: Arc<Waker>,
    ) -> Result<FanotifyBackend, String> {
        let staleness = staleness.filter(|_| mode == InotifyMode::CloseWrite);
        let places = Places::new(mask(mode, staleness.is_some()))?;
        let known = KnownDirectories::default();
        let irrelevant = Arc::clone(&known.irrelevant);
        let filter: Box<RecordFilter> = Box::new(move |records| irrelevant.filter(records));
        let descriptor = places.descriptor();
        let reader = Reader::start(descriptor, QUEUE, Some(filter), Arc::clone(&waker));
        Ok(FanotifyBackend {
            reader: reader.map_err(|error| crate::log::reason(&error))?,
            places,
            waker,
            counts: TreeCounts::default(),
            scopes: Scopes::default(),
            roots: ScopeRoots::default(),
            refused: Vec::new(),
            known,
            open_files: OpenFiles::new(staleness),
            pending: VecDeque::new(),
            position: 0,
            catch_ups: 0,
            shadow: Shadow::default(),
            upcoming: UpcomingRenames::default(),
            replaced: 0,
            last_replaced: Vec::new(),
            rechecks: NameRechecks::default(),
            recent: RecentRenames::default(),
            reads: VecDeque::new(),
            running: None,
            dirty: false,
            places_changed: false,
            now: Instant::now(),
            opened: None,
            path: Vec::new(),
        })
    }

    /// Returns the roots that cannot be watched this way, each with the reason, once.
    pub fn take_refused(&mut self) -> Vec<(Vec<u8>, String)> {
        std::mem::take(&mut self.refused)
    }

    fn take_chunks(&mut self) {
        for chunk in self.reader.take() {
            self.upcoming.on_read(&chunk.bytes);
            self.pending.push_back(chunk);
        }
    }

    /// Takes all events that have been queued before this call. Returns false if that is not
    /// possible at once.
    pub(super) fn catch_up(&mut self) -> bool {
        if self.reader.drained() {
            return true;
        }
        if self.catch_ups >= MAX_CATCH_UPS {
            return false;
        }
        self.catch_ups += 1;
        let has_caught_up = self.reader.catch_up(CATCH_UP_TIME);
        self.take_chunks();
        has_caught_up
    }

    /// Returns the first records that have been read and belong to no read that is being handled.
    pub(super) fn next_records(&self) -> Vec<u8> {
        let next = self.pending.front();
        next.map_or(Vec::new(), |chunk| {
            chunk.bytes[..chunk.bytes.len().min(64 * 1024)].to_vec()
        })
    }

    /// Handles the events that have been read, until a directory has to be read that takes long.
    fn handle_events(&mut self, observer: &mut dyn Observer) {
        let mut left = MAX_RECORDS_PER_TURN;
        if !self.run_reads(observer) {
            return;
        }
        while let Some(chunk) = self.pending.pop_front() {
            let mut records = decode(&chunk.bytes);
            self.position = chunk.start;
            while let Some(record) = records.next() {
                self.position += 1;
                self.upcoming.on_handled(&record);
                self.dispatch(&record, records.rest(), observer);
                left -= 1;
                if !self.run_reads(observer) || left == 0 {
                    let bytes = records.rest().to_vec();
                    let (start, end) = (self.position, chunk.end);
                    self.pending.push_front(Chunk { bytes, start, end });
                    self.wake();
                    return;
                }
            }
            self.position = chunk.end;
        }
        self.position = self.reader.taken();
    }

    /// Reports the contents of a directory before the next event is handled.
    pub(super) fn read_contents(&mut self, directory: OwnedFd, path: &[u8], tell: Tell) {
        let scopes = self.scopes.clone();
        if scopes.wanted(path) {
            let read = ContentsRead::new(directory, path.to_vec(), tell, scopes);
            self.reads.push_back(read);
        }
    }

    /// Reports the contents of the directory that has this name now to all observers.
    pub(super) fn read_name(&mut self, place: usize, entry: EntryName<'_>, path: &[u8]) {
        let parent = self.open(place, entry.directory.bytes);
        let opened =
            parent.map(|parent| parent.map(|parent| super::contents::open(&parent, entry.name)));
        match opened {
            Ok(Some(Ok(directory))) => self.read_contents(directory, path, Tell::All),
            // It was removed, which an event reports.
            Ok(_) => {}
            Err(error) => self.lose(&format!("a new directory cannot be opened: {error}")),
        }
    }

    /// Reports contents of directories. Returns false if this has to wait for a thread.
    fn run_reads(&mut self, observer: &mut dyn Observer) -> bool {
        for _ in 0..MAX_BATCHES_PER_TURN {
            if let Some(running) = self.running.take() {
                match running.take() {
                    Ok(Some((paths, error))) => {
                        self.report_found(running.tell, paths, observer);
                        self.report_failure(&running.path, error, observer);
                        self.running = Some(running);
                        continue;
                    }
                    Ok(None) => {
                        self.running = Some(running);
                        return false;
                    }
                    Err(()) => self.note_contents(&running.path),
                }
            }
            let Some(read) = self.reads.pop_front() else {
                return true;
            };
            self.read_inline(read, observer);
        }
        self.wake();
        self.running.is_none() && self.reads.is_empty()
    }

    fn read_inline(&mut self, mut read: ContentsRead, observer: &mut dyn Observer) {
        let path = read.path.clone();
        loop {
            if read.is_large() {
                let path = read.path.clone();
                match read.go_on(Arc::clone(&self.waker)) {
                    Ok(running) => self.running = Some(running),
                    Err(error) => {
                        self.report_failure(&path, Some(error), observer);
                        self.lose("a directory cannot be read");
                    }
                }
                break;
            }
            let mut found = Vec::new();
            let result = read.step(true, &mut |path| found.push(path));
            self.report_found(read.tell, found, observer);
            match result {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.report_failure(&read.path, Some(error), observer),
            }
        }
        self.note_contents(&path);
    }

    fn report_found(&mut self, tell: Tell, paths: Vec<Vec<u8>>, observer: &mut dyn Observer) {
        for path in &paths {
            if !path.ends_with(b"/") {
                self.open_files.touched(0, path, false, self.now);
            }
            match tell {
                Tell::Nobody => {}
                Tell::All => {
                    observer.event(Event::Create { path });
                }
                Tell::Unmoved(number) => observer.found(path, number),
            }
        }
    }

    fn report_failure(
        &mut self,
        path: &[u8],
        error: Option<io::Error>,
        observer: &mut dyn Observer,
    ) {
        if let Some(error) = error {
            observer.watch_failed(path, &error, "reading a directory");
        }
    }

    /// Returns true if the contents of a directory are being reported.
    fn is_reading(&self) -> bool {
        self.running.is_some() || !self.reads.is_empty()
    }

    /// Handles work that requires that no event is outstanding.
    fn clear_up(&mut self, observer: &mut dyn Observer) {
        let paths = |_, path: &[u8]| vec![path.to_vec()];
        self.open_files.report_due(&paths, self.now, observer);
        if !self.pending.is_empty() || self.is_reading() {
            return;
        }
        self.run_rechecks(observer);
        self.run_reads(observer);
        if self.reader.drained() && !self.is_reading() {
            self.recent.clear();
            self.shadow.clear();
            self.replaced = 0;
        }
    }

    /// Handles an overflow of the queue: nothing that is known is reliable.
    pub(super) fn overflow(&mut self) {
        self.rechecks.clear();
        self.forget_directories();
        self.lose("the queue is full");
    }

    /// Records that changes may be lost, for this reason.
    pub(super) fn lose(&mut self, why: &str) {
        log::say("Debug", format_args!("events may be lost: {why}"));
        self.dirty = true;
    }

    /// Returns true if the directory has been deleted.
    pub(super) fn is_gone(&mut self, place: usize, handle: &[u8]) -> bool {
        match self.open(place, handle) {
            Ok(None) => true,
            Ok(Some(directory)) => {
                rustix::fs::fstat(&directory).is_ok_and(|status| status.st_nlink == 0)
            }
            Err(_) => false,
        }
    }

    /// Finds a directory that is in the tree of the place.
    pub(super) fn find_inside(
        &mut self,
        place: usize,
        handle: &[u8],
    ) -> Option<super::directories::DirectoryId> {
        match self.find(place, handle) {
            FoundDirectory::Inside(id) => Some(id),
            _ => None,
        }
    }

    /// Returns true if all events before the mark have been handled.
    pub(super) fn has_handled(&self, mark: u64) -> bool {
        self.position >= mark || (self.pending.is_empty() && self.reader.passed(mark))
    }

    pub(super) fn wake(&self) {
        // It fails only if the counter of the event descriptor is full: then the loop is awake.
        let _ = self.waker.wake();
    }
}

impl Backend for FanotifyBackend {
    fn turn(&mut self, now: Instant, observer: &mut dyn Observer) {
        self.now = now;
        self.counts.turn();
        self.report_roots(observer);
        self.catch_ups = 0;
        self.take_chunks();
        self.handle_events(observer);
        self.clear_up(observer);
        // An open descriptor would keep a file system mounted.
        self.opened = None;
        self.places.close();
        if self.places_changed {
            self.check_roots();
            self.set_places();
        }
        self.report_roots(observer);
        if std::mem::take(&mut self.dirty) {
            observer.overflow();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let is_waiting = !self.rechecks.is_empty() || self.is_reading();
        let retry = is_waiting.then(|| self.now + RETRY_DELAY);
        retry
            .into_iter()
            .chain(self.open_files.next_deadline())
            .min()
    }

    fn set_scopes(&mut self, scopes: Vec<Scope>) {
        self.set_scopes(scopes);
    }

    fn expect_lost(&mut self, roots: &[Vec<u8>]) {
        self.roots.expect_lost(roots);
    }

    fn check_roots(&mut self) {
        self.check_roots();
    }

    fn leads_to_root(&mut self, path: &[u8]) -> bool {
        self.leads_to_root(path)
    }

    fn retry_roots(&mut self) {
        self.retry_roots();
    }

    fn rebuild(&mut self) {
        self.check_roots();
        self.set_places();
        self.wake();
    }

    fn report_contents(&mut self, directory: &[u8]) -> Option<u64> {
        let places = self.places.all().iter().enumerate();
        let around = places.filter(|(_, place)| directory.starts_with(&place.path));
        let (at, place) = around.max_by_key(|(_, place)| place.path.len())?;
        let below = directory[place.path.len()..].to_vec();
        let root = self.places.get_mut(at).open().ok()?;
        let opened = super::contents::open_below(&root, &below).ok()?;
        let number = crate::watch::next_rename();
        self.read_contents(opened, directory, Tell::Unmoved(number));
        self.wake();
        Some(number)
    }

    fn crawling(&self) -> bool {
        self.is_reading() || self.counts.is_counting()
    }

    fn progress(&self) -> Option<CrawlProgress> {
        None
    }

    fn watched(&self) -> usize {
        self.places.all().len()
    }

    fn memory(&self) -> usize {
        self.known.bytes()
    }

    fn for_each_watch(&self, show: &mut dyn FnMut(i32, &[u8])) {
        for (number, place) in self.places.all().iter().enumerate() {
            show(number as i32 + 1, &place.path);
        }
    }

    fn tree_size(&self, root: &[u8]) -> TreeSize {
        self.counts.size(root).unwrap_or_default()
    }

    fn event_mark(&self) -> u64 {
        self.reader.mark()
    }

    fn has_reported(&self, mark: u64) -> bool {
        if !self.has_handled(mark) {
            // Events without interest do not wake the loop.
            self.reader.catch_up(CATCH_UP_TIME);
        }
        self.has_handled(mark) && self.rechecks.is_empty() && !self.is_reading() && !self.dirty
    }

    fn being_written(&mut self, interested: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let paths = |_, path: &[u8]| vec![path.to_vec()];
        self.open_files.being_written(&paths, interested, self.now)
    }

    fn being_written_of(&mut self, paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let files = paths.into_iter().map(|path| ((0, path.clone()), path));
        let paths = |_, path: &[u8]| vec![path.to_vec()];
        self.open_files.being_written_of(files, &paths, self.now)
    }

    fn open_files(&self) -> usize {
        self.open_files.len()
    }

    fn oldest_open(&self) -> Option<Duration> {
        self.open_files.oldest()
    }

    fn report_all_open(&mut self, observer: &mut dyn Observer) {
        let paths = |_, path: &[u8]| vec![path.to_vec()];
        self.open_files.report_all(&paths, observer);
    }
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
