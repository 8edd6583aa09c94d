//! Checks source and target of the configuration. Names are bytes, and are made absolute.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::daemon::inspect::RsyncTarget;
use crate::log::escape;

/// The values of the configuration.
pub struct Answers {
    /// The source directory.
    pub source: Vec<u8>,
    /// The target.
    pub destination: Destination,
    /// True if files on the target that are not in the source are deleted.
    pub delete: bool,
    /// The seconds during which changes are collected.
    pub delay: f64,
    /// Options of ssh.
    pub ssh_words: Vec<Vec<u8>>,
    /// The log file, if it is not the default.
    pub logfile: Option<Vec<u8>>,
}

/// The target of the configuration.
#[derive(Debug, PartialEq)]
pub enum Destination {
    /// A directory of a host that ssh logs in to.
    Shell {
        /// The host, with or without a user.
        host: Vec<u8>,
        /// The directory there.
        directory: Vec<u8>,
    },
    /// A local directory, or a module of an rsync daemon.
    Plain(Vec<u8>),
}

/// Returns the source, which must be a directory.
///
/// # Errors
///
/// It is not a directory.
pub fn source(answer: &[u8], directory: &Path) -> Result<Vec<u8>, String> {
    let path = absolute(answer, directory)?;
    match std::fs::metadata(OsStr::from_bytes(&path)) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(format!("{} is not a directory", escape(&path))),
        Err(error) => {
            let reason = crate::log::reason(&error);
            Err(format!("{}: {reason}", escape(&path)))
        }
    }
}

/// Returns the target.
///
/// # Errors
///
/// It has no host or no directory, or ssh or rsync would take it for an option.
pub fn destination(answer: &[u8], directory: &Path) -> Result<Destination, String> {
    if answer.starts_with(b"-") {
        return Err("a target cannot begin with -".into());
    }
    match RsyncTarget::parse(answer) {
        RsyncTarget::Local(path) => Ok(Destination::Plain(absolute(path, directory)?)),
        RsyncTarget::Daemon(..) => Ok(Destination::Plain(answer.to_vec())),
        RsyncTarget::Shell(b"", _) => Err("the host before the colon is missing".into()),
        RsyncTarget::Shell(_, b"") => Err("the directory after the colon is missing".into()),
        RsyncTarget::Shell(host, directory) => Ok(Destination::Shell {
            host: host.to_vec(),
            directory: directory.to_vec(),
        }),
    }
}

/// Returns an answer with the user's home in place of `~/`, as a shell has it.
pub fn without_tilde(answer: &[u8]) -> Vec<u8> {
    match (answer.strip_prefix(b"~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => [home.as_bytes(), b"/", rest].concat(),
        _ => answer.to_vec(),
    }
}

fn absolute(path: &[u8], directory: &Path) -> Result<Vec<u8>, String> {
    match path {
        b"" => Err("a directory is needed".into()),
        path => Ok(directory
            .join(OsStr::from_bytes(path))
            .into_os_string()
            .into_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_become_absolute_or_are_split_at_the_host() {
        let parsed = |text: &str| destination(text.as_bytes(), Path::new("/here"));
        let plain = |text: &str| Ok(Destination::Plain(text.into()));
        let shell = |host: &str, directory: &str| {
            Ok(Destination::Shell {
                host: host.into(),
                directory: directory.into(),
            })
        };
        assert_eq!(parsed("/t"), plain("/t"));
        assert_eq!(parsed("t/u"), plain("/here/t/u"));
        assert_eq!(parsed("./a:b"), plain("/here/./a:b"));
        assert_eq!(parsed("u@h:/t"), shell("u@h", "/t"));
        assert_eq!(parsed("h:t"), shell("h", "t"));
        assert_eq!(parsed("[::1]:/t"), shell("[::1]", "/t"));
        assert_eq!(parsed("h::m/d"), plain("h::m/d"));
        for wrong in ["", "h:", ":/t", "-oProxyCommand=x:/t"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
