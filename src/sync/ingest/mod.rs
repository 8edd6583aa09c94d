//! Ingest of watcher events: cuts paths to the source, applies the filter and queues the event.
//!
//! * `change_record`: the paths that change during a comparison;
//! * `describe`: log lines;
//! * `in_flight`: comparisons that precede a watch;
//! * `queue_limit`: the limit of pending paths.

mod change_record;
mod describe;
mod in_flight;
mod queue_limit;

pub(super) use change_record::ChangeRecord;
pub(super) use in_flight::InFlight;
pub(super) use queue_limit::QueueLimit;

use std::sync::PoisonError;

use super::Sync;
use crate::log;
use crate::paths;
use crate::queue::{Delay, DelayId, Etype, Placed, Policy, Pushed, Status, Time};
use crate::watch::{Event, Follow, InotifyMode};

/// The maximum number of recorded directory renames. Events below further ones are queued
/// individually.
const MAX_RENAMES: usize = 64;

impl Sync {
    /// Handles an event of an absolute path, if it concerns this sync.
    ///
    /// Returns if a rename was queued as a Move, or if the contents of the directory must be
    /// reported as Creates.
    pub fn ingest(&mut self, event: Event<'_>, now: Time) -> Follow {
        if !self.takes_events() {
            return Follow::Nothing;
        }
        let (etype, path) = match event {
            Event::Create { path } => (Etype::Create, path),
            Event::Modify { path } => (Etype::Modify, path),
            Event::Attrib { path } => (Etype::Attrib, path),
            Event::Delete { path } => (Etype::Delete, path),
            Event::Move { from, to } => return self.ingest_move(from, to, now),
        };
        if let Some(path) = self.relative(path) {
            self.ingest_path(etype, path, now);
        }
        Follow::Nothing
    }

    /// Takes in a write to an absolute path or, if `closed`, a close after writing. `inotifyMode`
    /// decides which of the two is a change.
    pub fn written(&mut self, path: &[u8], closed: bool, now: Time) {
        let concerned = match self.config.mode.unwrap_or_default() {
            InotifyMode::CloseWrite => closed,
            InotifyMode::Modify => !closed,
            InotifyMode::CloseWriteOrModify => true,
        };
        if concerned {
            self.ingest(Event::Modify { path }, now);
        }
    }

    /// Takes in a move, of which both, one or none of the paths may concern this sync.
    fn ingest_move(&mut self, from: &[u8], to: &[u8], now: Time) -> Follow {
        let follow = match to.last() {
            Some(b'/') => Follow::Contents,
            _ => Follow::Nothing,
        };
        match (self.relative(from), self.relative(to)) {
            (None, None) => Follow::Nothing,
            (Some(from), None) => {
                self.transformed("Delete");
                self.ingest_path(Etype::Delete, from, now);
                Follow::Nothing
            }
            (None, Some(to)) => {
                self.transformed("Create");
                self.ingest_path(Etype::Create, to, now);
                follow
            }
            (Some(from), Some(to)) => self.ingest_inner_move(from, to, follow, now),
        }
    }

    /// Takes in a move within the source.
    fn ingest_inner_move(&mut self, from: &[u8], to: &[u8], follow: Follow, now: Time) -> Follow {
        match (self.excluded(from), self.excluded(to)) {
            (true, true) => {
                filtered(Etype::Move, from);
                Follow::Nothing
            }
            (false, true) => {
                log::say(
                    "Filter",
                    format_args!(
                        "filtered destination transformed Move to Delete {}",
                        log::escape(from)
                    ),
                );
                self.store(Etype::Delete, from, None, now);
                Follow::Nothing
            }
            (true, false) => {
                // The text, including the point in place of a blank, is lsyncd's.
                log::say(
                    "Filter",
                    format_args!(
                        "filtered origin transformed Move to Create.{}",
                        log::escape(to)
                    ),
                );
                self.store(Etype::Create, to, None, now);
                follow
            }
            (false, false) if self.config.moves && self.moves_alike(from, to) => {
                self.rename_failed_paths(from, to, now);
                match self.store(Etype::Move, from, Some(to), now) {
                    Pushed::Split { .. } => follow,
                    Pushed::Placed(_) => Follow::Moved,
                }
            }
            (false, false) => {
                log::say("Delay", "splitting Move into Delete & Create");
                self.store(Etype::Delete, from, None, now);
                self.store(Etype::Create, to, None, now);
                follow
            }
        }
    }

