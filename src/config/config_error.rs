//! Configuration errors. The position is added by the caller that knows the running line of Lua
//! (`script::errors`).

use std::fmt;

use mlua::Error;

/// An error in a configuration.
#[derive(Debug)]
pub struct ConfigError {
    text: String,
    key: Option<String>,
    bare: bool,
}

impl ConfigError {
    /// Returns true if the text comes first and the position behind it, as tools look for the
    /// text's beginning.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// Returns the last component of the invalid key, used to find its line.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConfigError {}

/// Returns an error for use as the result of a native function.
pub fn config_error(text: impl Into<String>) -> Error {
    Error::external(ConfigError {
        text: text.into(),
        key: None,
        bare: false,
    })
}

/// Returns an error about a key. The line of the key is added if it can be found.
pub fn config_error_about(key: &str, text: impl Into<String>) -> Error {
    Error::external(ConfigError {
        text: text.into(),
        key: Some(key.to_owned()),
        bare: false,
    })
}

/// As [`config_error_about`], with the position at the end of the text.
pub fn bare_config_error(key: &str, text: impl Into<String>) -> Error {
    Error::external(ConfigError {
        text: text.into(),
        key: Some(key.to_owned()),
        bare: true,
    })
}
