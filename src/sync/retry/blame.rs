//! Finds the entries of a transfer that its error lines refer to.
//!
//! Lines are evaluated as they arrive, so the memory used depends on the number of failed paths,
//! not on the amount of output. If a line is not understood, or names nothing that is found, or too
//! many paths have failed, the whole transfer counts as failed.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::RetryEntries;
use super::message_paths::{cleaned, local_part};
use super::whole_tree::{WholeTree, find_at_target};
use crate::batch::error_lines::{Attribute, ErrorLine, FailureReason, QuotedName, SizeLimit};
use crate::batch::temp_name::{self, TempName, variants};
use crate::paths;
use crate::queue::Etype;

/// The failed entries of one transfer, as far as its error lines name them.
pub struct Blame {
    /// Source and target directory with a trailing slash; only absolute ones are listed.
    roots: Vec<Vec<u8>>,
    scope: BlameScope,
    failed: RetryEntries,
    /// The failed paths, without a final slash, at which the target has a directory that was not
    /// deleted; false if there is another failure at the path.
    obstructed: BTreeMap<Vec<u8>, bool>,
    max_failed: usize,
    everything: bool,
    attributes: bool,
    /// A path was named that is too long.
    unsendable: bool,
    limit: Option<SizeLimit>,
    contents: bool,
}

/// The entries of a transfer.
enum BlameScope {
    /// A batch.
    Batch(BatchEntries),
    /// A full comparison of a directory.
    Whole(WholeTree),
}

/// The entries of a batch.
struct BatchEntries {
    all: RetryEntries,
    /// The long names among the entries, by directory and suffix.
    long: OnceCell<BTreeMap<Vec<u8>, Vec<Vec<u8>>>>,
}

/// The meaning of an error line for the transfer.
#[derive(Debug, PartialEq, Eq)]
pub enum LineKind {
    /// These paths failed.
    Failed(Vec<Vec<u8>>),
    /// A path arrived without this attribute.
    Attribute(Attribute),
    /// This path is too long to be transferred.
    Unsendable(Vec<u8>),
    /// The line reports no failure.
    Neutral,
    /// An unknown part of the transfer failed.
    Unknown,
}

/// The failed entries of a transfer.
#[derive(Debug, PartialEq, Eq)]
pub enum FailedEntries {
    /// No path failed, but perhaps attributes of some.
    Nothing,
    /// These paths, and among them those, without a final slash, at which the target has a
    /// directory with contents that rsync does not delete.
    Paths(RetryEntries, BTreeSet<Vec<u8>>),
    /// These paths failed.
    Everything,
}

impl Blame {
    /// Returns an empty evaluation for a transfer of these entries, with these directories as
    /// source and target.
    pub fn of_batch(entries: RetryEntries, roots: &[Vec<u8>], max_failed: usize) -> Blame {
        Blame::new(
            BlameScope::Batch(BatchEntries::new(entries)),
            roots,
            max_failed,
        )
    }

    /// The failed entries of a transfer.
    pub fn of_everything(roots: &[Vec<u8>], max_failed: usize) -> Blame {
        let source = roots.first().map(Vec::as_slice).unwrap_or_default();
        Blame::new(BlameScope::Whole(WholeTree::new(source)), roots, max_failed)
    }

    /// Returns the evaluation of a local copy with these failures. `obstructed` are the paths, without
    /// a trailing slash, at which the target has a directory that is not deleted.
    pub fn of_failures(failed: RetryEntries, obstructed: BTreeSet<Vec<u8>>) -> Blame {
        let mut blame = Blame::of_batch(RetryEntries::new(), &[], failed.len());
        blame.attributes = true;
        blame.obstructed = obstructed.into_iter().map(|path| (path, true)).collect();
        blame.failed = failed;
        blame
    }

    fn new(scope: BlameScope, roots: &[Vec<u8>], max_failed: usize) -> Blame {
        Blame {
            roots: roots.iter().filter_map(|root| local_part(root)).collect(),
            scope,
            failed: RetryEntries::new(),
            obstructed: BTreeMap::new(),
            max_failed,
            everything: false,
            attributes: false,
            unsendable: false,
            limit: None,
            contents: false,
        }
    }

    /// Evaluates an error line.
    pub fn take(&mut self, line: ErrorLine) -> LineKind {
        match line {
            ErrorLine::Neutral => LineKind::Neutral,
            ErrorLine::TooLong(name) => {
                self.unsendable = true;
                LineKind::Unsendable(self.path_of(&name))
            }
            ErrorLine::Attribute(_, attribute) => {
                self.attributes = true;
                LineKind::Attribute(attribute)
            }
            ErrorLine::Unknown => {
                self.everything = true;
                LineKind::Unknown
            }
            ErrorLine::Failed(name, reason) => {
                if let FailureReason::Size(limit) = reason {
                    self.limit = Some(limit);
                }
                self.contents |= name.with_contents;
                let found = self.find(&name);
                if found.is_empty() {
                    self.everything = true;
                    return LineKind::Unknown;
                }
                let paths = found.keys().cloned().collect();
                self.remember(found, reason);
                LineKind::Failed(paths)
            }
        }
    }

