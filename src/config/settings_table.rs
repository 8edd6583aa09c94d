//! The values of `settings{}` while the configuration runs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use mlua::{Lua, Result, Table, Value};

use super::config_error::{bare_config_error, config_error, config_error_about};
use super::keys::{SETTINGS, SYNC, find, nearest};
use super::{kind_of, number_of, text_of, truthy};
use crate::cli::Options;

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
                        "the name of a setting must be a text, not a table. Write sync{ ... } \
                         after settings{ ... }, not in it.",
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
            if find(SETTINGS, &name).is_none() {
                return Err(unknown(&name));
            }
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

    /// Checks the types of all values.
    pub(super) fn check_types(&self) -> Result<()> {
        for key in SETTINGS {
            let value = self.value(key.name)?;
            let Some(complaint) = key.value.complaint(&value) else {
                continue;
            };
            return Err(if key.name == "logfacility" && text_of(&value).is_none() {
                bare_config_error(key.name, "Logging facility must be a number or string")
            } else {
                config_error_about(key.name, format!("setting \"{}\" {complaint}", key.name))
            });
        }
        Ok(())
    }

    /// Returns a limit. A fraction counts as the next whole number, which is where it is reached.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.number(key)?.map(|number| number.ceil() as usize))
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
    } else if find(SYNC, name).is_some() {
        text.push_str(" It belongs in sync{ ... }.");
    } else if let Some(similar) = nearest(SETTINGS, name) {
        text.push_str(&format!(" Did you mean \"{similar}\"?"));
    }
    config_error_about(name, text)
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
    fn wrong_keys_and_values_are_refused() {
        assert!(refused("{ foo = 1 }").contains("setting \"foo\" unknown."));
        assert!(refused("{ source = '/' }").ends_with("It belongs in sync{ ... }."));
        assert!(refused("{ 'x', { } }").contains("setting \"x\" unknown."));
        assert!(refused("{ { } }").contains("after settings{ ... }"));
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
