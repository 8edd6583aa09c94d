//! The thread that writes the transfer log and answers queries.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::Waker;

use super::last::{LastEntry, last_entries};
use super::order_thread::OrderThread;
use super::page::LogPage;
use super::query::{HistoryQuery, PageBuilder};
use super::record::BatchRecord;
use super::ring::Ring;
use super::store::{FileHalves, Halves, MemoryHalves, RingDirectory};
use crate::log;

/// The maximum number of bytes that wait for the thread. Batches beyond it are not logged.
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// The maximum size of a ring in memory.
const MAX_MEMORY_BYTES: usize = 256 << 10;

/// The maximum number of files that are kept open.
const MAX_OPEN_FILES: usize = 32;

/// The maximum time for which the end of the daemon waits for the last write.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The transfer log of a daemon.
pub struct History {
    /// Passed to the thread when it starts.
    root: Option<Box<dyn RingDirectory>>,
    waker: Arc<Waker>,
    limit: usize,
    thread: Option<OrderThread<HistoryOrder, HistoryAnswer>>,
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

/// The answer to a query, with the number that was passed with it.
#[derive(Debug, PartialEq)]
pub enum HistoryAnswer {
    /// The entries of a query.
    Page(u64, LogPage),
    /// The last entry about each path; empty if the ring cannot be read.
    Last(u64, Vec<Option<LastEntry>>),
}

enum HistoryOrder {
    Write(String, BatchRecord, usize),
    Read(u64, HistoryQuery),
    FindLast(u64, String, Vec<Vec<u8>>),
}

impl History {
    /// Returns a log with rings below `root`, or in memory without one. It is off until
    /// [`History::set_limit`] is called. `waker` is fired for each answer.
    pub fn new(root: Option<Box<dyn RingDirectory>>, waker: Arc<Waker>) -> History {
        History {
            root,
            waker,
            limit: 0,
            thread: None,
            queued: Arc::default(),
            lost: Arc::default(),
        }
    }

