//! Drains the kernel's queue independently of the main loop.
//!
//! The kernel holds 16,384 events by default and drops later ones. A separate thread reads them
//! into memory and wakes the main loop. It pauses between two reads, longer while they continue to
//! return events, so that a burst causes about a hundred wake-ups a second and a single event is
//! delivered at once. When idle it blocks in poll(2) without a timeout.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::sys;

/// The maximum bytes of one read. The kernel's 16,384 events are 256 KiB without names.
const MAX_READ_BYTES: usize = 512 * 1024;
/// A read that returned more bytes than this is followed by the next without a pause.
const BUSY_READ_BYTES: usize = 128 * 1024;
/// The first pause between reads; each further one is twice as long.
const MIN_PAUSE: Duration = Duration::from_millis(1);
/// The maximum pause. The kernel's queue does not fill up in this time.
const MAX_PAUSE: Duration = Duration::from_millis(8);
/// The maximum bytes that wait for the main loop. More events are dropped and reported as an
/// overflow.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

const KERNEL: Token = Token(0);
const STOP: Token = Token(1);

/// The properties of a kernel queue that the reader needs.
///
/// Positions in the stream are counted in units: FIONREAD must tell how many are in the queue.
#[derive(Clone, Copy)]
pub struct QueueFormat {
    /// The name of the thread.
    pub name: &'static str,
    /// The number of units in the bytes of a read.
    pub units: fn(&[u8]) -> u64,
    /// The result of FIONREAD for one unit.
    pub unit: usize,
    /// Returns the event that the kernel writes when its queue overflows.
    pub overflow: fn() -> Vec<u8>,
}

/// A function that returns the relevant records of a read, if some are irrelevant.
pub type RecordFilter = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

/// The result of one read.
pub struct Chunk {
    /// The records.
    pub bytes: Vec<u8>,
    /// The position of the first one that was read.
    pub start: u64,
    /// The position behind the last one that was read.
    pub end: u64,
}

/// The thread and the events it has read.
pub struct Reader {
    shared: Arc<SharedQueue>,
    descriptor: OwnedFd,
    stop: Waker,
    thread: Option<JoinHandle<()>>,
}

struct SharedQueue {
    format: QueueFormat,
    filter: Option<Box<RecordFilter>>,
    queue: Mutex<ChunkQueue>,
    /// Signals that the thread is to read without a pause.
    hurry: Condvar,
    /// Signals that the thread has read.
    has_read: Condvar,
    /// Set from before a read until its result is in the queue.
    reading: AtomicBool,
    /// Held for the same time.
    read: Mutex<()>,
    stopping: AtomicBool,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct ChunkQueue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Units read since the start.
    total: u64,
    /// Units of them that the main loop has taken.
    taken: u64,
    /// The main loop waits for the next read.
    is_awaited: bool,
}

impl Reader {
    /// Starts the thread; `waker` fires when there are events to take.
    ///
    /// # Errors
    /// The system has no descriptors or threads left.
    pub fn start(
        kernel: BorrowedFd<'_>,
        format: QueueFormat,
        filter: Option<Box<RecordFilter>>,
        waker: Arc<Waker>,
    ) -> io::Result<Reader> {
        let descriptor = kernel.try_clone_to_owned()?;
        let file = File::from(descriptor.try_clone()?);
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut SourceFd(&file.as_raw_fd()), KERNEL, Interest::READABLE)?;
        let stop = Waker::new(poll.registry(), STOP)?;
        let shared = Arc::new(SharedQueue {
            format,
            filter,
            queue: Mutex::default(),
            hurry: Condvar::new(),
            has_read: Condvar::new(),
            reading: AtomicBool::new(false),
            read: Mutex::default(),
            stopping: AtomicBool::new(false),
            waker,
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format.name.into())
            .spawn(move || run(&theirs, poll, file))?;
        Ok(Reader {
            shared,
            descriptor,
            stop,
            thread: Some(thread),
        })
    }

    /// Returns the position behind everything that has been taken.
    pub fn taken(&self) -> u64 {
        self.shared.lock().taken
    }

    /// Returns everything read so far, in order.
    pub fn take(&self) -> VecDeque<Chunk> {
        self.take_some(usize::MAX)
    }

