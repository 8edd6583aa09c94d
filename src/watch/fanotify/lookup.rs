//! Finds the path of a directory by its handle.
//!
//! The path follows the links of directories to their parents. A rename changes such a link. It is
//! known from the first rename that has been read and not handled, otherwise it is looked up on
//! disk. The state of the disk may be ahead of events that have not been read yet: see
//! [`shadow`](super::shadow).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::FanotifyBackend;
use super::directories::DirectoryId;
use super::places::{handle_of, open_directory};
use super::records::{EntryName, HandleRef};
use crate::paths;

/// The maximum number of look-ups of a directory that is being moved at the same time.
const MAX_ATTEMPTS: usize = 5;

/// The depth up to which it is found out where a directory is whose path is too long.
const MAX_DEPTH: usize = 10_000;

/// The result of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundDirectory {
    /// It is in the tree of the place.
    Inside(DirectoryId),
    /// It is elsewhere, or below a directory that no scope wants.
    Outside,
    /// It has been deleted.
    Gone,
}

/// The reason why a look-up has no result.
enum Unclear {
    /// Directories are being moved.
    Moving,
    /// The system refuses.
    Failed,
}

/// The link of a directory to its parent.
struct DirectoryLink {
    handle: Vec<u8>,
    parent: Vec<u8>,
    name: Vec<u8>,
    /// The disk has it, maybe after events that have not been read.
    is_of_disk: bool,
}

impl From<Errno> for Unclear {
    /// A directory that is being deleted is not there, or stale.
    fn from(error: Errno) -> Unclear {
        match error {
            Errno::NOENT | Errno::STALE => Unclear::Moving,
            _ => Unclear::Failed,
        }
    }
}

impl FanotifyBackend {
    /// Finds the directory with this handle.
    pub(super) fn find(&mut self, place: usize, handle: &[u8]) -> FoundDirectory {
        if let Some(id) = self.known.find(place, handle) {
            return FoundDirectory::Inside(id);
        }
        if self.known.is_outside(place, handle) {
            return FoundDirectory::Outside;
        }
        let mut why = "directories are being moved";
        for _ in 0..MAX_ATTEMPTS {
            match self.look_up(place, handle) {
                Ok(found) => return found,
                Err(Unclear::Moving) => {}
                Err(Unclear::Failed) => {
                    why = "a directory cannot be found";
                    break;
                }
            }
        }
        self.lose(why);
        FoundDirectory::Gone
    }

    /// Finds a directory that some scope wants, and sets `path` to its path.
    pub(super) fn find_wanted(&mut self, place: usize, handle: &[u8]) -> Option<DirectoryId> {
        let FoundDirectory::Inside(id) = self.find(place, handle) else {
            return None;
        };
        let FanotifyBackend {
            known,
            path,
            scopes,
            ..
        } = self;
        let is_inside = known.path(id, path);
        (is_inside && known.is_wanted(id, path, |path| scopes.wanted(path))).then_some(id)
    }

    /// Returns what the name in the directory is now.
    pub(super) fn kind_of(&mut self, place: usize, entry: EntryName<'_>) -> Option<FileType> {
        let status = self.status_of(place, entry)?;
        Some(FileType::from_raw_mode(status.st_mode))
    }

    /// Returns the inode number of what has the name in the directory now.
    pub(super) fn number_of(&mut self, place: usize, entry: EntryName<'_>) -> Option<u64> {
        Some(self.status_of(place, entry)?.st_ino)
    }

