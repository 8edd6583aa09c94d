//! Applies the decisions about the copies: those that passed are moved into the staged tree.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;

use super::files::identity;
use super::readers::Usage;
use super::request::Candidate;
use super::staged_tree::StagedTree;
use super::verdict_cache::ScanVerdict;
use crate::local::attributes::attributes_may_forbid;
use crate::local::beneath::{lookup, open_file};
use crate::paths;

/// The decision about a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitAction {
    /// It passed and is moved into the tree.
    Install,
    /// It was rejected; the tree keeps its old file.
    Hold(String),
    /// It was rejected; the file is removed from the tree.
    Remove(String),
    /// It was rejected and is moved to this directory; it is removed from source and tree.
    Quarantine(String, Vec<u8>),
    /// It is not decided yet.
    Wait,
}

/// The result of the decisions.
#[derive(Debug, Default)]
pub struct Committed {
    /// Paths that failed, with the reason.
    pub failures: Vec<(Vec<u8>, String)>,
    /// Rejected files: their paths and their paths in quarantine.
    pub quarantined: Vec<(Vec<u8>, Vec<u8>)>,
}

impl StagedTree {
    /// Applies the decision about each candidate.
    pub fn commit(&mut self, decided: Vec<(Candidate, CommitAction)>) -> Committed {
        let mut settled = Committed::default();
        for (candidate, disposition) in decided {
            let done = self.dispose(&candidate, disposition, &mut settled);
            if let Err(error) = done {
                settled.failures.push((candidate.path, error.to_string()));
            }
        }
        self.finish_directories();
        // Files that are left there are removed before the next pass.
        let _ = self.incoming.empty(&self.private);
        settled
    }

    fn dispose(
        &mut self,
        candidate: &Candidate,
        disposition: CommitAction,
        settled: &mut Committed,
    ) -> io::Result<()> {
        let path = &candidate.path;
        let verdict = match disposition {
            CommitAction::Wait => return Ok(()),
            CommitAction::Install => {
                self.install(candidate)?;
                ScanVerdict::Passed(path.clone())
            }
            CommitAction::Hold(reason) => ScanVerdict::Rejected(path.clone(), reason),
            CommitAction::Remove(reason) => {
                self.remove(path)?;
                ScanVerdict::Rejected(path.clone(), reason)
            }
            CommitAction::Quarantine(_, directory) => {
                let place = self.quarantine(candidate, &directory)?;
                settled.quarantined.push((path.clone(), place));
                return self.remove(path);
            }
        };
        self.verdicts.remember(candidate.known_as(), verdict);
        Ok(())
    }

    /// Moves the copy into the tree.
    pub(super) fn install(&mut self, candidate: &Candidate) -> io::Result<()> {
        let (from, name) = self.incoming.parent(&candidate.copy)?;
        let now = lookup(&from, name)?;
        if now.is_none_or(|stat| identity(&stat) != candidate.made) {
            return Err(io::Error::other(
                "the copy was changed while it was checked",
            ));
        }
        self.rename_into_tree(&candidate.path, &candidate.copy)
    }

    /// Moves an object that was created aside into the tree, in one step where a running transfer
    /// may see the old as well as the new.
    ///
    /// # Errors
    /// A running transfer may have listed an object there that it would open or enter.
    pub(super) fn rename_into_tree(&mut self, path: &[u8], copy: &[u8]) -> io::Result<()> {
        let (from, old) = self.incoming.parent(copy)?;
        let made = lookup(&from, old)?.ok_or(Errno::NOENT)?;
        let usage = Usage::of(&made);
        if let Some(there) = self.tree.lookup(path)?
            && Usage::of(&there) > usage
        {
            self.remove(path)?;
        }
        if !self.removed.may_become(path, usage) {
            return Err(io::Error::other(
                "a running transfer may still use the old entry of that name",
            ));
        }
        let (directory, name) = self.above(path)?;
        attributes_may_forbid(&directory, || {
            fs::renameat(from.as_fd(), old, directory.as_fd(), name)
        })
    }

