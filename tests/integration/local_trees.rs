//! The worker of default.direct makes any target equal to the source: random trees.

use std::collections::BTreeMap;
use std::fs::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::local_mirror::{Pair, item};
use lsyncd::batch::Change;
use lsyncd::local::CopyTask;
use proptest::prelude::*;

pub type Tree = BTreeMap<PathBuf, (char, u32, Vec<u8>)>;

/// Returns type, mode and contents of each path of a tree.
pub fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let mode = data.mode() & 0o7777;
            let node = if data.is_dir() {
                open.push(path.clone());
                ('d', mode, Vec::new())
            } else if data.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                ('l', 0, to.as_os_str().as_bytes().to_vec())
            } else {
                ('-', mode, fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    found
}

/// Returns the number of entries that are gone or are no directories any more.
pub fn gone(before: &Tree, after: &Tree) -> u64 {
    let gone = before.iter().filter(|(path, node)| match after.get(*path) {
        None => true,
        Some(now) => node.0 == 'd' && now.0 != 'd',
    });
    gone.count() as u64
}

/// Replaces `path` below a tree by a file of each type.
fn init(root: &Path, path: &str, kind: u8) {
    let mut at = root.to_owned();
    let names: Vec<_> = path.split('/').collect();
    for name in &names[..names.len() - 1] {
        at.push(name);
        if !fs::symlink_metadata(&at).is_ok_and(|data| data.is_dir()) {
            let _ = fs::remove_file(&at);
            fs::create_dir(&at).unwrap();
        }
    }
    at.push(names[names.len() - 1]);
    let _ = fs::remove_dir_all(&at);
    let _ = fs::remove_file(&at);
    match kind % 4 {
        0 => fs::create_dir(&at).unwrap(),
        1 => symlink("a", &at).unwrap(),
        _ => fs::write(&at, vec![kind; usize::from(kind)]).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_comparison_makes_any_target_equal(
        source in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..20),
        target in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..20),
    ) {
        let mut pair = Pair::new();
        for (path, kind) in &source {
            init(&pair.source(""), path, *kind);
        }
        for (path, kind) in &target {
            init(&pair.target(""), path, *kind);
        }
        let (told, gone) = pair.deletions(&CopyTask::Everything);
        prop_assert_eq!(told, gone);
        let first = tree(&pair.target(""));
        prop_assert_eq!(tree(&pair.source("")), first);
    }

    #[test]
    fn deletes_of_all_replaced_directories_make_trees_equal(
        before in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..12),
        after in prop::collection::vec(("[abc](/[abc]){0,3}", any::<u8>()), 0..12),
    ) {
        let mut pair = Pair::new();
        for (path, kind) in &before {
            init(&pair.source(""), path, *kind);
        }
        pair.compare();
        let mut items = Vec::new();
        for (path, kind) in &after {
            init(&pair.source(""), path, *kind);
            items.push(item(Change::Delete, &format!("/{path}"), None));
        }
        let (told, gone) = pair.deletions(&CopyTask::Events(items));
        prop_assert_eq!(told, gone);
        prop_assert_eq!(tree(&pair.source("")), tree(&pair.target("")));
    }
}
