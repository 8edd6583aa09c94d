//! One pattern of rsync: the part of a path and the kind of entry it matches.

use super::glob::{self, Glob};

/// The maximum length of a pattern in rsync, `MAXPATHLEN`; longer ones are discarded.
const MAX_PATTERN: usize = 4095;

/// A parsed rsync pattern.
///
/// The rules are those of rsync(1), "PATTERN MATCHING RULES". One deviation: the empty
/// pattern, which rsync refuses as an error of the whole transfer, matches nothing.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<[u8]>,
    directories_only: bool,
    scope: ComparedPart,
    body: Body,
}

/// Returns true if a text contains a wildcard. Only in a pattern that does, a backslash is an
/// escape (rsync(1)).
fn is_wild(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

/// Returns the pattern that matches only this path, anchored at the top of the transfer, for lists
/// in which rules do not end at a line feed.
pub(super) fn exact(path: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(path.len() + 4);
    push_exact(&mut pattern, path);
    pattern
}

/// Appends the pattern that matches only this path, anchored at the top of the transfer.
pub fn push_exact(pattern: &mut Vec<u8>, path: &[u8]) {
    push_literal(pattern, path, is_wild(path));
}

/// Returns the pattern as by [`exact`] for lists in which rules end at a line feed. `?` stands for
/// a line feed in the path.
pub fn literal(path: &[u8]) -> Vec<u8> {
    if !path.contains(&b'\n') {
        return exact(path);
    }
    let mut pattern = Vec::with_capacity(path.len() + 4);
    push_literal(&mut pattern, path, true);
    let line_feeds = pattern.iter_mut().filter(|byte| **byte == b'\n');
    line_feeds.for_each(|byte| *byte = b'?');
    pattern
}

/// Appends the pattern of a directory, which ends with a slash, and everything below it.
pub fn push_entire(pattern: &mut Vec<u8>, directory: &[u8]) {
    push_literal(pattern, directory, true);
    pattern.extend(b"***");
}

/// Appends literal text. With `escape`, wildcards and backslashes are escaped; so is the closing
/// bracket, which rsync does not require but lsyncd's lists have.
fn push_literal(pattern: &mut Vec<u8>, text: &[u8], escape: bool) {
    for &byte in text {
        match byte {
            b'*' | b'?' | b'[' | b']' | b'\\' if escape => pattern.extend([b'\\', byte]),
            _ => pattern.push(byte),
        }
    }
}

/// Returns the text without the backslashes that escape a byte.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        plain.extend(
            match byte {
                b'\\' => bytes.next(),
                _ => Some(&byte),
            }
            .copied(),
        );
    }
    plain
}

/// The part of a path that is compared.
#[derive(Clone, Copy, Debug)]
enum ComparedPart {
    /// The last component: no slash and no `**` in the pattern.
    Name,
    /// The path from the root of the transfer: a leading slash.
    Root,
    /// This number of components at the end: a slash inside the pattern, no `**`.
    Tail(usize),
    /// The path from its beginning or from any component: `**` somewhere except at the start.
    Anywhere,
    /// The path with its leading slash, so that `**/a` also finds `/a`: `**` at the start.
    Slashed,
}

/// The text to compare with.
#[derive(Clone, Debug)]
enum Body {
    Never,
    Literal(Box<[u8]>),
    /// `text*`, in a single component.
    Starts(Box<[u8]>),
    /// `*text`, in a single component.
    Ends(Box<[u8]>),
    Glob {
        glob: Glob,
        /// A trailing `***`: a directory is compared with a slash behind it.
        opens: bool,
    },
}

/// A path, split once, for comparison with many patterns.
#[derive(Clone, Copy)]
pub(super) struct PathEntry<'a> {
    /// The path, with a leading and without a trailing slash.
    pub(super) path: &'a [u8],
    name: &'a [u8],
    directory: bool,
}

