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
        let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Ok(Identity {
            device,
            inode,
            mount: mount_of(&table, path),
        })
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

/// The mount points in a mountinfo table, see proc_pid_mountinfo(5), each with what is mounted
/// there: the file system's device and the directory in it.
pub fn mounts(table: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    table.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (device, root) = (fields.nth(2)?, fields.next()?);
        Some((unescaped(fields.next()?), [device, b" ", root].concat()))
    })
}

/// File systems whose contents go with them when they are unmounted, or that hold nothing of
/// their own.
const PASSING: [&[u8]; 27] = [
    b"aufs",
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"fuse.gvfsd-fuse",
    b"fuse.lxcfs",
    b"fuse.portal",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nsfs",
    b"overlay",
    b"proc",
    b"pstore",
    b"ramfs",
    b"securityfs",
    b"squashfs",
    b"sysfs",
    b"tmpfs",
    b"tracefs",
];

/// The mount points of what is there again when it is mounted again: disks, network file systems,
/// and directories that are mounted elsewhere.
pub fn lasting(table: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    table.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (root != b"/" || !PASSING.contains(&kind)).then(|| unescaped(point))
    })
}

fn mount_of(table: &[u8], path: &[u8]) -> Vec<u8> {
    let above = |mount: &Vec<u8>| {
        mount == b"/"
            || path
                .strip_prefix(mount.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"))
    };
    let points = mounts(table).map(|(point, _)| point);
    let deepest = points.filter(above).max_by_key(Vec::len);
    deepest.unwrap_or_else(|| b"/".to_vec())
}

/// Blanks, tabs, line feeds and backslashes are written `\ooo`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.first_chunk::<3>().and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match code {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 8:2 / /srv rw - ext4 /dev/sdb1 rw\n\
        23 22 8:3 / /srv/a\\040b rw shared:1 - ext4 /dev/sdc1 rw\n";

    #[test]
    fn the_deepest_mount_counts() {
        let mount = |path: &str| String::from_utf8(mount_of(TABLE, path.as_bytes())).unwrap();
        assert_eq!(mount("/home/"), "/");
        assert_eq!(mount("/srv/"), "/srv");
        assert_eq!(mount("/srv2/"), "/");
        assert_eq!(mount("/srv/x/"), "/srv");
        assert_eq!(mount("/srv/a b/"), "/srv/a b");
        assert_eq!(mount("/srv/a b/c/"), "/srv/a b");
        assert_eq!(mount("/"), "/");
    }

    #[test]
    fn what_is_made_of_memory_does_not_last() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /run rw shared:1 master:2 - tmpfs none rw\n\
            23 22 0:5 /a /srv/a\\040b rw - tmpfs none rw\n\
            24 21 0:6 / /net rw shared:3 - nfs4 host:/x rw\n";
        let found: Vec<_> = lasting(table).collect();
        assert_eq!(
            found,
            [b"/".to_vec(), b"/srv/a b".to_vec(), b"/net".to_vec()]
        );
    }

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
