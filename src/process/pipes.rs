//! The daemon's ends of its children's pipes. Reads and writes never block.
//!
//! epoll(7) is used edge-triggered, so a pipe is pumped until it would block. One that exceeds
//! [`MAX_PIPE_BYTES`] is deferred instead, and the event loop comes back to it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use hashbrown::HashMap;
use mio::event::Source;
use mio::unix::pipe::{self, Receiver, Sender};
use mio::{Interest, Registry, Token};

use super::lines::Splitter;
use super::pid::Pid;

/// The maximum bytes that one pipe moves at once: a pipe's default capacity (pipe(7)).
const MAX_PIPE_BYTES: usize = 64 * 1024;

/// The maximum bytes that all deferred pipes move in one turn.
const MAX_TURN_BYTES: usize = 256 * 1024;

/// The maximum bytes in the pipe of an ended child (`/proc/sys/fs/pipe-max-size`, pipe(7)).
const MAX_PIPE_CAPACITY: usize = 1024 * 1024;

/// The origin of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives the lines of children, without line ends.
pub type Sink<'a> = &'a mut dyn FnMut(Pid, Stream, &[u8]);

/// The state of a pipe after it was pumped.
#[derive(Debug, PartialEq, Eq)]
enum PipeProgress {
    /// It would block: epoll reports when it can continue.
    Blocked,
    /// It moved as much as it may at once.
    More,
    /// Nothing is left to do.
    Finished,
}

/// Bytes to be written to a child.
#[derive(Debug)]
pub(super) struct Feed {
    sender: Sender,
    bytes: Vec<u8>,
    written: usize,
}

/// Lines being read from a child.
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
    /// True if the pipe is in the list of deferred ones.
    aside: bool,
}

/// All open pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    registry: Registry,
    next: usize,
    open: HashMap<usize, Pipe>,
    aside: VecDeque<usize>,
    buffer: Box<[u8]>,
}

impl Pipes {
    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.registry.try_clone()
    }

    /// Returns an empty set of pipes. Tokens are counted from `first` and never reused, so that a
    /// late event of a closed pipe is ignored.
    pub(super) fn new(registry: Registry, first: usize) -> Self {
        Self {
            registry,
            next: first,
            open: HashMap::new(),
            aside: VecDeque::new(),
            buffer: vec![0; MAX_PIPE_BYTES / 4].into_boxed_slice(),
        }
    }

    /// Creates a pipe and writes as much of `bytes` as fits. Returns the child's end and, if there
    /// is one, the rest for [`Pipes::keep_feeding`].
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

    /// Creates a pipe for output; its reading end is passed to [`Pipes::listen`].
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

    /// Pumps the pipe of an event.
    pub(super) fn ready(&mut self, token: Token, lines: Sink<'_>) {
        self.pump(token.0, MAX_PIPE_BYTES, lines);
    }

    /// Reads the rest of an ended child's output, an unfinished line included. Later output of a
    /// grandchild is not waited for.
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

    /// Continues with the deferred pipes in turn.
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

    /// Pumps a pipe and returns the number of bytes moved.
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
    /// Pumps the input of a child. A child that closes its end early, or ends, is not an error.
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use mio::Poll;
    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    /// As a child whose pipe is larger than the share that is moved at once, and which writes
    /// nothing more that would wake the loop.
    #[test]
    fn what_exceeds_a_share_is_moved_in_later_turns() {
        const SIZE: usize = 4 * MAX_PIPE_BYTES;
        const PIPES: usize = 6;
        let poll = Poll::new().unwrap();
        let mut pipes = Pipes::new(poll.registry().try_clone().unwrap(), 1);
        let mut ends = Vec::new();
        let mut tokens = Vec::new();
        for pid in 0..PIPES {
            let (end, token, receiver) = pipes.capture().unwrap();
            let size = i32::try_from(SIZE).unwrap();
            if fcntl(&end, FcntlArg::F_SETPIPE_SZ(size)).is_err() {
                return crate::test_skip::skip("takes large pipes");
            }
            let pid = Pid(u32::try_from(pid).unwrap());
            pipes.listen(token, receiver, pid, Stream::Stdout);
            let mut file = File::from(end);
            file.write_all(&b"0123456\n".repeat(SIZE / 8)).unwrap();
            ends.push(file);
            tokens.push(token);
        }
        let mut counts = [0; PIPES];
        let mut count = |pid: Pid, _, line: &[u8]| {
            assert_eq!(line, b"0123456");
            counts[usize::try_from(pid.0).unwrap()] += 8;
        };
        for _ in 0..2 {
            for &token in &tokens {
                pipes.ready(Token(token), &mut count);
            }
        }
        let mut turns = 0;
        while pipes.pending() {
            pipes.resume(&mut count);
            turns += 1;
        }
        assert_eq!(counts, [SIZE; PIPES]);
        // Two shares each went before; the last turn finds nothing.
        let rest = PIPES * (SIZE - 2 * MAX_PIPE_BYTES);
        assert_eq!(turns, rest / MAX_TURN_BYTES + 1);
        drop(ends);
        for token in tokens {
            pipes.ready(Token(token), &mut |_, _, line: &[u8]| panic!("{line:?}"));
        }
        assert!(pipes.open.is_empty());
    }

    #[test]
    fn the_input_of_a_child_that_reads_no_more_is_dropped() {
        let poll = Poll::new().unwrap();
        let mut pipes = Pipes::new(poll.registry().try_clone().unwrap(), 1);
        let (end, rest) = pipes.feed(vec![0; 1024 * 1024]).unwrap();
        let (token, feed) = rest.expect("more than fits into a pipe");
        pipes.keep_feeding(token, feed);
        let mut none = |_, _, line: &[u8]| panic!("{line:?}");
        pipes.ready(Token(token), &mut none);
        assert_eq!(pipes.open.len(), 1);
        drop(end);
        pipes.ready(Token(token), &mut none);
        assert!(pipes.open.is_empty());
    }
}
