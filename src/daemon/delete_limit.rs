//! Delete limit, `guard = { maxDelete = … }`: a dry run of rsync counts the deletions of a transfer
//! before the transfer starts.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlua::Table;

use super::event_loop::EventLoop;
use super::job::Job;
use crate::config::MaxDelete;
use crate::log;
use crate::process::{Command, ExitStatus, Output, Stdin};
use crate::queue::DelayId;
use crate::script::{SpawnRequest, SyncHandle};

/// A dry run and the transfer that waits for its result.
pub struct DryRun {
    request: SpawnRequest,
    deleted: Cell<u64>,
    files: Cell<Option<u64>>,
    created: Cell<u64>,
}

impl DryRun {
    /// Evaluates an output line of `--itemize-changes` or `--stats`.
    pub fn line(&self, line: &[u8]) {
        if line.starts_with(b"*deleting") {
            self.deleted.set(self.deleted.get() + 1);
        } else if let Some(rest) = line.strip_prefix(b"Number of files: ") {
            self.files.set(Some(number(rest)));
        } else if let Some(rest) = line.strip_prefix(b"Number of created files: ") {
            self.created.set(number(rest));
        }
    }

    /// Returns the sync of the transfer.
    pub fn handle(&self) -> Rc<SyncHandle> {
        Rc::clone(&self.request.handle)
    }

    /// Returns the event or list object of the transfer.
    pub fn agent(&self) -> Table {
        self.request.agent.clone()
    }

    /// Returns the queue entries of the transfer.
    pub fn ids(&self) -> &[DelayId] {
        &self.request.ids
    }

    /// Returns true if the transfer compares the whole source.
    fn is_whole(&self) -> bool {
        self.request.transfer.is_none()
    }
}

/// Returns the number at the start of a text. rsync separates groups of digits.
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| **byte != b' ');
    let digits = digits.filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

