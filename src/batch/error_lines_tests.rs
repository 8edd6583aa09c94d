//! Messages of rsync 3.0.9 to 3.5.0, as they are.

use super::*;
use proptest::prelude::*;

/// The first reading of the name, and what is said of it.
fn told(line: &str) -> (String, String) {
    let shown = |name: &QuotedName| {
        let more = if name.with_contents { "/**" } else { "" };
        format!("{}{more}", name.readings[0].escape_ascii())
    };
    match read(line.as_bytes()) {
        ErrorLine::Failed(name, reason) => (format!("{reason:?}"), shown(&name)),
        ErrorLine::Attribute(name, kind) => (kind.name().to_owned(), shown(&name)),
        other => (format!("{other:?}"), String::new()),
    }
}

#[test]
fn messages_of_all_versions() {
    let table = [
        // 3.0.9 and 3.1.x name no process.
        (
            "rsync: send_files failed to open \"/s/f\": Permission denied (13)",
            "Other",
            "/s/f",
        ),
        (
            "rsync: mkstemp \"/t/d/.f.Ab12Cd\" failed: Permission denied (13)",
            "Other",
            "/t/d/.f.Ab12Cd",
        ),
        (
            "rsync: [receiver] mkstemp \"/t/d/.f.Ab12Cd\" failed: Read-only file system (30)",
            "Other",
            "/t/d/.f.Ab12Cd",
        ),
        (
            "rsync: [receiver] mkstemp \"/d/.f.Ab12Cd\" (in mod) failed: Permission denied (13)",
            "Other",
            "/d/.f.Ab12Cd",
        ),
        (
            "rsync: [Receiver] mkdir \"/t/a\" failed: No such file or directory (2)",
            "Other",
            "/t/a/**",
        ),
        (
            "rsync: [receiver] write failed on \"/t/big\": No space left on device (28)",
            "Size(Space)",
            "/t/big",
        ),
        (
            "rsync: write failed on \"/t/big\": Disk quota exceeded (122)",
            "Size(Quota)",
            "/t/big",
        ),
        (
            "rsync: [receiver] write failed on \"/t/big\": File too large (27)",
            "Size(FileSize)",
            "/t/big",
        ),
        (
            "rsync: [sender] opendir \"/s/d\" failed: Permission denied (13)",
            "Other",
            "/s/d/**",
        ),
        (
            "rsync: [sender] readdir(\"/s/d\"): Input/output error (5)",
            "Other",
            "/s/d/**",
        ),
        (
            "rsync: [sender] link_stat \"/s/d/f\" failed: Not a directory (20)",
            "Other",
            "/s/d/f/**",
        ),
        (
            "rsync: recv_generator: failed to stat \"/t/d/f\": Permission denied (13)",
            "Other",
            "/t/d/f/**",
        ),
        (
            "rsync: [generator] recv_generator: mkdir \"/t/d\" failed: Permission denied (13)",
            "Other",
            "/t/d/**",
        ),
        (
            "rsync: [sender] read errors mapping \"/s/f\": Input/output error (5)",
            "Other",
            "/s/f",
        ),
        (
            "rsync: [generator] delete_file: unlink(d/f) failed: Permission denied (13)",
            "Other",
            "d/f",
        ),
        (
            "rsync: delete_file: rmdir(d) failed: Permission denied (13)",
            "Other",
            "d/**",
        ),
        (
            "rsync: [receiver] rename \"/t/.f.Ab12Cd\" -> \"f\": Is a directory (21)",
            "Other",
            "/t/.f.Ab12Cd",
        ),
        (
            "rsync: [generator] symlink \"/t/l\" -> \"x\" failed: Permission denied (13)",
            "Other",
            "/t/l",
        ),
        (
            "rsync: [generator] link \"/t/b\" => a failed: Too many links (31)",
            "Other",
            "/t/b",
        ),
        (
            "rsync: [receiver] get_acl: sys_acl_get_file(t/f, ACL_TYPE_ACCESS): Input/output \
             error (5)",
            "Other",
            "t/f",
        ),
        (
            "could not make way for new regular file: d/f",
            "Obstructed",
            "d/f",
        ),
        ("could not make way for new directory: d", "Other", "d/**"),
        (
            "ERROR: d/f failed verification -- update discarded.",
            "Other",
            "d/f",
        ),
        (
            "ERROR: daemon refused to receive file \"d/f\"",
            "Other",
            "d/f",
        ),
        (
            "[sender] cannot convert filename: d/f\\#377 (Invalid or incomplete multibyte or wide \
             character)",
            "Other",
            "d/f\\xff",
        ),
        (
            "rsync: [receiver] chown \"/t/.f.Ab12Cd\" failed: Operation not permitted (1)",
            "owner",
            "/t/.f.Ab12Cd",
        ),
        (
            "rsync: chgrp \"/t/.f.Ab12Cd\" failed: Operation not permitted (1)",
            "group",
            "/t/.f.Ab12Cd",
        ),
        (
            "rsync: failed to set times on \"/t/d\": Operation not permitted (1)",
            "times",
            "/t/d",
        ),
        (
            "rsync: [generator] failed to set times on \"/t/.\" (in mod): Operation not permitted \
             (1)",
            "times",
            "/t/.",
        ),
        (
            "rsync: [generator] failed to set permissions on \"/t/f\": Operation not permitted (1)",
            "permissions",
            "/t/f",
        ),
        (
            "rsync: [receiver] rsync_xal_set: lsetxattr(\"/t/f\",\"user.x\") failed: Operation \
             not supported (95)",
            "xattrs",
            "/t/f",
        ),
        (
            "rsync: [generator] set_acl: sys_acl_set_file(d/f, ACL_TYPE_ACCESS): Operation not \
             supported (95)",
            "acls",
            "d/f",
        ),
        // A temporary error says nothing about the attribute.
        (
            "rsync: [generator] failed to set permissions on \"/t/f\": Read-only file system (30)",
            "Other",
            "/t/f",
        ),
        (
            "rsync: [generator] failed to set times on \"/t/f\": Input/output error (5)",
            "Other",
            "/t/f",
        ),
        (
            "rsync: [receiver] rsync_xal_set: lsetxattr(\"/t/f\",\"user.x\") failed: No space \
             left on device (28)",
            "Size(Space)",
            "/t/f",
        ),
        (
            "rsync error: some files/attrs were not transferred (see previous errors) (code 23) \
             at main.c(1338) [sender=3.2.7]",
            "Neutral",
            "",
        ),
        (
            "rsync warning: some files vanished before they could be transferred (code 24) at \
             main.c(1358) [sender=3.4.1]",
            "Neutral",
            "",
        ),
        (
            "*** Skipping any contents from this failed directory ***",
            "Neutral",
            "",
        ),
        ("file has vanished: \"/s/f\"", "Neutral", ""),
        (
            "WARNING: d/f failed verification -- update discarded (will try again).",
            "Neutral",
            "",
        ),
        (
            "rsync: [generator] failed to open \"/t/f\", continuing: Permission denied (13)",
            "Neutral",
            "",
        ),
        (
            "rsync: [sender] write error: Broken pipe (32)",
            "Unknown",
            "",
        ),
        (
            "rsync: connection unexpectedly closed (8 bytes received so far) [sender]",
            "Unknown",
            "",
        ),
        (
            "IO error encountered -- skipping file deletion",
            "Unknown",
            "",
        ),
        (
            "Warning: Permanently added 'h' (ED25519) to the list of known hosts.",
            "Unknown",
            "",
        ),
        (
            "rsync: [sender] some new message about \"/s/f\": Permission denied (13)",
            "Unknown",
            "",
        ),
        ("rsync: [receiver] mkstemp \"/t/d/.f.Ab", "Unknown", ""),
        ("", "Neutral", ""),
    ];
    for (line, said, name) in table {
        assert_eq!(told(line), (said.to_owned(), name.to_owned()), "{line}");
    }
}

