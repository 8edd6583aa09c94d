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

use super::engine::Engine;
use super::job::Job;
use super::scanners::Scan;
use super::scans::Checking;
use crate::check::{
    Answer, Collected, Disposition, Gate, Layout, Look, Order, Outcome, Settled, Worker,
};
use crate::config::OnReject;
use crate::queue::{DelayId, Etype};
use crate::report;
use crate::script::{CheckRequest, Member};
use crate::sync::Sync;

/// So many files are told one by one.
const TOLD: usize = 20;

/// The gates of all syncs.
#[derive(Default)]
pub struct Gates {
    /// By the address of their gate.
    hands: HashMap<*const Gate, Worker>,
    rounds: Vec<Round>,
    /// What has been looked at, in order.
    ready: VecDeque<Party>,
    tokens: u64,
}

struct Round {
    token: u64,
    gate: Rc<Gate>,
    /// Whose transfers wait for it; at least one.
    parties: Vec<Party>,
    phase: Phase,
}

/// One transfer that is to be.
pub(super) struct Party {
    pub(super) member: Rc<Member>,
    pub(super) agent: Table,
    ids: Vec<DelayId>,
    send: Function,
}

enum Phase {
    /// For the round before.
    Waiting(Look),
    /// The thread is at work.
    Thread,
    Checking(Box<Checking>),
}

impl Gates {
    /// Whether any round is on its way.
    pub fn is_busy(&self) -> bool {
        !self.rounds.is_empty() || !self.ready.is_empty()
    }

    /// Where the files of a round are, and the first of those it is for: its sync's functions
    /// are asked, scanners count as its children.
    pub(super) fn checking(&mut self, token: u64) -> Option<(&mut Checking, &Party)> {
        let round = self.round(token)?;
        match &mut round.phase {
            Phase::Checking(checking) => Some((checking, round.parties.first()?)),
            _ => None,
        }
    }

    /// The rounds that wait for no other.
    fn free(&self) -> Vec<u64> {
        let mut busy: HashSet<_> = self
            .rounds
            .iter()
            .filter(|round| !matches!(round.phase, Phase::Waiting(_)))
            .map(|round| Rc::as_ptr(&round.gate))
            .collect();
        let waiting = self.rounds.iter();
        let waiting = waiting.filter(|round| matches!(round.phase, Phase::Waiting(_)));
        let free = waiting.filter(|round| busy.insert(Rc::as_ptr(&round.gate)));
        free.map(|round| round.token).collect()
    }

    fn round(&mut self, token: u64) -> Option<&mut Round> {
        self.rounds.iter_mut().find(|round| round.token == token)
    }

    fn take(&mut self, token: u64) -> Option<Round> {
        let at = self.rounds.iter().position(|round| round.token == token)?;
        Some(self.rounds.remove(at))
    }
}

