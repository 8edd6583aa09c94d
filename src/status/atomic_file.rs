//! Replaces files atomically: a reader sees the old content or the new, never a part.

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

/// The maximum number of temporary names that are tried.
const MAX_ATTEMPTS: usize = 10;

/// Writes the content of a file; may be called twice.
pub type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// The step that failed.
#[derive(Debug)]
pub enum ReplaceError {
    /// The file or its replacement cannot be created.
    Open(io::Error),
    /// The content cannot be written; the old one is unchanged, unless the file had to be
    /// overwritten.
    Write(io::Error),
}

/// Writes a file and replaces the old one, if there is one.
///
/// Mode and owner are kept, a new file has mode 0644 less the umask; the target of a symbolic link
/// is replaced, not the link. A file that cannot be replaced, because its directory is not
/// writable, or because it is a mount point or no regular file, is overwritten. Objects that
/// another user may have put there are neither followed nor overwritten ([`safe_path`]).
///
/// # Errors
/// See [`ReplaceError`].
pub fn write(path: &Path, fill: Fill<'_>) -> Result<(), ReplaceError> {
    let location = safe_path::locate(path).map_err(ReplaceError::Open)?;
    write_at(&location, fill)
}

/// As [`write()`], for a location that is open already.
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

/// A file that will replace another one. It is removed if dropped before that.
#[derive(Debug)]
pub struct Replacement<'l> {
    file: File,
    temporary: Temporary<'l>,
}

/// A name that is removed when dropped.
#[derive(Debug)]
struct Temporary<'l> {
    location: &'l Location,
    name: OsString,
    exists: bool,
}

impl<'l> Replacement<'l> {
    /// Creates an empty file with the mode and owner of the target, if that exists and is not
    /// another user's.
    ///
    /// # Errors
    /// No file can be created in the directory of the target.
    pub fn begin(location: &'l Location) -> io::Result<Self> {
        let (file, temporary) = Temporary::beside(location)?;
        let old = location.found().filter(|stat| location.may_use(stat));
        if let Some(old) = old {
            // Only root may change the owner; for others a failure is ignored.
            let _ = fchown(&file, Some(old.st_uid), Some(old.st_gid));
            file.set_permissions(Permissions::from_mode(old.st_mode & 0o777))?;
        }
        Ok(Self { file, temporary })
    }

    /// Returns the file to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Renames the file over the existing one (rename(2)). Returns the descriptor of
    /// [`Replacement::file`] itself, so a record lock on it is kept.
    ///
    /// # Errors
    /// The file cannot be renamed; it is removed then.
    pub fn replace(mut self) -> io::Result<File> {
        let Temporary { location, name, .. } = &self.temporary;
        let directory = location.directory();
        fs::renameat(directory, name, directory, location.name())?;
        self.temporary.exists = false;
        Ok(self.file)
    }

    /// Links the file to its name if that does not exist (link(2)).
    ///
    /// # Errors
    /// `AlreadyExists`, or another error; the file is removed then.
    pub fn create(self) -> io::Result<File> {
        let Temporary { location, name, .. } = &self.temporary;
        let directory = location.directory();
        let flags = AtFlags::empty();
        fs::linkat(directory, name, directory, location.name(), flags)?;
        Ok(self.file)
    }
}

impl<'l> Temporary<'l> {
    /// Makes an empty file `.NAME.PID.new` in the directory of the target; with another number if a
    /// file of another user has that name.
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
                    // The file belongs to a killed process: in a container all have the same pid.
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

/// Returns true for errors of a directory that is not writable, contains too long names or belongs
/// to another user, and for errors of rename(2) at mount points. Lack of space is not among them:
/// the old content is then kept.
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

/// Overwrites a file. One that another user may have created is not changed, so it is truncated
/// only after it was verified.
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
