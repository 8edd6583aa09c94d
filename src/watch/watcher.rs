//! The watcher: assigns each tree to a backend, and passes calls to it.

use std::cell::LazyCell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use mio::Waker;

use super::backend::{Backend, TreeSize};
use super::backend_view::BackendView;
use super::choice::{BackendKind, TreeBackend, WatchChoice, served_by, tree_of};
use super::fanotify::FanotifyBackend;
use super::inotify::InotifyBackend;
use super::scopes::{Scope, Scopes};
use super::{CrawlProgress, InotifyMode, Observer};
use crate::log;
use crate::mount_table;

/// The number of directories of a large tree.
const MANY_DIRECTORIES: usize = 20_000;

/// Watches directory trees.
///
/// The owner creates one, sets the scopes, and calls [`turn`](Watcher::turn) whenever the waker
/// fires or [`next_deadline`](Watcher::next_deadline) has come.
pub struct Watcher {
    pub(super) inotify: InotifyBackend,
    /// Opened for the first tree that it may serve.
    pub(super) fanotify: Option<FanotifyBackend>,
    choice: WatchChoice,
    mode: InotifyMode,
    staleness: Option<Duration>,
    waker: Arc<Waker>,
    scopes: Vec<Scope>,
    /// The backend of each tree.
    trees: Vec<TreeBackend>,
    /// The roots that have been reported as lost.
    lost: HashSet<Vec<u8>>,
    /// The initial scan is over: from then on, events count.
    has_started: bool,
    /// The number of directories from which on a tree is served by fanotify, if it can be used.
    many_directories: usize,
    /// The number of watches at which the sizes of trees are checked.
    size_check: usize,
}

impl Watcher {
    /// Opens an inotify instance and starts the thread that reads it. `waker` fires when there is
    /// work.
    ///
    /// Under [`InotifyMode::CloseWrite`] a file that stays open for longer than `staleness` counts
    /// as changed, and again after each such time; `None`: only when it is closed.
    ///
    /// # Errors
    /// `EMFILE` if the user has too many instances (`fs.inotify.max_user_instances`) or the process
    /// too many descriptors.
    pub fn new(
        choice: WatchChoice,
        mode: InotifyMode,
        staleness: Option<Duration>,
        waker: Arc<Waker>,
    ) -> io::Result<Watcher> {
        Ok(Watcher {
            inotify: InotifyBackend::new(mode, staleness, Arc::clone(&waker))?,
            fanotify: None,
            choice,
            mode,
            staleness,
            waker,
            scopes: Vec::new(),
            trees: Vec::new(),
            lost: HashSet::new(),
            has_started: false,
            many_directories: MANY_DIRECTORIES,
            size_check: MANY_DIRECTORIES,
        })
    }

    /// Handles everything that is available and reports it to `observer`.
    pub fn turn(&mut self, now: Instant, observer: &mut dyn Observer) {
        let mut view = self.view(BackendKind::Inotify, observer);
        self.inotify.turn(now, &mut view);
        let (short, changes) = (view.short, view.changes);
        self.note_losses(changes);
        if let Some(mut fanotify) = self.fanotify.take() {
            let mut view = self.view(BackendKind::Fanotify, observer);
            fanotify.turn(now, &mut view);
            let changes = view.changes;
            self.note_losses(changes);
            let refused = fanotify.take_refused();
            self.fanotify = Some(fanotify);
            if !refused.is_empty() {
                self.refuse(&refused);
                let lost: Vec<_> = self.lost.iter().cloned().collect();
                self.inotify.expect_lost(&lost);
                self.distribute();
                observer.overflow();
            }
        }
        for path in short {
            let root = tree_of(&self.trees, &path).map(|tree| tree.root.clone());
            let why = "there are not enough inotify watches";
            if !root.is_some_and(|root| self.promote(&root, why, observer)) {
                observer.out_of_watches(&path);
            }
        }
        self.promote_large(observer);
        self.has_started |= !self.crawling();
    }

    /// Records the lost roots: scope, and true if it is lost.
    fn note_losses(&mut self, changes: Vec<(usize, bool)>) {
        for (scope, is_lost) in changes {
            let root = &self.scopes[scope].root;
            if is_lost {
                self.lost.insert(root.clone());
            } else {
                self.lost.remove(root);
            }
        }
    }

