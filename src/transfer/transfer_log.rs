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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::script::ScriptRequest;
    use crate::transfer::test_setup::{ChangedSync, NOW, OPENED, Transfer, script_request};
    use crate::watch::Event;
    use Operation::{Attributes, Compared, Deleted, Failed, Moved, Sent};

    fn shown(record: &BatchRecord) -> Vec<(Operation, String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let entries = record.entries().into_iter();
        entries
            .map(|(operation, path, other)| (operation, text(path), text(other)))
            .collect()
    }

    fn entry(operation: Operation, path: &str, other: &str) -> (Operation, String, String) {
        (operation, path.into(), other.into())
    }

    /// Returns the record of the success of a job for what `change` does to the source.
    fn of_change(kind: &str, change: fn(&str, &mut Sync)) -> Vec<(Operation, String, String)> {
        let config = format!("sync {{ {kind}, source = '@DIR@/src', delay = 1, init = false }}");
        let sync = ChangedSync::of(&config, &[], |path| Event::Modify { path });
        change(&sync.source, &mut sync.handle.sync.borrow_mut());
        let script = Rc::clone(&sync.script);
        let job = match script_request(&sync.script, &sync.handle, NOW) {
            ScriptRequest::Spawn(request) => Job::of_request(request, Vec::new(), script),
            ScriptRequest::Copy(request) => Job::of_order(&request, script),
            ScriptRequest::Scan(_) => panic!("a scan was requested"),
        };
        shown(&record(&job, &Fate::DoneExcept(None), ExitStatus::Exit(0)))
    }

    fn event(sync: &mut Sync, make: fn(&[u8]) -> Event<'_>, path: String) {
        sync.ingest(make(path.as_bytes()), 0);
    }

    #[test]
    fn each_change_has_its_operation() {
        const RSYNC: &str = "default.rsync, target = '/nowhere/trg'";
        const KEEP: &str = "default.rsync, target = '/nowhere/trg', delete = false";
        const DIRECT: &str = "default.direct, target = '/nowhere/trg'";
        const SSH: &str = "default.rsyncssh, host = 'h', targetdir = '/trg'";
        let delete: fn(&str, &mut Sync) = |source, sync| {
            event(sync, |path| Event::Delete { path }, format!("{source}a"));
        };
        let delete_again: fn(&str, &mut Sync) = |source, sync| {
            std::fs::write(format!("{source}a"), "").unwrap();
            event(sync, |path| Event::Delete { path }, format!("{source}a"));
        };
        let delete_directory: fn(&str, &mut Sync) = |source, sync| {
            std::fs::create_dir(format!("{source}d")).unwrap();
            event(sync, |path| Event::Delete { path }, format!("{source}d/"));
        };
        let attrib: fn(&str, &mut Sync) = |source, sync| {
            std::fs::write(format!("{source}a"), "").unwrap();
            event(sync, |path| Event::Attrib { path }, format!("{source}a"));
        };
        let rename: fn(&str, &mut Sync) = |source, sync| {
            let [from, to] = ["a", "b"].map(|name| format!("{source}{name}").into_bytes());
            std::fs::write(format!("{source}b"), "").unwrap();
            let (from, to) = (&from[..], &to[..]);
            sync.ingest(Event::Move { from, to }, 0);
        };
        let everything: fn(&str, &mut Sync) = |_, sync| sync.resync(0);
        for (kind, change, expected) in [
            (RSYNC, delete, vec![entry(Deleted, "/a", "")]),
            (DIRECT, delete, vec![entry(Deleted, "/a", "")]),
            (RSYNC, delete_again, vec![entry(Sent, "/a", "")]),
            (RSYNC, delete_directory, vec![entry(Compared, "/d/", "")]),
            (RSYNC, attrib, vec![entry(Attributes, "/a", "")]),
            (
                RSYNC,
                rename,
                vec![entry(Deleted, "/a", ""), entry(Sent, "/b", "")],
            ),
            (KEEP, rename, vec![entry(Sent, "/b", "")]),
            (DIRECT, rename, vec![entry(Moved, "/a", "/b")]),
            (SSH, rename, vec![entry(Moved, "/a", "/b")]),
            (RSYNC, everything, vec![entry(Compared, "", "")]),
        ] {
            assert_eq!(of_change(kind, change), expected, "{kind}");
        }
    }

    #[test]
    fn failed_paths_have_the_line_that_names_them_or_the_reason_of_all() {
        let transfer = Transfer::of("", &["a", "b", "c"]);
        let line = OPENED.replace("@SRC@NAME", "b");
        let other = OPENED.replace("@SRC@NAME", "x");
        for line in [&other, &line] {
            transfer.job.take_errors([line.clone().into_bytes()]);
        }
        let of = |fate: &Fate<'_>| shown(&record(&transfer.job, fate, ExitStatus::Exit(23)));
        let failed = [("/b", Etype::Modify), ("/d/e", Etype::Create)];
        let failed = failed.map(|(path, etype)| (path.as_bytes().to_vec(), etype));
        let failed = RetryEntries::from(failed);
        let failures = [entry(Failed, "/b", &line), entry(Failed, "/d/e", &other)];
        let [first, last] = failures.clone();
        let expected = [entry(Sent, "/a", ""), first, entry(Sent, "/c", ""), last];
        assert_eq!(of(&Fate::DoneExcept(Some(&failed))), expected);
        assert_eq!(of(&Fate::StoppedAt(&failed)), failures);
        let all = ["/a", "/b", "/c"].map(|path| entry(Failed, path, &other));
        assert_eq!(of(&Fate::Failed), all);

        let comparison = Transfer::of("", &[]);
        let failed = record(&comparison.job, &Fate::Failed, ExitStatus::Exit(12));
        assert_eq!(shown(&failed), [entry(Failed, "", "")]);
        let smaller = record(&comparison.job, &Fate::Smaller, ExitStatus::Exit(0));
        assert_eq!(shown(&smaller), [entry(Compared, "", "")]);
    }
}
