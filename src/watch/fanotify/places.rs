//! The places at which file systems are seen: the roots of trees and the mount points below them.
//!
//! A mark belongs to a file system, so one serves all places of it, and ends with it. A mark does
//! not keep a file system from being unmounted, but an open directory does. A place is therefore
//! opened in a turn that looks up directories, and closed after the turn.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

use super::records::HandleRef;
use crate::log;
use crate::mount_table;
use crate::sys;
use crate::watch::Loss;

/// The type of btrfs in the result of statfs(2).
const BTRFS: u64 = 0x9123_683E;

/// How often a directory is opened that the kernel may be deleting just then.
const MAX_TRIES: u32 = 100;
/// The pause between two of these tries.
const RETRY_PAUSE: Duration = Duration::from_micros(100);

/// The reason why a directory cannot be watched.
#[derive(Debug)]
pub enum Refusal {
    /// It does not exist or cannot be opened.
    Missing(io::Error),
    /// Its file system or this process cannot be served by fanotify; the text is the reason.
    Unsuitable(String),
}

impl Refusal {
    /// Returns true if there is not a directory, or it is unsuitable. Otherwise this is not known, for
    /// instance because there are not enough descriptors.
    fn is_final(&self) -> bool {
        match self {
            Refusal::Missing(error) => {
                let number = error.raw_os_error();
                !matches!(
                    number,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
                )
            }
            Refusal::Unsuitable(_) => true,
        }
    }
}

/// One place.
pub struct Place {
    /// The absolute path, ending with `/`.
    pub path: Vec<u8>,
    /// The number of the file system, as in events.
    pub system: [u8; 8],
    /// Type and bytes of the handle of the directory, as in events.
    pub handle: Vec<u8>,
    /// True for the root of a tree.
    pub is_root: bool,
    device: u64,
    mount: i32,
    /// The file system had a mark already.
    was_marked: bool,
    open: Option<OwnedFd>,
}

impl Place {
    /// Returns true if this is the directory of the place.
    pub fn is(&self, handle: HandleRef<'_>) -> bool {
        handle.system == self.system && handle.bytes == self.handle
    }

    /// Looks at what is at the path.
    fn look(path: &[u8], is_root: bool) -> Result<(Place, File), Refusal> {
        let unsuitable = |what: &str, error: io::Error| {
            let reason = log::reason(&error);
            Refusal::Unsuitable(format!("{what}: {reason}"))
        };
        let file = open(path).map_err(Refusal::Missing)?;
        let status = file.metadata().map_err(Refusal::Missing)?;
        let (handle, mount) = handle_of(file.as_fd())
            .map_err(|error| unsuitable("the file system has no file handles", error))?;
        let id = rustix::fs::fstatvfs(&file).map_err(|error| Refusal::Missing(error.into()))?;
        let place = Place {
            path: path.to_vec(),
            system: system_bytes(id.f_fsid),
            handle,
            is_root,
            device: status.dev(),
            mount,
            was_marked: false,
            open: None,
        };
        Ok((place, file))
    }

    /// Returns true if both are the same directory on the same mount.
    fn is_same(&self, other: &Place) -> bool {
        (self.device, self.system, &self.handle) == (other.device, other.system, &other.handle)
    }

    /// Returns a descriptor of the place, which is open until [`Places::close`].
    ///
    /// # Errors
    ///
    /// `ESTALE` if another directory is there.
    pub fn open(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.open.is_none() {
            let (found, file) =
                Place::look(&self.path, self.is_root).map_err(|refusal| match refusal {
                    Refusal::Missing(error) => error,
                    Refusal::Unsuitable(_) => io::Error::from_raw_os_error(libc::ESTALE),
                })?;
            if !found.is_same(self) {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
            self.open = Some(file.into());
        }
        let open = self.open.as_ref().map(AsFd::as_fd);
        open.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The result of [`Places::set`].
pub struct PlaceChanges {
    /// The roots that cannot be watched, each with the reason.
    pub refused: Vec<(Vec<u8>, Refusal)>,
    /// The places are not the same as before, or have other positions.
    pub is_other: bool,
    /// A place had lost its mark, and with it events.
    pub remarked: bool,
}

/// The places and the marks of their file systems.
pub struct Places {
    fanotify: OwnedFd,
    mask: u64,
    list: Vec<Place>,
}

impl Places {
    /// Opens a fanotify instance that reports these events.
    ///
    /// # Errors
    ///
    /// The reason why this process cannot use fanotify.
    pub fn new(mask: u64) -> Result<Places, String> {
        let class = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let names = libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID | libc::FAN_REPORT_TARGET_FID;
        let fanotify = sys::fanotify_init(class | names);
        let fanotify = fanotify.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => "it needs the capability CAP_SYS_ADMIN".into(),
            Some(libc::EINVAL) => "the kernel is older than Linux 5.17".into(),
            Some(libc::ENOSYS) => "the kernel has no fanotify".into(),
            _ => log::reason(&error),
        })?;
        let list = Vec::new();
        Ok(Places {
            fanotify,
            mask,
            list,
        })
    }

    /// Returns the descriptor that events are read from.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fanotify.as_fd()
    }

