//! The private directory: only the daemon's user and root can enter or replace it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::removal::clear;
use crate::local::beneath::{self, Beneath, OpenDir, is_directory, lookup};
use crate::log;
use crate::safe_path::{self, Access};

/// The text of the lock file: the directory was created by this program, which may empty it.
const MARKER: &[u8] = b"The directory around this file belongs to lsyncd, which empties it.\n";

/// A private directory, open and locked.
pub struct Private {
    root: OpenDir,
    lock: OwnedFd,
}

impl Private {
    /// Opens the directory and creates it if necessary.
    ///
    /// # Errors
    /// Returns the reason: it cannot be created, belongs to or can be replaced by another user, has
    /// other contents, or another daemon works there.
    pub fn enter(path: &[u8]) -> Result<Private, String> {
        let shown = log::escape(path).into_owned();
        let failed = |error: io::Error| format!("cannot use {shown}: {error}");
        let root: &Path = OsStr::from_bytes(path).as_ref();
        let (Some(above), Some(name)) = (root.parent(), root.file_name()) else {
            return Err(format!("{shown} is not a directory that can be emptied"));
        };
        let replaceable = |open: &Path| {
            let open = log::escape(open.as_os_str().as_bytes()).into_owned();
            format!(
                "{shown} could be replaced, as {open} can be changed by other users: \
                 set check.staging to another directory"
            )
        };
        if let Some(open) = open_to_others(root).map_err(failed)? {
            return Err(replaceable(&open));
        }
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        let parent = safe_path::enter(above).map_err(failed)?;
        match fs::mkdirat(&parent, name, Mode::RWXU) {
            Err(error) if error != Errno::EXIST => return Err(failed(error.into())),
            _ => {}
        }
        let is_private = |stat: &Stat| {
            is_directory(stat)
                && stat.st_uid == rustix::process::geteuid().as_raw()
                && stat.st_mode & 0o077 == 0
        };
        let own = parent.enter(name);
        let stat = own.as_ref().ok().and_then(|own| fs::fstat(own).ok());
        if !stat.as_ref().is_some_and(is_private) {
            return Err(format!(
                "{shown} is not a directory of this user alone (mode 0700)"
            ));
        }
        let own = own.map_err(failed)?;
        if own.access() != Access::Private {
            return Err(replaceable(root));
        }
        let root = OpenDir::open(&own).map_err(failed)?;
        if !is_ours(&root).map_err(failed)? {
            return Err(format!(
                "{shown} has contents that are not lsyncd's: set check.staging to another directory"
            ));
        }
        let lock = lock(&root).map_err(failed)?;
        Ok(Private { root, lock })
    }

    /// Opens a directory in it and creates it if necessary.
    ///
    /// # Errors
    /// It cannot be created or is a mount point.
    pub fn open_dir(&self, name: &str) -> io::Result<Beneath> {
        match fs::mkdirat(self.root.as_fd(), name, Mode::RWXU) {
            Err(error) if error != Errno::EXIST => return Err(error.into()),
            _ => {}
        }
        let place = Beneath::at(self.root.enter(name.as_bytes())?);
        self.check(&place)?;
        Ok(place)
    }

