//! Files that were written and not closed, as far as this can be determined.
//!
//! If a change is reported when its file is closed, truncate(2) by path would never be reported, as
//! it opens nothing; nor would a log file that stays open for months. So the kernel is asked for
//! `IN_MODIFY` as well, and a file is tracked from its first write to its close. A file without
//! writes for [`CHECK_DELAY`] is checked: if nobody has it open for writing, the change is
//! reported; else it is reported after it has been open for the staleness limit, and again after
//! each such time.
//!
//! Files that should not be sent yet are determined from the tracked files, see
//! [`OpenFiles::being_written`].
//!
//! The usual file is created, written and closed before the next one, so the last one has its own
//! field and costs no lookup. Files that were created or found and not written since are stored
//! separately: there is no change to report, so they are not checked until one is to be sent. Most
//! of them are complete.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use hashbrown::{Equivalent, HashMap};

use super::{Event, Observer};

/// The time without writes after which a file is checked.
const CHECK_DELAY: Duration = Duration::from_millis(300);
/// The minimum time between two checks of all due files. Each check visits all files.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The time after which a complete file is forgotten, counted from the last write or check.
const FORGET_DELAY: Duration = Duration::from_secs(10);
/// The maximum number of tracked files that were not written. There may be thousands of links and
/// files of a new directory; they may be forgotten.
const MAX_UNWRITTEN: usize = 4096;

/// The state of one tracked file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenFile {
    /// The time since which there is a change to report.
    since: Instant,
    due: Instant,
    /// Written since it was created or last reported.
    written: bool,
    /// An observer waits for the report that it is complete.
    awaited: bool,
    /// It is open for writing, or may be.
    open: bool,
    /// It was reported although it was not closed. From then on it is never deferred.
    reported: bool,
}

impl OpenFile {
    fn new(written: bool, now: Instant) -> OpenFile {
        OpenFile {
            since: now,
            due: now + CHECK_DELAY,
            written,
            awaited: false,
            open: false,
            reported: false,
        }
    }

    /// Returns true if there is a change to report, now or later.
    fn has_change(&self) -> bool {
        self.written || self.awaited
    }

    /// Returns true if the file has to be checked when it is due.
    fn needs_check(&self) -> bool {
        self.has_change() || self.reported
    }
}

/// The watch descriptor of the directory, and the name of the file in it.
pub type OpenFileKey = (i32, Vec<u8>);

#[derive(Hash)]
struct Seek<'a>(i32, &'a [u8]);

impl Equivalent<OpenFileKey> for Seek<'_> {
    fn equivalent(&self, place: &OpenFileKey) -> bool {
        self.0 == place.0 && self.1 == place.1.as_slice()
    }
}

/// The tracked files, by directory and name.
pub struct OpenFiles {
    /// The time after which files are reported even if they are not closed; `None`: nothing is
    /// tracked.
    staleness: Option<Duration>,
    last: OpenFileKey,
    last_state: Option<OpenFile>,
    /// Files with a time at which they are due.
    scheduled: HashMap<OpenFileKey, OpenFile>,
    /// Files without a change to report.
    idle: HashMap<OpenFileKey, OpenFile>,
    /// The time before which nothing is due.
    due: Option<Instant>,
    /// The time of the last visit of all files.
    visited: Option<Instant>,
}

impl OpenFiles {
    pub fn new(staleness: Option<Duration>) -> OpenFiles {
        OpenFiles {
            staleness,
            last: (0, Vec::new()),
            last_state: None,
            scheduled: HashMap::new(),
            idle: HashMap::new(),
            due: None,
            visited: None,
        }
    }

    pub fn tracks(&self) -> bool {
        self.staleness.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.last_state.is_none() && self.scheduled.is_empty() && self.idle.is_empty()
    }

