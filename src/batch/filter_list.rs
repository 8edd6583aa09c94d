//! The classic call, as lsyncd makes it: recurse, include the listed names and their parents,
//! exclude everything else.
//!
//! Every name is a pattern here. rsync takes a backslash for an escape only in patterns that
//! contain a wildcard (`*`, `?`, `[`), so names without one must be left as they are, and in the
//! others the backslash itself needs escaping as well. The `/***` behind a deleted directory is a
//! wildcard too.

use super::collapse::{Collapsed, CollapsedItem, path_order};
use super::pattern_list::PatternList;
use super::rsync_options;
use super::{BatchEntry, BatchRequest, Change, Compare, Transfer, TransferKind};
use crate::filter::{Rules, Sign, push_exact};
use crate::paths;

/// The maximum number of rules among the arguments, whose size the kernel limits. More are passed
/// on standard input, before the names.
const MAX_WORDS: usize = 256;

/// The maximum bytes of rules among the arguments.
const MAX_WORD_BYTES: usize = 64 * 1024;

/// Returns the call for these events as they are, in their order. `is_file` is called for names
/// that are excluded if they are directories. With `follows_links`, each name may be one that
/// rsync sends as a directory, or that was one on the target: its contents have no events.
pub fn transfer(
    request: &BatchRequest<'_>,
    rules: &Rules,
    entries: &[BatchEntry<'_>],
    compare: Compare,
    is_file: impl Fn(&[u8]) -> bool,
    follows_links: bool,
) -> Transfer {
    // A directory with its contents, or a name that may be that of an excluded directory.
    let judged = |path: &[u8], with_contents: bool| match path {
        [] | [b'/'] => false,
        [.., b'/'] => with_contents,
        _ => rules.exclude(path, true) && !is_file(path),
    };
    let names = entries
        .iter()
        .flat_map(|entry| [Some(entry.path), entry.to])
        .flatten();
    let followed: Vec<(&[u8], Vec<u8>)> = names
        .filter(|name| follows_links && !name.ends_with(b"/"))
        .map(|name| (name, paths::with_slash(name)))
        .collect();
    let prunes = rsync_options::prunes_directories(request.options);
    let mut list = PatternList::default();
    let mut scope = Vec::new();
    for (name, directory) in &followed {
        list.add(directory, true);
        scope.push(*name);
    }
    for entry in entries {
        let removed = matches!(entry.change, Change::Delete | Change::Move);
        let directory = entry.path.ends_with(b"/");
        let with_contents = directory && (removed || prunes && entry.path != b"/");
        list.add(entry.path, with_contents);
        if judged(entry.path, with_contents) {
            scope.push(paths::bare(entry.path));
        }
        if let Some(to) = entry.to {
            list.add(to, false);
            if judged(to, false) {
                scope.push(to);
            }
        }
    }
    scope.sort_unstable_by(|a, b| path_order(a, b));
    call(request, rules, scope, list, compare)
}

/// Returns the call for the state on disk that the events have led to. It has fewer names, which
/// rsync compares with each file it sees.
pub fn collapsed(
    request: &BatchRequest<'_>,
    rules: &Rules,
    found: &Collapsed<'_>,
    compare: Compare,
) -> Transfer {
    let mut names: Vec<(&CollapsedItem<'_>, Vec<u8>)> = found
        .present
        .iter()
        .chain(&found.missing)
        .map(|item| (item, paths::with_slash(item.path)))
        .collect();
    names.sort_by(|(a, _), (b, _)| path_order(a.path, b.path));

    let prunes = rsync_options::prunes_directories(request.options);
    let mut list = PatternList::default();
    let mut scope = Vec::new();
    // The directory whose whole contents are compared.
    let mut top: Option<&[u8]> = None;
    for (item, path) in &names {
        if top.is_some_and(|top| path.starts_with(top)) {
            continue;
        }
        // Source or target may have contents that no event mentions.
        let with_contents = item.renewed || prunes && item.is_directory() && item.path != b"/";
        if with_contents {
            top = Some(path);
        }
        if with_contents || item.was_directory || item.other_kind {
            scope.push(item.path);
        }
        if !item.is_directory() || item.other_kind {
            list.add(item.path, false);
        }
        if item.is_directory() || item.was_directory {
            list.add(path, with_contents || !item.is_directory());
        }
    }
    call(request, rules, scope, list, compare)
}

/// Builds a call. `scope` contains the paths, in [`path_order`], at which the names are not
/// sufficient: everything there and below is sent, deleted and kept by the sync's rules.
fn call(
    request: &BatchRequest<'_>,
    rules: &Rules,
    mut scope: Vec<&[u8]>,
    list: PatternList<'_>,
    compare: Compare,
) -> Transfer {
    let mut top: Option<&[u8]> = None;
    scope.retain(|path| {
        let below = top.is_some_and(|top| is_below(path, top));
        if !below {
            top = Some(path);
        }
        !below
    });
    let scoped = if scope.is_empty() {
        Vec::new()
    } else {
        scoped(request, rules, &scope)
    };
    let rules = if rsync_options::ignores_as_cvs(request.options) {
        with_cvs_rules(&list, rules, scoped)
    } else {
        scoped
    };
    let bytes: usize = rules.iter().map(Vec::len).sum();
    let as_words = rules.len() <= MAX_WORDS && bytes <= MAX_WORD_BYTES;

    let mut args = request.options.to_vec();
    let mut add = |word: &str| args.push(word.into());
    compare.option().map(&mut add);
    add("-r");
    if request.delete {
        add("--delete");
        add("--ignore-errors");
    }
    let (list, names_at) = if as_words {
        args.extend(rules.iter().map(|rule| [b"--filter=", &rule[..]].concat()));
        args.extend(["--force", "--from0", "--include-from=-"].map(|word| word.into()));
        (list.bytes, 0)
    } else {
        args.extend(["--force", "--from0", "--filter=. -"].map(|word| word.into()));
        list.behind(&rules)
    };
    args.push(b"--exclude=*".to_vec());
    args.push(request.source.to_vec());
    args.push(request.target.to_vec());
    Transfer {
        args,
        list,
        names_at,
        kind: TransferKind::Classic,
        too_long: Vec::new(),
    }
}

/// Adds the patterns of CVS behind the sync's rules, as rsync does. It evaluates those of `-C` after
/// the names, which would include all of them. Names that a rule includes precede the patterns.
fn with_cvs_rules(list: &PatternList<'_>, rules: &Rules, scoped: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let included = list.names().filter(|name| rules.includes(name));
    let include = |name: &[u8]| {
        let mut rule = b"+ ".to_vec();
        push_exact(&mut rule, name);
        rule
    };
    let mut all: Vec<_> = included.map(include).collect();
    all.sort_unstable();
    all.dedup();
    all.extend(scoped);
    all.extend([b":C".to_vec(), b"-C".to_vec()]);
    all
}

/// Returns the sync's rules for these paths and everything below them. Rules that only exclude may
/// be passed unchanged: other paths they match are in no list.
fn scoped(request: &BatchRequest<'_>, rules: &Rules, scope: &[&[u8]]) -> Vec<Vec<u8>> {
    if !rules.include() {
        let all = rules.all();
        return all.map(|(sign, text)| rule(request, sign, text)).collect();
    }
    let mut scoped = Vec::new();
    for path in scope {
        let within = rules.within(path).into_iter();
        scoped.extend(within.map(|(sign, pattern)| rule(request, sign, &pattern)));
    }
    scoped
}

/// Returns one rule as an argument. With `delete_excluded`, what is excluded is not sent, and
/// deleted.
fn rule(request: &BatchRequest<'_>, sign: Sign, pattern: &[u8]) -> Vec<u8> {
    let kind: &[u8] = match (sign, request.delete_excluded) {
        (Sign::Exclude, false) => b"- ",
        (Sign::Exclude, true) => b"H ",
        (Sign::Include, false) => b"+ ",
        (Sign::Include, true) => b"S ",
    };
    [kind, pattern].concat()
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| directory.ends_with(b"/") || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
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
}
