//! Quoting of words, for the login shell of the target and for rsync.
//!
//! ssh joins its arguments with blanks, and the login shell of the target reads the result. rsync
//! splits the text of `--rsh` into words by rules of its own (rsync(1), `-e`). No character of a
//! name ends the quotes.

use crate::paths;

/// Appends a word, quoted for rsync. rsync has two kinds of quotes and no backslash; a quote within
/// quotes of its own kind is doubled.
pub(super) fn push_rsh_word(into: &mut Vec<u8>, word: &[u8]) {
    let special = |byte: &u8| matches!(byte, b' ' | b'\'' | b'"');
    if !word.is_empty() && !word.iter().any(special) {
        return into.extend_from_slice(word);
    }
    into.push(b'\'');
    for &byte in word {
        into.push(byte);
        if byte == b'\'' {
            into.push(byte);
        }
    }
    into.push(b'\'');
}

/// Splits a command as rsync does; returns `None` for an unclosed quote.
pub fn split_rsh(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = command.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b' ' && quote.is_none() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match quote {
            None if matches!(byte, b'\'' | b'"') => quote = Some(byte),
            Some(open) if open == byte && bytes.next_if_eq(&open).is_none() => quote = None,
            _ => word.push(byte),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Returns a path below a directory, quoted for the login shell of the target.
///
/// A leading `~/` or `~user/` is not quoted, so that the shell expands it as it does for rsync. A
/// directory that looks like an option is prefixed with `./`.
pub fn remote_word(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let whole = paths::join(directory, path);
    let home = home_prefix(&whole);
    let (home, rest) = whole.split_at(home);
    let mut word = home.to_vec();
    if whole.starts_with(b"-") {
        word.extend_from_slice(b"./");
    }
    push_quoted(&mut word, rest);
    word
}

/// Returns the length of a leading `~/` or `~user/`.
fn home_prefix(path: &[u8]) -> usize {
    if !path.starts_with(b"~") {
        return 0;
    }
    let end = path.iter().position(|&byte| byte == b'/').unwrap_or(0);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    match path.get(1..end) {
        Some(user) if user.iter().all(plain) => end + 1,
        _ => 0,
    }
}

/// Returns a text as one word for the login shell of the target.
pub fn quoted(text: &[u8]) -> Vec<u8> {
    let mut word = Vec::new();
    push_quoted(&mut word, text);
    word
}

/// Appends a quoted text. In single quotes POSIX shells take every byte except the quote literally.
/// fish(1) interprets a backslash before a quote or another backslash, so these are put in double
/// quotes.
pub(super) fn push_quoted(into: &mut Vec<u8>, text: &[u8]) {
    into.push(b'\'');
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\'' => into.extend_from_slice(br#"'"'"'"#),
            b'\\' if matches!(text.get(at + 1), None | Some(b'\\' | b'\'')) => {
                into.extend_from_slice(br#"'"\\"'"#);
            }
            _ => into.push(byte),
        }
    }
    into.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::rsh_option;
    use super::*;

    #[test]
    fn plain_names_are_quoted_as_ever() {
        let word = |directory: &str, path: &str| {
            String::from_utf8(remote_word(directory.as_bytes(), path.as_bytes())).unwrap()
        };
        assert_eq!(word("/t/", "/d/f"), "'/t/d/f'");
        assert_eq!(word("/t dir/", "/it's/"), r#"'/t dir/it'"'"'s/'"#);
        assert_eq!(word("x:", "/f"), "'x:/f'");
        assert_eq!(word("~/t/", "/f"), "~/'t/f'");
        assert_eq!(word("~me/", "/~/f"), "~me/'~/f'");
        assert_eq!(word("~$(id)/", "/f"), "'~$(id)/f'");
        assert_eq!(word("-t/", "/f"), "./'-t/f'");
        assert_eq!(word("/t/", r"/a\b"), r"'/t/a\b'");
        assert_eq!(word("/t/", r"/a\"), r#"'/t/a'"\\"''"#);
    }

    /// Returns the result of evaluating a text in `sh`, with a trailing zero byte.
    fn shell(text: &[u8], program: &str) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let script = [b"printf '%s\\0' ", text].concat();
        let output = Command::new(program)
            .arg("-c")
            .arg(std::ffi::OsStr::from_bytes(&script))
            .env("HOME", "/my home")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            prop::sample::select(br#"'"\ $`()~-!*?[]{};&|<>#=%^"#.to_vec()),
            prop::sample::select(b"\n\t\r\x01\xff\xc3\xa4ab".to_vec()),
        ];
        vec(byte, 1..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_name_leaves_its_quotes(name in hostile()) {
            let path = [b"/", name.as_slice()].concat();
            for (directory, real) in [("/t/", "/t/"), ("~/", "/my home/"), ("-x/", "./-x/")] {
                let word = remote_word(directory.as_bytes(), &path);
                let seen = shell(&word, "sh");
                prop_assert_eq!(seen, [real.as_bytes(), &name, b"\0"].concat());
            }
        }

        #[test]
        fn rsync_reads_the_words_back(words in vec(vec(prop::sample::select(b" '\"a-\n".to_vec()), 0..6), 1..5)) {
            let option = rsh_option(b"p", &words);
            let mut expected = vec![b"p".to_vec()];
            expected.extend(words);
            prop_assert_eq!(split_rsh(&option[6..]), Some(expected));
        }
    }

    /// rsync itself splits the words in the same way.
    #[test]
    fn rsync_cuts_words_as_we_do() {
        let directory = tempfile::tempdir().unwrap();
        let (program, seen) = (
            directory.path().join("shell"),
            directory.path().join("seen"),
        );
        let script = format!("printf '%s\\0' \"$@\" > '{}'\n", seen.display());
        fs::write(&program, script).unwrap();
        for text in ["a 'b c'd \"e'f\" 'g''h' '' \"i\"\"j\"", "  x   'y' "] {
            // The script is read by sh, since executing it fails while a fork of another test has
            // it open for writing.
            let option = format!("--rsh=sh {} {text}", program.display());
            Command::new("rsync")
                .args([&option, "h:/x", "."])
                .output()
                .unwrap();
            let seen: Vec<Vec<u8>> = fs::read(&seen)
                .unwrap()
                .split(|b| *b == 0)
                .map(<[u8]>::to_vec)
                .collect();
            let words = split_rsh(text.as_bytes()).unwrap();
            assert_eq!(seen[..words.len()], words);
            assert_eq!(seen[words.len()], b"h");
        }
    }
}
