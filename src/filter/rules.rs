//! One written rule: a sign and a pattern; and the files that contain rules.
//!
//! Of rsync's rules only `+` and `-` without modifiers are accepted. Merge files, one-sided and
//! perishable rules have no counterpart in a watched tree, so they are errors and not patterns that
//! happen to match nothing.

use std::fmt;

use super::pattern::Pattern;

/// The effect of a rule on the paths it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `+`: they are included.
    Include,
    /// `-`: they are excluded.
    Exclude,
}

impl Sign {
    fn of(byte: u8) -> Option<Sign> {
        match byte {
            b'+' => Some(Sign::Include),
            b'-' => Some(Sign::Exclude),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Sign::Include => b'+',
            Sign::Exclude => b'-',
        }
    }
}

/// An invalid filter rule. Its text is lsyncd's: `Unknown filter rule: "TEXT"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    text: Vec<u8>,
    line: Option<usize>,
}

impl RuleError {
    pub(super) fn new(text: &[u8]) -> RuleError {
        RuleError {
            text: text.to_vec(),
            line: None,
        }
    }

    /// Returns the rule as written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the line of the file it is in, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unknown filter rule: \"")?;
        for character in String::from_utf8_lossy(&self.text).chars() {
            if crate::log::is_control(character) {
                write!(f, "{}", character.escape_default())?
            } else {
                write!(f, "{character}")?
            }
        }
        write!(f, "\"")?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleError {}

/// A sign and a pattern.
#[derive(Clone, Debug)]
pub(super) struct FilterRule {
    pub(super) sign: Sign,
    pub(super) pattern: Pattern,
}

impl FilterRule {
    /// Parses a filter rule: blanks, sign, blanks, pattern; the blanks are optional.
    ///
    /// rsync parses text directly behind a sign as modifiers (`-s x`, `+/ x`, `-C`). Such a rule is
    /// refused. `-c d`, which rsync refuses, is the pattern `c d` as in lsyncd.
    pub(super) fn filter(line: &[u8]) -> Result<FilterRule, RuleError> {
        let unknown = || RuleError::new(line);
        let (&first, rest) = trim_start(line).split_first().ok_or_else(unknown)?;
        let sign = Sign::of(first).ok_or_else(unknown)?;
        if has_modifiers(rest) {
            return Err(unknown());
        }
        Ok(FilterRule {
            sign,
            pattern: Pattern::new(trim_start(rest)),
        })
    }

    /// Parses one line like `--exclude-from`: a pattern to be excluded, or a rule if it begins with
    /// `- ` or `+ `.
    pub(super) fn exclude(line: &[u8]) -> FilterRule {
        let (sign, pattern) = match line {
            [sign, b' ', pattern @ ..] => match Sign::of(*sign) {
                Some(sign) => (sign, pattern),
                None => (Sign::Exclude, line),
            },
            _ => (Sign::Exclude, line),
        };
        FilterRule {
            sign,
            pattern: Pattern::new(pattern),
        }
    }

    /// Returns the rule in the form of rsync's filter files: sign, one blank, pattern.
    pub(super) fn line(&self) -> Vec<u8> {
        [&[self.sign.byte(), b' '], self.pattern.text()].concat()
    }
}

/// Returns the lines of a text that are not empty. rsync ends a line at CR as well as at LF.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty())
}

/// Returns the patterns in an exclude file, one per line, for [`Filter::add_exclude`].
///
/// Blank lines, comments (`#` or `;` first, as in rsync) and, as in lsyncd, lines that begin with
/// `+` are skipped. Blanks before a pattern and one `-` in front of it are removed; trailing blanks
/// belong to the pattern.
///
/// [`Filter::add_exclude`]: super::Filter::add_exclude
pub fn parse_exclude_file(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines(bytes).filter_map(|line| {
        let line = trim_start(line);
        let pattern = match line.first()? {
            b'#' | b';' | b'+' => return None,
            b'-' => trim_start(&line[1..]),
            _ => line,
        };
        (!pattern.is_empty()).then_some(pattern)
    })
}

