//! Copies one file. The copy is created under a temporary name and renamed, so a reader of the
//! target sees the old file or the new one, and no existing object is written through.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, SeekFrom, Stat};
use rustix::io::Errno;

use super::attributes::{self, Given, Unset};
use super::beneath::{OpenDir, kind, lookup, open_file};
use super::copy_control::StopCheck;
use super::temporary::{self, PrivateDirectory, discard};

/// The maximum size that is copied with read and write; for larger files copy_file_range(2) costs
/// less.
const MAX_BUFFERED_COPY: u64 = 64 * 1024;
/// The maximum bytes of one copy_file_range(2): a stop is checked between calls.
const MAX_CHUNK: usize = 32 * 1024 * 1024;

/// A name in an open directory.
pub struct TargetName<'a> {
    /// The directory.
    pub directory: &'a OpenDir,
    /// The name there.
    pub name: &'a OsStr,
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The target has the copy.
    Done,
    /// The source was gone, or another kind of object, when it was opened.
    Vanished,
}

/// Creates copies and remembers the capabilities of the two file systems.
pub struct Copier {
    reflinks: bool,
    ranges: bool,
    /// False after a new file could not be given its owner.
    pub(super) keeps_owners: bool,
    /// Counts of attributes that could not be set although the files arrived.
    pub(super) unset: Cell<Unset>,
    buffer: Vec<u8>,
}

impl Default for Copier {
    fn default() -> Copier {
        Copier {
            reflinks: true,
            ranges: true,
            keeps_owners: true,
            unset: Cell::default(),
            buffer: vec![0; MAX_BUFFERED_COPY as usize],
        }
    }
}

impl Copier {
    /// Copies `from`, which has this `stat` and is not a directory, to `to`.
    ///
    /// # Errors
    /// Reading or writing failed, or a directory is in the way; the target is unchanged.
    pub fn copy(
        &mut self,
        from: &TargetName<'_>,
        stat: &Stat,
        to: &TargetName<'_>,
        stop: &dyn StopCheck,
    ) -> io::Result<Copied> {
        let made = match kind(stat) {
            FileType::RegularFile => self.regular(from, to.directory, stop)?,
            FileType::Symlink => link(from, stat, to.directory)?,
            _ => return special(stat, to).map(|()| Copied::Done),
        };
        let Some(temporary) = made else {
            return Ok(Copied::Vanished);
        };
        rename_into_place(to, &temporary)?;
        Ok(Copied::Done)
    }

    /// Copies the attributes of the source to the copy, and counts those that cannot be set.
    pub(super) fn give(
        &self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        target: BorrowedFd<'_>,
    ) -> io::Result<Given> {
        let given = attributes::give(source, stat, target)?;
        let mut unset = self.unset.get();
        unset.add(given);
        self.unset.set(unset);
        Ok(given)
    }

    fn regular(
        &mut self,
        from: &TargetName<'_>,
        directory: &OpenDir,
        stop: &dyn StopCheck,
    ) -> io::Result<Option<OsString>> {
        let source = match open_file(from.directory, from.name) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The state before the copy: a change during it makes the times differ.
        let stat = fs::fstat(&source)?;
        if kind(&stat) != FileType::RegularFile {
            return Ok(None);
        }
        let (temporary, target) =
            temporary::make(directory, |name| temporary::create(directory, name))?;
        let source = File::from(source);
        let filled = self
            .contents(&source, &target, &stat, stop)
            .and_then(|()| self.give(source.as_fd(), &stat, target.as_fd()));
        match filled {
            Ok(given) => {
                self.keeps_owners &= given.owner;
                Ok(Some(temporary))
            }
            Err(error) => {
                discard(directory, &temporary);
                Err(error)
            }
        }
    }

