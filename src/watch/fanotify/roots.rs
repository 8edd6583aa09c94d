//! The roots of scopes: set, lost, found again.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::FanotifyBackend;
use super::places::Refusal;
use super::records::EventRecord;
use crate::watch::scopes::{Scope, Scopes};
use crate::watch::{Loss, Observer};

/// The root of a scope.
struct ScopeRoot {
    path: Vec<u8>,
    lost: bool,
}

/// The roots of all scopes, in the order of the scopes.
#[derive(Default)]
pub struct ScopeRoots {
    list: Vec<ScopeRoot>,
    /// Reports for the observer; `None`: the root is back.
    events: Vec<(usize, Option<Loss>)>,
}

impl ScopeRoots {
    /// Records roots that have been reported as lost, before they are set.
    pub fn expect_lost(&mut self, roots: &[Vec<u8>]) {
        let root = |path: &Vec<u8>| ScopeRoot {
            path: path.clone(),
            lost: true,
        };
        self.list.extend(roots.iter().map(root));
    }

    /// Records that roots at or below a directory are lost.
    fn lose(&mut self, directory: &[u8], loss: Loss) {
        for (scope, root) in self.list.iter_mut().enumerate() {
            if !root.lost && root.path.starts_with(directory) {
                root.lost = true;
                self.events.push((scope, Some(loss)));
            }
        }
    }

    /// Records that lost roots at or below a directory are back if they exist.
    fn restore(&mut self, directory: &[u8]) {
        for (scope, root) in self.list.iter_mut().enumerate() {
            if root.lost && root.path.starts_with(directory) && is_directory(&root.path) {
                root.lost = false;
                self.events.push((scope, None));
            }
        }
    }
}

/// Returns true if there is a directory at the path, which ends with `/`.
fn is_directory(path: &[u8]) -> bool {
    Path::new(OsStr::from_bytes(path)).is_dir()
}

impl FanotifyBackend {
    /// Sets the directories to be watched.
    pub(super) fn set_scopes(&mut self, scopes: Vec<Scope>) {
        self.scopes = Scopes::new(scopes);
        self.known.filters_changed();
        let before = std::mem::take(&mut self.roots.list);
        // A loss that has not been reported has another number now; it is found again.
        let reported = |root: &&ScopeRoot| {
            let mut events = self.roots.events.iter();
            let is_of = |scope: usize| before.get(scope).is_some_and(|at| at.path == root.path);
            root.lost && !events.any(|&(scope, _)| is_of(scope))
        };
        let lost: Vec<_> = before.iter().filter(reported).collect();
        let root = |scope: &Scope| ScopeRoot {
            path: scope.root.clone(),
            lost: lost.iter().any(|root| root.path == scope.root),
        };
        self.roots.list = self.scopes.all().iter().map(root).collect();
        self.roots.events.clear();
        self.set_places();
        let places = self.places.all().iter();
        let watched: Vec<Vec<u8>> = self
            .scopes
            .all()
            .iter()
            .map(|scope| scope.root.clone())
            .filter(|root| places.clone().any(|place| root.starts_with(&place.path)))
            .collect();
        self.counts.set(&watched, &self.scopes, &self.waker);
        let missing: Vec<_> = self
            .roots
            .list
            .iter()
            .map(|root| root.path.clone())
            .collect();
        for path in missing.iter().filter(|path| !is_directory(path)) {
            self.roots.lose(path, Loss::Deleted);
        }
        self.wake();
    }

    /// Determines the places again. Events of a file system that has lost its mark are lost.
    pub(super) fn set_places(&mut self) {
        let roots = self.scopes.roots();
        let scopes = self.scopes.clone();
        let changes = self.places.set(&roots, &|path| scopes.wanted(path));
        for (root, refusal) in changes.refused {
            match refusal {
                Refusal::Missing(_) => self.roots.lose(&root, Loss::Deleted),
                Refusal::Unsuitable(why) => self.refused.push((root, why)),
            }
        }
        for root in self.places.all().iter().filter(|place| place.is_root) {
            self.roots.restore(&root.path);
        }
        if changes.remarked {
            self.lose("a file system had no mark");
        }
        if changes.is_other {
            self.forget_directories();
        }
        self.places_changed = false;
    }

