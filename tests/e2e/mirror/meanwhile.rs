//! Files that are replaced after rsync has got its list and before it reads them.

use std::fs;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll, skip};
use crate::support::fake::{Fake, HELD};

/// The list contains the deletion of the directory; rsync finds another directory, and sends it
/// without contents.
#[test]
fn directory_made_anew_while_its_deletion_is_about_to_run() {
    let dir = Dir::new();
    dir.mkdir("d/old");
    dir.write("d/old/f", "1");
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, HELD).start_and_settle();
    fake.hold();
    fs::rename(dir.src("d"), dir.path("away")).unwrap();
    daemon.wait_for("batch began", |_| fake.calls().len() >= 2);
    dir.mkdir("d");
    fake.release();
    daemon.wait_equal();
}

/// Opening a pipe waits for a writer.
#[test]
fn pipe_in_place_of_a_file_that_is_about_to_be_sent() {
    if fs::read("/proc/self/wchan").is_err() {
        return skip("the kernel does not tell what a process waits in");
    }
    let dir = Dir::new();
    let config = HELD.replace("archive", "bwlimit = 200, archive");
    let config = config.replace(r#", binary = "@RSYNC@""#, "");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.stop();
    dir.write("a", vec![0; 600_000]);
    dir.write("b", "1");
    daemon.cont();
    daemon.wait_for("the file before it is being sent", |_| {
        let mut names = fs::read_dir(dir.trg("")).unwrap().flatten();
        names.any(|entry| entry.file_name().as_encoded_bytes().starts_with(b".a."))
    });
    // The name always exists.
    mkfifo(&dir.path("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::rename(dir.path("pipe"), dir.src("b")).unwrap();
    daemon.wait_equal();
    daemon.wait_log("waits for a named pipe");
}

/// The daemon sees the time of the write, and rsync that of the file on the target, which it takes
/// for unchanged.
#[test]
fn file_whose_old_time_is_set_again_while_its_transfer_begins() {
    let time = Timespec {
        tv_sec: 1_500_000_000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    // By the path: the end of a write would be another change.
    let dated = |dir: &Dir| utimensat(CWD, dir.src("f"), &times, AtFlags::empty()).unwrap();
    // rsync looks at files after the other side has answered.
    let ssh = r#"[ ! -e "@DIR@/hold" ] || { touch "@DIR@/waits"; while [ -e "@DIR@/hold" ]; do sleep 0.01; done; }
shift; exec sh -c "$*"
"#;
    for list in ["files-from", "filter"] {
        let dir = Dir::new();
        let ssh = dir.script("ssh", ssh);
        dir.write("f", "old");
        dated(&dir);
        let config = format!(
            "settings{{ controlSocket = '@DIR@/sock' }}
             sync{{ default.rsync, source = '@SRC@', target = 'h:@TRG@', delay = 0,
                    rsync = {{ archive = true, list = '{list}', rsh = '{}' }} }}",
            ssh.display()
        );
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.settle();
        // Times of the second of the last transfer prove nothing to the daemon.
        let settled = SystemTime::now();
        assert!(poll(
            || settled.elapsed().unwrap_or_default() > Duration::from_millis(1100)
        ));
        dir.put("hold", "");
        dir.write("f", "new");
        daemon.wait_for("the transfer begins", |_| dir.path("waits").exists());
        dated(&dir);
        fs::remove_file(dir.path("hold")).unwrap();
        daemon.settle();
        assert_eq!(dir.text("trg/f"), "new", "{list}\n{}", daemon.log());
    }
}
