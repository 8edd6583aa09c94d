//! Scanner processes and check functions of a pass: their calls and the interpretation of their
//! results.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::Table;

use super::progress::PassProgress;
use crate::config::{Check, Scanner};
use crate::paths;
use crate::process::{Children, Command, ExitStatus, Output, Stdin};
use crate::script::{Script, SyncHandle};
use crate::staging::{Candidate, ScanAnswer};
use crate::sync::Sync;
use crate::transfer::{Job, ScannerCall, Transfers};

/// The maximum time for calls of check functions in one turn.
pub(super) const MAX_TURN: Duration = Duration::from_millis(50);

/// The maximum size of the path arguments of one scanner call, in bytes.
const MAX_ARGUMENT_BYTES: usize = 64 * 1024;

/// One pass that is being checked.
pub struct CheckedPass<'a> {
    /// The token of the pass.
    pub token: u64,
    /// The progress of its files.
    pub progress: &'a mut PassProgress,
    /// The sync whose functions are called, and whose children the scanners are.
    pub handle: Rc<SyncHandle>,
    /// The agent of the first transfer that waits.
    pub agent: Table,
}

impl CheckedPass<'_> {
    /// Runs the checks as far as possible. Returns true when all are complete.
    pub fn run(
        &mut self,
        children: &RefCell<Children>,
        transfers: &mut Transfers,
        script: &Rc<Script>,
    ) -> bool {
        loop {
            let check = {
                let sync = self.handle.sync.borrow();
                let Some(config) = &sync.config.check else {
                    return false;
                };
                let blocked = sync.gate.blocked();
                self.progress
                    .begin(&config.checks, MAX_ARGUMENT_BYTES, |path| {
                        blocked.failures(path)
                    })
            };
            let is_done = match check {
                None => return true,
                Some((_, Check::Command(scanner))) => {
                    self.start_scanners(&scanner, children, transfers, script)
                }
                Some((number, Check::Function)) => self.call_function(number, script),
            };
            if !is_done {
                return false;
            }
        }
    }

    /// Starts as many scanner calls as allowed. Returns true when all have ended.
    fn start_scanners(
        &mut self,
        scanner: &Scanner,
        children: &RefCell<Children>,
        transfers: &mut Transfers,
        script: &Rc<Script>,
    ) -> bool {
        loop {
            if self.progress.groups().is_done() {
                return true;
            }
            if self.progress.running >= scanner.parallel {
                return false;
            }
            let Some(group) = self.progress.groups().take() else {
                return false;
            };
            self.progress.running += 1;
            let copies = self.progress.copies(&group);
            let command = command(scanner, copies, &self.handle.sync.borrow());
            let spawned = children.borrow_mut().spawn(command);
            let scan = ScannerCall::new(self.token, group, scanner);
            match spawned {
                Ok(pid) => {
                    let (handle, agent) = (Rc::clone(&self.handle), self.agent.clone());
                    let job = Job::scan(scan, handle, Rc::clone(script), agent);
                    transfers.add(pid, job);
                }
                Err(error) => {
                    let reason = format!("the scanner cannot be started: {error}");
                    let alone = scan.group.len() == 1;
                    let answer = ScanAnswer::Failed { reason, alone };
                    self.progress.running -= 1;
                    self.progress.answered(scan.group, answer);
                }
            }
        }
    }

    /// Calls a function for one file after another. Returns true when all files are done.
    fn call_function(&mut self, number: usize, script: &Script) -> bool {
        let end = Instant::now() + MAX_TURN;
        let source = self.handle.sync.borrow().config.source.clone();
        while Instant::now() < end {
            let Some(file) = self.progress.next_single() else {
                return true;
            };
            let Candidate { path, copy, .. } = self.progress.candidates[file].clone();
            let path = paths::join(&source, &path);
            let answer = script.check(&self.handle, number, &path, &copy);
            let answer = answer.unwrap_or_else(|error| {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                ScanAnswer::Failed {
                    reason: format!("the function failed: {line}"),
                    alone: true,
                }
            });
            self.progress.single(file, answer);
        }
        false
    }
}

/// Records the end of a scanner in the progress of its pass.
pub fn scanned(progress: &mut PassProgress, scan: ScannerCall, status: ExitStatus) {
    let copies = progress.copies(&scan.group);
    let answer = scan.answer(status, &copies);
    progress.running -= 1;
    progress.answered(scan.group, answer);
}

/// Signals scanners that have exceeded their timeout.
pub fn end_overdue(children: &RefCell<Children>, transfers: &Transfers, now: Instant) {
    let children = children.borrow();
    for (pid, job) in transfers.jobs() {
        if let Some(signal) = job.scan.as_ref().and_then(|scan| scan.signal(now)) {
            // A scanner that has ended is reaped in the next turn.
            let _ = children.kill_tree(pid, signal);
        }
    }
}

/// Returns the environment variables that describe the sync to user programs.
pub(super) fn environment(sync: &Sync) -> Vec<(OsString, OsString)> {
    let name = crate::log::unescape(&sync.config.name);
    let source = sync.config.source.clone();
    let both = [("LSYNCD_SYNC", name), ("LSYNCD_SOURCE", source)];
    let owned = both.map(|(key, value)| (OsString::from(key), OsString::from_vec(value)));
    owned.to_vec()
}

fn command(scanner: &Scanner, copies: Vec<Vec<u8>>, sync: &Sync) -> Command {
    let (program, args) = match scanner.words.split_first() {
        Some((program, args)) => (program.clone(), args.to_vec()),
        None => Default::default(),
    };
    let (args, stdin) = if scanner.stdin {
        let ended = copies.into_iter().map(|copy| [copy, vec![0]].concat());
        (args, Stdin::Bytes(ended.collect::<Vec<_>>().concat()))
    } else {
        (args.into_iter().chain(copies).collect(), Stdin::Null)
    };
    Command {
        args,
        stdin,
        output: Output::Lines,
        environment: environment(sync),
        priority: sync.config.priority,
        ..Command::new(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_gets_the_names_the_environment_and_the_priority_of_its_sync() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let script = Script::of_text(&format!(
            "sync {{ default.rsync, name = 'web', source = '{root}', target = '{root}.t', \
             nice = 7, check = {{ command = {{ 'scan', '-v' }} }} }}",
        ));
        let syncs = script.syncs();
        let sync = syncs[0].sync.borrow();
        let Some(Check::Command(scanner)) = sync.config.check.as_ref().unwrap().checks.first()
        else {
            panic!("it is a scanner")
        };
        let copies = vec![b"/a".to_vec(), b"/b\n".to_vec()];
        let by_arguments = command(scanner, copies.clone(), &sync);
        let words = [&b"-v"[..], b"/a", b"/b\n"];
        assert_eq!(by_arguments.program, b"scan");
        assert_eq!(by_arguments.args, words);
        assert_eq!(by_arguments.stdin, Stdin::Null);
        let environment = [
            ("LSYNCD_SYNC".into(), "web".into()),
            ("LSYNCD_SOURCE".into(), format!("{root}/").into()),
        ];
        assert_eq!(by_arguments.environment, environment);
        assert_eq!(by_arguments.priority.nice, Some(7));
        let scanner = Scanner {
            stdin: true,
            ..scanner.clone()
        };
        let by_input = command(&scanner, copies, &sync);
        assert_eq!(by_input.args, [b"-v"]);
        assert_eq!(by_input.stdin, Stdin::Bytes(b"/a\0/b\n\0".to_vec()));
    }
}
