//! Delete limit, `guard = { maxDelete = … }`: a dry run of rsync counts the deletions of a transfer
//! before the transfer starts.

use std::cell::Cell;
use std::rc::Rc;

use mlua::Table;

use crate::batch::probe::Binary;
use crate::batch::{dry_run, output};
use crate::config::MaxDelete;
use crate::log;
use crate::process::{Command, ExitStatus, Output, Stdin};
use crate::queue::{DelayId, Time};
use crate::rsync_syntax;
use crate::script::{SpawnRequest, SyncHandle};
use crate::sync::DeleteGuard;

/// A dry run and the transfer that waits for its result.
pub struct DryRun {
    request: SpawnRequest,
    deleted: Cell<u64>,
    files: Cell<Option<u64>>,
    created: Cell<u64>,
    /// True if the entries of the source were counted for this transfer.
    is_counted: Cell<bool>,
}

/// The result of a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRunResult {
    /// The transfer starts, with this limit of deletions if there is one.
    Transfer(Option<u64>),
    /// The entries of the source are counted, and the dry run is evaluated again.
    Count,
    /// More than the limit would be deleted: this many of a total.
    Exceeded(u64, u64),
    /// The dry run failed. The transfer does not start, and its entries fail.
    Failed,
}

impl DryRun {
    /// Returns true if the delete limit applies to a transfer. A permission to exceed it is
    /// consumed.
    pub fn is_needed(request: &SpawnRequest) -> bool {
        let deletes = |word: &Vec<u8>| word.starts_with(b"--del");
        let mut sync = request.handle.sync.borrow_mut();
        let is_limited = sync.config.guard.max_delete.is_some();
        let is_limited = is_limited && request.captured && !sync.delete_guard_mut().take_lifted();
        is_limited && request.args.iter().any(deletes)
    }

    /// Returns the command of the dry run of a transfer.
    pub fn command(request: &SpawnRequest) -> Command {
        Command {
            program: request.program.clone(),
            args: dry_run::counting_words(&request.args),
            stdin: match &request.stdin {
                Some(bytes) => Stdin::Bytes(bytes.clone()),
                None => Stdin::Inherit,
            },
            output: Output::Lines,
            environment: request.environment.clone(),
            priority: Default::default(),
        }
    }

    /// Returns the dry run of a transfer, before its first line of output.
    pub fn new(request: SpawnRequest) -> DryRun {
        DryRun {
            deleted: Cell::new(0),
            files: Cell::new(None),
            created: Cell::new(0),
            is_counted: Cell::new(false),
            request,
        }
    }

