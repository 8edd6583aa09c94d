//! Hard links of one file stay hard links on the target after any change, and comparisons end.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::script::SSH;

const KINDS: [&str; 5] = [
    "default.rsync, target = '@TRG@', rsync = { archive = true, hard_links = true }",
    "default.rsync, target = '@TRG@', maxPending = 3,
       rsync = { archive = true, hard_links = true, list = 'filter' }",
    "default.rsync, target = 'host:@TRG@',
       rsync = { archive = true, hard_links = true, rsh = '@DIR@/bin/ssh' }",
    "default.rsyncssh, host = 'host', targetdir = '@TRG@', ssh = { binary = '@DIR@/bin/ssh' },
       rsync = { archive = true, hard_links = true, rsh = '@DIR@/bin/ssh' }",
    "default.direct, target = '@TRG@'",
];

/// Waits until the daemon reports the target as current, and asserts that contents and links are
/// equal.
fn arrives(dir: &Dir, daemon: &mut Running<'_>, what: &str, names: &[&str]) {
    daemon.settle();
    for name in names {
        let read = |path| fs::read(path).unwrap_or_else(|error| panic!("{what}, {name}: {error}"));
        assert_eq!(
            read(dir.trg(name)),
            read(dir.src(name)),
            "{what}: {name}\n{}",
            daemon.log()
        );
        let inode = |name: &str| fs::metadata(dir.trg(name)).unwrap().ino();
        assert_eq!(
            inode(names[0]),
            inode(name),
            "{what}: {name}\n{}",
            daemon.log()
        );
    }
}

#[test]
fn hard_links_stay_hard_links() {
    for kind in KINDS {
        let dir = Dir::new();
        dir.script("bin/ssh", SSH);
        dir.mkdir("d");
        dir.write("a", "1");
        dir.write("d/x", "1");
        let config = format!(
            "settings{{ controlSocket = '@DIR@/sock', stateDir = '@DIR@/state' }}
             sync{{ {kind}, source = '@SRC@', delay = 0.2 }}"
        );
        let mut daemon = Daemon::new(&dir, &config).start();
        arrives(&dir, &mut daemon, "the start", &["a"]);
        dir.hard_link("a", "b");
        arrives(&dir, &mut daemon, "a second name", &["a", "b"]);
        for content in ["2", "3", "4"] {
            dir.write("b", content);
            arrives(&dir, &mut daemon, "written", &["a", "b"]);
        }
        dir.write("b", "5");
        let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = File::options().write(true).open(dir.src("b")).unwrap();
        file.set_modified(old).unwrap();
        drop(file);
        arrives(&dir, &mut daemon, "an old time", &["a", "b"]);
        // A directory that is made again has no known hard links.
        fs::remove_dir_all(dir.src("d")).unwrap();
        dir.mkdir("d");
        for name in ["d/1", "d/2", "d/3", "d/4", "d/5"] {
            dir.hard_link("a", name);
        }
        dir.write("d/5", "6");
        arrives(
            &dir,
            &mut daemon,
            "a directory again",
            &["a", "b", "d/1", "d/5"],
        );
        dir.mv("d", "e");
        dir.write("a", "7");
        arrives(&dir, &mut daemon, "moved", &["a", "b", "e/1", "e/5"]);
    }
}
