//! Tests of known and unknown files.

use std::fs as std_fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use super::*;
use crate::batch::Change;
use crate::filter::Filter;
use crate::local::{CopyItem, CopyTask};
use crate::staging::commit::CommitAction;
use crate::staging::request::ScanScope;
use crate::staging::staged_tree::Layout;

/// A source and a staged tree for it.
struct Site {
    directory: tempfile::TempDir,
    stage: StagedTree,
}

impl Site {
    /// Returns a site whose checks are programs, or functions that decide by the name as well.
    fn new(programs: bool) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).into_os_string();
        std_fs::create_dir(path("src")).unwrap();
        let layout = Layout {
            source: path("src").into_encoded_bytes(),
            staging: path("staging").into_encoded_bytes(),
            rules: programs.then(|| b"rules".to_vec()),
            checksum: false,
            readers: Arc::default(),
            configured: Vec::new(),
        };
        let stage = StagedTree::open(layout, Arc::default()).unwrap();
        Site { directory, stage }
    }

    fn source(&self, name: &str) -> PathBuf {
        self.directory.path().join("src").join(name)
    }

    fn tree(&self, name: &str) -> PathBuf {
        self.directory.path().join("staging/tree").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std_fs::write(self.source(name), text).unwrap();
    }

    /// Writes a file of which the size and the time stay the same.
    fn rewrite(&self, name: &str, text: &str) {
        let time = std_fs::metadata(self.source(name)).unwrap();
        self.write(name, text);
        let file = File::options().write(true).open(self.source(name));
        file.unwrap()
            .set_modified(time.modified().unwrap())
            .unwrap();
    }

    fn scan(&mut self, task: CopyTask) -> Collected {
        let filter = RwLock::new(Filter::default());
        let scope = ScanScope::for_task(&task);
        let found = self.stage.collect(scope, &filter, None).unwrap();
        assert!(found.failures.is_empty(), "{:?}", found.failures);
        found
    }

    fn everything(&mut self) -> Collected {
        self.scan(CopyTask::Everything)
    }

    fn event(&mut self, change: Change, path: &str) -> Collected {
        self.scan(CopyTask::Events(vec![CopyItem {
            change,
            path: path.into(),
            to: None,
        }]))
    }

    /// Applies decisions about the candidates.
    fn commit(&mut self, found: Collected, decide: impl Fn(&str) -> CommitAction) {
        let decided = found.candidates.into_iter().map(|file| {
            let action = decide(std::str::from_utf8(&file.path).unwrap());
            (file, action)
        });
        let committed = self.stage.commit(decided.collect());
        assert!(committed.failures.is_empty(), "{:?}", committed.failures);
    }

    /// Scans everything until later changes of the files give them another state.
    fn settled(&mut self) -> Collected {
        loop {
            let found = self.everything();
            if found.candidates.iter().all(|file| file.settled) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn staged(&self, name: &str) -> Option<String> {
        std_fs::read_to_string(self.tree(name)).ok()
    }
}

fn sorted<'f>(paths: impl Iterator<Item = &'f Vec<u8>>) -> Vec<&'f [u8]> {
    let mut paths: Vec<&[u8]> = paths.map(Vec::as_slice).collect();
    paths.sort();
    paths
}

fn candidates(found: &Collected) -> Vec<&[u8]> {
    sorted(found.candidates.iter().map(|file| &file.path))
}

#[test]
fn a_written_file_of_equal_size_and_time_is_checked() {
    let mut site = Site::new(true);
    site.write("f", "one");
    let found = site.everything();
    site.commit(found, |_| CommitAction::Install);
    site.rewrite("f", "two");
    let found = site.event(Change::Modify, "/f");
    assert_eq!(candidates(&found), [b"/f"]);
    site.commit(found, |_| CommitAction::Wait);
    assert_eq!(site.staged("f").unwrap(), "one");
    site.stage.layout.checksum = true;
    assert_eq!(candidates(&site.everything()), [b"/f"]);
}

