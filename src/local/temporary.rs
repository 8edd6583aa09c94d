//! Temporary files in directories that other users may change.
//!
//! A user who may write to a directory can rename its entries between two calls, even those of
//! other users. Temporary names therefore cannot be guessed, a new object is opened by the call
//! that creates it or is verified when it is opened, and attributes are set on the descriptor.
//! Pipes, sockets and devices cannot be opened without side effects: they are created in an open
//! directory of mode 0700, in which no other user can rename anything.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::attributes_may_forbid;
use super::beneath::{OpenDir, is_directory, kind};

/// Returns an unpredictable name: a keyed hash of a counter, whose key comes from the system's
/// random numbers.
pub fn random_name() -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".lsyncd.{:016x}", KEY.hash_one(number))
}

/// Creates an object under a random name; returns the name and the result of `make`. If it is left
/// behind after a crash, the next comparison deletes it, as it is not in the source.
///
/// # Errors
/// Returns the errors of `make`, except that the name exists.
pub fn make<T>(
    directory: &OpenDir,
    make: impl Fn(&OsStr) -> rustix::io::Result<T>,
) -> io::Result<(OsString, T)> {
    attributes_may_forbid(directory, || {
        loop {
            let name = random_name();
            match make(OsStr::new(&name)) {
                Ok(made) => return Ok((name.into(), made)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    })
}

/// Creates a file that only this user may read and write. An object of that name, which may be
/// another user's link to a file elsewhere, is not opened.
///
/// # Errors
/// It cannot be created, or exists.
pub fn create(directory: &OpenDir, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    fs::openat(directory.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)
}

/// Removes a temporary file. One that cannot be removed is deleted by the next comparison.
pub fn discard(directory: &OpenDir, name: &OsStr) {
    let _ = fs::unlinkat(directory.as_fd(), name, AtFlags::empty());
}

/// Opens a new symlink, to be changed by its descriptor.
///
/// # Errors
/// Another object has its name.
pub fn open_link(directory: &OpenDir, name: &OsStr, target: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = fs::openat(directory.as_fd(), name, flags, Mode::empty())?;
    let is_link = kind(&fs::fstat(&link)?) == FileType::Symlink;
    if is_link && fs::readlinkat(&link, "", Vec::new())?.to_bytes() == target {
        Ok(link)
    } else {
        Err(replaced())
    }
}

/// Returns the error that a temporary file was replaced by another user.
pub fn replaced() -> io::Error {
    io::Error::other("another user replaced its temporary file")
}

/// A new directory of mode 0700 inside another. It is removed when this is dropped.
pub struct PrivateDirectory<'a> {
    parent: &'a OpenDir,
    name: OsString,
    /// The open directory.
    pub directory: OpenDir,
}

impl PrivateDirectory<'_> {
    /// Creates and opens the directory. Returns `None` if it does not belong to this user alone, as
    /// on a network file system that gives the superuser's files another owner.
    ///
    /// # Errors
    /// It cannot be created or opened.
    pub fn make(parent: &OpenDir) -> io::Result<Option<PrivateDirectory<'_>>> {
        let (name, ()) = make(parent, |name| fs::mkdirat(parent.as_fd(), name, Mode::RWXU))?;
        let made = PrivateDirectory {
            directory: parent.enter(name.as_encoded_bytes())?,
            parent,
            name,
        };
        let stat = fs::fstat(made.directory.as_fd())?;
        let is_private = is_directory(&stat)
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & 0o077 == 0;
        Ok(is_private.then_some(made))
    }
}

impl Drop for PrivateDirectory<'_> {
    fn drop(&mut self) {
        let _ = fs::unlinkat(self.parent.as_fd(), &*self.name, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::beneath::Beneath;
    use crate::test_user::as_another_owner_of_files;

    /// Another user may have put something else in its place.
    #[test]
    fn only_the_link_that_was_made_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, to) in [("link", "here"), ("other", "there")] {
            std::os::unix::fs::symlink(to, at(name)).unwrap();
        }
        std::fs::write(at("here"), "").unwrap();
        let place = Beneath::enter(directory.path().as_os_str().as_encoded_bytes()).unwrap();
        let place = place.directory(b"/").unwrap();
        let open = |name: &str| open_link(&place, OsStr::new(name), b"here");
        let link = open("link").unwrap();
        assert_eq!(kind(&fs::fstat(link).unwrap()), FileType::Symlink);
        assert!(open("other").is_err() && open("here").is_err());
    }

    #[test]
    fn no_object_of_another_user_is_opened_as_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("elsewhere", at("dangling")).unwrap();
        let place = Beneath::enter(directory.path().as_os_str().as_encoded_bytes()).unwrap();
        let place = place.directory(b"/").unwrap();
        for name in ["file", "link", "dangling"] {
            assert!(create(&place, OsStr::new(name)).is_err(), "{name}");
        }
        assert!(!at("elsewhere").exists());
        let made = create(&place, OsStr::new("new")).unwrap();
        assert_eq!(fs::fstat(&made).unwrap().st_mode & 0o777, 0o600);
        let flags = rustix::io::fcntl_getfd(&made).unwrap();
        assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
    }

    /// The superuser's files have another owner on some network file systems.
    #[test]
    fn a_directory_of_another_owner_is_not_private() {
        as_another_owner_of_files(|directory| {
            let place = Beneath::enter(directory.as_os_str().as_encoded_bytes()).unwrap();
            let place = place.directory(b"/").unwrap();
            assert!(PrivateDirectory::make(&place).unwrap().is_none());
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
        });
    }

    #[test]
    fn a_private_directory_is_gone_when_it_has_been_used() {
        let directory = tempfile::tempdir().unwrap();
        let place = Beneath::enter(directory.path().as_os_str().as_encoded_bytes()).unwrap();
        let place = place.directory(b"/").unwrap();
        let private = PrivateDirectory::make(&place).unwrap().unwrap();
        let mode = fs::fstat(private.directory.as_fd()).unwrap().st_mode;
        assert_eq!(mode & 0o777, 0o700);
        drop(private);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
