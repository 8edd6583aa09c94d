//! Random changes, malicious and harmless, with a scanner that is down now and then.

use std::collections::BTreeMap;
use std::fs;

use crate::{COMMAND, assert_clean, sentinel, site, start};

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
    let mut dice = Dice(7);
    for place in ["a", "b", "a/c"] {
        dir.mkdir(place);
    }
    let mut daemon = start(&dir, COMMAND);
    daemon.wait_log("finished.");
    let mut places = ["a", "b", "a/c"];
    for turn in 0..400 {
        let name = |dice: &mut Dice, places: &[&str; 3]| {
            let place = places[dice.roll(3) as usize];
            format!("{place}/f{}", dice.roll(6))
        };
        let file = name(&mut dice, &places);
        match dice.roll(12) {
            0..=2 => dir.write(&file, format!("good {turn}")),
            3..=4 => dir.write(&file, format!("EVIL {turn}")),
            5 if dir.src(&file).exists() => dir.append(&file, "EVIL"),
            6 if dir.src(&file).exists() => dir.rm(&file),
            7..=8 if dir.src(&file).exists() => dir.mv(&file, name(&mut dice, &places)),
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
        if turn % 40 == 0 {
            let _ = fs::remove_file(dir.path("down"));
            sentinel(&dir, &mut daemon, &format!("s{turn}"));
        }
        assert_clean(&dir);
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
        let evil = content
            .as_ref()
            .is_some_and(|content| content.starts_with(b"EVIL"))
            || content
                .as_ref()
                .is_some_and(|content| content.ends_with(b"EVIL"));
        if !evil {
            daemon.wait_for(&format!("{file} is current"), |_| {
                fs::read(dir.trg(&file)).ok() == content
            });
        }
    }
    assert_clean(&dir);
}
