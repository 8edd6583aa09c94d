//! Random operations, then a comparison of the watches and of the reported events with the disk.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::support::random::{Random, seed};
use crate::watch_rig::{Rig, Told};
use lsyncd::watch::Follow;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Returns a path of few names in `r/` or `out/`, so that operations affect each other.
fn some_path(random: &mut Random, places: &[&str]) -> String {
    let mut path = places[random.below(places.len())].to_string();
    for _ in 0..=random.below(4) {
        path.push('/');
        path.push((b'a' + random.below(3) as u8) as char);
    }
    path
}

/// Tries one operation. Returns its name if it succeeded; most fail because their paths do not
/// exist.
pub fn operate(random: &mut Random, base: &Path, places: &[&str]) -> Option<String> {
    let (from, to) = (some_path(random, places), some_path(random, places));
    let (path, other) = (base.join(&from), base.join(&to));
    let exchange = RenameFlags::RENAME_EXCHANGE;
    let (result, what) = match random.below(14) {
        0..=2 => (fs::create_dir(&path), format!("mkdir {from}")),
        3 => (fs::create_dir_all(&path), format!("mkdir -p {from}")),
        4..=7 => (fs::rename(&path, &other), format!("mv {from} {to}")),
        8 => {
            let result = renameat2(AT_FDCWD, &path, AT_FDCWD, &other, exchange);
            (result.map_err(Into::into), format!("exchange {from} {to}"))
        }
        9 => (fs::remove_dir(&path), format!("rmdir {from}")),
        10 if random.below(3) == 0 => (fs::remove_dir_all(&path), format!("rm -r {from}")),
        11 | 12 => (fs::write(&path, b""), format!("touch {from}")),
        _ => (fs::remove_file(&path), format!("rm {from}")),
    };
    result.ok().map(|()| what)
}

/// Operations between turns.
#[test]
fn churn_between_turns() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..60 {
        let mut rig = Rig::new(|rig| rig.mkdir("out"));
        if random.below(2) == 0 {
            rig.log.follow = Follow::Contents;
            rig.log.moves = random.below(2) == 0;
        }
        for step in 0..12 {
            let mut done = Vec::new();
            rig.log.events.clear();
            for _ in 0..random.below(40) {
                done.extend(operate(&mut random, &rig.base, &["r", "r", "r", "out"]));
                if random.below(20) == 0 {
                    rig.turn();
                    done.push("turn".into());
                }
            }
            rig.settle();
            let events = &rig.log.events;
            rig.check(&format!(
                "seed {seed}, round {round}, step {step}: {done:#?}, {events:#?}"
            ));
        }
    }
}

/// Operations during turns.
#[test]
fn churn_beside_turns() {
    let seed = seed();
    for round in 0..12 {
        let mut rig = Rig::new(|rig| rig.mkdir("out"));
        if round % 3 == 1 {
            (rig.log.follow, rig.log.moves) = (Follow::Contents, true);
        }
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let base = rig.base.clone();
                let mut random = Random::new(seed ^ (round << 8) ^ (thread << 4));
                thread::spawn(move || {
                    for _ in 0..1500 {
                        operate(&mut random, &base, &["r", "r", "r", "out"]);
                    }
                })
            })
            .collect();
        rig.until("the threads", |_| {
            threads.iter().all(|thread| thread.is_finished())
        });
        rig.settle();
        rig.check(&format!("seed {seed}, round {round}"));
    }
}

