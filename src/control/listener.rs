//! The listening sockets: the control socket and the address of metrics and status page.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use rustix::fs::FileType;

use super::connections::ClientStream;
use super::socket_paths;
use crate::config::{ControlSocket, Settings};
use crate::log;
use crate::safe_path::{self, Location};

const CONTROL_TOKEN: Token = Token(8);
const METRICS_TOKEN: Token = Token(9);

/// The error message if another daemon uses a socket.
const IN_USE: &str = "another daemon listens on it";

/// The listening sockets of a daemon.
#[derive(Default)]
pub struct Listeners {
    control: Option<ControlListener>,
    metrics: Option<TcpListener>,
}

/// The control socket. Its file is removed on drop.
struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file.
    file: (u64, u64),
}

impl Listeners {
    /// Opens the sockets named in the settings.
    ///
    /// # Errors
    ///
    /// A message for the user. Failure to open a default control socket is only logged.
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
                            // If another daemon uses the first default path, no other path is
                            // tried.
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

    /// Returns true for the tokens of the listening sockets.
    pub fn owns(token: Token) -> bool {
        token == CONTROL_TOKEN || token == METRICS_TOKEN
    }

    /// Accepts the next waiting connection, if there is one.
    pub fn accept(&self) -> Option<ClientStream> {
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
                // The client is gone already; others may be waiting.
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
        // The mode must be right before chmod(2) could run, so umask(2) sets it at bind(2).
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

    /// Accepts the next connection. Returns `Some(None)` for a client that is not permitted or gone
    /// already.
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
            // A file left behind is stale and replaced by the next daemon.
            let _ = location.unlink();
        }
    }
}

/// Returns true for root and the daemon's own user. The socket's mode has the same effect, but not
/// on every file system and not for inherited descriptors.
fn may_order(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid();
    getsockopt(stream, PeerCredentials)
        .is_ok_and(|connection| connection.uid() == 0 || connection.uid() == own.as_raw())
}

/// Removes the socket file of a daemon that has ended.
fn remove_stale(location: &Location, path: &Path) -> Result<(), String> {
    match location.found().map(safe_path::kind) {
        None => return Ok(()),
        Some(FileType::Socket) => {}
        Some(_) => return Err("there is a file that is no socket".into()),
    }
    // connect(2) does not block here, so a stopped daemon does not block this one.
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

/// Returns the default paths of the control socket.
fn default_places(pid_file: Option<&Path>) -> Vec<PathBuf> {
    let beside = || pid_file.map(|path| path.with_extension("sock"));
    match socket_paths::of_service().or_else(beside) {
        Some(path) => vec![path],
        None => socket_paths::usual(),
    }
}