impl Engine<'_> {
    /// Has a transfer wait for a look at what it is about.
    pub(super) fn look(&mut self, request: CheckRequest) {
        let gate = Rc::clone(&request.member.sync.borrow().gate);
        request.member.sync.borrow_mut().running += 1;
        let mut party = Some(Party {
            member: request.member,
            agent: request.agent,
            ids: request.ids,
            send: request.send,
        });
        let mut look = Some(Look::for_task(&request.task));
        for round in &mut self.gates.rounds {
            if let Phase::Waiting(known) = &mut round.phase
                && Rc::ptr_eq(&round.gate, &gate)
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
            self.gates.rounds.push(Round {
                token: self.gates.tokens,
                gate,
                parties: vec![party],
                phase: Phase::Waiting(look),
            });
        }
    }

    fn begin_round(&mut self, token: u64) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let Phase::Waiting(look) = std::mem::replace(&mut round.phase, Phase::Thread) else {
            return;
        };
        let filter = Arc::clone(&round.parties[0].member.sync.borrow().filter);
        self.order_check(token, Order::Collect(look, filter));
    }

    fn order_check(&mut self, token: u64, order: Order) {
        if let Err(why) = self.give_order(token, order) {
            self.thread_done(token, Err(why));
        }
    }

    fn give_order(&mut self, token: u64, order: Order) -> Result<(), String> {
        let round = self.gates.round(token).ok_or("the round is gone")?;
        let key = Rc::as_ptr(&round.gate);
        let member = Rc::clone(&round.parties[0].member);
        if !self.gates.hands.contains_key(&key) {
            let layout = layout(&member.sync.borrow());
            let worker = Worker::start(layout.ok_or("there is no check")?, self.core.waker());
            let worker = worker.map_err(|error| format!("cannot start a thread: {error}"))?;
            self.gates.hands.insert(key, worker);
        }
        let hand = self.gates.hands.get(&key);
        if hand.is_some_and(|hand| hand.give(token, order)) {
            return Ok(());
        }
        self.gates.hands.remove(&key);
        Err("the thread that checks has failed".to_owned())
    }

    /// Goes on with all rounds as far as they can.
    pub(super) fn tend_gates(&mut self) {
        let hands = self.gates.hands.values();
        let done: Vec<_> = hands
            .flat_map(|hand| hand.done().collect::<Vec<_>>())
            .collect();
        for done in done {
            self.thread_done(done.token, done.outcome);
        }
        self.end_overdue();
        let rounds = self.gates.rounds.iter();
        for token in rounds.map(|round| round.token).collect::<Vec<_>>() {
            self.check_on(token);
        }
        for token in self.gates.free() {
            self.begin_round(token);
        }
        self.send_checked();
    }

    fn thread_done(&mut self, token: u64, outcome: Result<Outcome, String>) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let members = round.parties.iter().map(|party| Rc::clone(&party.member));
        let members: Vec<_> = members.collect();
        match outcome {
            Err(why) => {
                for party in self.gates.take(token).into_iter().flat_map(|r| r.parties) {
                    party.member.sync.borrow_mut().running -= 1;
                    self.cannot_check(&party.member, &party.ids, &why);
                }
            }
            Ok(Outcome::Collected(found)) => {
                let candidates = self.collected(&members, found);
                match candidates {
                    Some(checking) => self.set_phase(token, Phase::Checking(checking)),
                    None => self.round_is_over(token),
                }
            }
            Ok(Outcome::Settled(settled)) => {
                self.settled(&members, settled);
                self.round_is_over(token);
            }
        }
    }

    fn set_phase(&mut self, token: u64, phase: Phase) {
        if let Some(round) = self.gates.round(token) {
            round.phase = phase;
        }
    }

    fn round_is_over(&mut self, token: u64) {
        let parties = self.gates.take(token).map(|round| round.parties);
        self.gates.ready.extend(parties.into_iter().flatten());
    }

    /// Nothing of these entries can be checked now, so nothing is sent.
    fn cannot_check(&mut self, member: &Member, ids: &[DelayId], why: &str) {
        const CODE: i32 = 11;
        let mut sync = member.sync.borrow_mut();
        let wait = sync.failed(ids, self.now).as_secs();
        let name = &sync.config.name;
        report::error(format_args!(
            "{name}: nothing can be checked, so nothing is sent: {why}; trying again in {wait} s"
        ));
        sync.counters
            .failed(CODE, format!("check: {why}").into_bytes());
    }

    /// Takes in what a look at the source came to; what is to be checked, if anything.
    fn collected(&self, members: &[Rc<Member>], found: Collected) -> Option<Box<Checking>> {
        let gate = Rc::clone(&members.first()?.sync.borrow().gate);
        let mut withheld = gate.withheld_mut();
        if found.everything {
            let candidates = found.candidates.iter().map(|file| file.path.as_slice());
            let rejected = found.rejected.iter().map(|(path, _)| path.as_slice());
            let failures = found.failures.iter().map(|(path, _)| path.as_slice());
            let stay: HashSet<&[u8]> = candidates.chain(rejected).chain(failures).collect();
            withheld.retain(|path| stay.contains(path));
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
        (!candidates.is_empty()).then(|| Box::new(Checking::new(candidates)))
    }

    /// What was decided has been done.
    fn settled(&self, members: &[Rc<Member>], settled: Settled) {
        for (path, place) in &settled.quarantined {
            report::warn(format_args!(
                "{}: {} was moved to {}",
                names(members),
                report::escape(path),
                report::escape(place)
            ));
        }
        let failures = settled.failures.into_iter();
        self.wait_for(members, failures.map(|(path, why)| (path, why, false)));
    }

    /// Holds files of which nothing is known, and has them looked at again later.
    fn wait_for(
        &self,
        members: &[Rc<Member>],
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
                    let path = report::escape(&path);
                    report::warn(format_args!("{name}: {path} is held: {why}"));
                }
            }
            paths.push(path);
        }
        if paths.is_empty() {
            return;
        }
        let again = |member: &Rc<Member>| {
            let paths = paths.iter().map(|path| (path.clone(), Etype::Modify));
            let mut sync = member.sync.borrow_mut();
            sync.undone.add(paths, self.now).as_secs()
        };
        let wait = members.iter().map(again).min().unwrap_or_default();
        let count = paths.len();
        report::warn(format_args!(
            "{name}: {count} files are held as they could not be checked, trying again in {wait} s"
        ));
    }

    /// All answers are there.
    pub(super) fn decide(&mut self, token: u64) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let members = round.parties.iter().map(|party| Rc::clone(&party.member));
        let members: Vec<_> = members.collect();
        let gate = Rc::clone(&round.gate);
        let Phase::Checking(checking) = std::mem::replace(&mut round.phase, Phase::Thread) else {
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
                Answer::Passed => {
                    let mut withheld = gate.withheld_mut();
                    withheld.clear(&candidate.path);
                    withheld.passed += 1;
                    Disposition::Install
                }
                Answer::Rejected(reason) => {
                    self.reject(&members[0], &candidate.path, &reason, &on_reject);
                    match &on_reject {
                        OnReject::Hold | OnReject::Call(_) => Disposition::Hold(reason),
                        OnReject::DeleteTarget => Disposition::Remove(reason),
                        OnReject::Quarantine(to) => Disposition::Quarantine(reason, to.clone()),
                    }
                }
                Answer::Failed { reason, alone } => {
                    waiting.push((candidate.path.clone(), reason, alone));
                    Disposition::Wait
                }
            };
            decided.push((candidate, disposition));
        }
        self.wait_for(&members, waiting.into_iter());
        self.order_check(token, Order::Settle(decided));
    }

    /// What was looked at is sent, as long as there is room for another child.
    fn send_checked(&mut self) {
        while self.script.host.has_room()
            && !self.is_fading()
            && let Some(party) = self.gates.ready.pop_front()
        {
            self.send_one(party);
        }
    }

    fn send_one(&mut self, party: Party) {
        let Party { member, ids, .. } = &party;
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
        if !member.is_connected() || !self.may_send(member) {
            return member.sync.borrow_mut().redo(ids, self.now);
        }
        // They stay active all the while: what changed since they were looked at waits behind.
        self.script.host.cleared.set(true);
        let sent = party.send.call::<()>(party.agent);
        self.script.host.cleared.set(false);
        match sent {
            Ok(()) => self.launch(),
            Err(error) => self.fail(&error),
        }
    }

    /// When there is something to do by ourselves.
    pub(super) fn gate_deadline(&self) -> Option<Instant> {
        let scans = self.jobs.values().filter_map(Job::scanning);
        let overdue = scans.map(Scan::due).min();
        let rounds = &self.gates.rounds;
        let asks = rounds.iter().any(|round| match &round.phase {
            Phase::Checking(checking) => checking.asks_function(),
            _ => false,
        });
        let sends = !self.gates.ready.is_empty() && self.script.host.has_room();
        match asks || sends || !self.gates.free().is_empty() {
            true => Some(Instant::now()),
            false => overdue,
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
    pub(super) fn settle_gates(&mut self) {
        let gates = self.members.iter().filter_map(|member| {
            let sync = member.sync.borrow();
            let check = sync.config.check.as_ref()?;
            Some((Rc::clone(&sync.gate), check.staging.clone()))
        });
        let gates: Vec<_> = gates.collect();
        crate::check::gate::settle(&gates);
        let is_used = |gate: *const Gate| gates.iter().any(|(used, _)| Rc::as_ptr(used) == gate);
        self.gates.hands.retain(|gate, _| is_used(*gate));
    }
}

/// Whom a round is for.
fn names(members: &[Rc<Member>]) -> String {
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

fn layout(sync: &Sync) -> Option<Layout> {
    let check = sync.config.check.as_ref()?;
    Some(Layout {
        source: sync.config.source.clone(),
        staging: sync.gate.staging()?.to_vec(),
        rules: check.rules(),
        checksum: check.checksum,
    })
}

/// Whether all entries are about files that are withheld.
fn nothing_to_send(sync: &Sync, ids: &[DelayId]) -> bool {
    ids.iter()
        .filter_map(|&id| sync.queue.get(id))
        .all(|delay| !delay.etype().is_special() && sync.is_withheld(&delay.paths().0))
}
