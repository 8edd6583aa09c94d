//! Sorts the differences that dry runs have found: drift, to be compared again, or in motion.

use std::collections::{BTreeMap, BTreeSet};

use super::MAX_PASSES;
use crate::batch::drift_line::PathDrift;
use crate::batch::listing::ListedFile;
use crate::batch::temp_name::TempName;
use crate::history::LastEntry;
use crate::log;
use crate::paths;
use crate::script::{ComparisonScope, ListedPath};
use crate::status::drift_report::{DriftKind, DriftSide, LastTransfer, ListedDrift, MAX_LISTED};

/// The maximum number of paths that are compared again by a list. rsync compares each name with
/// each rule, so more paths are compared as the request was.
const MAX_COMPARED_AGAIN: usize = 1000;

/// The maximum number of paths in motion that are named.
const MAX_MOVING: usize = 100;

/// The maximum length of the name of a temporary file that names the file it is for.
const MAX_UNCUT: usize = 200;

/// The beginning of the names under which default.direct creates files.
const DIRECT_TEMPORARY: &[u8] = b".lsyncd.";

/// The differences of one sync.
#[derive(Debug, Default)]
pub struct Passes {
    /// The compared path; empty for everything. rsync names the directories that lead to it, too.
    top: Vec<u8>,
    /// The number of dry runs that have been sorted.
    pass: u32,
    /// The paths that the current dry run compares again; `None` for all of the scope.
    expected: Option<BTreeSet<Vec<u8>>>,
    /// The differences of the last dry run that are not sorted.
    found: BTreeMap<Vec<u8>, PathDrift>,
    drift: BTreeMap<Vec<u8>, PathDrift>,
    moving: BTreeSet<Vec<u8>>,
    repaired: BTreeSet<Vec<u8>>,
    /// The entries of both sides at drifting paths.
    source: BTreeMap<Vec<u8>, Option<ListedFile>>,
    target: BTreeMap<Vec<u8>, Option<ListedFile>>,
    /// The last entries of the transfer log about them.
    last: BTreeMap<Vec<u8>, LastEntry>,
}

impl Passes {
    /// Returns the differences of a path and what is below it, of which none is known.
    pub fn new(top: &[u8]) -> Passes {
        Passes {
            top: paths::bare(top).to_vec(),
            ..Passes::default()
        }
    }

    /// Takes in what a dry run has found. Returns false if nothing is to be sorted.
    pub fn on_compared(&mut self, changes: Vec<PathDrift>) -> bool {
        let expected = self.expected.take();
        let is_expected = |path: &Vec<u8>| match &expected {
            Some(paths) => paths.contains(path),
            None => paths::below(path, &self.top).is_some(),
        };
        for change in changes {
            if !is_expected(&change.path) {
                continue;
            }
            // A path whose type differs is found twice.
            let known = self.found.entry(change.path.clone()).or_insert(PathDrift {
                kinds: Vec::new(),
                ..change.clone()
            });
            known.kinds.extend(change.kinds);
            known.kinds.sort_unstable();
            known.kinds.dedup();
        }
        self.pass += 1;
        !self.found.is_empty()
    }

    /// Sorts the differences, after all changes that the dry run may have seen are on the target.
    /// Returns the paths that have changed in the meantime and must be compared again, if any.
    pub fn sort(
        &mut self,
        has_changed: impl Fn(&[u8]) -> bool,
        may_repeat: bool,
    ) -> Option<BTreeSet<Vec<u8>>> {
        let mut again = BTreeSet::new();
        for (path, change) in std::mem::take(&mut self.found) {
            if !is_moving(&path, &change, &has_changed) {
                self.drift.insert(path, change);
            } else if may_repeat && self.pass < MAX_PASSES {
                again.insert(path);
            } else {
                self.moving.insert(path);
            }
        }
        (!again.is_empty()).then_some(again)
    }

    /// Restricts the next dry run to these paths. Returns its scope, which is `whole` if a list of
    /// them would be too long.
    pub fn expect(
        &mut self,
        paths: BTreeSet<Vec<u8>>,
        whole: &ComparisonScope,
        is_directory: impl Fn(&[u8]) -> Option<bool>,
    ) -> ComparisonScope {
        let scope = if paths.len() > MAX_COMPARED_AGAIN {
            whole.clone()
        } else {
            let listed = paths
                .iter()
                .flat_map(|path| listed(path, is_directory(path)));
            ComparisonScope::Paths(listed.collect())
        };
        self.expected = Some(paths);
        scope
    }

    /// Returns the paths that the target lacks. Some may have another type there.
    pub fn missing(&self) -> BTreeSet<Vec<u8>> {
        let missing = |change: &&PathDrift| change.kinds.contains(&DriftKind::Missing);
        let missing = self.drift.values().filter(missing).take(MAX_COMPARED_AGAIN);
        missing.map(|change| change.path.clone()).collect()
    }

