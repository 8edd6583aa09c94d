//! Takes in what was read of a directory.
//!
//! A directory that is new at run time is read at once, so that `mkdir -p` is a matter of
//! microseconds; what turns out to be large is handed to the pool. Until the pool's record
//! of a directory is in, that directory's events wait: its listing is older than they are.

use std::os::unix::ffi::OsStrExt;

use super::crawl::{CrawlTask, FoundKind, ListOutcome, Listing, Record, list};
use super::reconcile::{Cause, WatchPlaced, What};
use super::roots::RootEvent;
use super::tree::{DirNode, Flags};
use super::watcher::Watcher;
use super::{Event, Loss, Observer, Tell};

/// Tells that something was found, to those it is for.
fn tell_found(tell: Tell, path: &[u8], observer: &mut dyn Observer) {
    match tell {
        Tell::Nobody => {}
        Tell::All => {
            observer.event(Event::Create { path });
        }
        Tell::Unmoved(number) => observer.found(path, number),
    }
}

/// What is read at once, in entries and directories.
const MAX_INLINE_ENTRIES: usize = 256;
const MAX_INLINE_DIRECTORIES: usize = 64;

impl Watcher {
    /// Reads a directory and all below; everything found is told as created to those it is for.
    pub(super) fn read(&mut self, top: DirNode, tell: Tell, observer: &mut dyn Observer) {
        let mut pending = vec![(top, self.tree.wd(top), tell)];
        let mut entries = MAX_INLINE_ENTRIES;
        let mut directories = MAX_INLINE_DIRECTORIES;
        while let Some((node, wd, tell)) = pending.pop() {
            if !self.tree.alive(node, wd) {
                continue;
            }
            let tell = self.settle_owed(node, tell);
            if tell == Tell::All {
                self.note_told(node);
            }
            let task = self.task(node, tell);
            if entries == 0 || directories == 0 || self.busy.contains_key(&wd) {
                self.submit(node, task);
                continue;
            }
            let listing = list(&mut self.kernel, &task, Some(entries));
            if matches!(listing.outcome, ListOutcome::Crowded) {
                self.submit(node, task);
                continue;
            }
            entries = entries.saturating_sub(listing.len());
            directories -= 1;
            let below = self.absorb(node, listing, (tell, tell), observer);
            pending.extend(
                below
                    .into_iter()
                    .map(|(child, _)| (child, self.tree.wd(child), tell)),
            );
            self.ready.push_back(wd);
        }
    }

    /// Returns who is told what is in a directory: everybody if that is owed to everybody, which
    /// is settled with it.
    fn settle_owed(&mut self, node: DirNode, tell: Tell) -> Tell {
        match tell {
            Tell::Unmoved(_) if self.tree.has(node, Flags::REPORT_DUE) => {
                self.note_told(node);
                Tell::All
            }
            tell => tell,
        }
    }

    fn note_told(&mut self, node: DirNode) {
        self.tree.clear(node, Flags::REPORT_DUE);
        self.tree.set(node, Flags::REPORTED);
    }

    /// Has the pool read a directory and all below.
    pub(super) fn submit(&mut self, node: DirNode, task: CrawlTask) {
        let path = task.path.clone();
        match self.pool.submit(task) {
            Ok(token) => self.expect(node, token),
            Err(error) => self.tell_later(RootEvent::Trouble(path, error, "starting to read")),
        }
    }

    pub(super) fn task(&self, node: DirNode, tell: Tell) -> CrawlTask {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        CrawlTask {
            path,
            wd: self.tree.wd(node),
            root: self.tree.is_root(node),
            inode: 0,
            tell,
            scopes: self.scopes.clone(),
        }
    }

    /// From now on the directory's events wait for the record with this token.
    pub(super) fn expect(&mut self, node: DirNode, token: u64) {
        self.crawling = true;
        self.tickets.insert(token, node);
        *self.busy.entry(self.tree.wd(node)).or_default() += 1;
    }

