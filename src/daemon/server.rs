//! Where questions and orders come in: the control socket, the address of metrics and page,
//! and who is connected to them. What is answered is in `control` and `http`.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mio::net::{TcpListener, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use rustix::fs::FileType;

use super::barrier::Barrier;
use super::connections::{ClientStream, Connections, MAX_CONNECTIONS};
use crate::config::{ControlSocket, Settings};
use crate::log;
use crate::safe_path::{self, Location};

const CONTROL_TOKEN: Token = Token(8);
const METRICS_TOKEN: Token = Token(9);
const FIRST_CONNECTION_TOKEN: usize = 16;

/// The first token that is not the desk's.
pub const END_OF_TOKENS: usize = FIRST_CONNECTION_TOKEN + MAX_CONNECTIONS;

/// Why a socket cannot be had, when it is another's.
const IN_USE: &str = "another daemon listens on it";

/// So many connections are taken in a turn, so that a flood of them costs no turn much.
const MAX_ACCEPTED: usize = 32;

/// The desk of a daemon.
pub struct Server {
    control: Option<ControlListener>,
    metrics: Option<TcpListener>,
    /// Who is connected.
    pub(super) connections: Connections,
    /// Who waits until all is done.
    pub(super) waits: Vec<Barrier>,
    /// More may want to be taken in.
    crowded: bool,
}

/// The control socket; dropped, its file is removed.
struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to know it by.
    file: (u64, u64),
}

impl Server {
    /// A desk nobody can reach.
    pub fn closed(registry: Registry) -> Server {
        Server {
            control: None,
            metrics: None,
            connections: Connections::new(registry, FIRST_CONNECTION_TOKEN),
            waits: Vec::new(),
            crowded: false,
        }
    }

    /// Opens what the settings name.
    ///
    /// # Errors
    /// In words for the user. A socket in a default place that cannot be had is only told.
    pub fn open(&mut self, settings: &Settings, registry: &Registry) -> Result<(), String> {
        match &settings.control_socket {
            ControlSocket::None => {}
            ControlSocket::At(path) => {
                let control = ControlListener::open(path, registry);
                let shown = log::escape(path.as_os_str().as_encoded_bytes());
                self.control = Some(
                    control
                        .map_err(|text| format!("cannot open control socket {shown}: {text}"))?,
                );
            }
            ControlSocket::Default => {
                for path in default_places(settings.pid_file.as_deref()) {
                    match ControlListener::open(&path, registry) {
                        Ok(control) => {
                            self.control = Some(control);
                            break;
                        }
                        Err(text) => {
                            let is_taken = text == IN_USE;
                            let category = if is_taken { "Warn" } else { "Control" };
                            let path = path.display();
                            log::say(category, format_args!("no control socket {path}: {text}"));
                            // Where a daemon has the first place, another has none.
                            if is_taken {
                                break;
                            }
                        }
                    }
                }
            }
        }
        if let Some(address) = settings.metrics_listen {
            let listener = listen(address, registry)
                .map_err(|e| format!("cannot listen on {address}: {}", log::reason(&e)))?;
            self.metrics = Some(listener);
        }
        Ok(())
    }

    /// Returns true if events of this token are for [`Server::wake`].
    pub fn owns(token: Token) -> bool {
        token == CONTROL_TOKEN
            || token == METRICS_TOKEN
            || (FIRST_CONNECTION_TOKEN..END_OF_TOKENS).contains(&token.0)
    }

    /// An event of this token came.
    pub fn wake(&mut self, token: Token) {
        match token {
            CONTROL_TOKEN | METRICS_TOKEN => self.crowded = true,
            token => self.connections.wake(token),
        }
    }

