//! The worker of default.direct with users who change its target meanwhile: no file outside of the
//! target and no file of another user gets another mode or owner.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::copy_job::copy_job;
use crate::support::own_process::child;
use inotify::{Inotify, WatchMask};
use lsyncd::local::{CopyReport, CopyTask, Memory, run_job};
use nix::sys::stat::Mode;

use crate::support::dir::skip;

/// A user without rights.
const NOBODY: u32 = 65534;
/// The duration of a race.
const RACE: Duration = Duration::from_secs(3);
/// Makes this program the attacker. The value is the replacement of temporary files.
const ATTACK: &str = "LSYNCD_TEST_ATTACK";

struct Site {
    guard: tempfile::TempDir,
    memory: Memory,
}

impl Site {
    /// A source and a target with a directory `u` of the user without rights; only for root.
    fn new() -> Option<Site> {
        if !nix::unistd::geteuid().is_root() {
            skip("needs root to work for another user");
            return None;
        }
        let guard = tempfile::tempdir().unwrap();
        let site = Site {
            guard,
            memory: Memory::default(),
        };
        open(site.guard.path(), 0o755);
        for name in ["s/u", "t/u"] {
            fs::create_dir_all(site.path(name)).unwrap();
            give(&site.path(name));
        }
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.guard.path().join(name)
    }

    /// Writes a file of the superuser.
    fn secret(&self, name: &str) -> fs::Metadata {
        fs::write(self.path(name), "secret").unwrap();
        open(&self.path(name), 0o600);
        fs::metadata(self.path(name)).unwrap()
    }

    fn compare(&mut self) -> CopyReport {
        let job = copy_job(&self.path("s"), &self.path("t"), CopyTask::Everything);
        run_job(&job, &mut self.memory)
    }

    /// Starts another user, who changes `t/u`. Returns `None` if other users may not run this
    /// program.
    fn attacker(&self, with: &str) -> Option<Attacker> {
        let child = child(module_path!(), "attack")
            .env(ATTACK, with)
            .current_dir(self.path("t/u"))
            .uid(NOBODY)
            .gid(NOBODY)
            .spawn();
        child.ok().map(Attacker)
    }
}

struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Replaces temporary files as they appear, until it is killed.
#[test]
#[ignore = "a process of its own, started by the races"]
fn attack() {
    let Ok(with) = std::env::var(ATTACK) else {
        return;
    };
    let mut inotify = Inotify::init().unwrap();
    let seen = WatchMask::CREATE | WatchMask::MOVED_TO;
    inotify.watches().add(".", seen).unwrap();
    let mut buffer = [0; 65536];
    let mut number = 0;
    let mut take = |name: &OsStr| {
        number += 1;
        match with.strip_prefix("move ") {
            Some(file) => fs::rename(file, name),
            None => {
                let bait = format!("bait{number}");
                symlink(&with, &bait).and_then(|()| fs::rename(&bait, name))
            }
        }
    };
    loop {
        let events = inotify.read_events_blocking(&mut buffer).unwrap();
        let names: Vec<OsString> = events
            .filter_map(|event| event.name.map(OsStr::to_owned))
            .filter(|name| name.as_bytes().starts_with(b".lsyncd."))
            .collect();
        for name in names {
            if take(&name).is_err() {
                // A directory is moved away first.
                let _ = fs::rename(&name, format!("away-{}", name.display()));
                let _ = take(&name);
            }
        }
    }
}

/// Creates a new file of each type.
fn fill(site: &Site, round: usize) {
    let at = |kind: &str| site.path(&format!("s/u/{kind}{round}"));
    let all = Mode::from_bits_truncate(0o666);
    for _ in 0..2 {
        let pipe = at("pipe");
        if !pipe.exists() {
            nix::unistd::mkfifo(&pipe, all).unwrap();
        }
        open(&pipe, 0o666);
    }
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    drop(socket);
    symlink("nowhere", at("link")).unwrap();
    fs::write(at("file"), "text").unwrap();
    open(&at("file"), 0o4777);
    fs::hard_link(at("file"), at("name")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    open(&at("directory"), 0o777);
    for kind in ["pipe", "socket", "link", "file", "directory"] {
        give(&at(kind));
    }
    if round >= 20 {
        for kind in ["pipe", "socket", "link", "file", "name"] {
            let old = site.path(&format!("s/u/{kind}{}", round - 20));
            fs::remove_file(old).unwrap();
        }
        fs::remove_dir(site.path(&format!("s/u/directory{}", round - 20))).unwrap();
    }
}

/// Runs comparisons against an attacker for a while, then once with slow system calls, so that the
/// attacker always wins the race.
fn race(site: &mut Site, with: &str) {
    let Some(_attacker) = site.attacker(with) else {
        return skip("other users may not run this program");
    };
    let end = Instant::now() + RACE;
    let mut round = 0;
    while Instant::now() < end {
        fill(site, round);
        site.compare();
        round += 1;
    }
    assert!(round > 0);
    for _ in 0..5 {
        fill(site, round);
        round += 1;
    }
    slow_pass(site);
}

/// Mirrors once, with a pause before each system call that changes a file.
fn slow_pass(site: &Site) {
    let [source, target] = ["s", "t"].map(|name| site.path(name));
    let config = format!(
        "settings{{ nodaemon = true, onepass = true, logfile = '/dev/null' }}
         sync{{ default.direct, source = '{}', target = '{}' }}",
        source.display(),
        target.display()
    );
    fs::write(site.path("config"), config).unwrap();
    let calls = "fchown,fchownat,fchmod,fchmodat,?fchmodat2,chmod,utimensat,linkat,renameat";
    let done = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={calls}"))
        .arg("-e")
        .arg(format!("inject={calls}:delay_enter=5000"))
        .arg(env!("CARGO_BIN_EXE_lsyncd"))
        .arg(site.path("config"))
        .output();
    match done {
        // A replaced temporary file is a failure, which the next pass repeats.
        Ok(done) if matches!(done.status.code(), Some(0 | 3 | 255)) => {}
        done => skip(&format!("full speed only, no strace: {done:?}")),
    }
}

#[test]
fn links_that_replace_temporary_files_are_not_followed() {
    let Some(mut site) = Site::new() else {
        return;
    };
    let before = site.secret("secret");
    let path = site.path("secret");
    race(&mut site, path.to_str().unwrap());
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.mode(), before.mode());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
}