    fn status_of(&mut self, place: usize, entry: EntryName<'_>) -> Option<Stat> {
        let handle = entry.directory.bytes;
        let is_open = |open: &(usize, Vec<u8>, OwnedFd)| open.0 == place && open.1 == handle;
        if !self.opened.as_ref().is_some_and(is_open) {
            let directory = self.open(place, handle).ok()??;
            self.opened = Some((place, handle.to_vec(), directory));
        }
        let (_, _, directory) = self.opened.as_ref()?;
        let name = OsStr::from_bytes(entry.name);
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Determines the place of a known directory again.
    pub(super) fn relink(&mut self, place: usize, target: Option<HandleRef<'_>>) {
        let Some(handle) = target.map(|target| target.bytes) else {
            return;
        };
        // The directory may have been outside of the sources.
        self.known.filters_changed();
        if self.known.find(place, handle).is_none() {
            return;
        }
        let link = match self.link_of(place, handle.to_vec()) {
            Ok(Ok(link)) => link,
            Ok(Err(_)) => return self.known.leave(place, handle),
            Err(_) => {
                self.lose("a directory that has moved cannot be found");
                return self.known.leave(place, handle);
            }
        };
        let Some(parent) = self.find_inside(place, &link.parent) else {
            return self.known.leave(place, handle);
        };
        let placed = self.known.place_at(place, handle, parent, &link.name);
        if placed.is_none() {
            // The known directories contradict each other.
            self.forget_directories();
        }
        if link.is_of_disk {
            self.note_link(place, handle, &link.parent, &link.name);
        }
    }

    /// Determines again the place of the directory that has this name now.
    pub(super) fn relink_name(&mut self, place: usize, entry: EntryName<'_>) {
        let parent = self.open(place, entry.directory.bytes);
        let Ok(Some(parent)) = parent else {
            return;
        };
        let directory = super::contents::open(&parent, entry.name);
        if let Ok((handle, _)) = directory
            .map_err(io::Error::from)
            .and_then(|directory| handle_of(directory.as_fd()))
        {
            let system = entry.directory.system;
            let bytes = &handle;
            self.relink(place, Some(HandleRef { system, bytes }));
        }
    }

    /// Opens a directory. The result is `None` if it is gone.
    pub(super) fn open(&mut self, place: usize, handle: &[u8]) -> io::Result<Option<OwnedFd>> {
        let mount = self.places.get_mut(place).open();
        let mount = mount.inspect_err(|_| self.places_changed = true)?;
        match open_directory(mount, handle) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn look_up(&mut self, place: usize, handle: &[u8]) -> Result<FoundDirectory, Unclear> {
        let mut links: Vec<DirectoryLink> = Vec::new();
        let mut handle = handle.to_vec();
        let base = loop {
            let link = match self.link_of(place, handle)? {
                Ok(link) => link,
                Err(_) if links.iter().any(|link| link.is_of_disk) => return Err(Unclear::Moving),
                Err(found) => return Ok(found),
            };
            handle = link.parent.clone();
            links.push(link);
            if let Some(id) = self.known.find(place, &handle) {
                break id;
            }
            if self.known.is_outside(place, &handle) {
                return Ok(FoundDirectory::Outside);
            }
        };
        let (mut id, mut path) = (base, Vec::new());
        for link in links.into_iter().rev() {
            if !self.known.path(id, &mut path) || !self.scopes.wanted(&path) {
                self.add_outside(place, &link.handle);
                return Ok(FoundDirectory::Outside);
            }
            let placed = self.known.place_at(place, &link.handle, id, &link.name);
            id = placed.ok_or(Unclear::Failed)?;
            if link.is_of_disk {
                self.note_link(place, &link.handle, &link.parent, &link.name);
            }
        }
        Ok(FoundDirectory::Inside(id))
    }

    /// Returns the link of a directory to its parent, as it was before the events that have been
    /// read and not handled.
    fn link_of(
        &mut self,
        place: usize,
        handle: Vec<u8>,
    ) -> Result<Result<DirectoryLink, FoundDirectory>, Unclear> {
        if let Some(link) = self.upcoming_link(place, &handle) {
            return Ok(Ok(link));
        }
        let directory = self.open(place, &handle).map_err(|_| Unclear::Failed)?;
        let Some(directory) = directory else {
            return Ok(Err(FoundDirectory::Gone));
        };
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let path = match readlinkat(CWD, link, Vec::new()) {
            Err(Errno::NAMETOOLONG) if fstat(&directory)?.st_nlink == 0 => {
                return Ok(Err(FoundDirectory::Gone));
            }
            Err(Errno::NAMETOOLONG) if !self.is_within(place, &directory)? => {
                self.add_outside(place, &handle);
                return Ok(Err(FoundDirectory::Outside));
            }
            path => paths::with_slash(&path?.into_bytes()),
        };
        if fstat(&directory)?.st_nlink == 0 {
            // The path in /proc ends with ` (deleted)`.
            return Ok(Err(FoundDirectory::Gone));
        }
        let Some((_, name)) = self.split(place, &path) else {
            self.add_outside(place, &handle);
            return Ok(Err(FoundDirectory::Outside));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(&directory, "..", flags, Mode::empty())?;
        let (parent, _) = handle_of(parent.as_fd()).map_err(|_| Unclear::Moving)?;
        let has_caught_up = self.catch_up();
        if let Some(link) = self.upcoming_link(place, &handle) {
            return Ok(Ok(link));
        }
        Ok(Ok(DirectoryLink {
            parent,
            name: name.to_vec(),
            handle,
            is_of_disk: !has_caught_up,
        }))
    }

    /// Returns true if a directory is in the tree of the place. Used for directories whose path the
    /// kernel does not report.
    fn is_within(&mut self, place: usize, directory: &OwnedFd) -> Result<bool, Unclear> {
        let device = fstat(directory)?.st_dev;
        let mut below = None;
        for _ in 0..MAX_DEPTH {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let at = below.as_ref().unwrap_or(directory);
            let parent = match openat(at, "..", flags, Mode::empty()) {
                // A directory outside of the bind mount has no path.
                Err(Errno::NOENT) if fstat(at)?.st_nlink > 0 => return Ok(false),
                parent => parent?,
            };
            let (found, before) = (fstat(&parent)?, fstat(at)?);
            let (handle, _) = handle_of(parent.as_fd()).map_err(|_| Unclear::Moving)?;
            let is_top = found.st_dev != device || found.st_ino == before.st_ino;
            if is_top || self.known.is_outside(place, &handle) {
                return Ok(false);
            }
            if self.known.find(place, &handle).is_some() {
                return Ok(true);
            }
            below = Some(parent);
        }
        Err(Unclear::Failed)
    }

    /// Records that a directory is of no concern.
    fn add_outside(&mut self, place: usize, handle: &[u8]) {
        self.known.add_outside(place, handle);
        let places = self.places.all();
        let system = places[place].system;
        let mut others = places.iter().enumerate();
        if others.all(|(other, at)| at.system != system || self.known.is_outside(other, handle)) {
            let bytes = handle;
            self.known.irrelevant.add(HandleRef { system, bytes });
        }
    }

    fn upcoming_link(&self, place: usize, handle: &[u8]) -> Option<DirectoryLink> {
        let system = self.places.all()[place].system;
        let (parent, name) = self.upcoming.name_of(system, handle)?;
        Some(DirectoryLink {
            parent: parent.clone(),
            name: name.clone(),
            handle: handle.to_vec(),
            is_of_disk: false,
        })
    }

    /// Splits the path of a directory below the root of a place into that of its parent and its
    /// name. Returns `None` if it is not seen there.
    fn split<'p>(&self, place: usize, path: &'p [u8]) -> Option<(&'p [u8], &'p [u8])> {
        let root = &self.places.all()[place].path;
        let below = path.strip_prefix(root.as_slice())?;
        if below.is_empty() || self.places.is_hidden(place, path) {
            return None;
        }
        Some(paths::split(path))
    }
}
