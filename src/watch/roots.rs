//! Where trees begin, how they are lost and found.
//!
//! A scope's root is the one directory whose parent is not watched, unless the scope lies
//! inside another's tree; then its root is a node like any other that is kept an eye on.

use std::io;
use std::time::Instant;

use hashbrown::HashSet;

use super::scopes::{Scope, Scopes};
use super::tree::{DirNode, Flags};
use super::watcher::Watcher;
use super::{CrawlProgress, Loss, Observer, Tell};

/// The roots of all scopes, in the order of the scopes.
#[derive(Default)]
pub struct Roots {
    list: Vec<Root>,
    /// The last names of roots inside other trees.
    nested: HashSet<Vec<u8>>,
    news: Vec<RootEvent>,
}

struct Root {
    path: Vec<u8>,
    node: Option<DirNode>,
    /// The observer has been told so.
    lost: bool,
    /// It is there, but there was no watch for it.
    starved: bool,
}

/// What the observer is to be told at the next turn.
pub enum RootEvent {
    Lost(usize, Loss),
    Back(usize),
    Trouble(Vec<u8>, io::Error, &'static str),
    Starved(Vec<u8>),
}

impl Roots {
    /// The node is not where these scopes begin any more.
    pub fn detach(&mut self, node: DirNode, loss: Loss) {
        for (scope, anchor) in self.list.iter_mut().enumerate() {
            if anchor.node == Some(node) {
                anchor.node = None;
                anchor.lost = true;
                self.news.push(RootEvent::Lost(scope, loss));
            }
        }
    }

    /// Here is a directory; true if some scope begins here.
    fn attach(&mut self, path: &[u8], node: DirNode) -> bool {
        let mut any = false;
        for (scope, anchor) in self.list.iter_mut().enumerate() {
            if anchor.path != path {
                continue;
            }
            any = true;
            anchor.node = Some(node);
            anchor.starved = false;
            if std::mem::take(&mut anchor.lost) {
                self.news.push(RootEvent::Back(scope));
            }
        }
        any
    }

    /// Does a scope begin at this path, and is this its node?
    fn holds(&self, path: &[u8], node: DirNode) -> bool {
        let mut anchors = self.list.iter();
        anchors.any(|anchor| anchor.node == Some(node) && anchor.path == path)
    }

    /// There is no such directory.
    fn miss(&mut self, missing: impl Fn(&[u8]) -> bool) {
        for (scope, anchor) in self.list.iter_mut().enumerate() {
            if anchor.node.is_none() && !anchor.lost && !anchor.starved && missing(&anchor.path) {
                anchor.lost = true;
                self.news.push(RootEvent::Lost(scope, Loss::Deleted));
            }
        }
    }

