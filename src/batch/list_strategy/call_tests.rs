//! Unit tests of the names and options of both calls.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::tests::{MISSING, PRESENT, request};
use super::*;

/// The list of a call, as text.
fn listed(transfer: &Transfer) -> String {
    String::from_utf8_lossy(&transfer.list).into_owned()
}

fn entry(change: Change, path: &[u8]) -> BatchEntry<'_> {
    let to = None;
    BatchEntry { change, path, to }
}

/// Size and time may be those of older contents of the target.
#[test]
fn contents_are_compared_where_sizes_and_times_prove_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    fs::write(directory.path().join("d/f"), "").unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let long_ago = Some(std::time::UNIX_EPOCH);
    for (by_content, last_transfer, change, path, expected) in [
        (true, None, Change::Modify, &b"/d/f"[..], true),
        (true, long_ago, Change::Modify, b"/d/f", true),
        (false, long_ago, Change::Modify, b"/d/f", false),
        // The directory was replaced, perhaps by one that was renamed.
        (false, long_ago, Change::Delete, b"/d/", true),
        (false, None, Change::Delete, b"/d/", false),
        (false, long_ago, Change::Attrib, b"/d/", false),
        (false, long_ago, Change::Delete, b"/d/f", false),
    ] {
        let request = BatchRequest {
            source: &source,
            by_content,
            last_transfer,
            ..request(b"/t/")
        };
        let transfer = ListStrategy::new().prepare(&request, [entry(change, path)]);
        let found = transfer.args.iter().any(|word| word == b"--checksum");
        assert_eq!(found, expected, "{change:?} {last_transfer:?}");
    }
}

#[test]
fn paths_beyond_the_limits_of_rsync_are_named_or_their_directory_is_compared() {
    let directory = format!("/d{}", "/x".repeat(10)).into_bytes();
    let with_name = |name: Vec<u8>| [&directory, &b"/"[..], &name].concat();
    // A wrapper gets the names as they are.
    let request = BatchRequest {
        binary: b"/nowhere/wrapper",
        ..request(b"/t/")
    };
    let long = with_name(vec![b'n'; long_paths::MAX_PATH]);
    let transfer = ListStrategy::new().prepare(&request, [entry(Change::Create, &long)]);
    assert_eq!(transfer.too_long, [long]);
    // Each byte of the name is escaped in a pattern.
    let escaped = with_name(vec![b'*'; long_paths::MAX_PATH / 2]);
    let transfer = ListStrategy::new().prepare(&request, [entry(Change::Create, &escaped)]);
    assert_eq!(transfer.kind, TransferKind::Classic);
    assert!(transfer.too_long.is_empty());
    let patterns = transfer.list.split(|&byte| byte == 0);
    let is_usable = |pattern: &[u8]| pattern.len() <= long_paths::MAX_PATH;
    assert!(patterns.into_iter().all(is_usable));
    let whole = format!("{}/***", String::from_utf8_lossy(&directory));
    assert!(listed(&transfer).contains(&whole), "{}", listed(&transfer));
}

/// What the filter excludes by its kind stays on the target as it is.
#[test]
fn without_deletions_an_excluded_directory_at_the_name_of_a_file_is_not_sent() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("x")).unwrap();
    fs::write(directory.path().join("f"), "").unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let filters = [b"- x/".to_vec()];
    let request = BatchRequest {
        source: &source,
        delete: false,
        filters: &filters,
        list: ListMode::FilesFrom,
        ..request(b"/t/")
    };
    let entries = [b"/f", b"/x"].map(|path| entry(Change::Modify, path));
    let transfer = ListStrategy::new().prepare(&request, entries);
    assert_eq!(transfer.kind, PRESENT);
    assert_eq!(listed(&transfer), "/./f");
}

#[test]
fn both_paths_of_a_move_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("new"), "").unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let request = BatchRequest {
        source: &source,
        list: ListMode::FilesFrom,
        ..request(b"h:/t/")
    };
    let moved = BatchEntry {
        to: Some(b"/new"),
        ..entry(Change::Move, b"/old")
    };
    let transfer = ListStrategy::new().prepare(&request, [moved]);
    assert_eq!(transfer.kind, MISSING);
    assert_eq!(listed(&transfer), "/./new\0/old");
}

/// A file event of a wrapper's call may name what is an excluded directory now.
#[test]
fn an_excluded_directory_in_place_of_a_file_has_its_rules() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("x")).unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    fs::write(directory.path().join("d/x"), "").unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let filters = [b"- x/".to_vec()];
    let request = BatchRequest {
        source: &source,
        binary: b"/nowhere/wrapper",
        filters: &filters,
        ..request(b"/t/")
    };
    for (path, has_rules) in [(&b"/x"[..], true), (b"/d/x", false)] {
        let transfer = ListStrategy::new().prepare(&request, [entry(Change::Create, path)]);
        let rule = b"--filter=- x/".to_vec();
        assert_eq!(transfer.args.contains(&rule), has_rules, "{path:?}");
    }
}

/// The target may have a directory that the filter protects.
#[test]
fn the_name_of_a_file_that_is_gone_may_be_that_of_an_excluded_directory() {
    let directory = tempfile::tempdir().unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let filters = [b"- x/".to_vec()];
    let request = BatchRequest {
        source: &source,
        filters: &filters,
        ..request(b"h:/t/")
    };
    for (path, kind) in [(&b"/x"[..], TransferKind::Classic), (b"/y", MISSING)] {
        let transfer = ListStrategy::new().prepare(&request, [entry(Change::Delete, path)]);
        assert_eq!(transfer.kind, kind, "{path:?}");
    }
}

/// A file that was not written has the contents of its copy.
#[test]
fn only_written_files_are_sent_regardless_of_times() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "").unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let request = BatchRequest {
        source: &source,
        last_transfer: Some(later),
        ..request(b"h:/t/")
    };
    for (change, sent) in [(Change::Modify, true), (Change::Attrib, false)] {
        let transfer = ListStrategy::new().prepare(&request, [entry(change, b"/f")]);
        let never = b"--ignore-times".to_vec();
        assert_eq!(transfer.args.contains(&never), sent, "{change:?}");
    }
}

/// Otherwise each call would fail for the same reason.
#[test]
fn filters_of_a_call_that_fails_for_them_are_left_out_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let filters = [b"- *.o".to_vec()];
    let request = BatchRequest {
        source: &source,
        filters: &filters,
        ..request(b"h:/t/")
    };
    let mut strategy = ListStrategy::new();
    let mut has_filters = || {
        let transfer = strategy.prepare(&request, [entry(Change::Delete, b"/d/")]);
        let text = "unexpected end of filter rule: P";
        let is_repeated = strategy.failed(transfer.kind, 4, [text]).is_some();
        let rule = b"--filter=- *.o".to_vec();
        (transfer.args.contains(&rule), is_repeated)
    };
    assert_eq!(has_filters(), (true, true));
    assert_eq!(has_filters(), (false, false));
}
