//! Files and directories that the real rsync cannot transfer: too large for the target, not readable, or
//! owned by another user. The rest is sent at once, and these when it is possible.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::{Dir, program, skip};

/// rsync prints an empty line between a progress line and an error.
#[test]
fn an_empty_line_of_rsync_is_no_unknown_error() {
    let dir = Dir::new();
    dir.script(
        "bin/wrapped",
            "if mkdir @DIR@/called; then rsync --exclude=/a \"$@\"; {
             echo; echo 'rsync: [sender] send_files failed to open \"@SRC@/a\": Permission denied (13)'
             echo 'rsync error: some files/attrs were not transferred (see previous errors) (code 23)'
             } >&2; exit 23; fi; exec rsync \"$@\"\n",
    );
    dir.write("a", "1");
    dir.write("b", "1");
    let config = MIRROR.replace(
        "archive = true",
        "archive = true, binary = '@DIR@/bin/wrapped'",
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
    let log = daemon.log();
    assert!(
        log.contains("retrying 1 path in") && !log.contains("everything again"),
        "{log}"
    );
}

const NOBODY: u32 = 65534;

/// The directories of the target belong to another user, so their times cannot be set. The files
/// arrive, and nothing is repeated.
#[test]
fn directories_of_another_user_are_no_failure() {
    let setpriv = program("setpriv").filter(|_| nix::unistd::geteuid().is_root());
    let Some(setpriv) = setpriv else {
        return skip("needs root and setpriv");
    };
    for kind in ["default.rsync", "default.direct"] {
        let dir = Dir::new();
        let open = |path: std::path::PathBuf, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        open(dir.path(""), 0o755);
        dir.mkdir("d");
        fs::create_dir(dir.trg("d")).unwrap();
        open(dir.trg(""), 0o777);
        open(dir.trg("d"), 0o777);
        for path in [dir.src(""), dir.src("d"), dir.path("rec")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let config = r#"
settings{ statusFile = "@DIR@/rec/status", statusInterval = 0, insist = true }
sync{ KIND, source = "@SRC@", target = "@TRG@", delay = 0.2 }
"#;
        let nobody = NOBODY.to_string();
        let (user, group) = (format!("--reuid={nobody}"), format!("--regid={nobody}"));
        let wrapper = [setpriv.to_str().unwrap(), &user, &group, "--clear-groups"];
        let mut daemon = Daemon::new(&dir, &config.replace("KIND", kind))
            .wrapped(&wrapper)
            .start();
        daemon.wait_log("finished");
        for n in 0..3 {
            let name = format!("d/f{n}");
            dir.write(&name, "1");
            chown(dir.src(&name), Some(NOBODY), Some(NOBODY)).unwrap();
            let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            let directory = fs::File::open(dir.src("d")).unwrap();
            directory.set_times(old).unwrap();
            daemon.wait_for("it arrived", |_| {
                dir.trg(&name).exists() && dir.text("rec/status").contains("There are 0 delays")
            });
        }
        let log = daemon.log();
        assert_eq!(log.matches("the times of").count(), 1, "{log}");
        assert!(!log.contains("partial transfer (exit code"), "{log}");
        let status = dir.text("rec/status");
        assert!(!status.contains("trying again"), "{status}");
    }
}

/// Smaller files are sent at once, changes do not wait, and the file is sent when it fits.
#[test]
fn a_comparison_continues_without_files_that_are_too_large() {
    // 200 blocks of 512 bytes.
    let limited = ["sh", "-c", "ulimit -f 200; trap '' XFSZ; exec \"$@\"", "sh"];
    for list in ["auto", "filter"] {
        let dir = Dir::new();
        for name in ["a", "b", "c", "d"] {
            dir.mkdir(name);
        }
        dir.write("a/big", "x".repeat(150_000));
        dir.write("b/bigger", "x".repeat(160_000));
        dir.write("c/small", "1");
        let text = format!(
            r#"
settings{{ statusFile = "@DIR@/status", statusInterval = 0, insist = true }}
sync{{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = {{ archive = true, list = "{list}" }},
}}
"#
        );
        let mut daemon = Daemon::new(&dir, &text).wrapped(&limited).start();
        daemon.wait_for("the small one is there", |_| dir.trg("c/small").exists());
        dir.write("d/new", "1");
        daemon.wait_for("the new one is there", |_| dir.trg("d/new").exists());
        let log = daemon.log();
        assert!(
            log.contains("1 path too large for the target, comparing smaller files"),
            "{log}"
        );
        daemon.wait_for("the skipped files are reported", |daemon| {
            daemon
                .log()
                .contains("files too large for the target were skipped;")
        });
        assert!(!dir.trg("a/big").exists());
        dir.write("a/big", "it fits");
        dir.rm("b/bigger");
        daemon.wait_for("nothing is pending or retried", |_| {
            let status = dir.text("status");
            status.contains("There are 0 delays") && !status.contains("again in")
        });
        daemon.wait_equal();
    }
}

/// rsync creates a directory that it cannot read without an error.
#[test]
fn contents_of_an_unreadable_new_directory_are_sent_later() {
    if nix::unistd::geteuid().is_root() {
        return skip("root can read every directory");
    }
    for (delete, list) in [("true", "auto"), ("true", "filter"), ("false", "auto")] {
        let dir = Dir::new();
        let mode = |path: std::path::PathBuf, mode: u32| {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', delay = 0.1,
             delete = {delete}, rsync = {{ archive = true, list = '{list}' }} }}"
        );
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        fs::create_dir(dir.src("d")).unwrap();
        mode(dir.src("d"), 0o300);
        fs::create_dir(dir.src("d/sub")).unwrap();
        fs::write(dir.src("d/sub/f"), "1").unwrap();
        // A recursive call fails by itself.
        daemon.wait_for("it is reported as failed", |daemon| {
            let log = daemon.log();
            log.contains("new directories that cannot be read: 1;") || log.contains("retrying")
        });
        mode(dir.src("d"), 0o700);
        daemon.wait_for("its contents are sent", |_| dir.trg("d/sub/f").exists());
        daemon.wait_equal();
    }
}
