//! The size of a watched tree, measured while its directories are read.

use crate::watch::TreeSize;

/// The directories read so far, and the names in them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NamesRead {
    directories: usize,
    names: usize,
}

impl NamesRead {
    /// Adds a directory with this number of names.
    pub(super) fn add(&mut self, names: usize) {
        self.directories += 1;
        self.names += names;
    }

    /// Returns the size of a tree of this number of directories.
    pub(super) fn size(self, directories: usize) -> TreeSize {
        let mean = self.names / self.directories.max(1) + 1;
        TreeSize {
            directories,
            entries: directories.saturating_mul(mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_estimated_by_the_mean_of_the_directories_read() {
        let mut read = NamesRead::default();
        assert_eq!(read.size(3).entries, 3);
        read.add(10);
        read.add(30);
        let size = read.size(100);
        assert_eq!((size.directories, size.entries), (100, 2100));
        assert_eq!(read.size(usize::MAX).entries, usize::MAX);
    }
}
