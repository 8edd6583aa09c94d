//! What is wrong with a configuration, in words. Where it is wrong is added by whoever knows
//! the running line of Lua (`script::errors`).

use std::fmt;

use mlua::Error;

/// What a native function found wrong.
#[derive(Debug)]
pub struct ConfigError {
    text: String,
    key: Option<String>,
    bare: bool,
}

impl ConfigError {
    /// Returns true if the text comes first and the position behind it, as tools look for the text's
    /// beginning.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// The configuration key that is wrong (its last component), to find its line.
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

/// An error to return from a native function.
pub fn config_error(text: impl Into<String>) -> Error {
    Error::external(ConfigError {
        text: text.into(),
        key: None,
        bare: false,
    })
}

/// As [`config_error`], for a wrong key, whose own line is named when it can be found.
pub fn config_error_about(key: &str, text: impl Into<String>) -> Error {
    Error::external(ConfigError {
        text: text.into(),
        key: Some(key.to_owned()),
        bare: false,
    })
}

/// As [`config_error_about`], with the position behind the text instead of in front.
pub fn bare_config_error(key: &str, text: impl Into<String>) -> Error {
    Error::external(ConfigError {
        text: text.into(),
        key: Some(key.to_owned()),
        bare: true,
    })
}
