//! Hooks: functions or commands that are called with the result of a transfer or a check.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::text_of;

/// A hook of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A program and its arguments.
    Command(Vec<Vec<u8>>),
    /// A Lua function, looked up in the sync's table.
    Function,
}
/// Returns the hook under this key.
///
/// # Errors
///
/// The value is not a hook.
pub(super) fn hook(config: &Table, key: &str) -> Result<Option<Hook>> {
    let wrong = || {
        let text = format!("{key} must be a function or a list of a program and its arguments");
        config_error_about(key, text)
    };
    match config.get(key)? {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::Function(_) => Ok(Some(Hook::Function)),
        Value::Table(list) => {
            let words = list.sequence_values::<Value>();
            let words: Result<Vec<_>> = words
                .map(|word| text_of(&word?).ok_or_else(wrong))
                .collect();
            match words? {
                words if words.first().is_some_and(|program| !program.is_empty()) => {
                    Ok(Some(Hook::Command(words)))
                }
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}
