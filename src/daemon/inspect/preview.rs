//! `-preview`: the entries that the startup transfer of each sync would send, change and delete.
//! Nothing is changed: rsync makes a dry run with the arguments of the startup transfer, and
//! default.direct compares without copying.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use super::startup_call::{StartupCall, startup_call};
use crate::batch::itemized::{DRY_RUN, Difference, Itemized};
use crate::batch::{self, output};
use crate::config::MaxDelete;
use crate::local::{self, CopyControl, CopyJob};
use crate::log::{self, escape};
use crate::process::{Command, ExitStatus, Output, Stdin, run_without_terminal};
use crate::rsync_syntax;
use crate::script::{CopyRequest, Script, ScriptRequest, SpawnRequest, SyncHandle};
use crate::status::number_format::{bytes, counted};

/// The number of names that are shown of each kind, without `-all`.
const SHOWN_NAMES: usize = 10;

/// The number of last words of a startup transfer that name source and target: `-r SOURCE TARGET`.
const LAST_WORDS: usize = 3;

/// Entries of one kind.
#[derive(Debug, Default, Serialize)]
struct PreviewedEntries {
    count: usize,
    bytes: u64,
    paths: Vec<String>,
}

/// The effects of a transfer, by kind.
#[derive(Debug, Default, Serialize)]
struct Changes {
    new: PreviewedEntries,
    changed: PreviewedEntries,
    attributes: PreviewedEntries,
    deleted: PreviewedEntries,
    /// The violation of the delete limit.
    held: Option<String>,
}

/// The preview of one sync.
#[derive(Debug, Serialize)]
pub struct Preview {
    name: String,
    kind: &'static str,
    source: String,
    target: Option<String>,
    /// False if the configuration does not determine the transfer.
    known: bool,
    /// False if the target could not be asked, or not completely.
    ok: bool,
    /// Why it is not known or not complete.
    reason: Option<String>,
    /// The remedy for the failure.
    remedy: Option<&'static str>,
    #[serde(flatten)]
    changes: Option<Changes>,
}

impl Changes {
    fn add(&mut self, found: &Itemized<'_>, most: usize) {
        let entries = match found.difference {
            Difference::New => &mut self.new,
            Difference::Changed => &mut self.changed,
            Difference::Attributes => &mut self.attributes,
            Difference::Deleted => &mut self.deleted,
        };
        entries.count += 1;
        entries.bytes += found.bytes;
        if entries.paths.len() < most {
            entries.paths.push(escape(found.path).into_owned());
        }
    }

    /// Applies the delete limit of a guard. `total` is the number of entries on the target.
    fn judge(&mut self, limit: Option<MaxDelete>, total: u64) {
        let deleted = self.deleted.count as u64;
        let Some(limit) = limit.filter(|limit| limit.exceeded(deleted, total)) else {
            return;
        };
        let limit = match limit {
            MaxDelete::Percent(part) => format!("{part}% of {total}"),
            MaxDelete::Count(count) => count.to_string(),
        };
        self.held = Some(format!(
            "the guard would halt the sync: {deleted} deletions are more than {limit}"
        ));
    }
}

/// Returns the preview of a sync; with `all`, with all names.
pub fn preview(script: &Script, handle: &Rc<SyncHandle>, all: bool) -> Preview {
    let mut preview = {
        let sync = handle.sync.borrow();
        Preview {
            name: sync.config.name.clone(),
            kind: script.kind(handle).unwrap_or("user"),
            source: escape(&sync.config.source).into_owned(),
            target: handle
                .destination()
                .map(|target| escape(&target).into_owned()),
            known: true,
            ok: true,
            reason: None,
            remedy: None,
            changes: None,
        }
    };
    let most = if all { usize::MAX } else { SHOWN_NAMES };
    match startup_call(script, handle) {
        StartupCall::Untold(reason) => {
            preview.known = false;
            preview.reason = Some(reason.into());
        }
        StartupCall::Failed(reason) => preview.fail(reason),
        StartupCall::Request(request) => match *request {
            ScriptRequest::Spawn(request) => preview.dry_run(&request, most),
            ScriptRequest::Copy(request) => preview.compare(request, most),
            ScriptRequest::Scan(_) => preview.fail("its check was not taken out".into()),
        },
    }
    preview
}

impl Preview {
    fn fail(&mut self, reason: String) {
        self.ok = false;
        self.remedy = batch::remedy(reason.as_bytes());
        self.reason = Some(reason);
    }

