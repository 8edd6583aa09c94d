//! Things that take the place of others between rsync's list and rsync's look at them.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, skip};
use crate::support::fake::{Fake, HELD};

/// The list says that the directory is gone; rsync finds another one, and that is sent without
/// what is in it.
#[test]
fn directory_made_anew_while_its_deletion_is_about_to_run() {
    let dir = Dir::new();
    dir.mkdir("d/old");
    dir.write("d/old/f", "1");
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, HELD).start_and_settle();
    fake.hold();
    fs::rename(dir.src("d"), dir.path("away")).unwrap();
    daemon.wait_for("batch began", |_| fake.calls().len() == 2);
    dir.mkdir("d");
    fake.release();
    daemon.wait_equal();
}

/// Who opens a pipe waits for somebody to write to it.
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
    // At no moment is there nothing.
    mkfifo(&dir.path("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::rename(dir.path("pipe"), dir.src("b")).unwrap();
    daemon.wait_equal();
    daemon.wait_log("waits for a named pipe");
}