    fn remember(&mut self, found: RetryEntries, reason: FailureReason) {
        if self.max_failed == 0 {
            return;
        }
        for path in found.keys() {
            let is_obstructed = reason == FailureReason::Obstructed;
            let path = paths::bare(path).to_vec();
            *self.obstructed.entry(path).or_insert(true) &= is_obstructed;
        }
        if reason == FailureReason::Obstructed {
            // If the directory itself is not deleted, the classic list keeps its contents.
            let directories = found.keys().filter(|path| !path.ends_with(b"/"));
            let directories = directories.map(|path| (paths::with_slash(path), Etype::Delete));
            self.failed.extend(directories.collect::<Vec<_>>());
        }
        self.failed.extend(found);
        if self.failed.len() > self.max_failed {
            self.failed.clear();
            self.obstructed.clear();
            self.everything = true;
            self.max_failed = 0;
        }
    }

    /// Returns the exceeded limit of the target, if a path failed because of one.
    pub fn limit(&self) -> Option<SizeLimit> {
        self.limit
    }

    /// Returns the single paths that error lines name as the reason for an abort, even if other
    /// failures are unknown. `None` if whole directories failed.
    pub fn stopped_at(&self) -> Option<&RetryEntries> {
        (!self.contents && !self.failed.is_empty()).then_some(&self.failed)
    }

    /// Returns the failed entries of a partial transfer.
    pub fn failed_paths(self) -> FailedEntries {
        if self.everything || (self.failed.is_empty() && !self.attributes && !self.unsendable) {
            return FailedEntries::Everything;
        }
        if self.failed.is_empty() {
            FailedEntries::Nothing
        } else {
            let obstructed = self.obstructed.into_iter();
            let obstructed = obstructed.filter(|(_, only)| *only).map(|(path, _)| path);
            FailedEntries::Paths(self.failed, obstructed.collect())
        }
    }

    /// Returns all entries that a name may refer to.
    fn find(&self, name: &QuotedName) -> RetryEntries {
        let mut found = RetryEntries::new();
        let paths = name
            .readings
            .iter()
            .flat_map(|reading| self.below_roots(reading));
        let paths: Vec<_> = paths.collect();
        match &self.scope {
            BlameScope::Batch(entries) => {
                for path in &paths {
                    entries.find(path, name.with_contents, &mut found);
                }
                if found.is_empty() {
                    for reading in &name.readings {
                        entries.guess(reading, name.with_contents, &mut found);
                    }
                }
            }
            BlameScope::Whole(tree) => {
                for path in &paths {
                    if !tree.find(path, name.with_contents, &mut found) {
                        return RetryEntries::new();
                    }
                }
                let is_deleted = found.is_empty() && name.may_be_deleted;
                if let (true, [path]) = (is_deleted, paths.as_slice()) {
                    find_at_target(path, name.with_contents, &mut found);
                }
            }
        }
        found
    }

    /// Returns the most likely path of a name. That of a temporary file is the path of the file.
    fn path_of(&self, name: &QuotedName) -> Vec<u8> {
        let reading = name.readings.last().map(Vec::as_slice).unwrap_or_default();
        let path = self.below_roots(reading).into_iter().next();
        let path = path.unwrap_or_else(|| cleaned(reading));
        let original = TempName::new(&path).and_then(|temporary| temporary.originals().next());
        original.unwrap_or(path)
    }

    /// Returns the possible paths of a name relative to the root of the transfer, with a leading
    /// slash.
    fn below_roots(&self, reading: &[u8]) -> Vec<Vec<u8>> {
        let name = cleaned(reading);
        if !name.starts_with(b"/") {
            return vec![paths::rooted(&name)];
        }
        let as_directory = paths::with_slash(&name);
        let roots = self.roots.iter();
        roots
            .filter_map(|root| {
                if as_directory == *root {
                    Some(b"/".to_vec())
                } else {
                    Some(name.strip_prefix(root.as_slice()).map(paths::rooted)?)
                }
            })
            .collect()
    }
}

impl BatchEntries {
    fn new(all: RetryEntries) -> BatchEntries {
        BatchEntries {
            all,
            long: OnceCell::new(),
        }
    }

