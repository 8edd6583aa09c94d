//! An empty directory that replaces the source does not empty the target: while running, at HUP, at
//! a reload and at the start, with every kind of sync.

use std::fs;
use std::process::Output;

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, remove};
use crate::support::script::SSH;

const HALTED: &str = "an empty directory is in place of the source";

/// Returns the common settings and a sync of this kind.
fn config(sync: &str) -> String {
    format!(
        "settings{{ statusFile = '@DIR@/status', statusInterval = 0, stateDir = '@DIR@/state',
           insist = true, controlSocket = '@DIR@/sock' }}
         sync{{ {sync}, source = '@SRC@', delay = 0.3 }}"
    )
}

const RSYNC: &str = "default.rsync, target = '@TRG@', rsync = { archive = true }";
const DIRECT: &str = "default.direct, target = '@TRG@'";

/// All kinds of sync.
const KINDS: [&str; 6] = [
    RSYNC,
    "default.rsync, target = '@TRG@', rsync = { archive = true, list = 'filter' }",
    "default.rsync, target = 'host:@TRG@', rsync = { archive = true, rsh = '@DIR@/bin/ssh' }",
    DIRECT,
    "default.rsyncssh, host = 'host', targetdir = '@TRG@', ssh = { binary = '@DIR@/bin/ssh' },
       rsync = { archive = true, rsh = '@DIR@/bin/ssh' }",
    "target = '@TRG@', onStartup = 'rsync -a --delete ^sourcePathname ^targetPathname',
       onDelete = 'rm -rf ^targetPathname', onCreate = 'cp -r ^sourcePathname ^targetPathname || :',
       onModify = 'cp -r ^sourcePathname ^targetPathname || :'",
];

fn ctl(dir: &Dir, words: &[&str]) -> Output {
    dir.ctl(words).output().unwrap()
}

/// Returns a directory with files in the source and an ssh to this machine.
fn site() -> Dir {
    let dir = Dir::new();
    dir.script("bin/ssh", SSH);
    dir.mkdir("d");
    dir.write("f", "1");
    dir.write("d/g", "2");
    dir
}

/// Starts the daemon and waits until the target has everything.
fn mirror<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    let mut daemon = Daemon::new(dir, config).start();
    daemon.wait_same("src", "trg", false);
    daemon.settle();
    daemon
}

/// Replaces the source by an empty directory, and keeps it as `old`.
fn replace(dir: &Dir) {
    fs::rename(dir.path("src"), dir.path("old")).unwrap();
    fs::create_dir(dir.path("src")).unwrap();
}

/// Asserts that the sync is halted, and that commands do not change the target.
fn is_held(dir: &Dir, daemon: &mut Running<'_>) {
    daemon.wait_log(HALTED);
    for verb in ["resync", "retry", "flush", "resume"] {
        assert!(ctl(dir, &[verb]).status.success(), "{verb}");
    }
    for _ in 0..2 {
        daemon.wait_for("the status says why", |_| {
            let said = ctl(dir, &["status"]).stdout;
            String::from_utf8_lossy(&said).contains(HALTED)
        });
    }
    daemon.wait_for("the status file shows it", |_| {
        dir.text("status").contains("Halted: an empty directory")
    });
    assert!(dir.trg("f").exists() && dir.trg("d/g").exists(), "wiped");
}

/// Creates a file in the source, and asserts that the sync continues and reports the other
/// directory.
fn goes_on(dir: &Dir, daemon: &mut Running<'_>) {
    dir.write("new", "3");
    daemon.wait_log("another directory is in the place of the source, comparing everything");
    daemon.wait_same("src", "trg", false);
    dir.write("newer", "4");
    daemon.wait_same("src", "trg", false);
    assert!(!dir.text("status").contains("Halted: "));
}

#[test]
fn a_replaced_source_is_held_while_running() {
    for kind in KINDS {
        let dir = site();
        let mut daemon = mirror(&dir, &config(kind));
        replace(&dir);
        is_held(&dir, &mut daemon);
        goes_on(&dir, &mut daemon);
    }
}

