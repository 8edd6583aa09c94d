//! Tests of the selection of paths.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::batch::Change;
use crate::local::{CopyItem, CopyTask};
use crate::staging::request::ScanScope;
use crate::staging::staged_tree::Layout;

/// A staged tree for the directory `src`.
struct Site {
    directory: tempfile::TempDir,
    stage: StagedTree,
    filter: RwLock<Filter>,
}

fn open(directory: &Path, source: &Path) -> StagedTree {
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let layout = Layout {
        source: bytes(source),
        staging: bytes(&directory.join("staging")),
        rules: Some(b"rules".to_vec()),
        checksum: false,
        readers: Arc::default(),
        configured: Vec::new(),
    };
    StagedTree::open(layout, Arc::default()).unwrap()
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("src");
        std::fs::create_dir_all(source.join("d/e")).unwrap();
        Site {
            stage: open(directory.path(), &source),
            directory,
            filter: RwLock::default(),
        }
    }

    fn events(&mut self, events: &[(Change, &str)]) -> Collected {
        let items = events.iter().map(|&(change, path)| CopyItem {
            change,
            path: path.into(),
            to: None,
        });
        let scope = ScanScope::for_task(&CopyTask::Events(items.collect()));
        self.stage.collect(scope, &self.filter, None).unwrap()
    }

    fn subtree(&mut self, path: &str) -> (io::Result<()>, Collected) {
        let mut found = Collected::default();
        let done = self
            .stage
            .subtree(path.as_bytes(), &self.filter, &mut found);
        (done, found)
    }
}

fn bare(paths: &[Vec<u8>]) -> Vec<&str> {
    let texts = paths.iter().map(|path| std::str::from_utf8(path).unwrap());
    texts.collect()
}

/// Otherwise each new directory would be compared again for those above it.
#[test]
fn a_directory_is_compared_once_in_a_pass() {
    let mut site = Site::new();
    let new = [(Change::Create, "/d/"), (Change::Create, "/d/e/")];
    let found = site.events(&new);
    assert_eq!(bare(&found.compared), ["/d"]);
    assert_eq!(bare(&found.clear), ["/d", "/d/e"]);
    let found = site.events(&[(Change::Create, "/d/e/")]);
    assert_eq!(bare(&found.compared), ["/d/e"], "in the next pass");
}

#[test]
fn new_attributes_of_a_directory_compare_nothing_below_it() {
    let mut site = Site::new();
    site.events(&[(Change::Create, "/d/")]);
    let found = site.events(&[(Change::Attrib, "/d/")]);
    assert!(found.compared.is_empty(), "{found:?}");
}

#[test]
fn excluded_files_are_not_checked() {
    let mut site = Site::new();
    for name in ["src/d/f", "src/d/g"] {
        std::fs::write(site.directory.path().join(name), "text").unwrap();
    }
    site.filter.write().unwrap().add_exclude(b"f");
    let (done, found) = site.subtree("/");
    done.unwrap();
    let candidates = found.candidates.iter().map(|file| file.path.as_slice());
    assert_eq!(candidates.collect::<Vec<_>>(), [b"/d/g"]);
}

#[test]
fn a_directory_that_is_gone_is_no_failure_as_it_has_an_event() {
    let mut site = Site::new();
    let (done, found) = site.subtree("/d/gone/");
    assert!(done.is_ok() && found.failures.is_empty(), "{found:?}");
}

#[test]
fn a_source_that_cannot_be_read_fails_the_pass_and_a_directory_in_it_only_itself() {
    crate::test_user::without_rights_of_root(|directory| {
        use std::os::unix::fs::PermissionsExt;
        let source = directory.join("src");
        std::fs::create_dir_all(source.join("d")).unwrap();
        let mut stage = open(directory, &source);
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let mut subtree = || {
            let mut found = Collected::default();
            let done = stage.subtree(b"/", &RwLock::default(), &mut found);
            done.map(|()| found.failures.len())
        };
        mode(&source.join("d"), 0);
        assert_eq!(subtree().unwrap(), 1);
        mode(&source, 0);
        assert!(subtree().is_err());
        mode(&source, 0o700);
        mode(&source.join("d"), 0o700);
    });
}

/// Otherwise a link would count as sent.
#[test]
fn a_link_that_cannot_be_staged_is_an_error() {
    let mut site = Site::new();
    let at = |name: &str| site.directory.path().join(name);
    for name in ["src/a", "src/b"] {
        std::os::unix::fs::symlink("x", at(name)).unwrap();
    }
    let incoming = at("staging/incoming");
    let mut single = |name: &str| {
        let mut found = Collected::default();
        let stat = site.stage.source.lookup(name.as_bytes()).unwrap().unwrap();
        site.stage.single(name.as_bytes(), &stat, false, &mut found)
    };
    single("/a").unwrap();
    // The directory in which the next one would be made.
    for made in std::fs::read_dir(incoming).unwrap() {
        std::fs::remove_dir(made.unwrap().path()).unwrap();
    }
    assert!(single("/b").is_err());
}

/// rsync does not send them either.
#[test]
fn a_device_that_may_not_be_created_is_no_failure() {
    crate::test_user::without_rights_of_root(|directory| {
        let mut stage = open(directory, Path::new("/dev"));
        let mut found = Collected::default();
        let stat = stage.source.lookup(b"/null").unwrap().unwrap();
        let done = stage.single(b"/null", &stat, false, &mut found);
        assert!(done.is_ok(), "{done:?}");
    });
}
