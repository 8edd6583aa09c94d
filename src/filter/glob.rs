//! Wildcards of rsync: `?`, `*`, `**`, `[...]` and the backslash.
//!
//! A pattern is compiled once into tokens. Matching is a loop with two positions for backtracking,
//! the last `*` and the last `**`. No earlier position is ever needed: a `*` ends at the next
//! slash, only a literal slash and `**` match one, and so the leftmost match of the tokens between
//! two wildcards is as good as any later one.

/// One element of a compiled pattern. It matches one byte, except for the two stars.
#[derive(Clone, Debug)]
enum GlobToken {
    Byte(u8),
    /// `?`: any byte but a slash.
    Any,
    /// `*`: any run of bytes without a slash.
    Star,
    /// `**` and longer: any run of bytes.
    DeepStar,
    Class(Box<Set>),
}

/// A compiled pattern with wildcards.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    tokens: Box<[GlobToken]>,
}

impl Glob {
    /// Compiles `text`. Returns `None` if it can match nothing: an unfinished `[`, an unknown
    /// `[:class:]`, a backslash at the end.
    pub(super) fn new(text: &[u8]) -> Option<Glob> {
        let tokens = tokens(text)?.into_iter().map(|(_, token)| token);
        Some(Glob {
            tokens: tokens.collect(),
        })
    }

    /// Returns true if the whole of `text` matches, or `text` and a slash if `slash` is set.
    pub(super) fn matches(&self, text: &[u8], slash: bool) -> bool {
        let tokens = &*self.tokens;
        let end = text.len() + usize::from(slash);
        let byte = |at: usize| text.get(at).copied().unwrap_or(b'/');
        let (mut token, mut at) = (0, 0);
        // The token and byte at which to continue when a wildcard has to cover one more byte.
        let mut star: Option<(usize, usize)> = None;
        let mut deep: Option<(usize, usize)> = None;
        loop {
            match tokens.get(token) {
                None if at == end => return true,
                None => {}
                Some(GlobToken::Star) => {
                    token += 1;
                    star = Some((token, at));
                    continue;
                }
                Some(GlobToken::DeepStar) => {
                    token += 1;
                    if token == tokens.len() {
                        return true;
                    }
                    deep = Some((token, at));
                    star = None;
                    continue;
                }
                Some(single) if at < end && single.matches(byte(at)) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                Some(_) => {}
            }
            (token, at) = match (star, deep) {
                (Some((next, from)), _) if from < end && byte(from) != b'/' => {
                    star = Some((next, from + 1));
                    (next, from + 1)
                }
                (_, Some((next, from))) if from < end => {
                    deep = Some((next, from + 1));
                    star = None;
                    (next, from + 1)
                }
                _ => return false,
            };
        }
    }
}

impl GlobToken {
    fn matches(&self, byte: u8) -> bool {
        match self {
            GlobToken::Byte(wanted) => byte == *wanted,
            GlobToken::Any => byte != b'/',
            GlobToken::Class(set) => set.contains(byte),
            GlobToken::Star | GlobToken::DeepStar => false,
        }
    }
}

/// Splits a pattern into tokens, each with its offset in `text`. Returns `None` if the pattern can
/// match nothing.
fn tokens(text: &[u8]) -> Option<Vec<(usize, GlobToken)>> {
    let mut tokens = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let start = text.len() - rest.len();
        rest = after;
        let token = match byte {
            b'?' => GlobToken::Any,
            b'*' => {
                let more = rest.iter().take_while(|&&b| b == b'*').count();
                rest = &rest[more..];
                if more == 0 {
                    GlobToken::Star
                } else {
                    GlobToken::DeepStar
                }
            }
            b'[' => {
                let (set, length) = Set::parse(rest)?;
                rest = &rest[length..];
                GlobToken::Class(Box::new(set))
            }
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                GlobToken::Byte(escaped)
            }
            _ => GlobToken::Byte(byte),
        };
        tokens.push((start, token));
    }
    Some(tokens)
}

