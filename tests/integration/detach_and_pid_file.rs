//! Detaching and the pid file, in separate processes: this program runs itself with a role in
//! `ROLE`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::own_process::child;
use lsyncd::daemon::os::{detach::detach, pid_file::PidFile};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{Mode, umask};

/// A process of this program with a role; standard input and output control it.
struct Actor {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Actor {
    fn new(role: &str, file: &Path) -> Self {
        let mut child = child(module_path!(), "actor")
            .env("ROLE", role)
            .env("FILE", file)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Starts the process and returns its first line.
    fn said(role: &str, file: &Path) -> (Self, String) {
        let mut actor = Self::new(role, file);
        let said = actor.hear();
        (actor, said)
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some((_, text)) = line.split_once("SAYS ") {
                return text.trim_end().to_owned();
            }
            line.clear();
        }
        "nothing".to_owned()
    }

    fn pid(&self) -> String {
        format!("{}\n", self.child.id())
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    fn end(mut self) {
        self.tell("end");
        self.child.wait().unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "one of the processes the tests start"]
fn actor() {
    let Ok(role) = std::env::var("ROLE") else {
        return;
    };
    let file = PathBuf::from(std::env::var_os("FILE").unwrap());
    match role.as_str() {
        "daemon" => daemon(&file),
        "lsyncd" => old_lsyncd(&file),
        "detach" => detached(&file),
        _ => unreachable!(),
    }
    std::process::exit(0);
}

fn say(text: impl std::fmt::Display) {
    println!("SAYS {text}");
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Holds the pid file until it is told to end.
fn daemon(path: &Path) {
    match PidFile::acquire(path) {
        Err(e) => say(e),
        Ok(pid_file) => {
            // User code may do this.
            drop(File::open(path));
            say("mine");
            if hear() == "end" {
                pid_file.remove();
            }
        }
    }
}

/// Writes a pid file like lsyncd 2.
fn old_lsyncd(path: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let mut file = file.unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    if fcntl(&file, FcntlArg::F_SETLK(&lock)).is_err() {
        return say("refused");
    }
    writeln!(file, "{}", std::process::id()).unwrap();
    say("mine");
    hear();
}

fn detached(file: &Path) {
    umask(Mode::from_bits_truncate(0o027));
    detach().unwrap();
    let link = |fd| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let me = nix::unistd::getpid();
    let text = format!(
        "leads {}\ncwd {}\nfds {} {} {}\numask {:o}\n",
        nix::unistd::getsid(None).unwrap() == me,
        std::env::current_dir().unwrap().display(),
        link(0).display(),
        link(1).display(),
        link(2).display(),
        umask(Mode::empty()),
    );
    let part = file.with_extension("part");
    fs::write(&part, text).unwrap();
    fs::rename(part, file).unwrap();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn cannot(verb: &str, path: &Path) -> String {
    format!("Cannot {verb} pidfile; '{}'", path.display())
}

#[test]
fn a_detached_process_has_no_terminal_and_its_own_session() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("facts");
    let mut launcher = Actor::new("detach", &file);
    assert_eq!(launcher.child.wait().unwrap().code(), Some(0));
    // The output ends while the daemon runs, so the daemon has closed it.
    launcher.said.read_to_string(&mut String::new()).unwrap();
    while !file.exists() {
        std::thread::yield_now();
    }
    assert_eq!(
        read(&file),
        "leads true\ncwd /\nfds /dev/null /dev/null /dev/null\numask 27\n"
    );
}

#[test]
fn the_pid_file_is_written_locked_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let (first, said) = Actor::said("daemon", &path);
    assert_eq!(said, "mine");
    assert_eq!(read(&path), first.pid());
    assert_eq!(path.metadata().unwrap().mode() & 0o077, 0o044);
    assert_eq!(names(dir.path()), ["pid"]);

    assert_eq!(Actor::said("daemon", &path).1, cannot("lock", &path));
    assert_eq!(Actor::said("lsyncd", &path).1, "refused");
    assert_eq!(read(&path), first.pid());
    assert_eq!(names(dir.path()), ["pid"]);

    first.end();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_pid_file_of_a_dead_process_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    fs::write(&path, "18969\n78901 something older and longer\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = path.metadata().unwrap().ino();
    let (first, said) = Actor::said("daemon", &path);
    assert_eq!(said, "mine");
    assert_eq!(read(&path), first.pid());
    assert_ne!(
        path.metadata().unwrap().ino(),
        before,
        "replaced, not overwritten"
    );
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
    first.kill();

    let (second, said) = Actor::said("daemon", &path);
    assert_eq!(said, "mine");
    assert_eq!(read(&path), second.pid());
    assert_eq!(Actor::said("daemon", &path).1, cannot("lock", &path));
    second.kill();
    assert_eq!(Actor::said("lsyncd", &path).1, "mine");
}

#[test]
fn a_pid_file_of_a_running_lsyncd_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let (old, said) = Actor::said("lsyncd", &path);
    assert_eq!(said, "mine");
    assert_eq!(Actor::said("daemon", &path).1, cannot("lock", &path));
    assert_eq!(read(&path), old.pid());
    old.end();
    assert_eq!(Actor::said("daemon", &path).1, "mine");
}

#[test]
fn a_process_that_opened_the_replaced_pid_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    fs::write(&path, "1\n").unwrap();
    let old = dir.path().join("old");
    fs::hard_link(&path, &old).unwrap();
    let (first, said) = Actor::said("daemon", &path);
    assert_eq!(said, "mine");
    assert_eq!(Actor::said("lsyncd", &old).1, "refused");
    first.end();
}

#[test]
fn a_file_of_another_program_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let (first, said) = Actor::said("daemon", &path);
    assert_eq!(said, "mine");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "77\n").unwrap();
    first.end();
    assert_eq!(read(&path), "77\n");
}