    /// Sets the maximum size of each ring in bytes. With 0 nothing is written.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Returns the maximum size of each ring in bytes; 0 if the log is off.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Writes a batch of the sync whose ring has this key.
    pub fn write(&mut self, key: String, batch: BatchRecord) {
        if self.limit == 0 || batch.is_empty() {
            return;
        }
        let (size, limit) = (batch.size(), self.limit);
        if self.queued.load(Ordering::Relaxed) + size > MAX_QUEUED_BYTES {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queued.fetch_add(size, Ordering::Relaxed);
        if !self.give(HistoryOrder::Write(key, batch, limit)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads entries. [`History::answers`] returns them, with `token`. Returns false if that is not
    /// possible.
    pub fn read(&mut self, token: u64, query: HistoryQuery) -> bool {
        self.give(HistoryOrder::Read(token, query))
    }

    /// Finds the last entry about each path in the ring with this key, as [`History::read`] reads.
    pub fn find_last(&mut self, token: u64, key: String, paths: Vec<Vec<u8>>) -> bool {
        self.give(HistoryOrder::FindLast(token, key, paths))
    }

    /// Returns the answers to queries.
    pub fn answers(&self) -> Vec<HistoryAnswer> {
        self.thread.iter().flat_map(OrderThread::answers).collect()
    }

    /// Waits until everything is written, but not long.
    pub fn finish(&mut self) {
        if let Some(thread) = self.thread.take()
            && !thread.finish(FINISH_TIMEOUT)
        {
            log::warn("the transfer log cannot be completed: the state directory hangs");
        }
    }

    fn give(&mut self, order: HistoryOrder) -> bool {
        let (root, lost) = (&mut self.root, &self.lost);
        let (waker, queued) = (Arc::clone(&self.waker), Arc::clone(&self.queued));
        let start = || {
            let mut writer = LogThread {
                root: root.take(),
                rings: HashMap::new(),
                lost: Arc::clone(lost),
            };
            OrderThread::start("log", waker, move |orders| {
                // All orders that have arrived are written together.
                writer.process_orders(orders, &queued)
            })
        };
        OrderThread::give(&mut self.thread, order, start)
    }
}

/// The state of the thread.
struct LogThread {
    root: Option<Box<dyn RingDirectory>>,
    rings: HashMap<String, OpenRing>,
    lost: Arc<AtomicU64>,
}

#[derive(Default)]
struct OpenRing {
    ring: Ring,
    file: Option<File>,
    memory: MemoryHalves,
    pending: Vec<BatchRecord>,
    limit: usize,
    /// The last write failed, which was reported.
    fails: bool,
}

impl LogThread {
    fn process_orders(
        &mut self,
        orders: Vec<HistoryOrder>,
        queued: &AtomicUsize,
    ) -> Vec<HistoryAnswer> {
        let mut answers = Vec::new();
        for order in orders {
            match order {
                HistoryOrder::Write(key, batch, limit) => {
                    queued.fetch_sub(batch.size(), Ordering::Relaxed);
                    let ring = self.rings.entry(key).or_default();
                    ring.limit = limit;
                    ring.pending.push(batch);
                }
                HistoryOrder::Read(token, query) => {
                    self.write_pending();
                    let page = self.page(&query);
                    answers.push(HistoryAnswer::Page(token, page));
                }
                HistoryOrder::FindLast(token, key, paths) => {
                    self.write_pending();
                    let root = self.root.as_deref();
                    let halves = self.rings.entry(key.clone()).or_default().load(root, &key);
                    let last = halves.map_or(Vec::new(), |halves| last_entries(&halves, &paths));
                    answers.push(HistoryAnswer::Last(token, last));
                }
            }
        }
        self.write_pending();
        answers
    }

    fn write_pending(&mut self) {
        let root = self.root.as_deref();
        let mut open = 0;
        for (key, ring) in &mut self.rings {
            let batches = std::mem::take(&mut ring.pending);
            if !batches.is_empty() {
                let written = ring.write(root, key, &batches);
                if written.is_err() {
                    self.lost.fetch_add(batches.len() as u64, Ordering::Relaxed);
                }
                if let Err(error) = &written
                    && !ring.fails
                {
                    log::warn(format_args!("cannot write the transfer log {key}: {error}"));
                }
                ring.fails = written.is_err();
            }
            open += usize::from(ring.file.is_some());
        }
        if open > MAX_OPEN_FILES {
            for ring in self.rings.values_mut() {
                ring.file = None;
            }
        }
    }

    fn page(&mut self, query: &HistoryQuery) -> LogPage {
        let mut page = PageBuilder::new(query);
        for wanted in &query.rings {
            let ring = self.rings.entry(wanted.key.clone()).or_default();
            // Files are not read for a client that has seen the last entry.
            if let (Some(after), Some(next)) = (wanted.after, ring.ring.next())
                && after.checked_add(1) == Some(next)
            {
                continue;
            }
            match ring.load(self.root.as_deref(), &wanted.key) {
                Ok(halves) => page.add(wanted, &halves),
                Err(error) => page.fail(wanted, &error.to_string()),
            }
        }
        page.finish(self.lost.load(Ordering::Relaxed))
    }
}

/// The maximum size of a half that is read. The setting may have been larger when it was written.
const MAX_HALF_BYTES: usize = 64 << 20;

impl OpenRing {
    fn write(
        &mut self,
        root: Option<&dyn RingDirectory>,
        key: &str,
        batches: &[BatchRecord],
    ) -> io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |since| since.as_micros() as u64);
        let ring = &mut self.ring;
        match root {
            Some(root) => {
                let file = &mut self.file;
                let mut halves = FileHalves { root, key, file };
                ring.append(&mut halves, batches, self.limit, now)
            }
            None => {
                let limit = self.limit.min(MAX_MEMORY_BYTES);
                ring.append(&mut self.memory, batches, limit, now)
            }
        }
    }

    fn load(&mut self, root: Option<&dyn RingDirectory>, key: &str) -> io::Result<[Vec<u8>; 2]> {
        match root {
            Some(root) => {
                let file = &mut self.file;
                FileHalves { root, key, file }.load(MAX_HALF_BYTES)
            }
            None => self.memory.load(MAX_HALF_BYTES),
        }
    }
}
