//! One turn: take in what the threads have brought, then clear up what can be cleared up.

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
use super::{CrawlProgress, InotifyMode, Observer};

/// How soon to look again when the kernel had more to tell than was read.
const RETRY_DELAY: Duration = Duration::from_millis(2);
/// The events that wait for directories that are being read take at most so many bytes.
const MAX_DEFERRED_BYTES: usize = 64 * 1024 * 1024;

/// Watches directory trees with inotify(7).
///
/// Make one, give it scopes, call [`turn`](Watcher::turn) whenever the waker fires or
/// [`next_deadline`](Watcher::next_deadline) has come.
pub struct Watcher {
    pub(super) kernel: Kernel,
    /// Declared before the descriptor they use.
    pub(super) pool: Pool,
    pub(super) reader: Reader,
    pub(super) inotify: Inotify,
    pub(super) waker: Arc<Waker>,

    pub(super) tree: Tree,
    pub(super) moves: Moves,
    pub(super) unclosed: OpenFiles,
    pub(super) scopes: Scopes,
    pub(super) anchors: Roots,

    /// Is the pool at work, or was it when last asked?
    pub(super) crawling: bool,
    /// Reading of roots: how far, and whether to begin anew when done.
    pub(super) quiet: Option<CrawlProgress>,
    pub(super) again: bool,
    /// Tokens of directories the pool reads or will read.
    pub(super) tickets: HashMap<u64, DirNode>,
    /// How many tickets a descriptor has. Its events wait until it has none.
    pub(super) busy: HashMap<i32, u32>,
    /// Events that wait, each descriptor's in order.
    pub(super) early: DeferredEvents,
    /// Descriptors whose events may be taken from `early`.
    pub(super) ready: VecDeque<i32>,

    pub(super) doubts: Vec<Recheck>,
    /// Watches set by the way that may belong to no node.
    pub(super) strays: Vec<i32>,

    /// The time of this turn.
    pub(super) now: Instant,
    deadline: Option<Instant>,
    /// Buffers for the paths of events.
    pub(super) from: Vec<u8>,
    pub(super) path: Vec<u8>,
}

