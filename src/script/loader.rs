//! Loads a configuration from files and the command line.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::context::{ScriptContext, Stage};
use super::create::config_api;
use super::load_error::LoadError;
use super::objects::Objects;
use super::observed::Observed;
use super::runtime::Script;
use super::sync_handle::SyncHandle;
use super::watchdog;
use super::{errors, hints, lua_source, prelude_api, search_paths};
use crate::cli::{Options, SyncOption};
use crate::config::{Settings, SettingsTable, number_of, parse_number};
use crate::exit::Exit;
use crate::log;
use crate::process::Children;
use crate::sync::Clock;

const PRELUDES: &[(&str, &str)] = &[
    ("default.lua", include_str!("../../lua/default.lua")),
    ("targets.lua", include_str!("../../lua/targets.lua")),
    ("classes.lua", include_str!("../../lua/classes.lua")),
    (
        "default-rsync.lua",
        include_str!("../../lua/default-rsync.lua"),
    ),
    (
        "default-rsyncssh.lua",
        include_str!("../../lua/default-rsyncssh.lua"),
    ),
    (
        "default-direct.lua",
        include_str!("../../lua/default-direct.lua"),
    ),
    (
        "default-rclone.lua",
        include_str!("../../lua/default-rclone.lua"),
    ),
];

/// The environment of a configuration.
pub struct Environment {
    /// The command line.
    pub options: Options,
    /// The directory the daemon was started in; relative paths refer to it.
    pub directory: PathBuf,
}

impl Script {
    /// Loads preludes, `-script` files and the configuration, and creates the syncs of the command
    /// line. A sync whose configuration equals one in `before` takes over its state: queue, filter
    /// and running children.
    ///
    /// # Errors
    ///
    /// The configuration is invalid; the error has file, line and key.
    pub fn load(
        environment: &Environment,
        children: &Rc<RefCell<Children>>,
        clock: Clock,
        before: Vec<Rc<SyncHandle>>,
    ) -> std::result::Result<Script, LoadError> {
        let lua = crate::sys::lua();
        let options = &environment.options;
        let delay = match &options.delay {
            None => None,
            Some(text) => Some(parse_number(&text.to_string_lossy()).ok_or_else(|| {
                LoadError::line(format!("-delay needs a number, not '{}'", text.display()))
            })?),
        };
        let context = context(&lua, delay, children, clock, before)?;
        let objects = Objects::new(&lua).map_err(unloaded)?;
        preludes(&lua, &context, &objects).map_err(unloaded)?;
        watchdog::install(&lua, &context.watchdog).map_err(unloaded)?;
        let loader = Loader {
            lua: &lua,
            context: &context,
        };
        for script in &options.scripts {
            loader.file(script)?;
        }
        if let Some(config) = &options.config {
            loader.file(config)?;
        }
        let settings = loader.finish(environment)?;
        context.previous_syncs.take();
        context.max_processes.set(settings.max_processes);
        for handle in context.syncs.borrow().iter() {
            let mode = &mut handle.sync.borrow_mut().config.mode;
            mode.get_or_insert(settings.mode);
        }
        if !settings.nodaemon {
            context.base.replace(Some(environment.directory.clone()));
        }
        Ok(Script {
            lua,
            objects,
            context,
            settings,
        })
    }
}

fn unloaded(error: mlua::Error) -> LoadError {
    LoadError::line(errors::plain(&error))
}

/// Returns the script context before anything is loaded.
fn context(
    lua: &Lua,
    delay: Option<f64>,
    children: &Rc<RefCell<Children>>,
    clock: Clock,
    before: Vec<Rc<SyncHandle>>,
) -> std::result::Result<Rc<ScriptContext>, LoadError> {
    let registry = children
        .borrow()
        .registry()
        .map_err(|error| LoadError::line(format!("cannot start: {error}")))?;
    Ok(Rc::new(ScriptContext {
        stage: Cell::new(Stage::Loading),
        syncs: RefCell::default(),
        previous_syncs: RefCell::new(before),
        observed: Observed::new(registry),
        tunnels: RefCell::default(),
        requests: Default::default(),
        staged_reading: RefCell::default(),
        sockets: Default::default(),
        alarms: RefCell::default(),
        running: Cell::new(0),
        max_processes: Cell::new(None),
        watchdog: Rc::default(),
        startup_failed: Cell::new(false),
        used_default_exit_codes: Cell::new(false),
        settings: SettingsTable::new(lua).map_err(unloaded)?,
        delay,
        children: Rc::clone(children),
        clock,
        last_config_error: RefCell::default(),
        base: RefCell::default(),
    }))
}

