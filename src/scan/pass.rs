//! Scan passes of the check gate, between due entries and their transfer.
//!
//! A *pass* examines the source once for one gate: a thread lists and copies the candidates,
//! scanners and functions check the copies, and the thread commits the verdicts. Deletions and
//! files with a known verdict need no scanner. The passes of a gate follow one another. Transfers
//! that become due during a pass wait together for the next one, so several targets of a source
//! need one pass. When their pass is complete, Lua sends each transfer.
//!
//! A transfer that waits for its pass counts as a child of its sync, which therefore has one at a
//! time.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use super::apply;
use super::checked_transfer::CheckedTransfer;
use super::hooks::RejectHooks;
use super::progress::PassProgress;
use super::scanners::{self, CheckedPass};
use crate::id::GateId;
use crate::process::{Children, ExitStatus, Pid};
use crate::queue::Time;
use crate::script::{ScanRequest, Script, SyncHandle};
use crate::staging::{Gate, Layout, ScanScope, ScanWorker, WorkerOrder, WorkerResult, gate};
use crate::sync::Sync;
use crate::transfer::{ScannerCall, Transfers};

const WORKER_FAILED: &str = "the thread that checks has failed";

/// The state that a turn of the passes works on.
pub struct ScanTurn<'a> {
    /// All syncs of the configuration.
    pub syncs: &'a [Rc<SyncHandle>],
    /// The running processes, to which scanners are added.
    pub transfers: &'a mut Transfers,
    /// The configuration.
    pub script: &'a Rc<Script>,
    /// The time of queues.
    pub now: Time,
}

/// The scan passes of all gates.
pub struct ScanPasses {
    children: Rc<RefCell<Children>>,
    waker: Arc<Waker>,
    /// Running and waiting `onReject` commands.
    hooks: RejectHooks,
    workers: HashMap<GateId, ScanWorker>,
    passes: Vec<Pass>,
    /// Transfers whose pass is complete, in order.
    ready: VecDeque<CheckedTransfer>,
    tokens: u64,
}

struct Pass {
    token: u64,
    gate: Rc<Gate>,
    /// The transfers that wait for the pass; at least one.
    waiters: Vec<CheckedTransfer>,
    phase: PassPhase,
}

impl Pass {
    /// Returns the syncs of the waiting transfers.
    fn syncs(&self) -> Vec<Rc<SyncHandle>> {
        let syncs = self.waiters.iter().map(|waiter| &waiter.handle);
        syncs.cloned().collect()
    }
}

enum PassPhase {
    /// Waits for the previous pass of the gate.
    Waiting(ScanScope),
    /// The thread is working.
    Thread,
    Checking(Box<PassProgress>),
}

impl ScanPasses {
    /// Returns the state without passes. Scanners are started as these children; threads wake the
    /// loop with `waker`.
    pub fn new(children: Rc<RefCell<Children>>, waker: Arc<Waker>) -> ScanPasses {
        ScanPasses {
            hooks: RejectHooks::new(Rc::clone(&children)),
            children,
            waker,
            workers: HashMap::new(),
            passes: Vec::new(),
            ready: VecDeque::new(),
            tokens: 0,
        }
    }

    /// Returns true if there is any pass or a transfer to be sent.
    pub fn is_busy(&self) -> bool {
        !self.passes.is_empty() || !self.ready.is_empty()
    }

    /// Adds a transfer to a pass.
    pub fn on_request(&mut self, request: ScanRequest) {
        let gate = Rc::clone(&request.handle.sync.borrow().gate);
        let mut scope = Some(ScanScope::for_task(&request.task));
        let mut waiter = Some(CheckedTransfer::new(request));
        for pass in &mut self.passes {
            if let PassPhase::Waiting(known) = &mut pass.phase
                && pass.gate.id() == gate.id()
                && let Some(other) = scope.take()
            {
                scope = known.join(other);
                if scope.is_none() {
                    pass.waiters.extend(waiter.take());
                }
            }
        }
        if let (Some(scope), Some(waiter)) = (scope, waiter) {
            self.tokens += 1;
            self.passes.push(Pass {
                token: self.tokens,
                gate,
                waiters: vec![waiter],
                phase: PassPhase::Waiting(scope),
            });
        }
    }

