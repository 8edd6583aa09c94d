//! One turn: takes records and events from the threads, then handles deferred work.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use inotify::Inotify;
use mio::Waker;

use super::crawl::Pool;
use super::deferred_events::DeferredEvents;
use super::inotify::{Kernel, RawEvent, decode, encode};
use super::moves::Moves;
use super::open_files::OpenFiles;
use super::reader::Reader;
use super::reconcile::Recheck;
use super::roots::Roots;
use super::scopes::Scopes;
use super::tree::{DirNode, Tree};
use super::tree_size::NamesRead;
use super::{CrawlProgress, InotifyMode, Observer};

/// The delay of the next turn if the kernel had more events than were read.
const RETRY_DELAY: Duration = Duration::from_millis(2);
/// The maximum bytes of events that wait for directories being read.
const MAX_DEFERRED_BYTES: usize = 64 * 1024 * 1024;

/// Watches directory trees with inotify(7).
///
/// The owner creates one, sets the scopes, and calls [`turn`](Watcher::turn) whenever the waker
/// fires or
/// [`next_deadline`](Watcher::next_deadline) has come.
pub struct Watcher {
    pub(super) kernel: Kernel,
    /// The crawling threads; declared before the descriptor they use.
    pub(super) pool: Pool,
    pub(super) reader: Reader,
    pub(super) inotify: Inotify,
    pub(super) waker: Arc<Waker>,

    pub(super) tree: Tree,
    pub(super) moves: Moves,
    pub(super) open_files: OpenFiles,
    pub(super) scopes: Scopes,
    pub(super) roots: Roots,

    /// True if the pool was busy when last asked.
    pub(super) crawling: bool,
    /// The progress of reading roots, and the request to begin again afterwards.
    pub(super) initial_scan: Option<CrawlProgress>,
    pub(super) again: bool,
    pub(super) names_read: NamesRead,
    /// Tokens of directories that the pool reads or will read.
    pub(super) tickets: HashMap<u64, DirNode>,
    /// The number of tickets of each descriptor. Its events wait until it has none.
    pub(super) pending_reads: HashMap<i32, u32>,
    /// Events that wait, in order for each descriptor.
    pub(super) deferred: DeferredEvents,
    /// Descriptors whose deferred events may be handled.
    pub(super) ready: VecDeque<i32>,

    pub(super) rechecks: Vec<Recheck>,
    /// Watches that may belong to no node.
    pub(super) orphans: Vec<i32>,

    /// The time of this turn.
    pub(super) now: Instant,
    deadline: Option<Instant>,
    /// Buffers for the paths of events.
    pub(super) from: Vec<u8>,
    pub(super) path: Vec<u8>,
}

impl Watcher {
    /// Opens an inotify instance and starts the thread that reads it. `waker` fires when there is
    /// work.
    ///
    /// Under [`InotifyMode::CloseWrite`] a file that stays open for longer than `staleness` counts
    /// as changed, and again after each such time; `None`: only when it is closed.
    ///
    /// # Errors
    /// `EMFILE` if the user has too many instances (`fs.inotify.max_user_instances`) or the process
    /// too many descriptors.
    pub fn new(
        mode: InotifyMode,
        staleness: Option<Duration>,
        waker: Arc<Waker>,
    ) -> io::Result<Watcher> {
        let staleness = staleness.filter(|_| mode == InotifyMode::CloseWrite);
        let inotify = Inotify::init()?;
        let kernel = Kernel::new(&inotify, mode, staleness.is_some());
        Ok(Watcher {
            pool: Pool::new(kernel.clone(), Arc::clone(&waker)),
            reader: Reader::start(&inotify, Arc::clone(&waker))?,
            kernel,
            inotify,
            waker,
            tree: Tree::new(),
            moves: Moves::default(),
            open_files: OpenFiles::new(staleness),
            scopes: Scopes::default(),
            roots: Roots::default(),
            crawling: false,
            initial_scan: None,
            again: false,
            names_read: NamesRead::default(),
            tickets: HashMap::new(),
            pending_reads: HashMap::new(),
            deferred: DeferredEvents::default(),
            ready: VecDeque::new(),
            rechecks: Vec::new(),
            orphans: Vec::new(),
            now: Instant::now(),
            deadline: None,
            from: Vec::new(),
            path: Vec::new(),
        })
    }

    /// Handles everything that is available and reports it to `observer`.
    pub fn turn(&mut self, now: Instant, observer: &mut dyn Observer) {
        self.now = now;
        self.report_roots(observer);
        self.take_records(observer);
        for chunk in self.reader.take() {
            for event in decode(&chunk) {
                self.receive(event, observer);
                self.replay(observer);
            }
        }
        self.clear_up(observer);
        self.replay(observer);
        self.report_roots(observer);
        if !self.crawling {
            self.remove_orphans();
        }
    }

