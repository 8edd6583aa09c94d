//! The check gate at work: between what is due and what is sent.
//!
//! A *round* is one look at the source for one gate: a thread looks and makes copies, scanners and
//! functions are asked about those, the thread does what was decided. Deletions and what is known
//! need no scanner. Rounds of a gate follow one after the other. Transfers that become due while
//! one is on its way wait for the next, all together: so many targets of one source cost one look
//! and one scan. When their round is over, Lua sends what there is, for each by itself.
//!
//! A transfer that waits for its round or its turn counts as a child of its sync, which therefore
//! has one at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mlua::{Function, Table};

use super::event_loop::EventLoop;
use super::job::Job;
use super::scan_progress::PassProgress;
use super::scanners::Scan;
use crate::id::GateId;
use crate::log;
use crate::queue::DelayId;
use crate::scan::{Gate, Layout, ScanScope, ScanWorker, WorkerOrder, WorkerResult};
use crate::script::{ScanRequest, SyncHandle};
use crate::sync::Sync;

const THREAD_FAILED: &str = "the thread that checks has failed";

/// The gates of all syncs.
#[derive(Default)]
pub struct ScanPasses {
    hands: HashMap<GateId, ScanWorker>,
    rounds: Vec<Pass>,
    /// What has been looked at, in order.
    ready: VecDeque<PassWaiter>,
    tokens: u64,
}

pub(super) struct Pass {
    token: u64,
    pub(super) gate: Rc<Gate>,
    /// Whose transfers wait for it; at least one.
    parties: Vec<PassWaiter>,
    phase: PassPhase,
}

impl Pass {
    /// Whose they are.
    pub(super) fn members(&self) -> Vec<Rc<SyncHandle>> {
        let members = self.parties.iter().map(|party| &party.member);
        members.cloned().collect()
    }

    /// The files that all have their answers; the thread is at work again then.
    pub(super) fn take_checked(&mut self) -> Option<Box<PassProgress>> {
        match std::mem::replace(&mut self.phase, PassPhase::Thread) {
            PassPhase::Checking(checking) => Some(checking),
            _ => None,
        }
    }
}

/// One transfer that is to be.
pub(super) struct PassWaiter {
    pub(super) member: Rc<SyncHandle>,
    pub(super) agent: Table,
    ids: Vec<DelayId>,
    send: Function,
}

enum PassPhase {
    /// For the round before.
    Waiting(ScanScope),
    /// The thread is at work.
    Thread,
    Checking(Box<PassProgress>),
}

impl ScanPasses {
    /// Returns true if any round is on its way.
    pub fn is_busy(&self) -> bool {
        !self.rounds.is_empty() || !self.ready.is_empty()
    }

    /// Where the files of a round are, and the first of those it is for: its sync's functions
    /// are asked, scanners count as its children.
    pub(super) fn checking(&mut self, token: u64) -> Option<(&mut PassProgress, &PassWaiter)> {
        let round = self.round(token)?;
        match &mut round.phase {
            PassPhase::Checking(checking) => Some((checking, round.parties.first()?)),
            _ => None,
        }
    }

    /// The rounds that wait for no other.
    fn free(&self) -> Vec<u64> {
        let mut busy: HashSet<_> = self
            .rounds
            .iter()
            .filter(|round| !matches!(round.phase, PassPhase::Waiting(_)))
            .map(|round| round.gate.id())
            .collect();
        let waiting = self.rounds.iter();
        let waiting = waiting.filter(|round| matches!(round.phase, PassPhase::Waiting(_)));
        let free = waiting.filter(|round| busy.insert(round.gate.id()));
        free.map(|round| round.token).collect()
    }

    pub(super) fn round(&mut self, token: u64) -> Option<&mut Pass> {
        self.rounds.iter_mut().find(|round| round.token == token)
    }

    fn take(&mut self, token: u64) -> Option<Pass> {
        let at = self.rounds.iter().position(|round| round.token == token)?;
        Some(self.rounds.remove(at))
    }
}

