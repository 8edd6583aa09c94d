//! The directories that have changed since the index was made.

use hashbrown::HashSet;

use super::siphash::HashKey;
use crate::paths;

/// The maximum number of recorded directories.
const MAX_DIRECTORIES: usize = 200_000;

/// A set of directories. Their paths begin and end with `/`.
#[derive(Clone, Debug, Default)]
pub struct ChangedDirs {
    /// Directories whose entries or attributes have changed.
    directories: HashSet<Vec<u8>>,
    /// Directories that were created, deleted or renamed: all below them counts as changed.
    trees: HashSet<Vec<u8>>,
    is_full: bool,
}

impl ChangedDirs {
    /// Records an event of a path. `is_tree`: the path itself was created, deleted or renamed, not
    /// only its attributes changed.
    pub fn add(&mut self, path: &[u8], is_tree: bool) {
        if let Some(parent) = paths::parent(path)
            && is_tree | !path.ends_with(b"/")
        {
            self.add_directory(parent);
        }
        if path.ends_with(b"/") {
            match is_tree && path != b"/" {
                true => self.add_tree(path),
                false => self.add_directory(path),
            }
        }
    }

    /// Records a directory whose entries or attributes have changed.
    pub fn add_directory(&mut self, directory: &[u8]) {
        if !self.directories.contains(directory) && self.has_room() {
            self.directories.insert(directory.to_vec());
        }
    }

    fn add_tree(&mut self, directory: &[u8]) {
        if !self.trees.contains(directory) && self.has_room() {
            self.trees.insert(directory.to_vec());
        }
    }

    /// Returns true if another directory can be recorded. If not, none is.
    fn has_room(&mut self) -> bool {
        if self.directories.len() + self.trees.len() >= MAX_DIRECTORIES {
            *self = ChangedDirs {
                is_full: true,
                ..ChangedDirs::default()
            };
        }
        !self.is_full
    }

    /// Returns true if nothing has changed.
    pub fn is_empty(&self) -> bool {
        !self.is_full && self.directories.is_empty() && self.trees.is_empty()
    }

    /// Returns true if too many directories have changed to be recorded.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns the hashes of the directories, and those of the trees.
    pub fn hashes(&self, key: &HashKey) -> [HashSet<u64>; 2] {
        let all = |paths: &HashSet<Vec<u8>>| paths.iter().map(|path| key.path(path)).collect();
        [all(&self.directories), all(&self.trees)]
    }

    /// Returns the directories, and true for those with all below them. A directory below such a
    /// one is omitted.
    pub fn roots(&self) -> Vec<(Vec<u8>, bool)> {
        let is_covered = |path: &[u8]| {
            let mut above = paths::directories(path).filter(|above| *above != path);
            above.any(|above| self.trees.contains(above))
        };
        let is_outer = |path: &&Vec<u8>| !is_covered(path);
        let trees = self.trees.iter().filter(is_outer);
        let single = self.directories.iter().filter(is_outer);
        let single = single.filter(|path| !self.trees.contains(*path));
        trees
            .map(|path| (path.clone(), true))
            .chain(single.map(|path| (path.clone(), false)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(changed: &ChangedDirs) -> Vec<(String, bool)> {
        let mut roots: Vec<_> = changed
            .roots()
            .into_iter()
            .map(|(path, tree)| (String::from_utf8(path).unwrap(), tree))
            .collect();
        roots.sort();
        roots
    }

    #[test]
    fn events_change_the_directory_around_them() {
        let mut changed = ChangedDirs::default();
        changed.add(b"/f", true);
        changed.add(b"/d/e/", false);
        changed.add(b"/t/new/", true);
        changed.add(b"/t/new/below/f", false);
        changed.add(b"/t/new/below/deep/", true);
        changed.add(b"/", false);
        changed.add(b"/", true);
        let expected = [
            ("/", false),
            ("/d/e/", false),
            ("/t/", false),
            ("/t/new/", true),
        ];
        let expected = expected.map(|(path, tree)| (path.to_owned(), tree));
        assert_eq!(roots(&changed), expected);
    }

    #[test]
    fn too_many_directories_are_not_recorded() {
        let mut changed = ChangedDirs::default();
        for number in 0..=MAX_DIRECTORIES {
            assert!(!changed.is_full());
            changed.add_directory(format!("/{number}/").as_bytes());
        }
        assert!(changed.is_full() && changed.roots().is_empty());
    }

    /// Without a record of it, the index would say that the directory is on the target.
    #[test]
    fn every_event_is_a_change() {
        for (path, is_tree, expected) in [
            (&b"/d/f"[..], true, &[("/d/", false)][..]),
            (b"/d/f", false, &[("/d/", false)]),
            (b"/d/e/", false, &[("/d/e/", false)]),
            (b"/d/e/", true, &[("/d/", false), ("/d/e/", true)]),
            (b"/", true, &[("/", false)]),
        ] {
            let mut changed = ChangedDirs::default();
            assert!(changed.is_empty());
            changed.add(path, is_tree);
            assert!(!changed.is_empty());
            let expected = expected
                .iter()
                .map(|(path, tree)| ((*path).to_owned(), *tree));
            assert_eq!(roots(&changed), expected.collect::<Vec<_>>());
        }
        let mut changed = ChangedDirs::default();
        changed.add_tree(b"/a/");
        changed.add_tree(b"/b/");
        assert!(!changed.is_empty());
        changed.is_full = true;
        changed.trees.clear();
        assert!(!changed.is_empty());
    }
}
