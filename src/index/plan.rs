//! Determines the directories that a start compares, from the index and the disk.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use super::digest::FileTime;
use super::file::Index;
use super::rows::{self, Row, UNKNOWN};
use super::walk::{IndexWalk, Visited, Visitor, file_time, may_look_unchanged};

/// The maximum number of directories that are compared one by one. Beyond, one comparison of
/// everything is cheaper.
const MAX_DIRECTORIES: usize = 100_000;
/// The maximum number of files whose content is compared.
const MAX_FILES: usize = 100_000;

/// The directories that a start compares.
#[derive(Debug)]
pub enum StartupPlan {
    /// These directories, each without those below it; none if nothing has changed.
    Directories(DirectoryPlan),
    /// Everything, for this reason.
    Everything(String),
}

/// A plan that names directories.
#[derive(Debug)]
pub struct DirectoryPlan {
    /// Paths with slashes around them, each behind the directory that contains it.
    pub directories: Vec<Vec<u8>>,
    /// Files in them that have changed without looking so for rsync.
    pub files: Vec<Vec<u8>>,
    /// A file in them has several names.
    pub has_links: bool,
    /// All changes before this time are on the target.
    pub since: SystemTime,
    /// The index of what is known of the target before anything is sent.
    pub index: Index,
}

/// The known state of the previous daemon.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// It was killed: it may have sent changes that were undone since. A directory that was renamed
    /// and renamed back has another ctime, and all below it counts as changed.
    pub was_killed: bool,
    /// The time before which all changes are on the target, if it is not that of the index.
    pub synced: Option<SystemTime>,
}

/// Compares the index with the source. `walk.key` is that of the index.
///
/// # Errors
///
/// The index proves nothing: a text for the log.
pub fn plan(
    mut index: Index,
    walk: &IndexWalk<'_>,
    before: Before,
) -> Result<DirectoryPlan, String> {
    let since = before.synced.unwrap_or(index.header.taken);
    let count = AtomicUsize::new(0);
    let is_found: Vec<AtomicBool> = index.rows.iter().map(|_| AtomicBool::new(false)).collect();
    let visitors = walk.run(vec![(b"/".to_vec(), true)], || DirectoryJudge {
        known: &index.rows,
        was_killed: before.was_killed,
        since: file_time(since),
        count: &count,
        is_found: &is_found,
        changed: Vec::new(),
        directories: Vec::new(),
        files: Vec::new(),
        has_links: false,
    })?;
    let (mut directories, mut files, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_links = false;
    for judge in visitors {
        directories.extend(judge.directories);
        files.extend(judge.files);
        changed.extend(judge.changed);
        has_links |= judge.has_links;
    }
    index.header.taken = since;
    let mut found = is_found.iter();
    let mut is_kept = || found.next().is_some_and(|row| row.load(Ordering::Relaxed));
    index.rows.retain(|_| is_kept());
    index.rows.extend(changed);
    let mut plan = DirectoryPlan {
        directories,
        files,
        has_links,
        since,
        index,
    };
    if is_too_much(plan.directories.len(), plan.files.len()) {
        return Err("too much has changed".to_owned());
    }
    plan.directories.sort_unstable();
    rows::sort(&mut plan.index.rows);
    Ok(plan)
}

/// Returns true if more has changed than a plan contains. A thread stops recording directories
/// behind that.
fn is_too_much(directories: usize, files: usize) -> bool {
    directories > MAX_DIRECTORIES || files > MAX_FILES
}

/// Judges the directories of one thread.
struct DirectoryJudge<'a> {
    known: &'a [Row],
    was_killed: bool,
    since: FileTime,
    /// The number of changed directories of all threads.
    count: &'a AtomicUsize,
    /// True for the rows that have been found on disk.
    is_found: &'a [AtomicBool],
    /// The rows of directories that have changed.
    changed: Vec<Row>,
    directories: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    has_links: bool,
}

