//! The staged tree: what of the source has passed, and only that.
//!
//! A private directory (mode 0700) holds
//!
//! | name | what it is |
//! |---|---|
//! | `tree/` | what rsync reads |
//! | `incoming/` | copies that are being checked, each in a directory of its own under its own name |
//! | `rules` | by which checks the tree was made; a tree made by others is not taken over |
//! | `lock` | held while a daemon works here |
//!
//! The source is read without following a symlink. Copies are reflinks where the file system has
//! them.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{self, FileType, Mode, Stat};
use rustix::io::Errno;

use super::look::{Collected, Look, Mention};
use super::private;
use super::verdicts::Verdicts;
use crate::filter::Filter;
use crate::local::attributes;
use crate::local::copy::{Copier, Spot, attributes_may_forbid, stopped};
use crate::local::place::{self, Directory, Place, is_directory, kind};
use crate::report;

/// Where things are, and what is to be taken for equal.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Absolute.
    pub source: Vec<u8>,
    /// The private directory, absolute, without slash at its end.
    pub staging: Vec<u8>,
    /// Tells the checks from others; `None` if no other text can tell that they are the same.
    pub rules: Option<Vec<u8>>,
    /// Contents are compared where size and time agree.
    pub checksum: bool,
}

impl Layout {
    /// What rsync reads, with a slash at its end.
    pub fn tree(&self) -> Vec<u8> {
        [self.staging.as_slice(), b"/tree/"].concat()
    }
}

/// The staged tree of one sync.
pub struct Stage {
    pub(super) layout: Layout,
    pub(super) source: Place,
    pub(super) tree: Place,
    pub(super) incoming: Place,
    pub(super) verdicts: Verdicts,
    pub(super) copier: Copier,
    /// Directories of the tree that get the attributes of the source's at the end.
    touched: BTreeSet<Vec<u8>>,
    /// What the tree loses at the end, when renamed files have been compared with it.
    doomed: Vec<Vec<u8>>,
    /// What was copied in this look.
    pub(super) copied: HashSet<Vec<u8>>,
    pub(super) count: u64,
    pub(super) stop: Arc<AtomicBool>,
    _lock: OwnedFd,
}

impl Stage {
    /// Opens the private directory, or makes it.
    ///
    /// # Errors
    /// In words: it cannot be made, is somebody else's, or another daemon works there; or the
    /// source cannot be entered.
    pub fn open(layout: Layout, stop: Arc<AtomicBool>) -> Result<Stage, String> {
        let shown = report::escape(&layout.staging).into_owned();
        let failed = |error: io::Error| format!("cannot use {shown}: {error}");
        let lock = private::enter(&layout.staging)?;
        let at = |name: &str| [layout.staging.as_slice(), b"/", name.as_bytes()].concat();
        let tree = Place::enter_or_make(&at("tree")).map_err(failed)?;
        let incoming = Place::enter_or_make(&at("incoming")).map_err(failed)?;
        let source = Place::enter(&layout.source)
            .map_err(|error| format!("cannot enter {}: {error}", report::escape(&layout.source)))?;
        let rules = at("rules");
        let rules = OsStr::from_bytes(&rules);
        let same = layout.rules.is_some() && std::fs::read(rules).ok() == layout.rules;
        if !same {
            let _ = std::fs::remove_file(rules);
            private::empty(&tree).map_err(failed)?;
            if let Some(text) = &layout.rules {
                std::fs::write(rules, text).map_err(failed)?;
            }
        }
        Ok(Stage {
            layout,
            source,
            tree,
            incoming,
            verdicts: Verdicts::default(),
            copier: Copier::default(),
            touched: BTreeSet::new(),
            doomed: Vec::new(),
            copied: HashSet::new(),
            count: 0,
            stop,
            _lock: lock,
        })
    }

