//! Checks of a sync's values.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::settings::mode_of;
use super::{kind_of, text_of, truthy};
use crate::watch::InotifyMode;

/// Checks values after `prepare` ran. `built_in`: the action is built in, so the values are used.
/// `judged`: `collect` is built in, so exit codes have three valid values.
///
/// # Errors
///
/// The first invalid value.
pub fn check_values(config: &Table, built_in: bool, judged: bool) -> Result<()> {
    word(config, "name", "")?;
    if let Some(b"") = text_of(&config.get("name")?).as_deref() {
        return Err(config_error_about("name", "name must not be empty."));
    }
    if built_in {
        for key in ["target", "host", "targetdir"] {
            word(config, key, "")?;
        }
        if let Some(host) = text_of(&config.get("host")?) {
            check_host(&host)?;
        }
    }
    match config.get("checkgauge")? {
        Value::Table(_) | Value::Nil | Value::Boolean(false) => {}
        other => {
            let kind = kind_of(&other);
            let text = format!("checkgauge must be a table or false, not {kind}.");
            return Err(config_error_about("checkgauge", text));
        }
    }
    for key in ["exitcodes", "rsyncExitCodes", "sshExitCodes"] {
        check_codes(config, key, judged)?;
    }
    match config.get("rsync")? {
        Value::Table(rsync) if built_in => check_rsync(&rsync),
        _ => Ok(()),
    }
}

/// Returns the writes that count as changes; `None` if the sync does not set them.
///
/// # Errors
///
/// An unknown mode.
pub fn mode(config: &Table) -> Result<Option<InotifyMode>> {
    match config.get("inotifyMode")? {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::String(text) => mode_of(&text.to_string_lossy()).map(Some),
        other => {
            let text = format!("inotifyMode must be a text, not {}.", kind_of(&other));
            Err(config_error_about("inotifyMode", text))
        }
    }
}

/// Checks a text that becomes part of a program's argument.
fn word(table: &Table, key: &str, prefix: &str) -> Result<()> {
    let value: Value = table.get(key)?;
    match text_of(&value) {
        _ if !truthy(&value) => Ok(()),
        Some(text) if text.contains(&0) => {
            let text = format!("{prefix}{key} contains a NUL byte.");
            Err(config_error_about(key, text))
        }
        Some(_) => Ok(()),
        None => Err(no_text(key, prefix, &value)),
    }
}

/// Returns the error about a value that is no text, with advice for a list.
pub fn no_text(key: &str, prefix: &str, value: &Value) -> mlua::Error {
    let advice = match (key, value) {
        ("source", Value::Table(_)) => " Each source has a sync{ ... } of its own.",
        ("target", Value::Table(_)) => " Several targets are written targets = { ... }.",
        ("host" | "targetdir", Value::Table(_)) => {
            " Several targets are written targets = { \"HOST:DIRECTORY\", ... }."
        }
        _ => "",
    };
    let text = format!(
        "{prefix}{key} must be a text, not {}.{advice}",
        kind_of(value)
    );
    config_error_about(key, text)
}

/// Refuses a host that begins with a dash, which ssh would take as an option.
fn check_host(host: &[u8]) -> Result<()> {
    match host.first() {
        None => Err(config_error_about("host", "host must not be empty.")),
        Some(b'-') => Err(config_error_about(
            "host",
            "host must not begin with a dash.",
        )),
        Some(_) => Ok(()),
    }
}

fn check_codes(config: &Table, key: &str, judged: bool) -> Result<()> {
    let value: Value = config.get(key)?;
    let codes = match &value {
        Value::Table(codes) => codes,
        value if !judged || !truthy(value) => return Ok(()),
        other => {
            let text = format!("{key} must be a table, not {}.", kind_of(other));
            return Err(config_error_about(key, text));
        }
    };
    for pair in codes.pairs::<Value, Value>() {
        let (code, answer) = pair?;
        let known = answer
            .as_string()
            .is_some_and(|text| [&b"ok"[..], b"again", b"die"].contains(&&*text.as_bytes()));
        let numbered = code.is_integer() || code.is_number();
        if judged && numbered && truthy(&answer) && !known {
            let code = code.to_string()?;
            let text = format!("{key}[{code}] must be \"ok\", \"again\" or \"die\".");
            return Err(config_error_about(key, text));
        }
    }
    Ok(())
}

fn check_rsync(rsync: &Table) -> Result<()> {
    word(rsync, "binary", "rsync.")?;
    match rsync.get("binary")? {
        Value::Nil | Value::Boolean(false) => {}
        Value::String(text) if !text.as_bytes().is_empty() => {}
        _ => {
            let text = "rsync.binary must be the name of a program.";
            return Err(config_error_about("binary", text));
        }
    }
    let list: Value = rsync.get("list")?;
    match text_of(&list).as_deref() {
        _ if !truthy(&list) => Ok(()),
        Some(b"filter" | b"files-from" | b"auto") => Ok(()),
        _ => Err(config_error_about(
            "list",
            "rsync.list must be \"filter\", \"files-from\" or \"auto\".",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(config: &str) -> String {
        let lua = crate::sys::lua();
        match check_values(&lua.load(config).eval().unwrap(), true, true) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn kinds_of_the_users_take_what_they_like() {
        let lua = crate::sys::lua();
        for config in [
            "{ target = { 'a', 'b' } }",
            "{ host = '-x', targetdir = false }",
            "{ host = { a = 1 } }",
            "{ rsync = { list = { 'a' }, binary = { 'b' } } }",
        ] {
            let table = lua.load(config).eval().unwrap();
            check_values(&table, false, false).unwrap();
            assert!(check_values(&table, true, false).is_err(), "{config}");
        }
        for key in ["exitcodes", "rsyncExitCodes", "sshExitCodes"] {
            let config = format!("{{ {key} = 'codes' }}");
            let table = lua.load(config).eval().unwrap();
            check_values(&table, false, false).unwrap();
            assert!(check_values(&table, false, true).is_err(), "{key}");
        }
    }

    #[test]
    fn useless_values_are_told() {
        assert_eq!(checked("{ name = 'x', target = 5, exitcodes = false }"), "");
        assert_eq!(checked("{ rsync = { binary = 'x', list = 'auto' } }"), "");
        for (config, text) in [
            ("{ name = {} }", "name must be a text, not a table."),
            ("{ name = '' }", "name must not be empty."),
            ("{ target = 'a\\0b' }", "target contains a NUL byte."),
            ("{ host = '-oProxyCommand=x' }", "begin with a dash"),
            ("{ checkgauge = true }", "a table or false, not true."),
            (
                "{ exitcodes = 5 }",
                "exitcodes must be a table, not a number.",
            ),
            ("{ exitcodes = { [5] = 'okay' } }", "exitcodes[5] must be"),
            ("{ rsync = { binary = 5 } }", "rsync.binary must be"),
            ("{ rsync = { list = 'x' } }", "rsync.list must be"),
        ] {
            assert!(
                checked(config).contains(text),
                "{config}: {}",
                checked(config)
            );
        }
    }
}