    /// Returns the first reads, in order: as many as hold `limit` bytes together, the last one
    /// whole. If others are left, the waker fires again.
    pub fn take_some(&self, limit: usize) -> VecDeque<Chunk> {
        let mut queue = self.shared.lock();
        let mut taken = VecDeque::new();
        let mut bytes = 0;
        while bytes < limit
            && let Some(chunk) = queue.chunks.pop_front()
        {
            bytes += chunk.bytes.len();
            queue.taken = chunk.end;
            taken.push_back(chunk);
        }
        if queue.chunks.is_empty() {
            queue.bytes = 0;
            queue.taken = queue.total;
        } else {
            queue.bytes = queue.bytes.saturating_sub(bytes);
            let _ = self.shared.waker.wake();
        }
        taken
    }

    /// Returns the position behind all events before this call. Waits for the end of a read.
    pub fn mark(&self) -> u64 {
        let read = self.shared.read.lock();
        let _read = read.unwrap_or_else(PoisonError::into_inner);
        let waiting = sys::readable(self.descriptor.as_fd()).unwrap_or(0);
        let waiting = waiting.div_ceil(self.shared.format.unit);
        self.shared.lock().total + waiting as u64
    }

    /// Returns true if all events before the call of [`Reader::mark`] have been taken: either this
    /// number of units has been taken since, or no more exist.
    pub fn passed(&self, mark: u64) -> bool {
        let queue = self.shared.lock();
        // Events without interest are not in the queue.
        let is_read = queue.total >= mark && queue.chunks.is_empty();
        let passed = queue.taken >= mark || is_read;
        drop(queue);
        passed || self.drained()
    }

