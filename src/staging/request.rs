//! The scope and the result of a scan pass.

use std::collections::BTreeMap;

use super::verdict_cache::FileIdentity;
use crate::batch::Change;
use crate::local::CopyTask;
use crate::paths;

/// The part of the source to be examined.
#[derive(Debug)]
pub enum ScanScope {
    /// The whole source is compared with the staged tree.
    Everything,
    /// These paths, each once, without trailing slash.
    At(BTreeMap<Vec<u8>, ScanPath>),
}

/// The changes that events report for a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanPath {
    /// True if its contents may have changed.
    pub written: bool,
    /// True if a directory of that name may be another one now.
    pub deep: bool,
}

impl ScanScope {
    /// Returns the scope that a transfer of this task needs.
    pub fn for_task(task: &CopyTask) -> ScanScope {
        let CopyTask::Events(items) = task else {
            return ScanScope::Everything;
        };
        let mut mentions = BTreeMap::new();
        for item in items {
            let now = ScanPath {
                written: item.change != Change::Attrib,
                deep: !matches!(item.change, Change::Attrib | Change::Modify),
            };
            for path in [Some(&item.path), item.to.as_ref()].into_iter().flatten() {
                let bare = paths::bare(path).to_vec();
                add(&mut mentions, bare, now);
            }
        }
        ScanScope::At(mentions)
    }

    /// Adds the scope of another transfer, if one pass serves both; otherwise returns it. A full
    /// comparison relies on times, which events override.
    pub fn join(&mut self, other: ScanScope) -> Option<ScanScope> {
        match (self, other) {
            (ScanScope::Everything, ScanScope::Everything) => None,
            (ScanScope::At(own), ScanScope::At(others)) => {
                for (path, mention) in others {
                    add(own, path, mention);
                }
                None
            }
            (_, other) => Some(other),
        }
    }
}

fn add(mentions: &mut BTreeMap<Vec<u8>, ScanPath>, path: Vec<u8>, now: ScanPath) {
    let known = mentions.entry(path).or_default();
    known.written |= now.written;
    known.deep |= now.deep;
}

/// A copy to be checked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The path relative to the source, with a leading slash.
    pub path: Vec<u8>,
    /// The absolute path of the copy. Its last name is that of the file.
    pub copy: Vec<u8>,
    /// The identity of the original file.
    pub identity: FileIdentity,
    /// The identity of the copy.
    pub made: FileIdentity,
    /// True if the original was not changed in the meantime, and every later change can be
    /// detected.
    pub settled: bool,
}

impl Candidate {
    /// Returns the identity for the verdict cache. A file that could change without getting another
    /// time is stored without its state, and only found if it is renamed.
    pub(super) fn known_as(&self) -> FileIdentity {
        if self.settled {
            self.identity
        } else {
            self.identity.in_no_state()
        }
    }
}

/// The result of a scan pass.
#[derive(Debug, Default)]
pub struct Collected {
    /// Copies that must be checked.
    pub candidates: Vec<Candidate>,
    /// Files that were rejected before and have not changed since.
    pub rejected: Vec<(Vec<u8>, String)>,
    /// Paths that need no check.
    pub clear: Vec<Vec<u8>>,
    /// Paths that do not exist any more, nor anything below them.
    pub gone: Vec<Vec<u8>>,
    /// Paths that could not be read or staged, with the reason.
    pub failures: Vec<(Vec<u8>, String)>,
    /// Paths, without trailing slashes, whose contents were completely examined; the path of the
    /// source is empty.
    pub compared: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::CopyItem;

    fn at(events: &[(Change, &str)]) -> ScanScope {
        let item = |&(change, path): &(Change, &str)| CopyItem {
            change,
            path: path.into(),
            to: None,
        };
        ScanScope::for_task(&CopyTask::Events(events.iter().map(item).collect()))
    }

    #[test]
    fn a_path_is_looked_at_once_for_all_that_events_say() {
        let mut look = at(&[(Change::Attrib, "/d/"), (Change::Modify, "/f")]);
        let other = at(&[(Change::Create, "/d/"), (Change::Attrib, "/f")]);
        assert!(look.join(other).is_none());
        let ScanScope::At(mentions) = &look else {
            panic!("no comparison");
        };
        let said = |path: &str| mentions.get(path.as_bytes()).map(|m| (m.written, m.deep));
        assert_eq!(said("/d"), Some((true, true)));
        assert_eq!(said("/f"), Some((true, false)));
        assert_eq!(mentions.len(), 2);
    }

    #[test]
    fn only_a_change_of_attributes_leaves_contents_alone() {
        let said = |change| match at(&[(change, "/f")]) {
            ScanScope::At(mentions) => (mentions[&b"/f"[..]].written, mentions[&b"/f"[..]].deep),
            ScanScope::Everything => panic!("no comparison"),
        };
        assert_eq!(said(Change::Attrib), (false, false));
        assert_eq!(said(Change::Modify), (true, false));
        for change in [Change::Create, Change::Delete, Change::Move] {
            assert_eq!(said(change), (true, true), "{change:?}");
        }
    }

    #[test]
    fn events_are_not_lost_in_a_comparison() {
        let mut all = ScanScope::for_task(&CopyTask::Everything);
        assert!(all.join(ScanScope::Everything).is_none());
        assert!(matches!(
            all.join(at(&[(Change::Modify, "/f")])),
            Some(ScanScope::At(_))
        ));
    }
}
