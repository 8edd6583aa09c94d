//! The roots of trees: set, lost, found again.
//!
//! A scope's root is the one directory whose parent is not watched, unless the scope is inside
//! another's tree; then its root is a node like any other, with [`Flags::SCOPE_ROOT`].

use std::io;
use std::time::Instant;

use hashbrown::HashSet;

use super::InotifyBackend;
use super::tree::{DirNode, Flags};
use crate::paths;
use crate::watch::scopes::{Scope, Scopes};
use crate::watch::{CrawlProgress, Loss, Observer, Tell};

/// The roots of all scopes, in the order of the scopes.
#[derive(Default)]
pub struct Roots {
    list: Vec<Root>,
    /// The last names of roots inside other trees.
    nested: HashSet<Vec<u8>>,
    events: Vec<RootEvent>,
}

struct Root {
    path: Vec<u8>,
    node: Option<DirNode>,
    /// The root was reported as lost.
    lost: bool,
    /// The root exists, but there was no watch left for it.
    starved: bool,
}

/// A report for the observer, delivered at the next turn.
pub enum RootEvent {
    Lost(usize, Loss),
    Back(usize),
    Trouble(Vec<u8>, io::Error, &'static str),
    Starved(Vec<u8>),
}

impl Roots {
    /// Records that the node is not the root of its scopes any more.
    pub fn detach(&mut self, node: DirNode, loss: Loss) {
        for (scope, scope_root) in self.list.iter_mut().enumerate() {
            if scope_root.node == Some(node) {
                scope_root.node = None;
                scope_root.lost = true;
                self.events.push(RootEvent::Lost(scope, loss));
            }
        }
    }

    /// Records a directory. Returns true if it is the root of a scope.
    fn attach(&mut self, path: &[u8], node: DirNode) -> bool {
        let mut any = false;
        for (scope, scope_root) in self.list.iter_mut().enumerate() {
            if scope_root.path != path {
                continue;
            }
            any = true;
            scope_root.node = Some(node);
            scope_root.starved = false;
            if std::mem::take(&mut scope_root.lost) {
                self.events.push(RootEvent::Back(scope));
            }
        }
        any
    }

    /// Returns true if the node is the root of a scope at this path.
    fn holds(&self, path: &[u8], node: DirNode) -> bool {
        let mut scope_roots = self.list.iter();
        scope_roots.any(|scope_root| scope_root.node == Some(node) && scope_root.path == path)
    }

    /// Records roots that have been reported as lost, before they are set.
    pub fn expect_lost(&mut self, roots: &[Vec<u8>]) {
        let root = |path: &Vec<u8>| Root {
            path: path.clone(),
            node: None,
            lost: true,
            starved: false,
        };
        self.list.extend(roots.iter().map(root));
    }

    /// Marks roots without a directory as lost, if `missing` returns true for their path.
    fn mark_missing(&mut self, missing: impl Fn(&[u8]) -> bool) {
        for (scope, scope_root) in self.list.iter_mut().enumerate() {
            if scope_root.node.is_none()
                && !scope_root.lost
                && !scope_root.starved
                && missing(&scope_root.path)
            {
                scope_root.lost = true;
                self.events.push(RootEvent::Lost(scope, Loss::Deleted));
            }
        }
    }

    fn replace(&mut self, scopes: &Scopes) {
        let was_lost: HashSet<Vec<u8>> = self
            .list
            .drain(..)
            .filter(|scope_root| scope_root.lost)
            .map(|scope_root| scope_root.path)
            .collect();
        self.events
            .retain(|event| matches!(event, RootEvent::Trouble(..) | RootEvent::Starved(_)));
        self.nested.clear();
        for scope in scopes.all() {
            if scopes.nested(scope) {
                self.nested.insert(paths::split(&scope.root).1.to_vec());
            }
            self.list.push(Root {
                path: scope.root.clone(),
                node: None,
                starved: false,
                lost: was_lost.contains(&scope.root),
            });
        }
    }
}

impl InotifyBackend {
    /// Sets the directories to be watched.
    pub(super) fn set_scopes(&mut self, scopes: Vec<Scope>) {
        let old = std::mem::replace(&mut self.scopes, Scopes::new(scopes));
        let scopes = self.scopes.clone();
        self.roots.replace(&scopes);
        self.reshape(&scopes.roots());
        let mut fresh = Vec::new();
        for scope in scopes.all() {
            let node = self.tree.find(&scope.root);
            if let Some(node) = node {
                self.attach(node);
            }
            let kept = old.all().iter().any(|other| other.same(scope));
            if kept && node.is_some() {
                continue;
            }
            let node = if scopes.nested(scope) {
                node
            } else {
                self.open_root(&scope.root)
            };
            fresh.extend(node);
        }
        for node in self.outermost(fresh) {
            self.crawl(node);
        }
        if !self.crawling {
            self.find_lost_roots();
        }
        self.wake();
    }

    /// Marks roots as lost whose path does not lead to them any more. The kernel sends no event
    /// when something is mounted over a directory, or when one of several mounts is removed.
    pub(super) fn check_roots(&mut self) {
        for root in self.tree.roots().to_vec() {
            if !self.is_in_place(root) {
                self.lose_root(root);
            }
        }
        self.wake();
    }

    /// Tries lost roots again. Those that exist are reported as back and read in the background
    /// like new ones.
    pub(super) fn retry_roots(&mut self) {
        let lost = self.roots.list.iter().filter(|scope_root| scope_root.lost);
        let lost: HashSet<Vec<u8>> = lost.map(|scope_root| scope_root.path.clone()).collect();
        for path in self.scopes.roots() {
            if lost.contains(&path)
                && let Some(node) = self.open_root(&path)
            {
                self.crawl(node);
                self.wake();
            }
        }
    }

