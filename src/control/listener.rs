//! The listening sockets: the control socket and the address of metrics and status page.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, User};
use rustix::fs::FileType;

use super::connection::ClientStream;
use super::socket_paths;
use crate::config::{ControlSocket, Settings};
use crate::log;
use crate::safe_path::{self, Location};
use crate::takeover;

const CONTROL_TOKEN: Token = Token(8);
const METRICS_TOKEN: Token = Token(9);

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

/// The reason why a control socket cannot be opened.
enum SocketError {
    /// Another daemon uses it.
    InUse,
    /// A file of this user is in its place.
    Foreign(u32),
    /// Another user may have put a symbolic link on its path.
    Untrusted(String),
    /// Any other reason.
    Other(String),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketError::InUse => f.write_str("another daemon listens on it"),
            SocketError::Foreign(uid) => {
                let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
                let name = user.map_or_else(|| format!("user {uid}"), |user| user.name);
                write!(
                    f,
                    "a file of {name} is in its place; remove it, or use another path"
                )
            }
            SocketError::Untrusted(reason) | SocketError::Other(reason) => f.write_str(reason),
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> SocketError {
        let reason = log::reason(&error);
        // An error of `safe_path` has no errno.
        if error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
            SocketError::Untrusted(reason)
        } else {
            SocketError::Other(reason)
        }
    }
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
            ControlSocket::Default => self.open_default(settings, registry),
        }
        if let Some(address) = settings.metrics_listen {
            let listener = listen(address, registry)
                .map_err(|e| format!("cannot listen on {address}: {}", log::reason(&e)))?;
            self.metrics = Some(listener);
        }
        Ok(())
    }

    /// Opens the first default control socket that is free. If there is none, the reasons are
    /// logged, unless the directory of another service does not exist.
    fn open_default(&mut self, settings: &Settings, registry: &Registry) {
        let fixed = fixed_place(settings.pid_file.as_deref());
        let is_usual = fixed.is_none();
        let places = fixed.map_or_else(socket_paths::usual, |place| vec![place]);
        let mut reasons = Vec::new();
        for path in places {
            let error = match ControlListener::open(&path, registry) {
                Ok(control) => {
                    self.control = Some(control);
                    return;
                }
                Err(error) => error,
            };
            let shown = log::escape(path.as_os_str().as_encoded_bytes());
            let text = format!("no control socket {shown}: {error}");
            match error {
                SocketError::Other(_) => log::say("Control", text),
                _ => log::warn(text),
            }
            // If another daemon uses the first default path, no other path is tried.
            if let SocketError::InUse = error {
                return;
            }
            reasons.push(format!("{shown}: {error}"));
        }
        if is_usual {
            log::warn(format_args!(
                "lsyncdctl cannot reach this daemon: it has no control socket ({}). settings{{ \
                 controlSocket = PATH }} names another path",
                reasons.join("; ")
            ));
        }
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
    fn open(path: &Path, registry: &Registry) -> Result<ControlListener, SocketError> {
        let location = safe_path::locate(path)?;
        let near = location.path(path);
        let is_in_use = |error: &SocketError| matches!(error, SocketError::InUse);
        takeover::attempt(|| remove_stale(&location, &near), is_in_use)?;
        // The mode must be right before chmod(2) could run, so umask(2) sets it at bind(2).
        let mask = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&near);
        umask(mask);
        let mut listener = bound?;
        let data = rustix::fs::lstat(&near).map_err(io::Error::from)?;
        let control_file = safe_path::identity(&data);
        registry.register(&mut listener, CONTROL_TOKEN, Interest::READABLE)?;
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
///
/// # Errors
///
/// A daemon listens on it, or a file of another user is there. Such a file is left alone: it may
/// have been put there to mislead, and in a directory such as /tmp only its owner and root can
/// remove it.
fn remove_stale(location: &Location, path: &Path) -> Result<(), SocketError> {
    let Some(found) = location.found() else {
        return Ok(());
    };
    if found.st_uid != 0 && found.st_uid != nix::unistd::geteuid().as_raw() {
        return Err(SocketError::Foreign(found.st_uid));
    }
    if safe_path::kind(found) != FileType::Socket {
        let reason = "a file that is not a socket exists there".to_owned();
        return Err(SocketError::Other(reason));
    }
    // connect(2) does not block here, so a stopped daemon does not block this one.
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(location.unlink()?),
        Ok(_) => Err(SocketError::InUse),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(SocketError::InUse),
        Err(e) => Err(e.into()),
    }
}

fn listen(address: SocketAddr, registry: &Registry) -> io::Result<TcpListener> {
    let is_in_use = |error: &io::Error| error.kind() == ErrorKind::AddrInUse;
    let mut listener = takeover::attempt(|| TcpListener::bind(address), is_in_use)?;
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

/// Returns the path of the control socket that a service or a pid file determines.
fn fixed_place(pid_file: Option<&Path>) -> Option<PathBuf> {
    socket_paths::of_service().or_else(|| pid_file.map(|path| path.with_extension("sock")))
}
