//! What outlives the process: one small directory for each sync, with a file for each kind of
//! thing to be remembered.
//!
//! The layout is `STATEDIR/NAME-HASH/KIND`. The hash is of source and target, so that several
//! daemons, which all have a `Sync1`, may share the place. It is `settings{ stateDir }`, else
//! what systemd gives the service (`StateDirectory=` in systemd.exec(5)), else
//! `/var/lib/lsyncd` if that can be written. Without any of them nothing is remembered.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::config::{Settings, SyncConfig};
use crate::report;
use crate::report::atomic::{self, ReplaceError};

/// Where state goes when nobody says otherwise.
const USUAL: &str = "/var/lib/lsyncd";

/// The directory of what is remembered.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Finds the directory, and makes it where it is missing. A configured one that cannot be
    /// used is told; the daemon works without it.
    pub fn open(settings: &Settings) -> Option<StateDir> {
        let given = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
        let from_systemd = std::env::split_paths(&given).find(|path| path.is_absolute());
        let configured = settings.state_dir.as_deref();
        let path = match configured.or(from_systemd.as_deref()) {
            Some(path) => path,
            None => Path::new(USUAL),
        };
        match usable(path) {
            Ok(()) => Some(StateDir { path: path.into() }),
            Err(error) => {
                let category = if configured.is_some() {
                    "Warn"
                } else {
                    "Debug"
                };
                let path = path.display();
                report::say(category, format_args!("stateDir {path}: {error}"));
                None
            }
        }
    }

    /// Remembers something of a sync, in place of what was remembered before.
    ///
    /// # Errors
    /// The file can't be written; the old one is still there then.
    pub fn write(&self, sync: &SyncConfig, kind: &str, bytes: &[u8]) -> io::Result<()> {
        let directory = self.directory(sync);
        make(&directory)?;
        let path = directory.join(kind);
        atomic::write(&path, &mut |file| file.write_all(bytes)).map_err(|error| match error {
            ReplaceError::Open(error) | ReplaceError::Write(error) => error,
        })
    }

    /// What was remembered last; `None` if nothing was, or it can't be read.
    pub fn read(&self, sync: &SyncConfig, kind: &str) -> Option<Vec<u8>> {
        fs::read(self.directory(sync).join(kind)).ok()
    }

    /// Forgets. There may have been nothing.
    pub fn remove(&self, sync: &SyncConfig, kind: &str) {
        let _ = fs::remove_file(self.directory(sync).join(kind));
    }

    /// Where things of this sync are.
    pub fn directory(&self, sync: &SyncConfig) -> PathBuf {
        self.path.join(key(sync))
    }
}

/// A name for the sync that is a file's name too.
fn key(sync: &SyncConfig) -> String {
    let mut name = String::new();
    for byte in sync.name.bytes().take(100) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(byte.into()),
            // Writing to a String can't fail.
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    let target = sync.target.as_deref().unwrap_or_default();
    let words = [sync.name.as_bytes(), &sync.source, target];
    format!("{name}-{:016x}", hash(&words.join(&0)))
}

/// FNV-1a: the same for ever, unlike those of the standard library.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn usable(path: &Path) -> io::Result<()> {
    make(path)?;
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
}

/// Names of files are nobody else's business.
fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, source: &str) -> SyncConfig {
        let lua = crate::sys::lua();
        let table = lua.create_table().unwrap();
        table.set("name", name).unwrap();
        table.set("source", source).unwrap();
        SyncConfig::from_table(&table).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_syncs_are_kept_apart() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir {
            path: directory.path().join("state"),
        };
        usable(&state.path).unwrap();
        let (one, two) = (config("../x\n", "/a/"), config("../x\n", "/b/"));
        state.write(&one, "k", b"1").unwrap();
        state.write(&two, "k", b"2").unwrap();
        state.write(&one, "k", b"3").unwrap();
        assert_eq!(state.read(&one, "k").unwrap(), b"3");
        assert_eq!(state.read(&two, "k").unwrap(), b"2");
        state.remove(&one, "k");
        assert_eq!(state.read(&one, "k"), None);
        assert_eq!(state.directory(&one).parent().unwrap(), state.path);
    }
}