    /// Reads all roots again and sets missing watches, after an overflow. Like the initial scan
    /// this runs in the background and reports nothing.
    pub(super) fn rebuild(&mut self) {
        if self.crawling {
            self.again = true;
            return;
        }
        let starved = self
            .roots
            .list
            .iter()
            .filter(|scope_root| scope_root.starved);
        let starved: HashSet<Vec<u8>> = starved.map(|scope_root| scope_root.path.clone()).collect();
        for path in starved {
            // Directories that this adds are read with the others.
            self.open_root(&path);
        }
        for root in self.tree.roots().to_vec() {
            if self.is_in_place(root) {
                self.crawl(root);
            } else {
                self.lose_root(root);
            }
        }
        self.wake();
    }

    /// Handles a root whose path leads elsewhere or nowhere.
    pub(super) fn lose_root(&mut self, root: DirNode) {
        let mut path = Vec::new();
        self.tree.path(root, &mut path);
        let loss = match self.probe(&path, true) {
            Ok(_) => Loss::Moved,
            Err(_) => Loss::Deleted,
        };
        self.drop_tree(root, loss);
    }

    /// Marks roots that a finished crawl has not found as lost.
    pub(super) fn find_lost_roots(&mut self) {
        self.roots.mark_missing(|_| true);
    }

    pub(super) fn report_later(&mut self, event: RootEvent) {
        self.roots.events.push(event);
        self.wake();
    }

    pub(super) fn report_roots(&mut self, observer: &mut dyn Observer) {
        for event in std::mem::take(&mut self.roots.events) {
            match event {
                RootEvent::Lost(scope, loss) => observer.root_lost(scope, loss),
                RootEvent::Starved(path) => observer.out_of_watches(&path),
                RootEvent::Back(scope) => observer.root_back(scope),
                RootEvent::Trouble(path, error, what) => observer.watch_failed(&path, &error, what),
            }
        }
    }

    /// Checks if a new node is the root of a scope.
    pub(super) fn attach_roots(&mut self, node: DirNode, name: &[u8]) {
        if self.roots.nested.contains(name) {
            self.attach(node);
        }
    }

    /// Checks the nested roots from here down after their paths have changed.
    pub(super) fn check_nested_roots(&mut self, top: DirNode) {
        if self.roots.nested.is_empty() {
            return;
        }
        let mut path = Vec::new();
        let mut next = Some(top);
        while let Some(node) = next {
            self.tree.path(node, &mut path);
            if self.tree.has(node, Flags::SCOPE_ROOT) && !self.roots.holds(&path, node) {
                self.tree.clear(node, Flags::SCOPE_ROOT);
                self.roots.detach(node, Loss::Moved);
            }
            if self.roots.nested.contains(self.tree.name(node)) {
                self.attach(node);
            }
            next = self.tree.next(node, top);
        }
    }

    fn attach(&mut self, node: DirNode) {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        if self.roots.attach(&path, node) {
            self.tree.set(node, Flags::SCOPE_ROOT);
        }
    }

    /// Starts trees at these paths and removes nodes that no scope wants any more.
    fn reshape(&mut self, roots: &[Vec<u8>]) {
        for path in roots {
            if let Some(node) = self.tree.find(path)
                && !self.tree.is_root(node)
            {
                self.tree.make_root(node, path);
            }
        }
        let mut path = Vec::new();
        for root in self.tree.roots().to_vec() {
            self.tree.path(root, &mut path);
            if self.scopes.wanted(&path) {
                self.refilter(root);
            } else {
                self.drop_tree(root, Loss::Deleted);
            }
        }
    }

    fn open_root(&mut self, path: &[u8]) -> Option<DirNode> {
        match self.kernel.add(path, true) {
            Ok(wd) => {
                let old = self.tree.find(path).filter(|&node| self.tree.is_root(node));
                let node = match old {
                    Some(node) if self.tree.wd(node) == wd => node,
                    old => {
                        if let Some(node) = old {
                            self.drop_tree(node, Loss::Moved);
                        }
                        self.tree.insert_root(path, wd)
                    }
                };
                self.attach(node);
                Some(node)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                for scope_root in self.roots.list.iter_mut().filter(|a| a.path == path) {
                    scope_root.starved = true;
                }
                self.report_later(RootEvent::Starved(path.to_vec()));
                None
            }
            Err(error) => {
                if !super::records::vanished(&error) {
                    self.report_later(RootEvent::Trouble(path.to_vec(), error, "watching a root"));
                }
                self.roots.mark_missing(|other| other == path);
                None
            }
        }
    }

    fn crawl(&mut self, node: DirNode) {
        self.initial_scan.get_or_insert_with(|| CrawlProgress {
            directories: 0,
            started: Instant::now(),
        });
        let task = self.task(node, Tell::Nobody);
        self.submit(node, task);
    }

    /// Removes duplicates and nodes below others, so that many scopes need one walk.
    fn outermost(&self, mut nodes: Vec<DirNode>) -> Vec<DirNode> {
        let mut seen = HashSet::new();
        nodes.retain(|&node| seen.insert(node));
        let inner = |&node: &DirNode| {
            let mut above = self.tree.parent(node);
            while let Some(node) = above {
                if seen.contains(&node) {
                    return true;
                }
                above = self.tree.parent(node);
            }
            false
        };
        nodes.retain(|node| !inner(node));
        nodes
    }

    fn wake(&self) {
        // It fails only if the counter of the event descriptor is full: then the loop is awake.
        let _ = self.waker.wake();
    }
}
