//! Removal of trees that transfers may be reading: a reader sees all of a directory or nothing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};

use crate::local::attributes;
use crate::local::attributes::attributes_may_forbid;
use crate::local::beneath::{self, OpenDir, is_directory, lookup};

/// Removes this name with everything below it. A directory is moved `aside` first: a reader sees
/// all of it or nothing.
///
/// # Errors
/// It cannot be removed.
pub fn remove(directory: &OpenDir, name: &OsStr, aside: &OpenDir) -> io::Result<()> {
    match lookup(directory, name)? {
        None => Ok(()),
        Some(stat) if is_directory(&stat) => {
            let name = put_aside(directory, name, &stat, aside)?;
            let below = aside.enter(name.as_bytes())?;
            let found = fs::fstat(below.as_fd())?;
            if (stat.st_dev, stat.st_ino) != (found.st_dev, found.st_ino) {
                return Err(io::Error::other("it was replaced by something else"));
            }
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
            Err(error) if beneath::is_missing(&error) => Ok(()),
            done => done,
        },
    }
}

/// Removes everything in `top`. Subdirectories are moved `aside` one after the other, so that depth
/// needs neither stack nor descriptors.
pub fn clear(top: &OpenDir, aside: &OpenDir) -> io::Result<()> {
    attributes::open_up(top);
    let mut waiting = Vec::new();
    let mut here = Some((top.clone(), None::<String>));
    while let Some((directory, own)) = here {
        for entry in beneath::list(&directory)? {
            let name = OsStr::from_bytes(&entry.name);
            match lookup(&directory, name)? {
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

/// Moves a directory to `aside` and makes it writable; returns its name there.
fn put_aside(
    directory: &OpenDir,
    name: &OsStr,
    stat: &Stat,
    aside: &OpenDir,
) -> io::Result<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if stat.st_mode & 0o700 != 0o700 {
        open_up(directory, name, stat);
    }
    loop {
        let other = format!("gone-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let renamed = attributes_may_forbid(directory, || {
            fs::renameat(directory.as_fd(), name, aside.as_fd(), other.as_str())
        });
        match renamed.as_ref().map_err(io::Error::kind) {
            // A directory of that name was left behind.
            Err(io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
            _ => return renamed.map(|()| other),
        }
    }
}

/// Makes a directory accessible, by its descriptor. If it is not permitted, the next operation
/// reports the error.
fn open_up(directory: &OpenDir, name: &OsStr, stat: &Stat) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(inner) = fs::openat(directory.as_fd(), name, flags, Mode::empty()) {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
        // The mode of a descriptor without rights can be changed only by its name in /proc.
        let _ = fs::chmod(format!("/proc/self/fd/{}", inner.as_raw_fd()), mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::beneath::Beneath;
    use crate::test_user::without_rights_of_root;

    /// The copy of a directory has its mode.
    #[test]
    fn directories_without_rights_are_removed() {
        without_rights_of_root(|directory| {
            use std::os::unix::fs::PermissionsExt;
            let at = |name: &str| directory.join(name);
            for name in ["aside", "d/e/f", "d/e/g"] {
                std::fs::create_dir_all(at(name)).unwrap();
                std::fs::write(at(name).join("file"), "").unwrap();
            }
            let modes = [
                ("d/e/f", 0),
                ("d/e/g", 0o1300),
                ("d/e", 0o500),
                ("d", 0o400),
            ];
            for (name, mode) in modes {
                std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
            }
            let place = Beneath::enter(directory.as_os_str().as_bytes()).unwrap();
            let [here, aside] =
                ["/", "/aside"].map(|path| place.directory(path.as_bytes()).unwrap());
            remove(&here, "d".as_ref(), &aside).unwrap();
            assert!(!at("d").exists());
            assert_eq!(std::fs::read_dir(at("aside")).unwrap().count(), 1);
        });
    }

    /// A rejected file that stays in the tree would be sent.
    #[test]
    fn a_file_that_cannot_be_removed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let aside = Beneath::enter(directory.path().as_os_str().as_bytes()).unwrap();
        let aside = aside.directory(b"/").unwrap();
        // Nobody can remove files of the kernel.
        let process = Beneath::enter(b"/proc/self").unwrap();
        let process = process.directory(b"/").unwrap();
        assert!(remove(&process, "status".as_ref(), &aside).is_err());
        assert!(remove(&process, "fd".as_ref(), &aside).is_err());
        assert!(remove(&process, "nothing".as_ref(), &aside).is_ok());
    }

    /// Uses more levels than there are descriptors, and than fit on a thread's stack.
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
        let aside = Beneath::enter(at("aside").as_os_str().as_bytes()).unwrap();
        let here = Beneath::enter(directory.path().as_os_str().as_bytes()).unwrap();
        std::fs::create_dir(at("aside/gone-0")).unwrap();
        std::fs::write(at("aside/gone-0/left"), "of before").unwrap();
        let (here, aside_root) = (
            here.directory(b"/").unwrap(),
            aside.directory(b"/").unwrap(),
        );
        remove(&here, "chain".as_ref(), &aside_root).unwrap();
        assert!(!at("chain").exists());
        clear(&aside_root, &aside_root).unwrap();
        assert_eq!(std::fs::read_dir(at("aside")).unwrap().count(), 0);
    }
}
