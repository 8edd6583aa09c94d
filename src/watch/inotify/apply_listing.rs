//! Applies the listing of a directory to the tree.
//!
//! A directory that appears at run time is read at once, so that `mkdir -p` is handled in
//! microseconds; a large one is passed to the pool. Until the pool's record of a directory has been
//! applied, the directory's events wait, because its listing is older than they are.

use std::os::unix::ffi::OsStrExt;

use super::InotifyBackend;
use super::crawl::{CrawlRecord, CrawlTask, FoundKind, ListOutcome, Listing, list};
use super::reconcile::{Cause, RecheckTarget, WatchPlaced};
use super::roots::RootEvent;
use super::tree::{DirNode, Flags};
use crate::watch::{Event, Loss, Observer, Tell};

/// Reports a found path to the observers that `tell` selects.
fn report_found(tell: Tell, path: &[u8], observer: &mut dyn Observer) {
    match tell {
        Tell::Nobody => {}
        Tell::All => {
            observer.event(Event::Create { path });
        }
        Tell::Unmoved(number) => observer.found(path, number),
    }
}

/// The maximum number of entries and directories that are read on the loop's thread.
const MAX_INLINE_ENTRIES: usize = 256;
const MAX_INLINE_DIRECTORIES: usize = 64;

impl InotifyBackend {
    /// Reads a directory and everything below it, and reports what is found as created to the
    /// observers that `tell` selects.
    pub(super) fn read(&mut self, top: DirNode, tell: Tell, observer: &mut dyn Observer) {
        let mut pending = vec![(top, self.tree.wd(top), tell)];
        let mut entries = MAX_INLINE_ENTRIES;
        let mut directories = MAX_INLINE_DIRECTORIES;
        while let Some((node, wd, tell)) = pending.pop() {
            if !self.tree.alive(node, wd) {
                continue;
            }
            let tell = self.take_report_due(node, tell);
            if tell == Tell::All {
                self.mark_reported(node);
            }
            let task = self.task(node, tell);
            if entries == 0 || directories == 0 || self.pending_reads.contains_key(&wd) {
                self.submit(node, task);
                continue;
            }
            let listing = list(&mut self.kernel, &task, Some(entries));
            if matches!(listing.outcome, ListOutcome::TooLarge) {
                self.submit(node, task);
                continue;
            }
            entries = entries.saturating_sub(listing.len());
            directories -= 1;
            let below = self.apply_listing(node, listing, (tell, tell), observer);
            pending.extend(
                below
                    .into_iter()
                    .map(|(child, _)| (child, self.tree.wd(child), tell)),
            );
            self.ready.push_back(wd);
        }
    }

    /// Returns the observers to which the contents of a directory are reported: all of them if the
    /// node has
    /// [`Flags::REPORT_DUE`], which is cleared.
    fn take_report_due(&mut self, node: DirNode, tell: Tell) -> Tell {
        match tell {
            Tell::Unmoved(_) if self.tree.has(node, Flags::REPORT_DUE) => {
                self.mark_reported(node);
                Tell::All
            }
            tell => tell,
        }
    }

    fn mark_reported(&mut self, node: DirNode) {
        self.tree.clear(node, Flags::REPORT_DUE);
        self.tree.set(node, Flags::REPORTED);
    }

