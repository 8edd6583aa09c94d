//! The filter of one sync: rules in their order, then excludes; and the text that rsync gets.
//!
//! An exclude is parsed like a line of rsync's `--exclude-from`, so `- x` and `+ x` are rules and a
//! text of several lines is several patterns. Three kinds of line mean something else to rsync than
//! a name: `#...` and `;...` are comments, a single `!` clears the list. Here they are names
//! (`#recycle`), and rsync gets them with a sign in front, which makes them names for it too.
//! Patterns that rsync refuses (the empty one) or drops (longer than a path can be) match nothing
//! and are not passed to it.

use super::pattern::{PathEntry, Pattern, literal};
use super::rules::{FilterRule, RuleError, Sign, lines, trim_start};
use crate::paths;

/// The paths that a sync excludes. An empty filter excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Temporary excludes of directories; they come before all rules.
    held: Vec<FilterRule>,
    rules: Vec<FilterRule>,
    excludes: Vec<Exclude>,
}

#[derive(Clone, Debug)]
struct Exclude {
    text: Box<[u8]>,
    rule: FilterRule,
}

/// The reason why a path is included or excluded.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The path itself or the parent directory at which it was decided; no trailing slash.
    pub level: &'a [u8],
    /// The decision.
    pub sign: Sign,
    /// The pattern that matched.
    pub pattern: &'a Pattern,
}

/// A filter in rsync's form: one option for the command line and the text for standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsyncInput {
    /// `--exclude-from=-`, or `--filter=. -` (a single argument) if there are rules.
    pub option: &'static str,
    /// Lines, separated by newlines, without one at the end.
    pub text: Vec<u8>,
}

impl Filter {
    /// Appends an exclude; a text of several lines adds each of them. Returns false if all were
    /// present already.
    pub fn add_exclude(&mut self, text: &[u8]) -> bool {
        let before = self.excludes.len();
        for line in lines(text) {
            if self.excludes().all(|known| known != line) {
                self.excludes.push(Exclude {
                    text: line.into(),
                    rule: FilterRule::exclude(line),
                });
            }
        }
        self.excludes.len() > before
    }

    /// Removes what [`Filter::add_exclude`] added for this text. Returns false if it was not
    /// present.
    pub fn remove_exclude(&mut self, text: &[u8]) -> bool {
        let before = self.excludes.len();
        self.excludes
            .retain(|known| lines(text).all(|line| *known.text != *line));
        self.excludes.len() < before
    }

    /// Appends a filter rule, `+ PATTERN` or `- PATTERN`. In a text of several lines each is a
    /// rule, except blank lines and comments (`#`).
    ///
    /// # Errors
    /// Returns the first invalid line, or the text if it contains no rule; nothing is added then.
    pub fn append_rule(&mut self, text: &[u8]) -> Result<(), RuleError> {
        let rules = lines(text)
            .filter(|line| !matches!(trim_start(line), [] | [b'#', ..]))
            .map(FilterRule::filter)
            .collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() {
            return Err(RuleError::new(text));
        }
        self.rules.extend(rules);
        Ok(())
    }

    /// Returns this filter with additional rules at its end.
    pub(super) fn with_rules_behind(&self, rules: &[FilterRule]) -> Filter {
        let mut filter = self.clone();
        filter.excludes.extend(rules.iter().map(|rule| Exclude {
            text: rule.line().into(),
            rule: rule.clone(),
        }));
        filter
    }