/// Returns owner and mode of each file below `t/u` that contains "secret".
fn secrets(site: &Site) -> Vec<(u32, u32)> {
    let entries = fs::read_dir(site.path("t/u")).unwrap().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let texts = files.filter(|file| fs::read(file.path()).is_ok_and(|text| text == b"secret"));
    let stats = texts.filter_map(|file| file.metadata().ok());
    stats
        .map(|stat| (stat.uid(), stat.mode() & 0o7777))
        .collect()
}

/// The owner of a directory may rename files of other users in it.
#[test]
fn files_that_replace_temporary_files_keep_their_owner() {
    let Some(mut site) = Site::new() else {
        return;
    };
    let source = site.secret("s/u/secret");
    let report = site.compare();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!((source.uid(), secrets(&site)), (0, vec![(0, 0o600)]));
    let held = fs::File::open(site.path("t/u/secret")).unwrap();
    race(&mut site, "move secret");
    let after = held.metadata().unwrap();
    assert_eq!((after.uid(), after.mode() & 0o7777), (0, 0o600));
    let secrets = secrets(&site);
    let kept = secrets.iter().all(|rights| *rights == (0, 0o600));
    assert!(kept, "{secrets:?}");
}

/// This is no race: the file has size and time of the copy.
#[test]
fn a_file_that_looks_like_the_copy_is_not_given_away() {
    let Some(mut site) = Site::new() else {
        return;
    };
    site.secret("t/u/f");
    let path = site.path("s/u/f");
    fs::write(&path, "public").unwrap();
    give(&path);
    let time = fs::metadata(site.path("t/u/f"))
        .unwrap()
        .modified()
        .unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let held = fs::File::open(site.path("t/u/f")).unwrap();
    let report = site.compare();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let secret = held.metadata().unwrap();
    assert_eq!((secret.uid(), secret.mode() & 0o777), (0, 0o600));
    let copy = fs::metadata(site.path("t/u/f")).unwrap();
    assert_eq!(copy.uid(), NOBODY);
    assert_eq!(fs::read(site.path("t/u/f")).unwrap(), b"public");
}

/// A user who has a file open for writing must not have access to a file of the superuser.
#[test]
fn a_change_of_the_owner_makes_a_new_file() {
    let Some(mut site) = Site::new() else {
        return;
    };
    fs::write(site.path("s/u/f"), "program").unwrap();
    give(&site.path("s/u/f"));
    site.compare();
    let held = fs::metadata(site.path("t/u/f")).unwrap().ino();
    let _open = fs::File::open(site.path("t/u/f")).unwrap();
    chown(site.path("s/u/f"), Some(0), Some(0)).unwrap();
    open(&site.path("s/u/f"), 0o4755);
    let report = site.compare();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let copy = fs::metadata(site.path("t/u/f")).unwrap();
    assert_eq!((copy.uid(), copy.mode() & 0o7777), (0, 0o4755));
    assert_ne!(copy.ino(), held);
}

/// Another user sees the names of temporary files.
#[test]
fn temporary_names_are_not_predictable() {
    let guard = tempfile::tempdir().unwrap();
    let mut inotify = Inotify::init().unwrap();
    fs::create_dir(guard.path().join("s")).unwrap();
    fs::create_dir(guard.path().join("t")).unwrap();
    inotify
        .watches()
        .add(guard.path().join("t"), WatchMask::CREATE)
        .unwrap();
    for number in 0..20 {
        fs::write(guard.path().join(format!("s/f{number}")), "text").unwrap();
    }
    let mut site = Site {
        guard,
        memory: Memory::default(),
    };
    site.compare();
    let mut buffer = [0; 65536];
    let events = inotify.read_events(&mut buffer).unwrap();
    let names = events.filter_map(|event| event.name.map(OsStr::to_owned));
    let numbers = names.map(|name| {
        let text = name.to_str().unwrap().strip_prefix(".lsyncd.").unwrap();
        u64::from_str_radix(text, 16).unwrap()
    });
    let numbers: Vec<u64> = numbers.collect();
    assert_eq!(numbers.len(), 20);
    let pid = u64::from(std::process::id());
    for pair in numbers.windows(2) {
        // Random names are that close with a probability of about 2^-40.
        assert!(pair[0].abs_diff(pair[1]) > 1 << 20, "{pair:?}");
        assert!(pair[0] >> 8 != pid, "{pair:?}");
    }
}
