//! Limits that keep a host usable: the number of full comparisons at a time, and the priorities of
//! children.

use std::fs;

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::fake::Fake;

fn many(count: usize, settings: &str) -> String {
    let syncs = (0..count).map(|n| {
        format!(
            r#"sync{{ default.rsync, source = "@DIR@/s{n}", target = "@DIR@/t{n}",
                rsync = {{ binary = "@RSYNC@" }} }}
            "#
        )
    });
    format!("settings{{ {settings} }}\n") + &syncs.collect::<String>()
}

fn sources(dir: &Dir, count: usize) {
    for n in 0..count {
        for tree in ["s", "t"] {
            fs::create_dir(dir.path(format!("{tree}{n}"))).unwrap();
        }
    }
}

#[test]
fn at_most_four_startup_transfers_run_at_a_time() {
    for (settings, most) in [("", 4), ("maxStartups = 2", 2)] {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        fake.hold();
        sources(&dir, 9);
        let mut daemon = Daemon::new(&dir, &many(9, settings)).start();
        daemon.wait_for("the first startups", |_| fake.calls().len() >= most);
        fake.release();
        daemon.wait_for("all startups", |_| fake.ended() >= 9);
        let concurrent = fake.calls().iter().map(|call| call.concurrent).max();
        assert_eq!(concurrent, Some(most));
    }
}

#[test]
fn children_are_as_nice_as_configured() {
    let dir = Dir::new();
    dir.script(
        "bin/nicely",
        "cat >/dev/null\nfor last; do :; done\nnice > \"${last%/}.nice\"\n",
    );
    let config = r#"
        settings{ nice = 5, ionice = "idle" }
        sync{ default.rsync, source = "@SRC@", target = "@DIR@/own", nice = 7,
              rsync = { binary = "@DIR@/bin/nicely" } }
        sync{ default.rsync, source = "@SRC@", target = "@DIR@/common",
              rsync = { binary = "@DIR@/bin/nicely" } }
    "#;
    let mut daemon = Daemon::new(&dir, config).start();
    let nice = |name: &str| std::fs::read_to_string(dir.path(format!("{name}.nice")));
    let is_complete = |name: &str| nice(name).is_ok_and(|text| text.ends_with('\n'));
    daemon.wait_for("the calls", |_| is_complete("own") && is_complete("common"));
    let inherited = std::process::Command::new("nice").output().unwrap().stdout;
    let inherited: i32 = String::from_utf8_lossy(&inherited).trim().parse().unwrap();
    for (name, nice_value) in [("own", 7), ("common", 5)] {
        // Only root may lower it.
        let expected = match nix::unistd::geteuid().is_root() {
            true => nice_value,
            false => inherited.max(nice_value),
        };
        assert_eq!(nice(name).unwrap().trim(), expected.to_string(), "{name}");
    }
}

#[test]
fn invalid_priorities_are_refused() {
    let dir = Dir::new();
    let config = r#"sync{ default.rsync, source = "@SRC@", target = "@TRG@", nice = 40 }"#;
    Daemon::new(&dir, config).run().assert_refused();
}
