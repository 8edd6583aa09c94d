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
//! place of its own and costs no look-up.

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
const QUIET: Duration = Duration::from_millis(300);
/// How many files are kept in mind. What is made without being written (links) comes in
/// thousands and is none the worse for being forgotten.
const LIMIT: usize = 4096;

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
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

type Place = (i32, Vec<u8>);

#[derive(Hash)]
struct Seek<'a>(i32, &'a [u8]);

impl Equivalent<Place> for Seek<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.0 == place.0 && self.1 == place.1.as_slice()
    }
}

/// The files kept in mind, by directory and name.
pub struct Unclosed {
    /// Files are told after so long even if they are not closed; `None`: nothing is tracked.
    staleness: Option<Duration>,
    last: Place,
    last_state: Option<State>,
    rest: HashMap<Place, State>,
    /// Nothing is due before.
    due: Option<Instant>,
}

impl Unclosed {
    pub fn new(staleness: Option<Duration>) -> Unclosed {
        Unclosed {
            staleness,
            last: (0, Vec::new()),
            last_state: None,
            rest: HashMap::new(),
            due: None,
        }
    }

    pub fn tracks(&self) -> bool {
        self.staleness.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.last_state.is_none() && self.rest.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// A file was made or `written`.
    pub fn touched(&mut self, wd: i32, name: &[u8], written: bool, now: Instant) {
        if self.staleness.is_none() {
            return;
        }
        let quiet = now + QUIET;
        let fresh = State {
            since: now,
            due: quiet,
            written,
            owed: false,
            busy: false,
            told: false,
        };
        let state = match self.state(wd, name) {
            Some(state) => state,
            None => {
                self.push_last();
                self.last.0 = wd;
                self.last.1.clear();
                self.last.1.extend_from_slice(name);
                self.last_state.insert(fresh)
            }
        };
        if written && !state.written {
            state.written = true;
            state.since = now;
        }
        if !state.busy {
            state.due = quiet;
        }
        self.due = Some(self.due.map_or(quiet, |due| due.min(quiet)));
    }

    /// It was closed: nothing is unknown about it.
    pub fn closed(&mut self, wd: i32, name: &[u8]) {
        self.remove(wd, name);
    }

    /// It has another name now.
    pub fn moved(&mut self, from: (i32, &[u8]), to: (i32, &[u8])) {
        if let Some(state) = self.remove(from.0, from.1) {
            self.rest.insert((to.0, to.1.to_vec()), state);
        }
    }

    fn state(&mut self, wd: i32, name: &[u8]) -> Option<&mut State> {
        if self.last.0 == wd && self.last.1 == name && self.last_state.is_some() {
            return self.last_state.as_mut();
        }
        if self.rest.is_empty() {
            return None;
        }
        self.rest.get_mut(&Seek(wd, name))
    }

    fn remove(&mut self, wd: i32, name: &[u8]) -> Option<State> {
        if self.last.0 == wd && self.last.1 == name && self.last_state.is_some() {
            return self.last_state.take();
        }
        if self.rest.is_empty() {
            return None;
        }
        self.rest.remove(&Seek(wd, name))
    }

    /// Makes room for another last one.
    fn push_last(&mut self) {
        let Some(state) = self.last_state.take() else {
            return;
        };
        if self.rest.len() < LIMIT || state.written {
            self.rest.insert(self.last.clone(), state);
        }
    }

    /// All that is kept in mind, and nothing is any more.
    fn drain(&mut self) -> Vec<(Place, State)> {
        self.push_last();
        self.due = None;
        self.rest.drain().collect()
    }

    fn keep(&mut self, place: Place, state: State) {
        self.due = Some(self.due.map_or(state.due, |due| due.min(state.due)));
        self.rest.insert(place, state);
    }
}

/// What stands at a path.
enum Look {
    /// No file whose contents could change.
    Other,
    /// Nobody has it open for writing.
    Complete,
    /// Someone has, or there is no way to know.
    Open { certain: bool },
}

/// A read lease is refused for a file that is open for writing (fcntl(2)). It is given back
/// at once; whoever opens the file in between waits for that.
fn look(path: &[u8]) -> Look {
    let path = OsStr::from_bytes(path);
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_file() => {}
        _ => return Look::Other,
    }
    let unknown = Look::Open { certain: false };
    let Ok(file) = open(path) else {
        return unknown;
    };
    match crate::sys::is_open_for_writing(file.as_fd()) {
        Ok(false) => Look::Complete,
        Ok(true) => Look::Open { certain: true },
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
        for (place, mut state) in self.unclosed.drain() {
            let Some(node) = self.tree.first(place.0) else {
                continue;
            };
            if state.due > self.now {
                self.unclosed.keep(place, state);
                continue;
            }
            let news = state.written || state.owed;
            let path = self.path_of(node, &place.1, false);
            match look(&path) {
                Look::Other if !state.owed => continue,
                Look::Other | Look::Complete if news => self.tell_written(&place, observer),
                Look::Other | Look::Complete => {}
                Look::Open { certain } if news || certain => {
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
                Look::Open { .. } => {}
            }
        }
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
        for (place, mut state) in self.unclosed.drain() {
            if state.told || self.ask(&place, &mut state, interested, &mut found) {
                self.unclosed.keep(place, state);
            }
        }
        found
    }

    /// False if there is nothing more to be known about the file.
    fn ask(
        &mut self,
        place: &Place,
        state: &mut State,
        interested: &dyn Fn(&[u8]) -> bool,
        found: &mut Vec<Vec<u8>>,
    ) -> bool {
        let news = state.written || state.owed;
        for node in self.tree.places(place.0) {
            let path = self.path_of(node, &place.1, false);
            if !interested(&path) {
                continue;
            }
            match look(&path) {
                Look::Open { certain } if certain || state.written => {
                    state.owed = true;
                    found.push(path);
                }
                _ if !news => return false,
                _ => {}
            }
        }
        true
    }

    /// Tells all that was written and not closed as if it had been: nobody will be there to
    /// do it later.
    pub fn tell_all_unclosed(&mut self, observer: &mut dyn Observer) {
        for (place, state) in self.unclosed.drain() {
            if state.written || state.owed {
                self.tell_written(&place, observer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_made_written_and_closed_is_forgotten() {
        let now = Instant::now();
        let mut unclosed = Unclosed::new(Some(Duration::from_secs(60)));
        for name in [&b"a"[..], b"b"] {
            unclosed.touched(1, name, false, now);
            unclosed.touched(1, name, true, now);
            unclosed.closed(1, name);
            assert!(unclosed.is_empty() && unclosed.rest.capacity() == 0);
        }
        unclosed.touched(1, b"a", true, now);
        unclosed.touched(2, b"a", true, now);
        unclosed.touched(1, b"b", false, now);
        unclosed.moved((2, b"a"), (3, b"c"));
        unclosed.closed(1, b"a");
        unclosed.closed(1, b"b");
        let left = unclosed.drain();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, (3, b"c".to_vec()));
        assert!(left[0].1.written);
        assert!(unclosed.is_empty());
    }

    #[test]
    fn nothing_is_tracked_if_not_asked_for() {
        let mut unclosed = Unclosed::new(None);
        unclosed.touched(1, b"a", true, Instant::now());
        assert!(unclosed.is_empty() && unclosed.next_deadline().is_none());
    }

    #[test]
    fn an_open_file_is_known_by_its_lease() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let bytes = path.as_os_str().as_bytes();
        assert!(matches!(look(bytes), Look::Other));
        let writer = File::create(&path).unwrap();
        assert!(matches!(look(bytes), Look::Open { certain: true }));
        drop(writer);
        let _reader = File::open(&path).unwrap();
        assert!(matches!(look(bytes), Look::Complete));
    }
}
