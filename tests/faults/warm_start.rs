//! Starts with `init = "changed"`: the compared directories after a stop, a kill and a reload.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, poll, skip};
use crate::support::script::SSH;

pub const NOTHING: &str = "nothing has changed since the last stop";
pub const EVERYTHING: &str = "everything is compared: ";

pub const RSYNC: &str = "default.rsync, target = '@TRG@', rsync = { archive = true }";
pub const DIRECT: &str = "default.direct, target = '@TRG@'";
const KINDS: [&str; 3] = [
    RSYNC,
    DIRECT,
    "default.rsyncssh, host = 'host', targetdir = '@TRG@', ssh = { binary = '@DIR@/bin/ssh' },
       rsync = { archive = true, rsh = '@DIR@/bin/ssh' }",
];

pub fn config(sync: &str) -> String {
    format!("sync{{ {sync}, source = '@SRC@', delay = 0.2, init = 'changed' }}")
}

fn with_socket(sync: &str) -> String {
    format!(
        "settings{{ controlSocket = '@DIR@/sock' }}\n{}",
        config(sync)
    )
}

/// Returns a directory with a source, or `None` if times and inodes of the file system are not
/// trusted.
pub fn site() -> Option<Dir> {
    let dir = Dir::new();
    let found = statfs(dir.root()).unwrap().filesystem_type();
    if found == OVERLAYFS_SUPER_MAGIC {
        skip("takes a file system whose inodes last");
        return None;
    }
    dir.script("bin/ssh", SSH);
    for name in ["a/sub/deep", "b", "c/sub"] {
        dir.mkdir(name);
        dir.write(format!("{name}/f"), name);
    }
    dir.write("a/f", "in a");
    dir.write("f", "1");
    Some(dir)
}

pub fn start<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    Daemon::new(dir, config)
        .args(&["-insist", "-log", "Exec"])
        .start()
}

/// Starts the daemon and waits until it has decided what to compare.
pub fn start_decided<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    let mut daemon = start(dir, config);
    let decided = [
        NOTHING,
        EVERYTHING,
        "directories have changed since the last stop",
    ];
    daemon.wait_for("the startup is planned", |daemon| {
        let log = daemon.log();
        decided.iter().any(|text| log.contains(text))
    });
    daemon
}

/// Waits until a change of the source would get another timestamp.
pub fn grow_old(dir: &Dir) {
    fn newest(path: &Path) -> Duration {
        let data = path.symlink_metadata().unwrap();
        let own = Duration::new(data.ctime() as u64, data.ctime_nsec() as u32);
        let below = data.is_dir().then(|| fs::read_dir(path).unwrap());
        let below = below
            .into_iter()
            .flatten()
            .map(|entry| newest(&entry.unwrap().path()));
        below.max().unwrap_or_default().max(own)
    }
    let newest = newest(&dir.path("src"));
    let is_old = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - newest;
    assert!(poll(|| is_old() > Duration::from_millis(2100)));
}

/// The state file of this kind.
pub fn state(dir: &Dir, kind: &str) -> PathBuf {
    let mut syncs = fs::read_dir(dir.path("state")).unwrap();
    syncs.next().unwrap().unwrap().path().join(kind)
}

/// Mirrors the source and stops the daemon, so that there is an index.
pub fn index(dir: &Dir, config: &str) {
    let mut daemon = Daemon::new(dir, config).start();
    daemon.wait_log("Startup of");
    daemon.wait_same("src", "trg", false);
    grow_old(dir);
    assert_eq!(daemon.terminate(), Some(143));
    assert!(state(dir, "index").exists(), "{}", daemon.log());
    assert!(!state(dir, "index-open").exists());
}

/// Returns the Exec lines of the log.
fn calls(daemon: &Running<'_>) -> String {
    let log = daemon.log();
    let lines = log.split(" Exec: ").skip(1);
    lines.collect::<Vec<_>>().join("")
}

