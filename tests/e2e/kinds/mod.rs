//! The kinds of sync other than default.rsync: a daemon at work on two directories, and how these
//! differ.
//!
//! | file | what it is about |
//! |---|---|
//! | direct | default.direct: every kind and name arrives, and nothing is changed beside it |
//! | rsyncssh | default.rsyncssh with an ssh that runs its command here as sshd would |

mod direct;
mod rsyncssh;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far more than anything takes; a test that waits so long has failed.
const LIMIT: Duration = Duration::from_secs(100);

/// A directory with `src`, `trg` and `bin`, which is in front of the daemon's `PATH`.
pub struct World {
    root: PathBuf,
    _guard: tempfile::TempDir,
    daemon: Option<Child>,
}

/// What an entry of a tree is: kind, mode (not of links) and contents.
pub type Node = (char, u32, Vec<u8>);

impl World {
    pub fn new() -> World {
        let guard = tempfile::tempdir().unwrap();
        let root = guard.path().canonicalize().unwrap();
        for name in ["src", "trg", "bin"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        World {
            root,
            _guard: guard,
            daemon: None,
        }
    }

    /// Starts the daemon and waits until its startup is over.
    pub fn start(&mut self, config: &str) {
        self.start_with(config, &[]);
    }

    /// As [`World::start`], with these variables in the environment; `@DIR@` in them counts.
    pub fn start_with(&mut self, config: &str, environment: &[(&str, &str)]) {
        let environment = environment
            .iter()
            .map(|(key, value)| (*key, self.expand(value)));
        let environment: Vec<_> = environment.collect();
        let file = self.path("config.lua");
        fs::write(&file, self.expand(config)).unwrap();
        let log = File::create(self.path("log")).unwrap();
        let path = std::env::var("PATH").unwrap();
        let daemon = Command::new(env!("CARGO_BIN_EXE_lsyncd"))
            .arg("-nodaemon")
            .arg(file)
            .env("PATH", format!("{}/bin:{path}", self.root.display()))
            .env("HOME", self.path("home"))
            .env("LC_ALL", "C")
            .envs(environment)
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        self.wait("the startup", |world| {
            let log = world.log();
            log.contains("Startup of") && log.contains(" finished")
        });
    }

    /// `@DIR@` stands for the directory.
    pub fn expand(&self, text: &str) -> String {
        text.replace("@DIR@", self.root.to_str().unwrap())
    }

    pub fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.root.join(OsStr::from_bytes(name.as_ref()))
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap()).into_owned()
    }

    /// A program in front of the daemon's `PATH`.
    pub fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{}", self.expand(script))).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub fn write(&self, name: impl AsRef<[u8]>, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn mkdir(&self, name: impl AsRef<[u8]>) {
        fs::create_dir(self.path(name)).unwrap();
    }

    pub fn link(&self, to: &str, name: impl AsRef<[u8]>) {
        symlink(self.expand(to), self.path(name)).unwrap();
    }

    pub fn chmod(&self, name: impl AsRef<[u8]>, mode: u32) {
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Removes whatever is there.
    pub fn remove(&self, name: impl AsRef<[u8]>) {
        let path = self.path(name);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }

    pub fn inode(&self, name: impl AsRef<[u8]>) -> u64 {
        fs::symlink_metadata(self.path(name)).unwrap().ino()
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) {
        let pid = self.daemon.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }

    /// Waits until the daemon, which has the control socket `sock`, has nothing left to do. That the
    /// trees are equal does not say so: a rename of something whose events are still in the queue is
    /// a copy.
    pub fn settle(&mut self) {
        self.wait_equal();
        let seconds = LIMIT.as_secs().to_string();
        let asked = Command::new(env!("CARGO_BIN_EXE_lsyncdctl"))
            .arg("-socket")
            .arg(self.path("sock"))
            .args(["status", "-wait", "-timeout", &seconds])
            .output();
        let done = asked.as_ref().is_ok_and(|asked| asked.status.success());
        assert!(done, "{asked:?}\n{}", self.log());
    }

    pub fn wait(&mut self, what: &str, mut is_so: impl FnMut(&World) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            if let Some(status) = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap()) {
                panic!("the daemon ended ({status}) before {what}:\n{}", self.log());
            }
            assert!(
                start.elapsed() < LIMIT,
                "no end of waiting for {what}:\n{}\n{}",
                self.differences().join("\n"),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_equal(&mut self) {
        self.wait("equal trees", |world| world.differences().is_empty());
    }

    /// A line for each path of which source and target have different things.
    pub fn differences(&self) -> Vec<String> {
        let [source, target] = ["src", "trg"].map(|tree| tree_of(&self.path(tree)));
        let mut paths: Vec<_> = source.keys().chain(target.keys()).collect();
        paths.sort();
        paths.dedup();
        paths
            .into_iter()
            .filter(|path| source.get(*path) != target.get(*path))
            .map(|path| format!("{path:?}: {:?} {:?}", source.get(path), target.get(path)))
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// All below a directory; what vanishes meanwhile is left out.
pub fn tree_of(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut tree = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(data) = fs::symlink_metadata(&path) else {
                continue;
            };
            let contents = match data.file_type() {
                kind if kind.is_file() => read(&path).unwrap_or_default(),
                kind if kind.is_symlink() => {
                    let to = fs::read_link(&path).unwrap_or_default();
                    to.into_os_string().into_vec()
                }
                _ => Vec::new(),
            };
            let kind = match data.file_type() {
                kind if kind.is_file() => '-',
                kind if kind.is_dir() => 'd',
                kind if kind.is_symlink() => 'l',
                _ => 'p',
            };
            let mode = if kind == 'l' { 0 } else { data.mode() & 0o7777 };
            tree.insert(
                path.strip_prefix(root).unwrap().to_owned(),
                (kind, mode, contents),
            );
            if kind == 'd' {
                open.push(path);
            }
        }
    }
    tree
}

/// A file's contents; a pipe that came in its place meanwhile is not waited for.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?
        .read_to_end(&mut contents)?;
    Ok(contents)
}

