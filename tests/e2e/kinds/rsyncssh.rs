//! default.rsyncssh in a running daemon, with an ssh that runs the command on this machine through
//! a shell, like sshd.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Churn, HOSTILE, daemon, inode_of, is_move_reported, start};
use crate::support::daemon::Running;
use crate::support::dir::{Dir, remove, under_fanotify};
use crate::support::random::seed;

/// Runs the words after the options and the host as one command. Its `mv` fails while a file
/// `broken` exists.
const SSH: &str = r#"
printf '%s\n' "$@" >> '@DIR@/words'
while :; do
  case $1 in
    -o|-p|-i|-l) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
shift
cd '@DIR@/home'
PATH='@DIR@/remote':$PATH
exec sh -c "$*"
"#;

const MV: &str = r#"
if [ -e '@DIR@/broken' ]; then
  echo "mv: cannot move '$1'" >&2
  exit 1
fi
PATH=/usr/bin:/bin
exec mv "$@"
"#;

pub(super) const CONFIG: &str = r#"
sync{
  default.rsyncssh, source = "@DIR@/src", host = "h", targetdir = "@DIR@/trg", delay = 0.1,
  rsync = { archive = true },
}
"#;

/// A directory with an ssh that runs its command on this machine.
pub(super) fn site() -> Dir {
    let dir = Dir::new();
    for name in ["remote", "home"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    dir.script("bin/ssh", SSH);
    dir.script("remote/mv", MV);
    dir
}

#[test]
fn any_name_is_moved_at_the_target() {
    let dir = site();
    dir.mkdir("d");
    let pairs: Vec<_> = HOSTILE
        .iter()
        .flat_map(|name| [(&b""[..], name), (b"d/", name)])
        .map(|(directory, name)| {
            let path = |start: &[u8]| [start, directory, name].concat();
            (path(b""), [directory, b"m", name].concat())
        })
        .collect();
    for (from, _) in &pairs {
        if from.starts_with(b"d/") {
            dir.mkdir(from)
        } else {
            dir.write(from, from)
        }
    }
    let mut daemon = start(&dir, CONFIG);
    daemon.wait_equal();
    let inodes: Vec<_> = pairs
        .iter()
        .map(|(from, _)| inode_of(dir.trg(from)))
        .collect();
    for (from, to) in &pairs {
        dir.mv(from, to);
    }
    daemon.wait_equal();
    for ((_, to), inode) in pairs.iter().zip(inodes) {
        assert_eq!(
            inode_of(dir.trg(to)),
            inode,
            "{:?}",
            to.escape_ascii().to_string()
        );
    }
    for directory in ["", "home/", "src/", "trg/"] {
        assert!(!dir.path(format!("{directory}pwned")).exists());
    }
    let log = daemon.log();
    assert!(!log.contains("could not be executed"), "{log}");
    assert!(
        log.contains("Moving new\\012line -> mnew\\012line"),
        "{log}"
    );
}

#[test]
fn a_failing_move_is_replaced_by_a_transfer() {
    for delete in ["true", "false", "\"startup\""] {
        for (from, to) in [("f", "g"), ("d", "e")] {
            let dir = site();
            dir.write("f", "1");
            dir.mkdir("d");
            dir.mkdir("d/deep");
            dir.write("d/deep/below", "2");
            let mut daemon = start(
                &dir,
                &CONFIG.replace("delay", &format!("delete = {delete}, delay")),
            );
            daemon.wait_equal();
            dir.put("broken", "");
            dir.mv(from, to);
            match delete {
                "true" => daemon.wait_equal(),
                _ => daemon.wait_for("the transfer", |_| {
                    ["f", "g", "d/deep/below", "e/deep/below"]
                        .iter()
                        .filter(|name| dir.path(format!("src/{name}")).is_file())
                        .all(|name| dir.path(format!("trg/{name}")).is_file())
                }),
            }
            assert!(delete == "true" || dir.path(format!("trg/{from}")).exists());
            let log = daemon.log();
            assert_eq!(log.matches("could not be executed").count(), 1, "{log}");
            assert_eq!(log.matches("Moving ").count(), 1, "{log}");

            fs::remove_file(dir.path("broken")).unwrap();
            dir.write("last", "1");
            daemon.wait_for("a later change is sent", |_| dir.path("trg/last").exists());
        }
    }
}

/// The filter excludes a file in one of the directories only, so a move would give a wrong result.
#[test]
fn a_directory_with_other_filter_results_is_sent_and_not_moved() {
    let dir = site();
    dir.mkdir("a");
    dir.write("a/x", "left out here");
    dir.write("a/f", "1");
    dir.write("g", "1");
    let mut daemon = start(
        &dir,
        &CONFIG.replace("delay", "exclude = { \"/a/x\" }, delay"),
    );
    daemon.wait_for("the startup", |_| dir.path("trg/a/f").exists());
    assert!(!dir.path("trg/a/x").exists());
    dir.mv("a", "b");
    daemon.wait_equal();
    dir.mv("g", "h");
    daemon.wait_equal();
    assert_eq!(
        daemon.log().matches("Moving ").count(),
        1,
        "{}",
        daemon.log()
    );
}

/// An rm at the target would ignore the filter.
#[test]
fn a_failing_move_leaves_what_the_filter_protects() {
    let dir = site();
    dir.mkdir("d");
    dir.write("d/f", "1");
    let mut daemon = start(
        &dir,
        &CONFIG.replace("delay", "exclude = { \"*.bak\" }, delay"),
    );
    daemon.wait_equal();
    dir.put("trg/d/kept.bak", "");
    dir.put("broken", "");
    dir.mv("d", "e");
    daemon.wait_for("the transfer", |_| {
        dir.path("trg/e/f").exists() && !dir.path("trg/d/f").exists()
    });
    assert!(dir.path("trg/d/kept.bak").exists());
    assert!(daemon.log().contains("could not be executed"));
}

#[test]
fn a_move_that_the_target_cannot_follow_does_not_end_the_daemon() {
    let dir = site();
    dir.write("f", "1");
    let mut daemon = start(&dir, CONFIG);
    daemon.wait_equal();
    remove(&dir.trg("f"));
    dir.mv("f", "g");
    daemon.wait_equal();
}

#[test]
fn a_tilde_stands_for_the_home_directory_of_the_target() {
    let dir = site();
    fs::create_dir(dir.path("home/t")).unwrap();
    dir.put("home/t/f", "1");
    dir.write("f", "1");
    let config = CONFIG
        .replace("@DIR@/trg", "~/t")
        .replace("archive = true", "binary = \"true\"");
    let mut daemon = start(&dir, &config);
    dir.mv("f", "it's");
    daemon.wait_for("the move", |_| dir.path("home/t/it's").exists());
    assert!(!dir.path("home/t/f").exists());
}

#[test]
fn moves_use_the_rsh_of_rsync() {
    let dir = site();
    fs::create_dir(dir.path("odd place")).unwrap();
    dir.script("odd place/shell", SSH);
    fs::remove_file(dir.path("bin/ssh")).unwrap();
    dir.write("f", "1");
    let rsh = r#"rsh = "'@DIR@/odd place/shell' -p 7 -o 'A=b c'", archive"#;
    let mut daemon = start(&dir, &CONFIG.replace("archive", rsh));
    daemon.wait_equal();
    fs::remove_file(dir.path("words")).unwrap();
    let inode = inode_of(dir.trg("f"));
    dir.mv("f", "g");
    daemon.wait_equal();
    assert_eq!(inode_of(dir.trg("g")), inode);
    let words = fs::read_to_string(dir.path("words")).unwrap();
    assert!(words.starts_with("-p\n7\n-o\nA=b c\nh\nmv\n"), "{words}");
}

#[test]
fn moves_use_rsync_rsh_of_the_environment() {
    for ssh in ["", "ssh = { reuse = false },", "ssh = { binary = 'ssh' },"] {
        let dir = site();
        fs::create_dir(dir.path("odd place")).unwrap();
        dir.script("odd place/shell", SSH);
        fs::remove_file(dir.path("bin/ssh")).unwrap();
        dir.write("f", "1");
        let shell = "'@DIR@/odd place/shell' -p 7 -o 'A=b c'";
        let config = CONFIG.replace("rsync =", &format!("{ssh} rsync ="));
        let daemon = daemon(&dir, &config).env("RSYNC_RSH", shell);
        let mut daemon = daemon.start_and_settle();
        daemon.wait_equal();
        fs::remove_file(dir.path("words")).unwrap();
        let inode = inode_of(dir.trg("f"));
        dir.mv("f", "g");
        daemon.wait_equal();
        assert_eq!(inode_of(dir.trg("g")), inode, "{ssh}");
        let words = fs::read_to_string(dir.path("words")).unwrap();
        assert!(words.starts_with("-p\n7\n-o\nA=b c\nh\nmv\n"), "{words}");
    }
}

/// Only the wrapper of rsync reaches the target, so moved files are sent. Once ssh has reached the
/// target, a failing move is retried.
#[test]
fn moved_files_are_sent_if_ssh_never_works() {
    let dir = site();
    dir.script("bin/shell", SSH);
    dir.script("bin/wrapped", "exec rsync -e '@DIR@/bin/shell' \"$@\"");
    dir.script(
        "bin/ssh",
        "test -e '@DIR@/reached' || exit 255; . '@DIR@/bin/shell'",
    );
    dir.write("f", "1");
    let config = CONFIG.replace("archive", "binary = '@DIR@/bin/wrapped', archive");
    let mut daemon = start(
        &dir,
        &format!("settings{{ controlSocket = '@DIR@/sock' }} {config}"),
    );
    daemon.settle();
    dir.mv("f", "g");
    dir.write("later", "1");
    daemon.settle();
    let sent = |daemon: &Running<'_>| daemon.log().matches("could not be executed").count();
    assert_eq!(sent(&daemon), 1, "{}", daemon.log());
    dir.put("reached", "");
    dir.mv("g", "h");
    // After a move, the time of its directory is sent. A move of another name must not meet that.
    daemon.wait_equal();
    daemon.settle();
    remove(&dir.path("reached"));
    dir.mv("later", "last");
    let failures = |daemon: &Running<'_>| daemon.log().matches("Retrying Move").count();
    let before = failures(&daemon);
    daemon.wait_for("it is retried", |daemon| failures(daemon) > before + 1);
    dir.put("reached", "");
    daemon.wait_equal();
    assert_eq!(sent(&daemon), 1, "{}", daemon.log());
}

#[test]
fn each_failed_list_is_logged_with_its_reason() {
    let dir = site();
    dir.script("bin/shell", SSH);
    dir.script(
        "bin/ssh",
        "test ! -e '@DIR@/down' || { echo 'ssh: connect to host h port 22: No route to host' >&2; exit 255; }
         . '@DIR@/bin/shell'",
    );
    let mut daemon = start(&dir, CONFIG);
    daemon.wait_log("finished: 0");
    dir.put("down", "");
    dir.write("f", "1");
    let failures = |daemon: &Running<'_>| {
        let log = daemon.log();
        // rsync ends with 12 if it notices the closed connection first.
        let all = log
            .lines()
            .filter(|line| line.contains("Retrying (list): "));
        let why = " (ssh: connect to host h port 22: No route to host)";
        assert!(all.clone().all(|line| line.ends_with(why)), "{log}");
        all.count()
    };
    daemon.wait_for("it is retried", |daemon| failures(daemon) > 1);
    remove(&dir.path("down"));
    daemon.wait_equal();
}

