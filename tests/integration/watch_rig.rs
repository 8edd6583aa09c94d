//! A watcher on a temporary directory, and an observer that records all events.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsyncd::watch::{Event, Follow, InotifyMode, Loss, Observer, Scope, WatchChoice, Watcher};
use mio::{Events, Poll, Token, Waker};
use tempfile::TempDir;

/// The limit of a wait. Only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event with its paths relative to the test's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Create(String),
    Modify(String),
    Attrib(String),
    Delete(String),
    Renewed(String),
    Move(String, String),
}

/// Records the events, and maintains the set of paths that follows from them.
pub struct Log {
    base: Vec<u8>,
    pub events: Vec<Told>,
    /// The paths by the events; those of directories end with `/`.
    pub model: BTreeSet<Vec<u8>>,
    pub follow: Follow,
    /// The observer processes renames as such; contents are reported for other observers.
    pub moves: bool,
    /// The paths that were reported as contents, with the number of each.
    pub found: Vec<(String, u64)>,
    pub overflows: usize,
    pub lost: Vec<(usize, Loss)>,
    pub back: Vec<usize>,
    pub exhausted: usize,
    pub troubles: Vec<String>,
    /// Do not remember events, only count them.
    pub terse: bool,
    pub count: usize,
}

impl Log {
    fn relative(&self, path: &[u8]) -> String {
        let path = path.strip_prefix(self.base.as_slice()).unwrap_or(path);
        String::from_utf8_lossy(path).into_owned()
    }

    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut bare = path.to_vec();
        if bare.last() == Some(&b'/') {
            bare.pop();
        }
        let range = self.model.range(bare.clone()..);
        let inside = range
            .take_while(|other| other.starts_with(&bare))
            .filter(|other| matches!(other.get(bare.len()), None | Some(b'/')));
        inside.cloned().collect()
    }

    fn forget(&mut self, path: &[u8]) {
        for path in self.below(path) {
            self.model.remove(&path);
        }
    }
}

impl Observer for Log {
    fn event(&mut self, event: Event<'_>) -> Follow {
        self.count += 1;
        if self.terse {
            return self.follow;
        }
        let told = match event {
            Event::Create { path } => {
                // A directory replaces a file of the same name.
                if let [name @ .., b'/'] = path {
                    self.model.remove(name);
                }
                self.model.insert(path.to_vec());
                Told::Create(self.relative(path))
            }
            Event::Modify { path } => Told::Modify(self.relative(path)),
            Event::Attrib { path } => Told::Attrib(self.relative(path)),
            Event::Delete { path } => {
                self.forget(path);
                Told::Delete(self.relative(path))
            }
            Event::Move { from, to } => {
                self.forget(to);
                for path in self.below(from) {
                    self.model.remove(&path);
                    self.model
                        .insert([to, path.get(from.len()..).unwrap_or(b"")].concat());
                }
                self.model.insert(to.to_vec());
                Told::Move(self.relative(from), self.relative(to))
            }
        };
        self.events.push(told);
        self.follow
    }

    fn renewed(&mut self, path: &[u8]) {
        self.count += 1;
        if !self.terse {
            self.forget(path);
            self.events.push(Told::Renewed(self.relative(path)));
        }
    }

    fn found(&mut self, path: &[u8], number: u64) {
        self.found.push((self.relative(path), number));
        if !self.moves {
            self.event(Event::Create { path });
        }
    }

    fn overflow(&mut self) {
        self.overflows += 1;
    }

    fn root_lost(&mut self, scope: usize, loss: Loss) {
        self.lost.push((scope, loss));
    }

    fn root_back(&mut self, scope: usize) {
        self.back.push(scope);
    }

    fn out_of_watches(&mut self, _: &[u8]) {
        self.exhausted += 1;
    }

    fn watch_failed(&mut self, path: &[u8], error: &io::Error, what: &'static str) {
        let path = self.relative(path);
        self.troubles.push(format!("{what} {path}: {error}"));
    }
}

