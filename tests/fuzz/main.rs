//! The entries of the fuzzers on a stable compiler: the corpus as it is, then mutations of it.
//!
//! `LSYNCD_TEST_FUZZ` is the duration of each entry in seconds (default: a thousand mutations);
//! `LSYNCD_TEST_SEED` repeats a run. Input that makes an entry panic is written to the directory
//! for temporary files. Add it to `tests/fuzz/corpus` with the fix.
//!
//! `tests/fuzz/run.sh` runs the same entries with cargo-fuzz (`cargo install cargo-fuzz`), which is
//! guided by coverage and finds more. Run it for some minutes before a release and after a change
//! of a parser. It works with a stable compiler as well.

// clippy.toml allows these in test functions only.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod entries;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use support::random::{Random, number, seed};

/// Changes, inserts, removes or repeats a few bytes, or copies them from another file of the
/// corpus.
fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(5) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(6) {
            0 => bytes.insert(at, random.below(256) as u8),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part.repeat(1 + random.below(4)));
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                bytes.splice(at..at, other[from..].iter().copied());
            }
        }
    }
    bytes.truncate(4096);
}

fn fuzz(name: &str, entry: fn(&[u8]), least: usize) {
    let seed = seed();
    let random = &mut Random::new(seed);
    let directory = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(directory).expect("corpus").flatten();
    let mut corpus: Vec<Vec<u8>> = files.map(|file| fs::read(file.path()).unwrap()).collect();
    corpus.sort();
    let run = |bytes: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| entry(bytes))).is_err() {
            let path = std::env::temp_dir().join(format!("lsyncd-fuzz-{name}-{seed}"));
            fs::write(&path, bytes).unwrap();
            panic!("LSYNCD_TEST_SEED={seed}; bytes are in {}", path.display());
        }
    };
    corpus.iter().for_each(|bytes| run(bytes));
    let seconds = number("LSYNCD_TEST_FUZZ").map(Duration::from_secs);
    let begun = Instant::now();
    for count in 0.. {
        match seconds {
            None if count >= least => return,
            Some(seconds) if begun.elapsed() >= seconds => return,
            _ => {}
        }
        let mut bytes = corpus[random.below(corpus.len())].clone();
        mutate(&mut bytes, &corpus, random);
        run(&bytes);
    }
}

#[test]
fn inotify() {
    fuzz("inotify", entries::inotify, 1000);
}

#[test]
fn fanotify() {
    fuzz("fanotify", entries::fanotify, 1000);
}

#[test]
fn filter() {
    fuzz("filter", entries::filter, 1000);
}

#[test]
fn excludes() {
    fuzz("excludes", entries::excludes, 1000);
}

#[test]
fn crontab() {
    fuzz("crontab", entries::crontab, 1000);
}

#[test]
fn requests() {
    fuzz("requests", entries::requests, 1000);
}

#[test]
fn output() {
    fuzz("output", entries::output, 1000);
}

#[test]
fn config() {
    fuzz("config", entries::config, 100);
}
