//! The values of `settings{}` while the configuration runs: the known keys and their types.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use mlua::{Lua, Result, Table, Value};

use super::config_error::{bare_config_error, config_error, config_error_about};
use super::{kind_of, nearest, number_of, text_of, truthy};
use crate::cli::Options;

/// The type of a setting.
#[derive(Clone, Copy, PartialEq)]
enum SettingKind {
    Text,
    /// A text or a list of texts.
    Words,
    /// Any value. Values that Lua treats as true switch the setting on (`insist = 1` is common).
    Switch,
    /// Seconds or a count. A text that is a number is accepted.
    Number,
}

const KNOWN_KEYS: &[(&str, SettingKind)] = &[
    ("controlSocket", SettingKind::Text),
    ("hup", SettingKind::Text),
    ("inotifyMode", SettingKind::Text),
    ("insist", SettingKind::Switch),
    ("ionice", SettingKind::Text),
    ("log", SettingKind::Words),
    ("logfacility", SettingKind::Text),
    ("logfile", SettingKind::Text),
    ("logident", SettingKind::Text),
    ("maxDelays", SettingKind::Number),
    ("maxProcesses", SettingKind::Number),
    ("metricsFile", SettingKind::Text),
    ("metricsListen", SettingKind::Text),
    ("maxStartups", SettingKind::Number),
    ("nice", SettingKind::Number),
    ("maxStaleness", SettingKind::Number),
    ("nodaemon", SettingKind::Switch),
    ("onepass", SettingKind::Switch),
    ("pidfile", SettingKind::Text),
    ("rescanInterval", SettingKind::Number),
    ("stallTimeout", SettingKind::Number),
    ("stateDir", SettingKind::Text),
    ("statusFile", SettingKind::Text),
    ("statusInterval", SettingKind::Number),
    ("stopTimeout", SettingKind::Number),
];

/// Keys of a `sync{}` that are not settings.
const SYNC_KEYS: [&str; 12] = [
    "delete",
    "exclude",
    "excludeFrom",
    "filter",
    "filterFrom",
    "host",
    "rsync",
    "source",
    "ssh",
    "target",
    "targetdir",
    "targets",
];

/// The values set so far.
#[derive(Clone)]
pub struct SettingsTable(Table);

impl SettingsTable {
    /// Returns an empty table.
    ///
    /// # Errors
    ///
    /// Lua is out of memory.
    pub fn new(lua: &Lua) -> Result<SettingsTable> {
        Ok(SettingsTable(lua.create_table()?))
    }

    /// Returns the value of a setting; nil if it is not set or unknown.
    ///
    /// # Errors
    ///
    /// Errors of Lua only.
    pub fn value(&self, key: &str) -> Result<Value> {
        self.0.get(key)
    }

    /// Adds a table given to `settings{}`: its named keys, and its list items as switches.
    ///
    /// # Errors
    ///
    /// The first unknown key or value of the wrong type.
    pub fn take(&self, given: &Table) -> Result<()> {
        for pair in given.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let (name, value) = match (&key, &value) {
                (Value::Integer(_), Value::String(item)) => {
                    (item.to_string_lossy(), Value::Boolean(true))
                }
                (Value::String(name), _) => (name.to_string_lossy(), value),
                (Value::Integer(_), Value::Table(_) | Value::Nil) => {
                    return Err(config_error(
                        "the name of a setting must be a text, not a table. A sync{ ... } stands \
                         behind settings{ ... }, not in it.",
                    ));
                }
                _ => {
                    let kind = kind_of(if matches!(key, Value::Integer(_)) {
                        &value
                    } else {
                        &key
                    });
                    let text = format!("the name of a setting must be a text, not {kind}.");
                    return Err(config_error(text));
                }
            };
            let Some(&(_, kind)) = KNOWN_KEYS.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(&name));
            };
            check_kind(&name, kind, &value)?;
            self.0.set(name, value)?;
        }
        // Values are checked here, where the line of the configuration is known.
        self.typed(0.0).map(|_| ())
    }

    /// Applies the command line, which overrides the configuration.
    ///
    /// # Errors
    ///
    /// Errors of Lua only.
    pub fn override_by(&self, lua: &Lua, options: &Options) -> Result<()> {
        for (key, on) in [
            ("insist", options.insist),
            ("nodaemon", options.nodaemon),
            ("onepass", options.onepass),
        ] {
            if on {
                self.0.set(key, true)?;
            }
        }
        for (key, path) in [("logfile", &options.logfile), ("pidfile", &options.pidfile)] {
            if let Some(path) = path {
                self.0
                    .set(key, lua.create_string(path.as_encoded_bytes())?)?;
            }
        }
        Ok(())
    }

    /// Returns a setting that must be a number above zero. A fraction counts as the whole number
    /// above, which is where a limit so compared is reached.
    ///
    /// # Errors
    /// It is something else.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) if number > 0.0 => Ok(Some(number.ceil() as usize)),
            Some(_) => Err(config_error_about(
                key,
                format!("setting \"{key}\" must be a number, 1 or more."),
            )),
        }
    }

    pub(super) fn switch(&self, key: &str) -> Result<bool> {
        Ok(truthy(&self.value(key)?))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        Ok(number_of(&self.value(key)?))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<OsString>> {
        Ok(text_of(&self.value(key)?).map(OsString::from_vec))
    }

    /// Returns the words of a text or a list of texts; none for any other value.
    pub(super) fn words(&self, key: &str) -> Result<Vec<String>> {
        Ok(words(&self.value(key)?).unwrap_or_default())
    }
}