    /// Passes a directory and everything below it to the pool for reading.
    pub(super) fn submit(&mut self, node: DirNode, task: CrawlTask) {
        let path = task.path.clone();
        match self.pool.submit(task) {
            Ok(token) => self.expect(node, token),
            Err(error) => self.report_later(RootEvent::Trouble(path, error, "starting to read")),
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

    /// Makes the directory's events wait for the record with this token.
    pub(super) fn expect(&mut self, node: DirNode, token: u64) {
        self.crawling = true;
        self.tickets.insert(token, node);
        *self.pending_reads.entry(self.tree.wd(node)).or_default() += 1;
    }

    /// Applies a record of the pool.
    pub(super) fn apply_record(&mut self, record: CrawlRecord, observer: &mut dyn Observer) {
        let CrawlRecord {
            token,
            wd,
            tell,
            listing,
        } = record;
        let Some(node) = self.tickets.remove(&token) else {
            // The listing above it was not applied either.
            self.add_orphans(&listing);
            return;
        };
        if let Some(count) = self.pending_reads.get_mut(&wd) {
            *count -= 1;
            if *count == 0 {
                self.pending_reads.remove(&wd);
                self.ready.push_back(wd);
            }
        }
        if !self.tree.alive(node, wd) {
            self.add_orphans(&listing);
            return;
        }
        if tell == Tell::Nobody
            && let Some(progress) = &mut self.initial_scan
        {
            progress.directories += 1;
        }
        self.names_read.add(listing.total);
        let whom = self.take_report_due(node, tell);
        for (child, token) in self.apply_listing(node, listing, (whom, tell), observer) {
            self.expect(child, token);
        }
    }

    /// Applies a listing to the tree and returns the subdirectories, which are read next. `tell`
    /// selects the observers for the entries and, in the result, for the contents of each
    /// subdirectory.
    fn apply_listing(
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
            self.report_failure(path, error, observer);
        }
        if listing.skipped || !listing.failures.is_empty() {
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
                        self.open_files.touched(wd, name, false, self.now);
                    }
                    report_found(tell, &path, observer);
                }
                FoundKind::Directory { wd, token } => {
                    let tells = (tell, below_tell);
                    if let Some((child, whom)) =
                        self.apply_directory(node, name, wd, tells, observer)
                    {
                        report_found(whom, &path, observer);
                        below.push((child, token));
                    }
                }
            }
        }
        self.recheck_unlisted(node, &before, &below);
        below
    }

    /// Returns true if there is a listing; otherwise handles the failure.
    fn is_complete(
        &mut self,
        node: DirNode,
        listing: &Listing,
        tell: Tell,
        observer: &mut dyn Observer,
    ) -> bool {
        match &listing.outcome {
            ListOutcome::Complete => return true,
            ListOutcome::PathChanged | ListOutcome::TooLarge => {
                self.add_orphans(listing);
                self.recheck(node, RecheckTarget::Contents { tell });
            }
            ListOutcome::Failed(error) => {
                self.add_orphans(listing);
                self.tree.set(node, Flags::SKIPPED);
                let mut path = Vec::new();
                self.tree.path(node, &mut path);
                observer.watch_failed(&path, error, "reading a directory");
            }
        }
        false
    }

    /// Adds a listed directory to the tree; returns its node and the observers to which its
    /// contents are reported.
    fn apply_directory(
        &mut self,
        parent: DirNode,
        name: &[u8],
        wd: i32,
        (tell, below_tell): (Tell, Tell),
        observer: &mut dyn Observer,
    ) -> Option<(DirNode, Tell)> {
        let elsewhere = self.tree.has_watch(wd)
            && self
                .tree
                .child(parent, name)
                .is_none_or(|child| self.tree.wd(child) != wd);
        if elsewhere {
            // It moved since the tree or the listing saw it. Recheck it, unless an event is certain
            // to do so.
            let path = self.path_of(parent, name, true);
            if !self.probe(&path, false).is_ok_and(|now| now == wd) {
                self.recheck(parent, RecheckTarget::Name(name.to_vec()));
                return None;
            }
        }
        let (child, new) =
            match self.place_directory(parent, name, wd, tell != Tell::Nobody, observer) {
                WatchPlaced::Same(child) => (child, false),
                WatchPlaced::New(child) => (child, true),
                WatchPlaced::Refused => {
                    self.recheck(parent, RecheckTarget::Name(name.to_vec()));
                    return None;
                }
                WatchPlaced::Loop => return None,
            };
        let owed = new || self.tree.has(child, Flags::REPORT_DUE);
        Some(match (tell, below_tell) {
            (Tell::Nobody, _) => (child, tell),
            (Tell::All, Tell::All) => {
                self.mark_reported(child);
                (child, tell)
            }
            // The move was not seen, so its contents are reported to all observers.
            (tell, _) if tell == Tell::All || owed => {
                self.tree.set(child, Flags::REPORT_DUE);
                self.tree.clear(child, Flags::REPORTED);
                (child, Tell::All)
            }
            _ => (child, tell),
        })
    }

    /// Schedules rechecks of directories in the tree that the listing lacks: they are gone, or
    /// their events are still to come.
    fn recheck_unlisted(&mut self, node: DirNode, before: &[DirNode], below: &[(DirNode, u64)]) {
        if before.is_empty() {
            return;
        }
        let listed: hashbrown::HashSet<DirNode> = below.iter().map(|&(child, _)| child).collect();
        for child in before.iter().filter(|child| !listed.contains(*child)) {
            if self.tree.parent(*child) == Some(node) {
                let name = self.tree.name(*child).to_vec();
                self.recheck(node, RecheckTarget::Name(name));
            }
        }
    }

    /// Collects the watches of a listing that cannot be applied.
    fn add_orphans(&mut self, listing: &Listing) {
        for (_, found) in listing.entries() {
            if let FoundKind::Directory { wd, .. } = found {
                self.orphans.push(wd);
            }
        }
        self.orphans.extend(listing.orphan);
    }

    /// Rechecks the scopes' filters below a directory that has a new path: other scopes may want
    /// the directories there, or none.
    pub(super) fn refilter(&mut self, top: DirNode) {
        let mut path = Vec::new();
        let mut next = self.tree.next(top, top);
        if self.tree.has(top, Flags::SKIPPED) {
            self.recheck(top, RecheckTarget::Skipped);
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
                self.recheck(node, RecheckTarget::Skipped);
            }
            next = self.tree.next(node, top);
        }
    }

    /// Searches for subdirectories that are wanted and not watched.
    pub(super) fn revisit(&mut self, node: DirNode, observer: &mut dyn Observer) {
        let mut path = Vec::new();
        self.tree.path(node, &mut path);
        let wd = self.tree.wd(node);
        self.tree.clear(node, Flags::SKIPPED);
        let Ok(entries) = std::fs::read_dir(std::ffi::OsStr::from_bytes(&path)) else {
            // If it was removed, an event reports it; if it was moved again, it is visited again.
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
                self.reconcile(node, name, Cause::Recheck, observer);
            }
        }
    }
}
