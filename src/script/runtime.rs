//! The Lua state: preludes, scripts, the configuration, and calls into it once syncs are at
//! work.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value};

use super::event::Objects;
use super::host::{Host, Member, Stage};
use super::timestamp::Timestamp;
use super::{errors, layer3, native};
use crate::cli::{Options, SyncOption};
use crate::config::{Settings, SettingsTable, number_of, parse_number, truthy};
use crate::exit::Exit;
use crate::process::Children;
use crate::queue::{DelayId, Etype, Time};
use crate::report;
use crate::sync::Clock;

const PRELUDES: &[(&str, &str)] = &[
    ("default.lua", include_str!("../../lua/default.lua")),
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
];

/// Where the distributions keep modules of Lua 5.4, and those of 5.3 that are pure Lua.
const LUA_PATH: &str = ";/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua\
    ;/usr/share/lua/5.3/?.lua;/usr/share/lua/5.3/?/init.lua";
const LUA_CPATH: &str = concat!(
    ";/usr/local/lib/lua/5.4/?.so",
    ";/usr/lib/x86_64-linux-gnu/lua/5.4/?.so",
    ";/usr/lib/aarch64-linux-gnu/lua/5.4/?.so",
    ";/usr/lib64/lua/5.4/?.so",
    ";/usr/lib/lua/5.4/?.so"
);

/// Why the configuration does not become a running daemon. The lines are for the user.
#[derive(Debug)]
pub struct Failure {
    /// What to log as errors, one by one.
    pub lines: Vec<String>,
    /// How the process ends.
    pub exit: Exit,
}

