//! The private directory: one that nobody but the daemon's user and root can enter or exchange.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, Stat};
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
///
/// # Errors
/// Something cannot be removed.
pub fn empty(place: &Place) -> io::Result<()> {
    place.forget();
    let root = place.directory(b"/")?;
    clear(&root, &root)
}

/// Removes what has this name, with all below it. A directory goes to `aside` first: who reads
/// sees it all or nothing of it.
///
/// # Errors
/// It cannot be removed.
pub fn remove(directory: &Directory, name: &OsStr, aside: &Directory) -> io::Result<()> {
    match look(directory, name)? {
        None => Ok(()),
        Some(stat) if is_directory(&stat) => {
            let name = put_aside(directory, name, &stat, aside)?;
            let below = aside.enter(name.as_bytes())?;
            clear(&below, aside)?;
            Ok(fs::unlinkat(
                aside.as_fd(),
                name.as_str(),
                AtFlags::REMOVEDIR,
            )?)
        }
        Some(_) => match attributes_may_forbid(directory, || {
            fs::unlinkat(directory.as_fd(), name, AtFlags::empty())
        }) {
            Err(error) if place::is_missing(&error) => Ok(()),
            done => done,
        },
    }
}

/// Removes all that is in `top`. Directories in it are put `aside` one after the other: however
/// deep they are, this takes neither stack nor descriptors.
fn clear(top: &Directory, aside: &Directory) -> io::Result<()> {
    attributes::open_up(top);
    let mut waiting = Vec::new();
    let mut here = Some((top.clone(), None::<String>));
    while let Some((directory, own)) = here {
        for entry in place::list(&directory)? {
            let name = OsStr::from_bytes(&entry.name);
            match look(&directory, name)? {
                Some(stat) if is_directory(&stat) => {
                    let removed = fs::unlinkat(directory.as_fd(), name, AtFlags::REMOVEDIR);
                    if removed.is_err() {
                        waiting.push(put_aside(&directory, name, &stat, aside)?);
                    }
                }
                _ => remove(&directory, name, aside)?,
            }
        }
        if let Some(name) = own {
            fs::unlinkat(aside.as_fd(), name.as_str(), AtFlags::REMOVEDIR)?;
        }
        here = match waiting.pop() {
            Some(name) => Some((aside.enter(name.as_bytes())?, Some(name))),
            None => None,
        };
    }
    Ok(())
}

/// Moves a directory to `aside`, as one that can be emptied; its name there.
fn put_aside(
    directory: &Directory,
    name: &OsStr,
    stat: &Stat,
    aside: &Directory,
) -> io::Result<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
    // If it may not be, what is tried next says so.
    let _ = fs::chmodat(directory.as_fd(), name, mode, AtFlags::empty());
    loop {
        let other = format!("gone-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let renamed = attributes_may_forbid(directory, || {
            fs::renameat(directory.as_fd(), name, aside.as_fd(), other.as_str())
        });
        match renamed.as_ref().map_err(io::Error::kind) {
            // One that was left behind.
            Err(io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
            _ => return renamed.map(|()| other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deeper than there are descriptors, and than a thread has stack for.
    #[test]
    fn depth_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["aside", "chain"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for _ in 0..3000 {
            std::fs::create_dir(at("next")).unwrap();
            std::fs::rename(at("chain"), at("next/chain")).unwrap();
            std::fs::rename(at("next"), at("chain")).unwrap();
        }
        let aside = Place::enter(at("aside").as_os_str().as_bytes()).unwrap();
        let here = Place::enter(directory.path().as_os_str().as_bytes()).unwrap();
        std::fs::create_dir(at("aside/gone-0")).unwrap();
        std::fs::write(at("aside/gone-0/left"), "of before").unwrap();
        let (here, aside_root) = (
            here.directory(b"/").unwrap(),
            aside.directory(b"/").unwrap(),
        );
        remove(&here, "chain".as_ref(), &aside_root).unwrap();
        assert!(!at("chain").exists());
        empty(&aside).unwrap();
        assert_eq!(std::fs::read_dir(at("aside")).unwrap().count(), 0);
    }
}
