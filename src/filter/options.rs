//! The rules among rsync options: `--exclude`, `--include`, `--filter` and their files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::list::Filter;
use super::rules::{FilterRule, Sign, lines};
use crate::rsync_syntax::{self, RsyncArg};

/// Options that select files by other properties than the name, or that read further rules from
/// files.
const SELECTIVE: &str = "\
    cvs-exclude dirs dry-run existing files-from ignore-existing ignore-non-existing list-only \
    max-size min-size no-links no-r no-recursive one-file-system only-write-batch prune-empty-dirs \
    update";

/// The letters of [`SELECTIVE`].
const SELECTIVE_LETTERS: &[u8] = b"CFdmnux";

/// The built-in patterns of `--cvs-exclude`.
const CVS_PATTERNS: &str = "\
    RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* _$* *$ \
    *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core \
    .svn/ .git/ .hg/ .bzr/";

fn is_cvs_option(option: &[u8]) -> bool {
    matches!(option, b"-C" | b"--cvs-exclude" | b"--filter=-C")
}

/// The filter rules among options of rsync.
#[derive(Debug, Default)]
pub struct OptionRules {
    rules: Vec<FilterRule>,
    /// Options whose selection cannot be evaluated here.
    pub unknown: Vec<Vec<u8>>,
    /// True if names in files of rules end with NUL.
    is_from0: bool,
}

impl OptionRules {
    /// Parses the options and reads files of rules.
    pub fn of(words: &[Vec<u8>]) -> OptionRules {
        let mut found = OptionRules::default();
        let mut is_cvs = false;
        for (arg, _) in rsync_syntax::parse(words) {
            match arg {
                RsyncArg::Long { name, value } => found.long(name, value),
                RsyncArg::Letters { flags, last } => found.letters(flags, last),
                RsyncArg::Operand(_) => {}
            }
            is_cvs |= found
                .unknown
                .last()
                .is_some_and(|option| is_cvs_option(option));
        }
        if is_cvs {
            // rsync appends them after all other options.
            let patterns = CVS_PATTERNS.split_ascii_whitespace();
            let rules = patterns.map(|pattern| FilterRule::exclude(pattern.as_bytes()));
            found.rules.extend(rules);
        }
        found
    }

    /// Returns the filter with these rules behind its own, in rsync's order.
    pub fn behind(&self, filter: &Filter) -> Filter {
        filter.with_rules_behind(&self.rules)
    }

    fn long(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is_selective = || {
            let mut names = SELECTIVE.split_ascii_whitespace();
            names.any(|listed| listed.as_bytes() == name)
        };
        match (name, value) {
            (b"exclude" | b"include" | b"filter" | b"exclude-from" | b"include-from", value) => {
                let Some(value) = value else { return };
                if !self.rule(name, value) {
                    self.unknown.push([b"--", name, b"=", value].concat());
                }
            }
            (b"from0", _) => self.is_from0 = true,
            (b"no-from0" | b"no-0", _) => self.is_from0 = false,
            (_, Some(value)) if is_selective() => {
                self.unknown.push([b"--", name, b"=", value].concat());
            }
            (_, None) if is_selective() => self.unknown.push([b"--", name].concat()),
            _ => {}
        }
    }

    fn letters(&mut self, flags: &[u8], last: Option<(u8, Option<&[u8]>)>) {
        for flag in flags {
            self.is_from0 |= *flag == b'0';
            if SELECTIVE_LETTERS.contains(flag) {
                self.unknown.push(vec![b'-', *flag]);
            }
        }
        if let Some((b'f', value)) = last {
            let value = value.unwrap_or_default();
            if !self.rule(b"filter", value) {
                self.unknown.push([b"--filter=", value].concat());
            }
        }
    }

    /// Parses one option that contains a rule. Returns false if it cannot be evaluated here.
    fn rule(&mut self, name: &[u8], value: &[u8]) -> bool {
        match name {
            b"exclude" => self.line(Sign::Exclude, value),
            b"include" => self.line(Sign::Include, value),
            b"filter" => return self.filter(value),
            _ => {
                let sign = match name {
                    b"exclude-from" => Sign::Exclude,
                    _ => Sign::Include,
                };
                let Ok(text) = fs::read(OsStr::from_bytes(value)) else {
                    return false;
                };
                let names: Vec<&[u8]> = if self.is_from0 {
                    text.split(|&byte| byte == 0).collect()
                } else {
                    lines(&text).collect()
                };
                for line in names {
                    if !matches!(line, [] | [b'#' | b';', ..]) {
                        self.line(sign, line);
                    }
                }
            }
        }
        true
    }

    /// Adds a pattern, or a rule with its own sign; a single `!` removes all earlier rules.
    fn line(&mut self, sign: Sign, line: &[u8]) {
        if line == b"!" {
            return self.rules.clear();
        }
        let mut rule = FilterRule::exclude(line);
        if !matches!(line, [b'+' | b'-', b' ', ..]) {
            rule.sign = sign;
        }
        self.rules.push(rule);
    }

