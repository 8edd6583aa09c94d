//! The rules of a sync for one path and everything below it, as rsync rules that do not match other
//! paths.
//!
//! An including rule (`+ */`) applies to the whole tree. rsync's rules have no conjunction, so
//! "below `/d`, and matched by this pattern" is written as patterns that begin with `/d/`.

use super::pattern::{PathEntry, Pattern, exact};
use super::rules::{FilterRule, Sign};
use crate::paths;

/// Rules in order; the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<FilterRule>);

impl Rules {
    /// Parses rules written as `- PATTERN` or `+ PATTERN`. Other lines and patterns that can match
    /// nothing are skipped.
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Rules {
        let rules = lines.into_iter().filter_map(|line| {
            let (sign, pattern) = match line {
                [b'-', b' ', pattern @ ..] => (Sign::Exclude, pattern),
                [b'+', b' ', pattern @ ..] => (Sign::Include, pattern),
                _ => return None,
            };
            let pattern = Pattern::new(pattern);
            (!pattern.is_void()).then_some(FilterRule { sign, pattern })
        });
        Rules(rules.collect())
    }

    /// Returns true if there is not a rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if the first rule that matches a path includes it. A directory ends with `/`.
    pub fn includes(&self, path: &[u8]) -> bool {
        let entry = PathEntry::new(paths::bare(path), path.ends_with(b"/"));
        let mut rules = self.0.iter();
        let rule = rules.find(|rule| rule.pattern.matches_entry(&entry));
        rule.is_some_and(|rule| rule.sign == Sign::Include)
    }

    /// Returns true if a rule includes paths that later ones may exclude.
    pub fn include(&self) -> bool {
        self.0.iter().any(|rule| rule.sign == Sign::Include)
    }

    /// Returns all rules as written.
    pub fn all(&self) -> impl Iterator<Item = (Sign, &[u8])> {
        self.0.iter().map(|rule| (rule.sign, rule.pattern.text()))
    }

    /// Returns true if this very path is excluded, as a directory or as anything else; its parents
    /// are not checked. `path` begins with a slash and ends without one.
    pub fn exclude(&self, path: &[u8], directory: bool) -> bool {
        let entry = PathEntry::new(path, directory);
        let mut rules = self.0.iter();
        let rule = rules.find(|rule| rule.pattern.matches_entry(&entry));
        rule.is_some_and(|rule| rule.sign == Sign::Exclude)
    }

    /// Returns the rules for everything below a directory, as anchored patterns that match nothing
    /// else. `directory` begins with a slash and ends without one.
    pub fn below(&self, directory: &[u8]) -> impl Iterator<Item = (Sign, Vec<u8>)> {
        self.0.iter().flat_map(move |rule| {
            let patterns = rule.pattern.below(directory).into_iter();
            patterns.map(|pattern| (rule.sign, pattern))
        })
    }

