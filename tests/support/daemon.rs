//! The daemon under test: starting, stopping, waiting for what it does.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::dir::{Dir, limit, poll, program};
use super::tree;

/// A sync as most are.
pub const MIRROR: &str = r#"
sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = { archive = true } }
"#;

/// How the daemon is to be started.
pub struct Daemon<'d> {
    dir: &'d Dir,
    args: Vec<String>,
    /// A program that executes the daemon, and its arguments.
    wrapper: Vec<String>,
    env: Vec<(String, String)>,
    /// Standard output and error go to `NAME.out` and `NAME.err`.
    name: &'static str,
}

/// A started daemon. Dropped, it and all that it started is killed.
pub struct Running<'d> {
    dir: &'d Dir,
    name: &'static str,
    child: Child,
    ended: Option<ExitStatus>,
    /// The daemon's own process where it detached from the one that was started.
    detached: Option<Pid>,
}

/// A status file wakes the daemon every second. Timers must not depend on that, nor be disturbed
/// by it, so tests run with and without: with if `LSYNCD_TEST_STATUS_FILE` is set. Line numbers
/// and what the configuration says itself stay as they are.
fn with_status_file(config: &str) -> String {
    let is_set = std::env::var_os("LSYNCD_TEST_STATUS_FILE").is_some();
    if !is_set || config.contains("statusFile") {
        return config.to_owned();
    }
    format!(r#"settings{{ statusFile = "@DIR@/every-second", statusInterval = 1 }} {config}"#)
}

/// Everything a program that ended by itself said.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl<'d> Daemon<'d> {
    /// Only arguments, no configuration and no `-nodaemon`.
    pub fn bare(dir: &'d Dir) -> Self {
        Daemon {
            dir,
            args: Vec::new(),
            wrapper: Vec::new(),
            env: Vec::new(),
            name: "daemon",
        }
    }

    /// In the foreground with this configuration; placeholders are those of `Dir::expand`.
    pub fn new(dir: &'d Dir, config: &str) -> Self {
        dir.put("config.lua", dir.expand(&with_status_file(config)));
        Self::bare(dir).args(&["-nodaemon", "@DIR@/config.lua"])
    }

    /// Into the background with this configuration.
    pub fn detaching(dir: &'d Dir, config: &str) -> Self {
        dir.put("config.lua", dir.expand(config));
        Self::bare(dir).args(&["@DIR@/config.lua"])
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args
            .extend(args.iter().map(|arg| self.dir.expand(arg)));
        self
    }

    /// Lets this program, which ends in exec(3), start the daemon.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|arg| self.dir.expand(arg)).collect();
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), self.dir.expand(value)));
        self
    }

    /// Lets `BIN` of the work directory be searched first, so that the fake is *the* rsync.
    pub fn fake_first(self) -> Self {
        let path = format!("@DIR@/bin:{}", std::env::var("PATH").unwrap_or_default());
        self.env("PATH", &path)
    }

    /// A second daemon of one work directory needs a name of its own.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub fn start(self) -> Running<'d> {
        let stream = |end: &str| {
            File::create(self.dir.path(format!("{}.{end}", self.name))).expect("stream file")
        };
        let mut words = self
            .wrapper
            .iter()
            .map(std::ffi::OsString::from)
            .collect::<Vec<_>>();
        words.push(binary().into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(&self.args)
            .current_dir(self.dir.root())
            .env("LC_ALL", "C.UTF-8")
            .env("LSYNCD_TEST_RSYNC", program("rsync").unwrap_or_default())
            .env_remove("RSYNC_RSH")
            // A directory that is not there: no socket unless a test asks for one.
            .env("RUNTIME_DIRECTORY", self.dir.path("no-runtime-directory"))
            .env_remove("XDG_RUNTIME_DIR")
            .env("STATE_DIRECTORY", self.dir.path("state"))
            .env(MARK, format!("{}/{}", self.dir.root().display(), self.name))
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(stream("out"))
            .stderr(stream("err"))
            .process_group(0)
            .spawn()
            .expect("start of the daemon");
        Running {
            dir: self.dir,
            name: self.name,
            child,
            ended: None,
            detached: None,
        }
    }

    /// Starts it and waits until the startup transfer is done.
    pub fn start_and_settle(self) -> Running<'d> {
        let mut running = self.start();
        running.wait_log(" finished");
        running
    }

    /// Runs it until it ends by itself.
    pub fn run(self) -> Ended {
        let mut running = self.start();
        let status = running.wait_end();
        Ended {
            status,
            stdout: stream_text(&running, "out"),
            stderr: stream_text(&running, "err"),
        }
    }
}

