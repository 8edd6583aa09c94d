//! Shared journal: syncs of one source with the same filter and delay share one journal. An event
//! is filtered and stored once, and each sync reads the journal when it may send. The leading sync
//! adds the events.
//!
//! A sync's own queue holds only active and failed entries and comparisons. Retries and delays are
//! its own.

use std::cell::RefCell;
use std::rc::Rc;

use super::Sync;
use crate::queue::journal::{Journal, Position, Pull, TargetId};
use crate::queue::{Etype, Placed, Policy, Pushed, Ready, Time, micros};

/// The maximum number of paths read at once, which bounds the memory of syncs with running
/// transfers.
const MAX_PULLED: usize = 10_000;

/// The position of a sync in a journal.
pub struct JournalReader {
    journal: Rc<RefCell<Journal>>,
    id: TargetId,
    leads: bool,
    /// Changes before this position are due without their delay.
    flushed_up_to: Position,
}

impl JournalReader {
    fn new(journal: Rc<RefCell<Journal>>, bound: usize, leads: bool) -> JournalReader {
        let id = journal.borrow_mut().add_target(bound);
        JournalReader {
            journal,
            id,
            leads,
            flushed_up_to: 0,
        }
    }

    /// Returns the number of paths that the journal keeps for any sync.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.journal.borrow().len()
    }
}

impl Drop for JournalReader {
    fn drop(&mut self) {
        self.journal.borrow_mut().remove_target(self.id);
    }
}

/// Lets `second` share journal, filter and scope of `first`. Both must have the same source, filter
/// and delay.
pub fn share(first: &mut Sync, second: &mut Sync) {
    second.share_scope(first);
    let coalesces = |sync: &Sync| sync.queue.policy() == Policy::Coalesce && !sync.config.moves;
    if !coalesces(first) || !coalesces(second) || second.journal_reader.is_some() {
        return;
    }
    let bound = |sync: &Sync| sync.config.max_pending;
    let first_bound = bound(first);
    let journal_reader = first
        .journal_reader
        .get_or_insert_with(|| JournalReader::new(Rc::default(), first_bound, true));
    second.journal_reader = Some(JournalReader::new(
        Rc::clone(&journal_reader.journal),
        bound(second),
        false,
    ));
    second.share_in_flight(first);
}

/// Lets `second` read the journal that `first` has inherited. Returns false if the two are not
/// compatible.
pub fn share_inherited(first: &Sync, second: &mut Sync) -> bool {
    let same = first.journal_group.is_some() && first.journal_group == second.journal_group;
    let (true, Some(journal_reader), Some(_)) =
        (same, &first.journal_reader, &second.journal_reader)
    else {
        return false;
    };
    let journal = Rc::clone(&journal_reader.journal);
    second.journal_reader = Some(JournalReader::new(
        journal,
        second.config.max_pending,
        false,
    ));
    second.share_in_flight(first);
    true
}

/// Chooses the leading sync of each journal, and releases journals of removed syncs. All syncs that
/// share one must be passed.
pub fn choose_leaders<'a>(syncs: impl Iterator<Item = &'a Rc<RefCell<Sync>>>) {
    let mut journals: Vec<(Rc<RefCell<Journal>>, Vec<TargetId>)> = Vec::new();
    for sync in syncs {
        let mut sync = sync.borrow_mut();
        let Some(journal_reader) = &mut sync.journal_reader else {
            continue;
        };
        let known = journals
            .iter_mut()
            .find(|(journal, _)| Rc::ptr_eq(journal, &journal_reader.journal));
        journal_reader.leads = known.is_none();
        match known {
            Some((_, ids)) => ids.push(journal_reader.id),
            None => journals.push((Rc::clone(&journal_reader.journal), vec![journal_reader.id])),
        }
    }
    for (journal, ids) in &journals {
        journal.borrow_mut().retain(ids);
    }
}

impl Sync {
    /// Returns true if the sync takes in events. Of syncs that share a journal only the leading one
    /// does.
    pub(super) fn takes_events(&self) -> bool {
        match &self.journal_reader {
            Some(journal_reader) => journal_reader.leads,
            None => !self.has_ended(),
        }
    }

    /// Takes over the journal position of the replaced sync, so that its changes are not copied.
    /// Returns false if the two are not compatible.
    pub(super) fn inherit_journal(&mut self, old: &Sync) -> bool {
        let same = self.journal_group.is_some() && self.journal_group == old.journal_group;
        let (true, Some(journal_reader), Some(before)) =
            (same, &mut self.journal_reader, &old.journal_reader)
        else {
            return false;
        };
        let bound = self.config.max_pending;
        let id = before.journal.borrow_mut().replace_target(before.id, bound);
        *journal_reader = JournalReader {
            journal: Rc::clone(&before.journal),
            id,
            leads: journal_reader.leads,
            flushed_up_to: 0,
        };
        true
    }

    /// Adds a change to the journal, if the sync has one.
    pub(super) fn to_journal(&self, etype: Etype, path: &[u8], due: Time) -> Option<Pushed> {
        let journal_reader = self.journal_reader.as_ref()?;
        journal_reader.journal.borrow_mut().push(etype, path, due);
        // This value is only logged.
        Some(Pushed::Placed(Placed::Refused))
    }

