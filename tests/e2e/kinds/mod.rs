//! The kinds of sync other than default.rsync.
//!
//! | file | what it is about |
//! |---|---|
//! | direct | default.direct |
//! | kept_directories | moves of default.rsyncssh to a directory that the target has kept |
//! | rsyncssh | default.rsyncssh |

mod direct;
mod kept_directories;
mod rsyncssh;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, under_fanotify};
use crate::support::random::Random;

/// Returns a daemon whose `PATH` begins with `bin`.
fn daemon<'d>(dir: &'d Dir, config: &str) -> Daemon<'d> {
    Daemon::new(dir, config)
        .fake_first()
        .env("HOME", "@DIR@/home")
}

fn start<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    daemon(dir, config).start_and_settle()
}

/// Returns false if the daemon has not attempted a move, because fanotify reported the rename late.
/// What is there is sent then.
fn is_move_reported(daemon: &Running<'_>) -> bool {
    !under_fanotify() || daemon.log().contains("Moving ")
}

fn inode_of(path: PathBuf) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Names with special characters of shells, tools and logs.
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

/// Random changes of a tree, which a seed repeats.
pub struct Churn {
    random: Random,
    root: PathBuf,
    /// The targets of symbolic links.
    links: [&'static str; 3],
}

impl Churn {
    pub fn new(seed: u64, root: PathBuf, links: [&'static str; 3]) -> Churn {
        Churn {
            random: Random::new(seed),
            root,
            links,
        }
    }

    /// One to three components of six names each.
    fn any_path(&mut self) -> PathBuf {
        let mut path = self.root.clone();
        for _ in 0..=self.random.below(3) {
            path.push(["a", "b", "c'", "d d", "e", "f"][self.random.below(6)]);
        }
        path
    }

    /// Makes one to a hundred changes.
    pub fn burst(&mut self) {
        let most = [1, 2, 6, 100][self.random.below(4)];
        for _ in 0..=self.random.below(most) {
            while self.step().is_err() {}
        }
    }

    /// Makes one change, if it is possible.
    fn step(&mut self) -> std::io::Result<()> {
        let path = self.any_path();
        match self.random.below(34) {
            0..=6 => {
                let text = vec![b'a' + self.random.below(26) as u8; self.random.below(3000)];
                // The call must not wait for a reader if the file is a pipe.
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
            30 => symlink(self.links[self.random.below(3)], &path),
            31..=32 => self.chmod(&path),
            _ => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)
                .map_err(std::io::Error::from),
        }
    }

    fn chmod(&mut self, path: &Path) -> std::io::Result<()> {
        let data = fs::symlink_metadata(path)?;
        let mode = match (data.is_dir(), data.is_file()) {
            (true, _) => [0o755, 0o700, 0o711][self.random.below(3)],
            (_, true) => [0o644, 0o600, 0o755, 0o444][self.random.below(4)],
            _ => return Err(std::io::ErrorKind::Other.into()),
        };
        fs::set_permissions(path, PermissionsExt::from_mode(mode))
    }
}
