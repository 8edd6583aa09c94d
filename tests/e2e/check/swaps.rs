//! Names whose file type changes while a transfer that has listed them runs: rsync opens a checked
//! file by such a name, or nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::targets::{arrives, checked, retry, site, start, sync, targets};
use super::{COMMAND, Daemon, assert_clean_in};
use crate::support::dir::Dir;

/// Returns the only staged tree.
fn tree(dir: &Dir) -> PathBuf {
    let entries = fs::read_dir(dir.root()).unwrap().flatten();
    let mut names = entries.map(|entry| entry.path());
    let is_tree = |path: &PathBuf| path.to_string_lossy().contains("/.src.checked-");
    names.find(is_tree).unwrap().join("tree")
}

/// Returns the type of a path: `d`irectory, `f`ile, `l`ink, `p`ipe or nothing.
fn kind(path: PathBuf) -> Option<char> {
    let kind = path.symlink_metadata().ok()?.file_type();
    Some(match kind {
        _ if kind.is_dir() => 'd',
        _ if kind.is_symlink() => 'l',
        _ if kind.is_fifo() => 'p',
        _ => 'f',
    })
}

/// Replaces the file of each name `BEFORE-AFTER` by one of the other type.
fn swap(dir: &Dir, name: &str) {
    let path = dir.src(name);
    fs::rename(&path, dir.path(format!("away-{name}"))).unwrap();
    let hidden = dir.src("hidden");
    match name.rsplit_once('-').unwrap().1 {
        "link" => {
            let file = name.starts_with("file").then_some("wanted");
            symlink(file.map_or(hidden.clone(), |file| hidden.join(file)), &path).unwrap();
        }
        "pipe" => mkfifo(&path, Mode::S_IRWXU).unwrap(),
        "file" => fs::write(&path, "now a file").unwrap(),
        "directory" => {
            fs::create_dir(&path).unwrap();
            symlink(&hidden, path.join("inner")).unwrap();
            fs::write(path.join("wanted"), "of the new directory").unwrap();
        }
        other => panic!("{other}"),
    }
}

const NAMES: [&str; 6] = [
    "directory-link",
    "directory-file",
    "directory-pipe",
    "directory-directory",
    "file-link",
    "file-pipe",
];

/// Returns true if all names in a directory have their new type.
fn all_swapped(place: PathBuf) -> bool {
    let kinds = NAMES.map(|name| kind(place.join(name)));
    let inner = kind(place.join("directory-directory/inner"));
    kinds == ['l', 'f', 'p', 'd', 'l', 'p'].map(Some) && inner == Some('l')
}

/// A slow transfer to `t2` has listed all names when they are replaced for `t1`.
fn swapped_under_a_transfer(more: &str) {
    let dir = site(2);
    let text = super::targets::SETTINGS.to_owned()
        + &sync(&targets(1..=2), &checked(COMMAND)).replace("archive = true", more);
    let mut daemon = Daemon::new(&dir, &text).start();
    daemon.wait_log("finished.");
    dir.mkdir("hidden");
    dir.write("hidden/wanted", "EVIL");
    daemon.wait_log("was rejected");
    dir.put("t2.held", "");
    dir.mkdir("later");
    for name in NAMES {
        if name.starts_with("file") {
            dir.write(name, "harmless")
        } else {
            fs::create_dir_all(dir.path(format!("new/{name}/inner"))).unwrap();
            dir.put(&format!("new/{name}/wanted"), "harmless");
            dir.put(&format!("new/{name}/inner/wanted"), "harmless");
            fs::rename(dir.path(format!("new/{name}")), dir.src(name)).unwrap();
        }
    }
    for name in NAMES {
        let file = if name.starts_with("file") {
            name.to_owned()
        } else {
            format!("{name}/inner/wanted")
        };
        arrives(&dir, &mut daemon, [1], (&file, "harmless"));
    }
    // The running transfer to t2 has these names in its list, or will read them.
    daemon.wait_for("a transfer to t2 is held", |_| {
        dir.path("t2.calls").exists()
    });
    for name in NAMES {
        swap(&dir, name);
    }
    dir.write("sentinel", "1");
    arrives(&dir, &mut daemon, [1], ("sentinel", "1"));
    let file = "directory-directory/wanted";
    arrives(&dir, &mut daemon, [1], (file, "of the new directory"));
    daemon.wait_log("is held: a running transfer");
    let kinds = NAMES.map(|name| kind(tree(&dir).join(name)));
    assert_eq!(kinds, [None, None, None, Some('d'), None, None]);
    assert_eq!(kind(tree(&dir).join("directory-directory/inner")), None);
    fs::remove_file(dir.path("t2.held")).unwrap();
    for target in ["t1", "t2"] {
        daemon.wait_for(&format!("{target} has all that is new"), |_| {
            // Held files are retried with growing waits.
            retry(&dir);
            let done = all_swapped(dir.path(target));
            assert_clean_in(&dir, target);
            done
        });
    }
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn a_swap_waits_for_a_transfer_with_a_list_of_files() {
    swapped_under_a_transfer("archive = true, list = 'files-from'");
}

#[test]
fn a_swap_waits_for_a_transfer_with_an_include_list() {
    swapped_under_a_transfer("archive = true, list = 'filter'");
}

/// A writer exchanges a directory and a link as fast as it can.
#[test]
fn a_race_with_a_transfer_sends_nothing_rejected() {
    const RACE: Duration = Duration::from_secs(6);
    let dir = site(2);
    let mut daemon = start(&dir, 1..=2);
    daemon.wait_log("finished.");
    dir.mkdir("hidden");
    dir.write("hidden/wanted", "EVIL");
    daemon.wait_log("was rejected");
    for name in ["good", "link"] {
        fs::create_dir_all(dir.path(name)).unwrap();
    }
    fs::create_dir(dir.path("good/d")).unwrap();
    dir.put("good/d/wanted", "harmless");
    symlink(dir.src("hidden"), dir.path("link/d")).unwrap();
    let end = Instant::now() + RACE;
    let mut rounds = 0;
    while Instant::now() < end {
        for name in ["good", "link"] {
            let away = dir.path(format!("{name}/d"));
            fs::rename(&away, dir.src("d")).unwrap();
            dir.write("d2", format!("{rounds}"));
            std::thread::sleep(Duration::from_millis(rounds % 7 * 30));
            fs::rename(dir.src("d"), &away).unwrap();
            rounds += 1;
        }
        assert_clean_in(&dir, "t1");
        assert_clean_in(&dir, "t2");
    }
    dir.write("sentinel", "1");
    arrives(&dir, &mut daemon, 1..=2, ("sentinel", "1"));
    fs::rename(dir.path("link/d"), dir.src("d")).unwrap();
    for target in ["t1", "t2"] {
        daemon.wait_for(&format!("{target} has the link"), |_| {
            retry(&dir);
            kind(dir.path(target).join("d")) == Some('l')
        });
        assert_clean_in(&dir, target);
    }
    assert_eq!(daemon.terminate(), Some(143));
}