#[test]
fn nothing_has_changed_and_no_transfer_starts() {
    for kind in KINDS {
        let Some(dir) = site() else { return };
        index(&dir, &config(kind));
        for _ in 0..2 {
            let mut daemon = start_decided(&dir, &config(kind));
            daemon.wait_log(NOTHING);
            assert_eq!(daemon.terminate(), Some(143));
            assert_eq!(calls(&daemon), "", "{kind}");
        }
        // A later change is sent, and is in the index of the next start.
        let mut daemon = start_decided(&dir, &config(kind));
        dir.write("b/new", "1");
        dir.mkdir("d/e");
        dir.write("d/e/f", "1");
        daemon.wait_same("src", "trg", false);
        grow_old(&dir);
        assert_eq!(daemon.terminate(), Some(143));
        let mut daemon = start_decided(&dir, &config(kind));
        daemon.wait_log(NOTHING);
        assert_eq!(calls(&daemon), "", "{kind}");
        assert_eq!(daemon.terminate(), Some(143));
    }
}

/// Extra files on the target show which directories were compared.
#[test]
fn only_the_directory_of_a_change_is_compared() {
    for kind in KINDS {
        let Some(dir) = site() else { return };
        index(&dir, &config(kind));
        for name in [
            "trg/x",
            "trg/a/x",
            "trg/a/x.d/below/x",
            "trg/a/sub/x",
            "trg/b/x",
        ] {
            fs::create_dir_all(dir.path(name).parent().unwrap()).unwrap();
            dir.put(name, "only at the target");
        }
        dir.write("a/f", "another content");
        let mut daemon = start_decided(&dir, &config(kind));
        daemon.wait_log("1 directories have changed");
        daemon.wait_for("the directory is equal", |_| {
            dir.text("trg/a/f") == "another content" && !dir.path("trg/a/x.d").exists()
        });
        assert_eq!(daemon.terminate(), Some(143));
        let left = ["trg/x", "trg/a/x", "trg/a/sub/x", "trg/b/x"];
        let left = left.map(|name| dir.path(name).exists());
        assert_eq!(left, [true, false, true, true], "{kind}: {}", daemon.log());
    }
}

/// Changes a file to the same size and modification time.
fn change_unseen(dir: &Dir) {
    let file = fs::File::options();
    let file = file.clone().write(true).open(dir.src("a/f")).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    fs::write(dir.src("a/f"), "IN A").unwrap();
    file.set_modified(before).unwrap();
}

/// The first daemon stores the change, the second one is killed before it sends it.
#[test]
fn a_change_stored_at_a_stop_arrives_after_a_kill() {
    for kind in KINDS {
        let Some(dir) = site() else { return };
        let config = config(kind).replace("delay = 0.2", "delay = 1000");
        index(&dir, &config);
        let mut daemon = start_decided(&dir, &config);
        daemon.wait_log(NOTHING);
        change_unseen(&dir);
        assert_eq!(daemon.terminate(), Some(143));
        let mut daemon = start_decided(&dir, &config);
        daemon.wait_log("changes were pending");
        daemon.signal(Signal::SIGKILL);
        daemon.wait_all_gone();
        let mut daemon = start_decided(&dir, &config);
        daemon.wait_for("the content is there", |_| dir.text("trg/a/f") == "IN A");
        assert_eq!(daemon.terminate(), Some(143));
    }
}

#[test]
fn a_change_of_equal_size_and_time_arrives() {
    for kind in KINDS {
        let Some(dir) = site() else { return };
        index(&dir, &config(kind));
        change_unseen(&dir);
        let mut daemon = start_decided(&dir, &config(kind));
        daemon.wait_for("the content is there", |_| dir.text("trg/a/f") == "IN A");
        assert_eq!(daemon.terminate(), Some(143));
    }
}

#[test]
fn directories_come_go_and_move_while_the_daemon_is_stopped() {
    for kind in KINDS {
        let Some(dir) = site() else { return };
        index(&dir, &config(kind));
        dir.rm("c");
        dir.mv("a", "b/a");
        dir.mkdir("new/er");
        dir.write("new/er/f", "1");
        dir.mv("f", "g");
        dir.rm("b/f");
        dir.mkdir("b/f");
        dir.symlink("b", "link");
        let mut daemon = start_decided(&dir, &config(kind));
        daemon.wait_log("directories have changed");
        daemon.wait_same("src", "trg", false);
        grow_old(&dir);
        assert_eq!(daemon.terminate(), Some(143));
        start_decided(&dir, &config(kind)).wait_log(NOTHING);
    }
}

