//! Options of rsync whose effect on a list of changes differs from that on a whole tree.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::Dir;

/// rsync takes a directory for an empty one if the list has no file of it.
#[test]
fn attributes_of_directories_with_prune_empty_dirs() {
    for list in ["auto", "files-from"] {
        let dir = Dir::new();
        for name in ["d", "e"] {
            dir.mkdir(name);
            dir.write(format!("{name}/f"), "1");
        }
        let options = format!("archive = true, prune_empty_dirs = true, list = {list:?}");
        let config = MIRROR.replace("archive = true", &options);
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        dir.chmod("d", 0o700);
        dir.mkdir("empty");
        dir.rm("e/f");
        daemon.wait_for("the mode", |_| {
            let mode = dir.trg("d").symlink_metadata().unwrap().mode();
            mode & 0o777 == 0o700
        });
        daemon.wait_for("no empty directory", |_| !dir.trg("e").exists());
        assert!(!dir.trg("empty").exists());
    }
}

/// rsync evaluates the patterns of CVS after those of a list.
#[test]
fn files_that_cvs_ignores_are_excluded_from_changes() {
    let dir = Dir::new();
    let config = MIRROR.replace("archive = true", "archive = true, cvs_exclude = true");
    dir.mkdir("d");
    dir.write("d/.cvsignore", "*.own\n");
    std::fs::write(dir.trg("core"), "").unwrap();
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for name in ["a.o", "d/b.o", "d/b.own", "d/b", "c.own"] {
        dir.write(name, "1");
    }
    daemon.wait_for("other files", |_| {
        ["d/b", "c.own"].iter().all(|name| dir.trg(name).exists())
    });
    for name in ["a.o", "d/b.o", "d/b.own"] {
        assert!(!dir.trg(name).exists(), "{name}");
    }
    dir.rm("d");
    dir.write("e", "1");
    daemon.wait_for("the deletion", |_| {
        !dir.trg("d").exists() && dir.trg("e").exists()
    });
    assert!(dir.trg("core").exists());
}

/// rsync evaluates the patterns of CVS after the rules of the sync.
#[test]
fn files_that_cvs_ignores_are_sent_if_a_rule_includes_them() {
    let dir = Dir::new();
    let config = MIRROR
        .replace("archive = true", "archive = true, cvs_exclude = true")
        .replace(
            "rsync = {",
            r#"filter = { "+ */", "+ *.o", "- *.txt" }, rsync = {"#,
        );
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.mkdir("d.old/e.bak");
    for name in ["a.o", "b.txt", "c.bak", "d.old/e.bak/f", "d.old/g.o"] {
        dir.write(name, "1");
    }
    dir.write("sign", "1");
    daemon.wait_for("the files", |_| {
        let all = ["a.o", "d.old/e.bak/f", "d.old/g.o", "sign"];
        all.iter().all(|name| dir.trg(name).exists())
    });
    for name in ["b.txt", "c.bak"] {
        assert!(!dir.trg(name).exists(), "{name}");
    }
    dir.write("d.old/e.bak/new", "1");
    daemon.wait_for("the new file", |_| dir.trg("d.old/e.bak/new").exists());
}

/// rsync's quick check skips a file whose size and time are as before, and so must not be used.
#[test]
fn contents_rewritten_with_a_time_in_the_future() {
    let later = SystemTime::now() + Duration::from_secs(1_000_000);
    let write = |dir: &Dir, content: &str| {
        dir.write("f", content);
        let file = fs::File::options().write(true).open(dir.src("f")).unwrap();
        file.set_modified(later).unwrap();
    };
    for list in ["auto", "filter", "files-from"] {
        let dir = Dir::new();
        write(&dir, "old");
        let config = MIRROR.replace(
            "archive = true",
            &format!("archive = true, list = {list:?}"),
        );
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        write(&dir, "new");
        daemon.wait_for("the new contents", |_| dir.text("trg/f") == "new");
    }
}

/// A list has only the new name, and rsync links names of one list.
#[test]
fn hard_links_of_symlinks_and_pipes() {
    let dir = Dir::new();
    dir.symlink("nowhere", "link");
    nix::unistd::mkfifo(&dir.src("pipe"), Mode::S_IRUSR).unwrap();
    let config = MIRROR.replace("archive = true", "archive = true, hard_links = true");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for (name, other) in [("link", "link2"), ("pipe", "pipe2")] {
        fs::hard_link(dir.src(name), dir.src(other)).unwrap();
        let inode = |name| dir.trg(name).symlink_metadata().map(|data| data.ino()).ok();
        daemon.wait_for(other, |_| {
            inode(name).is_some() && inode(name) == inode(other)
        });
    }
}
