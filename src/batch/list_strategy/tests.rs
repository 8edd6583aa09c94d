//! Unit tests of the choice between the two calls.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;

pub(super) const MISSING: TransferKind = TransferKind::FilesFrom { missing: true };
pub(super) const PRESENT: TransferKind = TransferKind::FilesFrom { missing: false };

pub(super) fn request(target: &[u8]) -> BatchRequest<'_> {
    static WORDS: std::sync::LazyLock<Vec<Vec<u8>>> =
        std::sync::LazyLock::new(|| vec![b"-lts".to_vec()]);
    BatchRequest {
        source: b"/",
        target,
        options: &WORDS,
        binary: b"rsync",
        delete: true,
        filters: &[],
        delete_excluded: false,
        last_transfer: None,
        by_content: false,
        list: ListMode::Auto,
    }
}

/// Returns the kind of call for one missing name and a target that this rsync, or another,
/// receives.
fn kind(strategy: &mut ListStrategy, target: &[u8], list: ListMode) -> TransferKind {
    let request = BatchRequest {
        list,
        ..request(target)
    };
    let entry = BatchEntry {
        change: Change::Delete,
        path: b"/no such file",
        to: None,
    };
    strategy.prepare(&request, [entry]).kind
}

#[test]
fn a_local_rsync_deletes_by_list_only_after_a_probe() {
    let mut strategy = ListStrategy {
        probe: |_| false,
        ..ListStrategy::new()
    };
    assert_eq!(
        kind(&mut strategy, b"/t/", ListMode::Auto),
        TransferKind::Classic
    );
    assert_eq!(kind(&mut strategy, b"/t/", ListMode::FilesFrom), MISSING);
    assert_eq!(kind(&mut strategy, b"h:/t/", ListMode::Auto), MISSING);
    assert_eq!(
        kind(&mut strategy, b"h:/t/", ListMode::Filter),
        TransferKind::Classic
    );
}

#[test]
fn a_refused_option_is_not_used_again_with_a_list_mode() {
    for (kind_of_list, refusal) in [
        (
            MISSING,
            "rsync: on remote machine: --delete-missing-args: unknown option",
        ),
        (
            PRESENT,
            "rsync: on remote machine: --ignore-missing-args: unknown option",
        ),
    ] {
        let mut strategy = ListStrategy::new();
        assert_eq!(kind(&mut strategy, b"h:/t/", ListMode::FilesFrom), MISSING);
        assert!(strategy.failed(kind_of_list, 12, [refusal]).is_some());
        let next = kind(&mut strategy, b"h:/t/", ListMode::FilesFrom);
        assert_eq!(next, TransferKind::Classic, "{refusal}");
    }
}

#[test]
fn names_below_exposed_directories_need_a_confined_rsync() {
    let directory = tempfile::tempdir().unwrap();
    let open = directory.path().join("open");
    fs::create_dir_all(open.join("own")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&open, mode).unwrap();
    let source = [directory.path().as_os_str().as_bytes(), b"/"].concat();
    let kind = |confined: bool, list: ListMode, change: Change, path: &[u8]| {
        let mut strategy = ListStrategy {
            confined: if confined { |_| true } else { |_| false },
            probe: |_| true,
            ..ListStrategy::new()
        };
        let request = BatchRequest {
            source: &source,
            list,
            ..request(b"/t/")
        };
        let to = None;
        strategy
            .prepare(&request, [BatchEntry { change, path, to }])
            .kind
    };
    use {Change::*, ListMode::*};
    for (change, path) in [
        (Create, b"/open/f".as_slice()),
        (Attrib, b"/open/own/"),
        (Delete, b"/open/own/gone/deep"),
    ] {
        assert_eq!(kind(false, Auto, change, path), TransferKind::Classic);
        assert_ne!(kind(true, Auto, change, path), TransferKind::Classic);
        assert_ne!(kind(false, FilesFrom, change, path), TransferKind::Classic);
    }
    for (change, path) in [(Create, b"/f".as_slice()), (Attrib, b"/open/")] {
        assert_ne!(kind(false, Auto, change, path), TransferKind::Classic);
    }
}

/// The expected state: lists are used, missing names can be in them, and the omitted options.
type Learnt = (bool, bool, &'static [&'static str]);

