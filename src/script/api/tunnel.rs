//! `tunnel{ ... }`: reads the configuration of a tunnel, and substitutes its host and port in the
//! targets of the syncs that use it.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::config::keys::{TUNNEL, find, nearest};
use crate::config::{config_error, config_error_about, number_of, text_of};
use crate::log;
use crate::script::context::{ScriptContext, Stage};
use crate::script::layer3::template;
use crate::script::tunnel_object::{TunnelMode, TunnelObject};
use crate::tunnel::{Tunnel, TunnelConfig, TunnelState};

/// Puts `tunnel` and `Tunnel` into the table of global functions.
pub fn add(lua: &Lua, context: &Rc<ScriptContext>, globals: &Table) -> Result<()> {
    let methods = lua.create_table()?;
    let meta = lua.create_table()?;
    let (shared, class) = (Rc::clone(context), methods.clone());
    meta.set(
        "__index",
        lua.create_function(move |_, (object, name): (Table, Value)| {
            match text_of(&name).as_deref() {
                Some(b"status") => Ok(match of(&shared, &object) {
                    Some(tunnel) => Value::Integer(number(tunnel.machine.borrow().state())),
                    None => Value::Nil,
                }),
                _ => class.get(name),
            }
        })?,
    )?;
    let shared = Rc::clone(context);
    methods.set(
        "isReady",
        lua.create_function(move |_, object: Table| {
            Ok(of(&shared, &object).is_some_and(|tunnel| tunnel.machine.borrow().is_up()))
        })?,
    )?;
    let check = lua.create_function(|_, _: MultiValue| Ok(true))?;
    methods.set("check", check)?;
    methods.set("defaults", defaults(lua)?)?;
    let (shared, class) = (Rc::clone(context), methods.clone());
    let create = lua.create_function(move |lua, options: Value| match options {
        Value::Table(given) => {
            let options = with_defaults(lua, &given, &class)?;
            let tunnel = create(lua, &shared, &options, &meta)?;
            advise(&given, &tunnel.name(), tunnel.mode, &tunnel.command)?;
            Ok(tunnel.object.clone())
        }
        other => Err(config_error(format!(
            "tunnel takes a table, not a {}",
            other.type_name()
        ))),
    })?;
    methods.set("new", &create)?;
    globals.set("tunnel", create)?;
    // `Tunnel` is a class, so it is not wrapped like the functions for user code.
    lua.globals().set("Tunnel", methods)
}

/// Returns the tunnel of a sync's configuration, if there is one.
///
/// # Errors
///
/// The value of `tunnel` is not a tunnel object.
pub fn of_config(context: &ScriptContext, config: &Table) -> Result<Option<Rc<TunnelObject>>> {
    let object = match config.get("tunnel")? {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        Value::Table(object) => object,
        _ => return Err(not_a_tunnel()),
    };
    of(context, &object).map(Some).ok_or_else(not_a_tunnel)
}

fn not_a_tunnel() -> mlua::Error {
    config_error_about("tunnel", "tunnel must be what tunnel{ ... } returned.")
}

fn of(context: &ScriptContext, object: &Table) -> Option<Rc<TunnelObject>> {
    let tunnels = context.tunnels.borrow();
    tunnels.iter().find(|each| each.object == *object).cloned()
}

/// Returns `Tunnel.defaults`, the default options of a tunnel.
fn defaults(lua: &Lua) -> Result<Table> {
    let defaults = lua.create_table()?;
    for (key, text) in [
        ("mode", "command"),
        ("distribution", "rr"),
        ("localhost", "localhost"),
    ] {
        defaults.set(key, text)?;
    }
    for (key, number) in [
        ("parallel", 1),
        ("readyDelay", 5),
        ("retryDelay", 10),
        ("checkMaxFailed", 5),
    ] {
        defaults.set(key, number)?;
    }
    defaults.set("checkExitCodes", vec![0])?;
    Ok(defaults)
}

/// Returns the given options, completed by those of `Tunnel.defaults`.
fn with_defaults(lua: &Lua, given: &Table, class: &Table) -> Result<Table> {
    let options = lua.create_table()?;
    let defaults: Value = class.get("defaults")?;
    for table in [defaults.as_table(), Some(given)].into_iter().flatten() {
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            options.set(key, value)?;
        }
    }
    Ok(options)
}

fn create(
    lua: &Lua,
    context: &ScriptContext,
    options: &Table,
    meta: &Table,
) -> Result<Rc<TunnelObject>> {
    if context.stage.get() != Stage::Loading {
        return Err(config_error(
            "A tunnel can only be created during initialization.",
        ));
    }
    let text = |key: &str| -> Result<Option<Vec<u8>>> {
        match options.get(key)? {
            Value::Nil => Ok(None),
            value => match text_of(&value) {
                Some(text) => Ok(Some(text)),
                None => Err(config_error_about(key, format!("{key} must be a text"))),
            },
        }
    };
    let mode = match text("mode")?.as_deref() {
        None | Some(b"command") => TunnelMode::Command,
        Some(b"pool") => TunnelMode::Pool,
        Some(other) => {
            let other = log::escape(other);
            let text = format!("unknown tunnel mode:{other}");
            return Err(config_error_about("mode", text));
        }
    };
    let command = command(options)?;
    let count = context.tunnels.borrow().len() + 1;
    let config = TunnelConfig {
        name: text("name")?.map_or_else(
            || format!("Tunnel{count}"),
            |name| log::escape(&name).into_owned(),
        ),
        parallel: parallel(options)?,
        ready_delay: span(seconds(options, "readyDelay", 5.0)?),
        retry_delay: span(seconds(options, "retryDelay", 10.0)?),
    };
    options.set("name", config.name.as_str())?;
    let object = lua.create_table()?;
    object.set("options", options)?;
    object.set_metatable(Some(meta.clone()))?;
    let tunnel = Rc::new(TunnelObject {
        object,
        machine: Tunnel::new(config).into(),
        mode,
        command,
        localhost: text("localhost")?.unwrap_or_else(|| b"localhost".to_vec()),
    });
    context.tunnels.borrow_mut().push(Rc::clone(&tunnel));
    Ok(tunnel)
}

