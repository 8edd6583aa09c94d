//! The thread that carries out orders, one after the other, for one sync. A target that hangs
//! holds up its own sync and nothing else.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use super::mirror::{self, Memory};
use super::{CopyJob, CopyReport};
use crate::log;
use crate::process::Priority;

/// Orders that were carried out.
pub struct CopyEnded {
    /// Of the orders.
    pub token: u64,
    /// What came of them.
    pub report: CopyReport,
}

/// A thread at work. It ends when this is dropped and what it does is done.
pub struct CopyWorker {
    orders: Sender<CopyJob>,
    ended: Receiver<CopyEnded>,
}

impl CopyWorker {
    /// Starts a thread that rings `waker` for each result.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(waker: Arc<Waker>, priority: Priority) -> io::Result<CopyWorker> {
        let (orders, incoming) = mpsc::channel::<CopyJob>();
        let (outgoing, ended) = mpsc::channel();
        thread::Builder::new()
            .name("direct".into())
            .spawn(move || {
                if let Err(error) = priority.give(0) {
                    log::warn(format_args!("cannot set the priority of a thread: {error}"));
                }
                let mut memory = Memory::default();
                for orders in incoming {
                    let report = mirror::carry_out(&orders, &mut memory);
                    let token = orders.token;
                    if outgoing.send(CopyEnded { token, report }).is_err() {
                        return;
                    }
                    // The loop that cannot be woken has ended.
                    let _ = waker.wake();
                }
            })?;
        Ok(CopyWorker { orders, ended })
    }

    /// Hands over orders; false if the thread is gone.
    pub fn give(&self, orders: CopyJob) -> bool {
        self.orders.send(orders).is_ok()
    }

    /// What is done.
    pub fn ended(&self) -> impl Iterator<Item = CopyEnded> + '_ {
        self.ended.try_iter()
    }
}
