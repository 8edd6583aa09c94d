//! Copies owner, mode, times and extended attributes, as far as permitted.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Gid, Mode, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::beneath::OpenDir;

/// The set-user-id and set-group-id bits; they are never set for another owner.
const SET_ID: u32 = 0o6000;

/// The attributes that could be set.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// False if the owner or the group is another than that of the source.
    pub owner: bool,
    /// False if the target does not permit the mode.
    pub permissions: bool,
    /// False if the target does not permit the times.
    pub times: bool,
}

/// Counts of attributes that could not be set although the file arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unset {
    /// The mode.
    pub permissions: u64,
    /// The times.
    pub times: u64,
}

impl Unset {
    /// Counts the attributes that could not be set.
    pub fn add(&mut self, given: Given) {
        self.permissions += u64::from(!given.permissions);
        self.times += u64::from(!given.times);
    }
}

/// Copies the attributes of the source to an open file or directory. Equal attributes are not
/// written.
///
/// # Errors
/// Mode or times cannot be set. An attribute that the target does not permit is not an error. An
/// owner is set as far as permitted, as by cp(1).
pub fn give(source: BorrowedFd<'_>, stat: &Stat, target: BorrowedFd<'_>) -> io::Result<Given> {
    let now = fs::fstat(target)?;
    let mut mode = stat.st_mode & 0o7777;
    let mut given = Given {
        owner: true,
        permissions: true,
        times: true,
    };
    let mut changed = false;
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
        given.owner = give_owner(stat, target);
        if !given.owner {
            mode &= !SET_ID;
        }
        changed = true;
    }
    changed |= extended(source, target);
    // Owners and access lists change the mode; it is set after them.
    if changed || now.st_mode & 0o7777 != mode {
        given.permissions = is_set(fs::fchmod(target, Mode::from_raw_mode(mode)))?;
    }
    given.times = is_set(fs::futimens(target, &times(stat)))?;
    Ok(given)
}

/// Returns false if an attribute was not set because the file belongs to another user, or its file
/// system does not support the attribute.
fn is_set(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Sets owner and group of an open file, or else the group. Returns true if both are set.
fn give_owner(stat: &Stat, target: BorrowedFd<'_>) -> bool {
    let flags = AtFlags::EMPTY_PATH;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let given = fs::chownat(target, "", Some(uid), Some(gid), flags).is_ok();
    if !given {
        let _ = fs::chownat(target, "", None, Some(gid), flags);
    }
    given
}

/// Sets owner and times of a symlink, opened with `O_PATH`. Some file systems store no times of
/// links, so a failure is ignored.
pub fn give_link(stat: &Stat, link: BorrowedFd<'_>) {
    give_owner(stat, link);
    let given = fs::utimensat(link, "", &times(stat), AtFlags::EMPTY_PATH);
    if given == Err(Errno::INVAL) {
        // Before Linux 5.8 the times of a link's descriptor can be set only by its name in /proc.
        let path = format!("/proc/self/fd/{}", link.as_raw_fd());
        let _ = fs::utimensat(fs::CWD, path, &times(stat), AtFlags::empty());
    }
}

/// Copies the attributes to a pipe, socket or device. `directory` is private: no other user can
/// replace the file.
///
/// # Errors
/// Mode or times cannot be set.
pub fn give_special(stat: &Stat, directory: &OpenDir, name: &OsStr) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let mut mode = stat.st_mode & 0o7777;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    if fs::chownat(directory.as_fd(), name, Some(uid), Some(gid), flags).is_err() {
        mode &= !SET_ID;
        let _ = fs::chownat(directory.as_fd(), name, None, Some(gid), flags);
    }
    // This follows links, but a private directory contains none.
    let mode = Mode::from_raw_mode(mode);
    fs::chmodat(directory.as_fd(), name, mode, AtFlags::empty())?;
    Ok(fs::utimensat(directory.as_fd(), name, &times(stat), flags)?)
}

/// Returns true if a file of the target may get another name as a copy of this source: the kind
/// agrees and, for regular files, size and time.
pub fn is_linkable(source: &Stat, target: &Stat) -> bool {
    let same_kind = super::beneath::kind(source) == super::beneath::kind(target);
    match super::beneath::kind(source) {
        fs::FileType::RegularFile => is_copy(source, target),
        _ => same_kind && source.st_rdev == target.st_rdev,
    }
}

/// Returns true if a regular file is assumed to have the contents of its source: size and time
/// agree. On file systems without fractions of a second only whole seconds are compared.
pub fn is_copy(source: &Stat, target: &Stat) -> bool {
    let regular = |stat: &Stat| super::beneath::kind(stat) == fs::FileType::RegularFile;
    regular(source)
        && regular(target)
        && source.st_size == target.st_size
        && source.st_mtime == target.st_mtime
        && (source.st_mtime_nsec == target.st_mtime_nsec || target.st_mtime_nsec == 0)
}

