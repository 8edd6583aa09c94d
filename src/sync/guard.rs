//! Guard of a source: decides whether a sync may change its target.
//!
//! The facts about the source path are collected first; the violation is a pure function of them
//! ([`Expected::violation`]).

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::PoisonError;

use super::mount_table::is_above;
use super::{SourceIdentity, SourcePlace, Sync};
use crate::batch;
use crate::config::Guard;
use crate::log;
use crate::queue::Time;

/// A directory that mkfs(8) creates. It does not count as content.
const LOST_AND_FOUND: &str = "lost+found";

/// The requirements of a source.
struct Expected<'a> {
    guard: &'a Guard,
    /// The deepest mount point the source is known to be on.
    mount: &'a [u8],
    /// The directory that was last accepted as the source.
    known: Option<&'a SourceIdentity>,
}

/// The facts found at the path of a source.
#[derive(Clone, Debug)]
struct Found {
    place: SourcePlace,
    /// The source directory is empty.
    is_empty: bool,
    /// The target has nothing that could be deleted.
    target_is_empty: bool,
    has_marker: bool,
}

/// The reason why nothing may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Violation {
    /// No directory is at the path.
    Missing,
    /// The path does not lead to the watched directory.
    Another,
    /// An empty directory has replaced the source.
    Emptied,
    /// The source is on the root file system.
    NotMounted,
    /// The source is no longer on this mount.
    MountGone(Vec<u8>),
    /// The marker file of this name is missing.
    NoMarker(Vec<u8>),
}

impl Expected<'_> {
    /// Returns the violation if the found directory were accepted as the source.
    fn violation(&self, found: Option<&Found>) -> Option<Violation> {
        let Some(found) = found else {
            return Some(Violation::Missing);
        };
        let mount = &found.place.mount;
        if self.guard.mount && mount == b"/" {
            return Some(Violation::NotMounted);
        }
        // Both mount points are above the source, so the shorter one is above the longer one.
        if self.guard.on && self.mount.len() > mount.len() {
            return Some(Violation::MountGone(self.mount.to_vec()));
        }
        let is_another = self
            .known
            .is_some_and(|known| !known.is_same(&found.place.identity));
        if self.guard.on && is_another && found.is_empty && !found.target_is_empty {
            return Some(Violation::Emptied);
        }
        self.missing_marker(found.has_marker)
    }

    /// Returns the violation of a transfer from the accepted source. `watched` and `found` are
    /// device and inode numbers.
    fn violation_now(
        &self,
        watched: Option<(u64, u64)>,
        found: Option<(u64, u64)>,
        has_marker: bool,
    ) -> Option<Violation> {
        match (watched, found) {
            (Some(_), None) => return Some(Violation::Missing),
            (Some(watched), Some(found)) if self.guard.on && watched != found => {
                return Some(Violation::Another);
            }
            _ => {}
        }
        self.missing_marker(has_marker)
    }

    fn missing_marker(&self, has_marker: bool) -> Option<Violation> {
        let marker = self.guard.marker.as_ref().filter(|_| !has_marker)?;
        Some(Violation::NoMarker(marker.clone()))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Missing => f.write_str("the source is not there"),
            Violation::Another => f.write_str("the source is another directory"),
            Violation::Emptied => f.write_str(
                "an empty directory is in the place of the source; with \"lsyncdctl release\" its \
                 target is emptied, too",
            ),
            Violation::NotMounted => f.write_str("nothing is mounted where the source is"),
            Violation::MountGone(mount) => {
                write!(f, "what was mounted at {} is not", log::escape(mount))
            }
            Violation::NoMarker(name) => write!(f, "the source has no {}", log::escape(name)),
        }
    }
}

impl Sync {
    /// Returns the reason why nothing may be sent now, as a log text. Costs a few system calls.
    pub fn objection(&self) -> Option<String> {
        let watched = self.root_identity.as_ref().map(SourceIdentity::numbers);
        let found = SourceIdentity::of(&self.config.source).ok();
        let found = found.as_ref().map(SourceIdentity::numbers);
        let violation = self
            .expected()
            .violation_now(watched, found, self.has_marker());
        violation.map(|violation| violation.to_string())
    }

