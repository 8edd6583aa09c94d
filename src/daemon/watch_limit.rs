//! Watch limit: handles the kernel's limit of inotify watches.
//!
//! Syncs with unwatched directories are compared as a whole in intervals, and before each
//! comparison the missing watches are requested again. The sufficient limit is logged once; a
//! thread counts the directories for that.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::Waker;

use crate::component::{Action, SyncCommand, WatchAction};
use crate::id::SyncId;
use crate::watch::Scope;

/// The files with the limit. A user namespace may have a lower limit.
const LIMIT_FILES: [&str; 2] = [
    "/proc/sys/fs/inotify/max_user_watches",
    "/proc/sys/user/max_inotify_watches",
];

/// The maximum delay before watches are first requested again. A directory without a watch has not
/// been read, so the first comparison comes soon.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(5);

/// Tracks which syncs lack watches, and decides when watches are requested again.
pub struct WatchLimit {
    interval: Duration,
    /// Syncs that lacked a watch when watches were last requested, or since.
    lacking: BTreeSet<SyncId>,
    /// Syncs that have lacked a watch since the request in progress began.
    still_lacking: BTreeSet<SyncId>,
    /// Watches are being requested; ends when the crawl is over.
    requesting: bool,
    due: Option<Instant>,
    /// The number of directories without a watch at the last count; 0 if it is not known.
    counted: usize,
}

impl WatchLimit {
    /// Returns the state in which no watch is missing. Watches are requested again every
    /// `interval`.
    pub fn new(interval: Duration) -> WatchLimit {
        WatchLimit {
            interval,
            lacking: BTreeSet::new(),
            still_lacking: BTreeSet::new(),
            requesting: false,
            due: None,
            counted: 0,
        }
    }

    /// Returns when [`WatchLimit::on_turn`] has something to do. A crawl that is running ends
    /// with an event.
    pub fn deadline(&self, crawling: bool) -> Option<Instant> {
        self.due.filter(|_| !crawling)
    }

    /// Returns true if watches are missing.
    pub fn is_reached(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Returns the number of directories without a watch, at least 1 if watches are missing.
    pub fn unwatched(&self) -> usize {
        if self.is_reached() {
            self.counted.max(1)
        } else {
            0
        }
    }

    /// Returns the syncs that have directories without a watch.
    pub fn lacking(&self) -> &BTreeSet<SyncId> {
        &self.lacking
    }

    /// Returns true if the sync has directories without a watch.
    pub fn lacks(&self, sync: SyncId) -> bool {
        self.lacking.contains(&sync)
    }

    /// Takes in the syncs for whose directories the kernel has just refused a watch.
    pub fn on_refused(&mut self, syncs: &BTreeSet<SyncId>, now: Instant) -> Vec<Action> {
        if syncs.is_empty() {
            return Vec::new();
        }
        let first = !self.is_reached();
        self.lacking.extend(syncs);
        self.still_lacking.extend(syncs);
        if self.due.is_none() && !self.requesting {
            self.due = Some(now + self.interval.min(MAX_FIRST_DELAY));
        }
        if !first {
            return Vec::new();
        }
        let text = format!(
            "Out of inotify watches. Directories without a watch are compared every {} s.",
            self.interval.as_secs_f64()
        );
        vec![
            Action::error(text),
            Action::Watch(WatchAction::CountDirectories),
        ]
    }

    /// Handles the result of [`WatchAction::CountDirectories`]: `directories` are wanted, `watched`
    /// have a watch, and the kernel allows `limit`, if that is known.
    pub fn on_count(&mut self, directories: usize, watched: usize, limit: Option<usize>) -> Action {
        let lacking = directories.saturating_sub(watched);
        self.counted = lacking;
        let wanted = round_up(limit.unwrap_or(watched) + lacking + lacking / 4);
        Action::error(format!(
            "{watched} of {directories} directories are watched. To watch all of them:\n\
             sysctl fs.inotify.max_user_watches={wanted}"
        ))
    }

    /// Called in each turn. `crawling` is true while directories are being read.
    pub fn on_turn(&mut self, crawling: bool, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if crawling {
            return actions;
        }
        if std::mem::take(&mut self.requesting) {
            let lacked = std::mem::take(&mut self.lacking);
            self.lacking = std::mem::take(&mut self.still_lacking);
            if self.is_reached() {
                self.due = Some(now + self.interval);
            } else if !lacked.is_empty() {
                actions.push(Action::normal("all directories are watched now"));
            }
            actions.extend(lacked.into_iter().map(full_comparison));
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.requesting = true;
            self.still_lacking.clear();
            actions.push(Action::Watch(WatchAction::Rebuild));
        }
        actions
    }
}

/// Returns the next multiple of 1000 above `count`: more directories are sure to come.
fn round_up(count: usize) -> usize {
    (count / 1000 + 1) * 1000
}

/// Returns the kernel's limit of watches for this user, if it can be read.
pub fn kernel_limit() -> Option<usize> {
    let limits = LIMIT_FILES.map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.into_iter().flatten().min()
}

/// The thread that counts directories.
#[derive(Default)]
pub struct DirectoryCount(Option<JoinHandle<usize>>);

impl DirectoryCount {
    /// Counts the directories that the scopes want watched. The thread wakes the loop at its end.
    pub fn start(&mut self, scopes: Vec<Scope>, waker: Arc<Waker>) {
        let thread = thread::Builder::new().name("count".into());
        let started = thread.spawn(move || {
            let count = count_directories(&scopes, |_| true);
            // Waking fails only if the loop has ended.
            let _ = waker.wake();
            count
        });
        self.0 = started.ok();
    }