impl<'a> PathEntry<'a> {
    /// Splits a path with a leading and without a trailing slash.
    pub(super) fn new(path: &'a [u8], directory: bool) -> PathEntry<'a> {
        let start = path.iter().rposition(|&byte| byte == b'/');
        PathEntry {
            path,
            name: &path[start.map_or(0, |slash| slash + 1)..],
            directory,
        }
    }
}

impl Pattern {
    /// Parses a pattern. No pattern is an error; some match nothing.
    pub fn new(text: &[u8]) -> Pattern {
        let (rest, directories_only) = match text {
            [rest @ .., b'/'] if !rest.is_empty() => (rest, true),
            _ => (text, false),
        };
        let slashes = rest.iter().filter(|&&byte| byte == b'/').count();
        let deep = rest.windows(2).any(|two| two == b"**");
        let (scope, rest) = match rest {
            [b'/', anchored @ ..] => (ComparedPart::Root, anchored),
            [b'*', b'*', ..] => (ComparedPart::Slashed, rest),
            _ if deep => (ComparedPart::Anywhere, rest),
            _ if slashes > 0 => (ComparedPart::Tail(slashes + 1), rest),
            _ => (ComparedPart::Name, rest),
        };
        let body = if text.len() > MAX_PATTERN || text.contains(&0) {
            Body::Never
        } else {
            Body::new(rest, matches!(scope, ComparedPart::Name))
        };
        Pattern {
            text: text.into(),
            directories_only,
            scope,
            body,
        }
    }

    /// Returns the pattern as written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns true if this very entry matches; its parents are not checked.
    ///
    /// `path` is relative to the source, with a leading and without a trailing slash; `dir` is true
    /// for a directory. The root itself (`/`) never matches.
    pub fn matches(&self, path: &[u8], dir: bool) -> bool {
        self.matches_entry(&PathEntry::new(path, dir))
    }

    pub(super) fn matches_entry(&self, entry: &PathEntry<'_>) -> bool {
        if self.directories_only && !entry.directory {
            return false;
        }
        let whole = match entry.path {
            [b'/', rest @ ..] => rest,
            path => path,
        };
        if whole.is_empty() {
            return false;
        }
        let compare = |text| self.body.matches(text, entry.directory);
        match self.scope {
            ComparedPart::Name => compare(entry.name),
            ComparedPart::Root => compare(whole),
            ComparedPart::Slashed => compare(entry.path),
            ComparedPart::Tail(components) => last(whole, components).is_some_and(compare),
            ComparedPart::Anywhere => {
                let behind_slash = |(at, &byte): (usize, &u8)| (byte == b'/').then_some(at + 1);
                compare(whole)
                    || (whole.iter().enumerate())
                        .filter_map(behind_slash)
                        .any(|start| compare(&whole[start..]))
            }
        }
    }

    /// Returns anchored patterns that together match, below `directory`, exactly what this pattern
    /// matches there; none if it matches nothing there. `directory` begins with a slash and ends
    /// without one; it is not matched itself.
    pub fn below(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let prefix = [directory, b"/"].concat();
        let rests = self.rests_below(&prefix);
        let here = rests.iter().map(|rest| self.anchored(&prefix, b"", rest));
        let deeper = (self.floats() && !rests.is_empty())
            .then(|| self.anchored(&prefix, b"**/", self.compared()));
        here.chain(deeper).collect()
    }

    /// Returns true if the pattern matches the same relative paths below both directories.
    pub(super) fn is_alike_below(&self, one: &[u8], other: &[u8]) -> bool {
        let slashed = |directory: &[u8]| [directory, b"/"].concat();
        self.rests_below(&slashed(one)) == self.rests_below(&slashed(other))
    }

    /// Returns the parts of the pattern that have to match a path behind `prefix`, a directory with
    /// a slash at both ends. For a pattern that may begin at any component, the whole pattern is
    /// among them.
    fn rests_below(&self, prefix: &[u8]) -> Vec<&[u8]> {
        if self.is_void() || self.is_broken() {
            return Vec::new();
        }
        let mut rests = match self.scope {
            ComparedPart::Name => Vec::new(),
            ComparedPart::Root => self.rests(&prefix[1..]),
            ComparedPart::Slashed => self.rests(prefix),
            ComparedPart::Tail(_) | ComparedPart::Anywhere => (0..prefix.len() - 1)
                .filter(|&at| prefix[at] == b'/')
                .flat_map(|slash| self.rests(&prefix[slash + 1..]))
                .collect(),
        };
        rests.extend(self.floats().then(|| self.compared()));
        for rest in &mut rests {
            // Three stars would match the directory itself.
            if rest.iter().all(|&byte| byte == b'*') {
                *rest = &rest[..rest.len().min(2)];
            }
        }
        rests.sort_unstable();
        rests.dedup();
        // No path contains two consecutive slashes.
        rests.retain(|rest| !rest.is_empty() && !rest.starts_with(b"/"));
        rests
    }