    /// Checks a source that may have been replaced, and accepts it if there is no violation.
    /// Returns the violation as a log text.
    pub fn inspect(&mut self) -> Option<String> {
        let place = SourcePlace::of(&self.config.source).ok();
        let found = place.map(|place| self.look(place));
        if let Some(violation) = self.expected().violation(found.as_ref()) {
            return Some(violation.to_string());
        }
        if let Some(found) = found {
            self.accept(found.place);
        }
        None
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            guard: &self.config.guard,
            mount: &self.mount,
            known: self.known.as_ref(),
        }
    }

    fn look(&self, place: SourcePlace) -> Found {
        // An unreadable directory may have content.
        let is_empty = self.has_nothing_to_send().unwrap_or(false);
        Found {
            place,
            is_empty,
            target_is_empty: is_empty && self.target_is_empty(),
            has_marker: self.has_marker(),
        }
    }

    /// Returns true if the source has nothing in it that the target would get.
    fn has_nothing_to_send(&self) -> io::Result<bool> {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        has_only(&self.config.source, |entry| {
            let slash: &[u8] = match entry.file_type() {
                Ok(kind) if kind.is_dir() => b"/",
                _ => b"",
            };
            filter.excluded(&[b"/", entry.file_name().as_bytes(), slash].concat())
        })
    }

    fn has_marker(&self) -> bool {
        let path = |marker: &Vec<u8>| [&self.config.source, marker.as_slice()].concat();
        let marker = self.config.guard.marker.as_ref().map(path);
        marker.is_some_and(|path| fs::symlink_metadata(OsStr::from_bytes(&path)).is_ok())
    }

    /// Returns true if nothing can be deleted at the target, as far as can be told from here: what
    /// is on another host may have any content.
    fn target_is_empty(&self) -> bool {
        let Some(target) = &self.config.target else {
            return false;
        };
        let is_here = !batch::is_remote(target) && target.starts_with(b"/");
        is_here
            && has_only(target, |_| false)
                .unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Accepts this directory as the source.
    fn accept(&mut self, place: SourcePlace) {
        let identity = place.identity;
        let known = self.known.as_ref();
        self.replaced |= known.is_some_and(|known| !known.is_same(&identity));
        self.mount = place.mount;
        self.known = Some(identity.clone());
        self.root_identity = Some(identity);
    }

    /// Returns true once after another directory was taken as the source than the one before.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }

    /// Records that the source was on this mount once. A mount point above it is not accepted from
    /// then on.
    pub fn remember_mount(&mut self, mount: &[u8]) {
        if is_above(mount, &self.config.source) && mount.len() > self.mount.len() {
            self.mount = mount.to_vec();
        }
    }

    /// Records that the source was this directory once. An empty directory in its place is not
    /// accepted from then on.
    pub fn remember_source(&mut self, identity: SourceIdentity) {
        self.known.get_or_insert(identity);
    }

    /// Returns the directory that was last accepted as the source.
    pub fn known_source(&self) -> Option<&SourceIdentity> {
        self.known.as_ref()
    }

    /// Returns device and inode of the source, if the guard is on.
    pub fn root_identity(&self) -> Option<(u64, u64)> {
        let root_identity = self.root_identity.as_ref().filter(|_| self.config.guard.on);
        root_identity.map(SourceIdentity::numbers)
    }

    /// Returns the mount point the source is known to be on.
    pub fn mount(&self) -> &[u8] {
        &self.mount
    }

    /// Halts the sync. Returns true if it was not halted for this reason before.
    pub fn halt(&mut self, why: String) -> bool {
        let news = self.halted.as_ref() != Some(&why);
        self.halted = Some(why);
        news
    }

    /// Returns the reason of a halt, if the sync is halted.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Ends a halt and queues a full comparison for `now`; `None` if the startup is still to come.
    pub fn go_on(&mut self, now: Option<Time>) {
        if let (Some(_), Some(now)) = (self.halted.take(), now) {
            self.resync_once(now);
        }
    }

    /// Records that the pending deletions are within the delete limit.
    pub fn within_limit(&mut self) {
        if self.excess.take().is_some() {
            let name = &self.config.name;
            log::normal(format_args!("{name}: no longer too much to delete"));
        }
    }

    /// Releases the guard on request of the user: accepts source and target as they are, forgets
    /// missing nested mounts, and lifts the delete limit for the next transfer.
    pub fn release_guard(&mut self, now: Time) {
        if let Ok(place) = SourcePlace::of(&self.config.source) {
            self.accept(place);
        }
        self.replaced = false;
        self.forget_target_mount();
        self.unlimited = true;
        if self.excess.take().is_some() {
            self.retry_now(now);
        }
        if self.away().next().is_some() {
            self.forget_mounts();
            self.resync_once(now);
        }
        self.go_on(Some(now));
    }
}

