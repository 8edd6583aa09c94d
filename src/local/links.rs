//! Preserves hard links: names of one file at the source stay names of one file at the target.

use std::collections::HashMap;

use rustix::fs::Stat;

/// The maximum number of files with several names that are remembered; others are copied for each
/// name.
const MAX_FILES: usize = 100_000;

/// The maximum length of a remembered path, so that deep trees take no more memory than wide ones.
const MAX_PATH: usize = 4096;

/// Paths of files with several names.
#[derive(Default)]
pub struct HardLinks {
    known: HashMap<(u64, u64), Vec<Vec<u8>>>,
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
        if names.iter().all(|known| known != path) {
            names.push(path.to_vec());
        }
        true
    }

    /// Returns other names under which this file was seen; they may belong to other files now.
    pub fn others(&self, stat: &Stat, path: &[u8]) -> Vec<Vec<u8>> {
        let names = self.known.get(&identity(stat)).into_iter().flatten();
        names.filter(|name| *name != path).cloned().collect()
    }

    /// Removes a name that belongs to another file now.
    pub fn forget(&mut self, stat: &Stat, path: &[u8]) {
        if let Some(names) = self.known.get_mut(&identity(stat)) {
            names.retain(|name| name != path);
        }
    }
}

/// Returns device and inode, which identify a file.
pub fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