/// The other sync of the source needs an event for each path in a renamed directory.
#[test]
fn another_sync_of_the_source_does_not_prevent_moves() {
    for other in [
        "default.rsync, target = '@DIR@/other', rsync = { archive = true }",
        "onCreate = 'true', onDelete = 'true', init = false",
    ] {
        for moves_first in [true, false] {
            let dir = site();
            fs::create_dir(dir.path("other")).unwrap();
            dir.mkdir("d");
            dir.mkdir("d/e");
            for number in 0..300 {
                dir.write(format!("d/f{number}"), "1");
            }
            dir.write("d/e/g", "1");
            let other = format!("sync{{ {other}, source = '@DIR@/src', delay = 0.1 }}\n");
            let config = if moves_first {
                format!("{CONFIG}{other}")
            } else {
                format!("{other}{CONFIG}")
            };
            let mirrors = other.contains("default.rsync");
            let mut daemon = start(&dir, &config);
            daemon.wait_for("both startups", |daemon| {
                let log = daemon.log();
                let ends = log.lines().filter(|line| line.contains("Startup of"));
                ends.filter(|line| line.contains(" finished")).count() == 1 + usize::from(mirrors)
            });
            let inode = inode_of(dir.trg("d/f7"));
            dir.mv("d", "m");
            dir.write("m/e/new", "2");
            daemon.wait_equal();
            if !is_move_reported(&daemon) {
                continue;
            }
            assert_eq!(inode_of(dir.trg("m/f7")), inode);
            daemon.wait_for("the other sync", |_| {
                !mirrors || dir.path("other/m/f7").exists()
            });
            let log = daemon.log();
            assert!(
                log.contains("Moving d/ -> m/\n") && log.contains("/m/e/new\n"),
                "{log}"
            );
            // The list of the other sync contains each path. With fanotify, it may be compared.
            let lists = log.split("Calling rsync with filter-list").skip(1);
            let wholes = lists.filter(|list| list.contains("/m/f7\n")).count();
            assert!(wholes == usize::from(mirrors) || under_fanotify(), "{log}");
        }
    }
}