    /// Returns the count, once.
    pub fn result(&mut self) -> Option<usize> {
        let thread = self.0.take_if(|thread| thread.is_finished())?;
        thread.join().ok()
    }
}

/// Returns what is wrong if the scopes want more directories watched than the kernel's `limit`.
/// They are counted for at most `time`.
pub fn preflight(scopes: &[Scope], limit: usize, time: Duration) -> Option<String> {
    let begin = Instant::now();
    let mut is_late = false;
    let count = count_directories(scopes, |_| {
        is_late = begin.elapsed() > time;
        !is_late
    });
    let more = if is_late { "more than " } else { "" };
    if count <= limit {
        let time = time.as_secs();
        return is_late.then(|| {
            format!(
                "the sources have {more}{count} directories, counted for {time} s; the limit of \
                 inotify watches is {limit}"
            )
        });
    }
    let wanted = round_up(count + count / 4);
    Some(format!(
        "the sources have {more}{count} directories, and the limit of inotify watches is {limit}; \
         directories without a watch are compared periodically. To watch all of them: \
         sysctl fs.inotify.max_user_watches={wanted}"
    ))
}

/// Returns the number of directories that the scopes want watched, each counted once. Takes long
/// for large trees. Ends early if `goes_on` returns false for the number until then.
fn count_directories(scopes: &[Scope], mut goes_on: impl FnMut(usize) -> bool) -> usize {
    let is_inside = |root: &[u8]| {
        let mut others = scopes.iter().map(|scope| &scope.root);
        others.any(|other| other.len() < root.len() && root.starts_with(other))
    };
    let roots = scopes.iter().map(|scope| &scope.root);
    let roots: BTreeSet<&Vec<u8>> = roots.filter(|root| !is_inside(root)).collect();
    let mut unread: Vec<Vec<u8>> = roots.into_iter().cloned().collect();
    let mut count = 0;
    while let Some(path) = unread.pop() {
        count += 1;
        if !goes_on(count) {
            break;
        }
        // A directory that cannot be read cannot be watched.
        let entries = fs::read_dir(OsStr::from_bytes(&path)).into_iter().flatten();
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let mut below = path.clone();
                below.extend(entry.file_name().into_vec());
                below.push(b'/');
                if scopes.iter().any(|scope| scope.wanted(&below)) {
                    unread.push(below);
                }
            }
        }
    }
    count
}

