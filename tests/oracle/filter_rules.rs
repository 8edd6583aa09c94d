//! The filter compared with rsync: the same patterns must select the same paths of a tree,
//! otherwise events and startup transfers would differ.
//!
//! `FILTER_CASES` sets the number of random cases. Without an rsync nothing is compared.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use lsyncd::filter::{Filter, parse_exclude_file};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Paths as in `filter`: with a leading slash, and a trailing slash for directories.
type Tree = BTreeSet<String>;

/// Creates files, and directories for paths that end with a slash.
fn build(root: &Path, paths: &[&str]) {
    for path in paths {
        let place = root.join(path.trim_start_matches('/'));
        if path.ends_with('/') {
            fs::create_dir_all(place).expect("directory");
        } else {
            fs::create_dir_all(place.parent().expect("parent")).expect("directory");
            fs::write(place, "").expect("file");
        }
    }
}

/// Reads a tree from disk.
fn walk(root: &Path, above: &str, tree: &mut Tree) {
    for entry in fs::read_dir(root).expect("directory") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("names are text");
        let path = format!("{above}/{name}");
        if entry.file_type().expect("type").is_dir() {
            walk(&entry.path(), &path, tree);
            tree.insert(path + "/");
        } else {
            tree.insert(path);
        }
    }
}

fn has_rsync() -> bool {
    Command::new("rsync")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok()
}

/// Returns the paths of a tree that rsync sends with [`Filter::rsync_input`].
fn sent_by_rsync(root: &Path, filter: &Filter) -> Tree {
    let mut command = Command::new("rsync");
    let input = filter.rsync_input();
    command.args(input.iter().map(|input| input.option));
    let mut child = command
        .args(["-n", "-r", "-8", "--out-format=%n"])
        .arg(root.join("."))
        .arg(root.join("../nowhere"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("rsync starts");
    let text = input.map(|input| input.text).unwrap_or_default();
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&text)
        .expect("rsync reads");
    let output = child.wait_with_output().expect("rsync ends");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
    String::from_utf8(output.stdout)
        .expect("names are text")
        .split_terminator('\n')
        .filter(|line| *line != "./")
        .map(|line| format!("/{}", unescaped(line)))
        .collect()
}

/// Decodes the escapes `\#ooo` of rsync.
fn unescaped(name: &str) -> String {
    let mut parts = name.split("\\#");
    let mut plain = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.get(..3).map(|digits| u8::from_str_radix(digits, 8)) {
            Some(Ok(byte)) => {
                plain.push(byte.into());
                plain.push_str(&part[3..]);
            }
            _ => plain.extend(["\\#", part]),
        }
    }
    plain
}

/// The character classes of rsync.
const CLASSES: &[&str] = &[
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "xdigit",
];

