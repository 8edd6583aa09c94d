//! Dispatcher: calls the actions of syncs that are due, in fair order and within limits.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use super::rsync_probe::RsyncProbe;
use crate::queue::{DelayId, Time};
use crate::script::SyncHandle;
use crate::sync::{Next, Scheduler, micros};

/// The delay before an action is called again that neither spawned for an event nor discarded one.
const IDLE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The maximum number of calls of a sync's action, and of starts, in one turn. An action that
/// creates new events on each call must not block the loop.
const MAX_EVENTS_PER_TURN: usize = 1000;

/// The request of a called action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Nothing, or something for queue entries.
    ForEntries,
    /// Processes for empty lists, or for entries that the action has created itself, only.
    ForNothing,
    /// The event loop ends.
    Ending,
}

/// Calls actions and executes their requests.
pub trait ActionCaller {
    /// Returns the number of processes that the global limit still permits.
    fn places(&self) -> usize;

    /// Returns true if source and target of a sync are available. Otherwise the sync is halted.
    fn check_ready(&mut self, handle: &SyncHandle) -> bool;

    /// Removes files that are being written from a sync's queue. Returns true if there was any.
    fn defer_open_files(&mut self, handle: &SyncHandle) -> bool;

    /// Calls the action of a sync for a due entry, and starts what it requests.
    fn call_action(&mut self, handle: &Rc<SyncHandle>, id: DelayId) -> Requested;
}

/// The result of the calls of a sync's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Called {
    /// The sync has started a process.
    Started,
    /// Nothing is due, or the sync may not start a process.
    Idle,
    /// The event loop ends.
    Ending,
}

/// Calls the actions of due syncs.
#[derive(Default)]
pub struct Dispatcher {
    scheduler: Scheduler,
    rsync_probe: RsyncProbe,
}

impl Dispatcher {
    /// Returns the next time at which a sync is due for which one of the free `places` is left.
    pub fn deadline(syncs: &[Rc<SyncHandle>], places: usize, now: Time) -> Option<Time> {
        let may_start =
            |handle: &&Rc<SyncHandle>| handle.is_connected() && has_place(handle, syncs, places);
        let due = syncs.iter().filter(may_start).filter_map(|handle| {
            match handle.sync.borrow_mut().next(now) {
                Next::Act(_) => Some(now),
                Next::At(time) => Some(time),
                Next::Nothing => None,
            }
        });
        due.min()
    }

    /// Releases syncs whose rsync has been probed.
    pub fn on_turn(&mut self, syncs: &[Rc<SyncHandle>]) {
        self.rsync_probe.on_turn(syncs);
    }

    /// Calls the actions of due syncs until nothing is due or a limit is reached. At most
    /// `max_startups` full comparisons run at a time.
    pub fn run_due(
        &mut self,
        syncs: &[Rc<SyncHandle>],
        max_startups: usize,
        now: Time,
        waker: &Arc<Waker>,
        caller: &mut impl ActionCaller,
    ) {
        limit_startups(syncs, max_startups);
        let (mut place, mut starts) = (0, 0);
        while let Some(index) = self.scheduler.at(place, syncs.len()) {
            let handle = &syncs[index];
            match self.run_sync(handle, syncs, now, waker, caller) {
                Called::Started => {
                    starts += 1;
                    self.scheduler.served(place);
                }
                Called::Idle => place += 1,
                Called::Ending => return,
            }
            if starts == MAX_EVENTS_PER_TURN {
                return;
            }
            if handle.sync.borrow().compares_all() {
                limit_startups(syncs, max_startups);
            }
        }
    }

    /// Calls a sync's action until it starts a process, nothing is due, or a limit is reached.
    fn run_sync(
        &mut self,
        handle: &Rc<SyncHandle>,
        syncs: &[Rc<SyncHandle>],
        now: Time,
        waker: &Arc<Waker>,
        caller: &mut impl ActionCaller,
    ) -> Called {
        for _ in 0..MAX_EVENTS_PER_TURN {
            if !has_place(handle, syncs, caller.places()) || !handle.is_connected() {
                return Called::Idle;
            }
            let next = handle.sync.borrow_mut().next(now);
            let Next::Act(id) = next else {
                return Called::Idle;
            };
            if !self.rsync_probe.is_done(handle, waker) || !caller.check_ready(handle) {
                return Called::Idle;
            }
            if caller.defer_open_files(handle) {
                continue;
            }
            let state = || {
                let sync = handle.sync.borrow();
                (sync.running(), sync.queue.len())
            };
            let before = state();
            let requested = caller.call_action(handle, id);
            if requested == Requested::Ending {
                return Called::Ending;
            }
            let after = state();
            let until = now + micros(IDLE_RETRY_DELAY);
            let mut sync = handle.sync.borrow_mut();
            // Events that the action has created are no progress.
            let is_left = after.1 >= before.1 && sync.queue.is_waiting(id);
            if after.0 > before.0 {
                if is_left && requested == Requested::ForNothing {
                    sync.defer(until);
                }
                return Called::Started;
            }
            if is_left && sync.next(now) == Next::Act(id) {
                sync.defer(until);
                return Called::Idle;
            }
        }
        Called::Idle
    }
}

