//! Escapes file names for printing.
//!
//! File names may contain any byte but `/` and zero. A newline in one would forge a line of the log
//! or the status file, an escape sequence would reach the terminal.

use std::borrow::Cow;

/// Returns printable text: control characters, those that change the direction of a text, and
/// invalid UTF-8 become `\ooo`, three octal digits a byte, as printf(1) reads them; other text is
/// unchanged.
///
/// A backslash is unchanged, too, unless three octal digits that form a byte follow; then it is
/// `\134`. So ordinary names with a backslash are unchanged, and each text represents one name
/// only.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain(text) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

/// Returns the bytes from which [`escape`] made a text.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if looks_escaped(rest) {
            let digits = rest[1..4].iter().map(|digit| digit - b'0');
            out.push(digits.fold(0, |byte, digit| byte * 8 + digit));
            rest = &rest[4..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(is_control)
        && !text
            .match_indices('\\')
            .any(|(at, _)| looks_escaped(&text.as_bytes()[at..]))
}

/// Returns true for a character that is not shown but does something: to a terminal, to the end of
/// a line or paragraph, or to the order in which those around it are shown (Unicode's
/// bidirectional algorithm).
pub fn is_control(character: char) -> bool {
    let turns = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    turns || character.is_control()
}

/// Returns true if bytes that begin with a backslash could be read as an escaped byte.
fn looks_escaped(bytes: &[u8]) -> bool {
    matches!(bytes, [b'\\', b'0'..=b'3', b'0'..=b'7', b'0'..=b'7', ..])
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let (this, next) = rest.split_at(character.len_utf8());
            if is_control(character) || looks_escaped(rest) {
                octal(&mut out, this);
            } else {
                out.push(character);
            }
            rest = next;
        }
        octal(&mut out, chunk.invalid());
        rest = &rest[chunk.invalid().len()..];
    }
    out
}

fn octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        out.push('\\');
        for shift in [6, 3, 0] {
            out.push(char::from(b'0' + (byte >> shift & 7)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        assert_eq!(escape("/a b/ü€😀".as_bytes()), "/a b/ü€😀");
        assert_eq!(escape(b"a\nb\x1b[1m\x7f"), r"a\012b\033[1m\177");
        assert_eq!(escape(b"caf\xe9"), r"caf\351");
        assert_eq!(escape("\u{85}".as_bytes()), r"\302\205");
        assert_eq!(escape("a\u{202e}b".as_bytes()), r"a\342\200\256b");
        for turning in [
            0x61c, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202e, 0x2066, 0x2069,
        ] {
            let name = format!("a{}b", char::from_u32(turning).unwrap());
            let text = escape(name.as_bytes());
            assert!(text.is_ascii(), "{turning:x}");
            assert_eq!(unescape(&text), name.as_bytes());
        }
        // Arabic and Hebrew, and letters next to those.
        assert_eq!(
            escape("שלום سلام\u{200d}\u{2010}\u{2065}".as_bytes()),
            "שלום سلام\u{200d}\u{2010}\u{2065}"
        );
        assert_eq!(escape(br"a\b\\n\18\400"), r"a\b\\n\18\400");
        assert_eq!(escape(br"\012"), r"\134012");
        assert!(matches!(escape(br"a\b"), Cow::Borrowed(_)));
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        let letters = prop::sample::select(b"\\\\0127a\n\x80\xc3\xa9\x1b\xe2\xae".to_vec());
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(letters, 0..20),
            any::<String>().prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn nothing_odd_is_left_and_nothing_is_lost(name in names()) {
            let text = escape(&name);
            prop_assert!(!text.chars().any(is_control));
            prop_assert_eq!(unescape(&text), name);
        }

        #[test]
        fn printable_names_stay(name in "[^\\p{Cc}\\p{Bidi_C}\\p{Zl}\\p{Zp}\\\\]*") {
            prop_assert_eq!(escape(name.as_bytes()), name.as_str());
        }
    }
}