fn check_kind(name: &str, kind: SettingKind, value: &Value) -> Result<()> {
    let nul = |text: &mlua::LuaString| text.as_bytes().contains(&0);
    if value.as_string().is_some_and(nul) {
        let text = format!("setting \"{name}\" contains a NUL byte.");
        return Err(config_error_about(name, text));
    }
    let right = match kind {
        _ if !truthy(value) => true,
        SettingKind::Switch => true,
        SettingKind::Number => number_of(value).is_some(),
        SettingKind::Text => text_of(value).is_some(),
        SettingKind::Words => words(value).is_some(),
    };
    if right {
        return Ok(());
    }
    if name == "logfacility" {
        return Err(bare_config_error(
            name,
            "Logging facility must be a number or string",
        ));
    }
    let wanted = match kind {
        SettingKind::Number => "number",
        SettingKind::Words => "text or a list of texts",
        _ => "text",
    };
    Err(config_error_about(
        name,
        format!(
            "setting \"{name}\" must be a {wanted}, not {}.",
            kind_of(value)
        ),
    ))
}

/// Returns the words of a text, separated by blanks, or of a list of texts.
fn words(value: &Value) -> Option<Vec<String>> {
    let split = |text: Vec<u8>| -> Vec<String> {
        lossy(text).split_whitespace().map(str::to_owned).collect()
    };
    match value {
        Value::Table(list) => {
            let mut words = Vec::new();
            for item in list.sequence_values::<Value>() {
                words.extend(split(text_of(&item.ok()?)?));
            }
            Some(words)
        }
        value => Some(split(text_of(value)?)),
    }
}

fn unknown(name: &str) -> mlua::Error {
    let mut text = format!("setting \"{name}\" unknown.");
    if name == "delay" {
        text.push_str(" A delay is set in each sync{}.");
    } else if SYNC_KEYS.contains(&name) {
        text.push_str(" It belongs into sync{ ... }.");
    } else if let Some(similar) = nearest(name, KNOWN_KEYS.iter().map(|(known, _)| *known)) {
        text.push_str(&format!(" Did you mean \"{similar}\"?"));
    }
    config_error_about(name, text)
}

/// Returns true for the name of a setting.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN_KEYS.iter().any(|(known, _)| *known == name)
}

pub(super) fn lossy(text: Vec<u8>) -> String {
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: &str) -> String {
        let lua = crate::sys::lua();
        let table = SettingsTable::new(&lua).unwrap();
        let given = lua.load(given).eval().unwrap();
        table.take(&given).unwrap_err().to_string()
    }

    #[test]
    fn wrong_keys_and_values_are_told() {
        assert!(refused("{ foo = 1 }").contains("setting \"foo\" unknown."));
        assert!(refused("{ source = '/' }").ends_with("It belongs into sync{ ... }."));
        assert!(refused("{ 'x', { } }").contains("setting \"x\" unknown."));
        assert!(refused("{ { } }").contains("stands behind settings{ ... }"));
        assert!(refused("{ 'nodaemn' }").contains("Did you mean \"nodaemon\"?"));
        assert!(refused("{ statusIntervall = 1 }").contains("\"statusInterval\""));
        assert!(refused("{ log = 'exec' }").contains("'exec' is not a valid logging category"));
        assert!(refused("{ log = { {} } }").contains("must be a text or a list of texts"));
        assert!(refused("{ logfile = {} }").contains("setting \"logfile\" must be a text"));
        assert!(refused("{ maxProcesses = 0 }").contains("\"maxProcesses\""));
        assert!(refused("{ logfacility = 'x' }").contains("Logging facility 'x' unknown."));
        assert!(refused("{ inotifyMode = 'x' }").contains("'x' not a valid inotfiyMode."));
    }
}
