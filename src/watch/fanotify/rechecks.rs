//! Names whose last events may have been handled out of order.
//!
//! The last report for such a name is compared with the disk when all events that were in the queue
//! have been handled. Later events are newer than the comparison.

use hashbrown::HashMap;

use super::FanotifyBackend;
use super::records::{EntryName, HandleRef};
use crate::paths;
use crate::watch::{Event, Observer};

/// The maximum number of names. If there are more, changes count as lost.
const MAX_RECHECKS: usize = 50_000;

/// A directory, by place and handle, and a name in it.
type RecheckKey = (usize, Vec<u8>, Vec<u8>);

#[derive(Hash)]
struct SeekRecheck<'a>(usize, &'a [u8], &'a [u8]);

impl hashbrown::Equivalent<RecheckKey> for SeekRecheck<'_> {
    fn equivalent(&self, key: &RecheckKey) -> bool {
        (self.0, self.1, self.2) == (key.0, key.1.as_slice(), key.2.as_slice())
    }
}

/// The last report for a name.
struct NameRecheck {
    /// There is something.
    present: bool,
    /// It is a directory.
    directory: bool,
    /// The report is ahead of events that have not been handled yet.
    doubtful: bool,
    /// The position behind the events that were in the queue.
    mark: u64,
}

/// The names that are rechecked.
#[derive(Default)]
pub struct NameRechecks(HashMap<RecheckKey, NameRecheck>);

impl NameRechecks {
    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

fn seek<'a>(place: usize, entry: EntryName<'a>) -> SeekRecheck<'a> {
    SeekRecheck(place, entry.directory.bytes, entry.name)
}

impl FanotifyBackend {
    /// Schedules a recheck of a name that was reported as existing or missing; `doubtful` if the
    /// report was made from the disk.
    pub(super) fn recheck(
        &mut self,
        place: usize,
        entry: EntryName<'_>,
        directory: bool,
        present: bool,
        doubtful: bool,
    ) {
        if self.rechecks.0.len() >= MAX_RECHECKS {
            self.rechecks.clear();
            self.lose("too many names have changed several times");
        }
        let key = (place, entry.directory.bytes.to_vec(), entry.name.to_vec());
        let mark = self.reader.mark();
        let doubtful = doubtful || self.is_doubtful(place, entry);
        let recheck = NameRecheck {
            present,
            directory,
            doubtful,
            mark,
        };
        self.rechecks.0.insert(key, recheck);
    }

    /// Records the report of an event for a name.
    pub(super) fn set_recheck(&mut self, place: usize, entry: EntryName<'_>, present: bool) {
        if !self.rechecks.is_empty()
            && let Some(recheck) = self.rechecks.0.get_mut(&seek(place, entry))
        {
            recheck.present = present;
        }
    }

    /// Returns true if the report for the name is ahead of events that have not been handled yet.
    pub(super) fn is_doubtful(&self, place: usize, entry: EntryName<'_>) -> bool {
        let recheck = self.rechecks.0.get(&seek(place, entry));
        recheck.is_some_and(|recheck| recheck.doubtful)
    }

    /// Compares names with the disk whose events have all been handled.
    pub(super) fn run_rechecks(&mut self, observer: &mut dyn Observer) {
        if self.rechecks.is_empty() {
            return;
        }
        let mut rechecks = std::mem::take(&mut self.rechecks);
        let is_due = |_: &RecheckKey, recheck: &mut NameRecheck| self.has_handled(recheck.mark);
        let due: Vec<_> = rechecks.0.extract_if(is_due).collect();
        self.rechecks = rechecks;
        for ((place, handle, name), recheck) in due {
            let system = self.places.all()[place].system;
            let directory = HandleRef {
                system,
                bytes: &handle,
            };
            let entry = EntryName {
                directory,
                name: &name,
            };
            let now = self.kind_of(place, entry);
            if now.is_some() == recheck.present || self.find_wanted(place, &handle).is_none() {
                continue;
            }
            let path = [&self.path[..], &name].concat();
            if now.is_some() {
                self.report_kind(place, entry, now, &path, observer);
            } else if recheck.directory {
                let path = paths::with_slash(&path);
                observer.event(Event::Delete { path: &path });
            } else {
                observer.event(Event::Delete { path: &path });
            }
        }
    }
}
