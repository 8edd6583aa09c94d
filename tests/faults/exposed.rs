//! A user who owns a directory in the source cannot make the daemon send files that only root can
//! read. An rsync before 3.5 has a race between the check of a name and the opening of the file
//! with any list; the differences between the lists are tested in `oracle::batch_rsync`.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll, skip};

/// The user `nobody`.
const OTHER: u32 = 65534;

/// The minimum number of transfers in the race, and its maximum duration.
const ROUNDS: usize = 8;
const LIMIT: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.1, maxProcesses = 2,
    rsync = { archive = true, LIST },
}
"#;

/// Replaces a directory by a link to a directory outside of the source and back as fast as
/// possible; changes a file meanwhile, to cause transfers.
const WRITER: &str = r#"
cd "$1" || exit 1
while [ -d d ]; do
    echo $RANDOM$$ >>d/secret
    mv d away && ln -s "$2" d && rm d && mv away d
done
"#;

fn race(list: &str) {
    if !geteuid().is_root() {
        return skip("only root can act for another user");
    }
    let confined = Command::new("rsync")
        .args(["--insecure-links", "--version"])
        .output();
    if !confined.unwrap().status.success() {
        return skip("this rsync is older than 3.5");
    }
    let dir = Dir::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    open(dir.root(), 0o755);
    dir.mkdir("u/d");
    dir.write("u/d/secret", "decoy\n");
    for name in ["u", "u/d", "u/d/secret"] {
        chown(dir.src(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    std::fs::create_dir(dir.path("private")).unwrap();
    dir.put("private/secret", "TOP SECRET");
    open(&dir.path("private/secret"), 0o600);

    let config = CONFIG.replace("LIST", list);
    let mut daemon = Daemon::new(&dir, &config)
        .args(&["-log", "Exec"])
        .start_and_settle();
    let mut writer = Command::new("bash")
        .args(["-c", WRITER, "writer"])
        .args([dir.src("u"), dir.path("private")])
        .uid(OTHER)
        .gid(OTHER)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    let transfers = |log: &str| log.matches("--from0").count();
    let is_out = || {
        let found = Command::new("grep")
            .args(["-rqs", "TOP SECRET"])
            .arg(dir.trg(""))
            .status();
        found.unwrap().success()
    };
    let mut out = false;
    poll(|| {
        out = is_out();
        out || daemon.has_ended() || transfers(&daemon.log()) >= ROUNDS || Instant::now() > end
    });
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(
        !out && !is_out(),
        "the secret is at the target\n{}",
        daemon.log()
    );
}

#[test]
fn private_files_are_not_sent_with_the_chosen_list() {
    race("");
}

#[test]
fn private_files_are_not_sent_with_the_include_list() {
    race(r#"list = "filter""#);
}