    /// Excludes these directories, and no others from now on, before all rules. Paths as for
    /// [`Filter::excluded`].
    pub fn hold<'a>(&mut self, directories: impl Iterator<Item = &'a [u8]>) {
        let rule = |path| FilterRule {
            sign: Sign::Exclude,
            pattern: Pattern::new(&literal(path)),
        };
        self.held = directories.map(rule).collect();
    }

    /// Returns true if any directory is temporarily excluded.
    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns true if this path, or a directory above it, is temporarily excluded.
    pub fn holds(&self, path: &[u8]) -> bool {
        let matches =
            |entry: PathEntry<'_>| self.held.iter().any(|r| r.pattern.matches_entry(&entry));
        self.holds_any() && levels(path).any(matches)
    }

    /// Returns the rules of the temporary excludes, each as `SIGN PATTERN`.
    pub fn held(&self) -> impl Iterator<Item = Vec<u8>> {
        self.held.iter().map(FilterRule::line)
    }

    /// Returns true if the configuration excludes a path; temporary excludes do not count.
    pub fn configured_out(&self, path: &[u8]) -> bool {
        levels(path).any(|entry| {
            let rule = self.configured().find(|r| r.pattern.matches_entry(&entry));
            rule.is_some_and(|rule| rule.sign == Sign::Exclude)
        })
    }

    /// Returns true if there are rules; excludes do not count.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Returns true if nothing is excluded.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.excludes.is_empty() && self.held.is_empty()
    }

    /// Returns the excludes as written, in the order in which they were first added.
    pub fn excludes(&self) -> impl Iterator<Item = &[u8]> {
        self.excludes.iter().map(|exclude| &*exclude.text)
    }

    /// Returns the rules without the excludes, in order, each as `SIGN PATTERN`.
    pub fn rules(&self) -> impl Iterator<Item = Vec<u8>> {
        self.rules.iter().map(FilterRule::line)
    }

    /// Returns true if a path is excluded, itself or through a directory above it.
    ///
    /// `path` is relative to the source with a leading slash; that of a directory ends with one.
    /// rsync descends from the root and does not enter excluded directories, so a `+` below an
    /// excluded directory has no effect. The root is never excluded.
    pub fn excluded(&self, path: &[u8]) -> bool {
        !self.is_empty()
            && levels(path).any(|entry| {
                self.deciding_at(&entry)
                    .is_some_and(|rule| rule.sign == Sign::Exclude)
            })
    }

    /// Returns true if this entry is excluded; directories above it are not checked. For callers
    /// that descend level by level.
    pub fn excluded_here(&self, path: &[u8]) -> bool {
        !self.is_empty()
            && entry(path)
                .and_then(|entry| self.deciding_at(&entry))
                .is_some_and(|rule| rule.sign == Sign::Exclude)
    }

    /// Returns true if the filter excludes the same paths below both directories. Paths begin and
    /// end with a slash.
    pub fn is_alike_below(&self, one: &[u8], other: &[u8]) -> bool {
        let [one, other] = [one, other].map(paths::bare);
        (self.held.iter())
            .chain(self.configured())
            .all(|rule| rule.pattern.is_alike_below(one, other))
    }

    /// Returns the rule that excludes `path` and the level at which it does; if none excludes it,
    /// the `+` rule that includes the path itself. Paths as for [`Filter::excluded`].
    pub fn deciding<'a>(&'a self, path: &'a [u8]) -> Option<Decision<'a>> {
        let mut kept = None;
        for entry in levels(path) {
            kept = self.deciding_at(&entry).map(|rule| Decision {
                level: entry.path,
                sign: rule.sign,
                pattern: &rule.pattern,
            });
            if kept.is_some_and(|decision| decision.sign == Sign::Exclude) {
                break;
            }
        }
        kept
    }

    /// Returns the rules for the startup transfer, with which rsync excludes the same paths. `None`
    /// if there are no rules.
    pub fn rsync_input(&self) -> Option<RsyncInput> {
        let signed = self.has_rules();
        let held = self.held.iter().map(|rule| {
            if signed {
                (rule, rule.line())
            } else {
                (rule, rule.pattern.text().to_vec())
            }
        });
        let rules = self.rules.iter().map(|rule| (rule, rule.line()));
        let excludes = self.excludes.iter().map(|exclude| {
            let line = if signed || is_special(&exclude.text) {
                exclude.rule.line()
            } else {
                exclude.text.to_vec()
            };
            (&exclude.rule, line)
        });
        let lines: Vec<Vec<u8>> = held
            .chain(rules)
            .chain(excludes)
            .filter_map(|(rule, line)| (!rule.pattern.is_void()).then_some(line))
            .collect();
        (!lines.is_empty()).then(|| RsyncInput {
            option: if signed {
                "--filter=. -"
            } else {
                "--exclude-from=-"
            },
            text: lines.join(&b'\n'),
        })
    }

    fn configured(&self) -> impl Iterator<Item = &FilterRule> {
        let excludes = self.excludes.iter().map(|exclude| &exclude.rule);
        self.rules.iter().chain(excludes)
    }

    /// Returns the first rule that matches this entry: temporary excludes, rules, excludes.
    fn deciding_at(&self, entry: &PathEntry<'_>) -> Option<&FilterRule> {
        (self.held.iter())
            .chain(self.configured())
            .find(|rule| rule.pattern.matches_entry(entry))
    }
}

