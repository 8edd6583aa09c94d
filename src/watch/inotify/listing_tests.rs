//! Tests of listings of directories: which are believed, and what they change in the tree. Each
//! test of a backend ends with the watches that are wanted, see [`Rig::quiet`].

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use super::crawl::{CrawlRecord, CrawlTask, FoundKind, ListOutcome, Listing, list};
use super::test_rig::{DIR, Rig};
use crate::watch::{Backend, Scope, Tell};

const ATTRIB: u32 = libc::IN_ATTRIB;

/// Returns the task of a watched directory. `inode` is the one that the directory above has listed.
fn task(rig: &Rig, path: &str, inode: u64) -> CrawlTask {
    let task = rig.backend.task(rig.node(path), Tell::All);
    CrawlTask { inode, ..task }
}

fn listed(rig: &mut Rig, task: &CrawlTask) -> Listing {
    list(&mut rig.backend.kernel, task, None)
}

/// Passes a listing to the backend as the pool does.
fn apply(rig: &mut Rig, task: &CrawlTask, listing: Listing) {
    let node = rig.backend.tree.nodes_of(task.wd).next();
    let token = u64::MAX;
    if let Some(node) = node {
        rig.backend.expect(node, token);
    }
    let record = CrawlRecord {
        token,
        wd: task.wd,
        tell: task.tell,
        listing,
    };
    rig.backend.apply_record(record, &mut rig.reports);
}

