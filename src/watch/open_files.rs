//! Files that were written and not closed, as far as one can know.
//!
//! Where a change is told when its file is closed, truncate(2) by path would never be told, as
//! it opens nothing; nor would a log file that stays open for months. So the kernel is asked
//! for `IN_MODIFY` as well, and a file is kept in mind from its first write to its close. One
//! that has been quiet for a moment is looked at: if nobody has it open for writing, the
//! change is told; else when it has been open for too long, and again after that time.
//!
//! What is kept in mind also says which files are better not sent yet: see
//! [`Watcher::being_written`].
//!
//! The usual file is made, written and closed before the next one, so the last one has a
//! place of its own and costs no look-up. Files that were made or found and not written since
//! are kept apart: there is nothing to tell of them, so nobody looks at them until one is to
//! be sent. Most of them are complete.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use hashbrown::{Equivalent, HashMap};

use super::watcher::Watcher;
use super::{Event, Observer};

/// A file is looked at when nothing has been written for so long.
const CHECK_DELAY: Duration = Duration::from_millis(300);
/// The time between two looks at whatever is due then. Every look goes through all files.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Files nobody has written or asked for in so long are forgotten if they are complete.
const FORGET_DELAY: Duration = Duration::from_secs(10);
/// How many files that were not written are kept in mind. What is made without being written
/// (links), or found in a directory that is new, comes in thousands and is none the worse for
/// being forgotten.
const MAX_UNWRITTEN: usize = 4096;

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenFile {
    /// Since when there is something to be told.
    since: Instant,
    due: Instant,
    /// Written since it was made or told.
    written: bool,
    /// Someone waits to be told that it is complete.
    owed: bool,
    /// It is open for writing, or may be.
    busy: bool,
    /// It was told though it was not closed. From then on it is never held back.
    told: bool,
}

impl OpenFile {
    fn new(written: bool, now: Instant) -> OpenFile {
        OpenFile {
            since: now,
            due: now + CHECK_DELAY,
            written,
            owed: false,
            busy: false,
            told: false,
        }
    }

    /// There is something to be told, at once or later.
    fn news(&self) -> bool {
        self.written || self.owed
    }

    /// It has to be looked at when it is due.
    fn pressing(&self) -> bool {
        self.news() || self.told
    }
}

type OpenFileKey = (i32, Vec<u8>);

#[derive(Hash)]
struct Seek<'a>(i32, &'a [u8]);

impl Equivalent<OpenFileKey> for Seek<'_> {
    fn equivalent(&self, place: &OpenFileKey) -> bool {
        self.0 == place.0 && self.1 == place.1.as_slice()
    }
}

/// The files kept in mind, by directory and name.
pub struct OpenFiles {
    /// Files are told after so long even if they are not closed; `None`: nothing is tracked.
    staleness: Option<Duration>,
    last: OpenFileKey,
    last_state: Option<OpenFile>,
    /// Those that are due at some time.
    pressing: HashMap<OpenFileKey, OpenFile>,
    /// Those nothing is to be told of.
    idle: HashMap<OpenFileKey, OpenFile>,
    /// Nothing is due before.
    due: Option<Instant>,
}

impl OpenFiles {
    pub fn new(staleness: Option<Duration>) -> OpenFiles {
        OpenFiles {
            staleness,
            last: (0, Vec::new()),
            last_state: None,
            pressing: HashMap::new(),
            idle: HashMap::new(),
            due: None,
        }
    }

