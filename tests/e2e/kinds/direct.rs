//! default.direct in a running daemon: the target gets files of every type and name, and nothing
//! outside of it changes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Churn, HOSTILE, inode_of, start};
use crate::support::dir::{Dir, remove, under_fanotify};
use crate::support::random::seed;

const CONFIG: &str = r#"
sync{ default.direct, source = "@DIR@/src", target = "@DIR@/trg", delay = 0.1 }
"#;

#[test]
fn all_kinds_and_their_attributes_arrive() {
    let dir = Dir::new();
    let mut daemon = start(&dir, CONFIG);
    dir.write("file", "1");
    dir.symlink("nowhere", "dangling");
    dir.symlink(dir.expand("@DIR@/bin"), "to a directory");
    nix::unistd::mkfifo(&dir.path("src/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    dir.mkdir("directory");
    dir.write("directory/below", "2");
    daemon.wait_equal();

    dir.chmod("file", 0o751);
    dir.chmod("directory", 0o710);
    daemon.wait_equal();
    dir.chmod("file", 0o444);
    daemon.wait_equal();
    dir.rm("file");
    dir.write("file", "anew");
    dir.chmod("file", 0o400);
    daemon.wait_equal();
    for mode in [0o500, 0o755] {
        dir.chmod("directory", mode);
        daemon.wait_equal();
    }
}

#[test]
fn a_read_only_directory_is_copied_with_its_contents() {
    let dir = Dir::new();
    let mut daemon = start(&dir, CONFIG);
    fs::create_dir_all(dir.path("module/deep")).unwrap();
    dir.put("module/deep/file", "1");
    let read_only = PermissionsExt::from_mode(0o555);
    fs::set_permissions(dir.path("module/deep"), read_only).unwrap();
    fs::rename(dir.path("module"), dir.src("module")).unwrap();
    daemon.wait_equal();
    // Otherwise the directory could not be removed after the test.
    dir.chmod("module/deep", 0o755);
    daemon.wait_equal();
}

#[test]
fn files_links_and_directories_replace_each_other() {
    let dir = Dir::new();
    let mut daemon = start(&dir, CONFIG);
    dir.write("x", "1");
    daemon.wait_equal();
    dir.rm("x");
    dir.mkdir("x");
    dir.write("x/below", "1");
    daemon.wait_equal();
    dir.rm("x");
    dir.symlink("elsewhere", "x");
    daemon.wait_equal();
    dir.rm("x");
    dir.mkdir("x");
    dir.write("x/other", "1");
    daemon.wait_equal();
    dir.rm("x");
    dir.write("x", "2");
    daemon.wait_equal();
}

#[test]
fn any_name_is_created_moved_and_deleted() {
    let dir = Dir::new();
    let mut daemon = start(&dir, CONFIG);
    dir.mkdir("d");
    for name in HOSTILE {
        dir.write(name, name);
        dir.mkdir([b"d/", *name].concat());
    }
    daemon.wait_equal();
    for name in HOSTILE {
        dir.mv(name, [b"m", *name].concat());
        dir.mv([b"d/", *name].concat(), [b"d/m", *name].concat());
    }
    daemon.wait_equal();
    for name in HOSTILE {
        dir.rm([b"m", *name].concat());
        dir.rm([b"d/m", *name].concat());
    }
    daemon.wait_equal();
    assert!(!dir.path("pwned").exists());
}

/// Size and time of the file do not change, and its directory is renamed back and forth.
#[test]
fn a_file_that_was_rewritten_with_its_old_time_is_copied() {
    let dir = Dir::new();
    dir.mkdir("d");
    dir.mkdir("d/sub");
    dir.write("d/sub/f", "1111");
    let file = fs::File::options()
        .write(true)
        .open(dir.path("src/d/sub/f"));
    let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.unwrap().set_modified(old).unwrap();
    let mut daemon = start(
        &dir,
        &format!("settings{{ controlSocket = '@DIR@/sock' }}\n{CONFIG}"),
    );
    daemon.settle();
    daemon.stop();
    dir.mv("d/sub", "d/x");
    dir.mv("d/x", "d/sub");
    dir.write("d/sub/f", "2222");
    let file = fs::File::options()
        .write(true)
        .open(dir.path("src/d/sub/f"));
    file.unwrap().set_modified(old).unwrap();
    daemon.cont();
    daemon.settle();
    assert_eq!(fs::read(dir.path("trg/d/sub/f")).unwrap(), b"2222");
}

/// Replacing a directory changes the time of its parent.
#[test]
fn directories_have_their_times_after_an_exchange() {
    let dir = Dir::new();
    for name in ["a/d", "b/d", "c/d"] {
        dir.mkdir(name);
    }
    let mut daemon = start(
        &dir,
        &format!("settings{{ controlSocket = '@DIR@/sock' }}\n{CONFIG}"),
    );
    daemon.settle();
    let [one, other] = ["src/a/d", "src/b/d"].map(|name| dir.path(name));
    renameat2(
        AT_FDCWD,
        &one,
        AT_FDCWD,
        &other,
        RenameFlags::RENAME_EXCHANGE,
    )
    .unwrap();
    dir.rm("c/d");
    dir.mkdir("c/d");
    daemon.settle();
    for name in ["a", "b", "c"] {
        let time = |tree: &str| {
            fs::metadata(dir.path(format!("{tree}/{name}")))
                .unwrap()
                .modified()
        };
        assert_eq!(time("trg").unwrap(), time("src").unwrap(), "{name}");
    }
}

#[test]
fn a_move_keeps_the_inode_on_the_target() {
    let dir = Dir::new();
    let mut daemon = start(
        &dir,
        &format!("settings{{ controlSocket = '@DIR@/sock' }}\n{CONFIG}"),
    );
    dir.write("f", "1");
    dir.mkdir("d");
    dir.write("d/below", "2");
    daemon.settle();
    let inodes = [inode_of(dir.trg("f")), inode_of(dir.trg("d"))];
    dir.mv("f", "d/g");
    daemon.settle();
    dir.mv("d", "e");
    daemon.wait_equal();
    assert_eq!([inode_of(dir.trg("e/g")), inode_of(dir.trg("e"))], inodes);
}

#[test]
fn a_failing_move_is_replaced_by_a_copy() {
    type Spoil = fn(&Dir);
    let cases: [(&str, &str, Spoil); 4] = [
        ("f", "g", |dir| remove(&dir.trg("f"))),
        ("d", "e", |dir| remove(&dir.trg("d"))),
        // mv would move one directory into the other.
        ("d", "e", |dir| fs::create_dir(dir.path("trg/e")).unwrap()),
        ("f", "g", |dir| {
            symlink(dir.path("bin"), dir.trg("g")).unwrap()
        }),
    ];
    for (from, to, spoil) in cases {
        let dir = Dir::new();
        dir.write("f", "1");
        dir.mkdir("d");
        dir.mkdir("d/deep");
        dir.write("d/deep/below", "2");
        let mut daemon = start(&dir, CONFIG);
        daemon.wait_equal();
        spoil(&dir);
        dir.mv(from, to);
        daemon.wait_equal();
        // A rename that fanotify reports late is replaced by what is there.
        if !under_fanotify() {
            daemon.wait_for("the move failed", |daemon| {
                daemon.log().contains("could not be executed")
            });
        }
        let log = daemon.log();
        assert!(log.matches("could not be executed").count() <= 1, "{log}");
        assert_eq!(fs::read_dir(dir.path("bin")).unwrap().count(), 0);
    }
}

#[test]
fn nothing_is_written_through_links_at_the_target() {
    let dir = Dir::new();
    let mut daemon = start(&dir, CONFIG);
    fs::create_dir(dir.path("aside")).unwrap();
    dir.put("aside/precious", "precious");
    dir.mkdir("d");
    dir.write("f", "1");
    daemon.wait_equal();
    for name in ["trg/f", "trg/d"] {
        remove(&dir.path(name));
    }
    symlink(dir.path("aside/precious"), dir.trg("f")).unwrap();
    symlink(dir.path("aside"), dir.trg("d")).unwrap();
    dir.write("f", "22");
    dir.write("d/precious", "taken");
    daemon.wait_equal();
    assert_eq!(fs::read(dir.path("aside/precious")).unwrap(), b"precious");

    remove(&dir.trg("d"));
    symlink(dir.path("aside"), dir.trg("d")).unwrap();
    dir.rm("d");
    daemon.wait_equal();
    assert_eq!(fs::read(dir.path("aside/precious")).unwrap(), b"precious");
}

#[test]
fn a_failing_copy_is_retried_and_holds_nothing_up() {
    let dir = Dir::new();
    // The excluded file stays, so the directory cannot be replaced by the file.
    fs::create_dir(dir.path("trg/bad")).unwrap();
    dir.put("trg/bad/x.keep", "kept");
    let mut daemon = start(
        &dir,
        &CONFIG.replace("delay", "exclude = \"*.keep\", delay"),
    );
    dir.write("bad", "1");
    dir.write("good", "1");
    daemon.wait_for("a later change is sent", |_| dir.path("trg/good").exists());
    daemon.wait_for("a warning", |daemon| {
        daemon.log().contains("Warn: Sync1: cannot bring /bad: ")
    });
    remove(&dir.trg("bad/x.keep"));
    daemon.wait_equal();
}

#[test]
fn excluded_files_survive_their_directory() {
    let dir = Dir::new();
    let delete = "target = \"@DIR@/trg\", exclude = \"*.keep\"";
    let mut daemon = start(&dir, &CONFIG.replace("target = \"@DIR@/trg\"", delete));
    dir.mkdir("d");
    dir.write("d/f", "1");
    daemon.wait_equal();
    dir.put("trg/d/x.keep", "kept");
    dir.rm("d");
    daemon.wait_for("the deletion", |_| !dir.path("trg/d/f").exists());
    assert_eq!(fs::read(dir.path("trg/d/x.keep")).unwrap(), b"kept");
}

#[test]
fn excluded_files_are_deleted_with_delete_excluded() {
    let dir = Dir::new();
    let keys = "rsync = { delete_excluded = true }, exclude = \"*.tmp\", delay";
    dir.mkdir("d");
    fs::create_dir_all(dir.path("trg/d")).unwrap();
    dir.put("trg/a.tmp", "1");
    dir.put("trg/d/b.tmp", "1");
    let mut daemon = start(&dir, &CONFIG.replace("delay", keys));
    dir.write("c.tmp", "not sent");
    dir.write("sent", "1");
    daemon.wait_for("the file", |_| dir.path("trg/sent").exists());
    for name in ["trg/a.tmp", "trg/d/b.tmp", "trg/c.tmp"] {
        assert!(!dir.path(name).exists(), "{name}");
    }
    dir.put("trg/d/b.tmp", "1");
    dir.rm("d");
    daemon.wait_for("the deletion", |_| !dir.path("trg/d").exists());
}

#[test]
fn without_delete_a_moved_directory_is_copied_with_its_contents() {
    let dir = Dir::new();
    let mut daemon = start(&dir, &CONFIG.replace("delay", "delete = false, delay"));
    dir.mkdir("d");
    dir.mkdir("d/deep");
    dir.write("d/deep/f", "1");
    daemon.wait_equal();
    fs::create_dir(dir.path("trg/e")).unwrap();
    dir.mv("d", "e");
    daemon.wait_for("the copy", |_| dir.path("trg/e/deep/f").exists());
    assert!(dir.path("trg/d/deep/f").exists());
}

#[test]
fn trees_are_equal_after_random_changes() {
    let seed = seed();
    for (processes, seed) in [(1, seed), (3, seed + 1)] {
        let dir = Dir::new();
        let own = format!("maxProcesses = {processes}, delay");
        let mut daemon = start(&dir, &CONFIG.replace("delay", &own).replace("0.1", "0.02"));
        let mut churn = Churn::new(seed, dir.path("src"), ["a", "../b", "nowhere"]);
        for _ in 0..100 {
            churn.burst();
            daemon.wait_equal();
        }
    }
}