    fn filter(&mut self, rule: &[u8]) -> bool {
        let long = [
            ("exclude ", "- "),
            ("include ", "+ "),
            ("hide ", "- "),
            ("H ", "- "),
            ("show ", "+ "),
            ("S ", "+ "),
        ];
        // Rules that only the receiver applies.
        let of_receiver = ["protect ", "P ", "risk ", "R "];
        if of_receiver
            .iter()
            .any(|name| rule.starts_with(name.as_bytes()))
        {
            return true;
        }
        let short = long.iter().find_map(|(name, sign)| {
            let pattern = rule.strip_prefix(name.as_bytes())?;
            Some([sign.as_bytes(), pattern].concat())
        });
        let rule = short.as_deref().unwrap_or(rule);
        // rsync takes an underscore for the blank behind the sign.
        let spaced = match rule {
            [sign @ (b'+' | b'-'), b'_', pattern @ ..] => Some([&[*sign, b' '], pattern].concat()),
            _ => None,
        };
        let rule = spaced.as_deref().unwrap_or(rule);
        if matches!(rule, b"!" | b"clear") {
            self.rules.clear();
            return true;
        }
        let parsed = FilterRule::filter(rule).ok();
        let is_rule = parsed.is_some();
        self.rules.extend(parsed);
        is_rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> OptionRules {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        OptionRules::of(&words)
    }

    /// Returns true if `/a.key` is excluded.
    fn leaves_out(words: &[&str]) -> bool {
        read(words).behind(&Filter::default()).excluded(b"/a.key")
    }

    #[test]
    fn rules_are_found_in_all_forms() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# x\n*.key\n").unwrap();
        let from = format!("--exclude-from={}", file.path().display());
        for words in [
            &["--exclude=*.key"][..],
            &["--exclude", "*.key"],
            &["-av", "--exclude", "*.key"],
            &["--filter=- *.key"],
            &["--filter", "exclude *.key"],
            &["--filter=hide *.key"],
            &["-f", "- *.key"],
            &["-avf- *.key"],
            &["--bwlimit", "--exclude", "--exclude=*.key"],
            &["-e", "ssh -f x", "--exclude=*.key"],
            &["--include=*", "--filter=!", "--exclude=*.key"],
            &["--exclude=- *.key"],
            &["--include=- *.key"],
            &["--filter=-_*.key"],
            &["--filter=+_*.pem", "--exclude=*"],
            &[from.as_str()],
        ] {
            assert!(leaves_out(words), "{words:?}");
            assert!(read(words).unknown.is_empty(), "{words:?}");
        }
        for words in [
            &["--include=*.key", "--exclude=*"][..],
            &["--exclude=*.pem"],
            &["--rsh", "--exclude=*.key"],
            &["--filter=P *.key"],
            &["--exclude=+ *.key"],
            &["--exclude=*.key", "--exclude=!"],
            &["--exclude"],
            &["-f"],
        ] {
            assert!(!leaves_out(words), "{words:?}");
        }
    }

    #[test]
    fn names_in_files_end_as_the_options_before_say() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "*.pem\0*.key\0").unwrap();
        let from = format!("--exclude-from={}", file.path().display());
        for zero in ["-0", "--from0", "-av0"] {
            assert!(leaves_out(&[zero, &from]), "{zero}");
            assert!(!leaves_out(&[&from, zero]), "{zero}");
        }
        assert!(!leaves_out(&["-0", "--no-from0", &from]));
    }

    #[test]
    fn cvs_exclude_leaves_out_what_rsync_says() {
        for option in ["-C", "--cvs-exclude", "-avC"] {
            let rules = read(&[option, "--include=core"]);
            assert_eq!(rules.unknown.len(), 1);
            let filter = rules.behind(&Filter::default());
            for path in ["/x/.git/", "/a.o", "/a~", "/CVS"] {
                assert!(filter.excluded(path.as_bytes()), "{option}: {path}");
            }
            for path in ["/core", "/x/.git", "/a.c"] {
                assert!(!filter.excluded(path.as_bytes()), "{option}: {path}");
            }
        }
    }

    /// Files of the patterns of CVS would be taken for excluded ones.
    #[test]
    fn only_the_options_of_cvs_add_its_patterns() {
        let excludes = |words: &[&str]| {
            let words: Vec<Vec<u8>> = words.iter().map(|&word| word.into()).collect();
            let found = OptionRules::of(&words);
            found.behind(&Filter::default()).excluded(b"/f.o")
        };
        assert!(excludes(&["-C"]) && excludes(&["--cvs-exclude"]));
        assert!(!excludes(&["--max-size=1"]) && !excludes(&["--archive", "-u"]));
    }

    #[test]
    fn options_that_select_nothing_are_not_named() {
        let words = ["--archive", "--checksum", "-z"].map(|word| word.as_bytes().to_vec());
        assert!(OptionRules::of(&words).unknown.is_empty());
    }

    #[test]
    fn options_that_select_otherwise_are_named() {
        for (words, named) in [
            (&["--max-size=1m"][..], "--max-size=1m"),
            (&["--max-size", "1m"], "--max-size=1m"),
            (&["-C"], "-C"),
            (&["-avx"], "-x"),
            (&["--existing"], "--existing"),
            (&["--dry-run"], "--dry-run"),
            (&["--filter=: .rules"], "--filter=: .rules"),
            (&["--exclude-from=/no/such"], "--exclude-from=/no/such"),
        ] {
            let unknown = read(words).unknown;
            assert_eq!(unknown, [named.as_bytes()], "{words:?}");
        }
        assert!(
            read(&["-avz", "--bwlimit=5", "--timeout", "9"])
                .unknown
                .is_empty()
        );
    }

    #[test]
    fn rules_of_options_come_behind_those_of_the_sync() {
        let mut filter = Filter::default();
        filter.append_rule(b"+ /keep/***").unwrap();
        filter.add_exclude(b"/out");
        let both = read(&["--include=/out", "--exclude=*"]).behind(&filter);
        for (path, out) in [(&b"/keep/a"[..], false), (b"/out", true), (b"/other", true)] {
            assert_eq!(both.excluded(path), out, "{path:?}");
        }
    }
}
