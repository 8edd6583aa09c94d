//! The private directory with the sockets of shared ssh connections (ssh_config(5), ControlPath),
//! and the end of these connections.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::safe_path::{self, ScratchDir, remove_stale};

/// The maximum length of a socket path. Addresses of sockets have at most 107 bytes (unix(7)), of
/// which ssh uses 18 for a temporary name.
const MAX_SOCKET_PATH: usize = 80;

/// The beginning of the names of directories.
const PREFIX: &str = "lsyncd-";

/// The maximum time for closing all connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Sockets for the connections of one configuration. Dropping this ends them on a separate thread:
/// ssh may take seconds for that.
#[derive(Default)]
pub struct SshControl {
    socket_dir: RefCell<Option<SocketDir>>,
    /// The directories that are named in arguments of configurations.
    named: RefCell<Vec<PathBuf>>,
    count: Cell<usize>,
}

/// A directory that only this user can enter, and nobody else can replace. It is removed when
/// dropped.
struct SocketDir {
    path: PathBuf,
    scratch: ScratchDir,
}

impl SshControl {
    /// Returns the path for another socket; `None` if no private directory can be created.
    pub fn next(&self) -> Option<PathBuf> {
        let directory = self.current()?;
        let mut named = self.named.borrow_mut();
        if !named.contains(&directory) {
            named.push(directory.clone());
        }
        self.count.set(self.count.get() + 1);
        Some(directory.join(self.count.get().to_string()))
    }

    /// Makes arguments that are about to be used name an existing private directory: a user who
    /// could replace it could impersonate the host. If there is none, connections are not shared.
    pub fn keep_private(&self, words: &mut [Vec<u8>], environment: &mut [(OsString, OsString)]) {
        let named = self.named.borrow();
        if named.is_empty() {
            return;
        }
        let current = self.current();
        for old in named.iter().filter(|&old| current.as_ref() != Some(old)) {
            let old = socket_option(old);
            let new = current.as_deref().map(socket_option);
            for word in words.iter_mut() {
                replace(word, &old, new.as_deref());
            }
            for (_, value) in environment.iter_mut() {
                let mut text = std::mem::take(value).into_vec();
                replace(&mut text, &old, new.as_deref());
                *value = OsString::from_vec(text);
            }
        }
    }

    /// Returns the directory. It is created again if it was removed or replaced.
    fn current(&self) -> Option<PathBuf> {
        let mut place = self.socket_dir.borrow_mut();
        if !place.as_ref().is_some_and(SocketDir::is_there) {
            *place = candidates()
                .into_iter()
                .find_map(|path| SocketDir::make(&path));
        }
        place.as_ref().map(|place| place.path.clone())
    }
}

impl SocketDir {
    /// Creates a directory in one that only this user and the superuser can change.
    fn make(parent: &Path) -> Option<SocketDir> {
        let fits = parent.as_os_str().len() + 20 < MAX_SOCKET_PATH;
        let usable = parent.is_absolute() && fits && is_plain(parent);
        if !usable {
            return None;
        }
        let directory = safe_path::enter(parent).ok()?;
        if !directory.is_private() {
            return None;
        }
        remove_stale(&directory, PREFIX);
        let scratch = ScratchDir::create_in(directory, PREFIX).ok()?;
        let path = parent.join(scratch.name());
        scratch
            .directory()
            .is_private()
            .then_some(SocketDir { path, scratch })
    }

    fn is_there(&self) -> bool {
        safe_path::enter(&self.path)
            .is_ok_and(|there| there.is_private() && there.is_same(self.scratch.directory()))
    }

