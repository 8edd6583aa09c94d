//! Files that are replaced as a whole: a reader sees the old content or the new, never a part.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

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
/// overwritten.
///
/// # Errors
/// See [`ReplaceError`].
pub fn write(path: &Path, fill: Fill<'_>) -> Result<(), ReplaceError> {
    let Some(target) = replaceable(path) else {
        return overwrite(path, fill);
    };
    let mut replacement = match Replacement::begin(&target) {
        Ok(replacement) => replacement,
        Err(e) if is_not_ours_to_replace(&e) => return overwrite(path, fill),
        Err(e) => return Err(ReplaceError::Open(e)),
    };
    write_to(&mut replacement.file, fill).map_err(ReplaceError::Write)?;
    match replacement.replace() {
        Ok(_) => Ok(()),
        Err(e) if is_not_ours_to_replace(&e) => overwrite(path, fill),
        Err(e) => Err(ReplaceError::Write(e)),
    }
}

/// The ordinary file, there or not, that a path leads to.
pub fn replaceable(path: &Path) -> Option<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_file() => Some(path.to_owned()),
        Ok(m) if m.is_symlink() => {
            let target = fs::canonicalize(path).ok()?;
            fs::metadata(&target)
                .is_ok_and(|m| m.is_file())
                .then_some(target)
        }
        Ok(_) => None,
        Err(e) => (e.kind() == ErrorKind::NotFound).then(|| path.to_owned()),
    }
}

/// A file that will take the place of another. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    temporary: Temporary,
    target: PathBuf,
}

impl Replacement {
    /// Makes an empty file with the mode and owner of the target, if that exists.
    ///
    /// # Errors
    /// When no file can be made beside the target.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let (file, temporary) = Temporary::beside(target)?;
        if let Ok(old) = fs::metadata(target) {
            // Only root may; others keep what they can.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
            file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        let target = target.to_owned();
        Ok(Self {
            file,
            temporary,
            target,
        })
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
        fs::rename(&self.temporary.path, &self.target)?;
        self.temporary.exists = false;
        Ok(self.file)
    }

    /// Puts the file in its place if there is none (link(2)).
    ///
    /// # Errors
    /// `AlreadyExists`, or what else went wrong; the file is removed then.
    pub fn create(self) -> io::Result<File> {
        fs::hard_link(&self.temporary.path, &self.target)?;
        Ok(self.file)
    }
}

/// A name that does not outlive its use.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    exists: bool,
}

impl Temporary {
    /// Makes an empty file `.NAME.PID.new` in the directory of the target.
    fn beside(target: &Path) -> io::Result<(File, Self)> {
        let mut name = OsString::from(".");
        name.push(target.file_name().ok_or(ErrorKind::InvalidInput)?);
        name.push(format!(".{}.new", std::process::id()));
        let path = target.with_file_name(name);

        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o644);
        let file = match options.open(&path) {
            // Of a process that was killed; in a container all have the same number.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&path)?;
                options.open(&path)?
            }
            other => other?,
        };
        Ok((file, Self { path, exists: true }))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.exists {
            let _ = fs::remove_file(&self.path);
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

/// Without `O_NONBLOCK` a named pipe that nobody reads would hold up the daemon.
fn overwrite(path: &Path, fill: Fill<'_>) -> Result<(), ReplaceError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(ReplaceError::Open)?;
    write_to(&mut file, fill).map_err(ReplaceError::Write)
}

fn write_to(file: &mut File, fill: Fill<'_>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    fill(&mut out)?;
    out.flush()
}
