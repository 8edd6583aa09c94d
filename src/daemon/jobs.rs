//! Children at work for a sync: from what Lua asked for to what their end means.

use std::collections::HashMap;
use std::rc::Rc;

use mlua::Table;

use super::deletions::Trial;
use super::engine::{Engine, Outcome};
use super::tunnels;
use crate::batch;
use crate::exit::Exit;
use crate::process::{Command, End, Output, Pid, SpawnError, Stdin, Stream};
use crate::queue::{DelayId, Etype, Time};
use crate::report;
use crate::script::{Host, Member, SpawnRequest, Verdict};
use crate::sync::Sync;

/// What lsyncd's children exit with when their program can't be executed.
const NOT_EXECUTED: i32 = 255;

/// The last lines of a child's error output are kept, to know a failure by its words.
const KEPT_LINES: usize = 50;

/// One child at work for a sync.
pub struct Job {
    member: Rc<Member>,
    agent: Table,
    ids: Vec<DelayId>,
    captured: bool,
    transfer: Option<batch::Kind>,
    errors: std::cell::RefCell<Vec<Vec<u8>>>,
    /// The same work failed before: what it says about that is told once, when it is over.
    repeated: bool,
    /// It is only the trial of another.
    trial: Option<Trial>,
}

/// A line of output of a child: into the log, with the name of the sync or tunnel.
pub fn output(jobs: &HashMap<Pid, Job>, host: &Host, pid: Pid, stream: Stream, line: &[u8]) {
    let job = jobs.get(&pid);
    if let (Some(trial), Stream::Stdout) = (job.and_then(|job| job.trial.as_ref()), stream) {
        return trial.line(line);
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
    if let (Stream::Stderr, Some(job)) = (stream, job) {
        let mut errors = job.errors.borrow_mut();
        if errors.len() < KEPT_LINES {
            errors.push(line.to_vec());
        }
    }
}

impl Job {
    /// One that only finds out what another would do.
    pub fn trial(trial: Trial) -> Job {
        Job {
            member: trial.member(),
            agent: trial.agent(),
            ids: Vec::new(),
            captured: true,
            transfer: None,
            errors: Default::default(),
            repeated: false,
            trial: Some(trial),
        }
    }

    /// Whether files may have been read. What ran for Moves alone says nothing of when rsync did.
    fn is_transfer(&self, sync: &Sync) -> bool {
        let etype = |id: &DelayId| Some(sync.queue.get(*id)?.etype());
        self.ids.iter().any(|id| etype(id) != Some(Etype::Move))
    }
}

impl Engine<'_> {
    /// Starts what Lua asked for.
    pub(super) fn launch(&mut self) {
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
        };
        let spawned = self.core.children.borrow_mut().spawn(command);
        let job = Job {
            member: Rc::clone(&request.member),
            agent: request.agent,
            ids: request.ids,
            captured: request.captured,
            transfer: request.transfer,
            errors: Default::default(),
            repeated: request.captured && request.member.sync.borrow().is_failing(),
            trial: None,
        };
        match spawned {
            Ok(pid) => {
                request.member.sync.borrow_mut().running += 1;
                self.jobs.insert(pid, job);
                self.count_running();
            }
            Err(SpawnError::NotExecutable(_)) => {
                let program = report::escape(&request.program);
                report::error(format_args!("Failed executing [ {program} ]!"));
                self.evaluate(job, End::Exit(NOT_EXECUTED));
            }
            Err(SpawnError::Resources(error)) => {
                let mut sync = request.member.sync.borrow_mut();
                let wait = sync.failed(&job.ids, self.now);
                let name = &sync.config.name;
                let program = report::escape(&request.program);
                report::error(format_args!(
                    "{name}: cannot start {program}: {error}; trying again in {} s",
                    wait.as_secs()
                ));
            }
        }
    }

    /// Evaluates the children that ended.
    pub(super) fn collect(&mut self) {
        let children = Rc::clone(&self.core.children);
        let (jobs, host) = (&self.jobs, &self.script.host);
        let mut sink = |pid, stream, line: &[u8]| output(jobs, host, pid, stream, line);
        let ended = children.borrow_mut().reap(&mut sink);
        for child in ended {
            if let Some(job) = self.jobs.remove(&child.pid) {
                job.member.sync.borrow_mut().running -= 1;
                self.count_running();
                match job.trial {
                    Some(trial) => self.judge(trial, child.end),
                    None => self.evaluate(job, child.end),
                }
            } else {
                self.tunnel_ended(child.pid, child.end);
            }
        }
    }

    fn count_running(&self) {
        self.script.host.running.set(self.jobs.len());
    }

    /// What the end of a child means for its sync.
    fn evaluate(&mut self, job: Job, end: End) {
        let code = end.code();
        job.member.sync.borrow_mut().transferred();
        if self.falls_back(&job, code) {
            return;
        }
        let signal = match end {
            End::Signal(signal) => Some(signal),
            End::Exit(_) => None,
        };
        let errors = job.errors.borrow().join(&b'\n');
        let collected = self
            .script
            .collect(&job.member, &job.agent, code, signal, &errors);
        let verdict = match collected {
            Ok(verdict) => verdict,
            Err(error) => return self.fail(&error),
        };
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
                let wait = sync.failed(&job.ids, self.now);
                report::say(
                    "Delay",
                    format_args!("{}: again in {} s", sync.config.name, wait.as_secs()),
                );
            }
            Verdict::Die => {
                if !self.script.host.startup_failed.get() {
                    report::error("Critical exitcode.");
                }
                self.over = Some(Outcome::Exit(Exit::Failure));
            }
        }
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
        let lines: Vec<_> = stdin
            .split(|&byte| byte == 0 || byte == b'\n')
            .map(report::escape)
            .collect();
        words.push("[<]".into());
        words.push(format!("[{}]", lines.join("\n")));
    }
    let arguments = request.args.iter();
    words.extend(arguments.map(|word| format!("[{}]", report::escape(word))));
    words.join(" ")
}
