//! The differences at a path, from a line that a dry run of rsync writes with [`FORMAT`].

use std::borrow::Cow;

use super::error_lines::unescape;
use super::itemized::ItemizedLine;
use crate::paths;
use crate::status::drift_report::DriftKind;

/// The value of `--out-format`: the changes, the length and the name, each between two slashes.
pub const FORMAT: &str = "//%i//%l//%n//";

/// The difference of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathDrift {
    /// The path relative to the source, with a leading slash and none at the end; `/` for the
    /// source itself.
    pub path: Vec<u8>,
    /// True for a directory.
    pub is_directory: bool,
    /// The differences, in the order of [`DriftKind`]; at least one.
    pub kinds: Vec<DriftKind>,
}

/// Reads a complete line; `None` for another message, and for a path without a difference.
pub fn change(line: &[u8]) -> Option<PathDrift> {
    let line = ItemizedLine::parse(line)?;
    let kinds = kinds(&line)?;
    let name = unescape(line.name);
    let path = paths::bare(&name);
    Some(PathDrift {
        path: match path {
            b"" | b"." => b"/".to_vec(),
            path => paths::rooted(path),
        },
        is_directory: name.ends_with(b"/"),
        kinds,
    })
}

/// Returns the path of a line about a file that both sides have, whether it differs or not.
pub fn common_file(line: &[u8]) -> Option<Vec<u8>> {
    let line = ItemizedLine::parse(line)?;
    let is_common = line.file == b'f' && !line.is_new();
    is_common.then(|| paths::rooted(paths::bare(&unescape(line.name))))
}

/// Returns the differences in the code of a line; `None` if nothing differs.
fn kinds(line: &ItemizedLine<'_>) -> Option<Vec<DriftKind>> {
    let Some(update) = line.update else {
        return Some(vec![DriftKind::Extra]);
    };
    if line.is_new() {
        return Some(vec![DriftKind::Missing]);
    }
    let mut attributes = line.attributes.iter();
    let is_blank = attributes.all(|byte| matches!(byte, b' ' | b'.'));
    if is_blank && update == b'h' {
        // The contents are equal, but the name is not a hard link of the file.
        return Some(vec![DriftKind::Link]);
    }
    let letters = line.attributes.iter();
    let mut kinds: Vec<_> = letters.filter_map(|&b| kind(line.file, b)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    (!kinds.is_empty()).then_some(kinds)
}

/// Returns the difference that a letter denotes for a file of this type. `T` is not among them: the
/// time is not mirrored.
fn kind(file: u8, letter: u8) -> Option<DriftKind> {
    Some(match letter {
        b'c' if file == b'L' => DriftKind::Link,
        b's' => DriftKind::Size,
        b'c' => DriftKind::Content,
        b't' | b'u' | b'n' | b'b' => DriftKind::Time,
        b'p' => DriftKind::Mode,
        b'o' => DriftKind::Owner,
        b'g' => DriftKind::Group,
        b'a' => DriftKind::Acl,
        b'x' => DriftKind::Xattr,
        _ => return None,
    })
}

/// Joins the pieces of lines that are longer than those that a child's output is cut into.
#[derive(Debug, Default)]
pub struct DriftLines {
    begun: Vec<u8>,
}

/// The maximum length of a line: a path of 4096 bytes, each in rsync's escaped form.
const MAX_LINE_BYTES: usize = 32 * 1024;

impl DriftLines {
    /// Adds a line or a piece of one. Returns the line once it is complete.
    pub fn push<'a>(&mut self, piece: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let begins = piece.starts_with(b"//") && piece.len() > 2;
        if begins || self.begun.is_empty() || self.begun.len() + piece.len() > MAX_LINE_BYTES {
            self.begun.clear();
            if is_complete(piece) || !begins {
                return Some(Cow::Borrowed(piece));
            }
            self.begun.extend_from_slice(piece);
            return None;
        }
        self.begun.extend_from_slice(piece);
        is_complete(&self.begun).then(|| Cow::Owned(std::mem::take(&mut self.begun)))
    }
}

fn is_complete(line: &[u8]) -> bool {
    line.len() > 4 && line.starts_with(b"//") && line.ends_with(b"//")
}

#[cfg(test)]
mod tests {
    use super::*;
    use DriftKind::*;

