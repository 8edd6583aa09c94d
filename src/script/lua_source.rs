//! Finds keys and values in the text of a configuration. Lua's debug information has the line of a
//! call, but not those of the keys in its table.

/// Returns the line, counted from 1, of an assignment to this name outside all braces.
pub fn line_of_assignment(text: &str, name: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut tokens = Lexer::new(text).peekable();
    while let Some((token, line)) = tokens.next() {
        depth = token.depth(depth);
        let is_assigned = matches!(tokens.peek(), Some((LuaToken::Assign, _)));
        if depth == 0 && token == LuaToken::Name(name) && is_assigned {
            return Some(line);
        }
    }
    None
}

/// Returns the line of `key =` in the calls that begin at line `start` (counted from 1).
pub fn line_of_key(text: &str, start: usize, key: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut tokens = Lexer::new(text)
        .skip_while(|(_, line)| *line < start)
        .peekable();
    while let Some((token, line)) = tokens.next() {
        depth = token.depth(depth);
        let is_assigned = matches!(tokens.peek(), Some((LuaToken::Assign, _)));
        let is_last = tokens.peek().is_none_or(|(_, next)| *next > start);
        match token {
            LuaToken::Symbol('}' | ')') if depth == 0 && is_last => return None,
            LuaToken::Name(name) if name == key && depth > 0 && is_assigned => return Some(line),
            _ => {}
        }
    }
    None
}

/// Returns the names that are assigned as they are to a variable or a key, with their lines. A name
/// that is a part of a longer expression is not among them.
pub fn assigned_names(text: &str) -> Vec<(usize, &str)> {
    let tokens: Vec<_> = Lexer::new(text).collect();
    let found = tokens.windows(3).enumerate().filter_map(|(at, three)| {
        let [
            (key, _),
            (LuaToken::Assign, _),
            (LuaToken::Name(value), line),
        ] = three
        else {
            return None;
        };
        let is_key = matches!(key, LuaToken::Name(_) | LuaToken::Symbol(']'));
        let ends = match tokens.get(at + 3) {
            Some((LuaToken::Symbol(',' | ';' | '}'), _)) | None => true,
            Some((_, next)) => next > line,
        };
        (is_key && ends).then_some((*line, *value))
    });
    found.collect()
}

/// Returns true if the text has more than comments.
pub fn has_code(text: &str) -> bool {
    Lexer::new(text).next().is_some()
}

/// Returns true if the text gives a value to a variable or a key of this name.
pub fn is_assigned(text: &str, name: &str) -> bool {
    let mut previous = None;
    Lexer::new(text).any(|(token, _)| {
        let is_assigned = token == LuaToken::Assign && previous == Some(LuaToken::Name(name));
        previous = Some(token);
        is_assigned
    })
}

#[derive(Clone, Copy, PartialEq)]
enum LuaToken<'a> {
    /// A name, a keyword or a number.
    Name(&'a str),
    /// A string.
    Text,
    /// `=`
    Assign,
    /// `==`
    Equal,
    /// One other character.
    Symbol(char),
}

impl LuaToken<'_> {
    /// Returns the number of open braces and parentheses after this token.
    fn depth(self, before: usize) -> usize {
        match self {
            LuaToken::Symbol('{' | '(') => before + 1,
            LuaToken::Symbol('}' | ')') => before.saturating_sub(1),
            _ => before,
        }
    }
}