    /// Moves a rejected file out of the source. The directory receives the contents that were
    /// checked.
    fn quarantine(&self, candidate: &Candidate, directory: &[u8]) -> io::Result<Vec<u8>> {
        // The longest name leaves no room for a number.
        let name = paths::split(&candidate.path).1;
        let name = &name[..name.len().min(240)];
        let mut place = [directory, b"/", name].concat();
        for number in 1.. {
            match File::create_new(OsStr::from_bytes(&place)) {
                Ok(file) => {
                    // It must not be executable there.
                    fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
                    let (above, name) = self.incoming.parent(&candidate.copy)?;
                    let mut copy = File::from(open_file(&above, name)?);
                    io::copy(&mut copy, &mut &file)?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let suffix = format!(".{number}");
                    place = [directory, b"/", name, suffix.as_bytes()].concat();
                }
                Err(error) => return Err(error),
            }
        }
        match self.take_out(candidate) {
            Ok(()) => Ok(place),
            Err(error) => {
                // It is retried, with another copy.
                let _ = std::fs::remove_file(OsStr::from_bytes(&place));
                Err(error)
            }
        }
    }

    fn take_out(&self, candidate: &Candidate) -> io::Result<()> {
        let (above, name) = self.source.parent(&candidate.path)?;
        let now = lookup(&above, name)?;
        // Another file of that name has not been checked.
        if now.is_some_and(|stat| identity(&stat) == candidate.identity) {
            fs::unlinkat(above.as_fd(), name, AtFlags::empty())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::{Arc, RwLock};

    use super::*;
    use crate::filter::Filter;
    use crate::staging::readers::{Readers, Reading};
    use crate::staging::request::{Collected, ScanScope};
    use crate::staging::staged_tree::Layout;

    /// A source with a file `d/f`, a tree with its last version that passed, and a candidate.
    struct Site {
        directory: tempfile::TempDir,
        readers: Arc<Readers>,
        stage: StagedTree,
    }

    impl Site {
        fn new() -> Site {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name).into_os_string();
            for name in ["src/d", "quarantine"] {
                std::fs::create_dir_all(path(name)).unwrap();
            }
            let readers = Arc::new(Readers::default());
            let layout = Layout {
                source: path("src").into_encoded_bytes(),
                staging: path("staging").into_encoded_bytes(),
                rules: Some(b"rules".to_vec()),
                checksum: false,
                readers: Arc::clone(&readers),
                configured: Vec::new(),
            };
            let stage = StagedTree::open(layout, Arc::default()).unwrap();
            let mut site = Site {
                directory,
                readers,
                stage,
            };
            site.write("old");
            let settled = site.commit(CommitAction::Install);
            assert!(settled.failures.is_empty(), "{:?}", settled.failures);
            site.write("newer");
            site
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, text: &str) {
            std::fs::write(self.path("src/d/f"), text).unwrap();
        }

        fn read(&self, name: &str) -> Option<String> {
            std::fs::read_to_string(self.path(name)).ok()
        }

        fn staged(&self) -> Option<String> {
            self.read("staging/tree/d/f")
        }

        fn scan(&mut self) -> Collected {
            let filter = RwLock::new(Filter::default());
            self.stage
                .collect(ScanScope::Everything, &filter, None)
                .unwrap()
        }

        /// Applies a decision to the one candidate.
        fn commit(&mut self, disposition: CommitAction) -> Committed {
            self.commit_after(disposition, |_| ())
        }

        /// Applies a decision after `between` has changed something.
        fn commit_after(
            &mut self,
            disposition: CommitAction,
            between: impl FnOnce(&Site),
        ) -> Committed {
            let found = self.scan();
            assert_eq!(found.candidates.len(), 1, "{found:?}");
            between(self);
            let decided = found.candidates.into_iter();
            let decided = decided.map(|file| (file, disposition.clone())).collect();
            self.stage.commit(decided)
        }

        fn begin_reading(&self) -> Reading {
            Readers::begin(&self.readers)
        }

        /// Returns the number of files that are checked as new ones.
        fn unknown(&mut self) -> usize {
            let found = self.scan();
            self.stage.commit(Vec::new());
            found.candidates.len()
        }

        fn quarantine(&self) -> CommitAction {
            let place = self.path("quarantine").into_os_string();
            CommitAction::Quarantine("bad".to_owned(), place.into_encoded_bytes())
        }
    }

    /// The state of the tree, if the source has the file, and the number of unknown files.
    #[test]
    fn each_decision_leaves_what_it_says() {
        type Outcome = (Option<&'static str>, bool, usize);
        type Case = (&'static str, fn(&Site) -> CommitAction, Outcome);
        let bad = || "bad".to_owned();
        let cases: [Case; 5] = [
            (
                "install",
                |_| CommitAction::Install,
                (Some("newer"), true, 0),
            ),
            ("wait", |_| CommitAction::Wait, (Some("old"), true, 1)),
            (
                "hold",
                |_| CommitAction::Hold("bad".into()),
                (Some("old"), true, 0),
            ),
            (
                "remove",
                |_| CommitAction::Remove("bad".into()),
                (None, true, 0),
            ),
            ("quarantine", Site::quarantine, (None, false, 0)),
        ];
        for (name, decide, (staged, in_source, unknown)) in cases {
            let mut site = Site::new();
            // Until every later change gets another timestamp.
            while !site.scan().candidates.iter().all(|file| file.settled) {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let disposition = decide(&site);
            let settled = site.commit(disposition);
            assert!(settled.failures.is_empty(), "{name}: {settled:?}");
            assert_eq!(site.staged().as_deref(), staged, "{name}");
            assert_eq!(site.path("src/d/f").exists(), in_source, "{name}");
            let left = std::fs::read_dir(site.path("staging/incoming")).unwrap();
            assert_eq!(left.count(), 0, "{name}");
            let found = site.scan();
            assert_eq!(found.candidates.len(), unknown, "{name}: {found:?}");
            let rejected = [("/d/f".as_bytes().to_vec(), bad())];
            let is_rejected = matches!(name, "hold" | "remove");
            assert_eq!(found.rejected == rejected, is_rejected, "{name}: {found:?}");
        }
    }

    #[test]
    fn quarantine_takes_what_was_checked_under_a_free_name_that_nobody_runs() {
        let mut site = Site::new();
        std::fs::write(site.path("quarantine/f"), "another").unwrap();
        std::fs::write(site.path("quarantine/f.1"), "one more").unwrap();
        let file = site.path("src/d/f");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o777)).unwrap();
        let settled = site.commit(site.quarantine());
        let place = site.path("quarantine/f.2");
        let bytes = place.clone().into_os_string().into_encoded_bytes();
        assert_eq!(settled.quarantined, [(b"/d/f".to_vec(), bytes)]);
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "newer");
        let mode = std::fs::metadata(&place).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(site.read("quarantine/f").unwrap(), "another");
    }

    /// The failure, and the state of tree and source.
    #[test]
    fn failures_leave_tree_and_source_as_they_were() {
        type Between = fn(&Site);
        fn copy(site: &Site) -> PathBuf {
            let rooms = std::fs::read_dir(site.path("staging/incoming")).unwrap();
            let room = rooms.flatten().next().unwrap().path();
            room.join("f")
        }
        let cases: [(&str, bool, Between, &str); 6] = [
            (
                "copy changed",
                false,
                |site| std::fs::write(copy(site), "x").unwrap(),
                "was changed",
            ),
            (
                "copy removed",
                false,
                |site| std::fs::remove_file(copy(site)).unwrap(),
                "was changed",
            ),
            (
                "copy replaced",
                false,
                |site| {
                    std::fs::remove_file(copy(site)).unwrap();
                    std::fs::write(copy(site), "newer").unwrap();
                },
                "was changed",
            ),
            (
                "no quarantine",
                true,
                |site| std::fs::remove_dir(site.path("quarantine")).unwrap(),
                "No such file",
            ),
            (
                "quarantine of a copy that is gone",
                true,
                |site| std::fs::remove_file(copy(site)).unwrap(),
                "No such file",
            ),
            (
                "quarantine of a link in place of the copy",
                true,
                |site| {
                    std::fs::remove_file(copy(site)).unwrap();
                    std::os::unix::fs::symlink(site.path("src/d/f"), copy(site)).unwrap();
                },
                "Too many levels of symbolic links",
            ),
        ];
        for (name, quarantine, between, why) in cases {
            let mut site = Site::new();
            let disposition = if quarantine {
                site.quarantine()
            } else {
                CommitAction::Install
            };
            let settled = site.commit_after(disposition, between);
            assert_eq!(settled.failures.len(), 1, "{name}: {settled:?}");
            assert!(settled.failures[0].1.contains(why), "{name}: {settled:?}");
            assert!(settled.quarantined.is_empty(), "{name}");
            assert_eq!(site.staged().as_deref(), Some("old"), "{name}");
            assert_eq!(site.read("src/d/f").as_deref(), Some("newer"), "{name}");
            assert_eq!(site.unknown(), 1, "{name}: it is looked at again");
        }
    }

    #[test]
    fn another_file_in_the_place_of_a_rejected_one_stays() {
        let mut site = Site::new();
        let quarantine = site.quarantine();
        let settled = site.commit_after(quarantine, |site| {
            std::fs::remove_file(site.path("src/d/f")).unwrap();
            site.write("not looked at");
        });
        assert_eq!(settled.quarantined.len(), 1);
        assert_eq!(site.read("src/d/f").unwrap(), "not looked at");
        assert_eq!(site.read("quarantine/f").unwrap(), "newer");
    }

    #[test]
    fn a_directory_takes_the_place_of_a_file() {
        let mut site = Site::new();
        std::fs::remove_file(site.path("src/d/f")).unwrap();
        std::fs::create_dir(site.path("src/d/f")).unwrap();
        std::fs::write(site.path("src/d/f/g"), "below").unwrap();
        let settled = site.commit(CommitAction::Install);
        assert!(settled.failures.is_empty(), "{settled:?}");
        assert_eq!(site.read("staging/tree/d/f/g").unwrap(), "below");
    }

    /// A transfer that finds no file there would delete it on the target.
    #[test]
    fn a_newer_file_replaces_the_older_one_in_one_step() {
        let mut site = Site::new();
        let _reading = site.begin_reading();
        let settled = site.commit(CommitAction::Install);
        assert!(settled.failures.is_empty(), "{settled:?}");
        assert_eq!(site.staged().unwrap(), "newer");
        let removed = &mut site.stage.removed;
        assert!(removed.may_become(b"/d/f", Usage::Listed), "it was removed");
    }

    #[test]
    fn a_link_in_place_of_a_directory_waits_for_its_transfers_and_is_reported() {
        let mut site = Site::new();
        let reading = site.begin_reading();
        std::fs::remove_file(site.path("src/d/f")).unwrap();
        std::fs::remove_dir(site.path("src/d")).unwrap();
        std::os::unix::fs::symlink("x", site.path("src/d")).unwrap();
        let found = site.scan();
        assert_eq!(found.failures.len(), 1, "{found:?}");
        assert_eq!(found.failures[0].0, b"/d");
        assert!(!site.path("staging/tree/d").is_symlink());
        drop(reading);
        assert!(site.scan().failures.is_empty());
        assert!(site.path("staging/tree/d").is_symlink());
    }

    #[test]
    fn a_directory_in_the_way_goes_unless_a_transfer_has_listed_it() {
        for reads in [false, true] {
            let mut site = Site::new();
            site.commit(CommitAction::Install);
            let reading = reads.then(|| site.begin_reading());
            std::fs::remove_file(site.path("src/d/f")).unwrap();
            std::fs::remove_dir(site.path("src/d")).unwrap();
            std::fs::write(site.path("src/d"), "a file now").unwrap();
            let settled = site.commit(CommitAction::Install);
            assert_eq!(settled.failures.len(), usize::from(reads), "{settled:?}");
            assert_eq!(site.read("staging/tree/d").is_none(), reads);
            assert_eq!(site.path("staging/tree/d").exists(), !reads);
            drop(reading);
            if reads {
                let settled = site.commit(CommitAction::Install);
                assert!(settled.failures.is_empty(), "{settled:?}");
            }
            assert_eq!(site.read("staging/tree/d").unwrap(), "a file now");
        }
    }
}