    fn read(line: &str) -> Option<(String, Vec<DriftKind>)> {
        let change = change(line.as_bytes())?;
        let path = change.path.escape_ascii().to_string();
        Some((path, change.kinds))
    }

    #[test]
    fn each_code_is_named() {
        for (code, expected) in [
            (">f+++++++++", &[Missing][..]),
            ("cd+++++++++", &[Missing]),
            ("cL+++++++++", &[Missing]),
            ("hf+++++++++", &[Missing]),
            ("*deleting  ", &[Extra]),
            ("*deleting", &[Extra]),
            (">fc........", &[Content]),
            (">f.s.......", &[Size]),
            (">fcst......", &[Size, Content, Time]),
            (">f..t......", &[Time]),
            ("<f..t......", &[Time]),
            (".d..t......", &[Time]),
            (".f...p.....", &[Mode]),
            (".f....o....", &[Owner]),
            (".f....og...", &[Owner, Group]),
            (".f.....g...", &[Group]),
            (".f........x", &[Xattr]),
            (".f.......a.", &[Acl]),
            ("cLc.t......", &[Time, Link]),
            ("cLc.T......", &[Link]),
            ("hf         ", &[Link]),
            (".f...pog.ax", &[Mode, Owner, Group, Acl, Xattr]),
            ("cDc........", &[Content]),
            // rsync before 3.0 has fewer positions.
            (".f...pog.", &[Mode, Owner, Group]),
        ] {
            let line = format!("//{code}//12//d/name//");
            let (path, kinds) = read(&line).unwrap_or_else(|| panic!("{code}"));
            assert_eq!((path.as_str(), kinds.as_slice()), ("/d/name", expected));
        }
    }

    #[test]
    fn what_does_not_differ_is_no_change() {
        for line in [
            "//.f         //6//acl//",
            "//.d//4096//d///",
            // The time is not mirrored, so every file has another one.
            "//>f..T......//6//file//",
            "//.f..........//6//file//",
            "sending incremental file list",
            "skipping non-regular file \"fifo\"",
            "total: matches=0  hash_hits=0  false_alarms=0 data=0",
            "Number of files: 22 (reg: 15, dir: 5)",
            "",
            "////",
            "//",
            "//>f+++++++++//",
            "//>f+++++++++//12//",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn files_on_both_sides_are_told_from_others() {
        for (line, expected) in [
            ("//.f          //6//d/a//", Some("/d/a")),
            ("//>f..t......//6//a\\#012b//", Some("/a\nb")),
            ("//>f+++++++++//6//a//", None),
            ("//*deleting  //6//a//", None),
            ("//.d          //4096//d///", None),
            ("//.L          //3//l//", None),
            ("Number of files: 1", None),
        ] {
            let path = common_file(line.as_bytes());
            assert_eq!(path.as_deref(), expected.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn names_are_bytes() {
        for (name, expected) in [
            ("./", "/"),
            ("d/", "/d"),
            ("n\\#012l]*", "/n\\nl]*"),
            ("a\\#134#012b", "/a\\\\#012b"),
            ("hi\\#377gh", "/hi\\xffgh"),
            (" lead and trail ", "/ lead and trail "),
            ("=> x -> y", "/=> x -> y"),
        ] {
            let line = format!("//>f+++++++++//7//{name}//");
            assert_eq!(read(&line).unwrap().0, expected);
        }
        let line = [b"//>fc........//1,234//hi\xffgh//".as_slice()].concat();
        let change = change(&line).unwrap();
        assert_eq!(change.path, b"/hi\xffgh");
        assert!(!change.is_directory);
    }

    #[test]
    fn long_lines_are_joined() {
        let name = "\\#001".repeat(3000);
        let line = format!("//>f+++++++++//7//{name}//");
        let mut lines = DriftLines::default();
        let pieces: Vec<_> = line.as_bytes().chunks(8192).collect();
        assert_eq!(pieces.len(), 2);
        assert_eq!(lines.push(pieces[0]), None);
        assert_eq!(lines.push(pieces[1]).unwrap(), line.as_bytes());
        assert_eq!(
            lines.push(b"Number of files: 1").unwrap(),
            &b"Number of files: 1"[..]
        );
        // The end of a line is cut off with the connection.
        assert_eq!(lines.push(b"//>f+++++++++//7//half"), None);
        let next = b"//>f+++++++++//7//next//";
        assert_eq!(lines.push(next).unwrap(), &next[..]);
    }
}
