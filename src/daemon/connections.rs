//! Those who are connected to the daemon's sockets: bounded in number, in what they may say
//! and in what may wait for them.
//!
//! Nothing here blocks, and no peer costs more than its buffers: one that does not read what it is told,
//! or does not end what it says, is dropped after [`IDLE_TIMEOUT`]; with all places taken the one
//! that has been silent for longest makes room.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// So many at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// How long one may take to read what it is told, or to end what it says.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Either kind of stream.
pub enum ClientStream {
    /// On the control socket.
    Unix(UnixStream),
    /// On the address of metrics and page.
    Tcp(TcpStream),
}

impl ClientStream {
    fn source(&mut self) -> &mut dyn Source {
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

/// Names one peer; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    place: usize,
    serial: u64,
}

/// One who is connected.
pub struct Connection {
    serial: u64,
    stream: ClientStream,
    /// What it said and has not been answered.
    input: Vec<u8>,
    /// What it has not read.
    output: Vec<u8>,
    /// When something last moved in either direction.
    moved: Instant,
    /// It says no more.
    ended: bool,
    /// It is dropped when it has read all.
    closing: bool,
    /// It waits for an answer that takes its time: it is neither heard nor dropped for silence.
    waiting: bool,
    /// There may be more to read or write than was done.
    ready: bool,
}

impl Connection {
    /// Came through the control socket.
    pub fn is_local(&self) -> bool {
        matches!(self.stream, ClientStream::Unix(_))
    }

    /// What it said and has not been taken.
    pub fn said(&self) -> &[u8] {
        &self.input
    }

    /// It has ended its side.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes out the first so many bytes it said.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.input.split_off(length.min(self.input.len()));
        std::mem::replace(&mut self.input, rest)
    }

    /// Is there something it has to read before it is heard again?
    pub fn is_busy(&self) -> bool {
        !self.output.is_empty() || self.waiting || self.closing
    }

    /// Tells it something.
    pub fn tell(&mut self, bytes: Vec<u8>, now: Instant) {
        self.output.extend(bytes);
        self.waiting = false;
        self.ready = true;
        self.moved = now;
    }

    /// Tells it something and says no more.
    pub fn tell_and_close(&mut self, bytes: Vec<u8>, now: Instant) {
        self.tell(bytes, now);
        self.closing = true;
    }

    /// An answer will come, and nothing else is taken from it until then.
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

    /// Reads up to `most` bytes in all. True if there may be more.
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

    /// When it is dropped if nothing moves.
    fn deadline(&self) -> Option<Instant> {
        let owes = !self.output.is_empty() || (!self.input.is_empty() && !self.waiting);
        // Nobody connects to metrics to say nothing.
        let silent = !self.is_local() && !self.waiting;
        (owes || silent).then(|| self.moved + IDLE_TIMEOUT)
    }
}

/// All who are connected.
pub struct Connections {
    registry: Registry,
    first: usize,
    serial: u64,
    places: Vec<Option<Connection>>,
}

impl Connections {
    /// Nobody; tokens are `first` and the [`MAX_CONNECTIONS`] - 1 behind it.
    pub fn new(registry: Registry, first: usize) -> Connections {
        Connections {
            registry,
            first,
            serial: 0,
            places: (0..MAX_CONNECTIONS).map(|_| None).collect(),
        }
    }

    /// Takes one in, in place of the one silent for longest if need be.
    ///
    /// # Errors
    /// epoll has no room for it.
    pub fn add(&mut self, mut stream: ClientStream, now: Instant) -> io::Result<()> {
        let place = self.place();
        self.places[place] = None;
        let token = Token(self.first + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(stream.source(), token, interest)?;
        self.serial += 1;
        self.places[place] = Some(Connection {
            serial: self.serial,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            moved: now,
            ended: false,
            closing: false,
            waiting: false,
            ready: true,
        });
        Ok(())
    }

    fn place(&self) -> usize {
        if let Some(free) = self.places.iter().position(Option::is_none) {
            return free;
        }
        let silent = |place: &usize| {
            let connection = self.places[*place].as_ref();
            connection.map(|connection| (connection.waiting, connection.moved))
        };
        (0..MAX_CONNECTIONS).min_by_key(silent).unwrap_or(0)
    }

    /// An event of this token came.
    pub fn wake(&mut self, token: Token) {
        let place = token.0.checked_sub(self.first);
        if let Some(Some(connection)) = place.and_then(|place| self.places.get_mut(place)) {
            connection.ready = true;
        }
    }

    /// The peer, if it is there still.
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.places.get_mut(id.place)?.as_mut()?;
        (connection.serial == id.serial).then_some(connection)
    }