/// The source is replaced before the reload.
fn at_reading_again(kind: &str, read_again: impl Fn(&Dir, &Running<'_>)) {
    let dir = site();
    let mut daemon = mirror(&dir, &config(kind));
    daemon.stop();
    replace(&dir);
    daemon.signal(Signal::SIGHUP);
    daemon.cont();
    daemon.wait_for("it has started again", |daemon| {
        daemon.log().matches("--- Startup ---").count() == 2
    });
    is_held(&dir, &mut daemon);
    // Again, while the sync is halted.
    read_again(&dir, &daemon);
    is_held(&dir, &mut daemon);
    goes_on(&dir, &mut daemon);
}

#[test]
fn a_replaced_source_is_held_at_hup() {
    for kind in KINDS {
        at_reading_again(kind, |_, daemon| daemon.signal(Signal::SIGHUP));
    }
}

/// The identity of the source is kept without a state directory as well.
#[test]
fn a_replaced_source_is_held_at_hup_without_a_state_directory() {
    let dir = site();
    let text = config(RSYNC).replace("@DIR@/state", "@DIR@/none/none");
    let mut daemon = mirror(&dir, &text);
    daemon.stop();
    replace(&dir);
    daemon.signal(Signal::SIGHUP);
    daemon.cont();
    daemon.wait_for("it has started again", |daemon| {
        daemon.log().matches("--- Startup ---").count() == 2
    });
    is_held(&dir, &mut daemon);
    goes_on(&dir, &mut daemon);
    assert!(!dir.path("none").exists() && !dir.path("state").exists());
}

#[test]
fn a_replaced_source_is_held_at_a_reload() {
    for kind in [RSYNC, DIRECT, KINDS[4]] {
        at_reading_again(kind, |dir, _| {
            let changed = config(kind).replace("delay = 0.3", "delay = 0.2");
            dir.put("config.lua", dir.expand(&changed));
            assert!(ctl(dir, &["reload"]).status.success());
        });
    }
}

#[test]
fn a_replaced_source_is_held_at_the_start() {
    for kind in KINDS {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let dir = site();
            let mut daemon = mirror(&dir, &config(kind));
            daemon.signal(signal);
            daemon.wait_end();
            daemon.wait_all_gone();
            drop(daemon);
            replace(&dir);
            let mut daemon = Daemon::new(&dir, &config(kind)).start();
            is_held(&dir, &mut daemon);
            goes_on(&dir, &mut daemon);
        }
    }
}

/// Another sync precedes it in the configuration, so that its name is `Sync2`.
#[test]
fn a_replaced_source_is_held_at_the_start_under_another_name() {
    let dir = site();
    let mut daemon = mirror(&dir, &config(RSYNC));
    assert_eq!(daemon.terminate(), Some(143));
    drop(daemon);
    replace(&dir);
    let added = "sync{ default.direct, source = '@DIR@/old', target = '@DIR@/added' }\nsync{";
    fs::create_dir(dir.path("added")).unwrap();
    let config = config(RSYNC).replace("sync{", added);
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_log(HALTED);
    assert!(dir.trg("f").exists() && dir.trg("d/g").exists(), "wiped");
    goes_on(&dir, &mut daemon);
}

/// The file system may use the inode again.
#[test]
fn a_removed_and_new_source_is_held_at_the_start() {
    let dir = site();
    let mut daemon = mirror(&dir, &config(RSYNC));
    assert_eq!(daemon.terminate(), Some(143));
    drop(daemon);
    remove(&dir.path("src"));
    fs::create_dir(dir.path("src")).unwrap();
    let mut daemon = Daemon::new(&dir, &config(RSYNC)).start();
    is_held(&dir, &mut daemon);
    goes_on(&dir, &mut daemon);
}

/// No event reports the rename of a directory above the source, so it is found before the next
/// transfer.
#[test]
fn a_replaced_directory_above_the_source_is_found() {
    for kind in KINDS {
        let dir = site();
        fs::create_dir(dir.path("up")).unwrap();
        fs::rename(dir.path("src"), dir.path("up/src")).unwrap();
        let text = config(kind).replace("@SRC@", "@DIR@/up/src");
        let mut daemon = Daemon::new(&dir, &text).start();
        daemon.wait_same("up/src", "trg", false);
        daemon.settle();
        fs::rename(dir.path("up"), dir.path("gone")).unwrap();
        fs::create_dir_all(dir.path("up/src")).unwrap();
        // The watched directory changes at its new path.
        fs::write(dir.path("gone/src/f"), "elsewhere").unwrap();
        is_held(&dir, &mut daemon);
        assert_eq!(fs::read(dir.trg("f")).unwrap(), b"1");
        fs::write(dir.path("up/src/new"), "3").unwrap();
        daemon.wait_same("up/src", "trg", false);
        assert!(!dir.trg("f").exists());
    }
}

