//! The connection to the daemon.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lsyncd::control::protocol::Reply;
use lsyncd::control::protocol::Request;
use lsyncd::control::protocol::Verb;
use lsyncd::control::socket_paths;

/// The maximum length of a reply: a status with a thousand entries of each queue of hundreds of
/// syncs is shorter.
const MAX_REPLY_BYTES: usize = 256 * 1024 * 1024;

/// The reason why a request failed.
#[derive(Debug)]
pub enum ClientError {
    /// No daemon runs, or none that this user may query.
    NoDaemon(String),
    /// The daemon refused the request.
    Refused(String),
    /// The daemon did not answer in time.
    TimedOut,
}

/// A connection to the daemon.
pub struct Client {
    stream: UnixStream,
    /// The time at which waiting ends.
    pub deadline: Option<Instant>,
    read: Vec<u8>,
}

impl Client {
    /// Connects to the given socket, the one named by the environment, or the first default path
    /// with a listening daemon.
    pub fn open(socket: Option<&Path>, deadline: Option<Instant>) -> Result<Client, ClientError> {
        let given = socket
            .map(PathBuf::from)
            .or_else(|| std::env::var_os(socket_paths::VARIABLE).map(PathBuf::from));
        let places = match given {
            Some(path) => vec![path],
            None => socket_paths::searched(),
        };
        let mut problems = Vec::new();
        for path in places {
            match UnixStream::connect(&path) {
                Ok(stream) => {
                    return Ok(Client {
                        stream,
                        deadline,
                        read: Vec::new(),
                    });
                }
                Err(error) => problems.push(format!("{}: {error}", path.display())),
            }
        }
        Err(ClientError::NoDaemon(format!(
            "no daemon answers: {}. Check that it runs, and as this user (systemctl status lsyncd); \
             its log shows if it has no socket. Another socket (settings {{ controlSocket }}) is \
             selected by -socket PATH or LSYNCD_SOCKET; sudo ss -xlp | grep lsyncd lists sockets",
            problems.join("; ")
        )))
    }

    /// Sends a request and returns the reply.
    pub fn ask(&mut self, verb: Verb) -> Result<Reply, ClientError> {
        self.limit()?;
        let line = Request::new(verb).line();
        self.stream.write_all(&line).map_err(failed)?;
        let line = self.line()?;
        let reply: Reply = serde_json::from_slice(&line).map_err(|error| {
            ClientError::Refused(format!("invalid reply of the daemon: {error}"))
        })?;
        if reply.ok {
            Ok(reply)
        } else {
            Err(ClientError::Refused(reply.text))
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut buffer = [0; 16 * 1024];
        let mut searched = 0;
        loop {
            let end = self.read[searched..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let rest = self.read.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            searched = self.read.len();
            if searched > MAX_REPLY_BYTES {
                return Err(ClientError::Refused(
                    "the reply of the daemon is incomplete".into(),
                ));
            }
            self.limit()?;
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return Err(ClientError::NoDaemon(
                        "the daemon closed the connection".into(),
                    ));
                }
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Sets the socket's timeout to the remaining time.
    fn limit(&mut self) -> Result<(), ClientError> {
        let Some(deadline) = self.deadline else {
            return self.stream.set_read_timeout(None).map_err(failed);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(ClientError::TimedOut);
        }
        let set = self.stream.set_read_timeout(Some(left));
        set.and_then(|()| self.stream.set_write_timeout(Some(left)))
            .map_err(failed)
    }
}

fn failed(error: io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::TimedOut,
        _ => ClientError::NoDaemon(format!("the connection failed: {error}")),
    }
}