    /// Returns the time at which [`turn`](Watcher::turn) has to be called even if the waker does
    /// not fire.
    pub fn next_deadline(&self) -> Option<Instant> {
        // Open files are queried after the turn as well, which may make one due.
        let open_files = self.open_files.next_deadline();
        self.deadline.into_iter().chain(open_files).min()
    }

    /// Returns true if directories are being read in the background.
    pub fn crawling(&self) -> bool {
        self.crawling
    }

    /// Returns the progress of reading roots while it goes on.
    pub fn progress(&self) -> Option<CrawlProgress> {
        self.initial_scan
    }

    /// Returns the number of watched directories. One that is mounted at two paths counts twice.
    pub fn watched(&self) -> usize {
        self.tree.len()
    }

    /// Returns the bytes of memory of the directory table.
    pub fn memory(&self) -> usize {
        self.tree.bytes()
    }

    /// Calls `f` with the watch descriptor and the absolute path of every watched directory.
    pub fn for_each_watch(&self, mut f: impl FnMut(i32, &[u8])) {
        let mut path = Vec::new();
        for &root in self.tree.roots() {
            let mut next = Some(root);
            while let Some(node) = next {
                self.tree.path(node, &mut path);
                f(self.tree.wd(node), &path);
                next = self.tree.next(node, root);
            }
        }
    }

    fn take_records(&mut self, observer: &mut dyn Observer) {
        if !self.crawling {
            return;
        }
        let (records, last) = self.pool.take();
        for record in records {
            self.apply_record(record, observer);
            self.replay(observer);
        }
        if last && self.tickets_done() {
            self.end_crawl(observer);
        }
    }

    /// Returns true if no ticket is left. Applying the last records may have created new work.
    fn tickets_done(&self) -> bool {
        self.tickets.is_empty()
    }

    fn end_crawl(&mut self, observer: &mut dyn Observer) {
        self.crawling = false;
        if self.initial_scan.take().is_some() {
            self.tree.shrink();
            self.find_lost_roots();
        }
        // Descriptors that are unknown now stay unknown.
        let (tree, ready) = (&self.tree, &mut self.ready);
        self.deferred.retain(|wd| {
            let is_known = tree.has_watch(wd);
            if is_known {
                ready.push_back(wd);
            }
            is_known
        });
        self.replay(observer);
        self.remove_orphans();
        if std::mem::take(&mut self.again) {
            self.rebuild();
        }
    }

    /// Handles an event of the kernel, or defers it if its directory is being read.
    fn receive(&mut self, event: RawEvent<'_>, observer: &mut dyn Observer) {
        if event.is(libc::IN_Q_OVERFLOW) {
            observer.overflow();
            return;
        }
        let known = self.tree.has_watch(event.wd);
        if known && !self.pending_reads.contains_key(&event.wd) {
            self.dispatch(event, observer);
            return;
        }
        // While nothing is being read, an unknown descriptor is that of a removed watch whose
        // events were queued; the kernel does not reuse numbers.
        if !self.crawling {
            return;
        }
        self.deferred.push(event.wd, &encode(event));
        if self.deferred.bytes() > MAX_DEFERRED_BYTES {
            self.deferred.clear();
            observer.overflow();
        }
    }

    /// Handles events that waited for a directory that has been read now.
    fn replay(&mut self, observer: &mut dyn Observer) {
        while let Some(wd) = self.ready.pop_front() {
            if self.pending_reads.contains_key(&wd) {
                continue;
            }
            let Some(bytes) = self.deferred.remove(wd) else {
                continue;
            };
            for event in decode(&bytes) {
                self.receive(event, observer);
            }
        }
    }

    /// Handles work that requires that no event is outstanding.
    fn clear_up(&mut self, observer: &mut dyn Observer) {
        self.report_open_files(observer);
        let mut postponed = false;
        if self
            .moves
            .next_deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            // The second half may still be in the kernel if this process had to wait.
            postponed = !self.reader.drained();
            while !postponed && let Some(half) = self.moves.expire(self.now) {
                self.unpaired(&half, observer);
            }
        }
        if !self.rechecks.is_empty() {
            let settled = self.moves.is_empty() && self.reader.drained();
            self.run_rechecks(settled, observer);
        }
        if self.moves.has_recent() && self.deferred.is_empty() && self.reader.drained() {
            self.moves.clear_recent();
        }
        self.deadline = match self.moves.next_deadline() {
            Some(_) if postponed => Some(self.now + RETRY_DELAY),
            // The pool wakes the loop for many records or the last one, not for a slow one.
            None if self.crawling || !self.rechecks.is_empty() => Some(self.now + 5 * RETRY_DELAY),
            deadline => deadline,
        };
    }

    fn remove_orphans(&mut self) {
        while let Some(wd) = self.orphans.pop() {
            if !self.tree.has_watch(wd) {
                self.unwatch(wd);
            }
        }
    }
}
