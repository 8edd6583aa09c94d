//! Guards of a sync: decide whether it may change its target.
//!
//! The facts about source and target are collected here; each violation is a pure function of them.
//!
//! * `source`: requirements of the source;
//! * `identity`: the directory of the source and its mount;
//! * `target`: the mount of a local target;
//! * `nested_mounts`: mounts within the source;
//! * `deletions`: the state of the delete limit.

mod deletions;
mod identity;
mod nested_mounts;
mod source;
mod target;

pub use identity::{SourceIdentity, SourcePlace};
pub use nested_mounts::MountChanges;
pub use target::TargetState;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::PoisonError;
use std::time::Instant;

pub use self::deletions::DeleteGuard;
use self::source::{AcceptedSource, SourceFacts};
use super::Sync;
use crate::batch;
use crate::log;
use crate::queue::Time;

/// A directory that mkfs(8) creates. It does not count as content.
const LOST_AND_FOUND: &str = "lost+found";

/// The maximum number of directories that are searched for content. A tree with more counts as one
/// with content.
const MAX_EMPTY_DIRECTORIES: usize = 1000;

/// The state of the guards of one sync.
#[derive(Default)]
pub(super) struct GuardState {
    source: AcceptedSource,
    /// The watched directory; `None` until it is accepted.
    watched: Option<SourceIdentity>,
    target: Option<target::TargetMount>,
    /// A look on the target that is not answered yet.
    probe: Option<target::Probe>,
    /// The source is accepted when the target has answered.
    awaits_target: bool,
    /// The time at which the source, a mount in it or the mount of the target was last found missing.
    transfers_outdated: Option<Instant>,
    nested_mounts: nested_mounts::NestedMounts,
    deletions: DeleteGuard,
}

impl Sync {
    /// Returns the reason why nothing may be sent from the source now, as a log text. Costs a few
    /// system calls.
    pub fn source_violation(&self) -> Option<String> {
        let watched = self.guard.watched.as_ref().map(SourceIdentity::numbers);
        let found = SourceIdentity::of(&self.config.source).ok();
        let found = found.as_ref().map(SourceIdentity::numbers);
        let violation = source::violation_before_transfer(
            &self.config.guard,
            watched,
            found,
            self.has_marker(),
        );
        violation.map(|violation| violation.to_string())
    }

    /// Checks a source that may have been replaced, and accepts it if there is no violation.
    /// Returns the violation as a log text.
    pub fn accept_source(&mut self) -> Option<String> {
        let place = SourcePlace::of(&self.config.source).ok();
        let found = place.map(|place| self.source_facts(place));
        let source = &self.guard.source;
        if let Some(violation) = source.violation(&self.config.guard, found.as_ref()) {
            return Some(violation.to_string());
        }
        if let Some(found) = found {
            self.accept(found.place);
        }
        self.guard.awaits_target = false;
        None
    }

    fn source_facts(&self, place: SourcePlace) -> SourceFacts {
        // An unreadable directory may have content.
        let is_empty = self.has_nothing_to_send().unwrap_or(false);
        SourceFacts {
            place,
            is_empty,
            target_is_empty: is_empty && self.target_is_empty(),
            has_marker: self.has_marker(),
        }
    }

    /// Returns true if only directories of the source would be sent. Mount points and directories
    /// that a program creates at its start are not content.
    fn has_nothing_to_send(&self) -> io::Result<bool> {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        let mut directories = vec![b"/".to_vec()];
        let mut searched = 0;
        while let Some(directory) = directories.pop() {
            searched += 1;
            if searched > MAX_EMPTY_DIRECTORIES {
                return Ok(false);
            }
            for entry in fs::read_dir(self.on_disk(&directory))? {
                let (name, kind) = entry.and_then(|it| Ok((it.file_name(), it.file_type()?)))?;
                let mut path = [&directory, name.as_bytes()].concat();
                if kind.is_dir() {
                    path.push(b'/');
                }
                let is_ignored = directory == b"/" && name == LOST_AND_FOUND;
                if is_ignored || filter.excluded(&path) {
                    continue;
                }
                if !kind.is_dir() {
                    return Ok(false);
                }
                directories.push(path);
            }
        }
        Ok(true)
    }

