//! Tests of the staged tree.

use super::super::commit::CommitAction;
use super::*;
use crate::batch::Change;
use crate::local::{CopyItem, CopyTask};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A source, and a staged tree for it.
struct Site {
    directory: tempfile::TempDir,
    stage: StagedTree,
    filter: RwLock<Filter>,
}

fn layout(root: &Path) -> Layout {
    let path = |name: &str| root.join(name).into_os_string().into_encoded_bytes();
    Layout {
        source: path("src/"),
        staging: path("staging"),
        rules: Some(b"rules".to_vec()),
        checksum: false,
        readers: Arc::default(),
        configured: Vec::new(),
    }
}

fn open(root: &Path) -> Result<StagedTree, String> {
    StagedTree::open(layout(root), Arc::default())
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

    fn scan(&mut self, task: CopyTask) -> Collected {
        let found = self
            .stage
            .collect(ScanScope::for_task(&task), &self.filter, None)
            .unwrap();
        assert!(found.failures.is_empty(), "{:?}", found.failures);
        found
    }

    fn changed(&mut self, name: &str) -> Collected {
        self.scan(CopyTask::Events(vec![CopyItem {
            change: Change::Modify,
            path: format!("/{name}").into_bytes(),
            to: None,
        }]))
    }

    fn commit(&mut self, found: Collected, disposition: &CommitAction) {
        let candidates = found.candidates.into_iter();
        let decided = candidates.map(|file| (file, disposition.clone())).collect();
        let settled = self.stage.commit(decided);
        assert!(settled.failures.is_empty(), "{:?}", settled.failures);
    }
}

#[test]
fn only_what_passed_is_in_the_tree_and_in_the_form_that_passed() {
    let mut site = Site::new();
    site.write("f", "one");
    let found = site.scan(CopyTask::Everything);
    assert_eq!(found.candidates.len(), 1);
    assert_eq!(site.staged("f"), None);
    site.write("f", "other");
    site.commit(found, &CommitAction::Install);
    assert_eq!(site.staged("f").unwrap(), "one");

    let found = site.changed("f");
    site.commit(found, &CommitAction::Wait);
    assert_eq!(site.staged("f").unwrap(), "one");
    let found = site.changed("f");
    assert_eq!(found.candidates.len(), 1);
    site.commit(found, &CommitAction::Remove("bad".to_owned()));
    assert_eq!(site.staged("f"), None);
}

#[test]
fn a_file_in_a_new_directory_is_one_candidate() {
    let mut site = Site::new();
    std::fs::create_dir(site.directory.path().join("src/d")).unwrap();
    site.write("d/f", "one");
    let create = |path: &str| CopyItem {
        change: Change::Create,
        path: path.into(),
        to: None,
    };
    let found = site.scan(CopyTask::Events(vec![create("/d/"), create("/d/f")]));
    assert_eq!(found.candidates.len(), 1);
    site.commit(found, &CommitAction::Install);
    assert_eq!(site.staged("d/f").unwrap(), "one");
}

#[test]
fn equal_contents_and_what_is_gone_need_no_check() {
    let mut site = Site::new();
    site.write("f", "one");
    let found = site.scan(CopyTask::Everything);
    site.commit(found, &CommitAction::Install);
    site.write("f", "one");
    assert!(site.changed("f").candidates.is_empty());
    let source = site.directory.path().join("src");
    std::fs::rename(source.join("f"), source.join("g")).unwrap();
    let found = site.scan(CopyTask::Everything);
    assert!(found.candidates.is_empty(), "{found:?}");
    assert_eq!(
        (site.staged("f"), site.staged("g").unwrap().as_str()),
        (None, "one")
    );
}

