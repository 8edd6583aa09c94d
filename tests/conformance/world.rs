//! A running case: its directory, recording stand-ins at the start of `PATH`, the daemon, and the
//! operations of the case.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::compare;
use crate::json::Json;

/// Recorded programs. Tools of the daemon are executed afterwards.
const TOOLS: &[&str] = &["rsync", "ssh", "rec", "cp", "mv", "rm", "mkdir", "sh"];

/// The time in which unexpected calls may still follow.
const SETTLE: f64 = 0.6;

/// The wait before the changes of a case whose log does not show the end of the startup.
const STARTUP: f64 = 0.8;

/// The outcome of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// True if the daemon did not end in time.
    pub late: bool,
    /// The exit code, or the negative number of a signal; none if it detached.
    pub exit: Option<i32>,
    /// The exit code of the launcher of a detached daemon.
    pub launcher: Option<i32>,
    /// The started programs in order.
    pub calls: Vec<Call>,
    /// The maximum number of programs at the same time.
    pub concurrent: usize,
    /// Standard output, standard error, `log` and `status` of the work directory.
    pub texts: [Vec<u8>; 4],
    /// True if the file `pid` exists.
    pub pidfile: bool,
    /// Contents of all files below `src` and `trg`; directories have a trailing slash and no
    /// contents.
    pub files: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One recorded process, with placeholders for paths.
#[derive(Clone, Debug)]
pub struct Call {
    pub argv: Vec<Vec<u8>>,
    pub stdin: Vec<u8>,
    pub cwd: Vec<u8>,
}

/// A running case.
pub struct World<'c> {
    case: &'c Json,
    root: PathBuf,
    _guard: tempfile::TempDir,
    /// Placeholders and their values, in the order of replacement.
    names: Vec<(Vec<u8>, Vec<u8>)>,
    child: Option<Child>,
    /// Only files are compared, not calls.
    files_only: bool,
}

impl<'c> World<'c> {
    /// Makes the work directory.
    pub fn new(case: &'c Json, files_only: bool) -> io::Result<World<'c>> {
        // Lua shortens long file names in messages, so the path has to be short.
        let guard = tempfile::Builder::new().prefix("lc").tempdir()?;
        let root = guard.path().canonicalize()?;
        for name in ["src", "trg", "bin", "rec", "rec/active", "fake"] {
            fs::create_dir(root.join(name))?;
        }
        for tool in TOOLS {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/fake");
            symlink(script, root.join("bin").join(tool))?;
        }
        let name = |key: &str, below: &str| {
            let path = [root.as_os_str().as_bytes(), below.as_bytes()].concat();
            (key.as_bytes().to_vec(), path)
        };
        let names = vec![
            name("@CONFIG@", "/config.lua"),
            name("@RSYNC@", "/bin/rsync"),
            name("@SSH@", "/bin/ssh"),
            name("@SRC@", "/src"),
            name("@TRG@", "/trg"),
            name("@DIR@", ""),
        ];
        Ok(World {
            case,
            root,
            _guard: guard,
            names,
            child: None,
            files_only,
        })
    }

    /// Runs the case from its start to its end.
    pub fn run(mut self) -> Result<Outcome, String> {
        let told = |error: io::Error| error.to_string();
        self.start()?;
        let mut outcome = Outcome::default();
        let driven = self.drive();
        self.stop(&mut outcome).map_err(told)?;
        driven?;
        self.gather(&mut outcome).map_err(told)?;
        Ok(outcome)
    }

    fn start(&mut self) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        let mut args: Vec<Vec<u8>> = self.case.texts("args");
        for arg in &mut args {
            *arg = self.expand(arg);
        }
        if let Some(config) = self.case.get("config").and_then(Json::bytes) {
            let path = self.root.join("config.lua");
            fs::write(&path, self.expand(config)).map_err(told)?;
            let path = path.into_os_string().into_vec();
            if !args.contains(&path) && !self.case.on("no_config_arg") {
                args.push(path);
            }
        }
        for operation in self.case.get("setup").map_or(&[][..], Json::items) {
            self.operate(operation)?;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new(crate::binary())
            .args(args.iter().map(|arg| OsStr::from_bytes(arg)))
            .current_dir(&self.root)
            .env("PATH", format!("{}/bin:{path}", self.root.display()))
            .env("LC_ALL", "C.UTF-8")
            .env("LSYNCD_CASE", &self.root)
            .env_remove("RSYNC_RSH")
            // The directory does not exist, so there is no socket unless the case configures one.
            .env("RUNTIME_DIRECTORY", self.root.join("no-runtime-directory"))
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null())
            .stdout(File::create(self.root.join("_out")).map_err(told)?)
            .stderr(File::create(self.root.join("_err")).map_err(told)?)
            .spawn()
            .map_err(told)?;
        self.child = Some(child);
        Ok(())
    }

