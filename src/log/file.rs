//! A log file that may be rotated away, removed, fill up or come back, while the daemon goes on.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags};

use crate::safe_path;

/// How long a full pipe or terminal may hold up a message, in milliseconds.
const WRITE_TIMEOUT_MS: u16 = 1000;

/// The open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    /// The name it was opened by, for comparison.
    given: PathBuf,
    path: PathBuf,
    file: File,
    identity: (u64, u64),
    /// Writing has failed, this was said, and it has not worked since.
    in_trouble: bool,
    /// The last line is there in part only.
    torn: bool,
}

impl LogFile {
    /// Opens the file, creating it if need be. A relative name stays what it stands for now,
    /// wherever the working directory will be.
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

    /// Appends a whole line. What goes wrong is returned once, not for each line.
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

    /// Opens the file anew when its name stands for another one. When that fails the old one is
    /// kept: better a line in the rotated file than none.
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

    /// Ends a line that was left unfinished.
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

/// A write that stopped on the way.
#[derive(Debug)]
pub(super) struct Torn {
    wrote: usize,
    error: io::Error,
}

/// Writes all bytes, waiting at most `patience` milliseconds each time nothing more fits in.
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

/// Opens a file for lines to be added, and makes it if there is none. A named pipe that nobody
/// reads is not waited for; what another user may have put there is not opened.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    safe_path::locate(path)?.open(flags, Mode::from_raw_mode(0o666))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
