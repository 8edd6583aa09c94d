//! What a transfer left undone: paths that rsync could not send or remove, while it did the
//! rest and ended with code 23.
//!
//! Each is tried again after a while that grows with its own failures: what failed because it
//! was just changing does not wait for what fails for good. What changes meanwhile does not
//! wait for either.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::backoff::Backoff;
use super::{Sync, micros};
use crate::queue::{DelayId, Etype, Time};

/// How often everything is compared again because of failures that have no name.
const COMPARISONS: u32 = 4;

/// The undone paths of one sync.
pub struct Failed {
    paths: BTreeMap<Vec<u8>, Undone>,
    /// How often those failed that are being tried again.
    tried: BTreeMap<Vec<u8>, u32>,
    /// When everything is compared, if it is to be.
    everything: Option<Time>,
    backoff: Backoff,
    /// When the first of all is due.
    due: Option<Time>,
}

/// One path.
struct Undone {
    etype: Etype,
    failures: u32,
    due: Time,
}

impl Failed {
    /// None yet; the waits begin with the sync's delay.
    pub fn new(delay: Option<Duration>) -> Failed {
        Failed {
            paths: BTreeMap::new(),
            tried: BTreeMap::new(),
            everything: None,
            backoff: Backoff::new(delay),
            due: None,
        }
    }

    /// Takes in the undone part of a transfer. Returns when the first of it is tried again.
    /// What was owed before is tried when it would have been.
    pub fn add(
        &mut self,
        paths: impl IntoIterator<Item = (Vec<u8>, Etype)>,
        now: Time,
    ) -> Duration {
        let mut soonest = None;
        for (path, etype) in paths {
            let failures = self.tried.remove(&path).unwrap_or(0);
            let undone = self.paths.entry(path).or_insert_with(|| Undone {
                etype,
                failures: failures + 1,
                due: now + micros(self.backoff.wait(failures)),
            });
            // What a directory has in it stays owed.
            if undone.etype != Etype::Create || etype == Etype::Delete {
                undone.etype = etype;
            }
            soonest = Some(soonest.map_or(undone.due, |due: Time| due.min(undone.due)));
        }
        self.reckon();
        Duration::from_micros(soonest.unwrap_or(now).saturating_sub(now))
    }

    /// A transfer of everything left something undone that it did not name. Comparing all is
    /// costly, so after a few times it is left to the next occasion: `None`.
    pub fn add_everything(&mut self, now: Time) -> Option<Duration> {
        if self.backoff.failures() >= COMPARISONS {
            return None;
        }
        let wait = self.backoff.fail();
        self.everything = Some(now + micros(wait));
        self.reckon();
        Some(wait)
    }

    /// A transfer did all it should: with nothing owed, the next failure is a first one.
    pub fn well(&mut self) {
        self.tried.clear();
        if self.due.is_none() {
            self.backoff.reset();
        }
    }

    /// The paths that are owed.
    pub fn paths(&self) -> impl Iterator<Item = (Etype, Vec<u8>, Option<Vec<u8>>)> {
        let one = |(path, undone): (&Vec<u8>, &Undone)| (undone.etype, path.clone(), None);
        self.paths.iter().map(one)
    }

    /// Whether everything is to be compared.
    pub fn owes_everything(&self) -> bool {
        self.everything.is_some()
    }

    /// How many paths are owed.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// When the first of them is tried again; `None` with nothing owed.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// They are tried again now.
    pub fn hasten(&mut self, now: Time) {
        for undone in self.paths.values_mut() {
            undone.due = undone.due.min(now);
        }
        self.everything = self.everything.map(|due| due.min(now));
        self.reckon();
    }

    /// The first so many paths, in order.
    pub fn names(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        self.paths.keys().take(most).map(Vec::as_slice)
    }

    /// Takes the paths out that are due, to be tried again, what is to go first; true if
    /// everything is to be compared.
    pub fn take(&mut self, now: Time) -> (Vec<(Vec<u8>, Etype)>, bool) {
        let everything = self.everything.take_if(|due| *due <= now).is_some();
        let mut due = Vec::new();
        for (path, undone) in std::mem::take(&mut self.paths) {
            if undone.due > now {
                self.paths.insert(path, undone);
                continue;
            }
            self.tried.insert(path.clone(), undone.failures);
            due.push((path, undone.etype));
        }
        due.sort_by_key(|(_, etype)| *etype != Etype::Delete);
        self.reckon();
        (due, everything)
    }

