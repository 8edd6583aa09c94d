//! Which directory a source is, and on which mount it lies.
//!
//! Device and inode tell whether the path still leads to the directory that is watched. The
//! mount point it lies below tells, even over reboots, whether what should be mounted is:
//! numbers of devices change, the place of a mount does not.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::mount_table::{self, mount_of};

/// What is known of a source directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// The mount point at or above it, without a slash at its end but for `/`.
    pub mount: Vec<u8>,
}

impl Identity {
    /// Of the directory at this absolute path.
    ///
    /// # Errors
    /// There is none.
    pub fn of(path: &[u8]) -> io::Result<Identity> {
        let (device, inode) = numbers(path)?;
        let table = mount_table::read();
        Ok(Identity {
            device,
            inode,
            mount: mount_of(&table, path),
        })
    }

    /// Device and inode.
    pub fn numbers(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the path leads to this directory now.
    ///
    /// # Errors
    /// It leads to none.
    pub fn is_at(&self, path: &[u8]) -> io::Result<bool> {
        Ok(numbers(path)? == (self.device, self.inode))
    }
}

fn numbers(path: &[u8]) -> io::Result<(u64, u64)> {
    let found = fs::metadata(OsStr::from_bytes(path))?;
    match found.is_dir() {
        true => Ok((found.dev(), found.ino())),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().as_os_str().as_bytes();
        let identity = Identity::of(path).unwrap();
        assert!(identity.is_at(path).unwrap());
        assert!(!identity.is_at(b"/").unwrap());
        assert!(identity.is_at(b"/dev/null").is_err());
    }
}