/// A directory is renamed, the target follows, and it is renamed back while the daemon is stopped.
/// The directory is equal to the index, and the target does not have it.
#[test]
fn a_directory_that_was_renamed_back_is_sent() {
    for kind in KINDS {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let Some(dir) = site() else { return };
            index(&dir, &config(kind));
            let mut daemon = start_decided(&dir, &config(kind));
            dir.mv("a", "z");
            daemon.wait_same("src", "trg", false);
            daemon.signal(signal);
            daemon.wait_end();
            daemon.wait_all_gone();
            dir.mv("z", "a");
            let mut daemon = start_decided(&dir, &config(kind));
            assert!(!daemon.log().contains(EVERYTHING), "{}", daemon.log());
            daemon.wait_same("src", "trg", false);
        }
    }
}

#[test]
fn a_doubtful_index_causes_a_full_comparison() {
    type Doubt = fn(&Dir);
    let doubts: [(&str, &str, Doubt); 8] = [
        ("", "there is no index of the source", |dir| {
            fs::remove_file(state(dir, "index")).unwrap();
        }),
        ("", "the index of the source is damaged", |dir| {
            let mut bytes = fs::read(state(dir, "index")).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(state(dir, "index"), bytes).unwrap();
        }),
        ("", "the system was not shut down properly", |dir| {
            fs::write(state(dir, "index-open"), "another boot\n").unwrap();
        }),
        (", exclude = 'x'", "source, target, options", |_| {}),
        (", delete = false", "source, target, options", |_| {}),
        (
            ", verifyEvery = 1",
            "the last full comparison is older than",
            |_| {},
        ),
        ("", "source, target, options", |dir| {
            fs::rename(dir.path("trg"), dir.path("old")).unwrap();
            fs::create_dir(dir.path("trg")).unwrap();
        }),
        ("", "source, target, options", |dir| {
            fs::rename(dir.path("src"), dir.path("old")).unwrap();
            let mut copy = Command::new("cp");
            let copy = copy.args(["-a", "old", "src"]).current_dir(dir.root());
            assert!(copy.status().unwrap().success());
        }),
    ];
    std::thread::scope(|scope| {
        for (more, reason, doubt) in doubts {
            scope.spawn(move || {
                let Some(dir) = site() else { return };
                index(&dir, &config(RSYNC));
                doubt(&dir);
                let mut daemon = start_decided(&dir, &config(&(RSYNC.to_owned() + more)));
                daemon.wait_log(&format!("{EVERYTHING}{reason}"));
                daemon.wait_log("recursive full rsync");
                daemon.wait_same("src", "trg", false);
                assert_eq!(daemon.terminate(), Some(143));
            });
        }
    });
}

/// A startup with failures leaves no index.
#[test]
fn after_a_partial_startup_everything_is_compared() {
    let Some(dir) = site() else { return };
    fs::create_dir_all(dir.path("trg/f/in the way")).unwrap();
    let config = config(&(RSYNC.to_owned() + ", delete = false"));
    let mut daemon = start(&dir, &config);
    daemon.wait_log("skipped until it changes");
    grow_old(&dir);
    assert_eq!(daemon.terminate(), Some(143));
    assert!(!state(&dir, "index").exists());
    start_decided(&dir, &config).wait_log(EVERYTHING);
}

#[test]
fn after_a_path_is_left_out_everything_is_compared() {
    let Some(dir) = site() else { return };
    let config = config(&(RSYNC.to_owned() + ", exclude = { '*.keep' }"));
    index(&dir, &config);
    fs::write(dir.path("trg/b/x.keep"), "").unwrap();
    let mut daemon = start_decided(&dir, &config);
    dir.rm("b");
    dir.write("b", "a file");
    daemon.wait_log("skipped until it changes");
    grow_old(&dir);
    assert_eq!(daemon.terminate(), Some(143));
    assert!(!state(&dir, "index").exists());
    start_decided(&dir, &config).wait_log(EVERYTHING);
}

