//! Detects patterns that cannot match anything, and suggests a correction.
//!
//! A pattern that never matches is not an error of rsync and excludes nothing without a message.
//! The most frequent one is the absolute path of a directory.

use super::pattern::Pattern;
use super::rules::is_blank;
use crate::paths;

/// Returns advice if `pattern` looks as if it can match nothing.
///
/// `source` is the absolute path of the sync's source directory, with or without a slash at the
/// end. The advice is one line without a prefix, ready for a log message.
pub fn suspicious(pattern: &[u8], source: &[u8]) -> Option<String> {
    let shown = |text: &[u8]| String::from_utf8_lossy(text).escape_debug().to_string();
    let path = paths::bare(pattern);
    let mut components = path.split(|&byte| byte == b'/').skip(1);
    let parsed = Pattern::new(pattern);
    if pattern.is_empty() {
        return Some("an empty pattern matches nothing".into());
    }
    if parsed.is_void() {
        return Some("no path can be that long or contain a zero byte".into());
    }
    if pattern == b"/" {
        return Some("the source itself is never excluded; write \"/*\" for all in it".into());
    }
    if let Some(below) = below(path, source) {
        return Some(match below {
            b"" => "the source itself is never excluded; write \"/*\" for all in it".into(),
            _ => format!(
                "patterns begin at the source, not at the root of the file system; write \"{}\"",
                shown(&[below, &pattern[path.len()..]].concat())
            ),
        });
    }
    if let Some(rest) = pattern.strip_prefix(b"./") {
        return Some(format!(
            "names never begin with \"./\"; write \"/{}\" or \"{}\"",
            shown(rest),
            shown(rest)
        ));
    }
    if path == b"." || path == b".." || path.starts_with(b"../") {
        return Some("\".\" and \"..\" are not names below the source".into());
    }
    // A slash inside brackets is no separator.
    if !path.contains(&b'[') && components.any(|part| matches!(part, b"" | b"." | b"..")) {
        return Some("no path contains \"//\", \"/./\" or \"/../\"".into());
    }
    if parsed.is_broken() {
        return Some(
            "a \"[\" is not closed or a class is unknown; write \"\\[\" for the byte".into(),
        );
    }
    if pattern.last().is_some_and(is_blank) {
        return Some("the blank at the end belongs to the name".into());
    }
    if pattern.first().is_some_and(is_blank) {
        return Some("the blank in front belongs to the name".into());
    }
    None
}

/// Returns the part of an absolute path below the source, with its leading slash.
fn below<'a>(path: &'a [u8], source: &[u8]) -> Option<&'a [u8]> {
    let is_root = paths::bare(source).is_empty();
    (!is_root).then(|| paths::below(path, source))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(pattern: &str) -> String {
        suspicious(pattern.as_bytes(), b"/srv/data/").unwrap_or_default()
    }

    #[test]
    fn absolute_paths_begin_at_the_source() {
        assert!(advice("/srv/data/sub").ends_with("write \"/sub\""));
        assert!(advice("/srv/data/sub/").ends_with("write \"/sub/\""));
        assert!(advice("/srv/data/*.o").ends_with("write \"/*.o\""));
        assert!(advice("/srv/data/").contains("never excluded"));
        assert!(advice("/srv/data").contains("never excluded"));
        assert_eq!(advice("/srv/database"), "");
        assert_eq!(suspicious(b"/a/b", b"/"), None);
    }

    #[test]
    fn what_no_name_fits() {
        for pattern in [
            "", "/", "./", "./x", "../", "..", "a//b", "/./x", "a/../b", "//a", "[a", "[[:x:]]",
            "x*\\", "a ", "a\t", " a", "a\0",
        ] {
            assert_ne!(advice(pattern), "", "{pattern:?}");
        }
        assert!(advice("./x").ends_with("write \"/x\" or \"x\""));
    }

    #[test]
    fn nothing_to_say() {
        for pattern in [
            "a", "/a", "a/", "*.o", ".*", ".git/", "**/", "/a/**/b", "a/***", "[a/]", "a b", "..a",
            "*", "a\\", "#a", "/srv", "..*", "a...", "\\[a*",
        ] {
            assert_eq!(advice(pattern), "", "{pattern:?}");
        }
    }
}