    /// Looks at the source: what needs no check goes to the tree, what does is copied.
    ///
    /// # Errors
    /// The source or the private directory cannot be used, or the daemon is ending.
    pub fn collect(&mut self, look: Look, filter: &RwLock<Filter>) -> io::Result<Collected> {
        // The source may be another directory than last time, under the same name.
        self.source = Place::enter(&self.layout.source)?;
        self.tree.forget();
        self.copied.clear();
        private::empty(&self.incoming)?;
        let mut found = Collected::default();
        match look {
            Look::Everything => {
                found.everything = true;
                self.subtree(b"/", filter, &mut found)?;
            }
            Look::At(mentions) => {
                for (path, mention) in mentions {
                    stopped(&self.stop)?;
                    let done = self.bring(&path, mention, filter, &mut found);
                    self.note(done, &path, &mut found)?;
                }
            }
        }
        for path in std::mem::take(&mut self.doomed) {
            let done = self.remove(&path);
            self.note(done, &path, &mut found)?;
        }
        self.finish_directories();
        self.copied = HashSet::new();
        Ok(found)
    }

    /// Errors that concern one path do not end the work on others.
    fn note(&self, done: io::Result<()>, path: &[u8], found: &mut Collected) -> io::Result<()> {
        if let Err(error) = done {
            stopped(&self.stop)?;
            found.failures.push((path.to_vec(), error.to_string()));
        }
        Ok(())
    }

    /// Brings the tree to what the source has at one path; with `whole`, below it as well.
    fn bring(
        &mut self,
        path: &[u8],
        mention: Mention,
        filter: &RwLock<Filter>,
        found: &mut Collected,
    ) -> io::Result<()> {
        let Some(stat) = self.source.look(path)? else {
            self.doomed.push(path.to_vec());
            found.gone.push(path.to_vec());
            return Ok(());
        };
        if !self.has_parents(path)? {
            return Ok(());
        }
        if !is_directory(&stat) {
            return self.single(path, &stat, mention.written, found);
        }
        let new = self.directory(path)?;
        found.clear.push(path.to_vec());
        match new || mention.whole {
            true => self.subtree(path, filter, found),
            false => Ok(()),
        }
    }

    /// Compares all that is in a directory, which is in the tree already.
    fn subtree(
        &mut self,
        path: &[u8],
        filter: &RwLock<Filter>,
        found: &mut Collected,
    ) -> io::Result<()> {
        let mut open = vec![[path.strip_suffix(b"/").unwrap_or(path), b"/"].concat()];
        while let Some(directory) = open.pop() {
            stopped(&self.stop)?;
            self.touched.insert(directory.clone());
            let entries = match self
                .source
                .directory(&directory)
                .and_then(|d| place::list(&d))
            {
                Ok(entries) => entries,
                Err(error) if place::is_missing(&error) && directory != b"/" => continue,
                Err(error) => {
                    self.note(Err(error), &directory, found)?;
                    continue;
                }
            };
            let mut names = BTreeSet::new();
            for entry in entries {
                let below = [directory.as_slice(), &entry.name].concat();
                let Some(stat) = self.source.look(&below)? else {
                    continue;
                };
                let is_directory = is_directory(&stat);
                let tested = match is_directory {
                    true => [below.as_slice(), b"/"].concat(),
                    false => below.clone(),
                };
                if excluded(filter, &tested) {
                    continue;
                }
                names.insert(entry.name);
                let done = match is_directory {
                    true => self.directory(&below).map(|_| open.push(tested)),
                    false => self.single(&below, &stat, false, found),
                };
                self.note(done, &below, found)?;
            }
            let staged = self
                .tree
                .directory(&directory)
                .and_then(|d| place::list(&d))?;
            let extra = staged
                .into_iter()
                .filter(|entry| !names.contains(&entry.name));
            self.doomed
                .extend(extra.map(|entry| [directory.as_slice(), &entry.name].concat()));
        }
        Ok(())
    }

    /// Makes the directories above a path; false if one of them is none any more, of which
    /// another event tells.
    fn has_parents(&mut self, path: &[u8]) -> io::Result<bool> {
        let bare = path.strip_suffix(b"/").unwrap_or(path);
        for end in (1..bare.len()).filter(|&at| bare[at] == b'/') {
            match self.source.look(&bare[..end])? {
                Some(stat) if is_directory(&stat) => self.directory(&bare[..end])?,
                _ => return Ok(false),
            };
        }
        Ok(true)
    }

