//! Stops, kills and restarts: children end with the daemon, and pending changes are kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

const RECORDED: &str = r#"
settings{ stopTimeout = 1 }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.3,
    rsync = { binary = "@RSYNC@", archive = true },
}
"#;

/// Starts a daemon with a batch that does not end, and with pending changes.
fn busy<'d>(dir: &'d Dir, fake: &Fake<'_>, config: &str) -> Running<'d> {
    let mut daemon = Daemon::new(dir, config).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    dir.write("g", "1");
    daemon
}

#[test]
fn term_under_load_ends_in_time_and_leaves_no_child() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = busy(&dir, &fake, RECORDED);
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
    assert_eq!(fake.calls().len(), 2);
    let log = daemon.log();
    assert!(
        log.contains("child processes have not ended, sending SIGTERM"),
        "{log}"
    );
}

/// A child that ignores TERM, and its own child, are killed.
#[test]
fn second_term_ends_at_once() {
    let dir = Dir::new();
    dir.script(
        "bin/rsync",
        "[ \"$1\" = --version ] && exit 1\n[ -e \"${0%/*}/go\" ] || exit 0\n\
         trap '' TERM\necho held\n(while :; do sleep 1; done) &\nwhile :; do sleep 1; done\n",
    );
    let config = RECORDED.replace("stopTimeout = 1", "stopTimeout = 100000");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.put("bin/go", "");
    dir.write("f", "1");
    daemon.wait_log("held");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("waiting for 1 more child processes.");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_end().code(), Some(143));
    daemon.wait_all_gone();
}

/// HUP waits for a child without a limit, TERM does not, even after HUP.
#[test]
fn term_ends_a_waiting_hup() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = busy(&dir, &fake, RECORDED);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("waiting for 1 more child processes.");
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn transfers_of_a_killed_daemon_end() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = busy(&dir, &fake, RECORDED);
    daemon.signal(Signal::SIGKILL);
    daemon.wait_all_gone();
}

/// A child that has not called execve(2) yet holds the sockets of a killed daemon.
#[test]
fn a_socket_that_is_in_use_for_a_moment_is_taken_over() {
    let dir = Dir::new();
    let config = format!("settings{{ controlSocket = '@DIR@/sock' }}\n{RECORDED}");
    let held = UnixListener::bind(dir.path("sock")).unwrap();
    let _fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, &config).start();
    // The attempt of the daemon to connect shows that it has found the socket in use.
    held.accept().unwrap();
    drop(held);
    daemon.settle();
}

#[test]
fn an_error_of_the_configuration_leaves_no_child() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    std::fs::create_dir(dir.path("other")).unwrap();
    let config = format!(
        "{RECORDED}\nsync{{ source = '@DIR@/other', delay = 0, onCreate = function() error('x') end }}"
    );
    let mut daemon = busy(&dir, &fake, &config);
    dir.put("other/f", "");
    assert_eq!(daemon.wait_end().code(), Some(255));
    daemon.wait_all_gone();
}

/// A configuration without startup transfers, so everything depends on the stored state.
const UNCOMPARED: &str = r#"
settings{ stateDir = "@DIR@/state" }
sync{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = DELAY, init = false,
    rsync = { archive = true },
}
"#;

fn uncompared(delay: &str) -> String {
    UNCOMPARED.replace("DELAY", delay)
}

/// Starts a daemon that has no startup transfer, and waits until it watches.
fn start<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    let mut daemon = Daemon::new(dir, config)
        .args(&["-log", "Inotify", "-log", "Delay", "-log", "Exec"])
        .start();
    daemon.wait_log("directories in all");
    daemon
}

/// Makes the target equal to the source.
fn copy(dir: &Dir) {
    let copied = std::process::Command::new("cp")
        .args(["-a", "src/.", "trg/"])
        .current_dir(dir.root())
        .status();
    assert!(copied.unwrap().success());
}

