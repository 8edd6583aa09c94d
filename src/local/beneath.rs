//! A directory tree, opened component by component from its root, so that no symlink in it is
//! followed, even if it is created meanwhile.

use std::cell::{RefCell, RefMut};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::paths;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory and everything below it. Paths in it begin with `/`; trailing slashes are ignored.
pub struct Beneath {
    root: OpenDir,
    /// The path opened last, as most paths are near the one before.
    way: RefCell<OpenPath>,
}

/// The maximum number of open directories of a path: those at its end. Directories above them are
/// reached through `..`, so that neither depth nor descriptors limit a tree.
const MAX_OPEN: usize = 8;

/// An open directory and its parents up to the root.
#[derive(Default)]
struct OpenPath {
    /// The names, each followed by a slash.
    path: Vec<u8>,
    levels: Vec<OpenLevel>,
}

struct OpenLevel {
    /// The end of its name, slash included, in the path.
    end: usize,
    /// The directory, or its device and inode if it was closed because many below it are open.
    open: Result<OpenDir, (u64, u64)>,
}

impl OpenPath {
    /// Opens a directory of a tree, from the deepest one that is shared with this path.
    fn open(&mut self, root: &OpenDir, path: &[u8]) -> io::Result<OpenDir> {
        let path = trim(path);
        let shared = self.shared(path);
        let mut here = match self.go_back(shared) {
            Some(here) => here,
            None => {
                self.clear();
                root.clone()
            }
        };
        for name in paths::names(path.get(self.path.len()..).unwrap_or_default()) {
            here = here.enter(name)?;
            self.push(name, here.clone())?;
        }
        Ok(here)
    }

    /// Returns the number of levels shared with a path.
    fn shared(&self, path: &[u8]) -> usize {
        let leads = |level: &OpenLevel| {
            let bare = &self.path[..level.end - 1];
            paths::below(path, bare).is_some()
        };
        match self.levels.last() {
            Some(last) if leads(last) => self.levels.len(),
            _ => self.levels.partition_point(leads),
        }
    }

    /// Leaves all but `shared` levels and returns the last of these opened. Returns `None` if only
    /// the root is left or the directory must be opened from there.
    fn go_back(&mut self, shared: usize) -> Option<OpenDir> {
        let last = shared.checked_sub(1)?;
        let open = (last..self.levels.len()).find(|&at| self.levels[at].open.is_ok())?;
        if open - last > shared {
            return None;
        }
        let mut here = self.levels[open].open.clone().ok()?;
        for at in (last..open).rev() {
            here = here.enter(b"..").ok()?;
            // Another user may have moved the directory elsewhere.
            if self.levels[at].open.as_ref().err() != Some(&identity(&here).ok()?) {
                return None;
            }
        }
        self.levels.truncate(shared);
        let level = &mut self.levels[last];
        level.open = Ok(here.clone());
        self.path.truncate(level.end);
        Some(here)
    }

