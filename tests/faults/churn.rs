//! Random changes, and everything that can go wrong thrown in: at the end of each round the
//! target equals the source.
//!
//! The seed of a run is printed when it fails; `LSYNCD_TEST_SEED=N` replays the changes (what
//! the daemon makes of them depends on time as well). `LSYNCD_TEST_ROUNDS` says how many rounds
//! a run has (4).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// Marsaglia's xorshift: small, and the same everywhere.
pub struct Random(u64, Links, Sizes);

/// What tells one content from another. A wrapper in rsync's place gets no options that lsyncd
/// does not give, so changes within a second that leave the size as it is are not its to see.
#[derive(Clone, Copy, PartialEq)]
pub enum Sizes {
    Few,
    Many,
}

/// Whether names may share a file. Who writes by one of them is told of by that one only, so
/// it takes `hard_links` to keep the others current.
#[derive(Clone, Copy, PartialEq)]
pub enum Links {
    None,
    Hard,
}

impl Random {
    pub fn new(seed: u64, links: Links, sizes: Sizes) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, links, sizes);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn content(&mut self) -> String {
        let number = self.below(1000).to_string();
        match self.2 {
            Sizes::Few => number,
            Sizes::Many => number + &"-".repeat(self.below(100_000)),
        }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// One to three components of few names, so that changes meet.
pub fn path(dir: &Dir, random: &mut Random) -> PathBuf {
    let mut path = dir.path("src");
    for _ in 0..=random.below(3) {
        path.push(random.pick(&["a", "b", "c", "d e", "*", "\n", "-f", "g"]));
    }
    path
}

pub fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
}

/// One change. What cannot be done (no parent, a directory in the way) is no change.
pub fn change(dir: &Dir, random: &mut Random) {
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
        10 if random.1 == Links::Hard => drop(fs::hard_link(&one, &two)),
        10 => {}
        11 => drop(symlink("a", &one)),
        12 if one.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) => {
            let mode = if one.is_dir() { 0o700 } else { 0o600 } | random.below(0o100) as u32;
            let _ = fs::set_permissions(&one, fs::Permissions::from_mode(mode));
        }
        13 => remove(&one),
        14 => {
            // Another kind under the same name.
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

/// `config` mirrors `src` to `trg` with `@RSYNC@`, which fails now and then where `failing`.
fn churn(config: &str, failing: bool, links: Links) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("LSYNCD_TEST_SEED").unwrap_or(time.subsec_nanos().into());
    eprintln!("LSYNCD_TEST_SEED={seed}");
    let sizes = if failing { Sizes::Many } else { Sizes::Few };
    let random = &mut Random::new(seed, links, sizes);

    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = start(&dir, config);
    for _ in 0..number("LSYNCD_TEST_ROUNDS").unwrap_or(4) {
        if failing {
            // By signal or code; the sync waits longer after each, so not too many in a row.
            let calls = fake.calls().len();
            let mut codes = vec![0; calls];
            codes.extend((0..4).map(|_| *random.pick(&[0, 12, 0, 30, 255, 0, 77])));
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

/// Changes, with something that happens to the daemon before, amid or after them.
fn trouble<'d>(
    dir: &'d Dir,
    mut daemon: Running<'d>,
    config: &str,
    random: &mut Random,
) -> Running<'d> {
    let count = 10 + random.below(60);
    let changes = |random: &mut Random| (0..count).for_each(|_| change(dir, random));
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
            // Before it listens to signals, this one ends it.
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