#[test]
fn options_with_blanks_reach_ssh_in_moves_and_transfers() {
    let dir = site();
    dir.script("bin/my ssh", SSH);
    fs::remove_file(dir.path("bin/ssh")).unwrap();
    dir.write("f", "1");
    let ssh = r#"ssh = { binary = "@DIR@/bin/my ssh", identityFile = "/my key/it's" }, rsync"#;
    let mut daemon = start(&dir, &CONFIG.replace("rsync =", &format!("{ssh} =")));
    daemon.wait_equal();
    dir.mv("f", "g");
    daemon.wait_equal();
    let words = fs::read_to_string(dir.path("words")).unwrap();
    assert_eq!(words.matches("-i\n/my key/it's\nh\n").count(), 2, "{words}");
}

/// Returns the names in a directory.
pub(super) fn names(dir: &Dir, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.path(directory)).into_iter().flatten();
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A user of the target host has replaced a directory by a link.
#[test]
fn nothing_is_moved_through_a_link_at_the_target() {
    // The link, and the paths of the move.
    let cases = [
        ("u/l", "u/x", "u/l/x"),
        ("u/l", "x", "u/l/x"),
        ("u/l", "u/l/f", "u/y"),
        ("u/l", "u/l/f", "y"),
        ("u", "u/l/f", "v/f"),
        ("u/l", "u/l/d", "v/d"),
    ];
    for delete in ["true", "false", "\"running\""] {
        for (link, from, to) in cases {
            let dir = site();
            for directory in ["src/u/l/d", "src/v", "out/l", "out/d"] {
                fs::create_dir_all(dir.path(directory)).unwrap();
            }
            for file in ["src/u/x", "src/x", "src/u/l/f", "src/u/l/d/f"] {
                dir.put(file, file);
            }
            for file in ["out/f", "out/l/f", "out/d/f"] {
                dir.put(file, "precious");
            }
            let mut daemon = start(
                &dir,
                &CONFIG.replace("delay", &format!("delete = {delete}, delay")),
            );
            daemon.wait_equal();
            let at = format!("trg/{link}");
            fs::rename(dir.path(&at), dir.path("trg/v/put aside")).unwrap();
            symlink(dir.path("out"), dir.path(&at)).unwrap();
            dir.mv(from, to);
            daemon.wait_for("the moved file", |_| {
                let there = dir.path(format!("trg/{to}"));
                let sent = there.exists() && !dir.path(&at).is_symlink();
                sent || (there.exists() && !to.starts_with(link))
            });
            daemon.wait_for("the transfer has ended", |daemon| {
                daemon.log().contains("Finished (list)")
            });
            let case = format!("{delete}: {link} {from} {to}\n{}", daemon.log());
            assert_eq!(names(&dir, "out"), ["d", "f", "l"], "{case}");
            for file in ["out/f", "out/l/f", "out/d/f"] {
                assert_eq!(fs::read(dir.path(file)).unwrap(), b"precious", "{case}");
            }
            assert!(
                daemon.log().contains("could not be executed") || !is_move_reported(&daemon),
                "{case}"
            );
        }
    }
}