    fn push(&mut self, name: &[u8], directory: OpenDir) -> io::Result<()> {
        self.path.extend_from_slice(name);
        self.path.push(b'/');
        self.levels.push(OpenLevel {
            end: self.path.len(),
            open: Ok(directory),
        });
        let around = self.levels.len().checked_sub(MAX_OPEN + 1);
        if let Some(level) = around.map(|at| &mut self.levels[at])
            && let Ok(open) = &level.open
        {
            level.open = Err(identity(open)?);
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.path.clear();
        self.levels.clear();
    }
}

/// Returns device and inode of an open directory.
fn identity(directory: &OpenDir) -> io::Result<(u64, u64)> {
    let stat = fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// An open directory.
#[derive(Clone)]
pub struct OpenDir(Rc<OwnedFd>);

impl AsFd for OpenDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl OpenDir {
    /// Opens a known directory for reading.
    ///
    /// # Errors
    /// It may not be read.
    pub fn open(found: impl AsFd) -> io::Result<OpenDir> {
        let fd = fs::openat(found, ".", DIRECTORY, Mode::empty())?;
        Ok(OpenDir(Rc::new(fd)))
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// There is not a directory of that name.
    pub fn enter(&self, name: &[u8]) -> io::Result<OpenDir> {
        let fd = fs::openat(self, OsStr::from_bytes(name), DIRECTORY, Mode::empty())?;
        Ok(OpenDir(Rc::new(fd)))
    }
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct FoundEntry {
    /// The name, without slash.
    pub name: Vec<u8>,
    /// The kind; `Unknown` if the file system does not report it.
    pub kind: FileType,
}

impl Beneath {
    /// Opens a tree. Symlinks in `path` itself, which the user configured, are followed.
    ///
    /// # Errors
    /// It is not a directory or may not be read.
    pub fn enter(path: &[u8]) -> io::Result<Beneath> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let root = fs::openat(CWD, OsStr::from_bytes(path), flags, Mode::empty())?;
        Ok(Beneath::at(OpenDir(Rc::new(root))))
    }

    /// Returns the tree below an open directory.
    pub fn at(root: OpenDir) -> Beneath {
        Beneath {
            root,
            way: RefCell::default(),
        }
    }

    /// Opens a tree like [`Beneath::enter`], and creates the last directory of the path if only
    /// that is missing.
    ///
    /// # Errors
    /// It cannot be created or opened.
    pub fn enter_or_make(path: &[u8]) -> io::Result<Beneath> {
        match Beneath::enter(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(OsStr::from_bytes(path))?;
                Beneath::enter(path)
            }
            entered => entered,
        }
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` or `ELOOP` if the path does not lead to a directory without symlinks.
    pub fn directory(&self, path: &[u8]) -> io::Result<OpenDir> {
        self.way().open(&self.root, path)
    }

    /// Clears the cached path, after directories were renamed.
    pub fn forget(&self) {
        self.way().clear();
    }

    /// Clears the cached path from here on, after this directory was replaced.
    pub fn forget_at(&self, path: &[u8]) {
        let mut way = self.way();
        let path = trim(path);
        let shared = way.shared(path);
        let is_on_way = |level: &OpenLevel| level.end > path.len();
        if shared
            .checked_sub(1)
            .is_some_and(|last| is_on_way(&way.levels[last]))
        {
            way.clear();
        }
    }

    fn way(&self) -> RefMut<'_, OpenPath> {
        self.way.borrow_mut()
    }

    /// Opens the parent directory of a path; returns it and the last name. Not for the root.
    ///
    /// # Errors
    /// As for [`Beneath::directory`].
    pub fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(OpenDir, &'p OsStr)> {
        let (above, name) = paths::split(path);
        Ok((self.directory(above)?, OsStr::from_bytes(name)))
    }

    /// Returns the state of the object at a path; `None` only if it is certain that there is none.
    ///
    /// # Errors
    /// This cannot be determined.
    pub fn lookup(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        if paths::names(path).next().is_none() {
            return Ok(Some(fs::fstat(&self.root)?));
        }
        match self.parent(path) {
            Ok((directory, name)) => lookup(&directory, name),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the state of a name in a directory; `None` only if it is certain that it does not exist.
///
/// # Errors
/// This cannot be determined.
pub fn lookup(directory: &OpenDir, name: &OsStr) -> io::Result<Option<Stat>> {
    match fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file for reading. An object that replaced it meanwhile is neither followed nor waited
/// for.
///
/// # Errors
/// It cannot be opened, or is a symlink.
pub fn open_file(directory: &OpenDir, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(directory.as_fd(), name, flags, Mode::empty())
}

/// Returns the entries of a directory.
///
/// # Errors
/// It cannot be read completely.
pub fn list(directory: &OpenDir) -> io::Result<Vec<FoundEntry>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(FoundEntry {
                name: name.to_vec(),
                kind: entry.file_type(),
            });
        }
    }
    Ok(found)
}

/// Returns the kind of a file.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns true for a directory.
pub fn is_directory(stat: &Stat) -> bool {
    kind(stat) == FileType::Directory
}

/// Returns true if the error says that no object can be at a path, or that a symlink is in it.
pub fn is_missing(error: &io::Error) -> bool {
    let codes = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    codes
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// Returns the path without leading and trailing slashes.
fn trim(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&byte| byte != b'/');
    let end = path.iter().rposition(|&byte| byte != b'/');
    match (start, end) {
        (Some(start), Some(end)) => &path[start..=end],
        _ => &[],
    }
}

/// Returns the name in the form of system calls.
pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Returns the path with a trailing slash if it is that of a directory, otherwise without.
pub(super) fn typed(path: &[u8], stat: &Stat) -> Vec<u8> {
    match is_directory(stat) {
        true => paths::with_slash(path),
        false => paths::bare(path).to_vec(),
    }
}

/// Returns the path of a name in a directory.
pub(super) fn below(directory: &[u8], name: &[u8], is_directory: bool) -> Vec<u8> {
    let slash: &[u8] = if is_directory { b"/" } else { b"" };
    [directory, name, slash].concat()
}

#[cfg(test)]
#[path = "beneath_tests.rs"]
mod tests;