/// If another user can replace a directory by a link, rsync must not get its name.
#[test]
fn directories_that_others_can_replace_are_not_named() {
    let Some(dir) = site() else { return };
    dir.chmod("a", 0o777);
    index(&dir, &config(RSYNC));
    dir.write("a/sub/f", "another content");
    let mut daemon = start_decided(&dir, &config(RSYNC));
    daemon.wait_log("other users can replace directories that have changed");
    daemon.wait_same("src", "trg", false);
}

#[test]
fn a_reset_of_a_clean_mirror_starts_no_transfer() {
    let Some(dir) = site() else { return };
    index(&dir, &config(RSYNC));
    let mut daemon = start_decided(&dir, &config(RSYNC));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("the configuration is in force again", |daemon| {
        daemon.log().matches(NOTHING).count() == 2
    });
    assert_eq!(calls(&daemon), "");
    dir.write("b/new", "1");
    daemon.wait_same("src", "trg", false);
    assert_eq!(daemon.terminate(), Some(143));
}

/// The plan of the startup is made on a thread, after the directories are watched.
#[test]
fn a_wait_during_a_reset_includes_the_startup() {
    let Some(dir) = site() else { return };
    let mut daemon = start(&dir, &with_socket(RSYNC));
    daemon.settle();
    for round in 0..5 {
        let name = format!("new{round}/sub/f");
        dir.mkdir(format!("new{round}"));
        daemon.signal(Signal::SIGHUP);
        dir.mkdir(format!("new{round}/sub"));
        dir.write(&name, "1");
        daemon.settle();
        assert!(dir.trg(&name).exists(), "{name}\n{}", daemon.log());
    }
}

#[test]
fn init_changed_applies_to_built_in_startups() {
    let Some(dir) = site() else { return };
    let config = format!(
        "settings{{ init = 'changed' }} sync{{ {RSYNC}, source = '@SRC@', delay = 0.2 }}
         sync{{ source = '@SRC@', target = '@DIR@/other', onStartup = 'echo own startup' }}
         sync{{ default.rsync, source = '@SRC@', target = '@DIR@/own', init = function(event)
           log('Normal', 'own init')
           default.rsync.init(event)
         end }}
         sync{{ default.rsync, source = '@SRC@', target = '@DIR@/checked',
           check = function() return true end }}"
    );
    let mut daemon = start(&dir, &config);
    daemon.wait_log("there is no index of the source");
    daemon.wait_log("own startup");
    daemon.wait_log("own init");
    // All compare everything, and only one of them for want of an index.
    let started = |daemon: &Running<'_>| {
        let ends = ["trg", "own", "checked"];
        ends.map(|target| format!("/{target}/ finished."))
            .iter()
            .all(|end| daemon.log().contains(end))
    };
    daemon.wait_for("all startups", started);
    assert_eq!(daemon.log().matches("there is no index").count(), 1);
}

#[test]
fn init_changed_is_refused_where_it_does_not_apply() {
    for (sync, text) in [
        (
            "onCreate = 'true'",
            "not for syncs with their own functions",
        ),
        (
            "default.rclone, target = 'r:x'",
            "not for syncs with their own functions",
        ),
        (
            "default.rsync, target = '@TRG@', check = function() return true end",
            "cannot be combined with check",
        ),
    ] {
        let dir = Dir::new();
        let ended = Daemon::new(&dir, &config(sync)).run();
        ended.assert_refused();
        let log = ended.stdout + &ended.stderr;
        assert!(log.contains(text), "{sync}: {log}");
    }
    let dir = Dir::new();
    let config = config(RSYNC).replace("'changed'", "'chnaged'");
    let ended = Daemon::new(&dir, &config).run();
    let log = ended.stdout + &ended.stderr;
    assert!(
        log.contains("must be a function, false or \"changed\""),
        "{log}"
    );
}