#[test]
fn what_was_pending_at_the_stop_is_sent_after_the_start() {
    let dir = Dir::new();
    for name in ["gone", "moved/in/it", "kept"] {
        dir.mkdir(name);
        dir.write(format!("{name}/f"), name);
    }
    copy(&dir);
    let mut daemon = start(&dir, &uncompared("100000"));
    dir.write("a b\n'c", "strange");
    dir.write(b"\xff\x01", "strange");
    dir.mkdir("new/deep/er");
    dir.write("new/deep/er/f", "1");
    dir.rm("gone");
    dir.mv("moved", "away");
    dir.chmod("kept/f", 0o600);
    daemon.wait_log("away");
    daemon.wait_log("new/deep/er/f");
    daemon.wait_log("kept/f");
    assert_eq!(daemon.terminate(), Some(143));
    assert!(dir.trg("gone").exists());
    let mut daemon = start(&dir, &uncompared("0.2"));
    daemon.wait_log("changes were pending when the daemon stopped");
    daemon.wait_equal();
    assert_eq!(daemon.terminate(), Some(143));
    assert!(nothing_pending_below(&dir.path("state")));
}

/// The file is sent and changed in the same second without changing its size, and the daemon stops.
#[test]
fn change_in_the_second_of_the_last_transfer_before_the_stop() {
    for init in ["init = false", "init = nil"] {
        let dir = Dir::new();
        let config = |delay| uncompared(delay).replace("init = false", init);
        let mut daemon = start(&dir, &config("0"));
        let time = fs::File::open(dir.src("")).unwrap().metadata().unwrap();
        let time = time.modified().unwrap();
        let write = |content| {
            dir.write("f", content);
            let file = fs::File::options().write(true).open(dir.src("f")).unwrap();
            file.set_modified(time).unwrap();
        };
        write("1");
        daemon.wait_equal();
        assert_eq!(daemon.terminate(), Some(143));
        let mut daemon = start(&dir, &config("100000"));
        write("2");
        daemon.wait_for("the state is stored", |daemon| {
            daemon.log().contains("Modify")
        });
        assert_eq!(daemon.terminate(), Some(143));
        let mut daemon = start(&dir, &config("0.2"));
        daemon.wait_for("it was sent", |_| fs::read(dir.trg("f")).unwrap() == b"2");
    }
}

/// Asserts that no changes are stored. The file `alive` may exist after a stop in the second of a
/// transfer: an exact comparison finds the changes in the rest of that second.
fn nothing_pending_below(path: &std::path::Path) -> bool {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.all(|path| {
        if path.is_dir() {
            nothing_pending_below(&path)
        } else {
            !path.ends_with("pending")
        }
    })
}

/// The paths of an ended transfer, a path that waits for its retry, and pending changes.
#[test]
fn what_was_being_sent_at_the_stop_is_sent_after_the_start() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let config = uncompared("0.2")
        .replace("settings{", "settings{ stopTimeout = 0.1,")
        .replace("archive = true", "archive = true, binary = '@RSYNC@'");
    let mut daemon = start(&dir, &config);
    fake.hold();
    dir.write("sent", "1");
    daemon.wait_for("a transfer runs", |_| !fake.calls().is_empty());
    dir.write("waits", "1");
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
    fake.release();
    let mut daemon = start(&dir, &config);
    daemon.wait_equal();
}

/// The daemon has not read the last changes from the kernel.
#[test]
fn events_not_read_at_the_stop_are_sent_after_the_start() {
    let dir = Dir::new();
    dir.mkdir("kept");
    dir.write("kept/gone", "1");
    copy(&dir);
    for top in 0..40 {
        fs::create_dir_all(dir.path(format!("tree/{top}"))).unwrap();
        for name in 0..20 {
            dir.put(&format!("tree/{top}/{name}"), "1");
        }
    }
    let mut daemon = start(&dir, &uncompared("100000"));
    daemon.stop();
    fs::rename(dir.path("tree"), dir.src("tree")).unwrap();
    dir.write("f", "1");
    dir.rm("kept/gone");
    daemon.signal(Signal::SIGTERM);
    daemon.cont();
    assert_eq!(daemon.wait_end().code(), Some(143));
    let mut daemon = start(&dir, &uncompared("0.2"));
    daemon.wait_equal();
}

