//! The check gate at work: between what is due and what is sent.
//!
//! A *round* is one list, or a comparison of everything, of one sync on its way: a thread looks at
//! the source and makes copies, scanners and functions are asked about those, the thread does what
//! was decided, and then Lua sends what there is. Deletions and what is known need no scanner.
//! A sync has one round at a time, which counts as a child of it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, Table};
use nix::sys::signal::Signal;

use super::engine::Engine;
use super::jobs::Job;
use super::scans::Checking;
use crate::check::Worker;
use crate::check::{Answer, Candidate, Collected, Disposition, Layout, Order, Outcome, Settled};
use crate::config::{Check, CheckConfig, Hook, OnReject, Scanner};
use crate::process::{Command, End, Output, Pid, Stdin};
use crate::queue::{DelayId, Etype};
use crate::report;
use crate::script::{CheckRequest, Member};
use crate::sync::Sync;

/// So many files are told one by one.
const TOLD: usize = 20;

/// Functions are asked for so long before the rest of the daemon has its turn.
const SLICE: Duration = Duration::from_millis(50);

/// After TERM a scanner gets this long before KILL.
const GRACE: Duration = Duration::from_secs(2);

/// The most calls of `onReject` that wait; what is more is told in the log only.
const MOST_CALLS: usize = 1000;

/// The gates of all syncs.
#[derive(Default)]
pub struct Gates {
    /// By the address of their sync.
    hands: HashMap<*const RefCell<Sync>, Worker>,
    rounds: Vec<Round>,
    tokens: u64,
    /// Commands that tell of rejected files, one at a time.
    calls: VecDeque<Command>,
    calling: Option<Pid>,
}

struct Round {
    token: u64,
    member: Rc<Member>,
    agent: Table,
    ids: Vec<DelayId>,
    send: Function,
    phase: Phase,
}

enum Phase {
    /// The thread is at work.
    Thread,
    Checking(Box<Checking>),
    Ready,
}

/// A scanner that runs.
pub struct Scan {
    token: u64,
    group: Vec<usize>,
    /// Codes that say "passed" and "rejected".
    codes: (Vec<i32>, Vec<i32>),
    output: RefCell<Vec<Vec<u8>>>,
    /// When it gets the next signal.
    due: Cell<Instant>,
    overdue: Cell<bool>,
}

impl Scan {
    /// A line it printed.
    pub fn line(&self, line: &[u8]) {
        const KEPT: usize = 200;
        let mut output = self.output.borrow_mut();
        if output.len() < KEPT && !line.trim_ascii().is_empty() {
            output.push(line.to_vec());
        }
    }

    /// What its end means for all its files.
    fn answer(&self, end: End, checking: &Checking) -> Answer {
        let alone = self.group.len() == 1;
        let failed = |reason: String| Answer::Failed { reason, alone };
        if self.overdue.get() {
            return failed("the scanner took too long".to_owned());
        }
        match end {
            End::Exit(code) if self.codes.0.contains(&code) => Answer::Passed,
            End::Exit(code) if self.codes.1.contains(&code) => Answer::Rejected(
                self.words(checking)
                    .unwrap_or_else(|| format!("the scanner ended with exit code {code}")),
            ),
            End::Exit(code) => failed(match self.words(checking) {
                Some(words) => format!("the scanner failed with exit code {code}: {words}"),
                None => format!("the scanner failed with exit code {code}"),
            }),
            End::Signal(number) => failed(format!("the scanner was ended by signal {number}")),
        }
    }

    /// The first line it printed, without the path of the copy.
    fn words(&self, checking: &Checking) -> Option<String> {
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
        Some(report::escape(&line[..line.len().min(300)]).into_owned())
    }
}

impl Gates {
    /// Whether any round is on its way.
    pub fn is_busy(&self) -> bool {
        !self.rounds.is_empty()
    }

    fn position(&self, token: u64) -> Option<usize> {
        self.rounds.iter().position(|round| round.token == token)
    }

    fn round(&mut self, token: u64) -> Option<&mut Round> {
        self.rounds.iter_mut().find(|round| round.token == token)
    }
}

