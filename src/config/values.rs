//! Checks of a sync's values.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::keys::{Key, Kinds, RSYNC, SYNC, ValueType, find};
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
    if built_in {
        for key in ["target", "host", "targetdir"] {
            word(config, key, "")?;
        }
        if let Some(host) = text_of(&config.get("host")?) {
            check_host(&host)?;
        }
    }
    for key in EXIT_CODES {
        if judged {
            check_codes(config, key, built_in)?;
        }
    }
    match config.get("rsync")? {
        Value::Table(rsync) if built_in => check_rsync(&rsync),
        _ => Ok(()),
    }
}

/// Checks the types of the keys of every sync, except for values that are left to the functions of
/// a kind.
///
/// # Errors
///
/// The first value of the wrong type.
pub fn check_types(config: &Table) -> Result<()> {
    let checked = |key: &&Key| key.kinds.has(Kinds::OWN) && !OF_KIND.contains(&key.name);
    for key in SYNC.iter().filter(checked) {
        if let Some(complaint) = key.value.complaint(&config.get(key.name)?) {
            let text = format!("{} {complaint}", key.name);
            return Err(config_error_about(key.name, text));
        }
    }
    let limit: Value = config.get("batchSizeLimit")?;
    match ValueType::Bytes.complaint(&limit) {
        Some(complaint) => {
            let text = format!("batchSizeLimit {complaint}");
            Err(config_error_about("batchSizeLimit", text))
        }
        None => Ok(()),
    }
}

/// Keys that [`check_values`] checks, or the readers of their values.
const OF_KIND: [&str; 3] = ["exitcodes", "inotifyMode", "target"];

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

/// Returns the error for a value that is not a text, with advice for a list.
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

/// Checks a table of exit codes. lsyncd takes an unknown result for "die", which is refused for
/// code 0 only: no process of the sync would ever succeed.
fn check_codes(config: &Table, key: &str, built_in: bool) -> Result<()> {
    let value: Value = config.get(key)?;
    let codes = match &value {
        Value::Table(codes) => codes,
        Value::String(_) if !built_in => return Ok(()),
        value => {
            return match ValueType::ExitCodes.complaint(value) {
                Some(complaint) => Err(config_error_about(key, format!("{key} {complaint}"))),
                None => Ok(()),
            };
        }
    };
    let success: Value = codes.get(0)?;
    if truthy(&success) && !is_result(&success) {
        return Err(unknown_result(key, &Value::Integer(0))?);
    }
    Ok(())
}

/// Returns the errors about exit codes that have no effect, for a sync whose `collect` is built in.
///
/// # Errors
///
/// Errors of Lua only.
pub fn unknown_results(config: &Table) -> Result<Vec<mlua::Error>> {
    let mut errors = Vec::new();
    for key in EXIT_CODES {
        match config.get(key)? {
            Value::Table(codes) => {
                for pair in codes.pairs::<Value, Value>() {
                    let (code, result) = pair?;
                    let is_code = code.is_integer() || code.is_number();
                    if is_code && truthy(&result) && !is_result(&result) {
                        errors.push(unknown_result(key, &code)?);
                    }
                }
            }
            Value::String(_) => {
                let text = format!("{key} is a text and has no effect; it must be a table.");
                errors.push(config_error_about(key, text));
            }
            _ => {}
        }
    }
    Ok(errors)
}

fn is_result(value: &Value) -> bool {
    let known = [&b"ok"[..], b"again", b"die"];
    value
        .as_string()
        .is_some_and(|text| known.contains(&&*text.as_bytes()))
}

fn unknown_result(key: &str, code: &Value) -> Result<mlua::Error> {
    let code = code.to_string()?;
    let text = format!("{key}[{code}] must be \"ok\", \"again\" or \"die\".");
    Ok(config_error_about(key, text))
}

/// The keys of tables of exit codes.
const EXIT_CODES: [&str; 3] = ["exitcodes", "rsyncExitCodes", "sshExitCodes"];

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
    let list = find(RSYNC, "list").and_then(|key| key.value.complaint(&rsync.get("list").ok()?));
    match list {
        Some(complaint) => Err(config_error_about(
            "list",
            format!("rsync.list {complaint}"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(config: &str) -> String {
        let lua = crate::sys::lua();
        let config = lua.load(config).eval().unwrap();
        match check_values(&config, true, true).and_then(|()| check_types(&config)) {
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
        for key in EXIT_CODES {
            let config = format!("{{ {key} = 'codes' }}");
            let table = lua.load(config).eval().unwrap();
            check_values(&table, false, false).unwrap();
            check_values(&table, false, true).unwrap();
            assert_eq!(unknown_results(&table).unwrap().len(), 1);
            assert!(check_values(&table, true, true).is_err(), "{key}");
        }
    }

    #[test]
    fn results_that_lsyncd_does_not_know_are_reported() {
        let lua = crate::sys::lua();
        let told = |codes: &str| {
            let config = lua
                .load(format!("{{ exitcodes = {codes} }}"))
                .eval()
                .unwrap();
            check_values(&config, true, true).unwrap();
            let errors = unknown_results(&config).unwrap();
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told("{ [0] = 'ok', [5] = 'again' }"), Vec::<String>::new());
        assert_eq!(
            told("{ [23] = 'warn', x = 'y', [24] = false }"),
            ["exitcodes[23] must be \"ok\", \"again\" or \"die\"."]
        );
    }

    #[test]
    fn useless_values_are_reported() {
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
            ("{ exitcodes = { [0] = 'okay' } }", "exitcodes[0] must be"),
            (
                "{ maxProcesses = 0 }",
                "maxProcesses must be a number, 1 or more.",
            ),
            (
                "{ batchSizeLimit = {} }",
                "batchSizeLimit must be a number, not a table.",
            ),
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
