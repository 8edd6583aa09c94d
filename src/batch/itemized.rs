//! Parses what a dry run of rsync would do, one line for each entry (`--itemize-changes`,
//! rsync(1)).
//!
//! Changes, length and name stand between two slashes each (`--out-format`). A name contains no two
//! slashes in a row, so the fields cannot be confused, and a line that is not of this form is
//! another message of rsync.

use super::output;

/// The options that make rsync say what it would do, for [`Itemized::parse`].
pub const DRY_RUN: [&str; 5] = [
    "--dry-run",
    "--stats",
    "--no-human-readable",
    "--8-bit-output",
    "--out-format=//%i//%l//%n%L//",
];

/// The effect of a transfer on an entry of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It does not exist and is created.
    New,
    /// It exists and gets other contents.
    Changed,
    /// It gets other attributes only.
    Attributes,
    /// It is deleted.
    Deleted,
}

/// One entry that a transfer would touch.
#[derive(Debug, PartialEq, Eq)]
pub struct Itemized<'a> {
    /// The effect of the transfer.
    pub difference: Difference,
    /// The size of a regular file whose contents are sent; 0 for all others.
    pub bytes: u64,
    /// Its path as rsync shows it; a directory ends with a slash.
    pub path: &'a [u8],
}

/// The fields of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemizedLine<'a> {
    /// The kind of update (`<`, `>`, `c`, `h` or `.`); `None` for a deletion.
    pub update: Option<u8>,
    /// The type of the file.
    pub file: u8,
    /// The letters of the attributes, beginning with that of the contents.
    pub attributes: &'a [u8],
    /// The length of the file.
    pub length: u64,
    /// The name, as rsync prints it.
    pub name: &'a [u8],
}

impl ItemizedLine<'_> {
    /// Parses a complete line of output; `None` for another message.
    pub fn parse(line: &[u8]) -> Option<ItemizedLine<'_>> {
        let inside = line.strip_prefix(b"//")?.strip_suffix(b"//")?;
        let (code, rest) = split(inside)?;
        let (length, name) = split(rest)?;
        let length = output::count(length).unwrap_or_default();
        if code.starts_with(b"*deleting") {
            return Some(ItemizedLine {
                update: None,
                file: 0,
                attributes: b"",
                length,
                name,
            });
        }
        let (&update, &file) = (code.first()?, code.get(1)?);
        Some(ItemizedLine {
            update: Some(update),
            file,
            attributes: code.get(2..)?,
            length,
            name,
        })
    }

    /// Returns true if the entry does not exist on the target.
    pub fn is_new(&self) -> bool {
        self.attributes.first() == Some(&b'+')
    }
}

impl Itemized<'_> {
    /// Parses a line of output; `None` for another message.
    pub fn parse(line: &[u8]) -> Option<Itemized<'_>> {
        // A progress line ends with a carriage return only.
        let line = ItemizedLine::parse(line.rsplit(|&byte| byte == b'\r').next()?)?;
        let difference = match line.update {
            None => Difference::Deleted,
            Some(_) if line.is_new() => Difference::New,
            Some(b'.') => Difference::Attributes,
            // Directories have no contents of their own.
            Some(b'c') if line.file == b'd' => Difference::Attributes,
            Some(_) => Difference::Changed,
        };
        let is_sent = matches!(line.update, Some(b'<' | b'>')) && line.file == b'f';
        Some(Itemized {
            difference,
            bytes: if is_sent { line.length } else { 0 },
            path: line.name,
        })
    }
}

/// Splits at the first two slashes.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.windows(2).position(|pair| pair == b"//")?;
    Some((&text[..at], &text[at + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(Difference, u64, String)> {
        let found = Itemized::parse(line.as_bytes())?;
        let path = String::from_utf8_lossy(found.path).into_owned();
        Some((found.difference, found.bytes, path))
    }

    #[test]
    fn each_kind_of_change_is_told_from_the_others() {
        use Difference::{Attributes, Changed, Deleted, New};
        for (line, difference, bytes, path) in [
            ("//<f+++++++++//1,234//a b//", New, 1234, "a b"),
            ("//>f+++++++//7//old rsync//", New, 7, "old rsync"),
            ("//>f.st......//12//d/f//", Changed, 12, "d/f"),
            ("//cd+++++++++//4096//d///", New, 0, "d/"),
            ("//.d..t......//4096//.///", Attributes, 0, "./"),
            ("//.f...p.....//9//f//", Attributes, 0, "f"),
            ("//cL+++++++++//3//l -> f//", New, 0, "l -> f"),
            ("//cLc.t......//3//l -> g//", Changed, 0, "l -> g"),
            ("//hf+++++++++//5//h => f//", New, 0, "h => f"),
            ("//*deleting//0//gone///", Deleted, 0, "gone/"),
            ("    100%  0:00:00\r//>f+++++++++//1//f//", New, 1, "f"),
        ] {
            let expected = Some((difference, bytes, path.to_owned()));
            assert_eq!(parsed(line), expected, "{line}");
        }
        for line in [
            "",
            "sending incremental file list",
            "Number of files: 3 (reg: 2, dir: 1)",
            "deleting gone",
            "//>f+++++++++//f//",
            "//>f",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}
