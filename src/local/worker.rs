//! The thread that carries out the jobs of one sync, one after the other. A target that hangs
//! delays only its own sync.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use super::mirror::{self, Memory};
use super::{CopyJob, CopyReport};
use crate::log;
use crate::process::Priority;

/// A finished job.
pub struct CopyEnded {
    /// The number of the job.
    pub token: u64,
    /// The result.
    pub report: CopyReport,
}

/// A running thread. It ends when this is dropped and its current job is done.
pub struct CopyWorker {
    orders: Sender<CopyJob>,
    ended: Receiver<CopyEnded>,
}

impl CopyWorker {
    /// Starts a thread that fires `waker` for each result.
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
                    let report = reported(|| mirror::run_job(&orders, &mut memory));
                    let token = orders.token;
                    if outgoing.send(CopyEnded { token, report }).is_err() {
                        return;
                    }
                    // The loop has ended if it cannot be woken.
                    let _ = waker.wake();
                }
            })?;
        Ok(CopyWorker { orders, ended })
    }

    /// Sends a job to the thread. Returns false if the thread has ended.
    pub fn give(&self, orders: CopyJob) -> bool {
        self.orders.send(orders).is_ok()
    }

    /// Returns the finished jobs.
    pub fn ended(&self) -> impl Iterator<Item = CopyEnded> + '_ {
        self.ended.try_iter()
    }
}

/// Returns the report of a job. A panic is a failure of the job, which is retried: the loop waits
/// for each report.
fn reported(run: impl FnOnce() -> CopyReport) -> CopyReport {
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| CopyReport {
        closed: Some("an internal error has ended a copy".into()),
        ..CopyReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_panics_has_failed() {
        assert_eq!(reported(CopyReport::default).code(), 0);
        assert_eq!(reported(|| panic!("broken")).code(), 11);
    }
}
