//! Private temporary directories. They are used and removed through descriptors, so that a
//! replacement by another user is neither used nor removed.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, mkdirat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Access, Directory, enter, is_own, untrusted};

/// The maximum number of names that are tried.
const MAX_ATTEMPTS: usize = 100;

/// The age from which on a directory that nobody has removed is stale.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// A new directory that only this user can enter.
#[derive(Debug)]
pub struct ScratchDir {
    parent: Directory,
    name: OsString,
    directory: Directory,
}

impl ScratchDir {
    /// Creates a directory with mode 0700 and a random name that begins with `prefix`.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2), or another user has replaced the directory.
    pub fn create(parent: &Path, prefix: &str) -> io::Result<ScratchDir> {
        ScratchDir::create_in(enter(parent)?, prefix)
    }

    /// Creates a directory in an open one, as [`ScratchDir::create`] does.
    ///
    /// # Errors
    ///
    /// Those of [`ScratchDir::create`].
    pub fn create_in(parent: Directory, prefix: &str) -> io::Result<ScratchDir> {
        for attempt in 0..MAX_ATTEMPTS {
            let random = RandomState::new().hash_one(attempt) & 0xffff_ffff;
            let name = OsString::from(format!("{prefix}{random:08x}"));
            match mkdirat(&parent, &name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                result => result?,
            }
            let directory = parent.enter(&name)?;
            let is_own = directory.stat.st_uid == geteuid().as_raw();
            if !is_own || directory.own_access() != Access::Private {
                return Err(untrusted("a new directory was replaced by another user"));
            }
            return Ok(ScratchDir {
                parent,
                name,
                directory,
            });
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Returns the name in the parent directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns the open directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns a path that leads through the open directory (proc_pid_fd(5)). It is valid in this
    /// process, as long as this value lives.
    pub fn path(&self) -> PathBuf {
        let number = self.directory.as_fd().as_raw_fd();
        PathBuf::from(format!("/proc/self/fd/{number}"))
    }

    /// Removes the directory with its contents. A directory that has replaced it stays.
    ///
    /// # Errors
    ///
    /// Those of unlink(2) and rmdir(2).
    pub fn remove(&self) -> io::Result<()> {
        remove_contents(&self.directory)?;
        if self.parent.enter(&self.name)?.is_same(&self.directory) {
            unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

/// Removes empty directories that killed processes of this user have left: those with such a name
/// that have not changed for a day. One that is still in use is created again.
pub fn remove_stale(parent: &Directory, prefix: &str) {
    let is_ours = |name: &OsStr| {
        let random = name.as_bytes().strip_prefix(prefix.as_bytes());
        random.is_some_and(|random| random.len() == 8 && random.iter().all(u8::is_ascii_hexdigit))
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let until = now
        .map_or(0, |now| now.saturating_sub(MAX_AGE).as_secs())
        .cast_signed();
    for name in parent.names().unwrap_or_default() {
        if !is_ours(&name) {
            continue;
        }
        let Ok(stat) = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if is_own(&stat) && stat.st_mtime < until {
            // It fails for what is not empty, and for what is no directory.
            let _ = unlinkat(parent, &name, AtFlags::REMOVEDIR);
        }
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // The directory is private, so it does no harm if it is left.
        let _ = self.remove();
    }
}

/// Removes all entries of a directory. Symbolic links are not followed.
fn remove_contents(directory: &Directory) -> io::Result<()> {
    for name in directory.names()? {
        match unlinkat(directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_contents(&directory.enter(&name)?)?;
                unlinkat(directory, &name, AtFlags::REMOVEDIR)?;
            }
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn is_private_and_removed_with_its_contents() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("kept"), "").unwrap();
        let scratch = ScratchDir::create(root.path(), "scratch-").unwrap();
        let path = root.path().join(scratch.name());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        fs::write(scratch.path().join("a/b/f"), "").unwrap();
        symlink(root.path(), scratch.path().join("link")).unwrap();
        assert!(path.join("a/b/f").exists());
        drop(scratch);
        assert!(!path.exists() && root.path().join("kept").exists());
    }

    #[test]
    fn only_empty_directories_of_long_ago_are_stale() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let old = SystemTime::now() - 2 * MAX_AGE;
        for name in [
            "s-0123abcd",
            "s-full0000",
            "s-0000ffff",
            "s-short",
            "t-0123abcd",
        ] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::create_dir(at("s-00000001")).unwrap();
        fs::write(at("s-0000ffff").join("socket"), "").unwrap();
        fs::write(at("s-00000002"), "").unwrap();
        for name in [
            "s-0123abcd",
            "s-0000ffff",
            "s-short",
            "t-0123abcd",
            "s-00000002",
        ] {
            fs::File::open(at(name)).unwrap().set_modified(old).unwrap();
        }
        remove_stale(&enter(root.path()).unwrap(), "s-");
        let left = fs::read_dir(root.path()).unwrap().count();
        assert!(!at("s-0123abcd").exists() && left == 6);
    }

    #[test]
    fn a_directory_in_its_place_is_neither_used_nor_removed() {
        let root = tempfile::tempdir().unwrap();
        let scratch = ScratchDir::create(root.path(), "scratch-").unwrap();
        let path = root.path().join(scratch.name());
        fs::rename(&path, root.path().join("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("kept"), "").unwrap();
        fs::write(scratch.path().join("f"), "").unwrap();
        assert!(root.path().join("moved/f").exists());
        drop(scratch);
        assert!(path.join("kept").exists());
        assert!(!root.path().join("moved/f").exists());
    }
}
