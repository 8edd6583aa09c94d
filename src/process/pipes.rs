//! The daemon's ends of its children's pipes: what goes in, what comes out, and never a wait.
//!
//! epoll(7) is used edge-triggered, so a pipe is pumped until it would block. One that has
//! more than its share is put aside in a list instead, for the engine to come back to.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use hashbrown::HashMap;
use mio::event::Source;
use mio::unix::pipe::{self, Receiver, Sender};
use mio::{Interest, Registry, Token};

use super::children::Pid;
use super::lines::Splitter;

/// What one pipe may move in one go, in bytes: all that a pipe holds by default (pipe(7)).
const MAX_PIPE_BYTES: usize = 64 * 1024;

/// What all pipes that were put aside may move in one turn, in bytes.
const MAX_TURN_BYTES: usize = 256 * 1024;

/// The most a pipe of an ended child can hold, in bytes (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const MAX_PIPE_CAPACITY: usize = 1024 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the lines of children, without their line ends.
pub type Sink<'a> = &'a mut dyn FnMut(Pid, Stream, &[u8]);

/// True if a pipe wants more attention.
#[derive(Debug, PartialEq, Eq)]
enum PipeProgress {
    /// It would block: epoll will tell.
    Blocked,
    /// Its share is used up.
    More,
    /// Nothing is left to do.
    Finished,
}

/// Bytes on their way into a child.
#[derive(Debug)]
pub(super) struct Feed {
    sender: Sender,
    bytes: Vec<u8>,
    written: usize,
}

/// Lines on their way out of a child.
#[derive(Debug)]
struct Capture {
    receiver: Receiver,
    pid: Pid,
    stream: Stream,
    splitter: Splitter,
}

#[derive(Debug)]
enum PipeJob {
    Feed(Feed),
    Capture(Capture),
}

#[derive(Debug)]
struct Pipe {
    job: PipeJob,
    /// It is in the list of those put aside.
    aside: bool,
}

/// All open pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    registry: Registry,
    first: usize,
    next: usize,
    open: HashMap<usize, Pipe>,
    aside: VecDeque<usize>,
    buffer: Box<[u8]>,
}