    /// When there is something to do even if no event comes.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.crowded || self.connections.pending() {
            return Some(now);
        }
        let waits = self.waits.iter().filter_map(Barrier::deadline);
        waits.chain(self.connections.deadline()).min()
    }

    /// Takes in who has connected.
    pub fn admit(&mut self, now: Instant) {
        if !std::mem::take(&mut self.crowded) {
            return;
        }
        for _ in 0..MAX_ACCEPTED {
            let Some(stream) = self.accept() else {
                return;
            };
            // One that cannot be registered is closed.
            let _ = self.connections.add(stream, now);
        }
        self.crowded = true;
    }

    fn accept(&mut self) -> Option<ClientStream> {
        if let Some(control) = &self.control {
            while let Some(stream) = control.accept() {
                if let Some(stream) = stream {
                    return Some(ClientStream::Unix(stream));
                }
            }
        }
        loop {
            match self.metrics.as_ref()?.accept() {
                Ok((stream, _)) => return Some(ClientStream::Tcp(stream)),
                // One that has gone already says so; others wait behind it.
                Err(e) if is_of_connection(&e) => {}
                Err(_) => return None,
            }
        }
    }
}

impl ControlListener {
    fn open(path: &Path, registry: &Registry) -> Result<ControlListener, String> {
        let reason = |e: io::Error| log::reason(&e);
        let location = safe_path::locate(path).map_err(reason)?;
        let near = location.path(path);
        remove_stale(&location, &near)?;
        // Between bind and chmod anyone might connect; so the mode is right from the start.
        let mask = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&near);
        umask(mask);
        let mut listener = bound.map_err(reason)?;
        let data = rustix::fs::lstat(&near).map_err(|e| reason(e.into()))?;
        let control_file = safe_path::identity(&data);
        registry
            .register(&mut listener, CONTROL_TOKEN, Interest::READABLE)
            .map_err(reason)?;
        Ok(ControlListener {
            listener,
            path: path.to_owned(),
            file: control_file,
        })
    }

    /// The next one who has connected; `Some(None)` for one who may not or is gone already.
    fn accept(&self) -> Option<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(may_order(&stream).then_some(stream)),
            Err(e) if is_of_connection(&e) => Some(None),
            Err(_) => None,
        }
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let Ok(location) = safe_path::locate(&self.path) else {
            return;
        };
        if location.found().map(safe_path::identity) == Some(self.file) {
            // Left behind, it is stale and replaced by the next daemon.
            let _ = location.unlink();
        }
    }
}

/// Root and the daemon's own user. The mode of the socket says the same, but not on every
/// file system and not of a descriptor that was handed on.
fn may_order(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid();
    getsockopt(stream, PeerCredentials)
        .is_ok_and(|connection| connection.uid() == 0 || connection.uid() == own.as_raw())
}

/// Removes the socket of a daemon that is no more.
fn remove_stale(location: &Location, path: &Path) -> Result<(), String> {
    match location.found().map(safe_path::kind) {
        None => return Ok(()),
        Some(FileType::Socket) => {}
        Some(_) => return Err("there is a file that is no socket".into()),
    }
    // mio connects without waiting, so a daemon that is stopped does not stop us.
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            location.unlink().map_err(|e| log::reason(&e))
        }
        Ok(_) => Err(IN_USE.into()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(IN_USE.into()),
        Err(e) => Err(log::reason(&e)),
    }
}

fn listen(address: SocketAddr, registry: &Registry) -> io::Result<TcpListener> {
    let mut listener = TcpListener::bind(address)?;
    registry.register(&mut listener, METRICS_TOKEN, Interest::READABLE)?;
    Ok(listener)
}

/// Returns true if accept(2) failed because of the connection, not of the socket.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

/// Where a control socket is made when the configuration names none.
fn default_places(pid_file: Option<&Path>) -> Vec<PathBuf> {
    let beside = || pid_file.map(|path| path.with_extension("sock"));
    match crate::control::socket_paths::of_service().or_else(beside) {
        Some(path) => vec![path],
        None => crate::control::socket_paths::usual(),
    }
}