    /// Has the tree have a directory here; true if it is new.
    fn directory(&mut self, path: &[u8]) -> io::Result<bool> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.touched.insert([path, b"/"].concat());
        if path.is_empty() {
            return Ok(false);
        }
        match self.tree.look(path)? {
            Some(stat) if is_directory(&stat) => return Ok(false),
            Some(_) => self.remove(path)?,
            None => {}
        }
        let (directory, name) = self.above(path)?;
        attributes_may_forbid(&directory, || {
            fs::mkdirat(directory.as_fd(), name, Mode::RWXU)
        })?;
        Ok(true)
    }

    /// The directory of the tree in which `path` is made, changed or removed.
    pub(super) fn above<'p>(&mut self, path: &'p [u8]) -> io::Result<(Directory, &'p OsStr)> {
        self.touched.insert(place::split(path).0.to_vec());
        self.tree.parent(path)
    }

    /// Anything but a directory.
    fn single(
        &mut self,
        path: &[u8],
        stat: &Stat,
        written: bool,
        found: &mut Collected,
    ) -> io::Result<()> {
        if kind(stat) == FileType::RegularFile {
            return self.file(path, stat, written, found);
        }
        if self
            .tree
            .look(path)?
            .is_some_and(|stat| is_directory(&stat))
        {
            self.remove(path)?;
        }
        let (directory, name) = self.source.parent(path)?;
        let from = Spot {
            directory: &directory,
            name,
        };
        let (directory, name) = self.above(path)?;
        let to = Spot {
            directory: &directory,
            name,
        };
        match self.copier.copy(&from, stat, &to, &self.stop) {
            // Devices are for the superuser to make; rsync would not send them either.
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {}
            done => _ = done?,
        }
        found.clear.push(path.to_vec());
        Ok(())
    }

    pub(super) fn finish_directories(&mut self) {
        self.tree.forget();
        for path in std::mem::take(&mut self.touched) {
            let (Ok(source), Ok(staged)) =
                (self.source.directory(&path), self.tree.directory(&path))
            else {
                continue;
            };
            // A directory that goes meanwhile is told by another event.
            if let Ok(stat) = fs::fstat(source.as_fd()) {
                let _ = attributes::give(source.as_fd(), &stat, staged.as_fd());
            }
        }
    }

    pub(super) fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        self.tree.forget();
        match self.above(path) {
            Ok((directory, name)) => private::remove(&directory, name),
            Err(error) if place::is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn excluded(filter: &RwLock<Filter>, path: &[u8]) -> bool {
    let filter = filter.read().unwrap_or_else(PoisonError::into_inner);
    filter.excluded(path)
}

#[cfg(test)]
mod tests {
    use super::super::settle::Disposition;
    use super::*;
    use crate::batch::Change;
    use crate::local::{Item, Task};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// A source, and a stage for it.
    struct Site {
        directory: tempfile::TempDir,
        stage: Stage,
        filter: RwLock<Filter>,
    }

    fn layout(root: &Path) -> Layout {
        let path = |name: &str| root.join(name).into_os_string().into_encoded_bytes();
        Layout {
            source: path("src/"),
            staging: path("staging"),
            rules: Some(b"rules".to_vec()),
            checksum: false,
        }
    }

    fn open(root: &Path) -> Result<Stage, String> {
        Stage::open(layout(root), Arc::default())
    }

    impl Site {
        fn new() -> Site {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("src")).unwrap();
            Site {
                stage: open(directory.path()).unwrap(),
                directory,
                filter: RwLock::default(),
            }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.directory.path().join("src").join(name), text).unwrap();
        }

        fn staged(&self, name: &str) -> Option<String> {
            let tree = self.directory.path().join("staging/tree");
            std::fs::read_to_string(tree.join(name)).ok()
        }

        fn look(&mut self, task: Task) -> Collected {
            let found = self
                .stage
                .collect(Look::for_task(&task), &self.filter)
                .unwrap();
            assert!(found.failures.is_empty(), "{:?}", found.failures);
            found
        }

        fn changed(&mut self, name: &str) -> Collected {
            self.look(Task::Events(vec![Item {
                change: Change::Modify,
                path: format!("/{name}").into_bytes(),
                to: None,
            }]))
        }

        fn settle(&mut self, found: Collected, disposition: &Disposition) {
            let candidates = found.candidates.into_iter();
            let decided = candidates.map(|file| (file, disposition.clone())).collect();
            let settled = self.stage.settle(decided);
            assert!(settled.failures.is_empty(), "{:?}", settled.failures);
        }
    }

    #[test]
    fn only_what_passed_is_in_the_tree_and_in_the_form_that_passed() {
        let mut site = Site::new();
        site.write("f", "one");
        let found = site.look(Task::Everything);
        assert_eq!(found.candidates.len(), 1);
        assert_eq!(site.staged("f"), None);
        site.write("f", "other");
        site.settle(found, &Disposition::Install);
        assert_eq!(site.staged("f").unwrap(), "one");

        let found = site.changed("f");
        site.settle(found, &Disposition::Wait);
        assert_eq!(site.staged("f").unwrap(), "one");
        let found = site.changed("f");
        assert_eq!(found.candidates.len(), 1);
        site.settle(found, &Disposition::Remove("bad".to_owned()));
        assert_eq!(site.staged("f"), None);
    }

    #[test]
    fn a_file_in_a_new_directory_is_one_candidate() {
        let mut site = Site::new();
        std::fs::create_dir(site.directory.path().join("src/d")).unwrap();
        site.write("d/f", "one");
        let create = |path: &str| Item {
            change: Change::Create,
            path: path.into(),
            to: None,
        };
        let found = site.look(Task::Events(vec![create("/d/"), create("/d/f")]));
        assert_eq!(found.candidates.len(), 1);
        site.settle(found, &Disposition::Install);
        assert_eq!(site.staged("d/f").unwrap(), "one");
    }

    #[test]
    fn equal_contents_and_what_is_gone_need_no_check() {
        let mut site = Site::new();
        site.write("f", "one");
        let found = site.look(Task::Everything);
        site.settle(found, &Disposition::Install);
        site.write("f", "one");
        assert!(site.changed("f").candidates.is_empty());
        let source = site.directory.path().join("src");
        std::fs::rename(source.join("f"), source.join("g")).unwrap();
        let found = site.look(Task::Everything);
        assert!(found.candidates.is_empty(), "{found:?}");
        assert_eq!(
            (site.staged("f"), site.staged("g").unwrap().as_str()),
            (None, "one")
        );
    }

    #[test]
    fn the_tree_is_taken_over_by_the_same_rules_only() {
        let mut site = Site::new();
        site.write("f", "one");
        let found = site.look(Task::Everything);
        site.settle(found, &Disposition::Install);
        let root = site.directory.path().to_owned();
        assert!(open(&root).is_err_and(|why| why.contains("another sync or daemon")));
        let Site {
            directory, stage, ..
        } = site;
        drop(stage);
        drop(open(&root).unwrap());
        assert!(directory.path().join("staging/tree/f").exists());
        let mut other = layout(&root);
        other.rules = Some(b"others".to_vec());
        drop(Stage::open(other, Arc::default()).unwrap());
        assert!(!directory.path().join("staging/tree/f").exists());
    }

    #[test]
    fn a_place_that_others_can_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("src")).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(root, 0o777);
        assert!(open(root).is_err_and(|why| why.contains("could be replaced")));
        mode(root, 0o700);
        std::fs::create_dir(root.join("staging")).unwrap();
        mode(&root.join("staging"), 0o755);
        assert!(open(root).is_err_and(|why| why.contains("of this user alone")));
        mode(&root.join("staging"), 0o700);
        assert!(open(root).is_ok());
    }
}
