//! The state that a running job shares with the event loop: a flag to stop it, and its progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Returns true when running work must stop. It is called before each step.
pub trait StopCheck {
    /// Returns true if the work has to stop.
    fn is_stopped(&self) -> bool;
}

impl StopCheck for AtomicBool {
    fn is_stopped(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}

impl<T: StopCheck> StopCheck for Arc<T> {
    fn is_stopped(&self) -> bool {
        T::is_stopped(self)
    }
}

/// The stop flags of all jobs and of one job, and the progress of the job.
#[derive(Debug, Default)]
pub struct CopyControl {
    stop_all: Arc<AtomicBool>,
    stop: AtomicBool,
    steps: AtomicU64,
    compared: AtomicU64,
}

impl CopyControl {
    /// Returns the control of a job that has not begun.
    pub fn new(stop_all: Arc<AtomicBool>) -> CopyControl {
        CopyControl {
            stop_all,
            ..CopyControl::default()
        }
    }

    /// Stops the job as soon as possible.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts an entry that has been compared.
    pub fn count_entry(&self) {
        self.compared.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of entries that have been compared so far.
    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    /// Returns the number of steps so far: names, directories, and pieces of files. It does not
    /// change while a system call blocks.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

impl StopCheck for CopyControl {
    fn is_stopped(&self) -> bool {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.stop.is_stopped() || self.stop_all.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_a_step_of_its_job_alone() {
        let stop_all = Arc::new(AtomicBool::new(false));
        let [one, other] = [(); 2].map(|()| CopyControl::new(Arc::clone(&stop_all)));
        assert!(!one.is_stopped() && !one.is_stopped());
        assert_eq!((one.steps(), other.steps()), (2, 0));
        one.stop();
        assert!(one.is_stopped() && !other.is_stopped());
        stop_all.store(true, Ordering::Relaxed);
        assert!(one.is_stopped() && other.is_stopped());
        assert!(crate::local::copy::stopped(&one).is_err());
    }
}
