//! Byte paths: slashes, parents and components, by their text alone.
//!
//! A path within a source or a target begins with a slash. The path of a directory ends with one:
//! `/d/f`, `/d/`, and `/` for the root. An absolute path of a source ends with a slash as well.

/// Returns the path without a trailing slash: `/d` for `/d/`, and nothing for `/`.
pub fn bare(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Returns the path with a trailing slash.
pub fn with_slash(path: &[u8]) -> Vec<u8> {
    [bare(path), b"/"].concat()
}

/// Appends a slash, unless the path ends with one.
pub fn push_slash(path: &mut Vec<u8>) {
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
}

/// Returns the path without a leading slash.
pub fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// Returns the path with a leading slash.
pub fn rooted(path: &[u8]) -> Vec<u8> {
    [b"/", relative(path)].concat()
}

/// Returns the path below a directory, with one slash between them.
pub fn join(directory: &[u8], path: &[u8]) -> Vec<u8> {
    [bare(directory), b"/", relative(path)].concat()
}

/// Returns the parent directory of a path, with its slash, and its name without one: `/d/` and `e`
/// for `/d/e/`. The parent is empty if there is none.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let bare = bare(path);
    let slash = bare.iter().rposition(|&byte| byte == b'/');
    bare.split_at(slash.map_or(0, |slash| slash + 1))
}

/// Returns the parent directory of a path, with its slash; `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    let (parent, _) = split(path);
    (!parent.is_empty()).then_some(parent)
}

/// Returns the directories of a path from the root, with their slashes: `/` and `/d/` for `/d/f`.
/// The path itself is the last one if it ends with a slash.
pub fn directories(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let slashes = (0..path.len()).filter(|&at| path[at] == b'/');
    slashes.map(|slash| &path[..=slash])
}

/// Returns the components of a path, without empty ones.
pub fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
}

/// Returns the part of a path below a directory, with its leading slash; nothing for the directory
/// itself, and `None` for a path outside.
pub fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(bare(directory))?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// Returns the path that a rename of `from` to `to` gives to a path at or below `from`; `None` for
/// other paths.
pub fn moved(path: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let rest = below(path, from)?;
    Some([bare(to), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_and_joins() {
        assert_eq!(split(b"/a/b/"), (b"/a/".as_slice(), b"b".as_slice()));
        assert_eq!(split(b"/a"), (b"/".as_slice(), b"a".as_slice()));
        assert_eq!(split(b"a"), (b"".as_slice(), b"a".as_slice()));
        assert_eq!((parent(b"/"), parent(b"/d/")), (None, Some(&b"/"[..])));
        assert_eq!(join(b"/s/", b"/d/f"), b"/s/d/f");
        assert_eq!(join(b"/", b"f"), b"/f");
        assert_eq!(names(b"//a//b/").collect::<Vec<_>>(), [b"a", b"b"]);
        let found: Vec<_> = directories(b"/d/e/f").collect();
        assert_eq!(found, [&b"/"[..], b"/d/", b"/d/e/"]);
        assert_eq!(directories(b"/d/").next_back(), Some(&b"/d/"[..]));
    }

    #[test]
    fn finds_what_is_below_a_directory() {
        assert_eq!(below(b"/s/a", b"/s/"), Some(&b"/a"[..]));
        assert_eq!(below(b"/s/a/", b"/s"), Some(&b"/a/"[..]));
        assert_eq!(below(b"/s", b"/s/"), Some(&b""[..]));
        assert_eq!(below(b"/", b"/"), Some(&b"/"[..]));
        assert_eq!(below(b"/sa", b"/s"), None);
    }

    proptest! {
        #[test]
        fn parts_make_the_path_again(path in "(/[a-c]{1,2}){1,4}/?") {
            let path = path.as_bytes();
            let (parent, name) = split(path);
            prop_assert_eq!(&join(parent, name), bare(path));
            prop_assert_eq!(rooted(relative(path)), path);
            prop_assert_eq!(directories(bare(path)).next_back(), Some(parent));
            prop_assert!(directories(path).all(|above| below(path, above).is_some()));
            let rest: Vec<&[u8]> = names(path).collect();
            prop_assert_eq!(&[b"/", rest.join(&b'/').as_slice()].concat(), bare(path));
        }
    }
}
