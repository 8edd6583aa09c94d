//! Children at work for a sync: from what Lua asked for to what their end means.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use mlua::Table;

use super::deletions::Trial;
use super::engine::{Engine, Outcome};
use super::outcome::{self, telling};
use super::scanners::Scan;
use super::stuck::Seen;
use super::tunnels;
use crate::batch;
use crate::batch::output::{self as rsync_output, Progress, Totals};
use crate::exit::Exit;
use crate::process::{Command, End, Output, Pid, SpawnError, Stdin, Stream};
use crate::queue::{DelayId, Etype, Time};
use crate::report;
use crate::script::{Host, Member, OrderRequest, Script, SpawnRequest, Verdict};
use crate::sync::{Sync, micros};

/// What lsyncd's children exit with when their program can't be executed.
const NOT_EXECUTED: i32 = 255;

/// What changed while it was acted upon is looked at again after this; the event that tells of
/// the change is on its way.
const SOON: Duration = Duration::from_millis(200);

/// The last lines of a child's error output are kept, to know a failure by its words.
const KEPT_LINES: usize = 50;

/// One child at work for a sync.
pub struct Job {
    member: Rc<Member>,
    /// The configuration whose code asked for it.
    script: Rc<Script>,
    /// The sync that waits for this child of the one it replaces.
    pub(super) heir: Option<Rc<RefCell<Sync>>>,
    agent: Table,
    ids: Vec<DelayId>,
    captured: bool,
    transfer: Option<batch::Kind>,
    since: Instant,
    progress: RefCell<Option<Progress>>,
    totals: Cell<Totals>,
    /// It compares everything as one does who may have missed changes. What is missed after
    /// its start is not its business.
    clears_doubt: bool,
    errors: RefCell<Vec<Vec<u8>>>,
    /// The same work failed before: what it says about that is told once, when it is over.
    repeated: bool,
    /// It is only the trial of another.
    trial: Option<Trial>,
    /// It checks files.
    scan: Option<Scan>,
    /// Whether it waits for a named pipe.
    pub(super) stuck: Cell<Seen>,
    /// What its processes had done at the last look, and at how many looks in a row.
    pub(super) idle: Cell<(Option<u64>, u32)>,
}

/// A line of output of a child: into the log, with the name of the sync or tunnel.
pub fn output(jobs: &HashMap<Pid, Job>, host: &Host, pid: Pid, stream: Stream, line: &[u8]) {
    let job = jobs.get(&pid);
    if let (Some(trial), Stream::Stdout) = (job.and_then(|job| job.trial.as_ref()), stream) {
        return trial.line(line);
    }
    if let Some(scan) = job.and_then(|job| job.scan.as_ref()) {
        return scan.line(line);
    }
    let shown = report::escape(line);
    let text = match job {
        Some(job) => format!("{}: {shown}", job.member.sync.borrow().config.name),
        None => match tunnels::of(host, pid) {
            Some(tunnel) => format!("{}: {shown}", tunnel.name()),
            None => shown.into_owned(),
        },
    };
    match stream {
        Stream::Stdout => report::normal(text),
        Stream::Stderr if job.is_some_and(|job| job.repeated) => {}
        Stream::Stderr => report::warn(text),
    }
    if let (Stream::Stdout, Some(job)) = (stream, job) {
        job.read(line);
    }
    if let (Stream::Stderr, Some(job)) = (stream, job) {
        let mut errors = job.errors.borrow_mut();
        if errors.len() < KEPT_LINES {
            errors.push(line.to_vec());
        }
    }
}

impl Job {
    /// What rsync says of its work.
    fn read(&self, line: &[u8]) {
        if let Some(progress) = rsync_output::progress(line) {
            self.progress.replace(Some(progress));
            return;
        }
        let mut totals = self.totals.get();
        totals.take(line);
        self.totals.set(totals);
    }

    /// Whose it is.
    pub(super) fn member(&self) -> &Rc<Member> {
        &self.member
    }

    pub(super) fn is_of(&self, member: &Rc<Member>) -> bool {
        Rc::ptr_eq(&self.member.sync, &member.sync)
    }

    /// The entries it is about.
    pub(super) fn ids(&self) -> &[DelayId] {
        &self.ids
    }

