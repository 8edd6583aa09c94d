//! A backend on a temporary directory, for the tests of this room.
//!
//! Records are made by hand, with the handles of real directories, so a test decides which events
//! there are and what the disk has when they are handled. The kernel's own events of the
//! preparations are dropped.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use tempfile::TempDir;

use super::FanotifyBackend;
use super::places::handle_of;
use super::records::count;
use super::records::tests::{info, record};
use crate::sys;
use crate::test_skip::skip;
use crate::watch::reader::Chunk;
use crate::watch::{Backend, Event, Follow, InotifyMode, Loss, Observer, Scope};

/// The limit of a wait. Only a failing test reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// The kind of a directory's events.
pub const DIR: u64 = libc::FAN_ONDIR;

/// Records reports as lines, with paths relative to the temporary directory.
pub struct Reports {
    base: Vec<u8>,
    pub told: Vec<String>,
    pub overflows: usize,
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

    fn renewed(&mut self, path: &[u8]) {
        self.add("renewed", &[path]);
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

    fn out_of_watches(&mut self, _: &[u8]) {}

    fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
        self.add(&format!("{what}: {error}"), &[path]);
    }
}

/// The handle of a directory or file, as in events.
pub type Handle = Vec<u8>;

/// A backend that watches `r/` in a temporary directory, and its reports.
pub struct Rig {
    _dir: TempDir,
    pub base: PathBuf,
    poll: Poll,
    pub backend: FanotifyBackend,
    pub reports: Reports,
}

impl Rig {
    /// Returns a rig with these files and directories, which end with `/`. The scope does not want
    /// directories of the name `no`. Returns `None` if fanotify cannot be used, which counts as a
    /// skipped test.
    ///
    /// The file system has no mark any more, so no event of another test arrives.
    pub fn new(paths: &[&str]) -> Option<Rig> {
        let mut rig = Rig::with_roots(paths, &["r/"])?;
        let noise: Vec<String> = (0..8).map(|number| format!("noise{number}")).collect();
        rig.change(|rig| noise.iter().for_each(|name| rig.make(name)));
        let flags = libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM;
        let top = File::open(&rig.base).unwrap();
        sys::fanotify_mark(rig.backend.places.descriptor(), flags, 0, top.as_fd()).unwrap();
        rig.change(|_| {});
        rig.quiet();
        rig.reports.overflows = 0;
        Some(rig)
    }

    /// Returns a rig that watches these directories, like [`Rig::new`]. The file system has a mark.
    pub fn with_roots(paths: &[&str], roots: &[&str]) -> Option<Rig> {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let staleness = Some(Duration::from_secs(3600));
        let backend = match FanotifyBackend::new(InotifyMode::CloseWrite, staleness, waker) {
            Ok(backend) => backend,
            Err(why) => {
                skip(&format!("fanotify cannot be used: {why}"));
                return None;
            }
        };
        let mut rig = Rig {
            poll,
            backend,
            reports: Reports {
                base: [base.as_os_str().as_bytes(), b"/"].concat(),
                told: Vec::new(),
                overflows: 0,
                follow: Follow::Nothing,
            },
            base,
            _dir: dir,
        };
        for path in roots.iter().chain(paths) {
            rig.make(path);
        }
        let scopes = roots.iter().map(|root| Scope {
            root: rig.absolute(root),
            wants: Arc::new(|path| !path.windows(4).any(|part| part == b"/no/")),
        });
        rig.backend.set_scopes(scopes.collect());
        if let Some((_, why)) = rig.backend.take_refused().first() {
            skip(&format!("fanotify cannot be used here: {why}"));
            return None;
        }
        rig.quiet();
        Some(rig)
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Returns the absolute path of a relative one, as the backend has it.
    pub fn absolute(&self, path: &str) -> Vec<u8> {
        [&self.reports.base, path.as_bytes()].concat()
    }

    fn make(&self, path: &str) {
        if path.ends_with('/') {
            fs::create_dir_all(self.path(path)).unwrap();
        } else {
            fs::write(self.path(path), b"").unwrap();
        }
    }

    /// Changes the disk, and drops the events of that.
    pub fn change(&mut self, change: impl FnOnce(&Rig)) {
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

    /// Removes a file or an empty directory, and drops the events of that.
    pub fn remove(&mut self, path: &str) {
        self.change(|rig| match path.ends_with('/') {
            true => fs::remove_dir_all(rig.path(path)).unwrap(),
            false => fs::remove_file(rig.path(path)).unwrap(),
        });
    }

    fn drop_events(&mut self) {
        let end = Instant::now() + LIMIT;
        while !self.backend.reader.catch_up(Duration::from_millis(100)) {
            assert!(Instant::now() < end, "the events are not read");
        }
        drop(self.backend.reader.take());
    }

    /// Returns the handle of what is at a path.
    pub fn handle(&self, path: &str) -> Handle {
        let file = File::open(self.path(path)).unwrap();
        handle_of(file.as_fd()).unwrap().0
    }

    /// Returns the record of an event of a name in a directory. The target is what the name means.
    pub fn event(&self, mask: u64, directory: &[u8], name: &str, target: Option<&[u8]>) -> Vec<u8> {
        let system = self.backend.places.all()[0].system;
        let mut infos = vec![info(2, system, directory, Some(name.as_bytes()))];
        infos.extend(target.map(|target| info(1, system, target, None)));
        record(mask, &infos)
    }

    /// Returns the record of a rename of a target between names in directories.
    pub fn rename(
        &self,
        mask: u64,
        from: (&[u8], &str),
        to: (&[u8], &str),
        target: &[u8],
    ) -> Vec<u8> {
        let system = self.backend.places.all()[0].system;
        let infos = [
            info(10, system, from.0, Some(from.1.as_bytes())),
            info(12, system, to.0, Some(to.1.as_bytes())),
            info(1, system, target, None),
        ];
        record(libc::FAN_RENAME | mask, &infos)
    }

    /// Queues records as one read that begins at this position.
    pub fn queue_at(&mut self, start: u64, records: &[Vec<u8>]) {
        self.backend.upcoming.on_read(&records.concat());
        self.queue_unseen(start, records);
    }

    /// Queues records that were not in the kernel's queue before, as far as earlier records know.
    ///
    /// A record of another file system follows: if nothing follows a rename and other tests change
    /// files at the same time, the record that tells what it replaces may be on its way.
    pub fn queue_unseen(&mut self, start: u64, records: &[Vec<u8>]) {
        let other = info(2, *b"ELSEWHER", b"\x01\0\0\0none", Some(b"x"));
        let other = record(libc::FAN_CREATE, &[other]);
        let bytes = [records.concat(), other].concat();
        let end = start + count(&bytes) as u64;
        self.backend.pending.push_back(Chunk { bytes, start, end });
    }

    /// Handles these records, as one read, and all that follows from them. Returns the reports.
    pub fn handle_all(&mut self, records: &[Vec<u8>]) -> Vec<String> {
        let start = self.backend.reader.taken();
        self.queue_at(start, records);
        self.quiet()
    }

    /// Handles one record, like [`Rig::handle_all`].
    pub fn handle_one(&mut self, record: &Vec<u8>) -> Vec<String> {
        self.handle_all(std::slice::from_ref(record))
    }

    /// Runs turns until everything has been reported. Returns the reports.
    pub fn quiet(&mut self) -> Vec<String> {
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
