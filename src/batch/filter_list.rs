//! The classic call, as lsyncd makes it: recurse, include the listed names and their
//! parents, exclude everything else.
//!
//! Every name is a pattern here. rsync takes a backslash for an escape only in patterns
//! that hold a wildcard (`*`, `?`, `[`), so names without one must be left as they are,
//! and in the others the backslash itself needs escaping as well. The `/***` behind a
//! deleted directory is a wildcard too.

use hashbrown::HashSet;

use super::collapse::{Collapsed, Item, path_order};
use super::{Change, Entry, Kind, Request, Transfer};

/// How many directories may have rules of their own among the arguments, of which the
/// kernel takes only so many.
const MAX_RULES: usize = 256;

/// The call for these events as they are, in their order.
pub fn transfer(request: &Request<'_>, entries: &[Entry<'_>], ignore_times: bool) -> Transfer {
    let mut list = List::default();
    for entry in entries {
        let removed = matches!(entry.change, Change::Delete | Change::Move);
        list.add(entry.path, removed && entry.path.ends_with(b"/"));
        if let Some(to) = entry.to {
            list.add(to, false);
        }
    }
    Call {
        list,
        ignore_times,
        ..Call::default()
    }
    .into_transfer(request)
}

/// The call for what the disk says the events have led to. It has fewer rules, which
/// rsync walks for each file it sees, and sends nothing that the sync excludes.
pub fn collapsed(request: &Request<'_>, found: &Collapsed<'_>, ignore_times: bool) -> Transfer {
    let mut names: Vec<(&Item<'_>, Vec<u8>)> = found
        .present
        .iter()
        .chain(&found.missing)
        .map(|item| (item, with_slash(item.path)))
        .collect();
    names.sort_by(|(a, _), (b, _)| path_order(a.path, b.path));

    // Directories that are not those of the last transfer: the target may hold what no
    // event mentions. Only the topmost count.
    let mut renewed: Vec<&[u8]> = Vec::new();
    for (item, path) in &names {
        let below = renewed.last().is_some_and(|top| path.starts_with(top));
        if request.delete && item.renewed && !below && path != b"/" {
            renewed.push(path);
        }
    }
    let hidden = hidden(request.filters);
    let recurse = renewed.len() > MAX_RULES || hidden.is_some();

    let mut list = List::default();
    let mut tops = renewed.iter().peekable();
    let mut top: &[u8] = b"\0";
    for (item, path) in &names {
        if recurse && path.len() > top.len() && path.starts_with(top) {
            continue;
        }
        if let Some(next) = tops.next_if(|next| path == *next) {
            top = next;
        }
        if item.is_directory() {
            list.add(path, renewed.len() > MAX_RULES && path == top);
            continue;
        }
        list.add(item.path, false);
        if item.was_directory {
            list.add(path, true);
        }
    }

    let mut call = Call {
        list,
        ignore_times,
        removes: !renewed.is_empty(),
        ..Call::default()
    };
    if renewed.len() <= MAX_RULES {
        match hidden {
            Some(rules) if !renewed.is_empty() => {
                call.after = rules;
                call.after
                    .extend(renewed.iter().map(|d| rule(b"+", &entire(d))));
            }
            Some(_) => {}
            None => call
                .before
                .extend(renewed.iter().map(|d| rule(b"R", &entire(d)))),
        }
    }
    call.into_transfer(request)
}

/// Rules for the receiver only, by which it keeps what the sync excludes.
pub fn protection(request: &Request<'_>) -> Vec<Vec<u8>> {
    if request.delete_excluded {
        return Vec::new();
    }
    lines(request.filters)
        .map(|(sign, pattern)| rule(if sign == b'-' { b"P" } else { b"R" }, pattern))
        .collect()
}

/// Rules for the sender only, by which it does not send what the sync excludes. `None` if
/// there are some that include: these would bring in names that no event mentions.
fn hidden(filters: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    lines(filters)
        .map(|(sign, pattern)| (sign == b'-').then(|| rule(b"H", pattern)))
        .collect()
}

/// Sign and pattern of each line.
fn lines(filters: &[Vec<u8>]) -> impl Iterator<Item = (u8, &[u8])> {
    filters.iter().filter_map(|line| match line.as_slice() {
        [sign @ (b'-' | b'+'), b' ', pattern @ ..] if !pattern.trim_ascii().is_empty() => {
            Some((*sign, pattern))
        }
        _ => None,
    })
}

fn rule(kind: &[u8], pattern: &[u8]) -> Vec<u8> {
    [b"--filter=", kind, b" ", pattern].concat()
}

fn with_slash(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

/// The pattern for a directory and all that is below it.
fn entire(directory: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(directory.len() + 3);
    push_pattern(&mut pattern, directory, true);
    pattern
}

/// The pattern that matches `path` and nothing else, or also what is below it.
fn push_pattern(bytes: &mut Vec<u8>, path: &[u8], entire: bool) {
    let wild = entire || path.iter().any(|byte| b"*?[".contains(byte));
    for &byte in path {
        // The closing bracket needs it not, but lsyncd's lists have it.
        if wild && b"\\*?[]".contains(&byte) {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    if entire {
        bytes.extend_from_slice(b"***");
    }
}

/// The names, each once, as patterns.
#[derive(Default)]
struct List<'a> {
    /// Names, and whether they stand for all that is below them.
    seen: HashSet<(&'a [u8], bool)>,
    bytes: Vec<u8>,
    /// Some directory is to go with all its contents.
    removes: bool,
}

impl<'a> List<'a> {
    /// Adds a name and its parents, deepest first.
    fn add(&mut self, path: &'a [u8], entire: bool) {
        let entire = entire && path != b"/";
        self.removes |= entire;
        // Whatever was listed has its parents listed.
        if entire && !self.push(path, true) {
            return;
        }
        let mut next = Some(path);
        while let Some(path) = next.filter(|path| self.push(path, false)) {
            next = parent(path);
        }
    }

    fn push(&mut self, path: &'a [u8], entire: bool) -> bool {
        if !self.seen.insert((path, entire)) {
            return false;
        }
        if self.seen.len() > 1 {
            self.bytes.push(0);
        }
        push_pattern(&mut self.bytes, path, entire);
        true
    }
}

#[derive(Default)]
struct Call<'a> {
    list: List<'a>,
    ignore_times: bool,
    /// Directories lose contents that are not listed.
    removes: bool,
    /// Rules that come before the list.
    before: Vec<Vec<u8>>,
    /// Rules that come behind it.
    after: Vec<Vec<u8>>,
}

impl Call<'_> {
    fn into_transfer(self, request: &Request<'_>) -> Transfer {
        let mut args = request.words.to_vec();
        let mut add =
            |words: &[&str]| args.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        if self.ignore_times {
            add(&["--ignore-times"]);
        }
        add(&["-r"]);
        if request.delete {
            add(&["--delete", "--ignore-errors"]);
            if self.removes || self.list.removes {
                args.extend(protection(request));
            }
        }
        args.extend(self.before);
        args.extend(["--force", "--from0", "--include-from=-"].map(|word| word.into()));
        args.extend(self.after);
        args.push(b"--exclude=*".to_vec());
        args.push(request.source.to_vec());
        args.push(request.target.to_vec());
        Transfer {
            args,
            list: self.list.bytes,
            kind: Kind::Classic,
        }
    }
}

/// `/d/f` and `/d/e/` → `/d/` → `/`
fn parent(path: &[u8]) -> Option<&[u8]> {
    let inner = path.len().checked_sub(1)?;
    let end = path[..inner].iter().rposition(|&byte| byte == b'/')?;
    Some(&path[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ListMode;
    use crate::batch::collapse::{Node, Stat};

    const REQUEST: Request<'_> = Request {
        source: b"/s/",
        target: b"h:/t/",
        words: &[],
        binary: b"rsync",
        delete: true,
        filters: &[],
        delete_excluded: false,
        last_transfer: None,
        list: ListMode::Filter,
    };

    fn names(entries: &[(Change, &str)]) -> String {
        let entries: Vec<Entry<'_>> = entries
            .iter()
            .map(|(change, path)| Entry {
                change: *change,
                path: path.as_bytes(),
                to: None,
            })
            .collect();
        let list = transfer(&REQUEST, &entries, false).list;
        String::from_utf8(list).unwrap().replace('\0', " ")
    }

    /// As recorded from lsyncd 2.3.1.
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

    /// lsyncd loses these: `\` is no escape in a pattern without wildcard.
    #[test]
    fn only_patterns_with_wildcards_are_escaped() {
        assert_eq!(names(&[(Change::Modify, "/y]")]), "/y] /");
        assert_eq!(names(&[(Change::Modify, r"/a\b")]), r"/a\b /");
        assert_eq!(names(&[(Change::Modify, r"/a\*")]), r"/a\\\* /");
        assert_eq!(names(&[(Change::Delete, r"/a\b/")]), r"/a\\b/*** /a\b/ /");
    }

    #[test]
    fn both_ends_of_a_move_are_listed() {
        let entry = Entry {
            change: Change::Move,
            path: b"/f",
            to: Some(b"/d/g"),
        };
        let transfer = transfer(&REQUEST, &[entry], false);
        assert_eq!(transfer.list, b"/f\0/\0/d/g\0/d/");
    }

    #[test]
    fn arguments_are_those_of_lsyncd() {
        let words = [b"-lts".to_vec(), b"--bwlimit=1".to_vec()];
        let arguments = |delete| {
            let request = Request {
                words: &words,
                delete,
                ..REQUEST
            };
            let args = transfer(&request, &[], false).args.join(b" ".as_slice());
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

    /// The kernel limits what may stand among the arguments, so many directories have
    /// their rules in the list.
    #[test]
    fn arguments_do_not_grow_without_bound() {
        let paths: Vec<String> = (0..1000).map(|n| format!("/d{n:03}")).collect();
        let item = |path| Item {
            path,
            stat: Some(Stat {
                node: Node::Directory,
                mtime: 0,
                exposed: false,
            }),
            was_directory: false,
            written: false,
            renewed: true,
        };
        let mut found = Collapsed::default();
        for path in &paths[..MAX_RULES] {
            found.present.push(item(path.as_bytes()));
        }
        let few = collapsed(&REQUEST, &found, false);
        assert!(few.args.contains(&b"--filter=+ /d000/***".to_vec()));

        for path in &paths[MAX_RULES..] {
            found.present.push(item(path.as_bytes()));
        }
        let many = collapsed(&REQUEST, &found, false);
        assert!(many.args.len() < 20);
        assert!(many.list.starts_with(b"/d000/***\0/d000/\0/\0/d001/***"));
    }
}