    /// Records that the directory rename of this number was queued as a Move.
    pub fn record_rename(&mut self, number: u64) {
        if self.renames.len() == MAX_RENAMES {
            self.renames.pop_front();
        }
        self.renames.push_back(number);
    }

    /// Returns true if the directory rename of this number was queued as a Move, which includes the
    /// directory's contents.
    pub fn has_recorded_rename(&self, number: u64) -> bool {
        self.renames.contains(&number)
    }

    /// Returns true if the Move has the same effect on the target. Patterns with a slash may
    /// exclude a name in one of the two directories only. User functions get each Move.
    fn moves_alike(&self, from: &[u8], to: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        self.queue.policy() == Policy::PerEvent
            || !from.ends_with(b"/")
            || filter.is_alike_below(from, to)
    }

    fn transformed(&self, to: &str) {
        log::normal(format_args!(
            "Transformed Move to {to} for {}",
            self.config.name
        ));
    }

    /// Takes in an event of one path, if the filter accepts it.
    pub(in crate::sync) fn ingest_path(&mut self, etype: Etype, path: &[u8], now: Time) {
        if self.excluded(path) {
            return filtered(etype, path);
        }
        self.store(etype, path, None, now);
    }

    /// Adds an event to the shared journal, or to the sync's own queue.
    fn store(&mut self, etype: Etype, path: &[u8], to: Option<&[u8]>, now: Time) -> Pushed {
        for path in [Some(path), to].into_iter().flatten() {
            self.changes.add(path);
        }
        if let Some(warm) = &mut self.warm_start {
            warm.note(etype, path, to);
        }
        let (etype, due) = (self.in_flight_etype(etype, path), self.due(now));
        match self.to_journal(etype, path, due) {
            Some(pushed) => pushed,
            None => self.push(etype, path, to, now),
        }
    }

    /// Adds an event to the sync's own queue.
    pub(in crate::sync) fn push(
        &mut self,
        etype: Etype,
        path: &[u8],
        to: Option<&[u8]>,
        now: Time,
    ) -> Pushed {
        self.counters.events += 1;
        self.keep_equal_inherited(etype, path, to);
        let due = self.due(now);
        // With other permissions, the contents of a directory may be readable.
        let failed = match etype {
            Etype::Attrib => self.failed_paths().etype_of(path),
            _ => None,
        };
        let etype = failed.unwrap_or(etype);
        let pushed = match self.push_beyond_limit(etype, path, to, due, now) {
            Some(pushed) => pushed,
            None => self.queue.push(etype, path, to, due),
        };
        if log::enabled("Delay") {
            let line = describe::describe(&self.queue, pushed, etype, path, to);
            log::say("Delay", line);
        }
        if pushed == Pushed::Placed(Placed::Refused) {
            self.owes_comparison = true;
        }
        pushed
    }

    /// Returns the waiting entry of this absolute path of a file, if the sync sends the contents at
    /// the time of the transfer. User functions get each event as it was.
    pub fn waiting(&self, path: &[u8]) -> Option<DelayId> {
        match self.queue.policy() {
            Policy::Coalesce => self.queue.open_at(self.relative(path)?),
            Policy::PerEvent => None,
        }
    }

