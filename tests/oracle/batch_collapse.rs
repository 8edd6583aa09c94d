//! The paths of a batch, compared with a simple model on a file system in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use lsyncd::batch::collapse::{CollapsedItem, Disk, FileKind, PathRef, Stat, collapse};
use proptest::prelude::*;

/// A file system in memory that counts the lookups of each path.
#[derive(Debug, Default)]
struct Memory {
    nodes: BTreeMap<Vec<u8>, FileKind>,
    /// Directories to which other users may write.
    exposed: Vec<Vec<u8>>,
    asked: RefCell<HashMap<Vec<u8>, usize>>,
}

impl Disk for Memory {
    fn lstat(&self, path: &[u8]) -> Option<Stat> {
        *self.asked.borrow_mut().entry(path.to_vec()).or_default() += 1;
        let node = match path {
            b"/" => FileKind::Directory,
            _ => *self.nodes.get(path)?,
        };
        Some(Stat {
            node,
            mtime: 7,
            ctime: 7,
            exposed: self.exposed.iter().any(|exposed| exposed == path),
        })
    }
}

impl Memory {
    fn new(nodes: impl IntoIterator<Item = (Vec<u8>, FileKind)>) -> Memory {
        Memory {
            nodes: nodes.into_iter().collect(),
            exposed: Vec::new(),
            asked: RefCell::default(),
        }
    }

    /// Returns the topmost part of `path` that is missing or not a directory, or the whole path.
    fn end<'a>(&self, path: &'a [u8]) -> (&'a [u8], Option<FileKind>) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let cuts = (1..=path.len()).filter(|&end| end == path.len() || path[end] == b'/');
        for end in cuts {
            let node = self.nodes.get(&path[..end]).copied();
            if node != Some(FileKind::Directory) || end == path.len() {
                return (&path[..end], node);
            }
        }
        (b"/", Some(FileKind::Directory))
    }
}

fn mention(path: &[u8], gone: bool) -> PathRef<'_> {
    PathRef {
        path,
        gone,
        written: false,
        may_be_directory: false,
    }
}

/// Paths of few names, so that they are related. `-` and `.` sort before `/`.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "a-b",
        "a.b",
        "ab",
        "long-name-0",
        "long-name-1",
    ]);
    (prop::collection::vec(name, 0..5), any::<bool>()).prop_map(|(names, slash)| {
        let mut path = format!("/{}", names.join("/"));
        if slash && path != "/" {
            path.push('/');
        }
        path.into_bytes()
    })
}

fn node() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        4 => Just(FileKind::Directory),
        1 => Just(FileKind::File),
        1 => Just(FileKind::Other),
    ]
}

proptest! {
    #[test]
    fn every_path_collapses_as_in_a_simple_walk(
        nodes in prop::collection::vec((path(), node()), 0..40),
        mentions in prop::collection::vec((path(), any::<bool>()), 1..40),
    ) {
        let disk = Memory::new(nodes.into_iter().map(|(mut path, node)| {
            if path.ends_with(b"/") {
                path.pop();
            }
            (path, node)
        }));
        let all = mentions.iter().map(|(path, gone)| mention(path, *gone)).collect();
        let found = collapse(&disk, all).unwrap();

        let (mut present, mut missing) = (BTreeMap::new(), BTreeMap::new());
        for (path, _) in &mentions {
            let (end, node) = disk.end(path);
            let list = if node.is_some() { &mut present } else { &mut missing };
            let was_directory = list.entry(end.to_vec()).or_insert(false);
            let took_for_directory = path.len() > end.len() && path != b"/";
            *was_directory |= took_for_directory && node != Some(FileKind::Directory);
            if node.is_none() {
                let parent = end.iter().rposition(|&byte| byte == b'/').unwrap().max(1);
                present.entry(end[..parent].to_vec()).or_insert(false);
            }
        }
        let flat = |items: &[CollapsedItem<'_>]| -> Vec<(Vec<u8>, bool)> {
            items.iter().map(|item| (item.path.to_vec(), item.was_directory)).collect()
        };
        let sorted = |map: BTreeMap<Vec<u8>, bool>| -> Vec<(Vec<u8>, bool)> {
            let mut list: Vec<_> = map.into_iter().collect();
            list.sort_by_key(|(path, _)| path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>());
            list
        };
        prop_assert_eq!(flat(&found.present), sorted(present));
        prop_assert_eq!(flat(&found.missing), sorted(missing));

        for item in &found.present {
            let path = [item.path, b"/"].concat();
            let renewed = item.path != b"/" && item.is_directory()
                && mentions.iter().any(|(mention, gone)| *gone && *mention == path);
            prop_assert_eq!(item.renewed, renewed, "{:?}", item);
        }

        let asked = disk.asked.borrow();
        prop_assert!(asked.values().all(|&times| times == 1), "{:?}", asked);
        let components: BTreeSet<&[u8]> = asked.keys().map(Vec::as_slice).collect();
        for path in components {
            let below = path != b"/" && disk.end(path).0 != path;
            prop_assert!(!below, "looked behind something that is no directory: {path:?}");
        }
    }
}