impl Running<'_> {
    /// The daemon's process.
    pub fn pid(&self) -> Pid {
        self.detached
            .unwrap_or_else(|| Pid::from_raw(self.child.id() as i32))
    }

    /// After a start into the background: waits for the launcher and the pid file, whose
    /// process is the daemon from now on.
    pub fn wait_detached(&mut self, pidfile: &str) -> ExitStatus {
        let status = self.wait_end();
        let text = || self.dir.text(pidfile);
        let written = poll(|| text().ends_with('\n'));
        assert!(written, "no pid file {pidfile}\n{}", self.log());
        let pid = text().trim().parse().expect("number in the pid file");
        self.detached = Some(Pid::from_raw(pid));
        status
    }

    /// All that was said: standard output, standard error, and the file `log`.
    pub fn log(&self) -> String {
        ["out", "err"].map(|end| stream_text(self, end)).concat() + &self.dir.text("log")
    }

    pub fn wait_log(&mut self, text: &str) {
        let text = self.dir.expand(text);
        self.wait_for(&format!("log has {text:?}"), |daemon| {
            daemon.log().contains(&text)
        });
    }

    /// Waits for a condition; fails at once when the daemon ended without it.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let mut gone = false;
        let fulfilled = poll(|| {
            gone = self.has_ended();
            done(self) || gone
        });
        if !fulfilled || (gone && !done(self)) {
            panic!("not so: {what}\n{}", self.report());
        }
    }

    /// Waits until the target is like the source, attributes included.
    pub fn wait_equal(&mut self) {
        self.wait_same("src", "trg", true);
    }

    /// Waits until two trees of the work directory have the same names, kinds, contents and
    /// link targets, and `attributes`: the same modes and the files' modification times.
    pub fn wait_same(&mut self, source: &str, target: &str, attributes: bool) {
        let (source, target) = (self.dir.path(source), self.dir.path(target));
        let read = |path: &Path| {
            let tree = tree::read(path);
            if attributes {
                tree
            } else {
                tree::without_attributes(tree)
            }
        };
        // Told of is what was seen: trees that are equal once may be busy still.
        let (mut gone, mut difference) = (false, String::new());
        poll(|| {
            gone = self.has_ended();
            difference = tree::difference(&read(&source), &read(&target));
            difference.is_empty() || gone
        });
        if !difference.is_empty() {
            panic!("source and target differ:\n{difference}\n{}", self.report());
        }
    }

    /// Waits until the daemon says that the target has everything that was written before.
    pub fn settle(&mut self) {
        let dir = self.dir;
        self.wait_for("it takes connections", |_| dir.answers());
        let seconds = limit().as_secs().to_string();
        let mut ctl = dir.ctl(&["status", "-wait", "-timeout", &seconds]);
        let waited = ctl.output().expect("lsyncdctl");
        if !waited.status.success() {
            let told = String::from_utf8_lossy(&waited.stdout);
            panic!("not all is at the target: {told}\n{}", self.report());
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signal to the daemon");
    }

    /// Stops the whole process and waits until each of its threads has stopped.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let stopped = poll(|| {
            fs::read_dir(&tasks).is_ok_and(|tasks| {
                tasks
                    .flatten()
                    .all(|task| state(&task.path().join("stat")) == Some('T'))
            })
        });
        assert!(stopped, "daemon does not stop\n{}", self.log());
    }

    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Did the daemon (once detached: that process) end?
    pub fn has_ended(&mut self) -> bool {
        if let Some(pid) = self.detached {
            return is_gone(pid);
        }
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait for the daemon");
        }
        self.ended.is_some()
    }

    /// Waits until the process that was started ends.
    pub fn wait_end(&mut self) -> ExitStatus {
        poll(|| self.has_ended());
        self.ended
            .unwrap_or_else(|| panic!("did not end in {:?}\n{}", limit(), self.log()))
    }

    /// Waits until neither the daemon nor anything it started is left.
    pub fn wait_all_gone(&mut self) {
        self.wait_end();
        let gone = poll(|| processes_with(&mark(self.dir, self.name)).is_empty());
        assert!(gone, "children are left\n{}", self.log());
    }

    /// Sends TERM and waits; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait_end().code()
    }

    fn report(&self) -> String {
        let state = match self.ended {
            Some(status) => format!("the daemon ended: {status}"),
            None => "the daemon runs".into(),
        };
        let log = self.log();
        let from = log.len().saturating_sub(6000);
        let from = (from..log.len()).find(|&i| log.is_char_boundary(i));
        format!("{state}\n--- log\n{}", &log[from.unwrap_or(0)..])
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Until none is left: a killed one may have just started another.
        poll(|| {
            let marked = processes_with(&mark(self.dir, self.name));
            for &process in &marked {
                let _ = kill(process, Signal::SIGKILL);
            }
            marked.is_empty()
        });
        let _ = self.child.wait();
    }
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The ending of a program that noticed what was wrong: 255, no signal, no core.
    pub fn assert_refused(&self) {
        assert_eq!(
            self.code(),
            Some(255),
            "{:?}, signal {:?}\n--- stdout\n{}--- stderr\n{}",
            self.status,
            self.status.signal(),
            self.stdout,
            self.stderr
        );
    }
}