impl EventLoop<'_> {
    /// Has a transfer wait for a look at what it is about.
    pub(super) fn request_scan(&mut self, request: ScanRequest) {
        let gate = Rc::clone(&request.member.sync.borrow().gate);
        request.member.sync.borrow_mut().running += 1;
        let mut party = Some(PassWaiter {
            member: request.member,
            agent: request.agent,
            ids: request.ids,
            send: request.send,
        });
        let mut look = Some(ScanScope::for_task(&request.task));
        for round in &mut self.gates.rounds {
            if let PassPhase::Waiting(known) = &mut round.phase
                && round.gate.id() == gate.id()
                && let Some(other) = look.take()
            {
                look = known.join(other);
                if look.is_none() {
                    round.parties.extend(party.take());
                }
            }
        }
        if let (Some(look), Some(party)) = (look, party) {
            self.gates.tokens += 1;
            self.gates.rounds.push(Pass {
                token: self.gates.tokens,
                gate,
                parties: vec![party],
                phase: PassPhase::Waiting(look),
            });
        }
    }

    fn begin_pass(&mut self, token: u64) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let members = round.members();
        // What the tree would lose now may just be sent to others.
        let may_look = members
            .iter()
            .filter(|member| self.check_ready(member))
            .count();
        if may_look < members.len() {
            return self.redo_pass(token);
        }
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let PassPhase::Waiting(look) = std::mem::replace(&mut round.phase, PassPhase::Thread)
        else {
            return;
        };
        let source = {
            let sync = members[0].sync.borrow();
            (Arc::clone(&sync.filter), sync.home())
        };
        let (filter, home) = source;
        self.order_check(token, WorkerOrder::Collect { look, filter, home });
    }

    /// Has a round done again, all of it, when its syncs may send.
    fn redo_pass(&mut self, token: u64) {
        for party in self.gates.take(token).into_iter().flat_map(|r| r.parties) {
            let mut sync = party.member.sync.borrow_mut();
            sync.running -= 1;
            sync.redo(&party.ids, self.now);
        }
    }

    /// The rounds that may begin: none of a gate that is to open a tree from which something is
    /// still being sent, maybe by a configuration before this one. It may empty the tree.
    fn free_rounds(&self) -> Vec<u64> {
        let is_read = |round: &Pass| {
            let gate = &round.gate;
            !self.gates.hands.contains_key(&gate.id())
                && self.jobs.values().any(|job| {
                    let sync = job.member().sync.borrow();
                    sync.config.check.is_some() && sync.gate.staging() == gate.staging()
                })
        };
        let rounds = self.gates.rounds.iter();
        let read: HashSet<u64> = rounds.filter(|r| is_read(r)).map(|r| r.token).collect();
        let free = self.gates.free().into_iter();
        free.filter(|token| !read.contains(token)).collect()
    }

    pub(super) fn order_check(&mut self, token: u64, order: WorkerOrder) {
        if let Err(why) = self.give_order(token, order) {
            self.thread_done(token, Err(why));
        }
    }

    fn give_order(&mut self, token: u64, order: WorkerOrder) -> Result<(), String> {
        let round = self.gates.round(token).ok_or("the round is gone")?;
        let key = round.gate.id();
        let member = Rc::clone(&round.parties[0].member);
        if !self.gates.hands.contains_key(&key) {
            let layout = layout(&member.sync.borrow(), self.configured());
            let worker = ScanWorker::start(layout.ok_or("there is no check")?, self.core.waker());
            let worker = worker.map_err(|error| format!("cannot start a thread: {error}"))?;
            self.gates.hands.insert(key, worker);
        }
        let hand = self.gates.hands.get(&key);
        if hand.is_some_and(|hand| hand.give(token, order)) {
            return Ok(());
        }
        self.gates.hands.remove(&key);
        Err(THREAD_FAILED.to_owned())
    }

    /// The sources and targets of all syncs, as they are written.
    fn configured(&self) -> Vec<Vec<u8>> {
        let syncs = self.members.iter().map(|member| member.sync.borrow());
        let paths = syncs.flat_map(|sync| {
            let target = sync.config.target.clone();
            [Some(sync.config.source.clone()), target]
        });
        paths.flatten().collect()
    }

    /// Goes on with all rounds as far as they can.
    pub(super) fn poll_scans(&mut self) {
        let hands = self.gates.hands.values();
        let done: Vec<_> = hands
            .flat_map(|hand| hand.done().collect::<Vec<_>>())
            .collect();
        for done in done {
            self.thread_done(done.token, done.outcome);
        }
        self.drop_failed_threads();
        self.end_overdue();
        let rounds = self.gates.rounds.iter();
        for token in rounds.map(|round| round.token).collect::<Vec<_>>() {
            self.check_on(token);
        }
        for token in self.free_rounds() {
            self.begin_pass(token);
        }
        self.send_checked();
    }

    /// What was given to a thread that has ended will not be done.
    fn drop_failed_threads(&mut self) {
        let is_lost = |round: &&Pass| {
            let hand = self.gates.hands.get(&round.gate.id());
            matches!(round.phase, PassPhase::Thread) && hand.is_some_and(ScanWorker::has_failed)
        };
        let lost = self.gates.rounds.iter().filter(is_lost);
        for token in lost.map(|round| round.token).collect::<Vec<_>>() {
            self.thread_done(token, Err(THREAD_FAILED.to_owned()));
        }
        self.gates.hands.retain(|_, hand| !hand.has_failed());
    }

    fn thread_done(&mut self, token: u64, outcome: Result<WorkerResult, String>) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let members = round.members();
        match outcome {
            Err(why) => {
                for party in self.gates.take(token).into_iter().flat_map(|r| r.parties) {
                    party.member.sync.borrow_mut().running -= 1;
                    self.cannot_check(&party.member, &party.ids, &why);
                }
            }
            Ok(WorkerResult::Collected(found)) => {
                let candidates = self.collected(&members, found);
                match candidates {
                    Some(checking) => self.set_phase(token, PassPhase::Checking(checking)),
                    None => self.finish_pass(token),
                }
            }
            Ok(WorkerResult::Settled(settled)) => {
                self.settled(&members, settled);
                self.finish_pass(token);
            }
        }
    }

    fn set_phase(&mut self, token: u64, phase: PassPhase) {
        if let Some(round) = self.gates.round(token) {
            round.phase = phase;
        }
    }

    fn finish_pass(&mut self, token: u64) {
        let Some(round) = self.gates.take(token) else {
            return;
        };
        for member in &self.members {
            let mut sync = member.sync.borrow_mut();
            if sync.gate.id() == round.gate.id() {
                sync.make_good_deletions(self.now);
            }
        }
        self.gates.ready.extend(round.parties);
    }

    /// Nothing of these entries can be checked now, so nothing is sent.
    fn cannot_check(&mut self, member: &SyncHandle, ids: &[DelayId], why: &str) {
        const CODE: i32 = 11;
        let mut sync = member.sync.borrow_mut();
        let wait = sync.failed(ids, self.now).as_secs();
        let name = &sync.config.name;
        log::error(format_args!(
            "{name}: nothing can be checked, so nothing is sent: {why}; trying again in {wait} s"
        ));
        sync.counters
            .failed(CODE, format!("check: {why}").into_bytes());
    }

    /// What was looked at is sent, as long as there is room for another child.
    fn send_checked(&mut self) {
        while self.script.host.may_spawn()
            && !self.is_fading()
            && let Some(party) = self.gates.ready.pop_front()
        {
            self.send_one(party);
        }
    }

    fn send_one(&mut self, party: PassWaiter) {
        let PassWaiter { member, ids, .. } = &party;
        {
            let mut sync = member.sync.borrow_mut();
            sync.running -= 1;
            if nothing_to_send(&sync, ids) {
                sync.succeeded(ids);
                drop(sync);
                return member.forget(ids);
            }
        }
        // The source or the tunnel may be gone by now: all is looked at again when it is back.
        let paused = member.sync.borrow().is_paused();
        if paused || !member.is_connected() || !self.check_ready(member) {
            return member.sync.borrow_mut().redo(ids, self.now);
        }
        // They stay active all the while: what changed since they were looked at waits behind.
        let reading = member.sync.borrow().gate.begin_reading();
        self.script.host.cleared.replace(Some(reading));
        let sent = party.send.call::<()>(party.agent);
        self.script.host.cleared.take();
        match sent {
            Ok(()) => self.launch(),
            Err(error) => self.stop_with_error(&error),
        }
    }

    /// When there is something to do by ourselves.
    pub(super) fn gate_deadline(&self) -> Option<Instant> {
        let scans = self.jobs.values().filter_map(Job::scanning);
        let overdue = scans.map(Scan::due).min();
        let rounds = &self.gates.rounds;
        let asks = rounds.iter().any(|round| match &round.phase {
            PassPhase::Checking(checking) => checking.asks_function(),
            _ => false,
        });
        let sends = !self.gates.ready.is_empty() && self.script.host.may_spawn();
        if asks || sends || !self.free_rounds().is_empty() {
            Some(Instant::now())
        } else {
            overdue
        }
    }

    /// No round goes on: the daemon ends, or another configuration comes.
    pub(super) fn close_gates(&mut self) {
        let rounds = std::mem::take(&mut self.gates.rounds);
        let ready = std::mem::take(&mut self.gates.ready);
        for party in rounds.into_iter().flat_map(|r| r.parties).chain(ready) {
            let mut sync = party.member.sync.borrow_mut();
            sync.running -= 1;
            sync.redo(&party.ids, self.now);
        }
        for scan in self.jobs.values().filter_map(Job::scanning) {
            scan.give_up();
        }
        self.end_overdue();
    }

    /// Says where what has passed is kept. Gates that no sync has any more need no thread.
    pub(super) fn assign_staging(&mut self) {
        let gates = self.members.iter().filter_map(|member| {
            let sync = member.sync.borrow();
            let check = sync.config.check.as_ref()?;
            Some((Rc::clone(&sync.gate), check.staging.clone()))
        });
        let gates: Vec<_> = gates.collect();
        crate::scan::gate::settle(&gates);
        let used: HashSet<_> = gates.iter().map(|(gate, _)| gate.id()).collect();
        self.gates.hands.retain(|gate, _| used.contains(gate));
    }
}

fn layout(sync: &Sync, configured: Vec<Vec<u8>>) -> Option<Layout> {
    let check = sync.config.check.as_ref()?;
    Some(Layout {
        source: sync.config.source.clone(),
        staging: sync.gate.staging()?.to_vec(),
        rules: check.rules(),
        checksum: check.checksum,
        readers: Arc::clone(sync.gate.readers()),
        configured,
    })
}

/// Returns true if all entries are about files that are withheld.
fn nothing_to_send(sync: &Sync, ids: &[DelayId]) -> bool {
    ids.iter()
        .filter_map(|&id| sync.queue.get(id))
        .all(|delay| !delay.etype().is_special() && sync.is_withheld(&delay.paths().0))
}
