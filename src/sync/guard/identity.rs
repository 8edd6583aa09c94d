//! Identity of a source directory, and its mount.
//!
//! Device and inode show whether the path still leads to the watched directory. The mount point
//! shows, even over reboots, whether the expected file system is mounted: device numbers change,
//! mount points do not.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use crate::mount_table::{self, mount_of};

/// The identity of a source directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    device: u64,
    inode: u64,
    /// The time of creation in nanoseconds since 1970, if the file system records it (statx(2)).
    born: Option<u64>,
}

/// A source directory and its mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlace {
    /// The directory.
    pub identity: SourceIdentity,
    /// The mount point at or above it, without a trailing slash except for `/`.
    pub mount: Vec<u8>,
}

impl SourcePlace {
    /// Returns the identity and mount point of an absolute path.
    ///
    /// # Errors
    ///
    /// It is not an accessible directory.
    pub fn of(path: &[u8]) -> io::Result<SourcePlace> {
        let identity = SourceIdentity::of(path)?;
        let mount = mount_of(&mount_table::read(), path);
        Ok(SourcePlace { identity, mount })
    }
}

impl SourceIdentity {
    /// Returns the identity of the directory at this path.
    ///
    /// # Errors
    /// There is none.
    pub fn of(path: &[u8]) -> io::Result<SourceIdentity> {
        let found = fs::metadata(OsStr::from_bytes(path))?;
        if found.is_dir() {
            Ok(SourceIdentity {
                device: found.dev(),
                inode: found.ino(),
                born: born(&found),
            })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// Returns device and inode.
    pub fn numbers(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Returns true if both are the same directory, even after a reboot. Inode numbers are reused
    /// and device numbers change, so the time of birth is decisive if it is known.
    pub fn is_same(&self, other: &SourceIdentity) -> bool {
        self.inode == other.inode
            && match (self.born, other.born) {
                (Some(one), Some(other)) => one == other,
                _ => self.device == other.device,
            }
    }

    /// Returns a text that is equal for the same directory, even after a reboot; see
    /// [`SourceIdentity::is_same`].
    pub fn lasting_line(&self) -> String {
        match self.born {
            Some(born) => format!("{} born {born}", self.inode),
            None => format!("{} on {}", self.inode, self.device),
        }
    }

    /// Returns the line for a state file.
    pub fn to_line(&self) -> String {
        let born = self.born.unwrap_or_default();
        format!("{} {} {born}\n", self.device, self.inode)
    }

    /// Parses the line of [`SourceIdentity::to_line`]; returns `None` for anything else.
    pub fn from_line(line: &[u8]) -> Option<SourceIdentity> {
        let text = std::str::from_utf8(line).ok()?;
        let mut numbers = text.strip_suffix('\n')?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let (device, inode, born) = (next()?, next()?, next()?);
        let born = Some(born).filter(|&born| born > 0);
        let identity = SourceIdentity {
            device,
            inode,
            born,
        };
        numbers.next().is_none().then_some(identity)
    }
}

fn born(found: &Metadata) -> Option<u64> {
    let since = found.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns an identity with these numbers.
    pub fn identity(device: u64, inode: u64, born: Option<u64>) -> SourceIdentity {
        SourceIdentity {
            device,
            inode,
            born,
        }
    }

    #[test]
    fn a_directory_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().as_os_str().as_bytes();
        let one = SourceIdentity::of(path).unwrap();
        assert!(one.is_same(&SourceIdentity::of(path).unwrap()));
        let has_birth = dir.path().metadata().unwrap().created().is_ok();
        assert_eq!(one.born.is_some(), has_birth);
        assert!(!one.is_same(&SourceIdentity::of(b"/").unwrap()));
        assert!(SourceIdentity::of(b"/dev/null").is_err());
        assert_eq!(
            SourceIdentity::from_line(one.to_line().as_bytes()),
            Some(one)
        );
    }

    #[test]
    fn numbers_that_are_used_again_are_no_proof() {
        let first = identity(1, 2, Some(7));
        for (other, same) in [
            (identity(1, 2, Some(7)), true),
            (identity(9, 2, Some(7)), true),
            (identity(1, 2, Some(8)), false),
            (identity(1, 3, Some(7)), false),
            (identity(1, 2, None), true),
            (identity(9, 2, None), false),
        ] {
            assert_eq!(first.is_same(&other), same, "{other:?}");
            assert_eq!(other.is_same(&first), same, "{other:?}");
        }
    }

    #[test]
    fn what_is_no_identity_is_not_read() {
        for line in [
            "",
            "\n",
            "1 2\n",
            "1 2 3",
            "1 2 3 4\n",
            "a 2 3\n",
            "-1 2 3\n",
            "1  2 3\n",
        ] {
            assert_eq!(SourceIdentity::from_line(line.as_bytes()), None, "{line:?}");
        }
        let unborn = identity(1, 2, None);
        assert_eq!(SourceIdentity::from_line(b"1 2 0\n"), Some(unborn));
        assert_eq!(SourceIdentity::from_line(b"\xff 2 0\n"), None);
    }

    /// Otherwise the index of another directory would be used.
    #[test]
    fn the_lasting_lines_of_two_directories_differ() {
        let lines = [
            identity(1, 2, Some(7)),
            identity(1, 2, Some(8)),
            identity(1, 3, Some(7)),
            identity(1, 2, None),
            identity(9, 2, None),
        ]
        .map(|one| one.lasting_line());
        let distinct: std::collections::BTreeSet<_> = lines.iter().collect();
        assert_eq!(distinct.len(), lines.len());
        // Device numbers change with a reboot.
        assert_eq!(identity(9, 2, Some(7)).lasting_line(), lines[0]);
    }

    #[test]
    fn the_birth_of_a_directory_is_that_of_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let found = SourceIdentity::of(dir.path().as_os_str().as_bytes()).unwrap();
        let created = dir.path().metadata().unwrap().created().ok();
        let since = created.map(|time| time.duration_since(UNIX_EPOCH).unwrap());
        assert_eq!(found.born, since.map(|since| since.as_nanos() as u64));
    }
}
