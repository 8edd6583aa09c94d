//! What is found for the names in rsync's messages.

use std::fs;

use super::*;
use crate::batch::error_lines;
use proptest::prelude::*;

fn entries(list: &[(&str, Etype)]) -> RetryEntries {
    let owned = list
        .iter()
        .map(|(path, etype)| (path.as_bytes().to_vec(), *etype));
    owned.collect()
}

fn batch(target: &str, paths: &[&str]) -> Blame {
    let list: Vec<_> = paths.iter().map(|path| (*path, Etype::Modify)).collect();
    let roots = [b"/src/".to_vec(), target.as_bytes().to_vec()];
    Blame::of_batch(entries(&list), &roots, 100)
}

fn paths(failed_paths: FailedEntries) -> Vec<String> {
    match failed_paths {
        FailedEntries::Nothing => Vec::new(),
        FailedEntries::Everything => vec!["everything".to_owned()],
        FailedEntries::Paths(paths, _) => paths
            .into_keys()
            .map(|path| path.escape_ascii().to_string())
            .collect(),
    }
}

fn after(mut blame: Blame, lines: &[&str]) -> Vec<String> {
    for line in lines {
        blame.take(error_lines::read(line.as_bytes()));
    }
    paths(blame.failed_paths())
}

const SUMMARY: &str = "rsync error: some files/attrs were not transferred (code 23)";

#[test]
fn names_are_found_in_the_batch() {
    let all = ["/d/f", "/f", "/.h", "/d/", "/x/y/z", "/x/w"];
    let table: [(&str, &str, &[&str]); 19] = [
        (
            "/trg/",
            "rsync: [sender] send_files failed to open \"/src/d/f\": X (13)",
            &["/d/f"],
        ),
        (
            "/trg/",
            "rsync: mkstemp \"/trg/d/.f.Ab12Cd\" failed: X (13)",
            &["/d/f"],
        ),
        (
            "/trg/",
            "rsync: mkstemp \"/trg/.f.Ab12Cd\" failed: X (13)",
            &["/f"],
        ),
        (
            "/trg/",
            "rsync: mkstemp \"/trg/.h.Ab12Cd\" failed: X (13)",
            &["/.h"],
        ),
        (
            "/trg/",
            "rsync: delete_file: unlink(d/f) failed: X (13)",
            &["/d/f"],
        ),
        (
            "/trg/",
            "rsync: recv_generator: mkdir \"/trg/x\" failed: X (13)",
            &["/x/w", "/x/y/z"],
        ),
        (
            "h:/trg",
            "rsync: mkstemp \"/trg/d/.f.Ab12Cd\" failed: X (13)",
            &["/d/f"],
        ),
        // Below a home directory the root is not known.
        (
            "h:trg/",
            "rsync: mkstemp \"/home/u/trg/x/y/.z.Ab12Cd\" failed: X (13)",
            &["/x/y/z"],
        ),
        (
            "h:",
            "rsync: mkstemp \"/home/u/d/.f.Ab12Cd\" failed: X (13)",
            &["/d/f", "/f"],
        ),
        (
            "h::mod",
            "rsync: mkstemp \"/d/.f.Ab12Cd\" (in mod) failed: X (13)",
            &["/d/f"],
        ),
        (
            "h::mod/sub/",
            "rsync: mkstemp \"/sub/d/.f.Ab12Cd\" (in mod) failed: X (13)",
            &["/d/f"],
        ),
        (
            "rsync://h/mod/sub/",
            "rsync: mkstemp \"/sub/.f.Ab12Cd\" (in mod) failed: X (13)",
            &["/f"],
        ),
        (
            "rsync://h/mod",
            "rsync: mkstemp \"d/.f.Ab12Cd\" (in mod) failed: X (13)",
            &["/d/f"],
        ),
        // With --temp-dir the directory of a name says nothing.
        (
            "/trg/",
            "rsync: mkstemp \"/tmp/f.Ab12Cd\" failed: X (13)",
            &["/d/f", "/f"],
        ),
        (
            "/trg/",
            "rsync: symlink \"/trg/d/.f.4321\" -> \"x\" failed: X (13)",
            &["/d/f"],
        ),
        (
            "/trg/",
            "could not make way for new directory: x",
            &["/x/w", "/x/y/z"],
        ),
        (
            "/trg/",
            "rsync: mkstemp \"/trg/.unheard.Ab12Cd\" failed: X (13)",
            &["everything"],
        ),
        (
            "/trg/",
            "rsync: [generator] something new: X (13)",
            &["everything"],
        ),
        (
            "/trg/",
            "rsync: opendir \"/src/.\" failed: X (13)",
            &["/.h", "/d/", "/d/f", "/f", "/x/w", "/x/y/z"],
        ),
    ];
    for (target, line, expected) in table {
        assert_eq!(
            after(batch(target, &all), &[line, SUMMARY]),
            expected,
            "{target} {line}"
        );
    }
}

