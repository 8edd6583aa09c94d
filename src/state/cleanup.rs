//! Removes the state directories of syncs that are no longer configured.
//!
//! Several daemons may share the parent directory, so a directory counts as used while its
//! modification time is recent; a daemon updates those of its syncs once a day. A directory is
//! removed only if its name, its owner and the names of all its files are those of a state
//! directory.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, fstat, futimens,
    openat, statat, unlinkat,
};
use rustix::process::geteuid;

use super::state_dir::StateDir;
use crate::component::Action;
use crate::safe_path;

/// The age after which an unused directory is removed.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The interval in which directories are updated and searched.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// The delay before the next turn if not all were removed.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// The maximum number of directories removed in one turn of the loop.
const MAX_REMOVED: usize = 100;

/// The names of the files in a state directory.
const STATE_KINDS: [&[u8]; 12] = [
    b"alive",
    b"failing",
    b"index",
    b"index-open",
    b"inside",
    b"log",
    b"log.old",
    b"mount",
    b"pending",
    b"sample",
    b"source",
    b"target-mount",
];

/// The time of the next cleanup.
pub struct StateCleanup {
    due: Instant,
}

impl StateCleanup {
    /// Returns a cleanup that is due at once.
    pub fn new(now: Instant) -> StateCleanup {
        StateCleanup { due: now }
    }

    /// Returns the time of the next cleanup.
    pub fn deadline(&self) -> Instant {
        self.due
    }

    /// Updates the directories with the names that `used` returns below the state directory, and
    /// removes others that are too old.
    pub fn on_timer(
        &mut self,
        now: Instant,
        state: Option<&StateDir>,
        used: impl FnOnce() -> HashSet<String>,
    ) -> Vec<Action> {
        if self.due > now {
            return Vec::new();
        }
        self.due = now + CLEANUP_INTERVAL;
        let Some(state) = state else {
            return Vec::new();
        };
        let removed = clean(state.path(), &used(), SystemTime::now()).unwrap_or_default();
        if removed == MAX_REMOVED {
            self.due = now + BATCH_DELAY;
        }
        let what = match removed {
            0 => return Vec::new(),
            1 => "state directory",
            _ => "state directories",
        };
        vec![Action::normal(format!(
            "removed {removed} {what} of syncs that have not run for 30 days"
        ))]
    }
}

/// Updates the used directories and removes those that are too old, at most [`MAX_REMOVED`].
fn clean(directory: &Path, used: &HashSet<String>, now: SystemTime) -> io::Result<usize> {
    let root = root(directory)?;
    for name in used {
        if let Ok(place) = open(root.as_fd(), name.as_str()) {
            let time = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            };
            let _ = futimens(
                &place,
                &Timestamps {
                    last_access: time,
                    last_modification: time,
                },
            );
        }
    }
    let mut old = Vec::new();
    for entry in Dir::read_from(&root)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_used = name.to_str().is_ok_and(|name| used.contains(name));
        if is_state_name(name.to_bytes()) && !is_used && is_old(&root, name, now) {
            old.push(name.to_owned());
        }
    }
    let removed = old.iter().filter(|name| remove(root.as_fd(), name).is_ok());
    Ok(removed.take(MAX_REMOVED).count())
}

/// Removes the named state directories, regardless of their age.
pub fn remove_all<'n>(directory: &Path, names: impl Iterator<Item = &'n str>) {
    let Ok(root) = root(directory) else {
        return;
    };
    for name in names.filter(|name| is_state_name(name.as_bytes())) {
        if let Ok(name) = std::ffi::CString::new(name) {
            let _ = remove(root.as_fd(), &name);
        }
    }
}