/// The backend under test: inotify, or fanotify if `LSYNCD_TEST_WATCH` says so.
fn choice() -> WatchChoice {
    match std::env::var("LSYNCD_TEST_WATCH").as_deref() {
        Ok("fanotify") => WatchChoice::Fanotify,
        _ => WatchChoice::Inotify,
    }
}

/// A temporary directory, a watcher, and the poll of its waker.
pub struct Rig {
    _dir: TempDir,
    pub base: PathBuf,
    pub watcher: Watcher,
    pub log: Log,
    poll: Poll,
    marks: usize,
}

impl Rig {
    /// Returns a rig that watches nothing.
    pub fn bare() -> Rig {
        Rig::tracking(None)
    }

    /// Returns a rig that watches nothing, and reports files that are not closed after this time.
    pub fn tracking(staleness: Option<Duration>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let log = Log {
            base: [base.as_os_str().as_bytes(), b"/"].concat(),
            events: Vec::new(),
            model: BTreeSet::new(),
            follow: Follow::Nothing,
            moves: false,
            found: Vec::new(),
            overflows: 0,
            lost: Vec::new(),
            back: Vec::new(),
            exhausted: 0,
            troubles: Vec::new(),
            terse: false,
            count: 0,
        };
        Rig {
            _dir: dir,
            base,
            watcher: Watcher::new(choice(), InotifyMode::CloseWrite, staleness, waker).unwrap(),
            log,
            poll,
            marks: 0,
        }
    }

    /// Returns a rig that watches `r/`, which `prepare` may fill before.
    pub fn new(prepare: impl FnOnce(&Rig)) -> Rig {
        let mut rig = Rig::bare();
        rig.mkdir("r");
        prepare(&rig);
        let scope = rig.scope("r/", |_| true);
        rig.watch(vec![scope]);
        rig
    }