    pub fn len(&self) -> usize {
        usize::from(self.last_state.is_some()) + self.scheduled.len() + self.idle.len()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Records that a file was created or `written`.
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
        if !state.open {
            state.due = now + CHECK_DELAY;
        }
        if state.needs_check() {
            let due = state.due;
            self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
    }

    /// Records that a file was closed: its state is known.
    pub fn closed(&mut self, wd: i32, name: &[u8]) {
        self.remove(wd, name);
    }

    /// Records that a file was renamed. What had its new name is not there any more.
    pub fn moved(&mut self, from: (i32, &[u8]), to: (i32, &[u8])) {
        let state = self.remove(from.0, from.1);
        self.remove(to.0, to.1);
        if let Some(state) = state {
            self.keep((to.0, to.1.to_vec()), state);
        }
    }

    /// Records that a directory was renamed, in a backend that names files by their paths alone.
    pub fn moved_below(&mut self, from: &[u8], to: &[u8]) {
        if self.is_empty() {
            return;
        }
        self.push_last();
        for map in [&mut self.scheduled, &mut self.idle] {
            let is_below = |place: &OpenFileKey, _: &mut OpenFile| place.1.starts_with(from);
            let below: Vec<_> = map.extract_if(is_below).collect();
            let renamed = |((wd, path), state): (OpenFileKey, OpenFile)| {
                ((wd, [to, &path[from.len()..]].concat()), state)
            };
            map.extend(below.into_iter().map(renamed));
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
        let maps = [&mut self.scheduled, &mut self.idle];
        let mut filled = maps.into_iter().filter(|map| !map.is_empty());
        filled.find_map(|map| map.remove(&seek))
    }

    /// Stores the last file in its map.
    fn push_last(&mut self) {
        if let Some(state) = self.last_state.take() {
            self.keep(self.last.clone(), state);
        }
    }

    fn keep(&mut self, place: OpenFileKey, state: OpenFile) {
        if state.needs_check() {
            self.scheduled.insert(place, state);
            return;
        }
        if self.idle.len() >= MAX_UNWRITTEN {
            self.idle.clear();
        }
        self.idle.insert(place, state);
    }

    /// Removes and returns all files that are due.
    fn take_due(&mut self, now: Instant) -> Vec<(OpenFileKey, OpenFile)> {
        self.push_last();
        let due = |_: &OpenFileKey, state: &mut OpenFile| state.due <= now;
        self.scheduled.extract_if(due).collect()
    }

    /// Computes the time at which the next file is due.
    fn update_due(&mut self, now: Instant) {
        let first = self.scheduled.values().map(|state| state.due).min();
        self.due = first.map(|due| due.max(now + MIN_CHECK_INTERVAL));
    }
}

/// The state of the object at a path.
enum WriteCheck {
    /// Neither a regular file nor a symlink, or gone.
    Other,
    /// Nobody has it open for writing. Nobody can open a symlink: its time was set.
    Complete,
    /// It is open for writing, or this cannot be determined (`certain` is false).
    Open { certain: bool },
}

/// Returns if a file is open for writing. A read lease is refused for such a file (fcntl(2)). It is
/// released at once; a process that opens the file in between waits for that.
fn check_writer(path: &[u8]) -> WriteCheck {
    let path = OsStr::from_bytes(path);
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_file() => {}
        Ok(data) if data.is_symlink() => return WriteCheck::Complete,
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

/// Returns the paths of a file, given its directory and name; none if the directory is not watched
/// any more.
pub type PathsOf<'a> = dyn Fn(i32, &[u8]) -> Vec<Vec<u8>> + 'a;

impl OpenFiles {
    /// Reports files without recent writes, and files that have been open for too long.
    pub fn report_due(&mut self, paths: &PathsOf<'_>, now: Instant, observer: &mut dyn Observer) {
        let Some(staleness) = self.staleness else {
            return;
        };
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        for (place, mut state) in self.take_due(now) {
            let paths = paths(place.0, &place.1);
            let Some(path) = paths.first() else {
                continue;
            };
            let news = state.has_change();
            match check_writer(path) {
                WriteCheck::Other if !state.awaited => continue,
                WriteCheck::Other | WriteCheck::Complete if news => {
                    report_written(&paths, observer)
                }
                WriteCheck::Other | WriteCheck::Complete => {}
                WriteCheck::Open { certain } if news || certain => {
                    state.open = true;
                    state.due = state.since + staleness;
                    if state.due <= now {
                        state.due = now + staleness;
                        state.since = now;
                        if news {
                            report_written(&paths, observer);
                            state.reported = true;
                            state.written = false;
                            state.awaited = false;
                        }
                    }
                    self.keep(place, state);
                }
                WriteCheck::Open { .. } => {}
            }
        }
        self.update_due(now);
    }

    /// Returns the paths, among those for which `interested` returns true, of files that are being
    /// written. Each will be reported as [`Event::Modify`], when it is closed or too old.
    pub fn being_written(
        &mut self,
        paths: &PathsOf<'_>,
        interested: &dyn Fn(&[u8]) -> bool,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        if self.is_empty() {
            return found;
        }
        self.push_last();
        self.visited = Some(now);
        let mut check = |(wd, name): &OpenFileKey, state: &mut OpenFile| {
            check_file(&paths(*wd, name), state, interested, &mut found, now)
        };
        self.scheduled
            .retain(|place, state| state.reported || check(place, state));
        self.idle.retain(|place, state| check(place, state));
        let checked = self.idle.extract_if(|_, state| state.needs_check());
        self.scheduled.extend(checked);
        self.update_due(now);
        found
    }

    /// Returns what [`OpenFiles::being_written`] returns if these files, each with one of its
    /// paths, are of interest. Takes time in proportion to their number, except that files without
    /// writes are looked through once in [`FORGET_DELAY`].
    pub fn being_written_of(
        &mut self,
        files: impl IntoIterator<Item = (OpenFileKey, Vec<u8>)>,
        paths: &PathsOf<'_>,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let visited = *self.visited.get_or_insert(now);
        if visited + FORGET_DELAY <= now {
            self.being_written(paths, &|_| false, now);
        }
        let mut found = Vec::new();
        self.push_last();
        for (place, path) in files {
            if let Some(state) = self.scheduled.get_mut(&place) {
                if !state.reported && !check_file(&[path], state, &|_| true, &mut found, now) {
                    self.scheduled.remove(&place);
                }
            } else if let Some(mut state) = self.idle.remove(&place)
                && check_file(&[path], &mut state, &|_| true, &mut found, now)
            {
                if state.needs_check() {
                    let due = state.due.max(now + MIN_CHECK_INTERVAL);
                    self.due = Some(self.due.map_or(due, |other| other.min(due)));
                }
                self.keep(place, state);
            }
        }
        found
    }

    /// Returns the age of the oldest change that is reported only when its file is closed or too
    /// old; `None` if there is none.
    pub fn oldest(&self) -> Option<Duration> {
        let states = self.scheduled.values().chain(self.last_state.as_ref());
        let open = states
            .filter(|state| state.has_change())
            .map(|state| state.since);
        Some(open.min()?.elapsed())
    }

    /// Reports all files that were written and not closed as if they had been closed.
    pub fn report_all(&mut self, paths: &PathsOf<'_>, observer: &mut dyn Observer) {
        self.push_last();
        self.idle.clear();
        for ((wd, name), state) in std::mem::take(&mut self.scheduled) {
            if state.has_change() {
                report_written(&paths(wd, &name), observer);
            }
        }
        self.due = None;
    }
}

fn report_written(paths: &[Vec<u8>], observer: &mut dyn Observer) {
    for path in paths {
        observer.event(Event::Modify { path });
    }
}

/// Checks a due file. Returns false if its state is final.
fn check_file(
    paths: &[Vec<u8>],
    state: &mut OpenFile,
    interested: &dyn Fn(&[u8]) -> bool,
    found: &mut Vec<Vec<u8>>,
    now: Instant,
) -> bool {
    let news = state.has_change();
    let old = !news && !state.open && state.since + FORGET_DELAY <= now;
    for path in paths {
        let wanted = interested(path);
        if !wanted && !old {
            continue;
        }
        match check_writer(path) {
            WriteCheck::Open { certain } if certain || state.written => {
                state.open |= old;
                if wanted {
                    state.awaited = true;
                    found.push(path.clone());
                }
            }
            _ if !news => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
#[path = "open_files_tests.rs"]
mod tests;