#[test]
fn one_of_many_processes_gets_the_pid_file_and_readers_see_complete_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(text) = fs::read_to_string(&path) {
                    assert!(text.ends_with('\n') && text.trim_end().parse::<u32>().is_ok());
                }
            }
        });
        for _ in 0..5 {
            let mut actors: Vec<_> = (0..6).map(|_| Actor::new("daemon", &path)).collect();
            let said: Vec<_> = actors.iter_mut().map(Actor::hear).collect();
            assert_eq!(
                said.iter().filter(|text| *text == "mine").count(),
                1,
                "{said:?}"
            );
            for (actor, said) in actors.into_iter().zip(said) {
                match said.as_str() {
                    "mine" => actor.kill(),
                    _ => drop(actor),
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(dir.path()), ["pid"]);
}

#[test]
fn a_pid_file_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/pid");
    assert_eq!(Actor::said("daemon", &path).1, cannot("create", &path));
    assert_eq!(
        Actor::said("daemon", dir.path()).1,
        cannot("create", dir.path())
    );
}

#[test]
fn links_and_devices_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    let link = dir.path().join("link");
    symlink(&real, &link).unwrap();
    for _ in 0..2 {
        let (actor, said) = Actor::said("daemon", &link);
        assert_eq!(said, "mine");
        assert_eq!(read(&real), actor.pid());
        assert!(link.symlink_metadata().unwrap().is_symlink());
        actor.kill();
    }
    let null = Path::new("/dev/null");
    let (actor, said) = Actor::said("daemon", null);
    assert_eq!(said, "mine");
    actor.end();
    assert!(!null.metadata().unwrap().is_file());
}

#[test]
fn a_file_made_beforehand_in_a_directory_of_another_user_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    fs::write(&path, "a longer text that was there before\n").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let (actor, said) = Actor::said("daemon", &path);
    assert_eq!(said, "mine");
    assert_eq!(read(&path), actor.pid());
    assert_eq!(Actor::said("daemon", &path).1, cannot("lock", &path));
    actor.kill();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
}