#[test]
fn what_arrived_is_done() {
    let chown = "rsync: chown \"/trg/.f.Ab12Cd\" failed: Operation not permitted (1)";
    let parent =
        "rsync: [generator] failed to set times on \"/trg/.\": Operation not permitted (1)";
    assert!(after(batch("/trg/", &["/f", "/g"]), &[chown, parent, SUMMARY]).is_empty());
    let open = "rsync: [sender] send_files failed to open \"/src/g\": Permission denied (13)";
    assert_eq!(after(batch("/trg/", &["/f", "/g"]), &[chown, open]), ["/g"]);
    // A failure that no line explains.
    assert_eq!(after(batch("/trg/", &["/f"]), &[SUMMARY]), ["everything"]);
    assert_eq!(after(batch("/trg/", &["/f"]), &[]), ["everything"]);
    assert_eq!(
        after(batch("/trg/", &["/f"]), &[chown, "what?"]),
        ["everything"]
    );
}

#[test]
fn a_name_that_may_be_several_is_all_of_them() {
    let line = "rsync: mkstemp \"/trg/.a\" failed: x.Ab12Cd\" failed: X (13)";
    let all = ["/a\" failed: x", "/.a", "/b"];
    assert_eq!(
        after(batch("/trg/", &all), &[line]),
        ["/.a", "/a\\\" failed: x"]
    );
    let long = "n".repeat(255);
    let cut = format!(
        "rsync: mkstemp \"/trg/.{}.Ab12Cd\" failed: X (13)",
        &long[..246]
    );
    let name = format!("/{long}");
    assert_eq!(after(batch("/trg/", &[&name, "/n"]), &[&cut]), [name]);
    // rsync leaves out a dot at the end.
    let dot = "rsync: mkstemp \"/trg/d/.f.Ab12Cd\" failed: X (13)";
    let all = ["/d/f", "/d/f.", "/d/.f", "/d/g"];
    assert_eq!(
        after(batch("/trg/", &all), &[dot]),
        ["/d/.f", "/d/f", "/d/f."]
    );
}

/// rsync cuts a long name so that no character is split: nothing may be left of it.
#[test]
fn long_names_without_ascii() {
    let long = format!("/d/{}", "é".repeat(127));
    let mixed = format!("/d/a{}", "é".repeat(125));
    let all = [long.as_str(), &mixed, "/d/", "/d/a", "/e/b"];
    let escaped = |path: &str| path.as_bytes().escape_ascii().to_string();
    let (long, mixed) = (escaped(&long), escaped(&mixed));
    for (target, line, expected) in [
        (
            "/trg/",
            "rsync: mkstemp \"/trg/d/.Ab12Cd\" failed: X (13)",
            vec![&mixed, &long],
        ),
        (
            "h:trg/",
            "rsync: mkstemp \"/home/u/trg/d/.Ab12Cd\" failed: X (13)",
            vec![&mixed, &long],
        ),
        (
            "/trg/",
            "rsync: mkstemp \"/trg/d/.a.Ab12Cd\" failed: X (13)",
            vec![&"/d/a".to_owned(), &mixed],
        ),
        (
            "/trg/",
            "rsync: mkstemp \"/tmp/a.Ab12Cd\" failed: X (13)",
            vec![&"/d/a".to_owned(), &mixed],
        ),
    ] {
        let found = after(batch(target, &all), &[line]);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{line}");
    }
}