    /// Returns true if it is there still.
    pub fn knows(&self, id: ConnectionId) -> bool {
        let connection = self.places.get(id.place).and_then(Option::as_ref);
        connection.is_some_and(|connection| connection.serial == id.serial)
    }

    /// Moves bytes for all who are ready, drops who is done, gone or out of time, and names those who have
    /// said something. `most` is the longest a peer may say at a time.
    pub fn turn(&mut self, most: usize, now: Instant) -> Vec<ConnectionId> {
        let mut heard = Vec::new();
        for (place, slot) in self.places.iter_mut().enumerate() {
            let Some(connection) = slot else {
                continue;
            };
            if move_bytes(connection, most, now) == Fate::Drop {
                *slot = None;
                continue;
            }
            if !connection.input.is_empty() && !connection.is_busy() {
                let serial = connection.serial;
                heard.push(ConnectionId { place, serial });
            }
        }
        heard
    }

    /// Someone has more to say or to read than was done in this turn.
    pub fn pending(&self) -> bool {
        let mut connections = self.places.iter().flatten();
        connections.any(|connection| connection.ready && !connection.waiting)
    }

    /// When someone is out of time.
    pub fn deadline(&self) -> Option<Instant> {
        let connections = self.places.iter().flatten();
        connections.filter_map(Connection::deadline).min()
    }
}

#[derive(PartialEq)]
enum Fate {
    Keep,
    Drop,
}