    pub fn tracks(&self) -> bool {
        self.staleness.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.last_state.is_none() && self.pressing.is_empty() && self.idle.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// A file was made or `written`.
    pub fn touched(&mut self, wd: i32, name: &[u8], written: bool, now: Instant) {
        if self.staleness.is_none() {
            return;
        }
        if !self.is_last(wd, name) {
            let state = self.remove(wd, name);
            self.push_last();
            self.last.0 = wd;
            self.last.1.clear();
            self.last.1.extend_from_slice(name);
            self.last_state = state;
        }
        let state = self.last_state.get_or_insert(OpenFile::new(written, now));
        if written && !state.written {
            state.written = true;
            state.since = now;
        }
        if !state.busy {
            state.due = now + CHECK_DELAY;
        }
        if state.pressing() {
            let due = state.due;
            self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
    }

    /// It was closed: nothing is unknown about it.
    pub fn closed(&mut self, wd: i32, name: &[u8]) {
        self.remove(wd, name);
    }

    /// It has another name now.
    pub fn moved(&mut self, from: (i32, &[u8]), to: (i32, &[u8])) {
        if let Some(state) = self.remove(from.0, from.1) {
            self.keep((to.0, to.1.to_vec()), state);
        }
    }

    fn is_last(&self, wd: i32, name: &[u8]) -> bool {
        self.last_state.is_some() && self.last.0 == wd && self.last.1 == name
    }

    fn remove(&mut self, wd: i32, name: &[u8]) -> Option<OpenFile> {
        if self.is_last(wd, name) {
            return self.last_state.take();
        }
        let seek = Seek(wd, name);
        let maps = [&mut self.pressing, &mut self.idle];
        let mut filled = maps.into_iter().filter(|map| !map.is_empty());
        filled.find_map(|map| map.remove(&seek))
    }

    /// Makes room for another last one.
    fn push_last(&mut self) {
        if let Some(state) = self.last_state.take() {
            self.keep(self.last.clone(), state);
        }
    }

    fn keep(&mut self, place: OpenFileKey, state: OpenFile) {
        if state.pressing() {
            self.pressing.insert(place, state);
            return;
        }
        if self.idle.len() >= MAX_UNWRITTEN {
            self.idle.clear();
        }
        self.idle.insert(place, state);
    }

    /// All that is due, to be told or kept again.
    fn take_due(&mut self, now: Instant) -> Vec<(OpenFileKey, OpenFile)> {
        self.push_last();
        let due = |_: &OpenFileKey, state: &mut OpenFile| state.due <= now;
        self.pressing.extract_if(due).collect()
    }

    /// Finds out anew when something is due.
    fn reckon(&mut self, now: Instant) {
        let first = self.pressing.values().map(|state| state.due).min();
        self.due = first.map(|due| due.max(now + MIN_CHECK_INTERVAL));
    }
}

/// What stands at a path.
enum WriteCheck {
    /// No file whose contents could change.
    Other,
    /// Nobody has it open for writing.
    Complete,
    /// Someone has, or there is no way to know.
    Open { certain: bool },
}

/// A read lease is refused for a file that is open for writing (fcntl(2)). It is given back
/// at once; whoever opens the file in between waits for that.
fn look(path: &[u8]) -> WriteCheck {
    let path = OsStr::from_bytes(path);
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_file() => {}
        _ => return WriteCheck::Other,
    }
    let unknown = WriteCheck::Open { certain: false };
    let Ok(file) = open(path) else {
        return unknown;
    };
    match crate::sys::is_open_for_writing(file.as_fd()) {
        Ok(false) => WriteCheck::Complete,
        Ok(true) => WriteCheck::Open { certain: true },
        Err(_) => unknown,
    }
}

fn open(path: &OsStr) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

impl Watcher {
    /// Tells what has been quiet, or open for too long.
    pub(super) fn tell_unclosed(&mut self, observer: &mut dyn Observer) {
        let Some(staleness) = self.unclosed.staleness else {
            return;
        };
        if self.unclosed.due.is_none_or(|due| due > self.now) {
            return;
        }
        for (place, mut state) in self.unclosed.take_due(self.now) {
            let Some(node) = self.tree.first(place.0) else {
                continue;
            };
            let news = state.news();
            let path = self.path_of(node, &place.1, false);
            match look(&path) {
                WriteCheck::Other if !state.owed => continue,
                WriteCheck::Other | WriteCheck::Complete if news => {
                    self.tell_written(&place, observer)
                }
                WriteCheck::Other | WriteCheck::Complete => {}
                WriteCheck::Open { certain } if news || certain => {
                    state.busy = true;
                    state.due = state.since + staleness;
                    if state.due <= self.now {
                        state.due = self.now + staleness;
                        state.since = self.now;
                        if news {
                            self.tell_written(&place, observer);
                            state.told = true;
                            state.written = false;
                            state.owed = false;
                        }
                    }
                    self.unclosed.keep(place, state);
                }
                WriteCheck::Open { .. } => {}
            }
        }
        self.unclosed.reckon(self.now);
    }

    fn tell_written(&mut self, (wd, name): &(i32, Vec<u8>), observer: &mut dyn Observer) {
        for node in self.tree.places(*wd) {
            let path = self.path_of(node, name, false);
            observer.event(Event::Modify { path: &path });
        }
    }

    /// The paths among those `interested` says yes to that are files someone is writing now.
    /// Each will be told as [`Event::Modify`], when it is closed or too old.
    pub fn being_written(&mut self, interested: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        if self.unclosed.is_empty() {
            return found;
        }
        self.unclosed.push_last();
        let mut pressing = std::mem::take(&mut self.unclosed.pressing);
        pressing
            .retain(|place, state| state.told || self.ask(place, state, interested, &mut found));
        let mut idle = std::mem::take(&mut self.unclosed.idle);
        idle.retain(|place, state| self.ask(place, state, interested, &mut found));
        pressing.extend(idle.extract_if(|_, state| state.pressing()));
        self.unclosed.pressing = pressing;
        self.unclosed.idle = idle;
        self.unclosed.reckon(self.now);
        found
    }

