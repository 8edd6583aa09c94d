//! Determines the effects of a full comparison on the target. Nothing is changed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Stat, readlinkat};

use super::beneath::below;
use super::beneath::{self, Beneath, is_directory};
use super::walk::Walk;
use super::{CopyJob, attributes, deletions};
use crate::batch::itemized::{Difference, Itemized};
use crate::log::escape;

/// Passes each entry that the job would touch to `found`, with its path relative to the source.
/// Returns the number of entries on the target, if it deletes.
///
/// # Errors
///
/// A text for the user: the source or the target cannot be read.
pub fn preview(job: &CopyJob, found: &mut dyn FnMut(Itemized<'_>)) -> Result<Option<u64>, String> {
    let cannot = |what: &str, path: &[u8], error: &io::Error| {
        format!("cannot {what} {}: {error}", escape(path))
    };
    let source =
        Beneath::enter(&job.source).map_err(|error| cannot("read", &job.source, &error))?;
    let target = target(&job.target).map_err(|error| cannot("enter", &job.target, &error))?;
    let mut total = None;
    if let Some(target) = &target {
        let name = &mut |path: &[u8]| {
            found(Itemized {
                difference: Difference::Deleted,
                bytes: 0,
                path: bare(path),
            });
        };
        let count = deletions::count(job, &source, target, name)
            .map_err(|error| cannot("read", &job.target, &error))?;
        total = count.total;
    }
    sent(job, &source, target.as_ref(), found)
        .map_err(|error| cannot("compare with", &job.target, &error))?;
    Ok(total)
}

/// Returns the target; `None` if it would be created.
fn target(path: &[u8]) -> io::Result<Option<Beneath>> {
    match Beneath::enter(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = Path::new(OsStr::from_bytes(path)).parent();
            let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
            Beneath::enter(parent.unwrap_or(Path::new(".")).as_os_str().as_bytes())?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reports what would be sent.
fn sent(
    job: &CopyJob,
    source: &Beneath,
    target: Option<&Beneath>,
    found: &mut dyn FnMut(Itemized<'_>),
) -> io::Result<()> {
    let mut walk = Walk::through(b"/");
    while let Some(directory) = walk.enter_next() {
        let directory = directory.to_vec();
        for entry in beneath::list(&source.directory(&directory)?)? {
            let name = below(&directory, &entry.name, false);
            let Some(stat) = source.lookup(&name)? else {
                continue;
            };
            let path = below(&directory, &entry.name, is_directory(&stat));
            if job.excludes(&path) {
                continue;
            }
            let there = match target {
                Some(target) => target.lookup(&name)?,
                None => None,
            };
            if let Some(difference) = difference(&name, &stat, there, source, target)? {
                let is_sent = difference <= Difference::Changed;
                let is_file = beneath::kind(&stat) == FileType::RegularFile;
                found(Itemized {
                    difference,
                    bytes: if is_sent && is_file {
                        stat.st_size as u64
                    } else {
                        0
                    },
                    path: bare(&path),
                });
            }
            if is_directory(&stat) {
                walk.add(entry.name);
            }
        }
    }
    Ok(())
}

/// Returns what happens to an entry that exists in the source; `None` if the target has it.
fn difference(
    name: &[u8],
    stat: &Stat,
    there: Option<Stat>,
    source: &Beneath,
    target: Option<&Beneath>,
) -> io::Result<Option<Difference>> {
    let (Some(there), Some(target)) = (there, target) else {
        return Ok(Some(Difference::New));
    };
    let kind = beneath::kind(stat);
    let is_same = kind == beneath::kind(&there)
        && match kind {
            FileType::RegularFile => attributes::is_copy(stat, &there),
            FileType::Directory => true,
            FileType::Symlink => return is_linked_alike(name, source, target),
            _ => stat.st_rdev == there.st_rdev,
        };
    Ok(if !is_same {
        Some(Difference::Changed)
    } else if !attributes::has_same_rights(stat, &there) {
        Some(Difference::Attributes)
    } else {
        None
    })
}

fn is_linked_alike(
    name: &[u8],
    source: &Beneath,
    target: &Beneath,
) -> io::Result<Option<Difference>> {
    let text = |tree: &Beneath| -> io::Result<_> {
        let (parent, name) = tree.parent(name)?;
        Ok(readlinkat(parent.as_fd(), name, Vec::new())?)
    };
    Ok((text(source)? != text(target)?).then_some(Difference::Changed))
}

fn bare(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn entries_that_agree_are_not_named() {
        let directory = tempfile::tempdir().unwrap();
        let [s, t] = ["s", "t"].map(|name| directory.path().join(name));
        for top in [&s, &t] {
            std::fs::create_dir_all(top.join("directory")).unwrap();
            for name in ["link", "other link"] {
                symlink("x", top.join(name)).unwrap();
            }
            for name in ["pipe", "closed pipe"] {
                let rights = nix::sys::stat::Mode::S_IRWXU;
                nix::unistd::mkfifo(&top.join(name), rights).unwrap();
            }
        }
        std::fs::remove_file(t.join("other link")).unwrap();
        symlink("y", t.join("other link")).unwrap();
        let mode = PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(t.join("closed pipe"), mode).unwrap();
        let [source, target] =
            [&s, &t].map(|path| Beneath::enter(path.as_os_str().as_bytes()).unwrap());
        let difference = |name: &str| {
            let path = format!("/{name}");
            let stat = |tree: &Beneath| tree.lookup(path.as_bytes()).unwrap();
            let (stat, there) = (stat(&source).unwrap(), stat(&target));
            difference(path.as_bytes(), &stat, there, &source, Some(&target)).unwrap()
        };
        for name in ["directory", "link", "pipe"] {
            assert_eq!(difference(name), None, "{name}");
        }
        assert_eq!(difference("other link"), Some(Difference::Changed));
        assert_eq!(difference("closed pipe"), Some(Difference::Attributes));
    }
}
