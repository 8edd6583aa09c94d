//! A backend, or the watcher, on a temporary directory.
//!
//! In the tests of a backend, events are made by hand, so a test decides which events there are and
//! what the disk has when they are handled. The kernel's own events of the preparations are dropped.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use tempfile::TempDir;

use super::reader::Reader;
use super::{Backend, Event, Follow, Loss, Observer, Scope};

/// The limit of a wait. Only a failing test reaches it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Records reports as lines, with paths relative to the temporary directory.
pub struct Reports {
    base: Vec<u8>,
    pub told: Vec<String>,
    pub overflows: usize,
    pub follow: Follow,
}

impl Reports {
    /// Returns reports of paths below a directory.
    pub fn below(base: &Path) -> Reports {
        Reports {
            base: [base.as_os_str().as_bytes(), b"/"].concat(),
            told: Vec::new(),
            overflows: 0,
            follow: Follow::Nothing,
        }
    }

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

    fn renewed(&mut self, path: &[u8]) {
        self.add("renewed", &[path]);
    }

    fn vacated(&mut self, path: &[u8]) {
        self.add("vacated", &[path]);
    }

    fn found(&mut self, path: &[u8], _: u64) {
        self.add("found", &[path]);
    }

    fn written(&mut self, path: &[u8], closed: bool) {
        self.add(if closed { "closed" } else { "written" }, &[path]);
    }

    fn overflow(&mut self) {
        self.overflows += 1;
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

/// A backend under test.
pub trait TestedBackend: Backend {
    /// Returns the reader of the kernel's events.
    fn reader(&mut self) -> &mut Reader;
}

/// A backend or the watcher, which watches directories in a temporary directory, and its reports.
pub struct Rig<B> {
    _dir: TempDir,
    pub base: PathBuf,
    poll: Poll,
    pub backend: B,
    pub reports: Reports,
}

impl<B> Rig<B> {
    /// Returns a rig that watches nothing, with the backend that `start` returns.
    pub fn start<E>(start: impl FnOnce(Arc<Waker>) -> Result<B, E>) -> Result<Rig<B>, E> {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        Ok(Rig {
            poll,
            backend: start(waker)?,
            reports: Reports::below(&base),
            base,
            _dir: dir,
        })
    }

    /// Returns the scope of a directory. It does not want directories of the name `no`.
    pub fn scope(&self, root: &str) -> Scope {
        Scope {
            root: self.absolute(root),
            wants: Arc::new(|path| !path.windows(4).any(|part| part == b"/no/")),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Returns the absolute path of a relative one, as the backend has it.
    pub fn absolute(&self, path: &str) -> Vec<u8> {
        [&self.reports.base, path.as_bytes()].concat()
    }

    /// Makes a file or directory, whose path ends with `/`, and the directories above it.
    pub fn make(&self, path: &str) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        fs::create_dir_all(self.path(directory)).unwrap();
        if !name.is_empty() {
            fs::write(self.path(path), b"").unwrap();
        }
    }

    /// Returns the poll that the backend wakes.
    pub fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }
}

impl<B: TestedBackend> Rig<B> {
    /// Changes the disk, and drops the events of that.
    pub fn change(&mut self, change: impl FnOnce(&Self)) {
        change(self);
        self.drop_events();
    }

    /// Makes these files and directories, and drops the events of that.
    pub fn add(&mut self, paths: &[&str]) {
        self.change(|rig| paths.iter().for_each(|path| rig.make(path)));
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

    fn drop_events(&mut self) {
        let end = Instant::now() + LIMIT;
        while !self.backend.reader().catch_up(Duration::from_millis(100)) {
            assert!(Instant::now() < end, "the events are not read");
        }
        drop(self.backend.reader().take());
    }

    /// Runs turns until everything has been reported. Returns the reports.
    pub fn reported(&mut self) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        let mark = self.backend.event_mark();
        let mut events = mio::Events::with_capacity(1);
        loop {
            self.backend.turn(Instant::now(), &mut self.reports);
            if self.backend.has_reported(mark) && !self.backend.crawling() {
                return std::mem::take(&mut self.reports.told);
            }
            assert!(Instant::now() < end, "{:?}", self.reports.told);
            let pause = Some(Duration::from_millis(2));
            self.poll.poll(&mut events, pause).unwrap();
        }
    }
}
