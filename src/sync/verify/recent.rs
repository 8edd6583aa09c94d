//! Search for files of a source that have changed since a given time.
//!
//! The search compares the ctime of inodes, which cannot be set by users. A rename changes the
//! ctime of a directory and of those that it leaves and enters, but not of its contents. A
//! directory that has changed like the one that it is in may have been renamed, so its contents
//! count as changed.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};

use crate::batch::collapse::path_order;
use crate::local::beneath::{self, Beneath};
use crate::log;
use crate::paths;

/// The maximum number of files returned by one search.
pub const MAX_FOUND: usize = 100_000;

/// The parameters of a search.
pub struct Search<'a> {
    /// The source: absolute, with a trailing slash.
    pub source: &'a [u8],
    pub since: SystemTime,
    /// The search begins behind this path in [`path_order`]; at the start if it is empty.
    pub after: &'a [u8],
    /// Returns true for relative paths to skip. Directories end with a slash.
    pub excluded: &'a dyn Fn(&[u8]) -> bool,
    /// Returns true if the search has to stop.
    pub cancelled: &'a dyn Fn() -> bool,
    pub most: usize,
}

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Relative paths, beginning with a slash, in [`path_order`].
    pub files: Vec<Vec<u8>>,
    /// More files follow behind the last one.
    pub more: bool,
}

/// A pending step in [`path_order`]; paths have no trailing slash.
enum PathStep {
    /// A file to be returned.
    File(Vec<u8>),
    /// A directory to be read.
    Directory {
        path: Vec<u8>,
        /// The directory or one above it was renamed.
        renamed: bool,
    },
}

impl Search<'_> {
    /// Reads the source. Unreadable paths are skipped, since rsync cannot send them either.
    /// Symlinks are not followed.
    pub fn run(&self) -> Recent {
        let mut recent = Recent::default();
        let place = match Beneath::enter(self.source) {
            Ok(place) => place,
            Err(error) => {
                let source = log::escape(self.source);
                log::say("Debug", format_args!("cannot search {source}: {error}"));
                return recent;
            }
        };
        let mut steps = vec![PathStep::Directory {
            path: Vec::new(),
            renamed: false,
        }];
        while let Some(step) = steps.pop() {
            match step {
                _ if (self.cancelled)() => break,
                PathStep::Directory { path, renamed } => {
                    let mut below = self.read(&place, &path, renamed);
                    below.reverse();
                    steps.append(&mut below);
                }
                PathStep::File(_) if recent.files.len() >= self.most => {
                    recent.more = true;
                    break;
                }
                PathStep::File(path) => recent.files.push(path),
            }
        }
        recent
    }

    /// Returns the steps for the contents of a directory.
    fn read(&self, place: &Beneath, directory: &[u8], renamed: bool) -> Vec<PathStep> {
        let listed = place.directory(directory).and_then(|open| {
            let changed = self.is_recent(&rustix::fs::fstat(&open)?);
            Ok((beneath::list(&open)?, changed, open))
        });
        let Ok((mut names, changed, open)) = listed else {
            return Vec::new();
        };
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let (mut steps, mut files) = (Vec::new(), 0);
        for name in names {
            let path = [directory, b"/", &name.name].concat();
            if self.is_done(&path) {
                continue;
            }
            let Ok(Some(stat)) = beneath::lookup(&open, OsStr::from_bytes(&name.name)) else {
                continue;
            };
            match beneath::kind(&stat) {
                FileType::Directory if !(self.excluded)(&paths::with_slash(&path)) => {
                    let renamed = renamed || (changed && self.is_recent(&stat));
                    steps.push(PathStep::Directory { path, renamed });
                }
                FileType::RegularFile
                    if (renamed || self.is_recent(&stat)) && !(self.excluded)(&path) =>
                {
                    steps.push(PathStep::File(path));
                    files += 1;
                }
                _ => {}
            }
            // The next search continues behind these.
            if files > self.most {
                break;
            }
        }
        steps
    }

    /// Returns true for files returned by an earlier search, and for directories it has completed.
    fn is_done(&self, path: &[u8]) -> bool {
        let around = self.after.strip_prefix(path);
        path_order(path, self.after) != Ordering::Greater
            && !around.is_some_and(|rest| rest.starts_with(b"/"))
    }

    fn is_recent(&self, stat: &Stat) -> bool {
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        changed >= since_epoch(self.since)
    }
}

