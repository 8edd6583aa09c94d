//! The log file, which may be rotated, removed or fill up while the daemon runs.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags};

use crate::safe_path;

/// The maximum time in milliseconds for which a full pipe or terminal delays a message.
const WRITE_TIMEOUT_MS: u16 = 1000;

/// The open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    /// The configured name, for comparison.
    given: PathBuf,
    path: PathBuf,
    file: File,
    identity: (u64, u64),
    /// True if writing has failed, this was reported, and no write has succeeded since.
    in_trouble: bool,
    /// True if the last line was written in part only.
    torn: bool,
}

impl LogFile {
    /// Opens the file and creates it if necessary. A relative name is resolved now, independent of
    /// later changes of the working directory.
    pub(super) fn open(given: &Path) -> io::Result<Self> {
        let path = std::path::absolute(given)?;
        let file = open(&path)?;
        Ok(Self {
            identity: identity(&file.metadata()?),
            given: given.to_owned(),
            path,
            file,
            in_trouble: false,
            torn: false,
        })
    }

    pub(super) fn was_opened_as(&self, name: &Path) -> bool {
        self.given == name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a whole line. Returns an error only the first time that writing fails.
    pub(super) fn append(&mut self, line: &[u8]) -> Option<io::Error> {
        let patience = if self.in_trouble { 0 } else { WRITE_TIMEOUT_MS };
        let followed = self.follow();
        let written = self
            .mend(patience)
            .and_then(|()| self.write(line, patience));
        let result = followed.and(written);
        let first = !self.in_trouble;
        self.in_trouble = result.is_err();
        result.err().filter(|_| first)
    }

    /// Opens the file again if its name refers to another one. If that fails the old one is kept: a
    /// line in the rotated file is better than none.
    fn follow(&mut self) -> io::Result<()> {
        if self
            .path
            .metadata()
            .is_ok_and(|m| identity(&m) == self.identity)
        {
            return Ok(());
        }
        let file = open(&self.path)?;
        self.identity = identity(&file.metadata()?);
        self.file = file;
        self.torn = false;
        Ok(())
    }

    /// Ends a line that was written in part.
    fn mend(&mut self, patience: u16) -> io::Result<()> {
        if self.torn {
            self.write(b"\n", patience)?;
            self.torn = false;
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8], patience: u16) -> io::Result<()> {
        write_all_within(&self.file, line, patience).map_err(|torn| {
            self.torn |= torn.wrote > 0;
            torn.error
        })
    }
}

/// A write that was interrupted.
#[derive(Debug)]
pub(super) struct Torn {
    wrote: usize,
    error: io::Error,
}

/// Writes all bytes, waiting at most `patience` milliseconds each time the descriptor is full.
pub(super) fn write_all_within(fd: impl AsFd, bytes: &[u8], patience: u16) -> Result<(), Torn> {
    let mut wrote = 0;
    while wrote < bytes.len() {
        match nix::unistd::write(&fd, &bytes[wrote..]) {
            Ok(count) => wrote += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if writable_within(&fd, patience) => {}
            Err(e) => {
                let error = e.into();
                return Err(Torn { wrote, error });
            }
        }
    }
    Ok(())
}

fn writable_within(fd: &impl AsFd, patience: u16) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::from(patience)), Ok(1..))
}

/// Opens a file for appending, and creates it if it does not exist. A named pipe without a reader
/// is not waited for; files that another user may have put there are not opened.
///
/// # Errors
/// The file cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    safe_path::locate(path)?.open(flags, Mode::from_raw_mode(0o666))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
