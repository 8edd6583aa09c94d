//! A source, a target and random changes, for `batch_rsync`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::random::Random;
use crate::support::script::write_script;
use lsyncd::batch::{
    BatchEntry, BatchRequest, Change, ListMode, ListStrategy, Transfer, TransferKind,
};
use tempfile::TempDir;

/// Names with special characters of shells and of rsync's patterns, filters and lists.
pub const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"dir",
    b"a]",
    b"[x]",
    b"[",
    b"*",
    b"?",
    b"a\\b",
    b"\\",
    b"a\\*b",
    b"\\]",
    b"#h",
    b";s",
    b"n\nl",
    b"-d",
    b" lead",
    b"trail ",
    b"+ p",
    b"- p",
    b"\xff\xfe",
    b"x***",
    b"***",
    b"**",
    b"!",
    b"..x",
    b"[!a]",
    b"{a,b}",
    b"\\*",
    b"\\[",
    b"h:x",
    b"%d",
    b"$a",
];

/// A source, a target, and the events of the source.
pub struct World {
    pub dir: TempDir,
    pub events: Vec<(Change, Vec<u8>)>,
    pub random: Random,
    pub last_transfer: Option<SystemTime>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let dir = TempDir::new().unwrap();
        for name in ["source", "target"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        World {
            dir,
            events: Vec::new(),
            random: Random::new(seed),
            last_transfer: None,
        }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub fn at(&self, path: &[u8]) -> PathBuf {
        self.source().join(OsStr::from_bytes(&path[1..]))
    }

    /// Sets the time of all recently changed directories to this year, which shows if their
    /// attributes were sent.
    pub fn date_directories(&self, year: u64) {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let time = SystemTime::UNIX_EPOCH + YEAR * (year - 1970) as u32;
        let recent = SystemTime::now() - YEAR;
        let all = inside(&self.source());
        for path in all.iter().map(Vec::as_slice).chain([b"/".as_slice()]) {
            let directory = self.at(path);
            if path.ends_with(b"/")
                && fs::metadata(&directory).unwrap().modified().unwrap() > recent
            {
                let times = FileTimes::new().set_modified(time);
                File::open(directory).unwrap().set_times(times).unwrap();
            }
        }
    }

    /// Makes the target equal and forgets the events.
    pub fn full_sync(&mut self) {
        self.date_directories(2001);
        let status = Command::new("rsync")
            .args(["-a", "--delete", "--ignore-times"])
            .args([self.source().join(""), self.target().join("")])
            .status()
            .unwrap();
        assert!(status.success());
        self.last_transfer = Some(SystemTime::now());
        self.events.clear();
    }

    pub fn note(&mut self, change: Change, path: &[u8]) {
        self.events.push((change, path.to_vec()));
    }

    /// Returns a random name in a random directory.
    pub fn pick(&mut self) -> Vec<u8> {
        let directories: Vec<Vec<u8>> = snapshot(&self.source())
            .into_iter()
            .filter(|(_, what)| what.starts_with("dir"))
            .map(|(path, _)| path)
            .collect();
        let mut path = directories[self.random.below(directories.len())].clone();
        if path == b"/" || path.len() > 200 {
            path.clear();
        }
        path.push(b'/');
        path.extend_from_slice(NAMES[self.random.below(NAMES.len())]);
        path
    }

    /// Adds the events of a crawl for a new `path`.
    pub fn announce(&mut self, path: &[u8]) {
        let full = self.at(path);
        if !fs::symlink_metadata(&full).unwrap().is_dir() {
            return self.note(Change::Create, path);
        }
        self.note(Change::Create, &slash(path));
        for below in inside(&full) {
            self.note(Change::Create, &[path, &below].concat());
        }
    }

    /// Removes `path` with an event for everything in it like `rm -r`, or with one event like a
    /// move out of the source.
    pub fn remove(&mut self, path: &[u8]) {
        let full = self.at(path);
        let Ok(data) = fs::symlink_metadata(&full) else {
            return;
        };
        if !data.is_dir() {
            fs::remove_file(&full).unwrap();
            return self.note(Change::Delete, path);
        }
        if self.random.below(2) == 0 {
            for below in inside(&full).into_iter().rev() {
                self.note(Change::Delete, &[path, &below].concat());
            }
        }
        fs::remove_dir_all(&full).unwrap();
        self.note(Change::Delete, &slash(path));
    }

    pub fn write(&mut self, path: &[u8]) {
        // All files have one size, so only their contents differ.
        let text = format!("{:02}", self.random.below(100));
        let change = if self.at(path).exists() {
            Change::Modify
        } else {
            Change::Create
        };
        fs::write(self.at(path), text).unwrap();
        self.note(change, path);
    }

    pub fn mkdir(&mut self, path: &[u8]) {
        fs::create_dir(self.at(path)).unwrap();
        self.note(Change::Create, &slash(path));
    }

    pub fn step(&mut self) {
        let path = self.pick();
        let now = fs::symlink_metadata(self.at(&path)).ok();
        match self.random.below(10) {
            0..3 => {
                if now.is_some_and(|data| !data.is_file()) {
                    self.remove(&path);
                }
                self.write(&path);
            }
            3 | 4 => {
                self.remove(&path);
                self.mkdir(&path);
            }
            5 => {
                self.remove(&path);
                let to = ["a", "dir", "/etc", "nowhere", "."][self.random.below(5)];
                symlink(to, self.at(&path)).unwrap();
                self.note(Change::Create, &path);
            }
            6 => self.remove(&path),
            7 => self.chmod(&path),
            _ if now.is_some() => self.rename(&path),
            _ => {}
        }
        if self.random.below(10) == 0 {
            // The cause of an event may be gone.
            self.note(Change::Create, &[&path, b"/stale".as_slice()].concat());
        }
    }

    pub fn chmod(&mut self, path: &[u8]) {
        let Ok(data) = fs::symlink_metadata(self.at(path)) else {
            return;
        };
        if data.is_symlink() {
            return;
        }
        let mode = [0o700, 0o755, 0o711][self.random.below(3)];
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
        if data.is_dir() {
            self.note(Change::Attrib, &slash(path))
        } else {
            self.note(Change::Attrib, path)
        }
    }

    pub fn rename(&mut self, from: &[u8]) {
        let to = self.pick();
        if to == from || to.starts_with(&slash(from)) || from.starts_with(&slash(&to)) {
            return;
        }
        let directory = fs::symlink_metadata(self.at(from)).unwrap().is_dir();
        if directory || fs::symlink_metadata(self.at(&to)).is_ok_and(|data| data.is_dir()) {
            self.remove(&to);
        }
        fs::rename(self.at(from), self.at(&to)).unwrap();
        if directory {
            self.note(Change::Delete, &slash(from))
        } else {
            self.note(Change::Delete, from)
        }
        self.announce(&to);
    }

    /// Returns the transfer that `batch` makes of the events.
    pub fn prepare(&self, chooser: &mut ListStrategy, setup: &Setup) -> Transfer {
        let target = self.target().join("");
        let target = [setup.host, target.as_os_str().as_bytes()].concat();
        let source = self.source().join("");
        let request = BatchRequest {
            source: source.as_os_str().as_bytes(),
            target: &target,
            options: &setup.words,
            binary: &setup.binary,
            delete: setup.delete,
            filters: &setup.filters,
            delete_excluded: setup.delete_excluded,
            last_transfer: self.last_transfer,
            by_content: setup.by_content,
            list: setup.list,
        };
        let entries = self.events.iter().map(|(change, path)| BatchEntry {
            change: *change,
            path,
            to: None,
        });
        chooser.prepare(&request, entries)
    }

    pub fn transfer(&self, setup: &Setup) -> Transfer {
        let transfer = self.prepare(&mut ListStrategy::new(), setup);
        let (code, output) = run(&transfer);
        assert_eq!(code, 0, "{output}{}", describe(&transfer));
        transfer
    }
}

pub struct Setup {
    pub words: Vec<Vec<u8>>,
    pub binary: Vec<u8>,
    pub host: &'static [u8],
    pub delete: bool,
    pub filters: Vec<Vec<u8>>,
    pub delete_excluded: bool,
    pub by_content: bool,
    pub list: ListMode,
}

impl Setup {
    pub fn new(list: ListMode) -> Setup {
        Setup {
            words: vec![b"-lptgoDs".to_vec()],
            binary: b"rsync".to_vec(),
            host: b"",
            delete: true,
            filters: Vec::new(),
            delete_excluded: false,
            by_content: false,
            list,
        }
    }