/// `-wait` does not succeed, although the watched directory has no changes.
#[test]
fn wait_fails_if_a_directory_above_the_source_is_renamed() {
    for kind in [RSYNC, DIRECT, KINDS[4]] {
        let dir = site();
        fs::create_dir(dir.path("up")).unwrap();
        fs::rename(dir.path("src"), dir.path("up/src")).unwrap();
        let text = config(kind).replace("@SRC@", "@DIR@/up/src");
        let mut daemon = Daemon::new(&dir, &text).start();
        daemon.wait_same("up/src", "trg", false);
        fs::rename(dir.path("up"), dir.path("gone")).unwrap();
        fs::create_dir_all(dir.path("up/src")).unwrap();
        fs::write(dir.path("up/src/new"), "3").unwrap();
        daemon.settle();
        assert!(dir.trg("new").exists() && !dir.trg("f").exists());
        daemon.wait_same("up/src", "trg", false);
    }
}

/// The source or a directory above it is a link. The identity is stored by the path in the
/// configuration.
#[test]
fn a_link_to_an_empty_directory_is_held() {
    for (kind, source) in [(RSYNC, "link"), (DIRECT, "link/"), (KINDS[4], "up/src")] {
        let dir = site();
        fs::create_dir(dir.path("empty")).unwrap();
        fs::create_dir(dir.path("empty/src")).unwrap();
        let link = dir.path(source.split('/').next().unwrap());
        let (one, other) = match source {
            "up/src" => (dir.path(""), dir.path("empty")),
            _ => (dir.path("src"), dir.path("empty/src")),
        };
        let lead = |to: &std::path::Path| {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(to, &link).unwrap();
        };
        lead(&one);
        let text = config(kind).replace("@SRC@", &format!("@DIR@/{source}"));
        let mut daemon = mirror(&dir, &text);
        lead(&other);
        daemon.signal(Signal::SIGHUP);
        is_held(&dir, &mut daemon);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            daemon.signal(signal);
            daemon.wait_end();
            daemon.wait_all_gone();
            drop(daemon);
            daemon = Daemon::new(&dir, &text).start();
            is_held(&dir, &mut daemon);
        }
        fs::write(dir.path("empty/src/new"), "3").unwrap();
        daemon.wait_log("another directory is in the place of the source, comparing everything");
        daemon.wait_same("empty/src", "trg", false);
        drop(daemon);

        // The link leads to the first directory again, which has files.
        lead(&one);
        let mut daemon = Daemon::new(&dir, &text).start();
        daemon.wait_same("src", "trg", false);
        assert!(!daemon.log().contains("Halted"));
    }
}

/// The files in the directory are excluded.
#[test]
fn a_directory_with_excluded_files_only_is_held() {
    for kind in [RSYNC, DIRECT] {
        let dir = site();
        let text = config(&format!("{kind}, exclude = {{ '*.tmp', '/cache/' }}"));
        let mut daemon = mirror(&dir, &text);
        fs::rename(dir.path("src"), dir.path("old")).unwrap();
        fs::create_dir_all(dir.path("other/cache/d")).unwrap();
        fs::write(dir.path("other/x.tmp"), "").unwrap();
        fs::rename(dir.path("other"), dir.path("src")).unwrap();
        is_held(&dir, &mut daemon);
        dir.write("new", "3");
        daemon.wait_log("another directory is in the place of the source, comparing everything");
        daemon.wait_for("it continues", |_| {
            dir.trg("new").exists() && !dir.trg("f").exists()
        });
    }
}

