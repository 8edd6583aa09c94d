//! The entry of the transfer log for a child that has ended: the operation on each path.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::job::Job;
use crate::history::{BatchRecord, BatchSummary, Operation};
use crate::paths;
use crate::process::ExitStatus;
use crate::queue::{Etype, PathReader};
use crate::sync::{RetryEntries, Sync};

/// The maximum number of paths named of a batch that failed as a whole. It fails again as long as
/// the reason lasts, and must not replace older entries.
const MAX_NAMED_FAILURES: usize = 1000;

/// The maximum number of paths whose reason is searched in the error output.
const MAX_SEARCHED_REASONS: usize = 100;

/// The result of the entries of a child.
pub enum Fate<'a> {
    /// All are done, except these paths.
    DoneExcept(Option<&'a RetryEntries>),
    /// Everything was compared, except the files that are too large for the target.
    Smaller,
    /// These paths failed, and the others are repeated.
    StoppedAt(&'a RetryEntries),
    /// All failed.
    Failed,
}

/// Returns the record of a child. Must be called while its entries are queued.
pub fn record(job: &Job, fate: &Fate<'_>, status: ExitStatus) -> BatchRecord {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let bytes = job.totals().bytes;
    let summary = BatchSummary {
        time: since.map_or(0, |since| since.as_micros() as u64),
        duration: job.since().elapsed().as_micros() as u64,
        code: status.code(),
        bytes: (bytes > 0).then_some(bytes),
        entries: u32::try_from(job.ids.len()).unwrap_or(u32::MAX),
    };
    let mut log = BatchWriter {
        batch: BatchRecord::new(summary, job.script.settings.transfer_log_size),
        job,
        reason: job.words(),
        failures: 0,
    };
    let sync = job.handle.sync.borrow();
    if status.is_success() && log.reason.is_empty() {
        // The paths that this transfer has left out failed before.
        let failure = sync.counters.last_failure.as_ref();
        log.reason = failure.map_or(Vec::new(), |failure| failure.text.clone());
    }
    match fate {
        Fate::DoneExcept(failed) => log.done(&sync, *failed),
        Fate::Smaller => {
            log.batch.push(Operation::Compared, b"", b"");
            sync.too_large().iter().for_each(|path| log.fail(path));
        }
        Fate::StoppedAt(failed) => failed.keys().for_each(|path| log.fail(path)),
        Fate::Failed => log.all_failed(&sync),
    }
    log.batch
}

struct BatchWriter<'a> {
    batch: BatchRecord,
    job: &'a Job,
    reason: Vec<u8>,
    failures: usize,
}

impl BatchWriter<'_> {
    fn done(&mut self, sync: &Sync, failed: Option<&RetryEntries>) {
        let mut named = HashSet::new();
        let has_blocked = !sync.gate.blocked().is_empty();
        let (mut paths, mut to) = (PathReader::new(&sync.queue), Vec::new());
        for &id in &self.job.ids {
            let Some(delay) = sync.queue.get(id) else {
                continue;
            };
            let path = paths.read(&delay);
            let to = delay.path2(&mut to).then_some(&to[..]);
            if let Some(failed) = failed {
                let mut of_entry = [Some(path), to].into_iter().flatten();
                if let Some((path, _)) = of_entry.find_map(|path| failed.get_key_value(path)) {
                    named.insert(path);
                    self.fail(path);
                    continue;
                }
            }
            if !has_blocked || !sync.is_blocked(to.unwrap_or(path)) {
                let exists = self.job.existing.contains(&id);
                self.entry(sync, delay.etype(), exists, path, to);
            }
        }
        // Paths below those of the entries.
        let failed = failed.into_iter().flat_map(|failed| failed.keys());
        for path in failed.filter(|path| !named.contains(path)) {
            self.fail(path);
        }
    }

    fn entry(&mut self, sync: &Sync, etype: Etype, exists: bool, path: &[u8], to: Option<&[u8]>) {
        let is_list = self.job.transfer.is_some();
        let deletes = sync.config.delete.in_batches() || !(is_list || self.job.is_copy);
        let batch = &mut self.batch;
        match (etype, to) {
            (Etype::Move, Some(to)) if is_list => {
                batch.push(Operation::Sent, to, b"");
                if deletes {
                    batch.push(Operation::Deleted, path, b"");
                }
            }
            (_, Some(to)) => batch.push(Operation::Moved, path, to),
            // A Delete of an existing directory stands for everything below it.
            (Etype::Delete, _) if exists && path.ends_with(b"/") => {
                batch.push(Operation::Compared, path, b"");
            }
            (Etype::Delete, _) if exists => batch.push(Operation::Sent, path, b""),
            (Etype::Delete, _) if !deletes => {}
            (Etype::Delete, _) => batch.push(Operation::Deleted, path, b""),
            (Etype::Attrib, _) => batch.push(Operation::Attributes, path, b""),
            (etype, _) if etype.is_special() => batch.push(Operation::Compared, b"", b""),
            _ => batch.push(Operation::Sent, path, b""),
        }
    }

    fn all_failed(&mut self, sync: &Sync) {
        let ids = self.job.ids.iter().take(MAX_NAMED_FAILURES);
        for delay in ids.filter_map(|&id| sync.queue.get(id)) {
            let path = if delay.etype().is_special() {
                Vec::new()
            } else {
                delay.paths().0
            };
            self.batch.push(Operation::Failed, &path, &self.reason);
        }
    }

    /// Adds a failed path with the error line that names it, else with the reason of the batch.
    fn fail(&mut self, path: &[u8]) {
        self.failures += 1;
        let errors = self.job.errors.borrow();
        let name = paths::relative(paths::bare(path));
        let names_it = |line: &&Vec<u8>| line.windows(name.len()).any(|part| part == name);
        let is_searched = !name.is_empty() && self.failures <= MAX_SEARCHED_REASONS;
        let line = errors.iter().filter(|_| is_searched).find(names_it);
        let reason = line.unwrap_or(&self.reason);
        self.batch.push(Operation::Failed, path, reason);
    }
}