/// Returns seconds and nanoseconds since the epoch; zero for earlier times.
fn since_epoch(time: SystemTime) -> (i64, u64) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() as i64, since.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// Returns a tree whose files are all older than the returned time.
    fn site() -> (tempfile::TempDir, SystemTime) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in ["a/b", "a.x", "c/excluded", "z"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["a/b/f", "a/f", "a.x/f", "c/excluded/f", "c/f", "z/f", "f"] {
            fs::write(root.join(path), "1").unwrap();
        }
        symlink("a", root.join("link")).unwrap();
        let since = moment(root);
        (directory, since)
    }

    /// Returns a time between earlier and later changes.
    fn moment(root: &Path) -> SystemTime {
        let probe = root.join("probe");
        let changed = |path: &Path| {
            fs::write(path, "").unwrap();
            let data = fs::metadata(path).unwrap();
            (data.ctime(), data.ctime_nsec())
        };
        let first = changed(&probe);
        let then = loop {
            let then = changed(&probe);
            if then > first {
                break then;
            }
        };
        fs::remove_file(&probe).unwrap();
        UNIX_EPOCH + Duration::new(then.0 as u64, then.1 as u32)
    }

    fn search(root: &Path, since: SystemTime, most: usize, after: &[u8]) -> Recent {
        let source = [root.as_os_str().as_bytes(), b"/"].concat();
        let search = Search {
            source: &source,
            since,
            after,
            excluded: &|path| path.starts_with(b"/c/excluded"),
            cancelled: &|| false,
            most,
        };
        search.run()
    }

    fn found(root: &Path, since: SystemTime) -> Vec<String> {
        let files = search(root, since, usize::MAX, b"").files.into_iter();
        files.map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn what_has_changed_since_is_found() {
        let (directory, since) = site();
        let root = directory.path();
        let none: [&str; 0] = [];
        assert_eq!(found(root, since), none);
        fs::write(root.join("a/b/f"), "2").unwrap();
        fs::write(root.join("c/excluded/f"), "2").unwrap();
        // Neither times that were set nor a rename hide a change.
        let old = fs::File::options()
            .write(true)
            .open(root.join("z/f"))
            .unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        fs::rename(root.join("f"), root.join("c/g")).unwrap();
        // As the source has changed too, `c` may have been renamed.
        assert_eq!(found(root, since), ["/a/b/f", "/c/f", "/c/g", "/z/f"]);
        assert_eq!(found(root, moment(root)), none);
    }

    #[test]
    fn a_renamed_directory_stands_for_what_is_in_it() {
        let (directory, since) = site();
        let root = directory.path();
        fs::rename(root.join("a"), root.join("z/moved")).unwrap();
        fs::rename(root.join("a.x"), root.join("c/excluded/moved")).unwrap();
        let moved = ["/z/f", "/z/moved/b/f", "/z/moved/f"];
        assert_eq!(found(root, since), moved);
        // A change of its entries does not hide that it was renamed.
        fs::create_dir(root.join("z/moved/new")).unwrap();
        assert_eq!(found(root, since), moved);
        let permissions = fs::Permissions::from_mode(0o700);
        fs::set_permissions(root.join("z/moved/b"), permissions.clone()).unwrap();
        let since = moment(root);
        // Its own change alone is no rename.
        fs::set_permissions(root.join("z/moved"), permissions).unwrap();
        assert_eq!(found(root, since), [""; 0]);
    }

    #[test]
    fn searches_go_on_where_the_last_one_ended() {
        let (directory, _) = site();
        let root = directory.path();
        let all = search(root, UNIX_EPOCH, usize::MAX, b"");
        assert_eq!(all.files.len(), 6);
        assert!(!all.more);
        for most in 1..=7 {
            let (mut parts, mut after) = (Vec::new(), Vec::new());
            loop {
                let part = search(root, UNIX_EPOCH, most, &after);
                assert!(part.files.len() <= most && (!part.more || part.files.len() == most));
                parts.extend(part.files);
                if !part.more {
                    break;
                }
                after = parts.last().cloned().unwrap();
            }
            assert_eq!(parts, all.files, "{most}");
        }
    }

    #[test]
    fn a_source_that_is_not_there_has_nothing() {
        let since = SystemTime::now();
        let nothing = search(Path::new("/no such directory"), since, 1, b"");
        assert_eq!(nothing, Recent::default());
    }

    /// Its rule does not name the files in it.
    #[test]
    fn what_is_in_an_excluded_directory_is_not_found() {
        let (directory, _) = site();
        let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
        let search = Search {
            source: &source,
            since: UNIX_EPOCH,
            after: b"",
            excluded: &|path| path == b"/c/excluded/",
            cancelled: &|| false,
            most: usize::MAX,
        };
        let files = search.run().files;
        assert!(files.contains(&b"/c/f".to_vec()));
        assert!(!files.contains(&b"/c/excluded/f".to_vec()));
    }
}
