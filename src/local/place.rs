//! A tree entered from its root, component by component, so that no symlink in it is followed:
//! neither one that lies there nor one that someone puts there meanwhile.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory and all below it. Paths in it begin with `/`; slashes at their end are ignored.
pub struct Place {
    root: Directory,
    /// The directory that was opened last, as most paths are in the same one as the path before.
    last: RefCell<Option<(Vec<u8>, Directory)>>,
}

/// An open directory.
#[derive(Clone)]
pub struct Directory(Rc<OwnedFd>);

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// Opens a directory in this one.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn enter(&self, name: &[u8]) -> io::Result<Directory> {
        let fd = fs::openat(self, OsStr::from_bytes(name), DIRECTORY, Mode::empty())?;
        Ok(Directory(Rc::new(fd)))
    }
}

/// Something a directory contains.
#[derive(Clone, Debug)]
pub struct Found {
    /// Without slash.
    pub name: Vec<u8>,
    /// Not all file systems tell: `Unknown` then.
    pub kind: FileType,
}

impl Place {
    /// Enters a tree. Its own path is the user's word, symlinks in that are followed.
    ///
    /// # Errors
    /// It is no directory or may not be read.
    pub fn enter(path: &[u8]) -> io::Result<Place> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let root = fs::openat(CWD, OsStr::from_bytes(path), flags, Mode::empty())?;
        Ok(Place {
            root: Directory(Rc::new(root)),
            last: RefCell::default(),
        })
    }

    /// As [`Place::enter`], making the last directory of the path if only that is missing.
    ///
    /// # Errors
    /// It cannot be made or entered.
    pub fn enter_or_make(path: &[u8]) -> io::Result<Place> {
        match Place::enter(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(OsStr::from_bytes(path))?;
                Place::enter(path)
            }
            entered => entered,
        }
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` or `ELOOP` if the path does not lead to one, without symlinks.
    pub fn directory(&self, path: &[u8]) -> io::Result<Directory> {
        if let Some((last, directory)) = &*self.last.borrow()
            && last == path
        {
            return Ok(directory.clone());
        }
        let mut open = self.root.clone();
        for name in names(path) {
            open = open.enter(name)?;
        }
        self.last.replace(Some((path.to_vec(), open.clone())));
        Ok(open)
    }

    /// Directories have got other paths.
    pub fn forget(&self) {
        self.last.take();
    }

    /// The directory a path is in, opened, and the name there; not for the root.
    ///
    /// # Errors
    /// As for [`Place::directory`].
    pub fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Directory, &'p OsStr)> {
        let (above, name) = split(path);
        Ok((self.directory(above)?, OsStr::from_bytes(name)))
    }

    /// What is there; nothing only if that is certain.
    ///
    /// # Errors
    /// It cannot be known.
    pub fn look(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        if names(path).next().is_none() {
            return Ok(Some(fs::fstat(&self.root)?));
        }
        match self.parent(path) {
            Ok((directory, name)) => look(&directory, name),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What a directory has under this name; nothing only if that is certain.
///
/// # Errors
/// It cannot be known.
pub fn look(directory: &Directory, name: &OsStr) -> io::Result<Option<Stat>> {
    match fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All a directory contains.
///
/// # Errors
/// It cannot be read to its end.
pub fn list(directory: &Directory) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(Found {
                name: name.to_vec(),
                kind: entry.file_type(),
            });
        }
    }
    Ok(found)
}

/// What kind of file this is.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether it is a directory.
pub fn is_directory(stat: &Stat) -> bool {
    kind(stat) == FileType::Directory
}

/// Whether the error says that nothing can be at a path, or something with a symlink on its way.
pub fn is_missing(error: &io::Error) -> bool {
    let codes = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    codes
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// The components of a path.
pub fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
}

/// The directory a path is in, with its slash, and its name without one.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let bare = path.strip_suffix(b"/").unwrap_or(path);
    let start = bare.iter().rposition(|&byte| byte == b'/');
    bare.split_at(start.map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_on_the_way_are_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::fs::write(directory.path().join("a/b/f"), "1").unwrap();
        symlink("a", directory.path().join("l")).unwrap();
        let place = Place::enter(directory.path().as_os_str().as_bytes()).unwrap();
        let kind_of = |path: &str| place.look(path.as_bytes()).unwrap().map(|stat| kind(&stat));
        assert_eq!(kind_of("/a/b/f"), Some(FileType::RegularFile));
        assert_eq!(kind_of("/a/b/"), Some(FileType::Directory));
        assert_eq!(kind_of("/l"), Some(FileType::Symlink));
        assert_eq!(kind_of("/"), Some(FileType::Directory));
        for path in ["/l/b/f", "/l/b/", "/a/b/f/x", "/x"] {
            assert_eq!(kind_of(path), None, "{path}");
        }
    }

    #[test]
    fn paths_are_cut() {
        assert_eq!(split(b"/a/b/"), (b"/a/".as_slice(), b"b".as_slice()));
        assert_eq!(split(b"/a"), (b"/".as_slice(), b"a".as_slice()));
        assert_eq!(names(b"//a//b/").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
