//! Client connections of the daemon's sockets. Their number, the size of a request and the size of
//! buffered replies are limited.
//!
//! No operation blocks. A client that does not read its reply or does not complete its request
//! within [`IDLE_TIMEOUT`](super::connection::IDLE_TIMEOUT) is disconnected. If all
//! [`MAX_CONNECTIONS`] are in use, a new client replaces the one that has been idle for longest.

use std::io;
use std::time::Instant;

use mio::{Interest, Registry, Token};

use super::connection::{ClientStream, Connection, ConnectionFate, move_bytes};
use crate::id::ConnectionId;

/// The maximum number of connections at a time.
pub const MAX_CONNECTIONS: usize = 64;

/// All connections.
pub struct Connections {
    registry: Registry,
    first: usize,
    serial: u64,
    places: Vec<Option<Connection>>,
}

impl Connections {
    /// Returns an empty set, which uses the tokens from `first` to `first +` [`MAX_CONNECTIONS`] -
    /// 1.
    pub fn new(registry: Registry, first: usize) -> Connections {
        Connections {
            registry,
            first,
            serial: 0,
            places: (0..MAX_CONNECTIONS).map(|_| None).collect(),
        }
    }

    /// Adds a connection. If all are in use, it replaces the one that has been idle for longest.
    ///
    /// # Errors
    ///
    /// epoll(7) cannot register the stream.
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

    /// Marks the connection of this token as ready for I/O.
    pub fn wake(&mut self, token: Token) {
        let place = token.0.checked_sub(self.first);
        if let Some(Some(connection)) = place.and_then(|place| self.places.get_mut(place)) {
            connection.ready = true;
        }
    }

    /// Returns the connection, if it is still open.
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.places.get_mut(id.place)?.as_mut()?;
        (connection.serial == id.serial).then_some(connection)
    }

    /// Returns true if the connection is still open.
    pub fn knows(&self, id: ConnectionId) -> bool {
        let connection = self.places.get(id.place).and_then(Option::as_ref);
        connection.is_some_and(|connection| connection.serial == id.serial)
    }

    /// Reads and writes on all ready connections, closes those that are finished, lost or timed
    /// out, and returns those with unprocessed input. `most` is the maximum size of a request in
    /// bytes.
    pub fn turn(&mut self, most: usize, now: Instant) -> Vec<ConnectionId> {
        let mut heard = Vec::new();
        for (place, slot) in self.places.iter_mut().enumerate() {
            let Some(connection) = slot else {
                continue;
            };
            if move_bytes(connection, most, now) == ConnectionFate::Drop {
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

    /// Returns true if a connection has more to read or write than this turn has done.
    pub fn pending(&self) -> bool {
        let mut connections = self.places.iter().flatten();
        connections.any(|connection| connection.ready && !connection.waiting)
    }

    /// Returns the time of the next timeout.
    pub fn deadline(&self) -> Option<Instant> {
        let connections = self.places.iter().flatten();
        connections.filter_map(Connection::deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use mio::Poll;
    use mio::net::{TcpStream, UnixStream};

    use super::*;

    const MAX_BYTES: usize = 1000;

    /// Connections together with the clients' ends.
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

        /// Connects a client to the control socket.
        fn connect(&mut self, seconds: u64) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let now = self.at(seconds);
            self.connections.add(ClientStream::Unix(ours), now).unwrap();
            theirs
        }

        /// Connects a client to the metrics address.
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

        /// Runs a turn in which all connections are ready.
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
        // Further bytes of the same request do not extend the timeout.
        theirs.write_all(b"tu").unwrap();
        fixture.turn(10);
        fixture.turn(11);
        assert_eq!(fixture.count(), 0);
        assert_eq!(fixture.deadline(), None);
        assert_eq!(fixture.connections.turn(MAX_BYTES, fixture.at(12)).len(), 0);
    }

    #[test]
    fn a_client_that_does_not_read_is_dropped() {
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
        // A byte that is read extends the timeout.
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
    fn a_client_that_waits_for_an_answer_is_not_dropped_and_its_input_not_read() {
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

    /// Neither a client with a pending reply nor the newest one is replaced.
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
