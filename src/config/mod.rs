//! Configuration: converts the tables of `settings{}` and `sync{}` to typed values and checks them.
//!
//! The tables a `sync{}` inherits from are merged ([`inherit`]). Its `prepare` function checks the
//! keys ([`keys::checkgauge`]) and computes the rsync arguments ([`rsync_args`]). The result
//! becomes a [`SyncConfig`].
//!
//! * `keys`: the table of all keys, and the check for unknown ones;
//! * `settings_table`, `settings`: the values of `settings{}`, and the same in types;
//! * `hook`: functions or commands that are called with a result;
//! * `sync_config`, `values`: the typed values of a sync, and the checks of its values;
//! * `inherit`: inheritance;
//! * `source`, `target`: the source directory, and refusal of dangerous local targets;
//! * `backup`: the dated directories of `backup`;
//! * `guard`, `priority`, `bandwidth`: `guard`, `nice` and `ionice`, `rsync.bwlimit` by time of
//!   day;
//! * `verify`: comparisons at given times;
//! * `warm_start`: the properties of a sync that `init = "changed"` requires;
//! * `rsync_args`: the arguments common to all rsync calls of a sync;
//! * `ssh`: ssh as rsync's remote shell, moves on the target, shared connections;
//! * `check`: checks of files;
//! * `config_error`: the error of an invalid configuration.
//!
//! The room reads Lua tables and the file system. It runs no user code, starts no processes and
//! knows neither running syncs nor the event loop.

pub mod backup;
mod bandwidth;
mod check;
mod config_error;
mod guard;
mod hook;
pub mod inherit;
pub mod keys;
mod priority;
pub mod rsync_args;
mod settings;
mod settings_table;
mod source;
pub mod ssh;
mod sync_config;
pub mod target;
mod values;
mod verify;
mod warm_start;

pub use backup::Backup;
pub use bandwidth::Bandwidth;
pub use check::{Check, CheckConfig, OnReject, Scanner, Staging, is_check};
pub use config_error::{ConfigError, bare_config_error, config_error, config_error_about};
pub use guard::{Guard, MaxDelete};
pub use hook::Hook;
pub use settings::{ControlSocket, Hup, Settings};
pub use settings_table::SettingsTable;
pub use source::{SourceError, real_directory};
pub use ssh::share as share_ssh;
pub use sync_config::{Delete, SyncConfig, filter, is_delete, is_value};
pub use target::destination;
pub use values::{check_values, no_text, unknown_results};
pub use verify::{VerifyConfig, verify};
pub use warm_start::WarmStartConfig;

use mlua::{Result, Table, Value};

/// Returns true if Lua takes the value for true: everything but `false` and `nil`.
pub fn truthy(value: &Value) -> bool {
    !matches!(value, Value::Nil | Value::Boolean(false))
}

/// The text of a string or number value, as Lua prints it; `None` for other types.
pub fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(_) | Value::Number(_) => value.to_string().ok().map(String::into_bytes),
        _ => None,
    }
}

/// Returns a text or a list of texts.
fn texts(config: &Table, key: &str) -> Result<Vec<Vec<u8>>> {
    let wrong = || config_error_about(key, format!("type for {key} must be table or string"));
    match config.get(key)? {
        Value::Nil | Value::Boolean(false) => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.as_bytes().to_vec()]),
        Value::Table(list) => list
            .sequence_values::<Value>()
            .map(|value| text_of(&value?).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
    }
}

/// Returns a text or number argument of a function as text. `function` is named in the error.
pub fn text_argument(value: &Value, function: &str) -> Result<Vec<u8>> {
    text_of(value)
        .ok_or_else(|| config_error(format!("{function} needs a text, not {}", kind_of(value))))
}

/// Returns the type of a value, for messages: "not {}".
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(true) => "true",
        Value::Boolean(false) => "false",
        Value::Integer(_) | Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Table(_) => "a table",
        Value::Function(_) => "a function",
        Value::Thread(_) => "a coroutine",
        _ => "an object",
    }
}

/// Returns a value as a number; texts in Lua's number syntax are numbers.
pub fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => parse_number(&text.to_string_lossy()),
        _ => None,
    }
}

/// A number in Lua's syntax as far as options need it: decimal, with exponent, or `0x10`.
pub fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok().map(|n| n as f64);
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_lua_does() {
        assert_eq!(parse_number("0.5"), Some(0.5));
        assert_eq!(parse_number(" 0x10 "), Some(16.0));
        assert_eq!(parse_number("1e2"), Some(100.0));
        assert_eq!(parse_number("five"), None);
        assert_eq!(parse_number("inf"), None);
    }
}
