//! The paths of a full comparison that its error lines name, found on disk.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::RetryEntries;
use crate::batch::temp_name::{self, TempName, variants};
use crate::paths;
use crate::queue::Etype;

/// The maximum number of names in a directory that is searched for long names.
const MAX_LISTED: usize = 100_000;

/// The long names of a directory; `None` if there may be more.
type LongNames = Option<Vec<Vec<u8>>>;

/// A directory that is compared with its contents.
pub struct WholeTree {
    /// The source without a trailing slash.
    source: Vec<u8>,
    /// The directory read last, and the long names in it.
    listed: RefCell<(Vec<u8>, LongNames)>,
}

impl WholeTree {
    /// Returns the tree of this source.
    pub fn new(source: &[u8]) -> WholeTree {
        WholeTree {
            source: paths::bare(source).to_vec(),
            listed: RefCell::default(),
        }
    }

    /// Finds the file at a path of the source. Returns false if the path may refer to more.
    pub fn find(&self, path: &[u8], with_contents: bool, found: &mut RetryEntries) -> bool {
        let mut all = variants(path);
        if let Some(temporary) = TempName::new(path) {
            let Some(names) = self.long_names(temporary) else {
                return false;
            };
            all.extend(names);
        }
        for variant in all {
            let bare = paths::bare(&variant);
            let on_disk = [&self.source, bare].concat();
            let Ok(metadata) = fs::symlink_metadata(OsStr::from_bytes(&on_disk)) else {
                continue;
            };
            match (metadata.is_dir(), with_contents) {
                // A Delete of an existing directory stands for its contents.
                (true, true) => found.insert(paths::with_slash(bare), Etype::Delete),
                (true, false) => found.insert(paths::with_slash(bare), Etype::Modify),
                (false, _) => found.insert(bare.to_vec(), Etype::Modify),
            };
        }
        true
    }

    /// Returns the paths with long names that a temporary file may belong to; `None` if there are
    /// too many names.
    fn long_names(&self, temporary: TempName<'_>) -> Option<Vec<Vec<u8>>> {
        let mut listed = self.listed.borrow_mut();
        if listed.0 != temporary.directory {
            let directory = [&self.source, temporary.directory].concat();
            *listed = (
                temporary.directory.to_vec(),
                list_long(&directory, MAX_LISTED),
            );
        }
        let names = listed.1.iter().flatten();
        let names = names.filter(|name| temporary.may_be_of_long(name));
        let paths = names.map(|name| [temporary.directory, name].concat());
        listed.1.is_some().then(|| paths.collect())
    }
}

fn list_long(directory: &[u8], max_listed: usize) -> Option<Vec<Vec<u8>>> {
    let Ok(listing) = fs::read_dir(OsStr::from_bytes(directory)) else {
        return Some(Vec::new());
    };
    let mut names = Vec::new();
    for (count, entry) in listing.flatten().enumerate() {
        if count >= max_listed {
            return None;
        }
        let name = entry.file_name().into_encoded_bytes();
        if temp_name::is_cut(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// Finds a path that the source does not have, so it was to be deleted on the target. Possible
/// names of temporary files are skipped.
pub fn find_at_target(path: &[u8], with_contents: bool, found: &mut RetryEntries) {
    if path == b"/" || TempName::new(path).is_some() {
        return;
    }
    if with_contents {
        found.insert(paths::with_slash(path), Etype::Delete)
    } else {
        found.insert(path.to_vec(), Etype::Delete)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_too_many_names_is_not_searched() {
        let scratch = tempfile::tempdir().unwrap();
        let long = "x".repeat(250);
        for name in ["a", "b", &long] {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        let directory = scratch.path().as_os_str().as_bytes();
        let long = Some(vec![long.into_bytes()]);
        assert_eq!(list_long(directory, 3), long);
        assert_eq!(list_long(directory, 2), None);
        assert_eq!(list_long(b"/nowhere", 2), Some(Vec::new()));
    }

    /// The retry of a temporary file would not send the file that it belongs to.
    #[test]
    fn a_temporary_file_and_the_target_itself_are_no_paths_to_delete() {
        for (path, expected) in [
            (&b"/"[..], None),
            (b"/d/.f.Ab12Cd", None),
            (b"/d/f", Some(b"/d/f".to_vec())),
        ] {
            let mut found = RetryEntries::new();
            find_at_target(path, false, &mut found);
            let expected = expected.map(|path| (path, Etype::Delete));
            assert_eq!(found.into_iter().next(), expected);
        }
    }
}