/// Returns true if a sync may take one of the free places for processes. The last one is left to
/// syncs without a process, so that a target that hangs does not take all of them.
fn has_place(handle: &SyncHandle, syncs: &[Rc<SyncHandle>], places: usize) -> bool {
    let is_idle = |other: &Rc<SyncHandle>| {
        let other = other.sync.borrow();
        other.running() == 0 && !other.has_ended()
    };
    match places {
        0 => false,
        1 => handle.sync.borrow().running() == 0 || !syncs.iter().any(is_idle),
        _ => true,
    }
}

/// Defers full comparisons beyond `max_startups`.
fn limit_startups(syncs: &[Rc<SyncHandle>], max_startups: usize) {
    let compares = |handle: &&Rc<SyncHandle>| handle.sync.borrow().compares_all();
    let wait = syncs.iter().filter(compares).count() >= max_startups;
    for handle in syncs {
        handle.sync.borrow_mut().defer_full_comparisons(wait);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use mio::{Poll, Token};
    use mlua::Lua;

    use super::*;
    use crate::queue::Etype;
    use crate::sync::tests::sync_of;

    /// What the fake action does for an entry.
    #[derive(Clone, Copy)]
    enum Answer {
        Spawn,
        SpawnNothing,
        SpawnCreated,
        Create,
        Ignore,
        Discard,
        DiscardOther,
        Fail,
    }

    struct FakeCaller {
        free: usize,
        ready: bool,
        open_files: usize,
        answers: VecDeque<Answer>,
        called: Vec<String>,
    }

    impl ActionCaller for FakeCaller {
        fn places(&self) -> usize {
            self.free
        }

        fn check_ready(&mut self, _: &SyncHandle) -> bool {
            self.ready
        }

        fn defer_open_files(&mut self, handle: &SyncHandle) -> bool {
            if self.open_files == 0 {
                return false;
            }
            self.open_files -= 1;
            let mut sync = handle.sync.borrow_mut();
            let id = sync.queue.oldest().map(|delay| delay.id());
            if let Some(id) = id {
                sync.queue.discard(id);
            }
            true
        }

        fn call_action(&mut self, handle: &Rc<SyncHandle>, id: DelayId) -> Requested {
            let mut sync = handle.sync.borrow_mut();
            self.called.push(sync.config.name.clone());
            match self.answers.pop_front().unwrap_or(Answer::Spawn) {
                Answer::Spawn => {
                    self.free -= 1;
                    sync.begin(&[id]);
                    sync.child_started();
                }
                Answer::SpawnNothing => {
                    sync.child_started();
                    return Requested::ForNothing;
                }
                Answer::SpawnCreated => {
                    let last = sync.queue.last_serial();
                    sync.queue.push(Etype::Blanket, b"", None, 0);
                    let created = sync.queue.specials().find(|new| new.id().serial() > last);
                    let created = created.unwrap().id();
                    sync.begin(&[created]);
                    sync.child_started();
                    return Requested::ForNothing;
                }
                Answer::Create => {
                    sync.queue.push(Etype::Blanket, b"", None, 0);
                }
                Answer::Ignore => {}
                Answer::Discard => {
                    sync.queue.discard(id);
                }
                Answer::DiscardOther => {
                    let other = sync.queue.iter().map(|delay| delay.id());
                    let other = other.filter(|other| *other != id).last();
                    sync.queue.discard(other.unwrap());
                }
                Answer::Fail => return Requested::Ending,
            }
            Requested::ForEntries
        }
    }

    struct Fixture {
        // The tables of the handles live as long as it does.
        _lua: Lua,
        dispatcher: Dispatcher,
        syncs: Vec<Rc<SyncHandle>>,
        caller: FakeCaller,
        waker: Arc<Waker>,
        now: Time,
    }

    impl Fixture {
        /// Returns syncs, each with this number of due entries.
        fn new(entries: &[usize]) -> Fixture {
            let lua = Lua::new();
            let now = 1_000_000_000;
            let syncs = entries.iter().enumerate().map(|(index, &count)| {
                let mut sync = sync_of(b"/src/");
                sync.config.name = index.to_string();
                sync.config.max_delays = 1;
                for entry in 0..count {
                    let path = format!("/{entry}").into_bytes();
                    sync.queue.push(Etype::Modify, &path, None, 0);
                }
                SyncHandle::of_sync(&lua, sync)
            });
            let poll = Poll::new().unwrap();
            let syncs = syncs.collect();
            Fixture {
                _lua: lua,
                dispatcher: Dispatcher::default(),
                syncs,
                caller: FakeCaller {
                    free: 100,
                    ready: true,
                    open_files: 0,
                    answers: VecDeque::new(),
                    called: Vec::new(),
                },
                waker: Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()),
                now,
            }
        }

        /// Takes a turn and returns the names of the syncs whose actions were called.
        fn turn(&mut self) -> Vec<String> {
            let (dispatcher, caller) = (&mut self.dispatcher, &mut self.caller);
            dispatcher.run_due(&self.syncs, 1, self.now, &self.waker, caller);
            std::mem::take(&mut self.caller.called)
        }

        fn deadline(&self) -> Option<Time> {
            Dispatcher::deadline(&self.syncs, self.caller.free, self.now)
        }
    }

    #[test]
    fn a_free_process_goes_to_the_sync_that_has_waited() {
        let mut fixture = Fixture::new(&[1, 1, 1]);
        for served in ["0", "1", "2"] {
            fixture.caller.free = 1;
            assert_eq!(fixture.turn(), [served]);
        }
        fixture.caller.free = 1;
        assert!(fixture.turn().is_empty());
        assert_eq!(fixture.deadline(), None);
    }

    #[test]
    fn the_last_place_is_left_to_a_sync_without_a_process() {
        let mut fixture = Fixture::new(&[3, 0]);
        fixture.syncs[0].sync.borrow_mut().config.max_processes = 3;
        fixture.caller.free = 3;
        assert_eq!(fixture.turn(), ["0", "0"]);
        assert_eq!(fixture.deadline(), None);
        let mut other = fixture.syncs[1].sync.borrow_mut();
        other.queue.push(Etype::Modify, b"/late", None, 0);
        drop(other);
        assert_eq!(fixture.deadline(), Some(fixture.now));
        assert_eq!(fixture.turn(), ["1"]);
        // Both have a process: the next place is for whoever asks.
        fixture.caller.free = 1;
        assert_eq!(fixture.turn(), ["0"]);
    }

    #[test]
    fn an_action_that_does_nothing_is_called_again_later() {
        let delay = micros(IDLE_RETRY_DELAY);
        for answer in [
            Answer::Ignore,
            Answer::SpawnNothing,
            Answer::Create,
            Answer::SpawnCreated,
        ] {
            let mut fixture = Fixture::new(&[1]);
            fixture.caller.answers.push_back(answer);
            assert_eq!(fixture.turn(), ["0"]);
            assert!(fixture.turn().is_empty());
            if matches!(answer, Answer::SpawnNothing | Answer::SpawnCreated) {
                fixture.syncs[0].sync.borrow_mut().child_ended();
            }
            assert!(fixture.turn().is_empty());
            fixture.now += delay;
            assert_eq!(fixture.deadline(), Some(fixture.now));
            assert_eq!(fixture.turn()[0], "0");
        }
    }

    #[test]
    fn an_action_that_discards_is_called_for_the_next_entry() {
        let mut fixture = Fixture::new(&[3]);
        fixture.caller.answers.extend([Answer::Discard; 2]);
        assert_eq!(fixture.turn(), ["0", "0", "0"]);
    }

    #[test]
    fn an_action_that_discards_another_entry_is_called_again_at_once() {
        let mut fixture = Fixture::new(&[3]);
        fixture.caller.answers.push_back(Answer::DiscardOther);
        assert_eq!(fixture.turn(), ["0", "0"]);
    }

    #[test]
    fn many_starts_do_not_keep_the_loop() {
        let mut fixture = Fixture::new(&[MAX_EVENTS_PER_TURN + 5]);
        fixture.syncs[0].sync.borrow_mut().config.max_processes = usize::MAX;
        fixture.caller.free = usize::MAX;
        assert_eq!(fixture.turn().len(), MAX_EVENTS_PER_TURN);
        assert_eq!(fixture.deadline(), Some(fixture.now));
        assert_eq!(fixture.turn().len(), 5);
    }

    #[test]
    fn entries_of_open_files_are_taken_out_first() {
        let mut fixture = Fixture::new(&[2]);
        fixture.caller.open_files = 2;
        assert!(fixture.turn().is_empty());
        assert_eq!(fixture.deadline(), None);
    }

    #[test]
    fn a_sync_that_is_not_ready_is_not_called() {
        let mut fixture = Fixture::new(&[1]);
        fixture.caller.ready = false;
        assert!(fixture.turn().is_empty());
    }

    #[test]
    fn nothing_is_called_after_an_error() {
        let mut fixture = Fixture::new(&[2, 1]);
        fixture.caller.answers.push_back(Answer::Fail);
        assert_eq!(fixture.turn(), ["0"]);
    }
}
