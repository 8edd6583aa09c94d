//! The state of syncs that had another name.
//!
//! A sync without a name is named by its position, and its state directory by name, source and
//! target. If another sync is inserted before it, its directory gets the new name at the start.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::renameat;

use super::state_dir::{StateDir, key, key_of};
use crate::config::SyncConfig;
use crate::log;
use crate::safe_path::{self, Directory};

impl StateDir {
    /// Renames the directories of syncs whose source and target had another name when a daemon ran
    /// last. `syncs` are all of the configuration. What cannot be renamed is not used.
    pub fn adopt_renamed(&self, syncs: &[&SyncConfig]) {
        if let Err(error) = self.try_adopt(syncs) {
            log::say("Debug", format_args!("state of renamed syncs: {error}"));
        }
    }

    fn try_adopt(&self, syncs: &[&SyncConfig]) -> io::Result<()> {
        let root = safe_path::enter(self.path())?;
        let mut names: HashSet<OsString> = root.names()?.into_iter().collect();
        let configured: HashSet<String> = syncs.iter().map(|sync| key(sync)).collect();
        for sync in syncs {
            let new = key(sync);
            if names.contains(OsStr::new(&new)) {
                continue;
            }
            let was_of = |name: &&OsString| {
                let is_free = name.to_str().is_some_and(|name| !configured.contains(name));
                is_free && belongs_to(name, sync)
            };
            let newest = names
                .iter()
                .filter(was_of)
                .max_by_key(|name| age(&root, name));
            let Some(old) = newest.cloned() else { continue };
            renameat(&root, &old, &root, new.as_str())?;
            names.remove(&old);
        }
        Ok(())
    }
}

/// Returns the time of the last change of a state directory; those that cannot be used come first.
fn age(root: &Directory, name: &OsStr) -> Option<i64> {
    let directory = root.enter(name).ok()?;
    let stat = rustix::fs::fstat(&directory).ok()?;
    directory.is_ours().then_some(stat.st_mtime)
}

/// Returns true if a directory is that of a sync with this source and target, whatever its name.
fn belongs_to(directory: &OsStr, sync: &SyncConfig) -> bool {
    let Some(name) = sync_name(directory.as_bytes()) else {
        return false;
    };
    key_of(&name, sync).as_bytes() == directory.as_bytes()
}

/// Returns the name of the sync in `NAME-HASH`.
fn sync_name(directory: &[u8]) -> Option<String> {
    let at = directory.len().checked_sub(17)?;
    let (mut name, mut rest) = (Vec::new(), &directory[..at]);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, source: &str, target: &str) -> SyncConfig {
        let lua = crate::sys::lua();
        let table = lua.create_table().unwrap();
        for (key, value) in [("name", name), ("source", source), ("target", target)] {
            table.set(key, value).unwrap();
        }
        SyncConfig::from_table(&table).unwrap()
    }

    #[test]
    fn a_sync_with_another_name_keeps_its_state() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        let before = ["Sync1", "Sync2", "odd: %é\n"];
        let sources = ["/a/", "/b/", "/c/"];
        for (name, source) in before.iter().zip(sources) {
            let sync = config(name, source, "/t/");
            state.write(&sync, "source", source.as_bytes()).unwrap();
        }
        let other = config("Sync2", "/a/", "/other/");
        let now = [
            config("Sync1", "/new/", "/t/"),
            config("Sync2", "/a/", "/t/"),
            config("Sync3", "/b/", "/t/"),
            config("named", "/c/", "/t/"),
            other,
        ];
        state.adopt_renamed(&now.iter().collect::<Vec<_>>());
        let found = now.each_ref().map(|sync| state.read(sync, "source"));
        let expected = [None, Some("/a/"), Some("/b/"), Some("/c/"), None];
        assert_eq!(
            found,
            expected.map(|text| text.map(|text| text.as_bytes().to_vec()))
        );
    }

    /// The same source and target may be configured twice, for instance with other filters.
    #[test]
    fn the_state_of_another_sync_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        let [one, two] = ["one", "two"].map(|name| config(name, "/a/", "/t/"));
        state.write(&one, "source", b"1").unwrap();
        state.adopt_renamed(&[&two, &one]);
        assert_eq!(state.read(&two, "source"), None);
        assert_eq!(state.read(&one, "source").unwrap(), b"1");
        state.adopt_renamed(&[&two]);
        assert_eq!(state.read(&two, "source").unwrap(), b"1");
    }

    /// Older state would hide changes that were pending at the last stop.
    #[test]
    fn of_several_states_the_newest_is_taken() {
        // The directories are found in any order.
        for round in 0..20 {
            let (newest, older) = match round % 2 {
                0 => ("one", "two"),
                _ => ("two", "one"),
            };
            let directory = tempfile::tempdir().unwrap();
            let state = StateDir::at(directory.path());
            let hour = std::time::Duration::from_secs(3600);
            for (name, age) in [(newest, hour), (older, 2 * hour)] {
                let sync = config(name, "/a/", "/t/");
                state.write(&sync, "source", name.as_bytes()).unwrap();
                let directory = std::fs::File::open(directory.path().join(key(&sync))).unwrap();
                let time = std::time::SystemTime::now() - age;
                directory.set_modified(time).unwrap();
            }
            let sync = config("three", "/a/", "/t/");
            state.adopt_renamed(&[&sync]);
            assert_eq!(state.read(&sync, "source").unwrap(), newest.as_bytes());
        }
    }
}