fn chmod(rig: &Rig, path: &str, mode: u32) {
    fs::set_permissions(rig.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

fn inode(rig: &Rig, path: &str) -> u64 {
    fs::metadata(rig.path(path)).unwrap().ino()
}

#[test]
fn a_listing_is_believed_if_the_path_still_leads_to_the_directory() {
    let mut rig = Rig::new(&["r/a/x/", "r/a/no/", "r/a/f"]);
    for known in [inode(&rig, "r/a"), 0] {
        let task = task(&rig, "r/a/", known);
        let listing = listed(&mut rig, &task);
        assert!(matches!(listing.outcome, ListOutcome::Complete), "{known}");
        assert_eq!(
            (listing.orphan, listing.skipped, listing.total),
            (None, true, 3)
        );
        let x = FoundKind::Directory {
            wd: rig.wd("r/a/x/"),
            token: 0,
        };
        let mut found: Vec<_> = listing.entries().collect();
        found.sort_by_key(|(name, _)| name.to_vec());
        let expected = [
            (&b"f"[..], FoundKind::File),
            (b"no", FoundKind::Unwatched),
            (b"x", x),
        ];
        assert_eq!(found, expected);
    }
}

#[test]
fn a_listing_of_another_directory_is_not_believed() {
    let mut rig = Rig::new(&["r/a/"]);
    let before = inode(&rig, "r/a");
    rig.mv("r/a", "out");
    rig.add(&["r/a/new/"]);
    for known in [before, 0] {
        let task = task(&rig, "r/a/", known);
        let listing = listed(&mut rig, &task);
        assert!(
            matches!(listing.outcome, ListOutcome::PathChanged),
            "{known}"
        );
        assert!(listing.orphan.is_some_and(|wd| wd != task.wd));
    }
}

/// Its directory may be at another path, where it will be read.
#[test]
fn a_path_that_does_not_exist_has_changed() {
    let mut rig = Rig::new(&["r/a/"]);
    rig.mv("r/a", "out");
    for known in [inode(&rig, "out"), 0] {
        let task = task(&rig, "r/a/", known);
        let listing = listed(&mut rig, &task);
        assert!(
            matches!(listing.outcome, ListOutcome::PathChanged),
            "{known}"
        );
        assert_eq!(listing.orphan, None);
    }
}

#[test]
fn the_watches_of_a_listing_that_comes_too_late_are_removed() {
    // The directory is not watched any more.
    let mut rig = Rig::new(&["r/a/"]);
    let root = rig.wd("r/");
    rig.add(&["r/a/x/"]);
    let late = task(&rig, "r/a/", 0);
    let listing = listed(&mut rig, &late);
    rig.mv("r/a", "out");
    rig.half(root, libc::IN_MOVED_FROM | DIR, "a", 1);
    rig.event(root, libc::IN_CREATE, "a");
    apply(&mut rig, &late, listing);
    assert_eq!(rig.quiet(), ["delete r/a/", "create r/a"]);
    // Another directory had its path.
    let mut rig = Rig::new(&["r/a/"]);
    let root = rig.wd("r/");
    rig.mv("r/a", "r/b");
    rig.add(&["r/a/x/"]);
    let late = task(&rig, "r/a/", 0);
    let listing = listed(&mut rig, &late);
    rig.mv("r/a", "out");
    apply(&mut rig, &late, listing);
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    assert_eq!(rig.quiet(), ["move r/a/ r/b/"]);
}

/// The events of all that are lost.
#[test]
fn a_rebuild_forgets_what_is_gone_and_finds_what_is_new() {
    let mut rig = Rig::new(&["r/a/b/", "r/c/d/", "r/e/f/"]);
    rig.change(|rig| fs::remove_dir_all(rig.path("r/a")).unwrap());
    rig.mv("r/c", "out");
    rig.mv("r/e/f", "r/f");
    rig.add(&["r/e/f/g/", "r/h/i/"]);
    rig.backend.rebuild();
    assert_eq!(rig.quiet(), ["delete r/a/", "delete r/c/"]);
}

#[test]
fn contents_show_that_a_directory_was_replaced() {
    let mut rig = Rig::new(&["r/a/x", "r/b/"]);
    rig.change(|rig| fs::remove_dir_all(rig.path("r/a")).unwrap());
    rig.add(&["r/a/y"]);
    let root = rig.absolute("r/");
    rig.backend.report_contents(&root).unwrap();
    let mut told = rig.quiet();
    told.sort();
    assert_eq!(
        told,
        ["create r/a/", "create r/a/y", "found r/b/", "renewed r/a/"]
    );
    // Nothing is reported by a rebuild, which is followed by a comparison.
    rig.change(|rig| fs::remove_dir_all(rig.path("r/a")).unwrap());
    rig.add(&["r/a/z"]);
    rig.backend.rebuild();
    assert_eq!(rig.quiet(), [""; 0]);
}

/// A directory was listed at one name and has moved on before the listing is applied.
#[test]
fn a_listing_that_is_older_than_a_move_does_not_undo_it() {
    let mut rig = Rig::new(&["r/a/f", "r/b/"]);
    let (root, b) = (rig.wd("r/"), rig.wd("r/b/"));
    rig.mv("r/a", "r/b/a");
    let late = task(&rig, "r/b/", 0);
    let listing = listed(&mut rig, &late);
    rig.mv("r/b/a", "r/c");
    apply(&mut rig, &late, listing);
    rig.rename(DIR, (root, "a"), (b, "a"), 1);
    rig.rename(DIR, (b, "a"), (root, "c"), 2);
    assert_eq!(rig.quiet(), ["move r/a/ r/b/a/", "move r/b/a/ r/c/"]);
}

#[test]
fn a_directory_that_is_not_wanted_at_its_old_path_is_read_at_its_new_one() {
    let mut rig = Rig::with(&["r/a/x/y/", "r/a/x/f"]);
    let scope = Scope {
        wants: Arc::new(|path: &[u8]| !path.starts_with(b"/a/x/")),
        ..rig.scope("r/")
    };
    rig.backend.set_scopes(vec![scope]);
    assert_eq!(rig.reported(), [""; 0]);
    let root = rig.wd("r/");
    assert_eq!(rig.backend.watched(), 2);
    rig.mv("r/a", "r/b");
    rig.rename(DIR, (root, "a"), (root, "b"), 1);
    let mut told = rig.quiet();
    assert_eq!(told.remove(0), "move r/a/ r/b/");
    told.sort();
    assert_eq!(told, ["create r/b/x/", "create r/b/x/f", "create r/b/x/y/"]);
}

#[test]
fn directories_are_watched_as_soon_as_permissions_allow_it() {
    crate::test_user::without_rights_of_root(|_| {
        let mut rig = Rig::with(&["r/read/x/", "r/search/x/f", "r/both/x/f"]);
        let modes = [("r/read", 0o300), ("r/search", 0o400), ("r/both", 0)];
        rig.change(|rig| {
            modes
                .iter()
                .for_each(|&(path, mode)| chmod(rig, path, mode))
        });
        let scope = rig.scope("r/");
        rig.backend.set_scopes(vec![scope]);
        let mut told = rig.reported();
        told.sort();
        let denied = "watching a directory: Permission denied (os error 13)";
        let expected = ["r/both/", "r/read/", "r/search/x/"];
        assert_eq!(told, expected.map(|path| format!("{denied} {path}")));
        rig.change(|rig| modes.iter().for_each(|&(path, _)| chmod(rig, path, 0o700)));
        let root = rig.wd("r/");
        for (name, expected) in [
            ("read", &["create r/read/", "create r/read/x/"][..]),
            ("search", &["create r/search/x/", "create r/search/x/f"]),
            (
                "both",
                &["create r/both/", "create r/both/x/", "create r/both/x/f"],
            ),
        ] {
            rig.event(root, ATTRIB | DIR, name);
            let mut told = rig.reported();
            assert_eq!(told.remove(0), format!("attrib r/{name}/"));
            assert_eq!(told, expected, "{name}");
        }
        assert_eq!(rig.quiet(), [""; 0]);
    });
}

#[test]
fn a_root_that_could_not_be_searched_is_read_as_soon_as_permissions_allow_it() {
    crate::test_user::without_rights_of_root(|_| {
        let mut rig = Rig::with(&["r/x/"]);
        rig.change(|rig| chmod(rig, "r", 0o400));
        let scope = rig.scope("r/");
        rig.backend.set_scopes(vec![scope]);
        assert_eq!(rig.reported().len(), 1);
        rig.change(|rig| chmod(rig, "r", 0o700));
        let root = rig.wd("r/");
        rig.event(root, ATTRIB | DIR, "");
        assert_eq!(rig.quiet(), ["attrib r/", "create r/x/"]);
    });
}

/// The same directory is at two paths, as with a bind mount.
#[test]
fn a_directory_at_two_paths_is_reported_at_both() {
    let mut rig = Rig::new(&["r/a/f", "r/b/"]);
    let (root, a, b) = (rig.node("r/"), rig.wd("r/a/"), rig.wd("r/b/"));
    rig.backend.tree.insert(root, b"twin", b);
    rig.mv("r/a/f", "r/b/f");
    rig.rename(0, (a, "f"), (b, "f"), 1);
    let mut told = rig.reported();
    told.sort();
    assert_eq!(told, ["create r/b/f", "create r/twin/f", "delete r/a/f"]);
    // The end of one of them does not end the watch.
    rig.event(rig.wd("r/"), libc::IN_DELETE | DIR, "twin");
    assert_eq!(rig.quiet(), ["delete r/twin/"]);
    rig.event(b, libc::IN_CREATE, "g");
    assert_eq!(rig.quiet(), ["create r/b/g"]);
}

/// An event of a directory at its old path, where another one has a directory of this name.
#[test]
fn a_name_is_not_looked_up_in_another_directory() {
    let mut rig = Rig::new(&["r/p/c/", "r/p/c/f"]);
    let (root, p) = (rig.wd("r/"), rig.wd("r/p/"));
    rig.mv("r/p", "r/q");
    rig.add(&["r/p/c/", "r/p/c/g"]);
    rig.event(p, libc::IN_CREATE | DIR, "c");
    rig.rename(DIR, (root, "p"), (root, "q"), 1);
    rig.event(root, libc::IN_CREATE | DIR, "p");
    let told = rig.quiet();
    assert!(!told.iter().any(|told| told == "delete r/p/c/"), "{told:?}");
    assert!(told.iter().any(|told| told == "move r/p/ r/q/"), "{told:?}");
    assert!(told.iter().any(|told| told == "create r/p/c/g"), "{told:?}");
}

#[test]
fn looking_for_a_root_leaves_no_watch_behind() {
    let mut rig = Rig::new(&["r/a/"]);
    rig.mv("r", "moved");
    rig.add(&["r/b/"]);
    rig.backend.check_roots();
    assert_eq!(rig.reported(), ["lost 0 Moved"]);
    assert_eq!(rig.kernel_watches(), [0; 0]);
    assert_eq!(rig.backend.watched(), 0);
    rig.backend.retry_roots();
    assert_eq!(rig.quiet(), ["back 0"]);
}

#[test]
fn a_path_is_absolute_in_a_task() {
    let rig = Rig::new(&["r/a/"]);
    let task = task(&rig, "r/a/", 0);
    assert_eq!(
        task.path,
        [rig.base.as_os_str().as_bytes(), b"/r/a/"].concat()
    );
    assert!(!task.root && rig.backend.task(rig.node("r/"), Tell::Nobody).root);
}