#[test]
fn past_the_bound_all_has_failed() {
    for (count, all) in [(99, false), (100, false), (101, true)] {
        let names: Vec<String> = (0..200).map(|n| format!("/f{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut blame = batch("/trg/", &names);
        for n in 0..count {
            let line = format!("rsync: mkstemp \"/trg/.f{n}.Ab12Cd\" failed: X (13)");
            blame.take(error_lines::read(line.as_bytes()));
        }
        assert_eq!(
            blame.failed_paths() == FailedEntries::Everything,
            all,
            "{count}"
        );
    }
}

#[test]
fn a_comparison_of_everything_asks_the_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().to_str().unwrap();
    fs::create_dir_all(scratch.path().join("d/e")).unwrap();
    let long = "é".repeat(127);
    for name in ["d/f", ".h", "quo\"te", "dot", "dot.", &long] {
        fs::write(scratch.path().join(name), "").unwrap();
    }
    let long = format!("/{long}");
    let whole = || {
        let roots = [format!("{source}/").into_bytes(), b"/trg/".to_vec()];
        Blame::of_everything(&roots, 100)
    };
    let table: [(String, &[(&str, Etype)]); 16] = [
        (
            format!("rsync: send_files failed to open \"{source}/d/f\": X (13)"),
            &[("/d/f", Etype::Modify)],
        ),
        (
            format!("rsync: opendir \"{source}/d/e\" failed: X (13)"),
            &[("/d/e/", Etype::Delete)],
        ),
        (
            "rsync: mkstemp \"/trg/d/.f.Ab12Cd\" failed: X (13)".into(),
            &[("/d/f", Etype::Modify)],
        ),
        (
            "rsync: mkstemp \"/trg/.h.Ab12Cd\" failed: X (13)".into(),
            &[("/.h", Etype::Modify)],
        ),
        (
            "rsync: mkstemp \"/trg/.quo\"te.Ab12Cd\" failed: X (13)".into(),
            &[("/quo\"te", Etype::Modify)],
        ),
        (
            "rsync: delete_file: unlink(d/gone) failed: X (13)".into(),
            &[("/d/gone", Etype::Delete)],
        ),
        (
            "rsync: delete_file: rmdir(gone) failed: X (13)".into(),
            &[("/gone/", Etype::Delete)],
        ),
        (
            "rsync: mkstemp \"/trg/.dot.Ab12Cd\" failed: X (13)".into(),
            &[("/dot", Etype::Modify), ("/dot.", Etype::Modify)],
        ),
        (
            "rsync: mkstemp \"/trg/.Ab12Cd\" failed: X (13)".into(),
            &[(&long, Etype::Modify)],
        ),
        (
            "rsync: symlink \"/trg/.dot.77\" -> \"x\" failed: X (13)".into(),
            &[("/dot", Etype::Modify), ("/dot.", Etype::Modify)],
        ),
        (
            "could not make way for new directory: d".into(),
            &[("/d/", Etype::Delete)],
        ),
        (
            "rsync: mkstemp \"/trg/.gone.Ab12Cd\" failed: X (13)".into(),
            &[],
        ),
        (
            "rsync: mkstemp \"/elsewhere/.h.Ab12Cd\" failed: X (13)".into(),
            &[],
        ),
        // A path to be sent is in the source, or the name is not understood.
        ("rsync: mkstemp \"nowhere\" failed: X (13)".into(), &[]),
        (
            format!("rsync: send_files failed to open \"{source}/d/gone\": X (13)"),
            &[],
        ),
        (
            "rsync: unlink \"d/gone\" failed: X (13)".into(),
            &[("/d/gone", Etype::Delete)],
        ),
    ];
    for (line, expected) in table {
        let mut blame = whole();
        blame.take(error_lines::read(line.as_bytes()));
        let failed_paths = match expected {
            [] => FailedEntries::Everything,
            list => FailedEntries::Paths(entries(list), BTreeSet::new()),
        };
        let found = match blame.failed_paths() {
            FailedEntries::Paths(paths, _) => FailedEntries::Paths(paths, BTreeSet::new()),
            other => other,
        };
        assert_eq!(found, failed_paths, "{line}");
    }
}

/// A retry would end the same way.
#[test]
fn what_rsync_cannot_name_is_not_retried() {
    let too_long = "filename overflows max-path len by 4: d/f";
    let none: &[&str] = &[];
    assert_eq!(after(batch("/trg/", &["/d/"]), &[too_long, SUMMARY]), none);
    let whole = || Blame::of_everything(&[b"/src/".to_vec(), b"/trg/".to_vec()], 100);
    assert_eq!(after(whole(), &[too_long, too_long, SUMMARY]), none);
    assert_eq!(after(whole(), &[too_long, "odd"]), ["everything"]);
    let other = "rsync: [sender] send_files failed to open \"/src/f\": Permission denied (13)";
    assert_eq!(after(batch("/trg/", &["/f"]), &[too_long, other]), ["/f"]);
    let kind = whole().take(error_lines::read(too_long.as_bytes()));
    assert_eq!(kind, LineKind::Unsendable(b"/d/f".to_vec()));
}

fn take(blame: &mut Blame, lines: &[&str]) {
    for line in lines {
        blame.take(error_lines::read(line.as_bytes()));
    }
}

const UNREADABLE_DIRECTORY: &str = "rsync: [sender] opendir \"/src/d\" failed: X (13)";
const UNREADABLE_FILE: &str = "rsync: [sender] send_files failed to open \"/src/f\": X (13)";

/// The retry of what stopped a transfer would leave the rest of a directory out.
#[test]
fn a_transfer_stops_at_files_and_not_at_directories() {
    let mut blame = batch("/trg/", &["/d/", "/f"]);
    assert_eq!(blame.stopped_at(), None);
    take(&mut blame, &[UNREADABLE_FILE]);
    let file = entries(&[("/f", Etype::Modify)]);
    assert_eq!(blame.stopped_at(), Some(&file));
    take(&mut blame, &[UNREADABLE_DIRECTORY]);
    assert_eq!(blame.stopped_at(), None);
}

#[test]
fn a_line_that_names_no_entry_blames_the_whole_transfer() {
    let unknown = "rsync: [sender] send_files failed to open \"/src/other\": X (13)";
    for line in [unknown, "a line of another program"] {
        let mut blame = batch("/trg/", &["/f"]);
        take(&mut blame, &[UNREADABLE_FILE]);
        let kind = blame.take(error_lines::read(line.as_bytes()));
        assert_eq!(kind, LineKind::Unknown, "{line}");
        assert_eq!(blame.failed_paths(), FailedEntries::Everything, "{line}");
    }
}

#[test]
fn past_the_bound_nothing_is_remembered() {
    let names = ["/a", "/b", "/c"];
    let roots = [b"/src/".to_vec(), b"/trg/".to_vec()];
    let all = names.map(|name| (name, Etype::Modify));
    let mut blame = Blame::of_batch(entries(&all), &roots, 2);
    for name in names {
        let line = format!("rsync: send_files failed to open \"/src{name}\": X (13)");
        take(&mut blame, &[&line]);
    }
    assert!(blame.failed.is_empty() && blame.obstructed.is_empty());
    take(
        &mut blame,
        &["rsync: send_files failed to open \"/src/a\": X (13)"],
    );
    assert!(blame.failed.is_empty());
    assert_eq!(blame.failed_paths(), FailedEntries::Everything);
}

/// The classic list keeps the contents of a directory that is not deleted itself.
#[test]
fn an_obstructing_directory_is_deleted_with_its_contents() {
    let mut blame = batch("/trg/", &["/d"]);
    take(&mut blame, &["could not make way for new symlink: d"]);
    let expected = entries(&[("/d", Etype::Modify), ("/d/", Etype::Delete)]);
    let obstructed = BTreeSet::from([b"/d".to_vec()]);
    let expected = FailedEntries::Paths(expected, obstructed);
    assert_eq!(blame.failed_paths(), expected);
}

/// A deleted directory stands for what was in it; one that was changed does not.
#[test]
fn what_is_inside_a_deleted_directory_blames_the_directory() {
    let roots = [b"/src/".to_vec(), b"/trg/".to_vec()];
    let line = "rsync: delete_file: unlink(d/e/f) failed: X (13)";
    type Case<'c> = (&'c [(&'c str, Etype)], &'c [&'c str]);
    let table: [Case<'_>; 3] = [
        (&[("/d/", Etype::Delete), ("/x", Etype::Modify)], &["/d/"]),
        (
            &[("/d/e/", Etype::Delete), ("/d/", Etype::Delete)],
            &["/d/e/"],
        ),
        (&[("/d/", Etype::Create)], &["everything"]),
    ];
    for (list, expected) in table {
        let blame = Blame::of_batch(entries(list), &roots, 100);
        assert_eq!(after(blame, &[line]), expected, "{list:?}");
    }
    // The entry itself decides, if there is one.
    let list = [("/d/", Etype::Delete), ("/d/e/f", Etype::Modify)];
    let blame = Blame::of_batch(entries(&list), &roots, 100);
    assert_eq!(after(blame, &[line]), ["/d/e/f"]);
}

/// A directory that could not be deleted for another reason may go the next time.
#[test]
fn obstructed_is_what_fails_for_no_other_reason() {
    let make_way = "could not make way for new symlink: d";
    let other = "rsync: [receiver] delete_file: rmdir(d) failed: Device or resource busy (16)";
    let elsewhere = "rsync: [sender] send_files failed to open \"/src/f\": Permission denied (13)";
    for (lines, expected) in [
        (&[make_way][..], &["/d"][..]),
        (&[make_way, elsewhere], &["/d"]),
        (&[make_way, other], &[]),
        (&[other, make_way], &[]),
        (&[elsewhere], &[]),
    ] {
        let mut blame = batch("/trg/", &["/d", "/d/", "/f"]);
        for line in lines {
            blame.take(error_lines::read(line.as_bytes()));
        }
        let FailedEntries::Paths(_, obstructed) = blame.failed_paths() else {
            panic!("{lines:?}");
        };
        let expected: BTreeSet<_> = expected
            .iter()
            .map(|path| path.as_bytes().to_vec())
            .collect();
        assert_eq!(obstructed, expected, "{lines:?}");
    }
}

proptest! {
    /// Whatever else is in the batch, the path that failed is among what is tried again.
    #[test]
    fn what_failed_is_never_forgotten(
        names in prop::collection::btree_set("[a.\"/ ]{1,6}", 1..8),
        pick in any::<prop::sample::Index>(),
        known in any::<bool>(),
    ) {
        let names: Vec<Vec<u8>> = names
            .iter()
            .map(|name| cleaned(format!("/{name}").as_bytes()))
            .filter(|path| path != b"/" && !path.ends_with(b"/"))
            .collect();
        prop_assume!(!names.is_empty());
        let failed = pick.get(&names).clone();
        let list = names.iter().map(|name| (name.clone(), Etype::Modify)).collect();
        let target = if known { b"/t/".to_vec() } else { b"h:t/".to_vec() };
        let mut blame = Blame::of_batch(list, &[b"/s/".to_vec(), target], 100);
        let slash = failed.iter().rposition(|&byte| byte == b'/').unwrap_or_default();
        let (directory, last) = failed.split_at(slash + 1);
        let last = last.strip_prefix(b".").unwrap_or(last);
        let last = last.strip_suffix(b".").unwrap_or(last);
        let line = [b"rsync: mkstemp \"/t", directory, b".", last, b".Ab12Cd\" failed: X (13)"].concat();
        blame.take(error_lines::read(&line));
        match blame.failed_paths() {
            FailedEntries::Everything => {}
            FailedEntries::Paths(paths, _) => prop_assert!(paths.contains_key(&failed)),
            FailedEntries::Nothing => prop_assert!(false, "nothing"),
        }
    }
}