impl Failure {
    fn line(text: impl Into<String>) -> Failure {
        Failure {
            lines: vec![text.into()],
            exit: Exit::Failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// What `collect` makes of an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The work is done.
    Done,
    /// It failed and has to be done again; the sync waits, longer each time.
    Again,
    /// Nothing failed, but what it was about changed meanwhile: it is looked at anew soon.
    Redo,
    /// The sync can't go on.
    Die,
}

/// A configuration that was loaded, with its Lua state.
pub struct Script {
    lua: Lua,
    objects: Objects,
    /// State shared with the functions Lua calls.
    pub host: Rc<Host>,
    /// The settings in types.
    pub settings: Settings,
}

/// What a configuration is loaded with.
pub struct Environment {
    /// The command line.
    pub options: Options,
    /// The directory the daemon was started in; relative paths are meant from there.
    pub directory: PathBuf,
}

impl Script {
    /// Loads preludes, `-script` files and the configuration, and makes the syncs of the
    /// command line. A sync whose configuration is that of one in `before` goes on with its
    /// state: queue, filter, running children.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, told with file, line and key.
    pub fn load(
        environment: &Environment,
        children: &Rc<RefCell<Children>>,
        clock: Clock,
        before: Vec<Rc<Member>>,
    ) -> std::result::Result<Script, Failure> {
        let lua = crate::sys::lua();
        let options = &environment.options;
        let delay = match &options.delay {
            None => None,
            Some(text) => Some(parse_number(&text.to_string_lossy()).ok_or_else(|| {
                Failure::line(format!("-delay needs a number, not '{}'", text.display()))
            })?),
        };
        let unloaded = |error: mlua::Error| Failure::line(errors::plain(&error));
        let host = Rc::new(Host {
            stage: Cell::new(Stage::Loading),
            members: RefCell::default(),
            before: RefCell::new(before),
            requests: RefCell::default(),
            alarms: RefCell::default(),
            running: Cell::new(0),
            max_processes: Cell::new(None),
            ending: Cell::new(None),
            startup_failed: Cell::new(false),
            settings: SettingsTable::new(&lua).map_err(unloaded)?,
            delay,
            children: Rc::clone(children),
            clock,
            complained: RefCell::default(),
            base: RefCell::default(),
        });
        let objects = Objects::new(&lua).map_err(unloaded)?;
        preludes(&lua, &host, &objects).map_err(unloaded)?;
        let loader = Loader {
            lua: &lua,
            host: &host,
        };
        for script in &options.scripts {
            loader.file(script)?;
        }
        if let Some(config) = &options.config {
            loader.file(config)?;
        }
        let settings = loader.finish(environment)?;
        host.before.take();
        host.max_processes.set(settings.max_processes);
        if !settings.nodaemon {
            host.base.replace(Some(environment.directory.clone()));
        }
        Ok(Script {
            lua,
            objects,
            host,
            settings,
        })
    }

    /// All syncs, in the order of the configuration.
    pub fn members(&self) -> Vec<Rc<Member>> {
        self.host.members.borrow().clone()
    }

    /// Asks the sync what shall run for the entry that is due.
    ///
    /// # Errors
    /// User code failed.
    pub fn act(&self, member: &Rc<Member>, id: DelayId) -> Result<()> {
        let etype = match member.sync.borrow().queue.get(id) {
            Some(delay) => delay.etype(),
            None => return Ok(()),
        };
        let function = |key: &str| member.config.get::<Option<Function>>(key);
        let special = match etype {
            Etype::Init => function("init").unwrap_or(None),
            Etype::Full => function("full").unwrap_or(None),
            _ => None,
        };
        if let Some(special) = special {
            let (event, _) = self.objects.event(&self.lua, member, id)?;
            return special.call(event);
        }
        if etype == Etype::Init {
            member.sync.borrow_mut().queue.discard(id);
            return Ok(());
        }
        match function("action")? {
            Some(action) => action.call(&member.inlet),
            None => Ok(()),
        }
    }

    /// Asks the sync what an ended child means. `errors` are the lines it wrote to its error
    /// output, if these are captured.
    ///
    /// # Errors
    /// User code failed.
    pub fn collect(
        &self,
        member: &Member,
        agent: &Table,
        code: i32,
        signal: Option<i32>,
        errors: &[u8],
    ) -> Result<Verdict> {
        let Some(collect) = member.config.get::<Option<Function>>("collect")? else {
            return Ok(if code == 0 {
                Verdict::Done
            } else {
                Verdict::Die
            });
        };
        let errors = self.lua.create_string(errors)?;
        let answer: Value = collect.call((agent, code, signal, errors))?;
        Ok(match answer {
            Value::String(text) if text.as_bytes() == b"again" => Verdict::Again,
            Value::String(text) if text.as_bytes() == b"redo" => Verdict::Redo,
            Value::String(text) if text.as_bytes() == b"die" => Verdict::Die,
            _ => Verdict::Done,
        })
    }

    /// Calls the alarms that are due.
    ///
    /// # Errors
    /// User code failed.
    pub fn ring(&self, now: Time) -> Result<()> {
        let mut due = {
            let mut alarms = self.host.alarms.borrow_mut();
            let (due, later) = alarms.drain(..).partition(|alarm| alarm.due <= now);
            *alarms = later;
            let due: Vec<super::Alarm> = due;
            due
        };
        due.sort_by_key(|alarm| alarm.due);
        for alarm in due {
            alarm
                .function
                .call::<()>((Timestamp(alarm.due), alarm.extra))?;
        }
        Ok(())
    }

    /// When the next alarm is due.
    pub fn next_alarm(&self) -> Option<Time> {
        self.host.alarms.borrow().iter().map(|a| a.due).min()
    }

    /// Syncs are at work from now on: new globals are refused, and texts become functions.
    ///
    /// # Errors
    /// The configuration was changed after its syncs were made, and makes no sense now.
    pub fn run(&self) -> std::result::Result<(), Failure> {
        self.prepare_to_run()
            .map_err(|error| Failure::line(errors::message(&self.lua, &error)))
    }

    fn prepare_to_run(&self) -> Result<()> {
        self.host.stage.set(Stage::Running);
        let public = self.lua.named_registry_value("public")?;
        for member in self.members() {
            layer3::install(&self.lua, &self.host, &self.objects, &member, &public)?;
        }
        self.lua.named_registry_value::<Function>("lock")?.call(())
    }

    /// Failing startup transfers are tried again from now on: after a reset or an overflow
    /// they are no startup any more.
    pub fn insist(&self) {
        let insist = self.lua.create_table().and_then(|table| {
            table.set("insist", true)?;
            self.host.settings.take(&table)
        });
        if let Err(error) = insist {
            report::error(errors::plain(&error));
        }
    }

    /// Whether failing startup transfers are tried again.
    pub fn insists(&self) -> bool {
        let insist = self.host.settings.value("insist");
        insist.is_ok_and(|value| truthy(&value))
    }

    /// Syncs go on after all, with the configuration they have.
    pub fn resume(&self) {
        self.host.stage.set(Stage::Running);
    }

    /// Nothing new is started any more.
    pub fn fade(&self) {
        self.host.stage.set(Stage::Fading);
    }

    /// Tells an error of user code in the log, with where it came from.
    pub fn report(&self, error: &mlua::Error) {
        report::error(format_args!(
            "in Lua: {}",
            errors::message(&self.lua, error)
        ));
        for (number, line) in errors::backtrace(error).iter().enumerate() {
            report::error(format_args!("Backtrace {} :{line}", number + 1));
        }
    }
}

/// Loads the preludes in order, each with the native functions as its argument.
fn preludes(lua: &Lua, host: &Rc<Host>, objects: &Objects) -> Result<()> {
    lua.set_app_data(Rc::clone(host));
    let package: Table = lua.globals().get("package")?;
    for (key, more) in [("path", LUA_PATH), ("cpath", LUA_CPATH)] {
        let path: String = package.get(key)?;
        package.set(key, path + more)?;
    }
    lua.globals().set("lsyncd", lua.create_table()?)?;
    let native = native::table(lua, host, objects)?;
    for (name, text) in PRELUDES {
        lua.load(*text)
            .set_name(format!("{}{name}", errors::PRELUDE))
            .call::<()>(&native)?;
    }
    for name in ["make_inlet", "lock", "public", "fingerprint"] {
        lua.set_named_registry_value(name, native.get::<Function>(name)?)?;
    }
    Ok(())
}

struct Loader<'a> {
    lua: &'a Lua,
    host: &'a Rc<Host>,
}

impl Loader<'_> {
    /// Runs one Lua file.
    fn file(&self, path: &Path) -> std::result::Result<(), Failure> {
        let real = fs::canonicalize(path).map_err(|_| {
            Failure::line(format!("Cannot find config file at '{}'.", path.display()))
        })?;
        let shown = real.display().to_string();
        let text = fs::read(&real)
            .map_err(|error| Failure::line(format!("error loading {shown}: {error}")))?;
        let chunk = self
            .lua
            .load(without_first_comment(&text))
            .set_name(format!("@{shown}"))
            .set_mode(mlua::chunk::ChunkMode::Text);
        let function = chunk.into_function().map_err(|error| {
            let text = with_whole_name(&errors::plain(&error), &shown);
            Failure::line(format!("error loading {shown}: {text}"))
        })?;
        function
            .call::<()>(())
            .map_err(|error| self.failure(&error, &shown))
    }