    /// Takes in what a dry run that creates nothing has found: the target has those paths with
    /// another type.
    pub fn on_typed(&mut self, changes: Vec<PathDrift>) {
        let expected = self.expected.take().unwrap_or_default();
        for change in changes {
            if expected.contains(&change.path)
                && change.kinds == [DriftKind::Missing]
                && let Some(known) = self.drift.get_mut(&change.path)
            {
                known.kinds = vec![DriftKind::Type];
            }
        }
    }

    /// Returns the paths of all drift.
    pub fn drifting(&self) -> BTreeSet<Vec<u8>> {
        self.drift.keys().cloned().collect()
    }

    /// Returns the drifting paths that a report names.
    pub fn named(&self) -> Vec<Vec<u8>> {
        self.drift.keys().take(MAX_LISTED).cloned().collect()
    }

    /// Handles the entries of the transfer log for the [`Passes::named`] paths.
    pub fn on_last_found(&mut self, last: Vec<Option<LastEntry>>) {
        let named = self.named().into_iter().zip(last);
        self.last = named
            .filter_map(|(path, last)| Some((path, last?)))
            .collect();
    }

    /// Takes in a listing of the paths at the source.
    pub fn on_source_listed(&mut self, listed: BTreeMap<Vec<u8>, Option<ListedFile>>) {
        self.source = listed;
    }

    /// Takes in a listing of the paths on the target.
    pub fn on_target_listed(&mut self, listed: BTreeMap<Vec<u8>, Option<ListedFile>>) {
        self.target = listed;
    }

    /// Takes in what a dry run after the repair has found.
    pub fn on_repaired(&mut self, changes: Vec<PathDrift>) {
        self.expected = None;
        let left: BTreeSet<_> = changes.into_iter().map(|change| change.path).collect();
        let repaired = self.drift.keys().filter(|path| !left.contains(*path));
        self.repaired = repaired.cloned().collect();
    }

    /// Returns the number of differences, and those that a report names.
    pub fn differences(&self) -> (u64, Vec<ListedDrift>) {
        let listed = self.drift.values().take(MAX_LISTED);
        let listed = listed.map(|change| ListedDrift {
            path: shown(change),
            kinds: change.kinds.clone(),
            source: side(self.source.get(&change.path)),
            target: side(self.target.get(&change.path)),
            last: self.last.get(&change.path).map(last_transfer),
            repaired: self.repaired.contains(&change.path),
        });
        (self.drift.len() as u64, listed.collect())
    }

    /// Returns the number of differences found until now.
    pub fn differences_so_far(&self) -> u64 {
        (self.drift.len() + self.found.len()) as u64
    }

    /// Returns the number of differences that were removed.
    pub fn repaired(&self) -> u64 {
        self.repaired.len() as u64
    }

    /// Returns the number of paths in motion, and some of them.
    pub fn moving(&self) -> (u64, Vec<String>) {
        let named = self.moving.iter().take(MAX_MOVING);
        let named = named.map(|path| log::escape(path).into_owned());
        (self.moving.len() as u64, named.collect())
    }
}

/// Returns the entries of a list that compare a path, whatever its type on the target is.
fn listed(path: &[u8], is_directory: Option<bool>) -> Vec<ListedPath> {
    let entry = |path: &[u8], is_gone| ListedPath {
        path: path.to_vec(),
        is_gone,
    };
    match is_directory {
        Some(true) => vec![entry(&paths::with_slash(path), false)],
        // The target may have a directory there.
        Some(false) => vec![entry(&paths::with_slash(path), true), entry(path, false)],
        None => vec![entry(path, true), entry(&paths::with_slash(path), true)],
    }
}

/// Returns true if the path has changed, or if it is that of a temporary file for one that has.
fn is_moving(path: &[u8], change: &PathDrift, has_changed: impl Fn(&[u8]) -> bool) -> bool {
    if has_changed(path) {
        return true;
    }
    if !change.kinds.contains(&DriftKind::Extra) {
        return false;
    }
    let (directory, name) = paths::split(path);
    if name.starts_with(DIRECT_TEMPORARY) {
        return has_changed(directory);
    }
    TempName::new(path).is_some_and(|temporary| {
        // rsync truncates long names, so the directory is compared.
        let mut originals = temporary.originals().peekable();
        match originals.peek() {
            Some(_) if name.len() <= MAX_UNCUT => originals.any(|path| has_changed(&path)),
            _ => has_changed(directory),
        }
    })
}

fn shown(change: &PathDrift) -> String {
    let mut path = change.path.clone();
    if change.is_directory {
        paths::push_slash(&mut path);
    }
    log::escape(&path).into_owned()
}

fn side(listed: Option<&Option<ListedFile>>) -> Option<DriftSide> {
    let file = listed?.as_ref()?;
    Some(DriftSide {
        size: file.size,
        time: file.time,
        permissions: file.permissions.clone(),
    })
}

