//! The size of a watched tree, measured while its directories are read.

use super::Watcher;

/// The size of a watched tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// The number of watched directories, the root included.
    pub directories: usize,
    /// The estimated number of files and directories: the directories times the mean number of
    /// names that a directory of all trees had when it was read.
    pub entries: usize,
}

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
    fn size(self, directories: usize) -> TreeSize {
        let mean = self.names / self.directories.max(1) + 1;
        TreeSize {
            directories,
            entries: directories.saturating_mul(mean),
        }
    }
}

impl Watcher {
    /// Returns the size of the watched tree below a directory, whose absolute path ends with `/`.
    /// Takes time in proportion to the number of directories.
    pub fn tree_size(&self, root: &[u8]) -> TreeSize {
        let Some(root) = self.tree.find(root) else {
            return TreeSize::default();
        };
        let next = |&node: &_| self.tree.next(node, root);
        let nodes = std::iter::successors(Some(root), next);
        self.names_read.size(nodes.count())
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
