//! Names of one file at the source stay names of one file at the target.

use std::collections::HashMap;

use rustix::fs::Stat;

/// So many files with several names are kept in mind; the others are copied for each name.
const MAX_FILES: usize = 100_000;

/// The longest path that is kept in mind, so that deep trees take no more memory than wide ones.
const MAX_PATH: usize = 4096;

/// Paths under which files with several names were seen.
#[derive(Default)]
pub struct HardLinks {
    known: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl HardLinks {
    /// Notes a name. True if it is of a file with several.
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
        if names.iter().all(|known| known != path) {
            names.push(path.to_vec());
        }
        true
    }

    /// Other names under which this file was seen; they may have become other files.
    pub fn others(&self, stat: &Stat, path: &[u8]) -> Vec<Vec<u8>> {
        let names = self.known.get(&identity(stat)).into_iter().flatten();
        names.filter(|name| *name != path).cloned().collect()
    }

    /// This name is of another file by now.
    pub fn forget(&mut self, stat: &Stat, path: &[u8]) {
        if let Some(names) = self.known.get_mut(&identity(stat)) {
            names.retain(|name| name != path);
        }
    }
}

/// What tells a file from all others.
pub fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
