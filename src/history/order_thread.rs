//! A thread that executes requests and sends results back, so that a hanging directory blocks only
//! this thread.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use mio::Waker;

use crate::log;

/// A thread with its orders and answers.
pub struct OrderThread<O, A> {
    orders: Sender<O>,
    answers: Receiver<A>,
}

impl<O: Send + 'static, A: Send + 'static> OrderThread<O, A> {
    /// Starts a thread with this name. `process` gets all queued requests in order, and returns
    /// their results; `waker` is fired for each result.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(
        name: &str,
        waker: Arc<Waker>,
        mut process: impl FnMut(Vec<O>) -> Vec<A> + Send + 'static,
    ) -> io::Result<OrderThread<O, A>> {
        let (orders, incoming) = mpsc::channel();
        let (outgoing, answers) = mpsc::channel();
        let thread = thread::Builder::new().name(name.into());
        thread.spawn(move || {
            while let Ok(first) = incoming.recv() {
                let gathered = std::iter::once(first).chain(incoming.try_iter());
                for answer in process(gathered.collect()) {
                    if outgoing.send(answer).is_err() {
                        return;
                    }
                    // The loop has ended if it cannot be woken.
                    let _ = waker.wake();
                }
            }
        })?;
        Ok(OrderThread { orders, answers })
    }

    /// Passes a request to the thread in `thread`, which is started if necessary. Returns false if
    /// that fails.
    pub fn give(
        thread: &mut Option<OrderThread<O, A>>,
        order: O,
        start: impl FnOnce() -> io::Result<OrderThread<O, A>>,
    ) -> bool {
        if thread.is_none() {
            match start() {
                Ok(started) => *thread = Some(started),
                Err(error) => log::error(format_args!("cannot start a thread: {error}")),
            }
        }
        let thread = thread.as_ref();
        thread.is_some_and(|thread| thread.orders.send(order).is_ok())
    }

    /// Returns the answers that have arrived.
    pub fn answers(&self) -> Vec<A> {
        self.answers.try_iter().collect()
    }

    /// Waits until all requests are executed. Returns false if there is no result for `timeout`
    /// before the end.
    pub fn finish(self, timeout: Duration) -> bool {
        drop(self.orders);
        loop {
            match self.answers.recv_timeout(timeout) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    fn thread(
        process: impl FnMut(Vec<u8>) -> Vec<usize> + Send + 'static,
    ) -> Option<OrderThread<u8, usize>> {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut thread = None;
        let start = || OrderThread::start("test", waker, process);
        assert!(OrderThread::give(&mut thread, 1, start));
        thread
    }

    #[test]
    fn the_end_waits_for_all_orders() {
        let (sender, done) = mpsc::channel();
        let mut thread = thread(move |orders| {
            orders.iter().for_each(|order| sender.send(*order).unwrap());
            vec![orders.len()]
        });
        let no_start = || Err(io::ErrorKind::Other.into());
        assert!(OrderThread::give(&mut thread, 2, no_start));
        assert!(thread.unwrap().finish(Duration::from_secs(120)));
        assert_eq!(done.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_end_does_not_wait_for_an_order_that_hangs() {
        let (release, held) = mpsc::channel::<()>();
        let thread = thread(move |_| {
            let _ = held.recv();
            Vec::new()
        });
        assert!(!thread.unwrap().finish(Duration::from_millis(20)));
        drop(release);
    }
}