    /// Reads due changes from the journal if the own queue has none waiting. Returns the time at
    /// which more are due.
    pub(super) fn pull(&mut self, now: Time) -> Option<Time> {
        if self.journal_reader.is_none() || self.ready(now) != Ready::Nothing {
            return None;
        }
        let queue_limit = self.config.max_delays;
        let journal_reader = self.journal_reader.as_mut()?;
        let mut journal = journal_reader.journal.borrow_mut();
        if self.queue.is_empty() {
            journal.completed(journal_reader.id);
        }
        let is_flushed = !journal.has_passed(journal_reader.id, journal_reader.flushed_up_to);
        let list = match journal.pull(
            journal_reader.id,
            now,
            (queue_limit, MAX_PULLED.max(queue_limit)),
            is_flushed,
        ) {
            Pull::Nothing => return None,
            Pull::At(due) => return Some(due),
            Pull::Take(list) => list,
        };
        drop(journal);
        self.counters.events += list.len() as u64;
        for (etype, path, due) in list {
            self.changes.add(&path);
            if self.is_below_missing_mount(etype, &path) {
                continue;
            }
            if self.queue.push(etype, &path, None, due.min(now)) == Pushed::Placed(Placed::Refused)
            {
                self.owes_comparison = true;
            }
        }
        None
    }

    /// Schedules a full comparison if the journal has dropped changes that this sync has not read.
    pub(super) fn note_gap(&mut self) {
        if let Some(journal_reader) = &self.journal_reader {
            self.owes_comparison |= journal_reader
                .journal
                .borrow_mut()
                .take_overran(journal_reader.id);
        }
    }

    /// Returns true if changes were dropped from the journal before this sync has read them.
    pub(super) fn has_gap(&self) -> bool {
        let journal_reader = self.journal_reader.as_ref();
        journal_reader.is_some_and(|journal_reader| {
            journal_reader.journal.borrow().overran(journal_reader.id)
        })
    }

    /// Releases the journal's changes for this sync. It may still lead the others.
    pub(super) fn leave_journal(&self) {
        if let Some(journal_reader) = &self.journal_reader {
            journal_reader
                .journal
                .borrow_mut()
                .remove_target(journal_reader.id);
        }
    }

    /// Makes all changes in the journal due now.
    pub(super) fn flush_journal(&mut self) {
        if let Some(journal_reader) = &mut self.journal_reader {
            journal_reader.flushed_up_to = journal_reader.journal.borrow().last();
        }
    }

    /// Returns the position of the last change.
    pub(super) fn journal_end(&self) -> Position {
        self.journal_reader
            .as_ref()
            .map_or(0, |f| f.journal.borrow().last())
    }

    /// Returns true if the sync has read the journal up to `end`.
    pub(super) fn has_read_journal(&self, end: Position) -> bool {
        let journal_reader = self.journal_reader.as_ref();
        journal_reader.is_none_or(|journal_reader| {
            journal_reader
                .journal
                .borrow()
                .has_passed(journal_reader.id, end)
        })
    }

    /// Returns the number of pending changes in queue and journal.
    pub fn pending(&self) -> usize {
        let journal_reader = self.journal_reader.as_ref();
        self.queue.len()
            + journal_reader.map_or(0, |journal_reader| {
                journal_reader.journal.borrow().behind(journal_reader.id)
            })
    }

    /// Returns the first `most` unread changes of the journal.
    pub fn backlog(&self, most: usize) -> Vec<(Etype, Vec<u8>)> {
        let Some(journal_reader) = &self.journal_reader else {
            return Vec::new();
        };
        let journal = journal_reader.journal.borrow();
        let lacks = journal.lacks(journal_reader.id).take(most);
        lacks.map(|(etype, path)| (etype, path.to_vec())).collect()
    }

    /// Returns the time of the oldest pending change, within about a second.
    pub fn oldest_change(&self) -> Option<Time> {
        let due = self.first_due()?;
        // Comparisons and retries are due at once.
        let is_immediate = self.queue.oldest().is_some_and(|delay| {
            delay.etype().is_special() || self.failed_paths().is_tried(&delay.paths().0)
        });
        let waited = if is_immediate {
            0
        } else {
            micros(self.config.delay.unwrap_or_default())
        };
        Some(due.saturating_sub(waited))
    }

    /// Returns the time of the oldest change that is not on the target, pending or failed. Changes
    /// before the start are not known.
    pub fn behind_since(&self) -> Option<Time> {
        let failed = self.failed_paths().since();
        failed.into_iter().chain(self.oldest_change()).min()
    }

    /// Returns the time at which the oldest pending change was due.
    pub fn first_due(&self) -> Option<Time> {
        let journal_reader = self.journal_reader.as_ref();
        let journal = journal_reader
            .and_then(|journal_reader| journal_reader.journal.borrow().due(journal_reader.id));
        let own = self.queue.oldest().map(|delay| delay.first_due());
        own.into_iter().chain(journal).min()
    }
}
