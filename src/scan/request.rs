//! What of the source is looked at, and what a look comes to.

use std::collections::BTreeMap;

use super::verdict_cache::FileIdentity;
use crate::batch::Change;
use crate::local::CopyTask;

/// What is to be looked at.
#[derive(Debug)]
pub enum ScanScope {
    /// All of the source is compared with the staged tree.
    Everything,
    /// These paths, each once, without slash at their ends.
    At(BTreeMap<Vec<u8>, ScanPath>),
}

/// What events say of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanPath {
    /// Its contents may have changed.
    pub written: bool,
    /// A directory of that name may be another one now.
    pub deep: bool,
}

impl ScanScope {
    /// What a transfer of this needs to have looked at.
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
                let bare = path.strip_suffix(b"/").unwrap_or(path).to_vec();
                add(&mut mentions, bare, now);
            }
        }
        ScanScope::At(mentions)
    }

    /// Takes in what another transfer needs, if one look does for both: a comparison of
    /// everything trusts times, which events say not to. Else the other comes back.
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

/// A copy that is to be checked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Relative to the source, with a leading slash.
    pub path: Vec<u8>,
    /// The copy, absolute. Its last name is that of the file.
    pub copy: Vec<u8>,
    /// The file it was made of.
    pub identity: FileIdentity,
    /// The copy itself, as it was made.
    pub made: FileIdentity,
    /// That file was not changed meanwhile, and any change from now on can be told.
    pub settled: bool,
}

impl Candidate {
    /// The file as verdicts are remembered of it: one that may change without getting another
    /// time is not known again, only found when it was renamed.
    pub(super) fn known_as(&self) -> FileIdentity {
        if self.settled {
            self.identity
        } else {
            self.identity.in_no_state()
        }
    }
}

/// What a look at the source came to.
#[derive(Debug, Default)]
pub struct Collected {
    /// What must be checked.
    pub candidates: Vec<Candidate>,
    /// What was rejected before and has not changed since.
    pub rejected: Vec<(Vec<u8>, String)>,
    /// What needs no check.
    pub clear: Vec<Vec<u8>>,
    /// What is not there any more, nor anything below it.
    pub gone: Vec<Vec<u8>>,
    /// What could not be read or staged, and why.
    pub failures: Vec<(Vec<u8>, String)>,
    /// Paths without slashes at their ends of which all that is below them was looked at; the
    /// source's own is empty.
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
    fn events_are_not_lost_in_a_comparison() {
        let mut all = ScanScope::for_task(&CopyTask::Everything);
        assert!(all.join(ScanScope::Everything).is_none());
        assert!(matches!(
            all.join(at(&[(Change::Modify, "/f")])),
            Some(ScanScope::At(_))
        ));
    }
}