    fn failure(&self, error: &mlua::Error, file: &str) -> Failure {
        if let Some(code) = self.host.ending.get() {
            return Failure {
                lines: Vec::new(),
                exit: Exit::Asked(code),
            };
        }
        let text = errors::message(self.lua, error);
        if *self.host.complained.borrow() == text {
            return Failure::line(text);
        }
        let text = with_whole_name(&text, file);
        Failure::line(format!("error preparing {file}: {text}"))
    }

    /// What comes after the configuration ran: the command line has its say.
    fn finish(&self, environment: &Environment) -> std::result::Result<Settings, Failure> {
        let options = &environment.options;
        let fail = |error: mlua::Error| Failure::line(errors::message(self.lua, &error));
        native::check_settings_kept(self.lua).map_err(fail)?;
        for sync in &options.syncs {
            self.command_line_sync(sync, options)
                .map_err(|error| self.failure(&error, "the command line"))?;
        }
        let settings = &self.host.settings;
        settings.override_by(self.lua, options).map_err(fail)?;
        let default: Table = self.lua.globals().get("default").map_err(fail)?;
        let interval = default.get::<Value>("statusInterval").map_err(fail)?;
        let typed = settings
            .typed(number_of(&interval).unwrap_or(10.0))
            .map_err(fail)?;
        Ok(typed.relative_to(&environment.directory))
    }

    /// Makes a sync the command line asks for, as a configuration would.
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
            SyncOption::Rsyncssh(source, host, directory) => {
                table.set("source", text(source)?)?;
                table.set("host", text(host)?)?;
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

/// A first line that begins with `#` is for the shell, as in every Lua file.
fn without_first_comment(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match text.first() {
        Some(b'#') => [b"--", text].concat(),
        _ => text.to_vec(),
    }
}

/// Lua cuts long file names in front; the whole name is put back.
fn with_whole_name(text: &str, name: &str) -> String {
    match text.strip_prefix("...") {
        Some(rest) => match rest.split_once(':') {
            Some((tail, rest)) if name.ends_with(tail) => format!("{name}:{rest}"),
            _ => text.to_owned(),
        },
        None => text.to_owned(),
    }
}