    /// Returns true if the pattern may begin at any component of a path.
    fn floats(&self) -> bool {
        !matches!(self.scope, ComparedPart::Root | ComparedPart::Slashed)
    }

    /// Returns the text that is compared with a path: without the anchor and the trailing slash of
    /// a directory.
    fn compared(&self) -> &[u8] {
        let text = if self.directories_only {
            &self.text[..self.text.len() - 1]
        } else {
            &self.text
        };
        match self.scope {
            ComparedPart::Root => &text[1..],
            _ => text,
        }
    }

    /// Returns the parts of the pattern that have to match what follows `prefix`.
    fn rests(&self, prefix: &[u8]) -> Vec<&[u8]> {
        let text = self.compared();
        match self.body {
            Body::Literal(_) => text.strip_prefix(prefix).into_iter().collect(),
            _ => (glob::behind(text, prefix).into_iter())
                .map(|at| &text[at..])
                .collect(),
        }
    }

    /// Returns the anchored pattern for `rest` of this one, below a directory and behind
    /// `wildcards`.
    fn anchored(&self, directory: &[u8], wildcards: &[u8], rest: &[u8]) -> Vec<u8> {
        let escape = is_wild(directory) || is_wild(wildcards) || is_wild(rest);
        let mut pattern = Vec::with_capacity(directory.len() + rest.len() + 4);
        push_literal(&mut pattern, directory, escape);
        pattern.extend_from_slice(wildcards);
        if is_wild(rest) {
            pattern.extend_from_slice(rest);
        } else if matches!(self.body, Body::Literal(_)) {
            push_literal(&mut pattern, rest, escape);
        } else {
            push_literal(&mut pattern, &unescaped(rest), escape);
        }
        if self.directories_only {
            pattern.push(b'/');
        }
        pattern
    }

    /// Returns true if no path can match, and rsync would refuse or skip the pattern.
    pub(super) fn is_void(&self) -> bool {
        self.text.is_empty() || self.text.len() > MAX_PATTERN || self.text.contains(&0)
    }

    /// Returns true if the wildcards are malformed, so that no name matches.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.body, Body::Never)
    }
}

impl Body {
    /// Compiles `text`, which is without its anchor and trailing slash.
    fn new(text: &[u8], single: bool) -> Body {
        let wild = |byte: &u8| matches!(byte, b'*' | b'?' | b'[');
        // A backslash has a meaning only in a pattern with a wildcard.
        let plain = |part: &[u8]| !part.iter().any(|byte| wild(byte) || *byte == b'\\');
        if !text.iter().any(wild) {
            return Body::Literal(text.into());
        }
        match text {
            [b'*', end @ ..] if single && plain(end) => return Body::Ends(end.into()),
            [start @ .., b'*'] if single && plain(start) => return Body::Starts(start.into()),
            _ => {}
        }
        match Glob::new(text) {
            Some(glob) => Body::Glob {
                glob,
                opens: text.ends_with(b"***"),
            },
            None => Body::Never,
        }
    }

    fn matches(&self, text: &[u8], directory: bool) -> bool {
        match self {
            Body::Never => false,
            Body::Literal(literal) => text == &**literal,
            Body::Starts(start) => text.starts_with(start),
            Body::Ends(end) => text.ends_with(end),
            Body::Glob { glob, opens } => glob.matches(text, *opens && directory),
        }
    }
}

