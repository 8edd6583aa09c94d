//! The daemon under test: start, stop, and waiting for conditions.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::dir::{Dir, limit, poll, program};
use super::tree;

/// A usual sync.
pub const MIRROR: &str = r#"
sync{ default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3, rsync = { archive = true } }
"#;

/// A daemon to be started.
pub struct Daemon<'d> {
    dir: &'d Dir,
    args: Vec<String>,
    /// A program that executes the daemon, with its arguments.
    wrapper: Vec<String>,
    env: Vec<(String, String)>,
    /// Standard output and error go to `NAME.out` and `NAME.err`.
    name: &'static str,
}

/// A started daemon. Dropping it kills the daemon and all its children.
pub struct Running<'d> {
    dir: &'d Dir,
    name: &'static str,
    child: Child,
    ended: Option<ExitStatus>,
    /// The process of the daemon if it has detached.
    detached: Option<Pid>,
}

/// Adds a status file if `LSYNCD_TEST_STATUS_FILE` is set. It wakes the daemon every second, which
/// must have no effect on its timers. Line numbers and keys of the configuration do not change.
fn with_status_file(config: &str) -> String {
    let is_set = std::env::var_os("LSYNCD_TEST_STATUS_FILE").is_some();
    if !is_set || config.contains("statusFile") {
        return config.to_owned();
    }
    format!(r#"settings{{ statusFile = "@DIR@/every-second", statusInterval = 1 }} {config}"#)
}

/// Exit status and output of a daemon that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl<'d> Daemon<'d> {
    /// Returns a daemon without configuration and `-nodaemon`.
    pub fn bare(dir: &'d Dir) -> Self {
        Daemon {
            dir,
            args: Vec::new(),
            wrapper: Vec::new(),
            env: Vec::new(),
            name: "daemon",
        }
    }

    /// Returns a daemon in the foreground with this configuration; placeholders are those of
    /// `Dir::expand`.
    pub fn new(dir: &'d Dir, config: &str) -> Self {
        dir.put("config.lua", dir.expand(&with_status_file(config)));
        Self::bare(dir).args(&["-nodaemon", "@DIR@/config.lua"])
    }

    /// Returns a daemon that detaches, with this configuration.
    pub fn detaching(dir: &'d Dir, config: &str) -> Self {
        dir.put("config.lua", dir.expand(config));
        Self::bare(dir).args(&["@DIR@/config.lua"])
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args
            .extend(args.iter().map(|arg| self.dir.expand(arg)));
        self
    }

    /// Starts the daemon by this program, which must call exec(3).
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|arg| self.dir.expand(arg)).collect();
        self
    }

    /// Starts the daemon without root's right to read and enter every directory. Returns `None` if
    /// this needs setpriv(1), which is not there.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn powerless(self) -> Option<Self> {
        if !geteuid().is_root() {
            return Some(self);
        }
        let setpriv = program("setpriv")?;
        let dropped = "-dac_override,-dac_read_search";
        Some(self.wrapped(&[setpriv.to_str()?, "--bounding-set", dropped]))
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), self.dir.expand(value)));
        self
    }

    /// Puts `bin` of the work directory in front of `PATH`, so that the stand-in is found as rsync.
    pub fn fake_first(self) -> Self {
        let path = format!("@DIR@/bin:{}", std::env::var("PATH").unwrap_or_default());
        self.env("PATH", &path)
    }

    /// Sets the name, which must differ for a second daemon of a work directory.
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
            // The directory does not exist, so there is no socket unless the test configures one.
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

    /// Starts the daemon and waits until a startup transfer has finished.
    pub fn start_and_settle(self) -> Running<'d> {
        let mut running = self.start();
        running.wait_log(" finished");
        running
    }

    /// Runs the daemon until it ends.
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
    /// Returns the process of the daemon.
    pub fn pid(&self) -> Pid {
        self.detached
            .unwrap_or_else(|| Pid::from_raw(self.child.id() as i32))
    }

    /// Waits until the launcher of a detached daemon has ended and the pid file is written. The
    /// process in it is the daemon from now on.
    pub fn wait_detached(&mut self, pidfile: &str) -> ExitStatus {
        let status = self.wait_end();
        let text = || self.dir.text(pidfile);
        let written = poll(|| text().ends_with('\n'));
        assert!(written, "no pid file {pidfile}\n{}", self.log());
        let pid = text().trim().parse().expect("number in the pid file");
        self.detached = Some(Pid::from_raw(pid));
        status
    }

    /// Returns standard output, standard error and the file `log`.
    pub fn log(&self) -> String {
        ["out", "err"].map(|end| stream_text(self, end)).concat() + &self.dir.text("log")
    }

    pub fn wait_log(&mut self, text: &str) {
        let text = self.dir.expand(text);
        self.wait_for(&format!("log has {text:?}"), |daemon| {
            daemon.log().contains(&text)
        });
    }

    /// Waits for a condition. Fails at once if the daemon ends before.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let mut gone = false;
        let fulfilled = poll(|| {
            gone = self.has_ended();
            done(self) || gone
        });
        if !fulfilled || (gone && !done(self)) {
            panic!("waited in vain: {what}\n{}", self.report());
        }
    }

    /// Waits until the target equals the source, including attributes.
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
        // The message contains the compared state: the trees may change afterwards.
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

    /// Waits until the daemon reports that the target has all changes from before the call.
    pub fn settle(&mut self) {
        let dir = self.dir;
        self.wait_for("the control socket accepts connections", |_| dir.answers());
        let seconds = limit().as_secs().to_string();
        let mut ctl = dir.ctl(&["status", "-wait", "-timeout", &seconds]);
        let waited = ctl.output().expect("lsyncdctl");
        if !waited.status.success() {
            let told = String::from_utf8_lossy(&waited.stdout);
            panic!("the target is not current: {told}\n{}", self.report());
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

    /// Returns true if the daemon, or the detached process, has ended.
    pub fn has_ended(&mut self) -> bool {
        if let Some(pid) = self.detached {
            return is_gone(pid);
        }
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait for the daemon");
        }
        self.ended.is_some()
    }

    /// Waits until the started process ends.
    pub fn wait_end(&mut self) -> ExitStatus {
        poll(|| self.has_ended());
        self.ended
            .unwrap_or_else(|| panic!("did not end in {:?}\n{}", limit(), self.log()))
    }

    /// Waits until the daemon and all its children have ended.
    pub fn wait_all_gone(&mut self) {
        self.wait_end();
        let gone = poll(|| processes_with(&mark(self.dir, self.name)).is_empty());
        assert!(gone, "children are left\n{}", self.log());
    }

    /// Waits until the daemon, which may be stopped, has no running children.
    pub fn wait_children_gone(&mut self) {
        let gone = poll(|| processes_with(&mark(self.dir, self.name)).len() == 1);
        assert!(gone, "children are left\n{}", self.log());
    }

    /// Sends TERM, waits for the end, and returns the exit code.
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
        // Repeated, because a killed process may just have started another one.
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

    /// Asserts that the daemon exited with 255, without a signal.
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

/// Returns true if a process has ended, including a zombie.
pub fn is_gone(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
        || state(&PathBuf::from(format!("/proc/{pid}/stat"))) == Some('Z')
}

/// Returns the environment variable of a daemon and its children, by which they are found even
/// after they have detached.
fn mark(dir: &Dir, name: &str) -> String {
    format!("{MARK}={}/{name}", dir.root().display())
}

const MARK: &str = "LSYNCD_TEST_MARK";

/// Returns all processes with this entry in their environment; zombies have none.
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

/// Returns the environment of a process, given its directory below `/proc`. It is empty for a
/// moment during exec(2), and always for zombies and kernel threads, which have no program either.
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

/// Returns the state letter of a process or thread (proc(5), the third field of `stat`).
fn state(stat: &Path) -> Option<char> {
    after_name(&fs::read_to_string(stat).ok()?)?.chars().next()
}

/// Returns `stat` after the process name, which may contain blanks and brackets.
fn after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ").map(|(_, rest)| rest)
}

fn stream_text(running: &Running<'_>, end: &str) -> String {
    running.dir.text(&format!("{}.{end}", running.name))
}
