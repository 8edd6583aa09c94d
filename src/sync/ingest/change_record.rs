//! Records the paths that change during a comparison of source and target, so that paths in motion
//! are not reported as differences.

use std::collections::BTreeSet;

use crate::paths;

/// The maximum number of recorded paths. Beyond it every path counts as changed.
const MAX_PATHS: usize = 200_000;

/// The changed paths of a sync, in two parts: those of the running pass, and those before it.
#[derive(Debug, Default)]
pub struct ChangeRecord {
    parts: Option<[ChangedPaths; 2]>,
}

impl ChangeRecord {
    /// Begins a record without paths.
    pub fn begin(&mut self) {
        self.parts = Some(Default::default());
    }

    /// Begins the next part, and forgets the part before the current one.
    pub fn divide(&mut self) {
        if let Some([before, current]) = &mut self.parts {
            *before = std::mem::take(current);
        }
    }

    /// Ends the record.
    pub fn end(&mut self) {
        self.parts = None;
    }

    /// Adds a changed path, if a record is kept.
    pub fn add(&mut self, path: &[u8]) {
        if let Some([_, current]) = &mut self.parts {
            current.add(path);
        }
    }

    /// Records that the changed paths are not known.
    pub fn lose(&mut self) {
        if let Some([_, current]) = &mut self.parts {
            current.lose();
        }
    }

    /// Returns true if a path, a directory that leads to it, or a path below it has changed in one
    /// of the two parts.
    pub fn has_changed(&self, path: &[u8]) -> bool {
        let mut parts = self.parts.iter().flatten();
        parts.any(|part| part.concerns(paths::bare(path)))
    }
}

/// Paths without slashes at their ends.
#[derive(Debug, Default)]
struct ChangedPaths {
    paths: BTreeSet<Vec<u8>>,
    /// More paths have changed than are recorded.
    all: bool,
}

impl ChangedPaths {
    fn add(&mut self, path: &[u8]) {
        if self.all {
            return;
        }
        let path = paths::bare(path);
        if !self.paths.contains(path) {
            self.paths.insert(path.to_vec());
        }
        if self.paths.len() > MAX_PATHS {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.all = true;
        self.paths.clear();
    }

    fn concerns(&self, path: &[u8]) -> bool {
        if self.all || self.paths.contains(path) {
            return true;
        }
        let below = paths::with_slash(path);
        let mut further = self.paths.range(below.clone()..);
        if further.next().is_some_and(|next| next.starts_with(&below)) {
            return true;
        }
        paths::directories(path).any(|directory| self.paths.contains(paths::bare(directory)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_its_path_and_what_is_above_and_below() {
        let mut record = ChangeRecord::default();
        record.add(b"/before");
        assert!(!record.has_changed(b"/before"));
        record.begin();
        record.add(b"/a/b/");
        for path in ["/a/b", "/a/b/", "/a", "/", "/a/b/c/d"] {
            assert!(record.has_changed(path.as_bytes()), "{path}");
        }
        for path in ["/a/bc", "/a/c", "/b", "/aa", "/a/b."] {
            assert!(!record.has_changed(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_part_is_forgotten_with_the_one_after_the_next() {
        let mut record = ChangeRecord::default();
        record.begin();
        record.add(b"/one");
        record.divide();
        record.add(b"/two");
        assert!(record.has_changed(b"/one") && record.has_changed(b"/two"));
        record.divide();
        assert!(!record.has_changed(b"/one") && record.has_changed(b"/two"));
        record.end();
        assert!(!record.has_changed(b"/two"));
    }

    #[test]
    fn everything_has_changed_if_paths_are_not_known() {
        let mut record = ChangeRecord::default();
        record.begin();
        for number in 0..=MAX_PATHS {
            record.add(format!("/{number}").as_bytes());
        }
        assert!(record.has_changed(b"/other"));
        record.divide();
        record.divide();
        assert!(!record.has_changed(b"/other"));
        record.lose();
        assert!(record.has_changed(b"/other"));
    }
}
