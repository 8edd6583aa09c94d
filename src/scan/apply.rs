//! Applies the results of scan passes: files that are released, rejected, or held and checked
//! again.

use std::collections::HashSet;
use std::rc::Rc;

use super::hooks::RejectHooks;
use super::progress::PassProgress;
use crate::config::OnReject;
use crate::log;
use crate::paths;
use crate::queue::{Etype, Time};
use crate::script::{Script, SyncHandle};
use crate::staging::{Candidate, Collected, CommitAction, Committed, ScanAnswer};
use crate::sync::RetryPlan;

/// The maximum number of files that are logged individually.
const MAX_LOGGED_PATHS: usize = 20;

/// Takes in the candidates of a pass. Returns those to be checked, if there are any.
pub fn collected(
    syncs: &[Rc<SyncHandle>],
    found: Collected,
    now: Time,
) -> Option<Box<PassProgress>> {
    let gate = Rc::clone(&syncs.first()?.sync.borrow().gate);
    let mut blocked = gate.blocked_mut();
    if !found.compared.is_empty() && !blocked.is_empty() {
        let candidates = found.candidates.iter().map(|file| file.path.as_slice());
        let rejected = found.rejected.iter().map(|(path, _)| path.as_slice());
        let failures = found.failures.iter().map(|(path, _)| path.as_slice());
        let stay: HashSet<&[u8]> = candidates.chain(rejected).chain(failures).collect();
        let unread: Vec<&[u8]> = stay.iter().copied().filter(|p| p.ends_with(b"/")).collect();
        let is_unread = |path: &[u8]| unread.iter().any(|around| path.starts_with(around));
        let compared: HashSet<&[u8]> = found.compared.iter().map(Vec::as_slice).collect();
        let was_seen = |path: &[u8]| is_below_any(path, &compared);
        blocked.retain(|path| stay.contains(path) || is_unread(path) || !was_seen(path));
    }
    for path in &found.gone {
        blocked.gone(path);
    }
    for path in &found.clear {
        blocked.clear(path);
    }
    for (path, reason) in found.rejected {
        blocked.reject(&path, reason);
    }
    drop(blocked);
    let failures = found.failures.into_iter();
    wait_for(syncs, failures.map(|(path, why)| (path, why, false)), now);
    let candidates = found.candidates;
    (!candidates.is_empty()).then(|| Box::new(PassProgress::new(candidates)))
}

/// Logs the committed results.
pub fn committed(syncs: &[Rc<SyncHandle>], committed: Committed, now: Time) {
    for (path, place) in &committed.quarantined {
        log::warn(format_args!(
            "{}: {} was moved to {}",
            names(syncs),
            log::escape(path),
            log::escape(place)
        ));
    }
    let failures = committed.failures.into_iter();
    wait_for(syncs, failures.map(|(path, why)| (path, why, false)), now);
}

/// Holds files that could not be checked and schedules another pass.
fn wait_for(
    syncs: &[Rc<SyncHandle>],
    files: impl Iterator<Item = (Vec<u8>, String, bool)>,
    now: Time,
) {
    let Some(first) = syncs.first() else {
        return;
    };
    let gate = Rc::clone(&first.sync.borrow().gate);
    let name = names(syncs);
    let (mut paths, mut told) = (Vec::new(), 0);
    for (path, why, alone) in files {
        if gate.blocked_mut().defer(&path, why.clone(), alone) {
            told += 1;
            if told <= MAX_LOGGED_PATHS {
                let path = log::escape(&path);
                log::warn(format_args!("{name}: {path} is held: {why}"));
            }
        }
        paths.push(path);
    }
    if paths.is_empty() {
        return;
    }
    let again = |handle: &Rc<SyncHandle>| {
        // A directory stands for its contents.
        let paths = paths.iter().map(|path| {
            if path.ends_with(b"/") {
                (path.clone(), Etype::Create)
            } else {
                (path.clone(), Etype::Modify)
            }
        });
        let mut sync = handle.sync.borrow_mut();
        match sync.retry_held_paths(paths.collect(), now) {
            RetryPlan::Paths(_, wait) | RetryPlan::Everything(wait) => wait.as_secs(),
            RetryPlan::Nothing => 0,
        }
    };
    let wait = syncs.iter().map(again).min().unwrap_or_default();
    let count = paths.len();
    log::warn(format_args!(
        "{name}: {count} files are held as they could not be checked, trying again in {wait} s"
    ));
}