    pub fn scope(
        &self,
        root: &str,
        wants: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Scope {
        Scope {
            root: [self.log.base.as_slice(), root.as_bytes()].concat(),
            wants: Arc::new(wants),
        }
    }

    /// Sets the scopes and waits until they are read.
    pub fn watch(&mut self, scopes: Vec<Scope>) {
        self.watcher.set_scopes(scopes);
        self.until("the roots to be read", |rig| !rig.watcher.crawling());
        self.log.model = self.on_disk("r").into_iter().collect();
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Returns the absolute path of a relative one, as the watcher has it.
    pub fn absolute(&self, path: &str) -> Vec<u8> {
        [self.log.base.as_slice(), path.as_bytes()].concat()
    }

    pub fn mkdir(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub fn touch(&self, path: &str) {
        fs::write(self.path(path), b"").unwrap();
    }

    /// Makes a tree that is too large to be read in one turn, outside of the watched directory.
    pub fn make_large(&self) {
        for outer in 0..30 {
            for inner in 0..30 {
                self.mkdir(&format!("out/{outer}/{inner}"));
                self.touch(&format!("out/{outer}/{inner}/f"));
            }
        }
    }

    pub fn mv(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn rmdir(&self, path: &str) {
        fs::remove_dir_all(self.path(path)).unwrap();
    }

    pub fn turn(&mut self) {
        self.watcher.turn(Instant::now(), &mut self.log);
    }

    /// Runs turns until `done`, which may become true without an event.
    pub fn until(&mut self, what: &str, done: impl Fn(&Rig) -> bool) {
        self.run(what, Some(Duration::from_millis(50)), done);
    }

    /// Runs turns when the watcher requests them, at most after `interval`, until `done`.
    fn run(&mut self, what: &str, interval: Option<Duration>, done: impl Fn(&Rig) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if done(self) {
                return;
            }
            let now = Instant::now();
            if now > end {
                let tail = self.log.events.len().saturating_sub(40);
                panic!(
                    "waited too long for {what}; last events: {:#?}",
                    &self.log.events[tail..]
                );
            }
            let end = interval.map_or(end, |interval| now + interval);
            let deadline = self.watcher.next_deadline().unwrap_or(end).min(end);
            self.sleep(deadline.saturating_duration_since(now));
        }
    }

    /// Waits until the waker fires, at most for this time. Returns true if it has.
    pub fn sleep(&mut self, timeout: Duration) -> bool {
        let mut events = Events::with_capacity(4);
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => panic!("{error}"),
            _ => !events.is_empty(),
        }
    }

    /// Waits until all events have been reported: creates a file, whose event is the last.
    pub fn settle(&mut self) {
        self.settle_in("r");
    }

    pub fn settle_in(&mut self, root: &str) {
        self.marks += 1;
        let mark = format!("{root}/mark{}", self.marks);
        self.touch(&mark);
        self.until("the mark", |rig| rig.told(&Told::Create(mark.clone())));
        fs::remove_file(self.path(&mark)).unwrap();
        self.until("the mark's end", |rig| {
            rig.told(&Told::Delete(mark.clone()))
        });
        self.until("quiet", |rig| {
            !rig.watcher.crawling() && rig.watcher.next_deadline().is_none()
        });
        let is_mark = |told: &Told| {
            matches!(told,
            Told::Create(path) | Told::Modify(path) | Told::Delete(path) if *path == mark)
        };
        self.log.events.retain(|told| !is_mark(told));
    }

    /// Runs turns until all events before this call have been reported.
    pub fn reach_mark(&mut self) {
        let mark = self.watcher.event_mark();
        self.run("the mark", None, |rig| rig.watcher.has_reported(mark));
    }

    pub fn told(&self, told: &Told) -> bool {
        self.log.events.contains(told)
    }

    /// Returns the watched directories, relative to the temporary directory.
    pub fn watched(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.watcher
            .for_each_watch(|_, path| paths.push(self.log.relative(path)));
        paths.sort();
        paths
    }

    /// Asserts which directories are watched; only inotify watches directories.
    pub fn assert_watched(&self, expected: &[&str]) {
        if choice() != WatchChoice::Fanotify {
            assert_eq!(self.watched(), expected);
        }
    }

    /// Returns true if directories have watches, which is not so with fanotify.
    pub fn has_watches() -> bool {
        choice() != WatchChoice::Fanotify
    }

    /// Returns all entries below a directory as the observer would get them.
    pub fn on_disk(&self, root: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        walk(&self.path(root), &mut found);
        found.sort();
        found
    }

    /// Asserts that the watched directories are those on disk, and that the observer's paths are
    /// correct.
    pub fn check(&self, hint: &str) {
        let disk = self.on_disk("r");
        let relative = |path: &Vec<u8>| self.log.relative(path);
        let mut directories: Vec<String> = disk
            .iter()
            .filter(|path| path.ends_with(b"/"))
            .map(relative)
            .collect();
        directories.push("r/".into());
        directories.sort();
        let watched = match choice() {
            WatchChoice::Fanotify => directories.clone(),
            _ => self.watched(),
        };
        let missing: Vec<_> = directories
            .iter()
            .filter(|path| !watched.contains(path))
            .collect();
        let surplus: Vec<_> = watched
            .iter()
            .filter(|path| !directories.contains(path))
            .collect();
        assert!(
            watched == directories,
            "{hint}: not watched {missing:?}, wrongly watched {surplus:?}"
        );
        let told: Vec<_> = self.log.model.iter().map(relative).collect();
        let there: Vec<_> = disk.iter().map(relative).collect();
        let missing: Vec<_> = there.iter().filter(|path| !told.contains(path)).collect();
        let surplus: Vec<_> = told.iter().filter(|path| !there.contains(path)).collect();
        assert!(
            told == there,
            "{hint}: not told {missing:?}, wrongly told {surplus:?}"
        );
        assert_eq!(self.log.troubles, [""; 0], "{hint}");
        if Rig::has_watches() {
            assert_eq!(self.log.overflows, 0, "{hint}");
        }
    }
}

fn walk(directory: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let mut path = entry.path().into_os_string().into_vec();
        if entry.file_type().unwrap().is_dir() {
            walk(Path::new(OsStr::from_bytes(&path)), found);
            path.push(b'/');
        }
        found.push(path);
    }
}