/// Returns the words of the command: the items of a list, or a text split at blanks. Double quotes
/// in a text group words and are removed.
fn command(options: &Table) -> Result<Vec<Vec<u8>>> {
    let wrong = || {
        config_error_about(
            "command",
            "tunnel needs a command: a text or a list of texts",
        )
    };
    let words: Vec<Vec<u8>> = match options.get("command")? {
        Value::Table(list) => list
            .sequence_values::<Value>()
            .map(|word| text_of(&word?).ok_or_else(wrong))
            .collect::<Result<_>>()?,
        Value::String(text) => template::words(&text.as_bytes())
            .map(|word| word.iter().copied().filter(|&byte| byte != b'"').collect())
            .collect(),
        _ => return Err(wrong()),
    };
    match words.first() {
        Some(program) if !program.is_empty() && !words.concat().contains(&0) => Ok(words),
        _ => Err(wrong()),
    }
}

/// Returns a delay of at least 0.1 s, which limits restarts of a process that ends immediately.
fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.1))
}

fn parallel(options: &Table) -> Result<usize> {
    match seconds(options, "parallel", 1.0)? {
        number if number <= 1000.0 => Ok((number as usize).max(1)),
        _ => Err(config_error_about(
            "parallel",
            "parallel must be 1000 at most",
        )),
    }
}

fn seconds(options: &Table, key: &str, default: f64) -> Result<f64> {
    match options.get(key)? {
        Value::Nil => Ok(default),
        value => match number_of(&value) {
            Some(number) if number >= 0.0 => Ok(number.min(4e9)),
            _ => Err(config_error_about(
                key,
                format!("{key} must be a number and >= 0"),
            )),
        },
    }
}

/// Logs warnings about options without effect, which lsyncd accepts silently.
fn advise(options: &Table, name: &str, mode: TunnelMode, command: &[Vec<u8>]) -> Result<()> {
    for pair in options.pairs::<Value, Value>() {
        let key = text_of(&pair?.0).unwrap_or_default();
        let key = log::escape(&key).into_owned();
        if key.starts_with("check") && find(TUNNEL, &key).is_some() {
            log::warn(format_args!(
                "{name}: {key} has no effect, a tunnel is watched by whether its processes live"
            ));
        } else if find(TUNNEL, &key).is_none() {
            let similar = nearest(TUNNEL, &key)
                .map_or_else(String::new, |known| format!(" Did you mean \"{known}\"?"));
            log::warn(format_args!(
                "{name}: \"{key}\" is unknown to tunnels.{similar}"
            ));
        }
    }
    let port = command
        .iter()
        .any(|word| word.windows(10).any(|part| part == b"^localport"));
    if port && mode == TunnelMode::Command {
        log::warn(format_args!(
            "{name}: only mode = \"pool\" has a ^localport"
        ));
    }
    Ok(())
}

/// Returns the number of a state, as the field `status` shows it to user code.
fn number(state: TunnelState) -> i64 {
    match state {
        TunnelState::Down => 1,
        TunnelState::Disabled => 2,
        TunnelState::Connecting => 3,
        TunnelState::Up => 4,
        TunnelState::RetryTimeout => 5,
        TunnelState::UpRetryTimeout => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(given: &str) -> std::result::Result<Vec<String>, String> {
        let lua = crate::sys::lua();
        let options: Table = lua.load(given).eval().unwrap();
        let shown = |words: Vec<Vec<u8>>| {
            let words = words.into_iter();
            words.map(|word| String::from_utf8(word).unwrap()).collect()
        };
        command(&options).map(shown).map_err(|e| e.to_string())
    }

    #[test]
    fn a_command_is_a_list_or_a_text() {
        let list = words("{ command = { 'ssh', '-p', 22, 'a b' } }").unwrap();
        assert_eq!(list, ["ssh", "-p", "22", "a b"]);
        let text = words(r#"{ command = 'ssh -o "A=b c"  h' }"#).unwrap();
        assert_eq!(text, ["ssh", "-o", "A=b c", "h"]);
        for wrong in [
            "{}",
            "{ command = {} }",
            "{ command = '' }",
            "{ command = { {} } }",
            "{ command = { '' } }",
            "{ command = { 'a\\0' } }",
            "{ command = { 'a', 'b\\0' } }",
        ] {
            assert!(
                words(wrong).unwrap_err().contains("needs a command"),
                "{wrong}"
            );
        }
    }
}