    /// Forgets everything that is known of directories.
    pub(super) fn forget_directories(&mut self) {
        self.known.clear();
        for (number, place) in self.places.all().iter().enumerate() {
            self.known.insert_root(number, &place.handle, &place.path);
        }
        // Their directories may be others.
        if !self.rechecks.is_empty() {
            self.lose("the known directories are out of date");
        }
        self.rechecks.clear();
        self.recent.clear();
        self.opened = None;
        self.shadow.merge();
    }

    /// Marks roots as lost that are not at their paths any more, and corrects nested mounts.
    pub(super) fn check_roots(&mut self) {
        let roots = self.places.all().iter().filter(|place| place.is_root);
        let roots: Vec<Vec<u8>> = roots.map(|place| place.path.clone()).collect();
        for path in roots {
            if let Some(place) = self.places.at(&path)
                && let Some(loss) = self.places.loss(place)
            {
                self.lose_root(place, loss);
            }
        }
        self.check_nested_mounts();
        self.wake();
    }

    pub(super) fn check_nested_mounts(&mut self) {
        let mut places = self.places.all().iter().enumerate();
        let is_lost = |place: usize| self.places.loss(place).is_some();
        if places.any(|(number, place)| !place.is_root && is_lost(number)) {
            self.lose("a file system in a source was replaced");
            self.set_places();
        }
    }

    /// Returns true if this path leads to the directory that is watched for it.
    pub(super) fn leads_to_root(&mut self, path: &[u8]) -> bool {
        match self.places.at(path) {
            Some(place) => self.places.loss(place).is_none(),
            None => {
                let mut roots = self.roots.list.iter();
                roots.any(|root| root.path == path && root.lost) || is_directory(path)
            }
        }
    }

    /// Tries lost roots again.
    pub(super) fn retry_roots(&mut self) {
        self.check_nested_mounts();
        let lost = |root: &ScopeRoot| root.lost && is_directory(&root.path);
        if self.roots.list.iter().any(lost) {
            self.set_places();
            self.wake();
        }
    }

    /// Handles the end of the directory of a root, or its rename.
    pub(super) fn check_root(&mut self, record: &EventRecord<'_>) {
        let Some(target) = record.target.filter(|_| record.directory()) else {
            return;
        };
        let loss = if record.is(libc::FAN_DELETE) {
            Loss::Deleted
        } else if record.is(libc::FAN_RENAME) {
            Loss::Moved
        } else {
            return;
        };
        let is_it = |place: &super::places::Place| place.is_root && place.is(target);
        while let Some(place) = self.places.all().iter().position(is_it)
            && self.places.loss(place).is_some()
        {
            self.lose_root(place, loss);
        }
    }

    /// Handles the end of a directory that may contain roots.
    pub(super) fn root_left(&mut self, path: &[u8], loss: Loss) {
        // After an overflow a root may be found before the older event of its loss is read.
        let is_found = |place: usize| self.places.loss(place).is_none();
        if !self.places.at(path).is_some_and(is_found) {
            self.roots.lose(path, loss);
        }
        let mut places = self.places.all().iter();
        if loss == Loss::Moved && places.any(|place| place.path.starts_with(path)) {
            // A mount point has another path now.
            self.lose("a mount point has moved");
            self.places_changed = true;
        }
    }

    /// Handles a new directory that may contain roots.
    pub(super) fn root_appeared(&mut self, path: &[u8]) {
        self.roots.restore(path);
    }

    fn lose_root(&mut self, place: usize, loss: Loss) {
        let path = self.places.all()[place].path.clone();
        self.roots.lose(&path, loss);
        let below = |other: &super::places::Place| other.path.starts_with(&path);
        while let Some(place) = self.places.all().iter().position(below) {
            self.places.remove(place);
        }
        self.forget_directories();
        self.wake();
    }

    pub(super) fn report_roots(&mut self, observer: &mut dyn Observer) {
        for (scope, loss) in std::mem::take(&mut self.roots.events) {
            match loss {
                Some(loss) => observer.root_lost(scope, loss),
                None => observer.root_back(scope),
            }
        }
    }
}