    /// Returns the backend that watches a path, and the reason for it.
    pub fn backend_of(&self, path: &[u8]) -> String {
        let tree = tree_of(&self.trees, path);
        tree.map_or(String::new(), |tree| {
            format!("{}: {}", tree.kind.name(), tree.why)
        })
    }

    /// Returns the observer of a backend.
    fn view<'o>(&self, kind: BackendKind, observer: &'o mut dyn Observer) -> BackendView<'o> {
        BackendView {
            observer,
            scopes: served_by(kind, &self.trees, &self.scopes),
            keeps_short: self.choice == WatchChoice::Auto,
            short: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Decides on the backend of a tree. `is_file_system_root` is true if it is the root of a file
    /// system.
    fn decide(&mut self, root: &[u8], is_file_system_root: impl FnOnce() -> bool) -> TreeBackend {
        let mut tree = TreeBackend::inotify(root, "");
        match self.choice {
            WatchChoice::Inotify => tree.why = "settings".into(),
            WatchChoice::Auto if !is_file_system_root() => {
                let number = self.many_directories;
                tree.why =
                    format!("not the root of a file system, fewer than {number} directories");
            }
            choice => {
                let why = match choice {
                    WatchChoice::Fanotify => "settings",
                    _ => "the root of a file system",
                };
                tree.why = why.into();
                match self.open_fanotify() {
                    Ok(()) => tree.kind = BackendKind::Fanotify,
                    Err(why) => {
                        tree.refuse(&why);
                        self.report_refusal(&tree);
                    }
                }
            }
        }
        tree
    }

    fn open_fanotify(&mut self) -> Result<(), String> {
        if self.fanotify.is_none() {
            let waker = Arc::clone(&self.waker);
            let fanotify = FanotifyBackend::new(self.mode, self.staleness, waker)?;
            self.fanotify = Some(fanotify);
        }
        Ok(())
    }

    /// Gives the trees that fanotify cannot serve to inotify.
    fn refuse(&mut self, refused: &[(Vec<u8>, String)]) {
        for (root, why) in refused {
            let mut trees = self.trees.iter_mut();
            if let Some(tree) = trees.find(|tree| tree.root == *root) {
                tree.refuse(why);
                let tree = tree.clone();
                self.report_refusal(&tree);
            }
        }
    }

    fn report_refusal(&self, tree: &TreeBackend) {
        let root = log::escape(&tree.root);
        let text = format!("{root} is watched with inotify: {}", tree.why);
        match self.choice {
            WatchChoice::Fanotify => log::warn(text),
            _ => log::say("Inotify", text),
        }
    }

    /// Passes the scopes to the backends.
    fn distribute(&mut self) {
        let scopes = self.scopes_of(BackendKind::Fanotify);
        if let Some(mut fanotify) = self.fanotify.take() {
            fanotify.set_scopes(scopes);
            let refused = fanotify.take_refused();
            if !refused.is_empty() {
                self.refuse(&refused);
                fanotify.set_scopes(self.scopes_of(BackendKind::Fanotify));
            }
            self.fanotify = Some(fanotify);
        }
        let scopes = self.scopes_of(BackendKind::Inotify);
        self.inotify.set_scopes(scopes);
    }

    fn scopes_of(&self, kind: BackendKind) -> Vec<Scope> {
        let served = served_by(kind, &self.trees, &self.scopes);
        served
            .into_iter()
            .map(|at| self.scopes[at].clone())
            .collect()
    }

    /// Gives trees that turn out to be large to fanotify.
    fn promote_large(&mut self, observer: &mut dyn Observer) {
        let is_reading = self.choice == WatchChoice::Auto && self.inotify.crawling();
        if !is_reading || self.inotify.watched() < self.size_check {
            return;
        }
        let many = self.many_directories;
        self.size_check = self.inotify.watched() + many / 2;
        let is_small = |tree: &&TreeBackend| tree.kind == BackendKind::Inotify && !tree.is_final;
        let trees: Vec<_> = self.trees.iter().filter(is_small).cloned().collect();
        for tree in trees {
            if self.inotify.tree_size(&tree.root).directories >= many {
                let why = format!("more than {many} directories");
                self.promote(&tree.root, &why, observer);
            }
        }
    }

    /// Gives a tree to fanotify. Returns false if that is not possible.
    fn promote(&mut self, root: &[u8], why: &str, observer: &mut dyn Observer) -> bool {
        let Some(at) = self.trees.iter().position(|tree| tree.root == root) else {
            return false;
        };
        if self.trees[at].is_final || self.trees[at].kind == BackendKind::Fanotify {
            return self.trees[at].kind == BackendKind::Fanotify;
        }
        if let Err(why) = self.open_fanotify() {
            self.refuse(&[(root.to_vec(), why)]);
            return false;
        }
        self.trees[at].kind = BackendKind::Fanotify;
        self.trees[at].why = why.into();
        self.trees[at].size = Some(self.inotify.tree_size(root));
        let scopes = self.scopes_of(BackendKind::Fanotify);
        let mut refused = Vec::new();
        if let Some(fanotify) = &mut self.fanotify {
            fanotify.set_scopes(scopes);
            refused = fanotify.take_refused();
        }
        if !refused.is_empty() {
            self.refuse(&refused);
            self.distribute();
            return false;
        }
        self.report_tree(at);
        // The watches, and those that are being set, end with the instance.
        let waker = Arc::clone(&self.waker);
        if let Ok(inotify) = InotifyBackend::new(self.mode, self.staleness, waker) {
            self.inotify = inotify;
            let lost: Vec<_> = self.lost.iter().cloned().collect();
            self.inotify.expect_lost(&lost);
        }
        self.size_check = self.many_directories;
        self.inotify
            .set_scopes(self.scopes_of(BackendKind::Inotify));
        if self.has_started {
            observer.overflow();
        }
        true
    }

    fn report_tree(&self, at: usize) {
        let tree = &self.trees[at];
        let (root, kind) = (log::escape(&tree.root), tree.kind.name());
        log::normal(format_args!("{root} is watched with {kind}: {}", tree.why));
    }

    fn backends(&self) -> impl Iterator<Item = &dyn Backend> {
        let fanotify = self.fanotify.iter().map(|backend| backend as &dyn Backend);
        std::iter::once(&self.inotify as &dyn Backend).chain(fanotify)
    }

    fn backends_mut(&mut self) -> impl Iterator<Item = &mut dyn Backend> {
        let fanotify = self.fanotify.iter_mut();
        let fanotify = fanotify.map(|backend| backend as &mut dyn Backend);
        std::iter::once(&mut self.inotify as &mut dyn Backend).chain(fanotify)
    }

    /// Returns the backend of the tree that contains a path.
    fn serving(&mut self, path: &[u8]) -> &mut dyn Backend {
        let kind = tree_of(&self.trees, path).map(|tree| tree.kind);
        match &mut self.fanotify {
            Some(fanotify) if kind == Some(BackendKind::Fanotify) => fanotify,
            _ => &mut self.inotify,
        }
    }

    /// Returns the time at which [`turn`](Watcher::turn) has to be called even if the waker does
    /// not fire.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.backends().filter_map(Backend::next_deadline).min()
    }

    /// Sets the directories to be watched.
    ///
    /// Watches that are still wanted stay. Roots of scopes that are new or have another function
    /// are read in the background without reports: after [`crawling`](Watcher::crawling) has ended,
    /// the owner of a new scope compares all of it. A root that does not exist is reported as lost
    /// at the next turn.
    pub fn set_scopes(&mut self, scopes: Vec<Scope>) {
        let before = std::mem::take(&mut self.trees);
        self.scopes = scopes;
        let mounts = LazyCell::new(mount_table::read);
        for root in Scopes::new(self.scopes.clone()).roots() {
            let kept = before.iter().find(|tree| tree.root == root).cloned();
            let is_file_system_root = || mount_table::is_file_system_root(&mounts, &root);
            let tree = kept.unwrap_or_else(|| self.decide(&root, is_file_system_root));
            self.trees.push(tree);
        }
        self.distribute();
        for at in 0..self.trees.len() {
            let tree = &self.trees[at];
            if tree.kind == BackendKind::Fanotify && !before.contains(tree) {
                self.report_tree(at);
            }
        }
    }

    /// Marks roots as lost whose path does not lead to them any more. The kernel sends no event
    /// when something is mounted over a directory, or when one of several mounts is removed.
    pub fn check_roots(&mut self) {
        self.backends_mut()
            .for_each(|backend| backend.check_roots());
    }

    /// Returns true if this path leads to its watched directory, if there is one.
    pub fn leads_to_root(&mut self, path: &[u8]) -> bool {
        self.serving(path).leads_to_root(path)
    }

    /// Tries lost roots again. Those that exist are reported as back and read in the background
    /// like new ones.
    pub fn retry_roots(&mut self) {
        self.backends_mut()
            .for_each(|backend| backend.retry_roots());
    }

    /// Reads all roots again and sets missing watches, after an overflow. Like the initial scan
    /// this runs in the background and reports nothing.
    pub fn rebuild(&mut self) {
        self.backends_mut().for_each(|backend| backend.rebuild());
    }

    /// Returns true if directories are being read in the background.
    pub fn crawling(&self) -> bool {
        self.backends().any(Backend::crawling)
    }

    /// Returns the progress of reading roots; `None` if none is being read.
    pub fn progress(&self) -> Option<CrawlProgress> {
        self.inotify.progress()
    }

    /// Returns the number of watches: of watched directories, and of places at which whole file
    /// systems are seen.
    pub fn watched(&self) -> usize {
        self.backends().map(Backend::watched).sum()
    }

    /// Returns the bytes of memory of the directory table.
    pub fn memory(&self) -> usize {
        self.backends().map(Backend::memory).sum()
    }

    /// Calls `show` with the number and the absolute path of every watch.
    pub fn for_each_watch(&self, mut show: impl FnMut(i32, &[u8])) {
        self.backends()
            .for_each(|backend| backend.for_each_watch(&mut show));
    }

    /// Returns the size of the watched tree below a directory, whose absolute path ends with `/`.
    /// Takes time in proportion to the number of directories.
    pub fn tree_size(&self, root: &[u8]) -> TreeSize {
        let tree = tree_of(&self.trees, root);
        match (&self.fanotify, tree) {
            (Some(fanotify), Some(tree)) if tree.kind == BackendKind::Fanotify => {
                let known = tree.size.filter(|_| tree.root == root);
                known.unwrap_or_else(|| fanotify.tree_size(root))
            }
            _ => self.inotify.tree_size(root),
        }
    }

    /// Reports everything below a directory, whose absolute path ends with `/`, by
    /// [`Observer::found`] with the returned number, as after a rename. Returns `None` if the
    /// directory is not watched.
    pub fn report_contents(&mut self, directory: &[u8]) -> Option<u64> {
        self.serving(directory).report_contents(directory)
    }

    /// Returns the paths, among those for which `interested` returns true, of files that are being
    /// written. Each will be reported as a change, when it is closed or too old.
    pub fn being_written(&mut self, interested: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let files = |backend: &mut dyn Backend| backend.being_written(interested);
        self.backends_mut().flat_map(files).collect()
    }

    /// Returns the paths, among these, of files that are being written. See
    /// [`Watcher::being_written`]; takes time in proportion to the number of paths.
    pub fn being_written_of(&mut self, paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let Watcher {
            inotify,
            fanotify,
            trees,
            ..
        } = self;
        let Some(fanotify) = fanotify else {
            return inotify.being_written_of(paths);
        };
        let is_fanotify = |path: &Vec<u8>| {
            tree_of(trees, path).is_some_and(|tree| tree.kind == BackendKind::Fanotify)
        };
        let (marked, watched) = paths.into_iter().partition(is_fanotify);
        let mut found = inotify.being_written_of(watched);
        found.extend(fanotify.being_written_of(marked));
        found
    }

    /// Returns the number of files that may be open for writing, in all directories.
    pub fn open_files(&self) -> usize {
        self.backends().map(Backend::open_files).sum()
    }

    /// Returns the age of the oldest change that is reported only when its file is closed or too
    /// old; `None` if there is none.
    pub fn oldest_open(&self) -> Option<Duration> {
        self.backends().filter_map(Backend::oldest_open).max()
    }

    /// Reports all files that were written and not closed as if they had been closed. Used at
    /// shutdown.
    pub fn report_all_open(&mut self, observer: &mut dyn Observer) {
        for backend in self.backends_mut() {
            backend.report_all_open(observer);
        }
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
