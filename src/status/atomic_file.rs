//! Files that are replaced as a whole: a reader sees the old content or the new, never a part.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::hash::BuildHasher;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::safe_path::{self, Location};

/// How many temporary names are tried.
const MAX_ATTEMPTS: usize = 10;

/// Writes the content of a file; may be asked twice.
pub type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// Which step went wrong.
#[derive(Debug)]
pub enum ReplaceError {
    /// The file or its replacement cannot be made.
    Open(io::Error),
    /// The content cannot be written; the old one is still there, unless the file had to be
    /// overwritten.
    Write(io::Error),
}

/// Writes a file and puts it in the place of the old one, if there is one.
///
/// Mode and owner stay as they are, a new file has mode 0644 less the umask; the target of a
/// symbolic link is replaced, not the link. Where a file cannot be replaced, because its
/// directory is not writable, or because it is a mount point or no ordinary file, it is
/// overwritten. What another user may have put there is neither followed nor overwritten
/// ([`safe_path`]).
///
/// # Errors
/// See [`ReplaceError`].
pub fn write(path: &Path, fill: Fill<'_>) -> Result<(), ReplaceError> {
    let location = safe_path::locate(path).map_err(ReplaceError::Open)?;
    write_at(&location, fill)
}

/// As [`write()`], where the way to the file has been gone already.
///
/// # Errors
/// See [`ReplaceError`].
pub fn write_at(location: &Location, fill: Fill<'_>) -> Result<(), ReplaceError> {
    if !location.is_replaceable() {
        return overwrite(location, fill);
    }
    let mut replacement = match Replacement::begin(location) {
        Ok(replacement) => replacement,
        Err(e) if is_not_ours_to_replace(&e) => return overwrite(location, fill),
        Err(e) => return Err(ReplaceError::Open(e)),
    };
    write_to(&mut replacement.file, fill).map_err(ReplaceError::Write)?;
    match replacement.replace() {
        Ok(_) => Ok(()),
        Err(e) if is_not_ours_to_replace(&e) => overwrite(location, fill),
        Err(e) => Err(ReplaceError::Write(e)),
    }
}

/// A file that will take the place of another. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Replacement<'l> {
    file: File,
    temporary: Temporary<'l>,
}

/// A name that does not outlive its use.
#[derive(Debug)]
struct Temporary<'l> {
    location: &'l Location,
    name: OsString,
    exists: bool,
}

impl<'l> Replacement<'l> {
    /// Makes an empty file with the mode and owner of the target, if that exists and is not
    /// another user's doing.
    ///
    /// # Errors
    /// When no file can be made beside the target.
    pub fn begin(location: &'l Location) -> io::Result<Self> {
        let (file, temporary) = Temporary::beside(location)?;
        let old = location.found().filter(|stat| location.may_use(stat));
        if let Some(old) = old {
            // Only root may; others keep what they can.
            let _ = fchown(&file, Some(old.st_uid), Some(old.st_gid));
            file.set_permissions(Permissions::from_mode(old.st_mode & 0o777))?;
        }
        Ok(Self { file, temporary })
    }

    /// The file to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts the file in its place, over the one that is there (rename(2)). What is returned is
    /// the very descriptor of [`Replacement::file`], so a record lock on it stays.
    ///
    /// # Errors
    /// When that fails; the file is removed then.
    pub fn replace(mut self) -> io::Result<File> {
        let Temporary { location, name, .. } = &self.temporary;
        let directory = location.directory();
        fs::renameat(directory, name, directory, location.name())?;
        self.temporary.exists = false;
        Ok(self.file)
    }

    /// Puts the file in its place if there is none (link(2)).
    ///
    /// # Errors
    /// `AlreadyExists`, or what else went wrong; the file is removed then.
    pub fn create(self) -> io::Result<File> {
        let Temporary { location, name, .. } = &self.temporary;
        let directory = location.directory();
        let flags = AtFlags::empty();
        fs::linkat(directory, name, directory, location.name(), flags)?;
        Ok(self.file)
    }
}

impl<'l> Temporary<'l> {
    /// Makes an empty file `.NAME.PID.new` in the directory of the target; with another number
    /// where another user keeps that name taken.
    fn beside(location: &'l Location) -> io::Result<(File, Self)> {
        let directory = location.directory();
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut number = u64::from(std::process::id());
        for _ in 0..MAX_ATTEMPTS {
            let mut name = OsString::from(".");
            name.push(location.name());
            name.push(format!(".{number}.new"));
            let file = match fs::openat(directory, &name, flags, Mode::from_raw_mode(0o644)) {
                Ok(file) => file,
                Err(Errno::EXIST) => {
                    // Of a process that was killed; in a container all have the same number.
                    if fs::unlinkat(directory, &name, AtFlags::empty()).is_err() {
                        number = RandomState::new().hash_one(number);
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let temporary = Self {
                location,
                name,
                exists: true,
            };
            return Ok((file.into(), temporary));
        }
        Err(Errno::EXIST.into())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.exists {
            let directory = self.location.directory();
            let _ = fs::unlinkat(directory, &self.name, AtFlags::empty());
        }
    }
}

/// What a directory says that is not writable, full of long names or somebody else's, and what
/// rename(2) says of mount points. Lack of space is none of these: the old content stays then.
fn is_not_ours_to_replace(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::EACCES
                | libc::EPERM
                | libc::EROFS
                | libc::ENAMETOOLONG
                | libc::EBUSY
                | libc::EXDEV
                | libc::EEXIST
        )
    )
}

/// A file that another user may have planted stays as it is, so it is cut only when it is known.
fn overwrite(location: &Location, fill: Fill<'_>) -> Result<(), ReplaceError> {
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let opened = location.open(flags, Mode::from_raw_mode(0o644));
    let mut file = opened.map_err(ReplaceError::Open)?;
    let metadata = file.metadata().map_err(ReplaceError::Open)?;
    if metadata.is_file() {
        file.set_len(0).map_err(ReplaceError::Write)?;
    }
    write_to(&mut file, fill).map_err(ReplaceError::Write)
}

fn write_to(file: &mut File, fill: Fill<'_>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    fill(&mut out)?;
    out.flush()
}