/// Decides about each file of a pass whose checks are complete, and reports rejected ones.
pub fn decide(
    syncs: &[Rc<SyncHandle>],
    progress: PassProgress,
    hooks: &mut RejectHooks,
    script: &Script,
    now: Time,
) -> Vec<(Candidate, CommitAction)> {
    let Some(first) = syncs.first() else {
        return Vec::new();
    };
    let (gate, on_reject) = {
        let sync = first.sync.borrow();
        let check = sync.config.check.as_ref();
        let on_reject = check.map_or(OnReject::Hold, |check| check.on_reject.clone());
        (Rc::clone(&sync.gate), on_reject)
    };
    let (mut decided, mut waiting) = (Vec::new(), Vec::new());
    for (candidate, answer) in progress.into_answers() {
        if !matches!(answer, ScanAnswer::Failed { .. }) {
            for handle in syncs {
                handle.sync.borrow_mut().checked(&candidate.path);
            }
        }
        let action = match answer {
            ScanAnswer::Passed => {
                let mut blocked = gate.blocked_mut();
                blocked.clear(&candidate.path);
                blocked.passed += 1;
                CommitAction::Install
            }
            ScanAnswer::Rejected(reason) => {
                hooks.on_rejected(first, &candidate.path, &reason, &on_reject, script);
                match &on_reject {
                    OnReject::Hold | OnReject::Call(_) => CommitAction::Hold(reason),
                    OnReject::DeleteTarget => CommitAction::Remove(reason),
                    OnReject::Quarantine(to) => CommitAction::Quarantine(reason, to.clone()),
                }
            }
            ScanAnswer::Failed { reason, alone } => {
                waiting.push((candidate.path.clone(), reason, alone));
                CommitAction::Wait
            }
        };
        decided.push((candidate, action));
    }
    wait_for(syncs, waiting.into_iter(), now);
    decided
}

/// Returns the names of the syncs of a pass, for the log.
fn names(syncs: &[Rc<SyncHandle>]) -> String {
    let Some((first, others)) = syncs.split_first() else {
        return String::new();
    };
    let first = &first.sync.borrow().config.name;
    match others.len() {
        0 => first.clone(),
        1 => format!("{first} and another sync"),
        more => format!("{first} and {more} other syncs"),
    }
}

/// Returns true if a directory above a path is one of these, which have no slash at their ends.
fn is_below_any(path: &[u8], directories: &HashSet<&[u8]>) -> bool {
    paths::directories(paths::bare(path)).any(|above| directories.contains(paths::bare(above)))
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;
    use crate::sync::tests::sync_of;

    /// A file that is not blocked any more is sent, and removed from the target if it is gone.
    #[test]
    fn what_was_not_seen_stays_blocked() {
        let blocked = ["/d/held", "/d/seen", "/d/unread/f", "/d/sub/f", "/e/f"];
        let remaining = |compared: &[&str], failures: &[&str]| {
            let syncs = [SyncHandle::of_sync(&Lua::new(), sync_of(b"/src/"))];
            let gate = Rc::clone(&syncs[0].sync.borrow().gate);
            for path in blocked {
                gate.blocked_mut().reject(path.as_bytes(), "poison".into());
            }
            let failed = |path: &&str| (path.as_bytes().to_vec(), "unreadable".to_owned());
            let found = Collected {
                rejected: vec![(b"/d/held".to_vec(), "poison".to_owned())],
                compared: compared
                    .iter()
                    .map(|path| path.as_bytes().to_vec())
                    .collect(),
                failures: failures.iter().map(failed).collect(),
                ..Collected::default()
            };
            assert!(collected(&syncs, found, 0).is_none());
            let blocked = gate.blocked_mut();
            let paths = blocked.iter().map(|(path, _)| path.to_vec());
            let paths = paths.map(|path| String::from_utf8(path).unwrap());
            let mut paths: Vec<String> = paths.filter(|path| !path.ends_with('/')).collect();
            paths.sort();
            paths
        };
        assert_eq!(
            remaining(&[], &[]),
            ["/d/held", "/d/seen", "/d/sub/f", "/d/unread/f", "/e/f"]
        );
        assert_eq!(
            remaining(&["/d"], &["/d/unread/"]),
            ["/d/held", "/d/unread/f", "/e/f"]
        );
        assert_eq!(
            remaining(&["/d/sub"], &[]),
            ["/d/held", "/d/seen", "/d/unread/f", "/e/f"]
        );
        assert_eq!(remaining(&[""], &[]), ["/d/held"]);
    }
}