    /// Advances the passes as far as possible. A pass begins if `is_ready` for all its syncs.
    pub fn on_turn(
        &mut self,
        turn: &mut ScanTurn<'_>,
        is_ready: &mut dyn FnMut(&Rc<SyncHandle>) -> bool,
    ) {
        self.advance(turn);
        for (token, syncs) in self.startable(turn.transfers) {
            // The staged tree must not lose files while they are being sent to other targets.
            let ready = syncs.iter().filter(|&handle| is_ready(handle)).count();
            if ready == syncs.len() {
                self.begin(token, turn);
            } else {
                self.cancel(token, turn.now);
            }
        }
    }

    /// Lets user code send what has been checked while processes are available.
    ///
    /// # Errors
    ///
    /// User code failed.
    pub fn send_checked(
        &mut self,
        script: &Script,
        now: Time,
        is_ready: &mut dyn FnMut(&Rc<SyncHandle>) -> bool,
    ) -> mlua::Result<()> {
        while script.context.may_spawn()
            && let Some(transfer) = self.next_checked()
        {
            // The source or the tunnel may be unavailable by now.
            let handle = &transfer.handle;
            let is_paused = handle.sync.borrow().is_paused();
            if is_paused || !handle.is_connected() || !is_ready(handle) {
                transfer.requeue(now);
            } else {
                transfer.send(script)?;
            }
        }
        Ok(())
    }

    /// Advances the passes that have begun.
    fn advance(&mut self, turn: &mut ScanTurn<'_>) {
        let workers = self.workers.values();
        let done = workers.flat_map(|worker| worker.done().collect::<Vec<_>>());
        for done in done.collect::<Vec<_>>() {
            self.thread_done(done.token, done.outcome, turn);
        }
        self.drop_failed_threads(turn);
        scanners::end_overdue(&self.children, turn.transfers, Instant::now());
        let passes = self.passes.iter();
        for token in passes.map(|pass| pass.token).collect::<Vec<_>>() {
            self.check(token, turn);
        }
    }

    /// Takes in the end of a scanner.
    pub fn on_scanned(&mut self, scan: ScannerCall, status: ExitStatus) {
        if let Some(pass) = self.pass(scan.token)
            && let PassPhase::Checking(progress) = &mut pass.phase
        {
            scanners::scanned(progress, scan, status);
        }
    }

    /// Takes in the end of a process that may be an `onReject` command.
    pub fn on_other_ended(&mut self, pid: Pid, status: ExitStatus) {
        self.hooks.on_ended(pid, status.code());
    }

    /// Returns the passes that may begin, with their syncs. A pass that opens a staged tree may
    /// empty it, so it waits until no transfer reads the tree, including transfers of the previous
    /// configuration.
    fn startable(&self, transfers: &Transfers) -> Vec<(u64, Vec<Rc<SyncHandle>>)> {
        let mut busy: HashSet<GateId> = HashSet::new();
        let (waiting, begun): (Vec<_>, Vec<_>) = self
            .passes
            .iter()
            .partition(|pass| matches!(pass.phase, PassPhase::Waiting(_)));
        busy.extend(begun.iter().map(|pass| pass.gate.id()));
        let free = waiting
            .into_iter()
            .filter(|pass| busy.insert(pass.gate.id()));
        let is_read = |pass: &&Pass| {
            !self.workers.contains_key(&pass.gate.id())
                && transfers.jobs().any(|(_, job)| {
                    let sync = job.handle().sync.borrow();
                    sync.config.check.is_some() && sync.gate.staging() == pass.gate.staging()
                })
        };
        let free = free.filter(|pass| !is_read(pass));
        free.map(|pass| (pass.token, pass.syncs())).collect()
    }

