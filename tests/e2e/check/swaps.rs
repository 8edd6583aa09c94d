//! Names that become something else while a transfer that has listed them runs: what rsync opens
//! by such a name is what has passed, or nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::targets::{arrives, checked, retry, site, start, sync, targets};
use super::{COMMAND, Daemon, assert_clean_in};
use crate::support::dir::Dir;

/// The staged tree, of which there is one.
fn tree(dir: &Dir) -> PathBuf {
    let entries = fs::read_dir(dir.root()).unwrap().flatten();
    let mut names = entries.map(|entry| entry.path());
    let is_tree = |path: &PathBuf| path.to_string_lossy().contains("/.src.checked-");
    names.find(is_tree).unwrap().join("tree")
}

/// What a path has become: nothing, `d`irectory, `f`ile, `l`ink or `p`ipe.
fn kind(path: PathBuf) -> Option<char> {
    let kind = path.symlink_metadata().ok()?.file_type();
    Some(match kind {
        _ if kind.is_dir() => 'd',
        _ if kind.is_symlink() => 'l',
        _ if kind.is_fifo() => 'p',
        _ => 'f',
    })
}

/// Puts something else in the place of each name, `was-is` by its kinds.
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

/// Which names are what they shall become, in a directory.
fn all_swapped(place: PathBuf) -> bool {
    let kinds = NAMES.map(|name| kind(place.join(name)));
    let inner = kind(place.join("directory-directory/inner"));
    kinds == ['l', 'f', 'p', 'd', 'l', 'p'].map(Some) && inner == Some('l')
}

/// A slow transfer to `t2` has listed all names when they become something else for `t1`.
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
    // The transfer for t2 that runs has been given these names, or will list them.
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
            // Held ones come later each time.
            retry(&dir);
            let done = all_swapped(dir.path(target));
            assert_clean_in(&dir, target);
            done
        });
    }
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn under_a_transfer_of_a_list_wait_until_it_has_ended() {
    swapped_under_a_transfer("archive = true, list = 'files-from'");
}

#[test]
fn under_a_transfer_by_filter_wait_until_it_has_ended() {
    swapped_under_a_transfer("archive = true, list = 'filter'");
}

/// A writer exchanges a directory and a link as fast as it can, for a while.
#[test]
fn in_a_race_send_nothing_that_was_rejected() {
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