/// Operations while a root is read.
#[test]
fn churn_during_the_first_reading() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..12 {
        let mut rig = Rig::bare();
        rig.mkdir("r");
        rig.mkdir("out");
        for _ in 0..400 {
            operate(&mut random, &rig.base, &["r", "out"]);
        }
        let scope = rig.scope("r/", |_| true);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (base, stop) = (rig.base.clone(), Arc::clone(&stop));
            let mut random = Random::new(random.number());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    operate(&mut random, &base, &["r", "out"]);
                }
            })
        };
        rig.watcher.set_scopes(vec![scope]);
        rig.until("the first reading", |rig| !rig.watcher.crawling());
        for _ in 0..3 {
            rig.watcher.rebuild();
            rig.until("another reading", |rig| !rig.watcher.crawling());
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        rig.settle();
        // Entries that are found by reading a root are not reported, so only the watches are
        // compared.
        rig.log.model = rig.on_disk("r").into_iter().collect();
        rig.check(&format!("seed {seed}, round {round}"));
    }
}

/// Two scopes, one of which excludes the root of the other.
#[test]
fn churn_with_exclusions() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..30 {
        let mut rig = Rig::bare();
        rig.mkdir("r");
        rig.mkdir("out");
        let wants = |path: &[u8]| !path.windows(3).any(|part| part == b"/b/");
        let outer = rig.scope("r/", wants);
        rig.watch(vec![
            outer,
            rig.scope("out/", |path| !path.starts_with(b"/c/")),
        ]);
        for _ in 0..10 {
            rig.log.events.clear();
            let operations = 0..random.below(60);
            let done: Vec<_> = operations
                .filter_map(|_| operate(&mut random, &rig.base, &["r", "out"]))
                .collect();
            rig.settle();
            let mut expected = vec!["r/".to_string(), "out/".to_string()];
            for root in ["r", "out"] {
                let disk = rig.on_disk(root);
                let base = rig.base.as_os_str().len() + 1;
                let disk = disk
                    .iter()
                    .map(|path| String::from_utf8_lossy(&path[base..]).into_owned());
                expected.extend(disk.filter(|path| {
                    let unwanted = match root {
                        "r" => path.contains("/b/"),
                        _ => path.starts_with("out/c/"),
                    };
                    path.ends_with('/') && !unwanted
                }));
            }
            expected.sort();
            let events = &rig.log.events;
            let watched = if Rig::has_watches() {
                rig.watched()
            } else {
                expected.clone()
            };
            assert_eq!(
                watched, expected,
                "seed {seed}, round {round}: {done:#?}, {events:#?}"
            );
        }
    }
}

/// Returns the names of the directories in `r/` that are not final.
fn movable(rig: &Rig) -> Vec<String> {
    let entries = fs::read_dir(rig.path("r")).unwrap().flatten();
    let directories = entries.filter(|entry| entry.path().is_dir());
    let names = directories.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("final")).collect();
    names.sort();
    names
}

