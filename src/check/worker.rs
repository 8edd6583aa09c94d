//! The thread that reads the source and keeps the staged tree of one gate.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, RwLock};
use std::thread;

use mio::Waker;

use super::look::{Candidate, Collected, Look};
use super::settle::{Disposition, Settled};
use super::stage::{Layout, Stage};
use crate::filter::Filter;

/// What is to be done.
pub enum Order {
    /// A look at the source.
    Collect(Look, Arc<RwLock<Filter>>),
    /// What was decided of the candidates of that look.
    Settle(Vec<(Candidate, Disposition)>),
}

/// An order that was carried out.
pub struct Done {
    /// Of the order.
    pub token: u64,
    /// What came of it; in words, why nothing did.
    pub outcome: Result<Outcome, String>,
}

/// What an order came to.
pub enum Outcome {
    /// Of a look at the source.
    Collected(Collected),
    /// Of what was decided.
    Settled(Settled),
}

/// A thread at work. It ends when this is dropped, as soon as it can.
pub struct Worker {
    orders: Sender<(u64, Order)>,
    done: Receiver<Done>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Starts a thread that rings `waker` for each result.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(layout: Layout, waker: Arc<Waker>) -> io::Result<Worker> {
        let (orders, incoming) = mpsc::channel();
        let (outgoing, done) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        thread::Builder::new().name("check".into()).spawn(move || {
            let mut stage = None;
            for (token, order) in incoming {
                let outcome = carry_out(&mut stage, &layout, &stopping, order);
                if outgoing.send(Done { token, outcome }).is_err() {
                    return;
                }
                // The loop that cannot be woken has ended.
                let _ = waker.wake();
            }
        })?;
        Ok(Worker { orders, done, stop })
    }

    /// Hands over an order; false if the thread is gone.
    pub fn give(&self, token: u64, order: Order) -> bool {
        self.orders.send((token, order)).is_ok()
    }

    /// What is done.
    pub fn done(&self) -> impl Iterator<Item = Done> + '_ {
        self.done.try_iter()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn carry_out(
    stage: &mut Option<Stage>,
    layout: &Layout,
    stop: &Arc<AtomicBool>,
    order: Order,
) -> Result<Outcome, String> {
    let stage = match stage {
        Some(stage) => stage,
        None => stage.insert(Stage::open(layout.clone(), Arc::clone(stop))?),
    };
    Ok(match order {
        Order::Collect(look, filter) => {
            let collected = stage.collect(look, &filter);
            Outcome::Collected(collected.map_err(|error| error.to_string())?)
        }
        Order::Settle(decided) => Outcome::Settled(stage.settle(decided)),
    })
}
