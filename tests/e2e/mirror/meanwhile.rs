//! Files that are replaced after rsync has got its list and before it reads them.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, skip};
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
    daemon.wait_for("batch began", |_| fake.calls().len() == 2);
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