/// Returns the offsets in the pattern `text` from which it can continue behind `prefix`: the rest
/// of the pattern has to match what follows the prefix. An empty rest is possible.
pub(super) fn behind(text: &[u8], prefix: &[u8]) -> Vec<usize> {
    let Some(tokens) = tokens(text) else {
        return Vec::new();
    };
    let is_star = |at: usize| {
        matches!(
            tokens.get(at),
            Some((_, GlobToken::Star | GlobToken::DeepStar))
        )
    };
    let mut places = vec![0];
    for &byte in prefix {
        let mut next = Vec::new();
        for place in places {
            // A star may match nothing, so the next token is a possible position as well.
            let mut at = place;
            loop {
                match tokens.get(at) {
                    Some((_, GlobToken::DeepStar)) => next.push(at),
                    Some((_, GlobToken::Star)) if byte != b'/' => next.push(at),
                    Some((_, token)) if token.matches(byte) => next.push(at + 1),
                    _ => {}
                }
                if !is_star(at) {
                    break;
                }
                at += 1;
            }
        }
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    let start = |at: usize| tokens.get(at).map_or(text.len(), |(start, _)| *start);
    places.into_iter().map(start).collect()
}

/// The bytes that a `[...]` matches, one bit each. It never contains the slash.
#[derive(Clone, Debug, Default)]
struct Set([u64; 4]);

impl Set {
    /// Parses the text behind a `[`; returns the set and the bytes consumed, `]` included.
    fn parse(text: &[u8]) -> Option<(Set, usize)> {
        let mut set = Set::default();
        let negated = matches!(text.first(), Some(b'!' | b'^'));
        let first = usize::from(negated);
        let mut at = first;
        // The start of a range that a `-` would continue.
        let mut low = None;
        loop {
            match *text.get(at)? {
                b']' if at > first => break,
                b'\\' => {
                    let escaped = *text.get(at + 1)?;
                    set.insert(escaped);
                    low = Some(escaped);
                    at += 2;
                }
                b'-' if low.is_some() && !matches!(text.get(at + 1), None | Some(b']')) => {
                    at += if text[at + 1] == b'\\' { 2 } else { 1 };
                    for byte in low.take()?..=*text.get(at)? {
                        set.insert(byte);
                    }
                    at += 1;
                }
                b'[' if text.get(at + 1) == Some(&b':') => {
                    let inner = &text[at + 2..];
                    let length = inner.iter().position(|&byte| byte == b']')?;
                    if let Some(name) = inner[..length].strip_suffix(b":") {
                        let member = named(name)?;
                        (0..=u8::MAX)
                            .filter(member)
                            .for_each(|byte| set.insert(byte));
                        low = None;
                        at += length + 3;
                    } else {
                        set.insert(b'[');
                        low = Some(b'[');
                        at += 1;
                    }
                }
                byte => {
                    set.insert(byte);
                    low = Some(byte);
                    at += 1;
                }
            }
        }
        if negated {
            set.0.iter_mut().for_each(|word| *word = !*word);
        }
        set.remove(b'/');
        Some((set, at + 1))
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte) / 64] |= 1 << (byte % 64);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte) / 64] &= !(1 << (byte % 64));
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte) / 64] & (1 << (byte % 64)) != 0
    }
}

