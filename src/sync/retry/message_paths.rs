//! The paths in rsync's messages: relative to the source, to the target, or absolute there.

use crate::paths;

/// Returns the directory of a source or target as rsync names it in messages; `None` if it is
/// unknown, for example below a home directory.
pub(super) fn local_part(root: &[u8]) -> Option<Vec<u8>> {
    let path = if crate::batch::is_remote(root) {
        // The forms are `rsync://host/module/path`, `host::module/path` and `host:/path`.
        match root.strip_prefix(b"rsync://") {
            Some(rest) => without_components(rest, 2)?,
            None => {
                let colon = root.iter().position(|&byte| byte == b':')?;
                match root[colon + 1..].strip_prefix(b":") {
                    Some(module) => without_components(module, 1)?,
                    None => root[colon + 1..].to_vec(),
                }
            }
        }
    } else {
        root.to_vec()
    };
    let path = cleaned(&path);
    let path = paths::bare(&path);
    let absolute = path.is_empty() || path.starts_with(b"/");
    absolute.then(|| paths::with_slash(path))
}

/// Returns the path after this number of components, with a leading slash.
fn without_components(path: &[u8], count: usize) -> Option<Vec<u8>> {
    let mut parts = path.splitn(count + 1, |&byte| byte == b'/');
    Some(paths::rooted(parts.nth(count).unwrap_or_default()))
}

/// Returns the path without `//`, `/./` and a final `/.`.
pub(super) fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut parts = path.split(|&byte| byte == b'/');
    let mut clean = parts
        .next()
        .filter(|part| *part != b".")
        .unwrap_or_default()
        .to_vec();
    let mut begun = !clean.is_empty() || path.starts_with(b"/");
    let ends_as_directory = path.ends_with(b"/");
    for part in parts.filter(|part| !part.is_empty() && *part != b".") {
        if begun {
            clean.push(b'/');
        }
        begun = true;
        clean.extend(part);
    }
    if ends_as_directory || clean.is_empty() && path.starts_with(b"/") {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_targets() {
        let table: [(&str, Option<&str>); 12] = [
            ("/trg/", Some("/trg/")),
            ("/trg", Some("/trg/")),
            ("/", Some("/")),
            ("h:/trg/", Some("/trg/")),
            ("u@h:/a//b/./c/", Some("/a/b/c/")),
            ("h:trg/", None),
            ("h:", Some("/")),
            ("h::mod", Some("/")),
            ("h::mod/", Some("/")),
            ("h::mod/a/b", Some("/a/b/")),
            ("rsync://h:873/mod/a/", Some("/a/")),
            ("rsync://h/mod", Some("/")),
        ];
        for (target, root) in table {
            let root = root.map(|root| root.as_bytes().to_vec());
            let found = local_part(target.as_bytes());
            assert_eq!(found, root, "{target}");
        }
    }

    #[test]
    fn names_are_cleaned() {
        let table = [
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/.", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/b//", "/a/b/"),
            ("./a", "a"),
            ("./a/b", "a/b"),
            ("a/b", "a/b"),
            (".", ""),
            ("./", "/"),
            ("/", "/"),
            ("/.", "/"),
            ("//", "/"),
            ("", ""),
        ];
        for (path, expected) in table {
            let clean = cleaned(path.as_bytes());
            assert_eq!(clean.escape_ascii().to_string(), expected, "{path}");
        }
    }
}
