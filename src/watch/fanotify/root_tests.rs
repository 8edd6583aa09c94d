//! Tests of the roots of scopes: lost, found again, and their places.

use std::fs;
use std::sync::Arc;

use super::test_rig::{DIR, Rig};
use crate::watch::{Backend, Scope};

const CREATE: u64 = libc::FAN_CREATE | DIR;
const DELETE: u64 = libc::FAN_DELETE | DIR;

fn scopes(rig: &Rig, roots: &[&str]) -> Vec<Scope> {
    let scope = |root: &&str| Scope {
        root: rig.absolute(root),
        wants: Arc::new(|_| true),
    };
    roots.iter().map(scope).collect()
}

#[test]
fn a_root_that_is_removed_or_renamed_is_lost_and_comes_back() {
    for is_moved in [false, true] {
        let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
            return;
        };
        let (base, root) = (rig.handle(""), rig.handle("r"));
        // It is still there: the events are older than a rename back.
        let records = [
            rig.event(DELETE, &base, "r", Some(&root)),
            rig.rename(DIR, (&base, "r"), (&base, "o"), &root),
        ];
        assert_eq!(rig.handle_all(&records), [""; 0]);
        assert_eq!(rig.backend.watched(), 1);
        let path = rig.absolute("r/");
        assert!(rig.backend.leads_to_root(&path));
        let (record, loss) = if is_moved {
            rig.mv("r", "o");
            (&records[1], "lost 0 Moved")
        } else {
            rig.remove("r/");
            (&records[0], "lost 0 Deleted")
        };
        assert_eq!(rig.handle_one(record), [loss]);
        assert_eq!(rig.backend.watched(), 0);
        // Nothing is there yet.
        rig.backend.retry_roots();
        assert_eq!(rig.reported(), [""; 0]);
        rig.add(&["r/"]);
        rig.backend.retry_roots();
        assert_eq!(rig.reported(), ["back 0"]);
        assert_eq!(rig.backend.watched(), 1);
        rig.backend.retry_roots();
        assert_eq!(rig.reported(), [""; 0]);
        let record = rig.event(libc::FAN_CREATE, &rig.handle("r"), "f", None);
        assert_eq!(rig.handle_all(&[record]), ["create r/f"]);
    }
}

/// The kernel reports nothing if a directory above is renamed.
#[test]
fn a_root_that_is_another_directory_is_found_lost() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
        return;
    };
    let path = rig.absolute("r/");
    rig.backend.check_roots();
    assert_eq!(rig.reported(), [""; 0]);
    rig.mv("r", "o");
    rig.add(&["r/"]);
    assert!(!rig.backend.leads_to_root(&path));
    rig.backend.check_roots();
    assert_eq!(rig.reported(), ["lost 0 Moved"]);
    assert!(rig.backend.leads_to_root(&path));
    rig.backend.rebuild();
    assert_eq!(rig.reported(), ["back 0"]);
    fs::remove_dir(rig.path("r")).unwrap();
    rig.backend.check_roots();
    let told = rig.reported();
    assert_eq!(told[0], "lost 0 Deleted");
    // Nothing is watched that could be at another path.
    assert!(rig.backend.leads_to_root(&path));
    let nowhere = rig.absolute("nowhere/");
    assert!(!rig.backend.leads_to_root(&nowhere));
}

#[test]
fn a_root_in_another_tree_is_lost_and_comes_back_with_its_events() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/", "r/d/n/"]) else {
        return;
    };
    let [root, d, n] = ["r", "r/d", "r/d/n"].map(|path| rig.handle(path));
    let end = rig.event(DELETE, &d, "n", Some(&n));
    let begin = rig.event(CREATE, &d, "n", None);
    rig.remove("r/d/n/");
    let told = rig.handle_all(&[end.clone(), end]);
    assert_eq!(told, ["delete r/d/n/", "delete r/d/n/", "lost 1 Deleted"]);
    // The directory is gone again.
    assert_eq!(rig.handle_one(&begin), ["create r/d/n/"]);
    rig.add(&["r/d/n/"]);
    let told = rig.handle_all(&[begin.clone(), begin]);
    assert_eq!(told, ["create r/d/n/", "create r/d/n/", "back 1"]);
    // With the directory above it.
    rig.mv("r/d", "r/e");
    let away = rig.rename(DIR, (&root, "d"), (&root, "e"), &d);
    let told = rig.handle_all(&[away]);
    assert_eq!(told, ["move r/d/ r/e/", "lost 1 Moved"]);
    rig.mv("r/e", "r/d");
    let back = rig.rename(DIR, (&root, "e"), (&root, "d"), &d);
    assert_eq!(rig.handle_all(&[back]), ["move r/e/ r/d/", "back 1"]);
}

#[test]
fn a_missing_root_is_reported_as_lost_once() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
        return;
    };
    let both = scopes(&rig, &["gone/", "r/"]);
    // The second call comes before the report of the first.
    rig.backend.set_scopes(both.clone());
    rig.backend.set_scopes(both.clone());
    assert_eq!(rig.reported(), ["lost 0 Deleted"]);
    rig.backend.set_scopes(both.clone());
    assert_eq!(rig.reported(), [""; 0]);
    // It has another number now.
    let other = scopes(&rig, &["r/", "gone/"]);
    rig.backend.set_scopes(other);
    assert_eq!(rig.reported(), [""; 0]);
    rig.add(&["gone/"]);
    rig.backend.retry_roots();
    assert_eq!(rig.reported(), ["back 1"]);
    // A root that has been reported by another backend.
    rig.backend.set_scopes(scopes(&rig, &["r/"]));
    rig.backend.expect_lost(&[rig.absolute("no/")]);
    rig.backend.set_scopes(scopes(&rig, &["r/", "no/"]));
    assert_eq!(rig.reported(), [""; 0]);
    rig.add(&["no/"]);
    rig.backend.retry_roots();
    assert_eq!(rig.reported(), ["back 1"]);
}

