//! Preserves hard links: names of one file at the source stay names of one file on the target.

use std::collections::{HashMap, HashSet};

use libc::nlink_t;
use rustix::fs::Stat;

use crate::paths;

/// The maximum number of files with several names that are remembered. The names of others are
/// searched for at each change.
const MAX_FILES: usize = 100_000;

/// The maximum length of a remembered path, so that deep trees take no more memory than wide ones.
const MAX_PATH: usize = 4096;

/// Device and inode, which identify a file.
pub type FileIdentity = (u64, u64);

/// Paths of files with several names.
#[derive(Default)]
pub struct HardLinks {
    known: HashMap<FileIdentity, Names>,
}

/// The names of one file.
#[derive(Default)]
struct Names {
    paths: Vec<Vec<u8>>,
    /// The number of links when a name was last recorded.
    links: nlink_t,
    /// The number of links that no search of the whole source has found.
    elsewhere: nlink_t,
}

impl Names {
    /// Returns how many of so many links are not known.
    fn unknown(&self, links: nlink_t) -> nlink_t {
        links.saturating_sub(self.paths.len() as nlink_t)
    }
}

impl HardLinks {
    /// Records a name. Returns true if its file has several.
    pub fn note(&mut self, stat: &Stat, path: &[u8]) -> bool {
        if stat.st_nlink < 2 || path.len() > MAX_PATH {
            return false;
        }
        let full = self.known.len() >= MAX_FILES;
        let key = identity(stat);
        if full && !self.known.contains_key(&key) {
            return true;
        }
        let names = self.known.entry(key).or_default();
        names.links = stat.st_nlink;
        if names.paths.iter().all(|known| known != path) {
            names.paths.push(path.to_vec());
        }
        true
    }

    /// Records that the whole source has been searched.
    pub fn searched(&mut self) {
        for names in self.known.values_mut() {
            names.elsewhere = names.unknown(names.links);
        }
    }

    /// Returns true if this file may have a name in the source that is not known, once for each
    /// such name: it may be elsewhere.
    pub fn lack_names(&mut self, stat: &Stat) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        let Some(names) = self.known.get_mut(&identity(stat)) else {
            return true;
        };
        let unknown = names.unknown(stat.st_nlink);
        let lacks = unknown > names.elsewhere;
        names.elsewhere = unknown;
        lacks
    }

    /// Returns other names under which this file was seen; they may belong to other files now.
    pub fn others(&self, stat: &Stat, path: &[u8]) -> Vec<Vec<u8>> {
        let names = self.known.get(&identity(stat));
        let paths = names.into_iter().flat_map(|names| &names.paths);
        paths.filter(|name| *name != path).cloned().collect()
    }

    /// Returns true if no file is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Returns the files with a name among `paths`, which have no trailing slashes, or in one of
    /// `directories`, which have them, each with all its names.
    pub fn files_with(
        &self,
        paths: &HashSet<&[u8]>,
        directories: &HashSet<&[u8]>,
    ) -> Vec<(FileIdentity, Vec<Vec<u8>>)> {
        let is_among = |path: &Vec<u8>| {
            let mut above = paths::directories(path);
            paths.contains(&path[..])
                || !directories.is_empty() && above.any(|above| directories.contains(above))
        };
        let has_name = |names: &Names| names.paths.iter().any(is_among);
        let found = self.known.iter().filter(|(_, names)| has_name(names));
        found
            .map(|(file, names)| (*file, names.paths.clone()))
            .collect()
    }

    /// Removes a name of this device and inode that belongs to another file now.
    pub fn forget(&mut self, file: FileIdentity, path: &[u8]) {
        if let Some(names) = self.known.get_mut(&file) {
            names.paths.retain(|name| name != path);
        }
    }
}

/// Returns the identity of a file.
pub fn identity(stat: &Stat) -> FileIdentity {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(links: nlink_t) -> Stat {
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_nlink = links;
        stat
    }

    #[test]
    fn only_the_name_of_another_file_is_forgotten() {
        let mut links = HardLinks::default();
        let file = file(3);
        for name in [b"/a", b"/b", b"/c"] {
            assert!(links.note(&file, name));
        }
        links.forget(identity(&file), b"/b");
        assert_eq!(links.others(&file, b"/a"), [b"/c"]);
    }

    #[test]
    fn files_with_one_name_and_long_paths_are_not_remembered() {
        let mut links = HardLinks::default();
        assert!(!links.note(&file(1), b"/a"));
        assert!(!links.note(&file(2), &[b'x'; MAX_PATH + 1]));
        assert!(links.is_empty());
        assert!(links.note(&file(2), &[b'x'; MAX_PATH]));
        assert!(!links.is_empty());
    }

    #[test]
    fn the_number_of_remembered_files_is_bounded() {
        let mut links = HardLinks::default();
        let mut stat = file(2);
        for inode in 0..=MAX_FILES {
            stat.st_ino = inode as u64;
            assert!(links.note(&stat, b"/a"));
        }
        assert_eq!(links.known.len(), MAX_FILES);
        // Further names of known files are.
        stat.st_ino = 0;
        assert!(links.note(&stat, b"/b"));
        assert_eq!(links.others(&stat, b"/a"), [b"/b"]);
    }

    #[test]
    fn a_file_with_several_names_lacks_those_that_were_not_seen() {
        for count in [2, 3] {
            let mut links = HardLinks::default();
            let file = file(count);
            assert!(links.lack_names(&file), "nothing is known");
            links.note(&file, b"/a");
            assert!(links.lack_names(&file), "{count}");
            links.searched();
            assert!(!links.lack_names(&file), "the others are elsewhere");
        }
        assert!(!HardLinks::default().lack_names(&file(1)));
    }
}
