//! Receivers that are sources for the next level, as in docs/scenarios/chain.md.

use std::fs;

use super::site;
use crate::support::daemon::Daemon;

#[test]
fn three_levels_become_equal() {
    let dir = site(0);
    let levels = [
        ("src", ["a", "b"]),
        ("a", ["a1", "a2"]),
        ("a1", ["a11", "a12"]),
    ];
    for place in ["a", "b", "a1", "a2", "a11", "a12"] {
        fs::create_dir_all(dir.path(place)).unwrap();
    }
    let names = ["first", "second", "third"];
    dir.write("before", "1");
    // The last level starts first.
    let mut daemons = Vec::new();
    for (name, (source, targets)) in names.into_iter().zip(levels).rev() {
        let targets = targets.map(|target| format!("'@DIR@/{target}'")).join(", ");
        let config = format!(
            "settings{{ insist = true }} sync{{ default.rsync, source = '@DIR@/{source}',
             targets = {{ {targets} }}, delay = 0.3, rsync = {{ archive = true }} }}"
        );
        let file = dir.put(&format!("{name}.lua"), dir.expand(&config));
        let daemon = Daemon::bare(&dir).named(name);
        daemons.push(daemon.args(&["-nodaemon", file.to_str().unwrap()]).start());
    }
    let all = ["a", "b", "a1", "a2", "a11", "a12"];
    let mut equal = |last: &str| {
        let top = daemons.last_mut().unwrap();
        top.wait_for(last, |_| dir.path(format!("a12/{last}")).exists());
        for target in all {
            top.wait_same("src", target, true);
        }
    };
    equal("before");
    dir.mkdir("d/e");
    dir.write("d/e/f", "1");
    equal("d/e/f");
    fs::rename(dir.src("d"), dir.src("g")).unwrap();
    fs::remove_file(dir.src("before")).unwrap();
    dir.write("big", vec![7; 3_000_000]);
    equal("g/e/f");
    for daemon in &mut daemons {
        assert_eq!(daemon.terminate(), Some(143));
    }
}
