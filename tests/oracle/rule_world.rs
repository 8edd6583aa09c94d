//! A source, a target, random rules and changes, for `batch_rules`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::random::Random;
use crate::support::script::write_script;
use lsyncd::batch::{BatchEntry, BatchRequest, Change, ListMode, ListStrategy};
use lsyncd::filter::Filter;
use tempfile::TempDir;

/// Names of files and directories.
pub const NAMES: &[&str] = &[
    "a", "b", "c.jpg", "d.bak", "keep", "Up", "7", "_x", "s p", "[b", "a\\b", "*",
];

/// The patterns of the rules.
pub const PATTERNS: &[&str] = &[
    "*/",
    "*",
    "*.jpg",
    "*.bak",
    "/***",
    "**",
    "/a",
    "/a/***",
    "a/",
    "a/**",
    "/a/*/",
    "b/c.jpg",
    "**/keep",
    "keep/",
    "keep",
    "/b/keep/***",
    "[[:upper:]]*",
    "[[:digit:]]",
    "[[:punct:]]*",
    "?",
    "[!a]*",
    "/*/a",
    "a**",
    "**a/b",
    "b/",
    "/b/",
    "\\*",
    "/a/b/***",
    "a/*/b",
    "d.bak/",
    "/*",
    "[[:alpha:]]",
    "*[[:space:]]*",
    "/*/",
    "a\\b",
    "\\[b",
];

/// The access to the target, and the kind of list.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub reach: Reach,
    pub list: ListMode,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    Local,
    /// A script as `rsync.binary`.
    Wrapper,
    /// A remote shell that runs commands on this host.
    Shell,
    /// A daemon's module.
    Module,
}

pub const WAYS: &[(Reach, ListMode)] = &[
    (Reach::Local, ListMode::Auto),
    (Reach::Local, ListMode::Filter),
    (Reach::Local, ListMode::FilesFrom),
    (Reach::Wrapper, ListMode::Auto),
    (Reach::Wrapper, ListMode::FilesFrom),
    (Reach::Shell, ListMode::Auto),
    (Reach::Shell, ListMode::Filter),
    (Reach::Shell, ListMode::FilesFrom),
    (Reach::Module, ListMode::Auto),
];

/// Contents by path; paths of directories have a trailing slash.
pub type Tree = BTreeMap<String, String>;

pub fn tree(root: &Path) -> Tree {
    pub fn visit(path: &Path, name: &str, all: &mut Tree) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                visit(&entry.path(), &name, all);
                all.insert(name + "/", String::new());
            } else if kind.is_symlink() {
                let to = fs::read_link(entry.path()).unwrap();
                all.insert(name, format!("link {}", to.display()));
            } else {
                all.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut all = Tree::new();
    visit(root, "", &mut all);
    all
}

pub struct World {
    pub dir: TempDir,
    pub random: Random,
    pub filter: Filter,
    pub lines: Vec<Vec<u8>>,
    pub delete_excluded: bool,
    pub events: Vec<(Change, String)>,
    pub contents: usize,
    /// The batch was repeated, because an object at the target had to be removed.
    pub insisted: bool,
    pub log: String,
}