impl Watcher {
    /// Opens an inotify instance and starts the thread that reads it. `waker` fires when
    /// there is something to do.
    ///
    /// Under [`InotifyMode::CloseWrite`] a file that stays open for longer than `staleness` counts as
    /// changed all the same, and again after each such time; `None`: only when it is closed.
    ///
    /// # Errors
    /// `EMFILE` when the user has too many instances (`fs.inotify.max_user_instances`) or
    /// the process too many descriptors.
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
            unclosed: OpenFiles::new(staleness),
            scopes: Scopes::default(),
            anchors: Roots::default(),
            crawling: false,
            quiet: None,
            again: false,
            tickets: HashMap::new(),
            busy: HashMap::new(),
            early: DeferredEvents::default(),
            ready: VecDeque::new(),
            doubts: Vec::new(),
            strays: Vec::new(),
            now: Instant::now(),
            deadline: None,
            from: Vec::new(),
            path: Vec::new(),
        })
    }

    /// Takes in everything that is there to be taken, and tells `observer`.
    pub fn turn(&mut self, now: Instant, observer: &mut dyn Observer) {
        self.now = now;
        self.tell_roots(observer);
        self.take_records(observer);
        for chunk in self.reader.take() {
            for event in decode(&chunk) {
                self.receive(event, observer);
                self.replay(observer);
            }
        }
        self.clear_up(observer);
        self.replay(observer);
        self.tell_roots(observer);
        if !self.crawling {
            self.remove_strays();
        }
    }

    /// When [`turn`](Watcher::turn) has to be called even if the waker does not fire.
    pub fn next_deadline(&self) -> Option<Instant> {
        // Files are asked for after the turn as well, which may make one due.
        let unclosed = self.unclosed.next_deadline();
        self.deadline.into_iter().chain(unclosed).min()
    }

    /// Are directories being read in the background?
    pub fn crawling(&self) -> bool {
        self.crawling
    }

    /// How far the reading of roots has come, while it goes on.
    pub fn progress(&self) -> Option<CrawlProgress> {
        self.quiet
    }

    /// Number of directories watched. One that is mounted at two places counts twice.
    pub fn watched(&self) -> usize {
        self.tree.len()
    }

    /// Bytes of memory the table of directories takes.
    pub fn memory(&self) -> usize {
        self.tree.bytes()
    }

    /// Calls `f` with the kernel's number and the absolute path of every directory watched.
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
            self.absorb_record(record, observer);
            self.replay(observer);
        }
        if last && self.tickets_done() {
            self.end_crawl(observer);
        }
    }

    /// Taking in the last records may have given the pool new work.
    fn tickets_done(&self) -> bool {
        self.tickets.is_empty()
    }

    fn end_crawl(&mut self, observer: &mut dyn Observer) {
        self.crawling = false;
        if self.quiet.take().is_some() {
            self.tree.shrink();
            self.find_lost_roots();
        }
        // Of descriptors nobody knows now, nobody ever will.
        let (tree, ready) = (&self.tree, &mut self.ready);
        self.early.retain(|wd| {
            let is_known = tree.knows(wd);
            if is_known {
                ready.push_back(wd);
            }
            is_known
        });
        self.replay(observer);
        self.remove_strays();
        if std::mem::take(&mut self.again) {
            self.rebuild();
        }
    }

    /// An event from the kernel: now, or later if its directory is being read.
    fn receive(&mut self, event: RawEvent<'_>, observer: &mut dyn Observer) {
        if event.is(libc::IN_Q_OVERFLOW) {
            observer.overflow();
            return;
        }
        let known = self.tree.knows(event.wd);
        if known && !self.busy.contains_key(&event.wd) {
            self.dispatch(event, observer);
            return;
        }
        // While nothing is being read, an unknown descriptor is a removed watch whose events
        // were in the queue; the kernel does not give a number again.
        if !self.crawling {
            return;
        }
        self.early.push(event.wd, &encode(event));
        if self.early.bytes() > MAX_DEFERRED_BYTES {
            self.early.clear();
            observer.overflow();
        }
    }

    /// Handles events that waited for a directory that has been read now.
    fn replay(&mut self, observer: &mut dyn Observer) {
        while let Some(wd) = self.ready.pop_front() {
            if self.busy.contains_key(&wd) {
                continue;
            }
            let Some(bytes) = self.early.remove(wd) else {
                continue;
            };
            for event in decode(&bytes) {
                self.receive(event, observer);
            }
        }
    }

    /// What needs the knowledge that nothing more is coming just now.
    fn clear_up(&mut self, observer: &mut dyn Observer) {
        self.tell_unclosed(observer);
        let mut postponed = false;
        if self
            .moves
            .next_deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            // The second half may be in the kernel still if this process had to wait.
            postponed = !self.reader.drained();
            while !postponed && let Some(half) = self.moves.expire(self.now) {
                self.unpaired(&half, observer);
            }
        }
        if !self.doubts.is_empty() {
            let settled = self.moves.is_empty() && self.reader.drained();
            self.clear_doubts(settled, observer);
        }
        if self.moves.remembers() && self.early.is_empty() && self.reader.drained() {
            self.moves.forget();
        }
        self.deadline = match self.moves.next_deadline() {
            Some(_) if postponed => Some(self.now + RETRY_DELAY),
            // The pool wakes for many records or the last, not for one that takes its time.
            None if self.crawling || !self.doubts.is_empty() => Some(self.now + 5 * RETRY_DELAY),
            deadline => deadline,
        };
    }

    fn remove_strays(&mut self) {
        while let Some(wd) = self.strays.pop() {
            if !self.tree.knows(wd) {
                self.unwatch(wd);
            }
        }
    }
}