#[test]
fn a_changed_mode_needs_no_check_and_is_staged() {
    let mut site = Site::new(true);
    site.write("f", "one");
    let found = site.everything();
    site.commit(found, |_| CommitAction::Install);
    std_fs::set_permissions(site.source("f"), PermissionsExt::from_mode(0o751)).unwrap();
    let found = site.event(Change::Attrib, "/f");
    assert_eq!(candidates(&found), [] as [&[u8]; 0]);
    assert_eq!(found.clear, [b"/f"]);
    let mode = std_fs::metadata(site.tree("f"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o751);
}

/// Programs see contents, functions see names too.
#[test]
fn a_rejected_file_is_rejected_at_its_other_name_if_programs_check_it() {
    for programs in [true, false] {
        let mut site = Site::new(programs);
        site.write("a", "bad");
        std_fs::hard_link(site.source("a"), site.source("b")).unwrap();
        let found = site.settled();
        assert_eq!(candidates(&found), [b"/a", b"/b"]);
        site.commit(found, |path| match path {
            "/a" => CommitAction::Hold("bad".to_owned()),
            _ => CommitAction::Wait,
        });
        let found = site.everything();
        let rejected = sorted(found.rejected.iter().map(|(path, _)| path));
        if programs {
            assert_eq!(rejected, [b"/a", b"/b"]);
            assert!(found.candidates.is_empty());
        } else {
            assert_eq!(rejected, [b"/a"]);
            assert_eq!(candidates(&found), [b"/b"]);
        }
    }
}

/// Programs see contents, functions see names too.
#[test]
fn a_passed_file_is_staged_at_its_other_name_if_programs_check_it() {
    for programs in [true, false] {
        let mut site = Site::new(programs);
        site.write("a", "good");
        std_fs::hard_link(site.source("a"), site.source("b")).unwrap();
        let found = site.settled();
        site.commit(found, |path| match path {
            "/a" => CommitAction::Install,
            _ => CommitAction::Wait,
        });
        let found = site.everything();
        if programs {
            assert!(found.candidates.is_empty());
            assert_eq!(site.staged("b").unwrap(), "good");
        } else {
            assert_eq!(candidates(&found), [b"/b"]);
            assert_eq!(site.staged("b"), None);
        }
    }
}

#[test]
fn a_passed_file_that_is_missing_in_the_tree_is_staged_again() {
    let mut site = Site::new(true);
    site.write("a", "good");
    let found = site.settled();
    site.commit(found, |_| CommitAction::Install);
    std_fs::remove_file(site.tree("a")).unwrap();
    let found = site.everything();
    assert_eq!(candidates(&found), [b"/a"]);
}

#[test]
fn a_file_that_has_just_changed_is_not_settled() {
    let mut site = Site::new(true);
    let began = Instant::now();
    site.write("a", "one");
    let found = site.everything();
    let took = began.elapsed();
    let settled = found.candidates[0].settled;
    assert!(!settled || took >= Duration::from_millis(90), "{took:?}");
}

#[test]
fn copies_of_equal_names_are_kept_apart() {
    let mut site = Site::new(true);
    for name in ["d", "e"] {
        std_fs::create_dir(site.source(name)).unwrap();
        for file in ["f", "g"] {
            site.write(&format!("{name}/{file}"), &format!("{file} in {name}"));
        }
    }
    std_fs::create_dir(site.source("h")).unwrap();
    site.write("h/g", "g in h");
    let found = site.everything();
    assert_eq!(found.candidates.len(), 5);
    let mut copies: Vec<_> = found.candidates.iter().map(|file| &file.copy).collect();
    copies.dedup();
    assert_eq!(copies.len(), 5);
    site.commit(found, |_| CommitAction::Install);
    for name in ["d/f", "d/g", "e/f", "e/g", "h/g"] {
        let (directory, file) = name.split_once('/').unwrap();
        assert_eq!(site.staged(name).unwrap(), format!("{file} in {directory}"));
    }
}

#[test]
fn contents_are_compared_to_their_end() {
    let directory = tempfile::tempdir().unwrap();
    let long = vec![b'x'; 10_000];
    let mut other = long.clone();
    other[9_000] = b'y';
    let shorter = long[..9_999].to_vec();
    for (text, equal) in [(&long, true), (&other, false), (&shorter, false)] {
        let file = |name: &str, text: &[u8]| {
            let path = directory.path().join(name);
            std_fs::write(&path, text).unwrap();
            File::open(path).unwrap()
        };
        let both = || (file("one", &long), file("other", text));
        let (one, other) = both();
        assert_eq!(same(one, other).unwrap(), equal);
        let (one, other) = both();
        assert_eq!(same(other, one).unwrap(), equal);
    }
}

/// A link that replaces a file of equal size and time has other contents.
#[test]
fn a_passed_file_that_is_linked_over_another_one_is_staged_there() {
    let mut site = Site::new(true);
    for (name, text) in [("a", "one"), ("b", "two")] {
        site.write(name, text);
        let file = File::options().write(true).open(site.source(name));
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.unwrap().set_modified(time).unwrap();
    }
    let found = site.everything();
    site.commit(found, |_| CommitAction::Install);
    assert_eq!(site.staged("b").unwrap(), "two");
    std_fs::hard_link(site.source("a"), site.source("link")).unwrap();
    std_fs::rename(site.source("link"), site.source("b")).unwrap();
    // The file is known in its present state, at its first name.
    let stat = rustix::fs::lstat(site.source("a")).unwrap();
    let verdict = ScanVerdict::Passed(b"/a".to_vec());
    site.stage.verdicts.remember(identity(&stat), verdict);
    let found = site.event(Change::Create, "/b");
    site.commit(found, |_| CommitAction::Wait);
    assert_eq!(site.staged("b").unwrap(), "one");
}

#[test]
fn an_empty_file_in_place_of_a_pipe_is_checked() {
    let mut site = Site::new(true);
    let pipe = site.source("p");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(site.everything().candidates.is_empty());
    assert!(rustix::fs::lstat(site.tree("p")).is_ok());
    std_fs::remove_file(pipe).unwrap();
    site.write("p", "");
    assert_eq!(candidates(&site.everything()), [b"/p"]);
}

#[test]
fn attributes_that_cannot_be_staged_are_an_error() {
    let mut site = Site::new(true);
    site.write("f", "one");
    let found = site.everything();
    site.commit(found, |_| CommitAction::Install);
    let stat = rustix::fs::lstat(site.source("f")).unwrap();
    let long = format!("/{}", "x".repeat(300));
    let same = |path: &str| site.stage.same_attributes(path.as_bytes(), &stat);
    assert!(same("/f").is_ok());
    assert!(same(&long).is_err());
    std_fs::remove_file(site.source("f")).unwrap();
    assert!(same("/f").is_ok(), "a file that is gone has an event");
    site.write("f", "one");
    std_fs::remove_file(site.tree("f")).unwrap();
    assert!(same("/f").is_err());
}

/// rsync sends no path of that length, so it is no reason to try everything again.
#[test]
fn a_directory_that_is_too_deep_is_one_failure() {
    let mut site = Site::new(true);
    let name = "d".repeat(200);
    let next = site.source("next");
    let chain = site.source(&name);
    std_fs::create_dir(&chain).unwrap();
    std_fs::write(chain.join("f"), "").unwrap();
    for _ in 0..22 {
        std_fs::create_dir(&next).unwrap();
        std_fs::rename(&chain, next.join(&name)).unwrap();
        std_fs::rename(&next, &chain).unwrap();
    }
    site.write("z", "one");
    let filter = RwLock::new(Filter::default());
    let found = site.stage.collect(ScanScope::Everything, &filter, None);
    let found = found.unwrap();
    assert_eq!(candidates(&found), [b"/z"]);
    assert_eq!(found.failures.len(), 1, "{:?}", found.failures);
}