impl World {
    pub fn new(seed: u64) -> World {
        let dir = TempDir::new().unwrap();
        for name in ["source", "target"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut random = Random::new(seed);
        let (filter, lines) = rules(&mut random);
        World {
            dir,
            filter,
            lines,
            delete_excluded: random.below(8) == 0,
            random,
            events: Vec::new(),
            contents: 0,
            insisted: false,
            log: String::new(),
        }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.source().join(path.trim_matches('/'))
    }

    /// Returns a random name in a random directory of a tree.
    pub fn pick(&mut self, root: &Path) -> String {
        let all = tree(root);
        let mut directories: Vec<&str> = all.keys().map(String::as_str).collect();
        directories.retain(|path| path.ends_with('/') && path.matches('/').count() < 4);
        directories.push("/");
        format!(
            "{}{}",
            self.random.pick(&directories),
            self.random.pick(NAMES)
        )
    }

    pub fn note(&mut self, change: Change, path: &str) {
        if !self.filter.excluded(path.as_bytes()) {
            self.events.push((change, path.into()));
        }
    }

    /// Returns the path as in events: with a slash if it is a directory.
    pub fn told(&self, path: &str) -> String {
        if fs::symlink_metadata(self.at(path)).is_ok_and(|data| data.is_dir()) {
            format!("{path}/")
        } else {
            path.into()
        }
    }

    pub fn announce(&mut self, path: &str) {
        let told = self.told(path);
        self.note(Change::Create, &told);
        if told.ends_with('/') {
            for below in tree(&self.at(path)).into_keys().rev() {
                self.note(Change::Create, &format!("{path}{below}"));
            }
        }
    }

    pub fn remove(&mut self, path: &str) {
        let told = self.told(path);
        if !told.ends_with('/') {
            if fs::remove_file(self.at(path)).is_ok() {
                self.note(Change::Delete, path);
            }
            return;
        }
        // Like `rm -r`, or with one event like a move out of the source.
        if self.random.below(2) == 0 {
            for below in tree(&self.at(path)).into_keys() {
                self.note(Change::Delete, &format!("{path}{below}"));
            }
        }
        fs::remove_dir_all(self.at(path)).unwrap();
        self.note(Change::Delete, &told);
    }

    pub fn step(&mut self) {
        let path = self.pick(&self.source());
        let kind = self.random.below(9);
        let _ = writeln!(self.log, "step {kind} {path}");
        match kind {
            0 | 1 => {
                if fs::symlink_metadata(self.at(&path)).is_ok_and(|data| !data.is_file()) {
                    self.remove(&path);
                }
                self.contents += 1;
                fs::write(self.at(&path), "x".repeat(self.contents)).unwrap();
                self.note(Change::Create, &path);
            }
            2 | 3 => {
                if !self.told(&path).ends_with('/') || self.random.below(2) == 0 {
                    self.remove(&path);
                    fs::create_dir(self.at(&path)).unwrap();
                    self.note(Change::Create, &format!("{path}/"));
                }
            }
            4 => {
                self.remove(&path);
                symlink(self.random.pick(&["a", "nowhere"]), self.at(&path)).unwrap();
                self.note(Change::Create, &path);
            }
            5 | 6 => self.remove(&path),
            7 => self.rename(&path),
            _ => self.exchange(&path),
        }
    }

    pub fn rename(&mut self, from: &str) {
        let to = self.pick(&self.source());
        let apart = !format!("{to}/").starts_with(&format!("{from}/"))
            && !format!("{from}/").starts_with(&format!("{to}/"));
        if !apart || fs::symlink_metadata(self.at(from)).is_err() {
            return;
        }
        self.remove(&to);
        let told = self.told(from);
        fs::rename(self.at(from), self.at(&to)).unwrap();
        self.note(Change::Delete, &told);
        self.announce(&to);
    }

    pub fn exchange(&mut self, from: &str) {
        let to = self.pick(&self.source());
        let there = |path: &str| fs::symlink_metadata(self.at(path)).is_ok();
        let apart = !format!("{to}/").starts_with(&format!("{from}/"))
            && !format!("{from}/").starts_with(&format!("{to}/"));
        if !apart || !there(from) || !there(&to) {
            return;
        }
        let (told_from, told_to) = (self.told(from), self.told(&to));
        let aside = self.dir.path().join("aside");
        fs::rename(self.at(from), &aside).unwrap();
        fs::rename(self.at(&to), self.at(from)).unwrap();
        fs::rename(&aside, self.at(&to)).unwrap();
        self.note(Change::Delete, &told_from);
        self.note(Change::Delete, &told_to);
        self.announce(from);
        self.announce(&to);
    }

    /// Creates an extra file on the target.
    pub fn intrude(&mut self) {
        let path = self.pick(&self.target());
        let place = self.target().join(path.trim_matches('/'));
        if fs::symlink_metadata(&place).is_ok() || fs::symlink_metadata(self.at(&path)).is_ok() {
            return;
        }
        match self.random.below(2) {
            0 => fs::write(place, "foreign").unwrap(),
            _ => {
                fs::create_dir(&place).unwrap();
                fs::write(place.join(self.random.pick(NAMES)), "foreign").unwrap();
            }
        }
    }

    /// Runs a full comparison. Returns the exit code of rsync.
    pub fn compare_all(&self, target: &Path, delete: bool) -> i32 {
        let mut command = Command::new("rsync");
        let input = self.filter.rsync_input();
        command.args(input.iter().map(|input| input.option));
        if delete {
            command.args(["--delete", "--ignore-errors"]);
        }
        if self.delete_excluded {
            command.arg("--delete-excluded");
        }
        command.args(["-lpts", "--force", "-r"]);
        command.arg(self.source().join("")).arg(target.join(""));
        let text = input.map(|input| input.text).unwrap_or_default();
        run(command, &text).0
    }

    /// Returns a copy of the target for the oracle.
    pub fn copy_of_target(&self) -> PathBuf {
        let copy = self.dir.path().join("oracle");
        let mut command = Command::new("rsync");
        command.args(["-a", "--delete"]);
        command.arg(self.target().join("")).arg(copy.join(""));
        assert_eq!(run(command, b"").0, 0);
        copy
    }

    pub fn transfer(&mut self, way: Way) -> i32 {
        let mut words = vec![b"-lpts".to_vec()];
        let mut binary = b"rsync".to_vec();
        let place = self.target().join("");
        let mut target = place.as_os_str().as_bytes().to_vec();
        let helper = self.dir.path().join("helper");
        match way.reach {
            Reach::Local => {}
            Reach::Wrapper => {
                write_script(&helper, "exec rsync \"$@\"");
                binary = helper.as_os_str().as_bytes().to_vec();
            }
            Reach::Shell => {
                write_script(&helper, "shift\nexec sh -c \"$*\"");
                target = [b"host:".as_slice(), &target].concat();
            }
            Reach::Module => {
                let conf = self.dir.path().join("rsyncd.conf");
                let path = self.target();
                let uid = fs::metadata(&path).unwrap().uid();
                let text = "use chroot = no\nmunge symlinks = no\n[m]\nread only = no\n";
                let user = match uid {
                    // Otherwise a daemon of root runs as nobody.
                    0 => "uid = 0\ngid = 0\n",
                    _ => "",
                };
                fs::write(&conf, format!("{text}{user}path = {}\n", path.display())).unwrap();
                let conf = conf.display();
                write_script(
                    &helper,
                    &format!("exec rsync --server --daemon --config={conf} ."),
                );
                target = b"host::m/".to_vec();
            }
        }
        if matches!(way.reach, Reach::Shell | Reach::Module) {
            words.push([b"--rsh=", helper.as_os_str().as_bytes()].concat());
        }
        let source = self.source().join("");
        let request = BatchRequest {
            source: source.as_os_str().as_bytes(),
            target: &target,
            options: &words,
            binary: &binary,
            delete: true,
            filters: &self.lines,
            delete_excluded: self.delete_excluded,
            last_transfer: None,
            by_content: false,
            list: way.list,
        };
        let entries = self.events.iter().map(|(change, path)| BatchEntry {
            change: *change,
            path: path.as_bytes(),
            to: None,
        });
        let transfer = ListStrategy::new().prepare(&request, entries);
        let mut command = Command::new(OsStr::from_bytes(&binary));
        command.args(transfer.args.iter().map(|word| OsStr::from_bytes(word)));
        let (code, output) = run(command, &transfer.list);
        let args: Vec<_> = transfer
            .args
            .iter()
            .map(|word| word.escape_ascii().to_string())
            .collect();
        let list = transfer
            .list
            .escape_ascii()
            .to_string()
            .replace("\\x00", "\n  ");
        let _ = writeln!(self.log, "{args:#?}\n  {list}\nexit code {code}\n{output}");
        if code == 23 && output.contains("could not make way for ") && !self.insisted {
            // The daemon then deletes the directories at these paths.
            self.insisted = true;
            let mut more = self.events.clone();
            more.retain(|(_, path)| !path.ends_with('/'));
            self.events.extend(
                more.into_iter()
                    .map(|(_, path)| (Change::Delete, path + "/")),
            );
            return self.transfer(way);
        }
        code
    }

    /// Returns true if an event reports the end of the path or of a directory above it.
    pub fn was_removed(&self, path: &str) -> bool {
        let mut gone = self
            .events
            .iter()
            .filter(|(change, _)| *change == Change::Delete);
        gone.any(|(_, gone)| {
            path.strip_suffix('/').unwrap_or(path) == gone.strip_suffix('/').unwrap_or(gone)
                || gone.ends_with('/') && path.starts_with(gone.as_str())
        })
    }

    /// Returns the errors of the target after a batch.
    pub fn faults(&self, before: &Tree, oracle: &Tree) -> Vec<String> {
        let after = tree(&self.target());
        let mut faults = Vec::new();
        for (path, what) in oracle {
            match after.get(path) {
                None => faults.push(format!("lost {path}")),
                Some(is) if is != what => faults.push(format!("stale {path}")),
                _ => {}
            }
        }
        for path in after.keys().filter(|path| !oracle.contains_key(*path)) {
            if self.was_removed(path) {
                faults.push(format!("kept {path}"));
            } else if !before.contains_key(path) {
                faults.push(format!("sent {path}"));
            }
        }
        // Extra files stay in directories without events.
        let source = tree(&self.source());
        let replaced = |path: &str| {
            let mut files = source.keys().filter(|path| !path.ends_with('/'));
            source.contains_key(&format!("{path}/"))
                || files.any(|file| format!("{path}/").starts_with(&format!("{file}/")))
        };
        for path in before.keys().filter(|path| !after.contains_key(*path)) {
            if !self.was_removed(path) && !replaced(path) {
                faults.push(format!("deleted {path}"));
            }
        }
        faults
    }
}

/// Returns random rules, most of them with includes.
pub fn rules(random: &mut Random) -> (Filter, Vec<Vec<u8>>) {
    let mut lines: Vec<String> = Vec::new();
    let only_excludes = random.below(4) == 0;
    if !only_excludes && random.below(2) == 0 {
        lines.push("+ */".into());
    }
    for _ in 0..random.below(4) {
        let sign = if only_excludes || random.below(2) == 0 {
            '-'
        } else {
            '+'
        };
        lines.push(format!("{sign} {}", random.pick(PATTERNS)));
    }
    if !only_excludes && random.below(3) > 0 {
        lines.push("+ *.jpg".into());
        let last = random.pick(&["- *", "- [[:lower:]]", "- /*/*", "- **/a"]);
        lines.push((*last).into());
    }
    let mut filter = Filter::default();
    for line in &lines {
        filter.append_rule(line.as_bytes()).unwrap();
    }
    (filter, lines.into_iter().map(String::into_bytes).collect())
}

pub fn run(mut command: Command, input: &[u8]) -> (i32, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A process that has ended does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}
