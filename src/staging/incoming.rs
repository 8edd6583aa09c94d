//! The directory in which copies are made before they are checked. Each copy keeps its name, so
//! copies of one name lie in different subdirectories.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, Mode};

use super::staging_dir::Private;
use crate::local::beneath::{Beneath, OpenDir};

/// The directory of unchecked copies.
pub(super) struct Incoming {
    directory: Beneath,
    /// The absolute path of the directory.
    path: Vec<u8>,
    /// The number of subdirectories that have been created.
    count: u64,
    current: Option<Subdirectory>,
}

/// A directory for copies with distinct names. Creating one costs more than many copies.
struct Subdirectory {
    directory: OpenDir,
    /// Its name in the directory of copies.
    own_name: String,
    names: HashSet<OsString>,
}

impl Incoming {
    /// Returns the directory of copies in the staging directory at the absolute path `staging`.
    pub(super) fn new(directory: Beneath, staging: &[u8]) -> Incoming {
        Incoming {
            directory,
            path: [staging, b"/incoming"].concat(),
            count: 0,
            current: None,
        }
    }

    /// Returns the open directory.
    pub(super) fn directory(&self) -> &Beneath {
        &self.directory
    }

    /// Removes all copies.
    ///
    /// # Errors
    /// Returns an error of the file system.
    pub(super) fn empty(&mut self, private: &Private) -> io::Result<()> {
        self.current = None;
        private.empty(&self.directory)
    }

    /// Returns a directory in which nothing has this name, and the absolute path of the name there.
    ///
    /// # Errors
    /// Returns an error of the file system.
    pub(super) fn place_for(&mut self, name: &OsStr) -> io::Result<(OpenDir, Vec<u8>)> {
        let current = match self.current.take() {
            Some(current) if !current.names.contains(name) => current,
            _ => self.new_subdirectory()?,
        };
        let current = self.current.insert(current);
        current.names.insert(name.to_owned());
        let own_name = current.own_name.as_bytes();
        let path = [self.path.as_slice(), own_name, name.as_bytes()].join(&b'/');
        Ok((current.directory.clone(), path))
    }

    /// Returns the directory of a copy, and its name there.
    ///
    /// # Errors
    /// Returns an error of the file system.
    pub(super) fn parent<'c>(&self, copy: &'c [u8]) -> io::Result<(OpenDir, &'c OsStr)> {
        self.directory.parent(&copy[self.path.len()..])
    }

    fn new_subdirectory(&mut self) -> io::Result<Subdirectory> {
        self.count += 1;
        let own_name = self.count.to_string();
        let incoming = self.directory.directory(b"/")?;
        fs::mkdirat(incoming.as_fd(), own_name.as_str(), Mode::RWXU)?;
        Ok(Subdirectory {
            directory: incoming.enter(own_name.as_bytes())?,
            own_name,
            names: HashSet::new(),
        })
    }
}
