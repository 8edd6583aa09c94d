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
#[path = "filter_list_tests.rs"]
mod tests;