/// Returns the rules in a filter file, one per line, as `SIGN PATTERN`, for
/// [`Filter::append_rule`]. Blank lines and those whose first non-blank is `#` are skipped.
///
/// # Errors
/// Returns the first invalid line. `;` starts no comment here, nor in lsyncd.
///
/// [`Filter::append_rule`]: super::Filter::append_rule
pub fn parse_filter_file(bytes: &[u8]) -> Result<Vec<Vec<u8>>, RuleError> {
    let mut rules = Vec::new();
    for (index, row) in bytes.split(|&byte| byte == b'\n').enumerate() {
        for line in lines(row).filter(|line| !matches!(trim_start(line), [] | [b'#', ..])) {
            let rule = FilterRule::filter(line).map_err(|error| RuleError {
                line: Some(index + 1),
                ..error
            })?;
            rules.push(rule.line());
        }
    }
    Ok(rules)
}

/// Returns the text without leading blanks.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(byte)).count();
    &text[blanks..]
}

/// Returns true for a blank as isspace(3) defines it.
pub(super) fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Returns true if the text behind a sign consists of rsync's modifiers: letters up to a blank, or
/// `C` alone.
fn has_modifiers(rest: &[u8]) -> bool {
    let (comma, rest) = match rest {
        [b',', rest @ ..] => (true, rest),
        _ => (false, rest),
    };
    let modifier = |byte: &&u8| matches!(byte, b'/' | b'!' | b'C' | b'p' | b'r' | b's' | b'x');
    let count = rest.iter().take_while(modifier).count();
    match rest.get(count) {
        Some(b' ') => comma || count > 0,
        None => rest[..count].contains(&b'C'),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(line: &str) -> Result<String, String> {
        match FilterRule::filter(line.as_bytes()) {
            Ok(rule) => Ok(String::from_utf8(rule.line()).expect("text")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_rule_is_written_as_sign_blank_pattern() {
        for (line, rule) in [
            ("+a", "+ a"),
            (" -  b", "- b"),
            ("-c d", "- c d"),
            ("+ - e", "+ - e"),
            ("\t- e  ", "- e  "),
            ("- s x", "- s x"),
            ("-sxy z", "- sxy z"),
            ("-p", "- p"),
            ("-", "- "),
            ("-/a", "- /a"),
        ] {
            assert_eq!(normalised(line).as_deref(), Ok(rule), "{line:?}");
        }
    }

    #[test]
    fn the_sign_stands_at_the_beginning() {
        for line in [
            "",
            " ",
            "a",
            "; c",
            "# c",
            "!",
            "hide,P foo-bar",
            "|x",
            "H x",
            "P x",
            ". f",
            ": f",
            "merge f",
            "exclude x",
            "-s x",
            "+r x",
            "-p x",
            "-x u",
            "-/ x",
            "-! x",
            "-,s x",
            "-C",
            "-, x",
            "+sp x",
        ] {
            let error = format!("Unknown filter rule: \"{line}\"");
            assert_eq!(normalised(line), Err(error));
        }
    }

    #[test]
    fn the_error_shows_control_bytes_and_the_line() {
        let error = parse_filter_file(b"- a\r\n\r\n# c\nx\ty\xff\n").expect_err("no sign");
        assert_eq!(error.text(), b"x\ty\xff");
        assert_eq!(error.line(), Some(4));
        assert_eq!(
            error.to_string(),
            "Unknown filter rule: \"x\\ty\u{fffd}\" (line 4)"
        );
    }

    #[test]
    fn filter_files() {
        let rules = parse_filter_file(b"# c\n\n  +a\n- b\n-c\r\n+ d/**\n \n  - e  \n  # f");
        let expected: Vec<&[u8]> = vec![b"+ a", b"- b", b"- c", b"+ d/**", b"- e  "];
        assert_eq!(rules.expect("all are rules"), expected);
    }

    #[test]
    fn exclude_files() {
        let text = b"a\r\n\n \t\n# c\n  #d\n;e\n+ f\n+g\n- h\n-i\n  j k  \n - - l\n-\n- #m\n\xff";
        let expected: Vec<&[u8]> = vec![b"a", b"h", b"i", b"j k  ", b"- l", b"#m", b"\xff"];
        assert_eq!(parse_exclude_file(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_exclude_may_bring_a_sign() {
        let read = |line: &[u8]| FilterRule::exclude(line).line();
        assert_eq!(read(b"a"), b"- a");
        assert_eq!(read(b"-a"), b"- -a");
        assert_eq!(read(b"- a"), b"- a");
        assert_eq!(read(b"+ a"), b"+ a");
        assert_eq!(read(b"- - a"), b"- - a");
        assert_eq!(read(b"! a"), b"- ! a");
    }
}