fn move_bytes(connection: &mut Connection, most: usize, now: Instant) -> Fate {
    if connection
        .deadline()
        .is_some_and(|deadline| deadline <= now)
    {
        return Fate::Drop;
    }
    if !std::mem::take(&mut connection.ready) {
        return Fate::Keep;
    }
    if connection.write(now).is_err() {
        return Fate::Drop;
    }
    if connection.closing {
        return if connection.output.is_empty() {
            Fate::Drop
        } else {
            Fate::Keep
        };
    }
    match connection.read(most, now) {
        Err(_) => return Fate::Drop,
        // With its share used up, no event will come for the rest.
        Ok(more) => connection.ready = more && connection.output.is_empty(),
    }
    if connection.ended
        && connection.output.is_empty()
        && (connection.input.is_empty() || connection.waiting)
    {
        Fate::Drop
    } else {
        Fate::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;

    const MAX_BYTES: usize = 1000;

    /// Connections, and the other ends of their connections.
    struct Fixture {
        _poll: Poll,
        connections: Connections,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Fixture {
            let poll = Poll::new().unwrap();
            let connections = Connections::new(poll.registry().try_clone().unwrap(), 0);
            Fixture {
                _poll: poll,
                connections,
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// One more on the control socket.
        fn connect(&mut self, seconds: u64) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let now = self.at(seconds);
            self.connections.add(ClientStream::Unix(ours), now).unwrap();
            theirs
        }

        /// One more on the address of metrics.
        fn connect_tcp(&mut self, seconds: u64) -> std::net::TcpStream {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, _) = listener.accept().unwrap();
            ours.set_nonblocking(true).unwrap();
            let now = self.at(seconds);
            let ours = ClientStream::Tcp(TcpStream::from_std(ours));
            self.connections.add(ours, now).unwrap();
            theirs
        }

        /// A turn in which an event came for everybody.
        fn turn(&mut self, seconds: u64) -> Vec<ConnectionId> {
            for place in 0..MAX_CONNECTIONS {
                self.connections.wake(Token(place));
            }
            self.connections.turn(MAX_BYTES, self.at(seconds))
        }

        fn count(&self) -> usize {
            self.connections.places.iter().flatten().count()
        }

        fn deadline(&self) -> Option<u64> {
            let deadline = self.connections.deadline()?;
            Some((deadline - self.start).as_secs())
        }
    }

    #[test]
    fn who_begins_to_say_something_and_does_not_end_is_dropped() {
        let mut fixture = Fixture::new();
        let mut theirs = fixture.connect(0);
        theirs.write_all(b"sta").unwrap();
        assert_eq!(fixture.turn(1).len(), 1);
        assert_eq!(fixture.deadline(), Some(11));
        fixture.turn(10);
        assert_eq!(fixture.count(), 1);
        // More of the same begins no new span.
        theirs.write_all(b"tu").unwrap();
        fixture.turn(10);
        fixture.turn(11);
        assert_eq!(fixture.count(), 0);
        assert_eq!(fixture.deadline(), None);
        assert_eq!(fixture.connections.turn(MAX_BYTES, fixture.at(12)).len(), 0);
    }

    #[test]
    fn who_does_not_read_what_it_is_told_is_dropped() {
        let mut fixture = Fixture::new();
        let mut theirs = fixture.connect(0);
        theirs.write_all(b"x").unwrap();
        let id = fixture.turn(0)[0];
        let now = fixture.at(0);
        let connection = fixture.connections.connection(id).unwrap();
        connection.take(1);
        connection.tell(vec![b'a'; 10_000_000], now);
        fixture.turn(5);
        assert_eq!(fixture.deadline(), Some(15));
        // A byte that is read gives it more time.
        assert!(theirs.read(&mut vec![0; 1_000_000]).unwrap() > 0);
        fixture.turn(14);
        assert_eq!(fixture.deadline(), Some(24));
        fixture.turn(23);
        assert!(fixture.connections.knows(id));
        fixture.turn(24);
        assert!(!fixture.connections.knows(id));
    }

    #[test]
    fn who_is_silent_stays_on_the_control_socket_only() {
        let mut fixture = Fixture::new();
        let _quiet = fixture.connect(0);
        assert_eq!(fixture.deadline(), None);
        fixture.turn(1_000_000);
        assert_eq!(fixture.count(), 1);
        let _quiet = fixture.connect_tcp(0);
        assert_eq!(fixture.deadline(), Some(10));
        fixture.turn(9);
        assert_eq!(fixture.count(), 2);
        fixture.turn(10);
        assert_eq!(fixture.count(), 1);
    }

    #[test]
    fn who_waits_for_an_answer_is_neither_dropped_nor_heard() {
        let mut fixture = Fixture::new();
        let mut theirs = fixture.connect(0);
        theirs.write_all(b"wait").unwrap();
        let id = fixture.turn(0)[0];
        fixture.connections.connection(id).unwrap().let_wait();
        assert_eq!(fixture.deadline(), None);
        theirs.write_all(b"more").unwrap();
        assert_eq!(fixture.turn(1_000_000), []);
        let now = fixture.at(1_000_000);
        let connection = fixture.connections.connection(id).unwrap();
        connection.take(4);
        connection.tell_and_close(b"done".to_vec(), now);
        fixture.turn(1_000_001);
        assert_eq!(fixture.count(), 0);
        let mut answer = [0; 4];
        theirs.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"done");
    }

    #[test]
    fn who_has_gone_is_dropped_at_once() {
        let mut fixture = Fixture::new();
        drop(fixture.connect(0));
        fixture.turn(0);
        assert_eq!(fixture.count(), 0);
    }

    #[test]
    fn nobody_says_more_than_may_be_taken_at_a_time() {
        let mut fixture = Fixture::new();
        let mut theirs = fixture.connect(0);
        theirs.write_all(&[b'x'; 3 * 4096]).unwrap();
        let id = fixture.turn(0)[0];
        assert_eq!(
            fixture.connections.connection(id).unwrap().said().len(),
            4096
        );
        assert!(fixture.connections.pending());
        fixture.connections.connection(id).unwrap().take(4096);
        assert_eq!(fixture.turn(0), [id]);
    }

    /// Who waits for an answer, and who came last, is not the one to go.
    #[test]
    fn with_all_places_taken_the_one_silent_for_longest_makes_room() {
        let mut fixture = Fixture::new();
        let mut theirs: Vec<_> = (0..MAX_CONNECTIONS as u64)
            .map(|each| fixture.connect(each))
            .collect();
        theirs[0].write_all(b"x").unwrap();
        let first = fixture.turn(100)[0];
        fixture.connections.connection(first).unwrap().let_wait();
        let second = ConnectionId {
            place: 1,
            serial: 2,
        };
        assert!(fixture.connections.knows(second));
        theirs.push(fixture.connect(101));
        assert_eq!(fixture.count(), MAX_CONNECTIONS);
        assert!(fixture.connections.knows(first) && !fixture.connections.knows(second));
        assert!(fixture.connections.connection(second).is_none());
    }
}