/// Exit codes and messages of refused calls, recorded from rsync 3.0.9 to 3.5.0.
const REFUSALS: [(TransferKind, i32, &str, Learnt); 24] = [
    (
        PRESENT,
        1,
        "rsync: --ignore-missing-args: unknown option",
        NO_LIST,
    ),
    (
        MISSING,
        1,
        "rsync: --delete-missing-args: unknown option",
        NO_MISSING,
    ),
    (
        MISSING,
        12,
        "rsync: on remote machine: --delete-missing-args: unknown option",
        NO_MISSING,
    ),
    // A daemon of 3.0.9.
    (
        MISSING,
        10,
        "rsync: on remote machine: --delete-missing-args: unknown option",
        NO_MISSING,
    ),
    (
        MISSING,
        4,
        "rsync: The server is configured to refuse --delete-missing-args",
        NO_MISSING,
    ),
    (
        MISSING,
        10,
        "rsync: The server is configured to refuse --delete-missing-args",
        NO_MISSING,
    ),
    (
        PRESENT,
        4,
        "rsync: The server is configured to refuse --relative (-R)",
        NO_LIST,
    ),
    (
        MISSING,
        10,
        "rsync: The server is configured to refuse --relative (-R)",
        NO_LIST,
    ),
    (
        PRESENT,
        10,
        "rsync: The server is configured to refuse --dirs (-d)",
        NO_LIST,
    ),
    (
        PRESENT,
        4,
        "rsync: The server is configured to refuse --force",
        (false, true, &["force"]),
    ),
    (
        TransferKind::Classic,
        10,
        "rsync: The server is configured to refuse --force",
        (false, true, &["force"]),
    ),
    (
        TransferKind::Classic,
        4,
        "rsync: The server is configured to refuse --ignore-errors",
        (true, true, &["ignore-errors"]),
    ),
    (
        PRESENT,
        10,
        "rsync: The server is configured to refuse --ignore-times (-I)",
        (true, true, &["ignore-times"]),
    ),
    (
        MISSING,
        4,
        "rsync: The server is configured to refuse --checksum (-c)",
        (true, true, &["checksum"]),
    ),
    (
        PRESENT,
        12,
        "/usr/bin/rrsync: option --force has been disabled on this server.",
        (false, true, &["force"]),
    ),
    (
        MISSING,
        12,
        "rrsync error: option --delete-missing-args has been disabled on this server.",
        NO_MISSING,
    ),
    (
        MISSING,
        12,
        "/usr/bin/rrsync: invalid rsync-command syntax or options",
        NO_MISSING,
    ),
    (
        MISSING,
        2,
        "ABORTING due to invalid path from sender: a/b",
        NO_MISSING,
    ),
    (
        MISSING,
        12,
        "ABORTING due to invalid path from sender: a/b",
        NO_MISSING,
    ),
    (
        MISSING,
        2,
        "invalid file mode 00 for gone [Receiver]",
        NO_MISSING,
    ),
    (
        MISSING,
        12,
        "invalid file mode 00 for gone [Receiver]",
        NO_MISSING,
    ),
    (
        MISSING,
        12,
        "ERROR: rejecting excluded file-list name: gone",
        NO_MISSING,
    ),
    (
        MISSING,
        12,
        "ERROR: rejecting unrequested file-list name: gone",
        NO_MISSING,
    ),
    (MISSING, 4, "anything", NO_MISSING),
];

const NO_LIST: Learnt = (false, true, &[]);
const NO_MISSING: Learnt = (true, false, &[]);

#[test]
fn each_refusal_changes_the_strategy_once() {
    for (kind_of, code, text, learnt) in REFUSALS {
        let mut strategy = ListStrategy::new();
        let first = [
            "rsync: connection unexpectedly closed",
            text,
            "rsync error: something",
        ];
        let told = strategy.failed(kind_of, code, first);
        let has = (strategy.files_from, strategy.missing, &strategy.without[..]);
        assert!(told.is_some() && has == learnt, "{code} {text}: {has:?}");
        let again = strategy.failed(kind_of, code, first);
        assert!(again.is_none(), "only once: {code} {text}");
        for name in learnt.2 {
            let word = format!("--{name}").into_bytes();
            let mut words = vec![word.clone(), b"-r".to_vec()];
            strategy.take_out(&[], &mut words);
            assert_eq!(words, [b"-r"], "{text}");
            strategy.take_out(std::slice::from_ref(&word), &mut vec![]);
            let mut users = ListStrategy::new();
            users.take_out(&[word], &mut vec![]);
            assert!(
                users.failed(kind_of, code, [text]).is_none(),
                "the user's: {text}"
            );
        }
        if learnt.2.is_empty() || !learnt.0 {
            assert_eq!(
                kind(&mut strategy, b"h:/t/", ListMode::Auto),
                TransferKind::Classic
            );
            let other = strategy.failed(TransferKind::Classic, code, [text]);
            assert!(other.is_none(), "not of this call: {text}");
        }
    }
}

#[test]
fn a_refused_comparison_is_replaced_by_the_other() {
    use Compare::{Content, Never, Times};
    for (refused, content, never) in [
        (&[][..], Content, Never),
        (&["checksum"], Never, Never),
        (&["ignore-times"], Content, Content),
        (&["ignore-times", "checksum"], Times, Times),
    ] {
        let strategy = ListStrategy {
            without: refused.to_vec(),
            ..ListStrategy::new()
        };
        assert_eq!(strategy.possible([Content, Never]), content, "{refused:?}");
        assert_eq!(strategy.possible([Never, Content]), never, "{refused:?}");
    }
}

