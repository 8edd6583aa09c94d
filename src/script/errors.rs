//! Error messages of the Lua side: file, line, key and reason.
//!
//! A native function fails with a [`ConfigError`]. The caller in Lua gets a text that begins with
//! the position of the user's line, like Lua's own errors.

use std::fs;

use mlua::{Error, Lua, Value};

use super::lua_source;
use crate::config::ConfigError;
use crate::spelling::nearest;

/// Returns the message of an error without stack traces. For a [`ConfigError`] the position of the
/// running user line is put in front, and the line of the invalid key is appended if it differs.
pub fn message(lua: &Lua, error: &Error) -> String {
    let Some(config_error) = error.downcast_ref::<ConfigError>() else {
        let text = plain(error);
        return match position(lua) {
            Some((file, line)) if place(&text).is_none() => format!("{file}:{line}: {text}"),
            _ => with_suggestion(lua, text),
        };
    };
    let Some((file, line)) = position(lua) else {
        return config_error.to_string();
    };
    let key_line = config_error
        .key()
        .and_then(|key| lua_source::line_of_key(&fs::read_to_string(&file).ok()?, line, key));
    match key_line {
        key_line if config_error.is_bare() => {
            let key = config_error.key().unwrap_or_default();
            format!(
                "{config_error} ({file}:{}: {key})",
                key_line.unwrap_or(line)
            )
        }
        Some(key_line) if key_line != line => {
            format!("{file}:{line}: {config_error} (line {key_line})")
        }
        _ => format!("{file}:{line}: {config_error}"),
    }
}

/// As [`message`], and adds the position for errors without one: values that are not texts, and
/// errors of native functions.
pub fn located(lua: &Lua, error: &Error) -> String {
    let mut text = message(lua, error);
    if text.starts_with("table: 0x") {
        text = "(the error is a table)".to_owned();
    }
    if place(&text).is_some_and(|place| !place.starts_with(&PRELUDE[1..])) {
        return text;
    }
    let trace = backtrace(error);
    let mut frames = trace.iter().filter_map(|frame| place(frame));
    match frames.find(|place| !place.starts_with(&PRELUDE[1..])) {
        Some(place) => format!("{place}: {text}"),
        None => text,
    }
}

/// Returns the `FILE:LINE` prefix of a text.
fn place(text: &str) -> Option<&str> {
    let (place, _) = text.split_once(": ")?;
    let (file, line) = place.rsplit_once(':')?;
    let is_line = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
    (is_line && !file.is_empty()).then_some(place)
}

/// Appends the name of a similar global to an error about an undefined one.
fn with_suggestion(lua: &Lua, text: String) -> String {
    let suggestion = || {
        let (_, name) = text.split_once(" a nil value (global '")?;
        let (name, _) = name.split_once("')")?;
        let globals = lua.globals();
        let known: Vec<String> = globals
            .pairs::<String, Value>()
            .flatten()
            .map(|(key, _)| key)
            .collect();
        nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
    };
    match suggestion() {
        Some(known) => format!("{text}. Did you mean \"{known}\"?"),
        None => text,
    }
}

/// Returns the error text without stack traces and without mlua's prefix.
pub fn plain(error: &Error) -> String {
    match error {
        Error::CallbackError { cause, .. } => plain(cause),
        Error::WithContext { cause, .. } => plain(cause),
        Error::RuntimeError(text) | Error::SyntaxError { message: text, .. } => {
            let end = text.find("\nstack traceback:").unwrap_or(text.len());
            text[..end].to_owned()
        }
        Error::BadArgument { pos, cause, .. } => {
            format!("bad argument #{pos} ({})", plain(cause))
        }
        Error::FromLuaConversionError { from, to, .. } => {
            let from = if *from == "integer" { "number" } else { from };
            format!("{} expected, got {from}", lua_type(to))
        }
        other => other.to_string(),
    }
}

/// Returns the lines of the innermost stack trace of an error, outermost call last.
pub fn backtrace(error: &Error) -> Vec<String> {
    let trace = match error {
        Error::CallbackError { traceback, .. } => traceback.as_str(),
        Error::RuntimeError(text) => text.split_once("\nstack traceback:").map_or("", |(_, t)| t),
        Error::WithContext { cause, .. } => return backtrace(cause),
        _ => "",
    };
    trace
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && *line != "stack traceback:" && *line != "[C]: in ?")
        .map(str::to_owned)
        .collect()
}

/// Returns the text of a value raised with `error(value)`.
pub fn raised(lua: &Lua, value: &Value) -> String {
    match value {
        Value::Error(error) => message(lua, error),
        Value::String(text) => text.to_string_lossy(),
        other => other
            .to_string()
            .unwrap_or_else(|_| format!("({})", other.type_name())),
    }
}

/// Returns the Lua name of a Rust type.
fn lua_type(rust: &str) -> &str {
    match rust {
        "LuaString" | "String" | "BString" => "string",
        "Table" => "table",
        "Function" => "function",
        "f64" | "i64" | "u64" | "usize" | "i32" => "number",
        other => other,
    }
}

/// The prefix of the preludes' chunk names. Their frames are never shown as a position.
pub const PRELUDE: &str = "=lsyncd/";

/// Returns file and line of the innermost frame of user code.
fn position(lua: &Lua) -> Option<(String, usize)> {
    for level in 0.. {
        let frame = lua.inspect_stack(level, |frame| {
            let source = frame.source().source.map(|s| s.into_owned());
            (source, frame.current_line())
        })?;
        if let (Some(source), Some(line)) = frame
            && let Some(file) = source.strip_prefix('@')
        {
            return Some((file.to_owned(), line));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::config_error;

    #[test]
    fn positions_and_texts_are_plain() {
        let lua = crate::sys::lua();
        let fail = lua
            .create_function(|_, ()| -> mlua::Result<()> { Err(config_error("no good")) })
            .unwrap();
        lua.globals().set("fail", fail).unwrap();
        let error = lua
            .load("\n\nfail()")
            .set_name("@/nowhere/c.lua")
            .exec()
            .unwrap_err();
        assert_eq!(message(&lua, &error), "no good");
        let error = lua.load("\nlocal x = nil; x()").set_name("@c.lua").exec();
        assert_eq!(
            plain(&error.unwrap_err()),
            "c.lua:2: attempt to call a nil value (local 'x')"
        );
    }
}
