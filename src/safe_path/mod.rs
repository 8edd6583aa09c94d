//! Files and directories of the daemon in places that other users may change. A path is opened
//! component by component from `/`, so that the file that was checked is the file that is used.
//!
//! A symbolic link is followed only if it belongs to root or this user and no other user can have
//! created it. An existing file is used only if no other user can have put it there.
//!
//! * `access`: the users that can change the entries of a directory;
//! * `scratch`: private directories that are removed after use.

mod access;
mod scratch;

pub use access::{Access, Permissions, is_exposed};
pub use scratch::{ScratchDir, remove_stale};

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The maximum number of symbolic links in a path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The file system type of `/proc` in statfs(2).
const PROC_MAGIC: u64 = 0x9fa0;

const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    stat: Stat,
    /// The users that can create files in it, by its owner, mode and access control list.
    own: Access,
    /// The users that can replace the directory by another one.
    reach: Access,
}

/// A name in an open directory, with the file found there.
#[derive(Debug)]
pub struct Location {
    directory: Directory,
    name: OsString,
    found: Option<Stat>,
    /// A link of `/proc` that only the kernel can follow, such as the target of `/dev/stdout`.
    magic: bool,
}

/// Resolves a path up to its last component, which is not a symbolic link or does not exist.
///
/// # Errors
///
/// A directory is missing, or a symbolic link may have been created by another user.
pub fn locate(path: &Path) -> io::Result<Location> {
    let mut walk = PathWalk::begin(path, None)?;
    let (name, found, magic) = walk.go_to_last()?;
    if name == "." || name == ".." {
        return Err(Errno::ISDIR.into());
    }
    let directory = walk.here;
    Ok(Location {
        directory,
        name,
        found,
        magic,
    })
}

/// Opens a directory.
///
/// # Errors
///
/// It does not exist, or a symbolic link may have been created by another user.
pub fn enter(path: &Path) -> io::Result<Directory> {
    let mut walk = PathWalk::begin(path, Some("."))?;
    walk.go_to_last()?;
    Ok(walk.here)
}

impl Directory {
    fn of(fd: OwnedFd, reach: Access) -> io::Result<Directory> {
        let stat = fs::fstat(&fd)?;
        // Extended attributes of a descriptor opened with O_PATH are read by its name in `/proc`.
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let own = access::of_stat(&stat, &path);
        Ok(Directory {
            fd,
            stat,
            own,
            reach,
        })
    }

    /// Returns the users that can create files in it or replace it.
    pub fn access(&self) -> Access {
        self.reach.max(self.own)
    }

    /// Returns the users that can create files in it, by its owner, mode and access control list.
    pub fn own_access(&self) -> Access {
        self.own
    }

    /// Returns true if it belongs to this user and no other user can change its entries.
    pub fn is_private(&self) -> bool {
        self.access() == Access::Private && self.stat.st_uid == geteuid().as_raw()
    }

    /// Returns true if this user owns it, no other user can change its contents, and only members
    /// of groups permitted by root above it can replace it.
    pub fn is_ours(&self) -> bool {
        self.stat.st_uid == geteuid().as_raw()
            && self.own == Access::Private
            && self.reach != Access::Others
    }