impl Engine<'_> {
    /// Begins a round.
    pub(super) fn look(&mut self, request: CheckRequest) {
        let CheckRequest {
            member,
            agent,
            ids,
            task,
            send,
        } = request;
        self.gates.tokens += 1;
        let token = self.gates.tokens;
        let filter = Arc::clone(&member.sync.borrow().filter);
        if let Err(why) = self.order_check(&member, token, Order::Collect(task, filter)) {
            return self.cannot_check(&member, &ids, &why);
        }
        member.sync.borrow_mut().running += 1;
        self.gates.rounds.push(Round {
            token,
            member,
            agent,
            ids,
            send,
            phase: Phase::Thread,
        });
    }

    fn order_check(&mut self, member: &Member, token: u64, order: Order) -> Result<(), String> {
        let key = Rc::as_ptr(&member.sync);
        if !self.gates.hands.contains_key(&key) {
            let layout = layout(&member.sync.borrow()).ok_or("there is no check")?;
            let worker = Worker::start(layout, self.core.waker());
            let worker = worker.map_err(|error| format!("cannot start a thread: {error}"))?;
            self.gates.hands.insert(key, worker);
        }
        if self
            .gates
            .hands
            .get(&key)
            .is_some_and(|hand| hand.give(token, order))
        {
            return Ok(());
        }
        self.gates.hands.remove(&key);
        Err("the thread that checks has failed".to_owned())
    }

    /// Nothing of these entries can be checked now, so nothing is sent.
    fn cannot_check(&mut self, member: &Member, ids: &[DelayId], why: &str) {
        const CODE: i32 = 11;
        let mut sync = member.sync.borrow_mut();
        let wait = sync.failed(ids, self.now).as_secs();
        let name = &sync.config.name;
        report::error(format_args!(
            "{name}: nothing can be checked, so nothing is sent: {why}; trying again in {wait} s"
        ));
        sync.counters
            .failed(CODE, format!("check: {why}").into_bytes());
    }

    /// Goes on with all rounds as far as they can.
    pub(super) fn tend_gates(&mut self) {
        let hands = self.gates.hands.values();
        let done: Vec<_> = hands
            .flat_map(|hand| hand.done().collect::<Vec<_>>())
            .collect();
        for done in done {
            self.thread_done(done.token, done.outcome);
        }
        self.end_overdue();
        let rounds = self.gates.rounds.iter();
        for token in rounds.map(|round| round.token).collect::<Vec<_>>() {
            self.advance(token);
        }
    }

    fn thread_done(&mut self, token: u64, outcome: Result<Outcome, String>) {
        let Some(at) = self.gates.position(token) else {
            return;
        };
        let member = Rc::clone(&self.gates.rounds[at].member);
        match outcome {
            Err(why) => {
                let round = self.gates.rounds.swap_remove(at);
                member.sync.borrow_mut().running -= 1;
                self.cannot_check(&member, &round.ids, &why);
            }
            Ok(Outcome::Collected(found)) => {
                let phase = self.collected(&member, found);
                self.gates.rounds[at].phase = phase;
            }
            Ok(Outcome::Settled(settled)) => {
                self.settled(&member, settled);
                self.gates.rounds[at].phase = Phase::Ready;
            }
        }
    }

    /// Takes in what a look at the source came to.
    fn collected(&mut self, member: &Rc<Member>, found: Collected) -> Phase {
        let mut sync = member.sync.borrow_mut();
        let withheld = &mut sync.withheld;
        if found.everything {
            let candidates = found.candidates.iter().map(|file| file.path.as_slice());
            let rejected = found.rejected.iter().map(|(path, _)| path.as_slice());
            let failures = found.failures.iter().map(|(path, _)| path.as_slice());
            let stay: HashSet<&[u8]> = candidates.chain(rejected).chain(failures).collect();
            withheld.retain(|path| stay.contains(path));
        }
        for path in &found.gone {
            withheld.gone(path);
        }
        for path in &found.clear {
            withheld.clear(path);
        }
        for (path, reason) in found.rejected {
            withheld.reject(&path, reason);
        }
        drop(sync);
        self.wait_for(
            member,
            found
                .failures
                .into_iter()
                .map(|(path, why)| (path, why, false)),
        );
        match found.candidates.is_empty() {
            true => Phase::Ready,
            false => Phase::Checking(Box::new(Checking::new(found.candidates))),
        }
    }

    /// What was decided has been done.
    fn settled(&mut self, member: &Rc<Member>, settled: Settled) {
        for (path, place) in &settled.quarantined {
            report::warn(format_args!(
                "{}: {} was moved to {}",
                member.sync.borrow().config.name,
                report::escape(path),
                report::escape(place)
            ));
        }
        self.wait_for(
            member,
            settled
                .failures
                .into_iter()
                .map(|(path, why)| (path, why, false)),
        );
    }

    /// Holds files of which nothing is known, and has them looked at again later.
    fn wait_for(&self, member: &Member, files: impl Iterator<Item = (Vec<u8>, String, bool)>) {
        let mut sync = member.sync.borrow_mut();
        let name = sync.config.name.clone();
        let (mut paths, mut told) = (Vec::new(), 0);
        for (path, why, alone) in files {
            if sync.withheld.hold(&path, why.clone(), alone) {
                told += 1;
                if told <= TOLD {
                    let path = report::escape(&path);
                    report::warn(format_args!("{name}: {path} is held: {why}"));
                }
            }
            paths.push((path, Etype::Modify));
        }
        if paths.is_empty() {
            return;
        }
        let count = paths.len();
        let wait = sync.undone.add(paths, self.now).as_secs();
        report::warn(format_args!(
            "{name}: {count} files are held as they could not be checked, trying again in {wait} s"
        ));
    }

    fn advance(&mut self, token: u64) {
        match self.gates.round(token).map(|round| &round.phase) {
            Some(Phase::Checking(_)) => self.check_on(token),
            Some(Phase::Ready) => self.send_checked(token),
            _ => {}
        }
    }

    /// Asks the scanner or the function whose turn it is.
    fn check_on(&mut self, token: u64) {
        loop {
            let Some(Round {
                phase: Phase::Checking(checking),
                member,
                ..
            }) = self.gates.round(token)
            else {
                return;
            };
            let member = Rc::clone(member);
            let check = {
                let sync = member.sync.borrow();
                let Some(config) = &sync.config.check else {
                    return;
                };
                let tried = |path: &[u8]| sync.withheld.failures(path);
                checking.begin(&config.checks, groups_room(), tried)
            };
            let done = match check {
                None => return self.decide(token),
                Some((_, Check::Command(scanner))) => self.scan_on(token, &member, &scanner),
                Some((number, Check::Function)) => self.ask_function(token, &member, number),
            };
            if !done {
                return;
            }
        }
    }

    /// Starts as many calls of a scanner as may run; true when all have ended.
    fn scan_on(&mut self, token: u64, member: &Rc<Member>, scanner: &Scanner) -> bool {
        loop {
            let Some(Round {
                phase: Phase::Checking(checking),
                agent,
                ..
            }) = self.gates.round(token)
            else {
                return false;
            };
            if checking.groups().is_done() {
                return true;
            }
            if checking.running >= scanner.parallel {
                return false;
            }
            let Some(group) = checking.groups().take() else {
                return false;
            };
            let copies = checking.copies(&group);
            let (command, agent) = (
                command(scanner, copies, &member.sync.borrow()),
                agent.clone(),
            );
            checking.running += 1;
            let spawned = self.core.children.borrow_mut().spawn(command);
            let scan = Scan {
                token,
                group,
                codes: (scanner.ok.clone(), scanner.reject.clone()),
                output: RefCell::default(),
                due: Cell::new(Instant::now() + scanner.timeout),
                overdue: Cell::new(false),
            };
            match spawned {
                Ok(pid) => {
                    member.sync.borrow_mut().running += 1;
                    let job = Job::scan(scan, Rc::clone(member), Rc::clone(&self.script), agent);
                    self.jobs.insert(pid, job);
                    self.script.host.running.set(self.jobs.len());
                }
                Err(error) => {
                    let reason = format!("the scanner cannot be started: {error}");
                    let alone = scan.group.len() == 1;
                    self.answered(token, scan.group, Answer::Failed { reason, alone });
                }
            }
        }
    }

    /// A scanner has ended.
    pub(super) fn scanned(&mut self, scan: Scan, end: End) {
        let Some(round) = self.gates.round(scan.token) else {
            return;
        };
        if let Phase::Checking(checking) = &round.phase {
            let answer = scan.answer(end, checking);
            self.answered(scan.token, scan.group, answer);
        }
    }

    fn answered(&mut self, token: u64, group: Vec<usize>, answer: Answer) {
        if let Some(Round {
            phase: Phase::Checking(checking),
            ..
        }) = self.gates.round(token)
        {
            checking.running -= 1;
            checking.answered(group, answer);
        }
    }

    /// Asks a function about one file after the other; true when it was asked about all.
    fn ask_function(&mut self, token: u64, member: &Rc<Member>, number: usize) -> bool {
        let end = Instant::now() + SLICE;
        let source = member.sync.borrow().config.source.clone();
        while Instant::now() < end {
            let Some(Round {
                phase: Phase::Checking(checking),
                ..
            }) = self.gates.round(token)
            else {
                return false;
            };
            let Some(file) = checking.next_single() else {
                return true;
            };
            let Candidate { path, copy, .. } = checking.candidates[file].clone();
            let path = [source.strip_suffix(b"/").unwrap_or(&source), &path].concat();
            let answer = self.script.check(member, number, &path, &copy);
            let answer = answer.unwrap_or_else(|error| {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                Answer::Failed {
                    reason: format!("the function failed: {line}"),
                    alone: true,
                }
            });
            if let Some(Round {
                phase: Phase::Checking(checking),
                ..
            }) = self.gates.round(token)
            {
                checking.single(file, answer);
            }
        }
        false
    }

    /// All answers are there.
    fn decide(&mut self, token: u64) {
        let Some(round) = self.gates.round(token) else {
            return;
        };
        let member = Rc::clone(&round.member);
        let Phase::Checking(checking) = std::mem::replace(&mut round.phase, Phase::Thread) else {
            return;
        };
        let on_reject = member
            .sync
            .borrow()
            .config
            .check
            .as_ref()
            .map(|c| c.on_reject.clone());
        let on_reject = on_reject.unwrap_or(OnReject::Hold);
        let (mut decided, mut waiting) = (Vec::new(), Vec::new());
        for (candidate, answer) in checking.into_answers() {
            let disposition = match answer {
                Answer::Passed => {
                    let mut sync = member.sync.borrow_mut();
                    sync.withheld.clear(&candidate.path);
                    sync.withheld.passed += 1;
                    Disposition::Install
                }
                Answer::Rejected(reason) => {
                    self.reject(&member, &candidate.path, &reason, &on_reject);
                    match &on_reject {
                        OnReject::Hold | OnReject::Call(_) => Disposition::Hold(reason),
                        OnReject::DeleteTarget => Disposition::Remove(reason),
                        OnReject::Quarantine(to) => Disposition::Quarantine(reason, to.clone()),
                    }
                }
                Answer::Failed { reason, alone } => {
                    waiting.push((candidate.path.clone(), reason, alone));
                    Disposition::Wait
                }
            };
            decided.push((candidate, disposition));
        }
        self.wait_for(&member, waiting.into_iter());
        if let Err(why) = self.order_check(&member, token, Order::Settle(decided)) {
            self.thread_done(token, Err(why));
        }
    }

    fn reject(&mut self, member: &Rc<Member>, path: &[u8], reason: &str, on_reject: &OnReject) {
        let news = member
            .sync
            .borrow_mut()
            .withheld
            .reject(path, reason.to_owned());
        if !news {
            return;
        }
        let name = member.sync.borrow().config.name.clone();
        let shown = report::escape(path);
        report::warn(format_args!("{name}: {shown} was rejected: {reason}"));
        let OnReject::Call(hook) = on_reject else {
            return;
        };
        let source = member.sync.borrow().config.source.clone();
        let full = [source.strip_suffix(b"/").unwrap_or(&source), path].concat();
        match hook {
            Hook::Function => {
                if let Err(error) = self.script.rejected(member, &full, reason) {
                    report::error("in onReject, which is ignored:");
                    self.script.report(&error);
                }
            }
            Hook::Command(words) if self.gates.calls.len() < MOST_CALLS => {
                let (program, args) = words
                    .split_first()
                    .map_or((&[][..], &[][..]), |(p, a)| (p, a));
                let last = [full, reason.as_bytes().to_vec()];
                self.gates.calls.push_back(Command {
                    args: args.iter().cloned().chain(last).collect(),
                    stdin: Stdin::Null,
                    output: Output::Lines,
                    environment: environment(&member.sync.borrow()),
                    ..Command::new(program)
                });
                self.tell_of_rejects();
            }
            Hook::Command(_) => {}
        }
    }

    fn tell_of_rejects(&mut self) {
        while self.gates.calling.is_none()
            && let Some(command) = self.gates.calls.pop_front()
        {
            let program = report::escape(&command.program).into_owned();
            match self.core.children.borrow_mut().spawn(command) {
                Ok(pid) => self.gates.calling = Some(pid),
                Err(error) => report::error(format_args!("cannot run onReject {program}: {error}")),
            }
        }
    }

    /// A child that is no job has ended.
    pub(super) fn told_of_reject(&mut self, pid: Pid, code: i32) {
        if self.gates.calling == Some(pid) {
            self.gates.calling = None;
            if code != 0 {
                report::warn(format_args!("onReject ended with exit code {code}"));
            }
            self.tell_of_rejects();
        }
    }

    /// What passed is sent, when there is room for another child.
    fn send_checked(&mut self, token: u64) {
        if !self.script.host.has_room() || self.is_fading() {
            return;
        }
        let Some(at) = self.gates.position(token) else {
            return;
        };
        let round = self.gates.rounds.swap_remove(at);
        let member = round.member;
        {
            let mut sync = member.sync.borrow_mut();
            sync.running -= 1;
            if nothing_to_send(&sync, &round.ids) {
                sync.succeeded(&round.ids);
                drop(sync);
                return member.forget(&round.ids);
            }
        }
        // The source or the tunnel may be gone by now: all is looked at again when it is back.
        if !member.is_connected() || !self.may_send(&member) {
            return member.sync.borrow_mut().redo(&round.ids, self.now);
        }
        // They stay active all the while: what changed since they were looked at waits behind.
        self.script.host.cleared.set(true);
        let sent = round.send.call::<()>(round.agent);
        self.script.host.cleared.set(false);
        if let Err(error) = sent {
            return self.fail(&error);
        }
        self.launch();
    }

    /// Scanners that take too long are ended.
    fn end_overdue(&mut self) {
        let now = Instant::now();
        let children = self.core.children.borrow();
        for (&pid, job) in &self.jobs {
            let Some(scan) = job.scanning().filter(|scan| scan.due.get() <= now) else {
                continue;
            };
            let signal = match scan.overdue.replace(true) {
                false => Signal::SIGTERM,
                true => Signal::SIGKILL,
            };
            scan.due.set(now + GRACE);
            let below = crate::process::family::below([pid]);
            // One that has ended is collected in the next turn.
            let _ = children.kill(pid, signal);
            for descendant in below {
                descendant.kill(signal);
            }
        }
    }

    /// When there is something to do by ourselves.
    pub(super) fn gate_deadline(&self) -> Option<Instant> {
        let scans = self.jobs.values().filter_map(Job::scanning);
        let overdue = scans.map(|scan| scan.due.get()).min();
        let asks = self.gates.rounds.iter().any(|round| match &round.phase {
            Phase::Checking(checking) => checking.asks_function(),
            Phase::Ready => self.script.host.has_room(),
            Phase::Thread => false,
        });
        match asks {
            true => Some(Instant::now()),
            false => overdue,
        }
    }

    /// No round goes on: the daemon ends, or another configuration comes.
    pub(super) fn close_gates(&mut self) {
        for round in std::mem::take(&mut self.gates.rounds) {
            let mut sync = round.member.sync.borrow_mut();
            sync.running -= 1;
            sync.redo(&round.ids, self.now);
        }
        let now = Instant::now();
        for scan in self.jobs.values().filter_map(Job::scanning) {
            scan.due.set(now);
        }
        self.end_overdue();
    }

    /// Syncs that are no more need no thread.
    pub(super) fn forget_gates(&mut self) {
        let members = &self.members;
        let is_member = |sync: *const RefCell<Sync>| {
            members
                .iter()
                .any(|member| std::ptr::eq(Rc::as_ptr(&member.sync), sync))
        };
        self.gates.hands.retain(|sync, _| is_member(*sync));
    }
}

/// So many bytes of names fit into the arguments of a scanner.
fn groups_room() -> usize {
    64 * 1024
}

fn layout(sync: &Sync) -> Option<Layout> {
    let check: &CheckConfig = sync.config.check.as_ref()?;
    Some(Layout {
        source: sync.config.source.clone(),
        staging: check.staging.clone(),
        rules: check.rules(),
        checksum: check.checksum,
    })
}

/// Whether all entries are about files that are withheld.
fn nothing_to_send(sync: &Sync, ids: &[DelayId]) -> bool {
    ids.iter()
        .filter_map(|&id| sync.queue.get(id))
        .all(|delay| !delay.etype().is_special() && sync.is_withheld(&delay.paths().0))
}

fn environment(sync: &Sync) -> Vec<(OsString, OsString)> {
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
    let (args, stdin) = match scanner.stdin {
        false => (args.into_iter().chain(copies).collect(), Stdin::Null),
        true => {
            let ended = copies.into_iter().map(|copy| [copy, vec![0]].concat());
            (args, Stdin::Bytes(ended.collect::<Vec<_>>().concat()))
        }
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
