//! The digest of a directory.

use rustix::fs::{FileType, Stat};

use super::siphash::HashKey;

/// A time of a file: seconds since the epoch and nanoseconds.
pub type FileTime = (i64, u64);

/// Adds up the entries of a directory, in any order.
pub struct DirectoryDigest<'k> {
    key: &'k HashKey,
    /// The time from which on a change may go unnoticed, because it may get the same timestamp.
    racy_from: FileTime,
    sum: u128,
    count: u64,
    is_racy: bool,
    buffer: Vec<u8>,
}

impl<'k> DirectoryDigest<'k> {
    /// Returns the digest of a directory without entries.
    pub fn new(key: &'k HashKey, racy_from: FileTime) -> DirectoryDigest<'k> {
        DirectoryDigest {
            key,
            racy_from,
            sum: 0,
            count: 0,
            is_racy: false,
            buffer: Vec::with_capacity(320),
        }
    }

    /// Begins with another directory.
    pub fn clear(&mut self) {
        (self.sum, self.count, self.is_racy) = (0, 0, false);
    }

    /// Adds a subdirectory, whose state is in a row of its own.
    pub fn add_directory(&mut self, name: &[u8]) {
        self.begin(name, FileType::Directory.as_raw_mode());
        self.end();
    }

    /// Adds an entry that is not a directory.
    pub fn add_file(&mut self, name: &[u8], stat: &Stat) {
        self.begin(name, FileType::from_raw_mode(stat.st_mode).as_raw_mode());
        self.put(stat);
        self.end();
    }

    /// Returns the digest, with the state of the directory itself.
    pub fn finish(&mut self, path: &[u8], stat: &Stat) -> u64 {
        self.begin(path, FileType::Directory.as_raw_mode());
        self.put(stat);
        let (sum, count) = (self.sum.to_le_bytes(), self.count.to_le_bytes());
        self.buffer.extend_from_slice(&sum);
        self.buffer.extend_from_slice(&count);
        self.key.hash(&self.buffer) as u64
    }

    /// Returns true if a change from now on may get a timestamp that is in the digest.
    pub fn is_racy(&self) -> bool {
        self.is_racy
    }

    fn begin(&mut self, name: &[u8], kind: u32) {
        self.buffer.clear();
        self.buffer
            .extend_from_slice(&(name.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(name);
        self.buffer.extend_from_slice(&kind.to_le_bytes());
    }

    fn put(&mut self, stat: &Stat) {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // The size of a directory depends on its file system.
        let size = if is_directory { 0 } else { stat.st_size };
        let (modified, changed) = (modified(stat), changed(stat));
        for number in [
            size as u64,
            modified.0 as u64,
            modified.1,
            changed.0 as u64,
            changed.1,
            stat.st_ino,
        ] {
            self.buffer.extend_from_slice(&number.to_le_bytes());
        }
        self.is_racy |= modified >= self.racy_from || changed >= self.racy_from;
    }

    fn end(&mut self) {
        self.sum = self.sum.wrapping_add(self.key.hash(&self.buffer));
        self.count += 1;
    }
}

/// Returns the time of the last modification.
pub fn modified(stat: &Stat) -> FileTime {
    (stat.st_mtime, stat.st_mtime_nsec)
}

/// Returns the time of the last change of the inode.
pub fn changed(stat: &Stat) -> FileTime {
    (stat.st_ctime, stat.st_ctime_nsec)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn stat() -> Stat {
        let mut stat = rustix::fs::fstat(File::open("/dev/null").unwrap()).unwrap();
        stat.st_mode = 0o100_644;
        (stat.st_size, stat.st_ino) = (5, 7);
        (stat.st_mtime, stat.st_mtime_nsec) = (10, 1);
        (stat.st_ctime, stat.st_ctime_nsec) = (11, 2);
        stat
    }

    fn digest(key: &HashKey, entries: &[(&str, Option<Stat>)]) -> (u64, bool) {
        let mut digest = DirectoryDigest::new(key, (100, 0));
        for (name, stat) in entries {
            match stat {
                Some(stat) => digest.add_file(name.as_bytes(), stat),
                None => digest.add_directory(name.as_bytes()),
            }
        }
        let mut own = stat();
        own.st_mode = 0o40_755;
        (digest.finish(b"/", &own), digest.is_racy())
    }

    #[test]
    fn every_fact_counts_and_the_order_does_not() {
        let key = HashKey([3; 16]);
        let first = digest(&key, &[("a", Some(stat())), ("b", None)]);
        assert_eq!(first, digest(&key, &[("b", None), ("a", Some(stat()))]));
        assert!(!first.1);
        let changes: [fn(&mut Stat); 7] = [
            |stat| stat.st_size += 1,
            |stat| stat.st_ino += 1,
            |stat| stat.st_mtime += 1,
            |stat| stat.st_mtime_nsec += 1,
            |stat| stat.st_ctime += 1,
            |stat| stat.st_ctime_nsec += 1,
            |stat| stat.st_mode = 0o120_777,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = stat();
            change(&mut other);
            let other = digest(&key, &[("a", Some(other)), ("b", None)]);
            assert_ne!(first.0, other.0, "{index}");
        }
        for names in [["a", "c"], ["c", "b"]] {
            let other = digest(&key, &[(names[0], Some(stat())), (names[1], None)]);
            assert_ne!(first.0, other.0, "{names:?}");
        }
        assert_ne!(first.0, digest(&key, &[("a", Some(stat()))]).0);
        assert_ne!(first.0, digest(&key, &[("b", Some(stat())), ("a", None)]).0);
    }

    #[test]
    fn recent_times_are_racy() {
        let key = HashKey([3; 16]);
        for (mtime, ctime, racy) in [(99, 99, false), (100, 1, true), (1, 100, true)] {
            let mut file = stat();
            (file.st_mtime, file.st_ctime) = (mtime, ctime);
            assert_eq!(digest(&key, &[("a", Some(file))]).1, racy);
        }
    }
}