#[test]
fn quotes_in_a_name_make_several_readings() {
    let line = b"rsync: mkstemp \"/t/.quo\"te.Ab12Cd\" (in mod) failed: Permission denied (13)";
    let ErrorLine::Failed(name, FailureReason::Other) = read(line) else {
        panic!("not read");
    };
    assert_eq!(name.readings, [&b"/t/.quo"[..], b"/t/.quo\"te.Ab12Cd"]);
}

#[test]
fn metrics_have_every_attribute() {
    use Attribute::{Acls, Group, Owner, Permissions, Times, Xattrs};
    let all = [Owner, Group, Permissions, Times, Acls, Xattrs];
    assert_eq!(all.map(Attribute::name), crate::status::metrics::ATTRIBUTES);
}

/// As rsync does for a terminal that is not to get control characters.
fn escaped(name: &[u8], ascii: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for (at, &byte) in name.iter().enumerate() {
        let digits = name.get(at + 2..at + 5).unwrap_or_default();
        let like = name[at..].starts_with(b"\\#")
            && digits.len() == 3
            && digits.iter().all(u8::is_ascii_digit);
        if like || (byte < b' ' && byte != b'\t') || (ascii && byte >= 0x7f) {
            text.extend(format!("\\#{byte:03o}").into_bytes());
        } else {
            text.push(byte);
        }
    }
    text
}

proptest! {
    /// Whatever bytes a name has, one of its readings is the name.
    #[test]
    fn names_are_read_back(
        name in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(b"a/\\#0129\"\n\t :()>-\xff\x7f,".to_vec()),
                1 => 1u8..=255,
            ],
            1..30,
        ),
        ascii in any::<bool>(),
    ) {
        let shapes = [
            ("rsync: mkstemp \"", "\" failed: Permission denied (13)"),
            ("rsync: [sender] send_files failed to open \"", "\": Permission denied (13)"),
            ("rsync: [receiver] rename \"", "\" -> \"x\": Is a directory (21)"),
            ("rsync: [receiver] mkstemp \"", "\" (in m) failed: Read-only file system (30)"),
            ("rsync: [generator] delete_file: unlink(", ") failed: Permission denied (13)"),
            ("could not make way for new regular file: ", ""),
        ];
        for (head, tail) in shapes {
            let line = [head.as_bytes(), &escaped(&name, ascii), tail.as_bytes()].concat();
            let ErrorLine::Failed(found, _) = read(&line) else {
                return Err(TestCaseError::fail(format!("not read: {}", line.escape_ascii())));
            };
            prop_assert!(found.readings.contains(&name), "{}", line.escape_ascii());
        }
    }
}

#[test]
fn only_a_file_that_rsync_sends_again_by_itself_is_no_failure() {
    let again = "WARNING: f failed verification -- update discarded (will try again).";
    for (line, is_neutral) in [
        (again, true),
        ("WARNING: f failed verification -- update discarded.", false),
        ("ERROR: other (will try again).", false),
    ] {
        let found = read(line.as_bytes());
        assert_eq!(found == ErrorLine::Neutral, is_neutral, "{line}");
    }
}

/// It would fail again and again.
#[test]
fn whatever_fails_for_the_length_of_a_name_is_too_long() {
    for line in [
        "rsync: [generator] recv_generator: mkdir \"/t/d\" failed: File name too long (36)",
        "rsync: [sender] link_stat \"/s/f\" failed: File name too long (36)",
    ] {
        let found = read(line.as_bytes());
        assert!(matches!(found, ErrorLine::TooLong(_)), "{line}: {found:?}");
    }
}
