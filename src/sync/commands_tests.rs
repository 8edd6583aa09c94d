//! Commands of a user: when they change anything, and what they queue.

use std::fs;

use super::tests::sync_with;
use super::*;
use crate::component::SyncCommand;
use crate::queue::Etype;

/// What is expected in the queue.
type Entries = &'static [(Etype, &'static str)];

/// Returns what is queued, in order.
fn queued(sync: &Sync) -> Vec<(Etype, String)> {
    let delays = sync.queue.iter();
    let one = |delay: crate::queue::Delay<'_>| {
        let path = String::from_utf8(delay.paths().0).unwrap();
        (delay.etype(), path)
    };
    delays.map(one).collect()
}

#[test]
fn a_command_without_an_effect_is_known() {
    use SyncCommand::{Flush, Pause, Release, Resume, Retry};
    type Change = fn(&mut Sync);
    let paused: Change = |sync| sync.lifecycle.set_paused(true);
    let pending: Change = |sync| {
        sync.queue.push(Etype::Modify, b"/a", None, 0);
    };
    let failing: Change = |sync| {
        sync.failed(&[], 0);
    };
    let failed_path: Change = |sync| {
        let failed = RetryEntries::from([(b"/a".to_vec(), Etype::Modify)]);
        sync.partly_failed(&[], FailedEntries::Paths(failed, Default::default()), 0);
    };
    let halted: Change = |sync| {
        sync.halt("gone".into());
    };
    let deleting: Change = |sync| sync.delete_guard_mut().exceeded("3 deletions".into());
    let unmounted: Change = |sync| {
        sync.remember_nested_mounts([b"/src/in".to_vec()].into_iter());
        sync.update_nested_mounts(&Default::default());
    };
    for (command, change, has_effect) in [
        (Pause, (|_| {}) as Change, true),
        (Pause, paused, false),
        (Resume, |_| {}, false),
        (Resume, paused, true),
        (Flush, |_| {}, false),
        (Flush, pending, true),
        (Flush, failed_path, false),
        (Retry, |_| {}, false),
        (Retry, pending, true),
        (Retry, failing, true),
        (Retry, failed_path, true),
        (Release, |_| {}, false),
        (Release, halted, true),
        (Release, deleting, true),
        (Release, unmounted, true),
    ] {
        let mut sync = sync_with(Policy::Coalesce);
        change(&mut sync);
        assert_eq!(sync.would_change(&command), has_effect, "{command:?}");
    }
}

/// Returns a sync whose source has a directory with a file, two files, and no other paths.
fn with_source(policy: Policy) -> (tempfile::TempDir, Sync) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    for name in ["d/f", "f", "f.tmp"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let mut sync = sync_with(policy);
    sync.has_full = true;
    sync.filter.write().unwrap().add_exclude(b"*.tmp");
    sync.config.source = [dir.path().as_os_str().as_encoded_bytes(), b"/"].concat();
    (dir, sync)
}

#[test]
fn a_path_that_differs_on_the_target_is_sent_or_deleted() {
    use Etype::{Create, Delete, Full, Modify};
    let cases: [(&str, Entries); 5] = [
        ("/f", &[(Modify, "/f")]),
        ("/d", &[(Create, "/d/")]),
        ("/d/", &[(Create, "/d/")]),
        ("/gone", &[(Delete, "/gone"), (Delete, "/gone/")]),
        ("/", &[(Full, "/")]),
    ];
    for (path, expected) in cases {
        let (_dir, mut sync) = with_source(Policy::Coalesce);
        sync.execute(&SyncCommand::Repair(path.into()), 0);
        let expected = expected
            .iter()
            .map(|(etype, path)| (*etype, (*path).to_owned()));
        assert_eq!(queued(&sync), expected.collect::<Vec<_>>());
        // rsync may take the two files for equal.
        assert_eq!(sync.verify.is_by_content(path.as_bytes()), path == "/f");
    }
}

#[test]
fn a_path_that_a_user_names_is_sent_with_its_contents() {
    use Etype::{Create, Delete, Full};
    use Policy::{Coalesce, PerEvent};
    let cases: [(Policy, &str, Entries); 8] = [
        (Coalesce, "/f", &[(Create, "/f")]),
        // The contents of the directory are compared.
        (Coalesce, "/d", &[(Delete, "/d/")]),
        (Coalesce, "/gone", &[(Delete, "/gone")]),
        (Coalesce, "/f.tmp", &[]),
        (Coalesce, "/", &[(Full, "/")]),
        (PerEvent, "/f", &[(Create, "/f")]),
        (PerEvent, "/d", &[(Full, "/")]),
        (PerEvent, "/gone", &[(Delete, "/gone")]),
    ];
    for (policy, path, expected) in cases {
        let (_dir, mut sync) = with_source(policy);
        sync.execute(&SyncCommand::ResyncPath(path.into()), 0);
        let expected = expected
            .iter()
            .map(|(etype, path)| (*etype, (*path).to_owned()));
        assert_eq!(queued(&sync), expected.collect::<Vec<_>>(), "{path}");
    }
}

/// A comparison of source and target must not report a path that changes meanwhile.
#[test]
fn the_paths_that_change_during_a_comparison_are_recorded() {
    let mut sync = sync_with(Policy::Coalesce);
    sync.execute(&SyncCommand::RecordChanges, 0);
    sync.ingest_path(Etype::Modify, b"/a", 0);
    assert!(sync.changes().has_changed(b"/a") && !sync.changes().has_changed(b"/b"));
}
