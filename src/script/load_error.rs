//! Failures to load a configuration.

use std::fmt;

use crate::exit::Exit;

/// A failure to load the configuration, as lines for the user.
#[derive(Debug)]
pub struct LoadError {
    /// The error messages to log.
    pub lines: Vec<String>,
    /// The exit code of the process.
    pub exit: Exit,
}

impl LoadError {
    pub(super) fn line(text: impl Into<String>) -> LoadError {
        LoadError {
            lines: vec![text.into()],
            exit: Exit::Failure,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
