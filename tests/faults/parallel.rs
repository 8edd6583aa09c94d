//! Transfers of one sync that run at the same time (`maxProcesses` above one).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::tree;

/// A stand-in for ssh. If a file `slow` exists, the target gets the first 1,500 bytes of the
/// sender, and the rest when a file `go` exists; the file `stuck` shows that the sender has read
/// the disk.
const SLOW_SSH: &str = r#"while [ "$1" != host ]; do shift; done; shift
rm "@DIR@/slow" 2>/dev/null || exec sh -c "$*"
mkfifo "@DIR@/pipe"
exec 3<&0
{
    dd bs=1 count=1500 2>/dev/null
    touch "@DIR@/stuck"
    while ! [ -e "@DIR@/go" ]; do sleep 0.05; done
    exec cat
} <&3 >"@DIR@/pipe" &
exec sh -c "$*" <"@DIR@/pipe"
"#;

/// Returns the directories of the source.
fn directories(dir: &Dir) -> Vec<PathBuf> {
    let all = ["", "d", "e"].map(|name| dir.src(name));
    all.into_iter().filter(|path| path.exists()).collect()
}

/// Makes `change` while a transfer of `first` is blocked, waits until `change` is sent, and
/// compares source and target after the end of the slow transfer.
fn overtakes(first: impl Fn(&Dir), change: impl Fn(&Dir)) {
    let dir = Dir::new();
    dir.script("bin/ssh", SLOW_SSH);
    dir.mkdir("d");
    dir.mkdir("e");
    for name in ["d/old", "e/one", "e/two", "other"] {
        dir.write(name, name);
    }
    let config = r#"settings{ controlSocket = '@DIR@/sock' }
        sync{ default.rsync, source = "@SRC@", target = "host:@TRG@", delay = 0, maxProcesses = 2,
            rsync = { archive = true, rsh = "@DIR@/bin/ssh" } }"#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    dir.put("slow", "");
    daemon.stop();
    // The list of the transfer is longer than the first 1,500 bytes; rsync omits the part of a name
    // that is equal to the previous one.
    for n in 0..20 {
        dir.write(format!("d/{n:03}{}", "x".repeat(200)), "");
    }
    first(&dir);
    daemon.cont();
    daemon.wait_for("the transfer stands still", |_| dir.path("stuck").exists());
    let sent = |log: &str| log.matches("Finished a list").count();
    let before = sent(&daemon.log());
    daemon.stop();
    change(&dir);
    // rsync compares times in whole seconds.
    let old = UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    for path in directories(&dir) {
        fs::File::open(path).unwrap().set_modified(old).unwrap();
    }
    daemon.cont();
    daemon.wait_for("the later transfer has ended", |daemon| {
        sent(&daemon.log()) > before
    });
    dir.put("go", "");
    daemon.settle();
    let difference = tree::difference(&tree::read(&dir.src("")), &tree::read(&dir.trg("")));
    assert_eq!(difference, "", "{}", daemon.log());
    for path in directories(&dir) {
        let target = dir.trg(
            path.strip_prefix(dir.src(""))
                .unwrap()
                .as_os_str()
                .as_bytes(),
        );
        let time = fs::metadata(&target).unwrap().modified().unwrap();
        assert_eq!(time, old, "{}: {}", target.display(), daemon.log());
    }
}

#[test]
fn a_slow_transfer_does_not_give_back_a_directory_its_old_time() {
    overtakes(|_| (), |dir| dir.write("d/new", "new"));
    overtakes(|_| (), |dir| dir.rm("d/old"));
}

#[test]
fn a_slow_transfer_does_not_make_a_deleted_directory_again() {
    let first = |dir: &Dir| dir.rm("e/one");
    overtakes(first, |dir| fs::remove_dir_all(dir.src("e")).unwrap());
    let first = |dir: &Dir| dir.write("e/three", "3");
    overtakes(first, |dir| {
        // The last deletion is not of the file that is being sent, so nothing holds the directory.
        for name in ["e/three", "e/two", "e/one"] {
            dir.rm(name);
        }
        fs::remove_dir(dir.src("e")).unwrap();
        dir.mkdir("e");
        dir.write("e/four", "4");
    });
}

/// The deletion of a directory that exists again is followed by a full comparison (`hard_links`),
/// and what was sent during one is sent again after it.
#[test]
fn full_comparisons_for_hard_links_come_to_an_end() {
    let dir = Dir::new();
    let config = "settings{ controlSocket = '@DIR@/sock' }
        sync{ default.rsync, source = '@SRC@', target = '@TRG@', delay = 0, maxProcesses = 3,
              rsync = { archive = true, hard_links = true } }";
    for name in ["d", "e"] {
        dir.mkdir(name);
        dir.write(format!("{name}/f"), "1");
    }
    dir.mkdir("many");
    (0..2000).for_each(|n| dir.write(format!("many/{n}"), ""));
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.settle();
    for _ in 0..5 {
        assert!(dir.ctl(&["resync"]).status().unwrap().success());
        for name in ["d", "e"] {
            dir.rm(name);
            dir.mkdir(name);
            dir.write(format!("{name}/f"), "2");
        }
        daemon.settle();
    }
    daemon.wait_equal();
    let comparisons = daemon.log().matches("recursive full rsync").count();
    assert!(comparisons <= 100, "{comparisons}");
}
