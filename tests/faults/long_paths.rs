//! Paths that are too long for rsync: each is reported once, and delays nothing.

use std::fs::{self};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, under_fanotify};
use crate::support::script::SSH;

const TOLD: &str = "a path is too long for rsync or a file system";

const KINDS: [&str; 4] = [
    "default.rsync, target = '@TRG@', rsync = { archive = true }",
    "default.rsync, target = '@TRG@', rsync = { archive = true, list = 'filter' }",
    "default.rsync, target = '@TRG@', delete = false, rsync = { archive = true }",
    "default.rsyncssh, host = 'host', targetdir = '@TRG@', ssh = { binary = '@DIR@/bin/ssh' },
       rsync = { archive = true, rsh = '@DIR@/bin/ssh' }",
];

fn config(kind: &str) -> String {
    format!(
        "settings{{ controlSocket = '@DIR@/sock', statusFile = '@DIR@/status' }}
         sync{{ {kind}, source = '@SRC@', delay = 0.1 }}"
    )
}

/// Returns a directory with an ssh that runs commands on this host.
fn site() -> Dir {
    let dir = Dir::new();
    dir.script("bin/ssh", SSH);
    dir
}

fn ctl(dir: &Dir, args: &[&str]) -> String {
    let ended = dir.ctl(args).output().unwrap();
    assert!(ended.status.success(), "{args:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// Runs a program in a directory, because no system call accepts absolute paths below it.
fn within(directory: &Path, program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    let ended = command.args(args).current_dir(directory).output();
    ended.unwrap().status.success()
}

/// Creates directories of 200 bytes, and one that brings the path below the source to this length.
/// Returns it.
fn chain(dir: &Dir, length: usize) -> String {
    let chain = vec!["x".repeat(200); 20].join("/");
    fs::create_dir_all(dir.src(&chain)).unwrap();
    if length == 0 {
        return chain;
    }
    let name = "m".repeat(length - chain.len() - 1);
    assert!(within(&dir.src(&chain), "mkdir", &["-p", &name]));
    format!("{chain}/{name}")
}

/// Paths below the limit are sent. Paths above it are reported, and the rest is sent.
#[test]
fn a_changed_path_beyond_the_limit_is_reported_once_and_delays_nothing() {
    for kind in KINDS {
        let dir = site();
        let chain = chain(&dir, 0);
        let mut daemon = Daemon::new(&dir, &config(kind)).start();
        daemon.settle();
        // The lengths of paths relative to the source. Names are at most 255 bytes long.
        for (number, length) in [4040, 4090, 4091, 4094, 4096, 4097, 4200, 4071]
            .iter()
            .enumerate()
        {
            let name = "n".repeat(length - chain.len() - 1);
            for content in ["1", "2"] {
                let write = format!("printf {content} > {name}");
                assert!(within(&dir.src(&chain), "sh", &["-c", &write]));
                dir.write("f", number.to_string() + content);
                daemon.settle();
                let sent = fs::read(dir.trg("f")).unwrap();
                assert_eq!(sent, (number.to_string() + content).as_bytes(), "{length}");
                let test = format!("[ \"$(cat {name})\" = {content} ]");
                let is_there = within(&dir.trg(&chain), "sh", &["-c", &test]);
                assert_eq!(
                    is_there,
                    *length <= 4094,
                    "{kind} {length}\n{}",
                    daemon.log()
                );
            }
        }
        let log = daemon.log();
        assert_eq!(log.matches(TOLD).count(), 3, "{kind}\n{log}");
        for length in ["4096 bytes", "4097 bytes", "4200 bytes"] {
            assert!(log.contains(length), "{log}");
        }
        assert!(!log.contains("partial transfer"), "{log}");
        let status = ctl(&dir, &["status", "-json"]);
        let counted = status.replace([' ', '\n'], "");
        assert!(counted.contains(r#""left_out":{"too_long":3}"#), "{status}");
        // Their deletion is not reported, and their directory is equal to the source.
        assert!(within(&dir.src(&chain), "sh", &["-c", "rm -f n*"]));
        daemon.settle();
        assert_eq!(daemon.log().matches(TOLD).count(), 3, "{log}");
        let is_empty = within(&dir.trg(&chain), "sh", &["-c", "[ -z \"$(ls)\" ]"]);
        assert_eq!(is_empty, !kind.contains("delete = false"), "{kind}");
        let modified = |path: &Path| fs::metadata(path).unwrap().mtime();
        let (source, target) = (dir.src(&chain), dir.trg(&chain));
        assert_eq!(modified(&source), modified(&target), "{kind}");
        daemon.terminate();
    }
}

/// Full comparisons find such paths again and again.
#[test]
fn full_comparisons_report_a_path_beyond_the_limit_once() {
    let dir = site();
    let chain = chain(&dir, 0);
    let touch = |length: usize| {
        let name = "n".repeat(length - chain.len() - 1);
        assert!(within(&dir.src(&chain), "touch", &[&name]));
    };
    touch(4096);
    touch(4100);
    dir.write("f", "1");
    let mut daemon = Daemon::new(&dir, &config(KINDS[0])).start();
    daemon.settle();
    for _ in 0..2 {
        assert_eq!(daemon.log().matches(TOLD).count(), 2, "{}", daemon.log());
        assert!(!daemon.log().contains("overflows"));
        ctl(&dir, &["resync"]);
        daemon.settle();
    }
    assert_eq!(daemon.log().matches("recursive full rsync").count(), 3);
    // Another path is reported in a change or a comparison.
    touch(4110);
    daemon.settle();
    ctl(&dir, &["resync"]);
    daemon.settle();
    assert_eq!(daemon.log().matches(TOLD).count(), 3, "{}", daemon.log());
    assert!(
        !daemon.log().contains("partial transfer"),
        "{}",
        daemon.log()
    );
    daemon.terminate();
}

/// The path of a directory is about as long as the limit: rsync may be unable to read it, or to
/// create a temporary file in it. The retries end.
#[test]
fn directories_at_the_limit_delay_nothing() {
    for kind in KINDS {
        let dir = site();
        let mut daemon = Daemon::new(&dir, &config(kind)).start();
        daemon.settle();
        for (number, length) in [4070, 4080, 4086, 4090, 4092, 4094, 4095, 4099]
            .iter()
            .enumerate()
        {
            let base = chain(&dir, 0);
            let name = "m".repeat(length - base.len() - 1);
            let make = format!("mkdir -p {name}/d && echo 1 > {name}/f");
            assert!(within(&dir.src(&base), "sh", &["-c", &make]));
            dir.write("f", number.to_string());
            daemon.settle();
            assert!(within(
                &dir.src(&base),
                "sh",
                &["-c", &format!("echo 2 > {name}/f")]
            ));
            daemon.settle();
            assert_eq!(
                fs::read(dir.trg("f")).unwrap(),
                number.to_string().as_bytes()
            );
            // rsync 3.5 opens a directory by its absolute path.
            let is_opened = length + dir.src("").as_os_str().len() < 4094;
            if is_opened {
                assert!(within(
                    &dir.trg(&base),
                    "grep",
                    &["-q", "2", &format!("{name}/f")]
                ));
            }
            assert!(within(&dir.src(&base), "rm", &["-r", &name]));
            daemon.settle();
            // fanotify does not report what a deleted directory contained.
            let is_listed = is_opened || !under_fanotify();
            let is_deleted = !within(&dir.trg(&base), "test", &["-d", &name]);
            assert!(is_deleted || !is_listed || kind.contains("delete = false"));
        }
        let log = daemon.log();
        assert!(
            log.contains(TOLD) && !log.contains("partial transfer"),
            "{kind}\n{log}"
        );
        assert!(log.matches("Calling rsync").count() < 100, "{kind}\n{log}");
        daemon.terminate();
    }
}

/// The new name of the directory makes the paths in it too long.
#[test]
fn a_rename_that_makes_paths_too_long_delays_nothing() {
    for kind in KINDS {
        let dir = site();
        dir.mkdir(["s".repeat(200), "y".repeat(200)].join("/"));
        let name = "x".repeat(200);
        let short = vec![name.as_str(); 17].join("/");
        fs::create_dir_all(dir.src(format!("d/{short}"))).unwrap();
        let touch = format!("touch {} short", "n".repeat(250));
        assert!(within(
            &dir.src(format!("d/{short}")),
            "sh",
            &["-c", &touch]
        ));
        let mut daemon = Daemon::new(&dir, &config(kind)).start();
        daemon.settle();
        // 401 + 1 + 199 + 17 * 201 bytes; `short` is below the limit, the other file is not.
        let longer = format!(
            "{}/{}/{}",
            "s".repeat(200),
            "y".repeat(200),
            "z".repeat(199)
        );
        dir.mv("d", &longer);
        dir.write("f", "1");
        daemon.settle();
        assert!(dir.trg("f").exists());
        assert!(
            dir.trg(&longer).exists() && !dir.trg("d").exists() || kind.contains("delete = false")
        );
        assert!(
            within(
                &dir.trg(format!("{longer}/{short}")),
                "test",
                &["-f", "short"]
            ),
            "{kind}"
        );
        let log = daemon.log();
        assert!(!log.contains("partial transfer"), "{kind}\n{log}");
        // rsyncssh has moved the file on the target.
        let is_moved = kind.contains("rsyncssh");
        assert_eq!(
            log.matches(TOLD).count(),
            usize::from(!is_moved),
            "{kind}\n{log}"
        );
        // The directory is renamed back.
        dir.mv(&longer, "d");
        daemon.settle();
        assert!(within(
            &dir.trg(format!("d/{short}")),
            "test",
            &["-f", &"n".repeat(250)]
        ));
        daemon.terminate();
    }
}

/// Directories far beyond the limit.
#[test]
fn trees_deeper_than_rsync_can_handle_delay_nothing() {
    let dir = site();
    let name = "x".repeat(200);
    // From the innermost directory outwards, because no system call accepts such a path.
    let mut tree = dir.path("tree");
    fs::create_dir(&tree).unwrap();
    for _ in 0..25 {
        let above = dir.path("above");
        fs::create_dir(&above).unwrap();
        fs::rename(&tree, above.join(&name)).unwrap();
        fs::rename(&above, &tree).unwrap();
    }
    tree = dir.src("tree");
    for at_start in [true, false] {
        let mut daemon = None;
        if !at_start {
            daemon = Some(Daemon::new(&dir, &config(KINDS[0])).start());
            daemon.as_mut().unwrap().settle();
        }
        fs::rename(dir.path("tree"), &tree).unwrap();
        let mut daemon = daemon.unwrap_or_else(|| Daemon::new(&dir, &config(KINDS[0])).start());
        daemon.wait_for("it is there", |_| dir.trg("tree").join(&name).exists());
        daemon.settle();
        dir.write("f", if at_start { "1" } else { "2" });
        daemon.settle();
        assert_eq!(
            fs::read(dir.src("f")).unwrap(),
            fs::read(dir.trg("f")).unwrap()
        );
        let log = daemon.log();
        assert!(!log.contains("comparing everything again"), "{log}");
        assert!(log.contains(TOLD), "{log}");
        assert!(log.len() < 200_000, "{} bytes", log.len());
        fs::rename(&tree, dir.path("tree")).unwrap();
        daemon.settle();
        assert!(!dir.trg("tree").exists() || at_start);
        daemon.terminate();
        if dir.trg("tree").exists() {
            fs::rename(dir.trg("tree"), dir.path("left")).unwrap();
        }
        fs::remove_file(dir.path("sock")).ok();
    }
}