/// Each class alone, combined and negated, for every ASCII byte that a name may contain.
#[test]
fn character_classes_match_the_bytes_of_rsync() {
    if !has_rsync() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().join("source");
    let names: Vec<String> = (1..=127u8)
        .filter(|byte| !b"/.".contains(byte))
        .map(|byte| char::from(byte).to_string())
        .collect();
    build(&root, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for class in CLASSES {
        let mut matched = 0;
        for pattern in [
            format!("[[:{class}:]]"),
            format!("[![:{class}:]]"),
            format!("[^[:{class}:]a-f]"),
            format!("[_[:{class}:][:blank:]]"),
            format!("/[[:{class}:]]"),
            format!("[[:{class}:]-]"),
            format!("[[:{class}]"),
            format!("[[:{class}:]"),
        ] {
            let filter = filter(&[], &[&pattern]);
            if let Err(difference) = compare(&root, &filter) {
                panic!("{pattern:?}: {difference}");
            }
            let excluded = |name: &&String| filter.excluded(format!("/{name}").as_bytes());
            matched += usize::from(names.iter().any(|name| excluded(&name)));
        }
        assert!(matched >= 6, "{class}: {matched} patterns matched anything");
    }
}

fn filter(rules: &[&str], excludes: &[&str]) -> Filter {
    let mut filter = Filter::default();
    for rule in rules {
        // A text that is no rule (`-C`) is refused and not compared.
        filter.append_rule(rule.as_bytes()).ok();
    }
    for exclude in excludes {
        filter.add_exclude(exclude.as_bytes());
    }
    filter
}

fn kept(tree: &Tree, filter: &Filter) -> Tree {
    let keeps = |path: &&String| !filter.excluded(path.as_bytes());
    tree.iter().filter(keeps).cloned().collect()
}

/// Compares both; an error describes the difference.
fn compare(root: &Path, filter: &Filter) -> Result<(), String> {
    let mut tree = Tree::new();
    walk(root, "", &mut tree);
    let (ours, theirs) = (kept(&tree, filter), sent_by_rsync(root, filter));
    let told = filter
        .rsync_input()
        .map(|input| input.text)
        .unwrap_or_default();
    let only = |a: &Tree, b: &Tree| a.difference(b).cloned().collect::<Vec<_>>();
    if ours == theirs {
        Ok(())
    } else {
        Err(format!(
            "told {:?}\nonly rsync keeps {:?}\nonly the filter keeps {:?}",
            String::from_utf8_lossy(&told),
            only(&theirs, &ours),
            only(&ours, &theirs)
        ))
    }
}

/// Single patterns, the paths that they exclude and the paths that they keep, as determined by
/// rsync.
const TABLE: &[(&str, &str, &str)] = &[
    ("a", "/a /b/a /x/a/ /x/a/f", "/ab /ba"),
    ("/a", "/a", "/b/a /x/a/ /ab"),
    ("a/", "/x/a/ /x/a/f", "/a /b/a"),
    ("/d/", "/d/ /d/f", "/x/d/ /x/d/f"),
    ("*.bak", "/x.bak /d/y.bak /z.bak/f", "/x.bak.old"),
    ("a?c", "/abc", "/ac /abcd /e/a/c"),
    ("a*", "/a /ab /q/ab /x/a/ /x/a/f", "/ba"),
    ("a**b", "/ab /aXXb /aX/Xb", "/abc /aX/c"),
    ("a/*/c", "/a/x/c /b/a/x/c", "/a/x/y/c"),
    ("a/**", "/a/b /a/b/c /b/a/x", "/a/ /b/a/ /f"),
    ("a/***", "/a/ /a/b /b/a/ /b/a/x", "/c/a /f"),
    ("/a/**", "/a/b /a/b/c/", "/a/ /b/a/c"),
    ("/**", "/a /b/ /b/c", ""),
    ("*", "/a /b/ /b/c /.h", ""),
    ("?", "/a /x/b /c/ /c/dd", "/ab"),
    (
        "foo/bar",
        "/foo/bar /x/foo/bar /y/foo/bar/z",
        "/foo/barz /xfoo/bar",
    ),
    ("foo/bar/", "/foo/bar/ /q/foo/bar/z", "/x/foo/bar"),
    ("**/a", "/a /b/a /b/c/a", "/ba"),
    ("/**/a", "/b/a /b/c/a", "/a"),
    ("**a/b", "/a/b /xa/b /y/xa/b", "/a/c"),
    ("[ab]", "/a /x/b", "/[ab] /c"),
    ("\\[ab]", "/[ab]", "/a /b"),
    ("x[0-9]", "/x5", "/x[0-9] /xa"),
    ("[!a]", "/b /!", "/a /bb"),
    ("[^a]", "/b /^", "/a"),
    ("[]-]", "/] /-", "/a"),
    ("[a-c-e]", "/a /- /e", "/d"),
    ("[a-\\c]", "/b", "/d /\\"),
    ("[[:alpha:]]", "/a /Z", "/5 /é"),
    ("[[:upper:][:digit:]]x", "/Ax /5x", "/ax"),
    ("a\\*b", "/a*b", "/aXb /a\\*b /a\\Xb"),
    ("a\\b", "/a\\b", "/ab"),
    ("a\\b*", "/ab /abc", "/a\\b"),
    ("a\\\\b*", "/a\\b /a\\bc", "/ab"),
    ("a.c", "/a.c", "/abc"),
    ("a+b", "/a+b", "/aab"),
    ("(x)", "/(x)", "/x"),
    ("a$", "/a$", "/a /a$b"),
    ("^a", "/^a", "/a"),
    ("#h", "/#h /d/#h", "/h"),
    (";s", "/;s", "/s"),
    ("!", "/!", "/a"),
    ("!a", "/!a", "/a"),
    ("- a", "/a", "/- a /-a"),
    ("-a", "/-a", "/a"),
    ("+ a", "", "/+ a /a /+a"),
    (" a", "/ a", "/a"),
    ("a ", "/a ", "/a"),
    ("/", "", "/a /b/ /b/c"),
    ("", "", "/a /b/ /b/c"),
    ("- ", "", "/a /- /-a"),
    ("//a", "", "/a /b/a"),
    ("./a", "", "/a"),
    ("a\nb\r\n", "/a /x/b", "/c"),
    ("a\0b", "", "/a /b"),
];

#[test]
fn patterns_of_the_table_match_as_in_rsync() {
    if !has_rsync() {
        return;
    }
    for (pattern, excluded, kept) in TABLE {
        // Names contain blanks; only a blank before a slash separates two paths.
        let paths = |list: &str| -> Vec<String> {
            let paths = list.strip_prefix('/').into_iter();
            let paths = paths.flat_map(|list| list.split(" /"));
            paths.map(|path| format!("/{path}")).collect()
        };
        let (excluded, kept) = (paths(excluded), paths(kept));
        let directory = tempfile::tempdir().expect("directory");
        let root = directory.path().join("source");
        fs::create_dir(&root).expect("directory");
        // `a` and `a/b` cannot both be files: such paths are given to the filter only.
        for path in excluded.iter().chain(&kept) {
            let place = root.join(path.trim_matches('/'));
            if place.symlink_metadata().is_err() && place.parent().is_none_or(|p| !p.is_file()) {
                build(&root, &[path]);
            }
        }
        let filter = filter(&[], &[pattern]);
        for path in &excluded {
            assert!(
                filter.excluded(path.as_bytes()),
                "{pattern:?} excludes {path:?}"
            );
        }
        for path in &kept {
            assert!(
                !filter.excluded(path.as_bytes()),
                "{pattern:?} keeps {path:?}"
            );
        }
        if let Err(difference) = compare(&root, &filter) {
            panic!("{pattern:?}: {difference}");
        }
    }
}

#[test]
fn rules_and_excludes_are_combined_as_in_rsync() {
    if !has_rsync() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().join("source");
    build(
        &root,
        &[
            "keep.bak",
            "lose.bak",
            "no",
            "yes",
            "d/no",
            "d/keep.bak",
            "src/a.c",
            "src/a.o",
            "src/deep/b.c",
            "#x",
            "!",
            ";c",
            "- a",
            " lead",
            "x/wanted/f",
            "x/other/f",
            "_u",
        ],
    );
    let cases: &[(&[&str], &[&str])] = &[
        (&["+ keep.bak", "- /no"], &["*.bak"]),
        (&["+ */", "+ *.c", "- *"], &[]),
        (&["+ x/", "+ x/wanted/***", "- *"], &[]),
        (&["+ x/wanted/f", "- x"], &[]),
        (&["-#x", "- !", "-;c", "- - a"], &[" lead", "!"]),
        (&["- _u", "+ "], &["#x", "- src", "+ no", "no"]),
        (&[], &["+ no", "n*", "+ lose.bak", "*.bak", "#x", "!"]),
        (&["- d\n# c\n+ lose.bak"], &["*.bak"]),
    ];
    for (rules, excludes) in cases {
        if let Err(difference) = compare(&root, &filter(rules, excludes)) {
            panic!("{rules:?} {excludes:?}: {difference}");
        }
    }
}

#[test]
fn an_exclude_file_is_read_as_by_rsync() {
    if !has_rsync() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().join("source");
    build(&root, &["a", "b", "c", "#d", ";e", "f", "g/h", "-c", "#m"]);
    let text = b"a\r\n\n# d\n#d\n;e\n+ f\n - c\n-g/\nb\n- #m";
    let mut filter = Filter::default();
    for pattern in parse_exclude_file(text) {
        filter.add_exclude(pattern);
    }
    compare(&root, &filter).expect("no difference");
    assert!(filter.excluded(b"/g/h") && filter.excluded(b"/#m") && filter.excluded(b"/c"));
    assert!(!filter.excluded(b"/f") && !filter.excluded(b"/#d") && !filter.excluded(b"/;e"));
}

/// Names of a small alphabet, so that patterns of the same alphabet match some of them.
fn name() -> impl Strategy<Value = String> {
    "[ab]{1,2}|[A7 \t_g]{1,2}|[ab.*?\\[\\]\\\\!^:#-]{1,3}"
        .prop_filter("names", |name| name != "." && name != "..")
}

fn tree() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::collection::vec(name(), 1..4), 1..9)
        .prop_map(|paths| paths.into_iter().map(|names| names.join("/")).collect())
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[ab]",
        3 => Just("/".to_string()),
        3 => Just("*".to_string()),
        2 => Just("**".to_string()),
        1 => Just("/***".to_string()),
        1 => Just("?".to_string()),
        2 => "\\[[!^]?[]ab:.\\\\-]{1,4}\\]",
        2 => ("!?", prop::sample::select(CLASSES)).prop_map(|(not, class)| format!("[{not}[:{class}:]]")),
        3 => "[ab.*?/!:#^\\[\\]\\\\-]",
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn rule() -> impl Strategy<Value = String> {
    ("[+-] ?", pattern()).prop_map(|(sign, pattern)| sign + &pattern)
}

