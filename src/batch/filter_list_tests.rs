//! Unit tests of the call with `--include-from`.

use super::*;
use crate::batch::ListMode;
use crate::batch::collapse::{FileKind, Stat};

const REQUEST: BatchRequest<'_> = BatchRequest {
    source: b"/s/",
    target: b"h:/t/",
    options: &[],
    binary: b"rsync",
    delete: true,
    filters: &[],
    delete_excluded: false,
    last_transfer: None,
    by_content: false,
    list: ListMode::Filter,
};

fn names(entries: &[(Change, &str)]) -> String {
    let entries: Vec<BatchEntry<'_>> = entries
        .iter()
        .map(|(change, path)| BatchEntry {
            change: *change,
            path: path.as_bytes(),
            to: None,
        })
        .collect();
    let list = transfer(
        &REQUEST,
        &Rules::default(),
        &entries,
        Compare::Times,
        |_| false,
        false,
    )
    .list;
    String::from_utf8(list).unwrap().replace('\0', " ")
}

/// Compares with lists recorded from lsyncd 2.3.1.
#[test]
fn lists_are_those_of_lsyncd() {
    use Change::{Attrib, Create, Delete, Modify};
    let cases: &[(&[(Change, &str)], &str)] = &[
        (&[(Modify, "/f")], "/f /"),
        (&[(Attrib, "/f"), (Attrib, "/d/")], "/f / /d/"),
        (&[(Attrib, "/")], "/"),
        (
            &[(Create, "/d1/d2/d3/f1"), (Modify, "/d1/f2")],
            "/d1/d2/d3/f1 /d1/d2/d3/ /d1/d2/ /d1/ / /d1/f2",
        ),
        (
            &[(Delete, "/d/"), (Create, "/e/"), (Create, "/e/f")],
            "/d/*** /d/ / /e/ /e/f",
        ),
        (
            &[(Delete, "/e[1]/x"), (Delete, "/e[1]/")],
            r"/e\[1\]/x /e\[1\]/ / /e\[1\]/***",
        ),
        (&[(Modify, "/a[b"), (Modify, "/[x]")], r"/a\[b / /\[x\]"),
        (
            &[(Modify, "/a"), (Delete, "/a"), (Create, "/a/")],
            "/a / /a/",
        ),
    ];
    for (entries, expected) in cases {
        assert_eq!(names(entries), *expected);
    }
}

/// Checks names with a backslash. lsyncd loses these: `\` is no escape in a pattern without
/// wildcard.
#[test]
fn only_patterns_with_wildcards_are_escaped() {
    assert_eq!(names(&[(Change::Modify, "/y]")]), "/y] /");
    assert_eq!(names(&[(Change::Modify, r"/a\b")]), r"/a\b /");
    assert_eq!(names(&[(Change::Modify, r"/a\*")]), r"/a\\\* /");
    assert_eq!(names(&[(Change::Delete, r"/a\b/")]), r"/a\\b/*** /a\b/ /");
}

/// rsync takes a directory without a listed file for an empty one.
#[test]
fn directories_have_their_contents_with_prune_empty_dirs() {
    let options = [b"-ltm".to_vec()];
    let request = BatchRequest {
        options: &options,
        ..REQUEST
    };
    let rules = Rules::default();
    let entries = ["/", "/d/", "/f"].map(|path| BatchEntry {
        change: Change::Attrib,
        path: path.as_bytes(),
        to: None,
    });
    let found = Collapsed {
        present: vec![
            item("/", Some(FileKind::Directory)),
            item("/d", Some(FileKind::Directory)),
            item("/f", Some(FileKind::File)),
        ],
        missing: vec![],
        exposed: false,
    };
    let expected = b"/\0/d/***\0/d/\0/f";
    let plain = transfer(&request, &rules, &entries, Compare::Times, |_| true, false);
    assert_eq!(plain.list, expected);
    let collapsed = collapsed(&request, &rules, &found, Compare::Times);
    assert_eq!(collapsed.list, expected);
}

#[test]
fn both_ends_of_a_move_are_listed() {
    let entry = BatchEntry {
        change: Change::Move,
        path: b"/f",
        to: Some(b"/d/g"),
    };
    let transfer = transfer(
        &REQUEST,
        &Rules::default(),
        &[entry],
        Compare::Times,
        |_| false,
        false,
    );
    assert_eq!(transfer.list, b"/f\0/\0/d/g\0/d/");
}

#[test]
fn arguments_are_those_of_lsyncd() {
    let words = [b"-lts".to_vec(), b"--bwlimit=1".to_vec()];
    let arguments = |delete| {
        let request = BatchRequest {
            options: &words,
            delete,
            ..REQUEST
        };
        let args = transfer(
            &request,
            &Rules::default(),
            &[],
            Compare::Times,
            |_| false,
            false,
        )
        .args
        .join(b" ".as_slice());
        String::from_utf8(args).unwrap()
    };
    assert_eq!(
        arguments(true),
        "-lts --bwlimit=1 -r --delete --ignore-errors --force --from0 \
         --include-from=- --exclude=* /s/ h:/t/"
    );
    assert_eq!(
        arguments(false),
        "-lts --bwlimit=1 -r --force --from0 --include-from=- --exclude=* /s/ h:/t/"
    );
}

