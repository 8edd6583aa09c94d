//! Full comparisons of a sync: at startup, by crontab, and after events were lost.

use super::Sync;
use crate::cron::WallTime;
use crate::log;
use crate::queue::{Delay, DelayId, Etype, Status, Time};

impl Sync {
    /// Waits with the startup until the directories are watched.
    pub fn await_watches(&mut self) {
        self.lifecycle.await_watches();
    }

    /// Queues the startup of a sync whose directories are watched now. Returns false if it did not
    /// wait for that.
    pub fn watched(&mut self, now: Time) -> bool {
        let waited = self.lifecycle.watched();
        if waited {
            self.start(now);
        }
        waited
    }

    /// Sets whether full comparisons wait, because `maxStartups` is reached.
    pub fn defer_full_comparisons(&mut self, defers: bool) {
        self.defers_full_comparisons = defers;
    }

    /// Queues the startup event, unless `init` is false. It covers changes from before a mark that
    /// was set while the sync waited.
    pub fn start(&mut self, now: Time) {
        self.requeues += 1;
        if self.config.init {
            self.queue.push(Etype::Init, b"", None, now);
        }
        self.queue_inherited(now);
    }

    /// Returns true if nothing of the startup is left to do.
    pub fn has_started(&self) -> bool {
        // The startup is not planned yet.
        let is_planned = self.warm_start.is_none() || !self.lifecycle.awaits_watches();
        let has_ended = self.has_ended();
        has_ended
            || is_planned
                && !self
                    .queue
                    .specials()
                    .any(|delay| delay.etype() == Etype::Init)
    }

    /// Returns the reason why the startup waits for a change of source, target or guard; `None` if
    /// it is complete or continues by itself.
    pub fn startup_obstacle(&self) -> Option<&str> {
        if self.has_started() {
            return None;
        }
        self.halted().or(self.delete_guard().excess())
    }

    /// Queues a full comparison for `due`, because events may have been lost.
    pub fn resync(&mut self, due: Time) {
        self.note_lost_events();
        self.compare_again(due);
    }

    /// Queues a full comparison for `due`, unless one is pending.
    pub fn resync_once(&mut self, due: Time) {
        self.note_lost_events();
        self.compare_once(due);
    }

    /// Queues a full comparison for `due`, unless one is pending. No events have been lost, so
    /// contents are not compared.
    pub fn compare_once(&mut self, due: Time) {
        self.requeues += 1;
        let waits = |delay: Delay<'_>| delay.status() == Status::Wait;
        let is_pending = self.queue.specials().any(waits);
        if !is_pending {
            self.compare_again(due);
        }
    }

    /// Queues a full comparison again that was incomplete. No further events have been lost.
    pub(super) fn compare_again(&mut self, now: Time) {
        if let Some(etype) = self.comparison() {
            self.queue.push(etype, b"/", None, now);
        }
    }

    /// Returns true if full comparisons are possible.
    pub(super) fn compares_everything(&self) -> bool {
        self.comparison().is_some()
    }

    /// Records that events may have been lost.
    fn note_lost_events(&mut self) {
        self.requeues += 1;
        self.verify.suspect();
        self.changes.lose();
        self.overlaps.lose_events();
        self.lose_index();
    }

    /// Records that an index made of the present state would be wrong.
    pub fn lose_index(&mut self) {
        if let Some(warm) = &mut self.warm_start {
            warm.lose_events();
        }
    }

    /// Returns true if the startup waits until the directories are watched.
    pub fn awaits_watches(&self) -> bool {
        self.lifecycle.awaits_watches()
    }

    /// Returns the event type of a full comparison; `None` if the sync's kind has none.
    fn comparison(&self) -> Option<Etype> {
        if self.has_full || self.has_on_full {
            Some(Etype::Full)
        } else {
            self.config.init.then_some(Etype::Init)
        }
    }

    /// Queues a full comparison if the crontab is due and none is pending.
    pub fn on_cron(&mut self, wall: WallTime, now: Time) {
        if !self.crontab.is_due(wall) {
            return;
        }
        log::say("Info", "Crontab triggered full sync");
        let mut delays = self.queue.iter();
        if !delays.any(|delay| delay.etype() == Etype::Full && delay.status() != Status::Active) {
            drop(delays);
            self.queue.push(Etype::Full, b"/", None, now);
        }
    }

    /// Returns true if this entry is a full comparison. The startup of user code is not one.
    pub fn is_whole(&self, id: DelayId) -> bool {
        let etype = self.queue.get(id).map(|delay| delay.etype());
        self.has_full && matches!(etype, Some(Etype::Init | Etype::Full))
    }

