//! Parses what a dry run of rsync would do, one line for each entry (rsync(1), `--out-format`).

use super::output;

/// The options that make rsync say what it would do, in the form that [`Itemized::parse`] reads.
pub const DRY_RUN: [&str; 5] = [
    "--dry-run",
    "--stats",
    "--no-human-readable",
    "--8-bit-output",
    "--out-format=%i %l %n%L",
];

/// What a transfer does to an entry of the target.
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
    /// What happens to it.
    pub difference: Difference,
    /// The size of a regular file whose contents are sent; 0 for all others.
    pub bytes: u64,
    /// Its path as rsync shows it; a directory ends with a slash.
    pub path: &'a [u8],
}

impl Itemized<'_> {
    /// Parses a line of output; `None` for a line of another form.
    pub fn parse(line: &[u8]) -> Option<Itemized<'_>> {
        // A progress line ends with a carriage return only.
        let line = line.rsplit(|&byte| byte == b'\r').next()?;
        if let Some(rest) = line.strip_prefix(b"*deleting") {
            let (_, path) = number(rest.trim_ascii_start())?;
            return Some(Itemized {
                difference: Difference::Deleted,
                bytes: 0,
                path,
            });
        }
        let end = line.iter().position(|&byte| byte == b' ')?;
        let (code, rest) = line.split_at(end);
        let &[update, kind, ref attributes @ ..] = code else {
            return None;
        };
        let is_code = b"<>ch.".contains(&update)
            && b"fdLDS".contains(&kind)
            && (7..=9).contains(&attributes.len());
        let (bytes, path) = is_code.then(|| number(&rest[1..])).flatten()?;
        let is_sent = matches!(update, b'<' | b'>');
        let difference = match update {
            _ if attributes.iter().all(|&byte| byte == b'+') => Difference::New,
            b'.' => Difference::Attributes,
            // Directories have no contents of their own.
            b'c' if kind == b'd' => Difference::Attributes,
            _ => Difference::Changed,
        };
        Some(Itemized {
            difference,
            bytes: if is_sent && kind == b'f' { bytes } else { 0 },
            path,
        })
    }
}

/// Splits a number and the text behind the blank that follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ')?;
    Some((output::count(&text[..end])?, &text[end + 1..]))
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
            ("<f+++++++++ 1,234 a b", New, 1234, "a b"),
            (">f+++++++ 7 old rsync", New, 7, "old rsync"),
            (">f.st...... 12 d/f", Changed, 12, "d/f"),
            ("cd+++++++++ 4096 d/", New, 0, "d/"),
            (".d..t...... 4096 ./", Attributes, 0, "./"),
            (".f...p..... 9 f", Attributes, 0, "f"),
            ("cL+++++++++ 3 l -> f", New, 0, "l -> f"),
            ("cLc.t...... 3 l -> g", Changed, 0, "l -> g"),
            ("hf+++++++++ 5 h => f", New, 0, "h => f"),
            ("*deleting   0 gone/", Deleted, 0, "gone/"),
            ("    100%  0:00:00\r>f+++++++++ 1 f", New, 1, "f"),
        ] {
            let expected = Some((difference, bytes, path.to_owned()));
            assert_eq!(parsed(line), expected, "{line}");
        }
        for line in [
            "",
            "sending incremental file list",
            "Number of files: 3 (reg: 2, dir: 1)",
            "deleting gone",
            ">f+++++++++ x f",
            ">f",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}
