//! What is done when the kernel has no more watches: the part that is not watched is compared
//! from time to time, and each time more watches are asked for.
//!
//! The daemon stays up. Who reads its log is told once what the limit would have to be; to
//! know that, the directories are counted in the background.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::Waker;

use super::engine::Engine;
use crate::report;
use crate::script::Member;
use crate::watch::Scope;

/// The limit as it can be set. A user namespace may have a lower one of its own.
const LIMITS: [&str; 2] = [
    "/proc/sys/fs/inotify/max_user_watches",
    "/proc/sys/user/max_inotify_watches",
];

/// What is not watched, and when it is looked at.
pub struct Shortage {
    interval: Duration,
    /// By the index of the sync: something of it is not watched.
    lacking: Vec<bool>,
    /// The same, found since a new look at all began.
    still: Vec<bool>,
    /// A new look at all has begun, for more watches.
    looking: bool,
    due: Option<Instant>,
    count: Option<JoinHandle<usize>>,
}

impl Shortage {
    /// Nothing is lacking yet.
    pub fn new(interval: Duration) -> Shortage {
        Shortage {
            interval,
            lacking: Vec::new(),
            still: Vec::new(),
            looking: false,
            due: None,
            count: None,
        }
    }

    /// When there is something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Takes note of syncs some directory of which could not be watched. True if this is the
    /// beginning of a shortage.
    fn add(&mut self, lacking: &[bool], now: Instant) -> bool {
        if !lacking.contains(&true) {
            return false;
        }
        let first = !self.lacking.contains(&true);
        self.lacking.resize(lacking.len(), false);
        self.still.resize(lacking.len(), false);
        for (index, _) in lacking.iter().enumerate().filter(|(_, new)| **new) {
            self.lacking[index] = true;
            self.still[index] = true;
        }
        if self.due.is_none() && !self.looking {
            // What is new and not watched was not read either: soon the first time.
            self.due = Some(now + self.interval.min(SOON));
        }
        first
    }
}

/// The first look comes after this time.
const SOON: Duration = Duration::from_secs(5);

impl Engine<'_> {
    /// In each turn: `lacking` says which syncs have directories that could not be watched.
    pub(super) fn mind_shortage(&mut self, lacking: &[bool]) {
        let now = Instant::now();
        for (member, _) in self
            .members
            .iter()
            .zip(lacking)
            .filter(|(_, lacks)| **lacks)
        {
            member.sync.borrow_mut().unwatched = true;
        }
        if self.shortage.add(lacking, now) {
            self.tell_shortage();
        }
        self.tell_count();
        if self.shortage.looking && !self.watcher.crawling() {
            self.shortage.looking = false;
            self.compare_unwatched(now);
        }
        if self.started
            && !self.watcher.crawling()
            && self.shortage.due.is_some_and(|due| due <= now)
        {
            self.shortage.due = None;
            self.shortage.looking = true;
            self.shortage.still.clear();
            self.watcher.rebuild();
        }
    }

    /// After a look that has set what watches there were: compares what lacked some before.
    fn compare_unwatched(&mut self, now: Instant) {
        let lacked = std::mem::take(&mut self.shortage.lacking);
        let still = std::mem::take(&mut self.shortage.still);
        for (member, _) in self
            .members
            .iter()
            .zip(&lacked)
            .filter(|(_, lacks)| **lacks)
        {
            member.sync.borrow_mut().resync_once(self.now);
        }
        if still.contains(&true) {
            self.shortage.lacking = still;
            self.shortage.due = Some(now + self.shortage.interval);
        } else if lacked.contains(&true) {
            report::normal("all directories are watched now");
        }
    }

    fn tell_shortage(&mut self) {
        report::error(format_args!(
            "Out of inotify watches. What is not watched is compared every {} s.",
            self.shortage.interval.as_secs_f64()
        ));
        let scopes = self.members.iter().map(|m| m.sync.borrow().scope());
        let scopes = scopes.collect();
        let waker = self.core.waker();
        let counting = std::thread::Builder::new().name("count".into());
        self.shortage.count = counting.spawn(move || counted(scopes, &waker)).ok();
    }

    fn tell_count(&mut self) {
        let Some(count) = self.shortage.count.take_if(|count| count.is_finished()) else {
            return;
        };
        let (Ok(all), watched) = (count.join(), self.watcher.watched()) else {
            return;
        };
        let lacking = all.saturating_sub(watched);
        let limit = LIMITS.map(limit).into_iter().flatten().min();
        let wanted = round(limit.unwrap_or(watched) + lacking + lacking / 4);
        report::error(format_args!(
            "{all} directories are to be watched, {watched} are. To watch all of them:\n\
             sysctl fs.inotify.max_user_watches={wanted}"
        ));
    }
}

/// To the next thousand, for more are sure to come.
fn round(count: usize) -> usize {
    (count / 1000 + 1) * 1000
}

fn limit(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How many directories the scopes want, each counted once.
fn counted(scopes: Vec<Scope>, waker: &Arc<Waker>) -> usize {
    let mut roots: Vec<Vec<u8>> = Vec::new();
    for scope in &scopes {
        if !scopes
            .iter()
            .any(|other| other.root.len() < scope.root.len() && scope.root.starts_with(&other.root))
        {
            roots.push(scope.root.clone());
        }
    }
    roots.sort_unstable();
    roots.dedup();
    let mut count = 0;
    while let Some(path) = roots.pop() {
        count += 1;
        // What cannot be read cannot be watched.
        for entry in fs::read_dir(OsStr::from_bytes(&path))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let mut below = path.clone();
                below.extend(entry.file_name().into_vec());
                below.push(b'/');
                if scopes.iter().any(|scope| scope.wanted(&below)) {
                    roots.push(below);
                }
            }
        }
    }
    let _ = waker.wake();
    count
}

/// Which syncs an absolute path of a directory is inside of, added to those in `into`.
pub fn mark(members: &[Rc<Member>], path: &[u8], into: &mut Vec<bool>) {
    into.resize(members.len(), false);
    for (member, mark) in members.iter().zip(into) {
        *mark |= path.starts_with(&member.sync.borrow().config.source);
    }
}