/// The program under test.
pub fn binary() -> PathBuf {
    std::env::var_os("LSYNCD_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_lsyncd").into(), PathBuf::from)
}

/// Whether a process has ended, be it that nobody has waited for it yet.
pub fn is_gone(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
        || state(&PathBuf::from(format!("/proc/{pid}/stat"))) == Some('Z')
}

/// What the environment of a daemon and of all it starts holds, to find them again even
/// when they detached.
fn mark(dir: &Dir, name: &str) -> String {
    format!("{MARK}={}/{name}", dir.root().display())
}

const MARK: &str = "LSYNCD_TEST_MARK";

/// All processes whose environment has this entry; zombies have none.
fn processes_with(entry: &str) -> Vec<Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            environment(&process.path())?
                .split(|&byte| byte == 0)
                .any(|var| var == entry.as_bytes())
                .then_some(Pid::from_raw(pid))
        })
        .collect()
}

/// The environment of a process, given its directory below `/proc`. While it is executing another
/// program it seems to have none, which only zombies and threads of the kernel have for good;
/// those have no program either.
fn environment(process: &Path) -> Option<Vec<u8>> {
    for _ in 0..100 {
        let environment = fs::read(process.join("environ")).ok()?;
        if !environment.is_empty() || fs::read_link(process.join("exe")).is_err() {
            return Some(environment);
        }
        std::thread::yield_now();
    }
    None
}

/// State letter of a process or thread (proc(5), the third field of `stat`).
fn state(stat: &Path) -> Option<char> {
    after_name(&fs::read_to_string(stat).ok()?)?.chars().next()
}

/// `stat` behind the process name, which may hold blanks and brackets.
fn after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ").map(|(_, rest)| rest)
}

fn stream_text(running: &Running<'_>, end: &str) -> String {
    running.dir.text(&format!("{}.{end}", running.name))
}
