//! The private directory: one that nobody but the daemon's user and root can enter or exchange.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::local::attributes;
use crate::local::copy::attributes_may_forbid;
use crate::local::place::{self, Directory, Place, is_directory, look};
use crate::report;

/// Makes sure that the directory is there and private. The lock on it is held as long as the
/// answer lives.
///
/// # Errors
/// In words: it cannot be made, is or may become somebody else's, or another daemon works there.
pub fn enter(path: &[u8]) -> Result<OwnedFd, String> {
    let shown = report::escape(path).into_owned();
    let failed = |error: io::Error| format!("cannot use {shown}: {error}");
    let root = OsStr::from_bytes(path);
    if let Some(open) = open_to_others(root.as_ref()).map_err(failed)? {
        let open = report::escape(open.as_os_str().as_bytes()).into_owned();
        return Err(format!(
            "{shown} could be replaced, as {open} can be changed by other users: \
             give check.staging another place"
        ));
    }
    match std::fs::DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed(error));
        }
        _ => {}
    }
    let stat = fs::lstat(root).map_err(|error| failed(error.into()))?;
    let private = is_directory(&stat)
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o077 == 0;
    if !private {
        return Err(format!(
            "{shown} is not a directory of this user alone (mode 0700)"
        ));
    }
    lock(&[path, b"/lock"].concat()).map_err(failed)
}

/// A directory above `place` in which others could put something else in its place: one that is
/// neither the superuser's nor this user's, or that others may write to. In a sticky one nobody
/// renames what is another user's (inode(7)).
fn open_to_others(place: &Path) -> io::Result<Option<PathBuf>> {
    let above = place.parent().unwrap_or(place).canonicalize()?;
    let own = [0, rustix::process::geteuid().as_raw()];
    for directory in above.ancestors() {
        let stat = fs::lstat(directory)?;
        let sticky = stat.st_mode & 0o1000 != 0;
        if !own.contains(&stat.st_uid) || (stat.st_mode & 0o022 != 0 && !sticky) {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

fn lock(path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::open(OsStr::from_bytes(path), flags, Mode::RUSR | Mode::WUSR)?;
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => Err(io::Error::other("another sync or daemon works there")),
        result => Ok(result.map(|()| file)?),
    }
}

/// Removes all that is in a directory.
pub fn empty(place: &Place) -> io::Result<()> {
    place.forget();
    let root = place.directory(b"/")?;
    attributes::open_up(&root);
    for entry in place::list(&root)? {
        remove(&root, OsStr::from_bytes(&entry.name))?;
    }
    Ok(())
}

/// Removes what has this name, with all below it.
pub fn remove(directory: &Directory, name: &OsStr) -> io::Result<()> {
    let unlink = |flags| {
        let unlinked =
            attributes_may_forbid(directory, || fs::unlinkat(directory.as_fd(), name, flags));
        match unlinked {
            Err(error) if place::is_missing(&error) => Ok(()),
            done => done,
        }
    };
    match look(directory, name)? {
        None => Ok(()),
        Some(stat) if is_directory(&stat) => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
            // If it may not be, what is tried next says so.
            let _ = fs::chmodat(directory.as_fd(), name, mode, AtFlags::empty());
            let below = directory.enter(name.as_bytes())?;
            for entry in place::list(&below)? {
                remove(&below, OsStr::from_bytes(&entry.name))?;
            }
            unlink(AtFlags::REMOVEDIR)
        }
        Some(_) => unlink(AtFlags::empty()),
    }
}