/// A loss that is not reported yet is reported of the scope's new number.
#[test]
fn a_loss_that_is_not_reported_keeps_its_root() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
        return;
    };
    rig.backend.set_scopes(scopes(&rig, &["r/", "gone/"]));
    rig.backend.set_scopes(scopes(&rig, &["gone/", "r/"]));
    assert_eq!(rig.reported(), ["lost 0 Deleted"]);
    rig.backend
        .set_scopes(scopes(&rig, &["gone/", "r/", "none/"]));
    rig.backend
        .set_scopes(scopes(&rig, &["none/", "r/", "gone/"]));
    assert_eq!(rig.reported(), ["lost 0 Deleted"]);
}

/// The second name is in the other source.
#[test]
fn sources_on_one_file_system_get_their_own_events() {
    let Some(mut rig) = Rig::with_roots(&["r/d/", "s/e/", "s/e/x"], &["r/", "s/"]) else {
        return;
    };
    let [r, s, d, e] = ["r", "s", "r/d", "s/e"].map(|path| rig.handle(path));
    let records = [
        rig.event(libc::FAN_CREATE, &d, "f", None),
        rig.event(libc::FAN_CREATE, &e, "f", None),
    ];
    assert_eq!(rig.handle_all(&records), ["create r/d/f", "create s/e/f"]);
    rig.mv("s/e", "r/e");
    let across = rig.rename(DIR, (&s, "e"), (&r, "e"), &e);
    let inside = rig.event(libc::FAN_CREATE, &e, "g", None);
    let told = rig.handle_all(&[across, inside]);
    assert!(told.contains(&"delete s/e/".to_string()), "{told:?}");
    assert!(told.contains(&"create r/e/".to_string()), "{told:?}");
    assert!(told.contains(&"create r/e/x".to_string()), "{told:?}");
    assert_eq!(told.last().unwrap(), "create r/e/g");
    // The end of one source does not affect the other.
    let base = rig.handle("");
    rig.remove("s/");
    let end = rig.event(DELETE, &base, "s", Some(&s));
    assert_eq!(rig.handle_all(&[end]), ["lost 1 Deleted"]);
    let inside = rig.event(libc::FAN_CREATE, &d, "h", None);
    assert_eq!(rig.handle_all(&[inside]), ["create r/d/h"]);
}

#[test]
fn the_contents_of_a_directory_are_found_on_request() {
    let Some(mut rig) = Rig::with_roots(&["r/d/", "r/d/f", "s/d/"], &["r/", "s/"]) else {
        return;
    };
    let path = rig.absolute("r/d/");
    let one = rig.backend.report_contents(&path).unwrap();
    assert!(rig.backend.crawling() && rig.backend.next_deadline().is_some());
    let mark = rig.backend.event_mark();
    assert!(!rig.backend.has_reported(mark));
    assert_eq!(rig.reported(), ["found r/d/f"]);
    let other = rig.backend.report_contents(&path).unwrap();
    assert_ne!(one, other);
    let paths = ["r/none/", "elsewhere/"].map(|path| rig.absolute(path));
    for path in paths {
        assert_eq!(rig.backend.report_contents(&path), None);
    }
}

/// A source whose directory is another one would be taken for the one that is watched, and a
/// comparison of everything would be made again and again.
#[test]
fn a_retry_does_not_take_over_a_root_that_was_replaced() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
        return;
    };
    rig.backend.retry_roots();
    rig.mv("r", "o");
    rig.add(&["r/"]);
    rig.backend.retry_roots();
    rig.backend.check_nested_mounts();
    rig.backend.report_roots(&mut rig.reports);
    assert_eq!((rig.reports.told.len(), rig.backend.dirty), (0, false));
    rig.backend.check_roots();
    assert_eq!(rig.reported(), ["lost 0 Moved"]);
    assert_eq!(rig.reports.overflows, 0);
}

#[test]
fn a_nested_mount_that_was_replaced_counts_as_a_loss() {
    let Some(mut rig) = Rig::with_roots(&[], &["r/"]) else {
        return;
    };
    rig.backend.places.get_mut(0).is_root = false;
    rig.backend.check_roots();
    rig.backend.retry_roots();
    assert!(!rig.backend.dirty);
    rig.mv("r", "o");
    rig.add(&["r/"]);
    rig.backend.check_roots();
    assert!(rig.backend.dirty);
    assert_eq!(rig.reported(), [""; 0]);
    assert_eq!(rig.reports.overflows, 1);
}

/// Otherwise events of the other source would be dropped.
#[test]
fn a_directory_is_irrelevant_if_it_is_outside_of_all_sources() {
    let Some(mut rig) = Rig::with_roots(&["s/e/", "out/"], &["r/", "s/"]) else {
        return;
    };
    let [e, out] = ["s/e", "out"].map(|path| rig.handle(path));
    let [inside, outside] = [e, out].map(|at| rig.event(libc::FAN_CREATE, &at, "f", None));
    let told = rig.handle_all(&[inside.clone(), outside.clone()]);
    assert_eq!(told, ["create s/e/f"]);
    let both = [&inside[..], &outside].concat();
    assert_eq!(rig.backend.known.irrelevant.filter(&both), Some(inside));
}