    /// Returns a setup with a remote shell that runs commands on this host.
    pub fn remote(dir: &Path) -> Setup {
        let shell = dir.join("shell");
        write_script(&shell, "shift\nexec sh -c \"$*\"");
        let mut setup = Setup::new(ListMode::Auto);
        let word = [b"--rsh=", shell.as_os_str().as_bytes()].concat();
        setup.words.push(word);
        setup.host = b"host:";
        setup
    }

    pub fn with_word(mut self, word: &str) -> Setup {
        self.words.push(word.into());
        self
    }

    pub fn with_filters(mut self, lines: &[&str]) -> Setup {
        self.filters = lines.iter().map(|&line| line.into()).collect();
        self
    }
}

pub fn run(transfer: &Transfer) -> (i32, String) {
    let mut child = Command::new("rsync")
        .args(transfer.args.iter().map(|word| OsStr::from_bytes(word)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(&transfer.list);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap();
    (code, String::from_utf8_lossy(&text).into_owned())
}

pub fn describe(transfer: &Transfer) -> String {
    let args: Vec<_> = transfer
        .args
        .iter()
        .map(|word| OsStr::from_bytes(word))
        .collect();
    format!("{args:?}\n{}", transfer.names())
}

pub fn slash(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

/// Returns type, mode, time and contents of everything below `root`, and of itself as `/`.
pub fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    pub fn visit(path: &Path, name: Vec<u8>, all: &mut BTreeMap<Vec<u8>, String>) {
        let data = fs::symlink_metadata(path).unwrap();
        let (mode, mtime) = (data.mode() & 0o7777, data.mtime());
        if data.is_symlink() {
            all.insert(name, format!("link {:?}", fs::read_link(path).unwrap()));
        } else if data.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let name = [&name, b"/".as_slice(), entry.file_name().as_bytes()].concat();
                visit(&entry.path(), name, all);
            }
            let name = if name.is_empty() { b"/".to_vec() } else { name };
            all.insert(name, format!("dir {mode:o} {mtime}"));
        } else {
            let text = fs::read(path).unwrap();
            let what = format!("file {mode:o} {mtime} {}", text.escape_ascii());
            all.insert(name, what);
        }
    }
    let mut all = BTreeMap::new();
    visit(root, Vec::new(), &mut all);
    all
}

/// Returns everything below a directory; directories have a trailing slash and precede their
/// contents.
pub fn inside(root: &Path) -> Vec<Vec<u8>> {
    let mut all = snapshot(root);
    all.remove(b"/".as_slice());
    all.into_iter()
        .map(|(path, what)| {
            if what.starts_with("dir") {
                slash(&path)
            } else {
                path
            }
        })
        .collect()
}

pub type Snapshot = BTreeMap<Vec<u8>, String>;

pub fn assert_same(source: &Snapshot, target: &Snapshot, why: &str) {
    let differences: Vec<String> = source
        .keys()
        .chain(target.keys())
        .filter(|path| source.get(*path) != target.get(*path))
        .map(|path| {
            let (here, there) = (source.get(path), target.get(path));
            format!("{}: {here:?} -> {there:?}", path.escape_ascii())
        })
        .collect();
    assert!(differences.is_empty(), "{differences:#?}\n{why}");
}

/// Runs random changes of random trees. Returns how many batches used a list of files.
pub fn churn(seeds: std::ops::Range<u64>, setup: impl Fn(&World) -> Setup) -> usize {
    let mut files_from = 0;
    for seed in seeds {
        let mut world = World::new(seed);
        let setup = setup(&world);
        for _ in 0..60 {
            world.step();
        }
        world.full_sync();
        for _ in 0..1 + world.random.below(30) {
            world.step();
        }
        if world.events.is_empty() {
            continue;
        }
        world.date_directories(2002);
        let transfer = world.transfer(&setup);
        files_from += usize::from(transfer.kind != TransferKind::Classic);

        let why = format!("seed {seed} {}", describe(&transfer));
        let source = snapshot(&world.source());
        let mut target = snapshot(&world.target());
        if !setup.delete {
            target.retain(|path, _| source.contains_key(path));
        }
        assert_same(&source, &target, &why);
    }
    files_from
}
