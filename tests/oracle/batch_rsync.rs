//! rsync with the arguments and lists of `batch` makes the target equal to the source.

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
const NAMES: &[&[u8]] = &[
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
struct World {
    dir: TempDir,
    events: Vec<(Change, Vec<u8>)>,
    random: Random,
    last_transfer: Option<SystemTime>,
}

impl World {
    fn new(seed: u64) -> World {
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

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.source().join(OsStr::from_bytes(&path[1..]))
    }

    /// Sets the time of all recently changed directories to this year, which shows if their
    /// attributes were sent.
    fn date_directories(&self, year: u64) {
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
    fn full_sync(&mut self) {
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

    fn note(&mut self, change: Change, path: &[u8]) {
        self.events.push((change, path.to_vec()));
    }

    /// Returns a random name in a random directory.
    fn pick(&mut self) -> Vec<u8> {
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
    fn announce(&mut self, path: &[u8]) {
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
    fn remove(&mut self, path: &[u8]) {
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

    fn write(&mut self, path: &[u8]) {
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

    fn mkdir(&mut self, path: &[u8]) {
        fs::create_dir(self.at(path)).unwrap();
        self.note(Change::Create, &slash(path));
    }

    fn step(&mut self) {
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

    fn chmod(&mut self, path: &[u8]) {
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

    fn rename(&mut self, from: &[u8]) {
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
    fn prepare(&self, chooser: &mut ListStrategy, setup: &Setup) -> Transfer {
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

    fn transfer(&self, setup: &Setup) -> Transfer {
        let transfer = self.prepare(&mut ListStrategy::new(), setup);
        let (code, output) = run(&transfer);
        assert_eq!(code, 0, "{output}{}", describe(&transfer));
        transfer
    }
}

struct Setup {
    words: Vec<Vec<u8>>,
    binary: Vec<u8>,
    host: &'static [u8],
    delete: bool,
    filters: Vec<Vec<u8>>,
    delete_excluded: bool,
    by_content: bool,
    list: ListMode,
}

impl Setup {
    fn new(list: ListMode) -> Setup {
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
    fn remote(dir: &Path) -> Setup {
        let shell = dir.join("shell");
        write_script(&shell, "shift\nexec sh -c \"$*\"");
        let mut setup = Setup::new(ListMode::Auto);
        let word = [b"--rsh=", shell.as_os_str().as_bytes()].concat();
        setup.words.push(word);
        setup.host = b"host:";
        setup
    }

    fn with_word(mut self, word: &str) -> Setup {
        self.words.push(word.into());
        self
    }

    fn with_filters(mut self, lines: &[&str]) -> Setup {
        self.filters = lines.iter().map(|&line| line.into()).collect();
        self
    }
}

fn run(transfer: &Transfer) -> (i32, String) {
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

fn describe(transfer: &Transfer) -> String {
    let args: Vec<_> = transfer
        .args
        .iter()
        .map(|word| OsStr::from_bytes(word))
        .collect();
    format!("{args:?}\n{}", transfer.names())
}

fn slash(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

/// Returns type, mode, time and contents of everything below `root`, and of itself as `/`.
fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn visit(path: &Path, name: Vec<u8>, all: &mut BTreeMap<Vec<u8>, String>) {
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
fn inside(root: &Path) -> Vec<Vec<u8>> {
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

type Snapshot = BTreeMap<Vec<u8>, String>;

fn assert_same(source: &Snapshot, target: &Snapshot, why: &str) {
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
fn churn(seeds: std::ops::Range<u64>, setup: impl Fn(&World) -> Setup) -> usize {
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

#[test]
fn a_local_target_is_equal_after_random_changes() {
    assert!(churn(0..30, |_| Setup::new(ListMode::Auto)) > 5);
}

#[test]
fn a_remote_target_is_equal_after_random_changes() {
    assert!(churn(100..115, |world| Setup::remote(world.dir.path())) > 3);
}

#[test]
fn a_target_is_equal_with_filters() {
    let lines = ["+ x.bak", "- *.bak"];
    churn(200..208, |world| {
        Setup::remote(world.dir.path()).with_filters(&lines)
    });
    let lines = ["- *.bak", "- /none/"];
    churn(220..230, |_| {
        Setup::new(ListMode::Auto).with_filters(&lines)
    });
}

#[test]
fn a_target_is_equal_with_the_include_list() {
    assert_eq!(churn(300..315, |_| Setup::new(ListMode::Filter)), 0);
}

#[test]
fn options_that_need_recursion_get_the_classic_call() {
    let setup = |_: &World| Setup::new(ListMode::Auto).with_word("--one-file-system");
    assert_eq!(churn(400..408, setup), 0);
}

#[test]
fn archive_mode_does_not_recurse() {
    assert!(churn(500..508, |_| Setup::new(ListMode::Auto).with_word("-a")) > 1);
}

#[test]
fn without_delete_nothing_is_deleted() {
    for list in [ListMode::Auto, ListMode::Filter] {
        let setup = || Setup {
            delete: false,
            ..Setup::new(list)
        };
        churn(600..608, |_| setup());
        let mut world = World::new(0);
        world.write(b"/gone");
        world.write(b"/kept");
        world.full_sync();
        world.remove(b"/gone");
        world.write(b"/kept");
        world.transfer(&setup());
        assert!(world.target().join("gone").exists());
    }
}

/// Files with every hostile name, in directories with every hostile name: new, changed,
/// deleted, and deleted with their directory.
#[test]
fn hostile_names_are_sent_and_deleted() {
    for list in [ListMode::Auto, ListMode::Filter] {
        let setup = Setup::new(list);
        let mut world = World::new(0);
        world.mkdir(b"/twins");
        for name in NAMES {
            for place in [b"/".as_slice(), b"/twins/"] {
                let directory = [place, name].concat();
                world.mkdir(&directory);
                world.write(&[&directory, b"/".as_slice(), name].concat());
                world.write(&[directory.as_slice(), b"/deleted", name].concat());
            }
        }
        world.transfer(&setup);
        assert_same(
            &snapshot(&world.source()),
            &snapshot(&world.target()),
            "new",
        );

        world.full_sync();
        for name in NAMES {
            let directory = [b"/", *name].concat();
            world.write(&[&directory, b"/".as_slice(), name].concat());
            world.remove(&[directory.as_slice(), b"/deleted", name].concat());
            // A move out of the tree causes no events for the contents.
            let directory = [b"/twins/", *name].concat();
            fs::remove_dir_all(world.at(&directory)).unwrap();
            world.note(Change::Delete, &slash(&directory));
        }
        let transfer = world.transfer(&setup);
        assert_eq!(
            transfer.kind == TransferKind::Classic,
            list == ListMode::Filter
        );
        assert_same(
            &snapshot(&world.source()),
            &snapshot(&world.target()),
            "changed",
        );
    }
}

/// Returns a world whose `/d` and `/e` contain excluded files on the target only.
fn with_excluded() -> World {
    let mut world = World::new(0);
    for name in ["/d", "/d/sub", "/e"] {
        world.mkdir(name.as_bytes());
    }
    for name in ["/d/f", "/d/sub/g", "/e/h", "/same"] {
        world.write(name.as_bytes());
    }
    world.full_sync();
    for name in ["d/kept.bak", "d/sub/kept.bak", "e/kept.bak"] {
        fs::write(world.target().join(name), "").unwrap();
    }
    world
}

fn target_files(world: &World) -> Vec<String> {
    let mut files = inside(&world.target());
    files.retain(|path| !path.ends_with(b"/"));
    files
        .iter()
        .map(|path| path.escape_ascii().to_string())
        .collect()
}

#[test]
fn excluded_files_keep_their_directory() {
    let filters = ["- *.bak"];
    let kept = [
        "/d/kept.bak",
        "/d/sub/kept.bak",
        "/e/h",
        "/e/kept.bak",
        "/same",
    ];
    for setup in [
        |_: &World| Setup::new(ListMode::Auto),
        |_: &World| Setup::new(ListMode::Filter),
        |world: &World| Setup::remote(world.dir.path()),
    ] {
        let mut world = with_excluded();
        world.remove(b"/d");
        world.transfer(&setup(&world).with_filters(&filters));
        assert_eq!(target_files(&world), kept);

        let mut world = with_excluded();
        world.remove(b"/d");
        let setup = Setup {
            delete_excluded: true,
            ..setup(&world).with_filters(&filters)
        };
        world.transfer(&setup);
        assert_eq!(target_files(&world), kept[2..]);
    }
}

/// A new directory replaces another one: the old contents are deleted with or without events, and
/// excluded files stay.
#[test]
fn a_replaced_directory_loses_its_old_contents() {
    for filters in [
        &["- *.bak"][..],
        &["- *.bak", "+ *.txt", "- *.log"],
        &["+ *.bak.txt", "- *.bak"],
    ] {
        for setup in [
            |_: &World| Setup::new(ListMode::Auto),
            |world: &World| Setup::remote(world.dir.path()),
        ] {
            let mut world = with_excluded();
            fs::remove_dir_all(world.at(b"/d")).unwrap();
            world.note(Change::Delete, b"/d/");
            world.mkdir(b"/d");
            world.write(b"/d/new");
            fs::write(world.at(b"/d/secret.bak"), "").unwrap();
            fs::write(world.at(b"/other.txt"), "").unwrap();
            world.transfer(&setup(&world).with_filters(filters));
            let left = target_files(&world);
            let expected = [
                "/d/kept.bak",
                "/d/new",
                "/d/sub/kept.bak",
                "/e/h",
                "/e/kept.bak",
            ];
            assert_eq!(left[..5], expected);
            assert_eq!(left[5..], ["/same"]);
        }
    }
}

/// rsync considers files of equal size and second as equal.
#[test]
fn a_change_in_the_second_of_the_last_transfer_arrives() {
    // A file that was deleted and created again is another file.
    let changes = [Change::Modify, Change::Create, Change::Delete];
    let lists = [ListMode::Auto, ListMode::Filter];
    for (list, change) in lists
        .into_iter()
        .flat_map(|list| changes.map(|c| (list, c)))
    {
        let mut world = World::new(0);
        world.note(change, b"/f");
        let now = SystemTime::now();
        let times = FileTimes::new().set_modified(now);
        for (place, text) in [(world.source(), "new"), (world.target(), "old")] {
            fs::write(place.join("f"), text).unwrap();
            File::options()
                .write(true)
                .open(place.join("f"))
                .unwrap()
                .set_times(times)
                .unwrap();
        }
        let text = |world: &World| fs::read_to_string(world.target().join("f")).unwrap();

        let hour = Duration::from_secs(3600);
        world.last_transfer = Some(now - hour);
        world.transfer(&Setup::new(list));
        assert_eq!(text(&world), "old", "rsync's quick check has become better");

        world.last_transfer = Some(now);
        world.transfer(&Setup::new(list));
        assert_eq!(text(&world), "new");
    }
}

#[test]
fn a_lost_source_deletes_nothing() {
    for list in [ListMode::Auto, ListMode::Filter] {
        let mut world = with_excluded();
        world.remove(b"/d");
        world.remove(b"/same");
        fs::remove_dir_all(world.source()).unwrap();
        let transfer = world.prepare(&mut ListStrategy::new(), &Setup::new(list));
        let (code, output) = run(&transfer);
        assert_eq!(code, 23, "{output}");
        assert!(world.target().join("same").exists());
    }
}

#[test]
fn a_change_of_the_root_sends_its_attributes() {
    let mut world = World::new(0);
    world.write(b"/f");
    world.full_sync();
    fs::set_permissions(world.source(), Permissions::from_mode(0o700)).unwrap();
    fs::write(world.at(b"/unlisted"), "").unwrap();
    world.note(Change::Attrib, b"/");
    world.transfer(&Setup::new(ListMode::Auto));
    assert_eq!(fs::metadata(world.target()).unwrap().mode() & 0o777, 0o700);
    assert!(!world.target().join("unlisted").exists());
}

/// Wrappers read the list themselves, so they always get the include list. Only for a deleted
/// directory do they get the rules of the sync, which protect its contents.
#[test]
fn a_wrapper_gets_the_include_list() {
    let mut world = with_excluded();
    let wrapper = world.dir.path().join("rsync");
    write_script(&wrapper, "exec rsync \"$@\"");
    world.write(b"/e/h");
    world.remove(b"/d");
    world.note(Change::Delete, b"/d/");
    let mut setup = Setup::new(ListMode::Auto).with_filters(&["- *.bak"]);
    setup.binary = wrapper.into_os_string().into_encoded_bytes();
    let transfer = world.prepare(&mut ListStrategy::new(), &setup);
    let words = &transfer.args[..transfer.args.len() - 2];
    assert_eq!(
        words.join(b" ".as_slice()).escape_ascii().to_string(),
        "-lptgoDs -r --delete --ignore-errors --filter=- *.bak --force --from0 --include-from=- \
         --exclude=*"
    );
    assert!(transfer.list.starts_with(b"/e/h\0/e/\0/"));
    setup.filters.clear();
    let transfer = world.prepare(&mut ListStrategy::new(), &setup);
    let words = &transfer.args[..transfer.args.len() - 2];
    assert_eq!(
        words.join(b" ".as_slice()).escape_ascii().to_string(),
        "-lptgoDs -r --delete --ignore-errors --force --from0 --include-from=- --exclude=*"
    );

    setup.list = ListMode::FilesFrom;
    let transfer = world.prepare(&mut ListStrategy::new(), &setup);
    assert_eq!(transfer.kind, TransferKind::FilesFrom { missing: true });
}

/// An old remote rsync is probed once.
#[test]
fn a_remote_rsync_without_the_option_is_remembered() {
    let mut world = with_excluded();
    let old = world.dir.path().join("old-rsync");
    write_script(
        &old,
        "for word; do if [ \"$word\" = --delete-missing-args ]; then\n\
         echo \"rsync: $word: unknown option\" >&2; exit 1; fi; done\nexec rsync \"$@\"",
    );
    let path = format!("--rsync-path={}", old.display());
    // Without -s, so that the script gets the options.
    let mut setup = Setup::remote(world.dir.path()).with_word(&path);
    setup.words[0] = b"-lptgoD".to_vec();
    world.remove(b"/same");

    let mut chooser = ListStrategy::new();
    let transfer = world.prepare(&mut chooser, &setup);
    assert_eq!(transfer.kind, TransferKind::FilesFrom { missing: true });
    let (code, output) = run(&transfer);
    assert_eq!(code, 12, "{output}");
    assert!(
        chooser
            .failed(transfer.kind, code, output.lines())
            .is_some()
    );

    let transfer = world.prepare(&mut chooser, &setup);
    let (code, output) = run(&transfer);
    assert_eq!(
        (transfer.kind, code),
        (TransferKind::Classic, 0),
        "{output}"
    );
    assert!(!world.target().join("same").exists());

    world.events.clear();
    world.write(b"/e/h");
    let transfer = world.prepare(&mut chooser, &setup);
    assert_eq!(transfer.kind, TransferKind::FilesFrom { missing: false });
    assert_eq!(run(&transfer).0, 0);
}

/// Before rsync reads the source, a directory of another user becomes a link to files outside.
#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let confined = Command::new("rsync")
        .args(["--insecure-links", "--version"])
        .output();
    let owner = match nix::unistd::geteuid().is_root() {
        true => 65534,
        // This rsync follows links of its own user.
        false if confined.unwrap().status.success() => return,
        false => nix::unistd::geteuid().as_raw(),
    };
    let open = Permissions::from_mode(0o777);
    for change in [Change::Create, Change::Modify, Change::Attrib] {
        for host in [b"".as_slice(), b"h:"] {
            let mut world = World::new(7);
            fs::create_dir_all(world.at(b"/u/d/e")).unwrap();
            for name in [b"/u/d/f".as_slice(), b"/u/d/e/f"] {
                world.write(name);
            }
            fs::set_permissions(world.at(b"/u"), open.clone()).unwrap();
            world.full_sync();
            let outside = world.dir.path().join("outside");
            fs::create_dir_all(outside.join("e")).unwrap();
            for name in ["f", "e/f"] {
                fs::write(outside.join(name), "secret").unwrap();
            }
            world.note(change, b"/u/d/f");
            world.note(change, b"/u/d/e/f");
            let setup = match host {
                b"" => Setup::new(ListMode::Auto),
                _ => Setup::remote(world.dir.path()),
            };
            let transfer = world.prepare(&mut ListStrategy::new(), &setup);
            fs::rename(world.at(b"/u/d"), world.dir.path().join("away")).unwrap();
            symlink(&outside, world.at(b"/u/d")).unwrap();
            std::os::unix::fs::lchown(world.at(b"/u/d"), Some(owner), None).unwrap();
            run(&transfer);
            let follows = fs::metadata(world.target().join("u/d")).is_ok();
            let real = fs::symlink_metadata(world.target().join("u/d"));
            let is_link = real.is_ok_and(|data| data.is_symlink());
            for name in ["u/d/f", "u/d/e/f"] {
                let content = fs::read(world.target().join(name)).unwrap_or_default();
                assert!(
                    is_link || !follows || content != b"secret",
                    "{change:?} {}",
                    describe(&transfer)
                );
            }
        }
    }
}