/// Returns the test of a `[:name:]` class, as isalpha(3) and related functions define it for ASCII.
fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).is_some_and(|glob| glob.matches(text.as_bytes(), false))
    }

    #[test]
    fn stars_and_slashes() {
        assert!(glob("*", "ab") && glob("*", "") && !glob("*", "a/b"));
        assert!(glob("**", "a/b") && glob("a**b", "a/x/b") && glob("***", "a/b"));
        assert!(glob("a*/c", "axx/c") && !glob("a*c", "a/c") && !glob("?", "/"));
        assert!(glob("**/*.c", "a/b/x.c") && !glob("**/*.c", "a/b/x.h"));
        assert!(glob("*a*b", "xaxaxb") && !glob("*a*b", "xaxaxc"));
    }

    #[test]
    fn classes() {
        assert!(glob("[a-c]", "b") && !glob("[a-c]", "d") && glob("[!a-c]", "d"));
        assert!(glob("[^x]", "a") && !glob("[^x]", "x") && !glob("[^x]", "/"));
        assert!(glob("[]]", "]") && glob("[]-]", "-") && glob("[a-]", "-") && glob("[-a]", "-"));
        assert!(glob("[a-c-e]", "-") && glob("[a-c-e]", "e") && !glob("[a-c-e]", "d"));
        assert!(glob("[[:alpha:]_]", "_") && glob("[[:digit:]-z]", "-"));
        assert!(glob("[[:]", ":") && glob("[[:]", "[") && glob("[\\]]", "]"));
        assert!(!glob("[.-0]", "/") && glob("[.-0]", "."));
        for never in ["[", "[a", "[!", "[a-", "[[:x:]]", "[[:alpha:", "a\\", "[\\"] {
            assert!(Glob::new(never.as_bytes()).is_none(), "{never}");
        }
    }

    #[test]
    fn ranges_with_escapes_and_brackets_in_classes() {
        assert!(glob("[a-\\c]", "b") && glob("[a-\\c]", "c") && !glob("[a-\\c]", "d"));
        assert!(glob("[[x:]", "x") && glob("[[x:]", "[") && !glob("[[x:]", "y"));
    }

    #[test]
    fn named_classes_are_those_of_the_c_library() {
        for (name, inside, outside) in [
            ("alnum", "aZ5", "_ \u{7f}"),
            ("alpha", "aZ", "5_"),
            ("blank", " \t", "\na"),
            ("cntrl", "\u{1}\n\u{7f}", " a"),
            ("digit", "09", "a/"),
            ("graph", "a!~", " \n\u{7f}"),
            ("lower", "az", "A5"),
            ("print", "a ~", "\n\u{7f}"),
            ("punct", "!_~", "a5 "),
            ("space", " \t\n\u{b}\r", "a_"),
            ("upper", "AZ", "a5"),
            ("xdigit", "09afAF", "gG"),
        ] {
            let pattern = format!("[[:{name}:]]");
            for (texts, fits) in [(inside, true), (outside, false)] {
                for text in texts.chars() {
                    assert_eq!(glob(&pattern, &text.to_string()), fits, "{name} {text:?}");
                }
            }
        }
    }

    #[test]
    fn the_slash_behind_a_directory() {
        let glob = Glob::new(b"foo/***").expect("a pattern");
        assert!(glob.matches(b"foo", true) && !glob.matches(b"foo", false));
        assert!(glob.matches(b"foo/bar", false));
    }

    /// Matches by trying every possibility: the definition.
    fn naive(tokens: &[GlobToken], text: &[u8]) -> bool {
        match tokens.split_first() {
            None => text.is_empty(),
            Some((GlobToken::Star | GlobToken::DeepStar, rest)) if naive(rest, text) => true,
            Some((GlobToken::Star, _)) => {
                text.first().is_some_and(|&byte| byte != b'/') && naive(tokens, &text[1..])
            }
            Some((GlobToken::DeepStar, _)) => !text.is_empty() && naive(tokens, &text[1..]),
            Some((token, rest)) => {
                text.first().is_some_and(|&byte| token.matches(byte)) && naive(rest, &text[1..])
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4096,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn agrees_with_trying_everything(
            pattern in "([ab/?*]|\\*\\*|\\[!?ab?\\]){0,9}",
            text in "[ab/]{0,12}",
            slash: bool,
        ) {
            let glob = Glob::new(pattern.as_bytes()).expect("classes are complete");
            let whole = if slash { format!("{text}/") } else { text.clone() };
            prop_assert_eq!(
                glob.matches(text.as_bytes(), slash),
                naive(&glob.tokens, whole.as_bytes())
            );
        }
    }
}
