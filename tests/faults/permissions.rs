//! Directories that the daemon's user may not read or enter for a time.

use nix::unistd::geteuid;

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::{Dir, skip};

/// Makes a directory inaccessible before the start or after it, and accessible again. What it
/// contains must be watched then.
fn is_watched_again(closed: &str, mode: u32, before_start: bool) {
    let dir = Dir::new();
    dir.mkdir("closed/below/deep");
    dir.write("closed/below/f", "1");
    if before_start {
        dir.chmod(closed, mode);
    }
    let config = format!("settings{{ insist = true }} {MIRROR}");
    let Some(daemon) = Daemon::new(&dir, &config).powerless() else {
        return skip("no setpriv");
    };
    let mut daemon = daemon.start();
    daemon.wait_log("finished.");
    if !before_start {
        daemon.wait_equal();
        dir.chmod(closed, mode);
        if geteuid().is_root() {
            dir.mkdir("closed/later/deep");
        }
        dir.write("sentinel", "1");
        daemon.wait_for("the change of mode is seen", |_| {
            dir.trg("sentinel").exists()
        });
    }
    dir.chmod(closed, 0o755);
    daemon.wait_equal();
    for name in ["closed/below/deep/new", "closed/later/deep/new"] {
        if dir.src(name).parent().unwrap().exists() {
            dir.write(name, "2");
        }
    }
    daemon.wait_equal();
}

#[test]
fn a_directory_that_could_not_be_entered_is_watched_when_it_can() {
    for closed in ["closed", "closed/below"] {
        for mode in [0o444, 0o000] {
            for before_start in [true, false] {
                is_watched_again(closed, mode, before_start);
            }
        }
    }
}