/// Changes after the end of a sync are not recorded.
#[test]
fn changes_after_the_end_of_a_sync_are_sent_after_the_start() {
    for other in [true, false] {
        let dir = Dir::new();
        let fake = Fake::passing(&dir);
        fs::create_dir(dir.path("other")).unwrap();
        let other = match other {
            true => "sync{ default.direct, source = '@DIR@/other', target = '@DIR@/copy' }",
            false => "",
        };
        let config = uncompared("0.1")
            .replace("archive = true", "archive = true, binary = '@RSYNC@'")
            + other;
        let mut daemon = start(&dir, &config);
        dir.write("a", "1");
        daemon.wait_equal();
        fake.exits(&[1]);
        dir.write("b", "1");
        daemon.wait_log("exitcode = 1");
        dir.write("c", "1");
        dir.rm("a");
        if !other.is_empty() {
            assert_eq!(daemon.terminate(), Some(143));
        }
        daemon.wait_end();
        fs::remove_file(dir.path("fake/exit")).unwrap();
        let mut daemon = start(&dir, &config);
        daemon.wait_equal();
    }
}

/// Returns the only file of pending events.
fn pending(dir: &Dir) -> PathBuf {
    let syncs = fs::read_dir(dir.path("state")).unwrap();
    let mut files = syncs.map(|sync| sync.unwrap().path().join("pending"));
    files.find(|file| file.exists()).unwrap()
}

/// A damaged or changed file names no path outside of source and target, and loses no change.
#[test]
fn damaged_and_forged_files_of_pending_events_are_harmless() {
    let direct = r#"
        settings{ stateDir = "@DIR@/state" }
        sync{ default.direct, source = "@SRC@", target = "@TRG@", delay = DELAY }
    "#;
    let evil = b"Delete\0/../victim/\0\0Create\0/../secret\0\0Move\0/../victim/f\0/stolen\0";
    let cut = b"Create\0/b";
    for config in [UNCOMPARED, direct] {
        for tail in [&evil[..], &cut[..]] {
            let dir = Dir::new();
            fs::create_dir(dir.path("victim")).unwrap();
            for name in ["victim/f", "secret"] {
                dir.put(name, "precious");
            }
            let mut daemon = start(&dir, &config.replace("DELAY", "100000"));
            dir.write("a", "1");
            dir.write("b", "1");
            daemon.wait_log("Create: /b");
            assert_eq!(daemon.terminate(), Some(143));
            let file = pending(&dir);
            let mut bytes = fs::read(&file).unwrap();
            if tail == cut {
                let all = bytes.len();
                bytes.truncate(all - 2);
            } else {
                bytes.extend_from_slice(tail);
            }
            fs::write(&file, bytes).unwrap();
            let mut daemon = start(&dir, &config.replace("DELAY", "0.2"));
            daemon.wait_log("pending changes are not completely known: everything is compared");
            daemon.wait_equal();
            dir.write("last", "1");
            daemon.wait_equal();
            let log = daemon.log();
            assert_eq!(log.matches("everything is compared").count(), 1, "{log}");
            assert_eq!(dir.text("victim/f"), "precious");
            assert!(!dir.path("trg/stolen").exists() && !dir.path("trg/secret").exists());
        }
    }
}

/// Another user could have changed the files in the directory.
#[test]
fn a_state_directory_that_others_can_write_is_not_used() {
    let dir = Dir::new();
    fs::create_dir(dir.path("state")).unwrap();
    dir.put("state/x", "");
    let mode = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path("state"), permissions).unwrap();
    };
    mode(0o777);
    let config = uncompared("0.2");
    let mut daemon = start(&dir, &config);
    daemon.wait_log("other users can write to it");
    dir.write("f", "1");
    daemon.wait_equal();
    assert_eq!(daemon.terminate(), Some(143));
    assert_eq!(fs::read_dir(dir.path("state")).unwrap().count(), 1);
    mode(0o700);
    let mut daemon = start(&dir, &config);
    dir.write("g", "1");
    daemon.wait_equal();
    assert!(!daemon.log().contains("other users can write"));
    assert_eq!(fs::read_dir(dir.path("state")).unwrap().count(), 2);
}