    fn replace(&mut self, scopes: &Scopes) {
        let was_lost: HashSet<Vec<u8>> = self
            .list
            .drain(..)
            .filter(|anchor| anchor.lost)
            .map(|anchor| anchor.path)
            .collect();
        self.news
            .retain(|news| matches!(news, RootEvent::Trouble(..) | RootEvent::Starved(_)));
        self.nested.clear();
        for scope in scopes.all() {
            if scopes.nested(scope) {
                self.nested.insert(last_name(&scope.root).to_vec());
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

impl Watcher {
    /// Says what is to be watched from now on.
    ///
    /// What is watched already and still wanted stays as it is. Roots of scopes that are new
    /// or have another function are read in the background and nothing of what is found is
    /// told: whoever adds a scope compares all of it once [`crawling`](Watcher::crawling) is
    /// over. A root that is not there is told as lost at the next turn.
    pub fn set_scopes(&mut self, scopes: Vec<Scope>) {
        let old = std::mem::replace(&mut self.scopes, Scopes::new(scopes));
        let scopes = self.scopes.clone();
        self.anchors.replace(&scopes);
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

    /// Loses the roots whose path does not lead to them any more: the kernel does not tell when
    /// something is mounted over a directory, or when one of several mounts goes.
    pub fn check_roots(&mut self) {
        for root in self.tree.roots().to_vec() {
            if !self.in_place(root) {
                self.lose_root(root);
            }
        }
        self.wake();
    }

    /// Returns true if this path leads to the directory watched as it, if one is.
    pub fn leads_to_root(&mut self, path: &[u8]) -> bool {
        match self.tree.find(path) {
            Some(node) => self.in_place(node),
            None => true,
        }
    }

    /// Tries the roots that are lost again. Those that are back are told so and read in the
    /// background as if they were new.
    pub fn retry_roots(&mut self) {
        let lost = self.anchors.list.iter().filter(|anchor| anchor.lost);
        let lost: HashSet<Vec<u8>> = lost.map(|anchor| anchor.path.clone()).collect();
        for path in self.scopes.roots() {
            if lost.contains(&path)
                && let Some(node) = self.open_root(&path)
            {
                self.crawl(node);
                self.wake();
            }
        }
    }

    /// Reads all roots again and sets the watches that are missing, after an overflow. Like
    /// the first reading it goes on in the background and tells nothing of what it finds.
    pub fn rebuild(&mut self) {
        if self.crawling {
            self.again = true;
            return;
        }
        let starved = self.anchors.list.iter().filter(|anchor| anchor.starved);
        let starved: HashSet<Vec<u8>> = starved.map(|anchor| anchor.path.clone()).collect();
        for path in starved {
            // What is attached by that is read with the others.
            self.open_root(&path);
        }
        for root in self.tree.roots().to_vec() {
            if self.in_place(root) {
                self.crawl(root);
            } else {
                self.lose_root(root);
            }
        }
        self.wake();
    }

    /// The path of a tree's root leads elsewhere or nowhere.
    pub(super) fn lose_root(&mut self, root: DirNode) {
        let mut path = Vec::new();
        self.tree.path(root, &mut path);
        let loss = match self.probe(&path, true) {
            Ok(_) => Loss::Moved,
            Err(_) => Loss::Deleted,
        };
        self.drop_tree(root, loss);
    }

    /// Roots that a finished crawl has not come upon.
    pub(super) fn find_lost_roots(&mut self) {
        self.anchors.miss(|_| true);
    }

    pub(super) fn tell_later(&mut self, news: RootEvent) {
        self.anchors.news.push(news);
        self.wake();
    }

    pub(super) fn tell_roots(&mut self, observer: &mut dyn Observer) {
        for news in std::mem::take(&mut self.anchors.news) {
            match news {
                RootEvent::Lost(scope, loss) => observer.root_lost(scope, loss),
                RootEvent::Starved(path) => observer.out_of_watches(&path),
                RootEvent::Back(scope) => observer.root_back(scope),
                RootEvent::Trouble(path, error, what) => observer.trouble(&path, &error, what),
            }
        }
    }

    /// A node is new; does a scope begin there?
    pub(super) fn attach_anchors(&mut self, node: DirNode, name: &[u8]) {
        if self.anchors.nested.contains(name) {
            self.attach(node);
        }
    }

    /// Nodes from here down have other paths now.
    pub(super) fn check_anchors(&mut self, top: DirNode) {
        if self.anchors.nested.is_empty() {
            return;
        }
        let mut path = Vec::new();
        let mut next = Some(top);
        while let Some(node) = next {
            self.tree.path(node, &mut path);
            if self.tree.has(node, Flags::SCOPE_ROOT) && !self.anchors.holds(&path, node) {
                self.tree.clear(node, Flags::SCOPE_ROOT);
                self.anchors.detach(node, Loss::Moved);
            }
            if self.anchors.nested.contains(self.tree.name(node)) {
                self.attach(node);
            }
            next = self.tree.next(node, top);
        }
    }

    fn attach(&mut self, node: DirNode) {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        if self.anchors.attach(&path, node) {
            self.tree.set(node, Flags::SCOPE_ROOT);
        }
    }

    /// Makes trees begin at these paths, and drops what no scope wants any more.
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
                for anchor in self.anchors.list.iter_mut().filter(|a| a.path == path) {
                    anchor.starved = true;
                }
                self.tell_later(RootEvent::Starved(path.to_vec()));
                None
            }
            Err(error) => {
                if !super::inotify::vanished(&error) {
                    self.tell_later(RootEvent::Trouble(path.to_vec(), error, "watching a root"));
                }
                self.anchors.miss(|other| other == path);
                None
            }
        }
    }

    fn crawl(&mut self, node: DirNode) {
        self.quiet.get_or_insert_with(|| CrawlProgress {
            directories: 0,
            started: Instant::now(),
        });
        let task = self.task(node, Tell::Nobody);
        self.submit(node, task);
    }

    /// Without repetitions and what is reached from another: many scopes, one walk.
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
        // Fails only if the counter of the event descriptor is full: then it is awake.
        let _ = self.waker.wake();
    }
}

/// The last name in a path that ends with `/`.
fn last_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