fn config() -> ProptestConfig {
    let set = std::env::var("FILTER_CASES").ok();
    ProptestConfig {
        cases: set.and_then(|set| set.parse().ok()).unwrap_or(150),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The wildcards, brackets and backslashes of a path have no meaning in its pattern.
#[test]
fn a_literal_pattern_excludes_one_path() {
    if !has_rsync() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().join("source");
    let names = [
        "a", "ab", "a*", "a?", "a]", "a\\", "a\\*", "a\\]", "[a]", "[a]*", "[", "]", "a\\b", "*",
    ];
    build(&root, &names);
    let mut tree = Tree::new();
    walk(&root, "", &mut tree);
    for path in &tree {
        let mut exact = Vec::new();
        lsyncd::filter::push_exact(&mut exact, path.as_bytes());
        for pattern in [lsyncd::filter::literal(path.as_bytes()), exact] {
            let rule = [b"- ", pattern.as_slice()].concat();
            let mut filter = Filter::default();
            filter.append_rule(&rule).expect("a rule");
            let mut others = tree.clone();
            others.remove(path);
            assert_eq!(sent_by_rsync(&root, &filter), others, "{path}");
            assert_eq!(kept(&tree, &filter), others, "{path}");
        }
    }
}

/// One tree of three levels of the same names, so that most patterns match.
#[test]
fn random_patterns_match_as_in_rsync() {
    if !has_rsync() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().join("source");
    let names = ["a", "b", "ab", "a]", "-", "\\a", ".b"];
    for (first, second) in names.iter().flat_map(|a| names.map(|b| (a, b))) {
        let paths = names.map(|third| format!("{first}/{second}/{third}"));
        build(&root, &paths.each_ref().map(String::as_str));
    }
    build(&root, &["a/a/d/b", "a/a/d/ba", "a/a/d/]", "ba", "]x", "*"]);
    let run = TestRunner::new(config()).run(&pattern(), |pattern| {
        let filter = filter(&[&format!("- {pattern}")], &[]);
        prop_assert_eq!(compare(&root, &filter).err(), None);
        Ok(())
    });
    if let Err(difference) = run {
        panic!("{difference}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_filters_select_as_rsync(
        paths in tree(),
        rules in prop::collection::vec(rule(), 0..3),
        excludes in prop::collection::vec(prop_oneof![4 => pattern(), 1 => rule()], 0..3),
    ) {
        if has_rsync() {
            let directory = tempfile::tempdir().expect("directory");
            let root = directory.path().join("source");
            fs::create_dir(&root).expect("directory");
            for path in &paths {
                let place = root.join(path);
                if fs::create_dir_all(place.parent().expect("parent")).is_ok() && !place.exists() {
                    fs::write(place, "").expect("file");
                }
            }
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let excludes: Vec<&str> = excludes.iter().map(String::as_str).collect();
            prop_assert_eq!(compare(&root, &filter(&rules, &excludes)).err(), None);
        }
    }
}