    /// False if there is nothing more to be known about the file.
    fn ask(
        &mut self,
        (wd, name): &OpenFileKey,
        state: &mut OpenFile,
        interested: &dyn Fn(&[u8]) -> bool,
        found: &mut Vec<Vec<u8>>,
    ) -> bool {
        let news = state.news();
        let old = !news && !state.busy && state.since + FORGET_DELAY <= self.now;
        for node in self.tree.places(*wd) {
            let path = self.path_of(node, name, false);
            let wanted = interested(&path);
            if !wanted && !old {
                continue;
            }
            match look(&path) {
                WriteCheck::Open { certain } if certain || state.written => {
                    state.busy |= old;
                    if wanted {
                        state.owed = true;
                        found.push(path);
                    }
                }
                _ if !news => return false,
                _ => {}
            }
        }
        true
    }

    /// How long ago the oldest change was made that is told only when its file is closed or too
    /// old; `None` if there is none.
    pub fn oldest_unclosed(&self) -> Option<Duration> {
        let states = self.unclosed.pressing.values();
        let states = states.chain(self.unclosed.last_state.as_ref());
        let open = states.filter(|state| state.news()).map(|state| state.since);
        Some(open.min()?.elapsed())
    }

    /// Tells all that was written and not closed as if it had been: nobody will be there to
    /// do it later.
    pub fn tell_all_unclosed(&mut self, observer: &mut dyn Observer) {
        self.unclosed.push_last();
        self.unclosed.idle.clear();
        for (place, state) in std::mem::take(&mut self.unclosed.pressing) {
            if state.news() {
                self.tell_written(&place, observer);
            }
        }
        self.unclosed.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_made_written_and_closed_is_forgotten() {
        let now = Instant::now();
        let mut unclosed = OpenFiles::new(Some(Duration::from_secs(60)));
        for name in [&b"a"[..], b"b"] {
            unclosed.touched(1, name, false, now);
            unclosed.touched(1, name, true, now);
            unclosed.closed(1, name);
            assert!(unclosed.is_empty() && unclosed.idle.capacity() == 0);
        }
        unclosed.touched(1, b"a", true, now);
        unclosed.touched(2, b"a", true, now);
        unclosed.touched(1, b"b", false, now);
        unclosed.moved((2, b"a"), (3, b"c"));
        unclosed.closed(1, b"a");
        unclosed.closed(1, b"b");
        assert!(unclosed.take_due(now).is_empty());
        let left = unclosed.take_due(now + CHECK_DELAY);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, (3, b"c".to_vec()));
        assert!(left[0].1.written);
        assert!(unclosed.is_empty());
    }

    #[test]
    fn what_is_not_written_is_never_due_and_forgotten_in_the_end() {
        let now = Instant::now();
        let mut unclosed = OpenFiles::new(Some(Duration::from_secs(60)));
        unclosed.touched(1, b"written", false, now);
        for i in 0..3 * MAX_UNWRITTEN {
            unclosed.touched(2, i.to_string().as_bytes(), false, now);
        }
        assert!(unclosed.idle.len() <= MAX_UNWRITTEN && unclosed.next_deadline().is_none());
        unclosed.touched(1, b"written", true, now);
        assert_eq!(unclosed.next_deadline(), Some(now + CHECK_DELAY));
        assert_eq!(unclosed.take_due(now + CHECK_DELAY).len(), 1);
        unclosed.reckon(now);
        assert_eq!(unclosed.next_deadline(), None);
    }

    #[test]
    fn nothing_is_tracked_if_not_asked_for() {
        let mut unclosed = OpenFiles::new(None);
        unclosed.touched(1, b"a", true, Instant::now());
        assert!(unclosed.is_empty() && unclosed.next_deadline().is_none());
    }

    #[test]
    fn an_open_file_is_known_by_its_lease() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let bytes = path.as_os_str().as_bytes();
        assert!(matches!(look(bytes), WriteCheck::Other));
        let writer = File::create(&path).unwrap();
        assert!(matches!(look(bytes), WriteCheck::Open { certain: true }));
        drop(writer);
        let _reader = File::open(&path).unwrap();
        assert!(matches!(look(bytes), WriteCheck::Complete));
    }
}
