//! State directory: one directory for each sync, one file for each kind of state.
//!
//! The layout is `STATEDIR/NAME-HASH/KIND`. The hash is of source and target, so that several
//! daemons, which all have a `Sync1`, may share the parent directory. The parent is `settings{
//! stateDir }`, else the directory that systemd provides (`StateDirectory=` in systemd.exec(5)),
//! else `/var/lib/lsyncd` if it is writable. If there is none, no state is saved.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, OFlags, accessat};

use crate::config::{Settings, SyncConfig};
use crate::history::RingDirectory;
use crate::log;
use crate::safe_path::{self, Directory};
use crate::status::atomic_file;
use crate::status::atomic_file::{Fill, ReplaceError};

/// The default parent directory.
const DEFAULT_PATH: &str = "/var/lib/lsyncd";

/// The maximum size of a state file in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// The parent of the state directories. It must not be writable by other users.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens the directory and creates it if it is missing. Returns `None` if it cannot be used;
    /// this is logged if it is configured.
    pub fn open(settings: &Settings) -> Option<StateDir> {
        let given = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
        let from_systemd = std::env::split_paths(&given).find(|path| path.is_absolute());
        let configured = settings.state_dir.as_deref();
        let path = match configured.or(from_systemd.as_deref()) {
            Some(path) => path,
            None => Path::new(DEFAULT_PATH),
        };
        let said = configured.is_some() || from_systemd.is_some();
        match usable(path) {
            Ok(()) => Some(StateDir { path: path.into() }),
            Err(error) => {
                let untrusted = error.kind() == ErrorKind::InvalidData;
                let category = if said || untrusted { "Warn" } else { "Debug" };
                let path = log::escape(path.as_os_str().as_encoded_bytes());
                log::say(category, format_args!("stateDir {path}: {error}"));
                None
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> StateDir {
        StateDir { path: path.into() }
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a state file of a sync.
    ///
    /// # Errors
    ///
    /// The file cannot be written. The old file is unchanged then.
    pub fn write(&self, sync: &SyncConfig, kind: &str, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.write_large(sync, kind, &mut |file| file.write_all(bytes))
    }

    /// As [`StateDir::write`], for an index, which may be larger.
    ///
    /// # Errors
    ///
    /// The file cannot be written. The old file is unchanged then.
    pub fn write_large(&self, sync: &SyncConfig, kind: &str, write: Fill<'_>) -> io::Result<()> {
        let root = enter(&self.path)?;
        root.make(OsStr::new(&key(sync)))?;
        let location = of_sync(&root, sync)?.location(OsStr::new(kind))?;
        atomic_file::write_at(&location, write).map_err(|error| match error {
            ReplaceError::Open(error) | ReplaceError::Write(error) => error,
        })
    }

    /// Returns the contents of a state file; `None` if there is none or it cannot be read.
    pub fn read(&self, sync: &SyncConfig, kind: &str) -> Option<Vec<u8>> {
        self.try_read(sync, kind).unwrap_or_default()
    }

    /// Returns the contents of a state file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, or may have been written by another user.
    pub fn try_read(&self, sync: &SyncConfig, kind: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(sync, kind)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    /// Opens a state file for reading; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or may have been written by another user.
    pub fn open_file(&self, sync: &SyncConfig, kind: &str) -> io::Result<Option<File>> {
        let open = || {
            let root = enter(&self.path)?;
            of_sync(&root, sync)?.open_file(OsStr::new(kind), OFlags::RDONLY)
        };
        match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Removes a state file. It may not exist.
    pub fn remove(&self, sync: &SyncConfig, kind: &str) {
        let location = enter(&self.path)
            .and_then(|root| of_sync(&root, sync))
            .and_then(|directory| directory.location(OsStr::new(kind)));
        if let Ok(location) = location {
            let _ = location.unlink();
        }
    }
}

impl RingDirectory for StateDir {
    fn open(&self, key: &str, create: bool) -> io::Result<Directory> {
        let root = enter(&self.path)?;
        if create {
            root.make(OsStr::new(key))?;
        }
        ours(root.enter(OsStr::new(key))?)
    }
}

/// Opens the directory, if this user owns it.
fn enter(path: &Path) -> io::Result<Directory> {
    ours(safe_path::enter(path)?)
}

/// Opens the directory of a sync.
fn of_sync(root: &Directory, sync: &SyncConfig) -> io::Result<Directory> {
    ours(root.enter(OsStr::new(&key(sync)))?)
}

fn ours(directory: Directory) -> io::Result<Directory> {
    if directory.is_ours() {
        return Ok(directory);
    }
    Err(untrusted(
        "not used, because it belongs to another user, or other users can write to it or replace \
         it",
    ))
}

fn untrusted(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// Returns the name of a sync's directory. It is made of the configured source, so a symlink that
/// leads elsewhere belongs to the same sync with another source directory.
pub fn key(sync: &SyncConfig) -> String {
    key_of(&sync.name, sync)
}

/// As [`key`], for a sync with the same source and target that has this name.
pub(super) fn key_of(name: &str, sync: &SyncConfig) -> String {
    let mut shown = String::new();
    for byte in name.bytes().take(100) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => shown.push(byte.into()),
            // Writing to a String can't fail.
            _ => drop(write!(shown, "%{byte:02x}")),
        }
    }
    let target = sync.target.as_deref().unwrap_or_default();
    let words = [name.as_bytes(), &sync.named_source, target];
    format!("{shown}-{:016x}", hash(&words.join(&0)))
}

/// Returns the FNV-1a hash, which is stable between versions, unlike the hash of the standard
/// library.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Creates the directory if it is missing. It is not readable by others, since it contains file
/// names.
fn usable(path: &Path) -> io::Result<()> {
    let location = safe_path::locate(path)?;
    if location.found().is_none() {
        location.directory().make(location.name())?;
    }
    let directory = safe_path::enter(path)?;
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    accessat(&directory, ".", wanted, AtFlags::EACCESS)?;
    ours(directory).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn config(name: &str, source: &str) -> SyncConfig {
        let lua = crate::sys::lua();
        let table = lua.create_table().unwrap();
        table.set("name", name).unwrap();
        table.set("source", source).unwrap();
        SyncConfig::from_table(&table).unwrap()
    }

    fn state(directory: &Path) -> StateDir {
        let path = directory.join("state");
        usable(&path).unwrap();
        StateDir { path }
    }

    #[test]
    fn what_is_written_is_read_and_syncs_are_kept_apart() {
        let directory = tempfile::tempdir().unwrap();
        let state = state(directory.path());
        let (one, two) = (config("../x\n", "/a/"), config("../x\n", "/b/"));
        state.write(&one, "k", b"1").unwrap();
        state.write(&two, "k", b"2").unwrap();
        state.write(&one, "k", b"3").unwrap();
        assert_eq!(state.read(&one, "k").unwrap(), b"3");
        assert_eq!(state.read(&two, "k").unwrap(), b"2");
        state.remove(&one, "k");
        assert_eq!(state.try_read(&one, "k").unwrap(), None);
        assert_eq!(std::fs::read_dir(&state.path).unwrap().count(), 2);
    }

    #[test]
    fn what_others_may_have_written_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let state = state(directory.path());
        let sync = config("s", "/a/");
        state.write(&sync, "k", b"1").unwrap();
        let (above, own) = (directory.path(), state.path.join(key(&sync)));
        for path in [&own, &state.path, above] {
            let mode = |mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            mode(0o777);
            assert!(state.try_read(&sync, "k").is_err(), "{}", path.display());
            assert!(state.write(&sync, "k", b"2").is_err());
            assert_eq!(path == own, usable(&state.path).is_ok());
            mode(0o700);
        }
        assert_eq!(state.read(&sync, "k").unwrap(), b"1");
        // In a sticky directory such as /tmp, nobody can rename the files of another user.
        std::fs::set_permissions(above, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(state.read(&sync, "k").unwrap(), b"1");

        for name in ["k", "."] {
            let given = own.join("k");
            std::fs::remove_file(&given).unwrap();
            symlink(name, &given).unwrap();
            assert!(state.try_read(&sync, "k").is_err(), "{name}");
            state.write(&sync, "k", b"1").unwrap_err();
            state.remove(&sync, "k");
            assert!(given.symlink_metadata().is_err());
            std::fs::write(&given, "").unwrap();
        }
        std::fs::remove_file(own.join("k")).unwrap();
        let pipe = nix::unistd::mkfifo(&own.join("k"), nix::sys::stat::Mode::S_IRWXU);
        assert!(pipe.is_ok() && state.try_read(&sync, "k").is_err());
    }

    #[test]
    fn a_directory_of_another_user_is_not_used() {
        if !nix::unistd::geteuid().is_root() {
            return crate::test_skip::skip("takes root to be another user");
        }
        let directory = tempfile::tempdir().unwrap();
        let state = state(directory.path());
        let sync = config("s", "/a/");
        state.write(&sync, "k", b"1").unwrap();
        for path in [&state.path.join(key(&sync)), &state.path] {
            chown(path, Some(65534), None).unwrap();
            assert!(state.try_read(&sync, "k").is_err());
            assert!(state.write(&sync, "k", b"2").is_err());
            chown(path, Some(0), None).unwrap();
        }
        assert_eq!(state.read(&sync, "k").unwrap(), b"1");
    }

    #[test]
    fn there_is_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let state = state(directory.path());
        let sync = config("s", "/a/");
        state.write(&sync, "k", b"1").unwrap();
        assert!(state.write(&sync, "k", &vec![0; MAX_BYTES + 1]).is_err());
        let file = state.path.join(key(&sync)).join("k");
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(MAX_BYTES as u64 + 1).unwrap();
        assert!(state.try_read(&sync, "k").is_err());
    }

    /// The next version of the program must find the state.
    #[test]
    fn the_name_of_a_directory_does_not_change() {
        assert_eq!(key(&config("Sync_1", "/a/")), "Sync_1-7257abadc1b91331");
        assert_eq!(key(&config("a b/%", "/a/")), "a%20b%2f%25-0b7391204c8478a5");
    }
}