    /// Returns the contents of a file in it, if that exists.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        self.open(name, flags).ok()?.read_to_end(&mut text).ok()?;
        Some(text)
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        self.open(name, flags)?.write_all(text)
    }

    fn open(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(fs::openat(self.root.as_fd(), name, flags, mode)?.into())
    }

    /// Removes a file in it.
    pub fn forget(&self, name: &str) {
        let _ = fs::unlinkat(self.root.as_fd(), name, AtFlags::empty());
    }

    /// Removes everything in one of its directories.
    ///
    /// # Errors
    /// Something cannot be removed, or the directory is not one of it.
    pub fn empty(&self, place: &Beneath) -> io::Result<()> {
        self.check(place)?;
        place.forget();
        let root = place.directory(b"/")?;
        clear(&root, &root)
    }

    /// Returns an error for a directory that is not a direct child of this one, is a mount point,
    /// or contains the root of the file system; and for all of them if the marker is gone.
    fn check(&self, place: &Beneath) -> io::Result<()> {
        let directory = place.directory(b"/")?;
        let (own, around) = (stat(&self.root)?, stat(&directory.enter(b"..")?)?);
        let (inner, mark) = (stat(&directory)?, fs::fstat(&self.lock)?);
        let found = lookup(&self.root, "lock".as_ref())?;
        let is_marked = found.is_some_and(|found| same(&found, &mark));
        let is_inside = same(&own, &around) && !same(&own, &inner) && own.st_dev == inner.st_dev;
        if is_marked && is_inside && !is_mount_point(&directory)? {
            return Ok(());
        }
        Err(io::Error::other("it was moved and is not emptied"))
    }

    /// Returns true if a tree is inside this directory.
    ///
    /// # Errors
    /// A directory above it cannot be opened.
    pub fn is_around(&self, tree: &Beneath) -> io::Result<bool> {
        let own = stat(&self.root)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = |here: BorrowedFd<'_>| fs::openat(here, "..", flags, Mode::empty());
        let mut here = fs::openat(tree.directory(b"/")?, ".", flags, Mode::empty())?;
        loop {
            let now = fs::fstat(&here)?;
            if same(&now, &own) {
                return Ok(true);
            }
            here = above(here.as_fd())?;
            if same(&fs::fstat(&here)?, &now) {
                return Ok(false);
            }
        }
    }
}

fn stat(directory: &OpenDir) -> io::Result<Stat> {
    Ok(fs::fstat(directory.as_fd())?)
}

fn same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Returns true if a directory is the root of a mount. Kernels before 5.8 do not report this; there
/// another device number does.
fn is_mount_point(directory: &OpenDir) -> io::Result<bool> {
    let found = fs::statx(
        directory.as_fd(),
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS,
    );
    Ok(match found {
        Ok(found) => found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        Err(Errno::NOSYS) => false,
        Err(error) => return Err(error.into()),
    })
}

/// Returns true if a directory is empty or contains our marker in a file of this user. A lock file
/// without text is accepted alone: the daemon may have been killed before it wrote the marker.
fn is_ours(root: &OpenDir) -> io::Result<bool> {
    let mut names = beneath::list(root)?.into_iter().map(|found| found.name);
    let has_only_lock = names.all(|name| name == b"lock");
    let lock = match beneath::open_file(root, "lock".as_ref()) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(has_only_lock),
        Err(_) => return Ok(false),
    };
    let stat = fs::fstat(&lock)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let mut text = Vec::new();
    File::from(lock)
        .take(MARKER.len() as u64 + 1)
        .read_to_end(&mut text)?;
    Ok(text == MARKER || (text.is_empty() && has_only_lock))
}

/// Returns a directory above `place` in which other users could replace it: one that belongs
/// neither to the superuser nor to this user, or that others may write to. In a sticky directory
/// users cannot rename the files of others (inode(7)).
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