/// Returns the last `count` components of a path without leading slash; `None` if it has fewer.
fn last(path: &[u8], count: usize) -> Option<&[u8]> {
    let mut slashes = path.iter().enumerate().rev().filter(|(_, b)| **b == b'/');
    match slashes.nth(count - 1) {
        Some((slash, _)) => Some(&path[slash + 1..]),
        None if path.iter().filter(|&&byte| byte == b'/').count() + 1 == count => Some(path),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns true if the pattern matches; paths ending with a slash are directories.
    fn matches(pattern: &str, path: &str) -> bool {
        let entry = path.strip_suffix('/').unwrap_or(path);
        Pattern::new(pattern.as_bytes()).matches(entry.as_bytes(), entry.len() < path.len())
    }

    #[test]
    fn a_name_matches_at_any_depth() {
        assert!(matches("a", "/a") && matches("a", "/b/a/") && !matches("a", "/a/b"));
        assert!(matches("*.o", "/x/y.o") && matches("t*", "/x/tmp") && !matches("t*", "/t/x"));
    }

    #[test]
    fn an_anchor_holds_the_pattern_at_the_root() {
        assert!(matches("/a", "/a") && !matches("/a", "/b/a"));
        assert!(matches("/a/*", "/a/b") && !matches("/a/*", "/b/a/b"));
    }

    #[test]
    fn a_slash_inside_compares_the_tail() {
        assert!(matches("a/b", "/x/a/b") && !matches("a/b", "/xa/b") && !matches("a/b", "/b"));
        assert!(matches("a/*/c", "/z/a/b/c") && !matches("a/*/c", "/a/b/b/c"));
        assert!(matches("a/b", "/a/b") && matches("a/*/c", "/a/b/c") && !matches("a/*/c", "/a/c"));
    }

    /// A pattern that matched the directory would keep it.
    #[test]
    fn patterns_below_a_directory_do_not_match_it_and_keep_backslashes() {
        let below = |pattern: &str, directory: &str| {
            let found = Pattern::new(pattern.as_bytes()).below(directory.as_bytes());
            let texts = found
                .into_iter()
                .map(|text| String::from_utf8(text).unwrap());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(below("/a\\b/c", "/a\\b"), ["/a\\b/c"]);
        for pattern in ["/a**", "a**", "**", "a/**", "/a*/**"] {
            let found = below(pattern, "/a");
            assert!(!found.is_empty(), "{pattern}");
            let is_below = |text: &String| !text.ends_with('/') && !text.contains("//");
            assert!(found.iter().all(is_below), "{pattern}: {found:?}");
        }
    }

    #[test]
    fn a_trailing_slash_means_directories() {
        assert!(matches("a/", "/x/a/") && !matches("a/", "/x/a") && !matches("a/", "/a/b/"));
        assert!(matches("a/b/", "/x/a/b/") && !matches("/a/", "/x/a/"));
    }

    #[test]
    fn two_and_three_stars() {
        assert!(matches("**/a", "/a") && matches("**/a", "/b/c/a") && !matches("/**/a", "/a"));
        assert!(matches("a/***", "/a/") && !matches("a/***", "/a") && matches("a/***", "/x/a/b"));
        assert!(!matches("a/**", "/a/") && matches("a/**", "/x/a/b/c"));
        assert!(matches("**", "/a") && matches("***", "/a/") && matches("/***", "/a"));
    }

    #[test]
    fn a_backslash_escapes_only_beside_wildcards() {
        assert!(matches("a\\b", "/a\\b") && !matches("a\\]b", "/a]b"));
        assert!(matches("a\\b*", "/abc") && !matches("a\\b*", "/a\\bc"));
        assert!(matches("a\\*", "/a*") && !matches("a\\*", "/ab"));
        assert!(matches("\\[a]", "/[a]") && !matches("x*\\", "/x\\"));
    }

    #[test]
    fn what_matches_nothing() {
        for pattern in ["", "/", "//", "a//b", "[a", "a\0"] {
            for path in ["/", "/a", "/a/", "/a/b", "/[a"] {
                assert!(!matches(pattern, path), "{pattern:?} {path}");
            }
        }
        assert!(!matches("*", "/") && !matches("**", "/") && !matches("", ""));
        assert!(Pattern::new(&[b'a'; MAX_PATTERN + 1]).is_void());
        assert!(!Pattern::new(&[b'a'; MAX_PATTERN]).is_void());
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert!(Pattern::new(b"\xff*").matches(b"/\xff\xfe", false));
        assert!(Pattern::new(b"?").matches(b"/\xff", false));
        assert!(Pattern::new(b"[\xf0-\xff]").matches(b"/\xfe", false));
    }

    #[test]
    fn literals_stand_for_one_name() {
        assert_eq!(literal(b"/a\\b"), b"/a\\b");
        assert_eq!(literal(b"/a\\b*[c]"), b"/a\\\\b\\*\\[c\\]");
        assert_eq!(literal(b"/a\nb"), b"/a?b");
    }
}