    fn reckon(&mut self) {
        let paths = self.paths.values().map(|undone| undone.due);
        self.due = paths.chain(self.everything).min();
    }
}

impl Sync {
    /// A transfer of these entries did some and left some undone. What rsync names in `errors`
    /// is tried again after the time that is returned; if it names nothing, all of the entries
    /// are. `None`: it was everything, has failed like this before, and is left so.
    pub fn partly_failed<L: AsRef<[u8]>>(
        &mut self,
        ids: &[DelayId],
        errors: &[L],
        now: Time,
    ) -> Option<Duration> {
        let mut entries = BTreeMap::new();
        for delay in ids.iter().filter_map(|&id| self.queue.get(id)) {
            if !delay.etype().is_special() {
                let (path, to) = delay.paths();
                entries.insert(path, delay.etype());
                entries.extend(to.map(|to| (to, Etype::Create)));
            }
        }
        if entries.is_empty() {
            let named = self.blamed_on_disk(errors);
            if !named.is_empty() {
                return Some(self.undone.add(named, now));
            }
            let wait = self.undone.add_everything(now);
            self.incomplete = wait.is_none();
            return wait;
        }
        let mut named = blamed_entries(&entries, errors);
        if named.is_empty() {
            named.extend(entries);
        }
        if errors.iter().any(|line| is_obstructed(line.as_ref())) {
            let directories = directories_in_the_way(&named);
            named.extend(directories);
        }
        Some(self.undone.add(named, now))
    }

    /// The paths below the source that error lines of a full transfer name.
    fn blamed_on_disk<L: AsRef<[u8]>>(&self, errors: &[L]) -> Vec<(Vec<u8>, Etype)> {
        let source = self.config.source.strip_suffix(b"/").unwrap_or_default();
        let known = |name: &[u8]| {
            let path = [source, name].concat();
            let found = fs::symlink_metadata(OsStr::from_bytes(&path)).ok()?;
            let slash: &[u8] = if found.is_dir() { b"/" } else { b"" };
            (name.len() > 1).then(|| [name, slash].concat())
        };
        let paths = errors
            .iter()
            .filter_map(|line| blamed(line.as_ref(), known));
        paths.map(|path| (path, Etype::Modify)).collect()
    }
}

/// Whether the line says that a directory could not give place to something else.
fn is_obstructed(line: &[u8]) -> bool {
    let has = |text: &[u8]| line.windows(text.len()).any(|part| part == text);
    has(b"could not make way for ") || has(b"cannot delete non-empty directory")
}

/// Deletes of the directories that the target may have where the source has something else.
/// Without one the classic list keeps what is in them (`--exclude=*`).
fn directories_in_the_way(entries: &[(Vec<u8>, Etype)]) -> Vec<(Vec<u8>, Etype)> {
    entries
        .iter()
        .filter(|(path, _)| !path.ends_with(b"/"))
        .map(|(path, _)| ([path, b"/".as_slice()].concat(), Etype::Delete))
        .collect()
}

/// Those of `entries` that error lines name.
fn blamed_entries<L: AsRef<[u8]>>(
    entries: &BTreeMap<Vec<u8>, Etype>,
    errors: &[L],
) -> Vec<(Vec<u8>, Etype)> {
    let known = |name: &[u8]| {
        let directory = [name, b"/"].concat();
        let found = entries.get_key_value(name);
        found.or_else(|| entries.get_key_value(directory.as_slice()))
    };
    let blamed = errors
        .iter()
        .filter_map(|line| blamed(line.as_ref(), known));
    blamed.map(|(path, etype)| (path.clone(), *etype)).collect()
}