    /// Asks rsync by a dry run.
    fn dry_run(&mut self, request: &SpawnRequest, most: usize) {
        let mut changes = Changes::default();
        let (mut files, mut created) = (0, 0);
        let ended = run_without_terminal(&dry_run(request), None, |line| {
            let count = |label: &[u8]| output::count(line.strip_prefix(label)?);
            if let Some(found) = Itemized::parse(line) {
                changes.add(&found, most);
            } else if let Some(count) = count(b"Number of files: ") {
                files = count;
            } else if let Some(count) = count(b"Number of created files: ") {
                created = count;
            }
        });
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return self.fail(not_started(&request.program, &error)),
        };
        let total = files.saturating_sub(created) + changes.deleted.count as u64;
        changes.judge(request.handle.sync.borrow().config.guard.max_delete, total);
        // 24: files have vanished meanwhile. 25: rsync's own --max-delete.
        let is_complete = matches!(ended.status, ExitStatus::Exit(0 | 24 | 25));
        if !is_complete {
            let reason = batch::reason(ended.errors.split(|&byte| byte == b'\n'));
            let code = ended.status.code();
            self.fail(match reason {
                [] => format!("exit code {code}"),
                reason => escape(reason).into_owned(),
            });
        }
        if is_complete || ended.status == ExitStatus::Exit(23) {
            self.changes = Some(changes);
        }
    }

    /// Compares without copying.
    fn compare(&mut self, request: CopyRequest, most: usize) {
        let (job, limit) = {
            let sync = request.handle.sync.borrow();
            let job = CopyJob {
                token: 0,
                source: sync.config.source.clone(),
                source_numbers: sync.watched_source(),
                target: request.target,
                delete: request.delete,
                delete_excluded: request.delete_excluded,
                keeps_others: request.keeps_others,
                filter: Arc::clone(&sync.filter),
                task: request.task,
                renames_applied: true,
                limit: None,
                control: Arc::new(CopyControl::default()),
            };
            (job, sync.config.guard.max_delete)
        };
        let mut changes = Changes::default();
        match local::preview(&job, &mut |found| changes.add(&found, most)) {
            Ok(total) => {
                changes.judge(limit, total.unwrap_or_default());
                self.changes = Some(changes);
            }
            Err(reason) => self.fail(reason),
        }
    }

    /// Returns false if the target could not be asked.
    pub fn is_ok(&self) -> bool {
        self.ok
    }

    /// Returns the preview as lines of text.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.kind);
        let mut line = |key: &str, value: &str| text.push_str(&format!("    {key:<11}{value}\n"));
        line("source", &self.source);
        line(
            "target",
            self.target.as_deref().unwrap_or("(what its functions do)"),
        );
        if let Some(changes) = &self.changes {
            let kinds = [
                ("new", &changes.new),
                ("changed", &changes.changed),
                ("attributes", &changes.attributes),
                ("DELETE", &changes.deleted),
            ];
            let mut is_current = true;
            for (key, entries) in kinds.into_iter().filter(|(_, entries)| entries.count > 0) {
                is_current = false;
                let size = match entries.bytes {
                    0 => String::new(),
                    size => format!(", {}", bytes(size)),
                };
                line(key, &format!("{}{size}", entries.count));
                for path in &entries.paths {
                    line("", &format!("  {path}"));
                }
                match entries.count - entries.paths.len() {
                    0 => {}
                    rest => line("", &format!("  … and {rest} more (-all lists them)")),
                }
            }
            if is_current && self.ok {
                line("nothing", "the target has everything");
            }
            if let Some(held) = &changes.held {
                line("GUARD", held);
            }
        }
        match (&self.reason, self.known) {
            (Some(reason), true) => line("ERROR", reason),
            (Some(reason), false) => line("unknown", &format!("no preview: {reason}")),
            (None, _) => {}
        }
        if let Some(remedy) = self.remedy {
            line("remedy", remedy);
        }
        text
    }
}

/// Returns the last line of the text of all previews.
pub fn summary(previews: &[Preview]) -> String {
    let changes = || {
        previews
            .iter()
            .filter_map(|preview| preview.changes.as_ref())
    };
    let sent: usize = changes()
        .map(|changes| changes.new.count + changes.changed.count + changes.attributes.count)
        .sum();
    let size = changes().map(|changes| changes.new.bytes + changes.changed.bytes);
    let deleted: usize = changes().map(|changes| changes.deleted.count).sum();
    let (unknown, failed) = (
        previews.iter().filter(|preview| !preview.known).count(),
        previews.iter().filter(|preview| !preview.ok).count(),
    );
    let mut text = format!(
        "Nothing was changed. {}: {sent} to send ({}), {deleted} to delete",
        counted(previews.len(), "sync"),
        bytes(size.sum())
    );
    if unknown > 0 {
        text.push_str(&format!(", {unknown} without a preview"));
    }
    if failed > 0 {
        text.push_str(&format!(", {failed} failed"));
    }
    text + ".\n"
}

/// Returns the dry run of a transfer.
fn dry_run(request: &SpawnRequest) -> Command {
    let mut args = without_side_effects(&request.args);
    let end = args.len().saturating_sub(LAST_WORDS);
    let words = DRY_RUN.map(|word| word.as_bytes().to_vec());
    args.splice(end..end, words);
    Command {
        program: request.program.clone(),
        args,
        stdin: match &request.stdin {
            Some(input) => Stdin::Bytes(input.clone()),
            None => Stdin::Null,
        },
        output: Output::Lines,
        environment: request.environment.clone(),
        priority: Default::default(),
    }
}

/// Returns the words without those that write files in a dry run, or silence it.
pub fn without_side_effects(args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    rsync_syntax::without(
        args,
        &["log-file", "only-write-batch", "quiet", "write-batch"],
        b"q",
    )
}

/// Returns the reason why a program did not start.
pub fn not_started(program: &[u8], error: &io::Error) -> String {
    format!(
        "{} cannot be executed: {}",
        escape(program),
        log::reason(error)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_write_or_silence_are_taken_out() {
        let words = |text: &str| -> Vec<Vec<u8>> {
            text.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect()
        };
        let kept = without_side_effects(&words(
            "--delete -lqst --quiet --log-file=/l --log-file /l --write-batch=b -q -e x -r s/ t/",
        ));
        assert_eq!(kept, words("--delete -lst -e x -r s/ t/"));
        // Words of a value are kept as they are.
        assert_eq!(without_side_effects(&words("-essh")), words("-essh"));
    }
}
