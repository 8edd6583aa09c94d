//! The names of rsync's temporary files in its messages.
//!
//! A file is written as `.NAME.XXXXXX` in its directory, or as `NAME.XXXXXX` in the directory of
//! `--temp-dir`. Symlinks and devices are created as `.NAME.N` with a number. `NAME` is the name of
//! the file without a dot at either end. A long name is truncated to 246 bytes, or fewer if a
//! character that is not ASCII would be cut.

/// rsync truncates longer names; the leading dot does not count.
const MAX_STEM: usize = 246;

/// Digits of the number that makes the name of a symlink or a device unique.
const MAX_DIGITS: usize = 6;

/// The directory and the name that a temporary file shares with its final file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TempName<'a> {
    /// The directory, with a trailing slash.
    pub directory: &'a [u8],
    /// The name of the file, or the beginning of it, without a dot in front.
    stem: &'a [u8],
}

impl<'a> TempName<'a> {
    /// Reads the path of a temporary file; `None` if it is not one.
    pub fn new(path: &'a [u8]) -> Option<TempName<'a>> {
        let slash = path.iter().rposition(|&byte| byte == b'/')?;
        let (directory, name) = path.split_at(slash + 1);
        let dot = name.iter().rposition(|&byte| byte == b'.')?;
        let suffix = &name[dot + 1..];
        let is_number = !suffix.is_empty()
            && suffix.len() <= MAX_DIGITS
            && suffix.iter().all(u8::is_ascii_digit);
        let stem = name[..dot].strip_prefix(b".");
        if suffix.len() != 6 && !(is_number && stem.is_some()) {
            return None;
        }
        let stem = stem.unwrap_or(&name[..dot]);
        Some(TempName { directory, stem })
    }

    /// Returns the possible paths of the final file if rsync does not truncate its name.
    pub fn originals(self) -> impl Iterator<Item = Vec<u8>> {
        let dots: [(&[u8], &[u8]); 4] = [(b"", b""), (b".", b""), (b"", b"."), (b".", b".")];
        let dots = dots.into_iter().filter(move |_| !self.stem.is_empty());
        dots.map(move |(front, end)| [self.directory, front, self.stem, end].concat())
    }

    /// Returns true if the final file may have this name, which rsync truncates.
    pub fn may_be_of_long(self, name: &[u8]) -> bool {
        is_cut(name) && without_dot(name).starts_with(self.stem)
    }

    /// Returns the prefix of the keys of [`long_key`] of possible final files.
    pub fn long_start(self) -> Vec<u8> {
        [self.directory, self.stem].concat()
    }
}

/// Returns the path and, if it is the path of a temporary file, the possible paths of the final
/// file.
pub fn variants(path: &[u8]) -> Vec<Vec<u8>> {
    let originals = TempName::new(path).map(TempName::originals);
    let originals = originals.into_iter().flatten();
    std::iter::once(path.to_vec()).chain(originals).collect()
}

/// Returns true if rsync truncates this name in the name of the temporary file.
pub fn is_cut(name: &[u8]) -> bool {
    without_dot(name).len() > MAX_STEM
}

/// Returns the prefix of the path of the temporary file, if the name is truncated.
pub fn long_key(path: &[u8]) -> Option<Vec<u8>> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    let (directory, name) = path.split_at(slash + 1);
    is_cut(name).then(|| [directory, without_dot(name)].concat())
}

fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_prefix(b".").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_it_may_be_for() {
        let table: [(&str, &[&str]); 9] = [
            ("/d/.f.Ab12Cd", &["/d/f", "/d/.f", "/d/f.", "/d/.f."]),
            (
                "/tmp/f.Ab12Cd",
                &["/tmp/f", "/tmp/.f", "/tmp/f.", "/tmp/.f."],
            ),
            ("/.l.7", &["/l", "/.l", "/l.", "/.l."]),
            ("/.l.123456", &["/l", "/.l", "/l.", "/.l."]),
            // A long name without ASCII characters is truncated to nothing.
            ("/d/.Ab12Cd", &[]),
            ("/d/log.1", &[]),
            ("/d/.l.1234567", &[]),
            ("/d/.l.", &[]),
            ("name", &[]),
        ];
        for (path, expected) in table {
            let originals = TempName::new(path.as_bytes()).map(TempName::originals);
            let originals: Vec<_> = originals.into_iter().flatten().collect();
            let expected: Vec<_> = expected.iter().map(|path| path.as_bytes()).collect();
            assert_eq!(originals, expected, "{path}");
        }
    }

    #[test]
    fn long_names() {
        let ascii = "n".repeat(255);
        let other = "é".repeat(127);
        let mixed = format!("a{other}");
        for (name, temporary, expected) in [
            (&ascii, format!("/d/.{}.Ab12Cd", &ascii[..246]), true),
            (&other, "/d/.Ab12Cd".to_owned(), true),
            (&mixed, "/d/.a.Ab12Cd".to_owned(), true),
            (
                &format!(".{ascii}"),
                format!("/d/.{}.Ab12Cd", &ascii[..246]),
                true,
            ),
            (&mixed, "/d/.b.Ab12Cd".to_owned(), false),
            (
                &ascii[..246].to_owned(),
                format!("/d/.{}.Ab12Cd", &ascii[..246]),
                false,
            ),
            (&"a".to_owned(), "/d/.a.Ab12Cd".to_owned(), false),
        ] {
            let temporary = TempName::new(temporary.as_bytes()).unwrap();
            assert_eq!(
                temporary.may_be_of_long(name.as_bytes()),
                expected,
                "{name}"
            );
            let key = long_key(format!("/d/{name}").as_bytes());
            let begins = key.is_some_and(|key| key.starts_with(&temporary.long_start()));
            assert_eq!(begins, expected, "{name}");
        }
    }
}
