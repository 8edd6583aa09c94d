//! Threads that count the entries of a source for the delete limit.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::thread;

use mio::Waker;

use super::job::Job;
use crate::log;
use crate::paths;
use crate::process::ExitStatus;
use crate::queue::Time;
use crate::sync::SharedFilter;

/// The counts in progress.
#[derive(Default)]
pub struct EntryCounts {
    running: Vec<EntryCount>,
    stop: Arc<AtomicBool>,
}

/// One thread.
struct EntryCount {
    /// The dry run whose result waits for the count.
    job: Job,
    /// The exit status of the dry run.
    status: ExitStatus,
    result: Receiver<Option<u64>>,
}

impl EntryCounts {
    /// Counts the source of a job on a thread, which wakes the loop at its end. If no thread can be
    /// started, the job has failed.
    pub fn start(&mut self, job: Job, status: ExitStatus, waker: Arc<Waker>, now: Time) {
        let (sender, result) = mpsc::channel();
        let sync = Rc::clone(&job.handle.sync);
        let mut sync = sync.borrow_mut();
        let source = sync.config.source.clone();
        let filter = Arc::clone(&sync.filter);
        let stop = Arc::clone(&self.stop);
        let started = thread::Builder::new().name("count".into()).spawn(move || {
            // The receiver is gone if the configuration has been replaced.
            let _ = sender.send(count(&source, &filter, &stop));
            let _ = waker.wake();
        });
        match started {
            Ok(_) => {
                sync.child_started();
                self.running.push(EntryCount {
                    job,
                    status,
                    result,
                });
            }
            Err(error) => {
                let wait = sync.failed(&job.ids, now);
                log::error(format_args!(
                    "{}: cannot start a thread: {error}; trying again in {} s",
                    sync.config.name,
                    wait.as_secs()
                ));
            }
        }
    }

    /// Removes and returns the jobs whose count is complete, or `None` for a count that was
    /// stopped.
    pub fn ended(&mut self) -> Vec<(Job, ExitStatus, Option<u64>)> {
        let mut ended = Vec::new();
        for each in std::mem::take(&mut self.running) {
            match each.result.try_recv() {
                Err(TryRecvError::Empty) => self.running.push(each),
                Ok(count) => ended.push((each.job, each.status, count)),
                // The thread has panicked.
                Err(TryRecvError::Disconnected) => ended.push((each.job, each.status, None)),
            }
        }
        ended
    }

    /// Stops all threads as soon as possible.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns the waiting jobs.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.running.iter().map(|each| &each.job)
    }

    /// Returns the waiting jobs, mutable.
    pub fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.running.iter_mut().map(|each| &mut each.job)
    }
}

/// Returns the number of entries of a source that its filter does not exclude; `None` if it was
/// stopped.
fn count(source: &[u8], filter: &SharedFilter, stop: &AtomicBool) -> Option<u64> {
    let mut count = 0;
    let mut directories = vec![b"/".to_vec()];
    while let Some(directory) = directories.pop() {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let full = [paths::bare(source), &directory].concat();
        let entries = fs::read_dir(OsStr::from_bytes(&full));
        for entry in entries.into_iter().flatten().flatten() {
            let mut path = [&directory, entry.file_name().as_bytes()].concat();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory {
                path.push(b'/');
            }
            let filter = filter.read().unwrap_or_else(PoisonError::into_inner);
            if !filter.excluded_here(&path) {
                count += 1;
                directories.extend(is_directory.then_some(path));
            }
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_counted_without_following_links() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/f"), "").unwrap();
        std::os::unix::fs::symlink("a", path.join("link")).unwrap();
        let source = path.as_os_str().as_bytes();
        let filter = SharedFilter::default();
        let count = |stop| count(source, &filter, &AtomicBool::new(stop));
        assert_eq!(count(false), Some(4));
        assert_eq!(count(true), None);
        filter.write().unwrap().add_exclude(b"b/");
        assert_eq!(count(false), Some(2));
    }
}
