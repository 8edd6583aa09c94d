//! Removes old backups from a local directory, by descriptors.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, unlinkat};

use super::dates::{Day, is_day};
use crate::local::beneath::{self, Beneath};

/// Removes the directories in `dir` that are named by days before `oldest`, and returns their
/// number. Symbolic links below `dir` are removed, not followed. A directory that does not exist
/// has none.
///
/// # Errors
///
/// Something cannot be read or removed, or the daemon is shutting down.
pub fn prune(dir: &[u8], oldest: Day, stop: &AtomicBool) -> io::Result<usize> {
    let tree = match Beneath::enter(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        tree => tree?,
    };
    let oldest = oldest.name();
    let mut removed = 0;
    for found in beneath::list(&tree.directory(b"/")?)? {
        let is_old = is_day(&found.name) && found.name.as_slice() < oldest.as_bytes();
        let path = [b"/", &found.name[..]].concat();
        let stat = if is_old { tree.lookup(&path)? } else { None };
        if stat.is_some_and(|stat| beneath::is_directory(&stat)) {
            remove_tree(&tree, path, stop)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes a directory with everything below it.
fn remove_tree(tree: &Beneath, top: Vec<u8>, stop: &AtomicBool) -> io::Result<()> {
    // Each directory is visited before those below it, and removed after them.
    let mut waiting = vec![(top, false)];
    while let Some((path, is_empty)) = waiting.pop() {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if is_empty {
            let (parent, name) = tree.parent(&path)?;
            unlinkat(parent.as_fd(), name, AtFlags::REMOVEDIR)?;
            continue;
        }
        let directory = tree.directory(&path)?;
        let entries = beneath::list(&directory)?;
        waiting.push((path.clone(), true));
        for found in entries {
            let name = OsStr::from_bytes(&found.name);
            let stat = beneath::lookup(&directory, name)?;
            if stat.is_some_and(|stat| beneath::is_directory(&stat)) {
                waiting.push(([&path[..], b"/", &found.name].concat(), false));
            } else if stat.is_some() {
                unlinkat(directory.as_fd(), name, AtFlags::empty())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_dated_directories_that_are_old_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        let oldest = Day::at(crate::cron::wall_time()).plus(-30);
        let names = |days| oldest.plus(days).name();
        for name in [
            &names(-1),
            &names(-400),
            &names(0),
            &names(29),
            "kept",
            "2001-01-1",
        ] {
            let deep = path.join("dir").join(name).join("12-00-00/a/b");
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("f"), "").unwrap();
        }
        fs::create_dir(path.join("other")).unwrap();
        fs::write(path.join("other/f"), "").unwrap();
        symlink(path.join("other"), path.join("dir/2001-01-01")).unwrap();
        symlink(
            path.join("other"),
            path.join("dir").join(names(-1)).join("link"),
        )
        .unwrap();
        fs::write(path.join("dir/2001-01-02"), "").unwrap();
        let dir = path.join("dir");
        let dir = dir.as_os_str().as_bytes();
        let stop = AtomicBool::new(false);
        assert_eq!(prune(dir, oldest, &stop).unwrap(), 2);
        let mut left: Vec<_> = fs::read_dir(path.join("dir"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = vec![
            "2001-01-01".into(),
            "2001-01-02".into(),
            "2001-01-1".into(),
            names(0),
            names(29),
            "kept".into(),
        ];
        expected.sort();
        assert_eq!(left, expected);
        assert!(path.join("other/f").exists());
        assert_eq!(prune(b"/no/such/directory", oldest, &stop).unwrap(), 0);
        let file = path.join("other/f");
        assert!(prune(file.as_os_str().as_bytes(), oldest, &stop).is_err());
    }

    #[test]
    fn a_shutdown_stops_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("2001-01-01/x")).unwrap();
        let oldest = Day::at(crate::cron::wall_time());
        let dir = root.path().as_os_str().as_bytes();
        assert!(prune(dir, oldest, &AtomicBool::new(true)).is_err());
        assert!(root.path().join("2001-01-01/x").exists());
    }
}