/// Returns true if [`is_copy`] does and the source has not changed since the target was written,
/// be it that its modification time was set back.
pub fn is_proven_copy(source: &Stat, target: &Stat) -> bool {
    is_copy(source, target) && !may_be_newer(source, target)
}

/// Returns true if the source may have changed after the target was written:
/// file systems have coarse clocks.
pub fn may_be_newer(source: &Stat, target: &Stat) -> bool {
    source.st_ctime + 2 >= target.st_ctime
}

/// Returns true if mode and owner agree.
pub fn has_same_rights(source: &Stat, target: &Stat) -> bool {
    let rights = |stat: &Stat| (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
    rights(source) == rights(target)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}

/// Copies extended attributes, access lists among them. Returns true if any was changed. File
/// systems without them, and names this user may not set, are no failure. Security labels are not
/// copied: the system derives them from the path.
fn extended(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> bool {
    let wanted = attribute_names(source);
    let there = attribute_names(target);
    let mut touched = false;
    for name in there.iter().filter(|name| !wanted.contains(name)) {
        touched |= fs::fremovexattr(target, OsStr::from_bytes(name)).is_ok();
    }
    for name in &wanted {
        let name = OsStr::from_bytes(name);
        let Some(value) = attribute(source, name) else {
            continue;
        };
        if attribute(target, name).as_ref() != Some(&value) {
            touched |= fs::fsetxattr(target, name, &value, XattrFlags::empty()).is_ok();
        }
    }
    touched
}

fn attribute_names(fd: BorrowedFd<'_>) -> Vec<Vec<u8>> {
    let list = grown(|buffer| fs::flistxattr(fd, buffer)).unwrap_or_default();
    list.split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter(|name| !name.starts_with(b"security.selinux") && !name.starts_with(b"trusted."))
        .map(<[u8]>::to_vec)
        .collect()
}

fn attribute(fd: BorrowedFd<'_>, name: &OsStr) -> Option<Vec<u8>> {
    grown(|buffer| fs::fgetxattr(fd, name, buffer))
}

/// Reads into a growing buffer; most files have nothing to read.
fn grown(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Option<Vec<u8>> {
    let mut buffer = [0; 256];
    match read(&mut buffer) {
        Ok(length) => return Some(buffer[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(_) => return None,
    }
    let mut buffer = vec![0; 1 << 16];
    let length = read(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

/// Gives the owner of a directory the rights to list and fill it; root needs none.
pub fn open_up(directory: &OpenDir) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(stat) = fs::fstat(directory.as_fd())
        && stat.st_mode & 0o700 != 0o700
    {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
        // If it is not permitted, the next operation reports the error.
        let _ = fs::fchmod(directory.as_fd(), mode);
    }
}

/// Repeats an operation in a directory that was read-only, as its copy is, after making it
/// writable.
pub fn attributes_may_forbid<T>(
    directory: &OpenDir,
    act: impl Fn() -> rustix::io::Result<T>,
) -> io::Result<T> {
    match act() {
        Err(Errno::ACCESS) => {
            open_up(directory);
            Ok(act()?)
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::beneath::Beneath;
    use crate::test_user::{NOBODY, without_rights_of_root};

    fn stat(change: impl FnOnce(&mut Stat)) -> Stat {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stat = fs::fstat(&file).unwrap();
        (stat.st_size, stat.st_mtime, stat.st_mtime_nsec) = (7, 1000, 500);
        (stat.st_ctime, stat.st_rdev) = (1000, 0);
        change(&mut stat);
        stat
    }

    fn of_type(kind: fs::FileType) -> Stat {
        stat(|stat| stat.st_mode = kind.as_raw_mode() | 0o600)
    }

    #[test]
    fn a_copy_agrees_in_kind_size_and_time() {
        let source = stat(|_| ());
        let is_copy_with = |change: fn(&mut Stat)| is_copy(&source, &stat(change));
        assert!(is_copy_with(|_| ()));
        assert!(
            is_copy_with(|there| there.st_mtime_nsec = 0),
            "whole seconds"
        );
        let others: [fn(&mut Stat); 5] = [
            |there| there.st_size = 8,
            |there| there.st_mtime = 1001,
            |there| there.st_mtime_nsec = 501,
            |there| (there.st_size, there.st_mtime_nsec) = (8, 0),
            |there| (there.st_mtime, there.st_mtime_nsec) = (1001, 0),
        ];
        for (number, other) in others.into_iter().enumerate() {
            assert!(!is_copy_with(other), "{number}");
        }
        let pipe = of_type(fs::FileType::Fifo);
        assert!(!is_copy(&source, &pipe) && !is_copy(&pipe, &source));
        assert!(!is_copy(&pipe, &pipe));
    }

    #[test]
    fn a_copy_is_proven_if_its_source_is_older() {
        let source = stat(|_| ());
        for (written, proven) in [(1000, false), (1002, false), (1003, true)] {
            let there = stat(|there| there.st_ctime = written);
            assert_eq!(is_proven_copy(&source, &there), proven, "{written}");
        }
        let other = stat(|there| (there.st_size, there.st_ctime) = (8, 2000));
        assert!(!is_proven_copy(&source, &other));
    }

    /// Another user may have put something else in the place of the copy.
    #[test]
    fn only_a_copy_gets_another_name() {
        let source = stat(|_| ());
        assert!(is_linkable(&source, &source));
        assert!(!is_linkable(&source, &stat(|there| there.st_size = 8)));
        let kinds = [fs::FileType::Fifo, fs::FileType::CharacterDevice];
        let [pipe, device] = kinds.map(of_type);
        assert!(is_linkable(&pipe, &pipe));
        assert!(!is_linkable(&pipe, &device) && !is_linkable(&pipe, &source));
        let mut other = device;
        other.st_rdev = 5;
        assert!(!is_linkable(&device, &other));
    }

    #[test]
    fn what_is_not_permitted_is_no_error() {
        assert!(is_set(Ok(())).is_ok_and(|set| set));
        for errno in [Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::OPNOTSUPP] {
            assert!(is_set(Err(errno)).is_ok_and(|set| !set), "{errno:?}");
        }
        for errno in [Errno::IO, Errno::ROFS, Errno::NOSPC] {
            assert!(is_set(Err(errno)).is_err(), "{errno:?}");
        }
    }

    /// A user may give a file to one of the user's groups, but not to another owner.
    #[test]
    fn the_group_is_set_if_the_owner_cannot_be() {
        if !rustix::process::geteuid().is_root() {
            return crate::test_skip::skip("takes a file of another group");
        }
        let target = tempfile::tempfile().unwrap();
        std::os::unix::fs::fchown(&target, Some(NOBODY), Some(0)).unwrap();
        let mut stat = fs::fstat(&target).unwrap();
        (stat.st_uid, stat.st_gid) = (0, NOBODY);
        without_rights_of_root(|_| assert!(!give_owner(&stat, target.as_fd())));
        let found = fs::fstat(&target).unwrap();
        assert_eq!((found.st_uid, found.st_gid), (NOBODY, NOBODY));
    }

    /// The bits would give the rights of the user who owns the copy.
    #[test]
    fn set_id_bits_are_kept_for_the_same_owner_only() {
        fn check(directory: &std::path::Path) {
            let [source, target] = ["source", "target"]
                .map(|name| std::fs::File::create_new(directory.join(name)).unwrap());
            let is_root = rustix::process::geteuid().is_root();
            let mut stat = fs::fstat(&source).unwrap();
            stat.st_mode |= 0o6755;
            let mode = || fs::fstat(&target).unwrap().st_mode & 0o7777;
            let given = give(source.as_fd(), &stat, target.as_fd()).unwrap();
            assert!(given.owner && mode() == 0o6755);
            stat.st_uid += 1;
            let given = give(source.as_fd(), &stat, target.as_fd()).unwrap();
            let wanted = if is_root { 0o6755 } else { 0o755 };
            assert_eq!((given.owner, mode()), (is_root, wanted));

            let place = Beneath::enter(directory.as_os_str().as_bytes()).unwrap();
            let place = place.directory(b"/").unwrap();
            let pipe = directory.join("pipe");
            nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
            give_special(&stat, &place, OsStr::new("pipe")).unwrap();
            assert_eq!(fs::lstat(&pipe).unwrap().st_mode & 0o7777, wanted);
        }
        check(tempfile::tempdir().unwrap().path());
        without_rights_of_root(check);
    }

    #[test]
    fn the_owner_of_a_directory_gets_the_rights_to_fill_it_and_no_others() {
        without_rights_of_root(|directory| {
            use std::os::unix::fs::PermissionsExt;
            let place = Beneath::enter(directory.as_os_str().as_bytes()).unwrap();
            let place = place.directory(b"/").unwrap();
            for (mode, wanted) in [(0o1540, 0o1740), (0o755, 0o755)] {
                std::fs::set_permissions(directory, PermissionsExt::from_mode(mode)).unwrap();
                open_up(&place);
                let mode = fs::fstat(place.as_fd()).unwrap().st_mode;
                assert_eq!(mode & 0o7777, wanted);
            }
        });
    }

    #[test]
    fn attributes_that_could_not_be_set_are_counted() {
        let mut unset = Unset::default();
        for (permissions, times) in [(false, true), (true, true), (false, false)] {
            unset.add(Given {
                owner: false,
                permissions,
                times,
            });
        }
        assert_eq!((unset.permissions, unset.times), (2, 1));
    }
}