    /// Returns the absolute paths for which [`Sync::waiting`] returns an entry; `None` if the queue
    /// has more than `max` entries.
    pub fn waiting_files(&self, max: usize) -> Option<Vec<Vec<u8>>> {
        if self.queue.len() > max {
            return None;
        }
        let source = paths::bare(&self.config.source);
        let waits = |delay: &Delay<'_>| {
            let other = delay.etype() == Etype::Move || delay.etype().is_special();
            !other && delay.status() != Status::Active
        };
        let files = self.queue.iter().filter(waits).map(|delay| delay.paths().0);
        let files = files.filter(|path| !path.ends_with(b"/"));
        Some(files.map(|path| [source, &path].concat()).collect())
    }

    /// Returns the path relative to the source, with a leading slash; `/` for the root, `None` for
    /// other paths.
    pub fn relative<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let root = self.config.source.len() - 1;
        let below = path.strip_prefix(self.config.source.as_slice())?;
        let inside = paths::bare(below).contains(&b'/');
        (self.config.subdirs || !inside).then(|| &path[root..])
    }

    /// Returns true if a change of this absolute path concerns the sync.
    pub fn concerns(&self, path: &[u8]) -> bool {
        self.relative(path)
            .is_some_and(|path| path == b"/" || !self.excluded(path))
    }

    /// Returns true if the filter excludes this path. A link that rsync follows may be a directory
    /// for it, or may have been one.
    pub fn excluded(&self, path: &[u8]) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        let may_be_directory = self.follows_links && !path.ends_with(b"/");
        filter.excluded(path) && (!may_be_directory || filter.excluded(&paths::with_slash(path)))
    }
}

fn filtered(etype: Etype, path: &[u8]) {
    if log::enabled("Filter") {
        let (etype, path) = (etype.name(), log::escape(path));
        log::say("Filter", format_args!("filtered {etype} on \"{path}\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::FailedEntries;
    use crate::sync::tests::sync_with;

    fn moved(sync: &mut Sync, from: &str, to: &str) -> Follow {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        sync.ingest(Event::Move { from, to }, 0)
    }

    /// On the target a file would stay that the new name excludes, and one that the old name
    /// excluded would be missing.
    #[test]
    fn a_directory_below_which_a_pattern_excludes_other_names_is_not_moved_on_the_target() {
        for (policy, from, to, follow) in [
            (Policy::Coalesce, "/src/a/", "/src/b/", Follow::Contents),
            (Policy::Coalesce, "/src/b/", "/src/a/", Follow::Contents),
            (Policy::Coalesce, "/src/b/", "/src/c/", Follow::Moved),
            (Policy::Coalesce, "/src/b/x", "/src/a/y", Follow::Moved),
            (Policy::PerEvent, "/src/a/", "/src/b/", Follow::Moved),
        ] {
            let mut sync = sync_with(policy);
            sync.filter.write().unwrap().add_exclude(b"/a/x");
            assert_eq!(moved(&mut sync, from, to), follow, "{from} {to}");
        }
    }

    /// Its events name it like a file.
    #[test]
    fn a_followed_link_is_excluded_only_if_a_directory_of_that_name_is() {
        let mut sync = sync_with(Policy::Coalesce);
        for rule in [&b"+ d/"[..], b"- *"] {
            sync.filter.write().unwrap().append_rule(rule).unwrap();
        }
        for (follows, path, excluded) in [
            (false, &b"/d"[..], true),
            (true, b"/d", false),
            (true, b"/e", true),
            (true, b"/d/", false),
            (true, b"/e/", true),
        ] {
            sync.set_follows_links(follows);
            assert_eq!(sync.excluded(path), excluded, "{follows}");
        }
    }

    #[test]
    fn the_root_and_what_is_not_excluded_below_it_concern_a_sync() {
        let sync = sync_with(Policy::Coalesce);
        sync.filter.write().unwrap().add_exclude(b"*.tmp");
        for (path, concerns) in [
            (&b"/src/"[..], true),
            (b"/src/a", true),
            (b"/src/a.tmp", false),
            (b"/srcs/a", false),
            (b"/other", false),
        ] {
            assert_eq!(sync.concerns(path), concerns, "{}", path.escape_ascii());
        }
    }

    /// What rsync could not read in it may be readable now.
    #[test]
    fn new_attributes_of_a_failed_directory_send_its_contents() {
        let mut sync = sync_with(Policy::Coalesce);
        let failed = [(b"/d/".to_vec(), Etype::Create)].into();
        sync.partly_failed(&[], FailedEntries::Paths(failed, Default::default()), 0);
        for path in [&b"/src/d/"[..], b"/src/e/"] {
            sync.ingest(Event::Attrib { path }, 0);
        }
        let etypes = sync.queue.iter().map(|delay| delay.etype());
        assert_eq!(etypes.collect::<Vec<_>>(), [Etype::Create, Etype::Attrib]);
        assert_eq!(sync.counters.events, 2);
    }
}
