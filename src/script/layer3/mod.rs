//! Layer 3: actions given as texts, such as `onCreate = "cp ^sourcePathname /backup/"`.
//!
//! A text is parsed once, when its sync is created, into words and variables
//! ([`template`]). This module checks it, makes it a function and runs it.
//!
//! * `template`: the words and variables of a text;
//! * `shell`: the program of a shell command.

mod shell;
pub mod template;

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use crate::config::{config_error, config_error_about, kind_of, text_of};
use crate::log;
use crate::script::api::spawn;
use crate::script::context::ScriptContext;
use crate::script::objects::Objects;
use crate::script::sync_handle::SyncHandle;
use template::{Form, Piece, Template, VARIABLES, Variable, written};

/// The keys of a sync that may be texts.
pub const KEYS: [&str; 7] = [
    "onAttrib",
    "onCreate",
    "onDelete",
    "onModify",
    "onMove",
    "onStartup",
    "onFull",
];

/// Checks the texts and functions of a sync's actions when the configuration is loaded.
///
/// # Errors
///
/// A value is not an action, or a text needs a key that the sync does not have.
pub fn check(config: &Table) -> Result<()> {
    let has_target = text_of(&config.get("target")?).is_some();
    for key in KEYS {
        match config.get(key)? {
            Value::Nil | Value::Boolean(_) | Value::Function(_) => {}
            Value::String(text) => Template::parse(&text.as_bytes())
                .check(key, has_target)
                .map_err(|problem| config_error_about(key, problem))?,
            other => {
                return Err(config_error_about(
                    key,
                    format!(
                        "{key} must be a function or a text, not {}.",
                        kind_of(&other)
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// The programs that texts of a sync run, as far as it is certain.
pub fn programs(config: &Table) -> Vec<Vec<u8>> {
    let program = |key: &str| {
        let Ok(Value::String(text)) = config.get(key) else {
            return None;
        };
        match Template::parse(&text.as_bytes()).form {
            Form::Binary(words) => match words.first()?.as_slice() {
                [Piece::Text(program)] => Some(program.clone()),
                _ => None,
            },
            Form::Shell { command, .. } => shell::program(&command),
        }
    };
    KEYS.into_iter().filter_map(program).collect()
}

/// Replaces a sync's texts by functions. `public` converts a function's errors for user code.
///
/// # Errors
///
/// As [`check`], if the configuration was changed since.
pub fn install(
    lua: &Lua,
    context: &Rc<ScriptContext>,
    objects: &Objects,
    handle: &SyncHandle,
    public: &Function,
) -> Result<()> {
    check(&handle.config)?;
    for key in KEYS {
        let Value::String(text) = handle.config.get(key)? else {
            continue;
        };
        let template = Template::parse(&text.as_bytes());
        if log::enabled("FWrite") {
            log::say("FWrite", template.describe(key));
        }
        let (shared, mapping) = (Rc::clone(context), objects.clone());
        let run = lua.create_function(move |lua, (event, event2): (Table, Option<Table>)| {
            template.run(lua, &shared, &mapping, &event, event2.as_ref())
        })?;
        handle.config.set(key, public.call::<Function>(run)?)?;
    }
    Ok(())
}

impl Template {
    fn run(
        &self,
        lua: &Lua,
        context: &Rc<ScriptContext>,
        objects: &Objects,
        event: &Table,
        event2: Option<&Table>,
    ) -> Result<()> {
        let values = Values { event, event2 };
        let etype = text_of(&event.get("etype")?).unwrap_or_default();
        let etype = log::escape(&etype).into_owned();
        let mut arguments = MultiValue::new();
        arguments.push_back(Value::Table(event.clone()));
        match &self.form {
            Form::Binary(words) => {
                log::normal(format_args!(
                    "Event {etype} spawns action \"{}\"",
                    written(&self.text)
                ));
                for word in words {
                    if let Some(word) = values.word(word)? {
                        arguments.push_back(Value::String(lua.create_string(word)?));
                    }
                }
            }
            Form::Shell {
                command,
                pieces,
                variables,
            } => {
                let shown = values.shown(pieces)?;
                log::normal(format_args!("Event {etype} spawns shell \"{shown}\""));
                for word in ["sh".as_bytes(), b"-c", command, b"sh"] {
                    arguments.push_back(Value::String(lua.create_string(word)?));
                }
                for &variable in variables {
                    let value = values.needed(variable)?;
                    arguments.push_back(Value::String(lua.create_string(value)?));
                }
            }
        }
        spawn::spawn(context, objects, false, arguments)
    }
}

/// The values of variables for one event.
struct Values<'a> {
    event: &'a Table,
    event2: Option<&'a Table>,
}

impl Values<'_> {
    fn value(&self, variable: Variable) -> Result<Option<Vec<u8>>> {
        let (name, field, destination) = VARIABLES[variable];
        let event = match (destination, self.event2) {
            (false, _) => self.event,
            (true, Some(event2)) => event2,
            (true, None) => return Err(config_error(format!("^{name}: the event is no move"))),
        };
        Ok(text_of(&event.get(field)?))
    }

    fn needed(&self, variable: Variable) -> Result<Vec<u8>> {
        let name = VARIABLES[variable].0;
        self.value(variable)?
            .ok_or_else(|| config_error(format!("^{name} has no value: the sync has no target")))
    }

    /// Returns a command with its values, for the log.
    fn shown(&self, pieces: &[Piece]) -> Result<String> {
        let mut shown = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => shown.push_str(&written(text)),
                Piece::Variable(variable) => {
                    shown.push_str(&log::escape(&self.needed(*variable)?));
                }
            }
        }
        Ok(shown)
    }

    /// Returns one word; `None` if it consists of a variable without a value.
    fn word(&self, pieces: &[Piece]) -> Result<Option<Vec<u8>>> {
        if let [Piece::Variable(variable)] = pieces {
            return self.value(*variable);
        }
        let mut word = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => word.extend_from_slice(text),
                Piece::Variable(variable) => word.extend(self.needed(*variable)?),
            }
        }
        Ok(Some(word))
    }
}