/// If no other user can place a link, and the target has nothing else, the command of a move is that
/// of lsyncd.
#[test]
fn moves_are_verified_where_other_users_may_write() {
    for (mode, from, to, keys, proven) in [
        (0o755, "f", "g", "", false),
        (0o755, "d", "e", "", false),
        (0o755, "f", "d/f", "", true),
        (0o755, "d/b", "b", "", true),
        (0o757, "f", "g", "", true),
        (0o755, "f", "g", "delete = \"running\", ", true),
        (0o755, "d", "e", "exclude = \"x\", ", true),
    ] {
        let dir = site();
        dir.mkdir("d");
        dir.write("f", "1");
        dir.write("d/b", "1");
        dir.chmod("", mode);
        let mut daemon = start(&dir, &CONFIG.replace("delay", &format!("{keys}delay")));
        daemon.wait_equal();
        let inode = inode_of(dir.trg(from));
        let _ = fs::remove_file(dir.path("words"));
        dir.mv(from, to);
        daemon.wait_equal();
        assert_eq!(inode_of(dir.trg(to)), inode);
        let words = fs::read_to_string(dir.path("words")).unwrap();
        assert_eq!(words.contains("h\nsh\n-c\n"), proven, "{words}");
        assert_eq!(words.contains("h\nmv\n"), !proven, "{words}");
    }
}

#[test]
fn trees_are_equal_after_random_changes() {
    let seed = seed();
    let dir = site();
    let mut daemon = start(&dir, &CONFIG.replace("0.1", "0.02"));
    // No link leads to a directory: lsyncd's `mv` would follow it.
    let links = ["nowhere", "../nowhere", "no/where"];
    let mut churn = Churn::new(seed, dir.path("src"), links);
    for _ in 0..100 {
        churn.burst();
        daemon.wait_equal();
    }
}