    /// When it was started.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// How far it is, if it says so.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.progress.borrow().clone()
    }

    /// What it says it sent in all.
    pub(super) fn totals(&self) -> Totals {
        self.totals.get()
    }

    /// What it says went wrong.
    pub(super) fn words(&self) -> Vec<u8> {
        let errors = self.errors.borrow();
        telling(errors.iter().map(Vec::as_slice)).to_vec()
    }

    /// Whether it runs for this sync, or must have ended before this sync begins.
    pub(super) fn is_for(&self, sync: &Rc<RefCell<Sync>>) -> bool {
        let heir = self.heir.as_ref();
        Rc::ptr_eq(&self.member.sync, sync) || heir.is_some_and(|heir| Rc::ptr_eq(heir, sync))
    }

    /// One that only finds out what another would do.
    pub fn trial(trial: Trial, script: Rc<Script>) -> Job {
        Job {
            member: trial.member(),
            script,
            heir: None,
            clears_doubt: false,
            agent: trial.agent(),
            ids: Vec::new(),
            captured: true,
            transfer: None,
            errors: Default::default(),
            repeated: false,
            trial: Some(trial),
            scan: None,
            since: Instant::now(),
            progress: Default::default(),
            totals: Default::default(),
            stuck: Default::default(),
            idle: Default::default(),
        }
    }

    /// One that checks files for a sync.
    pub(super) fn scan(scan: Scan, member: Rc<Member>, script: Rc<Script>, agent: Table) -> Job {
        Job {
            member,
            script,
            heir: None,
            clears_doubt: false,
            agent,
            ids: Vec::new(),
            captured: true,
            transfer: None,
            errors: Default::default(),
            repeated: false,
            trial: None,
            scan: Some(scan),
            since: Instant::now(),
            progress: Default::default(),
            stuck: Default::default(),
            idle: Default::default(),
            totals: Default::default(),
        }
    }

    /// What it checks, if it does.
    pub(super) fn scanning(&self) -> Option<&Scan> {
        self.scan.as_ref()
    }

    /// Whether files may have been read. What ran for Moves alone says nothing of when rsync did.
    pub(super) fn is_transfer(&self, sync: &Sync) -> bool {
        self.etypes(sync).any(|etype| etype != Some(Etype::Move))
    }

    /// Whether it reads the source and is no code of the user's.
    pub(super) fn may_get_stuck(&self) -> bool {
        self.captured && self.trial.is_none() && self.stuck.get() != Seen::Ended
    }

    /// Whether all its processes are on this host.
    pub(super) fn is_local(&self) -> bool {
        let sync = self.member.sync.borrow();
        let target = sync.config.target.as_deref();
        target.is_some_and(|target| !batch::is_remote(target))
    }

    /// What it should have made certain it has not, for its sync and for the one that takes
    /// that one's place.
    fn keep_doubt(&self) {
        for sync in self.heir.iter().chain([&self.member.sync]) {
            sync.borrow_mut().doubtful |= self.clears_doubt;
        }
    }

    /// Whether its sync may have missed changes, should it not come to its end.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.clears_doubt
    }

    /// Whether it compared everything.
    fn is_whole(&self, sync: &Sync) -> bool {
        self.etypes(sync)
            .any(|etype| matches!(etype, Some(Etype::Init | Etype::Full)))
    }

    /// Whether it ran for the startup event.
    fn is_startup(&self, sync: &Sync) -> bool {
        self.etypes(sync).any(|etype| etype == Some(Etype::Init))
    }

    /// What its entries are; `None` for those that have left the queue.
    fn etypes(&self, sync: &Sync) -> impl Iterator<Item = Option<Etype>> {
        self.ids.iter().map(|&id| Some(sync.queue.get(id)?.etype()))
    }
}

impl Job {
    /// How its work ended.
    fn outcome(&self, verdict: Verdict, code: i32) -> outcome::Outcome {
        let sync = self.member.sync.borrow();
        let partly = code == PARTIAL && self.captured && self.is_transfer(&sync);
        match verdict {
            Verdict::Done if !partly => outcome::Outcome::Synced,
            _ => outcome::Outcome::Failed,
        }
    }

    /// What the daemon does itself. It has no output.
    pub(super) fn of_order(request: &OrderRequest, script: Rc<Script>) -> Job {
        Job {
            member: Rc::clone(&request.member),
            script,
            heir: None,
            clears_doubt: false,
            repeated: false,
            trial: None,
            scan: None,
            agent: request.agent.clone(),
            ids: request.ids.clone(),
            captured: false,
            transfer: None,
            errors: Default::default(),
            since: Instant::now(),
            progress: Default::default(),
            totals: Default::default(),
            stuck: Default::default(),
            idle: Default::default(),
        }
    }
}

