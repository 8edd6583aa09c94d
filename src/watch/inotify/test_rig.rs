//! A backend on a temporary directory, for the tests of this room.
//!
//! Events are made by hand, with the descriptors of real watches, so a test decides which events
//! there are and what the disk has when they are handled. The kernel's own events of the
//! preparations are dropped.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use tempfile::TempDir;

use super::InotifyBackend;
use super::records::RawEvent;
use super::tree::DirNode;
use crate::watch::{Backend, Event, Follow, InotifyMode, Loss, Observer, Scope};

/// The limit of a wait. Only a failing test reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// The kind of a directory's events.
pub const DIR: u32 = libc::IN_ISDIR;

/// Records reports as lines, with paths relative to the temporary directory.
pub struct Reports {
    base: Vec<u8>,
    pub told: Vec<String>,
    pub follow: Follow,
}

impl Reports {
    fn add(&mut self, what: &str, paths: &[&[u8]]) {
        let mut line = what.to_string();
        for path in paths {
            let path = path.strip_prefix(self.base.as_slice()).unwrap_or(path);
            line.push(' ');
            line.push_str(&String::from_utf8_lossy(path));
        }
        self.told.push(line);
    }
}

impl Observer for Reports {
    fn event(&mut self, event: Event<'_>) -> Follow {
        match event {
            Event::Create { path } => self.add("create", &[path]),
            Event::Modify { path } => self.add("modify", &[path]),
            Event::Attrib { path } => self.add("attrib", &[path]),
            Event::Delete { path } => self.add("delete", &[path]),
            Event::Move { from, to } => self.add("move", &[from, to]),
        }
        self.follow
    }

    fn found(&mut self, path: &[u8], _: u64) {
        self.add("found", &[path]);
    }

    fn written(&mut self, path: &[u8], closed: bool) {
        self.add(if closed { "closed" } else { "written" }, &[path]);
    }

    fn overflow(&mut self) {
        self.add("overflow", &[]);
    }

    fn root_lost(&mut self, scope: usize, loss: Loss) {
        self.told.push(format!("lost {scope} {loss:?}"));
    }

    fn root_back(&mut self, scope: usize) {
        self.told.push(format!("back {scope}"));
    }

    fn out_of_watches(&mut self, path: &[u8]) {
        self.add("no watch", &[path]);
    }

    fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
        self.add(&format!("{what}: {error}"), &[path]);
    }
}

/// A backend that watches `r/` in a temporary directory, and its reports.
pub struct Rig {
    _dir: TempDir,
    pub base: PathBuf,
    poll: Poll,
    pub backend: InotifyBackend,
    pub reports: Reports,
}

impl Rig {
    /// Returns a rig with these files and directories, which end with `/`. The scope does not want
    /// directories of the name `no`.
    pub fn new(paths: &[&str]) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut rig = Rig {
            poll,
            backend: InotifyBackend::new(InotifyMode::CloseWrite, None, waker).unwrap(),
            reports: Reports {
                base: [base.as_os_str().as_bytes(), b"/"].concat(),
                told: Vec::new(),
                follow: Follow::Nothing,
            },
            base,
            _dir: dir,
        };
        rig.add(&["r/"]);
        rig.add(paths);
        let scope = Scope {
            root: [&rig.reports.base[..], b"r/"].concat(),
            wants: Arc::new(|path| !path.windows(4).any(|part| part == b"/no/")),
        };
        rig.backend.set_scopes(vec![scope]);
        assert_eq!(rig.quiet(), [""; 0]);
        rig
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Changes the disk, and drops the events of that.
    pub fn change(&mut self, change: impl FnOnce(&Rig)) {
        change(self);
        let end = Instant::now() + LIMIT;
        while !self.backend.reader.catch_up(Duration::from_millis(100)) {
            assert!(Instant::now() < end, "the events are not read");
        }
        drop(self.backend.reader.take());
    }

