//! One turn: takes records and events from the threads, then handles deferred work.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use inotify::Inotify;
use mio::Waker;

use super::InotifyBackend;
use super::crawl::Pool;
use super::deferred_events::DeferredEvents;
use super::moves::Moves;
use super::records::{Kernel, QUEUE, RawEvent, decode, encode};
use super::roots::Roots;
use super::tree::Tree;
use super::tree_size::NamesRead;
use crate::watch::open_files::OpenFiles;
use crate::watch::reader::Reader;
use crate::watch::scopes::Scopes;
use crate::watch::{Backend, CrawlProgress, InotifyMode, Observer, Scope, TreeSize};

/// The delay of the next turn if the kernel had more events than were read.
const RETRY_DELAY: Duration = Duration::from_millis(2);
/// The bytes of events after which others wait for the next turn: some 30,000 events. Clients and
/// processes are attended to between turns.
const MAX_BYTES_PER_TURN: usize = 1024 * 1024;
/// The maximum bytes of events that wait for directories being read.
const MAX_DEFERRED_BYTES: usize = 64 * 1024 * 1024;

impl Backend for InotifyBackend {
    fn turn(&mut self, now: Instant, observer: &mut dyn Observer) {
        self.now = now;
        self.report_roots(observer);
        self.take_records(observer);
        for chunk in self.reader.take_some(MAX_BYTES_PER_TURN) {
            for event in decode(&chunk.bytes) {
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

    fn next_deadline(&self) -> Option<Instant> {
        // Open files are queried after the turn as well, which may make one due.
        let open_files = self.open_files.next_deadline();
        self.deadline.into_iter().chain(open_files).min()
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
        match self.tree.find(path) {
            Some(node) => self.is_in_place(node),
            None => true,
        }
    }

    fn retry_roots(&mut self) {
        self.retry_roots();
    }

    fn rebuild(&mut self) {
        self.rebuild();
    }

    fn crawling(&self) -> bool {
        self.crawling
    }

    fn progress(&self) -> Option<CrawlProgress> {
        self.initial_scan
    }

    fn watched(&self) -> usize {
        self.tree.len()
    }

    fn memory(&self) -> usize {
        self.tree.bytes()
    }

    fn for_each_watch(&self, show: &mut dyn FnMut(i32, &[u8])) {
        let mut path = Vec::new();
        for &root in self.tree.roots() {
            let mut next = Some(root);
            while let Some(node) = next {
                self.tree.path(node, &mut path);
                show(self.tree.wd(node), &path);
                next = self.tree.next(node, root);
            }
        }
    }

    fn tree_size(&self, root: &[u8]) -> TreeSize {
        let Some(root) = self.tree.find(root) else {
            return TreeSize::default();
        };
        let next = |&node: &_| self.tree.next(node, root);
        let nodes = std::iter::successors(Some(root), next);
        self.names_read.size(nodes.count())
    }

    fn report_contents(&mut self, directory: &[u8]) -> Option<u64> {
        self.read_again(directory)
    }

    fn event_mark(&self) -> u64 {
        self.reader.mark()
    }

    fn has_reported(&self, mark: u64) -> bool {
        self.reader.passed(mark)
            && !self.crawling
            && self.tickets.is_empty()
            && self.deferred.is_empty()
            && self.ready.is_empty()
            && self.moves.is_empty()
            && self.rechecks.is_empty()
    }

    fn being_written(&mut self, interested: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let paths = |wd, name: &[u8]| paths_of(&self.tree, wd, name);
        self.open_files.being_written(&paths, interested, self.now)
    }

    fn being_written_of(&mut self, paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let tree = &self.tree;
        let files = paths.into_iter().filter_map(|path| {
            let (directory, name) = path.split_at(path.iter().rposition(|byte| *byte == b'/')? + 1);
            let wd = tree.wd(tree.find(directory)?);
            Some(((wd, name.to_vec()), path))
        });
        let paths = |wd, name: &[u8]| paths_of(tree, wd, name);
        self.open_files.being_written_of(files, &paths, self.now)
    }

    fn open_files(&self) -> usize {
        self.open_files.len()
    }

    fn oldest_open(&self) -> Option<Duration> {
        self.open_files.oldest()
    }

    fn report_all_open(&mut self, observer: &mut dyn Observer) {
        let paths = |wd, name: &[u8]| paths_of(&self.tree, wd, name);
        self.open_files.report_all(&paths, observer);
    }
}

/// Returns the paths of a name in a watched directory: one, except for bind mounts.
fn paths_of(tree: &Tree, wd: i32, name: &[u8]) -> Vec<Vec<u8>> {
    let path = |node| {
        let mut path = Vec::new();
        tree.path(node, &mut path);
        path.extend_from_slice(name);
        path
    };
    tree.nodes_of(wd).map(path).collect()
}

impl InotifyBackend {
    /// See [`Watcher::new`](crate::watch::Watcher::new).
    pub fn new(
        mode: InotifyMode,
        staleness: Option<Duration>,
        waker: Arc<Waker>,
    ) -> io::Result<InotifyBackend> {
        let staleness = staleness.filter(|_| mode == InotifyMode::CloseWrite);
        let inotify = Inotify::init()?;
        let kernel = Kernel::new(&inotify, mode, staleness.is_some());
        Ok(InotifyBackend {
            pool: Pool::new(kernel.clone(), Arc::clone(&waker)),
            reader: Reader::start(inotify.as_fd(), QUEUE, None, Arc::clone(&waker))?,
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
        let tree = &self.tree;
        self.open_files
            .report_due(&|wd, name| paths_of(tree, wd, name), self.now, observer);
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

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::super::crawl::{CrawlRecord, list};
    use super::super::reconcile::RecheckTarget;
    use super::super::tree::DirNode;
    use super::*;
    use crate::watch::{Event, Follow, Loss, Tell};

    /// Records the paths of events, and counts overflows.
    #[derive(Default)]
    struct Reports {
        paths: Vec<Vec<u8>>,
        overflows: usize,
    }

    impl Observer for Reports {
        fn event(&mut self, event: Event<'_>) -> Follow {
            if let Event::Create { path } | Event::Delete { path } = event {
                self.paths.push(path.to_vec());
            }
            Follow::Nothing
        }
        fn overflow(&mut self) {
            self.overflows += 1;
        }
        fn root_lost(&mut self, _: usize, _: Loss) {}
        fn root_back(&mut self, _: usize) {}
        fn out_of_watches(&mut self, _: &[u8]) {}
        fn watch_failed(&mut self, _: &[u8], _: &io::Error, _: &'static str) {}
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        _poll: mio::Poll,
        backend: InotifyBackend,
        root: DirNode,
        reports: Reports,
    }

    impl Fixture {
        /// Returns a backend that watches a temporary directory.
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().canonicalize().unwrap();
            let path = [path.as_os_str().as_bytes(), b"/"].concat();
            let poll = mio::Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
            let mut backend = InotifyBackend::new(InotifyMode::CloseWrite, None, waker).unwrap();
            let scope = Scope {
                root: path.clone(),
                wants: Arc::new(|_| true),
            };
            backend.set_scopes(vec![scope]);
            let mut reports = Reports::default();
            while backend.crawling {
                backend.turn(Instant::now(), &mut reports);
                std::thread::yield_now();
            }
            let root = backend.tree.find(&path).unwrap();
            Fixture {
                _dir: dir,
                _poll: poll,
                backend,
                root,
                reports,
            }
        }

        fn receive(&mut self, mask: u32, name: &[u8]) {
            let event = RawEvent {
                wd: self.backend.tree.wd(self.root),
                mask,
                cookie: 0,
                name,
            };
            self.backend.receive(event, &mut self.reports);
            self.backend.replay(&mut self.reports);
        }
    }

    /// The listing is older than the events, which are reported after it and in their order.
    #[test]
    fn events_of_a_directory_wait_until_it_has_been_read() {
        let mut fixture = Fixture::new();
        let (root, token) = (fixture.root, u64::MAX);
        let mark = fixture.backend.event_mark();
        fixture.backend.expect(root, token);
        fixture.receive(libc::IN_CREATE, b"one");
        fixture.receive(libc::IN_DELETE, b"one");
        assert!(fixture.reports.paths.is_empty());
        assert!(!fixture.backend.has_reported(mark));
        let task = fixture.backend.task(root, Tell::Nobody);
        let listing = list(&mut fixture.backend.kernel, &task, None);
        let record = CrawlRecord {
            token,
            wd: task.wd,
            tell: Tell::Nobody,
            listing,
        };
        fixture.backend.apply_record(record, &mut fixture.reports);
        fixture.backend.replay(&mut fixture.reports);
        let path = [&task.path[..], b"one"].concat();
        assert_eq!(fixture.reports.paths, [path.clone(), path]);
        assert!(fixture.backend.deferred.is_empty());
        assert_eq!(fixture.reports.overflows, 0);
    }

    #[test]
    fn too_many_events_that_wait_count_as_an_overflow() {
        let mut fixture = Fixture::new();
        fixture.backend.expect(fixture.root, u64::MAX);
        let name = [b'x'; 255];
        while fixture.reports.overflows == 0 {
            fixture.receive(libc::IN_CREATE, &name);
            let bytes = fixture.backend.deferred.bytes();
            assert!(bytes <= MAX_DEFERRED_BYTES);
            let is_full = bytes == 0;
            assert_eq!(fixture.reports.overflows, usize::from(is_full));
        }
    }

    /// No event would wake the loop.
    #[test]
    fn a_turn_is_requested_while_something_is_to_be_rechecked_or_read() {
        let mut fixture = Fixture::new();
        let now = Instant::now();
        let deadline = |fixture: &mut Fixture| {
            fixture.backend.clear_up(&mut fixture.reports);
            fixture.backend.next_deadline()
        };
        fixture.backend.now = now;
        assert_eq!(deadline(&mut fixture), None);
        // It stays as long as the directory is being read.
        let wd = fixture.backend.tree.wd(fixture.root);
        fixture.backend.pending_reads.insert(wd, 1);
        let what = RecheckTarget::Name(b"x".to_vec());
        fixture.backend.recheck(fixture.root, what);
        let soon = Some(now + 5 * RETRY_DELAY);
        assert_eq!(deadline(&mut fixture), soon);
        fixture.backend.pending_reads.clear();
        assert_eq!(deadline(&mut fixture), None);
        fixture.backend.crawling = true;
        assert_eq!(deadline(&mut fixture), soon);
    }
}
