//! Phase of a sync: whether it may start transfers, and why not.
//!
//! The phase, the state of the source and a pause are independent of each other: a sync whose
//! source is lost can be paused, and one that waits for its watches can be halted. Each of the
//! three is an own value, so that no combination is impossible.

use crate::process::ExitStatus;

/// The phase of a sync's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The directories are not watched yet; the startup is not queued.
    Unwatched,
    /// The startup is queued or done.
    Active,
    /// The sync has ended because of this exit status. This is final.
    Ended(ExitStatus),
}

/// The state of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SourceState {
    /// The source is present.
    Present,
    /// A guard has found this violation.
    Halted(String),
    /// The source is not watched any more. The reason is `None` if the user has released the halt,
    /// which does not restore the watch.
    Lost(Option<String>),
}

/// The conditions under which a sync may start transfers.
#[derive(Clone, Debug)]
pub(super) struct Lifecycle {
    phase: Phase,
    source: SourceState,
    is_paused: bool,
    /// The number of running children of the sync that this one replaces.
    predecessor_jobs: usize,
    /// The capabilities of rsync are being probed.
    is_probing: bool,
}

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle {
            phase: Phase::Active,
            source: SourceState::Present,
            is_paused: false,
            predecessor_jobs: 0,
            is_probing: false,
        }
    }
}

impl Lifecycle {
    /// Returns true if transfers may start.
    pub fn may_send(&self) -> bool {
        self.is_keeping_up() && !self.is_paused
    }

    /// Returns true if the sync sends what is queued, or does so when it is resumed.
    pub fn is_keeping_up(&self) -> bool {
        self.phase == Phase::Active
            && self.source == SourceState::Present
            && self.predecessor_jobs == 0
            && !self.is_probing
    }

    /// Waits until the directories are watched. A sync that has ended stays so.
    pub fn await_watches(&mut self) {
        if self.phase == Phase::Active {
            self.phase = Phase::Unwatched;
        }
    }

    /// Returns true if the directories are not watched yet, or the startup is not planned.
    pub fn awaits_watches(&self) -> bool {
        self.phase == Phase::Unwatched
    }

    /// Handles the end of the crawl. Returns true if the sync has waited for it.
    pub fn watched(&mut self) -> bool {
        let waited = self.phase == Phase::Unwatched;
        if waited {
            self.phase = Phase::Active;
        }
        waited
    }

    /// Ends the sync because of this exit status.
    pub fn end(&mut self, status: ExitStatus) {
        self.phase = Phase::Ended(status);
    }

    /// Returns the exit status that ended the sync, if it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        match self.phase {
            Phase::Ended(status) => Some(status),
            Phase::Unwatched | Phase::Active => None,
        }
    }

    /// Handles the loss of the watched source. The reason of an earlier halt is kept. Returns true
    /// if `reason` is the reason now and none was before.
    pub fn lose_source(&mut self, reason: &str) -> bool {
        let before = self.reason().map(str::to_owned);
        let is_new = before.is_none();
        self.source = SourceState::Lost(Some(before.unwrap_or_else(|| reason.to_owned())));
        is_new
    }

    /// Handles the return of the watched source. It stays halted until it is resumed.
    pub fn find_source(&mut self) {
        if let SourceState::Lost(reason) = &mut self.source {
            self.source = reason
                .take()
                .map_or(SourceState::Present, SourceState::Halted);
        }
    }

    /// Halts the sync. Returns true if it was not halted for this reason before.
    pub fn halt(&mut self, reason: String) -> bool {
        let is_new = self.reason() != Some(&reason);
        self.source = match self.source {
            SourceState::Lost(_) => SourceState::Lost(Some(reason)),
            SourceState::Present | SourceState::Halted(_) => SourceState::Halted(reason),
        };
        is_new
    }

    /// Ends a halt. Returns true if there was one. A lost source stays lost.
    pub fn resume(&mut self) -> bool {
        let was_halted = self.reason().is_some();
        self.source = match self.source {
            SourceState::Lost(_) => SourceState::Lost(None),
            SourceState::Present | SourceState::Halted(_) => SourceState::Present,
        };
        was_halted
    }

    /// Returns the reason of a halt, if the sync is halted.
    pub fn reason(&self) -> Option<&str> {
        match &self.source {
            SourceState::Present => None,
            SourceState::Halted(reason) => Some(reason),
            SourceState::Lost(reason) => reason.as_deref(),
        }
    }

    /// Returns true if the source is not watched any more.
    pub fn is_lost(&self) -> bool {
        matches!(self.source, SourceState::Lost(_))
    }

    /// Pauses or resumes the sync on request of the user.
    pub fn set_paused(&mut self, paused: bool) {
        self.is_paused = paused;
    }

    /// Returns true if the user has paused the sync.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Waits for one more child of the sync that this one replaces.
    pub fn add_predecessor_job(&mut self) {
        self.predecessor_jobs += 1;
    }

    /// Handles the end of such a child.
    pub fn predecessor_job_ended(&mut self) {
        self.predecessor_jobs = self.predecessor_jobs.saturating_sub(1);
    }

    /// Waits for a probe of rsync, or ends the wait.
    pub fn set_probing(&mut self, probing: bool) {
        self.is_probing = probing;
    }
}