/// What an error line of rsync is about: the name that stands in it in quotes, below source or
/// target, as far as `known` finds a path for it (relative, leading slash). The name may be that
/// of a temporary file, `.NAME.XXXXXX`.
fn blamed<T>(line: &[u8], known: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut parts = line.split(|&byte| byte == b'"');
    // Behind each opening quote stands a name.
    parts.next();
    let name = parts.next()?;
    // The longest tail that is a known path: "/srv/www/d/f" may be /d/f or /www/d/f.
    let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for (at, _) in slashes {
        let tail = &name[at..];
        if let Some(path) = known(tail).or_else(|| known(&without_suffix(tail)?)) {
            return Some(path);
        }
    }
    known(&[b"/".as_slice(), name].concat())
}

/// `/d/.NAME.XXXXXX` → `/d/NAME`
fn without_suffix(path: &[u8]) -> Option<Vec<u8>> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    let name = path[slash + 1..].strip_prefix(b".")?;
    let dot = name.len().checked_sub(7)?;
    (name[dot] == b'.').then(|| [&path[..=slash], &name[..dot]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Time = 1_000_000;

    fn modified(path: &str) -> [(Vec<u8>, Etype); 1] {
        [(path.into(), Etype::Modify)]
    }

    #[test]
    fn waits_grow_until_all_is_well() {
        let mut failed = Failed::new(None);
        assert_eq!(failed.due(), None);
        failed.add(modified("/a"), 10 * SECOND);
        assert_eq!(failed.due(), Some(11 * SECOND));
        assert_eq!(failed.take(11 * SECOND - 1).0.len(), 0);
        assert_eq!(failed.take(11 * SECOND).0.len(), 1);
        failed.add(modified("/a"), 20 * SECOND);
        let second = failed.due().unwrap_or_default() - 20 * SECOND;
        assert!(second > SECOND && second <= 2 * SECOND);
        failed.take(22 * SECOND);
        failed.well();
        failed.add(modified("/a"), 30 * SECOND);
        assert_eq!(failed.due(), Some(31 * SECOND));
    }

    /// One that fails for good, and whenever it changes, keeps no other waiting.
    #[test]
    fn each_path_waits_for_itself() {
        let mut failed = Failed::new(None);
        let mut now = 0;
        for _ in 0..10 {
            failed.add(modified("/bad"), now);
            now = failed.due().unwrap();
            failed.take(now);
        }
        failed.add(modified("/bad"), now);
        assert!(failed.due().unwrap() > now + 200 * SECOND);
        failed.add(modified("/good"), now);
        failed.add(modified("/bad"), now + SECOND / 2);
        assert_eq!(failed.due(), Some(now + SECOND));
        assert_eq!(failed.take(now + SECOND).0, modified("/good"));
        // It changes and fails, over and over: that does not put it off for ever.
        let due = failed.due().unwrap();
        for n in 1..9 {
            failed.add(modified("/bad"), now + n * 40 * SECOND);
        }
        assert_eq!(failed.due(), Some(due));
    }

    #[test]
    fn everything_is_not_compared_for_ever() {
        let mut failed = Failed::new(None);
        for _ in 0..COMPARISONS {
            assert!(failed.add_everything(0).is_some());
            assert_eq!(failed.take(Time::MAX), (Vec::new(), true));
        }
        assert!(failed.add_everything(0).is_none());
        assert_eq!(failed.due(), None);
    }

    #[test]
    fn lines_of_rsync_name_their_path() {
        let paths: [&[u8]; 3] = [b"/d/f", b"/g", b"/.h"];
        let known = |name: &[u8]| paths.iter().copied().find(|path| *path == name);
        let cases: [(&str, Option<&[u8]>); 6] = [
            (
                "rsync: [sender] send_files failed to open \"/src/d/f\": Permission denied (13)",
                Some(b"/d/f"),
            ),
            (
                "rsync: [receiver] mkstemp \"/trg/d/.f.Ab12Cd\" failed: No space left (28)",
                Some(b"/d/f"),
            ),
            (
                "rsync: [receiver] mkstemp \"/.g.Ab12Cd\" (in mod) failed",
                Some(b"/g"),
            ),
            (
                "rsync: [generator] chgrp \"/trg/.h\" failed: Operation not permitted (1)",
                Some(b"/.h"),
            ),
            ("rsync error: some files/attrs were not transferred", None),
            ("IO error encountered -- skipping file deletion", None),
        ];
        for (line, path) in cases {
            assert_eq!(blamed(line.as_bytes(), known), path, "{line}");
        }
    }
}