impl EventLoop<'_> {
    /// Starts a dry run if the delete limit applies to the transfer. Returns the request otherwise.
    pub(super) fn dry_run_first(&mut self, request: SpawnRequest) -> Option<SpawnRequest> {
        let deletes = |word: &Vec<u8>| word.starts_with(b"--del");
        let limited = {
            let mut sync = request.handle.sync.borrow_mut();
            let limit = sync.config.guard.max_delete.is_some();
            limit && request.captured && !sync.delete_guard_mut().take_lifted()
        };
        if !limited || !request.args.iter().any(deletes) {
            return Some(request);
        }
        let words = ["--dry-run", "--itemize-changes", "--stats"];
        let words = words.map(|word| word.as_bytes().to_vec()).into_iter();
        let command = Command {
            program: request.program.clone(),
            args: words.chain(request.args.iter().cloned()).collect(),
            stdin: match &request.stdin {
                Some(bytes) => Stdin::Bytes(bytes.clone()),
                None => Stdin::Inherit,
            },
            output: Output::Lines,
            environment: request.environment.clone(),
            priority: Default::default(),
        };
        let spawned = self.context.children.borrow_mut().spawn(command);
        // The reason is logged when the transfer itself fails to start.
        let Ok(pid) = spawned else {
            return Some(request);
        };
        request.handle.sync.borrow_mut().child_started();
        let dry_run = DryRun {
            deleted: Cell::new(0),
            files: Cell::new(None),
            created: Cell::new(0),
            request,
        };
        self.add_job(pid, Job::dry_run(dry_run, Rc::clone(&self.script)));
        None
    }

    /// Evaluates a dry run: starts the transfer, or defers its entries.
    pub(super) fn apply_dry_run(&mut self, dry_run: DryRun, end: ExitStatus) {
        if needs_count(&dry_run) {
            return self.count_first(dry_run, end);
        }
        let deleted = dry_run.deleted.get();
        let limit = dry_run.request.handle.sync.borrow().config.guard.max_delete;
        // A dry run that failed proves nothing, and the transfer would fail in the same way.
        let failed = !matches!(end, ExitStatus::Exit(0 | 23 | 24));
        let total = self.entries(&dry_run);
        let exceeded = limit.is_some_and(|limit| limit.exceeded(deleted, total));
        let handle = Rc::clone(&dry_run.request.handle);
        if failed || !exceeded {
            handle.sync.borrow_mut().deletions_within_limit();
            return self.execute(dry_run.request);
        }
        self.put_off(&handle, &dry_run.request.ids, deleted, total);
    }

    /// Defers the entries of a transfer that exceeds the delete limit, and logs it.
    pub(super) fn put_off(&self, handle: &SyncHandle, ids: &[DelayId], deleted: u64, total: u64) {
        let mut sync = handle.sync.borrow_mut();
        let wait = sync.failed(ids, self.now);
        let limit = match sync.config.guard.max_delete {
            Some(MaxDelete::Percent(part)) => format!("{part}% of {total}"),
            Some(MaxDelete::Count(count)) => count.to_string(),
            None => String::new(),
        };
        let why = format!("{deleted} entries would be deleted at the target, more than {limit}");
        log::error(format_args!(
            "{}: {why}; nothing is sent, looking again in {} s",
            sync.config.name,
            wait.as_secs()
        ));
        sync.delete_guard_mut().exceeded(why);
    }

    /// Returns the number of entries at the target.
    fn entries(&self, dry_run: &DryRun) -> u64 {
        let mut sync = dry_run.request.handle.sync.borrow_mut();
        if dry_run.is_whole() {
            let files = dry_run.files.get().unwrap_or_default();
            sync.delete_guard_mut().set_target_entries(files);
            return files.saturating_sub(dry_run.created.get()) + dry_run.deleted.get();
        }
        sync.delete_guard().target_entries().unwrap_or(0)
    }

    /// Counts the entries of the source on a thread. The dry run is evaluated afterwards.
    fn count_first(&mut self, dry_run: DryRun, end: ExitStatus) {
        let handle = dry_run.handle();
        let source = handle.sync.borrow().config.source.clone();
        let ids = dry_run.ids().to_vec();
        let count = move |stop: &AtomicBool| count(&source, stop);
        let job = Job::dry_run(dry_run, Rc::clone(&self.script));
        match self.local_jobs.count(job, end, count, self.context.waker()) {
            Ok(()) => handle.sync.borrow_mut().child_started(),
            Err(error) => {
                let mut sync = handle.sync.borrow_mut();
                let wait = sync.failed(&ids, self.now);
                log::error(format_args!(
                    "{}: cannot start a thread: {error}; trying again in {} s",
                    sync.config.name,
                    wait.as_secs()
                ));
            }
        }
    }

    /// Evaluates the dry runs whose count is complete.
    pub(super) fn collect_counts(&mut self) {
        for (mut job, end, count) in self.local_jobs.counted() {
            job.leave();
            let Some(dry_run) = job.dry_run.take() else {
                continue;
            };
            let handle = dry_run.handle();
            match count {
                Some(count) => {
                    let entries = count + dry_run.deleted.get();
                    let mut sync = handle.sync.borrow_mut();
                    sync.delete_guard_mut().set_target_entries(entries);
                    drop(sync);
                    self.apply_dry_run(dry_run, end);
                }
                // The daemon is shutting down.
                None => {
                    handle.sync.borrow_mut().failed(dry_run.ids(), self.now);
                }
            }
        }
    }
}

/// Returns true if the limit is a percentage and the number of entries at the target is unknown.
fn needs_count(dry_run: &DryRun) -> bool {
    let sync = dry_run.request.handle.sync.borrow();
    let is_percent = matches!(sync.config.guard.max_delete, Some(MaxDelete::Percent(_)));
    is_percent
        && sync.delete_guard().target_entries().is_none()
        && !dry_run.is_whole()
        && dry_run.deleted.get() > 0
}

/// Returns the number of entries of a source; `None` if it was stopped.
fn count(source: &[u8], stop: &AtomicBool) -> Option<u64> {
    let mut count = 0;
    let mut directories: Vec<PathBuf> = vec![OsStr::from_bytes(source).into()];
    while let Some(directory) = directories.pop() {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            count += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
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
        assert_eq!(count(source, &AtomicBool::new(false)), Some(4));
        assert_eq!(count(source, &AtomicBool::new(true)), None);
    }

    #[test]
    fn numbers_of_rsync_are_read() {
        assert_eq!(number(b"1,234 (reg: 1,000, dir: 234)"), 1234);
        assert_eq!(number(b"0"), 0);
    }
}