#[cfg(test)]
mod tests {
    use super::SourceState::{Halted, Lost, Present};
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Lose,
        Find,
        Halt(&'static str),
        Resume,
    }

    fn why(reason: &str) -> String {
        reason.to_owned()
    }

    /// Each row: the state, the event, the state after it, and whether the event is news.
    #[test]
    fn each_event_leads_from_each_state_of_the_source_to_one() {
        use Event::*;
        let a = || Some(why("a"));
        let table = [
            (Present, Lose, Lost(Some(why("gone"))), true),
            (Present, Find, Present, false),
            (Present, Halt("a"), Halted(why("a")), true),
            (Present, Resume, Present, false),
            (Halted(why("a")), Lose, Lost(a()), false),
            (Halted(why("a")), Find, Halted(why("a")), false),
            (Halted(why("a")), Halt("a"), Halted(why("a")), false),
            (Halted(why("a")), Halt("b"), Halted(why("b")), true),
            (Halted(why("a")), Resume, Present, true),
            (Lost(a()), Lose, Lost(a()), false),
            (Lost(a()), Find, Halted(why("a")), false),
            (Lost(a()), Halt("a"), Lost(a()), false),
            (Lost(a()), Halt("b"), Lost(Some(why("b"))), true),
            (Lost(a()), Resume, Lost(None), true),
            (Lost(None), Lose, Lost(Some(why("gone"))), true),
            (Lost(None), Find, Present, false),
            (Lost(None), Halt("a"), Lost(a()), true),
            (Lost(None), Resume, Lost(None), false),
        ];
        for (before, event, after, news) in table {
            let mut life = Lifecycle {
                source: before.clone(),
                ..Lifecycle::default()
            };
            let is_news = match event {
                Lose => life.lose_source("gone"),
                Find => {
                    life.find_source();
                    false
                }
                Halt(reason) => life.halt(why(reason)),
                Resume => life.resume(),
            };
            assert_eq!(life.source, after, "{before:?} {event:?}");
            assert_eq!(is_news, news, "{before:?} {event:?}");
            assert_eq!(life.phase, Phase::Active);
            assert_eq!(life.may_send(), after == Present, "{after:?}");
            assert_eq!(life.is_lost(), matches!(after, Lost(_)));
        }
    }

    #[test]
    fn each_event_leads_from_each_phase_to_one() {
        use Phase::{Active, Ended, Unwatched};
        type Change = fn(&mut Lifecycle);
        let (await_watches, watched, end): (Change, Change, Change) = (
            Lifecycle::await_watches,
            |life| {
                life.watched();
            },
            |life| life.end(ExitStatus::Exit(5)),
        );
        for (before, change, after) in [
            (Unwatched, await_watches, Unwatched),
            (Unwatched, watched, Active),
            (Unwatched, end, Ended(ExitStatus::Exit(5))),
            (Active, await_watches, Unwatched),
            (Active, watched, Active),
            (Active, end, Ended(ExitStatus::Exit(5))),
            (
                Ended(ExitStatus::Exit(3)),
                await_watches,
                Ended(ExitStatus::Exit(3)),
            ),
            (
                Ended(ExitStatus::Exit(3)),
                watched,
                Ended(ExitStatus::Exit(3)),
            ),
            (Ended(ExitStatus::Exit(3)), end, Ended(ExitStatus::Exit(5))),
        ] {
            let mut life = Lifecycle {
                phase: before,
                ..Lifecycle::default()
            };
            change(&mut life);
            assert_eq!(life.phase, after, "{before:?}");
            assert_eq!(life.may_send(), after == Active, "{after:?}");
            assert_eq!(life.ended().is_some(), matches!(after, Ended(_)));
        }
    }

    #[test]
    fn the_startup_is_queued_once_per_wait_for_watches() {
        let mut life = Lifecycle::default();
        assert!(!life.watched());
        life.await_watches();
        assert!(life.watched() && !life.watched());
        life.end(ExitStatus::Exit(1));
        life.await_watches();
        assert!(!life.watched());
    }

    #[test]
    fn every_other_condition_holds_transfers_by_itself() {
        let mut life = Lifecycle::default();
        assert!(life.may_send());
        life.set_paused(true);
        assert!(!life.may_send() && life.is_keeping_up());
        life.set_paused(false);
        life.set_probing(true);
        assert!(!life.may_send() && !life.is_keeping_up());
        life.set_probing(false);
        life.add_predecessor_job();
        life.add_predecessor_job();
        life.predecessor_job_ended();
        assert!(!life.may_send());
        life.predecessor_job_ended();
        assert!(life.may_send());
    }
}