    /// Returns all places.
    pub fn all(&self) -> &[Place] {
        &self.list
    }

    /// Returns one place, by its position.
    pub fn get_mut(&mut self, place: usize) -> &mut Place {
        &mut self.list[place]
    }

    /// Returns the position of the place at a path.
    pub fn at(&self, path: &[u8]) -> Option<usize> {
        self.list.iter().position(|place| place.path == path)
    }

    /// Returns true if a directory of this place at this path is hidden by a mount.
    pub fn is_hidden(&self, place: usize, path: &[u8]) -> bool {
        let above = self.list[place].path.len();
        let mut others = self.list.iter();
        others.any(|other| other.path.len() > above && path.starts_with(&other.path))
    }

    /// Returns a place for the directory at this path, with the mark of its file system set.
    pub fn examine(&self, path: &[u8], is_root: bool) -> Result<Place, Refusal> {
        let (mut place, file) = Place::look(path, is_root)?;
        let refuse = |text: &str| Err(Refusal::Unsuitable(text.into()));
        if rustix::fs::fstatfs(&file).is_ok_and(|found| found.f_type as u64 == BTRFS) {
            return refuse("btrfs reports subvolumes as separate file systems");
        }
        if place.system == [0; 8] {
            return refuse("the file system has no number");
        }
        let twin = |other: &&Place| other.system == place.system && other.device != place.device;
        if self.list.iter().any(|other| twin(&other)) {
            return refuse("another file system has the same number");
        }
        place.was_marked = self.is_marked(file.as_fd());
        if let Err(error) = self.mark(file.as_fd()) {
            if error.raw_os_error() == Some(libc::EPERM) {
                return refuse("it needs the capability CAP_SYS_ADMIN");
            }
            let reason = log::reason(&error);
            return refuse(&format!("the file system cannot be marked: {reason}"));
        }
        match open_directory(file.as_fd(), &place.handle) {
            Ok(_) => Ok(place),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                refuse("it needs the capability CAP_DAC_READ_SEARCH")
            }
            Err(error) => refuse(&format!(
                "directories cannot be opened by handle: {}",
                log::reason(&error)
            )),
        }
    }

    /// Replaces the places by those of these roots and of the mount points below them that are
    /// wanted.
    pub fn set(&mut self, roots: &[Vec<u8>], wanted: &dyn Fn(&[u8]) -> bool) -> PlaceChanges {
        let table = mount_table::read();
        let mut before = std::mem::take(&mut self.list);
        let mut refused = Vec::new();
        for root in roots {
            let tree = self.tree(root, &table, wanted);
            if let Err(refusal) = self.add_tree(root, tree, &mut before) {
                refused.push((root.clone(), refusal));
            }
        }
        let is_kept = |(one, other): (&Place, &Place)| one.path == other.path && one.is_same(other);
        let pairs = || self.list.iter().zip(&before);
        let is_other = self.list.len() != before.len() || !pairs().all(is_kept);
        let had = |place: &Place| before.iter().any(|other| is_kept((place, other)));
        let mut kept = self.list.iter().filter(|place| had(place));
        let remarked = kept.any(|place| !place.was_marked);
        self.unmark(&before);
        PlaceChanges {
            refused,
            is_other,
            remarked,
        }
    }

    /// Adds the places of one tree. If it is not known whether there is a tree, its places among
    /// those before are kept.
    fn add_tree(
        &mut self,
        root: &[u8],
        tree: Result<Vec<Place>, Refusal>,
        before: &mut Vec<Place>,
    ) -> Result<(), Refusal> {
        let places: Vec<_> = match tree {
            // A place that is there already belongs to a tree around this one.
            Ok(places) => {
                let new = |place: &Place| self.at(&place.path).is_none();
                places.into_iter().filter(new).collect()
            }
            Err(refusal) if refusal.is_final() => return Err(refusal),
            Err(_) => before
                .extract_if(.., |place| place.path.starts_with(root))
                .collect(),
        };
        self.list.extend(places);
        Ok(())
    }

    /// Returns the places of one tree.
    fn tree(
        &self,
        root: &[u8],
        table: &[u8],
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<Place>, Refusal> {
        let mut places = Vec::new();
        let result = self.tree_places(root, table, wanted, &mut places);
        if result.is_err() {
            self.unmark(&places);
        }
        result.map(|()| places)
    }

    fn tree_places(
        &self,
        root: &[u8],
        table: &[u8],
        wanted: &dyn Fn(&[u8]) -> bool,
        places: &mut Vec<Place>,
    ) -> Result<(), Refusal> {
        // Looking at a file system of another machine may take long.
        let shared = |path: &[u8]| match mount_table::shared_kind(table, path) {
            Some(kind) => Err(format!(
                "{kind} is a file system that other hosts may change"
            )),
            None => Ok(()),
        };
        shared(root).map_err(Refusal::Unsuitable)?;
        places.push(self.examine(root, true)?);
        let mut points: Vec<_> = mount_table::points_below(table, root)
            .filter(|point| wanted(point))
            .collect();
        points.sort();
        points.dedup();
        for point in points {
            let place = shared(&point).map_err(Refusal::Unsuitable);
            match place.and_then(|()| self.examine(&point, false)) {
                Ok(place) => places.push(place),
                Err(Refusal::Unsuitable(why)) => {
                    let point = log::escape(&point);
                    return Err(Refusal::Unsuitable(format!("{point}: {why}")));
                }
                // A file, or hidden by another mount.
                Err(Refusal::Missing(_)) => {}
            }
        }
        Ok(())
    }

    /// Returns why the place does not have its directory any more, if that is so.
    pub fn loss(&self, place: usize) -> Option<Loss> {
        let place = &self.list[place];
        let is_mounted = || mount_table::has_mount(&mount_table::read(), place.mount);
        let (found, file) = match Place::look(&place.path, place.is_root) {
            Ok(found) => found,
            Err(refusal) if !refusal.is_final() => return None,
            Err(_) if is_mounted() => return Some(Loss::Deleted),
            Err(_) => return Some(Loss::Unmounted),
        };
        if !found.is_same(place) {
            let is_covered = found.device == place.device || is_mounted();
            return Some(if is_covered {
                Loss::Moved
            } else {
                Loss::Unmounted
            });
        }
        // Without the mark this is a new mount of the same file system.
        (!self.is_marked(file.as_fd())).then_some(Loss::Unmounted)
    }

    /// Removes a place.
    pub fn remove(&mut self, place: usize) {
        let gone = self.list.remove(place);
        self.unmark(&[gone]);
    }

    /// Closes what was opened in this turn.
    pub fn close(&mut self) {
        for place in &mut self.list {
            place.open = None;
        }
    }

    fn mark(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        sys::fanotify_mark(self.fanotify.as_fd(), flags, self.mask, directory)
    }

    /// Returns true if the file system has a mark. The test removes an event that no mark has from
    /// the mark: this changes nothing, and fails without a mark.
    fn is_marked(&self, directory: BorrowedFd<'_>) -> bool {
        let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM;
        sys::fanotify_mark(self.fanotify.as_fd(), flags, libc::FAN_ACCESS, directory).is_ok()
    }

    /// Removes the marks of file systems that have no place any more. This fails only for file
    /// systems that are not at their paths any more.
    fn unmark(&self, gone: &[Place]) {
        for place in gone {
            if self.list.iter().any(|other| other.device == place.device) {
                continue;
            }
            if let Ok((found, file)) = Place::look(&place.path, place.is_root)
                && found.device == place.device
            {
                let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM;
                let fanotify = self.fanotify.as_fd();
                let _ = sys::fanotify_mark(fanotify, flags, self.mask, file.as_fd());
            }
        }
    }
}