    /// Begins a pass whose syncs may send.
    fn begin(&mut self, token: u64, turn: &mut ScanTurn<'_>) {
        let Some(pass) = self.pass(token) else {
            return;
        };
        let PassPhase::Waiting(scope) = std::mem::replace(&mut pass.phase, PassPhase::Thread)
        else {
            return;
        };
        let order = {
            let sync = pass.waiters[0].handle.sync.borrow();
            WorkerOrder::Collect {
                scope,
                filter: Arc::clone(&sync.filter),
                root_identity: sync.watched_source(),
            }
        };
        self.order(token, order, turn);
    }

    /// Ends a pass whose syncs may not send. It is requested again when they may.
    fn cancel(&mut self, token: u64, now: Time) {
        for waiter in self.take(token).into_iter().flat_map(|pass| pass.waiters) {
            waiter.cancel(now);
        }
    }

    /// Removes and returns the next transfer that has been checked and is still needed.
    fn next_checked(&mut self) -> Option<CheckedTransfer> {
        while let Some(transfer) = self.ready.pop_front() {
            if transfer.is_needed() {
                return Some(transfer);
            }
        }
        None
    }

    /// Returns when [`ScanPasses::on_turn`] has something to do.
    pub fn deadline(
        &self,
        transfers: &Transfers,
        may_spawn: bool,
        now: Instant,
    ) -> Option<Instant> {
        let asks = self.passes.iter().any(|pass| match &pass.phase {
            PassPhase::Checking(progress) => progress.asks_function(),
            _ => false,
        });
        let sends = !self.ready.is_empty() && may_spawn;
        if asks || sends || !self.startable(transfers).is_empty() {
            return Some(now);
        }
        let scans = transfers.jobs().filter_map(|(_, job)| job.scan.as_ref());
        scans.map(ScannerCall::due).min()
    }

    /// Ends all passes, for a shutdown or a reload.
    pub fn close(&mut self, transfers: &Transfers, now: Time) {
        let passes = std::mem::take(&mut self.passes);
        let waiters = passes.into_iter().flat_map(|pass| pass.waiters);
        for waiter in waiters.chain(std::mem::take(&mut self.ready)) {
            waiter.cancel(now);
        }
        for (_, job) in transfers.jobs() {
            if let Some(scan) = &job.scan {
                scan.give_up();
            }
        }
        scanners::end_overdue(&self.children, transfers, Instant::now());
    }

    /// Assigns staging directories and ends the threads of gates that no sync uses.
    pub fn assign_staging(&mut self, syncs: &[Rc<SyncHandle>]) {
        let gates = syncs.iter().filter_map(|handle| {
            let sync = handle.sync.borrow();
            let check = sync.config.check.as_ref()?;
            Some((Rc::clone(&sync.gate), check.staging.clone()))
        });
        let gates: Vec<_> = gates.collect();
        gate::assign_staging(&gates);
        let used: HashSet<_> = gates.iter().map(|(gate, _)| gate.id()).collect();
        self.workers.retain(|gate, _| used.contains(gate));
    }

    fn pass(&mut self, token: u64) -> Option<&mut Pass> {
        self.passes.iter_mut().find(|pass| pass.token == token)
    }

    fn take(&mut self, token: u64) -> Option<Pass> {
        let at = self.passes.iter().position(|pass| pass.token == token)?;
        Some(self.passes.remove(at))
    }

    /// Runs the current check of a pass. When all are complete, the thread commits the decisions.
    fn check(&mut self, token: u64, turn: &mut ScanTurn<'_>) {
        let Some(pass) = self.passes.iter_mut().find(|pass| pass.token == token) else {
            return;
        };
        let syncs = pass.syncs();
        let PassPhase::Checking(progress) = &mut pass.phase else {
            return;
        };
        let mut checked = CheckedPass {
            token,
            progress,
            handle: Rc::clone(&pass.waiters[0].handle),
            agent: pass.waiters[0].agent.clone(),
        };
        if !checked.run(&self.children, turn.transfers, turn.script) {
            return;
        }
        if let PassPhase::Checking(progress) = std::mem::replace(&mut pass.phase, PassPhase::Thread)
        {
            let hooks = &mut self.hooks;
            let decided = apply::decide(&syncs, *progress, hooks, turn.script, turn.now);
            self.order(token, WorkerOrder::Commit(decided), turn);
        }
    }