    /// Creates a directory with mode 0700 in this one. It may exist already.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2).
    pub fn make(&self, name: &OsStr) -> io::Result<()> {
        match fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory in this one. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// There is no such directory.
    pub fn enter(&self, name: &OsStr) -> io::Result<Directory> {
        let fd = fs::openat(&self.fd, name, DIRECTORY, Mode::empty())?;
        let mut below = Directory::of(fd, self.access())?;
        // In a sticky directory nobody can rename the files of another user (inode(7)).
        let sticky = self.stat.st_mode & 0o1000 != 0 && is_own(&self.stat);
        if sticky && is_own(&below.stat) {
            below.reach = self.reach;
        }
        Ok(below)
    }

    /// Returns a name in this directory. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// Those of fstatat(2), except `ENOENT`.
    pub fn location(&self, name: &OsStr) -> io::Result<Location> {
        let found = look(self.as_fd(), name)?;
        let directory = Directory {
            fd: self.fd.try_clone()?,
            ..*self
        };
        let name = name.to_owned();
        Ok(Location {
            directory,
            name,
            found,
            magic: false,
        })
    }

    /// Opens an ordinary file of this directory, or creates it for this user alone with
    /// [`OFlags::CREATE`]. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or it may have been created by another user. `InvalidData`: it is
    /// not a regular file.
    pub fn open_file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let file = self.location(name)?.open(flags, Mode::RUSR | Mode::WUSR)?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, "not a regular file"))
        }
    }

    /// Returns the names in the directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = fs::openat(&self.fd, ".", flags, Mode::empty())?;
        let entries = Dir::read_from(readable)?.map(|entry| {
            let name = entry?.file_name().to_bytes().to_vec();
            Ok(OsString::from_vec(name))
        });
        let names: io::Result<Vec<_>> = entries.collect();
        let is_entry = |name: &OsString| name != "." && name != "..";
        Ok(names?.into_iter().filter(is_entry).collect())
    }

    /// Returns true if both are the same directory.
    pub fn is_same(&self, other: &Directory) -> bool {
        identity(&self.stat) == identity(&other.stat)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Location {
    /// Returns the directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns the name in the directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns the status of the file found under the name, if there is one.
    pub fn found(&self) -> Option<&Stat> {
        self.found.as_ref()
    }

    /// Returns true if another file can be renamed onto it: it is an ordinary file, or nothing.
    pub fn is_replaceable(&self) -> bool {
        let ordinary = |stat: &Stat| kind(stat) == FileType::RegularFile;
        !self.magic && self.found.as_ref().is_none_or(ordinary)
    }

    /// Opens the file without blocking and without following symbolic links.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or it may have been created by another user.
    pub fn open(&self, flags: OFlags, mode: Mode) -> io::Result<File> {
        let mut flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        if !self.magic {
            flags |= OFlags::NOFOLLOW;
        }
        let file = fs::openat(&self.directory, &self.name, flags, mode)?;
        if self.magic || self.may_use(&fs::fstat(&file)?) {
            Ok(file.into())
        } else {
            Err(untrusted("the file may have been created by another user"))
        }
    }

    /// Returns true if no other user can have created this file here. Other users can create their
    /// own files, and hard links of any file.
    pub fn may_use(&self, stat: &Stat) -> bool {
        let owners_own = stat.st_uid == self.directory.stat.st_uid;
        match (self.directory.access(), kind(stat)) {
            (Access::Private, _) => true,
            (_, FileType::RegularFile) if stat.st_nlink != 1 => false,
            (Access::Group, FileType::RegularFile) => true,
            (Access::Others, FileType::RegularFile) => is_own(stat) || owners_own,
            _ => is_own(stat),
        }
    }

    /// Returns true if this very file is under the name now.
    pub fn holds(&self, file: BorrowedFd<'_>) -> bool {
        let flags = if self.magic {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        match (
            fs::fstat(file),
            fs::statat(&self.directory, &self.name, flags),
        ) {
            (Ok(ours), Ok(there)) => identity(&ours) == identity(&there),
            _ => false,
        }
    }

    /// Returns a path for calls that need one. If other users may change its components, it leads
    /// through the open directory (proc_pid_fd(5)) and is valid as long as this value lives.
    pub fn path(&self, given: &Path) -> PathBuf {
        match self.directory.access() {
            Access::Others => {
                let number = self.directory.fd.as_raw_fd();
                PathBuf::from(format!("/proc/self/fd/{number}")).join(&self.name)
            }
            _ => given.to_owned(),
        }
    }

    /// Removes the name of a file that is not a directory.
    ///
    /// # Errors
    ///
    /// Those of unlink(2).
    pub fn unlink(&self) -> io::Result<()> {
        Ok(fs::unlinkat(&self.directory, &self.name, AtFlags::empty())?)
    }
}

/// The state of a path resolution.
struct PathWalk {
    here: Directory,
    /// The remaining components, the next one last.
    rest: Vec<OsString>,
    links: usize,
}

impl PathWalk {
    fn begin(path: &Path, and: Option<&str>) -> io::Result<PathWalk> {
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT.into());
        }
        let mut rest: Vec<OsString> = and.map(OsString::from).into_iter().collect();
        add_names(&mut rest, &std::path::absolute(path)?);
        Ok(PathWalk {
            here: root()?,
            rest,
            links: 0,
        })
    }

    /// Opens the directory of the last component. Returns the component, the status of its file,
    /// and true if it is a link that only the kernel can follow.
    fn go_to_last(&mut self) -> io::Result<(OsString, Option<Stat>, bool)> {
        while let Some(name) = self.rest.pop() {
            let last = self.rest.is_empty();
            if name == "." && !last {
                continue;
            }
            if name == "." || (name == ".." && last) {
                return Ok((name, None, false));
            }
            if name == ".." {
                self.ascend()?;
                continue;
            }
            let found = look(self.here.as_fd(), &name)?;
            match &found {
                Some(stat) if kind(stat) == FileType::Symlink => {
                    if is_proc(&self.here) {
                        self.may_follow(stat)?;
                        if last {
                            return Ok((name, found, true));
                        }
                        self.jump(&name)?;
                    } else {
                        self.follow(&name)?;
                    }
                }
                _ if last => return Ok((name, found, false)),
                _ => self.here = self.here.enter(&name)?,
            }
        }
        Ok((OsString::from("."), None, false))
    }

    /// Enters the parent directory. If other users can move this one, they also control its parent.
    fn ascend(&mut self) -> io::Result<()> {
        let flags = DIRECTORY;
        let fd = fs::openat(&self.here, "..", flags, Mode::empty())?;
        self.here = Directory::of(fd, self.here.reach)?;
        Ok(())
    }

    /// Follows a link of `/proc` by the kernel.
    fn jump(&mut self, name: &OsStr) -> io::Result<()> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let fd = fs::openat(&self.here, name, flags, Mode::empty())?;
        self.here = Directory::of(fd, self.here.reach)?;
        Ok(())
    }

    /// Adds the components of a symbolic link's target to the remaining ones.
    fn follow(&mut self, name: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = fs::openat(&self.here, name, flags, Mode::empty())?;
        self.may_follow(&fs::fstat(&link)?)?;
        let target = fs::readlinkat(&link, "", Vec::new())?;
        let target = OsString::from_vec(target.into_bytes());
        if target.as_bytes().starts_with(b"/") {
            self.here = root()?;
        }
        add_names(&mut self.rest, Path::new(&target));
        Ok(())
    }

    fn may_follow(&self, link: &Stat) -> io::Result<()> {
        if is_own(link) && self.here.access() != Access::Others {
            return Ok(());
        }
        Err(untrusted(
            "a symbolic link in the path may belong to another user and is not followed",
        ))
    }
}

fn root() -> io::Result<Directory> {
    let fd = fs::openat(CWD, "/", DIRECTORY, Mode::empty())?;
    Directory::of(fd, Access::Private)
}

/// Adds the components of a path in reverse order.
fn add_names(rest: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    rest.extend(names);
}

/// Returns true if a file belongs to the superuser or to this user.
pub fn is_own(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

/// Returns the type of a file.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns device and inode.
pub fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn look(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_proc(directory: &Directory) -> bool {
    fs::fstatfs(directory).is_ok_and(|stat| stat.f_type as u64 == PROC_MAGIC)
}

fn untrusted(text: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, text)
}
