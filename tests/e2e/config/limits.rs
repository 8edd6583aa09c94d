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
    dir.script("bin/nicely", "cat >/dev/null\nnice > @DIR@/nice\n");
    let config = r#"
        settings{ nice = 5, ionice = "idle" }
        sync{ default.rsync, source = "@SRC@", target = "@TRG@", nice = 7,
              rsync = { binary = "@DIR@/bin/nicely" } }
    "#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_for("the call", |_| dir.path("nice").exists());
    daemon.wait_log("finished");
    let inherited = std::process::Command::new("nice").output().unwrap().stdout;
    let inherited = String::from_utf8_lossy(&inherited)
        .trim()
        .parse()
        .unwrap_or(0);
    assert_eq!(dir.text("nice").trim(), 7.max(inherited).to_string());
}

#[test]
fn invalid_priorities_are_refused() {
    let dir = Dir::new();
    let config = r#"sync{ default.rsync, source = "@SRC@", target = "@TRG@", nice = 40 }"#;
    Daemon::new(&dir, config).run().assert_refused();
}
