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

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mlua::{Function, Table};

use super::event_loop::EventLoop;
use super::scan_progress::PassProgress;
use crate::id::GateId;
use crate::log;
use crate::process::ExitStatus;
use crate::queue::DelayId;
use crate::scan::{Gate, Layout, ScanScope, ScanWorker, ScannerCall, WorkerOrder, WorkerResult};
use crate::script::{ScanRequest, SyncHandle};
use crate::sync::Sync;

const WORKER_FAILED: &str = "the thread that checks has failed";

/// The scan passes of all gates.
#[derive(Default)]
pub struct ScanPasses {
    workers: HashMap<GateId, ScanWorker>,
    passes: Vec<Pass>,
    /// Transfers whose pass is complete, in order.
    ready: VecDeque<PassWaiter>,
    tokens: u64,
}

pub(super) struct Pass {
    token: u64,
    pub(super) gate: Rc<Gate>,
    /// The transfers that wait for the pass; at least one.
    waiters: Vec<PassWaiter>,
    phase: PassPhase,
}

impl Pass {
    /// Returns the syncs of the waiting transfers.
    pub(super) fn syncs(&self) -> Vec<Rc<SyncHandle>> {
        let syncs = self.waiters.iter().map(|waiter| &waiter.handle);
        syncs.cloned().collect()
    }

    /// Returns the progress of a pass whose checks are complete, and sets its phase to the thread.
    pub(super) fn take_checked(&mut self) -> Option<Box<PassProgress>> {
        match std::mem::replace(&mut self.phase, PassPhase::Thread) {
            PassPhase::Checking(checking) => Some(checking),
            _ => None,
        }
    }
}

/// A transfer that waits for a pass.
pub(super) struct PassWaiter {
    pub(super) handle: Rc<SyncHandle>,
    pub(super) agent: Table,
    ids: Vec<DelayId>,
    send: Function,
}

enum PassPhase {
    /// Waits for the previous pass of the gate.
    Waiting(ScanScope),
    /// The thread is working.
    Thread,
    Checking(Box<PassProgress>),
}

impl ScanPasses {
    /// Returns true if there is any pass or a transfer to be sent.
    pub fn is_busy(&self) -> bool {
        !self.passes.is_empty() || !self.ready.is_empty()
    }

    /// Returns the progress of a pass that is being checked, and its first waiter. The functions of
    /// that waiter's sync are called, and scanners count as its children.
    pub(super) fn checking(&mut self, token: u64) -> Option<(&mut PassProgress, &PassWaiter)> {
        let pass = self.pass(token)?;
        match &mut pass.phase {
            PassPhase::Checking(checking) => Some((checking, pass.waiters.first()?)),
            _ => None,
        }
    }

    /// Returns the passes that do not wait for another.
    fn free(&self) -> Vec<u64> {
        let mut busy: HashSet<_> = self
            .passes
            .iter()
            .filter(|pass| !matches!(pass.phase, PassPhase::Waiting(_)))
            .map(|pass| pass.gate.id())
            .collect();
        let waiting = self.passes.iter();
        let waiting = waiting.filter(|pass| matches!(pass.phase, PassPhase::Waiting(_)));
        let free = waiting.filter(|pass| busy.insert(pass.gate.id()));
        free.map(|pass| pass.token).collect()
    }

    pub(super) fn pass(&mut self, token: u64) -> Option<&mut Pass> {
        self.passes.iter_mut().find(|pass| pass.token == token)
    }

    fn take(&mut self, token: u64) -> Option<Pass> {
        let at = self.passes.iter().position(|pass| pass.token == token)?;
        Some(self.passes.remove(at))
    }
}