/// Loads the preludes in order, each with the native functions as its argument.
fn preludes(lua: &Lua, context: &Rc<ScriptContext>, objects: &Objects) -> Result<()> {
    lua.set_app_data(Rc::clone(context));
    search_paths::extend(lua)?;
    lua.globals().set("lsyncd", lua.create_table()?)?;
    let native = prelude_api::table(lua, context, objects)?;
    for (name, text) in PRELUDES {
        lua.load(*text)
            .set_name(format!("{}{name}", errors::PRELUDE))
            .call::<()>(&native)?;
    }
    let queue_class = lua.globals().raw_get::<Table>("Queue")?;
    lua.set_named_registry_value("queue_class", queue_class)?;
    for name in ["make_inlet", "lock", "public", "fingerprint"] {
        lua.set_named_registry_value(name, native.get::<Function>(name)?)?;
    }
    Ok(())
}

struct Loader<'a> {
    lua: &'a Lua,
    context: &'a Rc<ScriptContext>,
}

impl Loader<'_> {
    /// Runs one Lua file.
    fn file(&self, path: &Path) -> std::result::Result<(), LoadError> {
        let real = fs::canonicalize(path).map_err(|_| {
            LoadError::line(format!("Cannot find config file at '{}'.", path.display()))
        })?;
        let shown = real.display().to_string();
        let text = fs::read(&real)
            .map_err(|error| LoadError::line(format!("error loading {shown}: {error}")))?;
        let chunk = self
            .lua
            .load(without_first_comment(&text))
            .set_name(format!("@{shown}"))
            .set_mode(mlua::chunk::ChunkMode::Text);
        let function = chunk.into_function().map_err(|error| {
            let message = errors::plain(&error);
            let source = String::from_utf8_lossy(&text);
            let advice = hints::for_syntax(&message, &source).unwrap_or_default();
            let message = with_whole_name(&message, &shown);
            LoadError::line(format!("error loading {shown}: {message}{advice}"))
        })?;
        for (line, hint) in hints::for_foreign_values(&String::from_utf8_lossy(&text)) {
            log::warn(format!("{shown}:{line}: {hint}"));
        }
        watchdog::call(&self.context.watchdog, || function.call::<()>(()))
            .map_err(|error| self.failure(&error, &shown))
    }

    fn failure(&self, error: &mlua::Error, file: &str) -> LoadError {
        if let Some(code) = self.context.watchdog.ending.get() {
            return LoadError {
                lines: Vec::new(),
                exit: Exit::Asked(code),
            };
        }
        let text = errors::message(self.lua, error);
        if *self.context.last_config_error.borrow() == text {
            return LoadError::line(text);
        }
        let text = with_whole_name(&errors::located(self.lua, error), file);
        let advice = hints::for_runtime(&text).unwrap_or_default();
        LoadError::line(format!("error preparing {file}: {text}{advice}"))
    }

    /// Completes the configuration: applies the command line and checks the settings.
    fn finish(&self, environment: &Environment) -> std::result::Result<Settings, LoadError> {
        let options = &environment.options;
        let fail = |error: mlua::Error| LoadError::line(errors::message(self.lua, &error));
        if let Some(monitor) = &options.monitor
            && monitor != "inotify"
            && !options.syncs.is_empty()
        {
            let name = monitor.display();
            return Err(LoadError::line(format!(
                "event monitor \"{name}\" unknown."
            )));
        }
        config_api::check_settings_kept(self.lua).map_err(|error| {
            let text = errors::message(self.lua, &error);
            LoadError::line(text + &assigned_at(options.config.as_deref(), "settings"))
        })?;
        for sync in &options.syncs {
            self.command_line_sync(sync, options)
                .map_err(|error| self.failure(&error, "the command line"))?;
        }
        if self.context.syncs.borrow().is_empty() {
            config_api::check_sync_kept(self.lua).map_err(|error| {
                let text = errors::message(self.lua, &error);
                LoadError::line(text + &assigned_at(options.config.as_deref(), "sync"))
            })?;
        }
        let settings = &self.context.settings;
        settings.override_by(self.lua, options).map_err(fail)?;
        for warning in settings.warnings().map_err(fail)? {
            log::warn(errors::message(self.lua, &warning));
        }
        let interval = match self.lua.globals().raw_get("default").map_err(fail)? {
            Value::Table(default) => default.get("statusInterval").map_err(fail)?,
            _ => Value::Nil,
        };
        let typed = settings
            .typed(number_of(&interval).unwrap_or(10.0))
            .map_err(fail)?;
        Ok(typed.relative_to(&environment.directory))
    }

    /// Creates a sync of the command line.
    fn command_line_sync(&self, sync: &SyncOption, options: &Options) -> Result<()> {
        let globals = self.lua.globals();
        let default: Table = globals.get("default")?;
        let table = self.lua.create_table()?;
        let text = |value: &OsString| self.lua.create_string(value.as_bytes());
        let kind = match sync {
            SyncOption::Rsync(source, target) | SyncOption::Direct(source, target) => {
                table.set("source", text(source)?)?;
                table.set("target", text(target)?)?;
                if matches!(sync, SyncOption::Rsync(..)) {
                    "rsync"
                } else {
                    "direct"
                }
            }
            SyncOption::Rsyncssh(source, context, directory) => {
                table.set("source", text(source)?)?;
                table.set("host", text(context)?)?;
                table.set("targetdir", text(directory)?)?;
                if !options.ssh_options.is_empty() {
                    let extra = self.lua.create_table()?;
                    for word in &options.ssh_options {
                        extra.raw_push(self.lua.create_string(word)?)?;
                    }
                    let ssh = self.lua.create_table()?;
                    ssh.set("_extra", extra)?;
                    table.set("ssh", ssh)?;
                }
                "rsyncssh"
            }
        };
        table.raw_push(default.get::<Table>(kind)?)?;
        globals.get::<Function>("sync")?.call::<()>(table)
    }
}

