//! The pid file: contains the process id of the daemon, and is its lock.
//!
//! The file has two purposes that conflict. It is a lock: a second daemon with the same pid file
//! must not start, including an lsyncd 2, which locks the file that it finds at the path. Other
//! programs read it at any time and must never find it incomplete, so it must be replaced by a new
//! file that is already written.
//!
//! A daemon therefore locks the existing file, verifies that it is still at the path, replaces it
//! by a file that is written and locked already, and keeps both locks until it exits. A daemon that
//! has opened the old file in the meantime cannot get its lock.
//!
//! The locks are record locks of fcntl(2), as in lsyncd. If the kernel supports it, they belong to
//! the open file, which conflicts with other record locks in the same way. lsyncd's locks belong to
//! the process, and are lost when it opens and closes the file again, for example from Lua.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags};

use crate::log::escape;
use crate::safe_path::{self, Location};
use crate::status::atomic_file::Replacement;
use crate::takeover;

/// The maximum number of attempts while other processes replace the file.
const ATTEMPTS: usize = 100;

/// The pid file of this process, locked until it ends.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// The file at the path.
    file: File,
    /// The previous file, whose lock is kept.
    _before: Option<File>,
}

/// The failed step; the texts are lsyncd's.
#[derive(Debug)]
pub enum PidFileError {
    /// It cannot be created or opened.
    Create(PathBuf, io::Error),
    /// It cannot be locked, usually because another process has locked it.
    Lock(PathBuf, io::Error),
    /// The number cannot be written.
    Write(PathBuf, io::Error),
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, path) = match self {
            Self::Create(path, _) => ("create", path),
            Self::Lock(path, _) => ("lock", path),
            Self::Write(path, _) => ("write", path),
        };
        let name = escape(path.as_os_str().as_encoded_bytes());
        write!(f, "Cannot {verb} pidfile; '{name}'")
    }
}

impl std::error::Error for PidFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Create(_, e) | Self::Lock(_, e) | Self::Write(_, e) => Some(e),
        }
    }
}

impl PidFile {
    /// Locks the file and puts the number of this process, and a line end, into it. So this comes
    /// after [detaching](super::detach).
    ///
    /// # Errors
    /// See [`PidFileError`]; the file is as it was then, but if it cannot be replaced and the
    /// disk is full.
    pub fn acquire(path: &Path) -> Result<Self, PidFileError> {
        let is_in_use = |error: &PidFileError| matches!(error, PidFileError::Lock(..));
        takeover::attempt(|| PidFile::lock(path), is_in_use)
    }

    fn lock(path: &Path) -> Result<Self, PidFileError> {
        let path =
            std::path::absolute(path).map_err(|e| PidFileError::Create(path.to_owned(), e))?;
        let failed = |e: io::Error| PidFileError::Create(path.clone(), e);
        for _ in 0..ATTEMPTS {
            let location = safe_path::locate(&path).map_err(failed)?;
            let found = match location.open(OFlags::RDWR, Mode::empty()) {
                Ok(file) => take_over(&path, &location, file)?,
                Err(e) if e.kind() == ErrorKind::NotFound => create(&path, &location)?,
                Err(e) => return Err(failed(e)),
            };
            if let Some(pid_file) = found {
                return Ok(pid_file);
            }
        }
        Err(PidFileError::Lock(path, ErrorKind::WouldBlock.into()))
    }

    /// Removes the file at a normal exit. A file of another process and anything but a regular file
    /// is kept.
    pub fn remove(self) {
        let ordinary = self.file.metadata().is_ok_and(|m| m.is_file());
        let location = safe_path::locate(&self.path);
        if let Ok(location) = location.as_ref()
            && ordinary
            && location.holds(self.file.as_fd())
        {
            let _ = location.unlink();
        }
    }
}