    fn order(&mut self, token: u64, order: WorkerOrder, turn: &mut ScanTurn<'_>) {
        if let Err(why) = self.give_order(token, order, turn.syncs) {
            self.thread_done(token, Err(why), turn);
        }
    }

    fn give_order(
        &mut self,
        token: u64,
        order: WorkerOrder,
        syncs: &[Rc<SyncHandle>],
    ) -> Result<(), String> {
        let pass = self.pass(token).ok_or("the round is gone")?;
        let key = pass.gate.id();
        let handle = Rc::clone(&pass.waiters[0].handle);
        if !self.workers.contains_key(&key) {
            let layout = layout(&handle.sync.borrow(), configured(syncs));
            let layout = layout.ok_or("there is no check")?;
            let worker = ScanWorker::start(layout, Arc::clone(&self.waker));
            let worker = worker.map_err(|error| format!("cannot start a thread: {error}"))?;
            self.workers.insert(key, worker);
        }
        let worker = self.workers.get(&key);
        if worker.is_some_and(|worker| worker.give(token, order)) {
            return Ok(());
        }
        self.workers.remove(&key);
        Err(WORKER_FAILED.to_owned())
    }

    /// Ends the passes of threads that have panicked.
    fn drop_failed_threads(&mut self, turn: &ScanTurn<'_>) {
        let is_lost = |pass: &&Pass| {
            let worker = self.workers.get(&pass.gate.id());
            matches!(pass.phase, PassPhase::Thread) && worker.is_some_and(ScanWorker::has_failed)
        };
        let lost = self.passes.iter().filter(is_lost);
        for token in lost.map(|pass| pass.token).collect::<Vec<_>>() {
            self.thread_done(token, Err(WORKER_FAILED.to_owned()), turn);
        }
        self.workers.retain(|_, worker| !worker.has_failed());
    }

    fn thread_done(
        &mut self,
        token: u64,
        outcome: Result<WorkerResult, String>,
        turn: &ScanTurn<'_>,
    ) {
        let Some(pass) = self.pass(token) else {
            return;
        };
        let syncs = pass.syncs();
        match outcome {
            Err(why) => {
                for waiter in self.take(token).into_iter().flat_map(|pass| pass.waiters) {
                    waiter.fail(&why, turn.now);
                }
            }
            Ok(WorkerResult::Collected(found)) => match apply::collected(&syncs, found, turn.now) {
                Some(progress) => pass.phase = PassPhase::Checking(progress),
                None => self.finish(token, turn),
            },
            Ok(WorkerResult::Committed(committed)) => {
                apply::committed(&syncs, committed, turn.now);
                self.finish(token, turn);
            }
        }
    }

    fn finish(&mut self, token: u64, turn: &ScanTurn<'_>) {
        let Some(pass) = self.take(token) else {
            return;
        };
        for handle in turn.syncs {
            let mut sync = handle.sync.borrow_mut();
            if sync.gate.id() == pass.gate.id() {
                sync.repeat_deletions(turn.now);
            }
        }
        self.ready.extend(pass.waiters);
    }
}

/// Returns the sources and targets of all syncs, as configured.
fn configured(syncs: &[Rc<SyncHandle>]) -> Vec<Vec<u8>> {
    let syncs = syncs.iter().map(|handle| handle.sync.borrow());
    let paths = syncs.flat_map(|sync| {
        let target = sync.config.target.clone();
        [Some(sync.config.source.clone()), target]
    });
    paths.flatten().collect()
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

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