/// Returns true for a directory without content but what does not count.
fn has_only(path: &[u8], counts_not: impl Fn(&DirEntry) -> bool) -> io::Result<bool> {
    for entry in fs::read_dir(OsStr::from_bytes(path))? {
        let entry = entry?;
        if entry.file_name() != LOST_AND_FOUND && !counts_not(&entry) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Policy;
    use crate::sync::identity::tests::identity;
    use crate::sync::tests::sync_with;

    fn guard(on: bool, mount: bool, marker: bool) -> Guard {
        Guard {
            on,
            mount,
            marker: marker.then(|| b".here".to_vec()),
            ..Guard::default()
        }
    }

    /// A known source on a mount of its own, with content and its marker.
    fn found() -> Found {
        Found {
            place: SourcePlace {
                identity: identity(1, 2, Some(3)),
                mount: b"/srv".to_vec(),
            },
            is_empty: false,
            target_is_empty: false,
            has_marker: true,
        }
    }

    /// Returns the facts with one change.
    fn but(change: impl FnOnce(&mut Found)) -> Found {
        let mut found = found();
        change(&mut found);
        found
    }

    fn violation(guard: &Guard, found: Option<&Found>) -> Option<Violation> {
        let known = identity(1, 2, Some(3));
        let expected = Expected {
            guard,
            mount: b"/srv",
            known: Some(&known),
        };
        expected.violation(found)
    }

    /// Each row violates one condition only, so no other one can hide it.
    #[test]
    fn each_layer_notices_what_is_its_own() {
        let all = guard(true, true, true);
        assert_eq!(violation(&all, Some(&found())), None);
        assert_eq!(violation(&all, None), Some(Violation::Missing));
        let another = |found: &mut Found| found.place.identity = identity(1, 9, Some(9));
        let table: [(&str, Found, Guard, Option<Violation>); 16] = [
            (
                "the mount is gone",
                but(|f| f.place.mount = b"/".to_vec()),
                guard(true, false, false),
                Some(Violation::MountGone(b"/srv".to_vec())),
            ),
            (
                "the mount is gone, which is switched off",
                but(|f| f.place.mount = b"/".to_vec()),
                guard(false, false, false),
                None,
            ),
            (
                "no mount, but one is required",
                but(|f| f.place.mount = b"/".to_vec()),
                guard(false, true, false),
                Some(Violation::NotMounted),
            ),
            (
                "a mount below the one that was",
                but(|f| f.place.mount = b"/srv/a".to_vec()),
                guard(true, true, false),
                None,
            ),
            (
                "emptied in place",
                but(|f| f.is_empty = true),
                guard(true, false, false),
                None,
            ),
            (
                "another with content",
                but(another),
                guard(true, false, false),
                None,
            ),
            (
                "another without content",
                but(|f| {
                    another(f);
                    f.is_empty = true;
                }),
                guard(true, false, false),
                Some(Violation::Emptied),
            ),
            (
                "another in the same inode",
                but(|f| {
                    f.place.identity = identity(1, 2, Some(4));
                    f.is_empty = true;
                }),
                guard(true, false, false),
                Some(Violation::Emptied),
            ),
            (
                "the same on a device of another number",
                but(|f| {
                    f.place.identity = identity(5, 2, Some(3));
                    f.is_empty = true;
                }),
                guard(true, false, false),
                None,
            ),
            (
                "another without content, which is switched off",
                but(|f| {
                    another(f);
                    f.is_empty = true;
                }),
                guard(false, false, false),
                None,
            ),
            (
                "another without content, and nothing to delete",
                but(|f| {
                    another(f);
                    f.is_empty = true;
                    f.target_is_empty = true;
                }),
                guard(true, false, false),
                None,
            ),
            (
                "no marker",
                but(|f| f.has_marker = false),
                guard(true, false, true),
                Some(Violation::NoMarker(b".here".to_vec())),
            ),
            (
                "no marker, with all else switched off",
                but(|f| f.has_marker = false),
                guard(false, false, true),
                Some(Violation::NoMarker(b".here".to_vec())),
            ),
            (
                "no marker, and none is asked for",
                but(|f| f.has_marker = false),
                guard(true, false, false),
                None,
            ),
            (
                "a marker in another without content",
                but(|f| {
                    another(f);
                    f.is_empty = true;
                }),
                guard(true, false, true),
                Some(Violation::Emptied),
            ),
            ("all is well", found(), guard(false, true, true), None),
        ];
        for (name, found, guard, expected) in table {
            assert_eq!(violation(&guard, Some(&found)), expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_required_of_the_first_source() {
        let guard = guard(true, false, false);
        let expected = Expected {
            guard: &guard,
            mount: b"",
            known: None,
        };
        let empty = but(|f| f.is_empty = true);
        assert_eq!(expected.violation(Some(&empty)), None);
    }

    #[test]
    fn each_layer_before_a_transfer_notices_what_is_its_own() {
        let (one, two) = (Some((1, 2)), Some((1, 3)));
        let marker = Some(Violation::NoMarker(b".here".to_vec()));
        for (on, asks, watched, found, has_marker, expected) in [
            (true, false, one, one, false, None),
            (true, false, one, two, false, Some(Violation::Another)),
            (
                true,
                false,
                one,
                Some((2, 2)),
                false,
                Some(Violation::Another),
            ),
            (false, false, one, two, false, None),
            (true, false, one, None, false, Some(Violation::Missing)),
            (false, false, one, None, false, Some(Violation::Missing)),
            // A directory that was not examined is left to another condition.
            (true, false, None, two, false, None),
            (true, false, None, None, false, None),
            (true, true, one, one, true, None),
            (true, true, one, one, false, marker.clone()),
            (false, true, None, None, false, marker),
        ] {
            let guard = guard(on, false, asks);
            let rules = Expected {
                guard: &guard,
                mount: b"/srv",
                known: None,
            };
            let violation = rules.violation_now(watched, found, has_marker);
            assert_eq!(
                violation, expected,
                "{on} {watched:?} {found:?} {has_marker}"
            );
        }
    }

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
        assert_eq!((sync.inspect(), sync.objection()), (None, None));
        assert!(!sync.take_replaced());
        sync
    }

    #[test]
    fn an_empty_directory_in_the_place_of_the_source_waits_for_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        let (src, old) = (dir.path().join("src"), dir.path().join("old"));
        fs::rename(&src, &old).unwrap();
        assert!(sync.objection().unwrap().contains("not there"));
        fs::create_dir_all(src.join(LOST_AND_FOUND)).unwrap();
        assert!(sync.objection().unwrap().contains("another directory"));
        sync.source_lost("gone");
        sync.source_found();
        assert!(sync.inspect().unwrap().contains("an empty directory"));
        assert!(sync.inspect().is_some() && !sync.take_replaced());
        fs::write(src.join("g"), "").unwrap();
        assert_eq!(sync.inspect(), None);
        assert!(sync.take_replaced() && !sync.take_replaced());
        // The directory is the accepted source now, so it may be emptied.
        fs::remove_file(src.join("g")).unwrap();
        assert_eq!((sync.inspect(), sync.objection()), (None, None));
    }

    /// As with SIGHUP and a reload, without a state directory.
    #[test]
    fn the_source_is_handed_on_to_the_next_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let old = accepted(dir.path());
        let next = |knows: bool| {
            let mut sync = sync_with(Policy::Coalesce);
            sync.config.source.clone_from(&old.config.source);
            sync.config.target.clone_from(&old.config.target);
            if knows {
                sync.adopt(&old);
            }
            sync
        };
        fs::rename(dir.path().join("src"), dir.path().join("old")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        assert!(next(true).inspect().unwrap().contains("an empty directory"));
        // The state file alone has the same effect.
        let mut restarted = next(false);
        restarted.remember_source(old.known_source().unwrap().clone());
        assert!(restarted.inspect().is_some());
        assert_eq!(next(false).inspect(), None);
    }

    #[test]
    fn the_same_source_may_come_back_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        let (src, old) = (dir.path().join("src"), dir.path().join("old"));
        fs::rename(&src, &old).unwrap();
        fs::remove_file(old.join("f")).unwrap();
        fs::rename(&old, &src).unwrap();
        sync.source_found();
        assert_eq!((sync.inspect(), sync.take_replaced()), (None, false));
    }

    #[test]
    fn targets_decide_whether_anything_could_be_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        fs::remove_dir_all(dir.path().join("src")).unwrap();
        fs::create_dir(dir.path().join("blocker")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        sync.known = Some(identity(1, 1, None));
        for (target, refused) in [
            (Some("h:/t/"), true),
            (Some("h::m/"), true),
            (Some("rsync://h/m/"), true),
            (Some("trg/"), true),
            (None, true),
            (Some("/dev/null/"), true),
        ] {
            sync.config.target = target.map(|target| target.as_bytes().to_vec());
            assert_eq!(sync.inspect().is_some(), refused, "{target:?}");
        }
        let none = dir.path().join("none/");
        sync.config.target = Some(none.as_os_str().as_bytes().to_vec());
        assert_eq!(sync.inspect(), None);
    }

    #[test]
    fn a_release_takes_the_source_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = accepted(dir.path());
        sync.known = Some(identity(1, 1, None));
        fs::remove_file(dir.path().join("src/f")).unwrap();
        let why = sync.inspect().unwrap();
        sync.halt(why);
        sync.release_guard(0);
        assert!(sync.halted().is_none() && !sync.verify.is_done());
        assert_eq!((sync.inspect(), sync.take_replaced()), (None, false));
    }
}