#[test]
fn other_failures_change_nothing() {
    let mut strategy = ListStrategy::new();
    for (code, text) in [
        (12, "rsync: connection unexpectedly closed"),
        (
            10,
            "rsync: [sender] read error: Connection reset by peer (104)",
        ),
        (1, "rsync: --bogus: unknown option"),
        (1, "rsync: The server is configured to refuse --delete"),
        (23, "rsync: invalid file mode"),
        (255, "ssh: connect to host h port 22: Connection refused"),
    ] {
        assert!(strategy.failed(MISSING, code, [text]).is_none(), "{text}");
    }
}

/// The other side may have been ended, or it may have refused the call: its message is lost.
#[test]
fn only_connections_lost_again_and_again_change_the_list() {
    const LOST: [&str; 2] = [
        "rsync: [sender] read error: Connection reset by peer (104)",
        "rsync error: protocol incompatibility (code 2) at io.c(1) [sender=3.5.0]",
    ];
    for between in [0, 23] {
        let mut strategy = ListStrategy::new();
        assert!(strategy.failed(MISSING, 2, LOST).is_none());
        assert!(strategy.failed(MISSING, between, [""]).is_none());
        assert!(strategy.failed(MISSING, 2, LOST).is_none(), "{between}");
        assert!(strategy.missing);
    }
    let mut strategy = ListStrategy::new();
    assert!(strategy.failed(MISSING, 12, LOST).is_none());
    assert!(strategy.failed(MISSING, 12, LOST).is_none());
    assert!(strategy.failed(MISSING, 2, LOST).is_some());
    assert!(!strategy.missing);
    // The other side's own message arrived.
    let mut strategy = ListStrategy::new();
    let text = "invalid file mode 00 for gone [Receiver]";
    assert!(strategy.failed(MISSING, 2, [LOST[0], text]).is_some());
}

#[test]
fn refused_filters_are_left_out() {
    for text in [
        "ERROR: rejecting excluded file-list name: gone",
        "unexpected end of filter rule: P",
    ] {
        let mut strategy = ListStrategy::new();
        strategy.ruled = true;
        assert!(strategy.failed(TransferKind::Classic, 4, [text]).is_some());
        assert!(!strategy.rules && strategy.missing);
        assert!(strategy.failed(TransferKind::Classic, 4, [text]).is_none());
        assert!(strategy.failed(MISSING, 4, [text]).is_some());
    }
}

/// Checks the detection of a confined rsync by known versions.
#[test]
fn rsync_is_confined_since_3_5() {
    let binary = Binary::plain(b"rsync").unwrap();
    let version = std::process::Command::new("rsync")
        .arg("--version")
        .output();
    let version = String::from_utf8_lossy(&version.unwrap().stdout).into_owned();
    let old = [
        "version 3.0.",
        "version 3.1.",
        "version 3.2.",
        "version 3.3.",
    ];
    if old.iter().any(|old| version.contains(old)) {
        assert!(!binary.is_confined());
    } else if version.contains("version 3.5.") {
        assert!(binary.is_confined());
    }
}

/// Needs an rsync that is known to work, 3.4.4 or newer.
#[test]
fn the_installed_rsync_passes_the_probe() {
    let binary = Binary::plain(b"rsync").unwrap();
    let version = std::process::Command::new("rsync")
        .arg("--version")
        .output();
    let version = String::from_utf8_lossy(&version.unwrap().stdout).into_owned();
    if version.contains("version 3.5.") {
        assert!(binary.deletes_missing());
        assert!(binary.deletes_missing());
    }
}

/// A name that is too long to be looked up by its whole path may have been written in the second of
/// the last transfer.
#[test]
fn a_file_that_cannot_be_looked_up_is_sent_again() {
    let path = [b"/".as_slice(), &[b'n'; 300]].concat();
    for (list, delete) in [
        (ListMode::Auto, true),
        (ListMode::Auto, false),
        (ListMode::Filter, true),
        (ListMode::FilesFrom, false),
    ] {
        let transfer = |change| {
            let request = BatchRequest {
                list,
                delete,
                last_transfer: Some(std::time::SystemTime::now()),
                ..request(b"h:/t/")
            };
            let path = &path;
            let to = None;
            ListStrategy::new().prepare(&request, [BatchEntry { change, path, to }])
        };
        let never = b"--ignore-times".to_vec();
        let modified = transfer(Change::Modify).args;
        assert!(modified.contains(&never), "{list:?} {delete} {modified:?}");
        assert!(!transfer(Change::Attrib).args.contains(&never), "{list:?}");
    }
}