    /// Waits until all events before this call have been read, at most for a while. Returns false
    /// if they have not.
    pub fn catch_up(&self, limit: Duration) -> bool {
        let mark = self.mark();
        let end = Instant::now() + limit;
        let mut queue = self.shared.lock();
        while queue.total < mark && !self.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue.is_awaited = true;
            self.shared.hurry.notify_one();
            let waiting = self.shared.has_read.wait_timeout(queue, left);
            queue = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Returns true if no event is in the kernel's queue and none is being read.
    fn is_empty(&self) -> bool {
        let mut poll = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        let empty = nix::poll::poll(&mut poll, PollTimeout::ZERO) == Ok(0);
        empty && !self.shared.reading.load(Ordering::SeqCst)
    }

    /// Returns true if all events before this call have been taken.
    ///
    /// The order of the three checks matters: events that left the kernel before the first are in
    /// the thread until the second and in the queue at the third.
    pub fn drained(&self) -> bool {
        self.is_empty() && self.shared.lock().chunks.is_empty()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if self.stop.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, ChunkQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses, unless the main loop waits.
    fn rest(&self, pause: Duration) {
        let mut queue = self.lock();
        if !queue.is_awaited {
            let waiting = self.hurry.wait_timeout(queue, pause);
            queue = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.is_awaited = false;
    }

    /// Queues the bytes of a read, or an overflow event if too many wait already.
    fn hand_over(&self, bytes: &[u8]) {
        let units = (self.format.units)(bytes);
        let kept = self.filter.as_ref().and_then(|filter| filter(bytes));
        let bytes = kept.as_deref().unwrap_or(bytes);
        let mut queue = self.lock();
        let was_empty = queue.chunks.is_empty();
        let start = queue.total;
        queue.total += units;
        if bytes.is_empty() {
            return;
        }
        let end = queue.total;
        if queue.bytes <= MAX_QUEUED_BYTES {
            queue.bytes += bytes.len();
            let full = queue.bytes > MAX_QUEUED_BYTES;
            let bytes = if full {
                (self.format.overflow)()
            } else {
                bytes.to_vec()
            };
            queue.chunks.push_back(Chunk { bytes, start, end });
        }
        drop(queue);
        if was_empty {
            let _ = self.waker.wake();
        }
    }
}

fn run(shared: &SharedQueue, mut poll: Poll, mut file: File) {
    let mut events = Events::with_capacity(4);
    let mut buffer = vec![0; MAX_READ_BYTES];
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Without a queue no event would ever be seen again, so an overflow is reported at
            // least.
            shared.hand_over(&(shared.format.overflow)());
            return;
        }
        let mut pause = MIN_PAUSE;
        loop {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            let read = shared.read.lock().unwrap_or_else(PoisonError::into_inner);
            shared.reading.store(true, Ordering::SeqCst);
            let result = file.read(&mut buffer);
            if let Ok(length) = result {
                shared.hand_over(&buffer[..length]);
            }
            shared.reading.store(false, Ordering::SeqCst);
            drop(read);
            shared.has_read.notify_all();
            match result {
                Ok(length) if length > BUSY_READ_BYTES => {}
                Ok(_) => {
                    shared.rest(pause);
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use crate::watch::test_rig::LIMIT;

    /// Bytes of a pipe as records.
    const BYTES: QueueFormat = QueueFormat {
        name: "test-reader",
        units: |bytes| bytes.len() as u64,
        unit: 1,
        overflow: || b"overflow".to_vec(),
    };

    fn reader_of(pipe: &io::PipeReader, waker: Arc<Waker>) -> Reader {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Reader::start(pipe.as_fd(), BYTES, None, waker).unwrap()
    }

    #[test]
    fn what_does_not_fit_into_one_turn_waits_for_the_next() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (pipe, mut writer) = io::pipe().unwrap();
        let reader = reader_of(&pipe, waker);
        for text in [b"abc", b"def", b"ghi"] {
            writer.write_all(text).unwrap();
            assert!(reader.catch_up(LIMIT));
        }
        let mark = reader.mark();
        let mut all = Vec::new();
        let mut events = Events::with_capacity(1);
        while !reader.passed(mark) {
            poll.poll(&mut events, None).unwrap();
            for chunk in reader.take_some(2) {
                assert_eq!(chunk.start, all.len() as u64);
                all.extend(chunk.bytes);
                assert_eq!((chunk.end, reader.taken()), (all.len() as u64, chunk.end));
            }
            assert_eq!(reader.drained(), all.len() == 9);
        }
        assert_eq!(all, b"abcdefghi");
    }

    #[test]
    fn events_are_read_on_after_some_of_too_many_are_taken() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (pipe, _writer) = io::pipe().unwrap();
        let reader = reader_of(&pipe, waker);
        let half = vec![b'.'; MAX_QUEUED_BYTES / 2 + 1];
        for _ in 0..3 {
            reader.shared.hand_over(&half);
        }
        let taken = |limit| {
            let chunks = reader.take_some(limit).into_iter();
            chunks.map(|chunk| chunk.bytes.len()).collect::<Vec<_>>()
        };
        assert_eq!(taken(1), [half.len()]);
        reader.shared.hand_over(b"more");
        assert_eq!(taken(usize::MAX), [b"overflow".len(), b"more".len()]);
    }

    /// Events that follow do not matter: there may always be some.
    #[test]
    fn events_before_a_mark_have_passed_when_they_are_taken() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (pipe, mut writer) = io::pipe().unwrap();
        let reader = reader_of(&pipe, waker);
        writer.write_all(b"abc").unwrap();
        let mark = reader.mark();
        assert!(reader.catch_up(LIMIT));
        writer.write_all(b"def").unwrap();
        assert!(reader.catch_up(LIMIT));
        assert!(!reader.passed(mark));
        while reader.taken() < mark {
            assert_eq!(reader.take_some(1).len(), 1);
        }
        assert!(reader.passed(mark));
    }

    /// Something is being read, but nothing of it was there at the call.
    #[test]
    fn catching_up_does_not_wait_for_later_events() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (pipe, _writer) = io::pipe().unwrap();
        let reader = reader_of(&pipe, waker);
        reader.shared.reading.store(true, Ordering::SeqCst);
        assert!(reader.catch_up(Duration::ZERO));
    }

    #[test]
    fn the_reader_does_not_pause_if_the_loop_waits() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (pipe, _writer) = io::pipe().unwrap();
        let reader = reader_of(&pipe, waker);
        reader.shared.lock().is_awaited = true;
        let begin = Instant::now();
        reader.shared.rest(LIMIT);
        assert!(begin.elapsed() < LIMIT);
        assert!(!reader.shared.lock().is_awaited);
    }
}