impl Visitor for DirectoryJudge<'_> {
    fn visit(&mut self, visited: &Visited<'_>) -> bool {
        let row = visited.row;
        let known = rows::find(self.known, row.path, row.digest);
        if let Some(at) = known.filter(|_| !visited.is_marked) {
            self.is_found[at].store(true, Ordering::Relaxed);
            return false;
        }
        self.changed.push(Row {
            digest: UNKNOWN,
            ..row
        });
        if self.count.fetch_add(1, Ordering::Relaxed) <= MAX_DIRECTORIES {
            self.directories.push(visited.path.to_vec());
            self.note_files(visited);
        }
        // The guard of the source has verified the root.
        self.was_killed && visited.path != b"/"
    }
}

impl DirectoryJudge<'_> {
    fn note_files(&mut self, visited: &Visited<'_>) {
        for (name, stat) in visited.files {
            self.has_links |= stat.st_nlink > 1;
            if self.files.len() <= MAX_FILES && may_look_unchanged(stat, self.since) {
                self.files.push([visited.path, name].concat());
            }
        }
    }
}

/// The digests of directories.
#[derive(Default)]
pub struct Digests {
    /// The rows, sorted. The digest of a racy directory is unknown.
    pub rows: Vec<Row>,
    /// The racy directories.
    pub racy: Vec<Vec<u8>>,
}

/// Takes the digests of these directories, those marked true with all below them.
///
/// # Errors
///
/// Digests of this source prove nothing, or it cannot be read: a text for the log.
pub fn digests(walk: &IndexWalk<'_>, roots: Vec<(Vec<u8>, bool)>) -> Result<Digests, String> {
    let visitors = walk.run(roots, Digests::default)?;
    // The rows of each thread are freed before those of the next are added.
    let all = visitors.into_iter().reduce(|mut all, digests| {
        all.rows.extend(digests.rows);
        all.racy.extend(digests.racy);
        all
    });
    let mut all = all.unwrap_or_default();
    rows::sort(&mut all.rows);
    Ok(all)
}

impl Visitor for Digests {
    fn visit(&mut self, visited: &Visited<'_>) -> bool {
        let mut row = visited.row;
        if visited.is_racy {
            row.digest = UNKNOWN;
            self.racy.push(visited.path.to_vec());
        }
        self.rows.push(row);
        false
    }
}