    /// Asks the connections to end; returns the processes that do so.
    fn end_connections(&self) -> Vec<std::process::Child> {
        // What user code has opened is not marked.
        crate::sys::close_all_on_exec();
        let names = self.scratch.directory().names().unwrap_or_default();
        let ask = |name: &OsString| {
            Command::new("ssh")
                .arg("-S")
                .arg(self.path.join(name))
                // The socket determines the host; ssh requires a name.
                .args(["-F", "none", "-O", "exit", "host"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        };
        names.iter().filter_map(ask).collect()
    }

    /// Ends the connections.
    fn close(&self) {
        let mut enders = self.end_connections();
        let until = Instant::now() + CLOSE_TIMEOUT;
        for ender in &mut enders {
            while matches!(ender.try_wait(), Ok(None)) {
                if Instant::now() >= until {
                    // A connection that cannot be reached ends after its idle timeout.
                    let _ = ender.kill();
                    let _ = ender.wait();
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for SshControl {
    fn drop(&mut self) {
        let Some(place) = self.socket_dir.take().filter(SocketDir::is_there) else {
            return;
        };
        let place = Arc::new(place);
        let closing = {
            let place = Arc::clone(&place);
            thread::Builder::new()
                .name("ssh-close".into())
                .spawn(move || place.close())
        };
        match closing {
            Ok(thread) => closing_threads().push(thread),
            Err(_) => place.close(),
        }
    }
}

/// Returns the threads that end connections.
fn closing_threads() -> MutexGuard<'static, Vec<JoinHandle<()>>> {
    static CLOSING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());
    let mut threads = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
    threads.retain(|thread| !thread.is_finished());
    threads
}

/// Waits until the connections of all dropped [`SshControl`] have ended, for some seconds at most.
/// To be called before the process ends.
pub fn wait_for_closed_sockets() {
    let threads = std::mem::take(&mut *closing_threads());
    for thread in threads {
        // A thread that panicked has ended as well.
        let _ = thread.join();
    }
}

/// Returns directories in which the socket directory may be created, the best first. /tmp is not
/// among them: there any user can create a directory of that name after a cleaner has removed it.
fn candidates() -> Vec<PathBuf> {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let given = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    let of_service = std::env::split_paths(&given).find(|path| path.is_absolute());
    let user = nix::unistd::geteuid();
    let run = if user.is_root() {
        PathBuf::from("/run")
    } else {
        PathBuf::from(format!("/run/user/{user}"))
    };
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh"));
    let places = of_user.into_iter().chain(of_service);
    places.chain([run]).chain(home).collect()
}

/// Returns true if a path needs no quoting in a shell and in a ControlPath.
fn is_plain(path: &Path) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    path.as_os_str().as_bytes().iter().all(plain)
}

/// Returns the prefix of the option that names a socket.
fn socket_option(directory: &Path) -> Vec<u8> {
    [b"ControlPath=", directory.as_os_str().as_bytes(), b"/"].concat()
}

/// Replaces or removes the directory in every option that names a socket.
fn replace(word: &mut Vec<u8>, old: &[u8], new: Option<&[u8]>) {
    let mut from = 0;
    while let Some(at) = word[from..].windows(old.len()).position(|part| part == old) {
        let start = from + at;
        let behind = start + old.len();
        let number = word[behind..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let (end, new) = match new {
            Some(new) => (behind, new),
            None => (behind + number.count(), &b"ControlPath=none"[..]),
        };
        word.splice(start..end, new.iter().copied());
        from = start + new.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_get_another_directory_or_none() {
        let old = socket_option(Path::new("/run/lsyncd-aaaaaa"));
        let new = socket_option(Path::new("/run/lsyncd-b"));
        for (word, elsewhere, none) in [
            (
                "ControlPath=/run/lsyncd-aaaaaa/12",
                "ControlPath=/run/lsyncd-b/12",
                "ControlPath=none",
            ),
            (
                "--rsh=ssh -o 'ControlPath=/run/lsyncd-aaaaaa/1' -p 1",
                "--rsh=ssh -o 'ControlPath=/run/lsyncd-b/1' -p 1",
                "--rsh=ssh -o 'ControlPath=none' -p 1",
            ),
            (
                "/run/lsyncd-aaaaaa/1",
                "/run/lsyncd-aaaaaa/1",
                "/run/lsyncd-aaaaaa/1",
            ),
        ] {
            for (new, expected) in [(Some(new.as_slice()), elsewhere), (None, none)] {
                let mut word = word.as_bytes().to_vec();
                replace(&mut word, &old, new);
                assert_eq!(String::from_utf8(word).unwrap(), expected);
            }
        }
    }

    #[test]
    fn places_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let mode = |mode| {
            std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for others in [0o777, 0o1777, 0o702] {
            mode(others);
            assert!(SocketDir::make(root.path()).is_none(), "{others:o}");
        }
        mode(0o755);
        let odd = root.path().join("a b");
        std::fs::create_dir(&odd).unwrap();
        assert!(SocketDir::make(&odd).is_none());
        let own = root.path().as_os_str().len() + 1;
        for (length, fits) in [(59, true), (60, false)] {
            let long = root.path().join("x".repeat(length - own));
            std::fs::create_dir(&long).unwrap();
            assert_eq!(SocketDir::make(&long).is_some(), fits, "{length}");
        }
        let place = SocketDir::make(root.path()).unwrap();
        assert!(place.is_there());
        mode(0o777);
        assert!(!place.is_there());
        mode(0o755);
        std::fs::rename(&place.path, root.path().join("away")).unwrap();
        assert!(!place.is_there());
        std::fs::create_dir(&place.path).unwrap();
        assert!(!place.is_there(), "another one");
        std::fs::remove_dir(&place.path).unwrap();
        std::fs::rename(root.path().join("away"), &place.path).unwrap();
        std::fs::write(place.path.join("1"), "").unwrap();
        let path = place.path.clone();
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_of_a_directory_that_is_gone_is_elsewhere() {
        let sockets = SshControl::default();
        let Some(first) = sockets.next() else {
            return crate::test_skip::skip("takes a directory that only this user can change");
        };
        let option = |path: &Path| [b"ControlPath=", path.as_os_str().as_bytes()].concat();
        let another = sockets.next().unwrap();
        assert!(another != first && another.parent() == first.parent());
        let mut words = vec![option(&first)];
        sockets.keep_private(&mut words, &mut []);
        assert_eq!(words, [option(&first)]);
        std::fs::remove_dir(first.parent().unwrap()).unwrap();
        let mut environment = [("RSYNC_RSH".into(), OsString::from_vec(option(&first)))];
        sockets.keep_private(&mut words, &mut environment);
        let text = String::from_utf8_lossy(&words[0]).into_owned();
        let second = PathBuf::from(text.strip_prefix("ControlPath=").unwrap());
        assert!(second.parent().unwrap().is_dir() && second != first);
        assert_eq!(environment[0].1.as_bytes(), words[0]);
    }
}