/// Opens a directory.
fn open(path: &[u8]) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK)
        .open(OsStr::from_bytes(path))
}

/// Returns type and bytes of the handle of an open directory, as in events, and the number of the
/// mount.
pub fn handle_of(directory: BorrowedFd<'_>) -> io::Result<(Vec<u8>, i32)> {
    let (kind, bytes, mount) = sys::handle_of(directory)?;
    Ok(([&kind.to_ne_bytes(), bytes.as_slice()].concat(), mount))
}

/// Opens a directory by its handle, as in events. While the kernel deletes the directory, it may
/// report `ENOMEM` for a moment (seen with ext4), so that error is returned only if it lasts.
pub fn open_directory(mount: BorrowedFd<'_>, handle: &[u8]) -> io::Result<OwnedFd> {
    let (kind, bytes) = handle
        .split_first_chunk()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut tries = 1..MAX_TRIES;
    loop {
        match sys::open_directory_by_handle(mount, i32::from_ne_bytes(*kind), bytes) {
            Err(error) if error.kind() == ErrorKind::OutOfMemory && tries.next().is_some() => {
                thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Returns the number of a file system as in events: two numbers of 32 bits, the lower one first.
fn system_bytes(number: u64) -> [u8; 8] {
    let halves = [number as u32, (number >> 32) as u32];
    let [first, second] = halves.map(u32::to_ne_bytes);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first);
    bytes[4..].copy_from_slice(&second);
    bytes
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
