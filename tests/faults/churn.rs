//! Random changes and failures: at the end of each round the target equals the source.
//!
//! The seed of a run is printed when it fails; `LSYNCD_TEST_SEED=N` replays the changes (the result
//! also depends on timing). `LSYNCD_TEST_ROUNDS` is the number of rounds (4).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;
use crate::support::random::{Random, number, seed};

/// The choices of random changes.
pub struct Changes {
    random: Random,
    links: Links,
    sizes: Sizes,
}

/// The number of different file sizes. A wrapper as `rsync.binary` gets no option against the quick
/// check, so it needs a new size for each change.
#[derive(Clone, Copy, PartialEq)]
pub enum Sizes {
    Few,
    Many,
}

/// Permits hard links. The kernel reports a write for one name only, so `hard_links` is needed to
/// keep the others current.
#[derive(Clone, Copy, PartialEq)]
pub enum Links {
    None,
    Hard,
}

impl Changes {
    pub fn new(seed: u64, links: Links, sizes: Sizes) -> Changes {
        Changes {
            random: Random::new(seed),
            links,
            sizes,
        }
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    pub fn content(&mut self) -> String {
        let number = self.below(1000).to_string();
        match self.sizes {
            Sizes::Few => number,
            Sizes::Many => number + &"-".repeat(self.below(100_000)),
        }
    }
}

/// One to three components of few names, so that changes meet.
pub fn path(dir: &Dir, random: &mut Changes) -> PathBuf {
    let mut path = dir.path("src");
    for _ in 0..=random.below(3) {
        path.push(
            random
                .random
                .pick(&["a", "b", "c", "d e", "*", "\n", "-f", "g"]),
        );
    }
    path
}

pub fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
}

/// Makes one change. An impossible one (no parent, a directory in the way) changes nothing.
pub fn change(dir: &Dir, random: &mut Changes) {
    let (one, two) = (path(dir, random), path(dir, random));
    match random.below(16) {
        0..=3 => drop(fs::write(&one, random.content())),
        4 => {
            let append = fs::File::options().append(true).open(&one);
            let _ = append.and_then(|mut file| std::io::Write::write_all(&mut file, b"more"));
        }
        5 | 6 => drop(fs::create_dir_all(&one)),
        7 | 8 => drop(fs::rename(&one, &two)),
        9 => drop(renameat2(
            AT_FDCWD,
            &one,
            AT_FDCWD,
            &two,
            RenameFlags::RENAME_EXCHANGE,
        )),
        10 if random.links == Links::Hard => drop(fs::hard_link(&one, &two)),
        10 => {}
        11 => drop(symlink("a", &one)),
        12 if one.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) => {
            let mode = if one.is_dir() { 0o700 } else { 0o600 } | random.below(0o100) as u32;
            let _ = fs::set_permissions(&one, fs::Permissions::from_mode(mode));
        }
        13 => remove(&one),
        14 => {
            // Another file type under the same name.
            remove(&one);
            let _ = match random.below(3) {
                0 => fs::create_dir_all(one.join("in")),
                1 => fs::write(&one, random.content()),
                _ => symlink("b", &one),
            };
        }
        _ => {
            let _ = nix::unistd::truncate(&one, random.content().len() as i64);
        }
    }
}

fn start<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    Daemon::new(dir, config)
        .args(&["-insist", "-log", "Exec", "-log", "Delay"])
        .start()
}

/// `config` mirrors `src` to `trg` with `@RSYNC@`, which fails now and then if `failing`.
fn churn(config: &str, failing: bool, links: Links) {
    let sizes = if failing { Sizes::Many } else { Sizes::Few };
    let random = &mut Changes::new(seed(), links, sizes);

    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = start(&dir, config);
    for _ in 0..number("LSYNCD_TEST_ROUNDS").unwrap_or(4) {
        if failing {
            // The waits grow with each failure, so only few follow each other.
            let calls = fake.calls().len();
            let mut codes = vec![0; calls];
            codes.extend((0..4).map(|_| *random.random.pick(&[0, 12, 0, 30, 255, 0, 77])));
            codes.push(0);
            fake.exits(&codes);
        }
        for _ in 0..3 {
            daemon = trouble(&dir, daemon, config, random);
        }
        daemon.wait_same("src", "trg", true);
    }
    dir.write("sign", "of life");
    daemon.wait_same("src", "trg", true);
    assert_eq!(daemon.terminate(), Some(143));
}

/// Makes changes, and kills, stops, reloads or floods the daemon between them.
fn trouble<'d>(
    dir: &'d Dir,
    mut daemon: Running<'d>,
    config: &str,
    random: &mut Changes,
) -> Running<'d> {
    let count = 10 + random.below(60);
    let changes = |random: &mut Changes| (0..count).for_each(|_| change(dir, random));
    changes(random);
    match random.below(7) {
        0 => {
            daemon.signal(Signal::SIGKILL);
            changes(random);
            daemon.wait_all_gone();
            drop(daemon);
            daemon = start(dir, config);
        }
        1 => {
            daemon.terminate();
            changes(random);
            drop(daemon);
            daemon = start(dir, config);
        }
        2 => {
            // An earlier SIGHUP would end the daemon.
            daemon.wait_log("--- Startup ---");
            daemon.signal(Signal::SIGHUP);
        }
        3 => {
            daemon.stop();
            dir.overflow_queue();
            changes(random);
            daemon.cont();
        }
        4 => {
            daemon.stop();
            changes(random);
            daemon.cont();
        }
        _ => {}
    }
    changes(random);
    daemon
}

const RSYNC: &str = r#"
settings{ stopTimeout = 2, stateDir = "@DIR@/state" }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.1,
    rsync = { archive = true, MORE },
}
"#;

#[test]
fn by_list_of_files() {
    churn(
        &RSYNC.replace("MORE", "list = 'files-from'"),
        false,
        Links::None,
    );
}

#[test]
fn by_list_of_files_with_hard_links() {
    churn(
        &RSYNC.replace("MORE", "hard_links = true"),
        false,
        Links::Hard,
    );
}

#[test]
fn by_list_of_filters_with_failures() {
    churn(
        &RSYNC.replace("MORE", "binary = '@RSYNC@'"),
        true,
        Links::None,
    );
}

#[test]
fn by_list_of_files_with_failures() {
    let more = "binary = '@RSYNC@', list = 'files-from'";
    churn(&RSYNC.replace("MORE", more), true, Links::None);
}

#[test]
fn reloading_only_what_changed() {
    let config = RSYNC
        .replace("MORE", "")
        .replace("settings{", "settings{ hup = 'changed',");
    churn(&config, false, Links::None);
}