    fn drive(&mut self) -> Result<(), String> {
        let script = self.case.get("script").map_or(&[][..], Json::items);
        let ends = self.case.on("self_exit");
        if ends && script.is_empty() {
            self.until(|world| world.ended().is_some());
            return Ok(());
        }
        // With few log categories, the first call shows the start.
        self.until(|world| {
            world.ended().is_some() || world.said(b"--- Startup") || world.call_count() > 0
        });
        if let Some(pidfile) = self.daemon() {
            self.until(|_| pidfile.exists());
            self.until(|world| world.ended().is_some());
        }
        self.wait_startup();
        for operation in script {
            self.operate(operation)?;
        }
        if ends {
            self.until(|world| world.ended().is_some());
            return Ok(());
        }
        self.wait_result();
        Ok(())
    }

    /// Waits for the end of the startup transfer, or for some time if there is none.
    fn wait_startup(&mut self) {
        let told = self.case.get("startup_wait").and_then(Json::number);
        let end = Instant::now() + Duration::from_secs_f64(told.unwrap_or(STARTUP));
        while Instant::now() < end {
            if self.daemon().is_none() && self.ended().is_some() {
                return;
            }
            if told.is_none() && self.said(b"Startup of ") && self.said(b"finished") {
                return std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything expected has happened, and then for unexpected events.
    fn wait_result(&mut self) {
        let expect = self.case.get("expect").unwrap_or(&Json::Null).clone();
        if self.files_only {
            self.until(|world| compare::files(&expect, &world.files()).is_empty());
        } else if let Some(calls) = expect.get("calls") {
            let wanted = calls.items().len();
            self.until(|world| world.call_count() >= wanted);
        }
        let settle = self.case.get("settle").and_then(Json::number);
        std::thread::sleep(Duration::from_secs_f64(settle.unwrap_or(SETTLE)));
    }

    // ---- operations

    fn operate(&mut self, operation: &Json) -> Result<(), String> {
        let words = operation.items();
        let text = |at: usize| words.get(at).and_then(Json::bytes).unwrap_or_default();
        let number = |at: usize| words.get(at).and_then(Json::number).unwrap_or(0.0);
        let path = |at: usize| self.path(text(at));
        let kind = String::from_utf8_lossy(text(0)).into_owned();
        let done = match kind.as_str() {
            "mkdir" => fs::create_dir_all(path(1)),
            "mkdir1" => fs::create_dir(path(1)),
            "write" => self.write(&path(1), text(2), false),
            "append" => self.write(&path(1), text(2), true),
            "rm" => remove(&path(1)),
            "mv" => fs::rename(path(1), path(2)),
            "ln" => symlink(OsStr::from_bytes(&self.expand(text(1))), path(2)),
            "link" => fs::hard_link(path(1), path(2)),
            "chmod" => match u32::from_str_radix(&String::from_utf8_lossy(text(2)), 8) {
                Ok(mode) => fs::set_permissions(path(1), PermissionsExt::from_mode(mode)),
                Err(error) => return Err(error.to_string()),
            },
            "touch" => touch(&path(1)),
            "sleep" => {
                std::thread::sleep(Duration::from_secs_f64(number(1)));
                Ok(())
            }
            "fake" => self.order(text(1), words.get(2)),
            "signal" => self.signal(text(1)),
            "wait_calls" => {
                self.until(|world| world.call_count() >= number(1) as usize);
                Ok(())
            }
            "wait_log" => {
                let wanted = self.expand(text(1));
                self.until(|world| world.said(&wanted));
                Ok(())
            }
            "wait_exit" => {
                self.until(|world| world.ended().is_some());
                Ok(())
            }
            other => return Err(format!("unknown operation \"{other}\"")),
        };
        done.map_err(|error| format!("{kind}: {error}"))
    }

    fn write(&self, path: &Path, text: &[u8], append: bool) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).write(true);
        options.append(append).truncate(!append);
        options.open(path)?.write_all(&self.expand(text))
    }

    /// Sets the results of a stand-in, one line for each call.
    fn order(&self, tool: &[u8], orders: Option<&Json>) -> io::Result<()> {
        let Some(Json::Object(orders)) = orders else {
            return Ok(());
        };
        for (what, values) in orders {
            let values = values.items().iter().filter_map(Json::number);
            let lines: String = values.map(|value| format!("{value}\n")).collect();
            let name = format!("fake/{}.{what}", String::from_utf8_lossy(tool));
            fs::write(self.root.join(name), lines)?;
        }
        Ok(())
    }

    fn signal(&mut self, name: &[u8]) -> io::Result<()> {
        let name = format!("SIG{}", String::from_utf8_lossy(name));
        let signal: Signal = name.parse()?;
        match self.process() {
            Some(process) => Ok(kill(process, signal)?),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    // ---- the daemon

    fn daemon(&self) -> Option<PathBuf> {
        let pidfile = self.case.get("daemon")?.bytes()?;
        Some(self.path(pidfile))
    }

    fn process(&self) -> Option<Pid> {
        let number = match self.daemon() {
            Some(pidfile) => fs::read_to_string(pidfile).ok()?.trim().parse().ok()?,
            None => self.child.as_ref()?.id() as i32,
        };
        Some(Pid::from_raw(number))
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    fn stop(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let asked = !self.case.on("self_exit");
        if self.daemon().is_some() {
            outcome.launcher = self.ended().and_then(|status| status.code());
            if let Some(process) = self.process().filter(|_| asked) {
                let _ = kill(process, Signal::SIGTERM);
                outcome.late = !self.until(|_| kill(process, None).is_err());
            }
            return Ok(());
        }
        if self.ended().is_none() && asked {
            self.signal(b"TERM")?;
        }
        outcome.late = !self.until(|world| world.ended().is_some());
        if let Some(mut child) = self.child.take() {
            if outcome.late {
                child.kill()?;
            }
            let status = child.wait()?;
            use std::os::unix::process::ExitStatusExt;
            outcome.exit = status.code().or(status.signal().map(|signal| -signal));
        }
        Ok(())
    }

    // ---- what there is to see

    /// Waits for a condition, and only shortly after the end of the program.
    fn until(&mut self, mut is_so: impl FnMut(&mut World<'c>) -> bool) -> bool {
        let mut end = Instant::now() + crate::limit();
        let mut over = false;
        while !is_so(self) {
            if !over && self.daemon().is_none() && self.ended().is_some() {
                over = true;
                end = end.min(Instant::now() + Duration::from_secs(2));
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn text(&self, name: &str) -> Vec<u8> {
        fs::read(self.root.join(name)).unwrap_or_default()
    }

    fn said(&self, text: &[u8]) -> bool {
        ["_out", "_err", "log"]
            .iter()
            .any(|name| compare::contains(&self.text(name), text))
    }

    fn call(&self, number: usize) -> PathBuf {
        self.root.join(format!("rec/call.{number}"))
    }

    fn call_count(&self) -> usize {
        (1..)
            .map(|number| self.call(number))
            .take_while(|call| call.exists())
            .filter(|call| call.join("done").exists())
            .count()
    }

    fn gather(&self, outcome: &mut Outcome) -> io::Result<()> {
        for number in (1..).take_while(|&number| self.call(number).exists()) {
            let part = |name: &str| fs::read(self.call(number).join(name)).unwrap_or_default();
            let argv = part("argv");
            let words = argv.strip_suffix(b"\0").unwrap_or(&argv);
            let words = words.split(|&byte| byte == 0);
            outcome.calls.push(Call {
                argv: words.map(|word| self.unexpand(word)).collect(),
                stdin: self.unexpand(&part("stdin")),
                cwd: self.unexpand(part("cwd").trim_ascii_end()),
            });
            let beside = String::from_utf8_lossy(&part("concurrent")).trim().parse();
            outcome.concurrent = outcome.concurrent.max(beside.unwrap_or(0));
        }
        outcome.texts =
            ["_out", "_err", "log", "status"].map(|name| self.unexpand(&self.text(name)));
        outcome.pidfile = self.root.join("pid").exists();
        outcome.files = self.files();
        Ok(())
    }

    fn files(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.root.join("src"), self.root.join("trg")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let mut name = self.unexpand(path.as_os_str().as_bytes());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    name.push(b'/');
                    open.push(path);
                    files.insert(name, Vec::new());
                } else {
                    files.insert(name, fs::read(path).unwrap_or_else(|_| b"?".to_vec()));
                }
            }
        }
        files
    }

    // ---- placeholders

    fn expand(&self, text: &[u8]) -> Vec<u8> {
        let replaced = |text: Vec<u8>, (key, path): &(Vec<u8>, Vec<u8>)| replace(&text, key, path);
        self.names.iter().fold(text.to_vec(), replaced)
    }

    fn unexpand(&self, text: &[u8]) -> Vec<u8> {
        let replaced = |text: Vec<u8>, (key, path): &(Vec<u8>, Vec<u8>)| replace(&text, path, key);
        self.names.iter().fold(text.to_vec(), replaced)
    }

    /// Relative paths are below the source.
    fn path(&self, text: &[u8]) -> PathBuf {
        let path = self.expand(text);
        self.root.join("src").join(OsStr::from_bytes(&path))
    }
}

impl Drop for World<'_> {
    /// Ends all processes of the case, which are found by their environment.
    fn drop(&mut self) {
        let mark = [b"LSYNCD_CASE=", self.root.as_os_str().as_bytes()].concat();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let number = process.file_name().to_str().and_then(|n| n.parse().ok());
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            let mut entries = environment.split(|&byte| byte == 0);
            if let (Some(number), true) = (number, entries.any(|entry| entry == mark)) {
                let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Sets both times: inotify(7) reports no change of attributes if only one is set.
fn touch(path: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    let times = fs::FileTimes::new().set_accessed(now).set_modified(now);
    File::open(path)?.set_times(times)
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with(from) {
            result.extend_from_slice(to);
            rest = &rest[from.len()..];
        } else {
            result.push(rest[0]);
            rest = &rest[1..];
        }
    }
    result
}