/// Creates the file; returns `None` if it exists now.
fn create(path: &Path, location: &Location) -> Result<Option<PidFile>, PidFileError> {
    let new = Replacement::begin(location).map_err(|e| PidFileError::Create(path.to_owned(), e))?;
    fill(path, new.file())?;
    match new.create() {
        Ok(file) => Ok(Some(PidFile {
            path: path.to_owned(),
            file,
            _before: None,
        })),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(_) => create_in_place(path, location),
    }
}

/// As [`create`], for file systems without hard links.
fn create_in_place(path: &Path, location: &Location) -> Result<Option<PidFile>, PidFileError> {
    let file = location
        .open(OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o644))
        .map_err(|e| PidFileError::Create(path.to_owned(), e))?;
    take_over(path, location, file)
}

/// Locks and replaces the existing file; returns `None` if it no longer exists.
fn take_over(path: &Path, location: &Location, old: File) -> Result<Option<PidFile>, PidFileError> {
    lock(&old).map_err(|e| PidFileError::Lock(path.to_owned(), e))?;
    if !location.holds(old.as_fd()) {
        return Ok(None);
    }
    if location.is_replaceable()
        && let Ok(new) = Replacement::begin(location)
    {
        fill(path, new.file())?;
        if let Ok(file) = new.replace() {
            return Ok(Some(PidFile {
                path: path.to_owned(),
                file,
                _before: Some(old),
            }));
        }
    }
    // This process may not write to the directory, so the file was created beforehand.
    write(&old).map_err(|e| PidFileError::Write(path.to_owned(), e))?;
    Ok(Some(PidFile {
        path: path.to_owned(),
        file: old,
        _before: None,
    }))
}

/// Makes a file ready to be put in its place.
fn fill(path: &Path, file: &File) -> Result<(), PidFileError> {
    lock(file).map_err(|e| PidFileError::Lock(path.to_owned(), e))?;
    write(file).map_err(|e| PidFileError::Write(path.to_owned(), e))
}

/// The first line is right at any time, if what was there before begins with one at all.
fn write(mut file: &File) -> io::Result<()> {
    let line = format!("{}\n", std::process::id());
    if !file.metadata()?.is_file() {
        return file.write_all(line.as_bytes());
    }
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)
}

/// Locks the whole file, or fails at once.
fn lock(file: &File) -> io::Result<()> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Err(Errno::EINVAL) => fcntl(file, FcntlArg::F_SETLK(&whole))?,
        other => other?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns a directory, and the path of a pid file in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        (directory, path)
    }

    fn own_line() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn a_file_that_exists_by_now_is_not_replaced_by_a_new_one() {
        let (_directory, path) = place();
        let location = safe_path::locate(&path).unwrap();
        fs::write(&path, "of another process").unwrap();
        assert!(create(&path, &location).unwrap().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "of another process");
    }

    /// File systems without hard links have no other way.
    #[test]
    fn a_pid_file_that_is_created_in_place_is_written_and_locked() {
        let (_directory, path) = place();
        let location = safe_path::locate(&path).unwrap();
        let made = create_in_place(&path, &location).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own_line());
        let again = File::options().write(true).open(&path).unwrap();
        assert!(lock(&again).is_err());
        drop(made);
        assert!(lock(&again).is_ok());
    }

    #[test]
    fn a_longer_line_of_another_process_leaves_nothing_behind() {
        let (_directory, path) = place();
        fs::write(&path, "1234567890\nand more\n").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        write(&file).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own_line());
        // A device has no place to write at.
        let (mut reader, writer) = io::pipe().unwrap();
        write(&File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        assert_eq!(io::read_to_string(&mut reader).unwrap(), own_line());
    }

    #[test]
    fn what_cannot_be_opened_is_not_in_use() {
        let (directory, _) = place();
        let refused = PidFile::acquire(directory.path());
        assert!(
            matches!(refused, Err(PidFileError::Create(..))),
            "{refused:?}"
        );
    }
}
