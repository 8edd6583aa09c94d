//! Starts with `init = "changed"` after kills at random moments of each kind of change: the target
//! is equal afterwards.
//!
//! Each kind of change gets one kill; `LSYNCD_TEST_KILLS=N` makes N. A failing run prints its seed;
//! `LSYNCD_TEST_SEED=N` repeats the changes.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;

use crate::churn::{Changes, Links, Sizes, change, path, remove};
use crate::support::random::{number, seed};
use crate::warm_start::{DIRECT, RSYNC, config, index, site, start, start_decided};

/// A kind of change of two paths, which may be of any type and may not exist.
type Change = fn(&Path, &Path, &mut Changes);

const CHANGES: [(&str, Change); 20] = [
    ("create", |one, _, random| write(one, random)),
    ("append", |one, _, _| {
        let open = File::options().append(true).open(one);
        let _ = open.and_then(|mut file| file.write_all(b"more"));
    }),
    ("truncate", |one, _, _| {
        let _ = nix::unistd::truncate(one, 1);
    }),
    ("overwrite with an equal size and time", |one, _, _| {
        let open = File::options().read(true).write(true).open(one);
        let _ = open.and_then(|mut file| {
            let before = file.metadata()?;
            file.write_all(&vec![b'z'; before.len() as usize])?;
            file.set_modified(before.modified()?)
        });
    }),
    ("write and rename over", |one, two, random| {
        write(one, random);
        let _ = fs::rename(one, two);
    }),
    ("remain open", |one, _, random| {
        if let Ok(mut file) = File::create(one) {
            let _ = file.write_all(b"first");
            std::thread::sleep(Duration::from_millis(random.below(20) as u64));
            let _ = file.write_all(b"second");
        }
    }),
    ("delete", |one, two, _| {
        remove(one);
        remove(two);
    }),
    ("delete and create", |one, _, random| {
        remove(one);
        write(one, random);
    }),
    ("make directories", |one, two, _| {
        let _ = fs::create_dir_all(one.join("new/er"));
        let _ = fs::create_dir_all(two);
    }),
    ("unpack a tree", |one, _, random| {
        for n in 0..20 {
            let _ = fs::create_dir_all(one.join(format!("t{}", n / 5)));
            write(&one.join(format!("t{}/f{n}", n / 5)), random);
        }
    }),
    ("rename", |one, two, _| {
        let _ = fs::rename(one, two);
    }),
    ("rename and back", |one, two, _| {
        if fs::rename(one, two).is_ok() {
            let _ = fs::rename(two, one);
        }
    }),
    ("exchange", |one, two, _| {
        let flags = RenameFlags::RENAME_EXCHANGE;
        let _ = renameat2(AT_FDCWD, one, AT_FDCWD, two, flags);
    }),
    ("move away", |one, two, random| {
        let _ = fs::rename(one, aside(one, random));
        let _ = fs::rename(two, aside(two, random));
    }),
    ("move in", |one, two, random| {
        let _ = fs::rename(aside(one, random), one);
        let _ = fs::rename(aside(two, random), two);
    }),
    ("link", |one, two, _| {
        let _ = symlink("a", one);
        let _ = symlink("b", two);
    }),
    ("change of kind", |one, _, random| {
        let was_directory = one.is_dir();
        remove(one);
        match was_directory {
            true => write(one, random),
            false => drop(fs::create_dir_all(one.join("in"))),
        }
    }),
    ("change of mode", |one, two, random| {
        for name in [one, two] {
            let mode = if name.is_dir() { 0o700 } else { 0o600 } | random.below(0o100) as u32;
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            if name.symlink_metadata().is_ok_and(|data| !data.is_symlink()) {
                let _ = fs::set_permissions(name, permissions);
            }
        }
    }),
    ("change of time", |one, _, random| {
        let time = UNIX_EPOCH + Duration::from_secs(1 + random.below(1_000_000_000) as u64);
        let open = File::options().write(true).open(one);
        let _ = open.and_then(|file| file.set_modified(time));
    }),
    ("replace a directory", |one, _, random| {
        if one.is_dir() {
            remove(one);
            let _ = fs::create_dir(one);
            write(&one.join("only"), random);
        }
    }),
];

fn write(path: &Path, random: &mut Changes) {
    let _ = fs::write(path, random.content());
}

/// Returns one of a few paths outside of the source.
fn aside(path: &Path, random: &mut Changes) -> PathBuf {
    let above = path.ancestors().find(|above| above.ends_with("src"));
    let name = format!("../aside{}", random.below(4));
    above.unwrap_or(path).join(name)
}

#[test]
fn the_target_is_equal_after_kills_at_random_moments_of_each_change() {
    let seed = seed();
    let moments = number("LSYNCD_TEST_KILLS").unwrap_or(1);
    std::thread::scope(|scope| {
        for (part, kinds) in [RSYNC, DIRECT, RSYNC, DIRECT].into_iter().enumerate() {
            scope.spawn(move || {
                for (name, change) in CHANGES.into_iter().skip(part).step_by(4) {
                    let mut random = Changes::new(seed + part as u64, Links::None, Sizes::Few);
                    kills(kinds, name, change, moments, &mut random);
                }
            });
        }
    });
}

fn kills(kind: &str, name: &str, of_kind: Change, moments: u64, random: &mut Changes) {
    let Some(dir) = site() else { return };
    let config = config(kind).replace("0.2", "0");
    index(&dir, &config);
    for moment in 0..moments {
        let mut daemon = match random.below(3) {
            0 => start(&dir, &config),
            _ => start_decided(&dir, &config),
        };
        let last = random.below(12);
        for n in 0..=last {
            // Other changes in between create files for them.
            if random.below(3) == 0 {
                change(&dir, random);
            }
            let paths = [0; 2].map(|_| path(&dir, random));
            of_kind(&paths[0], &paths[1], random);
            if n == last || random.below(3) == 0 {
                std::thread::sleep(Duration::from_millis(random.below(40) as u64));
            }
        }
        daemon.signal(Signal::SIGKILL);
        daemon.wait_end();
        daemon.wait_all_gone();
        for _ in 0..random.below(3) {
            let paths = [0; 2].map(|_| path(&dir, random));
            of_kind(&paths[0], &paths[1], random);
        }
        eprintln!("{name}, moment {moment}, {kind}");
        let mut daemon = start_decided(&dir, &config);
        daemon.wait_same("src", "trg", true);
        assert_eq!(daemon.terminate(), Some(143));
    }
}