impl EventLoop<'_> {
    /// Adds a transfer to a pass.
    pub(super) fn request_scan(&mut self, request: ScanRequest) {
        let gate = Rc::clone(&request.handle.sync.borrow().gate);
        request.handle.sync.borrow_mut().child_started();
        let mut waiter = Some(PassWaiter {
            handle: request.handle,
            agent: request.agent,
            ids: request.ids,
            send: request.send,
        });
        let mut look = Some(ScanScope::for_task(&request.task));
        for pass in &mut self.scan_passes.passes {
            if let PassPhase::Waiting(known) = &mut pass.phase
                && pass.gate.id() == gate.id()
                && let Some(other) = look.take()
            {
                look = known.join(other);
                if look.is_none() {
                    pass.waiters.extend(waiter.take());
                }
            }
        }
        if let (Some(look), Some(waiter)) = (look, waiter) {
            self.scan_passes.tokens += 1;
            self.scan_passes.passes.push(Pass {
                token: self.scan_passes.tokens,
                gate,
                waiters: vec![waiter],
                phase: PassPhase::Waiting(look),
            });
        }
    }

    fn begin_pass(&mut self, token: u64) {
        let Some(pass) = self.scan_passes.pass(token) else {
            return;
        };
        let syncs = pass.syncs();
        // The staged tree must not lose files while they are being sent to other targets.
        let may_look = syncs
            .iter()
            .filter(|handle| self.check_ready(handle))
            .count();
        if may_look < syncs.len() {
            return self.redo_pass(token);
        }
        let Some(pass) = self.scan_passes.pass(token) else {
            return;
        };
        let PassPhase::Waiting(look) = std::mem::replace(&mut pass.phase, PassPhase::Thread) else {
            return;
        };
        let source = {
            let sync = syncs[0].sync.borrow();
            (Arc::clone(&sync.filter), sync.watched_source())
        };
        let (filter, root_identity) = source;
        self.order_check(
            token,
            WorkerOrder::Collect {
                scope: look,
                filter,
                root_identity,
            },
        );
    }

    /// Restarts a pass when its syncs may send again.
    fn redo_pass(&mut self, token: u64) {
        for waiter in self
            .scan_passes
            .take(token)
            .into_iter()
            .flat_map(|r| r.waiters)
        {
            let mut sync = waiter.handle.sync.borrow_mut();
            sync.child_ended();
            sync.requeue(&waiter.ids, self.now);
        }
    }

    /// Returns the passes that may begin. A pass that opens a staged tree may empty it, so it waits
    /// until no transfer reads the tree, including transfers of the previous configuration.
    fn free_passes(&self) -> Vec<u64> {
        let is_read = |pass: &Pass| {
            let gate = &pass.gate;
            !self.scan_passes.workers.contains_key(&gate.id())
                && self.transfers.jobs().any(|(_, job)| {
                    let sync = job.handle().sync.borrow();
                    sync.config.check.is_some() && sync.gate.staging() == gate.staging()
                })
        };
        let passes = self.scan_passes.passes.iter();
        let read: HashSet<u64> = passes.filter(|r| is_read(r)).map(|r| r.token).collect();
        let free = self.scan_passes.free().into_iter();
        free.filter(|token| !read.contains(token)).collect()
    }

    pub(super) fn order_check(&mut self, token: u64, order: WorkerOrder) {
        if let Err(why) = self.give_order(token, order) {
            self.thread_done(token, Err(why));
        }
    }

    fn give_order(&mut self, token: u64, order: WorkerOrder) -> Result<(), String> {
        let pass = self.scan_passes.pass(token).ok_or("the round is gone")?;
        let key = pass.gate.id();
        let handle = Rc::clone(&pass.waiters[0].handle);
        if !self.scan_passes.workers.contains_key(&key) {
            let layout = layout(&handle.sync.borrow(), self.configured());
            let worker =
                ScanWorker::start(layout.ok_or("there is no check")?, self.context.waker());
            let worker = worker.map_err(|error| format!("cannot start a thread: {error}"))?;
            self.scan_passes.workers.insert(key, worker);
        }
        let worker = self.scan_passes.workers.get(&key);
        if worker.is_some_and(|worker| worker.give(token, order)) {
            return Ok(());
        }
        self.scan_passes.workers.remove(&key);
        Err(WORKER_FAILED.to_owned())
    }

    /// Returns the sources and targets of all syncs, as configured.
    fn configured(&self) -> Vec<Vec<u8>> {
        let syncs = self.syncs.iter().map(|handle| handle.sync.borrow());
        let paths = syncs.flat_map(|sync| {
            let target = sync.config.target.clone();
            [Some(sync.config.source.clone()), target]
        });
        paths.flatten().collect()
    }

    /// Advances all passes as far as possible.
    pub(super) fn poll_scans(&mut self) {
        let workers = self.scan_passes.workers.values();
        let done: Vec<_> = workers
            .flat_map(|worker| worker.done().collect::<Vec<_>>())
            .collect();
        for done in done {
            self.thread_done(done.token, done.outcome);
        }
        self.drop_failed_threads();
        self.end_overdue();
        let passes = self.scan_passes.passes.iter();
        for token in passes.map(|pass| pass.token).collect::<Vec<_>>() {
            self.check_on(token);
        }
        for token in self.free_passes() {
            self.begin_pass(token);
        }
        self.send_checked();
    }

    /// Ends the passes of threads that have panicked.
    fn drop_failed_threads(&mut self) {
        let is_lost = |pass: &&Pass| {
            let worker = self.scan_passes.workers.get(&pass.gate.id());
            matches!(pass.phase, PassPhase::Thread) && worker.is_some_and(ScanWorker::has_failed)
        };
        let lost = self.scan_passes.passes.iter().filter(is_lost);
        for token in lost.map(|pass| pass.token).collect::<Vec<_>>() {
            self.thread_done(token, Err(WORKER_FAILED.to_owned()));
        }
        self.scan_passes
            .workers
            .retain(|_, worker| !worker.has_failed());
    }

    fn thread_done(&mut self, token: u64, outcome: Result<WorkerResult, String>) {
        let Some(pass) = self.scan_passes.pass(token) else {
            return;
        };
        let syncs = pass.syncs();
        match outcome {
            Err(why) => {
                for waiter in self
                    .scan_passes
                    .take(token)
                    .into_iter()
                    .flat_map(|r| r.waiters)
                {
                    waiter.handle.sync.borrow_mut().child_ended();
                    self.cannot_check(&waiter.handle, &waiter.ids, &why);
                }
            }
            Ok(WorkerResult::Collected(found)) => {
                let candidates = self.collected(&syncs, found);
                match candidates {
                    Some(checking) => self.set_phase(token, PassPhase::Checking(checking)),
                    None => self.finish_pass(token),
                }
            }
            Ok(WorkerResult::Committed(settled)) => {
                self.settled(&syncs, settled);
                self.finish_pass(token);
            }
        }
    }

    fn set_phase(&mut self, token: u64, phase: PassPhase) {
        if let Some(pass) = self.scan_passes.pass(token) {
            pass.phase = phase;
        }
    }

    fn finish_pass(&mut self, token: u64) {
        let Some(pass) = self.scan_passes.take(token) else {
            return;
        };
        for handle in &self.syncs {
            let mut sync = handle.sync.borrow_mut();
            if sync.gate.id() == pass.gate.id() {
                sync.repeat_deletions(self.now);
            }
        }
        self.scan_passes.ready.extend(pass.waiters);
    }

    /// Repeats entries that cannot be checked now. Nothing is sent.
    fn cannot_check(&mut self, handle: &SyncHandle, ids: &[DelayId], why: &str) {
        const CODE: i32 = 11;
        let mut sync = handle.sync.borrow_mut();
        let wait = sync.failed(ids, self.now).as_secs();
        let name = &sync.config.name;
        log::error(format_args!(
            "{name}: nothing can be checked, so nothing is sent: {why}; trying again in {wait} s"
        ));
        sync.counters
            .failed(ExitStatus::Exit(CODE), format!("check: {why}").into_bytes());
    }

    /// Sends checked transfers while processes are available.
    fn send_checked(&mut self) {
        while self.script.context.may_spawn()
            && !self.is_shutting_down()
            && let Some(waiter) = self.scan_passes.ready.pop_front()
        {
            self.send_one(waiter);
        }
    }

    fn send_one(&mut self, waiter: PassWaiter) {
        let PassWaiter { handle, ids, .. } = &waiter;
        {
            let mut sync = handle.sync.borrow_mut();
            sync.child_ended();
            if nothing_to_send(&sync, ids) {
                sync.succeeded(ids);
                drop(sync);
                return handle.forget(ids);
            }
        }
        // The source or the tunnel may be unavailable by now; the transfer is checked again later.
        let paused = handle.sync.borrow().is_paused();
        if paused || !handle.is_connected() || !self.check_ready(handle) {
            return handle.sync.borrow_mut().requeue(ids, self.now);
        }
        // The entries stay active, so that later changes wait behind them.
        let reading = handle.sync.borrow().gate.begin_reading();
        self.script.context.staged_reading.replace(Some(reading));
        let sent = waiter.send.call::<()>(waiter.agent);
        self.script.context.staged_reading.take();
        match sent {
            Ok(()) => self.launch(),
            Err(error) => self.stop_with_error(&error),
        }
    }

    /// Returns the next deadline of passes and scanners.
    pub(super) fn gate_deadline(&self) -> Option<Instant> {
        let scans = self
            .transfers
            .jobs()
            .filter_map(|(_, job)| job.scan.as_ref());
        let overdue = scans.map(ScannerCall::due).min();
        let passes = &self.scan_passes.passes;
        let asks = passes.iter().any(|pass| match &pass.phase {
            PassPhase::Checking(checking) => checking.asks_function(),
            _ => false,
        });
        let sends = !self.scan_passes.ready.is_empty() && self.script.context.may_spawn();
        if asks || sends || !self.free_passes().is_empty() {
            Some(Instant::now())
        } else {
            overdue
        }
    }

    /// Ends all passes, for a shutdown or a reset.
    pub(super) fn close_gates(&mut self) {
        let passes = std::mem::take(&mut self.scan_passes.passes);
        let ready = std::mem::take(&mut self.scan_passes.ready);
        for waiter in passes.into_iter().flat_map(|r| r.waiters).chain(ready) {
            let mut sync = waiter.handle.sync.borrow_mut();
            sync.child_ended();
            sync.requeue(&waiter.ids, self.now);
        }
        for (_, job) in self.transfers.jobs() {
            if let Some(scan) = &job.scan {
                scan.give_up();
            }
        }
        self.end_overdue();
    }

    /// Assigns staging directories and ends the threads of gates that no sync uses.
    pub(super) fn assign_staging(&mut self) {
        let gates = self.syncs.iter().filter_map(|handle| {
            let sync = handle.sync.borrow();
            let check = sync.config.check.as_ref()?;
            Some((Rc::clone(&sync.gate), check.staging.clone()))
        });
        let gates: Vec<_> = gates.collect();
        crate::scan::gate::assign_staging(&gates);
        let used: HashSet<_> = gates.iter().map(|(gate, _)| gate.id()).collect();
        self.scan_passes
            .workers
            .retain(|gate, _| used.contains(gate));
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

/// Returns true if all entries are about blocked files.
fn nothing_to_send(sync: &Sync, ids: &[DelayId]) -> bool {
    ids.iter()
        .filter_map(|&id| sync.queue.get(id))
        .all(|delay| !delay.etype().is_special() && sync.is_blocked(&delay.paths().0))
}