#[test]
fn user_code_gets_what_was_pending() {
    let dir = Dir::new();
    let config = r#"
        settings{ stateDir = "@DIR@/state" }
        local function tell(event) log("Normal", "told " .. event.etype .. " " .. event.path) end
        sync{ source = "@SRC@", delay = DELAY, onCreate = tell, onModify = tell, onDelete = tell }
    "#;
    dir.write("old", "1");
    let mut daemon = start(&dir, &config.replace("DELAY", "100000"));
    dir.rm("old");
    dir.write("new", "1");
    dir.write("sign", "1");
    daemon.wait_log("Create: /sign");
    assert_eq!(daemon.terminate(), Some(143));
    assert!(!daemon.log().contains("told "));
    let mut daemon = start(&dir, &config.replace("DELAY", "0"));
    for line in ["told Delete old", "told Create new", "told Create sign"] {
        daemon.wait_log(line);
    }
}

#[test]
fn the_target_is_equal_after_kills_at_any_moment() {
    let dir = Dir::new();
    let config = RECORDED
        .replace(r#"binary = "@RSYNC@", "#, "")
        .replace("0.3", "0");
    for round in 0..15u64 {
        let daemon = Daemon::new(&dir, &config).start();
        let end = std::time::Instant::now() + std::time::Duration::from_millis(round * 37 % 400);
        let mut n = 0;
        while std::time::Instant::now() < end {
            dir.mkdir(format!("d{}", n % 7));
            dir.write(format!("d{}/f{round}", n % 7), n.to_string());
            dir.mv(format!("d{}/f{round}", n % 7), format!("f{}", n % 11));
            if n % 5 == 0 {
                dir.rm(format!("d{}", n % 7));
            }
            n += 1;
        }
        let mut daemon = daemon;
        daemon.signal(Signal::SIGKILL);
        daemon.wait_all_gone();
    }
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    daemon.wait_equal();
}

/// Returns the names in the state directory.
fn remembered(dir: &Dir) -> Vec<String> {
    let entries = fs::read_dir(dir.path("state")).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// State files of earlier configurations are removed when they are old.
#[test]
fn state_of_removed_syncs_is_removed() {
    let dir = Dir::new();
    let text = |name: &str| {
        format!(
            "sync{{ default.direct, name = '{name}', source = '@SRC@', target = '@TRG@/{name}', delay = 0 }}"
        )
    };
    for name in ["first", "second"] {
        let mut daemon = Daemon::new(&dir, &text(name)).start();
        daemon.wait_log("finished: 0");
        assert_eq!(daemon.terminate(), Some(143));
    }
    assert_eq!(remembered(&dir).len(), 2);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(90 * 24 * 60 * 60);
    for name in remembered(&dir) {
        let place = fs::File::open(dir.path("state").join(&name)).unwrap();
        place.set_modified(old).unwrap();
    }
    let place = fs::File::open(dir.path("state")).unwrap();
    place.set_modified(old).unwrap();
    let mut daemon = Daemon::new(&dir, &text("second")).start();
    daemon.wait_log("removed 1 state directory of syncs");
    let left = remembered(&dir);
    assert!(
        left.len() == 1 && left[0].starts_with("second-"),
        "{left:?}"
    );
    assert_eq!(daemon.terminate(), Some(143));
    assert_eq!(remembered(&dir).len(), 1);
}

#[test]
fn syncs_of_the_command_line_leave_no_state() {
    for words in [
        &["-nodaemon", "-rsync", "@SRC@", "@TRG@"][..],
        &["-nodaemon", "-direct", "@SRC@", "@TRG@"],
        &["-nodaemon", "-onepass", "-rsync", "@SRC@", "@TRG@"],
        &["-nodaemon", "-rsync", "@SRC@", "@DIR@/none/none"],
    ] {
        let dir = Dir::new();
        dir.write("f", "1");
        let mut daemon = Daemon::bare(&dir).args(words).start();
        if words.len() == 4 && words[3] == "@TRG@" {
            daemon.wait_log("finished");
            assert_eq!(remembered(&dir).len(), 1);
            dir.write("g", "2");
            daemon.signal(Signal::SIGTERM);
        }
        daemon.wait_end();
        assert_eq!(remembered(&dir), Vec::<String>::new(), "{words:?}");
    }
}
