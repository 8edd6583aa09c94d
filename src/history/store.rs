//! The halves of a ring as files in the state directory of a sync, or in memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{OFlags, renameat};

use super::FILE_NAMES;
use crate::safe_path::Directory;

/// Provides the directories of rings. They must belong to this user, and must not be writable by
/// others.
pub trait RingDirectory: Send {
    /// Opens the directory of the ring with this key, and creates it if `create` is set.
    ///
    /// # Errors
    ///
    /// It does not exist, or may be another user's.
    fn open(&self, key: &str, create: bool) -> io::Result<Directory>;
}

/// The two halves of a ring.
pub trait Halves {
    /// Returns the older half and the one that is written. A missing one is empty. At most `limit`
    /// bytes of each are read.
    ///
    /// # Errors
    ///
    /// They cannot be read, or another user may have written them.
    fn load(&mut self, limit: usize) -> io::Result<[Vec<u8>; 2]>;

    /// Appends to the half that is written. Returns its size before.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns the size of the half that is written.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    fn size(&mut self) -> io::Result<usize>;

    /// Cuts the half that is written.
    ///
    /// # Errors
    ///
    /// It cannot be changed.
    fn truncate(&mut self, size: usize) -> io::Result<()>;

    /// Makes the half that is written the older one, which is dropped, and begins an empty one.
    ///
    /// # Errors
    ///
    /// The files cannot be changed.
    fn turn(&mut self) -> io::Result<()>;
}

/// Halves in memory.
#[derive(Default)]
pub struct MemoryHalves([Vec<u8>; 2]);

impl Halves for MemoryHalves {
    fn load(&mut self, _: usize) -> io::Result<[Vec<u8>; 2]> {
        Ok(self.0.clone())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0[1].extend(bytes);
        Ok(())
    }

    fn size(&mut self) -> io::Result<usize> {
        Ok(self.0[1].len())
    }

    fn truncate(&mut self, size: usize) -> io::Result<()> {
        self.0[1].truncate(size);
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.0.swap(0, 1);
        self.0[1] = Vec::new();
        Ok(())
    }
}

/// Halves as files.
pub struct FileHalves<'a> {
    /// The state directories.
    pub root: &'a dyn RingDirectory,
    /// The key of the ring.
    pub key: &'a str,
    /// The half that is written, if it is open.
    pub file: &'a mut Option<File>,
}

impl FileHalves<'_> {
    /// Returns the half that is written. A file that was removed meanwhile is created again.
    fn current(&mut self) -> io::Result<&mut File> {
        let is_linked = |file: &File| file.metadata().is_ok_and(|data| data.nlink() > 0);
        let kept = self.file.take().filter(is_linked);
        let file = match kept {
            Some(file) => file,
            None => {
                let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
                let directory = self.root.open(self.key, true)?;
                directory.open_file(OsStr::new(FILE_NAMES[0]), flags)?
            }
        };
        Ok(self.file.insert(file))
    }
}

impl Halves for FileHalves<'_> {
    fn load(&mut self, limit: usize) -> io::Result<[Vec<u8>; 2]> {
        let directory = match self.root.open(self.key, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Default::default()),
            directory => directory?,
        };
        let load = |name| match directory.open_file(OsStr::new(name), OFlags::RDONLY) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(limit as u64).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        };
        Ok([load(FILE_NAMES[1])?, load(FILE_NAMES[0])?])
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current()?.write_all(bytes)
    }

    fn size(&mut self) -> io::Result<usize> {
        let size = self.current()?.metadata()?.len();
        Ok(usize::try_from(size).unwrap_or(usize::MAX))
    }

    fn truncate(&mut self, size: usize) -> io::Result<()> {
        self.current()?.set_len(size as u64)
    }

    fn turn(&mut self) -> io::Result<()> {
        *self.file = None;
        let directory = self.root.open(self.key, true)?;
        renameat(&directory, FILE_NAMES[0], &directory, FILE_NAMES[1])?;
        Ok(())
    }
}