fn lock(root: &OpenDir) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = fs::openat(root.as_fd(), "lock", flags, mode)?;
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => Err(io::Error::other("another sync or daemon uses it")),
        Err(error) => Err(error.into()),
        Ok(()) => {
            let file = File::from(file);
            if file.metadata()?.len() == 0 {
                (&file).write_all(MARKER)?;
            }
            Ok(file.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter_in(directory: &tempfile::TempDir, name: &str) -> Result<Private, String> {
        Private::enter(directory.path().join(name).as_os_str().as_bytes())
    }

    fn refusal(entered: Result<Private, String>) -> String {
        entered.map(drop).unwrap_err()
    }

    #[test]
    fn only_what_is_ours_is_taken() {
        type Make = fn(&Path);
        let cases: [(&str, Make, bool); 10] = [
            ("new", |_| (), true),
            ("empty", |path| std::fs::create_dir(path).unwrap(), true),
            (
                "begun",
                |path| {
                    std::fs::create_dir(path).unwrap();
                    std::fs::write(path.join("lock"), "").unwrap();
                },
                true,
            ),
            (
                "a user's, with our names and a lock without the marker",
                |path| {
                    std::fs::create_dir_all(path.join("tree/d")).unwrap();
                    std::fs::write(path.join("lock"), "").unwrap();
                },
                false,
            ),
            (
                "a user's, with a pipe as the lock",
                |path| {
                    std::fs::create_dir_all(path.join("tree/d")).unwrap();
                    nix::unistd::mkfifo(&path.join("lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
                },
                false,
            ),
            (
                "a user's, with our names",
                |path| std::fs::create_dir_all(path.join("tree/d")).unwrap(),
                false,
            ),
            (
                "a user's, with a lock",
                |path| {
                    std::fs::create_dir_all(path.join("tree/d")).unwrap();
                    std::fs::write(path.join("lock"), "").unwrap();
                    std::fs::write(path.join("letters"), "").unwrap();
                },
                false,
            ),
            (
                "a user's, with another lock",
                |path| {
                    std::fs::create_dir_all(path.join("tree/d")).unwrap();
                    std::fs::write(path.join("lock"), "12345").unwrap();
                },
                false,
            ),
            (
                "a user's, with a longer lock",
                |path| {
                    std::fs::create_dir_all(path.join("tree/d")).unwrap();
                    std::fs::write(path.join("lock"), [MARKER, b"x"].concat()).unwrap();
                },
                false,
            ),
            ("a file", |path| std::fs::write(path, "").unwrap(), false),
        ];
        for (name, make, fits) in cases {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("staging");
            make(&path);
            if path.is_dir() {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(&path, mode).unwrap();
            }
            let before = path.join("tree/d").exists();
            assert_eq!(enter_in(&directory, "staging").is_ok(), fits, "{name}");
            assert_eq!(path.join("tree/d").exists(), before, "{name}");
            // With its marker it may contain anything.
            if fits {
                std::fs::write(path.join("letters"), "").unwrap();
                assert!(enter_in(&directory, "staging").is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn the_marker_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return crate::test_skip::skip("takes root to be another user");
        }
        let directory = tempfile::tempdir().unwrap();
        drop(enter_in(&directory, "s").unwrap());
        let lock = directory.path().join("s/lock");
        std::os::unix::fs::chown(&lock, Some(65534), None).unwrap();
        assert!(refusal(enter_in(&directory, "s")).contains("not lsyncd's"));
        std::os::unix::fs::chown(&lock, Some(0), None).unwrap();
        assert!(enter_in(&directory, "s").is_ok());
        // And a whole directory of that user.
        std::os::unix::fs::chown(directory.path().join("s"), Some(65534), None).unwrap();
        assert!(refusal(enter_in(&directory, "s")).contains("not a directory of this user"));
    }

    /// Its files are read again after a restart, also by a user without rights.
    #[test]
    fn files_belong_to_this_user_alone_and_are_closed_for_children() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let private = enter_in(&directory, "s").unwrap();
        private.write("rules", b"long rules").unwrap();
        private.write("rules", b"rules").unwrap();
        assert_eq!(private.read("rules").unwrap(), b"rules");
        for name in ["lock", "rules"] {
            let file = directory.path().join("s").join(name);
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        // A child with the lock would keep the next daemon out.
        let file = private.open("rules", OFlags::RDONLY).unwrap();
        for fd in [file.as_fd(), private.lock.as_fd(), private.root.as_fd()] {
            let flags = rustix::io::fcntl_getfd(fd).unwrap();
            assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
        }
    }

    #[test]
    fn neither_links_are_followed_nor_pipes_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join("s").join(name);
        let private = enter_in(&directory, "s").unwrap();
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert!(private.read("link").is_none() && private.write("link", b"other").is_err());
        assert_eq!(private.read("file").unwrap(), b"text");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        // An open for reading that waits would wait for a writer.
        assert_eq!(private.read("pipe").unwrap(), b"");
    }

    /// A mount in it would be emptied with it.
    #[test]
    fn mount_points_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let is_mount = |path: &[u8]| {
            let place = Beneath::enter(path).unwrap();
            is_mount_point(&place.directory(b"/").unwrap()).unwrap()
        };
        assert!(is_mount(b"/proc"));
        assert!(!is_mount(directory.path().as_os_str().as_bytes()));
    }

    #[test]
    fn the_root_and_links_are_refused() {
        assert!(Private::enter(b"/").is_err());
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", directory.path().join("l")).unwrap();
        assert!(refusal(enter_in(&directory, "l")).contains("not a directory of this user"));
        let first = enter_in(&directory, "s").unwrap();
        assert!(refusal(enter_in(&directory, "s")).contains("another sync or daemon"));
        drop(first);
        assert!(enter_in(&directory, "s").is_ok());
    }

    #[test]
    fn nothing_is_emptied_but_what_lies_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let private = enter_in(&directory, "s").unwrap();
        let place = |name: &str| Beneath::enter(at(name).as_os_str().as_bytes()).unwrap();
        for name in ["other/d", "s/tree/d"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        // Beside it, around it, itself, and deeper in it.
        for name in ["other", "", "s", "s/tree/d"] {
            assert!(private.empty(&place(name)).is_err(), "{name}");
        }
        assert!(at("other/d").exists() && at("s/tree/d").exists());
        let tree = private.open_dir("tree").unwrap();
        private.empty(&tree).unwrap();
        assert_eq!(std::fs::read_dir(at("s/tree")).unwrap().count(), 0);

        // Moved away, and without its marker.
        std::fs::create_dir(at("s/tree/d")).unwrap();
        std::fs::rename(at("s/tree"), at("moved")).unwrap();
        assert!(private.empty(&tree).is_err());
        std::fs::rename(at("moved"), at("s/tree")).unwrap();
        std::fs::rename(at("s/lock"), at("lock")).unwrap();
        assert!(private.empty(&tree).is_err());
        std::fs::write(at("s/lock"), MARKER).unwrap();
        assert!(private.empty(&tree).is_err());
        std::fs::rename(at("lock"), at("s/lock")).unwrap();
        assert!(at("s/tree/d").exists());
        private.empty(&tree).unwrap();
        assert!(!at("s/tree/d").exists());
    }

    /// Home directories may be entered by others, but not listed.
    #[test]
    fn directories_above_the_source_need_not_be_readable() {
        crate::test_user::without_rights_of_root(|directory| {
            use std::os::unix::fs::PermissionsExt;
            let at = |name: &str| directory.join(name);
            for name in ["above/source", "staging"] {
                std::fs::create_dir_all(at(name)).unwrap();
            }
            let place = |name: &str| Beneath::enter(at(name).as_os_str().as_bytes()).unwrap();
            let (source, staging) = (place("above/source"), place("staging"));
            let lock = File::create(at("lock")).unwrap().into();
            let root = staging.directory(b"/").unwrap();
            let private = Private { root, lock };
            std::fs::set_permissions(at("above"), PermissionsExt::from_mode(0o300)).unwrap();
            let is_around = private.is_around(&source);
            std::fs::set_permissions(at("above"), PermissionsExt::from_mode(0o700)).unwrap();
            assert!(!is_around.unwrap());
        });
    }

    #[test]
    fn a_source_inside_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let private = enter_in(&directory, "s").unwrap();
        std::fs::create_dir_all(at("s/tree/source")).unwrap();
        std::fs::create_dir_all(at("source")).unwrap();
        std::os::unix::fs::symlink(at("s/tree/source"), at("link")).unwrap();
        for (name, inside) in [
            ("s", true),
            ("s/tree/source", true),
            ("link", true),
            ("source", false),
        ] {
            let place = Beneath::enter(at(name).as_os_str().as_bytes()).unwrap();
            assert_eq!(private.is_around(&place).unwrap(), inside, "{name}");
        }
    }
}