/// Returns the position of an assignment to this name in the configuration, if it is found.
fn assigned_at(config: Option<&Path>, name: &str) -> String {
    let found = || {
        let real = fs::canonicalize(config?).ok()?;
        let text = String::from_utf8_lossy(&fs::read(&real).ok()?).into_owned();
        let line = lua_source::line_of_assignment(&text, name)?;
        Some(format!(" ({}:{line}: {name})", real.display()))
    };
    found().unwrap_or_default()
}

/// Removes a first line that begins with `#`, as Lua does for files.
fn without_first_comment(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match text.first() {
        Some(b'#') => [b"--", text].concat(),
        _ => text.to_vec(),
    }
}

/// Restores a file name that Lua has shortened in a message.
fn with_whole_name(text: &str, name: &str) -> String {
    match text.strip_prefix("...") {
        Some(rest) => match rest.split_once(':') {
            Some((tail, rest)) if name.ends_with(tail) => format!("{name}:{rest}"),
            _ => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

#[cfg(test)]
impl Script {
    /// Returns a running configuration with this text. Nothing reaps its children.
    pub fn of_text(text: &str) -> Script {
        Script::try_text(text, true).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Script::of_text`], and returns the error of an invalid configuration.
    pub(super) fn try_text(text: &str, nodaemon: bool) -> std::result::Result<Script, LoadError> {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let children = Rc::new(RefCell::new(Children::new(registry, 0)));
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.lua");
        fs::write(&config, text).unwrap();
        let environment = Environment {
            options: Options {
                config: Some(config),
                nodaemon,
                ..Options::default()
            },
            directory: directory.path().to_path_buf(),
        };
        let script = Script::load(&environment, &children, Clock::start(), Vec::new())?;
        script.run()?;
        Ok(script)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_status_interval_of_default_is_used_without_one_of_the_settings() {
        for (config, seconds) in [
            ("", 10),
            ("default.statusInterval = 3", 3),
            (
                "settings{ statusInterval = 5 } default.statusInterval = 3",
                5,
            ),
        ] {
            let interval = Script::of_text(config).settings.status_interval;
            assert_eq!(interval, Duration::from_secs(seconds), "{config}");
        }
    }

    #[test]
    fn a_first_line_for_the_shell_and_a_byte_order_mark_are_skipped() {
        for begin in ["", "\u{feff}", "#!/usr/bin/lua\n", "\u{feff}# x\n"] {
            let config = format!("{begin}default.statusInterval = 3");
            let interval = Script::of_text(&config).settings.status_interval;
            assert_eq!(interval, Duration::from_secs(3), "{config}");
        }
        assert!(Script::try_text("\n# x", true).is_err());
    }
}