/// Returns the action that compares the whole source of a sync, unless that is queued already.
fn full_comparison(id: SyncId) -> Action {
    Action::Command(id, SyncCommand::ResyncOnce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn set(syncs: &[SyncId]) -> BTreeSet<SyncId> {
        syncs.iter().copied().collect()
    }

    #[test]
    fn the_first_refusal_is_reported_once_and_watches_are_requested_soon() {
        let (sync, now) = (SyncId::new(), Instant::now());
        let mut limit = WatchLimit::new(INTERVAL);
        assert!(limit.on_refused(&set(&[]), now).is_empty());
        assert_eq!(limit.deadline(false), None);
        let told = limit.on_refused(&set(&[sync]), now);
        assert!(matches!(
            told[..],
            [
                Action::Log(..),
                Action::Watch(WatchAction::CountDirectories)
            ]
        ));
        assert!(limit.on_refused(&set(&[sync]), now).is_empty());
        assert_eq!(limit.deadline(false), Some(now + MAX_FIRST_DELAY));
        assert_eq!(limit.deadline(true), None);
        assert!(limit.on_turn(true, now + INTERVAL).is_empty());
        let later = now + MAX_FIRST_DELAY;
        assert_eq!(
            limit.on_turn(false, later),
            [Action::Watch(WatchAction::Rebuild)]
        );
        assert_eq!(limit.deadline(false), None);
    }

    #[test]
    fn further_refusals_do_not_put_off_the_request() {
        let (one, two, now) = (SyncId::new(), SyncId::new(), Instant::now());
        let mut limit = WatchLimit::new(INTERVAL);
        limit.on_refused(&set(&[one]), now);
        assert!(limit.lacks(one) && !limit.lacks(two));
        limit.on_refused(&set(&[two]), now + Duration::from_secs(3));
        assert!(limit.lacks(one) && limit.lacks(two));
        assert_eq!(limit.deadline(false), Some(now + MAX_FIRST_DELAY));
    }

    #[test]
    fn what_lacked_a_watch_is_compared_until_all_have_one() {
        let (one, two, now) = (SyncId::new(), SyncId::new(), Instant::now());
        let mut limit = WatchLimit::new(INTERVAL);
        assert_eq!(limit.unwatched(), 0);
        limit.on_refused(&set(&[one, two]), now);
        assert_eq!((limit.unwatched(), limit.lacking()), (1, &set(&[one, two])));
        limit.on_count(5000, 1000, None);
        assert_eq!(limit.unwatched(), 4000);
        limit.on_turn(false, now + INTERVAL);
        // The request fails for one of them.
        limit.on_refused(&set(&[two]), now + INTERVAL);
        assert!(limit.on_turn(true, now + INTERVAL).is_empty());
        let compared = limit.on_turn(false, now + INTERVAL);
        assert_eq!(compared, [full_comparison(one), full_comparison(two)]);
        assert_eq!(limit.deadline(false), Some(now + INTERVAL * 2));
        // The next one succeeds.
        limit.on_turn(false, now + INTERVAL * 2);
        let compared = limit.on_turn(false, now + INTERVAL * 2);
        let told = Action::normal("all directories are watched now");
        assert_eq!(compared, [told, full_comparison(two)]);
        assert_eq!((limit.deadline(false), limit.is_reached()), (None, false));
        assert_eq!((limit.unwatched(), limit.lacking()), (0, &set(&[])));
    }

    #[test]
    fn directories_are_counted_before_the_start() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b", "c", "skipped/d"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let root = format!("{}/", dir.path().display());
        let scope = Scope {
            root: root.into_bytes(),
            wants: Arc::new(|path| path != b"/skipped/"),
        };
        let problem = |limit, time| preflight(std::slice::from_ref(&scope), limit, time);
        assert_eq!(problem(4, INTERVAL), None);
        let text = problem(3, INTERVAL).unwrap();
        assert!(text.contains("have 4 directories, and"), "{text}");
        assert!(text.ends_with("max_user_watches=1000"), "{text}");
        let text = problem(3, Duration::ZERO).unwrap();
        assert!(
            text.contains("have more than 1 directories, counted"),
            "{text}"
        );
    }

    #[test]
    fn directories_are_counted_once_and_their_number_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("c")).unwrap();
        let scopes = ["", "a/", "c/"].map(|name| Scope {
            root: format!("{}/{name}", dir.path().display()).into_bytes(),
            wants: Arc::new(|_| true),
        });
        let (mut poll, waker) = crate::sync::tests::waker();
        let mut count = DirectoryCount::default();
        assert_eq!(count.result(), None);
        count.start(scopes.to_vec(), Arc::clone(&waker));
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_secs(60)))
            .unwrap();
        assert!(!events.is_empty());
        // The thread ends right after it has woken the loop.
        let until = Instant::now() + Duration::from_secs(60);
        let mut result = None;
        while result.is_none() && Instant::now() < until {
            result = count.result();
        }
        assert_eq!((result, count.result()), (Some(4), None));
    }

    #[test]
    fn the_advice_leaves_room_for_more() {
        let mut limit = WatchLimit::new(INTERVAL);
        let Action::Log(_, text) = limit.on_count(5000, 1000, Some(1024)) else {
            panic!("a message");
        };
        assert!(text.contains("1000 of 5000 directories are watched."));
        assert!(
            text.ends_with("sysctl fs.inotify.max_user_watches=7000"),
            "{text}"
        );
    }
}