/// Checks that another source, such as an empty mount point, does not empty the tree: a running
/// transfer would delete everything.
#[test]
fn another_source_in_its_place_empties_no_tree() {
    let mut site = Site::new();
    site.write("f", "one");
    let found = site.scan(CopyTask::Everything);
    site.commit(found, &CommitAction::Install);
    let source = site.directory.path().join("src");
    let stat = std::fs::metadata(&source).unwrap();
    let root_identity = Some((stat.dev(), stat.ino()));
    std::fs::rename(&source, site.directory.path().join("away")).unwrap();
    std::fs::create_dir(&source).unwrap();
    let looked = site
        .stage
        .collect(ScanScope::Everything, &site.filter, root_identity);
    assert!(looked.is_err());
    assert_eq!(site.staged("f").unwrap(), "one");
}

#[test]
fn the_tree_is_taken_over_by_the_same_rules_only() {
    let mut site = Site::new();
    site.write("f", "one");
    let found = site.scan(CopyTask::Everything);
    site.commit(found, &CommitAction::Install);
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
    let tree = directory.path().join("staging/tree");
    drop(StagedTree::open(other.clone(), Arc::default()).unwrap());
    assert!(!tree.join("f").exists());

    // What functions have passed is taken over by nobody.
    let unnamed = Layout {
        rules: None,
        ..layout(&root)
    };
    drop(StagedTree::open(unnamed, Arc::default()).unwrap());
    std::fs::write(tree.join("f"), "passed by a function").unwrap();
    drop(StagedTree::open(other, Arc::default()).unwrap());
    assert!(!tree.join("f").exists());
}

#[test]
fn a_configured_path_is_not_emptied() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("src")).unwrap();
    let mut layout = layout(directory.path());
    layout.configured = vec![[&layout.staging[..], b"/tree/log"].concat()];
    let opened = StagedTree::open(layout, Arc::default());
    assert!(opened.is_err_and(|why| why.contains("would be emptied")));
}

#[test]
fn a_replaced_staging_directory_is_noticed() {
    for name in ["tree", "incoming"] {
        let site = Site::new();
        assert!(site.stage.is_in_place());
        let at = site.directory.path().join("staging").join(name);
        std::fs::remove_dir(&at).unwrap();
        assert!(!site.stage.is_in_place(), "{name}");
        std::fs::create_dir(at).unwrap();
        assert!(!site.stage.is_in_place(), "{name}");
    }
}

#[test]
fn a_directory_of_the_same_name_is_compared_with_its_attributes() {
    let mut site = Site::new();
    let source = site.directory.path().join("src/d");
    std::fs::create_dir(&source).unwrap();
    site.write("d/f", "one");
    let found = site.scan(CopyTask::Everything);
    site.commit(found, &CommitAction::Install);
    std::fs::remove_dir_all(&source).unwrap();
    std::fs::create_dir(&source).unwrap();
    site.write("d/g", "two");
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o750)).unwrap();
    let found = site.scan(CopyTask::Events(vec![CopyItem {
        change: Change::Create,
        path: b"/d/".to_vec(),
        to: None,
    }]));
    assert_eq!(found.candidates.len(), 1, "{found:?}");
    site.commit(found, &CommitAction::Install);
    assert_eq!(
        (site.staged("d/f"), site.staged("d/g").as_deref()),
        (None, Some("two"))
    );
    let staged = std::fs::metadata(site.directory.path().join("staging/tree/d")).unwrap();
    let source = std::fs::metadata(source).unwrap();
    assert_eq!(staged.mode(), source.mode());
    assert_eq!(staged.modified().unwrap(), source.modified().unwrap());
}

/// The events of the directories may come later.
#[test]
fn the_directories_above_a_file_are_made_for_it() {
    let mut site = Site::new();
    std::fs::create_dir_all(site.directory.path().join("src/d/e")).unwrap();
    site.write("d/e/f", "one");
    let found = site.changed("d/e/f");
    site.commit(found, &CommitAction::Install);
    assert_eq!(site.staged("d/e/f").unwrap(), "one");
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

/// A rejected file that stays in the tree would be sent.
#[test]
fn a_path_that_cannot_be_removed_is_an_error() {
    let mut site = Site::new();
    assert!(site.stage.remove(b"/d/f").is_ok(), "there is no directory");
    let long = format!("/{}/f", "x".repeat(300));
    assert!(site.stage.remove(long.as_bytes()).is_err());
}