/// Names that shells, tools and logs trip over.
pub const HOSTILE: &[&[u8]] = &[
    b"it's",
    b"'; touch pwned; '",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"new\nline",
    b"-rf",
    b"--help",
    b" ",
    b"  two  ",
    b"*",
    b"[a]?",
    b"back\\slash",
    b"end\\",
    b"end\\\\'",
    b"\"",
    b"~",
    b"~root",
    b"#;&|<>!{a,b}",
    b"\xff\xfe",
    b"\x01\x1b[31m",
    b"\xc3\xa9",
];

/// `LSYNCD_TEST_SEED`, which repeats a run's changes, or another each time.
pub fn seed() -> u64 {
    let given = std::env::var("LSYNCD_TEST_SEED");
    let given = given.ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| std::process::id().into())
}

/// Random changes of a tree, the same for the same seed.
pub struct Churn {
    state: u64,
    root: PathBuf,
    /// Where symbolic links lead to.
    links: [&'static str; 3],
}

impl Churn {
    pub fn new(seed: u64, root: PathBuf, links: [&'static str; 3]) -> Churn {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Churn { state, root, links }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    /// One to three components of six names each.
    fn any_path(&mut self) -> PathBuf {
        let mut path = self.root.clone();
        for _ in 0..=self.below(3) {
            path.push(["a", "b", "c'", "d d", "e", "f"][self.below(6) as usize]);
        }
        path
    }

    /// Some changes in a row: from one, which finds all as it should be, to many.
    pub fn burst(&mut self) {
        let most = [1, 2, 6, 100][self.below(4) as usize];
        for _ in 0..=self.below(most) {
            while self.step().is_err() {}
        }
    }

    /// One change, if it is possible.
    fn step(&mut self) -> std::io::Result<()> {
        let path = self.any_path();
        match self.below(34) {
            0..=6 => {
                let text = vec![b'a' + self.below(26) as u8; self.below(3000) as usize];
                // Without waiting for a reader if it is a pipe.
                let options = File::options()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&path);
                options.and_then(|mut file| file.write_all(&text))
            }
            7..=12 => fs::create_dir(&path),
            13..=16 => fs::remove_file(&path),
            17 => fs::remove_dir_all(&path),
            18..=29 => fs::rename(&path, self.any_path()),
            30 => symlink(self.links[self.below(3) as usize], &path),
            31..=32 => self.chmod(&path),
            _ => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)
                .map_err(std::io::Error::from),
        }
    }

    fn chmod(&mut self, path: &Path) -> std::io::Result<()> {
        let data = fs::symlink_metadata(path)?;
        let mode = match (data.is_dir(), data.is_file()) {
            (true, _) => [0o755, 0o700, 0o711][self.below(3) as usize],
            (_, true) => [0o644, 0o600, 0o755, 0o444][self.below(4) as usize],
            _ => return Err(std::io::ErrorKind::Other.into()),
        };
        fs::set_permissions(path, PermissionsExt::from_mode(mode))
    }
}
