//! Errors of the command line. The texts are lsyncd's.

use std::ffi::OsString;
use std::fmt;

use crate::spelling::nearest;

/// An invalid command line. The texts are lsyncd's.
#[derive(Debug, PartialEq)]
pub enum Error {
    /// An unknown option, as given.
    Unknown(OsString),
    /// An option without its arguments: its name without dashes and their number.
    Missing(&'static str, usize),
    /// Both a configuration file and a sync option such as `-rsync`.
    SyncsAndConfig,
    /// More than one configuration file.
    TwoConfigs,
    /// `-json` without `-check` or `-preview`.
    OnlyJson,
    /// `-all` without `-preview`.
    OnlyAll,
    /// `-connect` without `-check`.
    OnlyConnect,
    /// `-delete` without `-init`.
    OnlyDelete,
    /// `-init` with one word, or more than three.
    InitWords,
    /// `-init` with a configuration file, a sync option or a question about a configuration.
    InitAlone,
    /// A question about a configuration without one, and its option without dashes.
    NothingToInspect(&'static str),
    /// An unknown category of `-log`.
    Category(String),
}

/// The names of all options, the most common ones first.
const OPTIONS: &[&str] = &[
    "version", "nodaemon", "help", "log", "insist", "delay", "rsync", "pidfile", "logfile",
    "check", "explain", "onepass", "direct", "rsyncssh", "script", "sshopts", "json", "keys",
    "monitor", "preview", "all", "connect", "init", "delete",
];

/// Returns the most similar option.
fn similar_option(word: &str) -> Option<&'static str> {
    let name = word.to_ascii_lowercase().replace(['-', '_'], "");
    let name = name.split('=').next().filter(|name| !name.is_empty())?;
    let mut options = OPTIONS.iter().copied();
    let begins = options.find(|option| option.starts_with(name));
    let similar = || nearest(name, OPTIONS.iter().copied());
    let part = || OPTIONS.iter().copied().find(|option| option.contains(name));
    begins.or_else(similar).or_else(part)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown(word) => {
                write!(f, "unknown option command line option {}", word.display())?;
                match similar_option(&word.to_string_lossy()) {
                    Some(option) => write!(f, "\n      Did you mean -{option}?"),
                    None => Ok(()),
                }
            }
            Error::Missing(option, count) => write!(f, "{option} needs {count} arguments"),
            Error::SyncsAndConfig => {
                f.write_str("There cannot be command line syncs and a config file together.")
            }
            Error::TwoConfigs => {
                f.write_str("There can only be one config file in the command line.")
            }
            Error::OnlyJson => f.write_str("-json goes with -check and -preview only."),
            Error::OnlyConnect => f.write_str("-connect goes with -check only."),
            Error::OnlyAll => f.write_str("-all goes with -preview only."),
            Error::OnlyDelete => f.write_str("-delete goes with -init only."),
            Error::InitWords => {
                f.write_str("-init needs SRC and TRG, SRC, TRG and CONFIG, or nothing.")
            }
            Error::InitAlone => f.write_str(
                "-init writes a configuration; it needs none, and no syncs on the command line. \
                 CONFIG is its third word: -init SRC TRG CONFIG.",
            ),
            Error::NothingToInspect(option) => write!(
                f,
                "-{option} needs a configuration file, or a sync on the command line."
            ),
            Error::Category(word) => f.write_str(word),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_do_not_exist_lead_to_those_that_do() {
        for (word, option) in [
            ("-v", "version"),
            ("-n", "nodaemon"),
            ("-pid", "pidfile"),
            ("-daemon", "nodaemon"),
            ("--nodeamon", "nodaemon"),
            ("--delay=5", "delay"),
            ("--log-file", "logfile"),
            ("-V", "version"),
        ] {
            assert_eq!(similar_option(word), Some(option), "{word}");
        }
        for word in ["-foo", "-", "--", "-config"] {
            assert_eq!(similar_option(word), None, "{word}");
        }
    }
}