impl Pipes {
    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.registry.try_clone()
    }

    /// Tokens are counted from `first` and never used again, so that a late event of a closed
    /// pipe is nobody's.
    pub(super) fn new(registry: Registry, first: usize) -> Self {
        Self {
            registry,
            first,
            next: first,
            open: HashMap::new(),
            aside: VecDeque::new(),
            buffer: vec![0; MAX_PIPE_BYTES / 4].into_boxed_slice(),
        }
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        token.0 >= self.first
    }

    /// Makes a pipe with as much of `bytes` in it as it takes, and returns the child's end.
    /// The rest, if there is one, waits to be given to [`Pipes::keep_feeding`].
    pub(super) fn feed(&mut self, bytes: Vec<u8>) -> io::Result<(OwnedFd, Option<(usize, Feed)>)> {
        let (sender, receiver) = pipe::new()?;
        receiver.set_nonblocking(false)?;
        let mut feed = Feed {
            sender,
            bytes,
            written: 0,
        };
        let rest = match feed.pump(usize::MAX).0 {
            PipeProgress::Finished => None,
            _ => Some((
                register(
                    &self.registry,
                    &mut self.next,
                    &mut feed.sender,
                    Interest::WRITABLE,
                )?,
                feed,
            )),
        };
        Ok((receiver.into(), rest))
    }

    pub(super) fn keep_feeding(&mut self, token: usize, feed: Feed) {
        self.insert(token, PipeJob::Feed(feed));
    }

    /// Makes a pipe for output; its reading end is to be given to [`Pipes::listen`].
    pub(super) fn capture(&mut self) -> io::Result<(OwnedFd, usize, Receiver)> {
        let (sender, mut receiver) = pipe::new()?;
        sender.set_nonblocking(false)?;
        let token = register(
            &self.registry,
            &mut self.next,
            &mut receiver,
            Interest::READABLE,
        )?;
        Ok((sender.into(), token, receiver))
    }

    pub(super) fn listen(&mut self, token: usize, receiver: Receiver, pid: Pid, stream: Stream) {
        self.insert(
            token,
            PipeJob::Capture(Capture {
                receiver,
                pid,
                stream,
                splitter: Splitter::default(),
            }),
        );
    }

    /// Pumps the pipe an event is about.
    pub(super) fn ready(&mut self, token: Token, lines: Sink<'_>) {
        self.pump(token.0, MAX_PIPE_BYTES, lines);
    }

    /// Reads what an ended child has left in a pipe, an unfinished line included. A grandchild
    /// that goes on writing is heard no longer than that now.
    pub(super) fn drain(&mut self, token: usize, lines: Sink<'_>) {
        self.pump(token, MAX_PIPE_CAPACITY, lines);
        if let Some(PipeJob::Capture(capture)) = self.open.get_mut(&token).map(|pipe| &mut pipe.job)
        {
            capture.flush(lines);
        }
    }

    pub(super) fn pending(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Goes on with the pipes that were put aside, in turn.
    pub(super) fn resume(&mut self, lines: Sink<'_>) {
        let mut moved = 0;
        for _ in 0..self.aside.len() {
            if moved >= MAX_TURN_BYTES {
                return;
            }
            let Some(token) = self.aside.pop_front() else {
                return;
            };
            if let Some(pipe) = self.open.get_mut(&token) {
                pipe.aside = false;
            }
            moved += self.pump(token, MAX_PIPE_BYTES, lines);
        }
    }

    fn insert(&mut self, token: usize, job: PipeJob) {
        self.open.insert(token, Pipe { job, aside: false });
    }

    /// Returns how many bytes were moved.
    fn pump(&mut self, token: usize, share: usize, lines: Sink<'_>) -> usize {
        let Some(pipe) = self.open.get_mut(&token) else {
            return 0;
        };
        let (progress, moved) = match &mut pipe.job {
            PipeJob::Feed(feed) => feed.pump(share),
            PipeJob::Capture(capture) => capture.pump(share, &mut self.buffer, lines),
        };
        match progress {
            PipeProgress::Blocked => {}
            PipeProgress::More => {
                if !pipe.aside {
                    pipe.aside = true;
                    self.aside.push_back(token);
                }
            }
            PipeProgress::Finished => {
                self.open.remove(&token);
            }
        }
        moved
    }
}

impl Feed {
    /// A child that closes its end early, or ends, has what it wanted: no error.
    fn pump(&mut self, share: usize) -> (PipeProgress, usize) {
        let mut moved = 0;
        loop {
            if self.written == self.bytes.len() {
                return (PipeProgress::Finished, moved);
            }
            if moved >= share {
                return (PipeProgress::More, moved);
            }
            match self.sender.write(&self.bytes[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    moved += count;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return (PipeProgress::Blocked, moved);
                }
                Err(_) => return (PipeProgress::Finished, moved),
            }
        }
    }
}

impl Capture {
    fn flush(&mut self, lines: Sink<'_>) {
        let (pid, stream) = (self.pid, self.stream);
        self.splitter.flush(&mut |line| lines(pid, stream, line));
    }

    fn pump(&mut self, share: usize, buffer: &mut [u8], lines: Sink<'_>) -> (PipeProgress, usize) {
        let (pid, stream) = (self.pid, self.stream);
        let line = &mut |line: &[u8]| lines(pid, stream, line);
        let mut moved = 0;
        while moved < share {
            match self.receiver.read(buffer) {
                Ok(0) => {
                    self.splitter.flush(line);
                    return (PipeProgress::Finished, moved);
                }
                Ok(count) => {
                    self.splitter.push(&buffer[..count], line);
                    moved += count;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return (PipeProgress::Blocked, moved);
                }
                Err(_) => {
                    self.splitter.flush(line);
                    return (PipeProgress::Finished, moved);
                }
            }
        }
        (PipeProgress::More, moved)
    }
}

/// Registers a pipe under the next free token. Closing it will take it from epoll again.
fn register(
    registry: &Registry,
    next: &mut usize,
    pipe: &mut dyn Source,
    interest: Interest,
) -> io::Result<usize> {
    let token = *next;
    pipe.register(registry, Token(token), interest)?;
    *next += 1;
    Ok(token)
}
