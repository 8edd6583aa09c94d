//! Random changes, malicious and harmless, with a scanner that fails now and then.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;

use super::{COMMAND, assert_clean_in, config, site};
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::random::Random;

const TARGETS: [&str; 3] = ["t1", "t2", "t3"];

#[test]
fn random_changes_send_everything_but_rejected_files() {
    let dir = site();
    let text = config(COMMAND);
    Churn::new(&dir, &text, &["trg"], Random::new(7)).run();
}

/// Targets fail or are slow, the configuration is reloaded, and the daemon is killed.
/// `LSYNCD_TEST_SEEDS=FROM-TO` runs more seeds.
#[test]
fn random_changes_send_nothing_rejected_to_any_of_three_targets() {
    let seeds = std::env::var("LSYNCD_TEST_SEEDS").unwrap_or_default();
    let seeds = seeds.split_once('-').map_or(11..=11, |(from, to)| {
        from.parse().expect("a number")..=to.parse().expect("a number")
    });
    for seed in seeds {
        eprintln!("seed {seed}");
        let dir = site();
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/bin/target-rsync"
        );
        std::os::unix::fs::symlink(script, dir.path("bin/rsync")).unwrap();
        for name in TARGETS {
            fs::create_dir(dir.path(name)).unwrap();
        }
        let list = "targets = { '@DIR@/t1', '@DIR@/t2', '@DIR@/t3' },
            rsync = { binary = '@RSYNC@', archive = true }";
        let hup = ["all", "changed"][seed as usize % 2];
        let text = config(COMMAND).replace("target = \"@TRG@\"", list);
        let text = text.replace("insist", &format!("stopTimeout = 1, hup = '{hup}', insist"));
        let mut churn = Churn::new(&dir, &text, &TARGETS, Random::new(seed));
        churn.hard = true;
        churn.run();
    }
}

struct Churn<'d> {
    dir: &'d Dir,
    text: &'d str,
    targets: &'d [&'d str],
    daemon: Running<'d>,
    random: Random,
    name: &'static str,
    /// Also kills the daemon and reloads the configuration.
    hard: bool,
}

impl<'d> Churn<'d> {
    fn new(dir: &'d Dir, text: &'d str, targets: &'d [&'d str], random: Random) -> Churn<'d> {
        Churn {
            dir,
            text,
            targets,
            daemon: Daemon::new(dir, text).start(),
            random,
            name: "daemon",
            hard: false,
        }
    }

    fn run(mut self) {
        let dir = self.dir;
        self.daemon.wait_log("--- Startup ---");
        for place in ["a", "b", "a/c"] {
            dir.mkdir(place);
        }
        let mut places = ["a", "b", "a/c"];
        for turn in 0..400 {
            change(dir, &mut self.random, &mut places, turn);
            if self.hard {
                self.trouble();
            }
            if turn % 40 == 0 {
                self.mend();
                let name = format!("s{turn}");
                dir.write(&name, "harmless");
                for target in self.targets {
                    arrives(dir, &mut self.daemon, target, &name, Some(b"harmless"));
                }
            }
            self.is_clean();
        }
        self.mend();
        let mut wanted = BTreeMap::new();
        for place in places {
            for number in 0..6 {
                let file = format!("{place}/f{number}");
                wanted.insert(file.clone(), fs::read(dir.src(&file)).ok());
            }
        }
        for (file, content) in wanted {
            let content = content.as_deref();
            let evil =
                content.is_some_and(|text| text.starts_with(b"EVIL") || text.ends_with(b"EVIL"));
            for target in self.targets.iter().filter(|_| !evil) {
                arrives(dir, &mut self.daemon, target, &file, content);
            }
        }
        self.is_clean();
    }

    /// Causes one failure around the daemon.
    fn trouble(&mut self) {
        let target = TARGETS[self.random.below(3)];
        let (dead, held) = (format!("{target}.dead"), format!("{target}.held"));
        match self.random.below(80) {
            0..=2 => drop(self.dir.put(&dead, "")),
            3..=5 => drop(self.dir.put(&held, "")),
            6..=10 => {
                let _ = fs::remove_file(self.dir.path(&dead));
                let _ = fs::remove_file(self.dir.path(&held));
            }
            11 => self.daemon.signal(Signal::SIGHUP),
            12 => {
                self.daemon.signal(Signal::SIGKILL);
                self.daemon.wait_end();
                for target in TARGETS {
                    let _ = fs::remove_file(self.dir.path(format!("{target}.held")));
                }
                self.daemon.wait_all_gone();
                // Dropping a daemon kills all processes with its name.
                self.name = match self.name {
                    "daemon" => "again",
                    _ => "daemon",
                };
                let next = Daemon::new(self.dir, self.text).named(self.name);
                self.daemon = next.start();
                self.daemon.wait_log("--- Startup ---");
            }
            _ => {}
        }
    }

    fn mend(&mut self) {
        let _ = fs::remove_file(self.dir.path("down"));
        for target in self.targets.iter().filter(|_| self.hard) {
            for end in ["dead", "held"] {
                let _ = fs::remove_file(self.dir.path(format!("{target}.{end}")));
            }
        }
        // A daemon that has just been started may not listen yet, and has nothing to retry.
        drop(self.dir.ctl(&["retry"]).output().unwrap());
    }

    fn is_clean(&self) {
        for target in self.targets {
            assert_clean_in(self.dir, target);
        }
    }
}

fn change(dir: &Dir, random: &mut Random, places: &mut [&str; 3], turn: usize) {
    let name = |random: &mut Random, places: &[&str; 3]| {
        let place = places[random.below(3)];
        format!("{place}/f{}", random.below(6))
    };
    let file = name(random, places);
    match random.below(12) {
        // Each has another size, as a wrapper of rsync gets no option to compare contents.
        0..=2 => dir.write(&file, format!("good {}", "x".repeat(turn))),
        3..=4 => dir.write(&file, format!("EVIL {}", "x".repeat(turn))),
        5 if dir.src(&file).exists() => dir.append(&file, "EVIL"),
        6 if dir.src(&file).exists() => dir.rm(&file),
        7..=8 if dir.src(&file).exists() => dir.mv(&file, name(random, places)),
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

/// Waits until the target has a file with this content, or no file.
fn arrives(dir: &Dir, daemon: &mut Running<'_>, target: &str, file: &str, content: Option<&[u8]>) {
    let path = dir.path(format!("{target}/{file}"));
    daemon.wait_for(&format!("{target}/{file} is current"), |_| {
        fs::read(&path).ok().as_deref() == content
    });
}
