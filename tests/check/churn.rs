//! Random changes, malicious and harmless, with a scanner that is down now and then.

use std::collections::BTreeMap;
use std::fs;

use crate::daemon::{Daemon, Running};
use crate::util::Dir;
use crate::{COMMAND, assert_clean_in, config, site};

/// The same numbers each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

#[test]
fn nothing_malicious_ever_arrives_and_all_else_does() {
    let dir = site();
    let mut daemon = Daemon::new(&dir, &config(COMMAND)).start();
    daemon.wait_log("finished.");
    churn(&dir, &mut daemon, Dice(7), &["trg"]);
}

#[test]
fn nor_at_any_of_many_targets() {
    let dir = site();
    let names = ["t1", "t2", "t3"];
    for name in names {
        fs::create_dir(dir.path(name)).unwrap();
    }
    let list = "targets = { '@DIR@/t1', '@DIR@/t2', '@DIR@/t3' }";
    let text = config(COMMAND).replace("target = \"@TRG@\"", list);
    let mut daemon = Daemon::new(&dir, &text).start();
    churn(&dir, &mut daemon, Dice(11), &names);
}

fn churn(dir: &Dir, daemon: &mut Running<'_>, mut dice: Dice, targets: &[&str]) {
    let clean = || {
        targets
            .iter()
            .for_each(|target| assert_clean_in(dir, target))
    };
    for place in ["a", "b", "a/c"] {
        dir.mkdir(place);
    }
    let mut places = ["a", "b", "a/c"];
    for turn in 0..400 {
        change(dir, &mut dice, &mut places, turn);
        if turn % 40 == 0 {
            let _ = fs::remove_file(dir.path("down"));
            let name = format!("s{turn}");
            dir.write(&name, "harmless");
            for target in targets {
                arrives(dir, daemon, target, &name, Some(b"harmless"));
            }
        }
        clean();
    }
    let _ = fs::remove_file(dir.path("down"));
    let mut wanted = BTreeMap::new();
    for place in places {
        for number in 0..6 {
            let file = format!("{place}/f{number}");
            wanted.insert(file.clone(), fs::read(dir.src(&file)).ok());
        }
    }
    for (file, content) in wanted {
        let content = content.as_deref();
        let evil = content.is_some_and(|text| text.starts_with(b"EVIL") || text.ends_with(b"EVIL"));
        for target in targets.iter().filter(|_| !evil) {
            arrives(dir, daemon, target, &file, content);
        }
    }
    clean();
}

fn change(dir: &Dir, dice: &mut Dice, places: &mut [&str; 3], turn: u32) {
    let name = |dice: &mut Dice, places: &[&str; 3]| {
        let place = places[dice.roll(3) as usize];
        format!("{place}/f{}", dice.roll(6))
    };
    let file = name(dice, places);
    match dice.roll(12) {
        0..=2 => dir.write(&file, format!("good {turn}")),
        3..=4 => dir.write(&file, format!("EVIL {turn}")),
        5 if dir.src(&file).exists() => dir.append(&file, "EVIL"),
        6 if dir.src(&file).exists() => dir.rm(&file),
        7..=8 if dir.src(&file).exists() => dir.mv(&file, name(dice, places)),
        5..=8 => {}
        9 if places[1] == "b" => {
            dir.mv("b", "d");
            places[1] = "d";
        }
        9 => {
            dir.mv("d", "b");
            places[1] = "b";
        }
        10 => drop(dir.put("down", "")),
        _ => drop(fs::remove_file(dir.path("down"))),
    }
}

/// Waits until the target has a file with this content, or none.
fn arrives(dir: &Dir, daemon: &mut Running<'_>, target: &str, file: &str, content: Option<&[u8]>) {
    let path = dir.path(format!("{target}/{file}"));
    daemon.wait_for(&format!("{target}/{file} is current"), |_| {
        fs::read(&path).ok().as_deref() == content
    });
}