/// Directories get their final names after exchanges and renames, and what is known of them is
/// renewed meanwhile. A deletion of a final name would delete what only the target has there.
#[test]
fn a_directory_at_its_final_name_is_never_reported_as_deleted() {
    let seed = seed();
    let mut random = Random::new(seed);
    for round in 0..100 {
        let mut rig = Rig::new(|rig| {
            for name in ["a", "b", "c", "d", "e", "f"] {
                rig.mkdir(&format!("r/{name}/sub"));
                rig.touch(&format!("r/{name}/sub/of-{name}"));
            }
        });
        rig.log.follow = *random.pick(&[Follow::Nothing, Follow::Contents]);
        rig.log.moves = random.below(2) == 0;
        let mut done = Vec::new();
        for step in 0..30 {
            let names = movable(&rig);
            let pick = |random: &mut Random| format!("r/{}", random.pick(&names));
            match random.below(12) {
                _ if names.len() < 2 => break,
                0..=2 => {
                    let mut at = pick(&mut random);
                    for part in 0..random.below(3) {
                        let next = format!("r/{step}.{part}");
                        rig.mv(&at, &next);
                        at = next;
                    }
                    rig.mv(&at, &format!("r/final{step}"));
                    done.push(format!("{at} is final{step}"));
                }
                3 | 4 => {
                    let (one, other) = (pick(&mut random), pick(&mut random));
                    let (one_at, other_at) = (rig.path(&one), rig.path(&other));
                    let exchange = RenameFlags::RENAME_EXCHANGE;
                    renameat2(AT_FDCWD, &one_at, AT_FDCWD, &other_at, exchange).unwrap();
                    done.push(format!("exchange {one} {other}"));
                }
                5 => {
                    let (one, other) = (pick(&mut random), pick(&mut random));
                    if one != other {
                        rig.mv(&one, &format!("{other}/{step}"));
                        done.push(format!("{one} into {other}"));
                    }
                }
                6 => rig.mkdir(&format!("r/{step}/sub")),
                9 | 10 => {
                    let to = format!("r/{}", random.pick(&["a", "b", "c", "d", "e", "f"]));
                    if rig.path(&to).exists() {
                        continue;
                    }
                    match random.below(2) {
                        0 => rig.mkdir(&to),
                        _ => rig.mv(&pick(&mut random), &to),
                    }
                    done.push(format!("another {to}"));
                }
                7 => rig.touch(&format!("{}/{step}", pick(&mut random))),
                8 => {
                    rig.watcher.rebuild();
                    done.push("rebuild".into());
                }
                _ => {
                    rig.turn();
                    done.push("turn".into());
                }
            }
        }
        rig.settle();
        for told in &rig.log.events {
            let (Told::Delete(path) | Told::Move(path, _)) = told else {
                continue;
            };
            let is_final = path.starts_with("r/final") && path.matches('/').count() == 2;
            let events = &rig.log.events;
            assert!(
                !(is_final && path.ends_with('/')),
                "seed {seed}, round {round}: {path}: {done:#?}, {events:#?}"
            );
        }
    }
}

/// Four threads rename files between directories; no rename may be reported as a deletion.
#[test]
fn files_moved_by_many_are_never_deleted() {
    let mut rig = Rig::new(|rig| {
        for directory in 0..8 {
            rig.mkdir(&format!("r/{directory}"));
        }
        for file in 0..4 {
            rig.touch(&format!("r/{file}/{file}"));
        }
    });
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|file| {
            let (base, start) = (rig.path("r"), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let mut at = base.join(format!("{file}/{file}"));
                for step in 1..=1000 {
                    let next = base.join(format!("{}/{file}", (file + step) % 8));
                    fs::rename(&at, &next).unwrap();
                    at = next;
                }
            })
        })
        .collect();
    rig.until("the threads", |_| {
        threads.iter().all(|thread| thread.is_finished())
    });
    rig.settle();
    rig.check("moved");
    let deleted = rig
        .log
        .events
        .iter()
        .filter(|told| matches!(told, Told::Delete(_)))
        .count();
    let moved = rig
        .log
        .events
        .iter()
        .filter(|told| matches!(told, Told::Move(..)))
        .count();
    // fanotify reports equal queued renames once.
    if Rig::has_watches() {
        assert_eq!((deleted, moved), (0, 4000));
    }
}

/// More events occur than the queue of the kernel holds.
#[test]
fn an_overflow_is_reported_and_repaired() {
    let mut rig = Rig::new(|rig| {
        for directory in 0..100 {
            rig.mkdir(&format!("r/{directory}/sub"));
        }
        rig.mkdir("out");
    });
    // The reader empties the queue all the time, so an overflow of the kernel cannot be caused
    // here; its consequences are tested.
    for directory in 0..50 {
        rig.mv(
            &format!("r/{directory}/sub"),
            &format!("r/{}/moved", directory + 50),
        );
    }
    rig.watcher.rebuild();
    rig.mkdir("r/new/deep");
    rig.rmdir("r/99");
    rig.mv("r/98", "out/98");
    rig.watcher.rebuild();
    rig.until("the repair", |rig| !rig.watcher.crawling());
    rig.settle();
    rig.log.model = rig.on_disk("r").into_iter().collect();
    rig.check("repaired");
    rig.touch("r/60/moved/f");
    rig.settle();
    assert!(rig.told(&Told::Create("r/60/moved/f".into())));
}