/// The tokens of a Lua text with their lines, counted from 1, without comments.
struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Lexer<'a> {
        Lexer {
            rest: text,
            line: 1,
        }
    }

    fn skip_bytes(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = (LuaToken<'a>, usize);

    fn next(&mut self) -> Option<(LuaToken<'a>, usize)> {
        loop {
            let text = self.rest.trim_start();
            self.skip_bytes(self.rest.len() - text.len());
            let first = text.chars().next()?;
            let line = self.line;
            if let Some(comment) = text.strip_prefix("--") {
                let end = long_bracket(comment);
                let end = end.or_else(|| comment.find('\n')).unwrap_or(comment.len());
                self.skip_bytes(2 + end);
                continue;
            }
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let (token, length) = match first {
                '"' | '\'' => (LuaToken::Text, quoted(text, first)),
                '[' => match long_bracket(text) {
                    Some(length) => (LuaToken::Text, length),
                    None => (LuaToken::Symbol('['), 1),
                },
                '=' if text.starts_with("==") => (LuaToken::Equal, 2),
                '=' => (LuaToken::Assign, 1),
                c if is_name(c) => {
                    let length = text.find(|c| !is_name(c)).unwrap_or(text.len());
                    (LuaToken::Name(&text[..length]), length)
                }
                c => (LuaToken::Symbol(c), c.len_utf8()),
            };
            self.skip_bytes(length);
            return Some((token, line));
        }
    }
}

/// Returns the length of the quoted string at the start of `text`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote || c == '\n' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of the `[[…]]` or `[=[…]=]` string at the start of `text`.
fn long_bracket(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('[')?;
    let level = inner.len() - inner.trim_start_matches('=').len();
    inner[level..].strip_prefix('[')?;
    let end = format!("]{}]", "=".repeat(level));
    Some(text.find(&end).map_or(text.len(), |at| at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
-- bwlimit = 1
sync {
    default.rsync, -- bwlimit = 2
    source = "bwlimit = 3", --[[
    bwlimit = ]]
    rsync = {
        bwlimit == 4,
        bwlimit
            = true,
    },
}
settings { bwlimit = 5 }
"#;

    #[test]
    fn a_key_is_found_outside_of_texts_and_comments() {
        assert_eq!(line_of_key(CONFIG, 3, "bwlimit"), Some(9));
        let two = "f { a = 1 } g { b = 1,\n c = 1 }\nh { d = 1 }";
        assert_eq!(line_of_key(two, 1, "c"), Some(2));
        assert_eq!(line_of_key(two, 1, "d"), None);
        assert_eq!(line_of_key(CONFIG, 3, "source"), Some(5));
        assert_eq!(line_of_key(CONFIG, 3, "absent"), None);
        let assigned = "settings { bwlimit = 5 }\n-- settings = 1\nsettings = { nodaemon = true }";
        assert_eq!(line_of_assignment(assigned, "settings"), Some(3));
        assert_eq!(line_of_assignment(assigned, "bwlimit"), None);
        assert_eq!(line_of_key(CONFIG, 13, "bwlimit"), Some(13));
    }

    #[test]
    fn texts_and_comments_end_where_they_end_for_lua() {
        for before in [
            r#"x = "a \" b""#,
            r#"x = "a \" key = 1""#,
            r#"x = "a \\" y = 'key = 1'"#,
            r"x = 'a \\'",
            r#"x = 'a " b'"#,
            "x = [==[ a ]=] ] \n ]==]",
            "--[[ a\n b ]] x = 1",
            "--[==[ ] ]] ]=] ]==] x = 1",
            "-- [[ a",
            "--[ a",
            "x = t[1]",
        ] {
            for (after, line) in [("\nkey = 1", 2), ("\nother = 'key = 1'\n", 0)] {
                let text = format!("{before}{after}");
                let line = (line > 0).then(|| line + before.matches('\n').count());
                assert_eq!(line_of_assignment(&text, "key"), line, "{text}");
            }
        }
        for (text, code) in [
            ("", false),
            ("  \n -- x = 1", false),
            ("--[[ x\n ]] --[==[ y ]==]\n", false),
            ("--[[ x ]] y", true),
            ("-- x\ny = 1", true),
        ] {
            assert_eq!(has_code(text), code, "{text}");
        }
    }

    /// An assigned name is warned of if nothing but the name is assigned.
    #[test]
    fn names_within_longer_expressions_are_not_assigned() {
        for (text, expected) in [
            ("x = no", &[(1, "no")][..]),
            ("x = no\ny = yes", &[(1, "no"), (2, "yes")]),
            ("x = { a = no, b = yes }", &[(1, "no"), (1, "yes")]),
            ("x = no or yes", &[]),
            ("x = no .. 1", &[]),
            ("x == no", &[]),
        ] {
            assert_eq!(assigned_names(text), expected, "{text}");
        }
    }
}