    fn has_marker(&self) -> bool {
        let path = |marker: &Vec<u8>| [&self.config.source, marker.as_slice()].concat();
        let marker = self.config.guard.marker.as_ref().map(path);
        marker.is_some_and(|path| fs::symlink_metadata(OsStr::from_bytes(&path)).is_ok())
    }

    /// Returns true if the target is known to have nothing that could be deleted. The contents of
    /// other hosts are unknown.
    fn target_is_empty(&self) -> bool {
        let Some(target) = &self.config.target else {
            return false;
        };
        let is_here = !batch::is_remote(target) && target.starts_with(b"/");
        is_here
            && is_empty_directory(target)
                .unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn accept(&mut self, place: SourcePlace) {
        self.guard.watched = Some(place.identity.clone());
        self.guard.source.accept(place);
    }

    /// Forgets the watched directory, until one is accepted.
    pub(super) fn forget_watched_source(&mut self) {
        self.guard.watched = None;
    }

    /// Returns true once after another directory was accepted in place of the source.
    pub fn take_source_replacement(&mut self) -> bool {
        self.guard.source.take_replacement()
    }

    /// Records that the source was on this mount once. A mount point above it is not accepted from
    /// then on.
    pub fn remember_source_mount(&mut self, mount: &[u8]) {
        let source = &self.config.source;
        self.guard.source.remember_mount(mount, source);
    }

    /// Records that the source was this directory once. An empty directory in its place is not
    /// accepted from then on.
    pub fn remember_source(&mut self, directory: SourceIdentity) {
        self.guard.source.remember_directory(directory);
    }

    /// Returns the directory that was accepted last as the source.
    pub fn accepted_source(&self) -> Option<&SourceIdentity> {
        self.guard.source.directory()
    }

    /// Records that a transfer which runs now may find another source or target than at its start.
    pub fn outdate_transfers(&mut self) {
        if self.config.guard.on {
            self.guard.transfers_outdated = Some(Instant::now());
        }
    }

    /// Returns true if a transfer that was started at this time may find another source or target.
    pub fn has_outdated(&self, start: Instant) -> bool {
        self.guard
            .transfers_outdated
            .is_some_and(|time| start <= time)
    }

    /// Returns device and inode of the source, if the guard is on.
    pub fn watched_source(&self) -> Option<(u64, u64)> {
        let watched = self.guard.watched.as_ref().filter(|_| self.config.guard.on);
        watched.map(SourceIdentity::numbers)
    }

    /// Returns the mount point the source is known to be on.
    pub fn source_mount(&self) -> &[u8] {
        self.guard.source.mount()
    }

    /// Returns the state of the delete limit.
    pub fn delete_guard(&self) -> &DeleteGuard {
        &self.guard.deletions
    }

    /// Returns the state of the delete limit for changes.
    pub fn delete_guard_mut(&mut self) -> &mut DeleteGuard {
        &mut self.guard.deletions
    }

    /// Records that the pending deletions are within the delete limit.
    pub fn deletions_within_limit(&mut self) {
        if self.guard.deletions.within() {
            let name = &self.config.name;
            log::normal(format_args!(
                "{name}: the deletions are within maxDelete again"
            ));
        }
    }

    /// Takes over what is known of source and target from the replaced sync.
    pub(super) fn inherit_guard(&mut self, old: &Sync) {
        self.guard.source = old.guard.source.inherited_by(&self.config.source);
        self.guard.watched.clone_from(&old.guard.watched);
        self.guard.target.clone_from(&old.guard.target);
        self.guard
            .nested_mounts
            .clone_from(&old.guard.nested_mounts);
        self.guard.deletions.inherit(&old.guard.deletions);
    }

    /// Releases the guard on request of the user: accepts source and target as they are, forgets
    /// missing nested mounts, and lifts the delete limit for the next transfer.
    pub fn release_guard(&mut self, now: Time) {
        if let Ok(place) = SourcePlace::of(&self.config.source) {
            self.accept(place);
        }
        self.guard.source.take_replacement();
        self.forget_target_mount();
        if self.guard.deletions.lift() {
            self.retry_now(now);
        }
        if self.forget_missing_mounts() {
            self.resync_once(now);
        }
        self.resume(Some(now));
    }
}

/// Returns true for a directory without entries but [`LOST_AND_FOUND`].
fn is_empty_directory(path: &[u8]) -> io::Result<bool> {
    for entry in fs::read_dir(OsStr::from_bytes(path))? {
        if entry?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Policy;
    use crate::sync::guard::identity::tests::identity;
    use crate::sync::tests::sync_with;

    /// Returns a sync with this accepted source, and a target with content.
    fn accepted(root: &std::path::Path) -> Sync {
        let path = |name: &str| [root.join(name).as_os_str().as_bytes(), b"/"].concat();
        for name in ["src", "trg/kept"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("src/f"), "").unwrap();
        let mut sync = sync_with(Policy::Coalesce);
        sync.config.source = path("src");
        sync.config.target = Some(path("trg"));
        assert_eq!(
            (sync.accept_source(), sync.source_violation()),
            (None, None)
        );
        assert!(!sync.take_source_replacement());
        sync
    }

    #[test]
    fn an_empty_directory_in_place_of_the_source_is_not_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        let (src, old) = (dir.path().join("src"), dir.path().join("old"));
        fs::rename(&src, &old).unwrap();
        assert!(sync.source_violation().unwrap().contains("not exist"));
        fs::create_dir_all(src.join(LOST_AND_FOUND)).unwrap();
        assert!(
            sync.source_violation()
                .unwrap()
                .contains("another directory")
        );
        sync.source_lost("gone");
        sync.source_found();
        assert!(sync.accept_source().unwrap().contains("an empty directory"));
        assert!(sync.accept_source().is_some() && !sync.take_source_replacement());
        fs::write(src.join("g"), "").unwrap();
        assert_eq!(sync.accept_source(), None);
        assert!(sync.take_source_replacement() && !sync.take_source_replacement());
        // The directory is the accepted source now, so it may be emptied.
        fs::remove_file(src.join("g")).unwrap();
        assert_eq!(
            (sync.accept_source(), sync.source_violation()),
            (None, None)
        );
    }

    /// As with SIGHUP and a reload, without a state directory.
    #[test]
    fn the_next_configuration_inherits_the_accepted_source() {
        let dir = tempfile::tempdir().unwrap();
        let old = accepted(dir.path());
        let next = |inherits: bool| {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.source.clone_from(&old.config.source);
            sync.config.target.clone_from(&old.config.target);
            if inherits {
                sync.adopt(&old);
            }
            sync
        };
        fs::rename(dir.path().join("src"), dir.path().join("old")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        assert!(
            next(true)
                .accept_source()
                .unwrap()
                .contains("an empty directory")
        );
        // The state file alone has the same effect.
        let mut restarted = next(false);
        restarted.remember_source(old.accepted_source().unwrap().clone());
        assert!(restarted.accept_source().is_some());
        assert_eq!(next(false).accept_source(), None);
    }

    /// Directories are no content, at any depth, and a file below them is.
    #[test]
    fn a_skeleton_in_place_of_the_source_is_not_accepted() {
        for (directories, file, is_accepted) in [
            (&["lost+found/a"][..], None, false),
            (&["d"], None, false),
            (&["a/b/c", "d/lost+found"], None, false),
            (&["a/b/c"], Some("a/b/c/f"), true),
            (&["a"], Some("lost+found/f"), false),
            (&["lost+found", "a"], Some("a/lost+found"), true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut sync = accepted(dir.path());
            let (src, old) = (dir.path().join("src"), dir.path().join("old"));
            fs::rename(&src, old).unwrap();
            for name in directories {
                fs::create_dir_all(src.join(name)).unwrap();
            }
            if let Some(file) = file {
                fs::create_dir_all(src.join(file).parent().unwrap()).unwrap();
                fs::write(src.join(file), "").unwrap();
            }
            sync.source_found();
            assert_eq!(
                sync.accept_source().is_none(),
                is_accepted,
                "{directories:?}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        fs::remove_dir_all(dir.path().join("src")).unwrap();
        for n in 0..MAX_EMPTY_DIRECTORIES {
            fs::create_dir_all(dir.path().join(format!("src/d{n}"))).unwrap();
        }
        sync.source_found();
        assert_eq!(sync.accept_source(), None);
    }

    #[test]
    fn an_emptied_source_is_accepted_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        let (src, old) = (dir.path().join("src"), dir.path().join("old"));
        fs::rename(&src, &old).unwrap();
        fs::remove_file(old.join("f")).unwrap();
        fs::rename(&old, &src).unwrap();
        sync.source_found();
        assert_eq!(
            (sync.accept_source(), sync.take_source_replacement()),
            (None, false)
        );
    }

    #[test]
    fn an_empty_source_is_accepted_if_the_target_is_known_to_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        fs::remove_dir_all(dir.path().join("src")).unwrap();
        fs::create_dir(dir.path().join("blocker")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        sync.guard.source = AcceptedSource::default();
        sync.remember_source(identity(1, 1, None));
        for (target, refused) in [
            (Some("h:/t/"), true),
            (Some("h::m/"), true),
            (Some("rsync://h/m/"), true),
            (Some("trg/"), true),
            (None, true),
            (Some("/dev/null/"), true),
        ] {
            sync.config.target = target.map(|target| target.as_bytes().to_vec());
            assert_eq!(sync.accept_source().is_some(), refused, "{target:?}");
        }
        let none = dir.path().join("none/");
        sync.config.target = Some(none.as_os_str().as_bytes().to_vec());
        assert_eq!(sync.accept_source(), None);
    }

    #[test]
    fn a_release_accepts_the_source_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        sync.guard.source = AcceptedSource::default();
        sync.remember_source(identity(1, 1, None));
        fs::remove_file(dir.path().join("src/f")).unwrap();
        let why = sync.accept_source().unwrap();
        sync.halt(why);
        sync.release_guard(0);
        assert!(sync.halted().is_none() && !sync.verify.is_done());
        assert_eq!(
            (sync.accept_source(), sync.take_source_replacement()),
            (None, false)
        );
    }

    #[test]
    fn the_marker_of_a_source_is_looked_for_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        sync.config.guard.marker = Some(b"here".to_vec());
        assert!(sync.source_violation().is_some() && sync.accept_source().is_some());
        fs::write(dir.path().join("src/here"), "").unwrap();
        assert_eq!(
            (sync.source_violation(), sync.accept_source()),
            (None, None)
        );
    }

    /// Until the new sync has accepted a source, another directory in its place is not sent.
    #[test]
    fn the_next_configuration_watches_the_same_directory() {
        let dir = tempfile::tempdir().unwrap();
        let old = accepted(dir.path());
        let mut next = sync_with(Policy::Coalesce);
        next.config.source.clone_from(&old.config.source);
        next.adopt(&old);
        fs::rename(dir.path().join("src"), dir.path().join("old")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        assert!(next.source_violation().is_some());
    }

    #[test]
    fn the_watched_directory_is_forgotten_when_the_source_returns() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        let found = SourceIdentity::of(&sync.config.source).unwrap();
        assert_eq!(sync.watched_source(), Some(found.numbers()));
        sync.config.guard.on = false;
        assert_eq!(sync.watched_source(), None);
        sync.config.guard.on = true;
        sync.source_lost("gone");
        assert!(sync.watched_source().is_some());
        sync.source_found();
        assert_eq!(sync.watched_source(), None);
    }

    #[test]
    fn the_mount_of_an_earlier_run_is_remembered() {
        let mut sync = sync_with(Policy::Coalesce);
        assert_eq!(sync.source_mount(), b"");
        sync.remember_source_mount(b"/other");
        assert_eq!(sync.source_mount(), b"");
        sync.remember_source_mount(b"/src");
        assert_eq!(sync.source_mount(), b"/src");
    }
}