    /// Returns true if a full comparison is running.
    pub fn compares_all(&self) -> bool {
        let mut active = self
            .queue
            .specials()
            .filter(|delay| delay.status() == Status::Active);
        self.has_full && active.any(|delay| delay.etype() != Etype::Blanket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::SyncCommand;
    use crate::process::ExitStatus;
    use crate::queue::{Policy, Take};
    use crate::sync::tests::sync_with;
    use crate::sync::{Next, WarmStart};

    fn specials(sync: &Sync) -> Vec<Etype> {
        sync.queue.specials().map(|delay| delay.etype()).collect()
    }

    #[test]
    fn a_pending_comparison_is_not_queued_twice() {
        for (has_full, etype) in [(false, Etype::Init), (true, Etype::Full)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.has_full = has_full;
            sync.start(0);
            sync.resync_once(0);
            assert_eq!(specials(&sync), [Etype::Init]);
            assert!(!sync.verify.is_done());
            let running = sync.queue.take(|_| Take::Take);
            sync.queue.activate(&running);
            sync.resync_once(0);
            sync.resync_once(0);
            assert_eq!(specials(&sync), [Etype::Init, etype]);
            sync.resync(0);
            assert_eq!(specials(&sync), [Etype::Init, etype, etype]);
        }
    }

    #[test]
    fn without_init_only_a_full_function_compares() {
        let mut sync = sync_with(Policy::PerEvent);
        sync.config.init = false;
        sync.resync(0);
        assert_eq!(specials(&sync), []);
        assert!(!sync.verify.is_done());
        assert!(!sync.would_change(&SyncCommand::Resync));
        sync.has_full = true;
        sync.resync_once(0);
        assert_eq!(specials(&sync), [Etype::Full]);
    }

    /// The action `onFull` of a user is a comparison, but not known to compare the whole source.
    #[test]
    fn an_action_of_the_user_compares() {
        for init in [false, true] {
            let mut sync = sync_with(Policy::PerEvent);
            sync.config.init = init;
            sync.has_on_full = true;
            assert!(sync.would_change(&SyncCommand::Resync));
            sync.resync(0);
            assert_eq!(specials(&sync), [Etype::Full]);
            let id = sync.queue.specials().next().unwrap().id();
            assert!(!sync.is_whole(id));
        }
    }

    /// Otherwise all syncs of a configuration compare at once, in spite of `maxStartups`.
    #[test]
    fn deferred_full_comparisons_wait_and_other_transfers_do_not() {
        let mut sync = sync_with(Policy::Coalesce);
        sync.has_full = true;
        sync.start(0);
        sync.defer_full_comparisons(true);
        assert_eq!(sync.next(0), Next::Nothing);
        sync.defer_full_comparisons(false);
        assert!(matches!(sync.next(0), Next::Act(_)));
        let ids = sync.queue.take(|_| Take::Take);
        sync.queue.activate(&ids);
        sync.succeeded(&ids);
        sync.defer_full_comparisons(true);
        sync.queue.push(Etype::Modify, b"/a", None, 0);
        assert!(matches!(sync.next(0), Next::Act(_)));
    }

    #[test]
    fn a_full_comparison_runs_while_its_entry_is_active() {
        for (has_full, etype, compares) in [
            (true, Etype::Init, true),
            (true, Etype::Full, true),
            (true, Etype::Blanket, false),
            (true, Etype::Modify, false),
            (false, Etype::Init, false),
        ] {
            let mut sync = sync_with(Policy::PerEvent);
            sync.has_full = has_full;
            sync.queue.push(etype, b"/", None, 0);
            assert!(!sync.compares_all(), "{etype:?}");
            let ids = sync.queue.take(|_| Take::Take);
            sync.queue.activate(&ids);
            assert_eq!(sync.compares_all(), compares, "{etype:?}");
        }
    }

    /// `-onepass` and `lsyncdctl wait-started` end with the startup.
    #[test]
    fn a_startup_is_over_when_nothing_of_it_is_planned_or_queued() {
        for is_warm in [false, true] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.warm_start = is_warm.then(WarmStart::default);
            assert!(sync.has_started());
            sync.await_watches();
            assert_eq!(sync.has_started(), !is_warm);
            sync.watched(0);
            assert!(!sync.has_started());
            sync.queue.push(Etype::Full, b"/", None, 0);
            let ids = sync.queue.take(|_| Take::Take);
            sync.queue.activate(&ids);
            assert!(!sync.has_started());
            sync.succeeded(&ids);
            assert!(sync.has_started());
            sync.queue.push(Etype::Full, b"/", None, 0);
            assert!(sync.has_started());
        }
        for wait in [Sync::await_watches, |sync: &mut Sync| sync.start(0)] {
            let mut sync = sync_with(Policy::Coalesce);
            sync.warm_start = Some(WarmStart::default());
            wait(&mut sync);
            assert!(!sync.has_started());
            sync.end(&[], ExitStatus::Exit(5), 0);
            assert!(sync.has_started());
        }
    }

    #[test]
    fn what_holds_a_startup_is_known() {
        type Change = fn(&mut Sync);
        let cases: [(Option<&str>, Change); 3] = [
            (None, |_| {}),
            (Some("gone"), |sync| {
                sync.halt("gone".into());
            }),
            (Some("3 deletions"), |sync| {
                sync.delete_guard_mut().exceeded("3 deletions".into());
            }),
        ];
        for (obstacle, change) in cases {
            let mut sync = sync_with(Policy::Coalesce);
            change(&mut sync);
            assert_eq!(sync.startup_obstacle(), None);
            sync.start(0);
            assert_eq!(sync.startup_obstacle(), obstacle);
        }
    }

    #[test]
    fn the_rules_of_the_crontab_determine_the_next_comparison() {
        let mut sync = sync_with(Policy::Coalesce);
        assert!(sync.add_crontab("* * *").is_err());
        sync.on_cron(1000, 0);
        assert_eq!(sync.next_cron(), None);
        let mut sync = sync_with(Policy::Coalesce);
        assert_eq!(sync.add_crontab("* * * * * *"), Ok(()));
        sync.on_cron(1000, 0);
        assert_eq!(sync.next_cron(), Some(1001));
        sync.on_cron(1001, 0);
        assert_eq!(specials(&sync), [Etype::Full]);
    }
}
