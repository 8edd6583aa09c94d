//! Requirements of a source: a pure function of what was accepted before and of the facts found at
//! its path.

use std::fmt;

use super::{SourceIdentity, SourcePlace};
use crate::config::Guard;
use crate::log;
use crate::mount_table::is_above;

/// The source that was accepted last, kept over losses and restarts.
#[derive(Clone, Debug, Default)]
pub struct AcceptedSource {
    /// The directory.
    directory: Option<SourceIdentity>,
    /// The deepest mount point the source is known to be on; empty if none is known.
    mount: Vec<u8>,
    /// The directory has replaced another one, and this is not logged yet.
    is_replacement: bool,
}

/// The facts found at the path of a source.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    pub place: SourcePlace,
    /// The source directory is empty.
    pub is_empty: bool,
    /// The target has no entries that could be deleted.
    pub target_is_empty: bool,
    pub has_marker: bool,
}

/// The reason why nothing may be sent from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
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

impl AcceptedSource {
    /// Returns the violation if the found directory were accepted as the source.
    pub fn violation(&self, guard: &Guard, found: Option<&SourceFacts>) -> Option<Violation> {
        let Some(found) = found else {
            return Some(Violation::Missing);
        };
        let mount = &found.place.mount;
        if guard.mount && mount == b"/" {
            return Some(Violation::NotMounted);
        }
        // Both mount points are above the source, so the shorter one is above the longer one.
        if guard.on && self.mount.len() > mount.len() {
            return Some(Violation::MountGone(self.mount.clone()));
        }
        let is_another = self.differs_from(&found.place.identity);
        if guard.on && is_another && found.is_empty && !found.target_is_empty {
            return Some(Violation::Emptied);
        }
        missing_marker(guard, found.has_marker)
    }

    /// Accepts this directory.
    pub fn accept(&mut self, place: SourcePlace) {
        self.is_replacement |= self.differs_from(&place.identity);
        self.mount = place.mount;
        self.directory = Some(place.identity);
    }

    fn differs_from(&self, other: &SourceIdentity) -> bool {
        let accepted = self.directory.as_ref();
        accepted.is_some_and(|accepted| !accepted.is_same(other))
    }

    /// Returns the directory.
    pub fn directory(&self) -> Option<&SourceIdentity> {
        self.directory.as_ref()
    }

    /// Returns the deepest mount point the source is known to be on; empty if none is known.
    pub fn mount(&self) -> &[u8] {
        &self.mount
    }

    /// Records the directory of an earlier run, unless one is accepted already.
    pub fn remember_directory(&mut self, directory: SourceIdentity) {
        self.directory.get_or_insert(directory);
    }

    /// Records the mount point of an earlier run, if it is above `source` and deeper than the known
    /// one.
    pub fn remember_mount(&mut self, mount: &[u8], source: &[u8]) {
        if is_above(mount, source) && mount.len() > self.mount.len() {
            self.mount = mount.to_vec();
        }
    }

    /// Returns what the sync that replaces this one starts with. `source` is its path: if that has
    /// changed, another mount may be above it.
    pub fn inherited_by(&self, source: &[u8]) -> AcceptedSource {
        let mut next = AcceptedSource {
            directory: self.directory.clone(),
            ..AcceptedSource::default()
        };
        next.remember_mount(&self.mount, source);
        next
    }

    /// Returns true once after the directory has replaced another one.
    pub fn take_replacement(&mut self) -> bool {
        std::mem::take(&mut self.is_replacement)
    }
}

/// Returns the violation of a transfer from the accepted source. `watched` and `found` are device
/// and inode of the watched directory and of the one at the path of the source.
pub fn violation_before_transfer(
    guard: &Guard,
    watched: Option<(u64, u64)>,
    found: Option<(u64, u64)>,
    has_marker: bool,
) -> Option<Violation> {
    match (watched, found) {
        (Some(_), None) => return Some(Violation::Missing),
        (Some(watched), Some(found)) if guard.on && watched != found => {
            return Some(Violation::Another);
        }
        _ => {}
    }
    missing_marker(guard, has_marker)
}

fn missing_marker(guard: &Guard, has_marker: bool) -> Option<Violation> {
    let marker = guard.marker.as_ref().filter(|_| !has_marker)?;
    Some(Violation::NoMarker(marker.clone()))
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Missing => f.write_str("the source does not exist"),
            Violation::Another => f.write_str("the source is another directory"),
            Violation::Emptied => f.write_str(
                "an empty directory is in place of the source; \"lsyncdctl release\" also empties \
                 the target",
            ),
            Violation::NotMounted => f.write_str("the source is not on a mounted file system"),
            Violation::MountGone(mount) => {
                write!(f, "{} is not mounted any more", log::escape(mount))
            }
            Violation::NoMarker(name) => {
                write!(f, "the source does not contain {}", log::escape(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::guard::identity::tests::identity;

    fn guard(on: bool, mount: bool, marker: bool) -> Guard {
        Guard {
            on,
            mount,
            marker: marker.then(|| b".here".to_vec()),
            ..Guard::default()
        }
    }

    /// An accepted source on a mount of its own, with content and its marker.
    fn found() -> SourceFacts {
        SourceFacts {
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
    fn but(change: impl FnOnce(&mut SourceFacts)) -> SourceFacts {
        let mut found = found();
        change(&mut found);
        found
    }

    fn violation(guard: &Guard, found: Option<&SourceFacts>) -> Option<Violation> {
        let accepted = AcceptedSource {
            directory: Some(identity(1, 2, Some(3))),
            mount: b"/srv".to_vec(),
            ..AcceptedSource::default()
        };
        accepted.violation(guard, found)
    }

    /// Each row violates one condition only, so no other one can hide it.
    #[test]
    fn each_violation_is_found_by_its_own_condition() {
        let all = guard(true, true, true);
        assert_eq!(violation(&all, Some(&found())), None);
        assert_eq!(violation(&all, None), Some(Violation::Missing));
        let another = |found: &mut SourceFacts| found.place.identity = identity(1, 9, Some(9));
        let table: [(&str, SourceFacts, Guard, Option<Violation>); 16] = [
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
    fn the_first_source_may_be_empty() {
        let guard = guard(true, false, false);
        let empty = but(|f| f.is_empty = true);
        let accepted = AcceptedSource::default();
        assert_eq!(accepted.violation(&guard, Some(&empty)), None);
    }

    #[test]
    fn each_violation_before_a_transfer_is_found_by_its_own_condition() {
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
            let violation = violation_before_transfer(&guard, watched, found, has_marker);
            assert_eq!(
                violation, expected,
                "{on} {watched:?} {found:?} {has_marker}"
            );
        }
    }

    #[test]
    fn the_deepest_mount_above_the_source_is_remembered() {
        let source = b"/srv/a/b/";
        let mut accepted = AcceptedSource::default();
        for (mount, expected) in [
            (&b"/srv"[..], &b"/srv"[..]),
            (b"/srv/a", b"/srv/a"),
            (b"/", b"/srv/a"),
            (b"/srv/a/b/c", b"/srv/a"),
            (b"/other/mount", b"/srv/a"),
        ] {
            accepted.remember_mount(mount, source);
            assert_eq!(accepted.mount(), expected);
        }
        assert_eq!(accepted.inherited_by(source).mount(), b"/srv/a");
        assert_eq!(accepted.inherited_by(b"/srv/c/").mount(), b"");
        accepted.accept(found().place);
        assert_eq!(accepted.mount(), b"/srv");
    }
}