#[test]
fn each_of_several_targets_is_held() {
    let dir = site();
    fs::create_dir(dir.path("trg2")).unwrap();
    for kind in ["rsync", "direct"] {
        let text = config(&format!(
            "default.{kind}, targets = {{ '@TRG@', '@DIR@/trg2' }}"
        ));
        let mut daemon = mirror(&dir, &text);
        daemon.wait_same("src", "trg2", false);
        replace(&dir);
        is_held(&dir, &mut daemon);
        daemon.wait_for("both report it", |daemon| {
            daemon.log().matches(HALTED).count() >= 2
        });
        assert!(dir.path("trg2/f").exists(), "wiped");
        assert_eq!(daemon.terminate(), Some(143));
        drop(daemon);
        let mut daemon = Daemon::new(&dir, &text).start();
        is_held(&dir, &mut daemon);
        assert!(dir.path("trg2/f").exists(), "wiped");
        // The source is the first directory again.
        fs::remove_dir(dir.path("src")).unwrap();
        fs::rename(dir.path("old"), dir.path("src")).unwrap();
        dir.write("back", "5");
        daemon.wait_same("src", "trg", false);
        daemon.wait_same("src", "trg2", false);
        assert_eq!(daemon.terminate(), Some(143));
    }
}

#[test]
fn the_same_source_is_known_again() {
    for kind in [RSYNC, DIRECT] {
        let dir = site();
        let mut daemon = mirror(&dir, &config(kind));
        fs::rename(dir.path("src"), dir.path("old")).unwrap();
        daemon.wait_log("nothing is sent until it is back");
        fs::rename(dir.path("old"), dir.path("src")).unwrap();
        daemon.wait_log("source and target are the same as before, comparing everything");
        dir.write("g", "2");
        daemon.wait_same("src", "trg", false);
        assert!(!daemon.log().contains("another directory"));
    }
}

#[test]
fn a_release_accepts_the_empty_source() {
    for kind in KINDS {
        let dir = site();
        let mut daemon = mirror(&dir, &config(kind));
        replace(&dir);
        is_held(&dir, &mut daemon);
        assert!(ctl(&dir, &["release"]).status.success());
        if kind.contains("default.") {
            daemon.wait_same("src", "trg", false);
        }
        dir.write("new", "3");
        daemon.wait_for("it continues", |_| dir.trg("new").exists());
        assert_eq!(daemon.terminate(), Some(143));
        drop(daemon);
        // The new directory is accepted, so it may be emptied.
        dir.rm("new");
        let mut daemon = Daemon::new(&dir, &config(kind)).start();
        daemon.wait_for("it is gone", |_| !dir.trg("new").exists());
        assert!(!daemon.log().contains(HALTED), "{}", daemon.log());
    }
}

#[test]
fn emptied_in_place_is_a_deletion() {
    for kind in KINDS {
        let dir = site();
        let mut daemon = mirror(&dir, &config(kind));
        dir.rm("f");
        dir.rm("d");
        daemon.wait_same("src", "trg", false);
        assert!(!daemon.log().contains("Halted"));
    }
    for kind in [RSYNC, DIRECT] {
        let dir = site();
        let text = config(&format!("{kind}, guard = {{ maxDelete = 1 }}"));
        let mut daemon = mirror(&dir, &text);
        dir.rm("f");
        dir.rm("d");
        daemon.wait_log("entries would be deleted on the target, more than 1");
        assert!(dir.trg("d").exists());
    }
}

#[test]
fn without_guard_or_deletions_an_empty_source_is_accepted() {
    let dir = site();
    let text = config(&format!("{RSYNC}, guard = false"));
    let mut daemon = mirror(&dir, &text);
    replace(&dir);
    daemon.wait_for("it is emptied", |_| !dir.trg("f").exists());
    drop(daemon);

    let dir = site();
    let text = config(RSYNC);
    let mut daemon = mirror(&dir, &text);
    assert_eq!(daemon.terminate(), Some(143));
    drop(daemon);
    replace(&dir);
    remove(&dir.trg("f"));
    remove(&dir.trg("d"));
    let mut daemon = Daemon::new(&dir, &text).start();
    daemon.wait_log("finished.");
    let log = daemon.log();
    assert!(!log.contains(HALTED) && log.contains("another directory is in the place"));
}
