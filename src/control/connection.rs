//! One client connection: its stream, its input and its output.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};

/// The time a client may take to read its reply or to complete its request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The stream of a connection.
pub enum ClientStream {
    /// A connection to the control socket.
    Unix(UnixStream),
    /// A connection to the address of the metrics and the status page.
    Tcp(TcpStream),
}

impl ClientStream {
    /// Returns what is registered with the poll.
    pub fn source(&mut self) -> &mut dyn Source {
        match self {
            ClientStream::Unix(stream) => stream,
            ClientStream::Tcp(stream) => stream,
        }
    }
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            ClientStream::Unix(stream) => stream.read(buffer),
            ClientStream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for ClientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            ClientStream::Unix(stream) => stream.write(bytes),
            ClientStream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection.
pub struct Connection {
    pub(super) serial: u64,
    pub(super) stream: ClientStream,
    /// Bytes received and not yet processed.
    pub(super) input: Vec<u8>,
    /// Bytes to be sent.
    pub(super) output: Vec<u8>,
    /// The time of the last read or write.
    pub(super) moved: Instant,
    /// The client has shut down its sending side.
    pub(super) ended: bool,
    /// The connection is closed when all output is sent.
    pub(super) closing: bool,
    /// A reply is pending: input is not processed and the idle timeout does not apply.
    pub(super) waiting: bool,
    /// The stream may be readable or writable beyond what the last turn has done.
    pub(super) ready: bool,
}

impl Connection {
    /// Returns true for a connection to the control socket.
    pub fn is_local(&self) -> bool {
        matches!(self.stream, ClientStream::Unix(_))
    }

    /// Returns the bytes received and not yet processed.
    pub fn said(&self) -> &[u8] {
        &self.input
    }

    /// Returns true if the client has shut down its sending side.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Removes the first `length` bytes of the input and returns them.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.input.split_off(length.min(self.input.len()));
        std::mem::replace(&mut self.input, rest)
    }

    /// Returns true if input is not to be processed yet: output is unsent or a reply is pending.
    pub fn is_busy(&self) -> bool {
        !self.output.is_empty() || self.waiting || self.closing
    }

    /// Queues bytes to be sent.
    pub fn tell(&mut self, bytes: Vec<u8>, now: Instant) {
        self.output.extend(bytes);
        self.waiting = false;
        self.ready = true;
        self.moved = now;
    }

    /// Queues bytes to be sent and closes the connection after them.
    pub fn tell_and_close(&mut self, bytes: Vec<u8>, now: Instant) {
        self.tell(bytes, now);
        self.closing = true;
    }

    /// Stops processing input until a reply is queued.
    pub fn let_wait(&mut self) {
        self.waiting = true;
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.output.drain(..count);
                    self.moved = now;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads until `most` bytes are buffered. Returns true if more may be readable.
    fn read(&mut self, most: usize, now: Instant) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        while !self.ended && self.input.len() < most {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    if self.input.is_empty() {
                        self.moved = now;
                    }
                    self.input.extend_from_slice(&buffer[..count]);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(!self.ended)
    }

    /// Returns the time at which the connection is closed if nothing moves.
    pub fn deadline(&self) -> Option<Instant> {
        let owes = !self.output.is_empty() || (!self.input.is_empty() && !self.waiting);
        // A client of the metrics address has to send a request.
        let silent = !self.is_local() && !self.waiting;
        (owes || silent).then(|| self.moved + IDLE_TIMEOUT)
    }
}

/// The state of a connection after reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionFate {
    Keep,
    Drop,
}

/// Sends pending bytes, and receives at most `most` bytes.
pub fn move_bytes(connection: &mut Connection, most: usize, now: Instant) -> ConnectionFate {
    if connection
        .deadline()
        .is_some_and(|deadline| deadline <= now)
    {
        return ConnectionFate::Drop;
    }
    if !std::mem::take(&mut connection.ready) {
        return ConnectionFate::Keep;
    }
    if connection.write(now).is_err() {
        return ConnectionFate::Drop;
    }
    if connection.closing {
        return if connection.output.is_empty() {
            ConnectionFate::Drop
        } else {
            ConnectionFate::Keep
        };
    }
    match connection.read(most, now) {
        Err(_) => return ConnectionFate::Drop,
        // The socket was not drained, so epoll(7) sends no further event for the rest.
        Ok(more) => connection.ready = more && connection.output.is_empty(),
    }
    if connection.ended
        && connection.output.is_empty()
        && (connection.input.is_empty() || connection.waiting)
    {
        ConnectionFate::Drop
    } else {
        ConnectionFate::Keep
    }
}
