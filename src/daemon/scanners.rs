//! Scanner processes and check functions of a pass: their calls and the interpretation of their
//! results.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::event_loop::EventLoop;
use crate::config::{Check, Scanner};
use crate::paths;
use crate::process::{Command, ExitStatus, Output, Stdin};
use crate::scan::{Candidate, ScanAnswer, ScannerCall};
use crate::script::SyncHandle;
use crate::sync::Sync;
use crate::transfer::Job;

/// The maximum time for calls of check functions in one turn.
const MAX_TURN: Duration = Duration::from_millis(50);

/// The maximum size of the path arguments of one scanner call, in bytes.
const MAX_ARGUMENT_BYTES: usize = 64 * 1024;

impl EventLoop<'_> {
    /// Runs the current check of a pass.
    pub(super) fn check_on(&mut self, token: u64) {
        loop {
            let Some((checking, waiter)) = self.scan_passes.checking(token) else {
                return;
            };
            let handle = Rc::clone(&waiter.handle);
            let check = {
                let sync = handle.sync.borrow();
                let Some(config) = &sync.config.check else {
                    return;
                };
                let blocked = sync.gate.blocked();
                checking.begin(&config.checks, MAX_ARGUMENT_BYTES, |path| {
                    blocked.failures(path)
                })
            };
            let done = match check {
                None => return self.decide(token),
                Some((_, Check::Command(scanner))) => self.scan_on(token, &handle, &scanner),
                Some((number, Check::Function)) => self.ask_function(token, &handle, number),
            };
            if !done {
                return;
            }
        }
    }

    /// Starts as many scanner calls as allowed. Returns true when all have ended.
    fn scan_on(&mut self, token: u64, handle: &Rc<SyncHandle>, scanner: &Scanner) -> bool {
        while let Some((checking, waiter)) = self.scan_passes.checking(token) {
            if checking.groups().is_done() {
                return true;
            }
            if checking.running >= scanner.parallel {
                return false;
            }
            let Some(group) = checking.groups().take() else {
                return false;
            };
            checking.running += 1;
            let agent = waiter.agent.clone();
            let command = command(scanner, checking.copies(&group), &handle.sync.borrow());
            let spawned = self.context.children.borrow_mut().spawn(command);
            let scan = ScannerCall::new(token, group, scanner);
            match spawned {
                Ok(pid) => {
                    let job = Job::scan(scan, Rc::clone(handle), Rc::clone(&self.script), agent);
                    self.transfers.add(pid, job);
                }
                Err(error) => {
                    let reason = format!("the scanner cannot be started: {error}");
                    let alone = scan.group.len() == 1;
                    self.answered(token, scan.group, ScanAnswer::Failed { reason, alone });
                }
            }
        }
        false
    }

    /// Handles the end of a scanner.
    pub(super) fn scanned(&mut self, scan: ScannerCall, status: ExitStatus) {
        if let Some((checking, _)) = self.scan_passes.checking(scan.token) {
            let copies = checking.copies(&scan.group);
            let answer = scan.answer(status, &copies);
            self.answered(scan.token, scan.group, answer);
        }
    }

    fn answered(&mut self, token: u64, group: Vec<usize>, answer: ScanAnswer) {
        if let Some((checking, _)) = self.scan_passes.checking(token) {
            checking.running -= 1;
            checking.answered(group, answer);
        }
    }

    /// Calls a function for one file after another. Returns true when all files are done.
    fn ask_function(&mut self, token: u64, handle: &Rc<SyncHandle>, number: usize) -> bool {
        let end = Instant::now() + MAX_TURN;
        let source = handle.sync.borrow().config.source.clone();
        while Instant::now() < end {
            let Some((checking, _)) = self.scan_passes.checking(token) else {
                return false;
            };
            let Some(file) = checking.next_single() else {
                return true;
            };
            let Candidate { path, copy, .. } = checking.candidates[file].clone();
            let path = paths::join(&source, &path);
            let answer = self.script.check(handle, number, &path, &copy);
            let answer = answer.unwrap_or_else(|error| {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                ScanAnswer::Failed {
                    reason: format!("the function failed: {line}"),
                    alone: true,
                }
            });
            if let Some((checking, _)) = self.scan_passes.checking(token) {
                checking.single(file, answer);
            }
        }
        false
    }

    /// Signals scanners that have exceeded their timeout.
    pub(super) fn end_overdue(&mut self) {
        let now = Instant::now();
        let children = self.context.children.borrow();
        for (pid, job) in self.transfers.jobs() {
            if let Some(signal) = job.scan.as_ref().and_then(|scan| scan.signal(now)) {
                // A scanner that has ended is reaped in the next turn.
                let _ = children.kill_tree(pid, signal);
            }
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
