//! The `lsyncd` table: functions of lsyncd's core that its own Lua code and configurations use.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{BString, Lua, Result, Table, Value, Variadic};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::{self, config_error, text_argument, text_of};
use crate::log;
use crate::process;
use crate::script::context::ScriptContext;
use crate::script::objects::timestamp::Timestamp;

/// Returns the fields that are not global functions as well.
pub fn functions(lua: &Lua, context: &Rc<ScriptContext>) -> Result<Table> {
    let table = lua.create_table()?;
    let shared = Rc::clone(context);
    table.set(
        "exec",
        lua.create_function(move |_, words: Variadic<Value>| execute(&shared, &words))?,
    )?;
    table.set(
        "kill",
        lua.create_function(|_, (pid, number)| Ok(send(pid, number)))?,
    )?;
    table.set(
        "get_free_port",
        lua.create_function(|_, ()| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
            Ok(listener.and_then(|l| l.local_addr()).ok().map(|a| a.port()))
        })?,
    )?;
    table.set(
        "get_file_size",
        lua.create_function(|_, path: BString| {
            Ok(fs::metadata(OsStr::from_bytes(&path)).ok().map(|m| m.len()))
        })?,
    )?;
    let shared = Rc::clone(context);
    table.set(
        "get_process_info",
        lua.create_function(move |_, ()| Ok((shared.running.get(), shared.max_processes.get())))?,
    )?;
    table.set(
        "realdir",
        lua.create_function(|lua, path: BString| match config::real_directory(&path) {
            Ok(real) => Ok(Value::String(lua.create_string(real)?)),
            Err(error) => {
                log::error(&error.lines()[0]);
                Ok(Value::Nil)
            }
        })?,
    )?;
    table.set(
        "splitQuotedString",
        lua.create_function(|lua, text: BString| {
            let words = lua.create_table()?;
            for word in crate::cli::split_quoted(&text) {
                words.raw_push(lua.create_string(word)?)?;
            }
            Ok(words)
        })?,
    )?;
    table.set(
        "jiffies_from_seconds",
        lua.create_function(|_, seconds: i64| Ok(Timestamp::from_seconds(seconds)))?,
    )?;
    let shared = Rc::clone(context);
    table.set(
        "configure",
        lua.create_function(move |lua, (name, value): (Value, Value)| {
            configure(lua, &shared, &text_argument(&name, "configure")?, value)
        })?,
    )?;
    Ok(table)
}

/// Returns the table `lsyncd.inotify`. User code cannot add watches, since nothing would receive
/// their events.
pub fn inotify(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.set(
        "addwatch",
        lua.create_function(|_, (path, _): (BString, Value)| {
            let path = log::escape(&path);
            log::say(
                "Inotify",
                format_args!("addwatch( {path} )-> -1: not supported"),
            );
            Ok(-1)
        })?,
    )?;
    table.set(
        "rmwatch",
        lua.create_function(|_, watch: i64| {
            log::say("Inotify", format_args!("rmwatch( {watch} ): not supported"));
            Ok(())
        })?,
    )?;
    Ok(table)
}

/// Starts a process without an event. Its exit status is ignored.
fn execute(context: &ScriptContext, words: &[Value]) -> Result<Value> {
    let mut words = words.iter().map(|word| match text_of(word) {
        Some(word) if !word.contains(&0) => Ok(word),
        Some(_) => Err(config_error("exec: a word contains a NUL byte")),
        None => Err(config_error("exec takes texts")),
    });
    let program = words
        .next()
        .unwrap_or_else(|| Err(config_error("exec needs a program")))?;
    let command = process::Command {
        program,
        args: words.collect::<Result<_>>()?,
        stdin: process::Stdin::Inherit,
        output: process::Output::Inherit,
        environment: Vec::new(),
        priority: Default::default(),
    };
    match context.children.borrow_mut().spawn(command) {
        Ok(pid) => Ok(Value::Integer(pid.0.into())),
        Err(error) => {
            log::error(error.to_string());
            Ok(Value::Nil)
        }
    }
}

/// Returns 0, or -1 if kill(2) fails. Numbers for all processes or the daemon's own process group
/// are refused.
fn send(pid: i64, number: i64) -> i32 {
    let (Ok(pid), Ok(number)) = (i32::try_from(pid), i32::try_from(number)) else {
        return -1;
    };
    if pid == 0 || pid == -1 {
        return -1;
    }
    let signal = match number {
        0 => None,
        _ => match Signal::try_from(number) {
            Ok(signal) => Some(signal),
            Err(_) => return -1,
        },
    };
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// Applies a value of lsyncd's `configure` function. The names are those of settings; `running` is
/// ignored.
fn configure(lua: &Lua, context: &ScriptContext, name: &[u8], value: Value) -> Result<()> {
    let name = String::from_utf8_lossy(name);
    match &*name {
        "running" => Ok(()),
        "nodaemon" | "logfile" | "logident" | "logfacility" | "pidfile" => {
            let settings = lua.create_table()?;
            settings.raw_set(
                &*name,
                if value.is_nil() {
                    Value::Boolean(true)
                } else {
                    value
                },
            )?;
            context.settings.take(&settings)
        }
        _ => Err(config_error(format!("configure does not know \"{name}\""))),
    }
}

#[cfg(test)]
mod tests {
    use crate::script::runtime::Script;

    #[test]
    fn functions_of_the_core() {
        // No process has this number.
        let none = i32::MAX;
        let script = Script::of_text(&format!(
            "lsyncd.configure('running')
             assert(not pcall(lsyncd.configure, 'runing'))
             assert(lsyncd.kill({none}, 0) == -1 and lsyncd.kill({none}, 15) == -1)
             assert(lsyncd.kill(0, 15) == -1 and lsyncd.kill(-1, 15) == -1)
             local ok, text = pcall(lsyncd.exec, 'true', 'a\\0b')
             assert(not ok and text:find('NUL'), text)
             lsyncd.configure('pidfile', '/nowhere/pid')"
        ));
        let pid_file = script.settings.pid_file.unwrap();
        assert_eq!(pid_file.to_str(), Some("/nowhere/pid"));
    }
}