impl Engine<'_> {
    /// Starts what Lua asked for.
    pub(super) fn launch(&mut self) {
        for request in self.script.host.checks.take() {
            self.look(request);
        }
        for request in self.script.host.orders.take() {
            self.order(request);
        }
        let requests = self.script.host.requests.take();
        for request in requests {
            self.start(request);
        }
    }

    fn start(&mut self, request: SpawnRequest) {
        if let Some(request) = self.try_first(request) {
            self.execute(request);
        }
    }

    /// Starts a process, whatever it may do.
    pub(super) fn execute(&mut self, request: SpawnRequest) {
        if report::enabled("Exec") {
            report::say("Exec", shown(&request));
        }
        let output = match (
            &self.script.settings.log_file,
            self.script.settings.nodaemon,
        ) {
            _ if request.captured => Output::Lines,
            (_, true) => Output::Inherit,
            (Some(file), false) => Output::Append(file.clone()),
            (None, false) => Output::Inherit,
        };
        let command = Command {
            program: request.program.clone(),
            args: request.args,
            stdin: match request.stdin {
                Some(bytes) => Stdin::Bytes(bytes),
                None => Stdin::Inherit,
            },
            output,
            environment: request.environment.clone(),
            priority: {
                let sync = request.member.sync.borrow();
                sync.config.priority.or(self.script.settings.priority)
            },
        };
        let spawned = self.core.children.borrow_mut().spawn(command);
        let mut job = Job {
            member: Rc::clone(&request.member),
            script: Rc::clone(&self.script),
            heir: None,
            agent: request.agent,
            ids: request.ids,
            captured: request.captured,
            transfer: request.transfer,
            clears_doubt: false,
            errors: Default::default(),
            since: Instant::now(),
            progress: Default::default(),
            totals: Default::default(),
            stuck: Default::default(),
            idle: Default::default(),
            repeated: request.captured && request.member.sync.borrow().is_failing(),
            trial: None,
            scan: None,
        };
        let mut sync = request.member.sync.borrow_mut();
        job.clears_doubt = job.is_whole(&sync) && std::mem::take(&mut sync.doubtful);
        drop(sync);
        match spawned {
            Ok(pid) => {
                request.member.sync.borrow_mut().running += 1;
                self.jobs.insert(pid, job);
                self.count_running();
            }
            Err(SpawnError::NotExecutable(_)) => {
                let program = report::escape(&request.program);
                let text = format!("Failed executing [ {program} ]!");
                report::error(&text);
                job.errors.borrow_mut().push(text.into_bytes());
                self.evaluate(job, End::Exit(NOT_EXECUTED));
            }
            Err(SpawnError::Resources(error)) => {
                let mut sync = request.member.sync.borrow_mut();
                sync.doubtful |= job.clears_doubt;
                let wait = sync.failed(&job.ids, self.now);
                let program = report::escape(&request.program);
                let text = format!("cannot start {program}: {error}");
                let name = &sync.config.name;
                report::error(format_args!(
                    "{name}: {text}; trying again in {} s",
                    wait.as_secs()
                ));
                sync.counters.failed(NOT_EXECUTED, text.into_bytes());
            }
        }
    }

    /// Evaluates the children that ended.
    pub(super) fn collect(&mut self) {
        self.collect_orders();
        let children = Rc::clone(&self.core.children);
        let (jobs, host) = (&self.jobs, &self.script.host);
        let mut sink = |pid, stream, line: &[u8]| output(jobs, host, pid, stream, line);
        let ended = children.borrow_mut().reap(&mut sink);
        for child in ended {
            if let Some(job) = self.jobs.remove(&child.pid) {
                self.last_end = Some(SystemTime::now());
                job.member.sync.borrow_mut().running -= 1;
                if let Some(heir) = &job.heir {
                    heir.borrow_mut().held.children -= 1;
                }
                self.count_running();
                match (job.trial, job.scan) {
                    (Some(trial), _) => self.judge(trial, child.end),
                    (None, Some(scan)) => self.scanned(scan, child.end),
                    (trial, scan) => self.evaluate(Job { trial, scan, ..job }, child.end),
                }
            } else {
                self.told_of_reject(child.pid, child.end.code());
                self.hook_ended(child.pid, child.end.code());
                self.tunnel_ended(child.pid, child.end);
            }
        }
    }

    fn count_running(&self) {
        self.script.host.running.set(self.jobs.len());
    }

    /// What the end of a child means for its sync.
    pub(super) fn evaluate(&mut self, job: Job, end: End) {
        let code = end.code();
        job.member.sync.borrow_mut().transferred();
        if job.stuck.get() == Seen::Ended && code != 0 {
            job.keep_doubt();
            let mut sync = job.member.sync.borrow_mut();
            return sync.redo(&job.ids, self.now + micros(SOON));
        }
        if self.falls_back(&job, code) {
            return;
        }
        let signal = match end {
            End::Signal(signal) => Some(signal),
            End::Exit(_) => None,
        };
        let errors = job.errors.borrow().join(&b'\n');
        let collected = job
            .script
            .collect(&job.member, &job.agent, code, signal, &errors);
        let verdict = match collected {
            Ok(verdict) => verdict,
            Err(error) => return self.fail(&error),
        };
        let outcome = job.outcome(verdict, code);
        let told = match verdict {
            Verdict::Redo => None,
            _ => self.account(&job, code, outcome),
        };
        if verdict != Verdict::Done {
            job.keep_doubt();
        }
        let mut sync = job.member.sync.borrow_mut();
        if job.repeated && verdict != Verdict::Again {
            for line in job.errors.borrow().iter() {
                report::warn(format_args!(
                    "{}: {}",
                    sync.config.name,
                    report::escape(line)
                ));
            }
        }
        match verdict {
            Verdict::Done => {
                if job.captured && job.is_transfer(&sync) {
                    partly_done(&mut sync, &job, code, self.now);
                }
                sync.succeeded(&job.ids);
                drop(sync);
                job.member.forget(&job.ids);
            }
            Verdict::Again => {
                let wait = sync.failed(&job.ids, self.now).as_secs();
                let name = &sync.config.name;
                report::warn(match sync.failures() {
                    0 | 1 => format!("{name}: trying again in {wait} s"),
                    count => {
                        format!("{name}: failed {count} times in a row, trying again in {wait} s")
                    }
                });
                drop(sync);
            }
            Verdict::Redo => {
                sync.redo(&job.ids, self.now + micros(SOON));
                drop(sync);
            }
            Verdict::Die => {
                drop(sync);
                self.end_sync(&job, code);
            }
        }
        self.call_hook(&job.member, told);
    }

    /// A sync can't go on: the others do, unless there are none or this was its startup, whose
    /// failure ends a daemon that was not told to insist.
    fn end_sync(&mut self, job: &Job, code: i32) {
        let over = Some(Outcome::Exit(Exit::Failure));
        if self.script.host.startup_failed.get() {
            self.over = over;
            return;
        }
        report::error("Critical exitcode.");
        let mut sync = job.member.sync.borrow_mut();
        let startup = job.is_startup(&sync) && !self.script.insists();
        sync.end(&job.ids, code, self.now);
        let name = sync.config.name.clone();
        drop(sync);
        if !self.members.iter().any(|member| job.is_for(&member.sync)) {
            return;
        }
        if startup || self.members.iter().all(|m| m.sync.borrow().has_ended()) {
            self.over = over;
            return;
        }
        report::error(format_args!(
            "{name}: ended by exit code {code}, its target is not kept current any more; \
             the other syncs go on"
        ));
    }

    /// Whether the transfer failed because the two rsyncs cannot do it this way: then it is done
    /// at once in the other.
    fn falls_back(&mut self, job: &Job, code: i32) -> bool {
        let Some(kind) = job.transfer else {
            return false;
        };
        let mut sync = job.member.sync.borrow_mut();
        let errors = job.errors.borrow();
        if !sync.chooser.failed(kind, code, errors.iter()) {
            return false;
        }
        report::normal(format_args!(
            "{}: this rsync cannot take a list of missing files, using filters from now on",
            sync.config.name
        ));
        sync.redo(&job.ids, self.now);
        true
    }
}

