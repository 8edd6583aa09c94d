//! The thread that reads the source and maintains the staged tree of one gate.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};

use mio::Waker;

use super::commit::{CommitAction, Committed};
use super::request::{Candidate, Collected, ScanScope};
use super::staged_tree::{Layout, StagedTree};
use crate::filter::Filter;

/// An order for the thread.
pub enum WorkerOrder {
    /// A pass over the source.
    Collect {
        /// The part of the source to be examined.
        scope: ScanScope,
        /// The filter of the sync.
        filter: Arc<RwLock<Filter>>,
        /// Device and inode of the source, if it must be that directory.
        root_identity: Option<(u64, u64)>,
    },
    /// The decisions about the candidates of that pass.
    Commit(Vec<(Candidate, CommitAction)>),
}

/// A finished order.
pub struct WorkerDone {
    /// The number of the order.
    pub token: u64,
    /// The result, or the reason of its failure.
    pub outcome: Result<WorkerResult, String>,
}

/// The result of an order.
pub enum WorkerResult {
    /// The result of a pass over the source.
    Collected(Collected),
    /// The result of decisions.
    Committed(Committed),
}

/// A running thread. It ends as soon as possible after this is dropped.
pub struct ScanWorker {
    orders: Sender<(u64, WorkerOrder)>,
    done: Receiver<WorkerDone>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ScanWorker {
    /// Starts a thread that fires `waker` for each result.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(layout: Layout, waker: Arc<Waker>) -> io::Result<ScanWorker> {
        let (orders, incoming) = mpsc::channel();
        let (outgoing, done) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let builder = thread::Builder::new().name("check".into());
        let thread = builder.spawn(move || {
            let mut stage = None;
            for (token, order) in incoming {
                let outcome = change_stage(&mut stage, &layout, &stopping, order);
                if outgoing.send(WorkerDone { token, outcome }).is_err() {
                    return;
                }
                // The loop has ended if it cannot be woken.
                let _ = waker.wake();
            }
        })?;
        Ok(ScanWorker {
            orders,
            done,
            stop,
            thread,
        })
    }

    /// Returns true if the thread has failed.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Sends a request to the thread. Returns false if the thread has ended.
    pub fn give(&self, token: u64, order: WorkerOrder) -> bool {
        self.orders.send((token, order)).is_ok()
    }

    /// Returns the finished orders.
    pub fn done(&self) -> impl Iterator<Item = WorkerDone> + '_ {
        self.done.try_iter()
    }
}

impl Drop for ScanWorker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn change_stage(
    stage: &mut Option<StagedTree>,
    layout: &Layout,
    stop: &Arc<AtomicBool>,
    order: WorkerOrder,
) -> Result<WorkerResult, String> {
    let is_order_to_look = matches!(order, WorkerOrder::Collect { .. });
    if is_order_to_look && stage.as_ref().is_some_and(|stage| !stage.is_in_place()) {
        // Its lock is released before another one is requested.
        *stage = None;
    }
    let stage = match stage {
        Some(stage) => stage,
        None => stage.insert(StagedTree::open(layout.clone(), Arc::clone(stop))?),
    };
    Ok(match order {
        WorkerOrder::Collect {
            scope,
            filter,
            root_identity,
        } => {
            let collected = stage.collect(scope, &filter, root_identity);
            WorkerResult::Collected(collected.map_err(|error| error.to_string())?)
        }
        WorkerOrder::Commit(decided) => WorkerResult::Committed(stage.commit(decided)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn worker() -> ScanWorker {
        let layout = Layout {
            source: b"/nowhere".to_vec(),
            staging: b"/nowhere/staging".to_vec(),
            rules: None,
            checksum: false,
            readers: Arc::default(),
            configured: Vec::new(),
        };
        let poll = mio::Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), mio::Token(0)).unwrap();
        ScanWorker::start(layout, Arc::new(waker)).unwrap()
    }

    #[test]
    fn a_thread_that_has_ended_is_reported() {
        let mut worker = worker();
        assert!(!worker.has_failed());
        // It ends when no more orders can come.
        worker.orders = mpsc::channel().0;
        let began = Instant::now();
        while !worker.has_failed() && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(worker.has_failed());
        assert!(!worker.give(1, WorkerOrder::Commit(Vec::new())));
    }

    #[test]
    fn a_dropped_worker_stops_its_pass() {
        let worker = worker();
        let stop = Arc::clone(&worker.stop);
        drop(worker);
        assert!(stop.load(Ordering::Relaxed));
    }
}