fn item(path: &str, node: Option<FileKind>) -> CollapsedItem<'_> {
    CollapsedItem {
        path: path.as_bytes(),
        stat: node.map(|node| Stat {
            node,
            mtime: 0,
            ctime: 0,
            exposed: false,
        }),
        was_directory: false,
        written: false,
        renewed: false,
        other_kind: false,
    }
}

/// Returns the rules among the arguments, or else those in the list.
fn rules_of(transfer: &Transfer) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let words = transfer.args.iter();
    let words = words.filter_map(|word| word.strip_prefix(b"--filter="));
    if transfer.names_at == 0 {
        return words.map(text).collect();
    }
    let listed = transfer.list[..transfer.names_at].split(|&byte| byte == 0);
    listed.filter(|rule| !rule.is_empty()).map(text).collect()
}

/// Checks that a rule that includes is passed for the directory concerned only: at the root it
/// would delete whatever is not in the list.
#[test]
fn rules_that_include_are_confined_to_what_is_gone() {
    let rules = Rules::new(["+ */".as_bytes(), b"- *"]);
    let gone = CollapsedItem {
        was_directory: true,
        ..item("/a", None)
    };
    let found = Collapsed {
        present: vec![
            item("/", Some(FileKind::Directory)),
            item("/f", Some(FileKind::File)),
        ],
        missing: vec![gone],
        exposed: false,
    };
    let made = collapsed(&REQUEST, &rules, &found, Compare::Times);
    let expected = [
        "+ /a/",
        "- /a",
        "+ /a/*/",
        "+ /a/**/*/",
        "- /a/*",
        "- /a/**/*",
    ];
    assert_eq!(rules_of(&made), expected);
    assert_eq!(made.list, b"/\0/a\0/a/***\0/a/\0/f");

    let entry = BatchEntry {
        change: Change::Delete,
        path: b"/a/",
        to: None,
    };
    let made = transfer(&REQUEST, &rules, &[entry], Compare::Times, |_| false, false);
    assert_eq!(rules_of(&made), expected);
    assert_eq!(made.list, b"/a/***\0/a/\0/");
}

/// Checks that rules that only exclude are passed unchanged: they do not match names in the
/// list.
#[test]
fn rules_that_exclude_are_given_as_they_are() {
    let rules = Rules::new(["- *.bak".as_bytes(), b"- /x/"]);
    let entry = |change, path| BatchEntry {
        change,
        path,
        to: None,
    };
    let words = |request: &BatchRequest<'_>, entry| {
        rules_of(&transfer(
            request,
            &rules,
            &[entry],
            Compare::Times,
            |_| false,
            false,
        ))
    };
    assert!(words(&REQUEST, entry(Change::Delete, b"/f")).is_empty());
    assert!(words(&REQUEST, entry(Change::Modify, b"/d/")).is_empty());
    let gone = entry(Change::Delete, b"/d/");
    assert_eq!(words(&REQUEST, gone), ["- *.bak", "- /x/"]);
    // The name may be that of an excluded directory by now.
    assert_eq!(words(&REQUEST, entry(Change::Create, b"/x")).len(), 2);
    let all = BatchRequest {
        delete_excluded: true,
        ..REQUEST
    };
    assert_eq!(words(&all, gone), ["H *.bak", "H /x/"]);
}

/// Checks that many rules are read from standard input, as the kernel limits the arguments.
#[test]
fn arguments_do_not_grow_without_bound() {
    let rules = Rules::new(["+ */".as_bytes(), b"- *"]);
    let paths: Vec<String> = (0..1000).map(|n| format!("/d{n:03}")).collect();
    let made = |count: usize| {
        let renewed = paths[..count].iter().map(|path| CollapsedItem {
            renewed: true,
            ..item(path, Some(FileKind::Directory))
        });
        let found = Collapsed {
            present: renewed.collect(),
            missing: Vec::new(),
            exposed: false,
        };
        collapsed(&REQUEST, &rules, &found, Compare::Times)
    };
    let few = made(40);
    assert_eq!((rules_of(&few).len(), few.names_at), (240, 0));
    assert!(few.list.starts_with(b"/d000/***\0/d000/\0/\0/d001/***"));

    let many = made(1000);
    assert!(many.args.len() < 12 && many.args.contains(&b"--filter=. -".to_vec()));
    assert_eq!(rules_of(&many).len(), 6000);
    let names = &many.list[many.names_at..];
    assert!(names.starts_with(b"+ /d000/***\0+ /d000/\0+ /\0+ /d001/***"));
    assert!(
        many.names()
            .starts_with("/d000/***\n/d000/\n/\n/d001/***\n")
    );
}

/// rsync evaluates the patterns of CVS behind all names of the list, which would include them all.
#[test]
fn the_patterns_of_cvs_come_behind_the_names_that_a_rule_includes() {
    let options = [b"-C".to_vec()];
    let request = BatchRequest {
        options: &options,
        ..REQUEST
    };
    let rules = Rules::new(["+ /f.o".as_bytes(), b"- /x/"]);
    let entries = ["/f.o", "/g.o"].map(|path| BatchEntry {
        change: Change::Modify,
        path: path.as_bytes(),
        to: None,
    });
    let made = transfer(&request, &rules, &entries, Compare::Times, |_| false, false);
    assert_eq!(rules_of(&made), ["+ /f.o", ":C", "-C"]);
}