/// rsync's code for "some files were not transferred".
const PARTIAL: i32 = 23;

/// What a transfer that is otherwise done left undone is not forgotten.
fn partly_done(sync: &mut Sync, job: &Job, code: i32, now: Time) {
    if code != PARTIAL {
        return sync.undone.well();
    }
    let wait = sync.partly_failed(&job.ids, &job.errors.borrow(), now);
    let name = &sync.config.name;
    match wait {
        Some(wait) => report::warn(format_args!(
            "{name}: rsync could not do everything (exit code {code}), {} again in {} s",
            match sync.undone.len() {
                0 => "all".to_owned(),
                1 => "1 path".to_owned(),
                count => format!("{count} paths"),
            },
            wait.as_secs()
        )),
        None => report::warn(format_args!(
            "{name}: rsync still could not do everything (exit code {code})"
        )),
    }
}

/// A command as the category Exec shows it, the names of a list on lines of their own.
fn shown(request: &SpawnRequest) -> String {
    let mut words = vec![report::escape(&request.program).into_owned()];
    if let Some(stdin) = &request.stdin {
        // A list of names ends each with a zero byte; other texts have lines.
        let from0 = request.args.iter().any(|word| word == b"--from0");
        let end = if from0 { 0 } else { b'\n' };
        let lines: Vec<_> = stdin
            .split(|&byte| byte == end)
            .map(report::escape)
            .collect();
        words.push("[<]".into());
        words.push(format!("[{}]", lines.join("\n")));
    }
    let arguments = request.args.iter();
    words.extend(arguments.map(|word| format!("[{}]", report::escape(word))));
    words.join(" ")
}