    /// Makes these files and directories, and drops the events of that.
    pub fn add(&mut self, paths: &[&str]) {
        self.change(|rig| {
            for path in paths {
                if path.ends_with('/') {
                    fs::create_dir_all(rig.path(path)).unwrap();
                } else {
                    fs::write(rig.path(path), b"").unwrap();
                }
            }
        });
    }

    /// Renames on disk, and drops the events of that.
    pub fn mv(&mut self, from: &str, to: &str) {
        self.change(|rig| fs::rename(rig.path(from), rig.path(to)).unwrap());
    }

    /// Exchanges two names on disk, and drops the events of that.
    pub fn exchange(&mut self, one: &str, other: &str) {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        let flags = RenameFlags::RENAME_EXCHANGE;
        self.change(|rig| {
            renameat2(AT_FDCWD, &rig.path(one), AT_FDCWD, &rig.path(other), flags).unwrap();
        });
    }

    /// Returns the node of a directory, whose path ends with `/`.
    pub fn node(&self, path: &str) -> DirNode {
        let path = [&self.reports.base, path.as_bytes()].concat();
        self.backend.tree.find(&path).unwrap()
    }

    /// Returns the descriptor of a watched directory.
    pub fn wd(&self, path: &str) -> i32 {
        self.backend.tree.wd(self.node(path))
    }

    /// Handles an event of a name in the directory with this descriptor.
    pub fn event(&mut self, wd: i32, mask: u32, name: &str) {
        self.half(wd, mask, name, 0);
    }

    /// Handles an event with a cookie.
    pub fn half(&mut self, wd: i32, mask: u32, name: &str, cookie: u32) {
        self.backend.now = Instant::now();
        let name = name.as_bytes();
        let event = RawEvent {
            wd,
            mask,
            cookie,
            name,
        };
        self.backend.dispatch(event, &mut self.reports);
    }

    /// Handles both halves of a rename.
    pub fn rename(&mut self, mask: u32, from: (i32, &str), to: (i32, &str), cookie: u32) {
        self.half(from.0, libc::IN_MOVED_FROM | mask, from.1, cookie);
        self.half(to.0, libc::IN_MOVED_TO | mask, to.1, cookie);
    }

    /// Runs turns until everything has been reported. Returns the reports. Asserts that the watches
    /// of the kernel and those of the tree are the wanted directories.
    pub fn quiet(&mut self) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        let mark = self.backend.event_mark();
        let mut events = mio::Events::with_capacity(1);
        loop {
            self.backend.turn(Instant::now(), &mut self.reports);
            if self.backend.has_reported(mark) {
                break;
            }
            assert!(Instant::now() < end, "{:?}", self.reports.told);
            let pause = Some(Duration::from_millis(2));
            self.poll.poll(&mut events, pause).unwrap();
        }
        self.check();
        std::mem::take(&mut self.reports.told)
    }

    fn check(&self) {
        let (mut watched, mut numbers) = (Vec::new(), Vec::new());
        self.backend.for_each_watch(&mut |wd, path| {
            numbers.push(wd);
            watched.push(path.to_vec());
        });
        let mut wanted = Vec::new();
        if self.path("r").is_dir() {
            find(&self.path("r"), &mut wanted);
        }
        watched.sort();
        wanted.sort();
        let told = &self.reports.told;
        let text = |paths: &[Vec<u8>]| String::from_utf8_lossy(&paths.join(&b' ')).into_owned();
        assert_eq!(text(&watched), text(&wanted), "{told:?}");
        let number = self.backend.inotify.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let wd = |line: &str| {
            let number = line.strip_prefix("inotify wd:")?.split(' ').next()?;
            i32::from_str_radix(number, 16).ok()
        };
        let mut kernel: Vec<i32> = info.lines().filter_map(wd).collect();
        kernel.sort_unstable();
        numbers.sort_unstable();
        assert_eq!(kernel, numbers, "{told:?}");
    }
}

/// Finds the wanted directories.
fn find(directory: &Path, found: &mut Vec<Vec<u8>>) {
    found.push([directory.as_os_str().as_bytes(), b"/"].concat());
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() && entry.file_name() != "no" {
            find(&entry.path(), found);
        }
    }
}