/// Removes one directory if it is a state directory.
fn remove(root: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let place = open(root, name)?;
    let stat = fstat(&place)?;
    if !is_private(&stat) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut files = Vec::new();
    for entry in Dir::read_from(&place)? {
        let entry = entry?;
        let name = entry.file_name().to_owned();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(&place, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || !is_remembered(name.to_bytes()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        files.push(name);
    }
    for name in &files {
        unlinkat(&place, name, AtFlags::empty())?;
    }
    Ok(unlinkat(root, name, AtFlags::REMOVEDIR)?)
}

/// Opens the parent of the state directories.
fn root(directory: &Path) -> io::Result<OwnedFd> {
    open(safe_path::enter(directory)?.as_fd(), ".")
}

fn open(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?)
}

/// Returns true for `NAME-HASH`, where the hash has sixteen digits.
fn is_state_name(name: &[u8]) -> bool {
    let Some(at) = name.len().checked_sub(17) else {
        return false;
    };
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    at > 0 && name[at] == b'-' && name[at + 1..].iter().all(is_digit)
}

/// Returns true for the name of a state file, and for a temporary file of its replacement:
/// `.NAME.PID.new`.
fn is_remembered(name: &[u8]) -> bool {
    let left = || {
        let inner = name.strip_prefix(b".")?.strip_suffix(b".new")?;
        let dot = inner.iter().rposition(|&byte| byte == b'.')?;
        let is_number = inner[dot + 1..].iter().all(u8::is_ascii_digit);
        Some(is_number && STATE_KINDS.contains(&&inner[..dot]))
    };
    STATE_KINDS.contains(&name) || left().unwrap_or(false)
}

/// Returns true if it belongs to this user and no other user can write to it.
fn is_private(stat: &Stat) -> bool {
    stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0
}

fn is_old(root: &OwnedFd, name: &CStr, now: SystemTime) -> bool {
    let Ok(stat) = statat(root, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    let changed = u64::try_from(stat.st_mtime).unwrap_or(u64::MAX);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    is_directory && now.saturating_sub(changed) > MAX_AGE.as_secs()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Creates a state directory with these files and an age in days.
    fn state(root: &Path, name: &str, files: &[&str], days: u32) {
        let place = root.join(name);
        fs::create_dir_all(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        for file in files {
            fs::write(place.join(file), "x").unwrap();
        }
        let old = SystemTime::now() - DAY * days;
        fs::File::open(place).unwrap().set_modified(old).unwrap();
    }

    fn names(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_state_directories_that_nobody_uses_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("alive"), "").unwrap();
        state(root, "Sync1-0123456789abcdef", &["alive", "source"], 31);
        state(root, "a%2fb-0123456789abcdef", &[".pending.77.new"], 400);
        state(root, "empty-0123456789abcdef", &[], 31);
        let kept = [
            ("used-0123456789abcdef", &["alive"][..], 400),
            ("young-0123456789abcdef", &["alive"], 29),
            ("own-0123456789abcdef", &["alive", "letter"], 400),
            ("hidden-0123456789abcdef", &[".bashrc"], 400),
            ("new-0123456789abcdef", &[".alive.x.new"], 400),
            ("short-123", &["alive"], 400),
            ("Upper-0123456789ABCDEF", &["alive"], 400),
            ("-0123456789abcdef", &["alive"], 400),
        ];
        for (name, files, days) in kept {
            state(root, name, files, days);
        }
        state(root, "deep-0123456789abcdef", &["alive"], 400);
        fs::create_dir(root.join("deep-0123456789abcdef/mount")).unwrap();
        state(root, "deep-0123456789abcdef", &[], 400);
        state(root, "linked-0123456789abcdef", &[], 400);
        symlink(
            outside.path().join("alive"),
            root.join("linked-0123456789abcdef/alive"),
        )
        .unwrap();
        state(root, "linked-0123456789abcdef", &[], 400);
        state(root, "open-0123456789abcdef", &["alive"], 400);
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(root.join("open-0123456789abcdef"), open).unwrap();
        symlink(outside.path(), root.join("link-0123456789abcdef")).unwrap();
        fs::write(root.join("file-0123456789abcdef"), "").unwrap();

        let used = HashSet::from(["used-0123456789abcdef".to_owned()]);
        let before = names(root).len();
        assert_eq!(clean(root, &used, SystemTime::now()).unwrap(), 3);
        assert_eq!(names(root).len(), before - 3);
        for name in ["Sync1", "a%2fb", "empty"] {
            assert!(
                !root.join(format!("{name}-0123456789abcdef")).exists(),
                "{name}"
            );
        }
        assert!(outside.path().join("alive").exists());
        // The used directories are recent again.
        assert_eq!(clean(root, &HashSet::new(), SystemTime::now()).unwrap(), 0);
        let later = SystemTime::now() + MAX_AGE + DAY;
        assert_eq!(clean(root, &HashSet::new(), later).unwrap(), 2);
        assert!(!root.join("used-0123456789abcdef").exists());
    }

    #[test]
    fn many_are_removed_in_several_turns() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_REMOVED + 1 {
            state(
                dir.path(),
                &format!("Sync{number}-0123456789abcdef"),
                &["alive"],
                31,
            );
        }
        let start = Instant::now();
        let state = StateDir::at(dir.path());
        let mut cleanup = StateCleanup::new(start);
        let mut turn = |now| {
            let before = names(dir.path()).len();
            let told = cleanup.on_timer(now, Some(&state), HashSet::new);
            (before - names(dir.path()).len(), told.len())
        };
        assert_eq!(turn(start), (MAX_REMOVED, 1));
        assert_eq!(turn(start), (0, 0));
        assert_eq!(turn(start + BATCH_DELAY), (1, 1));
        assert_eq!(cleanup.deadline(), start + BATCH_DELAY + CLEANUP_INTERVAL);
        let due = cleanup.deadline();
        assert_eq!(cleanup.on_timer(due, None, HashSet::new), []);
    }

    #[test]
    fn named_ones_are_removed_whatever_their_age() {
        let dir = tempfile::tempdir().unwrap();
        state(dir.path(), "Sync1-0123456789abcdef", &["alive", "mount"], 0);
        state(dir.path(), "Sync2-0123456789abcdef", &["alive"], 0);
        let names = ["Sync1-0123456789abcdef", "none-0123456789abcdef", ".."];
        remove_all(dir.path(), names.into_iter());
        assert_eq!(self::names(dir.path()), ["Sync2-0123456789abcdef"]);
    }
}