    /// Evaluates an output line of `--itemize-changes` or `--stats`.
    pub fn line(&self, line: &[u8]) {
        let count = |label: &[u8]| output::count(line.strip_prefix(label)?);
        if line.starts_with(b"*deleting") {
            self.deleted.set(self.deleted.get() + 1);
        } else if let Some(files) = count(b"Number of files: ") {
            self.files.set(Some(files));
        } else if let Some(created) = count(b"Number of created files: ") {
            self.created.set(created);
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

    /// Returns true if the transfer may be started: the source is the one that the dry run has
    /// examined.
    pub fn may_be_followed(&self) -> bool {
        let sync = self.request.handle.sync.borrow();
        let is_held = sync.is_lost() || sync.halted().is_some();
        !is_held && sync.source_violation().is_none()
    }

    /// Queues the entries again, without a failure.
    pub fn put_back(&self, now: Time) {
        let mut sync = self.request.handle.sync.borrow_mut();
        sync.requeue(self.ids(), now);
    }

    /// Returns the transfer.
    pub fn into_request(self) -> SpawnRequest {
        self.request
    }

    /// Returns what follows this end of the dry run.
    pub fn result(&self, status: ExitStatus) -> DryRunResult {
        if !matches!(status, ExitStatus::Exit(0 | 23 | 24)) {
            return DryRunResult::Failed;
        }
        let deleted = self.deleted.get();
        let mut sync = self.request.handle.sync.borrow_mut();
        let Some(limit) = sync.config.guard.max_delete else {
            return DryRunResult::Transfer(None);
        };
        let known = self.entries(sync.delete_guard());
        let total = known.unwrap_or(0);
        if limit.exceeded(deleted, total) {
            return match limit {
                MaxDelete::Percent(_) if self.may_count() => DryRunResult::Count,
                _ => DryRunResult::Exceeded(deleted, total),
            };
        }
        let left = match self.is_whole() {
            true => self.files.get(),
            false => known.map(|known| known.saturating_sub(deleted)),
        };
        sync.delete_guard_mut().set_target_entries(left);
        sync.deletions_within_limit();
        DryRunResult::Transfer(Some(limit.most(total)))
    }

    /// Takes in the number of entries of the source.
    pub fn on_counted(&self, entries: u64) {
        self.is_counted.set(true);
        let entries = entries + self.deleted.get();
        let mut sync = self.request.handle.sync.borrow_mut();
        sync.delete_guard_mut().set_target_entries(Some(entries));
    }

    /// Returns true if the transfer compares the whole source.
    fn is_whole(&self) -> bool {
        self.request.transfer.is_none()
    }

    /// Returns true if the number of entries on the target may differ from the stored one, which is
    /// that of the last count without later additions.
    fn may_count(&self) -> bool {
        !self.is_whole() && !self.is_counted.get()
    }

    /// Returns the number of entries on the target before the transfer, if known.
    fn entries(&self, guard: &DeleteGuard) -> Option<u64> {
        if self.is_whole() {
            let files = self.files.get().unwrap_or_default();
            return Some(files.saturating_sub(self.created.get()) + self.deleted.get());
        }
        guard.target_entries()
    }
}

/// Limits the deletions of a transfer, because its source may change after the dry run. Returns false
/// for a wrapper, which gets no options, and if the configuration has a limit of its own.
pub fn limit(request: &mut SpawnRequest, most: u64) -> bool {
    let is_limited = Binary::plain(&request.program).is_some()
        && !rsync_syntax::has(&request.args, &["max-delete"], b"");
    if is_limited {
        let option = format!("--max-delete={most}");
        request.args.insert(0, option.into_bytes());
    }
    is_limited
}

/// Logs that a transfer has reached the limit that [`limit`] has set.
pub fn tell_reached(handle: &SyncHandle) {
    log::warn(format_args!(
        "{}: rsync would have deleted more than its dry run; it has stopped deleting",
        handle.sync.borrow().config.name
    ));
}

/// Defers the entries of a transfer that exceeds the delete limit, and logs it. If the limit was lifted
/// meanwhile, they are due at once.
pub fn put_off(handle: &SyncHandle, ids: &[DelayId], deleted: u64, total: u64, now: Time) {
    let mut sync = handle.sync.borrow_mut();
    let wait = sync.failed(ids, now);
    if sync.delete_guard().is_lifted() {
        return sync.retry_now(now);
    }
    let limit = match sync.config.guard.max_delete {
        Some(MaxDelete::Percent(part)) => format!("{part}% of {total}"),
        Some(MaxDelete::Count(count)) => count.to_string(),
        None => String::new(),
    };
    let why = format!("{deleted} entries would be deleted on the target, more than {limit}");
    log::error(format_args!(
        "{}: {why}; nothing is sent, checking again in {} s",
        sync.config.name,
        wait.as_secs()
    ));
    sync.delete_guard_mut().exceeded(why);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::script::{Script, ScriptRequest};
    use crate::sync::{Next, micros};
    use crate::watch::Event;

    /// Returns the request of the transfer of a deleted file, or else of a comparison of
    /// everything.
    fn request(options: &str, is_whole: bool) -> SpawnRequest {
        let source = tempfile::tempdir().unwrap();
        let script = Script::of_text(&format!(
            "sync {{ default.rsync, source = '{}', target = '/nowhere/trg', delay = 1, \
             {} {options} }}",
            source.path().display(),
            if is_whole { "" } else { "init = false," }
        ));
        let script = Rc::new(script);
        let handle = script.syncs().remove(0);
        {
            let mut sync = handle.sync.borrow_mut();
            sync.start(0);
            if !is_whole {
                let path = [&sync.config.source, &b"f"[..]].concat();
                sync.ingest(Event::Delete { path: &path }, 0);
            }
        }
        let next = handle
            .sync
            .borrow_mut()
            .next(micros(Duration::from_secs(9)));
        let Next::Act(id) = next else {
            panic!("nothing is due: {next:?}")
        };
        script.act(&handle, id).unwrap();
        match script.context.requests.take().into_iter().next() {
            Some(ScriptRequest::Spawn(request)) => request,
            _ => panic!("no process was requested"),
        }
    }

    /// Returns a dry run that has printed this.
    fn dry_run(limit: &str, is_whole: bool, deleted: usize, stats: &[&str]) -> DryRun {
        let options = format!("guard = {{ maxDelete = {limit} }}");
        let dry_run = DryRun::new(request(&options, is_whole));
        for number in 0..deleted {
            dry_run.line(format!("*deleting   {number}").as_bytes());
        }
        for line in stats.iter().chain(&[">f+++++++++ new", ""]) {
            dry_run.line(line.as_bytes());
        }
        dry_run
    }

    fn target_entries(dry_run: &DryRun) -> Option<u64> {
        let handle = dry_run.handle();
        let sync = handle.sync.borrow();
        sync.delete_guard().target_entries()
    }

    #[test]
    fn a_transfer_that_deletes_is_checked_unless_the_user_has_released_it() {
        let limited = "guard = { maxDelete = 5 }";
        for is_whole in [true, false] {
            let request = request(limited, is_whole);
            assert!(DryRun::is_needed(&request));
            let lift = || request.handle.sync.borrow_mut().delete_guard_mut().lift();
            lift();
            assert!(!DryRun::is_needed(&request) && DryRun::is_needed(&request));
        }
        assert!(!DryRun::is_needed(&request("", true)));
        let kept = format!("{limited}, delete = false");
        assert!(!DryRun::is_needed(&request(&kept, true)));
        let mut user_code = request(limited, true);
        user_code.captured = false;
        assert!(!DryRun::is_needed(&user_code));
    }

    #[test]
    fn more_deletions_than_the_limit_are_not_carried_out() {
        let stats = [
            "Number of files: 10 (reg: 8, dir: 2)",
            "Number of created files: 2 (reg: 2)",
        ];
        // The target has the files of the source, without the created and with the deleted ones.
        for (limit, deleted, expected) in [
            ("2", 2, DryRunResult::Transfer(Some(2))),
            ("2", 3, DryRunResult::Exceeded(3, 11)),
            ("'20%'", 2, DryRunResult::Transfer(Some(2))),
            ("'20%'", 3, DryRunResult::Exceeded(3, 11)),
        ] {
            let run = dry_run(limit, true, deleted, &stats);
            for status in [ExitStatus::Exit(1), ExitStatus::Signal(9)] {
                assert_eq!(run.result(status), DryRunResult::Failed);
            }
            assert_eq!(target_entries(&run), None);
            for code in [0, 23, 24] {
                let result = run.result(ExitStatus::Exit(code));
                assert_eq!(result, expected, "{limit} {deleted}");
            }
            let is_sent = matches!(expected, DryRunResult::Transfer(_));
            assert_eq!(target_entries(&run), is_sent.then_some(10));
        }
    }

    /// Of a list of files, rsync prints no size of the whole.
    #[test]
    fn a_share_of_an_unknown_whole_is_counted_once() {
        let done = ExitStatus::Exit(0);
        let files = ["Number of files: 3"];
        let run = dry_run("'20%'", false, 3, &files);
        assert_eq!(run.result(done), DryRunResult::Count);
        run.on_counted(11);
        assert_eq!(run.result(done), DryRunResult::Exceeded(3, 14));
        let run = dry_run("'20%'", false, 3, &files);
        run.on_counted(12);
        assert!(matches!(run.result(done), DryRunResult::Transfer(_)));
        assert_eq!(target_entries(&run), Some(12));
        // What is deleted now is not there for the next share.
        let run = dry_run("'20%'", false, 1, &files);
        run.handle()
            .sync
            .borrow_mut()
            .delete_guard_mut()
            .set_target_entries(Some(5));
        assert!(matches!(run.result(done), DryRunResult::Transfer(_)));
        assert_eq!(target_entries(&run), Some(4));
        assert_eq!(run.result(done), DryRunResult::Count);
    }

    /// With a limit of the configuration's own, exit code 25 means what it says about it.
    #[test]
    fn the_transfer_is_limited_unless_the_configuration_limits_it() {
        let words = |options: &str| {
            let options = format!("guard = {{ maxDelete = 5 }}, {options}");
            let mut request = request(&options, true);
            let before = request.args.clone();
            let is_limited = limit(&mut request, 5);
            let own = request.args.split_off(request.args.len() - before.len());
            assert_eq!(own, before);
            (is_limited, request.args)
        };
        assert_eq!(words(""), (true, vec![b"--max-delete=5".to_vec()]));
        for own in ["'--max-delete=3'", "'--max-delete', '3'"] {
            let options = format!("rsync = {{ _extra = {{ {own} }} }}");
            assert_eq!(words(&options), (false, vec![]), "{own}");
        }
        let wrapper = "rsync = { binary = '/bin/true' }";
        assert_eq!(words(wrapper), (false, vec![]));
    }

    #[test]
    fn the_dry_run_is_the_transfer_without_changes() {
        let request = request("guard = { maxDelete = 5 }", true);
        let command = DryRun::command(&request);
        assert_eq!(command.program, request.program);
        let has = |word: &[u8]| command.args.iter().any(|arg| arg == word);
        assert!(has(b"--dry-run") || has(b"-n"), "{:?}", command.args);
        assert!(has(request.args.last().unwrap()));
    }

    #[test]
    fn what_exceeds_the_limit_waits_until_it_is_released() {
        for is_lifted in [false, true] {
            let request = request("guard = { maxDelete = 5 }", false);
            let handle = Rc::clone(&request.handle);
            if is_lifted {
                handle.sync.borrow_mut().delete_guard_mut().lift();
            }
            put_off(&handle, &request.ids, 9, 10, 0);
            let mut sync = handle.sync.borrow_mut();
            assert_eq!(sync.delete_guard().excess().is_none(), is_lifted);
            assert_eq!(matches!(sync.next(0), Next::Act(_)), is_lifted);
            assert_eq!(sync.failures(), 1);
        }
    }
}
