//! What rounds of a gate come to: which files leave, which are rejected, and which are held and
//! looked at again.

use std::collections::HashSet;
use std::rc::Rc;

use super::event_loop::EventLoop;
use super::scan_progress::PassProgress;
use crate::config::OnReject;
use crate::log;
use crate::queue::Etype;
use crate::scan::{Collected, CommitAction, Committed, ScanAnswer, WorkerOrder};
use crate::script::SyncHandle;
use crate::sync::Again;

/// So many files are told one by one.
const TOLD: usize = 20;

impl EventLoop<'_> {
    /// Takes in what a look at the source came to; what is to be checked, if anything.
    pub(super) fn collected(
        &self,
        members: &[Rc<SyncHandle>],
        found: Collected,
    ) -> Option<Box<PassProgress>> {
        let gate = Rc::clone(&members.first()?.sync.borrow().gate);
        let mut withheld = gate.withheld_mut();
        if found.everything {
            let candidates = found.candidates.iter().map(|file| file.path.as_slice());
            let rejected = found.rejected.iter().map(|(path, _)| path.as_slice());
            let failures = found.failures.iter().map(|(path, _)| path.as_slice());
            let stay: HashSet<&[u8]> = candidates.chain(rejected).chain(failures).collect();
            let unread: Vec<&[u8]> = stay.iter().copied().filter(|p| p.ends_with(b"/")).collect();
            let is_unread = |path: &[u8]| unread.iter().any(|around| path.starts_with(around));
            withheld.retain(|path| stay.contains(path) || is_unread(path));
        }
        for path in &found.gone {
            withheld.gone(path);
        }
        for path in &found.clear {
            withheld.clear(path);
        }
        for (path, reason) in found.rejected {
            withheld.reject(&path, reason);
        }
        drop(withheld);
        let failures = found.failures.into_iter();
        self.wait_for(members, failures.map(|(path, why)| (path, why, false)));
        let candidates = found.candidates;
        (!candidates.is_empty()).then(|| Box::new(PassProgress::new(candidates)))
    }

    /// What was decided has been done.
    pub(super) fn settled(&self, members: &[Rc<SyncHandle>], settled: Committed) {
        for (path, place) in &settled.quarantined {
            log::warn(format_args!(
                "{}: {} was moved to {}",
                names(members),
                log::escape(path),
                log::escape(place)
            ));
        }
        let failures = settled.failures.into_iter();
        self.wait_for(members, failures.map(|(path, why)| (path, why, false)));
    }

    /// Holds files of which nothing is known, and has them looked at again later.
    fn wait_for(
        &self,
        members: &[Rc<SyncHandle>],
        files: impl Iterator<Item = (Vec<u8>, String, bool)>,
    ) {
        let Some(first) = members.first() else {
            return;
        };
        let gate = Rc::clone(&first.sync.borrow().gate);
        let name = names(members);
        let (mut paths, mut told) = (Vec::new(), 0);
        for (path, why, alone) in files {
            if gate.withheld_mut().hold(&path, why.clone(), alone) {
                told += 1;
                if told <= TOLD {
                    let path = log::escape(&path);
                    log::warn(format_args!("{name}: {path} is held: {why}"));
                }
            }
            paths.push(path);
        }
        if paths.is_empty() {
            return;
        }
        let again = |member: &Rc<SyncHandle>| {
            // Of a directory it is all that is in it.
            let paths = paths.iter().map(|path| {
                if path.ends_with(b"/") {
                    (path.clone(), Etype::Create)
                } else {
                    (path.clone(), Etype::Modify)
                }
            });
            let mut sync = member.sync.borrow_mut();
            match sync.owe(paths, self.now) {
                Again::Paths(_, wait) | Again::Everything(wait) => wait.as_secs(),
                Again::Nothing => 0,
            }
        };
        let wait = members.iter().map(again).min().unwrap_or_default();
        let count = paths.len();
        log::warn(format_args!(
            "{name}: {count} files are held as they could not be checked, trying again in {wait} s"
        ));
    }

    /// All answers are there.
    pub(super) fn decide(&mut self, token: u64) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let members = round.members();
        let gate = Rc::clone(&round.gate);
        let Some(checking) = round.take_checked() else {
            return;
        };
        let on_reject = {
            let sync = members[0].sync.borrow();
            let check = sync.config.check.as_ref();
            check.map_or(OnReject::Hold, |check| check.on_reject.clone())
        };
        let (mut decided, mut waiting) = (Vec::new(), Vec::new());
        for (candidate, answer) in checking.into_answers() {
            let disposition = match answer {
                ScanAnswer::Passed => {
                    let mut withheld = gate.withheld_mut();
                    withheld.clear(&candidate.path);
                    withheld.passed += 1;
                    CommitAction::Install
                }
                ScanAnswer::Rejected(reason) => {
                    self.reject(&members[0], &candidate.path, &reason, &on_reject);
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
            decided.push((candidate, disposition));
        }
        self.wait_for(&members, waiting.into_iter());
        self.order_check(token, WorkerOrder::Settle(decided));
    }
}

/// Whom a round is for.
fn names(members: &[Rc<SyncHandle>]) -> String {
    let Some((first, others)) = members.split_first() else {
        return String::new();
    };
    let first = &first.sync.borrow().config.name;
    match others.len() {
        0 => first.clone(),
        1 => format!("{first} and another sync"),
        more => format!("{first} and {more} other syncs"),
    }
}
