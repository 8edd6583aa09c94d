//! The source directory of a sync, resolved when the configuration runs.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::paths;

/// An invalid source. The message has two lines, as in lsyncd.
#[derive(Debug)]
pub struct SourceError {
    given: Vec<u8>,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unresolved(io::Error),
    NotADirectory,
}

impl SourceError {
    /// Returns true if there is nothing of that name, yet.
    pub fn is_missing(&self) -> bool {
        matches!(&self.why, Why::Unresolved(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the lines to log.
    pub fn lines(&self) -> [String; 2] {
        let given = crate::log::escape(&self.given);
        let first = match &self.why {
            Why::Unresolved(error) => {
                format!("failure getting absolute path of [{given}]: {error}")
            }
            Why::NotADirectory => {
                format!("cannot get absolute path of dir '{given}': is not a directory")
            }
        };
        [first, format!("Cannot access source directory: {given}")]
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for SourceError {}

/// Returns the absolute path of a directory, with symbolic links resolved and one trailing slash.
///
/// # Errors
///
/// The directory does not exist or is not accessible, or it is not a directory.
pub fn real_directory(given: &[u8]) -> Result<Vec<u8>, SourceError> {
    let fail = |why| SourceError {
        given: given.to_vec(),
        why,
    };
    let real =
        fs::canonicalize(OsStr::from_bytes(given)).map_err(|error| fail(Why::Unresolved(error)))?;
    if !real.is_dir() {
        return Err(fail(Why::NotADirectory));
    }
    let mut path = real.into_os_string().into_vec();
    paths::push_slash(&mut path);
    Ok(path)
}

/// Returns the absolute path of a directory, symbolic links kept, with one slash at its end; `None`
/// if it is relative and the working directory is unknown.
pub fn named_directory(given: &[u8]) -> Option<Vec<u8>> {
    let path = std::path::absolute(OsStr::from_bytes(given)).ok()?;
    let mut path: Vec<u8> = path.into_os_string().into_vec();
    while path.last() == Some(&b'/') {
        path.pop();
    }
    path.push(b'/');
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_name_of_a_source() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        let named = |text: &[u8]| named_directory(text).unwrap();
        let given = link.as_os_str().as_bytes();
        for end in [&b""[..], b"/", b"//", b"/."] {
            assert_eq!(named(&[given, end].concat()), [given, b"/"].concat());
        }
        assert_eq!(named(b"/"), b"/");
        let here = std::env::current_dir().unwrap();
        let here = here.as_os_str().as_bytes();
        assert_eq!(named(b"a//b"), [here, b"/a/b/"].concat());
    }

    #[test]
    fn the_root_has_one_slash() {
        assert_eq!(real_directory(b"/").unwrap(), b"/");
        assert_eq!(real_directory(b"/usr/").unwrap(), b"/usr/");
    }

    #[test]
    fn a_source_that_is_no_directory_is_refused() {
        let text = real_directory(b"/dev/null").unwrap_err().to_string();
        assert!(text.contains("is not a directory\nCannot access source directory: /dev/null"));
        let text = real_directory(b"/no/such").unwrap_err().to_string();
        assert!(text.starts_with("failure getting absolute path of [/no/such]"));
    }
}