fn last_transfer(entry: &LastEntry) -> LastTransfer {
    LastTransfer {
        time: entry.time,
        operation: entry.operation.name().into(),
        reason: entry.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, kind: DriftKind) -> PathDrift {
        PathDrift {
            path: path.into(),
            is_directory: false,
            kinds: vec![kind],
        }
    }

    fn texts(paths: &BTreeSet<Vec<u8>>) -> Vec<String> {
        let text = |path: &Vec<u8>| String::from_utf8(path.clone()).unwrap();
        paths.iter().map(text).collect()
    }

    #[test]
    fn what_has_changed_is_compared_again_and_is_no_drift() {
        let mut passes = Passes::default();
        let both = || {
            vec![
                change("/a", DriftKind::Content),
                change("/b", DriftKind::Time),
            ]
        };
        assert!(passes.on_compared(both()));
        let again = passes.sort(|path| path == b"/a", true).unwrap();
        assert_eq!(texts(&again), ["/a"]);
        let scope = passes.expect(again, &ComparisonScope::Everything, |_| Some(false));
        let listed = listed(b"/a", Some(false));
        assert_eq!(scope, ComparisonScope::Paths(listed));
        // The line for the parent's attributes was not requested.
        assert!(passes.on_compared(vec![
            change("/a", DriftKind::Content),
            change("/", DriftKind::Time)
        ]));
        let again = passes.sort(|_| true, true).unwrap();
        passes.expect(again, &ComparisonScope::Everything, |_| Some(false));
        assert!(passes.on_compared(vec![change("/a", DriftKind::Content)]));
        assert_eq!(passes.sort(|_| true, true), None);
        assert_eq!(passes.moving(), (1, vec!["/a".to_owned()]));
        let (count, listed) = passes.differences();
        assert_eq!((count, listed[0].path.as_str()), (1, "/b"));
    }

    #[test]
    fn a_temporary_file_is_no_drift_while_its_file_is_sent() {
        for (path, changed, expected) in [
            ("/d/.f.Ab12Cd", "/d/f", 0),
            ("/d/.f.Ab12Cd", "/e/f", 1),
            ("/d/.lsyncd.0123456789abcdef", "/d/", 0),
            ("/d/.lsyncd.0123456789abcdef", "/e/", 1),
            ("/d/f", "/d/g", 1),
        ] {
            let mut passes = Passes::default();
            passes.on_compared(vec![change(path, DriftKind::Extra)]);
            passes.sort(|path| path == changed.as_bytes(), false);
            assert_eq!(passes.differences().0, expected, "{path} {changed}");
        }
    }

    #[test]
    fn another_type_is_told_from_a_missing_path() {
        let mut passes = Passes::default();
        let missing = ["/a", "/b"].map(|path| change(path, DriftKind::Missing));
        passes.on_compared(missing.to_vec());
        passes.sort(|_| false, true);
        let paths = passes.missing();
        passes.expect(paths, &ComparisonScope::Everything, |_| Some(false));
        passes.on_typed(vec![missing[1].clone(), change("/c", DriftKind::Missing)]);
        let (_, listed) = passes.differences();
        let kinds: Vec<_> = listed.into_iter().flat_map(|each| each.kinds).collect();
        assert_eq!(kinds, [DriftKind::Missing, DriftKind::Type]);
    }

    #[test]
    fn what_differs_no_more_is_repaired() {
        let mut passes = Passes::default();
        let found = ["/a", "/b"].map(|path| change(path, DriftKind::Mode));
        passes.on_compared(found.to_vec());
        passes.sort(|_| false, true);
        passes.on_repaired(vec![found[0].clone()]);
        let (_, listed) = passes.differences();
        let repaired: Vec<_> = listed.iter().map(|each| each.repaired).collect();
        assert_eq!((passes.repaired(), repaired), (1, vec![false, true]));
    }

    #[test]
    fn what_leads_to_the_compared_path_is_not_asked_for() {
        let mut passes = Passes::new(b"/d/");
        let found = ["/", "/d", "/d/a", "/da"].map(|path| change(path, DriftKind::Time));
        passes.on_compared(found.to_vec());
        passes.sort(|_| false, true);
        assert_eq!(texts(&passes.drifting()), ["/d", "/d/a"]);
    }

    #[test]
    fn many_paths_are_compared_as_a_whole() {
        let mut passes = Passes::default();
        let paths: BTreeSet<_> = (0..=MAX_COMPARED_AGAIN)
            .map(|n| format!("/{n}").into_bytes())
            .collect();
        let scope = passes.expect(paths, &ComparisonScope::Below(b"/d/".to_vec()), |_| None);
        assert_eq!(scope, ComparisonScope::Below(b"/d/".to_vec()));
        assert!(!passes.on_compared(vec![change("/other", DriftKind::Time)]));
    }
}
