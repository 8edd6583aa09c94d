//! Scanner processes and check functions of a pass: their calls and the interpretation of their
//! results.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::event_loop::EventLoop;
use super::job::Job;
use super::scan_progress::PassProgress;
use crate::config::{Check, Scanner};
use crate::log;
use crate::paths;
use crate::process::{Command, ExitStatus, Output, Stdin, process_tree};
use crate::scan::{Candidate, ScanAnswer};
use crate::script::SyncHandle;
use crate::sync::Sync;

/// The maximum time for calls of check functions in one turn.
const MAX_TURN: Duration = Duration::from_millis(50);

/// The time between SIGTERM and SIGKILL for a scanner.
const KILL_DELAY: Duration = Duration::from_secs(2);

/// The maximum size of the path arguments of one scanner call, in bytes.
const MAX_ARGUMENT_BYTES: usize = 64 * 1024;

/// A running scanner.
pub struct Scan {
    token: u64,
    group: Vec<usize>,
    /// The exit codes for passed and for rejected.
    codes: (Vec<i32>, Vec<i32>),
    output: RefCell<Vec<Vec<u8>>>,
    /// The time of the next signal.
    due: Cell<Instant>,
    overdue: Cell<bool>,
}

impl Scan {
    fn new(token: u64, group: Vec<usize>, scanner: &Scanner) -> Scan {
        Scan {
            token,
            group,
            codes: (scanner.ok.clone(), scanner.reject.clone()),
            output: RefCell::default(),
            due: Cell::new(Instant::now() + scanner.timeout),
            overdue: Cell::new(false),
        }
    }

    /// Keeps a line of its output.
    pub fn line(&self, line: &[u8]) {
        const MAX_OUTPUT_BYTES: usize = 200;
        let mut output = self.output.borrow_mut();
        if output.len() < MAX_OUTPUT_BYTES && !line.trim_ascii().is_empty() {
            output.push(line.to_vec());
        }
    }

    /// Returns the time of the next signal.
    pub fn due(&self) -> Instant {
        self.due.get()
    }

    /// Makes the timeout expire now.
    pub fn give_up(&self) {
        self.due.set(Instant::now());
    }

    /// Returns the verdict of its exit status for all its files.
    fn answer(&self, end: ExitStatus, checking: &PassProgress) -> ScanAnswer {
        let alone = self.group.len() == 1;
        let failed = |reason: String| ScanAnswer::Failed { reason, alone };
        if self.overdue.get() {
            return failed("the scanner took too long".to_owned());
        }
        match end {
            ExitStatus::Exit(code) if self.codes.0.contains(&code) => ScanAnswer::Passed,
            ExitStatus::Exit(code) if self.codes.1.contains(&code) => ScanAnswer::Rejected(
                self.words(checking)
                    .unwrap_or_else(|| format!("the scanner ended with exit code {code}")),
            ),
            ExitStatus::Exit(code) => failed(match self.words(checking) {
                Some(words) => format!("the scanner failed with exit code {code}: {words}"),
                None => format!("the scanner failed with exit code {code}"),
            }),
            ExitStatus::Signal(number) => {
                failed(format!("the scanner was ended by signal {number}"))
            }
        }
    }

    /// Returns the first line of its output, without the path of the copy.
    fn words(&self, checking: &PassProgress) -> Option<String> {
        let output = self.output.borrow();
        let copies = checking.copies(&self.group);
        let after = |line: &[u8]| {
            let copy = copies
                .iter()
                .find(|copy| line.starts_with(copy.as_slice()))?;
            let rest = &line[copy.len()..];
            let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii();
            (!rest.is_empty()).then(|| rest.to_vec())
        };
        let found = output.iter().find_map(|line| after(line));
        let line = found.or_else(|| output.first().cloned())?;
        Some(log::escape(&line[..line.len().min(300)]).into_owned())
    }
}

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
            let scan = Scan::new(token, group, scanner);
            match spawned {
                Ok(pid) => {
                    handle.sync.borrow_mut().child_started();
                    let job = Job::scan(scan, Rc::clone(handle), Rc::clone(&self.script), agent);
                    self.jobs.insert(pid, job);
                    self.script.context.running.set(self.jobs.len());
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
    pub(super) fn scanned(&mut self, scan: Scan, end: ExitStatus) {
        if let Some((checking, _)) = self.scan_passes.checking(scan.token) {
            let answer = scan.answer(end, checking);
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
        for (&pid, job) in &self.jobs {
            let Some(scan) = job.scanning().filter(|scan| scan.due.get() <= now) else {
                continue;
            };
            let signal = if scan.overdue.replace(true) {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            };
            scan.due.set(now + KILL_DELAY);
            let below = process_tree::below([pid]);
            // A scanner that has ended is reaped in the next turn.
            let _ = children.kill(pid, signal);
            for descendant in below {
                descendant.kill(signal);
            }
        }
    }
}

/// Returns the environment variables that describe the sync to user programs.
pub(super) fn environment(sync: &Sync) -> Vec<(OsString, OsString)> {
    let name = sync.config.name.clone().into_bytes();
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