    fn contents(
        &mut self,
        source: &File,
        target: &OwnedFd,
        stat: &Stat,
        stop: &dyn StopCheck,
    ) -> io::Result<()> {
        let size = stat.st_size.unsigned_abs();
        if self.reflinks && size > 0 {
            match fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(()),
                Err(_) => self.reflinks = false,
            }
        }
        let has_holes = stat.st_blocks.unsigned_abs() * 512 < size;
        if !has_holes {
            return self.span(source, target, 0, size, stop);
        }
        let mut at = 0;
        while at < size {
            let start = match fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                // Nothing but a hole until the end.
                Err(Errno::NXIO) => break,
                Err(_) => return self.span(source, target, 0, size, stop),
            };
            let end = fs::seek(source, SeekFrom::Hole(start)).unwrap_or(size);
            at = end.clamp(start, size);
            self.span(source, target, start, at, stop)?;
            if at == start {
                break;
            }
        }
        Ok(fs::ftruncate(target, size)?)
    }

    /// Copies the bytes from `start` to `end`, or to the present end of the source.
    fn span(
        &mut self,
        source: &File,
        target: &OwnedFd,
        start: u64,
        end: u64,
        stop: &dyn StopCheck,
    ) -> io::Result<()> {
        let (mut from, mut to) = (start, start);
        while self.ranges && end - from.min(end) > MAX_BUFFERED_COPY {
            stopped(stop)?;
            let length = usize::try_from(end - from)
                .unwrap_or(MAX_CHUNK)
                .min(MAX_CHUNK);
            match fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC) => return Err(Errno::NOSPC.into()),
                Err(Errno::DQUOT) => return Err(Errno::DQUOT.into()),
                Err(_) => self.ranges = false,
            }
        }
        fs::seek(source, SeekFrom::Start(from))?;
        fs::seek(target, SeekFrom::Start(from))?;
        let mut reader = source;
        let mut writer = File::from(target.try_clone()?);
        while from < end {
            stopped(stop)?;
            let wanted = usize::try_from(end - from)
                .unwrap_or(self.buffer.len())
                .min(self.buffer.len());
            match reader.read(&mut self.buffer[..wanted]) {
                Ok(0) => break,
                Ok(read) => {
                    writer.write_all(&self.buffer[..read])?;
                    from += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Gives `to` as a second name to the file at `of`, which is a copy of the file with this `stat`.
///
/// # Errors
/// The file system has no links, has too many of this file, a directory is in the way, or another
/// object is at `of` now.
pub fn link_to(of: &TargetName<'_>, stat: &Stat, to: &TargetName<'_>) -> io::Result<()> {
    let (name, ()) = temporary::make(to.directory, |name| {
        fs::linkat(
            of.directory.as_fd(),
            of.name,
            to.directory.as_fd(),
            name,
            AtFlags::empty(),
        )
    })?;
    let linked = lookup(to.directory, &name)?;
    if !linked.is_some_and(|linked| attributes::is_linkable(stat, &linked)) {
        discard(to.directory, &name);
        return Err(temporary::replaced());
    }
    rename_into_place(to, &name)?;
    // rename(2) leaves both names if they are of one file already.
    discard(to.directory, &name);
    Ok(())
}

/// Returns an error if the daemon is shutting down.
///
/// # Errors
/// The daemon is shutting down.
pub fn stopped(stop: &dyn StopCheck) -> io::Result<()> {
    if stop.is_stopped() {
        Err(io::ErrorKind::Interrupted.into())
    } else {
        Ok(())
    }
}

fn link(from: &TargetName<'_>, stat: &Stat, directory: &OpenDir) -> io::Result<Option<OsString>> {
    let to = match fs::readlinkat(from.directory.as_fd(), from.name, Vec::new()) {
        Ok(to) => to,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (name, ()) = temporary::make(directory, |name| {
        fs::symlinkat(&to, directory.as_fd(), name)
    })?;
    match temporary::open_link(directory, &name, to.to_bytes()) {
        Ok(link) => {
            attributes::give_link(stat, link.as_fd());
            Ok(Some(name))
        }
        Err(error) => {
            discard(directory, &name);
            Err(error)
        }
    }
}

/// Creates a pipe, socket or device at `to`.
fn special(stat: &Stat, to: &TargetName<'_>) -> io::Result<()> {
    let make = |directory: &OpenDir, name: &OsStr, mode| {
        fs::mknodat(directory.as_fd(), name, kind(stat), mode, stat.st_rdev)
    };
    let Some(private) = PrivateDirectory::make(to.directory)? else {
        // Other users may rename objects here, so nothing is set by name.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        let (name, ()) = temporary::make(to.directory, |name| make(to.directory, name, mode))?;
        return rename_into_place(to, &name);
    };
    let (inner, name) = (&private.directory, OsStr::new("special"));
    make(inner, name, Mode::RUSR | Mode::WUSR)?;
    let placed = attributes::give_special(stat, inner, name).and_then(|()| {
        Ok(fs::renameat(
            inner.as_fd(),
            name,
            to.directory.as_fd(),
            to.name,
        )?)
    });
    if placed.is_err() {
        discard(inner, name);
    }
    placed
}

/// Renames the new file to its name.
fn rename_into_place(to: &TargetName<'_>, temporary: &OsStr) -> io::Result<()> {
    let directory = to.directory.as_fd();
    fs::renameat(directory, temporary, directory, to.name).map_err(|error| {
        discard(to.directory, temporary);
        error.into()
    })
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