#[cfg(test)]
impl DirectoryPlan {
    /// Returns the plan of a startup that compares these directories.
    pub fn of(directories: &[&[u8]]) -> DirectoryPlan {
        let begun = SystemTime::now();
        let header = super::Header {
            key: super::siphash::HashKey([3; 16]),
            fingerprint: 0,
            taken: begun,
            compared: begun,
        };
        DirectoryPlan {
            directories: directories.iter().map(|path| path.to_vec()).collect(),
            files: Vec::new(),
            has_links: false,
            since: begun,
            index: Index {
                header,
                rows: Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::sync::RwLock;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::file::Header;
    use super::super::siphash::HashKey;
    use super::*;
    use crate::filter::Filter;

    /// A change of the source, by numbers of paths.
    #[derive(Clone, Debug)]
    enum Change {
        Write(usize),
        /// The same size, with the modification time put back.
        Rewrite(usize),
        MakeDirectory(usize),
        Remove(usize),
        Rename(usize, usize),
        RenameAndBack(usize),
    }

    const PATHS: [&str; 9] = [
        "a", "b", "a/a", "a/b", "b/a", "a/a/a", "b/a/b", "c", "c/d.skip",
    ];

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let path = 0..PATHS.len();
        let change = prop_oneof![
            3 => path.clone().prop_map(Change::Write),
            2 => path.clone().prop_map(Change::Rewrite),
            4 => path.clone().prop_map(Change::MakeDirectory),
            1 => path.clone().prop_map(Change::Remove),
            2 => (path.clone(), path.clone()).prop_map(|(one, two)| Change::Rename(one, two)),
            1 => path.prop_map(Change::RenameAndBack),
        ];
        prop::collection::vec(change, 0..15)
    }

    /// The tree as the model has it: paths with slashes around directories, and a number that is
    /// another one after each change of the entry itself.
    #[derive(Clone, Default)]
    struct Model {
        entries: BTreeMap<String, u64>,
        count: u64,
    }

    impl Model {
        fn touch(&mut self, path: &str) {
            self.count += 1;
            if let Some(entry) = self.entries.get_mut(path) {
                *entry = self.count;
            }
        }

        /// Adds or removes an entry, which changes its directory.
        fn touch_parent(&mut self, path: &str) {
            let parent = crate::paths::parent(path.as_bytes()).unwrap();
            self.touch(std::str::from_utf8(parent).unwrap());
        }

        fn find(&self, path: &str) -> Option<String> {
            let names = [format!("/{path}"), format!("/{path}/")];
            names
                .into_iter()
                .find(|name| self.entries.contains_key(name))
        }

        fn is_free_below(&self, path: &str) -> bool {
            let parent = Path::new(path).parent().unwrap().to_str().unwrap();
            let parent = if parent.is_empty() {
                "/".to_owned()
            } else {
                format!("/{parent}/")
            };
            self.find(path).is_none() && self.entries.contains_key(&parent)
        }

        /// Returns the state of a directory: of itself, and of its entries that are not directories.
        fn state(&self, directory: &str) -> BTreeMap<String, u64> {
            let below = self.entries.iter().filter_map(|(path, number)| {
                let rest = path.strip_prefix(directory)?;
                let inner = rest.trim_end_matches('/');
                let number = if rest.ends_with('/') { 0 } else { *number };
                let is_own = rest.is_empty();
                let shown = !inner.contains('/') && !path.trim_end_matches('/').ends_with(".skip");
                (is_own || shown).then(|| {
                    let number = if is_own { self.entries[path] } else { number };
                    (rest.to_owned(), number)
                })
            });
            below.collect()
        }

        fn directories(&self) -> impl Iterator<Item = &String> {
            let all = self.entries.keys().filter(|path| path.ends_with('/'));
            all.filter(|path| !path.contains(".skip"))
        }

        /// Carries out a change here and on disk.
        fn apply(&mut self, root: &Path, change: &Change) {
            let on_disk = |path: &str| root.join(path.trim_matches('/'));
            match *change {
                Change::Write(n) if self.is_free_below(PATHS[n]) => {
                    fs::write(on_disk(PATHS[n]), "1").unwrap();
                    let name = format!("/{}", PATHS[n]);
                    self.entries.insert(name.clone(), 0);
                    self.touch(&name);
                    self.touch_parent(&name);
                }
                Change::Write(n) | Change::Rewrite(n) => {
                    let name = format!("/{}", PATHS[n]);
                    if self.entries.contains_key(&name) {
                        let path = on_disk(&name);
                        let before = fs::metadata(&path).unwrap().modified().unwrap();
                        fs::write(&path, "2").unwrap();
                        if matches!(change, Change::Rewrite(_)) {
                            let file = fs::File::options().write(true).open(&path).unwrap();
                            file.set_modified(before).unwrap();
                        }
                        self.touch(&name);
                    }
                }
                Change::MakeDirectory(n) if self.is_free_below(PATHS[n]) => {
                    fs::create_dir(on_disk(PATHS[n])).unwrap();
                    let name = format!("/{}/", PATHS[n]);
                    self.entries.insert(name.clone(), 0);
                    self.touch(&name);
                    self.touch_parent(&name);
                }
                Change::Remove(n) => {
                    let Some(name) = self.find(PATHS[n]) else {
                        return;
                    };
                    let _ = fs::remove_file(on_disk(&name));
                    let _ = fs::remove_dir_all(on_disk(&name));
                    let is_gone = |path: &str| {
                        path == name || (name.ends_with('/') && path.starts_with(&name))
                    };
                    self.entries.retain(|path, _| !is_gone(path));
                    self.touch_parent(&name);
                }
                Change::Rename(from, to) => {
                    let inside = PATHS[to].starts_with(&format!("{}/", PATHS[from]));
                    if let Some(name) = self.find(PATHS[from])
                        && self.is_free_below(PATHS[to])
                        && !inside
                    {
                        fs::rename(on_disk(&name), on_disk(PATHS[to])).unwrap();
                        let end = if name.ends_with('/') { "/" } else { "" };
                        let new = format!("/{}{end}", PATHS[to]);
                        let is_moved = |path: &str| {
                            path == name || (name.ends_with('/') && path.starts_with(&name))
                        };
                        let moved: Vec<(String, u64)> = self
                            .entries
                            .extract_if(.., |path, _| is_moved(path))
                            .map(|(path, number)| (path.replacen(&name, &new, 1), number))
                            .collect();
                        self.entries.extend(moved);
                        self.touch(&new);
                        self.touch_parent(&name);
                        self.touch_parent(&new);
                    }
                }
                Change::RenameAndBack(n) => {
                    let Some(name) = self.find(PATHS[n]) else {
                        return;
                    };
                    fs::rename(on_disk(&name), on_disk("other")).unwrap();
                    fs::rename(on_disk("other"), on_disk(&name)).unwrap();
                    self.touch(&name);
                    self.touch_parent(&name);
                    self.touch("/");
                }
                Change::MakeDirectory(_) => {}
            }
        }
    }

    fn source(root: &Path) -> Vec<u8> {
        [root.as_os_str().as_bytes(), b"/"].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// A directory is in the plan if and only if its state differs from the one in the index.
        /// After a kill, so is all below one that differs, except for the root.
        #[test]
        fn the_plan_has_the_directories_that_differ(before in changes(), after in changes()) {
            let directory = tempfile::tempdir().unwrap();
            let root: PathBuf = directory.path().into();
            let mut filter = Filter::default();
            filter.add_exclude(b"*.skip");
            let (filter, cancelled) = (RwLock::new(filter), AtomicBool::new(false));
            let mut model = Model::default();
            model.entries.insert("/".into(), 0);
            // A change of a directory with others below it is rare among random ones.
            let nested = [0, 1, 2, 5].map(Change::MakeDirectory);
            for change in nested.iter().chain(&before) {
                model.apply(&root, change);
            }
            let key = HashKey([5; 16]);
            let source = source(&root);
            let walk = IndexWalk {
                source: &source,
                subdirs: true,
                filter: &filter,
                key: &key,
                // In an hour no timestamp is too new.
                begun: SystemTime::now() + Duration::from_secs(3600),
                cancelled: &cancelled,
            };
            let whole = vec![(b"/".to_vec(), true)];
            let found = match digests(&walk, whole) {
                Err(reason) if reason.contains("not reliable") => return Ok(()),
                found => found.unwrap(),
            };
            prop_assert!(found.racy.is_empty());
            let now = SystemTime::now();
            let header = Header { key, fingerprint: 0, taken: now, compared: now };
            let index = Index { header, rows: found.rows };
            let old = model.clone();
            // Timestamps are those of a clock that ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(12));
            for change in &after {
                model.apply(&root, change);
            }
            let differs = |path: &String| {
                !old.entries.contains_key(path) || old.state(path) != model.state(path)
            };
            for was_killed in [false, true] {
                let is_below = |path: &String| {
                    let above = crate::paths::directories(path.as_bytes());
                    let mut above = above.map(|path| String::from_utf8(path.to_vec()).unwrap());
                    was_killed && above.any(|above| above != "/" && differs(&above))
                };
                let expected: Vec<&String> = model
                    .directories()
                    .filter(|path| differs(path) || is_below(path))
                    .collect();
                let plan = plan(index.clone(), &walk, Before { was_killed, synced: None }).unwrap();
                let planned: Vec<String> = plan
                    .directories
                    .iter()
                    .map(|path| String::from_utf8(path.clone()).unwrap())
                    .collect();
                let mut expected: Vec<String> = expected.into_iter().cloned().collect();
                expected.sort();
                prop_assert_eq!(planned, expected);
                prop_assert_eq!(plan.index.rows.len(), model.directories().count());
                prop_assert!(plan.index.rows.is_sorted());
            }
        }
    }

    /// The directories and files that it lacks would not be sent.
    #[test]
    fn an_incomplete_plan_is_none() {
        for (directories, files, too_much) in [
            (MAX_DIRECTORIES, MAX_FILES, false),
            (MAX_DIRECTORIES + 1, 0, true),
            (MAX_DIRECTORIES + 2, 0, true),
            (0, MAX_FILES + 1, true),
            (0, MAX_FILES + 2, true),
        ] {
            assert_eq!(is_too_much(directories, files), too_much);
        }
    }
}