    /// Returns the rules for a path of any kind and for everything below it.
    pub fn within(&self, path: &[u8]) -> Vec<(Sign, Vec<u8>)> {
        let mut own = Vec::new();
        for rule in &self.0 {
            let matches = |directory| rule.pattern.matches(path, directory);
            if matches(false) {
                own.push((rule.sign, exact(path)));
            } else if matches(true) {
                own.push((rule.sign, [&exact(path), b"/".as_slice()].concat()));
            }
        }
        own.into_iter().chain(self.below(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn below(pattern: &str, directory: &str) -> Vec<String> {
        let patterns = Pattern::new(pattern.as_bytes()).below(directory.as_bytes());
        let text = |pattern: Vec<u8>| String::from_utf8(pattern).expect("text");
        patterns.into_iter().map(text).collect()
    }

    #[test]
    fn patterns_below_a_directory() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("*.jpg", "/a", &["/a/*.jpg", "/a/**/*.jpg"]),
            ("*/", "/a/b", &["/a/b/*/", "/a/b/**/*/"]),
            ("x", "/a", &["/a/x", "/a/**/x"]),
            ("/a/x/", "/a", &["/a/x/"]),
            ("/b/x", "/a", &[]),
            ("/a", "/a", &[]),
            ("/*/x", "/a", &["/a/x"]),
            ("/***", "/a", &["/a/**"]),
            ("a/***", "/a", &["/a/**", "/a/a/***", "/a/**/a/***"]),
            ("b/c", "/a/b", &["/a/b/b/c", "/a/b/c", "/a/b/**/b/c"]),
            ("**/x", "/a", &["/a/**/x", "/a/x"]),
            ("b\\x", "/a", &["/a/b\\x", "/a/**/b\\\\x"]),
            ("/*/b\\x", "/a", &["/a/bx"]),
            ("x", "/a[b\\c", &["/a\\[b\\\\c/x", "/a\\[b\\\\c/**/x"]),
            ("", "/a", &[]),
            ("[", "/a", &[]),
        ];
        for (pattern, directory, expected) in cases {
            assert_eq!(
                below(pattern, directory),
                *expected,
                "{pattern} {directory}"
            );
        }
    }

    #[test]
    fn a_path_is_decided_by_its_kind() {
        let rules = Rules::new(["+ */".as_bytes(), b"+ *.jpg", b"- *", b"no rule", b"- "]);
        assert!(rules.include() && rules.all().count() == 3);
        assert!(rules.exclude(b"/d/a", false) && !rules.exclude(b"/d/a", true));
        assert!(!rules.exclude(b"/d/a.jpg", false));
        let own: Vec<_> = rules.within(b"/a.jpg").into_iter().take(3).collect();
        let pattern = |text: &str| text.as_bytes().to_vec();
        let expected = [
            (Sign::Include, pattern("/a.jpg/")),
            (Sign::Include, pattern("/a.jpg")),
            (Sign::Exclude, pattern("/a.jpg")),
        ];
        assert_eq!(own, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1024,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Checks that the rules of a directory decide below it as in the whole tree, and match
        /// nothing elsewhere.
        #[test]
        fn rules_for_a_subtree_decide_alike(
            patterns in prop::collection::vec(
                "/?([ab/?*]|\\*\\*|\\*\\*\\*|\\[!?ab?\\]|\\[\\[:alpha:\\]\\]|\\\\[a*\\\\]|a/|/b){1,6}/?",
                1..4,
            ),
            signs in prop::collection::vec(any::<bool>(), 4),
            directory in "(/([ab]{1,2}|\\*|a\\\\b|\\[b)){1,3}",
            path in "(/([ab]{1,2}|\\*|a\\\\)){1,3}",
            is_directory: bool,
        ) {
            let lines: Vec<String> = patterns.iter().zip(signs)
                .map(|(pattern, sign)| format!("{} {pattern}", if sign { '+' } else { '-' }))
                .collect();
            let rules = Rules::new(lines.iter().map(String::as_bytes));
            let here = rules.below(directory.as_bytes()).collect::<Vec<_>>();
            let decide = |rules: &[(Sign, Vec<u8>)], path: &str| {
                let found = rules.iter().find(|(_, pattern)| {
                    Pattern::new(pattern).matches(path.as_bytes(), is_directory)
                });
                found.map(|(sign, _)| *sign)
            };
            let whole: Vec<_> = rules.all().map(|(sign, text)| (sign, text.to_vec())).collect();
            let inside = format!("{directory}{path}");
            prop_assert_eq!(decide(&here, &inside), decide(&whole, &inside), "{:?}", here);
            if !format!("{path}/").starts_with(&format!("{directory}/")) {
                prop_assert_eq!(decide(&here, &path), None, "{:?}", here);
            }
            prop_assert_eq!(decide(&here, &directory), None, "{:?}", here);
            let own = rules.within(directory.as_bytes());
            prop_assert_eq!(decide(&own, &directory), decide(&whole, &directory), "{:?}", own);
        }
    }
}