    /// Takes in a record of the pool.
    pub(super) fn absorb_record(&mut self, record: Record, observer: &mut dyn Observer) {
        let Record {
            token,
            wd,
            tell,
            listing,
        } = record;
        let Some(node) = self.tickets.remove(&token) else {
            // What is above it was not taken in either.
            self.disown(&listing);
            return;
        };
        if let Some(count) = self.busy.get_mut(&wd) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&wd);
                self.ready.push_back(wd);
            }
        }
        if !self.tree.alive(node, wd) {
            self.disown(&listing);
            return;
        }
        if tell == Tell::Nobody
            && let Some(progress) = &mut self.quiet
        {
            progress.directories += 1;
        }
        let whom = self.settle_owed(node, tell);
        for (child, token) in self.absorb(node, listing, (whom, tell), observer) {
            self.expect(child, token);
        }
    }

    /// Puts a listing into the tree; returns the subdirectories, which are to be read next.
    /// `tell` says who is told of the entries, and who will be told of what is below them.
    fn absorb(
        &mut self,
        node: DirNode,
        listing: Listing,
        (tell, below_tell): (Tell, Tell),
        observer: &mut dyn Observer,
    ) -> Vec<(DirNode, u64)> {
        if !self.is_complete(node, &listing, tell, observer) {
            return Vec::new();
        }
        for (path, error) in &listing.failures {
            self.failed(path, error, observer);
        }
        if listing.skipped {
            self.tree.set(node, Flags::SKIPPED);
        }
        let before: Vec<DirNode> = self.tree.children(node).collect();
        let mut below = Vec::new();
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        let stem = path.len();
        for (name, found) in listing.entries() {
            path.truncate(stem);
            path.extend_from_slice(name);
            if found != FoundKind::File {
                path.push(b'/');
            }
            match found {
                FoundKind::File | FoundKind::Unwatched => {
                    if tell != Tell::Nobody && found == FoundKind::File {
                        let wd = self.tree.wd(node);
                        self.unclosed.touched(wd, name, false, self.now);
                    }
                    tell_found(tell, &path, observer);
                }
                FoundKind::Directory { wd, token } => {
                    let tells = (tell, below_tell);
                    if let Some((child, whom)) =
                        self.absorb_directory(node, name, wd, tells, observer)
                    {
                        tell_found(whom, &path, observer);
                        below.push((child, token));
                    }
                }
            }
        }
        self.doubt_unlisted(node, &before, &below);
        below
    }

    /// Returns true if there is a listing; if not, what comes of that is seen to.
    fn is_complete(
        &mut self,
        node: DirNode,
        listing: &Listing,
        tell: Tell,
        observer: &mut dyn Observer,
    ) -> bool {
        match &listing.outcome {
            ListOutcome::Complete => return true,
            ListOutcome::Astray | ListOutcome::Crowded => {
                self.disown(listing);
                self.doubt(node, What::Contents { tell });
            }
            ListOutcome::Failed(error) => {
                self.disown(listing);
                let mut path = Vec::new();
                self.tree.path(node, &mut path);
                observer.trouble(&path, error, "reading a directory");
            }
        }
        false
    }

    /// Puts a listed directory into the tree; returns it, and who is told of it.
    fn absorb_directory(
        &mut self,
        parent: DirNode,
        name: &[u8],
        wd: i32,
        (tell, below_tell): (Tell, Tell),
        observer: &mut dyn Observer,
    ) -> Option<(DirNode, Tell)> {
        let elsewhere = self.tree.knows(wd)
            && self
                .tree
                .child(parent, name)
                .is_none_or(|child| self.tree.wd(child) != wd);
        if elsewhere {
            // It moved since the tree knew of it, or since it was listed. Ask again, unless
            // that is certain to be asked anyway.
            let path = self.path_of(parent, name, true);
            if !self.probe(&path, false).is_ok_and(|now| now == wd) {
                self.doubt(parent, What::Name(name.to_vec()));
                return None;
            }
        }
        let (child, new) = match self.place(parent, name, wd, tell != Tell::Nobody, observer) {
            WatchPlaced::Same(child) => (child, false),
            WatchPlaced::New(child) => (child, true),
            WatchPlaced::Refused => {
                self.doubt(parent, What::Name(name.to_vec()));
                return None;
            }
            WatchPlaced::Loop => return None,
        };
        let owed = new || self.tree.has(child, Flags::REPORT_DUE);
        Some(match (tell, below_tell) {
            (Tell::Nobody, _) => (child, tell),
            (Tell::All, Tell::All) => {
                self.note_told(child);
                (child, tell)
            }
            // No one has seen it move: what is in it is news to everybody.
            (tell, _) if tell == Tell::All || owed => {
                self.tree.set(child, Flags::REPORT_DUE);
                self.tree.clear(child, Flags::REPORTED);
                (child, Tell::All)
            }
            _ => (child, tell),
        })
    }

    /// Directories the tree had and the listing has not are gone, or their events are to come.
    fn doubt_unlisted(&mut self, node: DirNode, before: &[DirNode], below: &[(DirNode, u64)]) {
        if before.is_empty() {
            return;
        }
        let listed: hashbrown::HashSet<DirNode> = below.iter().map(|&(child, _)| child).collect();
        for child in before.iter().filter(|child| !listed.contains(*child)) {
            if self.tree.parent(*child) == Some(node) {
                let name = self.tree.name(*child).to_vec();
                self.doubt(node, What::Name(name));
            }
        }
    }

    /// Watches that were set for a listing nobody can place.
    fn disown(&mut self, listing: &Listing) {
        for (_, found) in listing.entries() {
            if let FoundKind::Directory { wd, .. } = found {
                self.strays.push(wd);
            }
        }
        self.strays.extend(listing.stray);
    }

    /// After a directory came to another path, other scopes may want what is below, or none.
    pub(super) fn refilter(&mut self, top: DirNode) {
        let mut path = Vec::new();
        let mut next = self.tree.next(top, top);
        if self.tree.has(top, Flags::SKIPPED) {
            self.doubt(top, What::Skipped);
        }
        while let Some(node) = next {
            self.tree.path(node, &mut path);
            if !self.scopes.wanted(&path) {
                next = self.tree.next_beside(node, top);
                if let Some(parent) = self.tree.parent(node) {
                    self.tree.set(parent, Flags::SKIPPED);
                }
                self.drop_tree(node, Loss::Moved);
                continue;
            }
            if self.tree.has(node, Flags::SKIPPED) {
                self.doubt(node, What::Skipped);
            }
            next = self.tree.next(node, top);
        }
    }

    /// Looks for subdirectories that are wanted and not watched.
    pub(super) fn revisit(&mut self, node: DirNode, observer: &mut dyn Observer) {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        let wd = self.tree.wd(node);
        self.tree.clear(node, Flags::SKIPPED);
        let Ok(entries) = std::fs::read_dir(std::ffi::OsStr::from_bytes(&path)) else {
            // Gone, then an event says so; or moved again, then it is visited again.
            self.tree.set(node, Flags::SKIPPED);
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.as_bytes();
            let known = || self.tree.child(node, name).is_some();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || known() {
                continue;
            }
            if self.tree.alive(node, wd) {
                self.look(node, name, Cause::Doubt, observer);
            }
        }
    }
}