    fn find(&self, path: &[u8], with_contents: bool, found: &mut RetryEntries) {
        let entries = &self.all;
        let before = found.len();
        for variant in variants(path) {
            let bare = paths::bare(&variant);
            let directory = paths::with_slash(bare);
            for key in [bare, directory.as_slice()] {
                add(entries.get_key_value(key), found);
            }
            if with_contents {
                beginning_with(entries, &directory).for_each(|entry| add(Some(entry), found));
            }
        }
        if let Some(temporary) = TempName::new(path) {
            let start = temporary.long_start();
            let inside = |key: &[u8]| !key[start.len()..].contains(&b'/');
            beginning_with(self.long(), &start)
                .filter(|(key, _)| inside(key))
                .flat_map(|(_, paths)| paths)
                .for_each(|path| add(entries.get_key_value(path), found));
        }
        if found.len() == before {
            add(around(entries, path), found);
        }
    }

    fn long(&self) -> &BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
        self.long.get_or_init(|| {
            let mut long = BTreeMap::<_, Vec<_>>::new();
            for path in self.all.keys() {
                if let Some(key) = temp_name::long_key(path) {
                    long.entry(key).or_default().push(path.clone());
                }
            }
            long
        })
    }

    /// Finds the entries that a name with an unknown directory may refer to: entries with this end
    /// or with the same last component (for `--temp-dir`), and directories above it.
    fn guess(&self, name: &[u8], with_contents: bool, found: &mut RetryEntries) {
        let name = cleaned(name);
        let slashes = (0..name.len()).filter(|&at| name[at] == b'/');
        for at in slashes {
            self.find(&name[at..], with_contents, found);
        }
        let path = paths::rooted(last(&name));
        let lasts = variants(&path);
        let temporary = TempName::new(&path);
        let same = |(path, _): &(&Vec<u8>, &Etype)| {
            let name = last(path);
            lasts.iter().any(|it| it[1..] == *name)
                || temporary.is_some_and(|temporary| temporary.may_be_of_long(name))
        };
        self.all
            .iter()
            .filter(same)
            .for_each(|entry| add(Some(entry), found));
    }
}

fn add(entry: Option<(&Vec<u8>, &Etype)>, found: &mut RetryEntries) {
    found.extend(entry.map(|(path, etype)| (path.clone(), *etype)));
}

fn beginning_with<'e, T>(
    entries: &'e BTreeMap<Vec<u8>, T>,
    start: &[u8],
) -> impl Iterator<Item = (&'e Vec<u8>, &'e T)> {
    let start = start.to_vec();
    let from = entries.range(start.clone()..);
    from.take_while(move |(path, _)| path.starts_with(&start))
}

/// Returns the nearest directory above a path whose entry represents its contents.
fn around<'e>(entries: &'e RetryEntries, path: &[u8]) -> Option<(&'e Vec<u8>, &'e Etype)> {
    paths::directories(path)
        .rev()
        .filter_map(|directory| entries.get_key_value(directory))
        .find(|(_, etype)| **etype == Etype::Delete)
}

fn last(path: &[u8]) -> &[u8] {
    paths::split(path).1
}

#[cfg(test)]
mod limit_tests {
    use super::*;
    use crate::batch::error_lines;

    fn blame(entries: &[(&str, Etype)], max_failed: usize, lines: &[&str]) -> FailedEntries {
        let entries = entries.iter();
        let entries = entries.map(|(path, etype)| (path.as_bytes().to_vec(), *etype));
        let mut blame = Blame::of_batch(entries.collect(), &[b"/src/".to_vec()], max_failed);
        for line in lines {
            blame.take(error_lines::read(line.as_bytes()));
        }
        blame.failed_paths()
    }

    #[test]
    fn more_failed_paths_than_the_limit_are_everything_whatever_else_is_reported() {
        let entries = [("/a", Etype::Modify), ("/b", Etype::Modify)];
        let lines = [
            "rsync: [sender] send_files failed to open \"/src/a\": X (13)",
            "rsync: [sender] send_files failed to open \"/src/b\": X (13)",
            "rsync: chown \"/trg/.c.Ab12Cd\" failed: X (1)",
        ];
        for (max_failed, is_everything) in [(2, false), (1, true)] {
            let failed = blame(&entries, max_failed, &lines);
            assert_eq!(failed == FailedEntries::Everything, is_everything);
        }
    }

    /// The directory of the name is not known: it may be below each directory of the batch.
    #[test]
    fn a_name_in_a_directory_that_is_compared_is_not_only_a_file_of_that_name_elsewhere() {
        let entries = [("/d/", Etype::Delete), ("/x/f", Etype::Modify)];
        let line = "rsync: mkstemp \"/home/of/d/.f.Ab12Cd\" failed: X (13)";
        let FailedEntries::Paths(paths, _) = blame(&entries, 9, &[line]) else {
            panic!("the entries are not found");
        };
        assert!(paths.contains_key(&b"/d/"[..]), "{paths:?}");
    }
}

#[cfg(test)]
#[path = "blame_tests.rs"]
mod tests;