/// Returns the entry of a path; `None` for the root.
fn entry(path: &[u8]) -> Option<PathEntry<'_>> {
    match path {
        [] | [b'/'] => None,
        [directory @ .., b'/'] => Some(PathEntry::new(directory, true)),
        _ => Some(PathEntry::new(path, false)),
    }
}

/// Returns the directories above a path from the top, then the path itself, without the root.
fn levels(path: &[u8]) -> impl Iterator<Item = PathEntry<'_>> {
    paths::directories(paths::bare(path))
        .skip(1)
        .map(|directory| PathEntry::new(paths::bare(directory), true))
        .chain(entry(path))
}

/// Returns true if rsync does not parse this line of an exclude file as a name.
fn is_special(line: &[u8]) -> bool {
    matches!(line, [b'#' | b';', ..] | [b'!'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(rules: &[&str], excludes: &[&str]) -> Filter {
        let mut filter = Filter::default();
        for rule in rules {
            filter.append_rule(rule.as_bytes()).expect("a rule");
        }
        for exclude in excludes {
            filter.add_exclude(exclude.as_bytes());
        }
        filter
    }

    fn input(rules: &[&str], excludes: &[&str]) -> (&'static str, String) {
        let input = filter(rules, excludes).rsync_input().unwrap_or(RsyncInput {
            option: "",
            text: Vec::new(),
        });
        (input.option, String::from_utf8(input.text).expect("text"))
    }

    #[test]
    fn what_is_held_comes_before_all_rules_and_goes_again() {
        let mut filter = filter(&["+ /in/**"], &["x"]);
        assert!(!filter.excluded(b"/in/f") && !filter.holds(b"/in/f"));
        filter.hold([b"/in/".as_slice(), b"/a*/"].into_iter());
        for path in [b"/in/".as_slice(), b"/in/f", b"/in/d/", b"/a*/f"] {
            assert!(filter.excluded(path) && filter.holds(path));
            assert!(!filter.configured_out(path));
        }
        assert!(!filter.excluded(b"/in") && !filter.excluded(b"/ab/") && !filter.holds(b"/x"));
        assert!(filter.configured_out(b"/d/x/y"));
        let text = filter.rsync_input().expect("rules").text;
        assert_eq!(text, b"- /in/\n- /a\\*/\n+ /in/**\n- x");
        filter.hold(std::iter::empty());
        assert!(!filter.excluded(b"/in/f") && !filter.holds_any());

        let mut plain = Filter::default();
        plain.hold([b"/in/".as_slice()].into_iter());
        let input = plain.rsync_input().expect("excludes");
        assert_eq!(
            (input.option, &*input.text),
            ("--exclude-from=-", &b"/in/"[..])
        );
    }

    #[test]
    fn nothing_is_left_out_by_default() {
        let filter = Filter::default();
        assert!(filter.is_empty() && !filter.has_rules() && !filter.excluded(b"/a"));
        assert_eq!(filter.rsync_input(), None);
    }

    #[test]
    fn the_source_itself_is_never_excluded() {
        let mut filter = Filter::default();
        assert!(filter.add_exclude(b"*") && !filter.add_exclude(b"*"));
        assert!(filter.excluded(b"/a") && filter.excluded(b"/a/"));
        assert!(!filter.excluded(b"/") && !filter.excluded_here(b"/"));
    }

    #[test]
    fn excludes_are_a_set_in_order() {
        let mut filter = filter(&[], &["b", "a", "b", "", "c\nd\r\n"]);
        assert!(!filter.add_exclude(b"a") && !filter.add_exclude(b""));
        let texts = |filter: &Filter| filter.excludes().collect::<Vec<_>>().join(&b' ');
        assert_eq!(texts(&filter), b"b a c d");
        assert!(filter.remove_exclude(b"a") && !filter.remove_exclude(b"a"));
        assert!(filter.remove_exclude(b"c\nd") && !filter.excluded(b"/c"));
        assert_eq!(texts(&filter), b"b");
        assert!(!filter.has_rules() && !filter.is_empty());
    }

    #[test]
    fn an_excluded_directory_covers_what_is_below() {
        let filter = filter(&["+ a/keep"], &["d/", "/a"]);
        assert!(filter.excluded(b"/d/") && filter.excluded(b"/x/d/y") && !filter.excluded(b"/d"));
        assert!(filter.excluded(b"/a/keep") && !filter.excluded_here(b"/a/keep"));
        assert!(!filter.excluded(b"/") && !filter.excluded(b""));
    }

    #[test]
    fn directories_are_alike_if_no_pattern_tells_them_apart() {
        let anywhere = filter(&["+ */", "+ **/x"], &["*.o", "tmp/"]);
        assert!(anywhere.is_alike_below(b"/a/", b"/b/c/"));
        for pattern in ["/a/x", "a/*.o", "/a/***", "/*/x", "a/**/x", "/a/"] {
            let told = filter(&[], &[pattern]);
            let alike = [(b"/a/", b"/c/d/".as_slice()), (b"/a/", b"/c/")];
            let alike = alike.map(|(one, other)| told.is_alike_below(one, other));
            let expected = match pattern {
                "/*/x" => [false, true],
                "/a/" => [true, true],
                _ => [false, false],
            };
            assert_eq!(alike, expected, "{pattern}");
        }
    }

    #[test]
    fn rules_come_before_excludes_and_the_first_decides() {
        let filter = filter(&["+ keep.bak", "- /no", "+ no"], &["*.bak"]);
        assert!(!filter.excluded(b"/keep.bak") && filter.excluded(b"/lose.bak"));
        assert!(filter.excluded(b"/no") && !filter.excluded(b"/x/no"));
        let rules: Vec<_> = filter.rules().collect();
        assert_eq!(rules.join(&b'|'), b"+ keep.bak|- /no|+ no");
    }

    #[test]
    fn the_rule_that_decided_is_named() {
        let filter = filter(&["+ *.c"], &["/d/e/"]);
        let told = |path: &'static [u8]| {
            filter.deciding(path).map(|decision| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (
                    text(decision.level),
                    decision.sign,
                    text(decision.pattern.text()),
                )
            })
        };
        let exclude = ("/d/e".into(), Sign::Exclude, "/d/e/".into());
        assert_eq!(told(b"/d/e/x.c"), Some(exclude.clone()));
        assert_eq!(told(b"/d/e/"), Some(exclude));
        assert_eq!(
            told(b"/d/x.c"),
            Some(("/d/x.c".into(), Sign::Include, "*.c".into()))
        );
        assert_eq!(told(b"/x.c/y"), None);
        assert_eq!(told(b"/"), None);
    }

    #[test]
    fn rsync_gets_the_same_rules() {
        assert_eq!(
            input(&[], &["ex", "*.o"]),
            ("--exclude-from=-", "ex\n*.o".into())
        );
        assert_eq!(
            input(&["+ keep.bak", "-/no"], &["*.bak", "- x", "+ y", " z"]),
            (
                "--filter=. -",
                "+ keep.bak\n- /no\n- *.bak\n- x\n+ y\n-  z".into()
            )
        );
    }

    #[test]
    fn names_that_rsync_would_take_for_something_else() {
        assert_eq!(
            input(&[], &["#recycle", ";x", "!", "!x", "- #a", "+ b", "-c"]).1,
            "- #recycle\n- ;x\n- !\n!x\n- #a\n+ b\n-c"
        );
        let filter = filter(&[], &["#recycle", "!"]);
        assert!(filter.excluded(b"/x/#recycle/y") && filter.excluded(b"/!"));
    }

    #[test]
    fn patterns_that_rsync_refuses_are_kept_from_it() {
        let long = "a".repeat(4096);
        assert_eq!(
            input(&["- ", "+"], &["- ", "a\0b", &long]),
            ("", String::new())
        );
        assert_eq!(input(&["- "], &["x"]), ("--filter=. -", "- x".into()));
    }

    #[test]
    fn a_rule_of_several_lines() {
        let mut filter = filter(&["+ a\n\n # c\r\n- b\n"], &[]);
        assert_eq!(filter.rules().collect::<Vec<_>>().join(&b'|'), b"+ a|- b");
        for wrong in ["", "# c", "\n", "+ x\nc"] {
            assert!(filter.append_rule(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert_eq!(filter.rules().count(), 2);
    }

    #[test]
    fn a_filter_may_go_to_other_threads() {
        fn shared<T: Send + Sync + Clone + Default>() {}
        shared::<Filter>();
    }
}