#[test]
fn a_link_that_replaces_a_directory_ends_the_path() {
    let disk = Memory::new([
        (b"/d".to_vec(), FileKind::Other),
        (b"/d/f".to_vec(), FileKind::File),
    ]);
    let found = collapse(
        &disk,
        vec![mention(b"/d/f", false), mention(b"/d/e/", true)],
    )
    .unwrap();
    let [item] = found.present[..] else {
        panic!("{found:?}");
    };
    assert_eq!((item.path, item.was_directory), (b"/d".as_slice(), true));
    assert!(found.missing.is_empty());
}

#[test]
fn a_missing_source_has_no_paths() {
    struct Nothing;
    impl Disk for Nothing {
        fn lstat(&self, _: &[u8]) -> Option<Stat> {
            None
        }
    }
    assert!(collapse(&Nothing, vec![mention(b"/f", false)]).is_none());
}

/// A path that cannot be examined counts as present: rsync reports the error.
#[test]
fn a_path_that_cannot_be_examined_is_present() {
    struct Closed;
    impl Disk for Closed {
        fn lstat(&self, path: &[u8]) -> Option<Stat> {
            let node = match path {
                b"/" => FileKind::Directory,
                _ => FileKind::Unknown,
            };
            Some(Stat {
                node,
                mtime: 0,
                ctime: 0,
                exposed: path == b"/d",
            })
        }
    }
    let found = collapse(
        &Closed,
        vec![mention(b"/d/f", true), mention(b"/d/g/", true)],
    )
    .unwrap();
    let paths: Vec<&[u8]> = found.present.iter().map(|item| item.path).collect();
    assert_eq!(paths, [b"/d/f", b"/d/g"]);
    assert!(found.exposed);
    assert!(found.missing.is_empty());
}

/// A path is exposed if it leads through a directory to which other users may write.
#[test]
fn a_path_through_an_exposed_directory_is_exposed() {
    let cases: [(&str, &[&str], bool); 9] = [
        ("/", &["/f"], true),
        ("/", &["/"], false),
        ("/d", &["/d/"], false),
        ("/d", &["/d/f"], true),
        ("/d", &["/d/gone", "/a"], true),
        ("/d", &["/d/e/f", "/d/e/"], true),
        ("/d/e", &["/d/", "/d/e/", "/f"], false),
        ("/d/e", &["/d/e/", "/d/e/f"], true),
        ("/d/e", &["/d/f/gone/x", "/gone/e/f"], false),
    ];
    for (exposed, paths, expected) in cases {
        let nodes = [
            ("/d", FileKind::Directory),
            ("/d/e", FileKind::Directory),
            ("/d/e/f", FileKind::File),
            ("/d/f", FileKind::File),
            ("/f", FileKind::File),
        ];
        let mut disk = Memory::new(nodes.map(|(path, node)| (path.into(), node)));
        disk.exposed.push(exposed.into());
        let mentions = paths.iter().map(|path| mention(path.as_bytes(), false));
        let found = collapse(&disk, mentions.collect()).unwrap();
        assert_eq!(found.exposed, expected, "{exposed}: {paths:?}");
    }
}
